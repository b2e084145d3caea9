//! Sessions: the session of each link, the streams of it that are sides, and the name of the peer.
//!
//! The table is one of the pools, because the pump reads from streams and writes to them. The control of a link is in
//! `node/`, under the same id.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::link::{Session, StreamId, Time};
use crate::types::id::{Id, Kind, Table};

use super::chunks::Chunks;
use super::stream::{Slot, StreamAt, Streams};
use super::undelivered::Undelivered;

/// The sessions of the links of one loop.
pub(crate) struct Sessions {
    links: Table<LinkSession>,
    pub chunks: Chunks,
    /// Undelivered data of streams whose sessions are over.
    pub undelivered: Undelivered,
    /// Links with work. Invariant: each link whose `is_dirty` is set is in the queue once.
    pub dirty: VecDeque<Id>,
    pub now: Time,
}

/// The part of a link that the data plane knows.
pub(crate) struct LinkSession {
    pub session: Option<Session>,
    /// Number of the session among those of this link, so that a stream of an earlier session finds nothing.
    pub epoch: u32,
    pub streams: Streams,
    /// The name of the peer, for descriptions and the log.
    pub name: Arc<str>,
    pub is_dirty: bool,
}

impl LinkSession {
    /// Makes the record of a link that has no session yet.
    pub fn new(name: Arc<str>) -> LinkSession {
        LinkSession { session: None, epoch: 0, streams: Streams::new(), name, is_dirty: false }
    }

    /// Moves the session and its streams to a record of their own, and begins the next epoch.
    pub fn set_aside(&mut self) -> LinkSession {
        let aside = LinkSession {
            session: self.session.take(),
            streams: std::mem::take(&mut self.streams),
            epoch: self.epoch,
            ..LinkSession::new(Arc::clone(&self.name))
        };
        self.epoch += 1;
        aside
    }

    /// Returns the number of events of the session that were not taken.
    pub fn events_waiting(&self) -> usize {
        self.session.as_ref().map_or(0, Session::events_waiting)
    }
}

impl Sessions {
    /// Makes an empty table.
    pub fn new() -> Sessions {
        Sessions {
            links: Table::new(Kind::Link, LINKS_MAX),
            chunks: Chunks::default(),
            undelivered: Undelivered::default(),
            dirty: VecDeque::new(),
            now: Time::ZERO,
        }
    }

    /// Puts the record of a link into the table. Returns its id, or none if the table is full.
    pub fn insert(&mut self, link: LinkSession) -> Option<Id> {
        self.links.insert(link).ok()
    }

    #[inline]
    pub fn get(&self, link: Id) -> Option<&LinkSession> {
        self.links.get(link)
    }

    #[inline]
    pub fn get_mut(&mut self, link: Id) -> Option<&mut LinkSession> {
        self.links.get_mut(link)
    }

    pub fn remove(&mut self, link: Id) {
        self.links.remove(link);
    }

    pub fn is_full(&self) -> bool {
        self.links.is_full()
    }

    #[inline]
    pub fn session(&self, link: Id) -> Option<&Session> {
        self.links.get(link)?.session.as_ref()
    }

    #[inline]
    pub fn session_mut(&mut self, link: Id) -> Option<&mut Session> {
        self.links.get_mut(link)?.session.as_mut()
    }

    /// Returns the name of a link's peer; `-` if the link is gone.
    pub fn name(&self, link: Id) -> &str {
        self.links.get(link).map_or("-", |link| &link.name)
    }

    /// Queues a link that has work before the loop sleeps.
    #[inline]
    pub fn touch(&mut self, link: Id) {
        if let Some(record) = self.links.get_mut(link)
            && !std::mem::replace(&mut record.is_dirty, true)
        {
            self.dirty.push_back(link);
        }
    }

    /// Returns the record of a stream that is a side.
    pub fn slot(&mut self, link: Id, stream: StreamId) -> Option<&mut Slot> {
        self.links.get_mut(link)?.streams.get_mut(&stream)
    }

    /// Returns the name of a stream of the current session.
    pub fn stream_at(&self, link: Id, id: StreamId) -> Option<StreamAt> {
        Some(StreamAt { link, epoch: self.links.get(link)?.epoch, id })
    }
}

/// Maximum of the links of one loop. All links of a process are in one loop.
pub const LINKS_MAX: usize = 1024;
