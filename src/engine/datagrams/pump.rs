//! The pump of datagrams: from a listener's socket to the targets of its flows, and from a flow's target to its client.
//!
//! Each call serves one socket within a budget, and the run queue takes the sockets in turn. Datagrams of one size that follow
//! one another on the same way leave in one call. A datagram that cannot be sent now is dropped and counted.

use std::io;
use std::ops::Range;

use quinn_udp::EcnCodepoint;

use super::Datagrams;
use super::flow::{Client, Dest, Flow};
use crate::datagrams::batch::{Batch, Received};
use crate::datagrams::socket::{Outgoing, Sent};
use crate::engine::core::Core;
use crate::relay::side::Role;
use crate::streams::{Given, LinkDrops};
use crate::types::dropped::Dropped;
use crate::types::id::Id;
use crate::types::reason::{Failure, Reason};

impl Core {
    /// Moves datagrams from the clients of a listener to the targets of their flows.
    pub(super) fn pump_clients(&mut self, listener: Id, batch: &mut Batch) {
        let mut budget = Budget::new();
        let reader = self.header_reader(listener);
        while !budget.is_used_up() {
            let may_open = self.flows_left();
            if may_open == 0 {
                // The rest of the datagrams waits for the next turn.
                return;
            }
            let Some(client) = self.datagrams.sockets.get_mut(&listener) else { return };
            let count = match client.receive(batch, may_open) {
                Ok(count) => count,
                // Some systems report here that an earlier answer could not be delivered.
                Err(_) if budget.note_error() => continue,
                Err(_) => 0,
            };
            if count == 0 {
                return;
            }
            let mut next = 0;
            while next < count {
                let entry = batch.entry(next);
                let way = (entry.source, entry.dest, entry.original);
                budget.note(&entry);
                if let Some(reader) = &reader {
                    self.take_with_headers(listener, &entry, reader);
                    next += 1;
                    continue;
                }
                let Some(flow) = self.flow_of(listener, &entry) else {
                    next += 1;
                    continue;
                };
                let run = batch.run(next, count, |other| {
                    let other = batch.entry(other);
                    (other.source, other.dest, other.original) == way
                });
                next = run.end;
                self.forward(flow, batch, run);
            }
            if self.datagrams.sockets.get(&listener).is_none_or(|client| !client.socket.is_readable) {
                return;
            }
        }
    }

    /// Moves datagrams of a flow's client to its target, or lets them wait for it.
    fn forward(&mut self, id: Id, batch: &mut Batch, run: Range<usize>) {
        let Received { ecn, segment, .. } = batch.entry(run.start);
        self.send_on(id, batch.contents(run), segment, ecn);
    }

    /// Moves datagrams that came over a link to the target of their flow.
    pub(super) fn send_to_target(&mut self, id: Id, contents: &[u8], segment: usize) {
        self.send_on(id, contents, segment, None);
    }

    /// Moves datagrams that stand behind one another to the target of a flow, with their headers, or lets them wait for it.
    pub(super) fn send_on(&mut self, id: Id, contents: &[u8], segment: usize, ecn: Option<EcnCodepoint>) {
        let Some(flow) = self.datagrams.flows.get(id) else { return };
        let has_prefix = flow.headers.as_ref().is_some_and(|headers| headers.prefix.is_some());
        match flow.dest {
            // More datagrams do not lengthen the wait.
            Dest::Waiting => self.drop_late(id),
            _ => self.datagrams.flows.touch(id, self.now_ms),
        }
        match has_prefix {
            true => self.send_with_headers(id, (contents, segment), ecn),
            false => self.send_contents(id, contents, segment, ecn),
        }
    }

    /// Drops the datagrams of a flow that have waited for a link for too long.
    fn drop_late(&mut self, id: Id) {
        let Datagrams { flows, waiting_room, .. } = &mut self.datagrams;
        let Some(flow) = flows.get_mut(id).filter(|flow| flow.via.is_some() || flow.shared.is_some()) else { return };
        let late = flow.waiting.drop_late(self.now_ms, waiting_room);
        if late > 0 {
            let mut sent = Sent::default();
            sent.note(late, Dropped::Late);
            self.count_sent(id, &mut sent);
        }
    }

    /// Moves datagrams to the target of a flow as they are, or lets them wait for it.
    #[inline]
    pub(super) fn send_contents(&mut self, id: Id, contents: &[u8], segment: usize, ecn: Option<EcnCodepoint>) {
        let Datagrams { flows, waiting_room, association_sockets, told, .. } = &mut self.datagrams;
        let Some(flow) = flows.get_mut(id) else { return };
        let mut drops = LinkDrops::default();
        let (mut sent, error) = match &mut flow.dest {
            Dest::Socket(socket) => {
                // The address of the target is that of the connection.
                let to = socket.peer().unwrap_or_else(|| socket.local());
                let mut sent = socket.send(Outgoing { to, from: None, ecn, contents, segment });
                let error = sent.error.take();
                (sent, error)
            }
            Dest::Stream(at, _) => {
                let given = self.pools.sessions.send_datagrams(*at, datagrams(contents, segment));
                drops = given.drops;
                (sent_over_link(given), None)
            }
            Dest::Shared(socket, to) => {
                let Some(shared) = association_sockets.get_mut(*socket) else { return };
                let mut sent = shared.socket.send(Outgoing { to: *to, from: None, ecn, contents, segment });
                let error = sent.error.take();
                (sent, error)
            }
            Dest::Program(end) => (told.push(id, end, datagrams(contents, segment)), None),
            Dest::Waiting => {
                let mut sent = Sent::default();
                let owner = flow.listener.or(flow.client.link());
                for payload in datagrams(contents, segment) {
                    if !flow.waiting.push(payload, ecn, owner, self.now_ms, waiting_room) {
                        sent.note(1, Dropped::QueueFull);
                    }
                }
                (sent, None)
            }
        };
        flow.sent.add(sent.datagrams, sent.bytes);
        self.count_sent(id, &mut sent);
        self.count_link_drops(id, Role::Dest, drops);
        if let Some(error) = error {
            self.flow_failed(id, &error);
        }
    }

    /// Sends the datagrams that have waited for the target of a flow.
    pub(super) fn send_waiting(&mut self, id: Id) {
        self.drop_late(id);
        self.datagrams.flows.touch(id, self.now_ms);
        loop {
            let Datagrams { flows, waiting_room, association_sockets, told, .. } = &mut self.datagrams;
            let Some(flow) = flows.get_mut(id) else { return };
            let Some(datagram) = flow.waiting.pop(waiting_room) else { return };
            let contents = &*datagram.payload;
            let segment = contents.len().max(1);
            let mut drops = LinkDrops::default();
            let mut sent = match &mut flow.dest {
                Dest::Socket(socket) => {
                    let to = socket.peer().unwrap_or_else(|| socket.local());
                    socket.send(Outgoing { to, from: None, ecn: datagram.ecn, contents, segment })
                }
                Dest::Stream(at, _) => {
                    let given = self.pools.sessions.send_datagrams(*at, std::iter::once(contents));
                    drops = given.drops;
                    sent_over_link(given)
                }
                Dest::Shared(socket, to) => {
                    let Some(shared) = association_sockets.get_mut(*socket) else { return };
                    shared.socket.send(Outgoing { to: *to, from: None, ecn: datagram.ecn, contents, segment })
                }
                Dest::Program(end) => told.push(id, end, std::iter::once(contents)),
                Dest::Waiting => return,
            };
            flow.sent.add(sent.datagrams, sent.bytes);
            let error = sent.error.take();
            self.count_sent(id, &mut sent);
            self.count_link_drops(id, Role::Dest, drops);
            if let Some(error) = error {
                // The rest leaves, if the flow goes on.
                self.flow_failed(id, &error);
            }
        }
    }

    /// Moves datagrams from the target of a flow to its client.
    pub(super) fn pump_answers(&mut self, id: Id, batch: &mut Batch) {
        let mut budget = Budget::new();
        while !budget.is_used_up() {
            let Some(socket) = self.datagrams.flows.get_mut(id).and_then(Flow::socket_mut) else { return };
            let count = match socket.receive(batch, usize::MAX) {
                Ok(0) => return,
                Ok(count) => count,
                Err(error) => return self.flow_failed(id, &error),
            };
            let mut next = 0;
            while next < count {
                let run = batch.run(next, count, |_| true);
                run.clone().for_each(|index| budget.note(&batch.entry(index)));
                next = run.end;
                let Received { ecn, segment, .. } = batch.entry(run.start);
                self.answer_client(id, batch.contents(run), segment, ecn);
            }
            let socket = self.datagrams.flows.get_mut(id).and_then(Flow::socket_mut);
            if socket.is_none_or(|socket| !socket.is_readable) {
                return;
            }
        }
    }

    /// Sends datagrams of a flow's target to its client.
    pub(super) fn answer_client(
        &mut self,
        id: Id,
        contents: &[u8],
        segment: usize,
        ecn: Option<quinn_udp::EcnCodepoint>,
    ) {
        let Datagrams { flows, sockets, told, .. } = &mut self.datagrams;
        flows.answered(id, self.now_ms);
        let Some(flow) = flows.get_mut(id) else { return };
        flow.answered_ms = self.now_ms;
        if let Some(connection) = flow.client.association() {
            return self.answer_association(connection, id, contents, segment, ecn);
        }
        let mut drops = LinkDrops::default();
        let mut sent = match &flow.client {
            Client::Listener { owner, addr, from, reply_from } => match sockets.get_mut(owner) {
                Some(client) => {
                    let out = Outgoing { to: *addr, from: *from, ecn, contents, segment };
                    client.answer(*reply_from, self.config.mark, out)
                }
                None => Sent::default(),
            },
            Client::Stream(at, _) => {
                let given = self.pools.sessions.send_datagrams(*at, datagrams(contents, segment));
                drops = given.drops;
                sent_over_link(given)
            }
            Client::Program(end) => told.push(id, end, datagrams(contents, segment)),
            Client::Association { .. } => Sent::default(),
        };
        flow.received.add(sent.datagrams, sent.bytes);
        flow.dropped += sent.dropped;
        self.stats.datagrams_received += sent.datagrams;
        self.stats.datagram_bytes_received += sent.bytes;
        self.count_dropped(&mut sent);
        self.count_link_drops(id, Role::Source, drops);
    }

    fn count_sent(&mut self, id: Id, sent: &mut Sent) {
        self.stats.datagrams_sent += sent.datagrams;
        self.stats.datagram_bytes_sent += sent.bytes;
        if sent.dropped > 0
            && let Some(flow) = self.datagrams.flows.get_mut(id)
        {
            flow.dropped += sent.dropped;
            let association = flow.client.association();
            if let (Some(connection), Some(why)) = (association, sent.why) {
                self.note_dropped(connection, why, sent.dropped);
            }
        }
        self.count_dropped(sent);
    }

    fn count_dropped(&mut self, sent: &mut Sent) {
        if let Some(why) = sent.why {
            self.stats.datagrams_dropped[why as usize] += sent.dropped;
        }
    }

    /// Counts a datagram that belongs to no flow.
    pub(super) fn drop_datagrams(&mut self, entry: &Received<'_>, why: Dropped) {
        self.stats.datagrams_dropped[why as usize] += entry.count();
    }

    /// Ends a flow whose socket has reported an error, such as a port that is unreachable, unless the flow outlives it.
    fn flow_failed(&mut self, id: Id, error: &io::Error) {
        let Some(flow) = self.datagrams.flows.get(id) else { return };
        let failure = Failure::from(error);
        if self.outlives(id, flow, failure.reason) {
            if let Some(socket) = self.datagrams.socket_mut(id) {
                socket.drop_errors();
            }
            return;
        }
        let peer = flow.dialled().and_then(|endpoint| endpoint.ip());
        let failure = match peer {
            Some(peer) => failure.about(peer),
            None => failure,
        };
        self.end_flow(id, failure.reason, failure.detail);
    }
}

impl Core {
    /// Returns true if a flow goes on after an error that may pass, because the routes to its target may only change (RFC 1122,
    /// section 3.2.2.1): its target has answered within the idle time.
    fn outlives(&self, id: Id, flow: &Flow, reason: Reason) -> bool {
        let patience = self.profiles[flow.profile].settings.timeouts.flow_idle.as_millis() as u64;
        let may_pass = matches!(reason, Reason::HostUnreachable | Reason::NetworkUnreachable);
        let is_recent = patience == 0 || self.now_ms.saturating_sub(flow.answered_ms) <= patience;
        may_pass && self.datagrams.flows.is_answered(id) && is_recent
    }
}

/// Returns the datagrams of `segment` bytes that stand behind one another.
pub(super) fn datagrams(contents: &[u8], segment: usize) -> impl Iterator<Item = &[u8]> {
    let empty = contents.is_empty().then_some(contents);
    empty.into_iter().chain(contents.chunks(segment.max(1)))
}

/// Returns the result of a send over a link.
fn sent_over_link(given: Given) -> Sent {
    let mut sent = Sent { datagrams: given.datagrams, bytes: given.bytes, ..Sent::default() };
    if given.refused > 0 {
        sent.note(given.refused, Dropped::Failed);
    }
    if given.too_long > 0 {
        sent.note(given.too_long, Dropped::TooLong);
    }
    sent
}

/// The part of a turn that one socket may use.
pub(super) struct Budget {
    datagrams: u64,
    bytes: usize,
    errors: u32,
}

impl Budget {
    pub fn new() -> Budget {
        Budget { datagrams: DATAGRAMS_PER_TURN, bytes: BYTES_PER_TURN, errors: ERRORS_PER_TURN }
    }

    pub fn note(&mut self, entry: &Received<'_>) {
        self.datagrams = self.datagrams.saturating_sub(entry.count());
        self.bytes = self.bytes.saturating_sub(entry.contents.len());
    }

    /// Notes datagrams of `segment` bytes.
    pub fn note_bytes(&mut self, bytes: usize, segment: usize) {
        self.datagrams = self.datagrams.saturating_sub(bytes.div_ceil(segment.max(1)).max(1) as u64);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Notes an error of a receive. Returns true if another one may be tried.
    pub fn note_error(&mut self) -> bool {
        self.errors = self.errors.saturating_sub(1);
        self.errors > 0
    }

    pub fn is_used_up(&self) -> bool {
        self.datagrams == 0 || self.bytes == 0
    }
}

/// Datagrams that one socket may receive in a turn.
const DATAGRAMS_PER_TURN: u64 = 256;
/// Bytes that one socket may receive in a turn.
const BYTES_PER_TURN: usize = 1 << 20;
/// Errors of receives of one listener in a turn.
const ERRORS_PER_TURN: u32 = 16;
