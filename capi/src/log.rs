//! The log of the process, for a callback.

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use log::{Level, LevelFilter, Log, Metadata, Record};
use seaprox_proxies::embedded;

use crate::error::Error;
use crate::numbers;

/// A function that is told each line.
pub type LogFn = Option<unsafe extern "C" fn(c_int, *const c_char, usize, *const c_char, usize, *mut c_void)>;

/// The log that is handed to the callback.
struct Forwarded;

/// The callback with its pointer.
#[derive(Clone, Copy)]
struct Sink(LogFn, *mut c_void);

// SAFETY: the header says that any thread calls the function with the pointer.
unsafe impl Send for Sink {}

static SINK: Mutex<Sink> = Mutex::new(Sink(None, std::ptr::null_mut()));
static INSTALL: Once = Once::new();

thread_local! {
    /// The callback runs: lines that it causes are dropped.
    static RUNS: Cell<bool> = const { Cell::new(false) };
}

export! {
    fn seaprox_set_log(level: c_int, callback: LogFn, user: *mut c_void) {
        let filter = match level {
            numbers::SEAPROX_LOG_OFF => LevelFilter::Off,
            numbers::SEAPROX_LOG_ERROR => LevelFilter::Error,
            numbers::SEAPROX_LOG_WARN => LevelFilter::Warn,
            numbers::SEAPROX_LOG_INFO => LevelFilter::Info,
            numbers::SEAPROX_LOG_DEBUG => LevelFilter::Debug,
            numbers::SEAPROX_LOG_TRACE => LevelFilter::Trace,
            _ => return Err(Error::invalid("a level is SEAPROX_LOG_OFF to SEAPROX_LOG_TRACE")),
        };
        *sink() = Sink(callback, user);
        // A Rust program around this library may have a logger of its own, which stays.
        INSTALL.call_once(|| _ = log::set_logger(&Forwarded));
        log::set_max_level(if callback.is_some() { filter } else { LevelFilter::Off });
        Ok(0)
    }
}

impl Log for Forwarded {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let Sink(Some(callback), user) = *sink() else { return };
        if RUNS.try_with(|runs| runs.replace(true)).unwrap_or(true) {
            return;
        }
        let (target, text) = (record.target(), embedded::log_text(record));
        let level = match record.level() {
            Level::Error => numbers::SEAPROX_LOG_ERROR,
            Level::Warn => numbers::SEAPROX_LOG_WARN,
            Level::Info => numbers::SEAPROX_LOG_INFO,
            Level::Debug => numbers::SEAPROX_LOG_DEBUG,
            Level::Trace => numbers::SEAPROX_LOG_TRACE,
        };
        // SAFETY: the header says what the function is called with; both texts live until it returns.
        unsafe { callback(level, target.as_ptr().cast(), target.len(), text.as_ptr().cast(), text.len(), user) };
        RUNS.set(false);
    }

    fn flush(&self) {}
}

fn sink() -> MutexGuard<'static, Sink> {
    SINK.lock().unwrap_or_else(PoisonError::into_inner)
}
