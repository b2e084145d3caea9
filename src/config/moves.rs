//! The addresses that move from one listener to another, or from one local forward to another, with their sockets and the
//! clients in their backlogs.

use super::Config;
use super::diff::{Diff, has_same_file};
use super::listener::Listener;
use super::sockets::loops_of;
use crate::types::address::Bind;

/// An address that moves from one listener to another, which takes its sockets over.
pub(super) struct Move {
    pub from: String,
    pub place: Bind,
    pub to: String,
}

/// Returns the addresses that one listener leaves and another one takes, in the same loops. A local forward takes the sockets
/// of local forwards over, and other listeners take those of other listeners. The old names of links are those of `new`.
pub(super) fn moves(old: &Config, new: &Config, diff: &Diff) -> Vec<Move> {
    let mut left = left(&old.all_listeners(), diff);
    let added = diff.listeners.added.iter().map(|it| (it, &it.addresses[..], &[][..]));
    let changed = diff.listeners.changed.iter().map(|it| (&it.listener, &it.bound[..], &it.closed[..]));
    let mut moves = Vec::new();
    for (listener, bound, closed) in added.chain(changed) {
        for place in bound.iter().filter(|place| !closed.contains(place)) {
            let fits = |(from, other): &(Listener, Bind)| {
                let same_loops = loops_of(old, from) == loops_of(old, listener);
                let same_kind = old.is_forward(&from.name) == new.is_forward(&listener.name);
                let is_other = from.name != listener.name && has_same_file(from, listener, place);
                same_loops && same_kind && is_other && other == place
            };
            if let Some(index) = left.iter().position(fits) {
                let (from, place) = left.swap_remove(index);
                moves.push(Move { from: from.name, place, to: listener.name.clone() });
            }
        }
    }
    moves
}

/// Returns the addresses that are closed, each with its old listener. A listener that binds its own address again is in
/// other loops now, or has become a forward.
fn left(old: &[Listener], diff: &Diff) -> Vec<(Listener, Bind)> {
    let removed = diff.listeners.removed.iter().map(|it| (&it.name, &it.addresses[..], &[][..]));
    let changed = diff.listeners.changed.iter().map(|it| (&it.listener.name, &it.closed[..], &it.bound[..]));
    let mut left = Vec::new();
    for (name, closed, bound) in removed.chain(changed) {
        let Some(listener) = old.iter().find(|listener| listener.name == *name) else { continue };
        // With port 0 another listener means another port.
        let places = closed.iter().filter(|place| !bound.contains(place) && place.port() != Some(0));
        left.extend(places.map(|place| (listener.clone(), place.clone())));
    }
    left
}
