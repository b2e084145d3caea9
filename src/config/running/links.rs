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
use crate::node::ForwardConfig;
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
        self.first_loop(move |core| {
            // A link or a forward that is over takes no place.
            leaving.into_iter().for_each(|id| _ = core.link(id).map(|mut link| link.set_leaving(true)));
            forwards.into_iter().for_each(|id| _ = core.forward(id).and_then(|mut forward| forward.close()));
        });
    }

    /// Closes the links that are gone.
    pub(super) fn close_links(&mut self, diff: &Diff) {
        for link in &diff.links.removed {
            if let Some(id) = self.links.remove(&link.name) {
                // A link that has ended need not be closed.
                self.first_loop(move |core| _ = core.link(id).and_then(|mut link| link.close()));
            }
        }
    }

    /// Dials a link, and opens its remote forwards.
    fn dial(&mut self, link: &Link, made: MadeLink, effect: &mut Effect<'_>) {
        let forwards: Vec<Forward> = link.forwards.clone();
        let dialed = on_loop(&self.remotes[0], move |core| {
            let id = connect(core, made)?;
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
        let dialed = on_loop(&self.remotes[0], move |core| {
            let result = connect(core, made);
            if let (Ok(mut before), Err(_)) = (core.link(old), &result) {
                before.set_leaving(false);
            }
            let id = result?;
            if let Ok(mut before) = core.link(old) {
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
            core.link(id)?.renew(made())?;
            core.recheck_links();
            Ok(())
        });
        if effect.note(of_link(link, renewed)).is_none() {
            effect.keeps_link(&link.name);
        }
    }

    /// Closes and opens the remote forwards of a link that lives on.
    fn change_forwards(&mut self, change: &LinkChange, effect: &mut Effect<'_>) {
        // Those that are gone were closed before, and another link may have a forward of the same name by now.
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

    /// Changes the paths of a link that lives on. The new paths come first if there is room for them, so that the link is
    /// never without one.
    fn change_link(&self, change: &LinkChange, effect: &mut Effect<'_>) {
        let LinkChange { link, added_paths, removed_paths, .. } = change;
        let failed = |failure| ApplyError::new(Place::record("link", &link.name), failure);
        let Some(id) = self.links.get(&link.name).copied() else { return };
        let (added, removed) = (added_paths.clone(), removed_paths.clone());
        let is_tight = change.is_tight();
        let changed = on_loop(&self.remotes[0], move |core| {
            // The numbers of paths that were added and removed before the first error.
            let mut done = [0, 0];
            let result = core.link(id).and_then(|mut link| {
                for removes in [is_tight, !is_tight] {
                    let paths = if removes { &removed } else { &added };
                    for path in paths {
                        if removes { link.remove_path(path) } else { link.add_path(path) }?;
                        done[usize::from(removes)] += 1;
                    }
                }
                Ok(())
            });
            (done, result)
        });
        let Some((done, result)) = effect.note(changed.map_err(failed)) else {
            return effect.has_paths(change, &[], &[]);
        };
        if effect.note(result.map_err(|error| failed(ApplyFailure::Verb(error)))).is_none() {
            effect.has_paths(change, &added_paths[..done[0]], &removed_paths[..done[1]]);
        }
    }
}

fn connect(core: &mut Loop<'_>, made: MadeLink) -> Result<Id, VerbError> {
    let dialed = core.connect_link(made())?;
    // Two owners would close it for each other.
    if dialed.is_new { Ok(dialed.id) } else { Err(VerbError::Already) }
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
