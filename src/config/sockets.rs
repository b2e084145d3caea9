//! The sockets of listeners and servers: bound before anything changes, or after the addresses of other records are closed.

use std::io;

use super::apply_error::{ApplyError, ApplyFailure};
use super::link::Server;
use super::listener::Listener;
use super::{Config, LoopConfig, Place};
use crate::engine::bound::{Bound, bind};
use crate::types::address::{Bind, Endpoint};

/// Bound addresses, each with the address of the configuration that it belongs to.
pub(super) type Bounds = Vec<(Bind, Vec<Bound>)>;

/// The record that an address belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    /// The listener or the local forward with this name.
    Listener(String),
    /// The server with this name.
    Server(String),
}

/// An address that is closed, with the record that it belonged to.
pub(super) struct Closed {
    pub owner: Owner,
    /// The address as the configuration has it.
    pub place: Bind,
    /// The bound addresses.
    pub addrs: Vec<Endpoint>,
}

impl Closed {
    /// Returns true if this address was possibly in the way of another one: both have the same port or the same path.
    pub fn hinders(&self, place: &Bind) -> bool {
        self.addrs.iter().any(|addr| match (addr, place) {
            (Endpoint::Unix(mine), Bind::Unix(other)) => **mine == **other,
            (Endpoint::Ip(_, mine), _) => place.port() == Some(mine.port()),
            _ => false,
        })
    }

    /// Returns the address to bind, with the port that the system chose before.
    pub fn bound_place(&self) -> Bind {
        let port = self.addrs.first().and_then(Endpoint::ip).map(|addr| addr.port());
        port.map_or_else(|| self.place.clone(), |port| self.place.with_port(port))
    }
}

/// Returns the number of loops that a listener is in.
pub(super) fn loops_of(config: &Config, listener: &Listener) -> usize {
    if listener.link.is_some() { 1 } else { config.threads.max(1) }
}

/// Binds an address of a listener.
pub(super) fn bind_listener(config: &Config, listener: &Listener, place: &Bind) -> Result<Vec<Bound>, ApplyError> {
    let LoopConfig { limits, nodelay, tcp_keepalive, .. } = &config.loops;
    let options = LoopConfig {
        limits: crate::Limits { backlog: listener.backlog.unwrap_or(limits.backlog), ..limits.clone() },
        nodelay: listener.nodelay.unwrap_or(*nodelay),
        tcp_keepalive: listener.tcp_keepalive.unwrap_or(*tcp_keepalive),
        ..config.loops.clone()
    };
    let bound = bind(place, loops_of(config, listener), &options);
    bound.map_err(failed(Place::record("listener", &listener.name), place))
}

/// Binds an address of a server for its kind of carrier.
pub(super) fn bind_server(config: &Config, server: &Server, place: &Bind) -> Result<Vec<Bound>, ApplyError> {
    let carrier = server.carrier.unwrap_or(config.node.carrier);
    carrier.bind(place, &config.loops).map_err(failed(Place::record("server", &server.name), place))
}

/// Binds the addresses of a record. Returns those that must wait until other addresses are closed: those in `own`, which
/// the record itself closes first, and those that are in use by an address in `closing`.
pub(super) fn bind_all(
    places: &[Bind],
    own: &[Bind],
    closing: &[Closed],
    bind: impl Fn(&Bind) -> Result<Vec<Bound>, ApplyError>,
) -> Result<(Bounds, Vec<Bind>), ApplyError> {
    let (mut bounds, mut later) = (Vec::new(), Vec::new());
    for place in places {
        if own.contains(place) {
            later.push(place.clone());
            continue;
        }
        match bind(place) {
            Ok(bound) => bounds.push((place.clone(), bound)),
            Err(error) if is_in_use(&error) && closing.iter().any(|closed| closed.hinders(place)) => {
                later.push(place.clone());
            }
            Err(error) => return Err(error),
        }
    }
    Ok((bounds, later))
}

fn failed(place: Place, addr: &Bind) -> impl FnOnce(io::Error) -> ApplyError {
    let addr = addr.clone();
    move |error| ApplyError::new(place.field("listen"), ApplyFailure::Bind(addr, error))
}

fn is_in_use(error: &ApplyError) -> bool {
    matches!(&error.failure, ApplyFailure::Bind(_, error) if error.kind() == io::ErrorKind::AddrInUse)
}
