//! A waker that runs a function in a loop, so that the loop drives pipes that have no descriptor.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

use crate::engine::control::Loop;
use crate::engine::mailbox::Remote;

/// Returns a waker that runs `run` in the loop of `remote`. Wake-ups that come before it runs are one.
///
/// A pipe with a descriptor needs no waker: the loop [watches](crate::Core::watch) the descriptor, with the interest that
/// [`wants_read`](super::Pipe::wants_read) and [`wants_write`](super::Pipe::wants_write) return.
pub fn loop_waker(remote: &Remote, run: impl Fn(&mut Loop<'_>) + Send + Sync + 'static) -> Waker {
    Arc::new(LoopWaker { remote: remote.clone(), run: Box::new(run), posted: AtomicBool::new(false) }).into()
}

struct LoopWaker {
    remote: Remote,
    run: Box<dyn Fn(&mut Loop<'_>) + Send + Sync>,
    /// A call is on its way to the loop.
    posted: AtomicBool,
}

impl Wake for LoopWaker {
    fn wake(self: Arc<Self>) {
        if self.posted.swap(true, Ordering::AcqRel) {
            return;
        }
        let waker = Arc::clone(&self);
        let call = move |core: &mut Loop<'_>| {
            waker.posted.store(false, Ordering::Release);
            (waker.run)(core);
        };
        self.remote.call_sole(call);
    }
}
