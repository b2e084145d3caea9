//! Links: everything that a loop knows of its links, of what carries them, and of who may come.
//!
//! It stands among the pools, because the pump reads from streams and writes to them. It knows no side but by its id.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use bytes::Bytes;

use crate::engine::limits::CARRIERS_MAX;
use crate::link::{BootId, Outbox, SessionId, StreamId, Time};
use crate::tls::Buffers;
use crate::types::id::{Id, Table};

use super::carrier::Carrier;
use super::chunks::Chunks;
use super::greet::Server;
use super::handshakes::Budget;
use super::link::Link;
use super::memory::Memory;
use super::rest::Rests;
use super::stream::Slot;
use super::unauthenticated::Unauthenticated;

/// The links of one loop.
pub(crate) struct Links {
    pub links: Table<Link>,
    pub carriers: Table<Carrier>,
    /// What others may dial, by the number of the listener.
    pub servers: HashMap<u32, Server>,
    /// The links that others have dialled, by the session's name.
    pub served: HashMap<SessionId, Id>,
    /// Carriers of peers that have not joined a session yet.
    pub unauthenticated: Unauthenticated<Id>,
    /// The time that may be spent on the handshakes of unauthenticated peers.
    pub handshakes: Budget,
    /// A one-off looks for unauthenticated peers that are too slow for the crowd.
    pub crowd_watched: bool,
    /// Memory of all links.
    pub memory: Memory,
    pub chunks: Chunks,
    /// What the TLS connections share.
    pub buffers: Rc<Buffers>,
    /// What is left of streams whose sessions are over.
    pub rests: Rests,
    pub outbox: Outbox,
    /// What one carrier has decrypted and its session has not seen.
    pub plain: Vec<Bytes>,
    /// Links with something to do.
    pub dirty: VecDeque<Id>,
    /// The half of our boot id that differs in each life.
    pub life: [u8; 4],
    pub now: Time,
    /// No new link is wanted any more.
    pub closing: bool,
}

impl Links {
    /// Makes an empty table of links, whose memory is bounded by `memory_bytes` in each direction.
    pub fn new(memory_bytes: usize) -> Links {
        Links {
            links: Table::new(LINKS_MAX),
            carriers: Table::new(CARRIERS_MAX),
            servers: HashMap::new(),
            served: HashMap::new(),
            unauthenticated: Unauthenticated::new(),
            handshakes: Budget::default(),
            crowd_watched: false,
            memory: Memory::new(memory_bytes),
            chunks: Chunks::default(),
            buffers: Rc::new(Buffers::new()),
            rests: Rests::default(),
            outbox: Outbox::new(),
            plain: Vec::new(),
            dirty: VecDeque::new(),
            life: super::random(),
            now: Time::ZERO,
            closing: false,
        }
    }
}

impl Links {
    /// Notes that a link has something to do before the loop sleeps.
    #[inline]
    pub fn touch(&mut self, link: Id) {
        if let Some(record) = self.links.get_mut(link)
            && !std::mem::replace(&mut record.dirty, true)
        {
            self.dirty.push_back(link);
        }
    }

    /// What is known of a stream that is a side.
    pub fn slot(&mut self, link: Id, stream: StreamId) -> Option<&mut Slot> {
        self.links.get_mut(link)?.streams.get_mut(&stream)
    }

    /// This life of this node.
    pub fn boot(&self, instance: Option<u32>) -> BootId {
        let [a, b, c, d] = self.life;
        let [e, f, g, h] = instance.map_or_else(super::random, u32::to_be_bytes);
        BootId([e, f, g, h, a, b, c, d])
    }
}

/// Links of one loop.
const LINKS_MAX: usize = 1024;
