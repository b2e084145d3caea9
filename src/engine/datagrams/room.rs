//! The flows that end so that others have room: a descriptor of the process, or a place in the share of a key. And the number of
//! the descriptors.
//!
//! A flood of new flows may take all descriptors: those that the limits of the process leave to flows, or, if other parts of the
//! process have more than their share, those that connections need. So a flow that never got an answer gives its socket
//! up, the least recently used one first, to a connection or to another flow.

use super::flow::Dest;
use super::{ClientSocket, Datagrams};
use crate::engine::core::Core;
use crate::types::peer::PeerKey;
use crate::types::peer_network::PeerNetwork;
use crate::types::reason::Reason;

impl Datagrams {
    /// Returns the number of sockets of flows, of associations, and of replies to redirected clients, with those of closed
    /// listeners.
    pub fn sockets_open(&self) -> usize {
        let flows = self.flows.starting_at(0).filter(|(_, flow)| matches!(flow.dest, Dest::Socket(_))).count();
        let of_client = |client: &ClientSocket| client.replies.open() + usize::from(client.is_closing);
        flows + self.association_sockets.len() + self.sockets.values().map(of_client).sum::<usize>()
    }
}

impl Core {
    /// Ends a few flows that have a socket and wait for their first answer, because the process has no descriptors left.
    /// Returns false if there is no such flow.
    pub(crate) fn end_waiting_flows(&mut self) -> bool {
        let mut ended = 0;
        while ended < ENDED_AT_ONCE && self.end_waiting_flow() {
            ended += 1;
        }
        ended > 0
    }

    /// Ends the flow that waits longest for its first answer and has a socket. Returns false if there is no such flow.
    pub(crate) fn end_waiting_flow(&mut self) -> bool {
        let id = self.datagrams.flows.oldest_with_socket();
        id.into_iter().for_each(|id| self.end_flow(id, Reason::LimitReached, Some("its descriptor was needed".into())));
        id.is_some()
    }

    /// Ends one flow that waits for its first answer and has a socket, because the association of a client needs a descriptor: a
    /// flow of the same client, if it has one. Returns false if there is no such flow.
    pub(super) fn end_flow_for_association(&mut self, source: PeerNetwork) -> bool {
        let flows = &self.datagrams.flows;
        let own = flows.oldest_waiting_of(source, |flow| matches!(flow.dest, Dest::Socket(_)));
        let id = own.or_else(|| flows.oldest_with_socket());
        id.into_iter().for_each(|id| self.end_flow(id, Reason::LimitReached, Some("its descriptor was needed".into())));
        id.is_some()
    }

    /// Ends a flow of a key that has its share of the flows: the one that the table would end if it were full. Returns false if the
    /// key has no flow.
    pub(crate) fn end_flow_of(&mut self, key: &PeerKey, share: usize) -> bool {
        let Some(payer) = self.peers.id_of(key) else { return false };
        let id = self.datagrams.flows.victim_of_payer(payer, share, self.now_ms);
        let why = "another flow of its peer needed its place";
        id.into_iter().for_each(|id| self.end_flow(id, Reason::LimitReached, Some(why.into())));
        id.is_some()
    }
}

/// Flows that end at once for lack of a descriptor. The other parts of the process need some, too, and try again after a pause.
const ENDED_AT_ONCE: usize = 16;
