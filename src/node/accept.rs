//! Accepting links: unauthenticated peers until their HELLO, and the sessions and subflows that they bring.
//!
//! An unauthenticated peer costs one carrier and a few kibibytes, and has a deadline; their number is limited. It sees no
//! frame before its TLS handshake is done. Its HELLO then decides: a new session, another subflow of a session, or a
//! refusal.

use std::sync::Arc;

use crate::engine::control::Deadline;
use crate::engine::core::{Core, OneOff};
use crate::link::frame::Frame;
use crate::link::{Code, Hello, HelloAck, Intent, Session, SessionRole, Status};
use crate::relay::io::Io;
use crate::relay::side::{Owner, Side, SideState};
use crate::streams::LinkSession;
use crate::types::address::Endpoint;
use crate::types::id::Id;
use crate::types::link_state::LinkState;
use crate::types::reason::{Failure, Reason};

use super::carrier::{Carrier, CarrierStage};
use super::config::PeerKey;
use super::control::Node;
use super::handshakes::random_u64;
use super::link::Link;
use super::proof;

impl Node {
    /// Accepts a connection to a listener for links, if there is a place for one more unauthenticated peer.
    pub(crate) fn accept_peer(&mut self, core: &mut Core, listener: Id, io: Io, peer: Endpoint) {
        if let Some(id) = self.server_at(listener) {
            self.accept_carrier(core, id, io, peer);
        }
    }

    /// Receives the datagrams of a listener whose carriers share its socket, and accepts the peers that have begun connections
    /// there. While many peers are unauthenticated, a peer must show first that it receives at its address, so that nobody takes
    /// places, or costs a network its good name, in the name of another.
    pub(super) fn receive_shared(&mut self, core: &mut Core, listener: Id) {
        let id = self.server_at(listener).filter(|_| !self.leaving.iter().any(|(left, _)| *left == listener));
        let Some(id) = id else { return self.receive_leaving(core, listener) };
        let Some(arrivals) = self.servers.get(id).map(|server| server.endpoint.receive_shared()) else {
            return;
        };
        arrivals.woken.into_iter().for_each(|side| core.enqueue(side));
        if arrivals.dropped > 0 {
            core.stats.unauthenticated_refused += arrivals.dropped;
            self.servers.get_mut(id).into_iter().for_each(|server| server.counts.refused += arrivals.dropped);
        }
        while let Some(peer) = self.servers.get(id).and_then(|server| server.endpoint.next_arrival()) {
            let is_filling = self.unauthenticated.is_filling();
            if is_filling && self.servers.get(id).is_some_and(|server| server.endpoint.validate_arrival()) {
                continue;
            }
            match self.accept_carrier(core, id, Io::None, peer) {
                Some(side) => core.enqueue(side),
                None => self.servers.get(id).into_iter().for_each(|server| server.endpoint.refuse_arrival()),
            }
        }
        if arrivals.has_more {
            core.listener_ready(listener);
        }
    }

    /// Receives the datagrams of a server that has stopped, for the carriers that it has left.
    fn receive_leaving(&mut self, core: &mut Core, listener: Id) {
        let Some((_, endpoint)) = self.leaving.iter().find(|(id, _)| *id == listener) else { return };
        let arrivals = endpoint.receive_shared();
        while endpoint.next_arrival().is_some() {
            endpoint.refuse_arrival();
        }
        arrivals.woken.into_iter().for_each(|side| core.enqueue(side));
        if arrivals.has_more {
            core.listener_ready(listener);
        }
    }

    /// Accepts a connection, or a stream of another link, as a carrier of an unauthenticated peer, if there is a place for
    /// one more. Returns its side.
    pub(super) fn accept_carrier(&mut self, core: &mut Core, id: Id, io: Io, peer: Endpoint) -> Option<Id> {
        let server = self.servers.get(id)?;
        let room = (server.timing.unauthenticated, server.timing.handshake.as_millis() as u64);
        // Check the tables first, so that no peer loses its place to a newcomer that cannot be accepted. A displaced peer
        // holds records in these tables itself.
        if self.closing || core.sides.is_full() || self.carriers.is_full() {
            self.refused_at_limit(core, id, &peer);
            return None;
        }
        let Some((seat, evicted)) = self.unauthenticated.enter((&peer).into(), room, core.now_ms, random_u64()) else {
            self.refused_at_limit(core, id, &peer);
            return None;
        };
        evicted.into_iter().for_each(|evicted| self.evict(core, evicted));
        let (Some(side), Some(carrier)) = (core.sides.next_id(), self.carriers.next_id()) else {
            self.refused_at_limit(core, id, &peer);
            return None;
        };
        let from = peer.clone();
        match self.place(core, id, (side, carrier), io, peer) {
            Ok(()) => self.unauthenticated.sit(carrier, seat),
            Err(error) => {
                if let Some(suppressed) = core.may_log_network(&from, Reason::Other) {
                    log::warn!(target: TARGET, error = error, suppressed; "unauthenticated peer refused");
                }
                return None;
            }
        }
        self.watch_crowd(core);
        Some(side)
    }

    /// Makes the records of an accepted connection.
    fn place(
        &mut self,
        core: &mut Core,
        server_id: Id,
        (side, carrier): (Id, Id),
        mut io: Io,
        peer: Endpoint,
    ) -> Result<(), String> {
        let Some(server) = self.servers.get_mut(server_id) else { return Err("the listener is gone".to_owned()) };
        server.counts.carriers += 1;
        server.full &= self.unauthenticated.is_crowded();
        io.register(&core.registry, mio::Token(side.to_u64() as usize)).map_err(|error| error.to_string())?;
        let mut record = Carrier::new(side, CarrierStage::Securing);
        record.server = Some(server_id);
        let mut fresh = Side::new(Owner::Carrier(carrier), SideState::Connected, io, peer);
        let transport = server.endpoint.carrier(side, &mut fresh, &self.buffers);
        record.transport = Some(transport.map_err(|error| error.to_string())?);
        let deadline_ms = core.now_ms + server.timing.handshake.as_millis() as u64;
        let placed = core.sides.insert(fresh).is_ok() && self.carriers.insert(record).is_ok();
        debug_assert!(placed, "both tables had room");
        core.one_offs.push(deadline_ms, OneOff::Control(Deadline::Carrier(carrier)));
        Ok(())
    }

    /// Counts a peer that was refused at the limit, and logs the first one.
    pub(super) fn refused_at_limit(&mut self, core: &mut Core, server: Id, peer: &Endpoint) {
        core.stats.unauthenticated_refused += 1;
        let peers = self.unauthenticated.len();
        let Some(server) = self.servers.get_mut(server) else { return };
        server.counts.refused += 1;
        if !std::mem::replace(&mut server.full, true)
            && let Some(suppressed) = core.may_log_network(peer, Reason::LimitReached)
        {
            log::warn!(target: TARGET, reason = "limit_reached", peers = peers, suppressed; "unauthenticated peers are refused at the limit");
        }
    }

    /// Handles the HELLO of a peer.
    pub(crate) fn hello_received(&mut self, core: &mut Core, id: Id, hello: &Hello) -> Result<(), Failure> {
        let carrier = self.carriers.get(id);
        let key = carrier.and_then(|carrier| carrier.transport.as_ref()?.peer_key());
        let server = carrier.and_then(|carrier| carrier.server).and_then(|server| self.servers.get(server));
        let (Some(key), Some(server)) = (key, server) else { return Err(Reason::Internal.into()) };
        if !server.policy.admits(&key) {
            return Err(Failure::new(Reason::AuthFailed, "its key has been removed"));
        }
        let lanes = carrier.and_then(|carrier| carrier.transport.as_ref()).map_or(1, |transport| transport.lanes());
        if hello.lanes > lanes {
            return Err(Failure::new(Reason::ProtocolError, "its HELLO has more lanes than the carrier"));
        }
        if self.is_orphan(core, id) {
            return Err(Failure::new(Reason::LinkLost, "the outer link has lost its session"));
        }
        let boot = self.boot(server.instance);
        if !core.is_draining() && self.must_count_session(core, id, hello, &key) {
            return Ok(());
        }
        let found = match hello.intent {
            // A node that is about to stop would refuse all streams of the new peer.
            Intent::New if core.is_draining() => Err(Status::Limit),
            Intent::New => self.new_session(core, id, hello, key),
            Intent::Join | Intent::Resume => self.old_session(hello, key),
        };
        let status = match found {
            Ok(link) => self.join(core, id, link, hello)?,
            Err(status) => status,
        };
        if status != Status::Ok {
            if let Some(suppressed) = core.may_log_key(&key) {
                log::info!(target: TARGET, status = format!("{status:?}"), suppressed; "subflow refused");
            }
            self.refuse(id, &HelloAck::refusal(status, hello, boot));
        }
        Ok(())
    }

    /// Returns the session of a joining subflow, if the same key began it.
    fn old_session(&self, hello: &Hello, key: PeerKey) -> Result<Id, Status> {
        let link = self.served.get(&hello.session).copied().ok_or(Status::UnknownSession)?;
        match self.links.get(link) {
            Some(record) if record.key == Some(key) => Ok(link),
            _ => Err(Status::UnknownSession),
        }
    }

    /// Makes the session that a HELLO begins. If the session exists, because the answer was lost, it begins again.
    fn new_session(&mut self, core: &mut Core, id: Id, hello: &Hello, key: PeerKey) -> Result<Id, Status> {
        if let Some(link) = self.served.get(&hello.session).copied() {
            let Some(record) = self.links.get(link) else { return Err(Status::UnknownSession) };
            let later = core.pools.sessions.session(link).is_some_and(|session| session.is_superseded_by(hello));
            if record.key != Some(key) || !later {
                return Err(Status::UnknownSession);
            }
            self.forget_link(core, link, "its client began anew");
        }
        let row = self.take_over(core, hello, key);
        self.make_room(core, key);
        let (now, now_ms) = (core.pools.sessions.now, core.now_ms);
        let Some(carrier) = self.carriers.get(id) else { return Err(Status::Denied) };
        let Some(server) = carrier.server.and_then(|server| self.servers.get(server)) else {
            return Err(Status::Denied);
        };
        let of_key = self.links.iter().filter(|(_, link)| link.is_served_to(&key)).count();
        let is_full = self.served.len() >= server.timing.links || of_key >= server.timing.links_per_key;
        let Some(transport) = carrier.transport.as_ref().filter(|_| !self.closing && !is_full) else {
            return Err(Status::Limit);
        };
        let place = core.sides.get(carrier.side).map_or_else(String::new, |side| side.endpoint.to_string());
        let (policy, timing) = (Arc::clone(&server.policy), server.timing.clone());
        let mut link = Link::new(policy, timing, server.mode, &place, server.watch.clone(), now_ms);
        (link.takes, link.takes_datagrams) = (server.takes.clone(), server.takes_datagrams.clone());
        (link.preface, link.consecutive_takeovers) = (server.preface.clone(), row);
        let server_id = carrier.server;
        link.server = server_id;
        // All sessions of a key share its rate.
        if let Some((_, other)) = self.links.iter().find(|(_, other)| !other.is_dialed() && other.key == Some(key)) {
            (link.sent, link.received) = (other.sent.clone(), other.received.clone());
        }
        link.note_key(key, transport.cipher());
        let mut record = LinkSession::new(link.policy.name(&key).into());
        core.peers.of(&key, now_ms).set_name(Arc::clone(&record.name));
        link.secret = proof::session_secret(transport, hello.session).ok_or(Status::Denied)?;
        link.peer_boot = Some(hello.boot);
        let boot = self.boot(server.instance);
        let config = link.session_config(&self.memory);
        record.session = Some(Session::new(SessionRole::Server, config, hello.session, boot, now));
        // A link is counted once it has a place in the table, because only the end of its session takes it out of the count.
        let link = self.insert_link(core, link, record).ok_or(Status::Limit)?;
        if let (Some(link), Some(record)) = (self.links.get_mut(link), core.pools.sessions.get(link)) {
            self.memory.weigh(link, record);
        }
        self.served.insert(hello.session, link);
        let server = server_id.and_then(|server| self.servers.get_mut(server));
        server.into_iter().for_each(|server| server.counts.sessions += 1);
        Ok(link)
    }

    /// Takes over the sessions of a process that was restarted, so that their resources are free at once. Returns the number
    /// of consecutive takeovers.
    ///
    /// Two processes with the same instance id would evict each other forever. So a young session that is up is taken over
    /// only [`TAKEOVERS_MAX`] times in a row; then both sessions stay.
    fn take_over(&mut self, core: &mut Core, hello: &Hello, key: PeerKey) -> u32 {
        let instance = |boot: crate::link::BootId| [boot.0[0], boot.0[1], boot.0[2], boot.0[3]];
        let before: Vec<Id> = self
            .links
            .iter()
            .filter(|(_, link)| link.is_served_to(&key))
            .filter(|(_, link)| {
                let boot = link.peer_boot.filter(|boot| *boot != hello.boot && instance(*boot) == instance(hello.boot));
                boot.is_some()
            })
            .map(|(id, _)| id)
            .collect();
        let mut row = 0;
        for id in before {
            let Some(link) = self.links.get(id) else { continue };
            let is_young = core.now_ms.saturating_sub(link.opened_ms) < YOUNG_MS;
            let now = if is_young && link.state(core.pools.sessions.session(id)) != LinkState::Suspended {
                link.consecutive_takeovers + 1
            } else {
                0
            };
            row = row.max(now);
            if now <= TAKEOVERS_MAX {
                self.forget_link(core, id, "its peer was restarted");
            } else if let Some(suppressed) = core.may_log_key(&key) {
                log::warn!(target: TARGET, link = id.to_string(), peer = core.pools.sessions.name(id), suppressed; "taken over too often: two processes have the same key and command line, and both are let in");
            }
        }
        row.min(TAKEOVERS_MAX)
    }

    /// Ends the oldest suspended session of a key that has as many sessions as it may have.
    fn make_room(&mut self, core: &mut Core, key: PeerKey) {
        let links = self.links.iter();
        let its: Vec<(Id, &Link)> = links.filter(|(_, link)| link.is_served_to(&key)).collect();
        if its.iter().any(|(_, link)| its.len() < link.timing.links_per_key) {
            return;
        }
        let suspended =
            its.iter().filter(|(id, link)| link.state(core.pools.sessions.session(*id)) == LinkState::Suspended);
        if let Some(oldest) = suspended.min_by_key(|(_, link)| link.opened_ms).map(|(id, _)| *id) {
            self.forget_link(core, oldest, "its key has too many sessions");
        }
    }

    /// Adds a subflow to its session.
    fn join(&mut self, core: &mut Core, id: Id, link: Id, hello: &Hello) -> Result<Status, Failure> {
        let (Some(carrier), Some(record)) = (self.carriers.get_mut(id), self.links.get_mut(link)) else {
            return Ok(Status::UnknownSession);
        };
        let now = core.pools.sessions.now;
        let (Some(transport), Some(session)) = (&carrier.transport, core.pools.sessions.session_mut(link)) else {
            return Ok(Status::UnknownSession);
        };
        let proofs = proof::proofs(transport, &record.secret, SessionRole::Server, hello.session, hello.subflow);
        let proofs = proofs.ok_or(Reason::Internal)?;
        let has_lanes = hello.lanes <= transport.lanes();
        let status = if has_lanes { session.accept_subflow(now, hello, proofs) } else { Status::Limit };
        if status == Status::Ok {
            carrier.link = Some(link);
            carrier.subflow = Some(hello.subflow);
            carrier.stage = CarrierStage::Live;
            if let (Some(side), Some(rate)) = (core.sides.get(carrier.side), record.received.rate()) {
                transport.limit_rate(side, rate);
            }
            record.carriers.push(id);
            core.pools.sessions.touch(link);
            self.note_outer(core, link, id);
            self.joined(core, id);
        } else if hello.intent == Intent::New {
            self.forget_link(core, link, "its first subflow was refused");
        }
        Ok(status)
    }

    /// Answers a HELLO with a refusal. The carrier closes when the answer was sent.
    pub(super) fn refuse(&mut self, id: Id, ack: &HelloAck) {
        let Some(carrier) = self.carriers.get_mut(id) else { return };
        let mut bytes = Vec::new();
        Frame::HelloAck(ack.clone()).encode(&mut bytes);
        carrier.transport.iter_mut().for_each(|transport| transport.send_bytes(&bytes));
        carrier.stage = CarrierStage::Closing;
    }

    /// Ends a session without a notice to the peer, which is gone.
    fn forget_link(&mut self, core: &mut Core, link: Id, why: &str) {
        let suppressed = self.may_log(core, link);
        if let Some(record) = self.links.get_mut(link) {
            if let Some(suppressed) = suppressed {
                log::info!(target: TARGET, link = link.to_string(), peer = core.pools.sessions.name(link), why = why, suppressed; "session taken over");
            }
            record.closing = true;
            if let Some(session) = core.pools.sessions.session_mut(link) {
                session.abandon(Code::LinkLost);
            }
            // The ports and the name of the link are free at once. Its streams are reset as its events are delivered, some
            // in each turn.
            let listeners: Vec<_> = record.listeners.drain().map(|(_, ours)| ours).collect();
            let name = core.pools.sessions.session(link).map(|session| session.id());
            name.into_iter().for_each(|name| _ = self.served.remove(&name));
            self.withdraw_all(core, link, listeners);
        }
        self.link_events(core, link);
    }
}

/// Age below which a session is young.
const YOUNG_MS: u64 = 10_000;
/// Young sessions of one process that are taken over in a row.
const TAKEOVERS_MAX: u32 = 3;
/// The log target of lines about links.
pub(super) const TARGET: &str = "seaprox::link";

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::engine::core::Run;
    use crate::engine::event_loop::Proxy;
    use crate::engine::limits::Config;
    use crate::node::{CarrierKind, Identity, Policy, ServeConfig};
    use crate::types::address::Bind;
    use crate::types::id::Kind;
    use crate::types::peer::PeerKey;

    use super::*;

    struct AdmitsNone;

    impl Policy for AdmitsNone {
        fn admits(&self, _: &PeerKey) -> bool {
            false
        }

        fn name(&self, _: &PeerKey) -> String {
            String::new()
        }
    }

    /// More datagrams wait after each receive.
    #[test]
    fn the_datagrams_of_a_port_are_received_once_in_a_turn() {
        let mut proxy = Proxy::new(Config::default(), None).unwrap();
        let mut core = proxy.core();
        let place = Bind::parse("127.0.0.1:0").unwrap();
        let mut bound = CarrierKind::Quic.bind(&place, core.config()).unwrap();
        let identity = Identity { seed: [1; 32], ciphers: Vec::new(), groups: Vec::new(), instance: None };
        let config = ServeConfig { carrier: CarrierKind::Quic, ..ServeConfig::new(identity, Arc::new(AdmitsNone)) };
        core.serve_links(&mut bound[0], config).unwrap();
        let (core, _) = core.parts::<Node>();
        let open = core.listeners.iter().map(|(id, _)| id).next().unwrap();
        let closed = Id::parse(Kind::Listener, "77.1").unwrap();
        let (mut counts, receive) = (Vec::new(), |core: &mut Core| core.queues.requests.drain(..).count());
        for _ in 0..3 {
            core.stats.turns += 1;
            core.listener_event(open);
            let mut count = receive(core);
            for _ in 0..3 {
                core.listener_ready(open);
                assert_eq!(core.queues.run.pop_front(), Some(Run::Listener(open)));
                core.accept(open);
                count += receive(core);
            }
            counts.push(count);
            core.queues.run.clear();
            core.listeners.get_mut(open).unwrap().queued = false;
        }
        assert_eq!(counts, [1, 1, 1]);
        core.listener_event(closed);
        (0..3).for_each(|_| core.listener_ready(closed));
        assert_eq!((receive(core), core.queues.run.len()), (0, 1), "it waits for its turn");
        core.accept(closed);
        assert_eq!(receive(core), 1);
    }
}
