//! A peer of a link without a node: the encryption, one session, and frames that a test writes by hand.
//!
//! A test that uses the kit also includes the encryption by path, because that module is private to the library:
//! ```ignore
//! #[path = "../src/tls/mod.rs"]
//! #[allow(dead_code, unused_imports, reason = "the test uses a part of it")]
//! mod tls;
//! mod hostile_kit;
//! ```
//! [`RawLink::turn`] drives the session as a node does: it sends acknowledgements, raises credit and answers probes.
//! Bytes that a test sends with [`RawLink::send_raw`] are unknown to the session, so the peer's acknowledgements for
//! them would end it. After the first `send_raw` a test must call [`RawLink::drain`], which discards all that the peer
//! sends.
#![allow(dead_code, unused_imports)] // Each test file uses its part.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ring::hmac;
use seaprox::link::frame::Frame;
use seaprox::link::{
    BootId, Bound, Config, Event, Open, Outbox, Proofs, Session, SessionId, SessionRole, StreamId, SubflowId, Time,
    proof_text,
};

use crate::tls::{Buffers, Cipher, Identity, Tls, TlsPipe};

/// One TCP connection to a node that carries one subflow of a session.
pub struct RawLink {
    pub session: Session,
    socket: TcpStream,
    pipe: TlsPipe,
    subflow: SubflowId,
    since: Instant,
    outbox: Outbox,
    plain: Vec<Bytes>,
}

/// Returns the public key of a seed.
pub fn public_key(seed: [u8; 32]) -> [u8; 32] {
    Identity::from_seed(&seed).expect("a seed").public_key()
}

/// Returns the encoded bytes of a frame.
pub fn encode(frame: &Frame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    bytes
}

impl RawLink {
    /// Dials a node and waits until the session is open.
    ///
    /// # Errors
    /// The node refuses the link, or does not answer within 20 seconds.
    pub fn connect(to: SocketAddr, seed: [u8; 32]) -> io::Result<RawLink> {
        RawLink::connect_from(TcpStream::connect(to)?, seed, Config::default())
    }

    /// Brings up a session on a connected socket.
    ///
    /// # Errors
    /// The errors of [`RawLink::connect`].
    pub fn connect_from(socket: TcpStream, seed: [u8; 32], config: Config) -> io::Result<RawLink> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(DEADLINE))?;
        socket.set_write_timeout(Some(DEADLINE))?;
        let identity = Identity::from_seed(&seed).map_err(io::Error::other)?;
        let tls = Tls::client(&identity, &Cipher::ALL, std::sync::Arc::new(|_| true)).map_err(io::Error::other)?;
        let mut pipe = tls.pipe(&Rc::new(Buffers::new())).map_err(io::Error::other)?;
        let mut plain = Vec::new();
        while pipe.is_handshaking() {
            flush(&mut pipe, &socket)?;
            if pipe.is_handshaking() {
                read(&mut pipe, &socket, &mut plain)?;
            }
        }
        flush(&mut pipe, &socket)?;
        let mut session_id = SessionId([0; 16]);
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut session_id.0)
            .map_err(|_| io::ErrorKind::Unsupported)?;
        let mut session = Session::new(SessionRole::Client, config, session_id, BootId([7; 8]), Time::ZERO);
        session.check_only_when_asked();
        let subflow = session.next_subflow();
        let proofs = proofs(&pipe, session_id, subflow).ok_or(io::ErrorKind::NotConnected)?;
        session.connect(Time::ZERO, subflow, 1, proofs);
        let (since, outbox) = (Instant::now(), Outbox::new());
        let mut link = RawLink { session, socket, pipe, subflow, since, outbox, plain };
        while !link.session.is_open() {
            link.send()?;
            link.receive()?;
        }
        Ok(link)
    }

    /// Returns the current time in the session's clock.
    pub fn now(&self) -> Time {
        Time::from_us(self.since.elapsed().as_micros() as u64)
    }

    /// Returns the local address of the connection.
    pub fn local(&self) -> SocketAddr {
        self.socket.local_addr().expect("a connected socket")
    }

    /// Runs due timers and sends all frames that the session has.
    ///
    /// # Errors
    /// The connection is over, or takes no bytes for 20 seconds.
    pub fn send(&mut self) -> io::Result<()> {
        let now = self.now();
        if self.session.poll_timeout().is_some_and(|due| due <= now) {
            self.session.handle_timeout(now);
        }
        loop {
            self.session.set_room(self.subflow, ROOM_BYTES);
            let mut sent = 0;
            loop {
                self.outbox.clear();
                let Some(frame) = self.session.poll_transmit(now, &mut self.outbox) else { break };
                sent += frame.bytes;
                self.pipe.seal(self.outbox.parts()).map_err(io::Error::other)?;
            }
            flush(&mut self.pipe, &self.socket)?;
            if sent < ROOM_BYTES / 2 {
                return Ok(());
            }
        }
    }

    /// Waits for bytes and passes them to the session.
    ///
    /// # Errors
    /// The connection or the session is over, or no byte comes within the socket's read timeout.
    pub fn receive(&mut self) -> io::Result<()> {
        read(&mut self.pipe, &self.socket, &mut self.plain)?;
        let now = self.now();
        for bytes in self.plain.drain(..) {
            self.session
                .receive(now, self.subflow, 0, bytes)
                .map_err(|error| io::Error::other(format!("{error:?}")))?;
        }
        if self.session.is_ended() { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }

    /// Sends all frames, then receives all bytes that have arrived, without waiting for more.
    ///
    /// # Errors
    /// The connection or the session is over.
    pub fn turn(&mut self) -> io::Result<()> {
        self.send()?;
        self.socket.set_nonblocking(true)?;
        let result = loop {
            match self.receive() {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.socket.set_nonblocking(false)?;
        result
    }

    /// Drives the session until an event matches, and returns that event. Drops other events.
    ///
    /// # Errors
    /// The connection or the session is over, or no byte arrives for 20 seconds.
    pub fn wait_for(&mut self, is_wanted: impl Fn(&Event) -> bool) -> io::Result<Event> {
        loop {
            while let Some(event) = self.session.poll_event() {
                if is_wanted(&event) {
                    return Ok(event);
                }
            }
            self.send()?;
            self.receive()?;
        }
    }

    /// Opens a stream. Returns its id and the peer's answer.
    ///
    /// # Errors
    /// The errors of [`RawLink::wait_for`], or the session accepts no stream.
    pub fn open(&mut self, open: Open) -> io::Result<(StreamId, Bound)> {
        let now = self.now();
        let stream = self.session.open(now, open).map_err(|refused| io::Error::other(format!("{refused:?}")))?;
        let is_answer = |event: &Event| matches!(event, Event::OpenResult { id, .. } if *id == stream);
        match self.wait_for(is_answer)? {
            Event::OpenResult { result, .. } => Ok((stream, result)),
            _ => unreachable!("it is the answer"),
        }
    }

    /// Sends frames without the session's knowledge.
    ///
    /// # Errors
    /// The connection is over, or takes no bytes for 20 seconds.
    pub fn send_raw(&mut self, frames: &[u8]) -> io::Result<()> {
        for part in frames.chunks(RAW_BYTES_MAX) {
            self.pipe.seal([part]).map_err(io::Error::other)?;
            flush(&mut self.pipe, &self.socket)?;
        }
        Ok(())
    }

    /// Reads and drops all that has arrived, without waiting for more. Returns the number of plaintext bytes.
    ///
    /// # Errors
    /// The connection is over.
    pub fn drain(&mut self) -> io::Result<usize> {
        self.socket.set_nonblocking(true)?;
        let mut bytes = 0;
        let result = loop {
            match read(&mut self.pipe, &self.socket, &mut self.plain) {
                Ok(()) => bytes += self.plain.drain(..).map(|piece| piece.len()).sum::<usize>(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(bytes),
                Err(error) => break Err(error),
            }
        };
        self.socket.set_nonblocking(false)?;
        result
    }
}

fn flush(pipe: &mut TlsPipe, mut socket: &TcpStream) -> io::Result<()> {
    while pipe.unsent() > 0 {
        pipe.write_to(|bytes| socket.write(bytes))?;
    }
    Ok(())
}

fn read(pipe: &mut TlsPipe, mut socket: &TcpStream, plain: &mut Vec<Bytes>) -> io::Result<()> {
    if pipe.read_from(|room| socket.read(room))? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    pipe.open(plain).map_err(io::Error::other)
}

/// Returns the proofs of the subflow that starts a session.
fn proofs(pipe: &TlsPipe, session: SessionId, subflow: SubflowId) -> Option<Proofs> {
    let secret = pipe.exporter("EXPORTER-seaprox-session", &session.0)?;
    let channel = pipe.exporter("EXPORTER-seaprox-join", &[])?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
    let of = |role| {
        let tag = hmac::sign(&key, &proof_text(role, session, subflow, &channel));
        tag.as_ref().try_into().expect("32 bytes")
    };
    Some(Proofs { ours: of(SessionRole::Client), theirs: of(SessionRole::Server) })
}

/// The time limit for each read and write.
const DEADLINE: Duration = Duration::from_secs(20);
/// Bytes that the session may send between two flushes.
const ROOM_BYTES: usize = 256 << 10;
/// The most bytes of raw frames in one record. A record may end in the middle of a frame.
const RAW_BYTES_MAX: usize = 16_000;
