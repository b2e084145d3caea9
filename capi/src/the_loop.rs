//! The loop: its making and its end, its turns, and calls from other threads.

use std::ffi::{c_int, c_void};
use std::time::Duration;

use seaprox::{Proxy, Workers};

use crate::current;
use crate::error::Error;
use crate::handle::{self, RawLoop, Record, record, remote};
use crate::memory::{Out, Struct};
use crate::observer::Bell;
use crate::options::seaprox_options;

/// A function that runs in the loop.
pub type PostFn = Option<unsafe extern "C" fn(RawLoop, *mut c_void)>;

/// A pointer of the caller on its way to the thread of the loop. The caller says that it may go there.
struct Sent(*mut c_void);

// SAFETY: it is not followed here; the caller passes it to another thread on purpose.
unsafe impl Send for Sent {}

impl Sent {
    fn take(self) -> *mut c_void {
        self.0
    }
}

export! {
    fn seaprox_new(options: Struct<seaprox_options>, result: Out<RawLoop>) {
        result.set(std::ptr::null_mut());
        let options = options.read()?;
        let config = options.config()?;
        crate::signal::ignore_sigpipe();
        let workers = Workers::start(options.threads(), config.limits.lookups)?;
        let mut proxy = Proxy::new(config, Some(workers.clone()))?;
        let bell = Bell::default();
        proxy.core().set_observer(Box::new(bell.clone()));
        let record = Record::keep(proxy, workers);
        bell.belongs_to(&record);
        result.set(record.raw());
        Ok(0)
    }

    fn seaprox_free(raw: RawLoop) {
        let record = record(raw)?;
        if current::is_lent(record.handle) || record.proxy.try_borrow_mut().is_err() {
            return Err(Error::busy());
        }
        end(&record)?;
        record.forget();
        Ok(0)
    }

    fn seaprox_run(raw: RawLoop) {
        let record = record(raw)?;
        while turn(&record, None)? {}
        Ok(0)
    }

    fn seaprox_run_one(raw: RawLoop, timeout_ms: c_int) {
        let record = record(raw)?;
        let patience = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
        turn(&record, patience).map(c_int::from)
    }

    fn seaprox_finish(raw: RawLoop, grace_ms: u32) {
        remote(raw)?.finish(Duration::from_millis(grace_ms.into()));
        Ok(0)
    }

    fn seaprox_wake(raw: RawLoop) {
        remote(raw)?.wake();
        Ok(0)
    }

    fn seaprox_post(raw: RawLoop, callback: PostFn, user: *mut c_void) {
        let callback = callback.ok_or_else(|| Error::invalid("the function is null"))?;
        let (handle, user) = (raw as usize, Sent(user));
        remote(raw)?.call(move |core| {
            let user = user.take();
            // SAFETY: the header says what the function is called with.
            current::lend(handle, core, || unsafe { callback(handle::raw(handle), user) });
        })?;
        Ok(0)
    }

    fn seaprox_timeout(raw: RawLoop, timeout_ms: Out<c_int>) {
        timeout_ms.set(0);
        let record = record(raw)?;
        let proxy = record.proxy.try_borrow().map_err(|_| Error::busy())?;
        let ms = |time: Duration| c_int::try_from(time.as_micros().div_ceil(1000)).unwrap_or(c_int::MAX);
        timeout_ms.set(proxy.next_timeout().map_or(-1, ms));
        Ok(0)
    }

    fn seaprox_fd(raw: RawLoop) {
        use std::os::fd::{AsFd, AsRawFd};

        let record = record(raw)?;
        let proxy = record.proxy.try_borrow().map_err(|_| Error::busy())?;
        Ok(proxy.as_fd().as_raw_fd())
    }
}

/// Runs one turn of a loop. Returns false when the loop has ended.
pub fn turn(record: &Record, patience: Option<Duration>) -> Result<bool, Error> {
    if current::is_lent(record.handle) {
        return Err(Error::busy());
    }
    let mut proxy = record.proxy.try_borrow_mut().map_err(|_| Error::busy())?;
    Ok(proxy.turn(patience)?)
}

/// Ends a loop, so that each connection gets its last callback; those, too, that came after the loop had been finished.
fn end(record: &Record) -> Result<(), Error> {
    record.proxy.try_borrow_mut().map_err(|_| Error::busy())?.core().stop();
    // The peers of links are told for a second at most, and each turn is bounded.
    while turn(record, Some(Duration::from_millis(100)))? {}
    Ok(())
}
