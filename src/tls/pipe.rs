//! The TLS state of one connection, with the bytes of the socket on one side and plaintext on the other.
//!
//! ```text
//! Handshaking --> Open --> PeerEnded --> Closed
//!      |            |          |           ^
//!      |            +----------+-----------+   close_notify
//!      +-----------> Failed <--+
//! ```
//! A failure is final: all later calls return it, and nothing more is decrypted.
//!
//! A pipe of a connection that both ends may have dialed looks at the first message of the peer before the library does; see
//! `crossing`.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rustls::Error;

use super::HANDSHAKE_BYTES_MAX;
use super::admission::{IsInvited, Protocol};
use super::buffers::{Buffers, READ_BYTES, RECORD_BYTES, RECORD_OVERHEAD};
use super::cipher::Cipher;
use super::client_hello::FirstMessage;
use super::crossing::{Crossed, Crossing};
use super::error::TlsError;
use super::exporter::Exporter;
use super::group::Group;
use super::identity::{PublicKey, raw_key};
use super::machine::{Machine, Next, Seal, Step};
use super::outgoing::Outgoing;

#[derive(Debug)]
enum State {
    Handshaking,
    Open,
    /// The peer has sent close_notify.
    PeerEnded,
    /// This node has sent close_notify; further input is discarded.
    Closed,
    Failed(TlsError),
}

/// The protocol that the peer must name.
pub(super) enum Expected {
    Protocol(Protocol),
    /// That of links, unless the client has named the protocol of invitations alone.
    LinkUnless(IsInvited),
}

/// The TLS of one connection, without its socket.
pub(crate) struct TlsPipe {
    machine: Machine,
    state: State,
    peer: Option<PublicKey>,
    exporter: Arc<Exporter>,
    buffers: Rc<Buffers>,
    /// `incoming[..filled]` is not decrypted yet. Invariant: the buffer is empty while `filled` is 0.
    incoming: Vec<u8>,
    filled: usize,
    /// `incoming[..looked]` has been passed to the library and is an incomplete record or message.
    looked: usize,
    /// Bytes received before the peer was authenticated.
    received_unauthenticated: usize,
    expected: Expected,
    protocol: Protocol,
    /// Set until the first message of the peer, if both ends may be clients.
    crossing: Option<Box<Crossing>>,
    /// Set if the hellos of both ends have crossed.
    crossed: Option<Box<Crossed>>,
    outgoing: Outgoing,
    /// This node has sent close_notify, and still takes bytes of the peer.
    output_closed: bool,
}

impl TlsPipe {
    pub(super) fn new(machine: Machine, expected: Expected, exporter: Arc<Exporter>, buffers: Rc<Buffers>) -> TlsPipe {
        let mut pipe = TlsPipe {
            machine,
            state: State::Handshaking,
            peer: None,
            exporter,
            buffers,
            incoming: Vec::new(),
            filled: 0,
            looked: 0,
            received_unauthenticated: 0,
            expected,
            protocol: Protocol::Link,
            crossing: None,
            crossed: None,
            outgoing: Outgoing::default(),
            output_closed: false,
        };
        // The first step of a client makes its ClientHello.
        if let Err(error) = pipe.process(&mut BytesMut::new()) {
            pipe.state = State::Failed(error);
        }
        pipe
    }

    /// Lets the pipe of a client become a server, if the peer is a client too. `make` gets the record of the ClientHello.
    pub(super) fn crossing(mut self, make: impl FnOnce(&[u8]) -> Crossing) -> TlsPipe {
        self.crossing = Some(Box::new(make(self.outgoing.pending())));
        self
    }

    /// Calls `read` with a buffer for the bytes of the socket, and returns the number of bytes that it has read: at most
    /// [`READ_BYTES`], and [`HANDSHAKE_BYTES_MAX`] in all from a peer that is not authenticated or has an invitation. Call [`open`](Self::open)
    /// before the next call. If the pipe has ended, this returns 0 without calling `read`.
    ///
    /// # Errors
    /// The error of `read`.
    pub fn read_from(&mut self, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
        self.prepare_room();
        let end = match self.state {
            State::Handshaking | State::Open if self.is_bounded() => {
                self.filled + HANDSHAKE_BYTES_MAX.saturating_sub(self.received_unauthenticated)
            }
            State::Handshaking | State::Open => self.incoming.len(),
            State::PeerEnded | State::Closed | State::Failed(_) => 0,
        };
        let room = self.incoming.get_mut(self.filled..end).unwrap_or_default();
        let result = if room.is_empty() { Ok(0) } else { read(room).map(|bytes| bytes.min(room.len())) };
        let bytes = *result.as_ref().unwrap_or(&0);
        self.filled += bytes;
        if self.is_bounded() {
            self.received_unauthenticated += bytes;
        }
        self.release();
        result
    }

    /// Decrypts all complete records that have been read and appends their plaintext to `out`, in one piece of at most
    /// [`READ_BYTES`] whose capacity is at most a quarter larger than its length.
    ///
    /// # Errors
    /// The error that ended the pipe. `out` gets the plaintext before the error. The caller then writes the
    /// [unsent](Self::unsent) bytes, which hold the alert, and closes the connection.
    pub fn open(&mut self, out: &mut Vec<Bytes>) -> Result<(), TlsError> {
        if let State::Failed(error) = &self.state {
            return Err(error.clone());
        }
        let expected = plaintext_bytes(self.incoming.get(..self.filled).unwrap_or_default());
        let mut plain = self.buffers.take_piece(expected);
        let result = match self.cross() {
            Ok(true) => self.process(&mut plain),
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        let result = result.and(self.check_handshake());
        self.release();
        if !plain.is_empty() && self.peer.is_some() {
            // A peer may pad records. A small plaintext must not hold the memory of a large record.
            let padded = plain.capacity() - plain.len() > plain.len() / 4;
            out.push(if padded { Bytes::copy_from_slice(&plain) } else { self.buffers.hand_out(plain) });
        }
        result.inspect_err(|error| self.state = State::Failed(error.clone()))
    }

    /// Seals the concatenation of `parts` in full records, and the rest in one more record.
    ///
    /// # Errors
    /// [`TlsError::NotOpen`] before the end of the handshake and after [`close_output`](Self::close_output) or
    /// [`close_notify`](Self::close_notify), or the error that ended the pipe.
    pub fn seal<'a>(&mut self, parts: impl IntoIterator<Item = &'a [u8]>) -> Result<(), TlsError> {
        match &self.state {
            State::Failed(error) => return Err(error.clone()),
            State::Open | State::PeerEnded if !self.output_closed => {}
            _ => return Err(TlsError::NotOpen),
        }
        let mut gather = self.buffers.take_gather();
        let result = self.seal_parts(parts, &mut gather);
        self.buffers.give_gather(gather);
        result.inspect_err(|error| self.state = State::Failed(error.clone()))
    }

    /// Returns the number of bytes that wait for the socket. Do not seal more while many bytes wait: a good limit is
    /// [`WRITE_BYTES`](super::WRITE_BYTES), the next records included. At the limit, wait until most bytes are written,
    /// because the remaining bytes are moved to the front of a full buffer.
    pub fn unsent(&self) -> usize {
        self.outgoing.pending().len()
    }

    /// Calls `write` with all unsent bytes, and removes as many as it returns. Does not call `write` if no bytes wait.
    ///
    /// # Errors
    /// The error of `write`.
    pub fn write_to(&mut self, write: impl FnOnce(&[u8]) -> io::Result<usize>) -> io::Result<usize> {
        if self.outgoing.pending().is_empty() {
            return Ok(0);
        }
        let bytes = write(self.outgoing.pending())?;
        self.outgoing.sent(bytes, &self.buffers);
        Ok(bytes)
    }

    /// Returns true if the peer is not authenticated yet.
    ///
    /// A client authenticates the server first: only the server's next bytes show whether it accepts the client's key.
    pub const fn is_handshaking(&self) -> bool {
        matches!(self.state, State::Handshaking)
    }

    /// Returns the protocol above TLS, once the handshake is done.
    #[allow(dead_code, reason = "targets that compile this module by path do not use it")]
    pub const fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Returns the roles and the digest, if the hellos of both ends have crossed.
    #[allow(dead_code, reason = "targets that compile this module by path do not use it")]
    pub fn crossed(&self) -> Option<&Crossed> {
        self.crossed.as_deref()
    }

    /// Returns true if the peer may send a bounded number of bytes in all: its key is not accepted, or it is any key, of a
    /// client that may hold an invitation.
    fn is_bounded(&self) -> bool {
        let is_stranger = self.protocol == Protocol::Invite && matches!(self.machine, Machine::Server(_));
        matches!(self.state, State::Handshaking) || is_stranger
    }

    /// Returns true if the peer has sent close_notify; all of its bytes have been handed out.
    #[allow(dead_code, reason = "the loop only needs that a read returns 0 then")]
    pub const fn is_ended(&self) -> bool {
        matches!(self.state, State::PeerEnded)
    }

    /// Returns the received part of the peer's next message, while the peer is not authenticated. [`open`](Self::open)
    /// computes a key exchange or a signature only for a complete message.
    pub fn next_message(&self) -> NextMessage {
        let bytes = self.incoming.get(..self.filled).unwrap_or_default();
        match self.state {
            State::Handshaking if bytes.is_empty() => NextMessage::Nothing,
            // The buffer has no room for the rest: the handshake fails.
            State::Handshaking if self.received_unauthenticated >= HANDSHAKE_BYTES_MAX => NextMessage::Cheap,
            State::Handshaking if self.machine.common().negotiated_cipher_suite().is_none() => first_message(bytes),
            State::Handshaking if plaintext_bytes(bytes) > 0 => NextMessage::Whole,
            State::Handshaking => NextMessage::Part,
            _ => NextMessage::Cheap,
        }
    }

    /// Returns the key that the peer has proven to hold. It is set at the end of a handshake, also of a handshake that
    /// failed because of that key.
    pub const fn peer_key(&self) -> Option<PublicKey> {
        self.peer
    }

    /// Returns the cipher of the records, once it is negotiated.
    pub fn cipher(&self) -> Option<Cipher> {
        self.machine.common().negotiated_cipher_suite().and_then(|suite| Cipher::of(suite.suite()))
    }

    /// Returns the key exchange, once it is negotiated.
    pub fn group(&self) -> Option<Group> {
        self.machine.common().negotiated_key_exchange_group().and_then(|group| Group::of(group.name()))
    }

    /// Returns key material that only the two ends of this connection have, for a purpose (`label`, less than 250 bytes)
    /// and `context`. Returns `None` before the end of the handshake.
    pub fn exporter(&self, label: &str, context: &[u8]) -> Option<[u8; 32]> {
        match self.state {
            State::Handshaking | State::Failed(_) => None,
            _ => {
                let suite = self.machine.common().negotiated_cipher_suite()?;
                self.exporter.export(suite, label.as_bytes(), context)
            }
        }
    }

    /// Sends close_notify to the peer and ends this pipe's direction. The peer may go on sending (RFC 8446, section 6.1).
    ///
    /// # Errors
    /// [`TlsError::NotOpen`] before the end of the handshake and after [`close_notify`](Self::close_notify), or the error
    /// that ended the pipe.
    pub fn close_output(&mut self) -> Result<(), TlsError> {
        match &self.state {
            State::Failed(error) => return Err(error.clone()),
            State::Open | State::PeerEnded if self.output_closed => return Ok(()),
            State::Open | State::PeerEnded => {}
            State::Handshaking | State::Closed => return Err(TlsError::NotOpen),
        }
        self.output_closed = true;
        let pending = self.incoming.get_mut(..self.looked).unwrap_or_default();
        self.machine
            .seal(Seal::CloseNotify, pending, &mut self.outgoing, &self.buffers)
            .map_err(|error| TlsError::Protocol(error.to_string().into()))
            .inspect_err(|error| self.state = State::Failed(error.clone()))
    }

    /// Sends close_notify to the peer and ends this pipe. Later bytes of the peer are discarded.
    pub fn close_notify(&mut self) {
        if matches!(self.state, State::Open | State::PeerEnded) && !self.output_closed {
            let pending = self.incoming.get_mut(..self.looked).unwrap_or_default();
            // An error means that the keys are used up; the peer then sees only the end of the connection.
            let _ = self.machine.seal(Seal::CloseNotify, pending, &mut self.outgoing, &self.buffers);
        }
        if !matches!(self.state, State::Failed(_)) {
            self.state = State::Closed;
        }
        self.drop_input();
    }

    /// Notes the end of the socket's input.
    ///
    /// # Errors
    /// [`TlsError::Truncated`] unless one of the ends has sent close_notify before, or the error that ended the pipe.
    pub fn end_of_input(&mut self) -> Result<(), TlsError> {
        match &self.state {
            State::PeerEnded | State::Closed => Ok(()),
            State::Failed(error) => Err(error.clone()),
            State::Handshaking | State::Open => {
                self.drop_input();
                self.state = State::Failed(TlsError::Truncated);
                Err(TlsError::Truncated)
            }
        }
    }

    /// Decides on the roles of a connection that both ends may have dialed. Returns false if the first message of the peer is
    /// not complete, so that the library must not see it yet.
    fn cross(&mut self) -> Result<bool, TlsError> {
        let Some(crossing) = &self.crossing else { return Ok(true) };
        let (crossed, record_bytes) = match FirstMessage::read(self.incoming.get(..self.filled).unwrap_or_default()) {
            FirstMessage::Part => return Ok(false),
            FirstMessage::ClientHello(theirs) => (crossing.decide(&theirs), theirs.record_bytes),
            FirstMessage::Other => {
                self.crossing = None;
                return Ok(true);
            }
        };
        let crossed = crossed.inspect_err(|_| self.filled = 0)?;
        if crossed.is_server {
            // The bytes of the own hello that are not written yet stay in front: the peer needs it for the same decision.
            self.machine = crossing.server(&self.exporter)?;
        } else {
            self.incoming.copy_within(record_bytes..self.filled, 0);
            self.filled -= record_bytes;
        }
        (self.crossing, self.crossed) = (None, Some(Box::new(crossed)));
        Ok(true)
    }

    /// Decrypts the complete records.
    fn process(&mut self, plain: &mut BytesMut) -> Result<(), TlsError> {
        if matches!(self.state, State::PeerEnded | State::Closed) {
            self.drop_input();
            return Ok(());
        }
        let mut used = 0;
        let result = loop {
            let pending = self.incoming.get_mut(used..self.filled).unwrap_or_default();
            let Step { discard, next } = self.machine.step(pending, plain, &mut self.outgoing);
            used += discard;
            match next {
                Ok(Next::Step) => {}
                Ok(Next::Wait) => break Ok(()),
                Ok(Next::Ended) => {
                    // Bytes after close_notify are not authenticated.
                    used = self.filled;
                    self.state = State::PeerEnded;
                    break Ok(());
                }
                Err(error) => {
                    used = self.filled;
                    break Err(self.fail(error));
                }
            }
        };
        self.incoming.copy_within(used.min(self.filled)..self.filled, 0);
        self.filled -= used.min(self.filled);
        self.looked = self.filled;
        result
    }

    /// Takes the alert for an error of the library, and returns the error as one of the pipe.
    fn fail(&mut self, error: Error) -> TlsError {
        let at_first = self.machine.common().protocol_version().is_none();
        self.machine.take_alert(&mut self.outgoing);
        let error = match error {
            Error::InvalidMessage(_)
            | Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::PeerSentOversizedRecord
                if at_first =>
            {
                TlsError::NotTls
            }
            other => other.into(),
        };
        if let TlsError::KeyRefused(key) = error {
            self.peer = Some(key);
        }
        error
    }

    /// Authenticates the peer if the handshake is done, and checks the limits of incomplete input.
    fn check_handshake(&mut self) -> Result<(), TlsError> {
        let common = self.machine.common();
        if self.peer.is_none() && !common.is_handshaking() {
            let key = common.peer_certificates().and_then(|chain| raw_key(chain.first()?));
            // An end without ALPN refuses no protocol, and the library accepts an end that names none.
            let protocol = common.alpn_protocol().and_then(Protocol::of);
            let expected = match &self.expected {
                Expected::Protocol(protocol) => *protocol,
                // The verifier has accepted any key if this is set.
                Expected::LinkUnless(is_invited) if is_invited.get() => Protocol::Invite,
                Expected::LinkUnless(_) => Protocol::Link,
            };
            if protocol != Some(expected) {
                return Err(TlsError::Alpn);
            }
            self.protocol = expected;
            self.peer = Some(key.ok_or_else(|| TlsError::Protocol("the peer has no key".into()))?);
            if self.is_handshaking() {
                self.state = State::Open;
            }
        }
        match self.state {
            State::Handshaking | State::Open
                if self.is_bounded() && self.received_unauthenticated >= HANDSHAKE_BYTES_MAX =>
            {
                Err(TlsError::TooMuch)
            }
            State::Open if self.filled >= READ_BYTES => Err(TlsError::Protocol("an endless handshake message".into())),
            _ => Ok(()),
        }
    }

    fn seal_parts<'a>(
        &mut self,
        parts: impl IntoIterator<Item = &'a [u8]>,
        gather: &mut Vec<u8>,
    ) -> Result<(), TlsError> {
        for mut part in parts {
            while !part.is_empty() {
                let (head, rest) = part.split_at(part.len().min(RECORD_BYTES - gather.len()));
                part = rest;
                if head.len() == RECORD_BYTES {
                    self.seal_record(head)?;
                    continue;
                }
                gather.extend_from_slice(head);
                if gather.len() == RECORD_BYTES {
                    self.seal_record(gather)?;
                    gather.clear();
                }
            }
        }
        if gather.is_empty() { Ok(()) } else { self.seal_record(gather) }
    }

    fn seal_record(&mut self, plain: &[u8]) -> Result<(), TlsError> {
        let pending = self.incoming.get_mut(..self.looked).unwrap_or_default();
        self.machine
            .seal(Seal::Record(plain), pending, &mut self.outgoing, &self.buffers)
            .map_err(|error| TlsError::Protocol(error.to_string().into()))
    }

    /// Gives `incoming` a buffer for the state: a small one before the peer is authenticated.
    fn prepare_room(&mut self) {
        let is_bounded = self.is_bounded();
        match self.state {
            State::Handshaking | State::Open if is_bounded && self.incoming.is_empty() => {
                self.incoming = vec![0; HANDSHAKE_BYTES_MAX];
            }
            State::Open if !is_bounded && self.incoming.len() < READ_BYTES => {
                let mut larger = self.buffers.take_read();
                let pending = self.incoming.get(..self.filled).unwrap_or_default();
                larger[..pending.len()].copy_from_slice(pending);
                self.incoming = larger;
            }
            _ => {}
        }
    }

    fn drop_input(&mut self) {
        (self.filled, self.looked) = (0, 0);
        self.release();
    }

    /// Returns an empty input buffer to the pool.
    fn release(&mut self) {
        if self.filled == 0 && !self.incoming.is_empty() {
            self.buffers.give(std::mem::take(&mut self.incoming));
        }
    }
}

impl std::fmt::Debug for TlsPipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsPipe").field("state", &self.state).finish_non_exhaustive()
    }
}

/// The part of its next message that an unauthenticated peer has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NextMessage {
    Nothing,
    /// A part of the message.
    Part,
    /// The complete message. To open it costs a key exchange or a signature.
    Whole,
    /// Bytes that are refused or accepted without such a cost.
    Cheap,
}

/// Returns the received part of a ClientHello: a handshake message of type 1 (RFC 8446, section 4) in records of type 22
/// (section 5.1). Any other first message is refused without a computation.
fn first_message(mut bytes: &[u8]) -> NextMessage {
    // A ClientHello may span several records: `header` is its type and length, `have` the bytes of all complete records.
    let (mut header, mut have) = (Vec::with_capacity(4), 0);
    while let Some(([kind, _, _, high, low], rest)) = bytes.split_first_chunk::<5>() {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let fragment = &rest[..length.min(rest.len())];
        header.extend(fragment.iter().take(4 - header.len()));
        if *kind != HANDSHAKE || length == 0 || header.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return NextMessage::Cheap;
        }
        if fragment.len() < length {
            return NextMessage::Part;
        }
        have += length;
        if let [_, a, b, c] = header[..]
            && have >= 4 + u32::from_be_bytes([0, a, b, c]) as usize
        {
            return NextMessage::Whole;
        }
        bytes = &rest[length..];
    }
    if bytes.first().is_some_and(|kind| *kind != HANDSHAKE) { NextMessage::Cheap } else { NextMessage::Part }
}

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

/// Returns the plaintext length of the complete records at the front of `bytes`, if they are not padded. The result is a
/// hint, and never larger than `bytes`.
fn plaintext_bytes(mut bytes: &[u8]) -> usize {
    let mut total = 0;
    while let Some(([_, _, _, high, low], rest)) = bytes.split_first_chunk::<5>() {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some(rest) = rest.get(length..) else { break };
        total += length.saturating_sub(RECORD_OVERHEAD - 5);
        bytes = rest;
    }
    total
}
