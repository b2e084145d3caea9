//! Listeners at the other end: where the peer listens for us, and where we listen for it.

use crate::address::{Bind, Endpoint};
use crate::core::Core;
use crate::handler::Handler;
use crate::id::Id;
use crate::link::{Bound, Code, Host, Kind, Open};
use crate::listener;
use crate::reason::{Failure, Reason};

use super::config::{Happened, Reverse};
use super::front::Returning;
use super::greet::TARGET;
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
        if !may || self.is_draining() {
            return Err(refused(Failure::new(Reason::NotPermitted, "the peer's key may not listen there")));
        }
        let bounds = listener::bind(&place, 1, &self.config).map_err(|error| match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                Bound { text: "address in use".into(), ..Bound::refused(Code::AddressInUse) }
            }
            std::io::ErrorKind::PermissionDenied => refused(Failure::new(Reason::NotPermitted, error.to_string())),
            _ => refused(Failure::from(&error)),
        })?;
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
                    return Err(refused(Failure::from(&error)));
                }
            }
        }
        if let Some(link) = self.pools.links.links.get_mut(id) {
            link.listeners.insert(number, ours);
        }
        Ok(answer)
    }

    /// The peer wants us to listen no more.
    pub(super) fn unlisten_for(&mut self, id: Id, number: u32) {
        let Some(link) = self.pools.links.links.get_mut(id) else { return };
        let ours = link.listeners.remove(&number).unwrap_or_default();
        ours.into_iter().for_each(|index| self.unlisten(index));
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
