//! A carrier: one TCP connection with TLS in it, which carries one subflow of a link.
//!
//! ```text
//!   dialed:     Dialing --connected--> Securing --TLS--> Live (HELLO sent; the session knows the rest)
//!   accepted:                          Securing --TLS--> Greeting --HELLO--> Live
//!   at the end of each: Closing, while the last records are flushed
//! ```
//! The socket of a carrier is a side that belongs to no connection. Input is decrypted in place and given to the session
//! without a copy; output is gathered into records of 16 KiB. The carrier takes only as many bytes from the session as the
//! path carries in a few milliseconds, so that urgent frames do not queue behind bulk data.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;

use crate::engine::core::Core;
use crate::link::frame::FRAME_BYTES_MAX;
use crate::link::{HelloReader, Outbox, SubflowId, Time};
use crate::relay::io::Io;
use crate::relay::side::Side;
use crate::sys::{self, PathInfo};
use crate::tls::{TlsError, TlsPipe};
use crate::types::id::Id;
use crate::types::reason::{Failure, Reason};

use super::config::LinkEvent;
use super::control::Node;
use super::window::{Traffic, Window};

/// The record of one carrier.
pub(crate) struct Carrier {
    pub side: Id,
    /// The link of the carrier, once it is known.
    pub link: Option<Id>,
    pub subflow: Option<SubflowId>,
    /// The server that accepted the carrier.
    pub server: Option<Id>,
    /// The index of its subflow slot in the link's dialer.
    pub place: usize,
    pub tls: Option<TlsPipe>,
    pub stage: CarrierStage,
    /// The local address as the peer sees it.
    pub seen_as: Option<SocketAddr>,
    pub greeter: HelloReader,
    /// The rate of the peer is used up, and a deadline is armed to read again.
    pub held: bool,
    /// Cost of the frames of the last read beyond its bytes. The next field is set if most frames were small.
    frames_cost: usize,
    has_small_frames: bool,
    /// Small frames that will share a record.
    staged: Vec<u8>,
    /// Bytes on the wire, sent and received.
    pub bytes: (u64, u64),
    /// Time of the last sample of the path, and the bytes sent until then.
    sampled: (Time, u64),
    /// Limit of the unsent bytes in the system.
    lowat: u32,
    window: Window,
}

/// The stages of a carrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CarrierStage {
    Dialing,
    Securing,
    Greeting,
    Live,
    Closing,
}

impl Carrier {
    pub fn new(side: Id, stage: CarrierStage) -> Carrier {
        Carrier {
            side,
            link: None,
            subflow: None,
            server: None,
            place: 0,
            tls: None,
            stage,
            seen_as: None,
            greeter: HelloReader::default(),
            held: false,
            frames_cost: 0,
            has_small_frames: false,
            staged: Vec::new(),
            bytes: (0, 0),
            sampled: (Time::ZERO, 0),
            lowat: 0,
            window: Window::default(),
        }
    }

    /// Sends the TLS close notice. Input is dropped from now on.
    pub fn close_notify(&mut self) {
        self.seal_staged();
        if let Some(tls) = &mut self.tls {
            tls.close_notify();
        }
    }

    /// Returns true if no byte waits to be written.
    pub fn is_flushed(&self) -> bool {
        self.tls.as_ref().is_none_or(|tls| tls.unsent() == 0)
    }

    /// Takes an outgoing frame. A large frame gets a record of its own, small frames share one.
    pub fn take_frame(&mut self, frame: &Outbox) {
        if frame.len() < SHARED_BYTES_MAX {
            if self.staged.len() + frame.len() > FRAME_BYTES_MAX {
                self.seal_staged();
            }
            return frame.copy_to(&mut self.staged);
        }
        self.seal_staged();
        self.seal(frame.parts());
    }

    /// Makes a record of the frames that share one.
    pub fn seal_staged(&mut self) {
        if self.staged.is_empty() {
            return;
        }
        let mut staged = std::mem::take(&mut self.staged);
        self.seal([&staged[..]]);
        staged.clear();
        staged.shrink_to(FRAME_BYTES_MAX);
        self.staged = staged;
    }

    /// Encrypts outgoing bytes into records.
    pub fn seal<'a>(&mut self, parts: impl IntoIterator<Item = &'a [u8]>) {
        if let Some(tls) = &mut self.tls {
            // A failed pipe reports that when it is read, and the session sends the data again elsewhere.
            let _ = tls.seal(parts);
        }
    }

    /// Returns the bytes that the carrier takes from the session now: what a path of this rate carries in five milliseconds.
    /// A slow path that is the only one gets nothing that the system would not take, because urgent frames would wait behind
    /// it. With several paths little would wait, and a path that seems full for a moment would lose its part to worse ones.
    pub fn room(&self, io: &Io, rate: u64, is_alone: bool, is_mixed: bool) -> usize {
        let is_slow = is_alone && rate < SLOW_RATE;
        let is_full = || matches!(io, Io::Tcp(socket) if is_slow && !sys::wants_more(socket));
        if !self.is_flushed() || is_full() {
            return 0;
        }
        let wished = rate / 200;
        if is_slow {
            return usize::try_from(wished).unwrap_or(usize::MAX).clamp(BATCH_BYTES_MIN, FRAME_BYTES_MAX);
        }
        let batch = usize::try_from(self.proven(wished)).unwrap_or(usize::MAX);
        batch.clamp(FRAME_BYTES_MAX, if is_mixed { BYTES_MIXED } else { BATCH_BYTES_MAX })
    }

    /// Bounds the bytes under way by what the path has shown: a handshake alone does not prove a rate.
    fn proven(&self, bytes: u64) -> u64 {
        bytes.min(self.bytes.0 / 8)
    }

    /// Writes waiting bytes, as many as the socket takes.
    pub fn flush(&mut self, side: &mut Side) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        while tls.unsent() > 0 && side.ready.writable {
            match tls.write_to(|bytes| side.io.write_raw(bytes)) {
                Ok(put) => self.bytes.0 += put as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => side.ready.writable = false,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Samples the state of the path that the system knows, if a sample is due.
    pub fn sample(&mut self, io: &Io, now: Time) -> Option<PathInfo> {
        let (at, sent) = self.sampled;
        let fresh = self.bytes.0 - sent;
        if fresh == 0 || (fresh < SAMPLE_BYTES && now.since(at) < SAMPLE_US) {
            return None;
        }
        self.sampled = (now, self.bytes.0);
        let Io::Tcp(socket) = io else { return None };
        sys::tcp_info(socket)
    }

    /// Returns the bytes that may be under way on a path of this rate.
    pub fn window(&mut self, now: Time, rate: u64, info: &PathInfo, traffic: Traffic) -> u64 {
        self.window.bytes(now, rate, self.bytes.0, info.round_us, traffic)
    }

    /// Sets the limit of unsent bytes in the system. It is higher on a fast path, so that the path never runs dry between
    /// two turns.
    pub fn set_lowat(&mut self, io: &Io, rate: u64) {
        let Io::Tcp(socket) = io else { return };
        let wished = self.proven(rate / 500).clamp(LOWAT_BYTES.0.into(), LOWAT_BYTES.1.into());
        let wished = (wished as u32).next_power_of_two();
        if wished != self.lowat {
            self.lowat = wished;
            // Without this option, the batch bounds the unsent bytes.
            let _ = sys::set_unsent_bytes(socket, wished);
        }
    }

    /// Keeps the peer's window small on a socket that is read at a rate. A large window, once full, stays closed until a
    /// part of it was read, and the peer's system takes that for a dead path (TCP_USER_TIMEOUT, tcp(7)).
    pub fn tune_to_rate(&self, io: &Io, rate: Option<u64>) {
        if let (Io::Tcp(socket), Some(rate)) = (io, rate) {
            let bytes = (rate / 2).clamp(RATED_BYTES.0, RATED_BYTES.1) as usize;
            // If the size cannot be set, the system's default is used.
            let _ = socket2::SockRef::from(socket).set_recv_buffer_size(bytes);
        }
    }

    /// Sets the options of a new socket.
    pub fn tune(&mut self, io: &Io, dead: std::time::Duration) {
        if let Io::Tcp(socket) = io {
            io.set_nodelay();
            self.set_lowat(io, 0);
            // The timers of the session find a dead path too.
            let _ = sys::set_user_timeout(socket, dead);
        }
    }
}

impl Node {
    /// Reads and writes a carrier whose socket has become ready, or may be tried again.
    pub(crate) fn run_carrier(&mut self, core: &mut Core, id: Id) {
        let Some(carrier) = self.carriers.get(id) else { return };
        let (side, link) = (carrier.side, carrier.link);
        if let Some(record) = core.sides.get_mut(side) {
            // The read finds the error. The error comes after the received bytes, and no event announces it again, so a
            // short read is not the last one.
            let failed = std::mem::take(&mut record.ready.error);
            record.ready.readable |= failed;
            record.ready.fin |= failed;
        }
        if let Err(failure) = self.read_carrier(core, id, side).and_then(|()| self.flush_carrier(core, id)) {
            // The last message of the peer, such as a refusal, is the reason, and not the close that followed it.
            link.into_iter().for_each(|link| self.link_events(core, link));
            return self.carrier_failed(core, id, &failure);
        }
        if let Some(link) = link.or_else(|| self.carriers.get(id)?.link) {
            core.pools.sessions.touch(link);
        }
    }

    /// Reads and decrypts input, and gives it to the session.
    fn read_carrier(&mut self, core: &mut Core, id: Id, side: Id) -> Result<(), Failure> {
        if self.awaits_handshake(id) {
            return Ok(());
        }
        let mut budget = if self.is_mixed_carrier(core, id) { BYTES_MIXED } else { READ_BYTES_PER_TURN };
        let mut plain = std::mem::take(&mut self.plain);
        let result = loop {
            budget = budget.saturating_sub(self.take_frames_cost(id));
            if budget == 0 {
                core.enqueue(side);
                break Ok(());
            }
            if self.is_carrier_behind(core, id) {
                break Ok(());
            }
            let most = match self.may_read(core, id) {
                Ok(most) => most.min(self.read_bytes(id)),
                Err(wait) => {
                    self.hold_carrier(core, id, wait);
                    break Ok(());
                }
            };
            match self.read_once(core, id, side, most) {
                Ok(Some(got)) => budget = budget.saturating_sub(got),
                Ok(None) => break Ok(()),
                Err(failure) => break Err(failure),
            }
            if self.must_await_handshake(id) {
                break Ok(());
            }
            if let Err(failure) = self.open_carrier(core, id, side, &mut plain) {
                break Err(failure);
            }
        };
        plain.clear();
        self.plain = plain;
        result
    }

    /// Returns true if so many events of the link wait that its carriers must not be read.
    fn is_carrier_behind(&mut self, core: &mut Core, id: Id) -> bool {
        let link = self.carriers.get(id).and_then(|carrier| carrier.link);
        link.is_some_and(|link| self.is_behind(core, link))
    }

    /// Returns the size of one read. It is small if the reads hold many frames, so that a turn can end between two reads.
    fn read_bytes(&self, id: Id) -> usize {
        let carrier = self.carriers.get(id);
        if carrier.is_some_and(|carrier| carrier.has_small_frames) { SMALL_READ_BYTES } else { usize::MAX }
    }

    /// Takes the cost of the frames of the last read beyond its bytes.
    fn take_frames_cost(&mut self, id: Id) -> usize {
        self.carriers.get_mut(id).map_or(0, |carrier| std::mem::take(&mut carrier.frames_cost))
    }

    /// Returns true if small messages compete with a bulk transfer on the link of a carrier.
    fn is_mixed_carrier(&self, core: &Core, id: Id) -> bool {
        let link = self.carriers.get(id).and_then(|carrier| carrier.link);
        link.is_some_and(|link| self.is_mixed(core, link))
    }

    /// Reads at most `most` bytes once. Returns none if there is nothing to read.
    fn read_once(&mut self, core: &mut Core, id: Id, side: Id, most: usize) -> Result<Option<usize>, Failure> {
        let (Some(carrier), Some(record)) = (self.carriers.get_mut(id), core.sides.get_mut(side)) else {
            return Ok(None);
        };
        let Some(tls) = carrier.tls.as_mut().filter(|_| record.ready.readable) else { return Ok(None) };
        let mut wished = 0;
        let got = tls.read_from(|room| {
            wished = room.len().min(most);
            record.io.read_raw(&mut room[..wished])
        });
        let got = match got {
            Ok(0) => {
                let ended = tls.end_of_input();
                let why =
                    ended.map_or_else(|error| error.to_string(), |()| "the peer closed the connection".to_owned());
                return Err(Failure::new(Reason::LinkLost, why));
            }
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                record.ready.readable = false;
                return Ok(None);
            }
            Err(error) => return Err(Failure::from(&error)),
        };
        record.note_read(got, wished);
        carrier.bytes.1 += got as u64;
        Ok(Some(got))
    }

    /// Decrypts input, gives it to the session, and continues the handshake.
    pub(super) fn open_carrier(
        &mut self,
        core: &mut Core,
        id: Id,
        side: Id,
        plain: &mut Vec<Bytes>,
    ) -> Result<(), Failure> {
        let (Some(carrier), Some(record)) = (self.carriers.get_mut(id), core.sides.get_mut(side)) else {
            return Ok(());
        };
        let Some(tls) = &mut carrier.tls else { return Ok(()) };
        if let Err(error) = tls.open(plain) {
            // The alert tells the peer the cause; it is the last message.
            let _ = carrier.flush(record);
            return Err(self.tls_failed(core, id, &error));
        }
        plain.drain(..).try_for_each(|bytes| self.give(core, id, bytes))?;
        self.secured(core, id)
    }

    /// Handles plaintext: a HELLO, or frames of the session.
    fn give(&mut self, core: &mut Core, id: Id, mut bytes: Bytes) -> Result<(), Failure> {
        let Some(carrier) = self.carriers.get_mut(id) else { return Ok(()) };
        if carrier.server.is_some() && matches!(carrier.stage, CarrierStage::Securing | CarrierStage::Greeting) {
            let (hello, used) = match carrier.greeter.feed(&bytes) {
                Ok(Some(greeting)) => greeting,
                Ok(None) => return Ok(()),
                Err(_) => return Err(Failure::new(Reason::ProtocolError, "it does not speak this protocol")),
            };
            bytes = bytes.slice(used..);
            self.hello_received(core, id, &hello)?;
        }
        let Some(Carrier { link: Some(link), subflow: Some(subflow), .. }) = self.carriers.get(id) else {
            return Ok(());
        };
        let (link, subflow) = (*link, *subflow);
        let now = core.pools.sessions.now;
        let Some(record) = self.links.get(link) else { return Ok(()) };
        let len = bytes.len();
        record.received.take(len);
        if let Some(session) = core.pools.sessions.session_mut(link) {
            let [_, before] = session.stats().frames;
            // The session reports errors of frames in its events.
            let _ = session.receive(now, subflow, 0, bytes);
            let frames = usize::try_from(session.stats().frames[1] - before).unwrap_or(usize::MAX);
            if let Some(carrier) = self.carriers.get_mut(id) {
                let extra = frames.saturating_mul(FRAME_COST_BYTES).saturating_sub(len);
                carrier.has_small_frames = extra > 0;
                carrier.frames_cost = carrier.frames_cost.saturating_add(extra);
            }
        }
        core.pools.sessions.touch(link);
        self.weigh_link(core, link);
        Ok(())
    }

    /// Returns the bytes that a carrier may read within the rate of its peer, or the time at which it may read again. More
    /// bytes would be a debt, during which nothing is read, and a long pause looks like a dead path.
    fn may_read(&mut self, core: &mut Core, id: Id) -> Result<usize, Time> {
        let link = self.carriers.get(id).and_then(|carrier| carrier.link);
        match link.and_then(|link| self.links.get_mut(link)) {
            Some(link) => link.received.open(core.pools.sessions.now),
            None => Ok(usize::MAX),
        }
    }

    /// Writes the waiting bytes of a carrier. Frees a carrier that is closing and has written all.
    pub(crate) fn flush_carrier(&mut self, core: &mut Core, id: Id) -> Result<(), Failure> {
        let Some(carrier) = self.carriers.get_mut(id) else { return Ok(()) };
        let Some(side) = core.sides.get_mut(carrier.side) else { return Ok(()) };
        carrier.flush(side).map_err(|error| Failure::from(&error))?;
        if carrier.stage == CarrierStage::Closing && carrier.is_flushed() {
            self.drop_carrier(core, id);
        }
        Ok(())
    }

    /// Frees a carrier and closes its socket.
    pub(crate) fn drop_carrier(&mut self, core: &mut Core, id: Id) {
        let Some(carrier) = self.carriers.remove(id) else { return };
        if let Some(link) = carrier.link.and_then(|link| self.links.get_mut(link)) {
            link.carriers.retain(|other| *other != id);
        }
        if carrier.server.is_some() {
            self.forget_unauthenticated(core, id, &carrier);
        }
        core.drop_side(carrier.side);
    }

    fn tls_failed(&mut self, core: &mut Core, id: Id, error: &TlsError) -> Failure {
        let link = self.carriers.get(id).and_then(|carrier| carrier.link);
        match (link, error) {
            (Some(link), TlsError::KeyRefused(key)) => self.tell(core, link, &LinkEvent::WrongKey { key: *key }),
            (Some(link), TlsError::OurKeyRefused) => self.tell(core, link, &LinkEvent::Rejected),
            _ => {}
        }
        let reason = match error {
            TlsError::KeyRefused(_) | TlsError::OurKeyRefused | TlsError::Authentication => Reason::AuthFailed,
            _ => Reason::ProtocolError,
        };
        Failure::new(reason, error.to_string())
    }
}

/// Frames below this size share a record.
const SHARED_BYTES_MAX: usize = 4 << 10;
/// Receive buffer of a carrier at the slowest and at the fastest rate.
const RATED_BYTES: (u64, u64) = (32 << 10, 4 << 20);
/// Bytes taken from the session for one carrier at once: on a slow path, and on any path.
pub(super) const BATCH_BYTES_MIN: usize = 2 << 10;
const BATCH_BYTES_MAX: usize = 256 << 10;
/// Bytes per second below which the system is asked if it takes more, before frames are encrypted for it.
const SLOW_RATE: u64 = 12_500_000;
/// Bytes read from one carrier in one turn.
const READ_BYTES_PER_TURN: usize = 256 << 10;
/// Minimum share of one frame in [`READ_BYTES_PER_TURN`]: 2,048 frames in one turn.
const FRAME_COST_BYTES: usize = 128;
/// Bytes read at once from a carrier whose frames are mostly smaller than [`FRAME_COST_BYTES`].
const SMALL_READ_BYTES: usize = 16 << 10;
/// Bytes read and sent in one turn while small messages compete with a bulk transfer. They bound the wait of a message.
const BYTES_MIXED: usize = 128 << 10;
/// Bytes and time after which the path is sampled again.
const SAMPLE_BYTES: u64 = 256 << 10;
const SAMPLE_US: u64 = 5_000;
/// Limit of unsent bytes in the system on the slowest and on the fastest path.
const LOWAT_BYTES: (u32, u32) = (16 << 10, 256 << 10);
