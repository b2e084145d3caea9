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
//! | `config` | the configuration of QUIC |
//! | `failure` | why a connection has ended |
//!
//! # Rules
//! * The lanes of the session are streams; see `lanes`. A message of the session is a DATAGRAM frame (RFC 9221).
//! * The windows of QUIC are wider than the credit of any session, and the credit bounds memory. What the connection has not sent
//!   yet is bounded by the rate of the path, so that urgent frames never queue behind it.
//! * The handshake of an unauthenticated peer is computed in its turn, as over TCP: the first datagram waits in the port, the
//!   next ones in the inbox, which is small until the peer is authenticated.
//! * A connection has no idle time and no keepalive of its own: the session has both.
//! * A connection that has failed is a lost subflow, never a lost session.

mod config;
mod failure;
mod lanes;
mod port;

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_proto::{
    Connection, ConnectionError, ConnectionHandle, EndpointConfig, Event, Incoming, ServerConfig, VarInt, crypto,
};

use crate::engine::bound::{Bound, bind};
use crate::engine::core::Core;
use crate::engine::limits::Config;
use crate::link::frame::FRAME_BYTES_MAX;
use crate::link::{Outbox, Time};
use crate::relay::dial::Egress;
use crate::relay::io::Io;
use crate::relay::side::Side;
use crate::streams::Sessions;
use crate::sys::StreamProtocol;
use crate::tls::{Cipher, Group, Negotiated, TlsError};
use crate::types::address::{Bind, Endpoint, Target};
use crate::types::id::Id;
use crate::types::peer::PeerKey;
use crate::types::proto::Proto;
use crate::types::reason::{Failure, Reason};

use super::{
    Arrivals, BATCH_BYTES_MIN, BYTES_MIXED, Buffers, CarrierError, Demand, NextMessage, PathInfo, Protocol, Setup,
    SharedSocket, Transport, client_tls, server_tls,
};
use lanes::{LANES, Lanes};
use port::{Kept, Port};

/// One connection of QUIC.
pub(crate) struct Quic {
    port: Rc<RefCell<Port>>,
    side: Id,
    state: State,
    lanes: Lanes,
    /// What the system did not take.
    kept: Option<Kept>,
    /// The connection has messages for the session.
    has_messages: bool,
    /// This node sends no more.
    is_closing: bool,
    /// The lanes have ended.
    is_finished: bool,
    /// Bytes on the wire, sent and received.
    bytes: (u64, u64),
    /// Time of the last sample of the path.
    sampled: Time,
    /// Bytes that the connection is given ahead of what it has sent.
    ahead_bytes: usize,
}

/// The state of a connection.
enum State {
    /// A peer has begun it, and its handshake is not computed yet.
    Arrived(Box<Incoming>, Box<ServerConfig>),
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

/// What the carriers of one link or of one listener share.
pub(crate) enum QuicEndpoint {
    Client(Arc<EndpointConfig>, Arc<dyn crypto::ClientConfig>),
    Server(Arc<EndpointConfig>, Box<ServerConfig>, Option<Rc<RefCell<Port>>>),
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
        Ok(QuicEndpoint::Client(Arc::new(config::endpoint(setup.seed)), crypto))
    }

    fn server(setup: &Setup<'_>) -> io::Result<QuicEndpoint> {
        let crypto = server_tls(setup)?.quic_server().map_err(io::Error::other)?;
        Ok(QuicEndpoint::Server(Arc::new(config::endpoint(setup.seed)), Box::new(config::server(crypto)), None))
    }

    fn share(endpoint: &mut QuicEndpoint, socket: SharedSocket, buffers: &Rc<Buffers>) -> io::Result<()> {
        let QuicEndpoint::Server(config, server, shared) = endpoint else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let (config, server) = (Arc::clone(config), Arc::new((**server).clone()));
        let make = |allow_mtud| quinn_proto::Endpoint::new(config, Some(server), allow_mtud, None);
        *shared = Some(Rc::new(RefCell::new(Port::new(socket, make, buffers)?)));
        Ok(())
    }

    fn take_over(endpoint: &mut QuicEndpoint, before: QuicEndpoint) {
        if let (QuicEndpoint::Server(_, server, shared), QuicEndpoint::Server(.., Some(port))) = (endpoint, before) {
            port.borrow_mut().endpoint().set_server_config(Some(Arc::new((**server).clone())));
            *shared = Some(port);
        }
    }

    fn receive_shared(endpoint: &QuicEndpoint, validates: bool) -> Arrivals {
        let QuicEndpoint::Server(.., Some(port)) = endpoint else { return Arrivals::default() };
        let mut port = port.borrow_mut();
        // The error of a listener's socket is that of one datagram; another one would close it.
        let has_more = port.receive(Instant::now(), CALLS_PER_TURN, validates).unwrap_or(false);
        Arrivals { woken: port.woken(), has_more }
    }

    fn next_arrival(endpoint: &QuicEndpoint) -> Option<Endpoint> {
        let QuicEndpoint::Server(.., Some(port)) = endpoint else { return None };
        port.borrow().arrival().map(Endpoint::from)
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
            QuicEndpoint::Client(config, crypto) => Quic::dialed(config, crypto, side, record, buffers),
            QuicEndpoint::Server(_, server, Some(port)) => {
                let incoming = port.borrow_mut().take_arrival().ok_or(io::ErrorKind::NotConnected)?;
                let state = State::Arrived(Box::new(incoming), server.clone());
                Ok(Quic::new(Rc::clone(port), side, state))
            }
            QuicEndpoint::Server(_, _, None) => Err(io::ErrorKind::NotConnected.into()),
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

    fn room(&self, _: &Side, demand: Demand) -> usize {
        let Demand { rate, is_alone, is_mixed } = demand;
        let is_slow = is_alone && rate < SLOW_RATE;
        if !self.is_flushed() || (is_slow && self.has_unsent()) {
            return 0;
        }
        let wished = usize::try_from(rate / 200).unwrap_or(usize::MAX);
        if is_slow {
            return wished.clamp(BATCH_BYTES_MIN, FRAME_BYTES_MAX);
        }
        let proven = usize::try_from(self.bytes.0 / 8).unwrap_or(usize::MAX);
        wished.min(proven).clamp(FRAME_BYTES_MAX, if is_mixed { BYTES_MIXED } else { BATCH_BYTES_MAX })
    }

    fn send(&mut self, lane: u16, frame: &Outbox) {
        self.lanes.stage(lane, frame);
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
            let received = port.receive(Instant::now(), 1, false);
            side.ready.readable = received.map_err(|error| Failure::from(&error))?;
            // This carrier is the only one of the port, and has its turn now.
            port.woken();
        }
        self.note_address(side);
        let waiting = match &self.state {
            State::Arrived(..) => 1,
            State::Open(connection, ..) => self.port.borrow().inbox_bytes(*connection),
            State::Failed(_) => 1,
        };
        self.bytes.1 += waiting as u64;
        let has_more = waiting > 0 || self.has_input() || self.is_due();
        Ok(has_more.then_some(waiting.max(1)))
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

    fn next_timeout(&mut self) -> Option<Duration> {
        let State::Open(_, connection, _) = &mut self.state else { return None };
        connection.poll_timeout().map(|at| at.saturating_duration_since(Instant::now()))
    }

    fn network_changed(&mut self) {
        if let State::Open(_, connection, Stage::Established(_)) = &mut self.state
            && connection.side().is_client()
        {
            connection.local_address_changed();
        }
    }

    fn sample(&mut self, _: &Side, now: Time) -> Option<PathInfo> {
        if now.since(self.sampled) < SAMPLE_US {
            return None;
        }
        let State::Open(_, connection, Stage::Established(_)) = &self.state else { return None };
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let (rtt_us, round_us) = (us(connection.rtt()).max(1), us(connection.min_rtt()));
        self.sampled = now;
        let rate = connection.congestion_state().window().saturating_mul(1_000_000) / rtt_us;
        Some(PathInfo { rtt_us, round_us, rate, is_stuck: false })
    }

    fn follow_rate(&mut self, _: &Side, rate: u64) {
        let wished = usize::try_from(rate / 100).unwrap_or(usize::MAX);
        self.ahead_bytes = wished.clamp(AHEAD_BYTES.0, AHEAD_BYTES.1);
    }

    fn tune(&mut self, _: &Side, _: Duration) {}

    fn limit_rate(&self, _: &Side, _: u64) {}

    fn bytes(&self) -> (u64, u64) {
        self.bytes
    }
}

impl Quic {
    fn new(port: Rc<RefCell<Port>>, side: Id, state: State) -> Quic {
        Quic {
            port,
            side,
            state,
            lanes: Lanes::default(),
            kept: None,
            has_messages: false,
            is_closing: false,
            is_finished: false,
            bytes: (0, 0),
            sampled: Time::ZERO,
            ahead_bytes: AHEAD_BYTES.0,
        }
    }

    /// Starts a connection on the socket that was made for it.
    fn dialed(
        config: &Arc<EndpointConfig>,
        crypto: &Arc<dyn crypto::ClientConfig>,
        side: Id,
        record: &mut Side,
        buffers: &Rc<Buffers>,
    ) -> io::Result<Quic> {
        let (Io::Udp(socket), Some(peer)) = (std::mem::take(&mut record.io), record.endpoint.ip()) else {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "QUIC needs an address of UDP"));
        };
        let make = |allow_mtud| quinn_proto::Endpoint::new(Arc::clone(config), None, allow_mtud, None);
        let mut port = Port::new(socket, make, buffers)?;
        let connected = port.endpoint().connect(Instant::now(), config::client(crypto), peer, "seaprox.invalid");
        let (handle, connection) = connected.map_err(io::Error::other)?;
        port.open_inbox(handle, side);
        port.widen_inbox(handle);
        let state = State::Open(handle, Box::new(connection), Stage::Handshaking);
        Ok(Quic::new(Rc::new(RefCell::new(port)), side, state))
    }

    fn connection(&self) -> Option<&Connection> {
        match &self.state {
            State::Open(_, connection, _) => Some(connection),
            State::Arrived(..) | State::Failed(_) => None,
        }
    }

    /// Returns true if this node has dialed the connection, so that the port is its own.
    fn is_dialed(&self) -> bool {
        self.connection().is_some_and(|connection| connection.side().is_client())
    }

    /// Returns true if the connection has bytes that it has not sent for the first time.
    fn has_unsent(&self) -> bool {
        self.connection().is_some_and(Connection::has_pending_retransmits)
    }

    /// Returns true if there is something to give to the session, or a failure to report.
    fn has_input(&self) -> bool {
        let is_lost = matches!(&self.state, State::Open(_, _, Stage::Lost(_)));
        self.lanes.is_readable() || self.has_messages || is_lost
    }

    /// Returns true if a timer of the connection has passed.
    fn is_due(&mut self) -> bool {
        let State::Open(_, connection, _) = &mut self.state else { return false };
        connection.poll_timeout().is_some_and(|at| at <= Instant::now())
    }

    fn negotiated(&self) -> Option<Box<Negotiated>> {
        self.connection()?.crypto_session().handshake_data()?.downcast().ok()
    }

    /// Follows a peer whose address has changed.
    fn note_address(&self, side: &mut Side) {
        if let State::Open(_, connection, Stage::Established(_)) = &self.state {
            let peer = connection.remote_address();
            if side.endpoint.ip() != Some(Endpoint::from(peer).ip().unwrap_or(peer)) {
                side.endpoint = peer.into();
            }
        }
    }

    /// Computes the handshake of a connection that a peer has begun.
    fn accept(&mut self) {
        if !matches!(self.state, State::Arrived(..)) {
            return;
        }
        let lost = CarrierError::Failed(Failure::from(Reason::Internal));
        let State::Arrived(incoming, config) = std::mem::replace(&mut self.state, State::Failed(lost)) else { return };
        let mut port = self.port.borrow_mut();
        self.state = match port.accept(*incoming, Instant::now(), *config) {
            Ok((handle, connection)) => {
                port.open_inbox(handle, self.side);
                State::Open(handle, Box::new(connection), Stage::Handshaking)
            }
            Err(error) => State::Failed(failure::of(&error, None)),
        };
    }

    /// Gives the connection what has arrived, and the time.
    fn take_in(&mut self, now: Instant) {
        let State::Open(handle, connection, _) = &mut self.state else { return };
        let events = self.port.borrow_mut().take_inbox(*handle);
        events.into_iter().for_each(|event| connection.handle_event(event));
        if connection.poll_timeout().is_some_and(|at| at <= now) {
            connection.handle_timeout(now);
        }
        self.settle();
    }

    /// Handles the events of the connection.
    fn settle(&mut self) {
        loop {
            let State::Open(handle, connection, _) = &mut self.state else { return };
            let mut port = self.port.borrow_mut();
            while let Some(event) = connection.poll_endpoint_events() {
                if !event.is_drained()
                    && let Some(event) = port.endpoint().handle_event(*handle, event)
                {
                    connection.handle_event(event);
                }
            }
            drop(port);
            let Some(event) = connection.poll() else { return };
            match event {
                Event::Connected => self.connected(),
                Event::ConnectionLost { reason } => self.lost(&reason),
                Event::Stream(event) => self.lanes.note(connection, &event),
                Event::DatagramReceived => self.has_messages = true,
                Event::HandshakeDataReady | Event::DatagramsUnblocked => {}
            }
        }
    }

    /// Handles the end of the handshake.
    fn connected(&mut self) {
        let negotiated = self.negotiated();
        let State::Open(handle, connection, stage) = &mut self.state else { return };
        let key = connection.crypto_session().peer_identity().and_then(|key| key.downcast::<PeerKey>().ok());
        let is_link = negotiated.is_some_and(|negotiated| negotiated.protocol == Some(Protocol::Link));
        let error = match key {
            Some(_) if !is_link => TlsError::Alpn.into(),
            Some(_) if !self.lanes.open(connection) => {
                CarrierError::Failed(Failure::new(Reason::ProtocolError, "the peer permits too few lanes"))
            }
            Some(key) => {
                *stage = Stage::Established(*key);
                connection.set_receive_window(VarInt::from_u32(config::WINDOW_BYTES));
                return self.port.borrow_mut().widen_inbox(*handle);
            }
            None => TlsError::Incompatible("no key".into()).into(),
        };
        connection.close(Instant::now(), failure::PROTOCOL_ERROR, Bytes::new());
        *stage = Stage::Lost(error);
    }

    /// Handles the end of the connection.
    fn lost(&mut self, reason: &ConnectionError) {
        let error = self.negotiated().and_then(|negotiated| negotiated.error);
        if let State::Open(_, _, stage) = &mut self.state
            && !matches!(stage, Stage::Lost(_))
        {
            *stage = Stage::Lost(failure::of(reason, error));
        }
    }

    /// Reads the next message, or a lane, and reports the end of the connection behind all that was received.
    fn read(&mut self, plain: &mut Vec<Bytes>) -> Result<u16, CarrierError> {
        let State::Open(_, connection, stage) = &mut self.state else {
            return match &self.state {
                State::Failed(error) => Err(error.clone()),
                _ => Ok(0),
            };
        };
        if self.is_closing {
            // Input is dropped.
            while self.lanes.read(connection, READ_BYTES).is_some() {}
        }
        if let Some((lane, bytes)) = self.lanes.read(connection, READ_BYTES) {
            plain.push(bytes);
            return Ok(lane);
        }
        self.has_messages = false;
        if let Stage::Lost(error) = stage { Err(error.clone()) } else { Ok(0) }
    }

    /// Sends what can be sent now.
    fn transmit(&mut self, now: Instant) {
        if let Some(kept) = self.kept.take() {
            let mut port = self.port.borrow_mut();
            match port.transmit_kept(kept) {
                Ok(sent) => self.bytes.0 += sent,
                Err(kept) => {
                    self.kept = Some(kept);
                    return port.wake_when_writable(self.side);
                }
            }
        }
        loop {
            let State::Open(_, connection, stage) = &mut self.state else { return };
            let is_open = matches!(stage, Stage::Established(_));
            if is_open && self.lanes.write_urgent(connection).is_err() {
                return self.lane_refused(now);
            }
            let mut port = self.port.borrow_mut();
            let (sent, kept) = port.transmit(now, connection);
            self.bytes.0 += sent;
            if kept.is_some() {
                self.kept = kept;
                return port.wake_when_writable(self.side);
            }
            if !is_open || connection.has_pending_retransmits() {
                return;
            }
            match self.lanes.write(connection, self.ahead_bytes) {
                Ok(true) => {}
                Ok(false) if self.is_closing => {
                    drop(port);
                    if !self.end(now) {
                        return;
                    }
                }
                Ok(false) => return,
                Err(_) => {
                    drop(port);
                    return self.lane_refused(now);
                }
            }
        }
    }

    /// Ends a connection that this node closes, once the peer has all that was sent. Returns true if there is more to send.
    fn end(&mut self, now: Instant) -> bool {
        let State::Open(_, connection, Stage::Established(_)) = &mut self.state else { return false };
        if connection.is_closed() || self.lanes.staged() > 0 {
            return false;
        }
        if !std::mem::replace(&mut self.is_finished, true) {
            self.lanes.finish(connection);
            return true;
        }
        let is_acknowledged = connection.streams().send_streams() == 0;
        if is_acknowledged {
            connection.close(now, failure::CLOSED, Bytes::new());
        }
        is_acknowledged
    }

    /// Ends a connection whose peer takes no more on a lane.
    fn lane_refused(&mut self, now: Instant) {
        let State::Open(_, connection, stage) = &mut self.state else { return };
        connection.close(now, failure::PROTOCOL_ERROR, Bytes::new());
        *stage = Stage::Lost(CarrierError::Failed(Failure::new(Reason::ProtocolError, "the peer refuses a lane")));
    }
}

impl Drop for Quic {
    /// Tells the peer, once, that the connection is over.
    fn drop(&mut self) {
        let lost = State::Failed(CarrierError::Failed(Failure::from(Reason::Internal)));
        let mut port = self.port.borrow_mut();
        match std::mem::replace(&mut self.state, lost) {
            State::Arrived(incoming, _) => port.endpoint().ignore(*incoming),
            State::Open(handle, mut connection, _) => {
                let now = Instant::now();
                connection.close(now, failure::CLOSED, Bytes::new());
                // What the system does not take is lost, and the peer finds out by its timers.
                let _ = port.transmit(now, &mut connection);
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
/// Bytes per second below which the carrier takes no more from the session while the connection has bytes that it has not sent.
const SLOW_RATE: u64 = 12_500_000;
/// Bytes taken from the session for one carrier at once, on any path.
const BATCH_BYTES_MAX: usize = 256 << 10;
/// Bytes that a connection is given ahead of what it has sent, on the slowest and on the fastest path.
const AHEAD_BYTES: (usize, usize) = (16 << 10, 256 << 10);
/// Time after which the path is sampled again.
const SAMPLE_US: u64 = 5_000;
