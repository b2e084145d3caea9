//! A thread that writes files of keys, so that loops never wait for the disk.

use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Work for the thread.
type Job = Box<dyn FnOnce() + Send>;

/// The thread, which the first work starts, and its queue. The thread ends with this value.
#[derive(Default)]
pub struct Clerk(Mutex<Option<SyncSender<Job>>>);

impl Clerk {
    /// Gives work to the thread. Without a thread, or at the limit of the queue, the work is dropped, so that the peers that it
    /// is about are refused.
    pub fn post(&self, job: impl FnOnce() + Send + 'static) {
        let mut sender = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sender.is_none() {
            *sender = start();
        }
        let Some(sender) = &*sender else { return };
        if let Err(TrySendError::Full(_)) = sender.try_send(Box::new(job)) {
            log::warn!(target: "seaprox::link", limit = JOBS_MAX; "files of keys are written too slowly, and a peer is refused");
        }
    }
}

fn start() -> Option<SyncSender<Job>> {
    let (sender, receiver) = sync_channel::<Job>(JOBS_MAX);
    let body = move || receiver.into_iter().for_each(|job| job());
    thread::Builder::new().name("key-files".into()).spawn(body).ok().map(|_| sender)
}

/// Work that waits.
const JOBS_MAX: usize = 64;
