//! The changes of listeners and of local forwards.

use std::sync::Arc;

use super::prepare::Prepared;
use super::{Running, move_at};
use crate::config::apply_error::{ApplyError, ApplyFailure};
use crate::config::effect::{Effect, Settings};
use crate::config::listener::Listener;
use crate::config::maker::MadeFrontEnd;
use crate::config::moves::Move;
use crate::config::on_loop::{Opened, Terms};
use crate::config::sockets::{Bounds, Closed, Owner, Patience, bind_listener, bind_server, loops_of};
use crate::config::{Config, Place};
use crate::types::address::Bind;

impl Running {
    pub(super) fn listen_all(
        &mut self,
        config: &Config,
        prepared: &mut Prepared,
        moves: &[Move],
        effect: &mut Effect<'_>,
    ) {
        for listener in config.all_listeners() {
            let Some(front_end) = prepared.front_ends.remove(&listener.name) else { continue };
            let name = listener.name.clone();
            let bounds = prepared.listening.remove(&name).unwrap_or_default();
            let terms = self.terms(config, listener, front_end);
            let terms = terms.map_err(|failure| ApplyError::new(Place::record("listener", &name), failure));
            let Some(terms) = effect.note(terms) else {
                // The sockets are closed, and the clients of open ones go over the link as before.
                self.keep(&name, moves, effect);
                continue;
            };
            let remotes = &self.remotes[..loops_of(config, &terms.listener)];
            let opened = self.listeners.get(&name).into_iter().flatten();
            let mut replaced = opened.map(|it| it.replace(remotes, &terms));
            let replaced = replaced.find_map(Result::err).map_or(Ok(()), Err);
            if effect
                .note(replaced.map_err(|failure| ApplyError::new(Place::record("listener", &name), failure)))
                .is_none()
            {
                self.keep(&name, moves, effect);
            }
            self.open(&terms, config.is_forward(&name), bounds, Settings::New, effect);
        }
    }

    /// Returns the terms of a listener.
    ///
    /// # Errors
    /// Its link could not be dialed.
    fn terms(&self, config: &Config, listener: Listener, front_end: MadeFrontEnd) -> Result<Terms, ApplyFailure> {
        let link = match &listener.link {
            Some(name) => Some(*self.links.get(name).ok_or_else(|| ApplyFailure::NoLink(name.clone()))?),
            None => None,
        };
        Ok(Terms { listener: Arc::new(listener), timeouts: config.loops.timeouts.clone(), front_end, link })
    }

    /// Keeps the old settings at the addresses where a listener listens, and gives back those that others have handed over.
    fn keep(&mut self, name: &str, moves: &[Move], effect: &mut Effect<'_>) {
        for it in moves.iter().filter(|it| it.to == name) {
            move_at(&mut self.listeners, &it.to, &it.place, &it.from);
            effect.mark(Owner::Listener(it.from.clone()), Settings::Old);
        }
        let owner = Owner::Listener(name.to_owned());
        let settings = if self.opened(&owner).is_empty() { Settings::New } else { Settings::Old };
        effect.mark(owner, settings);
    }

    /// Opens the bound addresses of a listener or a local forward.
    fn open(&mut self, terms: &Terms, is_forward: bool, bounds: Bounds, settings: Settings, effect: &mut Effect<'_>) {
        let name = terms.listener.name.clone();
        let remotes = if terms.link.is_some() { &self.remotes[..1] } else { &self.remotes[..] };
        for (place, bounds) in bounds {
            let opened: Result<Vec<Opened>, ApplyFailure> = if is_forward {
                Opened::forward(&remotes[0], &place, bounds, terms).map(|opened| vec![opened])
            } else {
                Opened::listen_each(remotes, &place, bounds, terms)
            };
            match effect.note(opened.map_err(|failure| ApplyError::new(Place::record("listener", &name), failure))) {
                Some(opened) => self.listeners.entry(name.clone()).or_default().extend(opened),
                None => effect.mark(Owner::Listener(name.clone()), settings),
            }
        }
    }

    /// Opens the closed addresses again that were closed for an address that cannot be bound, with their old settings.
    pub(super) fn restore(&mut self, closed: &[Closed], unbound: &[(Owner, Bind)], effect: &mut Effect<'_>) {
        for it in closed {
            let is_own = |(owner, place): &(Owner, Bind)| *owner == it.owner && *place == it.place;
            if !unbound.iter().any(|one| it.hinders(&one.1) || is_own(one)) {
                continue;
            }
            effect.mark(it.owner.clone(), Settings::Old);
            let restored = match &it.owner {
                Owner::Listener(name) => self.restore_listener(name, it, effect),
                Owner::Server(name) => self.restore_server(name, it, effect),
            };
            effect.note(restored);
        }
    }

    fn restore_listener(&mut self, name: &str, it: &Closed, effect: &mut Effect<'_>) -> Result<(), ApplyError> {
        let mut all = self.config.all_listeners().into_iter();
        let Some(listener) = all.find(|listener| listener.name == name) else { return Ok(()) };
        let place = Place::record("listener", name);
        let bounds = Patience::begin().bind(|| bind_listener(&self.config, &listener, &it.bound_place()))?;
        let front_end = self.maker.front_end(&listener).map_err(ApplyError::made(place.clone()))?;
        let terms = self.terms(&self.config, listener, front_end);
        let terms = terms.map_err(|failure| ApplyError::new(place, failure))?;
        let is_forward = self.config.is_forward(name);
        self.open(&terms, is_forward, vec![(it.place.clone(), bounds)], Settings::Old, effect);
        Ok(())
    }
}

/// Binds the addresses that had to wait until others are closed. Returns those that cannot be bound.
pub(super) fn bind_later(config: &Config, prepared: &mut Prepared, effect: &mut Effect<'_>) -> Vec<(Owner, Bind)> {
    let (listeners, mut unbound) = (config.all_listeners(), Vec::new());
    let patience = Patience::begin();
    for (owner, place) in std::mem::take(&mut prepared.later) {
        let (bounds, all) = match &owner {
            Owner::Listener(name) => {
                let listener = listeners.iter().find(|listener| listener.name == *name);
                let bounds = listener.map(|it| patience.bind(|| bind_listener(config, it, &place)));
                (bounds, prepared.listening.entry(name.clone()))
            }
            Owner::Server(name) => {
                let server = config.servers.iter().find(|server| server.name == *name);
                let bounds = server.map(|it| patience.bind(|| bind_server(config, it, &place)));
                (bounds, prepared.serving.entry(name.clone()))
            }
        };
        match bounds.and_then(|bounds| effect.note(bounds)) {
            Some(bounds) => all.or_default().push((place, bounds)),
            None => {
                effect.mark(owner.clone(), Settings::New);
                unbound.push((owner, place));
            }
        }
    }
    unbound
}
