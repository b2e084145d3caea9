//! The observed address: the address and port at which the peer sees a subflow of this node, which a NAT may have changed
//! (STUN: reflexive address).
//!
//! The dialing node requests it once for each subflow that comes up, by opening a stream to the peer itself. The name of the
//! target is the request, its port the number of the subflow, and the bound address of the answer is the observed address.
//! No byte is sent over the stream.

use crate::engine::core::Core;
use crate::link::{Bound, Code, Host, Kind, Open, StreamId, SubflowId};
use crate::types::id::Id;
use crate::types::reason::{Failure, Reason};

/// The name of the request.
const QUESTION: &str = "where-am-i";

use super::control::Node;

impl Node {
    /// Requests the observed addresses of the subflows of a link that the peer has dialed, as far as they are not known.
    pub(super) fn request_observed_addresses(&mut self, core: &mut Core, link: Id) {
        let Some(record) = self.links.get(link) else { return };
        let carriers = record.carriers.iter().filter_map(|carrier| self.carriers.get(*carrier));
        let unknown: Vec<SubflowId> =
            carriers.filter(|carrier| carrier.seen_as.is_none()).filter_map(|carrier| carrier.subflow).collect();
        for subflow in unknown {
            if self.links.get(link).is_some_and(|record| !record.address_requests.values().any(|it| *it == subflow)) {
                self.ask_observed_address(core, link, subflow);
            }
        }
    }

    /// Requests the observed address of a subflow that this node has dialed.
    pub(super) fn request_observed_address(&mut self, core: &mut Core, link: Id, subflow: SubflowId) {
        // A stream has no address that the peer could see.
        let dialer = self.links.get(link).and_then(|record| record.dialer.as_ref());
        if dialer.is_some_and(|dialer| dialer.over.is_none()) {
            self.ask_observed_address(core, link, subflow);
        }
    }

    fn ask_observed_address(&mut self, core: &mut Core, link: Id, subflow: SubflowId) {
        let now = core.pools.sessions.now;
        let Some(record) = self.links.get_mut(link) else { return };
        let Some(session) = core.pools.sessions.session_mut(link) else { return };
        let host = Host::Name(QUESTION.to_owned());
        let question = Open { kind: Kind::Internal, host, port: subflow.0, ..Open::default() };
        if let Ok(stream) = session.open(now, question) {
            record.address_requests.insert(stream, subflow);
        }
    }

    /// Answers a stream to this node itself. Returns false if the stream has another target.
    pub(super) fn answer_observed_address(&mut self, core: &mut Core, link: Id, stream: StreamId, open: &Open) -> bool {
        if open.kind != Kind::Internal {
            return false;
        }
        let asked = (open.host == Host::Name(QUESTION.to_owned())).then_some(SubflowId(open.port));
        let now = core.pools.sessions.now;
        let Some(record) = self.links.get_mut(link) else { return true };
        let carriers = record.carriers.iter().filter_map(|carrier| self.carriers.get(*carrier));
        let seen = carriers.filter(|carrier| asked.is_some() && carrier.subflow == asked).map(|carrier| carrier.side);
        let seen = seen.filter_map(|side| core.sides.get(side)?.endpoint.ip()).next();
        let Some(session) = core.pools.sessions.session_mut(link) else { return true };
        // A request whose stream is gone needs no answer.
        let _ = match seen {
            Some(addr) => {
                let bound = Bound { host: Host::Addr(addr.ip()), port: addr.port(), ..Bound::default() };
                let answered = session.accept(stream, bound).and_then(|()| session.finish(stream));
                // This node reads nothing from the stream, and a peer that does not finish it must not keep it open.
                session.stop(now, stream, Code::SourceFin);
                answered
            }
            None => {
                let failure = Failure::new(Reason::NotPermitted, "this node knows no such question");
                session.refuse(now, stream, Bound::of_failure(&failure))
            }
        };
        core.pools.sessions.touch(link);
        if seen.is_none() {
            self.was_futile(core, link);
        }
        true
    }

    /// Notes the peer's answer. Returns false if the stream was no request.
    pub(super) fn note_observed_address(
        &mut self,
        core: &mut Core,
        link: Id,
        stream: StreamId,
        result: &Bound,
    ) -> bool {
        let Some(record) = self.links.get_mut(link) else { return false };
        let Some(subflow) = record.address_requests.remove(&stream) else { return false };
        for id in &record.carriers {
            if let Some(carrier) = self.carriers.get_mut(*id).filter(|carrier| carrier.subflow == Some(subflow))
                && let Host::Addr(ip) = result.host
            {
                carrier.seen_as = Some((ip, result.port).into());
            }
        }
        let now = core.pools.sessions.now;
        if let Some(session) = core.pools.sessions.session_mut(link) {
            // The stream was for the address only, and a peer that does not finish it must not keep it open.
            let _ = session.finish(stream);
            session.stop(now, stream, Code::SourceFin);
        }
        core.pools.sessions.touch(link);
        true
    }

    /// Forgets a request that was reset instead of answered, if the stream was one.
    pub(super) fn forget_address_request(&mut self, core: &mut Core, link: Id, stream: StreamId, code: Code) {
        let Some(record) = self.links.get_mut(link) else { return };
        if record.address_requests.remove(&stream).is_some()
            && let Some(session) = core.pools.sessions.session_mut(link)
        {
            session.reset(stream, code);
            core.pools.sessions.touch(link);
        }
    }
}
