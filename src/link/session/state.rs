//! The record of a session, and what every operation needs: finding and updating a stream, and ending the session.
//!
//! The operations are in other files: `commands` and `listen` for the application, `opening` for streams whose OPEN is
//! in flight, `handshake` and `resume` for subflows, `receive` and `transmit` for frames, `timers` for deadlines, and
//! `invariants` for checks.

use super::phase::{Cause, Phase};
use std::collections::{BTreeMap, VecDeque};

use super::config::Config;
use super::control_queue::Control;
use super::duplicates::Duplicates;
use super::event::{Event, Progress, Stats};
use super::listeners::{RequestedListener, ServedListeners};
use super::table::Table;
use super::unopened::{Route, Unopened};
use crate::link::path::scheduler::Scheduler;
use crate::link::path::single::Single;
use crate::link::path::subflow::Subflow;
use crate::link::path::switches::Switches;
use crate::link::stream::credit::Window;
use crate::link::stream::drr::Drr;
use crate::link::stream::mix::Mix;
use crate::link::stream::pools::Pools;
use crate::link::stream::send::SendStream;
use crate::link::stream::state::StreamState;
use crate::link::wire::code::Code;
use crate::link::wire::content::Key;
use crate::link::wire::frame::Class;
use crate::link::wire::hello::{Capability, Limits};
use crate::link::wire::ids::{BootId, SessionId, SessionRole, StreamId, SubflowId, Time};

/// One end of a link: see [the module](crate::link).
#[derive(Debug)]
pub struct Session {
    pub(super) role: SessionRole,
    pub(super) config: Config,
    pub(super) id: SessionId,
    pub(super) boot: BootId,
    pub(super) peer_boot: Option<BootId>,
    /// Bits of the optional features that both ends have; none before the first handshake.
    pub(super) capabilities: u64,
    pub(super) phase: Phase,
    /// True if the application was told that the session is suspended.
    pub(super) suspended_reported: bool,
    pub(super) streams: Table,
    pub(super) subflows: Vec<Subflow>,
    pub(super) next_subflow: u16,
    /// The number of the next subflow when a node first answered that it does not know the session, since a subflow was
    /// up.
    pub(super) unknown_session_mark: Option<u16>,
    /// Number of times that a subflow has come up.
    pub(super) up_count: u64,
    /// At the server: the subflow whose HELLO started the session.
    pub(super) started_on: Option<SubflowId>,
    /// In single mode: the choice of the subflow in use.
    pub(super) single: Single,
    pub(super) control: Control,
    pub(super) drr: Drr,
    /// Streams with pieces to retransmit, first in, first out.
    pub(super) retransmit: VecDeque<StreamId>,
    pub(super) scheduler: Scheduler,
    pub(super) switches: Switches,
    pub(super) tx: Outgoing,
    pub(super) rx: Incoming,
    pub(super) acks: Acks,
    pub(super) requested_listeners: BTreeMap<u32, RequestedListener>,
    pub(super) next_listener: u32,
    pub(super) served_listeners: ServedListeners,
    pub(super) messages: Messages,
    /// The last streams that never existed and for which a frame was reported.
    pub(super) strays: VecDeque<StreamId>,
    /// Σ of the costs of all datagrams.
    pub(super) datagram_bytes: u64,
    /// The last time that all streams were searched for parts of datagrams that wait for too long.
    pub(super) parts_given_up_at: Time,
    pub(super) going_away: [Option<(Code, String)>; 2],
    /// Small frames in flight that may be sent on a second subflow as well.
    pub(super) duplicates: Duplicates,
    /// The stream whose OPEN was the previous frame.
    pub(super) just_opened: Option<StreamId>,
    pub(super) events: VecDeque<Event>,
    pub(super) pools: Pools,
    pub(super) stats: Stats,
    pub(super) mix: Mix,
    /// True if calls skip the checks in debug builds too.
    pub(super) unchecked: bool,
    /// Calls since the last complete check.
    #[cfg(debug_assertions)]
    pub(super) checks: u64,
}

/// The sending state of the session as a whole.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) peer: Limits,
    /// Σ of the sent bytes of all streams ever; at most `credit`.
    pub(super) sent: u64,
    pub(super) credit: u64,
    /// The credit limit beyond the bytes that the peer's application had taken when it was announced.
    pub(super) window: u64,
    /// Number of streams that the peer allows this end in all.
    pub(super) streams: u32,
    /// Number of streams of this end whose OPEN is not acknowledged.
    pub(super) opens: u32,
    /// True if an open was refused for now, so that the application must be told when to try again.
    pub(super) open_refused: bool,
    /// Σ of the costs of the sending halves; at most `send_bytes_max` and one frame.
    pub(super) held: u64,
    /// A lower limit on `held`, if the process has set one.
    pub(super) held_max: Option<u64>,
    /// Σ of the unsent bytes that wait only for their turn.
    pub(super) backlog: u64,
    /// Σ of the ranges of streams; with the frames in flight at most [`RANGES_MAX`](super::config::RANGES_MAX).
    pub(super) ranges: usize,
    /// Streams whose write the send limit refused, each once.
    pub(super) refused_writers: VecDeque<StreamId>,
    /// The free bytes when all refused writers were last checked, or the minimum since then if lower.
    pub(super) writers_checked_free: u64,
    /// The credit at which BLOCKED was last queued.
    pub(super) blocked_reported: Option<u64>,
    /// Streams with data and stream credit that wait for session credit, each once.
    pub(super) waiting_for_credit: VecDeque<StreamId>,
    /// New payload bytes sent, from which the budget of reinjections follows.
    pub(super) reinject_bytes: u64,
}

/// The receiving state of the session as a whole.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) window: Window,
    /// Σ of the highest offsets of all streams ever; at most what `window` has announced.
    pub(super) highest: u64,
    /// Number of gaps of all streams.
    pub(super) gaps: usize,
    /// Number of streams that the peer may open in all.
    pub(super) streams_announced: u32,
    /// Number of streams of the peer that were removed.
    pub(super) streams_gone: u32,
    /// Streams of the peer without their OPEN.
    pub(super) unopened: Unopened,
}

/// The state of acknowledgements.
#[derive(Debug, Default)]
pub(super) struct Acks {
    pub(super) due: bool,
    pub(super) at: Option<Time>,
}

/// Messages to the peer. One is in flight at a time, so a number is enough for order and against duplicates.
#[derive(Debug, Default)]
pub(super) struct Messages {
    pub(super) outgoing: VecDeque<String>,
    /// The number of the first message in `outgoing`.
    pub(super) seq: u32,
    /// The number of the next message from the peer.
    pub(super) expected: u32,
}

impl Session {
    /// Returns a new session without a subflow.
    ///
    /// `id` is the same at both ends: the client draws 16 random bytes, the server takes them from the HELLO. `boot` is
    /// the boot id of this node.
    pub fn new(role: SessionRole, config: Config, id: SessionId, boot: BootId, now: Time) -> Session {
        Session {
            role,
            config,
            id,
            boot,
            peer_boot: None,
            capabilities: 0,
            phase: Phase::Handshake,
            suspended_reported: false,
            streams: Table::new(role),
            subflows: Vec::new(),
            next_subflow: 0,
            unknown_session_mark: None,
            started_on: None,
            up_count: 0,
            single: Single::default(),
            control: Control::default(),
            drr: Drr::default(),
            retransmit: VecDeque::new(),
            scheduler: Scheduler::new(),
            switches: Switches::new(),
            tx: Outgoing::new(),
            rx: Incoming::new(&config, now),
            acks: Acks::default(),
            requested_listeners: BTreeMap::new(),
            next_listener: 1,
            served_listeners: ServedListeners::default(),
            messages: Messages::default(),
            strays: VecDeque::new(),
            datagram_bytes: 0,
            parts_given_up_at: Time::ZERO,
            going_away: [None, None],
            duplicates: Duplicates::default(),
            just_opened: None,
            events: VecDeque::new(),
            pools: Pools::default(),
            stats: Stats::default(),
            mix: Mix::default(),
            unchecked: false,
            #[cfg(debug_assertions)]
            checks: 0,
        }
    }

    /// Returns the next event for the application.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Returns the number of events that wait for [`Session::poll_event`].
    pub fn events_waiting(&self) -> usize {
        self.events.len()
    }

    /// Returns the statistics since the start.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Returns true if small messages compete with a bulk transfer on the only subflow that carries in this session. Bulk then
    /// takes short turns. With several subflows the scheduler weighs the queue of each instead.
    pub fn is_mixed(&self, now: Time) -> bool {
        self.has_one_way() && self.mix.is_mixed(now)
    }

    /// Returns true if new data have the choice of one subflow only: there is no other, or the others are backups or closing.
    pub fn has_one_way(&self) -> bool {
        let is_active = |subflow: &&Subflow| subflow.class() == Class::Active;
        self.subflows.len() == 1 || self.subflows.iter().filter(is_active).count() == 1
    }

    /// Returns the number of unacknowledged bytes after which an end of this session acknowledges at once.
    pub fn acked_bytes(&self, now: Time) -> u64 {
        let is_early = self.has_capability(Capability::EarlyAcks) && self.is_mixed(now);
        if is_early { 64 << 10 } else { 256 << 10 }
    }

    /// Returns the role of this end.
    pub fn role(&self) -> SessionRole {
        self.role
    }

    /// Returns the id of the session.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Returns true if both ends have an optional feature. The first handshake of the session decides that.
    pub fn has_capability(&self, capability: Capability) -> bool {
        self.capabilities & capability.bit() != 0
    }

    /// Returns true if the session is over. Nothing happens to it any more.
    pub fn is_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended { .. })
    }

    /// Returns true if all frames may be sent: a subflow is up, and neither end has closed the session.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Returns true if the session has lost all subflows and waits for another.
    pub fn is_suspended(&self) -> bool {
        matches!(self.phase, Phase::Suspended { .. })
    }

    /// Returns true if the peer has sent GOAWAY: it is about to stop and accepts no new streams.
    pub fn is_peer_going_away(&self) -> bool {
        self.going_away[1].is_some()
    }

    /// Returns true if the peer has not acknowledged all written bytes and ends of streams. Streams that were reset do
    /// not count.
    pub fn has_unacknowledged_data(&self) -> bool {
        self.streams.iter().any(|(_, stream)| !stream.send.is_over() && stream.send.reset_frame().is_none())
    }

    /// Returns the number of live streams of both ends.
    pub fn streams_live(&self) -> usize {
        self.streams.len()
    }

    /// Returns the progress of a stream.
    pub fn progress(&self, id: StreamId) -> Option<Progress> {
        let stream = self.streams.get(self.streams.live_slot(id)?)?;
        let (send, recv) = (&stream.send, &stream.recv);
        let received = recv.is_open().then_some(recv.contiguous());
        let acked = send.reset_frame().is_none().then_some(send.una());
        Some(Progress { acked, sent: send.next(), received, highest: recv.highest() })
    }

    /// Returns true if both directions of a stream are open and no received byte waits to be taken.
    pub fn is_silent(&self, id: StreamId) -> bool {
        let stream = self.streams.live_slot(id).and_then(|slot| self.streams.get(slot));
        stream
            .is_some_and(|s| s.send.is_open() && s.recv.is_open() && !s.recv.is_complete() && s.recv.ready_bytes() == 0)
    }

    /// Returns true if the peer has acknowledged everything that was written to a stream, and its end if it was
    /// finished.
    pub fn is_acknowledged(&self, id: StreamId) -> bool {
        let stream = self.streams.live_slot(id).and_then(|slot| self.streams.get(slot));
        stream.is_none_or(|stream| stream.send.has_all_acked())
    }

    /// Returns true if bytes of a stream wait only for the peer's credit.
    pub fn is_out_of_credit(&self, id: StreamId) -> bool {
        let stream = self.streams.live_slot(id).and_then(|slot| self.streams.get(slot));
        stream.is_some_and(|stream| stream.send.is_blocked() || stream.waits_for_quota)
    }

    /// Returns the size of a stream's receive window in bytes.
    pub fn window(&self, id: StreamId) -> Option<u64> {
        let slot = self.streams.live_slot(id)?;
        self.streams.get(slot).map(|stream| stream.recv.window.size())
    }

    pub(super) fn push_event(&mut self, event: Event) {
        self.events.push_back(event);
    }

    /// Queues a control frame, if it is still of use.
    pub(super) fn queue_control(&mut self, key: Key) {
        match key.stream_bit() {
            None => self.control.push(key),
            Some((id, _)) => {
                if let Some(stream) = self.streams.by_id(id)
                    && stream.still_wants(key)
                {
                    self.control.push_stream(key, &mut stream.queued);
                }
            }
        }
    }

    /// Updates everything that depends on a stream after a change: events, its turn to send, its removal.
    pub(super) fn update_stream(&mut self, slot: usize) {
        let Some(stream) = self.streams.get_mut(slot) else { return };
        let id = stream.id;
        let offered = stream.state != StreamState::Implicit;
        let mut has_lost = false;
        if offered && stream.recv.is_open() && stream.recv.ready_bytes() > 0 && !stream.readable_reported {
            stream.readable_reported = true;
            self.events.push_back(Event::Readable(id));
        }
        if offered && stream.recv.finish() && stream.state != StreamState::Refused {
            self.events.push_back(Event::Fin(id));
        }
        let (has_new, weight) = (stream.has_new(), stream.weight);
        if stream.send.has_lost() && !stream.in_retransmit {
            stream.in_retransmit = true;
            has_lost = true;
        }
        let gone = stream.is_gone();
        if stream.send.is_blocked() && stream.blocked_reported != stream.send.credit() {
            stream.blocked_reported = stream.send.credit();
            self.scheduler.on_stall();
            self.control.push_stream(Key::Blocked(id), &mut stream.queued);
        }
        if has_new
            && let Some(stream) = self.streams.get(slot)
            && self.route_of(stream) != Route::Blocked
        {
            self.drr.enter(slot, weight, self.queue_of(stream));
        }
        if has_lost {
            Self::push_once(&mut self.retransmit, id, &self.streams);
        }
        if gone {
            self.remove_stream(slot);
        }
    }

    /// Removes a stream, and allows the peer another in its place.
    fn remove_stream(&mut self, slot: usize) {
        self.drr.forget(slot);
        let Some(stream) = self.streams.remove(slot) else { return };
        self.datagram_bytes -= stream.datagrams.as_ref().map_or(0, |datagrams| datagrams.cost() as u64);
        debug_assert_eq!((stream.send.held(), stream.send.ranges(), stream.recv.held()), (0, 0, 0));
        self.events.push_back(Event::Gone(stream.id));
        if stream.is_local {
            return;
        }
        self.rx.streams_gone = self.rx.streams_gone.saturating_add(1);
        self.announce_streams();
    }

    /// Changes the sending half of a stream, and the session's sums accordingly.
    pub(super) fn with_send<R>(&mut self, slot: usize, change: impl FnOnce(&mut SendStream) -> R) -> Option<R> {
        self.with_send_and_pools(slot, |send, _| change(send))
    }

    /// Changes the sending half of a stream with the help of the pools.
    pub(super) fn with_send_and_pools<R>(
        &mut self,
        slot: usize,
        change: impl FnOnce(&mut SendStream, &mut Pools) -> R,
    ) -> Option<R> {
        let stream = self.streams.get_mut(slot)?;
        let backlog = stream.backlog();
        let send = &mut stream.send;
        let (held, ranges, next) = (send.held(), send.ranges(), send.next());
        let result = change(send, &mut self.pools);
        if held > 0 && send.held() == 0 {
            send.reclaim(&mut self.pools);
        }
        self.tx.held = self.tx.held + send.held() - held;
        self.tx.ranges = self.tx.ranges + send.ranges() - ranges;
        self.tx.sent += send.next() - next;
        self.tx.backlog = self.tx.backlog + stream.backlog() - backlog;
        Some(result)
    }

    /// Resets the sending half of a stream.
    pub(super) fn reset_send(&mut self, slot: usize, code: Code) {
        if self.with_send(slot, |send| send.reset(code)) == Some(true) {
            let id = self.streams.get(slot).map(|stream| stream.id);
            id.into_iter().for_each(|id| self.queue_control(Key::Reset(id)));
            self.wake_writers();
        }
    }

    /// Stops the receiving half of a stream.
    pub(super) fn stop_recv(&mut self, now: Time, slot: usize, code: Code) {
        let Some(stream) = self.streams.get_mut(slot) else { return };
        let gaps = stream.recv.gaps();
        let Some(dropped) = stream.recv.stop(code, &mut self.pools) else { return };
        self.rx.gaps -= gaps;
        let id = stream.id;
        self.queue_control(Key::Stop(id));
        self.consume_session(now, dropped);
    }

    /// Counts bytes as taken from the session's receive window.
    pub(super) fn consume_session(&mut self, now: Time, bytes: u64) {
        let round_us = self.round_us();
        self.rx.window.consume(bytes, now, round_us);
        if self.rx.window.is_due() {
            self.queue_control(Key::SessionCredit);
        }
    }

    /// Appends a stream to a list that contains each live stream at most once. Removed streams are dropped from the
    /// list when it grows.
    pub(super) fn push_once(list: &mut VecDeque<StreamId>, id: StreamId, streams: &Table) {
        const SLACK: usize = 64;
        if list.len() > 2 * streams.len() + SLACK {
            list.retain(|id| streams.live_slot(*id).is_some());
        }
        list.push_back(id);
    }

    /// Returns the time that credit needs to take effect: the longest round trip, and the delay of an acknowledgement.
    pub(super) fn round_us(&self) -> u64 {
        let longest = self.subflows.iter().filter(|s| s.is_live() && !s.suspect).map(|s| s.path.rtt_us()).max();
        longest.unwrap_or(100_000) + self.ack_delay_us()
    }

    /// Returns the delay of an acknowledgement.
    pub(super) fn ack_delay_us(&self) -> u64 {
        (self.shortest_us() / 4).clamp(1000, self.config.ack_delay_us.max(1000))
    }

    /// Returns the shortest round trip: acknowledgements and credit take the fastest subflow.
    pub(super) fn shortest_us(&self) -> u64 {
        self.subflows.iter().filter(|s| s.is_live()).map(|s| s.path.rtt_us()).min().unwrap_or(100_000)
    }

    /// Ends the session. A stream of which everything has arrived is returned as undelivered data; any other that is
    /// not over is reset, never finished.
    pub(super) fn end(&mut self, code: Code, text: String, cause: Cause) {
        if self.is_ended() {
            return;
        }
        let sends_close = cause == Cause::Violation;
        self.phase = Phase::Ended { code, sends_close };
        // A peer that closes in order has everything that was sent to it.
        let peer_has_all = cause == Cause::Peer && code == Code::Drained;
        let slots: Vec<usize> = self.streams.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            let Some(stream) = self.streams.remove(slot) else { continue };
            if stream.has_arrived(peer_has_all) {
                self.events.push_back(Event::Undelivered { id: stream.id, bytes: stream.recv.into_undelivered() });
            } else if stream.is_live()
                && !stream.recv.is_reset()
                && matches!(stream.state, StreamState::Requested | StreamState::Offered | StreamState::Accepted)
            {
                self.events.push_back(Event::Reset { id: stream.id, code: Code::LinkLost });
            }
            self.drr.forget(slot);
        }
        self.control.clear();
        self.retransmit.clear();
        self.duplicates.clear();
        self.requested_listeners.clear();
        self.served_listeners = ServedListeners::default();
        self.tx = Outgoing::new();
        self.datagram_bytes = 0;
        self.rx.unopened = Unopened::default();
        self.rx.gaps = 0;
        self.pools = Pools::default();
        if !sends_close {
            self.subflows.clear();
        }
        self.events.push_back(Event::Ended { code, text });
    }
}

impl Outgoing {
    /// Nothing may be sent before the peer's limits are known.
    fn new() -> Outgoing {
        Outgoing {
            peer: Limits { streams: 0, listeners: 0, stream_credit: 0, session_credit: 0 },
            sent: 0,
            credit: 0,
            window: 0,
            streams: 0,
            opens: 0,
            open_refused: false,
            held: 0,
            held_max: None,
            backlog: 0,
            ranges: 0,
            refused_writers: VecDeque::new(),
            writers_checked_free: 0,
            blocked_reported: None,
            waiting_for_credit: VecDeque::new(),
            reinject_bytes: 0,
        }
    }
}

impl Incoming {
    fn new(config: &Config, now: Time) -> Incoming {
        Incoming {
            window: Window::new(config.session_bounds(), now),
            highest: 0,
            gaps: 0,
            streams_announced: config.streams_first(),
            streams_gone: 0,
            unopened: Unopened::default(),
        }
    }
}
