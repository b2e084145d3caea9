//! A carrier: one TCP connection with TLS in it, which carries one subflow of a link.
//!
//! ```text
//!   dialled:   Dialling --connected--> Securing --TLS--> Live (HELLO sent; the session knows the rest)
//!   accepted:                          Securing --TLS--> Greeting --HELLO--> Live
//!   at the end of each: Farewell, while last words are flushed
//! ```
//! Its socket is a side that belongs to no connection. What comes in is decrypted where it lies and given to the session
//! as it is; what goes out is gathered into records of 16 KiB. Only as much is taken from the session as the path
//! carries in a few milliseconds, so that what is urgent does not queue behind what is not.

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

/// One carrier, as the loop knows it.
pub(crate) struct Carrier {
    pub side: Id,
    /// The link that it belongs to, once that is known.
    pub link: Option<Id>,
    pub subflow: Option<SubflowId>,
    /// The listener that it came in at.
    pub server: Option<u32>,
    /// Its place in the plan of a link that we dial.
    pub place: usize,
    pub tls: Option<TlsPipe>,
    pub stage: CarrierStage,
    /// Where the peer sees it.
    pub seen_as: Option<SocketAddr>,
    pub greeter: HelloReader,
    /// Its peer's rate is used up, and a one-off has been set to read it again.
    pub held: bool,
    /// Cost of the frames of the last read beyond its bytes. The next field is set if most frames were small.
    frames_cost: usize,
    has_small_frames: bool,
    /// Small frames that will share a record.
    staged: Vec<u8>,
    /// Bytes on the wire, sent and received.
    pub bytes: (u64, u64),
    /// When the path was asked about last, and what was sent until then.
    sampled: (Time, u64),
    /// Bytes that the system may hold unsent.
    lowat: u32,
    window: Window,
}

/// How far a carrier has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CarrierStage {
    Dialling,
    Securing,
    Greeting,
    Live,
    Farewell,
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

    /// Says that nothing more comes; what comes in is dropped from now on.
    pub fn say_goodbye(&mut self) {
        self.seal_staged();
        if let Some(tls) = &mut self.tls {
            tls.close_notify();
        }
    }

    /// Whether nothing waits to be written.
    pub fn is_flushed(&self) -> bool {
        self.tls.as_ref().is_none_or(|tls| tls.unsent() == 0)
    }

    /// Takes a frame on its way out. Large ones make a record of their own, small ones share one.
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

    /// Makes records of what goes out.
    pub fn seal<'a>(&mut self, parts: impl IntoIterator<Item = &'a [u8]>) {
        if let Some(tls) = &mut self.tls {
            // A pipe that has failed says so when it is read; what was to go out on it is said again elsewhere.
            let _ = tls.seal(parts);
        }
    }

    /// Bytes that it takes from the session now, on a path of this rate: what the path carries in five milliseconds. On a
    /// slow path that is the only one nothing is taken that the system would not take: what is urgent would wait behind
    /// it. With several, what would wait is little, and a path that seems full for a moment would leave its part to worse
    /// ones.
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

    /// What a rate lets be under way, as far as the path has shown what it can: a handshake alone says little of it.
    fn proven(&self, bytes: u64) -> u64 {
        bytes.min(self.bytes.0 / 8)
    }

    /// Writes what waits, as far as the socket takes it.
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

    /// What the system knows of the path, if it is time to ask again.
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

    /// Returns the bytes that may be under way, on a path that makes this rate.
    pub fn window(&mut self, now: Time, rate: u64, info: &PathInfo, traffic: Traffic) -> u64 {
        self.window.bytes(now, rate, self.bytes.0, info.round_us, traffic)
    }

    /// On a fast path the system may hold more unsent, so that it never runs dry between two turns.
    pub fn set_lowat(&mut self, io: &Io, rate: u64) {
        let Io::Tcp(socket) = io else { return };
        let wished = self.proven(rate / 500).clamp(LOWAT_BYTES.0.into(), LOWAT_BYTES.1.into());
        let wished = (wished as u32).next_power_of_two();
        if wished != self.lowat {
            self.lowat = wished;
            // Where the option is not known, what waits is bounded by the batch.
            let _ = sys::set_unsent_bytes(socket, wished);
        }
    }

    /// A socket that is read at a rate keeps the peer's window small: a large one, once full, stays closed for as long as it
    /// takes to read a part of it, and the peer's system takes that for death (TCP_USER_TIMEOUT, tcp(7)).
    pub fn tune_to_rate(&self, io: &Io, rate: Option<u64>) {
        if let (Io::Tcp(socket), Some(rate)) = (io, rate) {
            let bytes = (rate / 2).clamp(RATED_BYTES.0, RATED_BYTES.1) as usize;
            // Where it cannot be set, what the system chooses has to do.
            let _ = socket2::SockRef::from(socket).set_recv_buffer_size(bytes);
        }
    }

    /// A fresh socket is set up for frames.
    pub fn tune(&mut self, io: &Io, dead: std::time::Duration) {
        if let Io::Tcp(socket) = io {
            io.set_nodelay();
            self.set_lowat(io, 0);
            // The session's own timers find a dead path too.
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
            // Reading finds out what the error is. It comes behind what has been received, and no event tells of it again, so
            // a short read is not the last.
            let failed = std::mem::take(&mut record.ready.error);
            record.ready.readable |= failed;
            record.ready.fin |= failed;
        }
        if let Err(failure) = self.read_carrier(core, id, side).and_then(|()| self.flush_carrier(core, id)) {
            // What the peer said last, such as why it refuses, is the reason; that it has closed then is none.
            link.into_iter().for_each(|link| self.link_events(core, link));
            return self.carrier_failed(core, id, &failure);
        }
        if let Some(link) = link.or_else(|| self.carriers.get(id)?.link) {
            core.pools.sessions.touch(link);
        }
    }

    /// Reads what has come, decrypts it, and gives it to the session.
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

    /// Returns whether so many events of its link wait that a carrier is not to be read.
    fn is_carrier_behind(&mut self, core: &mut Core, id: Id) -> bool {
        let link = self.carriers.get(id).and_then(|carrier| carrier.link);
        link.is_some_and(|link| self.is_behind(core, link))
    }

    /// Returns how many bytes are read from a carrier at once: few where they hold many frames, so that a turn can end
    /// between two reads.
    fn read_bytes(&self, id: Id) -> usize {
        let carrier = self.carriers.get(id);
        if carrier.is_some_and(|carrier| carrier.has_small_frames) { SMALL_READ_BYTES } else { usize::MAX }
    }

    /// Takes the cost of the frames of the last read beyond its bytes.
    fn take_frames_cost(&mut self, id: Id) -> usize {
        self.carriers.get_mut(id).map_or(0, |carrier| std::mem::take(&mut carrier.frames_cost))
    }

    /// Returns whether small messages compete with a bulk transfer on the link of a carrier.
    fn is_mixed_carrier(&self, core: &Core, id: Id) -> bool {
        let link = self.carriers.get(id).and_then(|carrier| carrier.link);
        link.is_some_and(|link| self.is_mixed(core, link))
    }

    /// One read of at most `most` bytes. None when there is nothing to read.
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

    /// Decrypts what has been read, gives it to the session, and goes on with the handshake.
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
            // An alert says why; it is the last that the peer hears.
            let _ = carrier.flush(record);
            return Err(self.tls_failed(core, id, &error));
        }
        plain.drain(..).try_for_each(|bytes| self.give(core, id, bytes))?;
        self.secured(core, id)
    }

    /// Plaintext has come: a HELLO, or frames for the session.
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
            // What is wrong with a frame, the session says in its events.
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

    /// How many bytes the rate of its peer lets a carrier read; if none, when. What is read beyond that would be owed, and
    /// while much is owed nothing is read, which looks like death.
    fn may_read(&mut self, core: &mut Core, id: Id) -> Result<usize, Time> {
        let link = self.carriers.get(id).and_then(|carrier| carrier.link);
        match link.and_then(|link| self.links.get_mut(link)) {
            Some(link) => link.received.open(core.pools.sessions.now),
            None => Ok(usize::MAX),
        }
    }

    /// Writes what waits on a carrier. One that has said its last words is closed.
    pub(crate) fn flush_carrier(&mut self, core: &mut Core, id: Id) -> Result<(), Failure> {
        let Some(carrier) = self.carriers.get_mut(id) else { return Ok(()) };
        let Some(side) = core.sides.get_mut(carrier.side) else { return Ok(()) };
        carrier.flush(side).map_err(|error| Failure::from(&error))?;
        if carrier.stage == CarrierStage::Farewell && carrier.is_flushed() {
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

/// Frames below this share a record.
const SHARED_BYTES_MAX: usize = 4 << 10;
/// Bytes that the system may hold for a carrier that is read at the slowest rate, and at the fastest.
const RATED_BYTES: (u64, u64) = (32 << 10, 4 << 20);
/// Bytes taken from the session for one carrier at once: on a slow path, and on any.
pub(super) const BATCH_BYTES_MIN: usize = 2 << 10;
const BATCH_BYTES_MAX: usize = 256 << 10;
/// Below so many bytes per second it is asked whether the system takes more, before anything is encrypted for it.
const SLOW_RATE: u64 = 12_500_000;
/// Bytes read from one carrier in one turn.
const READ_BYTES_PER_TURN: usize = 256 << 10;
/// Minimum share of one frame in [`READ_BYTES_PER_TURN`]: 2,048 frames in one turn.
const FRAME_COST_BYTES: usize = 128;
/// Bytes read at once from a carrier whose frames are mostly smaller than [`FRAME_COST_BYTES`].
const SMALL_READ_BYTES: usize = 16 << 10;
/// Bytes read and sent in one turn while small messages compete with a bulk transfer: a message waits for as much.
const BYTES_MIXED: usize = 128 << 10;
/// The path is asked about after so many bytes, or after so long.
const SAMPLE_BYTES: u64 = 256 << 10;
const SAMPLE_US: u64 = 5_000;
/// Bytes that the system may hold unsent on the slowest and on the fastest path.
const LOWAT_BYTES: (u32, u32) = (16 << 10, 256 << 10);
