//! The sockets of listeners and servers: bound before anything changes, or after the addresses of other records are closed.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

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
    /// Returns true if this address was possibly in the way of another one: both have the same port, the same path
    /// or the same passed sockets.
    pub fn hinders(&self, place: &Bind) -> bool {
        if matches!(place, Bind::Descriptor(..)) {
            return self.place == *place;
        }
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

/// The time in which an address that this process has closed becomes free. A program that another thread has just started
/// holds all closed sockets until its exec.
pub(super) struct Patience {
    until: Instant,
}

impl Patience {
    /// Starts the time for all addresses that one change has closed.
    pub fn begin() -> Patience {
        Patience { until: Instant::now() + CLOSED_TIMEOUT }
    }

    /// Calls `bind`, and again while the address is in use, until the time is over.
    ///
    /// # Errors
    /// The error of the last call.
    pub fn bind<T>(&self, bind: impl Fn() -> Result<T, ApplyError>) -> Result<T, ApplyError> {
        loop {
            match bind() {
                Err(error) if is_in_use(&error) && Instant::now() < self.until => thread::sleep(CLOSED_INTERVAL),
                result => return result,
            }
        }
    }
}

/// Returns the number of loops that a listener is in.
pub(super) fn loops_of(config: &Config, listener: &Listener) -> usize {
    if listener.link.is_some() { 1 } else { config.threads.max(1) }
}

/// Binds an address of a listener.
pub(super) fn bind_listener(config: &Config, listener: &Listener, place: &Bind) -> Result<Vec<Bound>, ApplyError> {
    let LoopConfig { limits, nodelay, tcp_keepalive, unix_mode, unix_owner, .. } = &config.loops;
    let options = LoopConfig {
        limits: crate::Limits { backlog: listener.backlog.unwrap_or(limits.backlog), ..limits.clone() },
        nodelay: listener.nodelay.unwrap_or(*nodelay),
        tcp_keepalive: listener.tcp_keepalive.unwrap_or(*tcp_keepalive),
        unix_mode: listener.unix_mode.or(*unix_mode),
        unix_owner: listener.unix_owner.clone().or_else(|| unix_owner.clone()),
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

/// Binds the addresses of a record. Also returns those that must wait until other addresses are closed, which are those in
/// `own`, which the record itself closes first, and those that are in use by an address in `closing`; and the errors of the
/// others.
pub(super) fn bind_all(
    places: &[Bind],
    own: &[Bind],
    closing: &[Closed],
    bind: impl Fn(&Bind) -> Result<Vec<Bound>, ApplyError>,
) -> (Bounds, Vec<Bind>, Vec<ApplyError>) {
    let (mut bounds, mut later, mut errors) = (Vec::new(), Vec::new(), Vec::new());
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
            Err(error) => errors.push(error),
        }
    }
    (bounds, later, errors)
}

fn failed(place: Place, addr: &Bind) -> impl FnOnce(io::Error) -> ApplyError {
    let addr = addr.clone();
    move |error| ApplyError::new(place.field("listen"), ApplyFailure::Bind(addr, error))
}

fn is_in_use(error: &ApplyError) -> bool {
    matches!(&error.failure, ApplyFailure::Bind(_, error) if error.kind() == io::ErrorKind::AddrInUse)
}

/// Longest wait until the addresses that one change has closed are free.
const CLOSED_TIMEOUT: Duration = Duration::from_millis(500);
/// Time between two attempts to bind such an address.
const CLOSED_INTERVAL: Duration = Duration::from_millis(5);
