//! Reverse forwards: listeners of the peer for this node, and of this node for the peer.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, SocketAddrV6};

use crate::engine::bound;
use crate::engine::core::Core;
use crate::engine::datagrams::handler::OfPeers;
use crate::engine::handler::Handler;
use crate::engine::listener::ListenConfig;
use crate::link::{Bound, Code, Host, Kind, Open, Refused};
use crate::streams::{IN_USE, kind_of};
use crate::sys;
use crate::types::address::{Bind, Endpoint, Name};
use crate::types::forward_state::ForwardState;
use crate::types::id::Id;
use crate::types::link_state::LinkState;
use crate::types::proto::Proto;
use crate::types::reason::{Failure, Reason};

use super::accept::TARGET;
use super::config::{LinkEvent, Request, Reverse};
use super::control::Node;
use super::link::Link;
use super::opened_stream::ReverseClient;
use super::status::LinkListenerStatus;

/// A listener that this node requests from the peer.
#[derive(Clone)]
pub(crate) struct Remote {
    pub reverse: Reverse,
    /// The record of the forward.
    pub forward: Id,
    /// The number of the forward among all that the link ever had, for the events of the link.
    pub index: usize,
    /// The number of the listener in the session, once it was requested.
    pub number: Option<u32>,
    pub port: Option<u16>,
    /// The address that the peer has bound, if it tells.
    pub bound: Option<SocketAddr>,
    pub failure: Option<Failure>,
    /// The time of the next request.
    next_ms: Option<u64>,
    /// Consecutive failed requests.
    pub tries: u32,
}

/// A listener of this node for the peer of a link.
pub(crate) struct PeerListener {
    /// The address that the peer requested.
    pub place: Bind,
    /// The bound port.
    pub port: u16,
    /// The number of the listener in this loop, which other peers may have a part in.
    pub shared: u32,
}

impl Remote {
    pub fn new(reverse: Reverse, forward: Id, index: usize) -> Remote {
        Remote {
            reverse,
            forward,
            index,
            number: None,
            port: None,
            bound: None,
            failure: None,
            next_ms: None,
            tries: 0,
        }
    }

    /// Returns the state of the forward.
    pub fn state(&self) -> ForwardState {
        match &self.failure {
            _ if self.port.is_some() => ForwardState::Listening,
            Some(_) if self.tries > 0 => ForwardState::Failed,
            _ => ForwardState::Waiting,
        }
    }

    pub fn status(&self) -> LinkListenerStatus {
        LinkListenerStatus {
            place: self.reverse.listen.to_string(),
            to: self.reverse.to.to_string(),
            remote: true,
            port: self.port,
            failure: self.failure.as_ref().map(ToString::to_string),
        }
    }

    /// Forgets the numbers of the session, which is over.
    pub fn forget(&mut self) {
        (self.number, self.port, self.bound, self.next_ms, self.tries) = (None, None, None, None, 0);
    }

    /// Schedules another request after a pause, which grows with failed requests.
    fn ask_again_later(&mut self, now_ms: u64) {
        self.tries = self.tries.saturating_add(1);
        self.next_ms = Some(now_ms + pause_ms(self.tries));
    }
}

impl Node {
    /// Requests all listeners that are missing. A listener that the session does not take is reported once, and requested
    /// again like one that the peer has refused, because another listener may have gone.
    pub(super) fn listen_all(&mut self, core: &mut Core, id: Id) {
        let now_ms = core.now_ms;
        if core.is_draining() {
            return;
        }
        let Some(link) = self.links.get_mut(id) else { return };
        let Some(session) = core.pools.sessions.session_mut(id) else { return };
        let mut untaken = Vec::new();
        for remote in link.remotes.iter_mut().filter(|remote| remote.number.is_none()) {
            let index = remote.index;
            let refused = match session.listen(open_of(&remote.reverse.listen)) {
                Ok(number) => {
                    (remote.number, remote.next_ms) = (Some(number), None);
                    continue;
                }
                Err(refused) => refused,
            };
            remote.ask_again_later(now_ms);
            let failure = match refused {
                // The session is about to end, or has not begun.
                Refused::Closed | Refused::NotYet => continue,
                Refused::Limit | Refused::Exhausted => Failure::new(Reason::LimitReached, NO_ROOM),
                refused => Failure::new(Reason::Other, format!("the link takes no such listener: {refused:?}")),
            };
            if remote.failure.as_ref() != Some(&failure) {
                remote.failure = Some(failure.clone());
                untaken.push(LinkEvent::NotListening { index, failure });
            }
        }
        core.pools.sessions.touch(id);
        self.note_forwards(core, id);
        untaken.iter().for_each(|event| self.tell(core, id, event));
    }

    /// Requests refused listeners again, if that is due. Returns the time of the next request.
    pub(super) fn listen_again(&mut self, core: &mut Core, id: Id) -> Option<u64> {
        let link = self.links.get(id).filter(|link| link.was_established && !core.is_draining())?;
        let next_ms = link.remotes.iter().filter_map(|remote| remote.next_ms).min()?;
        if next_ms <= core.now_ms {
            self.listen_all(core, id);
            return None;
        }
        Some(next_ms)
    }

    /// Handles the peer's answer to a LISTEN.
    pub(super) fn listen_answered(&mut self, core: &mut Core, id: Id, number: u32, result: &Bound) {
        let now_ms = core.now_ms;
        let Some(link) = self.links.get_mut(id) else { return };
        let Some(remote) = link.remotes.iter_mut().find(|remote| remote.number == Some(number)) else { return };
        let index = remote.index;
        let event = match result.to_failure() {
            None => {
                (remote.port, remote.failure, remote.tries) = (Some(result.port), None, 0);
                remote.bound = if let Host::Addr(ip) = result.host { Some((ip, result.port).into()) } else { None };
                LinkEvent::Listening { index, port: result.port, lacks: result.text.clone() }
            }
            Some(failure) => {
                (remote.number, remote.port, remote.bound) = (None, None, None);
                remote.ask_again_later(now_ms);
                remote.failure = Some(failure.clone());
                LinkEvent::NotListening { index, failure }
            }
        };
        self.note_forwards(core, id);
        self.tell(core, id, &event);
    }

    /// Handles a LISTEN of the peer.
    pub(super) fn listen_for(&mut self, core: &mut Core, id: Id, number: u32, open: &Open) {
        let result = self.try_listen_for(core, id, number, open);
        let answer = match &result {
            Ok(answer) => answer.clone(),
            Err(bound) => bound.clone(),
        };
        if let Some(suppressed) = self.may_log(core, id) {
            let peer = core.pools.sessions.name(id).to_owned();
            let why = answer.failure.map_or("-", Code::as_str);
            let detail = if answer.text.is_empty() { "-" } else { &answer.text };
            log::info!(target: TARGET, link = id.to_string(), peer = peer, place = place_of(open).map_or_else(|_| "?".into(), |place| place.to_string()), port = answer.port, reason = why, detail = detail, suppressed; "asked to listen");
        }
        if let Some(session) = core.pools.sessions.session_mut(id) {
            // A listener that was given back meanwhile needs no answer.
            let _ = session.listen_result(number, answer);
        }
        core.pools.sessions.touch(id);
    }

    fn try_listen_for(&mut self, core: &mut Core, id: Id, number: u32, open: &Open) -> Result<Bound, Bound> {
        let refused = |failure: Failure| Bound::of_failure(&failure);
        let place = place_of(open).map_err(refused)?;
        let link = self.links.get(id).ok_or_else(|| Bound::refused(Code::LinkLost))?;
        let may = link.key.is_some_and(|key| link.policy.may_listen(&key, &place));
        if let Some(key) = link.key.filter(|key| !may && link.policy.asks(key, &Request::Listen(place.clone()))) {
            self.tell(core, id, &LinkEvent::Asked { key, request: Request::Listen(place), connection: None });
            return Err(refused(Failure::new(Reason::NotPermitted, "somebody is asked")));
        }
        if !may || core.is_draining() {
            return Err(refused(Failure::new(Reason::NotPermitted, "the peer's key may not listen there")));
        }
        self.listen_at(core, id, number, place.clone(), &place)
    }

    /// Binds an address for the peer of a link: both families of an address that stands for both, or the family that is
    /// free. Also returns the addresses that could not be bound, as text.
    fn bind_for(&mut self, core: &mut Core, id: Id, place: &Bind) -> io::Result<(Vec<bound::Bound>, String)> {
        let is_in_use = |error: &io::Error| error.kind() == ErrorKind::AddrInUse;
        let mut bound = bound::bind(place, 1, &core.config);
        if bound.as_ref().is_err_and(is_in_use) && self.pass_over(core, id, place) {
            bound = bound::bind(place, 1, &core.config);
        }
        match bound {
            Err(error) if is_in_use(&error) => {
                let (bounds, lacking) = bound::bind_some(place, &core.config)?;
                let words: Vec<_> = lacking.iter().map(|(addr, error)| format!("{addr}: {error}")).collect();
                Ok((bounds, words.join(", ")))
            }
            bound => bound.map(|bounds| (bounds, String::new())),
        }
    }

    /// Listens for the peer of a link at `place`: the requested address, with the port that was bound before if there was
    /// one. Returns the answer, with the first bound address.
    fn listen_at(&mut self, core: &mut Core, id: Id, number: u32, asked: Bind, place: &Bind) -> Result<Bound, Bound> {
        if let Some(answer) = self.join_listener(id, number, &asked, place) {
            return Ok(answer);
        }
        let place = with_zone(place).map_err(|failure| Bound::of_failure(&failure))?;
        let (bounds, lacks) = self.bind_for(core, id, &place).map_err(|error| match error.kind() {
            ErrorKind::AddrInUse => Bound { text: IN_USE.into(), ..Bound::refused(Code::AddressInUse) },
            ErrorKind::PermissionDenied => Bound::of_failure(&Failure::new(Reason::NotPermitted, error.to_string())),
            _ => Bound::of_failure(&Failure::from(&error)),
        })?;
        let mut answer = Bound { text: lacks, ..Bound::default() };
        let mut indices = Vec::new();
        let shared = self.shared.next();
        for mut bound in bounds {
            if let (Endpoint::Ip(_, addr), 0) = (bound.addr(), answer.port) {
                (answer.host, answer.port) = (Host::Addr(addr.ip()), addr.port());
            }
            let front = move || -> Box<dyn Handler> { Box::new(ReverseClient { shared }) };
            let config = ListenConfig {
                datagrams: Some(Box::new(OfPeers(shared))),
                ..ListenConfig::new("reverse", Box::new(front))
            };
            match core.listen_for_forward(&mut bound, config) {
                Ok(index) => indices.push(index),
                Err(error) => {
                    indices.into_iter().for_each(|index| core.close_listener(index));
                    return Err(Bound::of_failure(&Failure::from(&io::Error::from(error))));
                }
            }
        }
        self.shared.add(shared, asked.with_port(answer.port), answer.clone(), indices, (id, number));
        if let Some(link) = self.links.get_mut(id) {
            link.listeners.insert(number, PeerListener { place: asked, port: answer.port, shared });
        }
        Ok(answer)
    }

    /// Closes the listeners of suspended sessions of the same key that are in the way of an address. Such a session may be
    /// gone for ever, and the present peer must not wait for its timeout. Returns true if there was one.
    fn pass_over(&mut self, core: &mut Core, id: Id, place: &Bind) -> bool {
        let Some(key) = self.links.get(id).and_then(|link| link.key) else { return false };
        let listeners = &core.listeners;
        let is_suspended = |other: Id, link: &Link| {
            other != id
                && link.key == Some(key)
                && link.state(core.pools.sessions.session(other)) == LinkState::Suspended
        };
        let suspended = self.links.iter().filter(|(other, link)| is_suspended(*other, link));
        let stands = |index: &Id| {
            let addr = listeners.get(*index).and_then(|listener| listener.addr.ip());
            addr.is_some_and(|addr| is_in_the_way(addr, place))
        };
        let mut passed = Vec::new();
        for (other, link) in suspended {
            let its = link.listeners.iter().filter(|(_, ours)| self.shared.indices(ours.shared).iter().any(stands));
            passed.extend(its.map(|(number, _)| (other, *number)));
        }
        for (from, number) in &passed {
            if let Some(suppressed) = self.may_log(core, id) {
                log::info!(target: TARGET, link = id.to_string(), from = from.to_string(), place = place.to_string(), suppressed; "a port passes to the session that is there");
            }
            self.close_port(core, *from, *number);
        }
        !passed.is_empty()
    }

    /// Closes a listener for a peer whose session has no subflow. It is bound again when the session resumes.
    fn close_port(&mut self, core: &mut Core, id: Id, number: u32) {
        let Some(link) = self.links.get_mut(id) else { return };
        let Some(ours) = link.listeners.remove(&number) else { return };
        self.withdraw(core, id, &ours);
        if let Some(link) = self.links.get_mut(id) {
            link.closed.push((number, ours));
        }
    }

    /// Closes the listeners for a peer that has been away as long as a silent subflow may be, so that others can use the
    /// ports. Tries again to bind those that a returned peer could not have. Returns the time of the next action.
    pub(super) fn look_after_ports(&mut self, core: &mut Core, id: Id) -> Option<u64> {
        let now_ms = core.now_ms;
        let link = self.links.get_mut(id)?;
        if let Some(suspended_ms) = link.suspended_ms {
            if link.listeners.is_empty() {
                return None;
            }
            let due_ms = suspended_ms.saturating_add(link.timing.dead.as_millis() as u64);
            if due_ms > now_ms {
                return Some(due_ms);
            }
            let (numbers, peer): (Vec<u32>, _) =
                (link.listeners.keys().copied().collect(), core.pools.sessions.name(id).to_owned());
            if let Some(suppressed) = self.may_log(core, id) {
                log::info!(target: TARGET, link = id.to_string(), peer = peer, ports = numbers.len(), suppressed; "the peer is away, and its ports are free for others");
            }
            numbers.into_iter().for_each(|number| self.close_port(core, id, number));
            return None;
        }
        let due_ms = link.rebind_ms?;
        if due_ms > now_ms {
            return Some(due_ms);
        }
        self.listen_as_before(core, id);
        self.links.get(id)?.rebind_ms
    }

    /// Binds the closed listeners of a session that has resumed. If a port is in use now, the peer is told and requests it
    /// again after a pause; an older peer cannot be told, so this node tries again. A node that is about to stop binds
    /// nothing.
    pub(super) fn listen_as_before(&mut self, core: &mut Core, id: Id) {
        let (now_ms, is_draining) = (core.now_ms, core.is_draining());
        let Some(link) = self.links.get_mut(id) else { return };
        link.rebind_ms = None;
        link.rebind_tries = link.rebind_tries.saturating_add(1);
        let pause_ms = pause_ms(link.rebind_tries);
        let closed = std::mem::take(&mut link.closed);
        for (number, ours) in closed.into_iter().filter(|_| !is_draining) {
            let Err(answer) = self.listen_where_it_was(core, id, number, &ours) else { continue };
            let reason = answer.failure;
            if let Some(suppressed) = self.may_log(core, id) {
                let reason = reason.map_or("-", Code::as_str);
                log::warn!(target: TARGET, link = id.to_string(), place = ours.place.to_string(), port = ours.port, reason = reason, suppressed; "a port of a peer that is back cannot be had again");
            }
            let Some(link) = self.links.get_mut(id) else { return };
            let told = core.pools.sessions.session_mut(id).map(|session| session.listener_lost(number, answer));
            if !matches!(told, Some(Ok(()))) {
                link.closed.push((number, ours));
                // A listener that is not permitted waits until its permission changes.
                let is_permitted = reason != Some(Code::NotPermitted);
                link.rebind_ms = if is_permitted { Some(now_ms + pause_ms) } else { link.rebind_ms };
            }
        }
        core.pools.sessions.touch(id);
    }

    /// Binds a closed listener again, if it is still permitted.
    fn listen_where_it_was(
        &mut self,
        core: &mut Core,
        id: Id,
        number: u32,
        ours: &PeerListener,
    ) -> Result<Bound, Bound> {
        let link = self.links.get(id).ok_or_else(|| Bound::refused(Code::LinkLost))?;
        if !link.key.is_some_and(|key| link.policy.may_listen(&key, &ours.place)) {
            return Err(Bound::refused(Code::NotPermitted));
        }
        self.listen_at(core, id, number, ours.place.clone(), &ours.place.with_port(ours.port))
    }

    /// Closes the listeners that are not permitted after a change of the policy. Their connections continue. The peer is
    /// told, and requests them again after a pause. An older peer cannot be told; it gets the listeners back when the policy
    /// permits them again.
    pub(super) fn revoke_listeners(&mut self, core: &mut Core, id: Id) {
        let Some(link) = self.links.get(id) else { return };
        let Some(key) = link.key else { return };
        let is_revoked =
            |ours: &PeerListener| !link.policy.may_listen(&key, &ours.place) || self.is_out_of_group(id, ours);
        let its = link.listeners.iter().filter(|(_, ours)| is_revoked(ours));
        let revoked: Vec<u32> = its.map(|(number, _)| *number).collect();
        if !revoked.is_empty() {
            log::info!(target: TARGET, link = id.to_string(), peer = core.pools.sessions.name(id), ports = revoked.len(); "its key may not listen there any more");
        }
        if link.suspended_ms.is_none() && !link.closed.is_empty() {
            self.listen_as_before(core, id);
        }
        let answer =
            Bound::of_failure(&Failure::new(Reason::NotPermitted, "the peer's key may not listen there any more"));
        for number in revoked {
            self.close_port(core, id, number);
            let Some(link) = self.links.get_mut(id) else { return };
            if core
                .pools
                .sessions
                .session_mut(id)
                .is_some_and(|session| session.listener_lost(number, answer.clone()).is_ok())
            {
                link.closed.retain(|(closed, _)| *closed != number);
            }
        }
        core.pools.sessions.touch(id);
    }

    /// Handles an UNLISTEN of the peer.
    pub(super) fn unlisten_for(&mut self, core: &mut Core, id: Id, number: u32) {
        let Some(link) = self.links.get_mut(id) else { return };
        link.closed.retain(|(closed, _)| *closed != number);
        let ours = link.listeners.remove(&number);
        ours.into_iter().for_each(|ours| self.withdraw(core, id, &ours));
    }
}

/// Returns true if a listener at an address prevents a bind of another one.
fn is_in_the_way(addr: SocketAddr, place: &Bind) -> bool {
    match place {
        Bind::Loopback(_, port) => {
            addr.port() == *port && *port != 0 && (addr.ip().is_loopback() || addr.ip().is_unspecified())
        }
        Bind::Any(_, port) => addr.port() == *port && *port != 0,
        Bind::Ip(_, wanted) => {
            let is_either = is_same(addr, *wanted) || addr.ip().is_unspecified() || wanted.ip().is_unspecified();
            addr.port() == wanted.port() && is_either
        }
        Bind::Name(..) | Bind::Unix(_) | Bind::Descriptor(..) => false,
    }
}

/// Returns true if two addresses are equal apart from the port. Addresses of two interfaces are different.
fn is_same(one: SocketAddr, other: SocketAddr) -> bool {
    let zone = |addr| if let SocketAddr::V6(addr) = addr { addr.scope_id() } else { 0 };
    one.ip() == other.ip() && (zone(one) == zone(other) || zone(one) == 0 || zone(other) == 0)
}

/// Returns the address in the form of a LISTEN: no host for loopback, `*` for all addresses.
fn open_of(place: &Bind) -> Open {
    let (host, port) = match place {
        Bind::Loopback(_, port) => (Host::None, *port),
        Bind::Any(_, port) => (Host::Name("*".into()), *port),
        Bind::Ip(_, addr) => (Host::Addr(addr.ip()), addr.port()),
        Bind::Name(_, name, port) => (Host::Name(name.as_str().to_owned()), *port),
        Bind::Unix(_) | Bind::Descriptor(..) => (Host::Name(String::new()), 0),
    };
    Open { kind: kind_of(place.proto()), host, port, ..Open::default() }
}

fn place_of(open: &Open) -> Result<Bind, Failure> {
    let proto = match open.kind {
        Kind::Tcp => Proto::Tcp,
        Kind::Udp => Proto::Udp,
        Kind::Internal => {
            let why = "this node listens for byte streams and datagrams only";
            return Err(Failure::new(Reason::NotPermitted, why));
        }
    };
    match &open.host {
        Host::None => Ok(Bind::Loopback(proto, open.port)),
        Host::Addr(ip) => Ok(Bind::Ip(proto, SocketAddr::from((*ip, open.port)))),
        Host::Name(name) if name == "*" => Ok(Bind::Any(proto, open.port)),
        Host::Name(name) if name == "localhost" => Ok(Bind::Loopback(proto, open.port)),
        Host::Name(name) => match Name::new(name) {
            Ok(name) if name.zoned().is_some() => Ok(Bind::Name(proto, name, open.port)),
            // A name lookup would block the loop.
            _ => Err(Failure::new(Reason::NotPermitted, "a place to listen is an address, or localhost")),
        },
    }
}

/// Returns the address with the number of the interface in place of its zone, if it has one. No name is looked up.
pub(super) fn with_zone(place: &Bind) -> Result<Bind, Failure> {
    let Bind::Name(proto, name, port) = place else { return Ok(place.clone()) };
    let Some((ip, zone)) = name.zoned() else { return Ok(place.clone()) };
    let lacks = || Failure::new(Reason::NameResolutionFailure, format!("this host has no interface {zone}"));
    let number = sys::interface_index(zone).ok_or_else(lacks)?;
    Ok(Bind::Ip(*proto, SocketAddrV6::new(ip, *port, 0, number).into()))
}

/// The failure of a listener beyond the limit of the session: see [`listeners_max`](crate::link::Config::listeners_max).
const NO_ROOM: &str = "the far end listens in as many places as a link may have";
/// Returns the pause before an address is requested again: 3 s three times, then twice as long each time, up to 30 s.
fn pause_ms(tries: u32) -> u64 {
    (PAUSE_MS.0 << tries.saturating_sub(3).min(8)).min(PAUSE_MS.1)
}

/// Shortest and longest pause before an address is requested again.
const PAUSE_MS: (u64, u64) = (3_000, 30_000);

#[cfg(test)]
mod tests {
    use super::pause_ms;

    #[test]
    fn the_pause_between_requests_of_a_listener_grows_to_thirty_seconds() {
        let pauses: Vec<u64> = (1..=9).map(pause_ms).collect();
        assert_eq!(pauses, [3_000, 3_000, 3_000, 6_000, 12_000, 24_000, 30_000, 30_000, 30_000]);
        assert_eq!(pause_ms(u32::MAX), 30_000);
    }
}
