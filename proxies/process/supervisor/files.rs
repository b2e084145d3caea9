//! The files of users, keys and paths: read again on request, and looked at once a second.

use seaprox::auth::KeysError;
use seaprox::node::LinkMut;
use seaprox::{Id, Loop};

use super::{Supervisor, call_all};
use crate::DialedGroup;
use crate::cli::modes_hint;
use crate::links::PathChange;
use crate::shared_file::Refresh;

impl Supervisor {
    /// Reads the files of users, keys and paths again.
    pub(super) fn refresh_files(&self, refresh: Refresh) {
        match self.parts.refresh_users(refresh) {
            Ok(()) if matches!(refresh, Refresh::Forced) => log::info!(target: "seaprox::process", "files reloaded"),
            Ok(()) => {}
            Err(error) => {
                log::error!(target: "seaprox::process", error = logged(&error); "the users file cannot be read again; the previous users stay in use")
            }
        }
        match self.parts.refresh_keys(refresh) {
            Ok(true) => {
                log::info!(target: "seaprox::process", "keys read again");
                call_all(self.running.remotes(), |core| core.recheck_links());
            }
            Ok(false) => {}
            Err(error) => {
                log::error!(target: "seaprox::process", error = logged(&error); "a file of keys cannot be read again; the previous keys stay in use")
            }
        }
        self.parts.groups().iter().for_each(|group| self.refresh_paths(group, refresh));
    }

    fn refresh_paths(&self, group: &DialedGroup, refresh: Refresh) {
        match group.refresh_paths(refresh) {
            Ok(Some(change)) => {
                log::info!(target: "seaprox::process", added = change.added.len(), removed = change.removed.len(); "paths read again");
                let links = self.running.links_of(&group.name);
                call_all(&self.running.remotes()[..1], move |core| {
                    links.iter().for_each(|link| change_paths(core, *link, &change));
                });
            }
            Ok(None) => {}
            Err(error) => {
                log::error!(target: "seaprox::process", error = logged(&error); "the paths file cannot be read again; the previous paths stay in use")
            }
        }
    }
}

/// Returns the error about a file as the log shows it.
fn logged(error: &KeysError) -> String {
    format!("{error}{}", modes_hint(error))
}

/// Adds the new paths of a link before it removes the old ones, so that the link is never without a path. If the limit of
/// paths does not allow this, removes the old ones first.
fn change_paths(core: &mut Loop<'_>, link: Id, change: &PathChange) {
    let Ok(mut link) = core.link(link) else { return };
    // A path that cannot be added, or is not there, changes nothing.
    let remove = |link: &mut LinkMut<'_>| change.removed.iter().for_each(|path| _ = link.remove_path(path));
    if change.is_tight {
        remove(&mut link);
    }
    change.added.iter().for_each(|path| _ = link.add_path(path));
    if !change.is_tight {
        remove(&mut link);
    }
}
