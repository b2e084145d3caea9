//! The locks, atomics, threads and wake-ups of everything that threads share, under one name.
//!
//! They are the ones of std and mio, except in the tests of a build with `--cfg loom` (`make race`): there they are the ones
//! of [loom](https://docs.rs/loom), which runs a model under every order of its threads' steps. A normal build has neither
//! the dependency nor a cost. `Arc` is std's in both: the models judge what it holds, not when it is freed.

#[cfg(not(all(test, loom)))]
mod types {
    pub(crate) use mio::Waker;
    pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
    pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
    pub(crate) use std::thread;
}

#[cfg(all(test, loom))]
mod types {
    use std::io;

    use loom::sync::Notify;
    use mio::{Registry, Token};

    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
    pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};
    pub(crate) use loom::thread;

    /// Stands for the eventfd of a loop: a wake-up is kept until the loop waits, and several are one.
    pub(crate) struct Waker(Notify);

    impl Waker {
        pub fn new(_: &Registry, _: Token) -> io::Result<Waker> {
            Ok(Waker::unregistered())
        }

        pub fn unregistered() -> Waker {
            Waker(Notify::new())
        }

        pub fn wake(&self) -> io::Result<()> {
            self.0.notify();
            Ok(())
        }

        /// Waits as the poll of a loop does. A wake-up that never comes is a deadlock, which loom reports.
        pub fn wait(&self) {
            self.0.wait();
        }
    }
}

pub(crate) use types::*;
