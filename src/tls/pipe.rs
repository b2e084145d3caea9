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
//! The library makes the handshake; it sees one record after the other, and none behind the last of its own. From then on the
//! pipe seals and opens the records itself; see `records`.
//!
//! A pipe of a connection that both ends may have dialed looks at the first message of the peer before the library does; see
//! `crossing`.

use std::io::{self, IoSliceMut};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use rustls::Error;

use super::HANDSHAKE_BYTES_MAX;
use super::admission::{IsInvited, Protocol};
use super::buffers::Buffers;
use super::cipher::Cipher;
use super::client_hello::FirstMessage;
use super::crossing::{Crossed, Crossing};
use super::error::TlsError;
use super::exporter::Exporter;
use super::group::Group;
use super::identity::{PublicKey, raw_key};
use super::keys::{FirstKeys, Keys};
use super::machine::{Machine, Next, Step};
use super::outgoing::Outgoing;
use super::records::{Alert, Fault, Opener, Progress, RECORD_OVERHEAD, Sealer};

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

/// The part that makes sense of the bytes.
enum Engine {
    Handshake(Machine),
    Records(Box<Records>),
    /// The library could not hand over its keys; the pipe has failed.
    Lost,
}

/// Both directions behind the handshake.
struct Records {
    opener: Opener,
    sealer: Sealer,
    keys: Keys,
}

/// The TLS of one connection, without its socket.
pub(crate) struct TlsPipe {
    engine: Engine,
    state: State,
    peer: Option<PublicKey>,
    exporter: Arc<Exporter>,
    buffers: Rc<Buffers>,
    /// `incoming[..filled]` are bytes of the handshake. Invariant: the buffer is empty while `filled` is 0.
    incoming: Vec<u8>,
    filled: usize,
    /// `incoming[..shown]` are complete records that the library has seen, with an incomplete message.
    shown: usize,
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
            engine: Engine::Handshake(machine),
            state: State::Handshaking,
            peer: None,
            exporter,
            buffers,
            incoming: Vec::new(),
            filled: 0,
            shown: 0,
            received_unauthenticated: 0,
            expected,
            protocol: Protocol::Link,
            crossing: None,
            crossed: None,
            outgoing: Outgoing::default(),
            output_closed: false,
        };
        // The first step of a client makes its ClientHello.
        if let Err(error) = pipe.shake() {
            pipe.state = State::Failed(error);
        }
        pipe
    }

    /// Lets the pipe of a client become a server, if the peer is a client too. `make` gets the record of the ClientHello.
    pub(super) fn crossing(mut self, make: impl FnOnce(&[u8]) -> Crossing) -> TlsPipe {
        self.crossing = Some(Box::new(make(self.outgoing.pending())));
        self
    }

    /// Calls `read` with a buffer for the bytes of the socket, and returns the number of bytes that it has read: at most one
    /// record, and [`HANDSHAKE_BYTES_MAX`] in all from a peer that is not authenticated or has an invitation. Call
    /// [`open`](Self::open) before the next call. If the pipe has ended, this returns 0 without calling `read`.
    ///
    /// # Errors
    /// The error of `read`.
    pub fn read_from(&mut self, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
        self.read_vectored_from(usize::MAX, |room| room.first_mut().map_or(Ok(0), |room| read(room)))
    }

    /// Does the same with several buffers, of at most `most` bytes together. They are few until a read has filled them.
    ///
    /// # Errors
    /// The error of `read`.
    pub fn read_vectored_from(
        &mut self,
        most: usize,
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let is_bounded = self.is_bounded();
        let left = HANDSHAKE_BYTES_MAX.saturating_sub(self.received_unauthenticated);
        let most = if is_bounded { most.min(left) } else { most };
        if most == 0 || !matches!(self.state, State::Handshaking | State::Open) {
            return Ok(0);
        }
        let result = match &mut self.engine {
            Engine::Handshake(_) => self.read_handshake(most, read),
            Engine::Records(records) => records.opener.read(most, &self.buffers.slots, read),
            Engine::Lost => Ok(0),
        };
        if is_bounded {
            self.received_unauthenticated += result.as_ref().unwrap_or(&0);
        }
        result
    }

    /// Decrypts all complete records that have been read and appends their plaintext to `out`, in pieces that hold at most twice
    /// their length in memory.
    ///
    /// # Errors
    /// The error that ended the pipe. `out` gets the plaintext before the error. The caller then writes the
    /// [unsent](Self::unsent) bytes, which hold the alert, and closes the connection.
    pub fn open(&mut self, out: &mut Vec<Bytes>) -> Result<(), TlsError> {
        let opened = match self.state {
            State::Failed(ref error) => return Err(error.clone()),
            State::Handshaking => self.open_handshake().and_then(|()| self.open_records(out)),
            State::Open => self.open_records(out),
            State::PeerEnded | State::Closed => {
                self.drop_input();
                Ok(())
            }
        };
        let opened = opened.and_then(|()| self.check_bound());
        opened.inspect_err(|error| self.state = State::Failed(error.clone()))
    }

    /// Seals the concatenation of `parts` in full records, and the rest in one more record.
    ///
    /// # Errors
    /// [`TlsError::NotOpen`] before the end of the handshake and after [`close_output`](Self::close_output) or
    /// [`close_notify`](Self::close_notify), or the error that ended the pipe.
    pub fn seal<'a, P>(&mut self, parts: P) -> Result<(), TlsError>
    where
        P: IntoIterator<Item = &'a [u8], IntoIter: Clone>,
    {
        match &self.state {
            State::Failed(error) => return Err(error.clone()),
            State::Open | State::PeerEnded if !self.output_closed => {}
            _ => return Err(TlsError::NotOpen),
        }
        self.with_sealer(|sealer, keys, outgoing, buffers| sealer.seal(parts.into_iter(), keys, outgoing, buffers))
    }

    /// Changes the key of the sent records, and asks the peer to do the same if `asks` is true.
    #[cfg(test)]
    pub fn update_keys(&mut self, asks: bool) -> Result<(), TlsError> {
        self.with_sealer(|sealer, keys, outgoing, buffers| sealer.update(asks, keys, outgoing, buffers))
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
        self.answer_update();
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
        let is_server = match &self.engine {
            Engine::Records(records) => !records.keys.is_client(),
            engine => matches!(engine, Engine::Handshake(Machine::Server(_))),
        };
        matches!(self.state, State::Handshaking) || (self.protocol == Protocol::Invite && is_server)
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
        let Engine::Handshake(machine) = &self.engine else { return NextMessage::Cheap };
        match self.state {
            State::Handshaking if bytes.is_empty() => NextMessage::Nothing,
            // The buffer has no room for the rest: the handshake fails.
            State::Handshaking if self.received_unauthenticated >= HANDSHAKE_BYTES_MAX => NextMessage::Cheap,
            State::Handshaking if machine.common().negotiated_cipher_suite().is_none() => first_message(bytes),
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
        match &self.engine {
            Engine::Handshake(machine) => Cipher::of(machine.common().negotiated_cipher_suite()?.suite()),
            Engine::Records(records) => records.keys.cipher(),
            Engine::Lost => None,
        }
    }

    /// Returns the key exchange, once it is negotiated.
    pub fn group(&self) -> Option<Group> {
        match &self.engine {
            Engine::Handshake(machine) => Group::of(machine.common().negotiated_key_exchange_group()?.name()),
            Engine::Records(records) => records.keys.group(),
            Engine::Lost => None,
        }
    }

    /// Returns key material that only the two ends of this connection have, for a purpose (`label`, less than 250 bytes)
    /// and `context`. Returns `None` before the end of the handshake.
    pub fn exporter(&self, label: &str, context: &[u8]) -> Option<[u8; 32]> {
        match (&self.engine, &self.state) {
            (_, State::Handshaking | State::Failed(_)) => None,
            (Engine::Records(records), _) => self.exporter.export(records.keys.suite(), label.as_bytes(), context),
            _ => None,
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
        self.with_sealer(|sealer, _, outgoing, buffers| sealer.alert(Alert::CLOSE_NOTIFY, outgoing, buffers))
    }

    /// Sends close_notify to the peer and ends this pipe. Later bytes of the peer are discarded.
    pub fn close_notify(&mut self) {
        if matches!(self.state, State::Open | State::PeerEnded) && !self.output_closed {
            // An error means that the keys are used up; the peer then sees only the end of the connection.
            let _ = self.close_output();
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
            self.engine = Engine::Handshake(crossing.server(&self.exporter)?);
        } else {
            self.incoming.copy_within(record_bytes..self.filled, 0);
            self.filled -= record_bytes;
        }
        (self.crossing, self.crossed) = (None, Some(Box::new(crossed)));
        Ok(true)
    }

    fn read_handshake(
        &mut self,
        most: usize,
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if self.incoming.is_empty() {
            // An unauthenticated peer gets no larger buffer.
            self.incoming = vec![0; HANDSHAKE_BYTES_MAX];
        }
        let end = self.incoming.len().min(self.filled.saturating_add(most));
        let room = self.incoming.get_mut(self.filled..end).unwrap_or_default();
        let bytes = room.len();
        let result = if room.is_empty() { Ok(0) } else { read(&mut [IoSliceMut::new(room)]) };
        let result = result.map(|got| got.min(bytes));
        self.filled += result.as_ref().unwrap_or(&0);
        self.release();
        result
    }

    /// Continues the handshake with the bytes that have been read.
    fn open_handshake(&mut self) -> Result<(), TlsError> {
        if !self.cross()? {
            return Ok(());
        }
        self.shake()
    }

    /// Passes records to the library until the handshake is done, and takes its keys then.
    fn shake(&mut self) -> Result<(), TlsError> {
        let Engine::Handshake(machine) = &mut self.engine else { return Ok(()) };
        let (mut used, mut shown) = (0, self.shown);
        let result = loop {
            let pending = self.incoming.get_mut(used..shown.min(self.filled)).unwrap_or_default();
            let Step { discard, next } = machine.step(pending, &mut self.outgoing);
            used += discard;
            match next {
                Ok(Next::Step) => {}
                Ok(Next::Wait) if !machine.common().is_handshaking() => break Ok(true),
                Ok(Next::Wait) => match record_bytes(self.incoming.get(shown..self.filled).unwrap_or_default()) {
                    Some(bytes) => shown += bytes,
                    None => {
                        // The library refuses bytes that are not TLS before they are complete.
                        let all = self.incoming.get_mut(used..self.filled).unwrap_or_default();
                        break machine.step(all, &mut self.outgoing).next.map(|_| false);
                    }
                },
                Err(error) => break Err(error),
            }
        };
        let result = match result {
            Ok(is_done) => Ok(is_done),
            Err(error) => {
                used = self.filled;
                Err(self.fail_handshake(error))
            }
        };
        let used = used.min(self.filled);
        self.incoming.copy_within(used..self.filled, 0);
        (self.filled, self.shown) = (self.filled - used, shown.saturating_sub(used));
        let result = result
            .and_then(|is_done| if is_done { self.authenticate().and_then(|()| self.take_keys()) } else { Ok(()) });
        self.release();
        result
    }

    /// Takes the keys of the library, and the bytes behind the handshake.
    fn take_keys(&mut self) -> Result<(), TlsError> {
        let Engine::Handshake(machine) = std::mem::replace(&mut self.engine, Engine::Lost) else { return Ok(()) };
        let FirstKeys { sealing, opening, keys } = Keys::of(machine)?;
        let behind = self.incoming.get(..self.filled).unwrap_or_default();
        let opener = Opener::new(opening, keys.is_client(), behind, &self.buffers.slots);
        let sealer = Sealer::new(sealing, keys.records_max());
        self.engine = Engine::Records(Box::new(Records { opener, sealer, keys }));
        (self.filled, self.shown) = (0, 0);
        Ok(())
    }

    /// Takes the alert for an error of the library, and returns the error as one of the pipe.
    fn fail_handshake(&mut self, error: Error) -> TlsError {
        let Engine::Handshake(machine) = &mut self.engine else { return error.into() };
        let at_first = machine.common().protocol_version().is_none();
        machine.take_alert(&mut self.outgoing);
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

    /// Authenticates the peer at the end of the handshake.
    fn authenticate(&mut self) -> Result<(), TlsError> {
        let Engine::Handshake(machine) = &self.engine else { return Ok(()) };
        let common = machine.common();
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
        self.state = State::Open;
        Ok(())
    }

    /// Checks the limit of the bytes of a peer that is not authenticated.
    fn check_bound(&self) -> Result<(), TlsError> {
        let is_over = self.is_bounded() && self.received_unauthenticated >= HANDSHAKE_BYTES_MAX;
        let is_receiving = matches!(self.state, State::Handshaking | State::Open);
        if is_receiving && is_over { Err(TlsError::TooMuch) } else { Ok(()) }
    }

    /// Opens the complete records behind the handshake.
    fn open_records(&mut self, out: &mut Vec<Bytes>) -> Result<(), TlsError> {
        let Engine::Records(records) = &mut self.engine else { return Ok(()) };
        let Records { opener, sealer, keys } = &mut **records;
        match opener.open(keys, &self.buffers.slots, out) {
            Ok(Progress { is_ended, asks_update }) => {
                if is_ended {
                    self.state = State::PeerEnded;
                }
                if asks_update {
                    sealer.asked_for_update();
                }
                self.answer_update();
                Ok(())
            }
            Err(fault) => {
                if let Some(alert) = fault.alert().filter(|_| !self.output_closed) {
                    // Without the alert, the peer sees only the end of the connection.
                    let _ = sealer.alert(alert, &mut self.outgoing, &self.buffers);
                }
                Err(fault.into())
            }
        }
    }

    /// Answers a request for new keys when nothing else waits to be sent.
    fn answer_update(&mut self) {
        if matches!(self.state, State::Open | State::PeerEnded) && !self.output_closed {
            // A failure is the error of the next call.
            let _ = self.with_sealer(|sealer, keys, outgoing, buffers| sealer.answer(keys, outgoing, buffers));
        }
    }

    fn with_sealer(
        &mut self,
        seal: impl FnOnce(&mut Sealer, &mut Keys, &mut Outgoing, &Buffers) -> Result<(), Fault>,
    ) -> Result<(), TlsError> {
        let Engine::Records(records) = &mut self.engine else { return Err(TlsError::NotOpen) };
        seal(&mut records.sealer, &mut records.keys, &mut self.outgoing, &self.buffers).map_err(|fault| {
            let error = TlsError::from(fault);
            self.state = State::Failed(error.clone());
            error
        })
    }

    fn drop_input(&mut self) {
        (self.filled, self.shown) = (0, 0);
        self.release();
        if let Engine::Records(records) = &mut self.engine {
            records.opener.clear(&self.buffers.slots);
        }
    }

    /// Frees an empty buffer of the handshake.
    fn release(&mut self) {
        if self.filled == 0 && !self.incoming.is_empty() {
            self.incoming = Vec::new();
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

/// Returns the size of the first record, or `None` if it is not complete.
fn record_bytes(bytes: &[u8]) -> Option<usize> {
    let ([_, _, _, high, low], rest) = bytes.split_first_chunk::<5>()?;
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    (rest.len() >= length).then_some(5 + length)
}

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
