//! The changes of the addresses on which peers dial links.

use std::collections::BTreeMap;

use super::prepare::Prepared;
use super::{Running, close_at};
use crate::config::Place;
use crate::config::apply_error::ApplyError;
use crate::config::effect::{Effect, Settings};
use crate::config::maker::MadeServer;
use crate::config::on_loop::Opened;
use crate::config::sockets::{Bounds, Closed, Owner, Patience, bind_server};
use crate::engine::bound::Bound;
use crate::node::LinksOfServer;
use crate::types::address::Bind;
use crate::types::id::Id;

impl Running {
    pub(super) fn serve_all(&mut self, prepared: &mut Prepared, effect: &mut Effect<'_>) {
        for (name, bounds) in std::mem::take(&mut prepared.serving) {
            let Some(made) = prepared.servers.get(&name) else { continue };
            self.replace_server(&name, made, effect);
            self.serve(&name, bounds, made, Settings::New, effect);
        }
    }

    pub(super) fn serve(
        &mut self,
        name: &str,
        bounds: Bounds,
        made: &MadeServer,
        settings: Settings,
        effect: &mut Effect<'_>,
    ) {
        for (place, bound) in bounds.into_iter().flat_map(each) {
            let served = Opened::serve(&self.remotes[0], &place, bound, made);
            match effect.note(served.map_err(|failure| ApplyError::new(Place::record("server", name), failure))) {
                Some(opened) => self.servers.entry(name.to_owned()).or_default().push(opened),
                None => {
                    close_at(&mut self.servers, name, &[place], &self.remotes, LinksOfServer::GoOn);
                    effect.mark(Owner::Server(name.to_owned()), settings);
                }
            }
        }
    }

    /// Accepts links under the new configuration at the addresses that stay.
    fn replace_server(&mut self, name: &str, made: &MadeServer, effect: &mut Effect<'_>) {
        let opened = self.servers.get(name).into_iter().flatten();
        let replaced = opened.map(|it| it.replace_server(&self.remotes[0], made)).find_map(Result::err);
        if let Some(failure) = replaced {
            let failed: Result<(), _> = Err(ApplyError::new(Place::record("server", name), failure));
            effect.note(failed);
            effect.mark(Owner::Server(name.to_owned()), Settings::Old);
        }
    }

    /// Gives the links of servers that have stopped to those of the same name, and ends the links whose keys are not admitted
    /// any more.
    pub(super) fn adopt(&self, stopped: &BTreeMap<String, Vec<Id>>) {
        for (name, ids) in stopped {
            let successor = self.servers.get(name).into_iter().flatten().find_map(Opened::server);
            if let (Some(successor), false) = (successor, ids.is_empty()) {
                let ids = ids.clone();
                // A server that has stopped meanwhile has no links.
                self.first_loop(move |core| _ = core.server(successor).map(|mut server| server.adopt(&ids)));
            }
        }
        if !stopped.is_empty() {
            self.first_loop(|core| core.recheck_links());
        }
    }

    pub(super) fn restore_server(
        &mut self,
        name: &str,
        it: &Closed,
        effect: &mut Effect<'_>,
    ) -> Result<(), ApplyError> {
        let Some(server) = self.config.servers.iter().find(|server| server.name == name) else { return Ok(()) };
        let server = self.config.resolved_server(server);
        let bounds = Patience::begin().bind(|| bind_server(&self.config, &server, &it.bound_place()))?;
        let made = self.maker.serve(&server).map_err(ApplyError::made(Place::record("server", name)))?;
        self.serve(name, vec![(it.place.clone(), bounds)], &made, Settings::Old, effect);
        Ok(())
    }
}

fn each((place, bounds): (Bind, Vec<Bound>)) -> impl Iterator<Item = (Bind, Bound)> {
    bounds.into_iter().map(move |bound| (place.clone(), bound))
}
