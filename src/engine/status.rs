//! The status of a loop as plain data, for people, scripts and tests.

use std::time::Duration;

use crate::engine::core::Core;
use crate::engine::limits::Limits;
use crate::metrics::{Stats, Usage};
use crate::relay::connection::{Connection, Stage};
use crate::relay::half::{Flow, Half, NO_SPLICE, Phase};
use crate::relay::side::{Role, SideState};
use crate::types::id::Id;
use crate::types::reason::Reason;

/// The status of a loop at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Counts since the start of the loop.
    pub stats: Stats,
    /// The limits.
    pub limits: Limits,
    /// The current use of the limited resources.
    pub usage: Usage,
    /// The connections, in the order of their slots.
    pub connections: Vec<ConnectionStatus>,
}

/// The status of one connection.
#[derive(Clone, Debug)]
pub struct ConnectionStatus {
    /// The id.
    pub id: Id,
    /// The description; see [`ConnectionMut::description`](crate::ConnectionMut::description).
    pub description: String,
    /// The address of the listener that accepted the connection, if one did.
    pub listener: Option<String>,
    /// The stage.
    pub stage: Stage,
    /// The user, if the front end authenticated one.
    pub user: Option<Box<str>>,
    /// The address of the client, if the source is a stream of a link and the peer may tell it.
    pub client: Option<String>,
    /// The time since the connection was accepted or adopted.
    pub age: Duration,
    /// The source.
    pub source: SideStatus,
    /// The dest, if there is one.
    pub dest: Option<SideStatus>,
}

/// The status of one side of a connection.
#[derive(Clone, Debug)]
pub struct SideStatus {
    /// The address of the peer.
    pub endpoint: String,
    /// The state.
    pub state: SideState,
    /// Bytes relayed from the side: delivered to the other side, or consumed by the handler of the dest.
    pub bytes_in: u64,
    /// Bytes relayed to the side. Replies of a handler to a source do not count.
    pub bytes_out: u64,
    /// Number of writes that the side did not take in full.
    pub congested: u32,
    /// Bytes that wait to be written to the side.
    pub queued: usize,
    /// Flags: `readable`, `writable`, `fin` (the side has sent its FIN), `shut` (the FIN has been sent to the side),
    /// `spliced`, `held` (the input of the side is not read).
    pub flags: Vec<&'static str>,
}

impl Core {
    /// Returns the current status of the loop.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { connections: self.some_connections(None, usize::MAX), ..self.totals() }
    }

    /// Returns the current status without the connections.
    pub fn totals(&self) -> Snapshot {
        Snapshot {
            stats: self.stats.clone(),
            limits: self.config.limits.clone(),
            usage: self.usage(),
            connections: Vec::new(),
        }
    }

    /// Returns the status of at most `max` connections, from the slot after that of `after` on, or from the first slot on.
    /// Several calls for many connections delay the loop less than one call and need less memory at once.
    pub fn some_connections(&self, after: Option<Id>, max: usize) -> Vec<ConnectionStatus> {
        let from = after.map_or(0, |id| id.index() + 1);
        let some = self.connections.starting_at(from).take(max);
        some.map(|(id, connection)| self.connection_status(id, connection)).collect()
    }

    /// Returns the counts since the start of the loop.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Returns the current use of the limited resources.
    pub fn usage(&self) -> Usage {
        let sides: usize = self.sides.iter().map(|(_, side)| side.io.descriptors()).sum();
        Usage {
            connections: self.connections.len(),
            flows: self.datagrams.flows.len(),
            associations: self.datagrams.associations.len(),
            sides: self.sides.len(),
            buffer_bytes: self.pools.blocks.taken() * self.pools.blocks.block_bytes(),
            pipes: self.pools.splice_pipes.open(),
            descriptors: sides
                + self.listeners.len()
                + self.awaited.len()
                + self.datagrams.sockets_open()
                + 2 * self.pools.splice_pipes.open(),
        }
    }

    pub(crate) fn connection_status(&self, id: Id, connection: &Connection) -> ConnectionStatus {
        ConnectionStatus {
            id,
            description: self.described(connection).to_string(),
            listener: connection
                .listener
                .and_then(|id| self.listeners.get(id))
                .map(|listener| listener.addr.to_string()),
            stage: connection.stage,
            user: connection.notes.as_ref().and_then(|notes| notes.user.as_deref()).map(Box::from),
            client: self.told_client(connection).map(|client| client.to_string()),
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
    let spliced = from.splice_pipe.is_some() || (from.full_reads != NO_SPLICE && from.has_spliced);
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
    /// Adds the status of another loop of the same process.
    pub fn add(&mut self, other: Snapshot) {
        self.stats.add(&other.stats);
        self.usage.add(&other.usage);
        self.limits.connections += other.limits.connections;
        self.limits.buffer_bytes += other.limits.buffer_bytes;
        self.limits.pipes += other.limits.pipes;
        self.limits.flows += other.limits.flows;
        self.connections.extend(other.connections);
    }

    /// Iterates over the reasons with the number of connections that ended for each. Reasons without one are left out.
    pub fn closed(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::ALL.into_iter().zip(self.stats.closed).filter(|(_, count)| *count > 0)
    }
}
