//! The record of a carrier: the connection of one subflow of a link, and its stage. The connection itself is one of
//! [`transport`].
//!
//! ```text
//!   dialed:     Dialing --connected--> Securing --TLS--> Live (HELLO sent; the session knows the rest)
//!   accepted:                          Securing --TLS--> Greeting --HELLO--> Live
//!                                      Securing --TLS--> Invited, for a peer with an invitation
//!   at the end of each: Closing, while the last records are flushed
//! ```
//! The socket of a carrier is a side that belongs to no connection. Plaintext is given to the session without a copy.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::engine::control::Deadline;
use crate::engine::core::{Core, OneOff};
use crate::link::{HelloReader, Outbox, SubflowId, Time};
use crate::relay::side::Side;
use crate::transport::{self, BYTES_MIXED, CarrierError, Demand, Protocol};
use crate::types::address::Endpoint;
use crate::types::id::Id;
use crate::types::reason::{Failure, Reason};

use super::config::LinkEvent;
use super::control::Node;
use super::counted::Waiting;
use super::handshakes::Progress;
use super::invited::Invited;

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
    /// The connection, once there is one.
    pub transport: Option<transport::Carrier>,
    pub stage: CarrierStage,
    /// The local address as the peer sees it.
    pub seen_as: Option<SocketAddr>,
    pub greeter: HelloReader,
    /// Set for a peer that may hold an invitation.
    pub(super) invited: Option<Box<Invited>>,
    /// A HELLO whose session is being counted.
    pub(super) waiting: Option<Box<Waiting>>,
    /// The session of the HELLO was counted.
    pub is_counted: bool,
    /// The rate of the peer is used up, and a deadline is armed to read again.
    pub held: bool,
    /// The peer has closed another carrier.
    doubted: Option<Doubt>,
    /// It was read, and is flushed when its link was driven.
    awaits_flush: bool,
    /// The time at which the connection is looked after, if that is armed.
    armed_us: Option<u64>,
    /// Frames were taken since the last flush.
    has_frames: bool,
    /// Cost of the frames of the last read beyond its bytes. The next field is set if most frames were small.
    frames_cost: usize,
    has_small_frames: bool,
}

/// The stages of a carrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CarrierStage {
    Dialing,
    Securing,
    Greeting,
    Invited,
    Live,
    Closing,
}

/// A doubt about the peer of a carrier: it must receive something within a time.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    by_ms: u64,
    wait_ms: u64,
    /// Bytes that it had received at the start of that time.
    received: u64,
    is_first: bool,
}

impl Carrier {
    pub fn new(side: Id, stage: CarrierStage) -> Carrier {
        Carrier {
            side,
            link: None,
            subflow: None,
            server: None,
            place: 0,
            transport: None,
            stage,
            seen_as: None,
            greeter: HelloReader::default(),
            invited: None,
            waiting: None,
            is_counted: false,
            held: false,
            doubted: None,
            awaits_flush: false,
            armed_us: None,
            has_frames: false,
            frames_cost: 0,
            has_small_frames: false,
        }
    }

    /// Tells the peer that this node sends no more. Input is dropped from now on.
    pub fn close(&mut self) {
        self.transport.iter_mut().for_each(transport::Carrier::close);
    }

    /// Returns true if no byte waits to be written.
    pub fn is_flushed(&self) -> bool {
        self.transport.as_ref().is_none_or(transport::Carrier::is_flushed)
    }

    /// Returns true if a flush has nothing to do: the carrier has written all, and has taken no frame since.
    pub fn is_idle(&self) -> bool {
        !self.has_frames && self.stage == CarrierStage::Live && self.is_flushed()
    }

    /// Takes an outgoing frame for a lane.
    pub fn take_frame(&mut self, lane: u16, frame: &Outbox) {
        self.has_frames = true;
        self.transport.iter_mut().for_each(|transport| transport.send(lane, frame));
    }

    /// Makes the frames of a batch ready to be written.
    pub fn end_batch(&mut self) {
        self.transport.iter_mut().for_each(transport::Carrier::end_batch);
    }

    /// Returns the bytes that the carrier takes from the session now.
    pub fn room(&mut self, side: &Side, demand: Demand) -> usize {
        self.transport.as_mut().map_or(0, |transport| transport.room(side, demand))
    }

    /// Returns the maximum length of a frame that the carrier sends as a message, or 0.
    pub fn message_bytes_max(&self) -> usize {
        self.transport.as_ref().map_or(0, transport::Carrier::message_bytes_max)
    }

    /// Returns the name of the transport that the connection uses, once there is one.
    pub fn name(&self, side: &Side) -> Option<&'static str> {
        self.transport.as_ref().map(|transport| transport.name(side))
    }

    /// Schedules the next look at the connection, if it has timers of its own.
    fn arm(&mut self, core: &mut Core) {
        let Some(wait) = self.transport.as_mut().and_then(transport::Carrier::next_timeout) else { return };
        // A timer that has passed waits for the carrier's turn, such as that of its handshake. The loop must not spin meanwhile.
        let wait = if wait.is_zero() { OVERDUE } else { wait };
        let now = core.age();
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let at_us = micros(now.saturating_add(wait)).saturating_add(1);
        // An earlier look sets the next one.
        if self.armed_us.is_none_or(|armed_us| at_us < armed_us || armed_us <= micros(now)) {
            core.enqueue_at(self.side, at_us, self.armed_us.replace(at_us));
        }
    }

    /// Returns true if the session of the carrier is over, and the carrier still delivers its last bytes.
    pub fn lingers(&self) -> bool {
        let is_over = self.link.is_none() && self.stage == CarrierStage::Closing;
        is_over && self.transport.as_ref().is_some_and(transport::Carrier::lingers)
    }

    /// Returns the address of this host that the connection uses.
    pub fn local(&self, side: &Side) -> Endpoint {
        self.transport.as_ref().map_or_else(|| side.io.local(), |transport| transport.local(side))
    }

    /// Returns the bytes on the wire, sent and received.
    pub fn bytes(&self) -> (u64, u64) {
        self.transport.as_ref().map_or((0, 0), transport::Carrier::bytes)
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
        let read = self.read_carrier(core, id, side);
        if let Err(failure) = read.and_then(|()| self.flush_later(core, id)) {
            // The last message of the peer, such as a refusal, is the reason, and not the close that followed it.
            link.into_iter().for_each(|link| self.link_events(core, link));
            return self.carrier_failed(core, id, &failure);
        }
        if let Some(link) = link.or_else(|| self.carriers.get(id)?.link) {
            if self.carriers.get(id).is_some_and(|carrier| carrier.armed_us.is_some()) {
                // A timer of the connection may have shown that its path is dead.
                self.sample_path(core, link, id);
            }
            core.pools.sessions.touch(link);
        }
    }

    /// Reads and decrypts input, and gives it to the session.
    fn read_carrier(&mut self, core: &mut Core, id: Id, side: Id) -> Result<(), Failure> {
        if self.awaits_handshake(id) || self.awaits_count(id) {
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
            match self.handshake_progress(id) {
                Progress::Ready => {}
                Progress::Part => continue,
                Progress::Waits => break Ok(()),
            }
            if let Err(failure) = self.open_carrier(core, id, side, &mut plain) {
                break Err(failure);
            }
            if self.awaits_count(id) {
                break Ok(());
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
        carrier
            .transport
            .as_mut()
            .map_or(Ok(None), |transport| transport.receive(record, &mut core.pools.sessions, most))
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
        let Some(transport) = &mut carrier.transport else { return Ok(()) };
        let lane = match transport.open(plain) {
            Ok(lane) => lane,
            Err(error) => {
                // The alert tells the peer the cause; it is the last message.
                let _ = transport.flush(record, &mut core.pools.sessions);
                return Err(self.transport_failed(core, id, error));
            }
        };
        plain.drain(..).try_for_each(|bytes| self.give(core, id, lane, bytes))?;
        self.secured(core, id)
    }

    /// Handles plaintext: a HELLO, or frames of the session.
    pub(super) fn give(&mut self, core: &mut Core, id: Id, lane: u16, mut bytes: Bytes) -> Result<(), Failure> {
        let Some(carrier) = self.carriers.get(id) else { return Ok(()) };
        if !matches!(carrier.stage, CarrierStage::Live | CarrierStage::Closing) {
            if lane != 0 {
                return Err(Failure::new(Reason::ProtocolError, "a frame before the HELLO"));
            }
            match self.give_early(core, id, bytes)? {
                Some(rest) => bytes = rest,
                None => return Ok(()),
            }
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
            let _ = session.receive(now, subflow, lane, bytes);
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

    /// Handles the first plaintext of the peer. Returns the bytes that belong to the session, if it has begun.
    fn give_early(&mut self, core: &mut Core, id: Id, bytes: Bytes) -> Result<Option<Bytes>, Failure> {
        let Some(carrier) = self.carriers.get(id) else { return Ok(None) };
        let (is_dialed, transport) = (carrier.server.is_none(), carrier.transport.as_ref());
        if is_dialed {
            // The peer of a connection that both nodes have dialed may send its HELLO behind the end of its handshake.
            self.secured(core, id)?;
            if self.carriers.get(id).is_none_or(|carrier| carrier.stage != CarrierStage::Greeting) {
                return Ok(Some(bytes));
            }
        } else if transport.is_some_and(|transport| transport.protocol() == Protocol::Invite) {
            return self.hear_invited(core, id, &bytes).map(|()| None);
        } else {
            // The HELLO may arrive with the end of the handshake, before anything else has noticed that end.
            self.secured(core, id)?;
        }
        if self.keeps_for_later(id, &bytes) {
            return Ok(None);
        }
        let Some(carrier) = self.carriers.get_mut(id) else { return Ok(None) };
        let (hello, used) = match carrier.greeter.feed(&bytes) {
            Ok(Some(greeting)) => greeting,
            Ok(None) => return Ok(None),
            Err(_) => return Err(Failure::new(Reason::ProtocolError, "it does not speak this protocol")),
        };
        if is_dialed {
            self.hello_on_dialed(core, id, &hello)?;
        } else {
            self.hello_received(core, id, &hello)?;
        }
        let rest = bytes.slice(used..);
        Ok((!self.keeps_for_later(id, &rest)).then_some(rest))
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

    /// Flushes a carrier that was read: at once, or behind the frames of its session if it can wait for them.
    fn flush_later(&mut self, core: &mut Core, id: Id) -> Result<(), Failure> {
        let Some(carrier) = self.carriers.get_mut(id) else { return Ok(()) };
        let may_wait = carrier.transport.as_ref().is_some_and(transport::Carrier::may_wait);
        if !may_wait || carrier.stage != CarrierStage::Live {
            return self.flush_carrier(core, id);
        }
        if !std::mem::replace(&mut carrier.awaits_flush, true) {
            self.unflushed.push(id);
        }
        Ok(())
    }

    /// Flushes the carriers that were read in this turn and were not flushed since.
    pub(super) fn flush_rest(&mut self, core: &mut Core) {
        while let Some(id) = self.unflushed.pop() {
            let awaits_flush = self.carriers.get(id).is_some_and(|carrier| carrier.awaits_flush);
            if awaits_flush && let Err(failure) = self.flush_carrier(core, id) {
                self.carrier_failed(core, id, &failure);
            }
        }
    }

    /// Writes the waiting bytes of a carrier. Frees a carrier that is closing and has written all.
    pub(crate) fn flush_carrier(&mut self, core: &mut Core, id: Id) -> Result<(), Failure> {
        let Some(carrier) = self.carriers.get_mut(id) else { return Ok(()) };
        let Some(side) = core.sides.get_mut(carrier.side) else { return Ok(()) };
        (carrier.awaits_flush, carrier.has_frames) = (false, false);
        let flushed =
            carrier.transport.as_mut().map_or(Ok(()), |transport| transport.flush(side, &mut core.pools.sessions));
        flushed.map_err(|error| Failure::from(&error))?;
        carrier.arm(core);
        if carrier.stage == CarrierStage::Closing && carrier.is_flushed() {
            self.drop_carrier(core, id);
        }
        Ok(())
    }

    /// Lets a carrier go whose session is over. One that must deliver its last bytes itself stays for that.
    pub(super) fn let_go(&mut self, core: &mut Core, id: Id) {
        let Some(carrier) = self.carriers.get_mut(id) else { return };
        let transport = carrier.transport.as_ref().filter(|_| carrier.stage == CarrierStage::Live);
        if !transport.is_some_and(|transport| transport.lingers() && !transport.is_flushed()) {
            return self.drop_carrier(core, id);
        }
        (carrier.link, carrier.subflow, carrier.stage) = (None, None, CarrierStage::Closing);
        core.one_offs.push(core.now_ms + LINGER_MS, OneOff::Control(Deadline::Carrier(id)));
    }

    /// Gives up the carriers over UDP of a link soon if they are silent, because its peer has closed another one: a process that was
    /// killed says so over TCP alone.
    pub(super) fn doubt_others(&mut self, core: &mut Core, link: Id) {
        let (Some(record), Some(session)) = (self.links.get(link), core.pools.sessions.session_mut(link)) else {
            return;
        };
        for id in record.carriers.iter().copied() {
            let Some(carrier) = self.carriers.get_mut(id).filter(|carrier| carrier.stage == CarrierStage::Live) else {
                continue;
            };
            let is_udp = carrier.transport.as_ref().is_some_and(|it| it.kind() == transport::CarrierKind::Quic);
            if let (Some(subflow), true, None) = (carrier.subflow, is_udp, carrier.doubted) {
                let rtt_us = session.path(subflow).map_or(0, |(rtt_us, ..)| rtt_us);
                let wait_ms = DOUBT_MS.max(DOUBT_ROUNDS * rtt_us / 1000);
                let by_ms = core.now_ms + wait_ms;
                carrier.doubted = Some(Doubt { by_ms, wait_ms, received: carrier.bytes().1, is_first: true });
                session.probe(subflow);
                core.one_offs.push(by_ms, OneOff::Control(Deadline::Carrier(id)));
            }
        }
    }

    /// Returns true if a carrier has received nothing since it was doubted, and the time for that is over. Bytes in the first such
    /// time may have been under way before.
    pub(super) fn is_given_up(&mut self, core: &mut Core, id: Id) -> bool {
        let Some(carrier) = self.carriers.get_mut(id) else { return false };
        let received = carrier.bytes().1;
        let Some(doubt) = carrier.doubted.take_if(|doubt| doubt.by_ms <= core.now_ms) else { return false };
        if received != doubt.received && doubt.is_first {
            let by_ms = core.now_ms + doubt.wait_ms;
            carrier.doubted = Some(Doubt { by_ms, received, is_first: false, ..doubt });
            core.one_offs.push(by_ms, OneOff::Control(Deadline::Carrier(id)));
            if let (Some(subflow), Some(link)) = (carrier.subflow, carrier.link)
                && let Some(session) = core.pools.sessions.session_mut(link)
            {
                session.probe(subflow);
                core.pools.sessions.touch(link);
            }
        }
        received == doubt.received
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
        carrier.armed_us.into_iter().for_each(|at_us| core.cancel_alarm(carrier.side, at_us));
        core.drop_side(carrier.side);
        if !self.leaving.is_empty() {
            drop(carrier);
            self.leaving.retain(|(_, endpoint)| endpoint.is_shared());
        }
    }

    /// Logs the transport of a subflow that has come up, if its carrier is not one of plain TCP. A link logs this once, and
    /// again when it changes.
    pub(super) fn log_transport(&mut self, core: &mut Core, link: Id, subflow: SubflowId) {
        let Some(record) = self.links.get_mut(link) else { return };
        let mut carriers = record.carriers.iter().filter_map(|id| self.carriers.get(*id));
        let Some(carrier) = carriers.rfind(|carrier| carrier.subflow == Some(subflow)) else { return };
        let (Some(transport), Some(side)) = (&carrier.transport, core.sides.get(carrier.side)) else { return };
        let (wanted, name) = (transport.kind().name(), transport.name(side));
        let is_tcp = matches!(transport.kind(), transport::CarrierKind::Tcp | transport::CarrierKind::Auto);
        if !is_tcp && record.carrier.replace(name) != Some(name) {
            log::info!(target: super::accept::TARGET, link = link.to_string(), peer = core.pools.sessions.name(link), carrier = name, wanted; "transport of the link");
        }
    }

    fn transport_failed(&mut self, core: &mut Core, id: Id, error: CarrierError) -> Failure {
        let link = self.carriers.get(id).and_then(|carrier| carrier.link);
        match (link, &error) {
            (Some(link), CarrierError::KeyRefused(key, _)) => self.tell(core, link, &LinkEvent::WrongKey { key: *key }),
            (Some(link), CarrierError::OwnKeyRefused(_)) => self.tell(core, link, &LinkEvent::Rejected),
            (Some(link), CarrierError::OwnKeyExpired(_)) => self.tell(core, link, &LinkEvent::Expired),
            _ => {}
        }
        error.into_failure()
    }
}

/// Time in which a carrier must show that its peer is there, after the peer has closed another one, and round trips, if they take
/// longer.
const DOUBT_MS: u64 = 2_000;
const DOUBT_ROUNDS: u64 = 4;
/// Time for the last bytes of a carrier that delivers them itself.
const LINGER_MS: u64 = 1_000;
/// Time after which a connection is looked after again whose timer has passed and was not handled.
const OVERDUE: Duration = Duration::from_millis(1);
/// Bytes read from one carrier in one turn.
const READ_BYTES_PER_TURN: usize = 256 << 10;
/// Minimum share of one frame in [`READ_BYTES_PER_TURN`]: 2,048 frames in one turn.
const FRAME_COST_BYTES: usize = 128;
/// Bytes read at once from a carrier whose frames are mostly smaller than [`FRAME_COST_BYTES`].
const SMALL_READ_BYTES: usize = 16 << 10;
