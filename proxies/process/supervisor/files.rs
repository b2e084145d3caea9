//! The files of users, keys and paths: read again on request, and looked at once a second.

use std::sync::Arc;
use std::time::Instant;

use seaprox::auth::KeysError;
use seaprox::node::LinkMut;
use seaprox::{Id, Loop};

use super::{Supervisor, call_all};
use crate::cli::modes_hint;
use crate::links::FileChange;
use crate::shared_file::Refresh;
use crate::{DialedGroup, Parts};

/// The change of a file of paths, if there is any.
type PathsRead = Result<Option<FileChange>, KeysError>;

/// The files of users, keys and paths, after a reading.
pub struct FilesRead {
    is_forced: bool,
    users: Result<(), KeysError>,
    /// True if running links must be checked again.
    are_keys_new: bool,
    keys: Result<(), KeysError>,
    paths: Vec<(Arc<DialedGroup>, PathsRead)>,
}

impl FilesRead {
    /// Reads the files of users, keys and paths again. New users and keys are in use then.
    pub fn read(parts: &Parts, refresh: Refresh) -> FilesRead {
        let of_group = |group: Arc<DialedGroup>| {
            let change = group.refresh_paths(refresh);
            (group, change)
        };
        let users = parts.refresh_users(refresh);
        let (are_keys_new, keys) = parts.refresh_keys(refresh);
        FilesRead {
            is_forced: matches!(refresh, Refresh::Forced),
            users,
            are_keys_new,
            keys,
            paths: parts.groups().into_iter().map(of_group).collect(),
        }
    }
}

impl Supervisor {
    /// Reads the files of users, keys and paths again, if they have changed.
    pub(super) fn refresh_files(&self, now: Instant) {
        self.follow_files(FilesRead::read(&self.parts, Refresh::Periodic(now)));
    }

    /// Makes running links those of the files that were read, and logs what came of the reading.
    pub(super) fn follow_files(&self, read: FilesRead) {
        match read.users {
            Ok(()) if read.is_forced => log::info!(target: "seaprox::process", "files reloaded"),
            Ok(()) => {}
            Err(error) => {
                log::error!(target: "seaprox::process", error = logged(&error); "the users file cannot be read again; the previous users stay in use")
            }
        }
        if read.are_keys_new {
            log::info!(target: "seaprox::process", "keys read again");
            call_all(self.running.remotes(), |core| core.recheck_links());
        }
        if let Err(error) = read.keys {
            log::error!(target: "seaprox::process", error = logged(&error); "a file of keys cannot be read again; the previous keys stay in use");
        }
        read.paths.into_iter().for_each(|(group, result)| self.follow_paths(&group, result));
    }

    fn follow_paths(&self, group: &Arc<DialedGroup>, result: PathsRead) {
        match result {
            // A reload may have replaced the group, with the paths that the file has now.
            Ok(Some(_)) if !self.parts.groups().iter().any(|it| Arc::ptr_eq(it, group)) => {}
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
fn change_paths(core: &mut Loop<'_>, link: Id, change: &FileChange) {
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
