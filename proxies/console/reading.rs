//! The status of links and forwards, as the records of objects have it.

use seaprox::auth::PublicKey;
use seaprox::node::{ForwardStatus, LinkStatus};
use seaprox::{Endpoint, ForwardState, LinkState};

use super::board::{Kind, Place, Record, State};
use super::counts::Counts;
use crate::text::escape;

/// Returns the fingerprint of the key of the peer.
pub fn fingerprint(link: &LinkStatus) -> Option<String> {
    link.key.and_then(|key| PublicKey::from_bytes(key).ok()).map(|key| key.fingerprint())
}

/// Writes the status of a link into its record.
pub fn write_link(record: &mut Record, link: &LinkStatus, refusal: &str) {
    let failure = link.failure.as_ref().map(|(failure, _)| failure.to_string());
    let state = match link.state {
        LinkState::Up | LinkState::Draining => State::Connected,
        LinkState::Ended => State::Closed,
        LinkState::Connecting if !refusal.is_empty() || failure.is_some() => State::Error,
        _ => State::Connecting,
    };
    record.reason = match state {
        State::Error if !refusal.is_empty() => escape(refusal).into_owned(),
        State::Error => escape(&failure.unwrap_or_default()).into_owned(),
        _ => String::new(),
    };
    record.state = state;
    if let Some(subflow) = link.subflows.first() {
        record.local = Place::parse(&subflow.local);
        if !link.dialled {
            record.remote = Place::parse(&subflow.remote);
        }
    }
    record.fingerprint = fingerprint(link);
    record.cipher = link.cipher.map(str::to_owned);
    record.counts = Counts::of_link(link);
    record.seen_as = link.subflows.iter().filter_map(|subflow| subflow.seen_as).collect();
}

/// Writes the status of a forward into the record of its tunnel. A tunnel works if it listens and its connection does.
pub fn write_tunnel(record: &mut Record, kind: Kind, forward: &ForwardStatus, parent: Option<&Record>) {
    let parent_state = parent.map_or(State::Closed, |parent| parent.state);
    record.state = match forward.state {
        ForwardState::Listening if parent_state == State::Connected => State::Connected,
        ForwardState::Failed => State::Error,
        ForwardState::Closed => State::Closed,
        _ => State::Connecting,
    };
    record.reason = match (record.state, &forward.failure) {
        // The peer chooses the words about its listener.
        (State::Error, Some(failure)) => escape(&failure.to_string()).into_owned(),
        _ => String::new(),
    };
    if let Some(Endpoint::Ip(_, addr)) = forward.bound.first() {
        match kind {
            Kind::Reverse => record.remote.port = addr.port(),
            _ => record.local = Place::new(addr.ip().to_string(), addr.port()),
        }
    }
    record.counts = Counts::of_forward(forward);
    if let (Kind::Reverse, Some(parent)) = (kind, parent) {
        record.remote.host.clone_from(&parent.remote.host);
    }
}
