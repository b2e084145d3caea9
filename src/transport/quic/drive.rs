//! One connection: it gets what has arrived and the time, its events are handled, and what it has to send leaves.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use quinn_proto::{ClientConfig, Connection, ConnectionError, ConnectionStats, EndpointConfig, Event, VarInt};

use crate::link::{MESSAGE_LANE, Time};
use crate::relay::io::Io;
use crate::relay::side::Side;
use crate::tls::{Negotiated, TlsError};
use crate::transport::{Buffers, CarrierError, Congestion, Protocol};
use crate::types::address::Endpoint;
use crate::types::id::Id;
use crate::types::peer::PeerKey;
use crate::types::reason::{Failure, Reason};

use super::lanes::Lanes;
use super::port::Port;
use super::silence::Silence;
use super::unsent::Unsent;
use super::window::Window;
use super::{AHEAD_BYTES, Charge, Quic, READ_BYTES, Stage, State, config, failure};

impl Quic {
    pub(super) fn new(port: Rc<RefCell<Port>>, side: Id, state: State, unsent: Unsent) -> Quic {
        let window = Window::new(&port.borrow().windows());
        Quic {
            port,
            side,
            state,
            lanes: Lanes::default(),
            kept: None,
            unsent,
            has_messages: false,
            message_bytes_max: 0,
            message_bytes: 0,
            limited: Cell::new(None),
            window,
            silence: Silence::default(),
            charge: Charge::default(),
            is_closing: false,
            is_finished: false,
            bytes: (0, 0),
            sampled: Time::ZERO,
            window_rate: 0,
            ahead_bytes: AHEAD_BYTES.0,
        }
    }

    /// Starts a connection on the socket that was made for it.
    pub(super) fn dialed(
        endpoint: &Arc<EndpointConfig>,
        (client, congestion): (&ClientConfig, Congestion),
        side: Id,
        record: &mut Side,
        buffers: &Rc<Buffers>,
    ) -> io::Result<Quic> {
        let (Io::Udp(socket), Some(peer)) = (std::mem::take(&mut record.io), record.endpoint.ip()) else {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "QUIC needs an address of UDP"));
        };
        let make = |allow_mtud| quinn_proto::Endpoint::new(Arc::clone(endpoint), None, allow_mtud, None);
        let mut port = Port::new(socket, make, buffers)?;
        let mut client = client.clone();
        let unsent = Unsent::default();
        let bytes_max = config::datagram_bytes_max(port.route_mtu(None, peer), peer);
        client.transport_config(config::transport(congestion, bytes_max, &unsent));
        let connected = port.endpoint().connect(Instant::now(), client, peer, "seaprox.invalid");
        let (handle, connection) = connected.map_err(io::Error::other)?;
        port.open_inbox(handle, side);
        port.widen_inbox(handle);
        let state = State::Open(handle, Box::new(connection), Stage::Handshaking);
        Ok(Quic::new(Rc::new(RefCell::new(port)), side, state, unsent))
    }

    pub(super) fn connection(&self) -> Option<&Connection> {
        match &self.state {
            State::Open(_, connection, _) => Some(connection),
            State::Arrived(..) | State::Failed(_) => None,
        }
    }

    /// Returns true if this node has dialed the connection, so that the port is its own.
    pub(super) fn is_dialed(&self) -> bool {
        self.connection().is_some_and(|connection| connection.side().is_client())
    }

    /// Returns true if there is something to give to the session, or a failure to report.
    pub(super) fn has_input(&self) -> bool {
        let is_lost = matches!(&self.state, State::Open(_, _, Stage::Lost(_)));
        self.lanes.is_readable() || self.has_messages || is_lost
    }

    /// Returns true if a timer of the connection has passed.
    pub(super) fn is_due(&mut self) -> bool {
        let State::Open(_, connection, _) = &mut self.state else { return false };
        connection.poll_timeout().is_some_and(|at| at <= Instant::now())
    }

    pub(super) fn negotiated(&self) -> Option<Box<Negotiated>> {
        self.connection()?.crypto_session().handshake_data()?.downcast().ok()
    }

    /// Follows a peer whose address has changed.
    pub(super) fn note_address(&self, side: &mut Side) {
        if let State::Open(_, connection, Stage::Established(_)) = &self.state {
            let peer = connection.remote_address();
            if side.endpoint.ip() != Some(Endpoint::from(peer).ip().unwrap_or(peer)) {
                side.endpoint = peer.into();
            }
        }
    }

    /// Computes the handshake of a connection that a peer has begun.
    pub(super) fn accept(&mut self) {
        if !matches!(self.state, State::Arrived(..)) {
            return;
        }
        let lost = CarrierError::Failed(Failure::from(Reason::Internal));
        let arrived = std::mem::replace(&mut self.state, State::Failed(lost));
        let State::Arrived(incoming, mut server, congestion) = arrived else { return };
        let mut port = self.port.borrow_mut();
        let peer = incoming.remote_address();
        let bytes_max = config::datagram_bytes_max(port.route_mtu(incoming.local_ip(), peer), peer);
        server.transport_config(config::transport(congestion, bytes_max, &self.unsent));
        self.state = match port.accept(*incoming, Instant::now(), *server) {
            Ok((handle, connection)) => {
                port.open_inbox(handle, self.side);
                State::Open(handle, Box::new(connection), Stage::Handshaking)
            }
            Err(error) => State::Failed(failure::of(&error, None)),
        };
    }

    /// Gives the connection what has arrived, and the time. Returns the bytes that have arrived.
    pub(super) fn take_in(&mut self, now: Instant) -> usize {
        let State::Open(handle, connection, _) = &mut self.state else { return 0 };
        let bytes = self.port.borrow_mut().take_inbox(*handle, |event| connection.handle_event(event));
        self.bytes.1 += bytes as u64;
        if connection.poll_timeout().is_some_and(|at| at <= now) {
            connection.handle_timeout(now);
        }
        self.settle();
        if bytes > 0 {
            self.note_silence(now);
        }
        bytes
    }

    /// Handles the events of the connection.
    pub(super) fn settle(&mut self) {
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
    pub(super) fn connected(&mut self) {
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
                connection.set_receive_window(VarInt::from_u32(self.window.open()));
                return self.port.borrow_mut().widen_inbox(*handle);
            }
            None => TlsError::Incompatible("no key".into()).into(),
        };
        connection.close(Instant::now(), failure::PROTOCOL_ERROR, Bytes::new());
        *stage = Stage::Lost(error);
    }

    /// Handles the end of the connection.
    pub(super) fn lost(&mut self, reason: &ConnectionError) {
        let error = self.negotiated().and_then(|negotiated| negotiated.error);
        if let State::Open(_, _, stage) = &mut self.state
            && !matches!(stage, Stage::Lost(_))
        {
            *stage = Stage::Lost(failure::of(reason, error));
        }
    }

    /// Reads the next message, or a lane, and reports the end of the connection behind all that was received.
    pub(super) fn read(&mut self, plain: &mut Vec<Bytes>) -> Result<u16, CarrierError> {
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
            self.window.on_read(bytes.len());
            self.charge.on_read(bytes.len());
            plain.push(bytes);
            return Ok(lane);
        }
        if std::mem::take(&mut self.has_messages) {
            plain.extend(std::iter::from_fn(|| connection.datagrams().recv()));
            return Ok(MESSAGE_LANE);
        }
        if let Stage::Lost(error) = stage { Err(error.clone()) } else { Ok(0) }
    }

    /// Sends what can be sent now. What has arrived is taken in first also while the session does not read, because the
    /// acknowledgements of the peer are among it.
    pub(super) fn transmit(&mut self, now: Instant) {
        if let State::Open(_, _, Stage::Established(_)) = &self.state {
            self.take_in(now);
        }
        self.ask_again(now);
        self.send_all(now);
        if let State::Open(_, connection, Stage::Established(_)) = &mut self.state {
            self.limited.take().into_iter().for_each(|bytes| self.window.fix(bytes));
            if let Some(bytes) = self.window.update(now, connection.rtt()) {
                connection.set_receive_window(VarInt::from_u32(bytes));
            }
            self.message_bytes_max = connection.datagrams().max_size().unwrap_or(0);
            self.message_bytes = config::MESSAGES_BYTES_MAX - connection.datagrams().send_buffer_space();
        }
        self.note_silence(now);
    }

    /// Asks a peer again that has been silent for long.
    fn ask_again(&mut self, now: Instant) {
        if let State::Open(_, connection, Stage::Established(_)) = &mut self.state
            && self.silence.ask_at(connection.rtt()).is_some_and(|at| at <= now)
        {
            connection.ping();
            self.unsent.let_one_pass();
            self.silence.on_asked(now);
        }
    }

    fn note_silence(&mut self, now: Instant) {
        if let State::Open(_, connection, Stage::Established(_)) = &self.state {
            let ConnectionStats { frame_tx: sent, frame_rx: received, .. } = connection.stats();
            self.silence.note(now, received.acks, sent.stream + sent.datagram + sent.ping);
        }
    }

    pub(super) fn send_all(&mut self, now: Instant) {
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
            let (sent, kept) = port.transmit(now, connection, &mut self.unsent);
            self.bytes.0 += sent;
            if kept.is_some() {
                self.kept = kept;
                return port.wake_when_writable(self.side);
            }
            if !is_open || self.unsent.has_any() {
                return;
            }
            match self.lanes.write(connection, self.ahead_bytes) {
                Ok(true) => self.unsent.note_given(),
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
    pub(super) fn end(&mut self, now: Instant) -> bool {
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
    pub(super) fn lane_refused(&mut self, now: Instant) {
        let State::Open(_, connection, stage) = &mut self.state else { return };
        connection.close(now, failure::PROTOCOL_ERROR, Bytes::new());
        *stage = Stage::Lost(CarrierError::Failed(Failure::new(Reason::ProtocolError, "the peer refuses a lane")));
        // The peer is told at once: when the carrier runs again, the connection may have forgotten its peer.
        let (sent, kept) = self.port.borrow_mut().transmit(now, connection, &mut self.unsent);
        self.bytes.0 += sent;
        self.kept = kept;
    }
}
