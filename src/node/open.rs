//! Streams coming and going: those that we open over a link, and those that its peer opens.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use crate::engine::core::{Core, NO_LISTENER};
use crate::engine::handler::Handler;
use crate::link::{Bound, Host, Kind, Open, Refused, Session, StreamId};
use crate::relay::connection::Stage;
use crate::relay::dial::Permit;
use crate::relay::io::Io;
use crate::relay::side::{Role, State};
use crate::types::address::{Endpoint, Target};
use crate::types::id::Id;
use crate::types::reason::{Failure, Reason};

use super::config::{Happened, PeerKey, Policy, Request, Verdict};
use super::front::{Incoming, Taker};
use super::greet::TARGET;
use super::link::Link;
use super::stream::{Slot, StreamAt};

impl Core {
    /// Connects a dest over a link. It waits for the link if that is not up yet.
    pub(crate) fn dial_stream(&mut self, dest: Id, link: Id) {
        let failure = match self.try_open(dest, link) {
            Ok(()) => return self.hasten(link),
            Err(Refused::NotYet | Refused::NotNow) if self.wait_for_link(dest, link) => return self.hasten(link),
            Err(Refused::Closed) if self.is_renewed(link) && self.wait_for_link(dest, link) => {
                return self.hasten(link);
            }
            Err(Refused::NotYet | Refused::NotNow) => Failure::new(Reason::LimitReached, "too many wait for the link"),
            Err(Refused::Limit) if self.may_open_nothing(link) => {
                Failure::new(Reason::NotPermitted, "the far node permits this key no connections")
            }
            Err(Refused::Limit) => Failure::new(Reason::LimitReached, "the link carries no more streams"),
            Err(Refused::Closed | Refused::Exhausted) => Failure::new(Reason::LinkLost, "the link is being closed"),
            Err(refused) => Failure::new(Reason::Other, format!("the link takes no such stream: {refused:?}")),
        };
        self.queues.dialled.push_back((dest, Err(failure)));
    }

    /// Opens a stream over a link to a target, for a handler of our own: `connected` tells how it went, then its bytes are
    /// the handler's. The stream is the source of a connection without a dest.
    ///
    /// # Errors
    /// The table of connections is full.
    pub fn open_stream(&mut self, link: Id, target: Target, handler: Box<dyn Handler>) -> io::Result<Id> {
        let connection = self.adopt(Io::None, Endpoint::Unknown, "stream", NO_LISTENER, handler);
        let connection = connection.map_err(|(_, error)| error)?;
        let Some(record) = self.connections.get_mut(connection) else { return Err(io::ErrorKind::NotFound.into()) };
        record.asked = Some(Rc::new(target));
        record.dial_since_ms = self.now_ms;
        let source = record.source;
        if let Some(side) = self.sides.get_mut(source) {
            side.state = State::Connecting;
        }
        self.set_stage(connection, Stage::Connecting);
        self.dial_stream(source, link);
        Ok(connection)
    }

    fn try_open(&mut self, dest: Id, link: Id) -> Result<(), Refused> {
        let open = self.open_of(dest).ok_or(Refused::Gone)?;
        let now = self.pools.links.now;
        let record = self.pools.links.links.get_mut(link).ok_or(Refused::Closed)?;
        let session = record.session.as_mut().ok_or(Refused::NotYet)?;
        let id = session.open(now, open)?;
        record.streams.insert(id, Slot::new(dest));
        let endpoint = Endpoint::Link(Arc::clone(&record.name), id.0);
        let at = StreamAt { link, life: record.life, id };
        if let Some(side) = self.sides.get_mut(dest) {
            (side.io, side.endpoint) = (Io::Stream(at), endpoint);
        }
        self.pools.links.touch(link);
        Ok(())
    }

    /// What an OPEN says for a dest: its target, or the listener of the peer's that its source came in at.
    fn open_of(&self, dest: Id) -> Option<Open> {
        let (connection, _) = self.owner(dest)?;
        let record = self.connections.get(connection)?;
        let source = self.sides.get(record.source).map(|side| side.endpoint.to_string()).unwrap_or_default();
        let timeout_ms = u32::try_from(self.config.timeouts.connect.as_millis()).unwrap_or(0);
        let open = Open { timeout_ms, source, ..Open::default() };
        if let Some(listener) = record.returns_to {
            return Some(Open { listener, ..open });
        }
        match record.asked.as_deref()? {
            Target::Ip(addr) => Some(Open { host: Host::Addr(addr.ip()), port: addr.port(), ..open }),
            Target::Name(name, port) => Some(Open { host: Host::Name(name.as_str().to_owned()), port: *port, ..open }),
            Target::Unix(_) => None,
        }
    }

    /// Connects a client of a listener that belongs to a link's peer.
    pub(crate) fn connect_back(&mut self, connection: Id, link: Id, listener: u32) {
        let Some(dest) = self.new_dest(connection, None) else { return };
        if let Some(record) = self.connections.get_mut(connection) {
            (record.returns_to, record.via) = (Some(listener), Some(link));
        }
        self.charge(connection, link);
        if self.has_its_share(link) {
            return self.end(connection, Reason::LimitReached);
        }
        self.dial_stream(dest, link);
    }

    /// Whether a dest has not been asked for yet, because its link is not up. It is not waited for any more.
    pub(crate) fn stop_waiting(&mut self, dest: Id) -> bool {
        let Some((connection, _)) = self.owner(dest) else { return false };
        let via = self.connections.get(connection).and_then(|record| record.via);
        let Some(link) = via.and_then(|link| self.pools.links.links.get_mut(link)) else { return false };
        link.waiting.remove(dest)
    }

    /// A session takes no streams any more. Returns whether another one is going to take its place: it may be over, or its
    /// peer about to stop, and the event that says so may wait for its turn.
    fn is_renewed(&mut self, link: Id) -> bool {
        let Some(record) = self.pools.links.links.get(link) else { return false };
        let is_over = record.session.as_ref().is_none_or(Session::is_ended);
        let is_left = record.session.as_ref().is_some_and(Session::is_peer_going_away);
        let is_dialled = record.plan.is_some() && !record.closing && !self.pools.links.closing;
        is_dialled && (is_over || is_left && self.peer_leaves(link))
    }

    /// Puts a dest in the queue of those that wait for a link. Those who have left make room.
    fn wait_for_link(&mut self, dest: Id, link: Id) -> bool {
        let sides = &self.sides;
        let Some(record) = self.pools.links.links.get_mut(link) else { return false };
        record.waiting.push(dest, self.now_ms, |dest| sides.get(dest).is_some())
    }

    /// The link is up: opens what has waited for it.
    pub(super) fn open_waiting(&mut self, link: Id) {
        let waits = |core: &Core| core.pools.links.links.get(link).map_or(0, |record| record.waiting.dests.len());
        // Each waiting dest is tried once. The first that must go on waiting moves to the end, with all dests behind it.
        for left in (0..waits(self)).rev() {
            let Some(record) = self.pools.links.links.get_mut(link) else { return };
            let Some(dest) = record.waiting.dests.pop_front() else { return };
            if self.state(dest) != Some(State::Connecting) {
                continue;
            }
            self.dial_stream(dest, link);
            let Some(record) = self.pools.links.links.get_mut(link) else { return };
            if record.waiting.dests.back() == Some(&dest) {
                return record.waiting.dests.rotate_left(left);
            }
        }
    }

    fn may_open_nothing(&self, link: Id) -> bool {
        let session = self.pools.links.links.get(link).and_then(|link| link.session.as_ref());
        session.is_some_and(crate::link::Session::may_open_nothing)
    }

    /// The link will not be up: what has waited for it has waited in vain.
    pub(super) fn fail_waiting(&mut self, link: Id, failure: &Failure) {
        let Some(record) = self.pools.links.links.get_mut(link) else { return };
        for dest in std::mem::take(&mut record.waiting.dests) {
            self.queues.dialled.push_back((dest, Err(failure.clone())));
        }
    }

    /// The peer has opened a stream.
    pub(super) fn stream_opened(&mut self, link: Id, id: StreamId, open: &Open) {
        if self.answer_where(link, id, open) {
            return;
        }
        let Admitted { target, permit, waits } = match self.admit(link, open) {
            Ok(admitted) => admitted,
            Err(failure) => {
                self.log_refused(link, open, &failure);
                self.stats.streams_refused += 1;
                if failure.reason != Reason::LimitReached {
                    // A refusal by a limit is cheap, and an honest peer tries again: it does not count as futile.
                    self.was_futile(link);
                }
                return self.refuse_stream(link, id, &failure);
            }
        };
        let Some(at) = self.stream_at(link, id) else { return };
        let Some(record) = self.pools.links.links.get(link) else { return };
        let name = Arc::clone(&record.name);
        let endpoint = Endpoint::Link(Arc::clone(&name), id.0);
        let taken = if waits { None } else { self.taken(link, &target) };
        let handler: Box<dyn Handler> = match taken {
            Some(handler) => Box::new(Taker { handler }),
            None => Box::new(Incoming { target: Rc::clone(&target), permit, waits }),
        };
        let adopted = self.adopt(Io::Stream(at), endpoint, "link", NO_LISTENER, handler);
        match adopted.ok().and_then(|connection| Some((connection, self.connections.get(connection)?.source))) {
            Some((connection, side)) => {
                self.set_user(connection, &name);
                self.charge(connection, link);
                if let Some(record) = self.pools.links.links.get_mut(link) {
                    record.streams.insert(id, Slot::new(side));
                }
                if waits {
                    self.ask_about(link, connection, target);
                }
            }
            None => {
                self.refuse_stream(link, id, &Failure::new(Reason::LimitReached, "the table of connections is full"))
            }
        }
    }

    /// A stream waits until somebody has said whether it may be.
    fn ask_about(&mut self, link: Id, connection: Id, target: Rc<Target>) {
        let Some(record) = self.pools.links.links.get_mut(link) else { return };
        let Some(key) = record.key else { return };
        let request = Request::Open(Target::clone(&target));
        self.set_asked(connection, Rc::clone(&target));
        let Some(record) = self.pools.links.links.get_mut(link) else { return };
        record.asked.push((connection, target));
        // A user who is asked for approval may take as long as a connect to a distant target.
        self.set_stage(connection, Stage::Connecting);
        self.tell(link, &Happened::Asked { key, request, connection: Some(connection) });
    }

    /// Says whether a stream may be that [`Happened::Asked`] has told of. One that has not waited so
    /// long is not there any more.
    pub fn permit(&mut self, connection: Id, may: bool) {
        let side = self.side(connection, Role::Source).and_then(|side| self.sides.get(side));
        let Some(at) = side.and_then(|side| side.io.stream()) else { return };
        let Some(link) = self.pools.links.links.get_mut(at.link) else { return };
        let Some(index) = link.asked.iter().position(|(asked, _)| *asked == connection) else { return };
        let (_, target) = link.asked.swap_remove(index);
        if may {
            return self.connect(connection, target, None);
        }
        self.stats.streams_refused += 1;
        self.answer_stream(at, Err(&Failure::new(Reason::NotPermitted, "somebody was asked, and said no")));
        self.end(connection, Reason::NotPermitted);
    }

    fn log_refused(&mut self, id: Id, open: &Open, failure: &Failure) {
        let Some(unsaid) = self.may_log(id) else { return };
        let peer = self.pools.links.links.get(id).map_or_else(String::new, |link| link.name.to_string());
        log::info!(target: TARGET, link = id.to_string(), peer = peer, asked = open.to_string(), reason = failure.reason.as_str(), detail = failure.detail.as_deref().unwrap_or("-"), suppressed = unsaid; "stream refused");
    }

    /// Whether the peer may open this stream, and what its target is.
    fn admit(&mut self, link: Id, open: &Open) -> Result<Admitted, Failure> {
        let connections = &self.connections;
        if let Some(record) = self.pools.links.links.get_mut(link) {
            record.asked.retain(|(connection, _)| connections.get(*connection).is_some());
        }
        let record = self.pools.links.links.get(link).ok_or(Reason::LinkLost)?;
        let key = record.key.ok_or(Reason::NotPermitted)?;
        if open.kind != Kind::Tcp {
            return Err(Failure::new(Reason::NotPermitted, "this node carries byte streams only"));
        }
        if record.policy.streams_max(&key).is_some_and(|max| self.streams_with(&key) >= max as usize) {
            return Err(Failure::new(Reason::LimitReached, "the peer's limit of streams is reached"));
        }
        if self.has_its_share(link) {
            return Err(Failure::new(Reason::LimitReached, "the peer has its share of the connections"));
        }
        let now_ms = self.now_ms;
        if !self.peers.of(&key, now_ms).may_try(now_ms) {
            return Err(Failure::new(Reason::LimitReached, "too many of the peer's streams come to nothing"));
        }
        let record = self.pools.links.links.get(link).ok_or(Reason::LinkLost)?;
        if self.is_draining() && !self.takes_late(record, open.listener) {
            return Err(Failure::new(Reason::Drained, "the node is stopping"));
        }
        if open.listener != 0 {
            let remote = record.remotes.iter().find(|remote| remote.number == Some(open.listener));
            let remote = remote.ok_or_else(|| Failure::new(Reason::NotPermitted, "there is no such listener"))?;
            return Ok(Admitted::at_once(remote.reverse.to.clone()));
        }
        let target = target_of(open)?;
        match record.policy.may_open(&key, &target) {
            Verdict::Yes => Ok(Admitted::at_once(target)),
            Verdict::No
                if record.asked.len() < ASKED_MAX && record.policy.asks(&key, &Request::Open(target.clone())) =>
            {
                Ok(Admitted { waits: true, ..Admitted::at_once(target) })
            }
            Verdict::No => Err(Failure::new(Reason::NotPermitted, "the peer's key may not open it")),
            Verdict::ByAddress => {
                let permit = by_address(&record.policy, key, &target);
                Ok(Admitted { permit: Some(permit), ..Admitted::at_once(target) })
            }
        }
    }

    /// Streams of all links with the peer that has this key, those whose OPEN has not come, and what is left of those whose
    /// links are over: one that dials many, or again and again, gets no more than one that dials one.
    fn streams_with(&self, key: &PeerKey) -> usize {
        let links = self.pools.links.links.iter().map(|(_, link)| link);
        let unopened = |link: &Link| link.session.as_ref().map_or(0, crate::link::Session::streams_unopened);
        let its = links.filter(|link| link.key.as_ref() == Some(key) && !link.closing);
        its.map(|link| link.streams.len() + unopened(link)).sum::<usize>() + self.pools.links.rests.count(key)
    }

    /// Counts a connection against the key of a link's peer.
    pub(super) fn charge(&mut self, connection: Id, link: Id) {
        let links = &mut self.pools.links;
        let Some(key) = links.links.get(link).and_then(|link| link.key) else { return };
        if let Some(record) = self.connections.get_mut(connection) {
            record.payer = Some(self.peers.charge(&key, self.now_ms));
        }
    }

    /// Returns true if the key of a link's peer has at least as many connections as are free: one key alone gets half.
    fn has_its_share(&mut self, link: Id) -> bool {
        let free = self.connections.capacity().saturating_sub(self.connections.len());
        let links = &mut self.pools.links;
        let key = links.links.get(link).and_then(|link| link.key);
        key.is_some_and(|key| self.peers.of(&key, self.now_ms).connections() >= free)
    }

    /// A stream that the peer of a link opened has come to nothing.
    pub(super) fn was_futile(&mut self, link: Id) {
        let links = &mut self.pools.links;
        let key = links.links.get(link).and_then(|link| link.key);
        key.into_iter().for_each(|key| self.peers.of(&key, self.now_ms).was_futile(self.now_ms));
    }

    /// The handler of whoever takes the stream into its own hands. One that panics takes none.
    fn taken(&mut self, link: Id, target: &Target) -> Option<Box<dyn Handler>> {
        let record = self.pools.links.links.get(link)?;
        let (takes, key) = (record.takes.clone()?, record.key?);
        let mut takes = takes.try_borrow_mut().ok()?;
        catch_unwind(AssertUnwindSafe(|| takes(&key, target))).ok().flatten()
    }

    fn refuse_stream(&mut self, link: Id, id: StreamId, failure: &Failure) {
        let links = &mut self.pools.links;
        let now = links.now;
        if let Some(session) = links.links.get_mut(link).and_then(|link| link.session.as_mut()) {
            // A stream that is gone already needs no answer.
            let _ = session.refuse(now, id, Bound::of_failure(failure));
        }
        links.touch(link);
    }

    /// Tells the peer that opened the stream which is the source of a connection how connecting went.
    pub(crate) fn answer_source(&mut self, connection: Id, result: Result<Bound, &Failure>) {
        let side = self.side(connection, Role::Source).and_then(|side| self.sides.get(side));
        if let Some(at) = side.and_then(|side| side.io.stream()) {
            self.answer_stream(at, result);
        }
    }

    /// Tells the peer how connecting went that it asked for.
    fn answer_stream(&mut self, at: StreamAt, result: Result<Bound, &Failure>) {
        let links = &mut self.pools.links;
        let now = links.now;
        let Some(link) = links.links.get_mut(at.link).filter(|link| link.life == at.life) else { return };
        if let Some(slot) = link.streams.get_mut(&at.id) {
            slot.accepted = result.is_ok();
        }
        let Some(session) = link.session.as_mut() else { return };
        // A stream that was reset meanwhile needs no answer.
        let _ = match result {
            Ok(bound) => session.accept(at.id, bound),
            Err(failure) => session.refuse(now, at.id, Bound::of_failure(failure)),
        };
        links.touch(at.link);
    }
}

/// A stream that may be.
struct Admitted {
    target: Rc<Target>,
    permit: Option<Permit>,
    /// It may be if somebody says so.
    waits: bool,
}

impl Admitted {
    fn at_once(target: Target) -> Admitted {
        Admitted { target: Rc::new(target), permit: None, waits: false }
    }
}

fn target_of(open: &Open) -> Result<Target, Failure> {
    match &open.host {
        Host::Addr(ip) => Ok(Target::Ip((*ip, open.port).into())),
        Host::Name(name) => Target::from_host(name, open.port)
            .map_err(|_| Failure::new(Reason::NameResolutionFailure, "that is no name of a host")),
        Host::None => Err(Failure::new(Reason::NotPermitted, "no target was named")),
    }
}

fn by_address(policy: &Arc<dyn Policy>, key: PeerKey, target: &Target) -> Permit {
    let (policy, name) = (Arc::clone(policy), target.host().unwrap_or_default().to_owned());
    Rc::new(move |addr| policy.may_reach(&key, &name, addr))
}

/// Streams of one link that may wait for somebody's answer.
const ASKED_MAX: usize = 16;
