//! Accepting: clients become connections, within the budget of the turn and the limits.
//!
//! Accepting pauses, and the clients wait in the backlog, while the connection table is full or the system has no
//! descriptors; it goes on without a call from outside.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::engine::control::Request;
use crate::engine::core::{Core, OneOff, Run};
use crate::engine::listener::Front;
use crate::engine::mailbox::Mail;
use crate::relay::io::Io;
use crate::sys;
use crate::types::address::Endpoint;
use crate::types::id::Id;
use crate::types::peer_network::PeerNetwork;
use crate::types::reason::Reason;

/// A client that one loop has accepted for itself or another.
pub(crate) struct Accepted {
    /// The listener in the loop that gets the client.
    listener: Id,
    io: Io,
    peer: Endpoint,
}

impl Core {
    /// Notes an event of a listener. The datagrams of carriers are received before the sides run, so that the carriers handle them
    /// in this turn.
    pub(crate) fn listener_event(&mut self, id: Id) {
        match self.listeners.get(id) {
            Some(listener) if listener.is_of_carriers() && !listener.queued => self.receive_for_carriers(id),
            _ => self.listener_ready(id),
        }
    }

    /// Asks the control of links to receive the datagrams of carriers, for an open listener once in a turn at most.
    fn receive_for_carriers(&mut self, id: Id) {
        let turn = self.stats.turns;
        let last = self.listeners.get_mut(id).map(|listener| std::mem::replace(&mut listener.received_turn, turn));
        if last == Some(turn) {
            return self.listener_ready(id);
        }
        self.queues.requests.push_back(Request::Datagrams { listener: id });
    }

    /// Queues a listener whose backlog has clients.
    pub(crate) fn listener_ready(&mut self, id: Id) {
        if self.datagrams_ready(id) {
            return;
        }
        if let Some(listener) = self.listeners.get_mut(id) {
            listener.ready = true;
            if !std::mem::replace(&mut listener.queued, true) {
                self.queues.run.push_back(Run::Listener(id));
            }
        } else if !self.queues.run.contains(&Run::Listener(id)) {
            // Carriers may still use the socket of a listener for links that is closed.
            self.queues.run.push_back(Run::Listener(id));
        }
    }

    /// Accepts the waiting clients within the turn's budget and the limits.
    pub(crate) fn accept(&mut self, id: Id) {
        let Some(listener) = self.listeners.get_mut(id) else { return self.receive_for_carriers(id) };
        listener.queued = false;
        // Many unauthenticated peers may connect to a listener for links, and each one delays the established links.
        let most = if matches!(listener.front, Front::Nodes) { NODES_PER_TURN } else { usize::MAX };
        let mut has_made_room = false;
        for _ in 0..self.accepts_left().min(most) {
            self.queues.accepts.1 += 1;
            let Some(listener) = self.listeners.get_mut(id) else { return };
            if listener.is_of_carriers() {
                listener.ready = false;
                return self.receive_for_carriers(id);
            }
            if self.connections.is_full() && matches!(listener.front, Front::Clients(..)) {
                return self.accepting_is_full(id);
            }
            let Some(acceptor) = listener.acceptor.as_ref().filter(|_| listener.ready) else { return };
            match acceptor.accept() {
                Ok((io, peer)) => {
                    has_made_room = false;
                    self.accepted(id, io, peer);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    listener.ready = false;
                    return;
                }
                // Flows that wait for an answer give their descriptors to clients. If that is of no use, no more of them end.
                Err(error)
                    if sys::is_out_of_own_descriptors(&error)
                        && !std::mem::replace(&mut has_made_room, true)
                        && self.end_waiting_flows() => {}
                Err(error) if sys::is_out_of_descriptors(&error) => {
                    if !self.descriptors.listeners.contains(&id) {
                        self.descriptors.listeners.push(id);
                    }
                    return self.descriptors_short();
                }
                // The client closed before the accept, or the accept returned an error of its network (accept(2)).
                Err(_) => {}
            }
        }
        self.listener_ready(id);
    }

    /// Returns the number of connections that a listener may accept now: the rest of the turn's budget, and at least a few
    /// if other listeners have used it up.
    fn accepts_left(&mut self) -> usize {
        let (turn, count) = &mut self.queues.accepts;
        if *turn != self.stats.turns {
            (*turn, *count) = (self.stats.turns, 0);
        }
        self.config.limits.accepts_per_turn.saturating_sub(*count).max(ACCEPTS_AT_LEAST)
    }

    /// Gives an accepted client to this loop, or to the loop whose turn it is.
    fn accepted(&mut self, id: Id, io: Io, peer: Endpoint) {
        let Some(listener) = self.listeners.get_mut(id) else { return };
        let accepted = Accepted { listener: id, io, peer };
        if !listener.hands_over {
            return self.take_in(accepted);
        }
        listener.turn = listener.turn.wrapping_add(1);
        match listener.members.at_turn(listener.turn) {
            Some((remote, listener)) if !remote.is_of(&self.mailbox) => {
                // The number of clients in mailboxes is bounded by the descriptors of the process.
                let _ = remote.0.post(Mail::Accepted(Accepted { listener, ..accepted }));
            }
            _ => self.take_in(accepted),
        }
    }

    /// Makes a connection of an accepted client. A client from another loop is refused if the table is full.
    pub(crate) fn take_in(&mut self, accepted: Accepted) {
        let Accepted { listener: id, io, peer } = accepted;
        let Some(listener) = self.listeners.get_mut(id) else { return };
        listener.accepted += 1;
        let kind = listener.kind.clone();
        let Front::Clients(front) = &mut listener.front else {
            return self.queues.requests.push_back(Request::Accept { listener: id, io, peer });
        };
        let network = PeerNetwork::from(&peer);
        let is_counted = listener.counts_at_accept && self.sources.counts(network);
        if is_counted && !self.sources.enter(network) {
            listener.refused += 1;
            return self.source_is_full(&peer);
        }
        let Ok(handler) = catch_unwind(AssertUnwindSafe(front)) else {
            listener.refused += 1;
            self.stats.panics += 1;
            return if is_counted {
                self.sources.leave(network)
            };
        };
        let from = peer.clone();
        match self.adopt_io(io, peer, kind, Some(id), handler) {
            Ok(id) => self.connections.get_mut(id).into_iter().for_each(|record| record.is_counted = is_counted),
            Err((_, error)) => {
                self.listeners.get_mut(id).into_iter().for_each(|listener| listener.refused += 1);
                if let Some(suppressed) = self.may_log_network(&from, Reason::Other) {
                    log::warn!(target: "seaprox::listener", error = error.to_string(), suppressed; "client refused");
                }
                if is_counted {
                    self.sources.leave(network);
                }
            }
        }
    }

    /// Counts and logs a client that is closed because its network has reached its limit.
    pub(crate) fn source_is_full(&mut self, peer: &Endpoint) {
        self.stats.clients_refused += 1;
        if let Some(suppressed) = self.may_log_network(peer, Reason::LimitReached) {
            log::info!(target: "seaprox::listener", from = peer.to_string(), reason = "limit_reached", suppressed; "client refused");
        }
    }

    /// Pauses accepting, because the table is full. The clients wait in the backlog until a connection ends. Logs this once
    /// for each pause.
    fn accepting_is_full(&mut self, id: Id) {
        if self.queues.full.is_empty() {
            self.stats.limit_pauses += 1;
            let limit = self.connections.capacity();
            log::warn!(target: "seaprox::listener", reason = "limit_reached", connections = limit; "accepting pauses");
        }
        if !self.queues.full.contains(&id) {
            self.queues.full.push(id);
        }
    }

    /// Resumes accepting after a connection has ended.
    pub(crate) fn accept_again(&mut self) {
        for id in std::mem::take(&mut self.queues.full) {
            self.listener_ready(id);
        }
    }

    /// Pauses accepting and connecting, because the process is out of descriptors, and frees those of
    /// unused pipes. Logs this once until no attempt has failed for one retry period.
    pub(crate) fn descriptors_short(&mut self) {
        self.pools.splice_pipes.shrink();
        self.descriptors.short = true;
        if self.descriptors.since_ms.is_some() {
            return;
        }
        self.descriptors.since_ms = Some(self.now_ms);
        self.stats.descriptor_pauses += 1;
        let active = self.connections.len();
        log::warn!(target: "seaprox::listener", reason = "limit_reached", connections = active; "no descriptors left: accepting and connecting pause");
        self.watch_descriptors();
    }

    fn watch_descriptors(&mut self) {
        let wait_ms = self.config.timeouts.descriptors_retry.as_millis() as u64;
        self.one_offs.push(self.now_ms + wait_ms, OneOff::Descriptors);
    }

    /// Retries the paused work at the end of a retry period. If nothing has failed in the period, logs the end of the pause.
    pub(crate) fn descriptors_again(&mut self) {
        if !std::mem::replace(&mut self.descriptors.short, false) {
            let since_ms = self.descriptors.since_ms.take().unwrap_or(self.now_ms);
            let after = crate::types::units::format_duration(std::time::Duration::from_millis(self.now_ms - since_ms));
            log::info!(target: "seaprox::listener", after = after; "descriptors again: accepting and connecting go on");
            return;
        }
        self.feed_starved();
        for id in std::mem::take(&mut self.descriptors.listeners) {
            self.listener_ready(id);
        }
        self.watch_descriptors();
    }
}

/// Connections that each listener may accept in a turn, even if the others have used up the budget.
const ACCEPTS_AT_LEAST: usize = 4;
/// Connections accepted in one turn from a listener for links.
const NODES_PER_TURN: usize = 16;
