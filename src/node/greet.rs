//! Those who dial us: visitors, until they have proved who they are, and the links that they bring.
//!
//! A visitor costs a carrier and a few kibibytes, and has a deadline; there are only so many. It sees no frame before its
//! TLS handshake is done, and its HELLO decides: a new session, one more subflow of a session, or a refusal.

use std::sync::Arc;

use crate::engine::core::{Core, OneOff};
use crate::link::frame::Frame;
use crate::link::{Code, Hello, HelloAck, Intent, Role, Session, Status};
use crate::relay::io::Io;
use crate::relay::side::{Owner, Side, State};
use crate::tls::Tls;
use crate::types::address::Endpoint;
use crate::types::id::Id;
use crate::types::reason::{Failure, Reason};

use super::carrier::{Carrier, Stage};
use super::config::{PeerKey, Policy, Timing};
use super::handshakes::random_u64;
use super::link::{Link, Takes, Watch};
use super::proof;
use crate::tls::Cipher;

/// How one listener takes in links.
pub(crate) struct Server {
    pub tls: Arc<Tls>,
    pub policy: Arc<dyn Policy>,
    pub mode: crate::link::Mode,
    pub timing: Timing,
    pub watch: Watch,
    pub takes: Takes,
    pub instance: Option<u32>,
    /// The limit of visitors has been reached, and that has been said.
    pub full: bool,
}

impl Core {
    /// Takes in a connection to a listener for links, if there is a place for one more unauthenticated peer.
    pub(crate) fn visit(&mut self, listener: u32, io: Io, peer: Endpoint) {
        let links = &mut self.pools.links;
        let Some(server) = links.servers.get(&listener) else { return };
        let room = (server.timing.visitors, server.timing.handshake.as_millis() as u64);
        // Check the tables first, so that no peer loses its place to a newcomer that cannot be accepted. A displaced peer
        // holds records in these tables itself.
        if links.closing || self.sides.is_full() || links.carriers.is_full() {
            return self.turned_away(listener, &peer);
        }
        let Some((seat, evicted)) = links.unauthenticated.enter((&peer).into(), room, self.now_ms, random_u64()) else {
            return self.turned_away(listener, &peer);
        };
        evicted.into_iter().for_each(|evicted| self.evict(evicted));
        let (Some(side), Some(carrier)) = (self.sides.next_id(), self.pools.links.carriers.next_id()) else {
            return self.turned_away(listener, &peer);
        };
        let from = peer.clone();
        match self.place(listener, (side, carrier), io, peer) {
            Ok(()) => self.pools.links.unauthenticated.sit(carrier, seat),
            Err(error) => {
                if let Some(unsaid) = self.may_log_stranger(&from, Reason::Other) {
                    log::warn!(target: TARGET, error = error, suppressed = unsaid; "visitor turned away");
                }
                return;
            }
        }
        self.watch_crowd();
    }

    /// Makes the records of a connection that has a place.
    fn place(&mut self, listener: u32, (side, carrier): (Id, Id), mut io: Io, peer: Endpoint) -> Result<(), String> {
        let links = &mut self.pools.links;
        let Some(server) = links.servers.get_mut(&listener) else { return Err("the listener is gone".to_owned()) };
        server.full &= links.unauthenticated.is_crowded();
        io.register(&self.registry, mio::Token(side.to_u64() as usize)).map_err(|error| error.to_string())?;
        let mut record = Carrier::new(side, Stage::Securing);
        record.server = Some(listener);
        record.tls = Some(server.tls.pipe(&links.buffers).map_err(|error| error.to_string())?);
        let deadline_ms = self.now_ms + server.timing.handshake.as_millis() as u64;
        let placed = self.sides.insert(Side::new(Owner::Carrier(carrier), State::Connected, io, peer)).is_ok()
            && links.carriers.insert(record).is_ok();
        debug_assert!(placed, "both tables had room");
        self.one_offs.push(deadline_ms, OneOff::Carrier(carrier));
        Ok(())
    }

    /// Counts an unauthenticated peer that was turned away at the limit, and says once that there are such.
    pub(super) fn turned_away(&mut self, listener: u32, peer: &Endpoint) {
        self.stats.visitors_refused += 1;
        let links = &mut self.pools.links;
        let visitors = links.unauthenticated.len();
        let Some(server) = links.servers.get_mut(&listener) else { return };
        if !std::mem::replace(&mut server.full, true)
            && let Some(unsaid) = self.may_log_stranger(peer, Reason::LimitReached)
        {
            log::warn!(target: TARGET, reason = "limit_reached", visitors = visitors, suppressed = unsaid; "visitors are turned away");
        }
    }

    /// A visitor has said what it wants.
    pub(crate) fn greeted(&mut self, id: Id, hello: &Hello) -> Result<(), Failure> {
        let links = &mut self.pools.links;
        let carrier = links.carriers.get(id);
        let key = carrier.and_then(|carrier| carrier.tls.as_ref()?.peer_key());
        let server = carrier.and_then(|carrier| carrier.server).and_then(|number| links.servers.get(&number));
        let (Some(key), Some(server)) = (key, server) else { return Err(Reason::Internal.into()) };
        if !server.policy.admits(&key) {
            return Err(Failure::new(Reason::AuthFailed, "its key has been removed"));
        }
        let boot = links.boot(server.instance);
        let found = match hello.intent {
            // A node that is about to stop would refuse all streams of the new peer.
            Intent::New if self.is_draining() => Err(Status::Limit),
            Intent::New => self.new_session(id, hello, key),
            Intent::Join | Intent::Resume => self.old_session(hello, key),
        };
        let status = match found {
            Ok(link) => self.join(id, link, hello)?,
            Err(status) => status,
        };
        if status != Status::Ok {
            if let Some(unsaid) = self.may_log_key(&key) {
                log::info!(target: TARGET, status = format!("{status:?}"), suppressed = unsaid; "subflow refused");
            }
            self.refuse(id, &HelloAck::refusal(status, hello, boot));
        }
        Ok(())
    }

    /// The session that a subflow says it belongs to, if its peer is the one that began it.
    fn old_session(&self, hello: &Hello, key: PeerKey) -> Result<Id, Status> {
        let link = self.pools.links.served.get(&hello.session).copied().ok_or(Status::UnknownSession)?;
        match self.pools.links.links.get(link) {
            Some(record) if record.key == Some(key) => Ok(link),
            _ => Err(Status::UnknownSession),
        }
    }

    /// A session that is to begin; or the one that has begun and whose answer was lost.
    fn new_session(&mut self, id: Id, hello: &Hello, key: PeerKey) -> Result<Id, Status> {
        if let Some(link) = self.pools.links.served.get(&hello.session).copied() {
            let Some(record) = self.pools.links.links.get(link) else { return Err(Status::UnknownSession) };
            let later = record.session.as_ref().is_some_and(|session| session.is_superseded_by(hello));
            if record.key != Some(key) || !later {
                return Err(Status::UnknownSession);
            }
            self.forget_link(link, "its client began anew");
        }
        let row = self.take_over(hello, key);
        self.make_room(key);
        let (now, now_ms) = (self.pools.links.now, self.now_ms);
        let links = &mut self.pools.links;
        let Some(carrier) = links.carriers.get(id) else { return Err(Status::Denied) };
        let Some(server) = carrier.server.and_then(|number| links.servers.get(&number)) else {
            return Err(Status::Denied);
        };
        let of_key = links.links.iter().filter(|(_, link)| link.is_served_to(&key)).count();
        let is_full = links.served.len() >= server.timing.links || of_key >= server.timing.links_per_key;
        let Some(tls) = carrier.tls.as_ref().filter(|_| !links.closing && !is_full) else {
            return Err(Status::Limit);
        };
        let place = self.sides.get(carrier.side).map_or_else(String::new, |side| side.endpoint.to_string());
        let (policy, timing) = (Arc::clone(&server.policy), server.timing.clone());
        let mut link = Link::new(policy, timing, server.mode, &place, server.watch.clone(), now_ms);
        (link.takes, link.row) = (server.takes.clone(), row);
        // A rate is the key's, however many sessions it has.
        if let Some((_, other)) = links.links.iter().find(|(_, other)| !other.is_dialled() && other.key == Some(key)) {
            (link.sent, link.received) = (other.sent.clone(), other.received.clone());
        }
        link.meet(key, tls.cipher().map(Cipher::name));
        link.secret = proof::session_secret(tls, hello.session).ok_or(Status::Denied)?;
        link.peer_boot = Some(hello.boot);
        let boot = links.boot(server.instance);
        let config = link.session_config(&links.memory);
        link.session = Some(Session::new(Role::Server, config, hello.session, boot, now));
        links.memory.weigh(&mut link);
        let link = links.links.insert(link).map_err(|_| Status::Limit)?;
        links.served.insert(hello.session, link);
        Ok(link)
    }

    /// A process that comes back with a new life takes over from the one that it was: what that held is free at once.
    ///
    /// Two that run beside one another, and that nothing tells apart, would put one another out for ever. So a session that
    /// is there and young is taken over only a few times in a row; the next one is taken in beside it. How many in a row
    /// it is with this one.
    fn take_over(&mut self, hello: &Hello, key: PeerKey) -> u32 {
        let instance = |boot: crate::link::BootId| [boot.0[0], boot.0[1], boot.0[2], boot.0[3]];
        let before: Vec<Id> = self
            .pools
            .links
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
            let Some(link) = self.pools.links.links.get(id) else { continue };
            let name = link.name.to_string();
            let is_young = self.now_ms.saturating_sub(link.opened_ms) < YOUNG_MS;
            let now = if is_young && link.state() != "parted" { link.row + 1 } else { 0 };
            row = row.max(now);
            if now <= ROW_MAX {
                self.forget_link(id, "its peer was restarted");
            } else if let Some(unsaid) = self.may_log_key(&key) {
                log::warn!(target: TARGET, link = id.to_string(), peer = name, suppressed = unsaid; "taken over too often: two processes have the same key and command line, and both are let in");
            }
        }
        row.min(ROW_MAX)
    }

    /// A key that has as many sessions as it may have gives up the one that has been there longest without any subflow.
    fn make_room(&mut self, key: PeerKey) {
        let links = self.pools.links.links.iter();
        let its: Vec<(Id, &Link)> = links.filter(|(_, link)| link.is_served_to(&key)).collect();
        if its.iter().any(|(_, link)| its.len() < link.timing.links_per_key) {
            return;
        }
        let parted = its.iter().filter(|(_, link)| link.state() == "parted");
        if let Some(oldest) = parted.min_by_key(|(_, link)| link.opened_ms).map(|(id, _)| *id) {
            self.forget_link(oldest, "its key has too many sessions");
        }
    }

    /// Gives a subflow to the session that it belongs to.
    fn join(&mut self, id: Id, link: Id, hello: &Hello) -> Result<Status, Failure> {
        let links = &mut self.pools.links;
        let (Some(carrier), Some(record)) = (links.carriers.get_mut(id), links.links.get_mut(link)) else {
            return Ok(Status::UnknownSession);
        };
        let (Some(tls), Some(session)) = (&carrier.tls, &mut record.session) else { return Ok(Status::UnknownSession) };
        let proofs = proof::proofs(tls, &record.secret, Role::Server, hello.session, hello.subflow);
        let proofs = proofs.ok_or(Reason::Internal)?;
        let status = session.accept_subflow(links.now, hello, proofs);
        if status == Status::Ok {
            carrier.link = Some(link);
            carrier.subflow = Some(hello.subflow);
            carrier.stage = Stage::Live;
            if let Some(side) = self.sides.get(carrier.side) {
                carrier.tune_to_rate(&side.io, record.received.rate());
            }
            record.carriers.push(id);
            links.touch(link);
            self.joined(id);
        } else if hello.intent == Intent::New {
            self.forget_link(link, "its first subflow was refused");
        }
        Ok(status)
    }

    /// Answers a HELLO with a refusal, and closes when it is gone.
    fn refuse(&mut self, id: Id, ack: &HelloAck) {
        let Some(carrier) = self.pools.links.carriers.get_mut(id) else { return };
        let mut bytes = Vec::new();
        Frame::HelloAck(ack.clone()).encode(&mut bytes);
        carrier.seal([&bytes[..]]);
        carrier.stage = Stage::Farewell;
    }

    /// Ends a session without a word to the peer, which is not there any more.
    fn forget_link(&mut self, link: Id, why: &str) {
        let unsaid = self.may_log(link);
        if let Some(record) = self.pools.links.links.get_mut(link) {
            if let Some(unsaid) = unsaid {
                log::info!(target: TARGET, link = link.to_string(), peer = record.name.to_string(), why = why, suppressed = unsaid; "session taken over");
            }
            record.closing = true;
            if let Some(session) = &mut record.session {
                session.abandon(Code::LinkLost);
            }
            // The ports and the name of the link are free at once. Its streams are cut as its events are taken, a share in
            // each turn.
            let listeners: Vec<u32> = record.listeners.drain().flat_map(|(_, ours)| ours.indices).collect();
            let name = record.session.as_ref().map(|session| session.id());
            name.into_iter().for_each(|name| _ = self.pools.links.served.remove(&name));
            listeners.into_iter().for_each(|listener| self.unlisten(listener));
        }
        self.link_events(link);
    }
}

/// A session younger than this has hardly begun.
const YOUNG_MS: u64 = 10_000;
/// Young sessions of one process that are taken over in a row.
const ROW_MAX: u32 = 3;
/// The target of the lines about links.
pub(super) const TARGET: &str = "seaprox::link";
