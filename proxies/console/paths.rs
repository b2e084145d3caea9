//! The paths of connections: a script adds and removes them while the link is up.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use mlua::{Error, UserDataMethods, Value};
use seaprox::config::LinkPaths;
use seaprox::node::Path;

use super::board::{Entry, Kind, Record, State};
use super::node::{Change, Keeper};
use super::objects::Handle;
use crate::admin::PathChange;
use crate::links::addresses::path_or_any;

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
    match value {
        Value::Nil => Ok(Path::default()),
        Value::String(text) => {
            path_or_any(&text.to_string_lossy(), handle.entry.record().remote.port).map_err(Error::runtime)
        }
        other => Err(Error::runtime(format!("path: expected a string, not {}", other.type_name()))),
    }
}

impl Handle {
    /// Has the paths of this connection changed, and waits until they are.
    fn change_paths(&self, verb: &str, change: PathChange<Path>) -> mlua::Result<Vec<String>> {
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
    pub(super) fn change_paths(&mut self, entry: &Entry, change: PathChange<Path>) -> Result<Vec<String>, String> {
        let Some(name) = entry.record().name else { return Err("the connection is closed".to_owned()) };
        let mut config = self.running.config().clone();
        let Some(link) = config.links.iter_mut().find(|link| link.name == name) else {
            return Err("the connection is closed".to_owned());
        };
        let paths = change.of(&link.paths)?;
        let texts = paths.iter().map(Path::to_string).collect();
        let paths = LinkPaths::List(paths);
        if link.paths != paths {
            link.paths = paths;
            self.running.apply(config).map_err(|errors| errors.to_string())?;
        }
        Ok(texts)
    }
}

/// The methods that are functions, too.
pub const METHODS: [&str; 3] = ["add_path", "remove_path", "list_paths"];
/// Interval at which a waiting function looks for an interrupt.
const ANSWER_INTERVAL: Duration = Duration::from_millis(50);
/// Longest wait for an answer. The thread that answers may wait for the loop.
const ANSWER_TIME: Duration = Duration::from_secs(60);
