//! The control of the links of one loop: the state of a node, beside the core, and the entry points of the event loop.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;

use crate::engine::control::{Control, Deadline, Request};
use crate::engine::core::Core;
use crate::engine::limits::CARRIERS_MAX;
use crate::engine::observer::Event;
use crate::link::{BootId, Outbox, SessionId};
use crate::streams::LinkSession;
use crate::transport::{Buffers, CarrierEndpoint};
use crate::types::companions::Companions;
use crate::types::id::{Id, Kind, Table};
use crate::types::link_state::LinkState;
use crate::types::reason::{Failure, Reason};

use super::carrier::Carrier;
use super::forward::{FORWARDS_MAX, Forward};
use super::group::{GROUPS_MAX, Group};
use super::handshakes::Budget;
use super::link::Link;
use super::link_events::LinkEvents;
use super::memory::Memory;
use super::server::{SERVERS_MAX, Server};
use super::service::OnService;
use super::shared_listener::SharedListeners;
use super::unauthenticated::Unauthenticated;

/// The control of the links of one loop. The session of each link is in the core, under the same id: see
/// [`Sessions`](crate::streams::Sessions).
pub(crate) struct Node {
    pub links: Companions<Link>,
    pub carriers: Table<Carrier>,
    /// The listeners for links.
    pub servers: Table<Server>,
    /// The endpoints of servers that have stopped, by their listeners: carriers still use their sockets.
    pub leaving: Vec<(Id, CarrierEndpoint)>,
    /// The forwards of all links.
    pub forwards: Table<Forward>,
    /// The groups of links to several servers.
    pub groups: Table<Group>,
    /// The listeners for peers.
    pub shared: SharedListeners,
    /// The links that peers have dialed, by the id of the session.
    pub served: HashMap<SessionId, Id>,
    /// Carriers of peers that have not joined a session yet.
    pub unauthenticated: Unauthenticated<Id>,
    /// The time budget of the handshakes of unauthenticated peers.
    pub handshakes: Budget,
    /// Set while a deadline is armed that looks for unauthenticated peers that are too slow.
    pub crowd_watched: bool,
    /// The services that peers can open streams to.
    pub services: Vec<(String, OnService)>,
    /// Memory of all links.
    pub memory: Memory,
    /// Buffers that all TLS connections share.
    pub buffers: Rc<Buffers>,
    pub outbox: Outbox,
    /// Decrypted bytes of one carrier on their way to its session.
    pub plain: Vec<Bytes>,
    /// The carriers that were read in this turn and may not have been flushed since.
    pub(super) unflushed: Vec<Id>,
    /// The half of the boot id that differs in each run of this process.
    pub run: [u8; 4],
    /// Events of links that wait for their callbacks.
    pub events: LinkEvents,
    /// Panics of policies that are not in the counts of the loop yet.
    pub panics: Arc<AtomicU64>,
    /// The node has services for all peers.
    pub serves: Arc<AtomicBool>,
    /// The loop is stopping, so that no new link is accepted or dialed.
    pub closing: bool,
}

impl Node {
    /// Makes a control without links, whose memory is bounded by `memory_bytes` in each direction.
    pub fn new(memory_bytes: usize) -> Node {
        Node {
            links: Companions::new(),
            carriers: Table::new(Kind::Carrier, CARRIERS_MAX),
            servers: Table::new(Kind::Server, SERVERS_MAX),
            leaving: Vec::new(),
            forwards: Table::new(Kind::Forward, FORWARDS_MAX),
            groups: Table::new(Kind::Group, GROUPS_MAX),
            shared: SharedListeners::default(),
            served: HashMap::new(),
            unauthenticated: Unauthenticated::new(),
            handshakes: Budget::default(),
            crowd_watched: false,
            memory: Memory::new(memory_bytes),
            buffers: Rc::new(Buffers::new(memory_bytes as u64)),
            outbox: Outbox::new(),
            plain: Vec::new(),
            unflushed: Vec::new(),
            run: super::random(),
            events: LinkEvents::default(),
            panics: Arc::default(),
            serves: Arc::default(),
            services: Vec::new(),
            closing: false,
        }
    }

    /// Inserts the two parts of a link. Returns the id, or none if there is no room.
    pub fn insert_link(&mut self, core: &mut Core, link: Link, session: LinkSession) -> Option<Id> {
        let id = core.pools.sessions.insert(session)?;
        let state = link.state_since.0;
        self.links.insert(id, link);
        core.observe(Event::Link { link: id, state });
        Some(id)
    }

    /// Removes both parts of a link, which has ended for this reason.
    pub fn remove_link(&mut self, core: &mut Core, id: Id, reason: Reason) {
        self.close_forwards(core, id, reason);
        core.pools.sessions.remove(id);
        if let Some(link) = self.links.remove(id) {
            core.ended.note(id, reason);
            core.observe(Event::Link { link: id, state: LinkState::Ended });
            self.end_nested(core, id);
            link.group.into_iter().for_each(|group| self.member_ended(core, group, id));
            link.outer.into_iter().for_each(|outer| self.nested_closed(core, outer));
        }
    }

    /// Notes and reports the state of a link, if it has changed.
    pub fn note_state(&mut self, core: &mut Core, id: Id) {
        let Some(link) = self.links.get_mut(id) else { return };
        let state = link.state(core.pools.sessions.session(id));
        if state != link.state_since.0 {
            link.state_since = (state, core.now_ms);
            let group = link.group;
            if state != LinkState::Ended {
                core.observe(Event::Link { link: id, state });
            }
            group.into_iter().for_each(|group| self.look_at_group(core, group, core.now_ms));
        }
    }

    /// Returns the number of suppressed lines if a line about the peer of a link may be logged now.
    pub fn may_log(&self, core: &mut Core, id: Id) -> Option<u64> {
        let key = self.links.get(id)?.key?;
        core.may_log_key(&key)
    }

    /// Returns the boot id of this run of the node.
    pub fn boot(&self, instance: Option<u32>) -> BootId {
        let [a, b, c, d] = self.run;
        let [e, f, g, h] = instance.map_or_else(super::random, u32::to_be_bytes);
        BootId([e, f, g, h, a, b, c, d])
    }
}

impl Control for Node {
    fn handle_request(&mut self, core: &mut Core, request: Request) {
        match request {
            // The callback that asked for the stream may have released the dest or closed its connection since.
            Request::OpenStream { dest, link } if core.is_dialing(dest) => self.dial_stream(core, dest, link),
            Request::ReturnFlow { dest, flow, shared } if core.is_dialing(dest) => {
                self.return_flow(core, dest, flow, shared);
            }
            Request::OpenStream { .. } | Request::ReturnFlow { .. } => {}
            Request::Accept { listener, io, peer } => self.accept_peer(core, listener, io, peer),
            Request::Datagrams { listener } => self.receive_shared(core, listener),
            Request::AnnounceDrain => self.announce_drain(core),
            Request::ListenersClosed => {
                self.close_local_forwards(core);
                self.leave_ports(core);
            }
        }
    }

    fn run_carrier(&mut self, core: &mut Core, carrier: Id) {
        self.run_carrier(core, carrier);
    }

    fn carrier_dialled(&mut self, core: &mut Core, carrier: Id, result: Result<(), &Failure>) {
        self.carrier_dialled(core, carrier, result);
    }

    fn handle_deadline(&mut self, core: &mut Core, deadline: Deadline) {
        match deadline {
            Deadline::Link(link) => self.link_due(core, link),
            Deadline::Carrier(carrier) => self.carrier_due(core, carrier),
            Deadline::Server(server) => self.try_udp_port(core, server),
            Deadline::Member(link) => self.end_leaving(core, link),
            Deadline::Group(group) => self.group_due(core, group),
            // The wake-up is enough: the loop computes the handshakes before it sleeps again.
            Deadline::Handshakes => {}
            Deadline::Crowd => self.thin_crowd(core),
            Deadline::TrimMemory => self.trim_memory(core),
        }
    }

    fn run_handshakes(&mut self, core: &mut Core) {
        self.run_handshakes(core);
    }

    fn deliver_events(&mut self, core: &mut Core) -> bool {
        self.hear_links(core)
    }

    fn drive(&mut self, core: &mut Core) {
        self.drive_links(core);
        self.flush_rest(core);
        self.tell_waiting(core);
        core.stats.panics += self.panics.swap(0, Ordering::Relaxed);
    }

    fn stop_waiting(&mut self, core: &mut Core, dest: Id, waited: &str) -> Option<Failure> {
        self.stop_waiting(core, dest, waited)
    }

    fn is_busy(&self, core: &Core) -> bool {
        self.has_handshakes(core) || self.events.is_waiting()
    }

    fn has_links(&self) -> bool {
        self.links.len() > 0 || self.events.is_waiting() || self.carriers.iter().any(|(_, carrier)| carrier.lingers())
    }

    fn is_owing(&self, core: &Core) -> bool {
        self.links_owe(core)
    }

    fn close_all(&mut self, core: &mut Core) {
        self.close_links(core);
    }
}
