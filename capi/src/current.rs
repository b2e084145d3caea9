//! The loops that callbacks were lent. While a callback runs, the library has borrowed the loop to it, so the functions that
//! the callback calls use that loan, and not the loop itself.
//!
//! ```text
//!   seaprox_run ─► turn ─► callback ── lend ──► C ── borrow ──► verb on the lent loop
//! ```
//! A loan is borrowed once at a time: code that runs in the middle of a verb, such as a hook, finds it in use, and its call is
//! answered with `SEAPROX_ERR_BUSY`.

use std::cell::RefCell;
use std::ptr::NonNull;

use seaprox::Loop;

use crate::error::Error;

/// A loop that was lent to a callback which runs.
struct Loan {
    /// The handle of the loop.
    handle: usize,
    core: NonNull<Loop<'static>>,
    is_borrowed: bool,
}

/// A loan in use.
pub struct Borrowed {
    index: usize,
    core: NonNull<Loop<'static>>,
}

thread_local! {
    static LOANS: RefCell<Vec<Loan>> = const { RefCell::new(Vec::new()) };
}

/// Runs a callback, whose calls use the loop.
pub fn lend<T>(handle: usize, core: &mut Loop<'_>, callback: impl FnOnce() -> T) -> T {
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            LOANS.with_borrow_mut(Vec::pop);
        }
    }
    let core = NonNull::from(core).cast();
    LOANS.with_borrow_mut(|loans| loans.push(Loan { handle, core, is_borrowed: false }));
    let _end = End;
    callback()
}

/// Borrows the loop with this handle from the callback that runs; none if no callback of this loop runs in this thread.
pub fn borrow(handle: usize) -> Result<Option<Borrowed>, Error> {
    LOANS.with_borrow_mut(|loans| {
        let Some(index) = loans.iter().rposition(|loan| loan.handle == handle) else { return Ok(None) };
        let loan = &mut loans[index];
        if std::mem::replace(&mut loan.is_borrowed, true) {
            return Err(Error::busy());
        }
        Ok(Some(Borrowed { index, core: loan.core }))
    })
}

/// Returns true if a callback of this loop runs in this thread.
pub fn is_lent(handle: usize) -> bool {
    LOANS.with_borrow(|loans| loans.iter().any(|loan| loan.handle == handle))
}

impl Borrowed {
    /// Runs a function with the loop.
    pub fn run<T>(mut self, call: impl FnOnce(&mut Loop<'_>) -> T) -> T {
        // SAFETY: `lend` holds the exclusive reference until its callback returns, which is not before this call returns, since
        // both are in one thread. It does not use it meanwhile, and the flag of the loan keeps it from being borrowed twice.
        call(unsafe { self.core.as_mut() })
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        LOANS.with_borrow_mut(|loans| loans.get_mut(self.index).into_iter().for_each(|loan| loan.is_borrowed = false));
    }
}
