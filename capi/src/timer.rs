//! Timers of the caller.

use std::ffi::c_void;
use std::time::Duration;

use crate::current::lend;
use crate::error::Error;
use crate::handle::{self, RawLoop, id, with};
use crate::memory::Out;

/// A function that is called after a time.
pub type TimerFn = Option<unsafe extern "C" fn(RawLoop, *mut c_void)>;

export! {
    fn seaprox_after(raw: RawLoop, ms: u64, callback: TimerFn, user: *mut c_void, timer: Out<u64>) {
        timer.set(0);
        let callback = callback.ok_or_else(|| Error::invalid("the function is null"))?;
        with(raw, |record, core| {
            let handle = record.handle;
            let id = core.after(Duration::from_millis(ms), move |core| {
                // SAFETY: the header says what the function is called with.
                lend(handle, core, || unsafe { callback(handle::raw(handle), user) });
            })?;
            timer.set(id.to_u64());
            Ok(0)
        })
    }

    fn seaprox_cancel(raw: RawLoop, timer: u64) {
        with(raw, |_, core| Ok(core.cancel(id(timer)?)?))?;
        Ok(0)
    }
}
