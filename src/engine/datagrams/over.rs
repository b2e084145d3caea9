//! The end of a flow: its line in the log, its counts, and the release of what it held.

use std::time::Duration;

use super::flow::{Client, Dest, Flow, Moved};
use crate::engine::core::Core;
use crate::engine::describe::describe_target;
use crate::types::dropped::Dropped;
use crate::types::id::{Id, Kind};
use crate::types::reason::{Ending, Reason};
use crate::types::units::format_duration;
use crate::types::verb_error::VerbError;

impl Core {
    /// Ends a flow.
    ///
    /// # Errors
    /// [`VerbError::Stale`] if it is over; [`VerbError::Invalid`] if the id is not of a flow.
    pub fn close_flow(&mut self, flow: Id) -> Result<(), VerbError> {
        if self.datagrams.flows.get(flow).is_none() {
            return Err(self.ended.missing(flow, Kind::Flow));
        }
        self.end_flow(flow, Reason::Killed, None);
        Ok(())
    }

    /// Ends a flow whose timer has passed.
    pub(super) fn flow_expired(&mut self, id: Id) {
        let Some(flow) = self.datagrams.flows.get(id) else { return };
        if self.is_draining() {
            return self.end_flow(id, Reason::Drained, None);
        }
        if self.datagrams.flows.is_answered(id) {
            return self.end_flow(id, Reason::IdleTimeout, None);
        }
        let timeouts = &self.profiles[flow.profile].settings.timeouts;
        let is_associated = flow.client.association().is_some();
        let after = format_duration(if is_associated { timeouts.flow_idle } else { timeouts.first_answer });
        if flow.via.is_some() && matches!(flow.dest, Dest::Waiting) {
            let detail = format!("the link was not up within {after}");
            return self.end_flow(id, Reason::LinkLost, Some(detail.into()));
        }
        if flow.is_from_cache {
            self.forget_name_of_flow(id);
        }
        self.end_flow(id, Reason::TimedOut, Some(format!("no answer within {after}").into()));
    }

    /// Ends a flow with a reason.
    pub(crate) fn end_flow(&mut self, id: Id, reason: Reason, detail: Option<Box<str>>) {
        if let Some(flow) = self.datagrams.flows.remove(id) {
            self.release_flow(Some(id), flow, reason, detail);
        }
    }

    /// Counts and logs the end of a flow, and releases what it held.
    pub(super) fn release_flow(&mut self, id: Option<Id>, mut flow: Flow, reason: Reason, detail: Option<Box<str>>) {
        let waited = flow.waiting.clear(&mut self.datagrams.waiting_room);
        if waited > 0 {
            let is_late = matches!(reason, Reason::TimedOut | Reason::LinkLost);
            let why = if is_late { Dropped::Late } else { Dropped::Refused };
            flow.dropped += waited;
            self.stats.datagrams_dropped[why as usize] += waited;
            let association = flow.client.association();
            association.into_iter().for_each(|connection| self.note_dropped(connection, why, waited));
        }
        self.count_last_link_drops(&mut flow);
        let is_failure = reason.is_futile() && flow.received.datagrams == 0;
        self.log_flow(id, &flow, reason, detail.as_deref());
        self.stats.flows_closed[reason as usize] += 1;
        if let Some(origin) = flow.listener {
            self.add_datagrams(
                origin,
                flow.sent.settle(&mut flow.settled[0]),
                flow.received.settle(&mut flow.settled[1]),
            );
            if flow.client.association().is_none() {
                self.end_tally(origin, reason, is_failure);
            }
        }
        if let Some(lease) = flow.lease.take().filter(|_| is_failure && self.tells_of_target(&flow, reason)) {
            lease.failed(&mut self.stats, reason);
        }
        if let Dest::Socket(socket) = &mut flow.dest {
            socket.deregister(&self.registry);
        }
        self.tell_program_of_end(id, &flow, reason);
        self.release_streams(&flow, reason, detail.as_deref());
        let is_futile = flow.is_futile(reason);
        flow.payer.into_iter().for_each(|payer| self.peers.release_flow(payer, is_futile, self.now_ms));
        self.profiles.leave(flow.profile, &mut self.timers);
        id.into_iter().for_each(|id| self.ended.note(id, reason));
        if let Some(connection) = flow.client.association() {
            let was_reached = flow.dial_ms.is_some() && flow.sent.datagrams > 0;
            let is_refusal = reason.is_futile() && flow.received.datagrams == 0 && !was_reached;
            let why = detail.as_deref().unwrap_or(reason.as_str());
            let asked = flow.asked.as_ref().filter(|_| is_refusal);
            let refusal = asked.map(|asked| format!("{asked}: {why}"));
            self.leave_association(connection, id, &flow, refusal);
        }
        if let Client::Listener { owner, reply_from, .. } = flow.client {
            if let Some(client) = self.datagrams.sockets.get_mut(&owner) {
                client.flows -= 1;
                reply_from.into_iter().for_each(|addr| client.replies.leave(addr));
            }
            self.drop_closed_socket(owner);
        }
    }

    /// Returns true if the end of a flow without an answer says that its target cannot be used. An error of the routes says so at
    /// first only: later it may be that of a change of routes, which concerns other targets, too.
    fn tells_of_target(&self, flow: &Flow, reason: Reason) -> bool {
        let patience = self.profiles[flow.profile].settings.timeouts.first_answer.as_millis() as u64;
        let is_new = patience == 0 || self.now_ms.saturating_sub(flow.opened_ms) <= patience;
        match reason {
            Reason::ConnectionRefused => true,
            Reason::HostUnreachable | Reason::NetworkUnreachable => is_new,
            _ => false,
        }
    }

    /// Adds the datagrams that flows have delivered since they were settled to the sums of their listeners: of at most `max`
    /// flows, from the slot `from` on. Returns the last of them.
    pub(in crate::engine) fn settle_flows(&mut self, from: usize, max: usize) -> Option<Id> {
        let ids: Vec<Id> = self.datagrams.flows.starting_at(from).take(max).map(|(id, _)| id).collect();
        for id in &ids {
            let Some(flow) = self.datagrams.flows.get_mut(*id) else { continue };
            let Some(origin) = flow.listener else { continue };
            let [sent, received] = flow.delivered(&self.pools.sessions);
            let (sent, received) = (sent.settle(&mut flow.settled[0]), received.settle(&mut flow.settled[1]));
            self.add_datagrams(origin, sent, received);
        }
        ids.last().copied()
    }

    /// Adds delivered datagrams to the sums of a listener or a forward.
    fn add_datagrams(&mut self, origin: Id, sent: Moved, received: Moved) {
        let (bytes, datagrams) = match self.listeners.get_mut(origin) {
            Some(listener) => (&mut listener.bytes, &mut listener.datagrams),
            None => match self.tallies.get_mut(&origin) {
                Some(tally) => (&mut tally.bytes, &mut tally.datagrams),
                None => return,
            },
        };
        *bytes = (bytes.0 + sent.bytes, bytes.1 + received.bytes);
        *datagrams = (datagrams.0 + sent.datagrams, datagrams.1 + received.datagrams);
    }

    /// Logs the line of a flow that is over. Lines about flows without an answer are limited by the network of the client,
    /// because anyone can forge the source of a datagram.
    fn log_flow(&mut self, id: Option<Id>, flow: &Flow, reason: Reason, detail: Option<&str>) {
        let level = match flow.client.association() {
            // The association has a line.
            Some(_) => log::Level::Debug,
            None if reason == Reason::Internal => log::Level::Error,
            None => log::Level::Info,
        };
        if !log::log_enabled!(target: TARGET, level) {
            return;
        }
        let source = flow.source();
        let suppressed = match flow.received.datagrams {
            0 => self.may_log_network(&source, reason),
            _ => Some(0),
        };
        let Some(suppressed) = suppressed else { return };
        let via = match flow.via.or(flow.client.link()) {
            Some(link) => self.pools.sessions.name(link).to_owned(),
            None => "direct".to_owned(),
        };
        let age = Duration::from_millis(self.now_ms.saturating_sub(flow.opened_ms));
        let dial = flow.dial_ms.map(|ms| format_duration(Duration::from_millis(ms.into())));
        let listener = flow.listener.and_then(|listener| self.listeners.get(listener));
        let dialled = flow.dialled().map_or_else(|| "-".to_owned(), |dialled| dialled.to_string());
        let (ending, fault) = flow_ending(reason);
        log::log!(
            target: TARGET, level,
            id = id.map_or_else(|| "-".to_owned(), |id| id.to_string()),
            conn:% = flow.description(),
            listener = listener.map_or("-", |listener| &*listener.name),
            user = flow.user.as_deref().unwrap_or("-"),
            client = flow.told_client().map_or_else(|| "-".to_owned(), |client| client.to_string()),
            asked = flow.asked.as_ref().map_or_else(|| "-".to_owned(), |asked| asked.to_string()),
            dialled = dialled,
            via = via,
            dial = dial.as_deref().unwrap_or("-"),
            duration = format_duration(age),
            sent = flow.sent.bytes,
            received = flow.received.bytes,
            datagrams:% = format_args!("{}/{}", flow.sent.datagrams, flow.received.datagrams),
            dropped = flow.dropped,
            reason = reason.as_str(),
            end = ending.as_str(),
            by = fault.as_str(),
            detail = detail.unwrap_or("-"),
            suppressed;
            "closed"
        );
    }
}

impl Flow {
    /// Returns true if the key of the peer that has opened the flow pays for its end as for a futile stream: the target or a rule
    /// refused it. Many questions get no answer, and the limits of flows end flows of others, so these ends are not futile;
    /// nor is any end of a flow that strangers opened at a listener for the peer.
    pub(super) fn is_futile(&self, reason: Reason) -> bool {
        let is_refusal = reason.is_futile() && !matches!(reason, Reason::TimedOut | Reason::LimitReached);
        is_refusal && self.received.datagrams == 0 && self.returns_to.is_none()
    }

    /// Returns the description of the flow in logs and the status.
    pub(super) fn description(&self) -> String {
        struct Asked<'a>(Option<&'a crate::Target>);
        impl std::fmt::Display for Asked<'_> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self.0 {
                    Some(target) => describe_target(target, f),
                    None => f.write_str("none[]"),
                }
            }
        }
        format!("{}[{}->{}]", &*self.kind, self.source(), Asked(self.asked.as_deref()))
    }
}

/// Returns the end of a flow as the two peers see it. A flow that was answered ends in order when it is idle.
fn flow_ending(reason: Reason) -> (Ending, crate::Fault) {
    let ending = if reason == Reason::IdleTimeout { Ending::Graceful } else { reason.ending() };
    (ending, reason.fault())
}

/// The log target of lines about flows, which is that of lines about connections.
pub(super) const TARGET: &str = "seaprox::connection";

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::rc::Rc;

    use super::super::handler::FlowTarget;
    use super::*;
    use crate::types::address::{Endpoint, Target};
    use crate::types::proto::Proto;

    #[test]
    fn only_refused_flows_of_the_peer_itself_are_futile() {
        let source = Endpoint::Ip(Proto::Udp, SocketAddr::from(([127, 0, 0, 1], 9)));
        let client = Client::Association {
            connection: Id::from_u64(1 << 32 | (Kind::Connection as u64) << 28).unwrap(),
            key: Box::default(),
            source,
        };
        let target = Target::from(SocketAddr::from(([127, 0, 0, 1], 53)));
        let mut flow = Flow::new(client, FlowTarget::new(Rc::new(target)), 0);
        for reason in [Reason::ConnectionRefused, Reason::NotPermitted, Reason::NameResolutionFailure] {
            assert!(flow.is_futile(reason), "{reason}");
        }
        for reason in [Reason::TimedOut, Reason::LimitReached, Reason::IdleTimeout, Reason::SourceFin] {
            assert!(!flow.is_futile(reason), "{reason}");
        }
        flow.returns_to = Some(1);
        assert!(!flow.is_futile(Reason::ConnectionRefused), "strangers have opened it");
        (flow.returns_to, flow.received.datagrams) = (None, 1);
        assert!(!flow.is_futile(Reason::ConnectionRefused), "it was answered");
    }
}
