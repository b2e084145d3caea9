//! The pump of associations: from the client's socket to the targets that the headers name, and from targets to the client.
//!
//! Datagrams with one header that follow one another leave in one call where the system takes them so, as on the way back.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use quinn_udp::EcnCodepoint;

use super::Datagrams;
use super::association::{AssociationHandler, DATAGRAM_HEADER_BYTES_MAX, DatagramPeer};
use super::pump::{Budget, datagrams};
use crate::datagrams::batch::{Batch, RUN_BYTES_MAX};
use crate::datagrams::socket::{Outgoing, SEGMENT_BYTES_MAX};
use crate::engine::core::Core;
use crate::types::dropped::Dropped;
use crate::types::id::Id;
use crate::types::reason::Reason;

/// Datagrams of one size that leave in one call.
struct Run<'a> {
    flow: Id,
    header: &'a [u8],
    ecn: Option<EcnCodepoint>,
    /// The payload of the first one.
    first: &'a [u8],
    /// The bytes of all payloads behind one another, if there are several.
    joined: usize,
    /// Another one may follow, because none was shorter than the first.
    is_open: bool,
}

/// Answers of one sender and one size that leave in one call.
struct Answers {
    flow: Option<Id>,
    ecn: Option<EcnCodepoint>,
    segment: usize,
    header_len: usize,
    joined: usize,
    count: u64,
    is_open: bool,
}

impl Core {
    /// Moves datagrams of one socket of an association.
    pub(super) fn pump_association(&mut self, id: Id, batch: &mut Batch) {
        let Some(socket) = self.datagrams.association_sockets.get(id) else { return };
        let (connection, is_client) = (socket.connection, socket.is_client);
        let taken = self.datagrams.associations.get_mut(&connection).and_then(|record| record.handler.take());
        let Some(mut handler) = taken else { return };
        let mut room = std::mem::take(&mut self.datagrams.association_room);
        if room.is_empty() {
            room = vec![0; ROOM_BYTES].into();
        }
        let done = catch_unwind(AssertUnwindSafe(|| match is_client {
            true => self.pump_association_client(id, connection, &mut *handler, batch, &mut room),
            false => self.pump_association_answers(id, connection, &mut *handler, batch, &mut room),
        }));
        self.datagrams.association_room = room;
        if done.is_err() {
            self.stats.panics += 1;
            return self.close(connection, Reason::Internal);
        }
        if let Some(association) = self.datagrams.associations.get_mut(&connection) {
            association.handler = Some(handler);
        }
    }

    /// Receives a batch of one socket. Returns none if the socket has no more for this turn.
    fn receive_associated(&mut self, id: Id, batch: &mut Batch, budget: &mut Budget, most: usize) -> Option<usize> {
        loop {
            let socket = self.datagrams.association_sockets.get_mut(id)?;
            match socket.socket.receive(batch, most) {
                Ok(0) => return None,
                Ok(count) => return Some(count),
                // Some systems report here that an earlier datagram could not be delivered.
                Err(_) if budget.note_error() => {}
                Err(_) => return None,
            }
        }
    }

    fn pump_association_client(
        &mut self,
        id: Id,
        connection: Id,
        handler: &mut dyn AssociationHandler,
        batch: &mut Batch,
        room: &mut [u8],
    ) {
        let mut budget = Budget::new();
        while !budget.is_used_up() {
            let may_open = self.flows_left();
            if may_open == 0 {
                // The rest of the datagrams waits for the next turn.
                return;
            }
            let Some(count) = self.receive_associated(id, batch, &mut budget, may_open) else { return };
            let batch = &*batch;
            let mut run: Option<Run<'_>> = None;
            for entry in (0..count).map(|index| batch.entry(index)) {
                budget.note(&entry);
                if !self.is_from_client(connection, entry.source) {
                    self.drop_associated(connection, Dropped::Stranger, entry.count());
                    continue;
                }
                for datagram in datagrams(entry.contents, entry.segment) {
                    if run.as_mut().is_some_and(|run| run.join(datagram, entry.ecn, room)) {
                        continue;
                    }
                    self.send_run(connection, run.take(), room);
                    run = self.begin_run((connection, entry.source), handler, datagram, entry.ecn);
                    if run.is_some() {
                        self.set_client(connection, entry.source);
                    }
                }
            }
            self.send_run(connection, run, room);
            if self.datagrams.association_sockets.get(id).is_none_or(|socket| !socket.socket.is_readable) {
                return;
            }
        }
    }

    /// Begins a run with a datagram of the client, unless it is dropped.
    fn begin_run<'a>(
        &mut self,
        (connection, client): (Id, SocketAddr),
        handler: &mut dyn AssociationHandler,
        datagram: &'a [u8],
        ecn: Option<EcnCodepoint>,
    ) -> Option<Run<'a>> {
        let parsed = handler.parse(datagram).and_then(|(peer, len)| {
            let (header, payload) = datagram.split_at_checked(len).ok_or(Dropped::Malformed)?;
            Ok((peer, header, payload))
        });
        let (peer, header, first) = match parsed {
            Ok(parsed) => parsed,
            Err(why) => {
                self.drop_associated(connection, why, 1);
                return None;
            }
        };
        let Some(flow) = self.flow_of_association((connection, client), handler, peer) else {
            self.drop_associated(connection, Dropped::Refused, 1);
            return None;
        };
        Some(Run {
            flow,
            header,
            ecn,
            first,
            joined: 0,
            is_open: !first.is_empty() && first.len() <= SEGMENT_BYTES_MAX,
        })
    }

    fn send_run(&mut self, connection: Id, run: Option<Run<'_>>, room: &[u8]) {
        let Some(run) = run else { return };
        let contents = if run.joined == 0 { run.first } else { &room[..run.joined] };
        let segment = run.first.len().max(1);
        if self.datagrams.flows.get(run.flow).is_none() {
            // Another flow of the same batch needed its place.
            let count = contents.len().div_ceil(segment).max(1);
            return self.drop_associated(connection, Dropped::Refused, count as u64);
        }
        self.timers.touch(connection, self.now_ms);
        self.send_on(run.flow, contents, segment, run.ecn);
    }

    /// Fixes the address of the client, from which all later datagrams must come.
    fn set_client(&mut self, connection: Id, source: SocketAddr) {
        if let Some(association) = self.datagrams.associations.get_mut(&connection) {
            association.client.get_or_insert(crate::engine::redirected::plain(source));
        }
    }

    fn pump_association_answers(
        &mut self,
        id: Id,
        connection: Id,
        handler: &mut dyn AssociationHandler,
        batch: &mut Batch,
        room: &mut [u8],
    ) {
        let mut budget = Budget::new();
        while !budget.is_used_up() {
            let Some(count) = self.receive_associated(id, batch, &mut budget, usize::MAX) else { return };
            let mut answers: Option<Answers> = None;
            let mut header = [0; DATAGRAM_HEADER_BYTES_MAX];
            let mut before = None;
            for entry in (0..count).map(|index| batch.entry(index)) {
                budget.note(&entry);
                let Datagrams { associations, flows, .. } = &mut self.datagrams;
                let Some(association) = associations.get(&connection) else { return };
                let Some(its) = association.flows_of_answer(&entry) else {
                    self.drop_associated(connection, Dropped::Stranger, entry.count());
                    continue;
                };
                let flow = its.last().copied();
                if its.len() > 1 && before != Some(entry.source) {
                    // Nothing tells which of them the answer is for, so none counts as unanswered.
                    for id in its.iter().copied() {
                        if !flows.is_answered(id) {
                            flows.answered(id, self.now_ms);
                        }
                    }
                }
                if before != Some(entry.source) {
                    self.send_answers(connection, answers.take(), room);
                    before = Some(entry.source);
                }
                let source = crate::engine::redirected::plain(entry.source);
                let header_len = handler.write(DatagramPeer::Ip(source), &mut header).min(header.len());
                for payload in datagrams(entry.contents, entry.segment) {
                    if !answers.as_ref().is_some_and(|answers| answers.takes(header_len + payload.len(), entry.ecn)) {
                        self.send_answers(connection, answers.take(), room);
                    }
                    let new = Answers {
                        flow,
                        ecn: entry.ecn,
                        segment: header_len + payload.len(),
                        header_len,
                        ..Answers::NEW
                    };
                    answers.get_or_insert(new).join(&header[..header_len], payload, room);
                }
            }
            self.send_answers(connection, answers, room);
            if self.datagrams.association_sockets.get(id).is_none_or(|socket| !socket.socket.is_readable) {
                return;
            }
        }
    }

    fn send_answers(&mut self, connection: Id, answers: Option<Answers>, room: &[u8]) {
        let Some(answers) = answers else { return };
        let Some(association) = self.datagrams.associations.get(&connection) else { return };
        // A client that has sent nothing has no address yet.
        let Some(client) = association.client else {
            return self.drop_associated(connection, Dropped::Stranger, answers.count);
        };
        let socket = association.client_socket();
        let Some(socket) = self.datagrams.association_sockets.get_mut(socket) else { return };
        let contents = &room[..answers.joined];
        let out = Outgoing { to: client, from: None, ecn: answers.ecn, contents, segment: answers.segment };
        let sent = socket.socket.send(out);
        let headers = sent.datagrams * answers.header_len as u64;
        let bytes = sent.bytes.saturating_sub(headers);
        self.stats.datagrams_received += sent.datagrams;
        self.stats.datagram_bytes_received += bytes;
        if sent.datagrams > 0 {
            // A dropped datagram, as one of a stranger, keeps no association.
            self.timers.touch(connection, self.now_ms);
        }
        if let Some(why) = sent.why {
            self.drop_associated(connection, why, sent.dropped);
        }
        if let Some(id) = answers.flow {
            self.datagrams.flows.answered(id, self.now_ms);
        }
        match answers.flow.and_then(|flow| self.datagrams.flows.get_mut(flow)) {
            Some(flow) => {
                flow.answered_ms = self.now_ms;
                flow.received.add(sent.datagrams, bytes);
                flow.dropped += sent.dropped;
            }
            None => {
                if let Some(association) = self.datagrams.associations.get_mut(&connection) {
                    association.totals.received.add(sent.datagrams, bytes);
                }
            }
        }
    }

    /// Sends datagrams of a flow's target, which is reached over a link, to the client of the association.
    pub(super) fn answer_association(
        &mut self,
        connection: Id,
        id: Id,
        contents: &[u8],
        segment: usize,
        ecn: Option<EcnCodepoint>,
    ) {
        let Some(flow) = self.datagrams.flows.get(id) else { return };
        let asked = flow.asked.clone();
        let peer = asked.as_deref().and_then(DatagramPeer::of);
        let taken = self.datagrams.associations.get_mut(&connection).and_then(|record| record.handler.take());
        let (Some(mut handler), Some(peer)) = (taken, peer) else { return };
        let mut header = [0; DATAGRAM_HEADER_BYTES_MAX];
        let written = catch_unwind(AssertUnwindSafe(|| handler.write(peer, &mut header)));
        let Ok(header_len) = written.map(|len| len.min(header.len())) else {
            self.stats.panics += 1;
            return self.close(connection, Reason::Internal);
        };
        if let Some(association) = self.datagrams.associations.get_mut(&connection) {
            association.handler = Some(handler);
        }
        let mut room = std::mem::take(&mut self.datagrams.association_room);
        if room.is_empty() {
            room = vec![0; ROOM_BYTES].into();
        }
        for payload in datagrams(contents, segment) {
            let new = Answers { flow: Some(id), ecn, segment: header_len + payload.len(), header_len, ..Answers::NEW };
            let mut answers = new;
            answers.join(&header[..header_len], payload, &mut room);
            self.send_answers(connection, Some(answers), &room);
        }
        self.datagrams.association_room = room;
    }
}

impl Run<'_> {
    /// Joins a datagram of the client to the run. Returns false if it does not belong to the run.
    fn join(&mut self, datagram: &[u8], ecn: Option<EcnCodepoint>, room: &mut [u8]) -> bool {
        if !self.is_open || ecn != self.ecn || !datagram.starts_with(self.header) {
            return false;
        }
        let (payload, begun) = (&datagram[self.header.len()..], self.joined.max(self.first.len()));
        if payload.is_empty() || payload.len() > self.first.len() || begun + payload.len() > RUN_BYTES_MAX {
            return false;
        }
        if self.joined == 0 {
            room[..begun].copy_from_slice(self.first);
        }
        room[begun..begun + payload.len()].copy_from_slice(payload);
        self.joined = begun + payload.len();
        self.is_open = payload.len() == self.first.len();
        true
    }
}

impl Answers {
    const NEW: Answers =
        Answers { flow: None, ecn: None, segment: 0, header_len: 0, joined: 0, count: 0, is_open: true };

    /// Returns true if a datagram of `len` bytes may follow.
    fn takes(&self, len: usize, ecn: Option<EcnCodepoint>) -> bool {
        let is_short = self.segment <= SEGMENT_BYTES_MAX;
        self.is_open && is_short && ecn == self.ecn && len <= self.segment && self.joined + len <= RUN_BYTES_MAX
    }

    fn join(&mut self, header: &[u8], payload: &[u8], room: &mut [u8]) {
        for part in [header, payload] {
            room[self.joined..self.joined + part.len()].copy_from_slice(part);
            self.joined += part.len();
        }
        self.count += 1;
        self.is_open = header.len() + payload.len() == self.segment;
    }
}

/// Room for the longest datagram with the longest header.
const ROOM_BYTES: usize = (64 << 10) + DATAGRAM_HEADER_BYTES_MAX;
