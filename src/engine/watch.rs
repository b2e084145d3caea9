//! Watches: descriptors of other parts of the program, whose readiness the loop reports to a callback.
//!
//! A watch is level-triggered, as poll(2) is: while the descriptor is ready, the callback runs once in each turn. The poll
//! of the loop is edge-triggered, so the loop asks again after each call. The descriptor belongs to the caller, who may close
//! it without a word: the loop compares the file behind the number before it changes the registration, because the number
//! may name one of the loop's own sockets by then.

use std::collections::VecDeque;

use mio::Token;
use mio::event::Event;

use crate::engine::control::Loop;
use crate::engine::core::Core;
use crate::sys::{self, BorrowedSocket, Watched};
use crate::types::descriptor_error::DescriptorError;
use crate::types::id::{Id, Kind, Table};
use crate::types::verb_error::VerbError;

/// The readiness that a watch waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Interest {
    /// There is something to read, or the input has ended.
    Readable,
    /// There is room to write.
    Writable,
    /// Either of them.
    Both,
}

/// The readiness of a watched descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Readiness {
    /// A read does not block.
    pub readable: bool,
    /// A write does not block.
    pub writable: bool,
    /// The other end is gone, or has ended what it sends.
    pub closed: bool,
    /// The descriptor has an error to report.
    pub error: bool,
}

/// The callback of a watch.
pub(crate) type Callback = Box<dyn FnMut(&mut Loop<'_>, Id, Readiness)>;

/// The watches of one loop.
pub(crate) struct Watches {
    table: Table<Watch>,
    /// Watches with readiness to report, each of them once.
    ready: VecDeque<Id>,
}

struct Watch {
    source: Watched,
    interest: Interest,
    seen: Readiness,
    is_queued: bool,
    /// None while it runs.
    callback: Option<Callback>,
}

impl Core {
    /// Watches a descriptor that another part of the program owns, and calls `callback` while it is ready: once in each
    /// turn, outside of all other calls. The callback gets the loop, the id of the watch and the readiness.
    ///
    /// The caller keeps the descriptor open until [`Core::unwatch`]. The watch of a descriptor that was closed earlier ends
    /// at the next call of its callback, or reports nothing more. A callback that panics ends its watch, and is counted. A
    /// watch does not keep a loop running.
    ///
    /// # Errors
    /// [`VerbError::Full`] beyond [`Limits::watches`](crate::Limits::watches), [`VerbError::Already`] if the descriptor is
    /// registered, and a refusal of the system, which cannot wait for a regular file.
    pub fn watch(
        &mut self,
        descriptor: BorrowedSocket<'_>,
        interest: Interest,
        callback: impl FnMut(&mut Loop<'_>, Id, Readiness) + 'static,
    ) -> Result<Id, DescriptorError> {
        let same = self.watches.table.iter().find(|(_, watch)| watch.source.has_number_of(descriptor));
        let same = same.map(|(id, _)| id);
        if same.is_some() && !Watched::REFUSES_DUPLICATES {
            return Err(VerbError::Already.into());
        }
        let Some(id) = self.watches.table.next_id() else { return Err(VerbError::Full.into()) };
        let source = match Watched::register(descriptor, &self.registry, token(id), interest.into()) {
            Ok(source) => source,
            Err(error) if sys::is_registered(&error) => return Err(VerbError::Already.into()),
            Err(error) if sys::is_unpollable(&error) => {
                return Err(DescriptorError::Unsuitable("a regular file is always ready, and cannot be watched"));
            }
            Err(error) => return Err(error.into()),
        };
        let (seen, callback) = (Readiness::default(), Some(Box::new(callback) as Callback));
        let watch = Watch { source, interest, seen, is_queued: false, callback };
        let placed = self.watches.table.insert(watch).is_ok();
        debug_assert!(placed, "the table had room");
        if let Some(same) = same {
            // The system took the same number again, so its earlier descriptor was closed.
            self.watches.remove(same);
        }
        Ok(id)
    }

    /// Changes the readiness that a watch waits for.
    ///
    /// # Errors
    /// [`VerbError::Stale`] if the watch has ended, [`VerbError::Invalid`] if the id is of another kind, and a refusal of the
    /// system.
    pub fn modify_watch(&mut self, id: Id, interest: Interest) -> Result<(), DescriptorError> {
        let watch = self.watches.table.get_mut(id).ok_or_else(|| self.ended.missing(id, Kind::Watch))?;
        watch.interest = interest;
        // A watch whose callback runs is armed when it returns.
        if watch.callback.is_some() {
            watch.source.arm(&self.registry, token(id), interest.into())?;
        }
        Ok(())
    }

    /// Ends a watch. Its callback is not called again.
    ///
    /// # Errors
    /// [`VerbError::Stale`] if the watch has ended, and [`VerbError::Invalid`] if the id is of another kind.
    pub fn unwatch(&mut self, id: Id) -> Result<(), VerbError> {
        let watch = self.watches.remove(id).ok_or_else(|| self.ended.missing(id, Kind::Watch))?;
        watch.source.deregister(&self.registry);
        Ok(())
    }

    /// Notes an event of a descriptor that is no side.
    #[cold]
    pub(crate) fn note_watch(&mut self, id: Id, event: &Event) {
        let Some(watch) = self.watches.table.get_mut(id) else {
            self.stats.stale += 1;
            return;
        };
        watch.seen.readable |= event.is_readable();
        watch.seen.writable |= event.is_writable();
        watch.seen.closed |= event.is_read_closed() || event.is_write_closed();
        watch.seen.error |= event.is_error();
        if !std::mem::replace(&mut watch.is_queued, true) {
            self.watches.ready.push_back(id);
        }
    }

    /// Returns the number of watches that have readiness to report.
    pub(crate) fn ready_watches(&self) -> usize {
        self.watches.ready.len()
    }

    /// Takes the callback of the next watch that has readiness to report. [`Core::put_back`] must follow.
    pub(crate) fn next_watch(&mut self) -> Option<(Id, Readiness, Callback)> {
        let id = self.watches.ready.pop_front()?;
        let watch = self.watches.table.get_mut(id)?;
        watch.is_queued = false;
        let mut seen = std::mem::take(&mut watch.seen);
        seen.readable &= watch.interest != Interest::Writable;
        seen.writable &= watch.interest != Interest::Readable;
        Some((id, seen, watch.callback.take()?))
    }

    /// Ends a call of a watch's callback: the watch waits for the next readiness, or ends if the callback panicked.
    pub(crate) fn put_back(&mut self, id: Id, callback: Callback, panicked: bool) {
        let Some(watch) = self.watches.table.get_mut(id) else { return };
        watch.callback = Some(callback);
        let armed = watch.source.arm(&self.registry, token(id), watch.interest.into());
        if panicked || armed.is_err() {
            self.stats.stale += u64::from(!panicked);
            // The id was just found.
            let _ = self.unwatch(id);
        }
    }
}

impl Watches {
    pub fn new(capacity: usize) -> Watches {
        Watches { table: Table::new(Kind::Watch, capacity), ready: VecDeque::new() }
    }

    pub fn is_idle(&self) -> bool {
        self.ready.is_empty()
    }

    fn remove(&mut self, id: Id) -> Option<Watch> {
        let watch = self.table.remove(id)?;
        if watch.is_queued {
            // The queue never has more entries than the table.
            self.ready.retain(|ready| *ready != id);
        }
        Some(watch)
    }
}

impl Readiness {
    /// Returns true if there is nothing to report.
    pub(crate) fn is_none(self) -> bool {
        self == Readiness::default()
    }
}

impl From<Interest> for mio::Interest {
    fn from(interest: Interest) -> mio::Interest {
        match interest {
            Interest::Readable => mio::Interest::READABLE,
            Interest::Writable => mio::Interest::WRITABLE,
            Interest::Both => mio::Interest::READABLE.add(mio::Interest::WRITABLE),
        }
    }
}

fn token(id: Id) -> Token {
    Token(id.to_u64() as usize)
}
