//! Subflows that come and go: their handshake, and the frames in flight on one that dies.
//!
//! The client sends HELLO, the server answers with HELLO_ACK. Until then the client sends nothing else, so a refused
//! HELLO has no effect and can be repeated on another connection. The server may send frames right behind its
//! HELLO_ACK. Lanes count their bytes from the end of these two frames.

use super::event::Event;
use super::phase::{Cause, Phase};
use super::state::Session;
use crate::link::path::estimate::PathStats;
use crate::link::path::scheduler::Mode;
use crate::link::path::subflow::{Subflow, SubflowState};
use crate::link::path::window::Traffic;
use crate::link::wire::code::Code;
use crate::link::wire::frame::{Class, Frame, kind};
use crate::link::wire::header::FrameError;
use crate::link::wire::hello::{Hello, HelloAck, Intent, PROOF_BYTES, Status, VERSION, proofs_match};
use crate::link::wire::ids::{SessionRole, SubflowId, Time};

/// The two proofs of a subflow: see [`proof_text`](crate::link::wire::hello::proof_text).
#[derive(Clone, Copy, Debug)]
pub struct Proofs {
    /// The proof that this end sends.
    pub ours: [u8; PROOF_BYTES],
    /// The proof that the peer must send.
    pub theirs: [u8; PROOF_BYTES],
}

/// Maximum number of lanes of a subflow.
pub const LANES_MAX: u16 = 17;
/// The lane of a frame that is a message of its carrier: see [`Session::set_message_bytes_max`].
pub const MESSAGE_LANE: u16 = u16::MAX;

impl Session {
    /// Returns the number of the next subflow that a client dials, for the proofs and for [`Session::connect`].
    pub fn next_subflow(&mut self) -> SubflowId {
        loop {
            let id = SubflowId(self.next_subflow);
            self.next_subflow = self.next_subflow.wrapping_add(1);
            if self.subflow(id).is_none() {
                return id;
            }
        }
    }

    /// Returns true if the session has fewer subflows than it may have.
    pub fn has_subflow_room(&self) -> bool {
        self.subflows.len() < self.config.subflows_max
    }

    /// Sends HELLO on a client's new carrier, which is connected and secured. Returns false if the session takes no
    /// subflow now.
    ///
    /// A session takes a second subflow only once the first is up.
    pub fn connect(&mut self, now: Time, id: SubflowId, lanes: u16, proofs: Proofs) -> bool {
        let in_handshake = self.phase == Phase::Handshake;
        let unwanted = matches!(self.phase, Phase::Ended { .. } | Phase::Closing { .. })
            || !self.has_subflow_room()
            || (in_handshake && !self.subflows.is_empty())
            || self.subflow(id).is_some()
            || self.role == SessionRole::Server;
        if unwanted {
            return false;
        }
        let hello = Hello {
            versions: (VERSION, VERSION),
            intent: self.intent(),
            session: self.id,
            boot: self.boot,
            subflow: id,
            lanes: lanes.clamp(1, LANES_MAX),
            caps: self.config.capabilities,
            limits: self.limits(),
            proof: proofs.ours,
        };
        let mut subflow = Subflow::new(id, SubflowState::Handshake, hello.lanes, now);
        subflow.resumes = hello.intent == Intent::Resume;
        subflow.up_count_before = self.up_count;
        let mut bytes = Vec::new();
        Frame::Hello(hello).encode(&mut bytes);
        subflow.hello_bytes = Some(bytes);
        subflow.expect = proofs.theirs;
        self.subflows.push(subflow);
        self.finish_call();
        true
    }

    /// Returns the intent of a HELLO that is sent now. Of several dials after the loss of all subflows only the first
    /// resumes; the others join.
    fn intent(&self) -> Intent {
        match self.phase {
            Phase::Handshake => Intent::New,
            _ if self.subflows.is_empty() => Intent::Resume,
            _ => Intent::Join,
        }
    }

    /// Checks a HELLO that a server has read for this session, and adds the subflow if it is valid.
    ///
    /// A refusal is not queued here: the caller sends [`HelloAck::refusal`] and closes the carrier.
    pub fn accept_subflow(&mut self, now: Time, hello: &Hello, proofs: Proofs) -> Status {
        let status = self.check_hello(hello, &proofs);
        if status == Status::Ok {
            self.add_subflow(now, hello, proofs);
        }
        self.finish_call();
        status
    }

    /// Returns true if a HELLO for a new session with this id is later than the one that started this session. Its
    /// client has then never heard of this session, and the server replaces it. Otherwise the HELLO is an old one that
    /// was in flight for long, on a connection that its client has given up.
    pub fn is_superseded_by(&self, hello: &Hello) -> bool {
        let started = self.started_on.map_or(0, |id| id.0);
        let later = hello.subflow.0.wrapping_sub(started);
        hello.session == self.id && hello.intent == Intent::New && later > 0 && later < u16::MAX / 2
    }

    fn check_hello(&self, hello: &Hello, proofs: &Proofs) -> Status {
        let (low, high) = hello.versions;
        if !(low..=high).contains(&VERSION) {
            return Status::Version;
        }
        if self.role == SessionRole::Client || hello.session != self.id || self.is_ended() {
            return Status::UnknownSession;
        }
        if !proofs_match(&hello.proof, &proofs.theirs) {
            return Status::Denied;
        }
        let fresh = self.phase == Phase::Handshake;
        if fresh != (hello.intent == Intent::New) || self.peer_boot.is_some_and(|boot| boot != hello.boot) {
            return Status::UnknownSession;
        }
        let replaces = hello.intent == Intent::Resume || self.subflow(hello.subflow).is_some();
        if hello.lanes == 0
            || hello.lanes > LANES_MAX
            || (self.subflows.len() >= self.config.subflows_max && !replaces)
            || matches!(self.phase, Phase::Closing { .. })
        {
            return Status::Limit;
        }
        Status::Ok
    }

    fn add_subflow(&mut self, now: Time, hello: &Hello, proofs: Proofs) {
        let resumes = hello.intent == Intent::Resume;
        // Subflows that were dialed later than the resuming one are as alive as it is.
        let is_dead = |id: SubflowId| hello.subflow.0.wrapping_sub(id.0) < u16::MAX / 2;
        let dead: Vec<SubflowId> =
            self.subflows.iter().map(|s| s.id).filter(|id| *id == hello.subflow || resumes && is_dead(*id)).collect();
        dead.into_iter().for_each(|id| self.remove_subflow(now, id, Code::LinkLost));
        self.learn_peer(hello.boot, hello.limits, hello.caps);
        self.started_on.get_or_insert(hello.subflow);
        let ack = HelloAck {
            status: Status::Ok,
            version: VERSION,
            session: self.id,
            boot: self.boot,
            subflow: hello.subflow,
            caps: self.capabilities,
            limits: self.limits(),
            proof: proofs.ours,
        };
        // The server has read the HELLO before it knew the session.
        self.stats.frames[1] += 1;
        let mut subflow = Subflow::new(hello.subflow, SubflowState::Live, hello.lanes, now);
        subflow.up_count_before = self.up_count;
        subflow.opens_at = Some(1);
        let mut bytes = Vec::new();
        Frame::HelloAck(ack).encode(&mut bytes);
        subflow.hello_bytes = Some(bytes);
        self.subflows.push(subflow);
        self.on_subflow_up(now, hello.subflow, resumes);
    }

    /// Stores the peer's boot id, its limits and the common optional features, at the first handshake only.
    ///
    /// The features do not change with later handshakes, because streams already follow their rules.
    fn learn_peer(
        &mut self,
        boot: crate::link::wire::ids::BootId,
        limits: crate::link::wire::hello::Limits,
        caps: u64,
    ) {
        if self.peer_boot.is_none() {
            self.peer_boot = Some(boot);
            self.capabilities = self.config.capabilities & caps;
            self.tx.peer = limits;
            self.tx.credit = limits.session_credit;
            self.tx.window = limits.session_credit;
            self.tx.streams = limits.streams;
        }
    }

    /// Handles the first frame of the server on a subflow.
    pub(super) fn on_hello_ack(&mut self, now: Time, index: usize, frame: &Frame<'_>) -> Result<(), FrameError> {
        let Frame::HelloAck(ack) = frame else { return Err(FrameError::UnknownKind(frame.kind())) };
        let Some(subflow) = self.subflows.get(index) else { return Ok(()) };
        let id = subflow.id;
        if ack.session != self.id || ack.subflow != id {
            return Err(FrameError::Value);
        }
        match ack.status {
            Status::Ok => {}
            Status::UnknownSession if self.phase != Phase::Handshake => {
                if self.is_refused_alone(id) {
                    return self.refuse_subflow(now, id, Code::Other);
                }
                self.end(Code::LinkLost, "the peer does not know the session".to_owned(), Cause::Local);
                return Ok(());
            }
            Status::Denied => return self.refuse_subflow(now, id, Code::AuthFailed),
            Status::Limit => return self.refuse_subflow(now, id, Code::LimitReached),
            Status::Version | Status::UnknownSession => return self.refuse_subflow(now, id, Code::ProtocolError),
        }
        if ack.version != VERSION || !proofs_match(&ack.proof, &subflow.expect) {
            return self.refuse_subflow(now, id, Code::AuthFailed);
        }
        if self.peer_boot.is_some_and(|boot| boot != ack.boot) {
            if self.is_refused_alone(id) {
                return self.refuse_subflow(now, id, Code::Other);
            }
            self.end(Code::LinkLost, "the peer has restarted".to_owned(), Cause::Local);
            return Ok(());
        }
        self.learn_peer(ack.boot, ack.limits, ack.caps);
        self.announce_streams();
        let Some(subflow) = self.subflows.get_mut(index) else { return Ok(()) };
        subflow.state = SubflowState::Live;
        subflow.path.on_pong(now, now.since(subflow.since));
        let resumes = subflow.resumes;
        self.on_subflow_up(now, id, resumes);
        Ok(())
    }

    /// Returns true if a subflow is to be refused without ending the session, although its node does not know the
    /// session.
    ///
    /// Behind a TCP load balancer another node with the same key may have answered. So a session with a live subflow
    /// continues. A session without one waits for the answers that were in flight at the first refusal; later dials do
    /// not count, because otherwise a restart of the peer would never be noticed.
    fn is_refused_alone(&mut self, id: SubflowId) -> bool {
        if self.subflows.iter().any(Subflow::is_live) {
            return true;
        }
        let mark = *self.unknown_session_mark.get_or_insert(self.next_subflow);
        let is_older = |other: SubflowId| (1..u16::MAX / 2).contains(&mark.wrapping_sub(other.0));
        self.subflows.iter().any(|other| other.id != id && is_older(other.id))
    }

    fn refuse_subflow(&mut self, now: Time, id: SubflowId, code: Code) -> Result<(), FrameError> {
        self.remove_subflow(now, id, code);
        Ok(())
    }

    /// Notes that a subflow is live.
    fn on_subflow_up(&mut self, now: Time, id: SubflowId, resumes: bool) {
        self.unknown_session_mark = None;
        self.rx.unopened.clock.start(now);
        self.push_event(Event::SubflowUp(id));
        match self.phase {
            Phase::Handshake => self.phase = Phase::Open,
            _ if resumes => self.start_resume(id),
            Phase::Suspended { .. } => self.on_resumed(),
            _ => self.on_join_while_resuming(),
        }
        self.up_count += 1;
        self.reinject_from_suspects();
        (0..self.subflows.len()).for_each(|index| self.empty_stalled_lanes(index));
    }

    /// Removes a subflow whose carrier is gone. Its frames in flight are sent elsewhere.
    pub fn subflow_down(&mut self, now: Time, id: SubflowId) {
        self.remove_subflow(now, id, Code::LinkLost);
        self.finish_call();
    }

    pub(super) fn remove_subflow(&mut self, now: Time, id: SubflowId, code: Code) {
        let Some(index) = self.subflows.iter().position(|subflow| subflow.id == id) else { return };
        let mut subflow = self.subflows.remove(index);
        self.drr.forget_subflow(id);
        self.push_event(Event::SubflowDown { id, code });
        for lane in &mut subflow.lanes {
            lane.tx.take_lost().into_iter().for_each(|entry| self.on_frame_lost(entry));
        }
        if self.subflows.iter().any(Subflow::is_live) {
            if matches!(&self.phase, Phase::Resuming(resume) if resume.subflow == id) {
                self.on_resumed(); // another subflow has joined, and its acknowledgements cover the rest
            }
            return;
        }
        self.rx.unopened.clock.pause(now);
        match self.phase {
            Phase::Open | Phase::Resuming(_) => {
                self.phase = Phase::Suspended { since: now };
                self.give_up_sending();
                if !std::mem::replace(&mut self.suspended_reported, true) {
                    self.push_event(Event::Suspended);
                }
            }
            Phase::Closing { code, ref text, .. } => {
                let text = text.clone();
                self.end(code, text, Cause::Local);
            }
            Phase::Handshake | Phase::Suspended { .. } | Phase::Ended { .. } => {}
        }
    }

    /// Stores the carrier's measurements of a subflow, and bounds its bytes under way by them.
    pub fn path_stats(&mut self, now: Time, id: SubflowId, stats: PathStats) {
        let Some(index) = self.subflows.iter().position(|subflow| subflow.id == id) else { return };
        // Redundant mode is chosen for short delays, so there each subflow has the window of a single one.
        let (is_alone, has_rival) = (self.has_one_way(), stats.has_rival);
        let is_other = |subflow: &&Subflow| subflow.id != id && subflow.class() == Class::Active;
        let is_only_rival = has_rival && self.subflows.iter().filter(is_other).count() == 1;
        let is_shared = !is_alone && !is_only_rival && self.config.mode != Mode::Redundant;
        let has_gap = self.subflows.get(index).is_some_and(|subflow| subflow.gap_since.is_some());
        let (is_mixed, acked_bytes) = (self.is_mixed(now), self.acked_bytes(now));
        if let Some(subflow) = self.subflows.get_mut(index) {
            subflow.path.set_stats(now, stats);
            let repair_us = if self.config.mode == Mode::Redundant { 0 } else { subflow.path.repair_us() };
            let traffic = Traffic { is_mixed, is_alone, is_shared, has_rival, has_gap, repair_us, acked_bytes };
            let (rate, sent) = (subflow.path.rate(), subflow.sent());
            if let Some(trip) = subflow.path.trip() {
                subflow.window = subflow.shown.bytes(now, rate, sent, trip, traffic);
            }
        }
        if stats.suspect {
            self.suspect(now, index);
        }
        self.finish_call();
    }

    /// Sets the number of bytes that the carrier of a subflow takes now. Each sent frame reduces it.
    ///
    /// A frame is sent while the number is not zero, so a carrier with room for 16 KiB holds at most that and one
    /// frame.
    pub fn set_room(&mut self, id: SubflowId, bytes: usize) {
        if let Some(subflow) = self.subflows.iter_mut().find(|subflow| subflow.id == id) {
            subflow.room = bytes;
        }
    }

    /// Sets the maximum length of a frame that the carrier of a subflow sends as a message; there are none at first. Datagrams
    /// that fit are then sent on [`MESSAGE_LANE`], each as one message of the carrier. A message may be lost, and may overtake
    /// frames on the lanes and other messages.
    pub fn set_message_bytes_max(&mut self, id: SubflowId, bytes: usize) {
        if let Some(subflow) = self.subflows.iter_mut().find(|subflow| subflow.id == id) {
            subflow.message_bytes_max = bytes;
        }
    }

    /// Sets the number of unacknowledged bytes of a subflow from which on only urgent frames are sent. There is no
    /// limit at first.
    pub fn set_window(&mut self, id: SubflowId, bytes: u64) {
        if let Some(subflow) = self.subflows.iter_mut().find(|subflow| subflow.id == id) {
            subflow.window = bytes;
        }
    }

    pub(super) fn subflow(&self, id: SubflowId) -> Option<&Subflow> {
        self.subflows.iter().find(|subflow| subflow.id == id)
    }

    /// Returns the subflows of the session, live or in their handshake.
    pub fn subflow_ids(&self) -> impl Iterator<Item = SubflowId> {
        self.subflows.iter().map(|subflow| subflow.id)
    }

    /// Returns the estimate of a subflow: round trip in microseconds, bytes per second, bytes in flight, suspect.
    pub fn path(&self, id: SubflowId) -> Option<(u64, u64, u64, bool)> {
        self.subflow(id).map(|s| (s.path.rtt_us(), s.path.rate(), s.in_flight(), s.suspect))
    }

    /// Returns true if the handshake of a subflow is over, so that it may carry data.
    pub fn is_live(&self, id: SubflowId) -> bool {
        self.subflow(id).is_some_and(Subflow::is_live)
    }

    /// Returns true if a subflow carries data only while no active one does.
    pub fn is_backup(&self, id: SubflowId) -> bool {
        self.subflow(id).is_some_and(|subflow| subflow.class() == Class::Backup)
    }

    /// Returns the bytes of frames that a subflow has delivered so far, in both directions. Messages that were sent are counted
    /// as delivered, because nothing acknowledges them.
    pub fn delivered(&self, id: SubflowId) -> Option<u64> {
        self.subflow(id).map(|subflow| subflow.acked() + subflow.message_bytes + subflow.processed)
    }

    /// Returns the rate of a subflow in bytes per second, if it was measured end to end.
    pub fn measured_rate(&self, id: SubflowId) -> Option<u64> {
        self.subflow(id).and_then(|subflow| subflow.path.measured_rate())
    }

    /// Returns true if a frame of this type belongs to the handshake of a subflow.
    pub(super) const fn is_handshake_frame(frame_kind: u8) -> bool {
        matches!(frame_kind, kind::HELLO | kind::HELLO_ACK)
    }
}
