//! Listeners at the other end: where the peer listens for us, and where we listen for it.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use crate::address::{Bind, Endpoint};
use crate::core::Core;
use crate::handler::Handler;
use crate::id::Id;
use crate::link::{Bound, Code, Host, Kind, Open};
use crate::listener;
use crate::reason::{Failure, Reason};

use super::config::{Happened, Request, Reverse};
use super::front::Returning;
use super::greet::TARGET;
use super::link::Link;
use super::status::ListenerStatus;

/// A place where the peer is to listen for us.
pub(crate) struct Remote {
    pub reverse: Reverse,
    /// What the session calls it, while it has been asked for.
    pub number: Option<u32>,
    pub port: Option<u16>,
    pub failure: Option<Failure>,
    /// When it is asked for again.
    next_ms: Option<u64>,
}

impl Remote {
    pub fn new(reverse: Reverse) -> Remote {
        Remote { reverse, number: None, port: None, failure: None, next_ms: None }
    }

    pub fn status(&self) -> ListenerStatus {
        ListenerStatus {
            place: self.reverse.listen.to_string(),
            to: self.reverse.to.to_string(),
            remote: true,
            port: self.port,
            failure: self.failure.as_ref().map(ToString::to_string),
        }
    }

    /// The session that knew of it is over.
    pub fn forget(&mut self) {
        (self.number, self.port, self.next_ms) = (None, None, None);
    }
}

impl Core {
    /// Asks the peer to listen, wherever it does not yet.
    pub(super) fn listen_all(&mut self, id: Id) {
        let now_ms = self.now_ms;
        let Some(link) = self.pools.links.links.get_mut(id) else { return };
        let Some(session) = &mut link.session else { return };
        for remote in link.remotes.iter_mut().filter(|remote| remote.number.is_none()) {
            match session.listen(open_of(&remote.reverse.listen)) {
                Ok(number) => (remote.number, remote.next_ms) = (Some(number), None),
                Err(_) => remote.next_ms = Some(now_ms + AGAIN_MS),
            }
        }
        self.pools.links.touch(id);
    }

    /// Asks once more for what was refused, if it is time. When the next is due.
    pub(super) fn listen_again(&mut self, id: Id) -> Option<u64> {
        let link = self.pools.links.links.get(id).filter(|link| link.met)?;
        let next_ms = link.remotes.iter().filter_map(|remote| remote.next_ms).min()?;
        if next_ms <= self.now_ms {
            self.listen_all(id);
            return None;
        }
        Some(next_ms)
    }

    /// The peer has answered a LISTEN of ours.
    pub(super) fn listen_answered(&mut self, id: Id, number: u32, result: &Bound) {
        let now_ms = self.now_ms;
        let Some(link) = self.pools.links.links.get_mut(id) else { return };
        let Some(index) = link.remotes.iter().position(|remote| remote.number == Some(number)) else { return };
        let remote = &mut link.remotes[index];
        let happened = match result.to_failure() {
            None => {
                (remote.port, remote.failure) = (Some(result.port), None);
                Happened::Listening { index, port: result.port }
            }
            Some(failure) => {
                (remote.number, remote.port) = (None, None);
                remote.next_ms = Some(now_ms + AGAIN_MS);
                remote.failure = Some(failure.clone());
                Happened::NotListening { index, failure }
            }
        };
        self.tell(id, &happened);
    }

    /// The peer asks us to listen.
    pub(super) fn listen_for(&mut self, id: Id, number: u32, open: &Open) {
        let result = self.try_listen_for(id, number, open);
        let answer = match &result {
            Ok(answer) => answer.clone(),
            Err(bound) => bound.clone(),
        };
        if let Some(unsaid) = self.may_log(id) {
            let peer = self.pools.links.links.get(id).map_or_else(String::new, |link| link.name.to_string());
            let why = answer.failure.map_or("-", Code::as_str);
            log::info!(target: TARGET, link = id.to_string(), peer = peer, place = place_of(open).map_or_else(|_| "?".into(), |place| place.to_string()), port = answer.port, reason = why, unsaid = unsaid; "asked to listen");
        }
        if let Some(session) = self.pools.links.links.get_mut(id).and_then(|link| link.session.as_mut()) {
            // A listener that was taken back meanwhile needs no answer.
            let _ = session.listen_result(number, answer);
        }
        self.pools.links.touch(id);
    }

    fn try_listen_for(&mut self, id: Id, number: u32, open: &Open) -> Result<Bound, Bound> {
        let refused = |failure: Failure| Bound::of_failure(&failure);
        let place = place_of(open).map_err(refused)?;
        let link = self.pools.links.links.get(id).ok_or_else(|| Bound::refused(Code::LinkLost))?;
        let may = link.key.is_some_and(|key| link.policy.may_listen(&key, &place));
        if let Some(key) = link.key.filter(|key| !may && link.policy.asks(key, &Request::Listen(place.clone()))) {
            self.tell(id, &Happened::Asked { key, request: Request::Listen(place), connection: None });
            return Err(refused(Failure::new(Reason::NotPermitted, "somebody is asked")));
        }
        if !may || self.is_draining() {
            return Err(refused(Failure::new(Reason::NotPermitted, "the peer's key may not listen there")));
        }
        let bounds = self.bind_for(id, &place).map_err(|error| match error.kind() {
            ErrorKind::AddrInUse => Bound { text: "address in use".into(), ..Bound::refused(Code::AddressInUse) },
            ErrorKind::PermissionDenied => refused(Failure::new(Reason::NotPermitted, error.to_string())),
            _ => refused(Failure::from(&error)),
        })?;
        self.listen_at(id, number, bounds)
    }

    /// Binds a place for the peer of a link.
    fn bind_for(&mut self, id: Id, place: &Bind) -> io::Result<Vec<listener::Bound>> {
        match listener::bind(place, 1, &self.config) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && self.pass_over(id, place) => {
                listener::bind(place, 1, &self.config)
            }
            bounds => bounds,
        }
    }

    /// Listens for the peer of a link at bound addresses, and says which is the first of them.
    fn listen_at(&mut self, id: Id, number: u32, bounds: Vec<listener::Bound>) -> Result<Bound, Bound> {
        let mut answer = Bound::default();
        let mut ours = Vec::new();
        for mut bound in bounds {
            if let (Endpoint::Ip(addr), 0) = (bound.addr(), answer.port) {
                (answer.host, answer.port) = (Host::Addr(addr.ip()), addr.port());
            }
            let front = move || -> Box<dyn Handler> { Box::new(Returning { link: id, listener: number }) };
            match self.listen(&mut bound, &[], "reverse", Box::new(front)) {
                Ok(index) => ours.push(index),
                Err(error) => {
                    ours.into_iter().for_each(|index| self.unlisten(index));
                    return Err(Bound::of_failure(&Failure::from(&error)));
                }
            }
        }
        if let Some(link) = self.pools.links.links.get_mut(id) {
            link.listeners.entry(number).or_default().extend(ours);
        }
        Ok(answer)
    }

    /// Takes a place from the sessions of the same key that have no subflow, for one that has: what they were may be gone,
    /// and who is here is not to wait until their time is over. Whether one of them had it.
    fn pass_over(&mut self, id: Id, place: &Bind) -> bool {
        let Some(key) = self.pools.links.links.get(id).and_then(|link| link.key) else { return false };
        let (links, listeners) = (&mut self.pools.links.links, &self.listeners);
        let is_parted = |link: &Link| link.key == Some(key) && link.state() == "parted";
        let parted: Vec<Id> =
            links.iter().filter(|(other, link)| *other != id && is_parted(link)).map(|(other, _)| other).collect();
        let stands = |index: &u32| {
            let addr = listeners.get(*index as usize).and_then(|listener| listener.addr().ip());
            addr.is_some_and(|addr| is_in_the_way(addr, place))
        };
        let mut passed = Vec::new();
        for other in parted {
            let Some(link) = links.get_mut(other) else { continue };
            let numbers: Vec<u32> =
                link.listeners.iter().filter(|(_, ours)| ours.iter().any(stands)).map(|(number, _)| *number).collect();
            for number in numbers {
                let ours = link.listeners.remove(&number).unwrap_or_default();
                let addr = |index: &u32| listeners.get(*index as usize)?.addr().ip();
                link.passed.push((number, ours.iter().filter_map(addr).collect()));
                passed.push((other, ours));
            }
        }
        for (from, ours) in &passed {
            if let Some(unsaid) = self.may_log(id) {
                log::info!(target: TARGET, link = id.to_string(), from = from.to_string(), place = place.to_string(), unsaid = unsaid; "a port passes to the session that is there");
            }
            ours.iter().for_each(|index| self.unlisten(*index));
        }
        !passed.is_empty()
    }

    /// A session that has come back listens again where it did before another took its place, if that is free and the node
    /// is not about to stop.
    pub(super) fn listen_as_before(&mut self, id: Id) {
        let Some(link) = self.pools.links.links.get_mut(id) else { return };
        let passed = std::mem::take(&mut link.passed);
        if self.is_draining() {
            return;
        }
        for (number, addrs) in passed {
            for addr in addrs {
                let bound = self.bind_for(id, &Bind::Ip(addr));
                if bound.map_or(true, |bound| self.listen_at(id, number, bound).is_err())
                    && let Some(unsaid) = self.may_log(id)
                {
                    log::warn!(target: TARGET, link = id.to_string(), place = addr.to_string(), unsaid = unsaid; "another session of the same key listens there now");
                }
            }
        }
    }

    /// The peer wants us to listen no more.
    pub(super) fn unlisten_for(&mut self, id: Id, number: u32) {
        let Some(link) = self.pools.links.links.get_mut(id) else { return };
        link.passed.retain(|(passed, _)| *passed != number);
        let ours = link.listeners.remove(&number).unwrap_or_default();
        ours.into_iter().for_each(|index| self.unlisten(index));
    }
}

/// Whether a listener at an address keeps another from this place.
fn is_in_the_way(addr: SocketAddr, place: &Bind) -> bool {
    match place {
        Bind::Loopback(port) => {
            addr.port() == *port && *port != 0 && (addr.ip().is_loopback() || addr.ip().is_unspecified())
        }
        Bind::Any(port) => addr.port() == *port && *port != 0,
        Bind::Ip(wanted) => {
            let is_either = addr.ip() == wanted.ip() || addr.ip().is_unspecified() || wanted.ip().is_unspecified();
            addr.port() == wanted.port() && is_either
        }
        Bind::Name(..) | Bind::Unix(_) => false,
    }
}

/// A place as a LISTEN says it: no host is loopback, `*` is every address.
fn open_of(place: &Bind) -> Open {
    let (host, port) = match place {
        Bind::Loopback(port) => (Host::None, *port),
        Bind::Any(port) => (Host::Name("*".into()), *port),
        Bind::Ip(addr) => (Host::Addr(addr.ip()), addr.port()),
        Bind::Name(name, port) => (Host::Name(name.as_str().to_owned()), *port),
        Bind::Unix(_) => (Host::Name(String::new()), 0),
    };
    Open { host, port, ..Open::default() }
}

fn place_of(open: &Open) -> Result<Bind, Failure> {
    if open.kind != Kind::Tcp {
        return Err(Failure::new(Reason::NotPermitted, "this node listens for byte streams only"));
    }
    match &open.host {
        Host::None => Ok(Bind::Loopback(open.port)),
        Host::Addr(ip) => Ok(Bind::Ip((*ip, open.port).into())),
        Host::Name(name) if name == "*" => Ok(Bind::Any(open.port)),
        Host::Name(name) if name == "localhost" => Ok(Bind::Loopback(open.port)),
        // Looking a name up would hold the loop.
        Host::Name(_) => Err(Failure::new(Reason::NotPermitted, "a place to listen is an address, or localhost")),
    }
}

/// Before the peer is asked again for a place that it could not have.
const AGAIN_MS: u64 = 3_000;
