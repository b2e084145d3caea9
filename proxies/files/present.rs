//! The offers that this process receives now, and the ones that it has placed lately.
//!
//! A sender that was killed leaves its stream in a session that is held, and the stream its lock on the part. When the same peer
//! offers the same again, and nothing arrives over the older stream, the older one ends. A sender that has not heard that its
//! offer was placed repeats it, and finds it complete.

use std::collections::VecDeque;
use std::net::Shutdown;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::offer::Offer;
use super::wire::Socket;

/// An offer of a peer for a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    folder: PathBuf,
    name: String,
    key: [u8; 32],
}

/// An offer that is received now. It is forgotten when this is dropped.
pub struct Present(Arc<Receiving>);

struct Receiving {
    name: Name,
    /// Ends the stream.
    socket: Socket,
    messages: AtomicU64,
}

#[derive(Default)]
struct All {
    receiving: Vec<Arc<Receiving>>,
    /// The placed offers, with their entries and bytes; the last one is the newest.
    placed: VecDeque<(Name, u64, u64)>,
}

static ALL: Mutex<All> = Mutex::new(All { receiving: Vec::new(), placed: VecDeque::new() });
static ENDED: Condvar = Condvar::new();

impl Present {
    /// Notes an offer that is received over a stream with this socket.
    pub fn new(folder: &Path, name: &str, key: [u8; 32], socket: Socket) -> Present {
        let name = Name { folder: folder.to_owned(), name: name.to_owned(), key };
        let receiving = Arc::new(Receiving { name, socket, messages: AtomicU64::new(0) });
        all().receiving.push(Arc::clone(&receiving));
        Present(receiving)
    }

    /// Counts a message.
    pub fn count(&self) {
        self.0.messages.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        all().receiving.retain(|other| !Arc::ptr_eq(other, &self.0));
        ENDED.notify_all();
    }
}

/// Ends the stream over which the same peer has offered the same before, once nothing has arrived there for [`SILENT_TIME`], and
/// waits for its end. A stream over which bytes go on to arrive stays.
pub fn supersede(folder: &Path, name: &str, key: [u8; 32]) {
    let name = Name { folder: folder.to_owned(), name: name.to_owned(), key };
    let mut all = all();
    let Some(older) = all.receiving.iter().find(|it| it.name == name).map(Arc::clone) else { return };
    let (begun, mut silent_since, mut before) =
        (Instant::now(), Instant::now(), older.messages.load(Ordering::Relaxed));
    let mut ended_at = None;
    while all.receiving.iter().any(|it| Arc::ptr_eq(it, &older)) {
        let now = Instant::now();
        let present = older.messages.load(Ordering::Relaxed);
        match ended_at {
            Some(ended_at) if now.duration_since(ended_at) >= END_TIME => return,
            Some(_) => {}
            None if present != before => {
                (silent_since, before) = (now, present);
                if now.duration_since(begun) >= SILENT_TIME {
                    return;
                }
            }
            None if now.duration_since(silent_since) >= SILENT_TIME => {
                // A socket that is not connected any more needs no end.
                let _ = older.socket.shutdown(Shutdown::Both);
                ended_at = Some(now);
            }
            None => {}
        }
        all = ENDED.wait_timeout(all, LOOK_INTERVAL).unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// Notes an offer that was placed.
pub fn note_placed(folder: &Path, offer: &Offer, key: [u8; 32]) {
    let name = Name { folder: folder.to_owned(), name: offer.name.clone(), key };
    let mut all = all();
    all.placed.retain(|(other, ..)| *other != name);
    if all.placed.len() >= PLACED_MAX {
        all.placed.pop_front();
    }
    all.placed.push_back((name, offer.entries, offer.bytes));
}

/// Returns true if this process has placed this offer of the peer with this key lately. The digest of another file of the user
/// is told to nobody.
pub fn was_placed(folder: &Path, offer: &Offer, key: [u8; 32]) -> bool {
    let name = Name { folder: folder.to_owned(), name: offer.name.clone(), key };
    all().placed.contains(&(name, offer.entries, offer.bytes))
}

fn all() -> MutexGuard<'static, All> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Time in which nothing arrives after which a stream gives way to another one of the same peer for the same offer.
const SILENT_TIME: Duration = Duration::from_secs(3);
/// Longest wait for the end of a stream that gives way.
const END_TIME: Duration = Duration::from_secs(5);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Placed offers that are remembered.
const PLACED_MAX: usize = 256;
