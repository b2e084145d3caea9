//! The events of a process for readers of the admin server: connections, listeners, links and forwards as they change, reloads
//! and drains, each as one line of JSON.
//!
//! ```text
//!   loop ── observer ──> queue of each reader (bounded) ──> thread of the reader ──> client
//! ```
//! The loops are observed only while there is a reader. A loop never waits: a line for which the queue of a reader has no
//! room is dropped, counted, and the reader is told the count.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use seaprox::{Event, Loop, Observer, Remote};
use serde_json::{Value, json};

/// The events of a process, and their readers.
pub struct Events {
    shared: Arc<Shared>,
    remotes: Vec<Remote>,
}

/// A reader of events. Dropping it ends the reports.
pub struct Reader {
    shared: Arc<Shared>,
    remotes: Vec<Remote>,
    number: u64,
    lines: Receiver<Arc<str>>,
    dropped: Arc<AtomicU64>,
    is_new: bool,
}

/// The reason for which a client cannot read events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoReader {
    /// There are [`READERS_MAX`] readers.
    TooMany,
    /// The mailbox of a loop is full.
    LoopIsBusy,
}

impl NoReader {
    /// Returns the text for the client.
    pub const fn as_str(self) -> &'static str {
        match self {
            NoReader::TooMany => "too many readers of events",
            NoReader::LoopIsBusy => "an event loop has no room for the call",
        }
    }
}

#[derive(Default)]
struct Shared {
    readers: Mutex<Readers>,
    /// Lines that readers did not get.
    dropped: AtomicU64,
}

#[derive(Default)]
struct Readers {
    next: u64,
    all: Vec<Sender>,
}

/// The queue of a reader.
struct Sender {
    number: u64,
    lines: SyncSender<Arc<str>>,
    dropped: Arc<AtomicU64>,
}

/// The observer of a loop.
struct LoopObserver {
    shared: Arc<Shared>,
    thread: usize,
}

impl Events {
    /// Creates the events of these loops.
    pub fn new(remotes: Vec<Remote>) -> Events {
        Events { shared: Arc::default(), remotes }
    }

    /// Returns a reader of everything that happens from now on.
    ///
    /// # Errors
    /// There are as many readers as there may be, or a loop has no room for the call.
    pub fn subscribe(&self) -> Result<Reader, NoReader> {
        let (sender, lines) = mpsc::sync_channel(LINES_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let mut readers = self.shared.lock();
        if readers.all.len() >= READERS_MAX {
            return Err(NoReader::TooMany);
        }
        if readers.all.is_empty() {
            observe(&self.shared, &self.remotes)?;
        }
        let number = readers.next;
        readers.next += 1;
        readers.all.push(Sender { number, lines: sender, dropped: Arc::clone(&dropped) });
        let (shared, remotes) = (Arc::clone(&self.shared), self.remotes.clone());
        Ok(Reader { shared, remotes, number, lines, dropped, is_new: true })
    }

    /// Reports an event of the process. It is an object.
    pub fn tell(&self, event: Value) {
        self.shared.tell(event);
    }

    /// Returns the number of readers.
    pub fn readers(&self) -> usize {
        self.shared.lock().all.len()
    }

    /// Returns the number of lines that readers did not get.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

impl Reader {
    /// Waits for the next lines. Returns a sign of life after a while without one, so that the client is known to be there.
    pub fn next_lines(&mut self) -> String {
        if std::mem::take(&mut self.is_new) {
            return line(json!({ "event": "subscribed" })).to_string();
        }
        let mut text = match self.lines.recv_timeout(ALIVE_INTERVAL) {
            Ok(line) => line.to_string(),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                line(json!({ "event": "alive" })).to_string()
            }
        };
        while text.len() < BATCH_BYTES {
            match self.lines.try_recv() {
                Ok(line) => text.push_str(&line),
                Err(_) => break,
            }
        }
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            text.push_str(&line(json!({ "event": "dropped", "count": dropped })));
        }
        text
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut readers = self.shared.lock();
        readers.all.retain(|reader| reader.number != self.number);
        if readers.all.is_empty() {
            clear(&self.remotes);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, event: Value) {
        let readers = self.lock();
        if readers.all.is_empty() {
            return;
        }
        let line: Arc<str> = line(event).into();
        for reader in &readers.all {
            if let Err(TrySendError::Full(_)) = reader.lines.try_send(Arc::clone(&line)) {
                reader.dropped.fetch_add(1, Ordering::Relaxed);
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Sets the observers of the loops, of all or of none. The readers are locked, so no event is lost between the call and the
/// first reader.
fn observe(shared: &Arc<Shared>, remotes: &[Remote]) -> Result<(), NoReader> {
    for (thread, remote) in remotes.iter().enumerate() {
        let observer = LoopObserver { shared: Arc::clone(shared), thread };
        if remote.call(move |core| core.set_observer(Box::new(observer))).is_err() {
            // A reader would get the events of some loops only, and would not know.
            clear(&remotes[..thread]);
            return Err(NoReader::LoopIsBusy);
        }
    }
    Ok(())
}

/// Ends the reports of loops.
fn clear(remotes: &[Remote]) {
    for remote in remotes {
        // A loop whose mailbox is full goes on being observed, which costs little and changes nothing.
        let _ = remote.call(|core| core.clear_observer());
    }
}

impl Observer for LoopObserver {
    fn event(&mut self, core: &mut Loop<'_>, event: Event) {
        let Some(mut event) = describe(core, &event) else { return };
        event["thread"] = self.thread.into();
        self.shared.tell(event);
    }
}

/// Returns an event of a loop as an object, with the description of its record if that is still there.
fn describe(core: &mut Loop<'_>, event: &Event) -> Option<Value> {
    Some(match event {
        Event::ConnectionOpened { connection }
        | Event::ConnectionConnecting { connection }
        | Event::ConnectionConnected { connection } => {
            let description = core.connection(*connection).ok().map(|connection| connection.description());
            json!({
                "event": match event {
                    Event::ConnectionOpened { .. } => "connection_opened",
                    Event::ConnectionConnecting { .. } => "connection_connecting",
                    _ => "connection_connected",
                },
                "connection": connection.to_string(),
                "conn": description,
            })
        }
        Event::ConnectionEnded { connection, reason, ending, fault, sent, received } => json!({
            "event": "connection_ended",
            "connection": connection.to_string(),
            "reason": reason.as_str(),
            "end": ending.as_str(),
            "by": fault.as_str(),
            "sent": sent,
            "received": received,
        }),
        Event::ListenerOpened { listener } | Event::ListenerClosed { listener } => {
            let is_new = matches!(event, Event::ListenerOpened { .. });
            let status = core.listener(*listener).ok().map(|listener| listener.status());
            json!({
                "event": if is_new { "listener_opened" } else { "listener_closed" },
                "listener": listener.to_string(),
                "name": status.as_ref().map(|status| &status.name),
                "address": status.as_ref().map(|status| status.address()),
            })
        }
        Event::Link { link, state } => {
            let status = core.link(*link).ok().and_then(|link| link.status().ok());
            json!({
                "event": "link",
                "link": link.to_string(),
                "state": state.as_str(),
                "name": status.as_ref().map(|status| &status.name),
                "peer": status.as_ref().map(|status| &status.peer),
            })
        }
        Event::Forward { forward, state } => {
            let status = core.forward(*forward).ok().and_then(|forward| forward.status().ok());
            json!({
                "event": "forward",
                "forward": forward.to_string(),
                "state": state.as_str(),
                "name": status.as_ref().map(|status| &status.name),
            })
        }
        _ => return None,
    })
}

/// Returns the line of an event, with the time in seconds since 1970.
fn line(mut event: Value) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    event["time"] = (now.as_millis() as f64 / 1e3).into();
    format!("{event}\n")
}

/// Readers at a time.
pub const READERS_MAX: usize = 16;
/// Lines that wait for a reader. Further lines are dropped.
pub const LINES_MAX: usize = 4096;
/// Bytes of lines that are written at once.
const BATCH_BYTES: usize = 32 << 10;
/// Time without an event after which a reader gets a sign of life.
const ALIVE_INTERVAL: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_does_not_read_loses_lines_and_is_told_how_many() {
        let events = Events::new(Vec::new());
        let (mut slow, mut other) = (events.subscribe().unwrap(), events.subscribe().unwrap());
        assert!(other.next_lines().contains("\"event\":\"subscribed\""));
        let mut seen = 0;
        for number in 0..LINES_MAX + 10 {
            events.tell(json!({ "event": "test", "number": number }));
            if number % 100 == 0 {
                seen += other.next_lines().lines().count();
            }
        }
        while seen < LINES_MAX + 10 {
            seen += other.next_lines().lines().count();
        }
        slow.next_lines();
        let mut lines = String::new();
        while !lines.contains("dropped") {
            lines.push_str(&slow.next_lines());
        }
        // The count stands in the middle, because the queue has room again from the first line on.
        let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
        assert_eq!(first["number"], 0);
        let told: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
        assert_eq!((&told["event"], &told["count"]), (&json!("dropped"), &json!(10)));
        assert_eq!(events.dropped(), 10);
        drop((slow, other));
        assert_eq!(events.readers(), 0);
    }

    #[test]
    fn the_number_of_readers_is_bounded() {
        let events = Events::new(Vec::new());
        let readers: Vec<_> = (0..READERS_MAX).map(|_| events.subscribe().unwrap()).collect();
        assert_eq!(events.subscribe().err(), Some(NoReader::TooMany));
        drop(readers);
        assert!(events.subscribe().is_ok());
    }

    #[test]
    fn a_reader_that_would_not_get_the_events_of_all_loops_is_refused() {
        let mut proxy = seaprox::Proxy::new(seaprox::Config::default(), None).unwrap();
        let remote = proxy.remote();
        // The loop does not run, so calls stay in its mailbox.
        while remote.call(|_| ()).is_ok() {}
        let events = Events::new(vec![remote]);
        assert_eq!(events.subscribe().err(), Some(NoReader::LoopIsBusy));
        assert_eq!(events.readers(), 0);
        proxy.turn(Some(Duration::ZERO)).unwrap();
        assert!(events.subscribe().is_ok());
    }
}
