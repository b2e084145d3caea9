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
//! A peer asks for [`Over::Peer`] by a stream to the node itself; see [`ServeConfig::over_links`](super::ServeConfig).
//! A node without such a server answers as it answers any request that it does not know.

use std::sync::Arc;

use crate::engine::core::Core;
use crate::link::{Bound, Code, Host, Kind, Open, StreamId};
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
        let Some(record) = core.pools.sessions.get(link) else { return true };
        let peer = Endpoint::Link(Arc::clone(&record.name), id.0);
        let Some(side) = self.accept_carrier(core, server, Io::Stream(at), peer) else {
            let now = core.pools.sessions.now;
            let refusal = Bound::of_failure(&Failure::new(Reason::LimitReached, "too many peers are unauthenticated"));
            // A stream that is gone already needs no answer.
            let _ = core.pools.sessions.session_mut(link).map(|session| session.refuse(now, id, refusal));
            core.pools.sessions.touch(link);
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
        let has_source = |path: &Path| path.source.is_some() || path.local_port.is_some() || path.interface.is_some();
        let targets = paths.iter().filter_map(|path| path.peer.as_ref()).chain([peer]);
        let is_unreachable = |target: &Target| matches!(over, Over::Target(_)) && matches!(target, Target::Unix(_));
        if over.link().kind() != IdKind::Link
            || carrier != CarrierKind::default()
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

    /// Ends the links that are nested in a link that is gone.
    pub(super) fn end_nested(&mut self, core: &mut Core, outer: Id) {
        let is_nested = |link: &super::link::Link| {
            link.dialer.as_ref().and_then(|dialer| dialer.over).is_some_and(|over| over.link() == outer)
        };
        let nested = self.links.iter().filter(|(_, link)| is_nested(link) && !link.closing);
        let nested: Vec<Id> = nested.map(|(id, _)| id).collect();
        for id in nested {
            let Some(link) = self.links.get_mut(id) else { continue };
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
}

/// The name of the request for a stream that carries a nested link.
const REQUEST: &str = "link";
