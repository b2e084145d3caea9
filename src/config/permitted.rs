//! Options that this system, or the rights of this process, may not permit. They are tried before anything changes.

use std::fmt::Display;
use std::io;

use super::apply_error::{ApplyError, ApplyFailure};
use super::link::LinkPaths;
use super::listener::Listener;
use super::maker::MadeFrontEnd;
use super::{Config, Place, Problem};
use crate::engine::permitted::{HAS_REDIRECT, try_mark, try_transparent};
use crate::node::CarrierKind;
use crate::relay::dial::Egress;
use crate::types::proto::Proto;

/// Tries the options of the process.
pub(super) fn check_process(config: &Config) -> Result<(), ApplyError> {
    match config.loops.mark {
        0 => Ok(()),
        mark => try_mark(mark).map_err(|error| lacking("mark", &mark, &Place::root(), &error)),
    }
}

/// Tries the transports of links: there is nothing that some of them fall back to.
pub(super) fn check_carriers(config: &Config) -> Result<(), ApplyError> {
    let node = config.node.carrier;
    let links = config.links.iter().map(|link| (Place::record("link", &link.name), link.carrier.unwrap_or(node)));
    let paths = config.links.iter().flat_map(|link| {
        let paths = match &link.paths {
            LinkPaths::List(paths) => &paths[..],
            LinkPaths::File(_) => &[],
        };
        paths.iter().filter_map(|path| Some((Place::record("link", &link.name), path.carrier?)))
    });
    let servers = config.servers.iter().map(|server| {
        let place = Place::record("server", &server.name);
        (place, server.carrier.unwrap_or(node))
    });
    let refuse = |place: &Place, field, carrier: CarrierKind| match carrier.require() {
        Ok(()) => Ok(()),
        Err(error) => Err(refused(Problem::new(place.field(field), format!(" {carrier}: {error}")))),
    };
    paths.into_iter().try_for_each(|(place, carrier)| refuse(&place, "path", carrier))?;
    links.chain(servers).into_iter().try_for_each(|(place, carrier)| refuse(&place, "carrier", carrier))
}

/// Tries the options of a listener that has everything that it inherits.
pub(super) fn check_listener(listener: &Listener, made: &MadeFrontEnd) -> Result<(), ApplyError> {
    let place = Place::record("listener", &listener.name);
    if made.redirected && !HAS_REDIRECT {
        let text = format!(" {:?}: expected Linux, as no other system redirects connections", listener.front_end.name);
        return Err(refused(Problem::new(place.field("front"), text)));
    }
    if made.redirected
        && let Some(address) = listener.addresses.iter().find(|address| address.proto() == Proto::Udp)
    {
        try_transparent().map_err(|error| lacking("listen", address, &place, &error))?;
    }
    match &listener.egress {
        // The far end of a link connects from its own address.
        Some(Egress { transparent: true, .. }) if listener.link.is_none() => {
            try_transparent().map_err(|error| lacking("bind-source", &"transparent", &place, &error))
        }
        _ => Ok(()),
    }
}

/// Returns the error of an option that was tried.
fn lacking(option: &'static str, value: &dyn Display, place: &Place, error: &io::Error) -> ApplyError {
    let needs = match error.kind() {
        io::ErrorKind::Unsupported => "Linux",
        _ => "the capability CAP_NET_ADMIN",
    };
    refused(Problem::new(place.field(option), format!(" {value}: expected {needs}: {error}")))
}

fn refused(problem: Problem) -> ApplyError {
    ApplyError::new(problem.place.clone(), ApplyFailure::Refused(problem))
}
