//! Nested links: links whose carriers are streams of another link of this loop, the *outer* link.
//!
//! ```text
//!   this node --------- outer link --------- its peer                       Over::Peer:   the inner link ends here
//!   this node --------- outer link --------- its peer --TCP-- third node    Over::Target: the inner link ends there
//! ```
//! The inner link has its own TLS, end to end, so the peer of the outer link sees neither its key exchange nor its data. A
//! stream carries a subflow as a socket does: the side of the carrier is the stream, so events of the outer session wake the
//! carrier, and its credit bounds what the carrier writes. The keepalive and the hold time of the inner session hold
//! unchanged. An inner link is suspended while the outer one is, and ends when the outer link is closed.
//!
//! The close of an outer link first closes the links that are nested in it, so that their CLOSE still reaches their peers:
//! ```text
//!   close --> nested links: CLOSE --acknowledged, or 500 ms--> outer link: CLOSE --> gone
//! ```
//! The peer ends the sessions whose carriers were streams of a session that was closed in order, if their CLOSE was lost.
//!
//! A peer asks for [`Over::Peer`] by a stream to the node itself; see [`ServeConfig::over_links`](super::ServeConfig).
//! A node without such a server answers as it answers any request that it does not know.

use std::sync::Arc;

use crate::engine::core::Core;
use crate::link::{Bound, Code, Host, Kind, Open, Session, StreamId};
use crate::relay::io::Io;
use crate::relay::side::{Owner, SideState};
use crate::streams::Slot;
use crate::transport::CarrierKind;
use crate::types::address::{Endpoint, Target};
use crate::types::id::{Id, Kind as IdKind};
use crate::types::proto::Proto;
use crate::types::reason::{Failure, Reason};
use crate::types::verb_error::VerbError;

use super::config::{LinkEvent, Path};
use super::control::Node;

/// The streams that carry a nested link; see [`LinkConfig::over`](super::LinkConfig::over).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Streams of this link, whose peer serves the nested link itself.
    Peer(Id),
    /// Streams of this link, whose peer connects to the address of the nested link's peer.
    Target(Id),
}

impl Over {
    /// Returns the outer link.
    pub const fn link(self) -> Id {
        match self {
            Over::Peer(link) | Over::Target(link) => link,
        }
    }
}

impl Node {
    /// Returns the OPEN of a stream for a carrier of a nested link, or none if a stream cannot have its target.
    pub(super) fn open_of_carrier(&self, core: &Core, carrier: Id) -> Option<Open> {
        let carrier = self.carriers.get(carrier)?;
        let dialer = self.links.get(carrier.link?)?.dialer.as_ref()?;
        let open = Open {
            timeout_ms: u32::try_from(core.config.timeouts.connect.as_millis()).unwrap_or(0),
            ..Open::default()
        };
        let target = dialer.slots.get(carrier.place)?.path.peer.as_ref().unwrap_or(&dialer.peer);
        match (dialer.over?, target) {
            (Over::Peer(_), _) => Some(Open { kind: Kind::Internal, host: Host::Name(REQUEST.to_owned()), ..open }),
            (Over::Target(_), Target::Ip(Proto::Tcp, addr)) => {
                Some(Open { host: Host::Addr(addr.ip()), port: addr.port(), ..open })
            }
            (Over::Target(_), Target::Name(Proto::Tcp, name, port)) => {
                Some(Open { host: Host::Name(name.as_str().to_owned()), port: *port, ..open })
            }
            (Over::Target(_), _) => None,
        }
    }

    /// Accepts a stream of the peer of a link as a carrier of another link. Returns false if the stream is no request for
    /// that, or no server of the loop takes it.
    pub(super) fn accept_nested(&mut self, core: &mut Core, link: Id, id: StreamId, open: &Open) -> bool {
        if open.kind != Kind::Internal || open.host != Host::Name(REQUEST.to_owned()) || core.is_draining() {
            return false;
        }
        let Some(server) = self.servers.iter().find(|(_, server)| server.over_links).map(|(id, _)| id) else {
            return false;
        };
        let Some(at) = core.pools.sessions.stream_at(link, id) else { return true };
        if self.links.get(link).is_none_or(|link| link.closing) {
            refuse(core, link, id, &Failure::new(Reason::LinkLost, "the outer link is being closed"));
            return true;
        }
        if self.depth(link) >= DEPTH_MAX {
            refuse(core, link, id, &Failure::new(Reason::LimitReached, "links are nested too deep"));
            return true;
        }
        let Some(record) = core.pools.sessions.get(link) else { return true };
        let peer = Endpoint::Link(Arc::clone(&record.name), id.0);
        let Some(side) = self.accept_carrier(core, server, Io::Stream(at), peer) else {
            refuse(core, link, id, &Failure::new(Reason::LimitReached, "too many peers are unauthenticated"));
            return true;
        };
        if let Some(record) = core.pools.sessions.get_mut(link) {
            record.streams.insert(id, Slot::new(side));
        }
        core.pools.sessions.answer(at, Ok(Bound::default()));
        if let Some(record) = core.sides.get_mut(side) {
            (record.ready.readable, record.ready.writable) = (true, true);
        }
        core.enqueue(side);
        true
    }

    /// Handles the loss of a stream that carries a nested link. Returns false if the stream carries none.
    pub(super) fn nested_stream_lost(&mut self, core: &mut Core, side: Id) -> bool {
        let Some(record) = core.sides.get_mut(side) else { return false };
        if !matches!(record.owner, Owner::Carrier(_)) {
            return false;
        }
        if record.state == SideState::Connecting {
            let failure = Failure::new(Reason::LinkLost, "the outer link has lost its session");
            core.queues.dialled.push_back((side, Err(failure)));
        } else {
            // The carrier finds the error when it reads.
            record.ready.error = true;
            core.enqueue(side);
        }
        true
    }

    /// Checks the configuration of a nested link: its outer link is there, and streams can reach its peer.
    pub(super) fn check_outer(
        &self,
        core: &Core,
        over: Over,
        peer: &Target,
        carrier: CarrierKind,
        paths: &[Path],
    ) -> Result<(), VerbError> {
        let has_source = |path: &Path| {
            path.source.is_some() || path.local_port.is_some() || path.interface.is_some() || path.carrier.is_some()
        };
        let targets = paths.iter().filter_map(|path| path.peer.as_ref()).chain([peer]);
        let is_unreachable =
            |target: &Target| matches!(over, Over::Target(_)) && matches!(target, Target::Unix(_) | Target::End(_));
        if over.link().kind() != IdKind::Link
            || carrier != CarrierKind::Tcp
            || paths.iter().any(has_source)
            || targets.into_iter().any(is_unreachable)
        {
            return Err(VerbError::Invalid);
        }
        match self.links.get(over.link()) {
            Some(outer) if !outer.closing => Ok(()),
            Some(_) => Err(VerbError::Over(Reason::LinkLost)),
            None => Err(core.ended.missing(over.link(), IdKind::Link)),
        }
    }

    /// Returns the number of streams of a link that carry nested links.
    pub(super) fn nested_streams(&self, core: &Core, link: Id) -> usize {
        let is_carrier =
            |slot: &&Slot| core.sides.get(slot.side).is_some_and(|side| matches!(side.owner, Owner::Carrier(_)));
        core.pools.sessions.get(link).map_or(0, |record| record.streams.values().filter(is_carrier).count())
    }

    /// Closes the links that are nested in a link, while its session can tell their peers. Returns true if the close of the
    /// outer session is to wait for them. Each link is closed once, so that a circle of links ends, too.
    pub(super) fn close_nested(&mut self, core: &mut Core, outer: Id) -> bool {
        if !core.pools.sessions.session(outer).is_some_and(Session::is_open) {
            return false;
        }
        for id in self.nested_in(outer) {
            if self.links.get(id).is_some_and(|link| !link.closing) {
                self.close_link(core, id);
            }
        }
        let (waits, close_by_ms) = (!self.nested_in(outer).is_empty(), core.now_ms + NESTED_CLOSE_MS);
        if let Some(link) = self.links.get_mut(outer).filter(|_| waits) {
            link.close_by_ms.get_or_insert(close_by_ms);
        }
        waits
    }

    /// Closes the session of an outer link that has waited for the close of its nested links, if this was the last of them.
    pub(super) fn nested_closed(&mut self, core: &mut Core, outer: Id) {
        if self.links.get(outer).is_some_and(|link| link.close_by_ms.is_some()) && self.nested_in(outer).is_empty() {
            self.close_session(core, outer);
        }
    }

    /// Ends the links that are nested in a link that is gone.
    pub(super) fn end_nested(&mut self, core: &mut Core, outer: Id) {
        for id in self.nested_in(outer) {
            if self.links.get(id).is_some_and(|link| link.dialer.is_some()) {
                self.abandon_nested(core, id);
            }
        }
    }

    /// Ends the links that peers have nested in a link whose session was closed in order. Their dialing nodes have closed them,
    /// so that none of them comes back, even if its own CLOSE did not arrive.
    pub(super) fn end_served_nested(&mut self, core: &mut Core, outer: Id) {
        let is_over = |core: &Core, carrier: Id| {
            let side = self.carriers.get(carrier).and_then(|carrier| core.sides.get(carrier.side));
            side.is_none_or(|side| side.io.stream().is_none_or(|at| at.link == outer))
        };
        let mut nested = self.nested_in(outer);
        nested.retain(|id| {
            let link = self.links.get(*id).filter(|link| !link.is_dialed());
            link.is_some_and(|link| link.carriers.iter().all(|carrier| is_over(core, *carrier)))
        });
        nested.into_iter().for_each(|id| self.abandon_nested(core, id));
    }

    /// Returns true if a carrier is a stream of a session that is over, so that no answer reaches its peer.
    pub(super) fn is_orphan(&self, core: &Core, carrier: Id) -> bool {
        let side = self.carriers.get(carrier).and_then(|carrier| core.sides.get(carrier.side));
        let Some(at) = side.and_then(|side| side.io.stream()) else { return false };
        let record = core.pools.sessions.get(at.link);
        record.is_none_or(|record| record.epoch != at.epoch || record.session.as_ref().is_none_or(Session::is_ended))
    }

    /// Notes the outer link of a link that a peer dials, if this carrier of it is a stream.
    pub(super) fn note_outer(&mut self, core: &Core, link: Id, carrier: Id) {
        let side = self.carriers.get(carrier).and_then(|carrier| core.sides.get(carrier.side));
        let outer = side.and_then(|side| side.io.stream()).map(|at| at.link);
        self.links.get_mut(link).into_iter().for_each(|link| link.outer = outer);
    }

    /// Moves the links that peers have nested in the session of a link to the record for which that session was set aside.
    pub(super) fn move_nested(&mut self, outer: Id, aside: Id) {
        for id in self.nested_in(outer) {
            if let Some(link) = self.links.get_mut(id).filter(|link| !link.is_dialed()) {
                link.outer = Some(aside);
            }
        }
    }

    /// Returns the number of links in which a link is nested, [`DEPTH_MAX`] at most.
    fn depth(&self, link: Id) -> usize {
        let outer = |link: &Id| self.links.get(*link).and_then(|link| link.outer);
        std::iter::successors(outer(&link), outer).take(DEPTH_MAX).count()
    }

    fn nested_in(&self, outer: Id) -> Vec<Id> {
        self.links.iter().filter(|(_, link)| link.outer == Some(outer)).map(|(id, _)| id).collect()
    }

    fn abandon_nested(&mut self, core: &mut Core, id: Id) {
        let Some(link) = self.links.get_mut(id).filter(|link| !link.closing) else { return };
        link.closing = true;
        match core.pools.sessions.session_mut(id) {
            Some(session) => session.abandon(Code::LinkLost),
            None => {
                let (reason, text) = (Reason::LinkLost, "the outer link is gone".to_owned());
                self.tell(core, id, &LinkEvent::Ended { reason, text });
                self.drop_link(core, id, reason);
            }
        }
        core.pools.sessions.touch(id);
    }
}

/// Refuses a stream of a carrier.
fn refuse(core: &mut Core, link: Id, stream: StreamId, failure: &Failure) {
    let now = core.pools.sessions.now;
    let refusal = Bound::of_failure(failure);
    // A stream that is gone already needs no answer.
    let _ = core.pools.sessions.session_mut(link).map(|session| session.refuse(now, stream, refusal));
    core.pools.sessions.touch(link);
}

/// The name of the request for a stream that carries a nested link.
const REQUEST: &str = "link";
/// Maximum of the links in which a link that a peer dials is nested. Each level encrypts all bytes of the levels in it again.
const DEPTH_MAX: usize = 4;
/// Time for which the close of a link waits for the close of its nested links. It is a part of the time that a loop that stops
/// leaves for the notice to its peers, so that the notice of the outer link still leaves.
const NESTED_CLOSE_MS: u64 = 500;
