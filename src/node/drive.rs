//! Driving a session: delivers its events to sides, its frames to carriers, and its deadlines to the loop.
//!
//! Each call that gives a link work queues the link. The loop first delivers the events of the queued links, runs the woken
//! sides, and drives the links before it sleeps, so that the output of a turn shares records and writes. Driving ends when
//! there is neither an event nor a frame that a carrier takes, or when the link's share of the turn is used up.

use bytes::Bytes;

use crate::engine::control::Deadline;
use crate::engine::core::{Core, OneOff};
use crate::link::{Bound, Code, Event, PathStats, Session, StreamId, SubflowId, Time};
use crate::relay::io::Io;
use crate::relay::side::{Owner, Side, SideState};
use crate::transport::{BATCH_BYTES_MIN, CarrierKind, Demand, PathInfo};
use crate::types::address::Endpoint;
use crate::types::id::Id;
use crate::types::reason::{Failure, Reason};

use super::accept::TARGET;
use super::carrier::{Carrier, CarrierStage};
use super::config::LinkEvent;
use super::control::Node;
use super::dialer::LASTED_MS;
use crate::streams::Slot;

impl Node {
    /// Returns true if small messages compete with a bulk transfer on a link.
    pub(super) fn is_mixed(&self, core: &Core, id: Id) -> bool {
        let session = core.pools.sessions.session(id);
        session.is_some_and(|session| session.is_mixed(core.pools.sessions.now))
    }

    pub(super) fn drive_link(&mut self, core: &mut Core, id: Id) {
        let rounds = if self.is_mixed(core, id) { ROUNDS_MIXED } else { ROUNDS_PER_TURN };
        for _ in 0..rounds {
            self.link_events(core, id);
            if !self.transmit(core, id) {
                self.link_events(core, id);
                return self.arm_link(core, id);
            }
        }
        // The link's share of the turn is used up.
        self.arm_link(core, id);
        core.pools.sessions.touch(id);
    }

    /// Moves frames from the session to its carriers. Returns true if the carriers may take more at once.
    fn transmit(&mut self, core: &mut Core, id: Id) -> bool {
        let now = core.pools.sessions.now;
        let Some(link) = self.links.get_mut(id) else { return false };
        let Some(session) = core.pools.sessions.session_mut(id) else { return false };
        // Bytes beyond the peer's rate become a debt, during which not even a PING would be answered.
        let most = link.sent.open(now).map_or(0, |most| (most / link.carriers.len().max(1)).max(1));
        let is_alone = session.has_one_way();
        let is_mixed = session.is_mixed(now);
        for carrier in &link.carriers {
            let Some(carrier) = self.carriers.get_mut(*carrier) else { continue };
            let Some(subflow) = carrier.subflow.filter(|_| carrier.stage == CarrierStage::Live) else { continue };
            let rate = session.path(subflow).map_or(0, |(_, rate, ..)| rate);
            let side = core.sides.get(carrier.side).filter(|_| most > 0);
            let demand = Demand { rate, is_alone, is_mixed };
            session.set_room(subflow, side.map_or(0, |side| carrier.room(side, demand).min(most)));
            let message_bytes_max = carrier.message_bytes_max();
            if message_bytes_max > 0 {
                session.set_message_bytes_max(subflow, message_bytes_max);
            }
        }
        let mut sent = 0;
        loop {
            self.outbox.clear();
            let Some(frame) = session.poll_transmit(now, &mut self.outbox) else { break };
            sent += frame.bytes;
            link.sent.take(frame.bytes);
            let is_its = |carrier: &&Id| self.carriers.get(**carrier).is_some_and(|c| c.subflow == Some(frame.subflow));
            let carrier = link.carriers.iter().find(is_its).copied();
            if let Some(carrier) = carrier.and_then(|carrier| self.carriers.get_mut(carrier)) {
                carrier.take_frame(frame.lane, &self.outbox);
            }
        }
        if sent == 0 {
            return false;
        }
        let is_free = self.flush_link(core, id);
        // Less than the smallest batch has used up no carrier's room, so the session has no more frames.
        is_free && sent >= BATCH_BYTES_MIN
    }

    /// Writes the waiting bytes of a link's carriers. Returns true if any carrier has written all.
    fn flush_link(&mut self, core: &mut Core, id: Id) -> bool {
        let mut is_free = false;
        let mut index = 0;
        while let Some(carrier) = self.links.get(id).and_then(|link| link.carriers.get(index).copied()) {
            index += 1;
            let Some(record) = self.carriers.get_mut(carrier) else { continue };
            if !record.is_idle() {
                record.end_batch();
                if let Err(failure) = self.flush_carrier(core, carrier) {
                    index -= 1;
                    self.carrier_failed(core, carrier, &failure);
                    continue;
                }
            }
            is_free |= self.carriers.get(carrier).is_some_and(|carrier| carrier.is_flushed());
            self.sample_path(core, id, carrier);
        }
        is_free
    }

    pub(super) fn sample_path(&mut self, core: &mut Core, id: Id, carrier: Id) {
        let now = core.pools.sessions.now;
        let Some(record) = self.carriers.get_mut(carrier) else { return };
        let (Some(subflow), Some(transport)) = (record.subflow, &mut record.transport) else { return };
        let place = record.side;
        let Some(side) = core.sides.get(place) else { return };
        let Some(info) = transport.sample(side, now) else { return };
        let PathInfo { rtt_us: srtt_us, round_us, rate, is_stuck: suspect, resent, .. } = info;
        let has_rival = self.has_rival(core, id, carrier);
        let Some(session) = core.pools.sessions.session_mut(id) else { return };
        session.path_stats(now, subflow, PathStats { srtt_us, rate, round_us, suspect, resent, has_rival });
        let rate = session.path(subflow).map_or(0, |(_, rate, ..)| rate);
        let Some(transport) = self.carriers.get_mut(carrier).and_then(|record| record.transport.as_mut()) else {
            return;
        };
        core.sides.get(place).into_iter().for_each(|side| transport.follow_rate(side, rate));
    }

    /// Returns true if two carriers over one path are on trial (see `rivals`), and this is one of them. The node that dials knows its
    /// paths. The node that accepts takes TCP and QUIC from one address for such a pair, if one of them was a backup before.
    fn has_rival(&self, core: &Core, id: Id, carrier: Id) -> bool {
        let Some(session) = core.pools.sessions.session(id).filter(|session| !session.has_one_way()) else {
            return false;
        };
        let (Some(link), Some(own)) = (self.links.get(id), self.carriers.get(carrier)) else { return false };
        let slots = link.dialer.as_ref().map(|dialer| &dialer.slots);
        let peer_of = |carrier: &Carrier| core.sides.get(carrier.side)?.endpoint.ip().map(|addr| addr.ip());
        let kind_of = |carrier: &Carrier| carrier.transport.as_ref().map(|transport| transport.kind());
        let pair = [Some(CarrierKind::Tcp), Some(CarrierKind::Quic)];
        link.carriers.iter().filter(|other| **other != carrier).filter_map(|other| self.carriers.get(*other)).any(
            |other| {
                let shares_path = match slots {
                    Some(slots) => [(own.place, other.place), (other.place, own.place)]
                        .into_iter()
                        .any(|(place, beside)| slots.get(place).is_some_and(|slot| slot.beside == Some(beside))),
                    None => {
                        let kinds = [kind_of(own), kind_of(other)];
                        pair.iter().all(|kind| kinds.contains(kind)) && peer_of(own) == peer_of(other)
                    }
                };
                let subflows = own.subflow.zip(other.subflow);
                shares_path && subflows.is_some_and(|(own, other)| session.are_on_trial([own, other]))
            },
        )
    }

    /// Arms the deadline of a link.
    fn arm_link(&mut self, core: &mut Core, id: Id) {
        self.weigh_link(core, id);
        self.note_state(core, id);
        let next_dial_ms = self.dial_missing(core, id).into_iter().chain(self.dial_fresh(core, id)).min();
        let next_listen_ms = self.listen_again(core, id);
        let next_ports_ms = self.look_after_ports(core, id);
        let next_choice_ms = self.choose_carriers(core, id);
        let now = core.pools.sessions.now;
        let Some(link) = self.links.get_mut(id) else { return };
        let due = core.pools.sessions.session(id).and_then(|session| session.poll_timeout());
        // A rate that is used up recovers without an event.
        let refilled = link.sent.open(now).err();
        let in_ms = |at: Option<Time>| at.map_or(u64::MAX, |at| at.as_us().div_ceil(1000));
        let mut due_ms = in_ms(due).min(in_ms(refilled));
        for other_ms in [link.close_by_ms, next_dial_ms, next_listen_ms, next_ports_ms, next_choice_ms] {
            due_ms = due_ms.min(other_ms.unwrap_or(u64::MAX));
        }
        if due_ms < link.armed_ms.unwrap_or(u64::MAX) {
            link.armed_ms = Some(due_ms);
            core.one_offs.push(due_ms, OneOff::Control(Deadline::Link(id)));
        }
    }

    /// Handles the deadline of a link.
    pub(crate) fn link_due(&mut self, core: &mut Core, id: Id) {
        let now = core.pools.sessions.now;
        let now_ms = core.now_ms;
        let Some(link) = self.links.get_mut(id) else { return };
        if link.armed_ms.is_some_and(|armed_ms| armed_ms > now_ms) {
            // This deadline was armed before an earlier one, and the earlier one has armed another since.
            return;
        }
        link.armed_ms = None;
        if link.close_by_ms.is_some_and(|close_by_ms| close_by_ms <= now_ms) {
            self.close_session(core, id);
        }
        let session = core.pools.sessions.session_mut(id);
        if let Some(session) = session.filter(|session| session.poll_timeout().is_some_and(|at| at <= now)) {
            session.handle_timeout(now);
        }
        core.pools.sessions.touch(id);
    }

    /// Handles the deadline of a carrier: fails one that is not live yet, and reads one again whose rate was used up.
    pub(crate) fn carrier_due(&mut self, core: &mut Core, id: Id) {
        let is_given_up = self.is_given_up(core, id);
        let Some(carrier) = self.carriers.get_mut(id) else { return };
        let side = carrier.side;
        carrier.held = false;
        match carrier.stage {
            CarrierStage::Live if is_given_up => {
                let failure = Failure::new(Reason::TimedOut, "it is silent, and the peer has closed another one");
                self.carrier_failed(core, id, &failure);
            }
            CarrierStage::Live => core.enqueue(side),
            CarrierStage::Closing => self.drop_carrier(core, id),
            CarrierStage::Dialing => {
                self.carrier_failed(core, id, &Failure::new(Reason::TimedOut, "no answer in time"))
            }
            CarrierStage::Securing | CarrierStage::Greeting | CarrierStage::Invited => {
                self.carrier_failed(core, id, &Failure::new(Reason::HandshakeTimeout, "the handshake took too long"));
            }
        }
    }

    /// Reads a carrier again when the rate of its peer permits it.
    pub(crate) fn hold_carrier(&mut self, core: &mut Core, id: Id, until: Time) {
        let Some(carrier) = self.carriers.get_mut(id) else { return };
        if !std::mem::replace(&mut carrier.held, true) {
            core.one_offs.push(until.as_us().div_ceil(1000), OneOff::Control(Deadline::Carrier(id)));
        }
    }

    /// Handles one event of a session.
    pub(super) fn link_event(&mut self, core: &mut Core, id: Id, event: Event) {
        match event {
            Event::Opened { id: stream, open } => self.stream_opened(core, id, stream, &open),
            Event::OpenResult { id: stream, result } => self.stream_answered(core, id, stream, &result),
            Event::Datagram(stream) => self.wake_stream(core, id, stream, |side| side.ready.readable = true),
            Event::Readable(stream) => self.wake_stream(core, id, stream, |side| side.ready.readable = true),
            Event::Writable(stream) => self.wake_stream(core, id, stream, |side| side.ready.writable = true),
            Event::Fin(stream) => {
                core.pools.sessions.slot(id, stream).into_iter().for_each(|slot| slot.fin = true);
                self.wake_stream(core, id, stream, |side| side.ready.readable = true);
            }
            Event::Reset { id: stream, code } => self.stream_reset(core, id, stream, code),
            Event::Undelivered { id: stream, bytes } => self.stream_left(core, id, stream, bytes),
            Event::Stopped { id: stream, code } => self.stream_stopped(core, id, stream, code),
            Event::Listen { id: number, open } => self.listen_for(core, id, number, &open),
            Event::ListenResult { id: number, result } => self.listen_answered(core, id, number, &result),
            Event::Unlisten(number) => self.unlisten_for(core, id, number),
            Event::SubflowUp(subflow) => self.subflow_up(core, id, subflow),
            Event::SubflowDown { id: subflow, code } => self.subflow_lost(core, id, subflow, code),
            Event::SubflowDrained(subflow) => self.subflow_lost(core, id, subflow, Code::Drained),
            Event::Openable => self.open_waiting(core, id),
            Event::Suspended => {
                let now_ms = core.now_ms;
                self.links.get_mut(id).into_iter().for_each(|link| {
                    (link.suspended_ms, link.rebind_tries) = (Some(now_ms), 0);
                });
                self.move_unanswered(core, id);
                self.tell(core, id, &LinkEvent::Suspended);
            }
            Event::Resumed => {
                self.links.get_mut(id).into_iter().for_each(|link| link.suspended_ms = None);
                self.listen_as_before(core, id);
                self.member_opens(core, id);
                self.tell(core, id, &LinkEvent::Resumed);
            }
            Event::GoAway { .. } => _ = self.peer_leaves(core, id),
            Event::Ended { code, text } => self.session_ended(core, id, code, text),
            Event::Stray(stream) => {
                if let Some(suppressed) = self.may_log(core, id) {
                    let peer = core.pools.sessions.name(id).to_owned();
                    log::warn!(target: TARGET, link = id.to_string(), peer = peer, stream = stream.0, suppressed; "a frame for a stream that never existed");
                }
            }
            Event::Message(text) => {
                if let Some(suppressed) = self.may_log(core, id) {
                    log::info!(target: TARGET, link = id.to_string(), text = format!("{text:?}"), suppressed; "message");
                }
                self.tell(core, id, &LinkEvent::Message { text });
            }
            _ => {}
        }
    }

    fn wake_stream(&mut self, core: &mut Core, link: Id, stream: StreamId, what: impl FnOnce(&mut Side)) {
        let Some(side) = core.pools.sessions.slot(link, stream).map(|slot| slot.side) else { return };
        if let Some(record) = core.sides.get_mut(side) {
            what(record);
            core.enqueue(side);
        }
    }

    /// Handles the peer's answer to an OPEN of this node.
    fn stream_answered(&mut self, core: &mut Core, link: Id, stream: StreamId, result: &Bound) {
        if self.note_observed_address(core, link, stream, result) {
            return;
        }
        if result.failure == Some(Code::Drained) && self.open_elsewhere(core, link, stream) {
            return;
        }
        if self.note_offer(core, link, stream, result.failure.is_some()) {
            return;
        }
        let Some(slot) = core.pools.sessions.slot(link, stream) else { return };
        let (side, result) = (slot.side, result.to_failure().map_or(Ok(()), Err));
        (slot.answered, slot.accepted) = (true, result.is_ok());
        core.queues.dialled.push_back((side, result));
    }

    /// Keeps the undelivered data of a stream whose session is over.
    fn stream_left(&mut self, core: &mut Core, link: Id, stream: StreamId, rest: Vec<Bytes>) {
        let Some(at) = core.pools.sessions.stream_at(link, stream) else { return };
        let Some(key) = self.links.get(link).and_then(|link| link.key) else { return };
        let slot = core.pools.sessions.slot(link, stream);
        if slot.is_some_and(|slot| slot.accepted && slot.reset.is_none())
            && core.pools.sessions.undelivered.keep(at, key, rest)
        {
            self.wake_stream(core, link, stream, |side| side.ready.readable = true);
            // The loop that resets the streams of the session must not find this stream.
            core.pools.sessions.get_mut(link).and_then(|link| link.streams.remove(&stream));
        }
    }

    /// Handles a reset by the peer. A reset of a stream that this node opened may arrive before the answer to its OPEN,
    /// because the answer took another path. The reset of a refused stream carries the reason, too.
    fn stream_reset(&mut self, core: &mut Core, link: Id, stream: StreamId, code: Code) {
        let Some(slot) = core.pools.sessions.slot(link, stream) else {
            return self.forget_address_request(core, link, stream, code);
        };
        let (side, is_answered, is_accepted) = (slot.side, slot.answered, slot.accepted);
        let is_connecting = !is_accepted && core.state(side) == Some(SideState::Connecting);
        if is_connecting && !is_answered && code == Code::LinkLost {
            // The peer stopped before it answered, so it has done nothing with the stream.
            if self.is_aside(link) && self.open_elsewhere(core, link, stream) {
                return;
            }
            let session = core.pools.sessions.session(link);
            if session.is_some_and(Session::is_ended) {
                // The session is over; `session_ended`, which follows, handles the streams without an answer.
                return;
            }
        }
        let Some(slot) = core.pools.sessions.slot(link, stream) else { return };
        (slot.reset, slot.answered) = (Some(code), true);
        if is_connecting {
            let failure = Bound::refused(code).to_failure().unwrap_or_else(|| Reason::Other.into());
            core.queues.dialled.push_back((side, Err(failure)));
        }
        self.wake_stream(core, link, stream, |side| (side.ready.readable, side.ready.error) = (true, true));
    }

    /// Handles the peer's notice that it reads no more of a stream. If the peer's side was closed in order, the next write
    /// fails, as with a socket; a reset is passed on at once.
    fn stream_stopped(&mut self, core: &mut Core, link: Id, stream: StreamId, code: Code) {
        let is_reset = code != Code::SourceFin;
        core.pools.sessions.slot(link, stream).into_iter().for_each(|slot| slot.stopped |= is_reset);
        self.wake_stream(core, link, stream, |side| {
            side.ready.writable = true;
            side.ready.error |= is_reset;
        });
    }

    fn subflow_up(&mut self, core: &mut Core, id: Id, subflow: SubflowId) {
        self.log_transport(core, id, subflow);
        let Some(link) = self.links.get_mut(id) else { return };
        let fresh = !std::mem::replace(&mut link.was_established, true);
        link.up_ms.get_or_insert(core.now_ms);
        let (key, carriers) = (link.key, link.carriers.clone());
        let (mut up, mut silent) = (None, Vec::new());
        if let Some(dialer) = &mut link.dialer {
            let carrier = carriers.iter().filter_map(|id| Some((*id, self.carriers.get(*id)?)));
            let carrier = carrier.filter(|(_, c)| c.subflow == Some(subflow)).map(|(id, c)| (id, c.place)).next();
            if let Some((carrier, place)) = carrier {
                silent = dialer.promote_fresh(place, carrier);
            }
            let slot = carrier.and_then(|(_, place)| Some((place, dialer.slots.get_mut(place)?)));
            if let Some((place, slot)) = slot {
                (slot.up_ms, slot.was_up) = (Some(core.now_ms), true);
                up = Some(LinkEvent::SubflowUp { place, tries: slot.tries });
            }
        }
        silent.into_iter().for_each(|silent| self.drop_fresh(core, id, silent));
        up.into_iter().for_each(|up| self.tell(core, id, &up));
        self.leave_removed(core, id);
        self.request_observed_address(core, id, subflow);
        if let Some(key) = key.filter(|_| fresh) {
            self.tell(core, id, &LinkEvent::Up { key, fresh: true });
            self.open_waiting(core, id);
            self.listen_all(core, id);
        }
    }

    fn subflow_lost(&mut self, core: &mut Core, id: Id, subflow: SubflowId, code: Code) {
        let Some(link) = self.links.get(id) else { return };
        let of = |id: &&Id| self.carriers.get(**id).is_some_and(|c| c.subflow == Some(subflow));
        let Some(carrier) = link.carriers.iter().find(of).copied() else { return };
        let Some(record) = self.carriers.get_mut(carrier) else { return };
        let place = record.place;
        record.subflow = None;
        record.close();
        // The last message of the session may still be on its way.
        let _ = self.flush_carrier(core, carrier);
        self.drop_carrier(core, carrier);
        if self.is_fresh(id, place, carrier) {
            return;
        }
        let is_astray = code == Code::Other;
        let detail = is_astray.then(|| "another node answered, which does not know the session".into());
        if let Some(link) = self.links.get_mut(id)
            && let Some(slot) = link.dialer.as_mut().and_then(|dialer| dialer.slots.get_mut(place))
        {
            slot.astray = is_astray;
        }
        self.try_later(core, id, place, &Failure { reason: code.into(), detail });
    }

    /// Handles the end of a session. Only undelivered data is kept; all other streams are reset.
    fn session_ended(&mut self, core: &mut Core, id: Id, code: Code, text: String) {
        self.transmit(core, id);
        for carrier in self.links.get(id).map(|link| link.carriers.clone()).unwrap_or_default() {
            self.carriers.get_mut(carrier).into_iter().for_each(Carrier::close);
        }
        self.flush_link(core, id);
        let Some(link) = self.links.get_mut(id) else { return };
        let reason = match Reason::from(code) {
            Reason::Killed => Reason::LinkLost,
            reason => reason,
        };
        let Some(record) = core.pools.sessions.get_mut(id) else { return };
        let session = record.session.take();
        record.epoch += 1;
        let slots: Vec<Slot> = record.streams.drain().map(|(_, slot)| slot).collect();
        link.was_established = false;
        let lasted = link.up_ms.take().is_some_and(|up_ms| core.now_ms.saturating_sub(up_ms) > LASTED_MS);
        link.address_requests.clear();
        let carriers = std::mem::take(&mut link.carriers);
        link.forget_peer_listeners();
        link.asked.clear();
        let listeners: Vec<_> = link.listeners.drain().map(|(_, ours)| ours).collect();
        link.remotes.iter_mut().for_each(super::reverse::Remote::forget);
        self.note_forwards(core, id);
        let Some(link) = self.links.get_mut(id) else { return };
        if reason == Reason::Drained {
            link.expect_back(core.now_ms);
        }
        let is_wanted = link.closing || self.closing;
        let comes_back = link.dialer.is_some() && !is_wanted;
        self.withdraw_all(core, id, listeners);
        slots.into_iter().for_each(|slot| self.stream_lost(core, id, &slot, comes_back));
        for carrier in carriers {
            let place = self.carriers.get(carrier).map(|carrier| carrier.place);
            let place = place.filter(|place| !self.is_fresh(id, *place, carrier));
            self.let_go(core, carrier);
            if let (Some(place), true) = (place, comes_back) {
                self.try_later(core, id, place, &Failure::new(reason, text.clone()));
            }
        }
        if lasted && comes_back && matches!(reason, Reason::LinkLost | Reason::Drained) {
            // The peer has just answered, or the session was given up after a long time: the peer is probably there.
            self.redial_link(core, id);
        }
        // A key that is not admitted any more, or a client that began a new session, also ends a session; these ends are
        // reported.
        let is_ours = is_wanted && reason == Reason::Drained;
        self.tell(core, id, &if is_ours { LinkEvent::Closed } else { LinkEvent::Ended { reason, text } });
        self.aside_ended(core, id);
        if reason == Reason::Drained {
            self.end_served_nested(core, id);
        }
        // Another link may have taken the id of the session since.
        if let Some(session) = session
            && self.served.get(&session.id()) == Some(&id)
        {
            self.served.remove(&session.id());
        }
        self.release_link_memory(core, id);
        if comes_back {
            core.pools.sessions.touch(id);
        } else {
            self.fail_waiting(core, id, &Failure::new(Reason::LinkLost, "the link was closed"));
            self.remove_link(core, id, reason);
        }
    }

    /// Handles a stream whose session is over. An established stream is reset. A stream without an answer from the peer
    /// waits for the next session if there will be one, otherwise its handler gets a failure.
    fn stream_lost(&mut self, core: &mut Core, link: Id, slot: &Slot, comes_back: bool) {
        if self.nested_stream_lost(core, slot.side) {
            return;
        }
        if let Some(Owner::Flow(flow, _)) = core.sides.get(slot.side).map(|side| side.owner) {
            return core.end_flow(flow, Reason::LinkLost, None);
        }
        let Some((connection, _)) = core.owner(slot.side) else { return };
        let is_connecting = core.state(slot.side) == Some(SideState::Connecting);
        if is_connecting && slot.answered && !slot.accepted {
            // The handler is about to get the reason of the failure.
            return;
        }
        if !is_connecting || slot.answered {
            return core.abort(connection, Reason::LinkLost);
        }
        if let Some(side) = core.sides.get_mut(slot.side) {
            (side.io, side.endpoint) = (Io::None, Endpoint::Unknown);
        }
        // A client of a listener for the peer belonged to the session that is over; others may serve the listener.
        let is_ours = core.connections.get(connection).is_some_and(|record| record.returns_to.is_none());
        if !is_ours && self.offer_again(core, link, slot.side) {
            return;
        }
        let heir = self.links.get(link).and_then(|record| record.heir);
        let home = heir.or(comes_back.then_some(link));
        let group = Some(self.home_of(core, slot.side, link)).filter(|home| *home != link);
        match group.or(home).filter(|_| is_ours) {
            Some(home) => self.dial_stream(core, slot.side, home),
            None => {
                let failure = Failure::new(Reason::LinkLost, "the link ended before the far end answered");
                core.queues.dialled.push_back((slot.side, Err(failure)));
            }
        }
    }
}

/// Times that a link's carriers are filled in one turn.
const ROUNDS_PER_TURN: usize = 8;
/// Times that a link's carriers are filled in one turn while small messages compete with a bulk transfer.
const ROUNDS_MIXED: usize = 2;
