//! The version of the library, and the kinds of ids.

use std::ffi::{c_char, c_int};

use seaprox::Id;

use crate::numbers::SEAPROX_KIND_NONE;

export_value! {
    fn seaprox_version() -> *const c_char, c"".as_ptr(); {
        concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
    }

    fn seaprox_kind(id: u64) -> c_int, 0; {
        Id::from_u64(id).map_or(SEAPROX_KIND_NONE, |id| id.kind() as c_int)
    }
}
