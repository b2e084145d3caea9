//! TLS on a stream socket: the carrier over TCP, and over what has the interface of TCP.
//!
//! The socket of a carrier is a side that belongs to no connection. Input is read into slots of one record, decrypted and handed
//! out there; output is copied once, into records of 16 KiB. The carrier takes only as many bytes from the session as the path carries in a few milliseconds, so
//! that urgent frames do not queue behind bulk data. A [`StreamKind`] says what differs between TCP and its relatives: where
//! the protocol has messages, each holds one record.

use std::io;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Once;
use std::time::Duration;

use bytes::Bytes;

use crate::engine::bound::{Bound, bind_stream};
use crate::engine::core::Core;
use crate::engine::limits::Config;
use crate::link::frame::FRAME_BYTES_MAX;
use crate::link::{Outbox, Time};
use crate::relay::dial::Egress;
use crate::relay::io::Io;
use crate::relay::side::Side;
use crate::streams::Sessions;
use crate::sys::{self, StreamProtocol, TcpStream};
use crate::tls::{Admission, Identity, Suite, Tls, TlsError, TlsPipe};
use crate::types::address::{Bind, Target};
use crate::types::id::Id;
use crate::types::peer::PeerKey;
use crate::types::reason::{Failure, Reason};

use super::sctp::Backlog;
use super::{
    BATCH_BYTES_MIN, BYTES_MIXED, Buffers, CarrierError, Cipher, Congestion, Crossed, Demand, Group, NextMessage,
    Options, PathFigures, PathInfo, Protocol, Setup, Transport,
};

/// A kind of stream socket.
pub(crate) trait StreamKind {
    /// The protocol of its sockets.
    const PROTOCOL: StreamProtocol;

    /// Each write to a socket is one message of the protocol, which has room for a record.
    const HAS_MESSAGES: bool = false;

    /// Returns true if this system has such sockets.
    fn is_available() -> bool;

    /// Succeeds if this system has such sockets, or the kind falls back to others.
    ///
    /// # Errors
    /// An error that names what is missing.
    fn require() -> io::Result<()> {
        Ok(())
    }

    /// Opens the listening sockets of a place: see [`Transport::bind`].
    fn bind(place: &Bind, config: &Config) -> io::Result<Vec<Bound>> {
        bind_stream(place, 1, config, Self::PROTOCOL)
    }

    /// Returns the name of the protocol that a connected socket uses.
    fn name(socket: &TcpStream) -> &'static str;

    /// Returns true if the connection has a path from another address of this host, so that it outlives its own.
    fn has_other_paths(_: &TcpStream) -> bool {
        false
    }

    /// Returns the system's figures of the path, or `None` if it has none.
    fn path_info(socket: &TcpStream) -> Option<PathInfo>;

    /// Returns true if the system has few unsent bytes of a connection that has messages. If it has more, the carrier asks again.
    fn wants_more(_: &TcpStream, _: &mut Backlog, _rate: u64) -> bool {
        true
    }
}

/// TCP.
pub(crate) struct Tcp;

impl StreamKind for Tcp {
    const PROTOCOL: StreamProtocol = StreamProtocol::Tcp;

    fn is_available() -> bool {
        true
    }

    fn name(_: &TcpStream) -> &'static str {
        "tcp"
    }

    #[inline]
    fn path_info(socket: &TcpStream) -> Option<PathInfo> {
        sys::tcp_info(socket)
    }
}

/// One TLS connection on a stream socket.
pub(crate) struct TlsStream<S> {
    tls: TlsPipe,
    /// Small frames that will share a record.
    staged: Vec<u8>,
    /// Bytes on the wire, sent and received.
    bytes: (u64, u64),
    /// Time of the last sample of the path, and the bytes sent until then.
    sampled: (Time, u64),
    /// Limit of the unsent bytes in the system.
    lowat: u32,
    /// Bytes of a record whose first part was written alone, of a kind that has messages.
    parted: usize,
    /// The unsent messages in the system, of a kind that has them.
    backlog: Backlog,
    kind: PhantomData<S>,
}

impl<S: StreamKind> Transport for TlsStream<S> {
    type Endpoint = Tls;

    fn is_available() -> bool {
        S::is_available()
    }

    fn require() -> io::Result<()> {
        S::require()
    }

    fn bind(place: &Bind, config: &Config) -> io::Result<Vec<Bound>> {
        S::bind(place, config)
    }

    fn client(setup: &Setup<'_>) -> io::Result<Tls> {
        client_tls(setup)
    }

    fn server(setup: &Setup<'_>) -> io::Result<Tls> {
        server_tls(setup)
    }

    fn dial(_: &Tls, core: &mut Core, side: Id, target: &Rc<Target>, egress: Egress) {
        core.dial(side, target, None, None, Some(Rc::new(Egress { protocol: S::PROTOCOL, ..egress })), false);
    }

    fn carrier(tls: &Tls, _: Id, _: &mut Side, buffers: &Rc<Buffers>) -> io::Result<TlsStream<S>> {
        Ok(TlsStream {
            tls: tls.pipe(&buffers.tls).map_err(io::Error::other)?,
            staged: Vec::new(),
            bytes: (0, 0),
            sampled: (Time::ZERO, 0),
            lowat: 0,
            parted: 0,
            backlog: Backlog::default(),
            kind: PhantomData,
        })
    }

    fn name(&self, side: &Side) -> &'static str {
        match &side.io {
            Io::Tcp(socket) => S::name(socket),
            Io::Stream(_) => "link",
            // A connection that a program of the user has made may have a socket of another kind.
            _ => "unix",
        }
    }

    fn has_other_paths(&self, side: &Side) -> bool {
        matches!(&side.io, Io::Tcp(socket) if S::has_other_paths(socket))
    }

    /// Returns the bytes that the carrier takes from the session now: what a path of this rate carries in five milliseconds.
    /// A slow path that is the only one gets nothing that the system would not take, because urgent frames would wait behind
    /// it. With several paths little would wait, and a path that seems full for a moment would lose its part to worse ones.
    #[inline]
    fn room(&mut self, side: &Side, demand: Demand) -> usize {
        let Demand { rate, is_alone, is_mixed } = demand;
        let is_slow = is_alone && rate < SLOW_RATE;
        if !self.is_flushed() || self.is_full(side, rate, is_slow) {
            return 0;
        }
        let wished = rate / 200;
        if is_slow {
            return usize::try_from(wished).unwrap_or(usize::MAX).clamp(BATCH_BYTES_MIN, FRAME_BYTES_MAX);
        }
        let batch = usize::try_from(self.proven(wished)).unwrap_or(usize::MAX);
        batch.clamp(FRAME_BYTES_MAX, if is_mixed { BYTES_MIXED } else { BATCH_BYTES_MAX })
    }

    /// Takes an outgoing frame. A large frame gets a record of its own, small frames share one.
    #[inline]
    fn send(&mut self, _: u16, frame: &Outbox) {
        if frame.len() < SHARED_BYTES_MAX {
            if self.staged.len() + frame.len() > FRAME_BYTES_MAX {
                self.end_batch();
            }
            return frame.copy_to(&mut self.staged);
        }
        self.end_batch();
        self.seal(frame.parts());
    }

    fn send_bytes(&mut self, bytes: &[u8]) {
        self.seal([bytes]);
    }

    /// Makes a record of the frames that share one.
    #[inline]
    fn end_batch(&mut self) {
        if self.staged.is_empty() {
            return;
        }
        let mut staged = std::mem::take(&mut self.staged);
        self.seal([&staged[..]]);
        staged.clear();
        staged.shrink_to(FRAME_BYTES_MAX);
        self.staged = staged;
    }

    #[inline]
    fn flush(&mut self, side: &mut Side, sessions: &mut Sessions) -> io::Result<()> {
        while self.tls.unsent() > 0 && side.ready.writable {
            let parted = &mut self.parted;
            let written = self.tls.write_to(|bytes| match S::HAS_MESSAGES {
                true => write_message(bytes, parted, |message| {
                    side.io.write(message, sessions).inspect(|put| self.backlog.give(*put))
                }),
                false => side.io.write(bytes, sessions),
            });
            match written {
                Ok(put) => self.bytes.0 += put as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => side.ready.writable = false,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    #[inline]
    fn is_flushed(&self) -> bool {
        self.tls.unsent() == 0
    }

    #[inline]
    fn receive(&mut self, side: &mut Side, sessions: &mut Sessions, most: usize) -> Result<Option<usize>, Failure> {
        if !side.ready.readable {
            return Ok(None);
        }
        let mut wished = 0;
        let got = self.tls.read_vectored_from(most, |room| {
            wished = room.iter().map(|slice| slice.len()).sum();
            side.io.read_vectored(room, sessions)
        });
        let got = match got {
            Ok(0) => {
                let ended = self.tls.end_of_input();
                let why =
                    ended.map_or_else(|error| error.to_string(), |()| "the peer closed the connection".to_owned());
                return Err(Failure::new(Reason::LinkLost, why));
            }
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                side.ready.readable = false;
                return Ok(None);
            }
            Err(error) => return Err(Failure::from(&error)),
        };
        // A read ends with a message, so a short one does not tell that nothing is left.
        if !S::HAS_MESSAGES {
            side.note_read(got, wished);
        }
        self.bytes.1 += got as u64;
        Ok(Some(got))
    }

    #[inline]
    fn open(&mut self, plain: &mut Vec<Bytes>) -> Result<u16, CarrierError> {
        self.tls.open(plain)?;
        Ok(0)
    }

    fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    fn next_message(&self) -> NextMessage {
        self.tls.next_message()
    }

    fn peer_key(&self) -> Option<PeerKey> {
        self.tls.peer_key()
    }

    fn protocol(&self) -> Protocol {
        self.tls.protocol()
    }

    fn cipher(&self) -> Option<&'static str> {
        self.tls.cipher().map(Cipher::name)
    }

    fn group(&self) -> Option<&'static str> {
        self.tls.group().map(Group::name)
    }

    fn exporter(&self, label: &str, context: &[u8]) -> Option<[u8; 32]> {
        self.tls.exporter(label, context)
    }

    fn crossed(&self) -> Option<Crossed> {
        self.tls.crossed().copied()
    }

    fn close(&mut self) {
        self.end_batch();
        self.tls.close_notify();
    }

    fn next_timeout(&mut self) -> Option<Duration> {
        self.backlog.next_look()
    }

    fn sample(&mut self, side: &Side, now: Time) -> Option<PathInfo> {
        let (at, sent) = self.sampled;
        let fresh = self.bytes.0 - sent;
        if fresh == 0 || (fresh < SAMPLE_BYTES && now.since(at) < SAMPLE_US) {
            return None;
        }
        self.sampled = (now, self.bytes.0);
        let Io::Tcp(socket) = &side.io else { return None };
        S::path_info(socket)
    }

    fn figures(&self, side: &Side) -> Option<PathFigures> {
        let Io::Tcp(socket) = &side.io else { return None };
        S::path_info(socket).map(|info| info.figures)
    }

    /// Sets the limit of unsent bytes in the system. It is higher on a fast path, so that the path never runs dry between
    /// two turns.
    fn follow_rate(&mut self, side: &Side, rate: u64) {
        let Io::Tcp(socket) = &side.io else { return };
        if S::HAS_MESSAGES {
            return;
        }
        let wished = self.proven(rate / 500).clamp(LOWAT_BYTES.0.into(), LOWAT_BYTES.1.into());
        let wished = (wished as u32).next_power_of_two();
        if wished != self.lowat {
            self.lowat = wished;
            // Without this option, the batch bounds the unsent bytes.
            let _ = sys::set_unsent_bytes(socket, wished);
        }
    }

    fn tune(&mut self, side: &Side, Options { dead, congestion }: Options) {
        if let Io::Tcp(socket) = &side.io
            && !S::HAS_MESSAGES
        {
            side.io.set_nodelay();
            self.follow_rate(side, 0);
            // The timers of the session find a dead path too.
            let _ = sys::set_user_timeout(socket, dead);
            set_congestion(socket, congestion);
        }
    }

    /// Keeps the peer's window small on a socket that is read at a rate. A large window, once full, stays closed until a
    /// part of it was read, and the peer's system takes that for a dead path (TCP_USER_TIMEOUT, tcp(7)).
    fn limit_rate(&self, side: &Side, rate: u64) {
        if let Io::Tcp(socket) = &side.io
            && !S::HAS_MESSAGES
        {
            let bytes = (rate / 2).clamp(RATED_BYTES.0, RATED_BYTES.1) as usize;
            // If the size cannot be set, the system's default is used.
            let _ = socket2::SockRef::from(socket).set_recv_buffer_size(bytes);
        }
    }

    fn bytes(&self) -> (u64, u64) {
        self.bytes
    }
}

impl<S: StreamKind> TlsStream<S> {
    /// Returns true if the system has many unsent bytes. An event follows when it has fewer, or a look at the time of `next_timeout`.
    fn is_full(&mut self, side: &Side, rate: u64, is_slow: bool) -> bool {
        let Io::Tcp(socket) = &side.io else { return false };
        match S::HAS_MESSAGES {
            // The system has no limit of unsent bytes for such a kind, so it is always asked.
            true => !S::wants_more(socket, &mut self.backlog, rate),
            false => is_slow && !sys::wants_more(socket),
        }
    }
}

impl<S> TlsStream<S> {
    /// Encrypts outgoing bytes into records.
    fn seal<'a, P>(&mut self, parts: P)
    where
        P: IntoIterator<Item = &'a [u8], IntoIter: Clone>,
    {
        // A failed pipe reports that when it is read, and the session sends the data again elsewhere.
        let _ = self.tls.seal(parts);
    }

    /// Bounds the bytes under way by what the path has shown: a handshake alone does not prove a rate.
    fn proven(&self, bytes: u64) -> u64 {
        bytes.min(self.bytes.0 / 8)
    }
}

/// Writes one record as a message of its own. `bytes` begins with a record, or with the rest of one: the system may have taken
/// only a part of it, and `parted` is the size of the rest.
pub(super) fn write_message(
    bytes: &[u8],
    parted: &mut usize,
    write: impl FnOnce(&[u8]) -> io::Result<usize>,
) -> io::Result<usize> {
    let wished = if *parted > 0 { *parted } else { record_bytes(bytes) };
    let message = bytes.get(..wished).unwrap_or(bytes);
    let put = write(message)?;
    *parted = message.len().saturating_sub(put);
    Ok(put)
}

/// Returns the size of the first record, or of all bytes if they are no complete record (RFC 8446, section 5.1).
fn record_bytes(bytes: &[u8]) -> usize {
    match bytes {
        [_, _, _, high, low, ..] => RECORD_HEAD_BYTES + usize::from(u16::from_be_bytes([*high, *low])),
        _ => bytes.len(),
    }
}

/// Sets the congestion control of a socket. Without it the default of the system is used, and the log says so once.
fn set_congestion(socket: &TcpStream, congestion: Congestion) {
    static SAID: Once = Once::new();
    let Some(name) = congestion.of_system() else { return };
    if let Err(error) = sys::set_congestion(socket, name) {
        SAID.call_once(|| {
            log::warn!(target: "seaprox::link", congestion = name, error = error.to_string(); "this congestion control is not available to this process: links use the default of the system");
        });
    }
}

/// Returns the configuration of TLS for connections that this node dials.
pub(crate) fn client_tls(setup: &Setup<'_>) -> io::Result<Tls> {
    if setup.simultaneous {
        return configure(setup, |identity, suite| Tls::either(identity, suite, admission(setup)));
    }
    configure(setup, |identity, suite| Tls::client(identity, suite, setup.admits.clone()))
}

/// Returns the configuration of TLS for connections that this node accepts.
pub(crate) fn server_tls(setup: &Setup<'_>) -> io::Result<Tls> {
    configure(setup, |identity, suite| Tls::server_for(identity, suite, admission(setup)))
}

/// Returns the keys that a server admits.
fn admission(setup: &Setup<'_>) -> Admission {
    Admission { wanted: setup.admits.clone(), expired: Some(setup.expired.clone()), invites: setup.invites.clone() }
}

/// Makes the configuration of one role.
fn configure(setup: &Setup<'_>, make: impl FnOnce(&Identity, Suite<'_>) -> Result<Tls, TlsError>) -> io::Result<Tls> {
    let preferred = Cipher::preferred();
    let ciphers = if setup.ciphers.is_empty() { &preferred[..] } else { setup.ciphers };
    let identity = Identity::from_seed(setup.seed).map_err(io::Error::other)?;
    make(&identity, Suite { ciphers, groups: setup.groups }).map_err(io::Error::other)
}

/// Type, version and length of a record.
const RECORD_HEAD_BYTES: usize = 5;
/// Frames below this size share a record.
const SHARED_BYTES_MAX: usize = 4 << 10;
/// Receive buffer of a carrier at the slowest and at the fastest rate.
const RATED_BYTES: (u64, u64) = (32 << 10, 4 << 20);
/// Bytes taken from the session for one carrier at once, on any path.
const BATCH_BYTES_MAX: usize = 256 << 10;
/// Bytes per second below which the system is asked if it takes more, before frames are encrypted for it.
const SLOW_RATE: u64 = 12_500_000;
/// Bytes and time after which the path is sampled again.
const SAMPLE_BYTES: u64 = 256 << 10;
const SAMPLE_US: u64 = 5_000;
/// Limit of unsent bytes in the system on the slowest and on the fastest path.
const LOWAT_BYTES: (u32, u32) = (16 << 10, 256 << 10);
