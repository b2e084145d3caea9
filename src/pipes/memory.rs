//! A pair of connected pipes in memory, for tests and for parts of one process.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use crate::sys::BorrowedSocket;

use super::error::PipeError;
use super::pipe::{Pipe, Readiness};
use super::queue::take_front;

/// One end of a pair. The ends may be used by different threads.
#[derive(Debug)]
pub struct MemoryPipe {
    shared: Arc<Mutex<Shared>>,
    /// The index of this end, and of the bytes that it sends.
    end: usize,
    capacity: usize,
    fin_received: bool,
}

#[derive(Debug, Default)]
struct Shared {
    ends: [End; 2],
}

#[derive(Debug, Default)]
struct End {
    /// Bytes that this end has sent and the other end has not received.
    sent: VecDeque<u8>,
    fin_sent: bool,
    /// The pipe was dropped, so that nothing reads at this end.
    gone: bool,
    /// A send had no room.
    waits_for_room: bool,
    broken: Option<PipeError>,
    waker: Option<Waker>,
}

impl MemoryPipe {
    /// Returns two connected ends. At most `capacity` bytes, but at least one, are on their way in each direction.
    pub fn pair(capacity: usize) -> (MemoryPipe, MemoryPipe) {
        let shared = Arc::new(Mutex::new(Shared::default()));
        let end = |end| MemoryPipe { shared: Arc::clone(&shared), end, capacity: capacity.max(1), fin_received: false };
        (end(0), end(1))
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_peer(&self, guard: MutexGuard<'_, Shared>) {
        let waker = guard.ends[1 - self.end].waker.clone();
        drop(guard);
        waker.into_iter().for_each(|waker| waker.wake_by_ref());
    }
}

impl Pipe for MemoryPipe {
    fn send(&mut self, bytes: &[u8]) -> Result<usize, PipeError> {
        let mut guard = self.lock();
        let is_read = !guard.ends[1 - self.end].gone;
        let own = &mut guard.ends[self.end];
        if let Some(error) = &own.broken {
            return Err(error.clone());
        }
        if own.fin_sent {
            return Err(PipeError::Finished);
        }
        if !is_read {
            return Err(own.broken.insert(PipeError::Reset).clone());
        }
        let count = bytes.len().min(self.capacity - own.sent.len());
        if count == 0 && !bytes.is_empty() {
            own.waits_for_room = true;
            return Err(PipeError::WouldBlock);
        }
        own.sent.extend(&bytes[..count]);
        self.wake_peer(guard);
        Ok(count)
    }

    fn receive(&mut self, buf: &mut [u8]) -> Result<usize, PipeError> {
        let mut guard = self.lock();
        let peer = &mut guard.ends[1 - self.end];
        let was_full = peer.sent.len() == self.capacity;
        let count = take_front(&mut peer.sent, buf);
        if count > 0 {
            if std::mem::take(&mut peer.waits_for_room) || was_full {
                self.wake_peer(guard);
            }
            return Ok(count);
        }
        let has_ended = peer.fin_sent;
        match &guard.ends[self.end].broken {
            Some(error) => Err(error.clone()),
            None if has_ended => {
                drop(guard);
                self.fin_received = true;
                Ok(0)
            }
            None => Err(PipeError::WouldBlock),
        }
    }

    fn finish(&mut self) -> Result<(), PipeError> {
        let mut guard = self.lock();
        let own = &mut guard.ends[self.end];
        if let Some(error) = &own.broken {
            return Err(error.clone());
        }
        own.fin_sent = true;
        self.wake_peer(guard);
        Ok(())
    }

    fn abort(&mut self) {
        let mut guard = self.lock();
        let [own, peer] = [self.end, 1 - self.end];
        guard.ends[own].broken.get_or_insert(PipeError::Aborted);
        guard.ends[peer].sent.clear();
        guard.ends[peer].broken.get_or_insert(PipeError::Reset);
        self.wake_peer(guard);
    }

    fn drive(&mut self, _: Readiness) -> Result<(), PipeError> {
        self.broken().map_or(Ok(()), Err)
    }

    fn is_ready(&self) -> bool {
        self.broken().is_none()
    }

    fn is_readable(&self) -> bool {
        let guard = self.lock();
        let peer = &guard.ends[1 - self.end];
        !peer.sent.is_empty() || peer.fin_sent || guard.ends[self.end].broken.is_some()
    }

    fn is_writable(&self) -> bool {
        let guard = self.lock();
        let own = &guard.ends[self.end];
        own.broken.is_some() || (!own.fin_sent && own.sent.len() < self.capacity)
    }

    fn fin_sent(&self) -> bool {
        self.lock().ends[self.end].fin_sent
    }

    fn fin_received(&self) -> bool {
        self.fin_received
    }

    fn broken(&self) -> Option<PipeError> {
        self.lock().ends[self.end].broken.clone()
    }

    fn queued(&self) -> usize {
        0
    }

    fn wants_write(&self) -> bool {
        self.lock().ends[self.end].waits_for_room
    }

    fn descriptor(&self) -> Option<BorrowedSocket<'_>> {
        None
    }

    fn set_waker(&mut self, waker: &Waker) {
        self.lock().ends[self.end].waker = Some(waker.clone());
    }
}

impl Drop for MemoryPipe {
    fn drop(&mut self) {
        let mut guard = self.lock();
        let [own, peer] = [self.end, 1 - self.end];
        guard.ends[own].gone = true;
        if !guard.ends[own].fin_sent {
            guard.ends[peer].broken.get_or_insert(PipeError::Reset);
        }
        self.wake_peer(guard);
    }
}
