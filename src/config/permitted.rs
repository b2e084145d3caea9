//! Options that this system, or the rights of this process, may not permit. They are tried before anything changes.

use std::fmt::Display;
use std::io;

use super::apply_error::{ApplyError, ApplyFailure};
use super::listener::Listener;
use super::maker::MadeFrontEnd;
use super::{Config, Place, Problem};
use crate::engine::permitted::{HAS_REDIRECT, try_mark, try_transparent};
use crate::relay::dial::Egress;
use crate::types::proto::Proto;

/// Tries the options of the process.
pub(super) fn check_process(config: &Config) -> Result<(), ApplyError> {
    match config.loops.mark {
        0 => Ok(()),
        mark => try_mark(mark).map_err(|error| lacking("mark", &mark, &Place::root(), &error)),
    }
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
