//! Descriptors of the caller as sides.

use std::ffi::{c_int, c_void};
use std::os::fd::{FromRawFd, OwnedFd};

use seaprox::Duplex;

use crate::error::Error;
use crate::handle::{RawLoop, id, with};
use crate::handler::{Callbacks, seaprox_handler};
use crate::memory::{Chars, Out, Struct};

export! {
    fn seaprox_adopt(
        raw: RawLoop,
        fd: c_int,
        write_fd: c_int,
        kind: Chars,
        kind_len: usize,
        handler: Struct<seaprox_handler>,
        user: *mut c_void,
        connection: Out<u64>,
    ) {
        connection.set(0);
        let source = duplex(fd, write_fd)?;
        let kind = kind.some(kind_len)?.unwrap_or("c").to_owned();
        with(raw, |record, core| {
            let callbacks = Callbacks::read(record, handler, user)?;
            connection.set(core.adopt(source, kind, Box::new(callbacks))?.to_u64());
            Ok(0)
        })
    }

    fn seaprox_connection_connect_fd(raw: RawLoop, connection: u64, fd: c_int, write_fd: c_int) {
        let dest = duplex(fd, write_fd)?;
        with(raw, |_, core| Ok(core.connection(id(connection)?)?.connect_with(dest)?))?;
        Ok(0)
    }
}

/// Takes descriptors over: one for both directions, if `write_fd` is negative or the same.
pub fn duplex(fd: c_int, write_fd: c_int) -> Result<Duplex, Error> {
    if fd < 0 {
        return Err(Error::invalid("the descriptor is negative"));
    }
    // SAFETY: the header says that the descriptors are open, and that the loop owns them from now on.
    let own = |fd| unsafe { OwnedFd::from_raw_fd(fd) };
    if write_fd < 0 || write_fd == fd { Ok(Duplex::new(own(fd))) } else { Ok(Duplex::pair(own(fd), own(write_fd))) }
}
