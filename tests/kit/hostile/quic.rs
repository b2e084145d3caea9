//! A client of QUIC without a node: one connection that a test drives as it likes, and datagrams that it makes by hand.
#![allow(dead_code)] // Each test file uses its part.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    ClientConfig, Connection, ConnectionError, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig, Event,
    ReadError, StreamId, TransportConfig,
};
use ring::hmac;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::quic::Version;
use seaprox::link::{BootId, Config, Outbox, Proofs, Session, SessionId, SessionRole, SubflowId, Time, proof_text};

use crate::tls::{Cipher, Identity, Tls};

/// One connection of QUIC to a node.
pub struct RawQuic {
    pub connection: Connection,
    pub socket: UdpSocket,
    pub lost: Option<ConnectionError>,
    pub is_connected: bool,
    /// The client sends nothing any more, and so acknowledges nothing.
    pub is_mute: bool,
    /// No timer fires, so that a datagram that nobody has received is never sent again.
    pub is_timeless: bool,
    endpoint: Endpoint,
    handle: ConnectionHandle,
    to: SocketAddr,
}

impl RawQuic {
    /// Begins a connection with the key of a seed. Sends nothing yet.
    pub fn new(to: SocketAddr, seed: [u8; 32], source: Ipv4Addr) -> RawQuic {
        RawQuic::with(to, seed, source, TransportConfig::default())
    }

    /// Begins a connection whose client takes no datagram for lost.
    pub fn without_repair(to: SocketAddr, seed: [u8; 32], source: Ipv4Addr) -> RawQuic {
        let mut config = TransportConfig::default();
        config.packet_threshold(u32::MAX).time_threshold(1e6);
        RawQuic::with(to, seed, source, config)
    }

    fn with(to: SocketAddr, seed: [u8; 32], source: Ipv4Addr, transport: TransportConfig) -> RawQuic {
        let identity = Identity::from_seed(&seed).unwrap();
        let tls = Tls::client(&identity, &Cipher::ALL, Arc::new(|_| true)).unwrap();
        let mut config = ClientConfig::new(tls.quic_client().unwrap());
        config.transport_config(Arc::new(transport));
        let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None, true, None);
        let (handle, connection) = endpoint.connect(Instant::now(), config, to, "seaprox.invalid").unwrap();
        let socket = UdpSocket::bind((source, 0)).unwrap();
        let (lost, is_connected, is_mute, is_timeless) = (None, false, false, false);
        RawQuic { connection, socket, lost, is_connected, is_mute, is_timeless, endpoint, handle, to }
    }

    /// Returns the datagrams that the client has to send now.
    pub fn datagrams(&mut self) -> Vec<Vec<u8>> {
        let (mut all, mut out) = (Vec::new(), Vec::new());
        while let Some(transmit) = self.connection.poll_transmit(Instant::now(), 1, &mut out) {
            all.push(out[..transmit.size].to_vec());
            out.clear();
        }
        all
    }

    /// Sends what is due, and takes what arrives within a few milliseconds.
    pub fn turn(&mut self) {
        let datagrams = if self.is_mute { Vec::new() } else { self.datagrams() };
        datagrams.iter().for_each(|datagram| _ = self.socket.send_to(datagram, self.to));
        self.socket.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
        let mut room = vec![0; 65_536];
        while let Ok((len, from)) = self.socket.recv_from(&mut room) {
            self.take(from, &room[..len]);
            self.socket.set_read_timeout(Some(Duration::from_micros(1))).unwrap();
        }
        let now = Instant::now();
        if !self.is_timeless && self.connection.poll_timeout().is_some_and(|at| at <= now) {
            self.connection.handle_timeout(now);
        }
        while let Some(event) = self.connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(self.handle, event) {
                self.connection.handle_event(event);
            }
        }
        while let Some(event) = self.connection.poll() {
            match event {
                Event::Connected => self.is_connected = true,
                Event::ConnectionLost { reason } => self.lost = Some(reason),
                _ => {}
            }
        }
    }

    /// Gives the connection a datagram.
    pub fn take(&mut self, from: SocketAddr, datagram: &[u8]) {
        let mut out = Vec::new();
        let event = self.endpoint.handle(Instant::now(), from, None, None, BytesMut::from(datagram), &mut out);
        if let Some(DatagramEvent::ConnectionEvent(_, event)) = event {
            self.connection.handle_event(event);
        }
    }

    /// Drives the connection until `is_true` returns true. Panics with `what` after 20 seconds.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut is_true: impl FnMut(&mut RawQuic) -> bool) {
        let since = Instant::now();
        while !is_true(self) {
            assert!(since.elapsed() < Duration::from_secs(20), "not within 20 s: {what} ({:?})", self.lost);
            self.turn();
        }
    }

    /// Opens the outgoing halves of the lanes that the node permits.
    pub fn open_lanes(&mut self) -> Vec<StreamId> {
        std::iter::from_fn(|| self.connection.streams().open(Dir::Uni)).collect()
    }

    /// Writes bytes to a lane.
    pub fn write(&mut self, lane: StreamId, bytes: &[u8]) {
        self.connection.send_stream(lane).write(bytes).unwrap();
    }

    /// Leaves a gap at the beginning of a lane, and sends behind it as much as the node permits. Returns the number of bytes.
    pub fn fill_behind_a_gap(&mut self, lane: StreamId) -> usize {
        self.is_timeless = true;
        self.write(lane, &[0xee; 1_000]);
        // The first bytes are never sent: they are the gap.
        let mut sent = 1_000;
        drop(self.datagrams());
        let (mut last, piece) = (Instant::now(), [0xee; 16 << 10]);
        // New credit comes after a round trip and a turn of the node.
        while last.elapsed() < Duration::from_millis(150) && self.lost.is_none() {
            while let Ok(written @ 1..) = self.connection.send_stream(lane).write(&piece) {
                (sent, last) = (sent + written, Instant::now());
            }
            self.turn();
        }
        sent
    }

    /// Returns a value that the two ends of the connection know (RFC 8446, section 7.5).
    pub fn exported(&self, label: &str, context: &[u8]) -> [u8; 32] {
        let mut key = [0; 32];
        let crypto = self.connection.crypto_session();
        crypto.export_keying_material(&mut key, label.as_bytes(), context).unwrap();
        key
    }

    /// Begins a session on the first lane, as a client does. Returns it when it is open.
    pub fn begin_session(&mut self, lane: StreamId, lanes: u16) -> Session {
        let mut id = SessionId([0; 16]);
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut id.0).unwrap();
        let mut session = Session::new(SessionRole::Client, Config::default(), id, BootId([7; 8]), Time::ZERO);
        let secret = self.exported("EXPORTER-seaprox-session", &id.0);
        let subflow = add_subflow(&mut session, lanes, &secret, &self.exported("EXPORTER-seaprox-join", &[]));
        let since = Instant::now();
        self.until("the session is open", |raw| {
            let now = Time::from_us(since.elapsed().as_micros() as u64);
            raw.exchange(&mut session, now, subflow, &[lane]);
            session.is_open()
        });
        session
    }

    /// Writes what a session has to send to these lanes, and gives it the bytes of the first lane of the peer.
    pub fn exchange(&mut self, session: &mut Session, now: Time, subflow: SubflowId, lanes: &[StreamId]) {
        let mut out = Outbox::new();
        while let Some(transmit) = session.poll_transmit(now, &mut out) {
            let bytes: Vec<u8> = out.parts().flatten().copied().collect();
            self.write(lanes[usize::from(transmit.lane)], &bytes);
            out.clear();
        }
        while let Some(bytes) = self.read_first_lane() {
            session.receive(now, subflow, 0, bytes).unwrap();
        }
    }

    fn read_first_lane(&mut self) -> Option<Bytes> {
        let stream = StreamId::new(!self.connection.side(), Dir::Uni, 0);
        let mut incoming = self.connection.recv_stream(stream);
        let mut chunks = incoming.read(true).ok()?;
        let bytes = match chunks.next(65_536) {
            Ok(chunk) => chunk.map(|chunk| chunk.bytes),
            Err(ReadError::Blocked | ReadError::Reset(_)) => None,
        };
        let _ = chunks.finalize();
        bytes
    }
}

/// Adds a subflow to a session of a client, which proves that it is the connection with the value `channel`.
pub fn add_subflow(session: &mut Session, lanes: u16, secret: &[u8; 32], channel: &[u8; 32]) -> SubflowId {
    let (id, subflow, key) = (session.id(), session.next_subflow(), hmac::Key::new(hmac::HMAC_SHA256, secret));
    let of = |role| hmac::sign(&key, &proof_text(role, id, subflow, channel)).as_ref().try_into().unwrap();
    let proofs = Proofs { ours: of(SessionRole::Client), theirs: of(SessionRole::Server) };
    session.connect(Time::ZERO, subflow, lanes, proofs);
    session.set_room(subflow, 100_000);
    subflow
}

/// Returns an Initial packet of a client, as a datagram of 1,200 bytes: valid up to its frames, which are `payload`.
pub fn initial(dest: [u8; 8], payload: &[u8]) -> Vec<u8> {
    const NUMBER_BYTES: usize = 4;
    const TAG_BYTES: usize = 16;
    let suite = TLS13_AES_128_GCM_SHA256.tls13().and_then(|suite| suite.quic_suite()).unwrap();
    let keys = suite.keys(&dest, rustls::Side::Client, Version::V1).local;
    let mut packet = vec![0xc3, 0, 0, 0, 1, 8];
    packet.extend_from_slice(&dest);
    packet.extend_from_slice(&[0, 0]); // no source id, no token
    let number_at = packet.len() + 2;
    let body_len = 1200 - number_at;
    packet.extend_from_slice(&(0x4000 | body_len as u16).to_be_bytes());
    packet.extend_from_slice(&[0; NUMBER_BYTES]);
    let mut body = payload.to_vec();
    body.resize(body_len - NUMBER_BYTES - TAG_BYTES, 0);
    let tag = keys.packet.encrypt_in_place(0, &packet, &mut body).unwrap();
    packet.extend_from_slice(&body);
    packet.extend_from_slice(tag.as_ref());
    let (head, rest) = packet.split_at_mut(number_at);
    let (number, sealed) = rest.split_at_mut(NUMBER_BYTES);
    keys.header.encrypt_in_place(&sealed[..16], &mut head[0], number).unwrap();
    packet
}

/// Receives what arrives at a socket until nothing has come for `pause`. Returns the number of datagrams and of bytes.
pub fn count_received(socket: &UdpSocket, pause: Duration) -> (usize, usize) {
    socket.set_read_timeout(Some(pause)).unwrap();
    let (mut room, mut count, mut bytes) = (vec![0; 65_536], 0, 0);
    loop {
        match socket.recv(&mut room) {
            Ok(len) => (count, bytes) = (count + 1, bytes + len),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return (count, bytes),
            // An earlier datagram was refused.
            Err(_) => {}
        }
    }
}
