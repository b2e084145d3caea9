//! The trait of all pipes.

use std::task::Waker;

use crate::sys::BorrowedSocket;

use super::error::PipeError;

/// One end of a connection of bytes, non-blocking, with the semantics of TCP.
///
/// Each direction carries bytes in order and ends by itself with a FIN. Both directions end at once by a reset, or by
/// another failure, after which the pipe is *broken*.
///
/// ```text
///   not ready --handshake--> ready --finish--> FIN sent ------+
///       |                      |                              +--> over
///       |                      +--peer's FIN--> FIN received -+
///       +--> broken <----------+   reset, failure, abort
/// ```
/// A call that returns [`PipeError::WouldBlock`] has done nothing. It is worth repeating after the next
/// [`drive`](Pipe::drive).
///
/// A caller waits for a pipe in one of two ways. If [`descriptor`](Pipe::descriptor) returns a descriptor, the caller waits
/// for that: register it once for both directions if the poll is edge-triggered, or for what
/// [`wants_read`](Pipe::wants_read) and [`wants_write`](Pipe::wants_write) return if it is level-triggered. Otherwise the
/// caller sets a [waker](Pipe::set_waker), which the pipe calls. In both cases the caller then calls `drive`, and sends and
/// receives until `WouldBlock`. A `Poller` does both. The loop of a [`Proxy`](crate::Proxy)
/// watches the descriptor, or is woken by a [`loop_waker`](fn@super::loop_waker).
///
/// A pipe has no clock: its caller bounds how long a handshake, a FIN or a peer may take, and calls
/// [`abort`](Pipe::abort). A pipe that is dropped before its FIN was sent resets its peer.
pub trait Pipe {
    /// Accepts bytes for the peer, from the front of `bytes`. Returns the number of accepted bytes, which is 0 only if
    /// `bytes` is empty. The pipe delivers what it has accepted, unless it breaks.
    ///
    /// # Errors
    /// [`PipeError::WouldBlock`] if there is no room now, [`PipeError::Finished`] after [`finish`](Pipe::finish), or the
    /// error that has broken the pipe.
    fn send(&mut self, bytes: &[u8]) -> Result<usize, PipeError>;

    /// Receives bytes into the front of `buf`, which must not be empty. Returns their number, or 0 if the peer's FIN was
    /// received.
    ///
    /// # Errors
    /// [`PipeError::WouldBlock`] if there are no bytes now, or the error that has broken the pipe. The bytes that had
    /// arrived before a reset can still be received, as far as the system keeps them.
    fn receive(&mut self, buf: &mut [u8]) -> Result<usize, PipeError>;

    /// Ends this end's direction. The FIN is deferred: it is sent after all accepted bytes. Does nothing if it was called
    /// before.
    ///
    /// # Errors
    /// The error that has broken the pipe.
    fn finish(&mut self) -> Result<(), PipeError>;

    /// Breaks the pipe with [`PipeError::Aborted`]. Bytes that wait are dropped, and the peer gets a reset, if the pipe has
    /// one.
    fn abort(&mut self);

    /// Moves what waits in the pipe: its handshake, bytes that were accepted, a deferred FIN. `ready` says what the caller
    /// knows of the descriptor, and is [`Readiness::BOTH`] if it knows nothing.
    ///
    /// # Errors
    /// The error that has broken the pipe. [`PipeError::WouldBlock`] is no error here.
    fn drive(&mut self, ready: Readiness) -> Result<(), PipeError>;

    /// Returns true if the pipe is connected, and its peer authenticated where the pipe authenticates.
    fn is_ready(&self) -> bool;

    /// Returns true unless the next [`receive`](Pipe::receive) is known to return `WouldBlock`.
    fn is_readable(&self) -> bool;

    /// Returns true unless the next [`send`](Pipe::send) is known to return `WouldBlock` or `Finished`.
    fn is_writable(&self) -> bool;

    /// Returns true if the FIN of this end has been sent, and with it all accepted bytes.
    fn fin_sent(&self) -> bool;

    /// Returns true if the FIN of the peer has been received: a `receive` has returned 0.
    fn fin_received(&self) -> bool;

    /// Returns the error that has broken the pipe, if it is broken.
    fn broken(&self) -> Option<PipeError>;

    /// Returns the number of bytes that the pipe has accepted and still holds. The buffers of the system do not count.
    fn queued(&self) -> usize;

    /// Returns the most bytes that one `send` may be given, where a pipe accepts all or nothing.
    fn send_bytes_max(&self) -> usize {
        usize::MAX
    }

    /// Returns the largest message of a pipe whose sends and receives are messages, and none for a pipe of bytes.
    fn message_bytes_max(&self) -> Option<usize> {
        None
    }

    /// Returns true if the pipe waits until its descriptor is readable.
    fn wants_read(&self) -> bool {
        !self.fin_received() && self.broken().is_none()
    }

    /// Returns true if the pipe waits until its descriptor is writable: for its handshake, for bytes that it holds, or
    /// because a `send` had no room.
    fn wants_write(&self) -> bool;

    /// Returns the descriptor that a caller waits for, or none if the pipe calls its waker instead.
    fn descriptor(&self) -> Option<BorrowedSocket<'_>>;

    /// Sets the waker that is called when the pipe may have become readable or writable, has ended or has broken. It may be
    /// called by any thread, and more often than needed. A pipe with a descriptor does not call it.
    fn set_waker(&mut self, waker: &Waker);
}

/// The directions in which a descriptor is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// A read may find bytes, the end or an error.
    pub read: bool,
    /// A write may find room or an error.
    pub write: bool,
}

impl Readiness {
    /// No direction is known to be ready.
    pub const NONE: Readiness = Readiness { read: false, write: false };
    /// Both directions may be ready.
    pub const BOTH: Readiness = Readiness { read: true, write: true };
}

/// Implements [`Pipe`] by the same method of another pipe.
macro_rules! forward_pipe {
    ($this:ident => $inner:expr) => {
        fn send(&mut self, bytes: &[u8]) -> Result<usize, PipeError> {
            let $this = self;
            $inner.send(bytes)
        }

        fn receive(&mut self, buf: &mut [u8]) -> Result<usize, PipeError> {
            let $this = self;
            $inner.receive(buf)
        }

        fn finish(&mut self) -> Result<(), PipeError> {
            let $this = self;
            $inner.finish()
        }

        fn abort(&mut self) {
            let $this = self;
            $inner.abort();
        }

        fn drive(&mut self, ready: Readiness) -> Result<(), PipeError> {
            let $this = self;
            $inner.drive(ready)
        }

        fn is_ready(&self) -> bool {
            let $this = self;
            $inner.is_ready()
        }

        fn is_readable(&self) -> bool {
            let $this = self;
            $inner.is_readable()
        }

        fn is_writable(&self) -> bool {
            let $this = self;
            $inner.is_writable()
        }

        fn fin_sent(&self) -> bool {
            let $this = self;
            $inner.fin_sent()
        }

        fn fin_received(&self) -> bool {
            let $this = self;
            $inner.fin_received()
        }

        fn broken(&self) -> Option<PipeError> {
            let $this = self;
            $inner.broken()
        }

        fn queued(&self) -> usize {
            let $this = self;
            $inner.queued()
        }

        fn send_bytes_max(&self) -> usize {
            let $this = self;
            $inner.send_bytes_max()
        }

        fn message_bytes_max(&self) -> Option<usize> {
            let $this = self;
            $inner.message_bytes_max()
        }

        fn wants_read(&self) -> bool {
            let $this = self;
            $inner.wants_read()
        }

        fn wants_write(&self) -> bool {
            let $this = self;
            $inner.wants_write()
        }

        fn descriptor(&self) -> Option<BorrowedSocket<'_>> {
            let $this = self;
            $inner.descriptor()
        }

        fn set_waker(&mut self, waker: &Waker) {
            let $this = self;
            $inner.set_waker(waker);
        }
    };
}

impl<P: Pipe + ?Sized> Pipe for Box<P> {
    forward_pipe!(this => (**this));
}

impl<P: Pipe + ?Sized> Pipe for &mut P {
    forward_pipe!(this => (**this));
}
