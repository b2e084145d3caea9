//! QUIC (RFC 9000): a carrier over UDP, whose streams do not wait for one another when datagrams are lost.
//!
//! quinn-proto is the protocol, as a state machine; this folder gives it datagrams, time and a place in the loop.
//!
//! ```text
//!   dialed:     socket of its own --> Port --inbox--> Quic (one carrier) --lanes--> session
//!   accepted:   socket of the listener --> Port --inbox--> each carrier of the listener
//! ```
//! | file | content |
//! | --- | --- |
//! | `port` | a UDP socket with the QUIC endpoint above it, and the inboxes of its connections |
//! | `lanes` | the streams of one connection, as lanes of the session |
//! | `drive` | one connection: what it is given, and what it sends |
//! | `config` | the configuration of QUIC |
//! | `congestion` | the congestion control of one path |
//! | `window` | the receive window of one connection |
//! | `silence` | the time in which the peer has acknowledged nothing |
//! | `unsent` | the question if a connection has bytes that it was given and has not sent |
//! | `failure` | why a connection has ended |
//!
//! # Rules
//! * The lanes of the session are streams; see `lanes`. A message of the session is a DATAGRAM frame (RFC 9221).
//! * The window of a connection follows what the peer delivers, and the credit of the session bounds what is held above it; see
//!   `window`. What the connection has not sent yet is bounded by the rate of the path, so that urgent frames never queue behind
//!   it.
//! * The handshake of an unauthenticated peer is computed in its turn, as over TCP: the first datagram waits in the port, the
//!   next ones in the inbox, which is small until the peer is authenticated.
//! * A connection has no idle time and no keepalive of its own: the session has both.
//! * A connection that has failed is a lost subflow, never a lost session.

mod config;
mod congestion;
mod drive;
mod failure;
mod lanes;
mod port;
mod silence;
mod unsent;
mod window;

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quinn_proto::{ClientConfig, Connection, ConnectionHandle, EndpointConfig, Incoming, ServerConfig};

use crate::engine::bound::{Bound, bind};
use crate::engine::core::Core;
use crate::engine::limits::Config;
use crate::link::frame::FRAME_BYTES_MAX;
use crate::link::{MESSAGE_LANE, Outbox, Time};
use crate::relay::dial::Egress;
use crate::relay::side::Side;
use crate::streams::Sessions;
use crate::sys::StreamProtocol;
use crate::tls::{Cipher, Group};
use crate::types::address::{Bind, Endpoint, Target};
use crate::types::id::Id;
use crate::types::peer::PeerKey;
use crate::types::proto::Proto;
use crate::types::reason::{Failure, Reason};

use super::{
    Arrivals, BATCH_BYTES_MIN, BYTES_MIXED, Buffers, CarrierError, Congestion, Demand, NextMessage, Options,
    PathFigures, PathInfo, Protocol, Setup, SharedSocket, Transport, client_tls, server_tls,
};
use lanes::{LANES, Lanes};
use port::{Kept, Port};
use silence::Silence;
use unsent::Unsent;
use window::Window;
pub(super) use window::Windows;

/// One connection of QUIC.
pub(crate) struct Quic {
    port: Rc<RefCell<Port>>,
    side: Id,
    state: State,
    lanes: Lanes,
    /// Datagrams that the system did not take.
    kept: Option<Kept>,
    /// The connection has bytes that it has not sent.
    unsent: Unsent,
    /// The connection has messages for the session.
    has_messages: bool,
    /// The longest message that fits into a datagram, and the bytes of messages that wait in the connection.
    message_bytes_max: usize,
    message_bytes: usize,
    /// A receive window that is to be set: the session reads at a limited rate.
    limited: Cell<Option<u32>>,
    window: Window,
    silence: Silence,
    /// The bytes that the turn is charged for.
    charge: Charge,
    /// This node sends no more.
    is_closing: bool,
    /// The lanes have ended.
    is_finished: bool,
    /// Bytes on the wire, sent and received.
    bytes: (u64, u64),
    /// Time of the last sample of the path, and the rate of its congestion window.
    sampled: Time,
    window_rate: u64,
    /// Bytes that the connection is given ahead of what it has sent.
    ahead_bytes: usize,
}

/// The bytes that a turn is charged for: those that have arrived, and those that are read beyond them, because a datagram that came
/// late releases all that has waited behind it.
#[derive(Debug, Default)]
struct Charge {
    /// Bytes of the last datagrams that were not read yet.
    paid: usize,
    /// Bytes that were read beyond them.
    owed: usize,
}

impl Charge {
    /// Notes bytes that have arrived. Returns the charge.
    fn on_taken(&mut self, bytes: usize) -> usize {
        if bytes > 0 {
            self.paid = bytes;
        }
        (bytes + std::mem::take(&mut self.owed)).max(1)
    }

    /// Notes bytes that were read.
    fn on_read(&mut self, bytes: usize) {
        self.owed += bytes.saturating_sub(self.paid);
        self.paid = self.paid.saturating_sub(bytes);
    }
}

/// The state of a connection.
enum State {
    /// A peer has begun it, and its handshake is not computed yet.
    Arrived(Box<Incoming>, Box<ServerConfig>, Congestion),
    Open(ConnectionHandle, Box<Connection>, Stage),
    /// It has failed before it was one.
    Failed(CarrierError),
}

/// The stage of a connection.
#[derive(Clone, Debug)]
enum Stage {
    Handshaking,
    /// The peer is authenticated.
    Established(PeerKey),
    Lost(CarrierError),
}

/// The state that the carriers of one link or of one listener share.
pub(crate) enum QuicEndpoint {
    Client(Arc<EndpointConfig>, Box<ClientConfig>, Congestion),
    Server(Arc<EndpointConfig>, Box<ServerConfig>, Congestion, Option<Rc<RefCell<Port>>>),
}

impl Transport for Quic {
    type Endpoint = QuicEndpoint;

    fn is_available() -> bool {
        true
    }

    fn shares_socket() -> bool {
        true
    }

    fn bind(place: &Bind, config: &Config) -> io::Result<Vec<Bound>> {
        if let Bind::Unix(_) = place {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "QUIC needs an address of UDP"));
        }
        bind(&place.clone().with_proto(Proto::Udp), 1, config)
    }

    fn client(setup: &Setup<'_>) -> io::Result<QuicEndpoint> {
        let crypto = client_tls(setup)?.quic_client().map_err(io::Error::other)?;
        // Each connection gets the rest from `config::transport`.
        let client = Box::new(ClientConfig::new(crypto));
        Ok(QuicEndpoint::Client(Arc::new(config::endpoint(setup.seed)), client, setup.congestion))
    }

    fn server(setup: &Setup<'_>) -> io::Result<QuicEndpoint> {
        let crypto = server_tls(setup)?.quic_server().map_err(io::Error::other)?;
        let server = Box::new(config::server(crypto));
        Ok(QuicEndpoint::Server(Arc::new(config::endpoint(setup.seed)), server, setup.congestion, None))
    }

    fn share(endpoint: &mut QuicEndpoint, socket: SharedSocket, buffers: &Rc<Buffers>) -> io::Result<()> {
        let QuicEndpoint::Server(config, server, _, shared) = endpoint else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let (config, server) = (Arc::clone(config), Arc::new((**server).clone()));
        let make = |allow_mtud| quinn_proto::Endpoint::new(config, Some(server), allow_mtud, None);
        *shared = Some(Rc::new(RefCell::new(Port::new(socket, make, buffers)?)));
        Ok(())
    }

    fn take_over(endpoint: &mut QuicEndpoint, before: QuicEndpoint) {
        if let (QuicEndpoint::Server(_, server, _, shared), QuicEndpoint::Server(.., Some(port))) = (endpoint, before) {
            port.borrow_mut().endpoint().set_server_config(Some(Arc::new((**server).clone())));
            *shared = Some(port);
        }
    }

    fn leave(endpoint: &mut QuicEndpoint) -> Option<QuicEndpoint> {
        let QuicEndpoint::Server(config, server, congestion, shared) = endpoint else { return None };
        let port = shared.take()?;
        Some(QuicEndpoint::Server(Arc::clone(config), server.clone(), *congestion, Some(port)))
    }

    fn receive_shared(endpoint: &QuicEndpoint) -> Arrivals {
        let QuicEndpoint::Server(.., Some(port)) = endpoint else { return Arrivals::default() };
        let mut port = port.borrow_mut();
        // The error of a listener's socket is that of one datagram; another one would close it.
        let has_more = port.receive(Instant::now(), CALLS_PER_TURN).unwrap_or(false);
        Arrivals { woken: port.woken(), has_more, dropped: port.take_dropped() }
    }

    fn next_arrival(endpoint: &QuicEndpoint) -> Option<Endpoint> {
        let QuicEndpoint::Server(.., Some(port)) = endpoint else { return None };
        port.borrow().arrival().map(Endpoint::from)
    }

    fn validate_arrival(endpoint: &QuicEndpoint) -> bool {
        let QuicEndpoint::Server(.., Some(port)) = endpoint else { return false };
        port.borrow_mut().validate_arrival()
    }

    fn is_shared(endpoint: &QuicEndpoint) -> bool {
        matches!(endpoint, QuicEndpoint::Server(.., Some(port)) if Rc::strong_count(port) > 1)
    }

    fn refuse_arrival(endpoint: &QuicEndpoint) {
        let QuicEndpoint::Server(.., Some(port)) = endpoint else { return };
        let mut port = port.borrow_mut();
        if let Some(incoming) = port.take_arrival() {
            port.refuse(incoming);
        }
    }

    fn dial(_: &QuicEndpoint, core: &mut Core, side: Id, target: &Rc<Target>, egress: Egress) {
        let egress = Egress { protocol: StreamProtocol::Udp, ..egress };
        core.dial(side, target, None, None, Some(Rc::new(egress)), false);
    }

    fn carrier(endpoint: &QuicEndpoint, side: Id, record: &mut Side, buffers: &Rc<Buffers>) -> io::Result<Quic> {
        match endpoint {
            QuicEndpoint::Client(config, client, congestion) => {
                Quic::dialed(config, (client, *congestion), side, record, buffers)
            }
            QuicEndpoint::Server(_, server, congestion, Some(port)) => {
                let incoming = port.borrow_mut().take_arrival().ok_or(io::ErrorKind::NotConnected)?;
                let state = State::Arrived(Box::new(incoming), server.clone(), *congestion);
                Ok(Quic::new(Rc::clone(port), side, state, Unsent::default()))
            }
            QuicEndpoint::Server(.., None) => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn lanes(&self) -> u16 {
        LANES as u16
    }

    fn name(&self, _: &Side) -> &'static str {
        "quic"
    }

    fn local(&self, _: &Side) -> Endpoint {
        let Some(mut addr) = self.port.borrow().local() else { return Endpoint::Unknown };
        // A socket of all addresses: the peer has sent to one of them.
        if let (true, Some(ip)) = (addr.ip().is_unspecified(), self.connection().and_then(Connection::local_ip)) {
            addr.set_ip(ip);
        }
        addr.into()
    }

    /// Returns true: the socket of a client is not bound to an address of this host, unless its path is.
    fn has_other_paths(&self, _: &Side) -> bool {
        self.port.borrow().local().is_some_and(|local| local.ip().is_unspecified())
    }

    fn room(&mut self, _: &Side, demand: Demand) -> usize {
        let Demand { rate, is_alone, is_mixed } = demand;
        let is_slow = is_alone && rate < SLOW_RATE;
        if !self.is_flushed() || self.unsent.has_any() || self.message_bytes > self.ahead_bytes {
            return 0;
        }
        let wished = usize::try_from(rate / 200).unwrap_or(usize::MAX);
        if is_slow {
            return wished.clamp(BATCH_BYTES_MIN, FRAME_BYTES_MAX);
        }
        let proven = usize::try_from(self.bytes.0 / 8).unwrap_or(usize::MAX);
        wished.min(proven).clamp(FRAME_BYTES_MAX, if is_mixed { BYTES_MIXED } else { BATCH_BYTES_MAX })
    }

    fn message_bytes_max(&self) -> usize {
        self.message_bytes_max
    }

    fn send(&mut self, lane: u16, frame: &Outbox) {
        if lane != MESSAGE_LANE {
            return self.lanes.stage(lane, frame);
        }
        let State::Open(_, connection, Stage::Established(_)) = &mut self.state else { return };
        let mut message = BytesMut::with_capacity(frame.len());
        frame.parts().for_each(|part| message.extend_from_slice(part));
        self.message_bytes += message.len();
        // A message that does not fit any more is lost. Of too many, the oldest are.
        let _ = connection.datagrams().send(message.freeze(), true);
    }

    fn send_bytes(&mut self, bytes: &[u8]) {
        self.lanes.stage_bytes(bytes);
        self.lanes.end_batch();
    }

    fn end_batch(&mut self) {
        self.lanes.end_batch();
    }

    fn flush(&mut self, side: &mut Side, _: &mut Sessions) -> io::Result<()> {
        // The side of a client has the events of its own socket.
        side.ready.writable = true;
        self.transmit(Instant::now());
        Ok(())
    }

    fn is_flushed(&self) -> bool {
        match &self.state {
            State::Open(_, connection, Stage::Handshaking | Stage::Established(_)) => {
                let is_sent = self.kept.is_none() && self.lanes.staged() == 0;
                is_sent && (!self.is_closing || connection.is_closed())
            }
            _ => true,
        }
    }

    fn receive(&mut self, side: &mut Side, _: &mut Sessions, _: usize) -> Result<Option<usize>, Failure> {
        if std::mem::take(&mut side.ready.readable) && self.is_dialed() {
            let mut port = self.port.borrow_mut();
            let received = port.receive(Instant::now(), 1);
            side.ready.readable = received.map_err(|error| Failure::from(&error))?;
            // This carrier is the only one of the port, and has its turn now.
            port.woken();
        }
        self.note_address(side);
        let (taken, has_input) = match &self.state {
            State::Arrived(..) | State::Failed(_) => (0, true),
            // A datagram that has arrived waits until its handshake has its turn.
            State::Open(handle, _, Stage::Handshaking) => {
                let waiting = self.port.borrow().inbox_bytes(*handle);
                (waiting, self.is_due())
            }
            State::Open(..) => (self.take_in(Instant::now()), self.has_input()),
        };
        if taken == 0 && !has_input && side.ready.readable {
            // The datagrams that were read are none of the peer's. Others may follow, whose event has been.
            return Ok(Some(READ_BYTES));
        }
        Ok((taken > 0 || has_input).then(|| self.charge.on_taken(taken)))
    }

    fn open(&mut self, plain: &mut Vec<Bytes>) -> Result<u16, CarrierError> {
        self.accept();
        self.take_in(Instant::now());
        self.read(plain)
    }

    fn is_handshaking(&self) -> bool {
        self.peer_key().is_none()
    }

    fn next_message(&self) -> NextMessage {
        match &self.state {
            State::Arrived(..) => NextMessage::Whole,
            State::Open(connection, _, Stage::Handshaking) if self.port.borrow().inbox_bytes(*connection) > 0 => {
                NextMessage::Whole
            }
            State::Open(..) | State::Failed(_) => NextMessage::Cheap,
        }
    }

    fn peer_key(&self) -> Option<PeerKey> {
        match &self.state {
            State::Open(_, _, Stage::Established(key)) => Some(*key),
            _ => None,
        }
    }

    fn protocol(&self) -> Protocol {
        Protocol::Link
    }

    fn cipher(&self) -> Option<&'static str> {
        self.negotiated()?.cipher.map(Cipher::name)
    }

    fn group(&self) -> Option<&'static str> {
        self.negotiated()?.group.map(Group::name)
    }

    fn exporter(&self, label: &str, context: &[u8]) -> Option<[u8; 32]> {
        let State::Open(_, connection, Stage::Established(_)) = &self.state else { return None };
        let mut out = [0; 32];
        connection.crypto_session().export_keying_material(&mut out, label.as_bytes(), context).ok()?;
        Some(out)
    }

    fn close(&mut self) {
        self.lanes.end_batch();
        self.is_closing = true;
    }

    fn lingers(&self) -> bool {
        matches!(self.state, State::Open(_, _, Stage::Established(_)))
    }

    fn may_wait(&self) -> bool {
        matches!(self.state, State::Open(_, _, Stage::Established(_)))
            && self.is_flushed()
            && !self.is_closing
            && !self.unsent.has_any()
    }

    fn next_timeout(&mut self) -> Option<Duration> {
        let State::Open(_, connection, stage) = &mut self.state else { return None };
        // Only a peer whose connection stands is asked.
        let ask_at = matches!(stage, Stage::Established(_)).then(|| self.silence.ask_at(connection.rtt())).flatten();
        let at = connection.poll_timeout().into_iter().chain(ask_at).min()?;
        Some(at.saturating_duration_since(Instant::now()))
    }

    fn network_changed(&mut self) {
        let State::Open(_, connection, stage) = &mut self.state else { return };
        if !connection.side().is_client() {
            return;
        }
        self.port.borrow().avoid_cut_interface(connection.remote_address());
        if matches!(stage, Stage::Established(_)) {
            connection.local_address_changed();
        }
    }

    fn sample(&mut self, _: &Side, now: Time) -> Option<PathInfo> {
        if now.since(self.sampled) < SAMPLE_US {
            return None;
        }
        let State::Open(_, connection, Stage::Established(_)) = &self.state else { return None };
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let (rtt_us, shortest_us) = (us(connection.rtt()).max(1), us(connection.min_rtt()));
        // A frame waits for the pacing, too.
        let round_us = shortest_us + PACED_US.min(shortest_us / 4);
        let rate = connection.congestion_state().window().saturating_mul(1_000_000) / rtt_us;
        (self.sampled, self.window_rate) = (now, rate);
        let is_stuck = self.silence.is_long(Instant::now(), connection.rtt());
        // Lanes show their gaps, so lost packets do not count. The status asks for the figures itself.
        Some(PathInfo { rtt_us, round_us, rate, is_stuck, resent: 0, figures: PathFigures::default() })
    }

    fn figures(&self, _: &Side) -> Option<PathFigures> {
        let path = self.connection()?.stats().path;
        let (window_bytes, mtu_bytes) = (path.cwnd, path.current_mtu.into());
        Some(PathFigures { window_bytes, packets_lost: path.lost_packets, mtu_bytes })
    }

    fn follow_rate(&mut self, _: &Side, rate: u64) {
        // A path that has become slow shows it first by the window.
        let wished = usize::try_from(rate.min(self.window_rate) / 100).unwrap_or(usize::MAX);
        self.ahead_bytes = wished.clamp(AHEAD_BYTES.0, AHEAD_BYTES.1);
    }

    fn tune(&mut self, _: &Side, _: Options) {}

    /// Keeps the peer's window small on a connection that is read at a rate.
    fn limit_rate(&self, _: &Side, rate: u64) {
        let bytes = (rate / 2).clamp(RATED_BYTES.0, RATED_BYTES.1);
        self.limited.set(Some(u32::try_from(bytes).unwrap_or(u32::MAX)));
    }

    fn bytes(&self) -> (u64, u64) {
        self.bytes
    }
}

impl Drop for Quic {
    /// Tells the peer, once, that the connection is over.
    fn drop(&mut self) {
        let lost = State::Failed(CarrierError::Failed(Failure::from(Reason::Internal)));
        let mut port = self.port.borrow_mut();
        match std::mem::replace(&mut self.state, lost) {
            State::Arrived(incoming, ..) => port.endpoint().ignore(*incoming),
            State::Open(handle, mut connection, _) => {
                let now = Instant::now();
                connection.close(now, failure::CLOSED, Bytes::new());
                // A datagram that the system does not take is lost, and the peer finds out by its timers.
                let _ = port.transmit(now, &mut connection, &mut self.unsent);
                port.forget(handle);
            }
            State::Failed(_) => {}
        }
    }
}

/// Calls of the system for the datagrams of a listener in one turn.
const CALLS_PER_TURN: usize = 8;
/// Bytes of a lane that are read at once.
const READ_BYTES: usize = 64 << 10;
/// Bytes per second below which a carrier that is alone takes small batches.
const SLOW_RATE: u64 = 12_500_000;
/// Bytes taken from the session for one carrier at once, on any path.
const BATCH_BYTES_MAX: usize = 256 << 10;
/// Bytes that a connection is given ahead of what it has sent, on the slowest and on the fastest path.
const AHEAD_BYTES: (usize, usize) = (4 << 10, 256 << 10);
/// Bytes that a peer may send ahead of a reader at the slowest and at the fastest rate.
const RATED_BYTES: (u64, u64) = (64 << 10, config::WINDOW_BYTES as u64);
/// Time in which quinn-proto spreads the packets of one burst; less on a short path, where it does not limit the rate.
const PACED_US: u64 = 2_000;
/// Time after which the path is sampled again.
const SAMPLE_US: u64 = 5_000;

#[cfg(test)]
mod tests;
