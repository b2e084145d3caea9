//! The paths of connections: a script adds and removes them while the link is up.
//!
//! The list in the configuration in effect is the one place of the paths, so that each link of the connection has the same ones, and
//! one that is dialed later has them, too. The paths of a file are the file's: nothing here changes them.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use mlua::{Error, UserDataMethods, Value};
use seaprox::config::LinkPaths;
use seaprox::node::Path;

use super::board::{Entry, Kind, Record, State};
use super::node::{Change, Keeper};
use super::objects::Handle;
use crate::links::addresses;

/// A question about the paths of a connection. The answer is the list of its paths afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathChange {
    /// Only list the paths.
    List,
    /// Add a path.
    Add(Path),
    /// Remove a path.
    Remove(Path),
}

/// Adds the methods.
pub fn add_methods<M: UserDataMethods<Handle>>(methods: &mut M) {
    methods.add_method("add_path", |_, handle, path: Value| {
        let path = path_of(handle, &path)?;
        handle.change_paths("add_path", PathChange::Add(path)).map(|_| ())
    });
    methods.add_method("remove_path", |_, handle, path: Value| {
        let path = path_of(handle, &path)?;
        handle.change_paths("remove_path", PathChange::Remove(path)).map(|_| ())
    });
    methods.add_method("list_paths", |_, handle, ()| handle.change_paths("list_paths", PathChange::List));
}

/// Returns the path that an argument names. None, and an empty text, name the path on which the system chooses everything.
fn path_of(handle: &Handle, value: &Value) -> mlua::Result<Path> {
    let text = match value {
        Value::Nil => return Ok(Path::default()),
        Value::String(text) => text.to_string_lossy(),
        other => return Err(Error::runtime(format!("path: expected a string, not {}", other.type_name()))),
    };
    if text.is_empty() {
        return Ok(Path::default());
    }
    addresses::path(&text, handle.entry.record().remote.port)
        .map_err(|error| Error::runtime(format!("path {text:?}: {error}")))
}

impl Handle {
    /// Has the paths of this connection changed, and waits until they are.
    fn change_paths(&self, verb: &str, change: PathChange) -> mlua::Result<Vec<String>> {
        let Handle { entry, shared } = self;
        let refused = |error: String| Error::runtime(format!("{verb}: {error}"));
        if entry.kind != Kind::Connection {
            return Err(Error::runtime("tc: expected a connection"));
        }
        let Record { state, is_closing, name, .. } = entry.record();
        if state == State::Closed || is_closing {
            return Err(Error::runtime("tc: the connection is closed"));
        }
        if name.is_none() {
            return Err(refused("the peer has dialed this connection, and has its paths".to_owned()));
        }
        let (sender, answer) = mpsc::sync_channel(1);
        shared.changes.post(Change::Paths(Arc::clone(entry), change, sender)).map_err(refused)?;
        let since = Instant::now();
        loop {
            match answer.recv_timeout(ANSWER_INTERVAL) {
                Ok(result) => return result.map_err(refused),
                Err(RecvTimeoutError::Timeout) if since.elapsed() < ANSWER_TIME => shared.check_flags()?,
                Err(_) => return Err(refused("the node does not answer".to_owned())),
            }
        }
    }
}

impl Keeper {
    /// Changes the paths of a connection. Returns its paths afterwards.
    pub(super) fn change_paths(&mut self, entry: &Entry, change: PathChange) -> Result<Vec<String>, String> {
        let Some(name) = entry.record().name else { return Err("the connection is closed".to_owned()) };
        let mut config = self.running.config().clone();
        let Some(link) = config.links.iter_mut().find(|link| link.name == name) else {
            return Err("the connection is closed".to_owned());
        };
        let paths = changed(&link.paths, change)?;
        let texts = paths.iter().map(Path::to_string).collect();
        let paths = LinkPaths::List(paths);
        if link.paths != paths {
            link.paths = paths;
            self.running.apply(config).map_err(|errors| errors.to_string())?;
        }
        Ok(texts)
    }
}

/// Returns the paths of a link after a change.
///
/// # Errors
/// The link has the path already, or does not have it, or has no other one, or its paths stand in a file.
fn changed(paths: &LinkPaths, change: PathChange) -> Result<Vec<Path>, String> {
    let mut paths = match paths {
        LinkPaths::List(paths) => paths.clone(),
        LinkPaths::File(file) => return Err(format!("the paths stand in {}, which is to be changed", file.display())),
    };
    match change {
        PathChange::List => {}
        PathChange::Add(path) if paths.contains(&path) => {
            return Err(format!("the connection has the path {}", named(&path)));
        }
        PathChange::Add(path) => paths.push(path),
        PathChange::Remove(path) if !paths.contains(&path) => {
            let all: Vec<String> = paths.iter().map(named).collect();
            return Err(format!("no path {}: expected one of {}", named(&path), all.join(", ")));
        }
        PathChange::Remove(path) if paths.len() == 1 => {
            return Err(format!("{} is the last path: add another one first, or close the connection", named(&path)));
        }
        PathChange::Remove(path) => paths.retain(|it| *it != path),
    }
    Ok(paths)
}

/// Returns a path in quotes, as the argument that names it.
fn named(path: &Path) -> String {
    format!("{:?}", path.to_string())
}

/// The methods that are functions, too.
pub const METHODS: [&str; 3] = ["add_path", "remove_path", "list_paths"];
/// Interval at which a waiting function looks for an interrupt.
const ANSWER_INTERVAL: Duration = Duration::from_millis(50);
/// Longest wait for an answer. The thread that answers may wait for the loop.
const ANSWER_TIME: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_paths_keeps_one_and_has_each_once() {
        let path = |text: &str| addresses::path(text, 23232).unwrap();
        let list = |texts: &[&str]| LinkPaths::List(texts.iter().map(|text| path(text)).collect());
        let after = |paths: &LinkPaths, change| {
            changed(paths, change).map(|paths| paths.iter().map(Path::to_string).collect::<Vec<_>>())
        };
        let one = list(&["%wlan0"]);
        assert_eq!(after(&one, PathChange::List).unwrap(), ["%wlan0"]);
        assert_eq!(after(&one, PathChange::Add(path("quic:%eth0"))).unwrap(), ["%wlan0", "quic:%eth0"]);
        assert_eq!(after(&one, PathChange::Add(Path::default())).unwrap(), ["%wlan0", ""]);
        assert_eq!(after(&list(&["%wlan0", "tcp:%eth0"]), PathChange::Remove(path("%wlan0"))).unwrap(), ["tcp:%eth0"]);
        for (paths, change, text) in [
            (&one, PathChange::Add(path("%wlan0")), "the connection has the path \"%wlan0\""),
            (&one, PathChange::Remove(path("%eth0")), "no path \"%eth0\": expected one of \"%wlan0\""),
            (&one, PathChange::Remove(path("%wlan0")), "\"%wlan0\" is the last path: "),
            (&LinkPaths::File("/run/uplinks".into()), PathChange::List, "the paths stand in /run/uplinks, "),
        ] {
            let error = after(paths, change).unwrap_err();
            assert!(error.starts_with(text), "{error}");
        }
    }
}
