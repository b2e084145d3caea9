//! The objects of the console with their states. The thread of the configuration writes them, and the virtual machine reads
//! them without the loop.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use seaprox::auth::PublicKey;
use seaprox::{Id, Proto, Target};

use super::counts::Counts;
use super::names::Names;
use crate::text::escape;

use super::mailbox::{Event, Mailbox};

/// The state of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is being made, or made again.
    Connecting,
    /// It works.
    Connected,
    /// It could not be made. A link and a tunnel are tried again.
    Error,
    /// It was closed, or has ended.
    Closed,
}

/// The kind of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A link, which this node or the peer has dialed.
    Connection,
    /// An address on which peers dial links.
    Listener,
    /// A forward from here to a target behind the peer.
    Tunnel,
    /// A forward from the peer to a target behind this node.
    Reverse,
    /// A SOCKS proxy here, whose targets are reached through the connection.
    Socks,
}

/// A host and a port, as far as they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The host; empty if it is not known.
    pub host: String,
    /// The port; 0 if it is not known.
    pub port: u16,
}

/// The known state of an object.
#[derive(Clone, Debug)]
pub struct Record {
    /// The state.
    pub state: State,
    /// The reason of [`State::Error`] and of an end that this node did not ask for.
    pub reason: String,
    /// The end at this node.
    pub local: Place,
    /// The end at the peer.
    pub remote: Place,
    /// True once the object is to be closed.
    pub is_closing: bool,
    /// True if the object could not be made, and is not tried again.
    pub is_final: bool,
    /// The id in the loop.
    pub id: Option<Id>,
    /// The name in the configuration; none for a link that the peer has dialed, and for a tunnel.
    pub name: Option<String>,
    /// The fingerprint of the key of the peer.
    pub fingerprint: Option<String>,
    /// The key that the peer has shown, while it is refused because no key of the peer is known.
    pub shown_key: Option<PublicKey>,
    /// The cipher.
    pub cipher: Option<String>,
    /// The protocol of a tunnel.
    pub proto: Proto,
    /// The name that the user has given it.
    pub label: Option<String>,
    /// The bytes and datagrams that it has carried.
    pub counts: Counts,
    /// The addresses of this node that the peer sees.
    pub seen_as: Vec<SocketAddr>,
}

/// An object.
pub struct Entry {
    /// The number, unique in the process.
    pub number: u64,
    /// The kind.
    pub kind: Kind,
    /// The connection of a tunnel.
    pub parent: Option<Arc<Entry>>,
    /// The ends as they were asked for, by which its saved name is found; none if it cannot be known again.
    pub key: Option<String>,
    record: Mutex<Record>,
}

/// The objects that are not closed.
#[derive(Default)]
pub struct Board {
    open: Mutex<Vec<Arc<Entry>>>,
    changed: Condvar,
    numbers: AtomicU64,
    totals: Mutex<Counts>,
    names: Mutex<Names>,
    mailbox: Arc<Mailbox>,
}

impl State {
    /// Returns the word that scripts see.
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Connecting => "CONNECTING",
            State::Connected => "CONNECTED",
            State::Error => "ERROR",
            State::Closed => "CLOSED",
        }
    }
}

impl Place {
    /// Creates a place.
    pub fn new(host: impl Into<String>, port: u16) -> Place {
        Place { host: host.into(), port }
    }

    /// Reads an address in text, such as `127.0.0.1:80`.
    pub fn parse(text: &str) -> Place {
        match text.rsplit_once(':').map(|(host, port)| (host, port.parse())) {
            Some((host, Ok(port))) => Place::new(host.trim_start_matches('[').trim_end_matches(']'), port),
            _ => Place::new(text, 0),
        }
    }

    /// Returns the place as people write it.
    pub fn text(&self) -> String {
        if let (Ok(end @ Target::End(_)), 0) = (Target::parse(&self.host), self.port) {
            return end.to_string();
        }
        let host = match &*self.host {
            "" => "*".to_owned(),
            host if host.contains(':') => format!("[{host}]"),
            // A name may come from the peer.
            host => escape(host).into_owned(),
        };
        if self.port == 0 { format!("{host}:?") } else { format!("{host}:{}", self.port) }
    }
}

impl Record {
    /// Creates the record of an object that is being made.
    pub fn new(local: Place, remote: Place) -> Record {
        Record {
            state: State::Connecting,
            reason: String::new(),
            local,
            remote,
            is_closing: false,
            is_final: false,
            id: None,
            name: None,
            fingerprint: None,
            shown_key: None,
            cipher: None,
            proto: Proto::Tcp,
            label: None,
            counts: Counts::default(),
            seen_as: Vec::new(),
        }
    }
}

impl Entry {
    /// Returns a copy of the record.
    pub fn record(&self) -> Record {
        lock(&self.record).clone()
    }

    /// Returns the state.
    pub fn state(&self) -> State {
        lock(&self.record).state
    }

    /// Returns the name for the lines of a chat.
    pub fn label(&self) -> String {
        let Record { label, remote, .. } = self.record();
        label.unwrap_or_else(|| remote.text())
    }

    /// Returns the object with its ends and its state, for `print`.
    pub fn text(&self) -> String {
        let Record { state, reason, local, remote, proto, label, .. } = self.record();
        let (local, remote) = (local.text(), remote.text());
        let (label, udp) = (label.map(|label| format!("{label:?} ")).unwrap_or_default(), udp_word(proto));
        let ends = match self.kind {
            Kind::Connection => format!("tcpconn {label}{local} <-> {remote}"),
            Kind::Listener => format!("listener {label}{local}"),
            Kind::Tunnel => format!("{udp}tunnel {label}{local} -> {remote}"),
            Kind::Reverse => format!("{udp}tunnel {label}{local} <- {remote}"),
            Kind::Socks => format!("socks {label}{local}"),
        };
        match state {
            State::Error => format!("{ends} ERROR: {reason}"),
            state => format!("{ends} {}", state.as_str()),
        }
    }
}

impl Board {
    /// Creates a board on which objects have the names of earlier ones with the same ends.
    pub fn with_names(names: Names) -> Board {
        Board { names: Mutex::new(names), ..Board::default() }
    }

    /// Returns the queue that gets the events of the objects.
    pub const fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// Adds an object.
    pub fn add(&self, kind: Kind, parent: Option<Arc<Entry>>, mut record: Record) -> Arc<Entry> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let key = key_of(kind, parent.as_deref(), &record);
        let mut open = lock(&self.open);
        if record.label.is_none() {
            let saved = key.as_deref().and_then(|key| lock(&self.names).name_of(key));
            record.label = saved.filter(|name| find(&open, name).is_none());
        }
        let entry = Arc::new(Entry { number, kind, parent, key, record: Mutex::new(record) });
        open.push(Arc::clone(&entry));
        drop(open);
        self.changed.notify_all();
        entry
    }

    /// Returns the open object that the user has given this name.
    pub fn named(&self, name: &str) -> Option<Arc<Entry>> {
        find(&lock(&self.open), name)
    }

    /// Gives an object a name, or takes it away. Returns true if there is something to save.
    ///
    /// # Errors
    /// The name is malformed, or that of another object.
    pub fn rename(&self, entry: &Entry, name: Option<&str>) -> Result<bool, String> {
        let open = lock(&self.open);
        if let Some(name) = name {
            super::names::check(name)?;
            if entry.state() == State::Closed {
                return Err(format!("name {name:?}: the object is closed"));
            }
            if let Some(other) = find(&open, name).filter(|other| other.number != entry.number) {
                return Err(format!("the name {name:?} is that of {}", other.text()));
            }
        }
        let is_saved = lock(&self.names).set(entry.key.as_deref(), name)?;
        lock(&entry.record).label = name.map(str::to_owned);
        drop(open);
        self.changed.notify_all();
        Ok(is_saved)
    }

    /// Gives a name up, that of an object that is not open, too. Returns the ends of the object; none if there is no such name.
    pub fn forget(&self, name: &str) -> Option<String> {
        let open = lock(&self.open);
        find(&open, name).into_iter().for_each(|entry| lock(&entry.record).label = None);
        let mut names = lock(&self.names);
        let key = names.key_of(name).map(str::to_owned)?;
        // Taking a name away is never refused.
        let _ = names.set(Some(&key), None);
        Some(key)
    }

    /// Returns the saved names.
    pub fn names(&self) -> MutexGuard<'_, Names> {
        lock(&self.names)
    }

    /// Returns what the whole process has carried.
    pub fn totals(&self) -> Counts {
        lock(&self.totals).clone()
    }

    /// Sets what the whole process has carried.
    pub fn set_totals(&self, totals: Counts) {
        *lock(&self.totals) = totals;
    }

    /// Changes the record of an object. A closed object stays as it is, and leaves the board.
    pub fn change(&self, entry: &Arc<Entry>, change: impl FnOnce(&mut Record)) {
        let mut open = lock(&self.open);
        let mut record = lock(&entry.record);
        if record.state == State::Closed {
            return;
        }
        let (before, was_closing) = (record.state, record.is_closing);
        change(&mut record);
        let after = record.state;
        let is_closing = record.is_closing && !was_closing;
        drop(record);
        if after == State::Closed {
            open.retain(|other| other.number != entry.number);
        }
        let it = Arc::clone(entry);
        match after {
            after if after == before && !is_closing => {}
            State::Connected if after != before => self.mailbox.post(Event::Connected(it)),
            State::Error if after != before => self.mailbox.post(Event::Failed(it)),
            State::Closed => self.mailbox.post(Event::Closed(it)),
            _ => self.mailbox.wake(),
        }
        self.changed.notify_all();
    }

    /// Returns the objects that are not closed, in the order in which they were made.
    pub fn open(&self) -> Vec<Arc<Entry>> {
        lock(&self.open).clone()
    }

    /// Returns true if a connection or a listener is open, or may become so. Tunnels live in connections.
    pub fn has_open(&self) -> bool {
        let is_open = |entry: &Arc<Entry>| !lock(&entry.record).is_final;
        lock(&self.open).iter().any(|entry| matches!(entry.kind, Kind::Connection | Kind::Listener) && is_open(entry))
    }

    /// Returns the first connection or listener that could not be made, and that nothing has closed, in text.
    pub fn failure(&self) -> Option<String> {
        let is_it = |entry: &&Arc<Entry>| {
            let record = lock(&entry.record);
            matches!(entry.kind, Kind::Connection | Kind::Listener) && record.is_final && !record.is_closing
        };
        lock(&self.open).iter().find(is_it).map(|entry| entry.text())
    }

    /// Waits for a change, at most for `time`.
    pub fn wait(&self, time: Duration) {
        let open = lock(&self.open);
        drop(self.changed.wait_timeout(open, time).unwrap_or_else(PoisonError::into_inner));
    }
}

/// Returns the beginning of the word for a tunnel of this protocol.
fn udp_word(proto: Proto) -> &'static str {
    if proto == Proto::Udp { "udp" } else { "" }
}

/// Returns the text by which an object is known again: the ends that were asked for, behind those of its connection.
fn key_of(kind: Kind, parent: Option<&Entry>, record: &Record) -> Option<String> {
    let (local, remote, udp) = (record.local.text(), record.remote.text(), udp_word(record.proto));
    let ends = match kind {
        // A link that this node dials has a name in its configuration; a peer that dials is known by its key.
        Kind::Connection if record.name.is_some() => return Some(format!("to {remote}")),
        Kind::Connection => return record.fingerprint.as_ref().map(|key| format!("from {key}")),
        Kind::Listener => return Some(format!("at {local}")),
        Kind::Tunnel => format!("{udp}tunnel {local} -> {remote}"),
        Kind::Reverse => format!("{udp}tunnel {local} <- {remote}"),
        Kind::Socks => format!("socks {local}"),
    };
    Some(format!("{} {ends}", parent?.key.as_ref()?))
}

fn find(open: &[Arc<Entry>], name: &str) -> Option<Arc<Entry>> {
    open.iter().find(|entry| lock(&entry.record).label.as_deref() == Some(name)).cloned()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_object_leaves_the_board_and_stays_closed() {
        let board = Board::default();
        let record = Record::new(Place::default(), Place::new("::1", 23232));
        let entry = board.add(Kind::Connection, None, record);
        assert_eq!(entry.text(), "tcpconn *:? <-> [::1]:23232 CONNECTING");
        assert!(board.has_open());
        board.change(&entry, |record| record.state = State::Closed);
        board.change(&entry, |record| record.state = State::Connected);
        assert_eq!((entry.state(), board.has_open(), board.open().len()), (State::Closed, false, 0));
    }

    #[test]
    fn an_object_that_could_not_be_made_is_not_waited_for() {
        let board = Board::default();
        let entry = board.add(Kind::Listener, None, Record::new(Place::new("::1", 1), Place::default()));
        assert_eq!((board.has_open(), board.failure()), (true, None));
        let reason = "no\u{1b}[2J".to_owned();
        board.change(&entry, |record| {
            (record.state, record.reason, record.is_final) = (State::Error, escape(&reason).into_owned(), true);
        });
        assert_eq!(
            (board.has_open(), board.failure()),
            (false, Some("listener [::1]:1 ERROR: no\\u{1b}[2J".to_owned()))
        );
        board.change(&entry, |record| record.state = State::Closed);
        assert_eq!(board.failure(), None);
    }

    #[test]
    fn an_address_is_split_into_host_and_port() {
        assert_eq!(Place::parse("[::1]:80"), Place::new("::1", 80));
        assert_eq!(Place::parse("127.0.0.1:80"), Place::new("127.0.0.1", 80));
        assert_eq!(Place::parse("somewhere"), Place::new("somewhere", 0));
    }
}
