//! Errors: one promised list of negative numbers, and the text of the last one of each thread.

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_int};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use seaprox::{DescriptorError, Full, VerbError};

use crate::memory::{Buffer, Out};
use crate::numbers::{
    SEAPROX_ERR_ALREADY, SEAPROX_ERR_BUSY, SEAPROX_ERR_CONFIG, SEAPROX_ERR_FULL, SEAPROX_ERR_INVALID, SEAPROX_ERR_OVER,
    SEAPROX_ERR_PANIC, SEAPROX_ERR_STALE, SEAPROX_ERR_THREAD,
};

/// Declares functions of the C interface. Each returns 0 or a count, or the negative number of its error.
macro_rules! export {
    ($(fn $name:ident($($arg:ident: $type:ty),* $(,)?) $body:block)*) => {$(
        #[allow(missing_docs, reason = "the header has the comment")]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($arg: $type),*) -> std::ffi::c_int {
            $crate::error::guard(move || $body)
        }
    )*};
}

/// Declares functions of the C interface that return another value; `$none` if a panic ends them.
macro_rules! export_value {
    ($(fn $name:ident($($arg:ident: $type:ty),* $(,)?) -> $result:ty, $none:expr; $body:block)*) => {$(
        #[allow(missing_docs, reason = "the header has the comment")]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($arg: $type),*) -> $result {
            let call = std::panic::AssertUnwindSafe(move || $body);
            std::panic::catch_unwind(call).unwrap_or($none)
        }
    )*};
}

/// Declares functions of the C interface that return an id or a pointer of a loop, whose absence is `$none`. They tell an error
/// from a record that there is not by the text of the last error, which is empty then.
macro_rules! export_found {
    ($(fn $name:ident($($arg:ident: $type:ty),* $(,)?) -> $result:ty, $none:expr; $body:block)*) => {$(
        #[allow(missing_docs, reason = "the header has the comment")]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($arg: $type),*) -> $result {
            $crate::error::guard_found($none, move || $body)
        }
    )*};
}

/// An error of a function, as the caller gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The promised number, or the negated errno of the system.
    pub code: c_int,
    /// The text for people.
    pub text: String,
}

impl Error {
    /// Makes an error.
    pub fn new(code: c_int, text: impl Into<String>) -> Error {
        Error { code, text: text.into() }
    }

    /// Makes the error of a parameter that cannot be meant.
    pub fn invalid(text: impl Into<String>) -> Error {
        Error::new(VerbError::Invalid.code(), text)
    }

    /// Makes the error of a call at a moment at which the loop cannot be used.
    pub fn busy() -> Error {
        Error::new(SEAPROX_ERR_BUSY, "the loop runs: this function cannot be called here")
    }

    /// Makes the error of a configuration.
    pub fn config(error: impl ToString) -> Error {
        Error::new(SEAPROX_ERR_CONFIG, error.to_string())
    }
}

impl From<VerbError> for Error {
    fn from(error: VerbError) -> Error {
        Error::new(error.code(), error.to_string())
    }
}

impl From<DescriptorError> for Error {
    fn from(error: DescriptorError) -> Error {
        match error {
            DescriptorError::System(error) => error.into(),
            error => Error::new(error.code(), error.to_string()),
        }
    }
}

impl From<Full> for Error {
    fn from(error: Full) -> Error {
        Error::new(VerbError::Full.code(), error.to_string())
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        Error::new(system_code(&error), error.to_string())
    }
}

/// Returns the number of an error of the system: its negated errno, also if a text stands around it. One that would be taken for an
/// error of the header, which means something else, becomes the nearest one that would not.
pub fn system_code(error: &io::Error) -> c_int {
    match errno_of(error) {
        None | Some(libc::EINVAL) => SEAPROX_ERR_INVALID,
        Some(libc::ENOSPC) => SEAPROX_ERR_FULL,
        Some(libc::EALREADY) => SEAPROX_ERR_ALREADY,
        Some(libc::EPERM) => -libc::EACCES,
        Some(libc::EBUSY) => -libc::EAGAIN,
        Some(errno) if OURS.contains(&-errno) => -libc::EIO,
        Some(errno) => -errno,
    }
}

fn errno_of(error: &io::Error) -> Option<i32> {
    let mut at: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = at {
        match error.downcast_ref::<io::Error>() {
            Some(error) if error.raw_os_error().is_some() => return error.raw_os_error(),
            // The error inside may be an error of the system, or have it as its source.
            Some(error) => at = error.get_ref().map(|inner| inner as _),
            None => at = error.source(),
        }
    }
    None
}

/// The errors of the header.
const OURS: [c_int; 9] = [
    SEAPROX_ERR_THREAD,
    SEAPROX_ERR_BUSY,
    SEAPROX_ERR_INVALID,
    SEAPROX_ERR_FULL,
    SEAPROX_ERR_STALE,
    SEAPROX_ERR_CONFIG,
    SEAPROX_ERR_OVER,
    SEAPROX_ERR_ALREADY,
    SEAPROX_ERR_PANIC,
];

/// Runs the body of a function. Keeps the text of its error, and ends a panic.
pub fn guard(body: impl FnOnce() -> Result<c_int, Error>) -> c_int {
    run(body).unwrap_or_else(|error| {
        keep(error.text);
        error.code
    })
}

/// Does the same for a function that returns `none` after an error. Without an error there is no text of a last error.
pub fn guard_found<T>(none: T, body: impl FnOnce() -> Result<T, Error>) -> T {
    let result = run(body);
    keep(result.as_ref().err().map(|error| error.text.clone()).unwrap_or_default());
    result.unwrap_or(none)
}

fn run<T>(body: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let panicked = |_| Err(Error::new(SEAPROX_ERR_PANIC, "a defect of seaprox: the function panicked"));
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(panicked)
}

fn keep(text: String) {
    // A thread that ends has no text any more.
    let _ = LAST.try_with(|last| last.replace(text));
}

thread_local! {
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

export! {
    fn seaprox_last_error(buf: Buffer, cap: usize, len: Out<usize>) {
        let text = LAST.try_with(|last| last.borrow().clone()).unwrap_or_default();
        buf.fill(cap, len, text.as_bytes());
        Ok(0)
    }
}

export_value! {
    fn seaprox_strerror(error: c_int) -> *const c_char, c"".as_ptr(); {
        text_of(error).as_ptr()
    }
}

fn text_of(error: c_int) -> &'static CStr {
    match error {
        0.. => c"no error",
        SEAPROX_ERR_THREAD => c"the loop belongs to another thread",
        SEAPROX_ERR_BUSY => c"the loop runs: this function cannot be called here",
        SEAPROX_ERR_INVALID => c"a parameter is invalid",
        SEAPROX_ERR_FULL => c"there is no room",
        SEAPROX_ERR_STALE => c"the handle names nothing",
        SEAPROX_ERR_CONFIG => c"the configuration is wrong: see seaprox_last_error",
        SEAPROX_ERR_OVER => c"the connection is over",
        SEAPROX_ERR_ALREADY => c"it is there already",
        SEAPROX_ERR_PANIC => c"a defect of seaprox",
        _ => c"an error of the system: the number is a negated errno",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_is_not_taken_for_an_error_of_the_header_and_is_found_under_a_text() {
        let code = |errno| Error::from(io::Error::from_raw_os_error(errno)).code;
        assert_eq!([code(libc::EPERM), code(libc::EBUSY)], [-libc::EACCES, -libc::EAGAIN]);
        assert_eq!(code(libc::EADDRINUSE), -libc::EADDRINUSE);
        assert_eq!([code(libc::EBADMSG), code(libc::ESHUTDOWN)], [-libc::EIO; 2]);
        assert_eq!([code(libc::EINVAL), code(libc::ENOSPC)], [SEAPROX_ERR_INVALID, SEAPROX_ERR_FULL]);
        assert_eq!(Error::from(io::Error::other("a text alone")).code, SEAPROX_ERR_INVALID);
        // A text around it, as of a Unix socket whose owner cannot be set.
        #[derive(Debug)]
        struct Around(io::Error);
        impl std::fmt::Display for Around {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "the owner cannot be set: {}", self.0)
            }
        }
        impl std::error::Error for Around {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                Some(&self.0)
            }
        }
        let around = io::Error::other(Around(io::Error::from_raw_os_error(libc::EPERM)));
        assert_eq!(Error::from(around).code, -libc::EACCES);
    }
}
