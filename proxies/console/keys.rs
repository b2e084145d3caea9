//! The keys of peers: their files, which are read again when they change, the refusals of keys, and the functions that admit one:
//! `trust` for the key of a dialed peer, and `allow` for the key of a peer that dials this node.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mlua::{Error, Lua, UserDataMethods, Value};
use seaprox::auth::{AuthorizedKey, AuthorizedKeys, PublicKey};
use seaprox::node::LinkEvent;

use super::board::{Entry, Record};
use super::mailbox::Event;
use super::node::{Change, Keeper};
use super::objects::{Handle, Shared};
use crate::links::KeyCheck;
use crate::shared_file::Refresh;
use crate::text::escape;

/// The last refusal of each link that this node dials, by the name of the link: events tell it, and a status does not.
#[derive(Clone, Default)]
pub struct Refusals(Arc<Mutex<HashMap<String, Refusal>>>);

/// A refusal.
#[derive(Clone)]
enum Refusal {
    /// The policy of this node does not admit the key of the peer.
    Key(PublicKey),
    /// The peer refuses the key of this node, for this reason.
    Peer(&'static str),
}

impl Refusals {
    /// Records an event of a link.
    pub fn record(&self, link: &str, event: &LinkEvent) {
        let refusal = match event {
            LinkEvent::WrongKey { key } => PublicKey::from_bytes(*key).ok().map(Refusal::Key),
            LinkEvent::Rejected => Some(Refusal::Peer("the peer does not admit the key of this node")),
            LinkEvent::Expired => Some(Refusal::Peer("the time of the key of this node is over")),
            LinkEvent::Up { .. } => None,
            _ => return,
        };
        match refusal {
            Some(refusal) => self.lock().insert(link.to_owned(), refusal),
            None => self.lock().remove(link),
        };
    }

    /// Forgets the refusal of a link.
    pub fn remove(&self, link: &str) {
        self.lock().remove(link);
    }

    /// Gives the refusal of a link to its new name.
    pub fn rename(&self, link: &str, new: &str) {
        let mut all = self.lock();
        if let Some(refusal) = all.remove(link) {
            all.insert(new.to_owned(), refusal);
        }
    }

    fn get(&self, link: &str) -> Option<Refusal> {
        self.lock().get(link).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Refusal>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keeper {
    /// Returns the refusal of a link for its user, or an empty text, and the key that `trust` would accept.
    pub(super) fn refusal(&self, record: &Record) -> (String, Option<PublicKey>) {
        let none = (String::new(), None);
        let Some(name) = &record.name else { return none };
        match self.refusals.get(name) {
            None => none,
            Some(Refusal::Peer(text)) => (format!("auth_failed: {text}"), None),
            Some(Refusal::Key(key)) => {
                let Some(link) = self.parts.link(name) else { return none };
                let shown = key.fingerprint();
                match link.peer.check(&key) {
                    // The user has accepted the key since.
                    KeyCheck::Matches => none,
                    KeyCheck::Unknown { .. } => (
                        format!("auth_failed: the key of the peer is not known: {shown}; trust(tc) accepts it"),
                        Some(key),
                    ),
                    KeyCheck::Changed { known, file, line } => {
                        let text = format!(
                            "auth_failed: THE KEY OF THE PEER HAS CHANGED: {shown} instead of {}, which is in {}:{line}. Another \
                             node may answer in its place; if the new key is right, remove that line",
                            known.fingerprint(),
                            file.display(),
                        );
                        (text, None)
                    }
                    KeyCheck::Mismatch(expected) => {
                        (format!("auth_failed: the key of the peer is {shown}, expected {expected}"), None)
                    }
                }
            }
        }
    }

    /// Reads the files of keys again, once a second if they have changed. Links whose keys are not admitted any more end.
    pub(super) fn refresh_keys(&self, refresh: Refresh) {
        let (are_new, result) = self.parts.refresh_keys(refresh);
        if are_new {
            log::info!(target: "seaprox::console", "keys read again");
        }
        if let Err(error) = result {
            log::error!(target: "seaprox::console", error = error.to_string(); "a file of keys cannot be read again; the previous keys stay in use");
        }
        if are_new | self.parts.has_expired_keys() {
            // A loop that has ended has no links.
            let _ = self.ask(|core| core.recheck_links());
        }
    }

    /// Adds the key of a dialed peer to the known ones, and dials the peer again.
    pub(super) fn trust(&self, entry: &Entry, key: &PublicKey) {
        let Record { id, name, .. } = entry.record();
        let Some(link) = name.and_then(|name| self.parts.link(&name)) else { return };
        let checked = link.peer.check(key);
        let accepted = match checked {
            KeyCheck::Matches | KeyCheck::Unknown { .. } => link.peer.accept(key).map_err(|error| error.to_string()),
            // Another line was written meanwhile.
            KeyCheck::Changed { .. } | KeyCheck::Mismatch(_) => Err("another key of the peer is known".to_owned()),
        };
        match accepted {
            Ok(()) => {
                log::info!(target: "seaprox::console", node = link.peer.target().to_string(), key = key.fingerprint(); "key added to known_nodes");
                // A link that is up or gone needs no redial, and a loop that has ended none.
                let _ = self.ask(move |core| id.map(|id| core.link(id).and_then(|mut link| link.redial())));
            }
            Err(error) => self.note(format!("trust: {}: {error}", entry.label())),
        }
    }

    /// Adds a line to the file of authorized keys, and has the listeners read it.
    pub(super) fn allow(&self, new: &AuthorizedKey) {
        let default = || self.running.config().config_directory().authorized_keys();
        let file = self.server.authorized_keys.clone().unwrap_or_else(default);
        let (key, file_text) = (new.key.fingerprint(), file.display().to_string());
        match AuthorizedKeys::append(&file, self.running.config().modes, new) {
            Ok(true) => {
                self.refresh_keys(Refresh::Forced);
                self.note(format!("allow: {key} may link from now on, by its line in {file_text}"));
            }
            Ok(false) => {
                self.note(format!("allow: {key} stands in {file_text} already; its permissions are unchanged"))
            }
            Err(error) => self.note(format!("allow: {error}")),
        }
    }

    fn note(&self, text: String) {
        self.board.mailbox().post(Event::Note(escape(&text).into_owned()));
    }
}

/// Adds the methods.
pub fn add_methods<M: UserDataMethods<Handle>>(methods: &mut M) {
    methods.add_method("trust", |_, handle, ()| {
        let Handle { entry, shared } = handle;
        let Some(key) = entry.record().shown_key else {
            return Err(Error::runtime(format!("tc: no unknown key is refused: {}", entry.text())));
        };
        shared.changes.post(Change::Trust(Arc::clone(entry), key)).map_err(Error::runtime)
    });
}

/// Adds the functions that have no object as their first argument.
///
/// # Errors
/// There is not enough memory.
pub fn add_functions(lua: &Lua, shared: &Shared) -> mlua::Result<()> {
    let shared = shared.clone();
    let allow = move |_: &Lua, line: Value| {
        let Value::String(line) = &line else {
            return Err(Error::runtime(format!("line: expected a line of authorized_keys, not {}", line.type_name())));
        };
        let line = line.to_string_lossy();
        let new = line.parse::<AuthorizedKey>().map_err(|wrong| Error::runtime(format!("line: {wrong}")))?;
        shared.changes.post(Change::Allow(Box::new(new))).map_err(Error::runtime)
    };
    lua.globals().set("allow", lua.create_function(allow)?)
}

/// The methods that are functions, too.
pub const METHODS: [&str; 1] = ["trust"];
