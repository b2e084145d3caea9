//! The UDP port of a server for TCP and QUIC (`--carrier auto`), which another process may have.
//!
//! Such a server listens on TCP, and on UDP at the same number. If the port of UDP cannot be bound, links are over TCP alone,
//! and the port is tried again after pauses that double from [`PAUSE_MS`] to [`PAUSE_MS_MAX`]. The process that has it is
//! often the one whose place this process takes, so a node that stops gives its port up as soon as no link needs it:
//! its links over TCP lose the QUIC beside it at once.
//!
//! ```text
//!   Bound   the port was bound beside the one of TCP, or the kind has none
//!   Missing --a try binds it--> Opened   a server of its own, which is replaced and stopped with the first one
//! ```

use std::io;
use std::sync::Arc;

use crate::engine::bound::Unbound;
use crate::engine::control::Deadline;
use crate::engine::core::{Core, OneOff};
use crate::link::frame::Class;
use crate::transport::{CarrierEndpoint, CarrierKind, Setup};
use crate::types::address::{Bind, Endpoint};
use crate::types::descriptor_error::DescriptorError;
use crate::types::id::Id;
use crate::types::verb_error::VerbError;

use super::accept::TARGET;
use super::auto::BESIDE_KIND;
use super::carrier::Carrier;
use super::control::Node;
use super::server::{Counts, Server};
use super::verbs::server_setup;

/// The UDP port of a server.
#[derive(Debug, Default)]
pub(crate) enum UdpPort {
    /// The server has its port, or needs none.
    #[default]
    Bound,
    /// The port could not be bound, and is tried again.
    Missing { place: Bind, pause_ms: u64 },
    /// A later try has bound the port for a server of its own.
    Opened(Id),
}

impl UdpPort {
    /// Returns the server that was opened for the port by a later try.
    pub fn server(&self) -> Option<Id> {
        if let UdpPort::Opened(id) = self { Some(*id) } else { None }
    }
}

impl Node {
    /// Notes that the UDP port of a server could not be bound, and schedules the next try.
    pub(super) fn lack_udp_port(&mut self, core: &mut Core, id: Id, unbound: Unbound) {
        let Some(server) = self.servers.get_mut(id) else { return };
        let (address, error) = (unbound.place.to_string(), unbound.error.to_string());
        if unbound.error.kind() == io::ErrorKind::AddrInUse {
            log::warn!(target: TARGET, address, error; "links are over TCP alone until this UDP port is free");
        } else {
            log::info!(target: TARGET, address, error; "links are over TCP alone, because the UDP port cannot be bound");
        }
        server.udp_port = UdpPort::Missing { place: unbound.place, pause_ms: PAUSE_MS };
        core.one_offs.push(core.now_ms + PAUSE_MS, OneOff::Control(Deadline::Server(id)));
    }

    /// Tries to bind the missing UDP port of a server.
    pub(super) fn try_udp_port(&mut self, core: &mut Core, id: Id) {
        if self.closing || core.is_draining() {
            return;
        }
        let Some(UdpPort::Missing { place, pause_ms }) = self.servers.get(id).map(|server| &server.udp_port) else {
            return;
        };
        let (place, pause_ms) = (place.clone(), (2 * pause_ms).min(PAUSE_MS_MAX));
        let opened = self.open_beside(core, id, &place);
        if opened.is_ok() {
            log::info!(target: TARGET, address = place.to_string(); "links over QUIC are accepted, too");
        } else {
            core.one_offs.push(core.now_ms + pause_ms, OneOff::Control(Deadline::Server(id)));
        }
        let Some(server) = self.servers.get_mut(id) else { return };
        server.udp_port = opened.map_or(UdpPort::Missing { place, pause_ms }, UdpPort::Opened);
    }

    /// Opens a server for QUIC beside one for TCP.
    fn open_beside(&mut self, core: &mut Core, id: Id, place: &Bind) -> Result<Id, DescriptorError> {
        let bounds = BESIDE_KIND.bind(place, core.config())?;
        let mut bound = bounds.into_iter().next().ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
        let server = self.server_beside(id, bound.addr().clone())?;
        self.open_server(core, &mut bound, |listener| Server { listener, ..server })
    }

    /// Gives the server that was opened beside another one the configuration of that one.
    pub(super) fn replace_beside(&mut self, id: Id) -> Result<(), VerbError> {
        let Some(beside) = self.servers.get(id).and_then(|server| server.udp_port.server()) else { return Ok(()) };
        let Some(before) = self.servers.get(beside) else { return Ok(()) };
        let (listener, address) = (before.listener, before.address.clone());
        let server = self.server_beside(id, address)?;
        self.replace_server(beside, Server { listener, ..server })
    }

    /// Returns the record of a server for QUIC with the configuration of another one. Its listener is that of the other one.
    fn server_beside(&self, id: Id, address: Endpoint) -> Result<Server, VerbError> {
        let server = self.servers.get(id).ok_or(VerbError::Stale)?;
        let setup = server_setup(&server.identity, &server.policy);
        let setup = Setup { congestion: server.timing.congestion, ..setup };
        Ok(Server {
            listener: server.listener,
            address,
            endpoint: CarrierEndpoint::server(BESIDE_KIND, &setup).map_err(|_| VerbError::Invalid)?,
            policy: Arc::clone(&server.policy),
            key: server.key,
            mode: server.mode,
            over_links: false,
            timing: server.timing.clone(),
            watch: server.watch.clone(),
            takes: server.takes.clone(),
            takes_datagrams: server.takes_datagrams.clone(),
            preface: server.preface.clone(),
            instance: server.instance,
            identity: server.identity.clone(),
            udp_port: UdpPort::Bound,
            full: false,
            counts: Counts::default(),
        })
    }

    /// Keeps the UDP ports of servers whose listeners are closed for their carriers alone. A port without a carrier is free.
    pub(super) fn leave_ports(&mut self, core: &Core) {
        for id in self.servers.ids() {
            let Some(server) = self.servers.get_mut(id) else { continue };
            let listener = server.listener;
            let left = if core.listeners.get(listener).is_none() { server.endpoint.leave() } else { None };
            self.leaving.extend(left.filter(CarrierEndpoint::is_shared).map(|endpoint| (listener, endpoint)));
        }
    }

    /// Closes the carriers of a link that use a UDP port of this node, if they are backups beside a live one of another kind.
    pub(super) fn need_no_port(&mut self, core: &mut Core, link: Id) {
        let Some(record) = self.links.get(link).filter(|record| !record.is_dialed()) else { return };
        let Some(session) = core.pools.sessions.session_mut(link) else { return };
        let kind = |carrier: &Carrier| carrier.transport.as_ref().map(|transport| transport.kind());
        let carriers: Vec<&Carrier> = record.carriers.iter().filter_map(|id| self.carriers.get(*id)).collect();
        let others = carriers.iter().filter(|carrier| kind(carrier).is_some_and(|kind| kind != CarrierKind::Quic));
        let carries = |id| !session.is_backup(id) && session.path(id).is_some_and(|(.., is_suspect)| !is_suspect);
        if !others.filter_map(|carrier| carrier.subflow).any(carries) {
            return;
        }
        let beside = carriers.iter().filter(|carrier| kind(carrier) == Some(CarrierKind::Quic));
        for subflow in beside.filter_map(|carrier| carrier.subflow) {
            if session.is_backup(subflow) {
                session.set_class(subflow, Class::Closing);
            }
        }
    }
}

/// Pauses between tries to bind the port.
const PAUSE_MS: u64 = 1_000;
const PAUSE_MS_MAX: u64 = 60_000;
