//! TLS 1.3 over another pipe, with the keys and the policy of links.
//!
//! Both ends prove that they hold their ed25519 key, and each asks its policy whether it admits the key of the other
//! (`src/tls/`). A FIN is a close_notify, which ends one direction (RFC 8446, section 6.1): the FIN of the pipe beneath,
//! without a close_notify before it, breaks the pipe with [`PipeError::Truncated`].

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use bytes::{Buf, Bytes};

use crate::node::{self, Identity, PeerKey, Policy};
use crate::sys::BorrowedSocket;
use crate::tls::{Buffers, RECORD_BYTES, Tls, TlsError, TlsPipe as Machine};
use crate::transport;

use super::error::PipeError;
use super::pipe::{Pipe, Readiness};

/// A pipe that encrypts what it sends through the pipe beneath.
///
/// It is ready when the peer is authenticated. A client learns only from the first bytes of the server whether the server
/// admits the key of the client.
pub struct TlsPipe<P> {
    inner: P,
    /// The state of TLS, or none if it could not be set up; the pipe is broken then.
    machine: Option<Machine>,
    plain: VecDeque<Bytes>,
    opened: Vec<Bytes>,
    /// The peer has sent close_notify, and all of its bytes are in `plain`.
    peer_ended: bool,
    finishing: bool,
    /// This end has sealed its close_notify.
    notified: bool,
    fin_received: bool,
    broken: Option<PipeError>,
    waker: Option<Waker>,
}

thread_local! {
    /// The large buffers of all pipes of a thread. A pipe holds one only while bytes wait in it.
    static BUFFERS: Rc<Buffers> = Rc::new(Buffers::new());
}

impl<P: Pipe> TlsPipe<P> {
    /// Makes the client's end over a pipe that leads to a server. The policy decides on the key of the server. If TLS cannot
    /// be set up, the pipe is broken from the start.
    pub fn client(inner: P, identity: &Identity, policy: &Arc<dyn Policy>) -> TlsPipe<P> {
        TlsPipe::with(inner, transport::client_tls(&node::setup(identity, policy)))
    }

    /// Makes the server's end over a pipe that leads to a client. The policy decides on the key of the client. If TLS cannot
    /// be set up, the pipe is broken from the start.
    pub fn server(inner: P, identity: &Identity, policy: &Arc<dyn Policy>) -> TlsPipe<P> {
        TlsPipe::with(inner, transport::server_tls(&node::setup(identity, policy)))
    }

    /// Returns the key that the peer has proven to hold, once it is known.
    pub fn peer_key(&self) -> Option<PeerKey> {
        self.machine.as_ref().and_then(Machine::peer_key)
    }

    /// Returns the pipe beneath.
    pub fn inner(&self) -> &P {
        &self.inner
    }

    fn with(inner: P, tls: io::Result<Tls>) -> TlsPipe<P> {
        let make = |tls: Tls| BUFFERS.with(|buffers| tls.pipe(buffers)).map_err(io::Error::other);
        let (machine, broken) = match tls.and_then(make) {
            Ok(machine) => (Some(machine), None),
            Err(error) => (None, Some(PipeError::Tls(error.to_string().into()))),
        };
        let mut pipe = TlsPipe {
            inner,
            machine,
            plain: VecDeque::new(),
            opened: Vec::new(),
            peer_ended: false,
            finishing: false,
            notified: false,
            fin_received: false,
            broken,
            waker: None,
        };
        if pipe.broken.is_some() {
            pipe.inner.abort();
        }
        // A pipe that cannot send yet sends its first message when it is driven.
        let _ = pipe.flush();
        pipe
    }

    /// Breaks the pipe. The peer gets the alert, if there is one, and then the end of the pipe beneath.
    fn fail(&mut self, error: PipeError) -> PipeError {
        let error = self.broken.get_or_insert(error).clone();
        if self.inner.broken().is_none() {
            // The alert is a courtesy, and the pipe is broken whether it arrives or not.
            let _ = self.flush_records();
            let _ = self.inner.finish();
        }
        error
    }

    fn check(&self) -> Result<(), PipeError> {
        self.broken().map_or(Ok(()), Err)
    }

    fn is_open(&self) -> bool {
        self.machine.as_ref().is_some_and(|machine| !machine.is_handshaking())
    }

    fn unsent(&self) -> usize {
        self.machine.as_ref().map_or(0, Machine::unsent)
    }

    /// Sends the records that wait. Returns true if none is left.
    fn flush_records(&mut self) -> Result<bool, PipeError> {
        let Some(machine) = &mut self.machine else { return Ok(true) };
        let mut error = None;
        while machine.unsent() > 0 && error.is_none() {
            let result = machine.write_to(|records| {
                let most = records.len().min(self.inner.send_bytes_max());
                self.inner.send(&records[..most]).map_err(|failure| keep(failure, &mut error))
            });
            debug_assert!(result.is_ok() || error.is_some());
        }
        match error {
            None => Ok(true),
            Some(PipeError::WouldBlock) => Ok(false),
            Some(error) => Err(error),
        }
    }

    /// Sends the records that wait, and then a deferred FIN.
    fn flush(&mut self) -> Result<(), PipeError> {
        if self.finishing && !self.notified && self.is_open() {
            self.notified = true;
            let closed = self.machine.as_mut().map_or(Ok(()), Machine::close_output);
            closed.map_err(|error| self.fail(error.into()))?;
        }
        if self.flush_records()? && self.notified { self.inner.finish() } else { Ok(()) }
    }

    /// Receives records until there is plaintext, the end or nothing more.
    fn fill(&mut self) -> Result<(), PipeError> {
        for _ in 0..READS_MAX {
            if !self.plain.is_empty() || self.peer_ended {
                return Ok(());
            }
            self.fill_once()?;
        }
        // The peer sends records without plaintext. The waker lets other pipes of this thread run first.
        self.waker.iter().for_each(Waker::wake_by_ref);
        Err(PipeError::WouldBlock)
    }

    fn fill_once(&mut self) -> Result<(), PipeError> {
        let Some(machine) = &mut self.machine else { return Err(PipeError::WouldBlock) };
        let (mut error, mut ended) = (None, false);
        let read = machine.read_vectored_from(usize::MAX, |room| {
            let mut bytes = 0;
            for buf in room {
                let count = match self.inner.receive(buf) {
                    // The bytes come first; the next call finds the end or the failure again.
                    Ok(0) | Err(_) if bytes > 0 => break,
                    count => count.map_err(|failure| keep(failure, &mut error))?,
                };
                bytes += count;
                if count < buf.len() {
                    break;
                }
            }
            ended = bytes == 0;
            Ok(bytes)
        });
        if read.is_err() {
            return Err(error.unwrap_or(PipeError::WouldBlock));
        }
        let opened = if ended { machine.end_of_input() } else { machine.open(&mut self.opened) };
        self.peer_ended |= machine.is_ended();
        self.plain.extend(self.opened.drain(..));
        opened.map_err(|error| self.fail(error.into()))?;
        // The handshake has a reply to most messages.
        self.flush()
    }
}

impl<P: Pipe> Pipe for TlsPipe<P> {
    fn send(&mut self, bytes: &[u8]) -> Result<usize, PipeError> {
        self.check()?;
        if self.finishing {
            return Err(PipeError::Finished);
        }
        self.flush()?;
        if !self.is_open() || self.unsent() > UNSENT_BYTES_MAX {
            return Err(PipeError::WouldBlock);
        }
        let count = bytes.len().min(SEND_BYTES);
        let sealed = self.machine.as_mut().map_or(Ok(()), |machine| machine.seal([&bytes[..count]]));
        sealed.map_err(|error| self.fail(error.into()))?;
        self.flush()?;
        Ok(count)
    }

    fn receive(&mut self, buf: &mut [u8]) -> Result<usize, PipeError> {
        if self.plain.is_empty() && !self.peer_ended {
            if let Some(error) = &self.broken {
                return Err(error.clone());
            }
            self.fill()?;
        }
        let mut count = 0;
        while let Some(piece) = self.plain.front_mut() {
            let part = piece.len().min(buf.len() - count);
            buf[count..count + part].copy_from_slice(&piece[..part]);
            piece.advance(part);
            count += part;
            if !piece.is_empty() {
                break;
            }
            self.plain.pop_front();
        }
        if count == 0 && !buf.is_empty() {
            // The peer has ended its direction in order, whatever became of the pipe beneath since.
            self.fin_received = self.broken.is_none();
            self.broken.clone().map_or(Ok(()), Err)?;
        }
        Ok(count)
    }

    fn finish(&mut self) -> Result<(), PipeError> {
        self.check()?;
        self.finishing = true;
        self.flush()
    }

    fn abort(&mut self) {
        self.broken.get_or_insert(PipeError::Aborted);
        self.inner.abort();
    }

    fn drive(&mut self, ready: Readiness) -> Result<(), PipeError> {
        let driven = self.inner.drive(ready);
        if self.broken.is_some() {
            // The alert may still be on its way.
            let _ = self.flush_records();
            return self.check();
        }
        // The handshake goes on without a call of `receive`.
        if !self.is_open() {
            match self.fill() {
                Ok(()) | Err(PipeError::WouldBlock) => {}
                Err(error) => return Err(error),
            }
        }
        driven?;
        self.flush()
    }

    fn is_ready(&self) -> bool {
        self.is_open() && self.broken().is_none()
    }

    fn is_readable(&self) -> bool {
        !self.plain.is_empty() || self.peer_ended || self.broken.is_some() || self.inner.is_readable()
    }

    fn is_writable(&self) -> bool {
        let has_room = self.is_open() && !self.finishing && self.unsent() <= UNSENT_BYTES_MAX;
        self.broken().is_some() || has_room
    }

    fn fin_sent(&self) -> bool {
        self.notified && self.unsent() == 0 && self.inner.fin_sent()
    }

    fn fin_received(&self) -> bool {
        self.fin_received
    }

    fn broken(&self) -> Option<PipeError> {
        self.broken.clone().or_else(|| self.inner.broken())
    }

    fn queued(&self) -> usize {
        self.unsent() + self.inner.queued()
    }

    fn wants_write(&self) -> bool {
        self.inner.wants_write()
    }

    fn descriptor(&self) -> Option<BorrowedSocket<'_>> {
        self.inner.descriptor()
    }

    fn set_waker(&mut self, waker: &Waker) {
        self.waker = Some(waker.clone());
        self.inner.set_waker(waker);
    }
}

impl<P: std::fmt::Debug> std::fmt::Debug for TlsPipe<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("TlsPipe");
        shown.field("machine", &self.machine).field("broken", &self.broken).field("inner", &self.inner);
        shown.finish_non_exhaustive()
    }
}

impl From<TlsError> for PipeError {
    fn from(error: TlsError) -> PipeError {
        match error {
            TlsError::Truncated => PipeError::Truncated,
            error => PipeError::Tls(error.to_string().into()),
        }
    }
}

/// Keeps an error of the pipe beneath while the machine, which knows errors of the system only, is on the stack.
fn keep(error: PipeError, kept: &mut Option<PipeError>) -> io::Error {
    *kept = Some(error);
    io::ErrorKind::WouldBlock.into()
}

/// Plaintext bytes that one send accepts.
const SEND_BYTES: usize = 4 * RECORD_BYTES;
/// Bytes of records that wait, above which a send accepts nothing.
const UNSENT_BYTES_MAX: usize = RECORD_BYTES;
/// Reads of one receive that find no plaintext.
const READS_MAX: usize = 16;
