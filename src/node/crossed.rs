//! Links that both nodes dial: the role of each in the session, and the HELLO of the peer on a dialed carrier.
//!
//! On a connection that both nodes have dialed, chance decides who is the server of TLS. The roles of the session must be the
//! same for all of its subflows, and after a restart of either node. So the node with the lower public key begins sessions,
//! and sends HELLO on each carrier. Two nodes with one key have the roles of TLS. If these are not the ones of a session that a
//! node has, the node gives the carrier up: of the next ones, each fits with a chance of one half.
//!
//! ```text
//!   dialed, ClientHello answered:              this node sends HELLO
//!   dialed by both, and the own key is lower:  this node sends HELLO
//!   dialed by both, and the own key is higher: Greeting --HELLO of the peer--> Live
//! ```

use std::cmp::Ordering;

use crate::engine::core::Core;
use crate::link::frame::Frame;
use crate::link::{BootId, Code, Hello, HelloAck, Intent, Session, SessionRole, Status};
use crate::types::id::Id;
use crate::types::reason::{Failure, Reason};

use super::accept::TARGET;
use super::carrier::CarrierStage;
use super::config::PeerKey;
use super::control::Node;
use super::proof;

impl Node {
    /// Returns the role of this node in the session of a link, on a dialed carrier whose peer has shown `key`.
    ///
    /// # Errors
    /// The link has a session in which this node has the other role. If the keys decide, the peer has lost the session, and
    /// it ends unless it has a subflow.
    pub(super) fn session_role(
        &mut self,
        core: &mut Core,
        id: Id,
        link: Id,
        key: &PeerKey,
    ) -> Result<SessionRole, Failure> {
        let crossed = self.carriers.get(id).and_then(|carrier| carrier.transport.as_ref()?.crossed());
        let own = self.links.get(link).and_then(|record| record.dialer.as_ref()).map(|dialer| dialer.key);
        let session = core.pools.sessions.session(link).filter(|session| !session.is_ended());
        let (present, is_open) = (session.map(Session::role), session.is_some_and(Session::is_open));
        let order = own.map_or(Ordering::Less, |own| own.cmp(key));
        let role = match (crossed, order) {
            (None, _) | (_, Ordering::Less) => SessionRole::Client,
            (_, Ordering::Greater) => SessionRole::Server,
            (Some(crossed), Ordering::Equal) if crossed.is_server => SessionRole::Server,
            (_, Ordering::Equal) => SessionRole::Client,
        };
        let is_by_chance = crossed.is_some() && order == Ordering::Equal;
        let dialer = self.links.get_mut(link).and_then(|record| record.dialer.as_mut());
        dialer.into_iter().for_each(|dialer| dialer.is_by_chance = is_by_chance);
        if present.is_none_or(|present| present == role) {
            return Ok(role);
        }
        if self.links.get(link).is_some_and(|record| !record.was_established) {
            // The peer never answered the HELLO of that session.
            core.pools.sessions.get_mut(link).into_iter().for_each(|linked| linked.session = None);
            return Ok(role);
        }
        if is_by_chance {
            return Err(Failure::new(Reason::LinkLost, "chance gave the nodes the roles that they do not have"));
        }
        if !is_open {
            self.end_lost_session(core, link);
        }
        Err(Failure::new(Reason::LinkLost, "the node that answers does not know the session"))
    }

    /// Handles the HELLO of the peer on a carrier that both nodes have dialed.
    pub(super) fn hello_on_dialed(&mut self, core: &mut Core, id: Id, hello: &Hello) -> Result<(), Failure> {
        let carrier = self.carriers.get(id);
        let key = carrier.and_then(|carrier| carrier.transport.as_ref()?.peer_key());
        let link = carrier.and_then(|carrier| carrier.link);
        let record = link.and_then(|link| self.links.get(link));
        let (Some(key), Some(link), Some(record)) = (key, link, record) else { return Err(Reason::Internal.into()) };
        if !record.policy.admits(&key) {
            return Err(Failure::new(Reason::AuthFailed, "its key has been removed"));
        }
        let boot = self.boot(record.dialer.as_ref().and_then(|dialer| dialer.instance));
        let is_closing = record.closing || self.closing || core.is_draining();
        let present = core.pools.sessions.session(link).map(Session::id);
        let status = match hello.intent {
            Intent::New if is_closing => Status::Limit,
            Intent::New => self.begin_session(core, id, link, hello, boot)?,
            Intent::Join | Intent::Resume if present == Some(hello.session) => {
                self.add_dialed(core, id, link, hello)?
            }
            Intent::Join | Intent::Resume => Status::UnknownSession,
        };
        if status == Status::Ok {
            return Ok(());
        }
        if let Some(suppressed) = core.may_log_key(&key) {
            log::info!(target: TARGET, status = format!("{status:?}"), suppressed; "subflow refused");
        }
        let mut ack = Vec::new();
        Frame::HelloAck(HelloAck::refusal(status, hello, boot)).encode(&mut ack);
        let transport = self.carriers.get_mut(id).and_then(|carrier| carrier.transport.as_mut());
        transport.into_iter().for_each(|transport| transport.send_bytes(&ack));
        self.flush_carrier(core, id)?;
        Err(Failure::new(Reason::LinkLost, format!("the subflow of the peer was refused: {status:?}")))
    }

    /// Begins the session of a HELLO. A session that the link has is over: its peer has begun anew.
    fn begin_session(
        &mut self,
        core: &mut Core,
        id: Id,
        link: Id,
        hello: &Hello,
        boot: BootId,
    ) -> Result<Status, Failure> {
        if let Some(session) = core.pools.sessions.session(link) {
            if session.id() == hello.session && !session.is_superseded_by(hello) {
                return Ok(Status::UnknownSession);
            }
            self.end_lost_session(core, link);
            return Err(Failure::new(Reason::LinkLost, "the peer has begun a new session"));
        }
        let now = core.pools.sessions.now;
        let (Some(carrier), Some(record)) = (self.carriers.get(id), self.links.get_mut(link)) else {
            return Ok(Status::UnknownSession);
        };
        let (Some(transport), Some(linked)) = (&carrier.transport, core.pools.sessions.get_mut(link)) else {
            return Ok(Status::UnknownSession);
        };
        record.secret = proof::session_secret(transport, hello.session).ok_or(Reason::Internal)?;
        record.peer_boot = Some(hello.boot);
        let config = record.session_config(&self.memory);
        linked.session = Some(Session::new(SessionRole::Server, config, hello.session, boot, now));
        let status = self.add_dialed(core, id, link, hello)?;
        if status != Status::Ok {
            // The session has had no subflow, so nothing of it is left.
            core.pools.sessions.get_mut(link).into_iter().for_each(|linked| linked.session = None);
        }
        self.weigh_link(core, link);
        Ok(status)
    }

    /// Adds a subflow to the session of a link, in which this node is the server.
    fn add_dialed(&mut self, core: &mut Core, id: Id, link: Id, hello: &Hello) -> Result<Status, Failure> {
        let now = core.pools.sessions.now;
        let (Some(carrier), Some(record)) = (self.carriers.get_mut(id), self.links.get_mut(link)) else {
            return Ok(Status::UnknownSession);
        };
        let (Some(transport), Some(session)) = (&carrier.transport, core.pools.sessions.session_mut(link)) else {
            return Ok(Status::UnknownSession);
        };
        let proofs = proof::proofs(transport, &record.secret, SessionRole::Server, hello.session, hello.subflow);
        let status = session.accept_subflow(now, hello, proofs.ok_or(Reason::Internal)?);
        if status == Status::Ok {
            (carrier.subflow, carrier.stage) = (Some(hello.subflow), CarrierStage::Live);
            if let (Some(side), Some(rate)) = (core.sides.get(carrier.side), record.received.rate()) {
                transport.limit_rate(side, rate);
            }
            core.pools.sessions.touch(link);
        }
        Ok(status)
    }

    /// Ends a session that the peer does not know any more. The link begins another one.
    fn end_lost_session(&mut self, core: &mut Core, link: Id) {
        core.pools.sessions.session_mut(link).into_iter().for_each(|session| session.abandon(Code::LinkLost));
        self.link_events(core, link);
    }
}
