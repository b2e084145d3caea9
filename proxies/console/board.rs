//! The objects of the console with their states. The thread of the configuration writes them, and the virtual machine reads
//! them without the loop.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use seaprox::Id;

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
}

/// A host and a port, as far as they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The host; empty if it is not known.
    pub host: String,
    /// The port; 0 if it is not known.
    pub port: u16,
}

/// What is known of an object.
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
    /// The id in the loop.
    pub id: Option<Id>,
    /// The name in the configuration; none for a link that the peer has dialed, and for a tunnel.
    pub name: Option<String>,
    /// The fingerprint of the key of the peer.
    pub fingerprint: Option<String>,
    /// The cipher.
    pub cipher: Option<&'static str>,
}

/// An object.
pub struct Entry {
    /// The number, unique in the process.
    pub number: u64,
    /// The kind.
    pub kind: Kind,
    /// The connection of a tunnel.
    pub parent: Option<Arc<Entry>>,
    record: Mutex<Record>,
}

/// The objects that are not closed.
#[derive(Default)]
pub struct Board {
    open: Mutex<Vec<Arc<Entry>>>,
    changed: Condvar,
    numbers: AtomicU64,
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
        let host = match &*self.host {
            "" => "*".to_owned(),
            host if host.contains(':') => format!("[{host}]"),
            // A name may come from the peer.
            host => host.chars().filter(|char| !char.is_control()).collect(),
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
            id: None,
            name: None,
            fingerprint: None,
            cipher: None,
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

    /// Returns the object with its ends and its state, for `print`.
    pub fn text(&self) -> String {
        let Record { state, reason, local, remote, .. } = self.record();
        let (local, remote) = (local.text(), remote.text());
        let ends = match self.kind {
            Kind::Connection => format!("tcpconn {local} <-> {remote}"),
            Kind::Listener => format!("listener {local}"),
            Kind::Tunnel => format!("tunnel {local} -> {remote}"),
            Kind::Reverse => format!("tunnel {local} <- {remote}"),
        };
        match state {
            State::Error => format!("{ends} ERROR: {reason}"),
            state => format!("{ends} {}", state.as_str()),
        }
    }
}

impl Board {
    /// Adds an object.
    pub fn add(&self, kind: Kind, parent: Option<Arc<Entry>>, record: Record) -> Arc<Entry> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let entry = Arc::new(Entry { number, kind, parent, record: Mutex::new(record) });
        lock(&self.open).push(Arc::clone(&entry));
        self.changed.notify_all();
        entry
    }

    /// Changes the record of an object. A closed object stays as it is, and leaves the board.
    pub fn change(&self, entry: &Entry, change: impl FnOnce(&mut Record)) {
        let mut open = lock(&self.open);
        let mut record = lock(&entry.record);
        if record.state == State::Closed {
            return;
        }
        change(&mut record);
        if record.state == State::Closed {
            open.retain(|other| other.number != entry.number);
        }
        self.changed.notify_all();
    }

    /// Returns the objects that are not closed, in the order in which they were made.
    pub fn open(&self) -> Vec<Arc<Entry>> {
        lock(&self.open).clone()
    }

    /// Returns true if a connection or a listener is open. Tunnels live in connections.
    pub fn has_open(&self) -> bool {
        lock(&self.open).iter().any(|entry| matches!(entry.kind, Kind::Connection | Kind::Listener))
    }

    /// Waits for a change, at most for `time`.
    pub fn wait(&self, time: Duration) {
        let open = lock(&self.open);
        drop(self.changed.wait_timeout(open, time).unwrap_or_else(PoisonError::into_inner));
    }
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
    fn an_address_is_split_into_host_and_port() {
        assert_eq!(Place::parse("[::1]:80"), Place::new("::1", 80));
        assert_eq!(Place::parse("127.0.0.1:80"), Place::new("127.0.0.1", 80));
        assert_eq!(Place::parse("somewhere"), Place::new("somewhere", 0));
    }
}
