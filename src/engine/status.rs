//! The status: what a loop is doing, as plain data, for people, scripts and tests.

use std::time::Duration;

use crate::engine::core::Core;
use crate::engine::limits::Limits;
use crate::engine::stats::Stats;
use crate::relay::connection::{Connection, Stage};
use crate::relay::half::{Flow, Half, NO_SPLICE, Phase};
use crate::relay::side::{Role, SideState};
use crate::types::id::Id;
use crate::types::reason::Reason;

/// What a loop is doing.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Counts since its birth.
    pub stats: Stats,
    /// What it may use.
    pub limits: Limits,
    /// What it uses of that.
    pub usage: Usage,
    /// Its connections, the oldest slot first.
    pub connections: Vec<ConnectionStatus>,
}

/// What a loop uses now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Connections.
    pub connections: usize,
    /// Sides, with those that race for a name.
    pub sides: usize,
    /// Bytes in blocks that are taken.
    pub buffer_bytes: usize,
    /// Pipes that are open, in use or not.
    pub pipes: usize,
    /// Descriptors of sides, listeners and pipes.
    pub descriptors: usize,
}

/// One connection.
#[derive(Clone, Debug)]
pub struct ConnectionStatus {
    /// Its id.
    pub id: Id,
    /// Its name; see the module on descriptions.
    pub description: String,
    /// The address that it came in at, if a listener accepted it.
    pub listener: Option<String>,
    /// How far it has come.
    pub stage: Stage,
    /// Who it is, where the front end asked.
    pub user: Option<Box<str>>,
    /// How long it has been there.
    pub age: Duration,
    /// Its source.
    pub source: SideStatus,
    /// Its dest, if it has one.
    pub dest: Option<SideStatus>,
}

/// One leg of a connection.
#[derive(Clone, Debug)]
pub struct SideStatus {
    /// Where the other end of its socket is.
    pub endpoint: String,
    /// How far it has come.
    pub state: SideState,
    /// Bytes of it that were relayed: delivered to the other side, or taken by a dest's handler.
    pub bytes_in: u64,
    /// Bytes relayed to it. What a handler says to a source is not among them.
    pub bytes_out: u64,
    /// Times that it could take no more.
    pub congested: u32,
    /// Bytes that wait to be written to it.
    pub queued: usize,
    /// Facts: `readable`, `writable`, `fin` (it has sent its end), `shut` (it has been sent the end), `spliced`,
    /// `held` (its input is not read).
    pub flags: Vec<&'static str>,
}

impl Core {
    /// What the loop is doing now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { connections: self.some_connections(None, usize::MAX), ..self.totals() }
    }

    /// The same without the connections.
    pub fn totals(&self) -> Snapshot {
        Snapshot {
            stats: self.stats.clone(),
            limits: self.config.limits.clone(),
            usage: self.usage(),
            connections: Vec::new(),
        }
    }

    /// At most so many connections: those in the slots behind that of `after`, or from the first on. To tell of many in
    /// several calls holds the loop up less, and needs less memory at once.
    pub fn some_connections(&self, after: Option<Id>, max: usize) -> Vec<ConnectionStatus> {
        let from = after.map_or(0, |id| id.index() + 1);
        let some = self.connections.starting_at(from).take(max);
        some.map(|(id, connection)| self.connection_status(id, connection)).collect()
    }

    /// Counts since the loop was born.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// What the loop uses now.
    pub fn usage(&self) -> Usage {
        let sides: usize = self.sides.iter().map(|(_, side)| side.io.descriptors()).sum();
        Usage {
            connections: self.connections.len(),
            sides: self.sides.len(),
            buffer_bytes: self.pools.blocks.taken() * self.pools.blocks.block_bytes(),
            pipes: self.pools.pipes.open(),
            descriptors: sides + self.listeners.len() + 2 * self.pools.pipes.open(),
        }
    }

    fn connection_status(&self, id: Id, connection: &Connection) -> ConnectionStatus {
        ConnectionStatus {
            id,
            description: self.described(connection).to_string(),
            listener: self.listeners.get(connection.listener as usize).map(|listener| listener.addr().to_string()),
            stage: connection.stage,
            user: connection.notes.as_ref().and_then(|notes| notes.user.clone()),
            age: Duration::from_millis(self.now_ms.saturating_sub(connection.opened_ms)),
            source: self.side_status(connection, Role::Source, connection.source),
            dest: connection.dest.map(|dest| self.side_status(connection, Role::Dest, dest)),
        }
    }

    fn side_status(&self, connection: &Connection, role: Role, id: Id) -> SideStatus {
        let (from, to) = (&connection.halves[role.out()], &connection.halves[role.into()]);
        let side = self.sides.get(id);
        SideStatus {
            endpoint: self.peer(id).to_string(),
            state: side.map_or(SideState::Idle, |side| side.state),
            bytes_in: from.bytes,
            bytes_out: to.bytes,
            congested: to.congested,
            queued: to.queued(),
            flags: flags(side.map(|side| side.ready).unwrap_or_default(), from, to),
        }
    }
}

fn flags(ready: crate::relay::side::Ready, from: &Half, to: &Half) -> Vec<&'static str> {
    let spliced = from.pipe.is_some() || (from.full_reads != NO_SPLICE && from.piped > 0);
    let facts = [
        (ready.readable, "readable"),
        (ready.writable, "writable"),
        (ready.fin || from.phase != Phase::Flowing, "fin"),
        (to.phase == Phase::Shut, "shut"),
        (spliced, "spliced"),
        (from.flow == Flow::Hold, "held"),
    ];
    facts.into_iter().filter(|fact| fact.0).map(|fact| fact.1).collect()
}

impl Snapshot {
    /// Adds what another loop of the same process is doing.
    pub fn add(&mut self, other: Snapshot) {
        self.stats.add(&other.stats);
        self.usage.connections += other.usage.connections;
        self.usage.sides += other.usage.sides;
        self.usage.buffer_bytes += other.usage.buffer_bytes;
        self.usage.pipes += other.usage.pipes;
        self.usage.descriptors += other.usage.descriptors;
        self.limits.connections += other.limits.connections;
        self.limits.buffer_bytes += other.limits.buffer_bytes;
        self.limits.pipes += other.limits.pipes;
        self.connections.extend(other.connections);
    }

    /// Connections that ended for each reason, those that happened only.
    pub fn closed(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::ALL.into_iter().zip(self.stats.closed).filter(|(_, count)| *count > 0)
    }
}
