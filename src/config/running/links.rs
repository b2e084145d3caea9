//! The changes of links that this node dials.

use super::Running;
use super::prepare::Prepared;
use crate::config::Place;
use crate::config::apply_error::{ApplyError, ApplyFailure};
use crate::config::diff::{Diff, LinkChange};
use crate::config::effect::Effect;
use crate::config::link::{Forward, Link, Service};
use crate::config::maker::MadeLink;
use crate::config::on_loop::{free_forward_name, on_loop, refused};
use crate::engine::control::Loop;
use crate::engine::discovery::Candidates;
use crate::node::{ForwardConfig, GroupConfig, LinkServer, Path};
use crate::types::descriptor_error::DescriptorError;
use crate::types::id::Id;
use crate::types::verb_error::VerbError;

impl Running {
    /// Dials new links, and those that must be dialed again, and changes the others in place. Links that are gone are left
    /// open until no listener sends clients over them ([`Running::close_links`]).
    pub(super) fn change_links(&mut self, diff: &Diff, prepared: &mut Prepared, effect: &mut Effect<'_>) {
        self.leave(diff);
        for (link, made) in std::mem::take(&mut prepared.links) {
            match diff.links.changed.iter().find(|change| change.link.name == link.name) {
                Some(change) if change.is_renewed => self.renew(&link, made, effect),
                Some(_) => self.dial_again(&link, made, effect),
                None => self.dial(&link, made, effect),
            }
        }
        for change in diff.links.changed.iter().filter(|change| !change.is_redialed) {
            self.change_link(change, effect);
            self.change_servers(change, effect);
            self.change_forwards(change, effect);
        }
    }

    /// Makes room for what takes the places of others: a peer may be dialed again, and the forwards at peers that are gone,
    /// or that have moved to another link, are closed.
    fn leave(&mut self, diff: &Diff) {
        let redialed = diff.links.changed.iter().filter(|change| change.is_redialed).map(|change| &change.link);
        let leaving = diff.links.removed.iter().chain(redialed).filter_map(|link| self.links.get(&link.name)).copied();
        let leaving: Vec<Id> = leaving.collect();
        let of_links = diff.links.removed.iter().flat_map(|link| &link.forwards);
        let others = diff.links.changed.iter().flat_map(|change| &change.forwards.removed);
        let forwards = of_links.chain(others).filter_map(|forward| self.remote_forwards.remove(&forward.name));
        let forwards: Vec<Id> = forwards.collect();
        let others = diff.links.changed.iter().filter(|change| change.has_other_servers && !change.is_redialed);
        let others = others.filter(|change| change.link.has_fixed_servers());
        let others = others.filter_map(|it| Some((*self.links.get(&it.link.name)?, it.link.fixed_servers())));
        let others: Vec<_> = others.collect();
        self.first_loop(move |core| {
            for (id, servers) in others {
                // A group that is closed has no servers.
                let _ = core.group(id).map(|mut group| group.set_leaving_except(&servers));
            }
            // A link or a forward that is over takes no place.
            leaving.into_iter().for_each(|id| _ = core.group(id).map(|mut group| group.set_leaving(true)));
            forwards.into_iter().for_each(|id| _ = core.forward(id).and_then(|mut forward| forward.close()));
        });
    }

    /// Closes the links that are gone.
    pub(super) fn close_links(&mut self, diff: &Diff) {
        for link in &diff.links.removed {
            if let Some(id) = self.links.remove(&link.name) {
                // A link that has ended need not be closed.
                self.first_loop(move |core| _ = core.group(id).and_then(|mut group| group.close()));
            }
        }
    }

    /// Dials a link, and opens its remote forwards.
    fn dial(&mut self, link: &Link, made: MadeLink, effect: &mut Effect<'_>) {
        let forwards: Vec<Forward> = link.forwards.clone();
        let record = link.clone();
        let dialed = on_loop(&self.remotes[0], move |core| {
            let id = connect(core, &record, made)?;
            Ok((id, open_remote_forwards(core, id, &forwards)))
        });
        match effect.note(of_link(link, dialed)) {
            Some((id, opened)) => {
                self.links.insert(link.name.clone(), id);
                self.note_forwards(link, opened, effect);
            }
            None => effect.lacks_link(&link.name),
        }
    }

    /// Dials a link in the place of the one that has its name. Local forwards and listeners go over the new one from now on,
    /// and no client comes in between. Remote forwards are opened again. The old link stays if the new one cannot be dialed.
    fn dial_again(&mut self, link: &Link, made: MadeLink, effect: &mut Effect<'_>) {
        let Some(old) = self.links.get(&link.name).copied() else { return self.dial(link, made, effect) };
        let forwards: Vec<Forward> = link.forwards.clone();
        let record = link.clone();
        let dialed = on_loop(&self.remotes[0], move |core| {
            let result = connect(core, &record, made);
            if let (Ok(mut before), Err(_)) = (core.group(old), &result) {
                before.set_leaving(false);
            }
            let id = result?;
            if let Ok(mut before) = core.group(old) {
                before.hand_over(id)?;
                // A link that is being closed already need not be closed.
                let _ = before.close();
            }
            Ok((id, open_remote_forwards(core, id, &forwards)))
        });
        let Some((id, opened)) = effect.note(of_link(link, dialed)) else { return effect.keeps_link(&link.name) };
        self.links.insert(link.name.clone(), id);
        self.note_forwards(link, opened, effect);
    }

    /// Gives a link that lives on its new policy. A peer that the policy does not admit loses its session.
    fn renew(&mut self, link: &Link, made: MadeLink, effect: &mut Effect<'_>) {
        let Some(id) = self.links.get(&link.name).copied() else { return };
        let renewed = on_loop(&self.remotes[0], move |core| {
            core.group(id)?.renew(made)?;
            core.recheck_links();
            Ok(())
        });
        if effect.note(of_link(link, renewed)).is_none() {
            effect.keeps_link(&link.name);
        }
    }

    /// Closes and opens the remote forwards of a link that lives on.
    fn change_forwards(&mut self, change: &LinkChange, effect: &mut Effect<'_>) {
        // Forwards that are gone were closed before, and another link may have a forward of the same name by now.
        let changed = change.forwards.changed.iter().map(|(old, _)| old);
        let gone = changed.filter_map(|forward| self.remote_forwards.remove(&forward.name));
        let gone: Vec<Id> = gone.collect();
        let new: Vec<Forward> = change.opened().cloned().collect();
        let names: Vec<String> = new.iter().map(|forward| forward.name.clone()).collect();
        let Some(id) = self.links.get(&change.link.name).copied() else { return };
        let opened = on_loop(&self.remotes[0], move |core| {
            // A forward that is over need not be closed.
            gone.into_iter().for_each(|id| _ = core.forward(id).and_then(|mut forward| forward.close()));
            open_remote_forwards(core, id, &new)
        });
        let failed = |failure| ApplyError::new(Place::record("link", &change.link.name), failure);
        match effect.note(opened.map_err(failed)) {
            Some(opened) => self.note_forwards(&change.link, opened, effect),
            None => names.iter().for_each(|name| effect.lacks_remote_forward(&change.link.name, name)),
        }
    }

    /// Notes the remote forwards that were opened.
    fn note_forwards(
        &mut self,
        link: &Link,
        opened: Vec<(String, Result<Id, DescriptorError>)>,
        effect: &mut Effect<'_>,
    ) {
        for (name, id) in opened {
            let place = Place::record("link", &link.name).within("forward", &name);
            match effect.note(id.map_err(|error| ApplyError::new(place, refused(error)))) {
                Some(id) => drop(self.remote_forwards.insert(name, id)),
                None => effect.lacks_remote_forward(&link.name, &name),
            }
        }
    }

    /// Changes the servers of a link that lives on.
    fn change_servers(&self, change: &LinkChange, effect: &mut Effect<'_>) {
        let link = &change.link;
        let Some(id) = self.group(&link.name).filter(|_| change.has_other_servers) else { return };
        let record = link.clone();
        let set = on_loop(&self.remotes[0], move |core| set_servers(core, id, &record));
        if effect.note(of_link(link, set)).is_none() {
            effect.has_servers_as_before(&link.name);
        }
    }

    /// Changes the paths of a link that lives on. The new paths come first if there is room for them, so that the link is
    /// never without one.
    fn change_link(&self, change: &LinkChange, effect: &mut Effect<'_>) {
        let LinkChange { link, added_paths, removed_paths, .. } = change;
        let failed = |failure| ApplyError::new(Place::record("link", &link.name), failure);
        let Some(id) = self.group(&link.name) else { return };
        let (added, removed) = (added_paths.clone(), removed_paths.clone());
        let is_tight = change.is_tight();
        let changed = on_loop(&self.remotes[0], move |core| {
            let links = core.group(id).map(|group| group.links()).unwrap_or_default();
            let changed = links.into_iter().map(|link| change_paths(core, link, (&added, &removed), is_tight));
            // The links have the same paths. The first one that could not be changed decides about all.
            changed.reduce(|first, next| if first.1.is_err() { first } else { next }).unwrap_or(([0, 0], Ok(())))
        });
        let Some((done, result)) = effect.note(changed.map_err(failed)) else {
            return effect.has_paths(change, &[], &[]);
        };
        if effect.note(result.map_err(|error| failed(ApplyFailure::Verb(error)))).is_none() {
            effect.has_paths(change, &added_paths[..done[0]], &removed_paths[..done[1]]);
        }
    }
}

/// Opens the group of a link, and dials its servers.
fn connect(core: &mut Loop<'_>, link: &Link, made: MadeLink) -> Result<Id, VerbError> {
    let id = core.open_group(GroupConfig { name: link.name.clone(), make: made })?;
    let dialed = set_servers(core, id, link);
    if dialed.is_err() {
        // The group was opened just now.
        let _ = core.group(id).and_then(|mut group| group.close());
    }
    dialed.map(|()| id)
}

/// Dials the servers of a group that are known, and the others as soon as they are, and each time they change. Until all of
/// them were looked up, the servers that the group has stay in its list.
fn set_servers(core: &mut Loop<'_>, id: Id, link: &Link) -> Result<(), VerbError> {
    let most = link.most_links();
    if link.has_fixed_servers() {
        let mut group = core.group(id)?;
        group.follow(None);
        group.expect_more(false);
        return group.set_servers(&link.fixed_servers(), most);
    }
    let known = core.group(id)?.servers();
    let candidates = Candidates::of(&link.peers);
    let is_whole = candidates.is_complete;
    let first = if is_whole { link.servers(&candidates) } else { with_known(link.servers(&candidates), known) };
    core.group(id)?.set_servers(&first, most)?;
    let (record, family) = (link.clone(), core.config().family);
    let discovery = core.discover(link.peers.clone(), family, move |core, candidates| {
        let Ok(mut group) = core.group(id) else { return };
        let mut servers = record.servers(candidates);
        if !candidates.is_complete {
            servers = with_known(servers, group.servers());
        }
        group.expect_more(!candidates.is_complete);
        // A server that cannot be dialed is tried again later.
        if let Err(error) = group.set_servers(&servers, most) {
            log::warn!(target: "seaprox::link", link = record.name, error = error.as_str(); "a server cannot be dialed");
        }
    });
    let mut group = core.group(id)?;
    group.follow(Some(discovery));
    group.expect_more(!is_whole);
    Ok(())
}

/// Returns the servers, and behind them those of `known` that are not among them.
fn with_known(mut servers: Vec<LinkServer>, known: Vec<LinkServer>) -> Vec<LinkServer> {
    for server in known {
        if servers.iter().all(|it| it.addr != server.addr) {
            servers.push(server);
        }
    }
    servers
}

/// Adds and removes paths of a link. Returns the numbers of those that were added and removed before the first error.
fn change_paths(
    core: &mut Loop<'_>,
    link: Id,
    (added, removed): (&[Path], &[Path]),
    is_tight: bool,
) -> ([usize; 2], Result<(), VerbError>) {
    let mut done = [0, 0];
    let result = core.link(link).and_then(|mut link| {
        for removes in [is_tight, !is_tight] {
            let paths = if removes { removed } else { added };
            for path in paths {
                if removes { link.remove_path(path) } else { link.add_path(path) }?;
                done[usize::from(removes)] += 1;
            }
        }
        Ok(())
    });
    (done, result)
}

/// Returns the result of a call about a link, with the place of the link in the error.
fn of_link<T>(link: &Link, result: Result<Result<T, VerbError>, ApplyFailure>) -> Result<T, ApplyError> {
    let result = result.and_then(|result| result.map_err(ApplyFailure::Verb));
    result.map_err(|failure| ApplyError::new(Place::record("link", &link.name), failure))
}

/// Opens the remote forwards among `forwards` over a link.
fn open_remote_forwards(
    core: &mut Loop<'_>,
    link: Id,
    forwards: &[Forward],
) -> Vec<(String, Result<Id, DescriptorError>)> {
    let open = |forward: &Forward| match &forward.service {
        Service::Remote(to) => {
            let name = Some(forward.name.clone());
            let config = ForwardConfig { name, ..ForwardConfig::remote(link, forward.listen.clone(), to.clone()) };
            let freed = free_forward_name(core, &forward.name, None);
            Some((forward.name.clone(), freed.map_err(Into::into).and_then(|()| core.open_forward(config))))
        }
        Service::Local(_) => None,
    };
    forwards.iter().filter_map(open).collect()
}
