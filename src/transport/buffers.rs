//! The buffers that all carriers of one loop share.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use crate::datagrams::batch::Batch;
use crate::tls;

use super::quic::Windows;

/// The buffers of one loop.
pub(crate) struct Buffers {
    /// The buffers of the connections with TLS.
    pub tls: Rc<tls::Buffers>,
    /// The room for received datagrams, while no socket uses it.
    batch: RefCell<Option<Box<Batch>>>,
    /// The receive windows of the connections of QUIC.
    pub(super) windows: Rc<Windows>,
}

impl Buffers {
    /// Creates empty buffers. The peers of all connections of QUIC may send `window_bytes` together ahead of what was read.
    pub fn new(window_bytes: u64) -> Buffers {
        Buffers { tls: Rc::default(), batch: RefCell::default(), windows: Rc::new(Windows::new(window_bytes)) }
    }

    /// Frees unused buffers.
    pub fn shrink(&self) {
        self.tls.shrink();
        self.batch.take();
    }

    /// Takes the room for received datagrams, for the time of one receive.
    ///
    /// # Errors
    /// The system's error if no socket can be opened.
    pub(super) fn take_batch(&self) -> io::Result<Box<Batch>> {
        match self.batch.take() {
            Some(batch) => Ok(batch),
            None => Batch::new().map(Box::new),
        }
    }

    /// Gives the room for received datagrams back.
    pub(super) fn give_batch(&self, batch: Box<Batch>) {
        self.batch.replace(Some(batch));
    }
}
