//! Watches: descriptors of the caller, whose readiness the loop reports.

use std::ffi::{c_int, c_void};
use std::os::fd::BorrowedFd;

use seaprox::{Interest, Loop, Readiness, VerbError};

use crate::current::lend;
use crate::error::Error;
use crate::handle::{self, RawLoop, Record, with};
use crate::numbers::{SEAPROX_CLOSED, SEAPROX_FAILED, SEAPROX_READABLE, SEAPROX_WRITABLE};

/// A function that is called while a descriptor is ready.
pub type PollFn = Option<unsafe extern "C" fn(RawLoop, c_int, c_int, *mut c_void)>;

export! {
    fn seaprox_poll_add(raw: RawLoop, fd: c_int, events: c_int, callback: PollFn, user: *mut c_void) {
        let callback = callback.ok_or_else(|| Error::invalid("the function is null"))?;
        let interest = interest(events)?;
        if fd < 0 {
            return Err(Error::invalid("the descriptor is negative"));
        }
        with(raw, |record, core| {
            forget_ended(record, core, fd)?;
            // SAFETY: the header demands that the descriptor is open until it is removed.
            let descriptor = unsafe { BorrowedFd::borrow_raw(fd) };
            let handle = record.handle;
            let id = core.watch(descriptor, interest, move |core, _, seen| {
                // SAFETY: the header says what the function is called with.
                lend(handle, core, || unsafe { callback(handle::raw(handle), fd, number(seen), user) });
            })?;
            record.watches.borrow_mut().insert(fd, (id, interest));
            Ok(0)
        })
    }

    fn seaprox_poll_modify(raw: RawLoop, fd: c_int, events: c_int) {
        let interest = interest(events)?;
        with(raw, |record, core| {
            let (id, _) = record.watches.borrow().get(&fd).copied().ok_or(VerbError::Stale)?;
            core.modify_watch(id, interest)?;
            record.watches.borrow_mut().insert(fd, (id, interest));
            Ok(0)
        })
    }

    fn seaprox_poll_remove(raw: RawLoop, fd: c_int) {
        with(raw, |record, core| {
            let (id, _) = record.watches.borrow_mut().remove(&fd).ok_or(VerbError::Stale)?;
            core.unwatch(id)?;
            Ok(0)
        })
    }
}

/// Answers that a descriptor is watched already. A watch that has ended by itself, because its descriptor was closed, is in
/// nobody's way.
fn forget_ended(record: &Record, core: &mut Loop<'_>, fd: c_int) -> Result<(), Error> {
    let known = record.watches.borrow().get(&fd).copied();
    // A descriptor that was closed cannot be changed any more, also if another one has its number. To what it waits for already
    // is no change.
    if known.is_some_and(|(id, interest)| core.modify_watch(id, interest).is_ok()) {
        return Err(VerbError::Already.into());
    }
    if let Some((id, _)) = record.watches.borrow_mut().remove(&fd) {
        // It has ended, or ends now.
        let _ = core.unwatch(id);
    }
    Ok(())
}

fn interest(events: c_int) -> Result<Interest, Error> {
    match events {
        SEAPROX_READABLE => Ok(Interest::Readable),
        SEAPROX_WRITABLE => Ok(Interest::Writable),
        _ if events == SEAPROX_READABLE | SEAPROX_WRITABLE => Ok(Interest::Both),
        _ => Err(Error::invalid("events are SEAPROX_READABLE, SEAPROX_WRITABLE, or both")),
    }
}

fn number(seen: Readiness) -> c_int {
    let bit = |is_set, bit| if is_set { bit } else { 0 };
    bit(seen.readable, SEAPROX_READABLE)
        | bit(seen.writable, SEAPROX_WRITABLE)
        | bit(seen.closed, SEAPROX_CLOSED)
        | bit(seen.error, SEAPROX_FAILED)
}
