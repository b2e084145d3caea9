//! The core: everything that a loop owns except its handlers and the control of its links, and the verbs on it.
//!
//! The core never calls a handler. It queues each notice, and the [`Proxy`](crate::Proxy), which owns the handlers beside
//! the core, delivers it. So a handler can borrow the whole core while it runs. A record that ends is marked and queued; the
//! reap at the end of the turn frees it.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Registry, Token};

use crate::engine::awaited::Awaited;
use crate::engine::caller_timer::CallerTimers;
use crate::engine::connector::Connector;
use crate::engine::control::{Deadline, Request};
use crate::engine::datagrams::Datagrams;
use crate::engine::discovery::Discoveries;
use crate::engine::ended::Ended;
use crate::engine::flow::DISCARD_BYTES_MAX;
use crate::engine::guarded::Guarded;
use crate::engine::handler::Handler;
use crate::engine::hooked::Hooked;
use crate::engine::key_accounts::KeyAccounts;
use crate::engine::limits::{Config, Limits};
use crate::engine::listener::{LISTENERS_MAX, Listener};
use crate::engine::log_limit::NetworkLogLimits;
use crate::engine::mailbox::{Mail, Mailbox, Remote};
use crate::engine::observer::{Event, Observer};
use crate::engine::profiles::Profiles;
use crate::engine::resolve::{Resolved, Resolver};
use crate::engine::side_view::SideData;
use crate::engine::sources::Sources;
use crate::engine::stopping::Stopping;
use crate::engine::tally::Tally;
use crate::engine::watch::Watches;
use crate::engine::workers::Workers;
use crate::link::Time;
use crate::metrics::Stats;
use crate::relay::block::BlockPool;
use crate::relay::connection::{Connection, Stage};
use crate::relay::half::{Flow, Phase, UNLIMITED};
use crate::relay::io::Io;
use crate::relay::pump::Pools;
use crate::relay::side::{Owner, Role, Side, SideState};
use crate::relay::splice_pipe::SplicePipePool;
use crate::relay::timer::{OneOffs, TimerClass, TimerLists};
use crate::streams::Sessions;
use crate::types::address::{Endpoint, Target};
use crate::types::companions::Companions;
use crate::types::id::{Id, Kind, Table};
use crate::types::label::Label;
use crate::types::reason::Failure;

/// The connections, sides, listeners, pools and timers of one loop, and the verbs on them.
pub struct Core {
    pub(crate) config: Config,
    pub(crate) registry: Registry,
    pub(crate) connections: Table<Connection>,
    pub(crate) sides: Table<Side>,
    pub(crate) listeners: Table<Box<Listener>>,
    /// The sockets of UDP listeners, and the flows.
    pub(crate) datagrams: Datagrams,
    pub(crate) pools: Pools,
    pub(crate) timers: TimerLists,
    pub(crate) profiles: Profiles,
    pub(crate) hooks: Companions<Hooked>,
    pub(crate) one_offs: OneOffs<OneOff>,
    /// The sides that run at a time of the loop in microseconds: a millisecond is too coarse for their carriers.
    pub(crate) alarms: BTreeSet<(u64, Id)>,
    /// The entries [`OneOff::Wake`], of which some may be of connections that are over.
    pub(crate) wakes: usize,
    pub(crate) caller_timers: CallerTimers,
    pub(crate) watches: Watches,
    /// The connections whose dests are to connect to this node.
    pub(crate) awaited: Vec<Awaited>,
    pub(crate) resolver: Resolver,
    pub(crate) discoveries: Discoveries,
    pub(crate) workers: Option<Arc<Workers>>,
    pub(crate) sources: Arc<Sources>,
    /// Resources that each key of a peer uses.
    pub(crate) peers: KeyAccounts,
    /// Log limits of networks: one for failed authentications, one for all other lines.
    pub(crate) network_log_limits: [NetworkLogLimits; 2],
    /// A report of suppressed log lines is scheduled.
    pub(crate) reports_suppressed: bool,
    pub(crate) connector: Option<Box<dyn Connector>>,
    /// The addresses that clients and peers may not reach.
    pub(crate) guarded: Guarded,
    pub(crate) mailbox: Arc<Mailbox>,
    /// The number of the loop in its process.
    pub(crate) number: usize,
    pub(crate) stats: Stats,
    pub(crate) queues: Queues,
    pub(crate) stopping: Stopping,
    pub(crate) descriptors: Descriptors,
    /// The sums of the forwards whose clients the peers of links accept.
    pub(crate) tallies: HashMap<Id, Tally>,
    /// The names of the groups of links that a route may have in place of a link.
    pub(crate) link_groups: HashMap<Id, Arc<str>>,
    pub(crate) racers: usize,
    /// Turns left during which bulk transfers use the reduced per-turn budget.
    pub(crate) interactive_turns: u32,
    pub(crate) now_ms: u64,
    /// The connection whose handler runs [`Handler::opened`]. No read of its input was tried yet.
    pub(crate) opening: Option<Id>,
    /// The data that programs keep with sides.
    pub(crate) side_data: SideData,
    /// The last records that ended.
    pub(crate) ended: Ended,
    /// There is an observer, so that events are queued.
    pub(crate) is_observed: bool,
    born: Instant,
}

/// Work that waits for its turn.
#[derive(Default)]
pub(crate) struct Queues {
    /// Sides and listeners with work.
    pub run: VecDeque<Run>,
    /// Results of dials that no handler was told yet.
    pub dialled: VecDeque<(Id, Result<(), Failure>)>,
    /// Handlers that take over when the call that installed them returns.
    pub handlers: VecDeque<(Id, Box<dyn Handler>)>,
    /// Sides that are gone. Their handlers are dropped when no call runs.
    pub freed: Vec<Id>,
    /// Sides whose half got no block.
    pub no_block: VecDeque<Id>,
    /// Connections that are over.
    pub closed: Vec<Id>,
    /// Listeners that pause because the connection table is full.
    pub full: Vec<Id>,
    /// The current turn, and the connections accepted in it.
    pub accepts: (u64, usize),
    /// Names that were looked up, with the dests to connect; the names take turns.
    pub found: VecDeque<(VecDeque<Id>, Rc<Resolved>)>,
    /// Mails that were taken out of the mailbox and not handled yet.
    pub mails: VecDeque<Mail>,
    /// Requests to the control of links.
    pub requests: VecDeque<Request>,
    /// Events that the observer was not told yet. Empty without an observer.
    pub events: VecDeque<Event>,
    /// The observer that takes over when the running call returns.
    pub observer: Option<Box<dyn Observer>>,
}

/// An entry of the run queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    Side(Id),
    Listener(Id),
    /// The socket of a UDP listener or of a flow.
    Datagrams(Id),
}

/// A deadline that belongs to no class of timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum OneOff {
    /// Try the next address beside the one that has not answered.
    NextAddress(Id),
    /// Connect again on the socket that was refused; see [`Egress::simultaneous`](crate::Egress::simultaneous).
    ConnectAgain(Id),
    /// Check if there are descriptors again.
    Descriptors,
    /// Pass the reset of a connection's side on. The last field is the time since the last check, in milliseconds.
    Reset(Id, Role, u32),
    /// Discard more input of a connection's side, which is still owed bytes.
    Discard(Id, Role),
    /// End the connections that a drain still waits for.
    Drained,
    /// A deadline of the control of links.
    Control(Deadline),
    /// Wake the handler of a connection's source.
    Wake(Id),
    /// Report the number of suppressed log lines.
    SuppressedLines,
    /// Look an upstream of a discovery up again.
    Discovery(u64, u32),
}

/// Work that waits for descriptors.
#[derive(Default)]
pub(crate) struct Descriptors {
    /// Descriptors were short since the last check.
    pub short: bool,
    /// Time of the warning in the log, until there are descriptors again.
    pub since_ms: Option<u64>,
    pub listeners: Vec<Id>,
    pub dials: VecDeque<Id>,
}

impl Core {
    pub(crate) fn new(
        config: Config,
        registry: Registry,
        mailbox: Arc<Mailbox>,
        workers: Option<Arc<Workers>>,
    ) -> Core {
        let limits = &config.limits;
        let mut timers = TimerLists::new(limits.connections);
        let profiles = Profiles::new(&config, &mut timers);
        let name_cache_ms = config.timeouts.name_cache.as_millis() as u64;
        Core {
            connections: Table::new(Kind::Connection, limits.connections),
            sides: Table::new(Kind::Side, limits.sides()),
            listeners: Table::new(Kind::Listener, LISTENERS_MAX),
            datagrams: Datagrams::new(limits),
            pools: Pools {
                blocks: BlockPool::new(limits.block_bytes.max(Limits::BLOCK_BYTES_MIN), limits.buffer_bytes),
                splice_pipes: SplicePipePool::new(limits.pipe_bytes, limits.pipes),
                sessions: Sessions::new(),
            },
            timers,
            profiles,
            hooks: Companions::new(),
            one_offs: OneOffs::new(),
            alarms: BTreeSet::new(),
            wakes: 0,
            caller_timers: CallerTimers::new(limits.timers),
            awaited: Vec::new(),
            watches: Watches::new(limits.watches),
            resolver: Resolver::new(limits.cached_names, name_cache_ms),
            discoveries: Discoveries::default(),
            workers,
            sources: Sources::new(limits.connections_per_source),
            peers: KeyAccounts::default(),
            network_log_limits: Default::default(),
            reports_suppressed: false,
            connector: None,
            guarded: Guarded::default(),
            mailbox,
            number: 0,
            stats: Stats::default(),
            queues: Queues::default(),
            stopping: Stopping::No,
            descriptors: Descriptors::default(),
            tallies: HashMap::new(),
            link_groups: HashMap::new(),
            racers: 0,
            interactive_turns: 0,
            now_ms: 0,
            opening: None,
            side_data: SideData::default(),
            ended: Ended::new(limits.ended_records),
            is_observed: false,
            born: Instant::now(),
            registry,
            config,
        }
    }

    /// Returns the configuration of the loop.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns a handle of the loop for other threads.
    pub fn remote(&self) -> Remote {
        Remote(Arc::clone(&self.mailbox))
    }

    /// Returns the number of the loop among the [`Loops`](crate::Loops) of its process; the first is 0.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Sets a connector, which connects the targets that it wants in place of the loop. See [`Connector`].
    pub fn set_connector(&mut self, connector: Box<dyn Connector>) {
        self.connector = Some(connector);
    }

    /// Sets the requested target for the log, if it will not be connected. Does nothing while a target is being connected,
    /// because that one is the requested target.
    pub(crate) fn set_asked(&mut self, connection: Id, target: Rc<Target>) {
        if self.dialing(connection).is_none()
            && let Some(connection) = self.connections.get_mut(connection)
        {
            connection.asked = Some(target);
        }
    }

    /// Returns one side of a connection.
    pub(crate) fn side(&self, connection: Id, role: Role) -> Option<Id> {
        self.connections.get(connection)?.side(role)
    }

    /// Returns the connection that a side belongs to, and which side of it this is.
    pub(crate) fn owner(&self, side: Id) -> Option<(Id, Role)> {
        match self.sides.get(side)?.owner {
            Owner::Connection(connection, role) => Some((connection, role)),
            Owner::Race(_) | Owner::Carrier(_) | Owner::Flow(..) => None,
        }
    }

    /// Returns the state of a side.
    pub(crate) fn state(&self, side: Id) -> Option<SideState> {
        Some(self.sides.get(side)?.state)
    }

    /// Returns the address of the peer of a side's socket.
    pub(crate) fn peer(&self, side: Id) -> Endpoint {
        self.sides.get(side).map_or(Endpoint::Unknown, |side| side.endpoint.clone())
    }

    /// Relays both directions until the connection ends. Input that no handler has consumed is relayed first.
    pub(crate) fn relay(&mut self, connection: Id) {
        self.relay_bytes(connection, Role::Source, UNLIMITED);
        self.relay_bytes(connection, Role::Dest, UNLIMITED);
        self.set_stage(connection, Stage::Established);
        log::debug!(target: "seaprox::connection", id = connection.to_string(); "relaying");
    }

    /// Schedules the wake-up of the source's handler of a connection. Wake-ups of connections that are over are dropped
    /// when there are more of them than there can be connections, so their number is bounded.
    pub(crate) fn push_wake(&mut self, connection: Id, time: Duration) {
        let capacity = self.connections.capacity();
        if self.wakes >= 2 * capacity {
            let connections = &self.connections;
            self.one_offs.retain(|entry| !matches!(entry, OneOff::Wake(id) if connections.get(*id).is_none()));
            let is_waking = |record: &Connection| record.notes.as_ref().is_some_and(|notes| notes.is_waking);
            // The one that is pushed now counts below.
            self.wakes = connections.iter().filter(|(_, record)| is_waking(record)).count().saturating_sub(1);
        }
        self.wakes += 1;
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.one_offs.push(self.now_ms.saturating_add(ms), OneOff::Wake(connection));
    }

    /// Notes that the time of a wake-up has passed.
    pub(crate) fn end_wake(&mut self, connection: Id) {
        self.wakes = self.wakes.saturating_sub(1);
        if let Some(notes) = self.connections.get_mut(connection).and_then(|record| record.notes.as_mut()) {
            notes.is_waking = false;
        }
    }

    /// Relays the next `count` bytes of one side's input to the other side. Then the input is the handler's again.
    pub(crate) fn relay_bytes(&mut self, connection: Id, from: Role, count: u64) {
        let Some(record) = self.connections.get_mut(connection) else { return };
        let half = &mut record.halves[from.out()];
        if half.dead && half.phase != Phase::Shut {
            (half.flow, half.left) = (Flow::Discard, DISCARD_BYTES_MAX);
        } else if half.phase != Phase::Shut {
            let flow = if half.exchange.is_some() { Flow::Hooked } else { Flow::Relay };
            (half.flow, half.left) = (flow, count);
            if flow == Flow::Hooked {
                self.hook_connected(connection);
            }
        }
        let Some(record) = self.connections.get_mut(connection) else { return };
        if let Some(side) = record.side(from) {
            self.enqueue(side);
        }
    }

    /// Sets the stage of a connection, and starts the timer of that stage.
    pub(crate) fn set_stage(&mut self, connection: Id, stage: Stage) {
        if let Some(record) = self.connections.get_mut(connection)
            && record.stage != Stage::Closed
        {
            record.stage = stage;
            self.start_timer(connection);
        }
    }

    /// Starts the timer for the present stage of a connection.
    pub(crate) fn start_timer(&mut self, connection: Id) {
        if let Some(record) = self.connections.get(connection) {
            let profile = &self.profiles[record.profile];
            let timeouts = &profile.settings.timeouts;
            let delays = profile.delays_keepalive() && !record.has_keepalive;
            let is_long = timeouts.half_closed > KEEPALIVE_DELAYS_MIN * timeouts.keepalive_delay;
            let class = match record.timer_class() {
                Some(TimerClass::HalfClosed) if timeouts.half_closed.is_zero() => Some(TimerClass::Idle),
                Some(TimerClass::Idle) if delays => Some(TimerClass::TcpKeepaliveDelay),
                // A half-closed connection that lasts needs keepalive too. A short half-closed timer ends the connection
                // soon enough; a long one may fire later by the delay.
                Some(TimerClass::HalfClosed) if delays && is_long => Some(TimerClass::TcpKeepaliveDelay),
                class => class,
            };
            self.timers.set(connection, profile.durations, class, self.now_ms);
        }
    }

    /// Enables TCP keepalive at the dest of a connection that has lasted for the delay.
    pub(crate) fn enable_keepalive(&mut self, connection: Id) {
        let Some(record) = self.connections.get_mut(connection) else { return };
        record.has_keepalive = true;
        if let Some(dest) = record.dest.and_then(|dest| self.sides.get(dest)) {
            dest.io.set_keepalive(self.profiles[record.profile].settings.tcp_keepalive);
        }
        self.start_timer(connection);
    }

    /// Returns the stage of a connection.
    pub(crate) fn stage(&self, connection: Id) -> Option<Stage> {
        Some(self.connections.get(connection)?.stage)
    }

    /// Makes the side of a dest that is to be connected. Returns none if the connection has a dest.
    pub(crate) fn new_dest(&mut self, connection: Id, target: Option<&Rc<Target>>) -> Option<Id> {
        let record = self.connections.get_mut(connection)?;
        if record.dest.is_some() || record.stage == Stage::Closed {
            return None;
        }
        let side =
            Side::new(Owner::Connection(connection, Role::Dest), SideState::Connecting, Io::None, Endpoint::Unknown);
        let Ok(dest) = self.sides.insert(side) else {
            debug_assert!(false, "the table has two sides for each connection");
            return None;
        };
        record.dest = Some(dest);
        record.asked = target.cloned();
        record.dial_since_ms = self.now_ms;
        if record.halves[Role::Source.out()].flow == Flow::Handler {
            record.halves[Role::Source.out()].flow = Flow::Hold;
        }
        self.set_stage(connection, Stage::Connecting);
        self.observe(Event::ConnectionConnecting { connection });
        Some(dest)
    }

    /// Makes a connection whose source is a connected socket or a stream.
    pub(crate) fn adopt_io(
        &mut self,
        mut io: Io,
        endpoint: Endpoint,
        kind: impl Into<Label>,
        listener: Option<Id>,
        handler: Box<dyn Handler>,
    ) -> Result<Id, (Io, io::Error)> {
        let (Some(connection), Some(source)) = (self.connections.next_id(), self.sides.next_id()) else {
            return Err((io, io::Error::other("connection limit reached")));
        };
        let unpollable = match io.register(&self.registry, Token(source.to_u64() as usize)) {
            Ok(unpollable) => unpollable,
            Err(error) => return Err((io, error)),
        };
        let mut side = Side::new(Owner::Connection(connection, Role::Source), SideState::Connected, io, endpoint);
        side.set_unpollable(unpollable);
        let (mut profile, mut via) = (self.profiles.of_loop(), None);
        if let Some(listener) = listener.and_then(|listener| self.listeners.get_mut(listener)) {
            listener.active += 1;
            (profile, via) = (listener.profile, listener.link());
        }
        self.profiles.keep(profile);
        let record = Connection { via, ..Connection::new(source, kind.into(), listener, profile, self.now_ms) };
        let placed = self.sides.insert(side).is_ok() && self.connections.insert(record).is_ok();
        debug_assert!(placed, "both tables had room");
        self.stats.opened += 1;
        let from = self.peer(source);
        log::debug!(target: "seaprox::connection", id = connection.to_string(), from = from.to_string(); "accepted");
        self.set_stage(connection, Stage::Handshake);
        self.observe(Event::ConnectionOpened { connection });
        self.queues.handlers.push_back((source, handler));
        if unpollable.read {
            // No event will tell that there is something to read.
            self.enqueue(source);
        }
        Ok(connection)
    }

    /// Puts a side in the queue for a block, once.
    pub(crate) fn wait_for_block(&mut self, side: Id) {
        self.stats.block_waits += 1;
        if let Some(record) = self.sides.get_mut(side)
            && !std::mem::replace(&mut record.ready.waits, true)
        {
            self.queues.no_block.push_back(side);
        }
    }

    /// Puts a side in the run queue, once.
    pub(crate) fn enqueue(&mut self, side: Id) {
        if let Some(record) = self.sides.get_mut(side)
            && !std::mem::replace(&mut record.ready.queued, true)
        {
            self.queues.run.push_back(Run::Side(side));
        }
    }

    /// Queues a side at a time of the loop in microseconds, and no more at the time `before`.
    pub(crate) fn enqueue_at(&mut self, side: Id, at_us: u64, before: Option<u64>) {
        before.into_iter().for_each(|before| self.cancel_alarm(side, before));
        self.alarms.insert((at_us, side));
    }

    /// Takes back that a side is queued at a time.
    pub(crate) fn cancel_alarm(&mut self, side: Id, at_us: u64) {
        self.alarms.remove(&(at_us, side));
    }

    /// Queues the sides whose time has come.
    pub(crate) fn enqueue_due(&mut self) {
        let now_us = self.pools.sessions.now.as_us();
        while let Some((_, side)) = self.alarms.first().filter(|(at_us, _)| *at_us <= now_us).copied() {
            self.alarms.pop_first();
            self.enqueue(side);
        }
    }

    /// Takes a side out of the run queue if it is the last entry, because it has run in the meantime.
    pub(crate) fn unqueue(&mut self, side: Id) {
        if self.queues.run.back() == Some(&Run::Side(side)) {
            self.queues.run.pop_back();
            self.sides.get_mut(side).into_iter().for_each(|record| record.ready.queued = false);
        }
    }

    /// Frees a side, and the attempts beside it.
    pub(crate) fn drop_side(&mut self, side: Id) {
        self.queues.freed.push(side);
        self.side_data.remove(side);
        let Some(record) = self.sides.remove(side) else { return };
        if record.state == SideState::Connecting {
            self.cancel_dial(side);
        }
        if let Some(stream) = record.io.stream() {
            self.pools.sessions.release(stream);
        }
        if let Some(dial) = record.dial {
            dial.racers.into_iter().for_each(|racer| self.drop_racer(racer));
        }
    }

    /// Frees an attempt beside a dest's own socket.
    pub(crate) fn drop_racer(&mut self, racer: Id) {
        if self.sides.remove(racer).is_some() {
            self.racers -= 1;
        }
    }

    /// Reads the clock, at the start of a turn and after the poll.
    pub(crate) fn tick(&mut self) {
        let age = self.born.elapsed();
        self.now_ms = age.as_millis() as u64;
        self.pools.sessions.now = Time::from_us(age.as_micros() as u64);
    }

    /// Returns the time since the start of the loop. This reads the clock.
    pub(crate) fn age(&self) -> Duration {
        self.born.elapsed()
    }

    /// Returns the next deadline.
    pub(crate) fn next_deadline_ms(&self) -> Option<u64> {
        let flows = self.datagrams.flows.next_ms();
        [self.timers.next_ms(), self.one_offs.next_ms(), self.caller_timers.next_ms(), flows]
            .into_iter()
            .flatten()
            .min()
    }

    /// Returns true if handlers or requests wait for the beginning of the next turn.
    pub(crate) fn is_unsettled(&self) -> bool {
        let queues = &self.queues;
        !queues.handlers.is_empty() || !queues.requests.is_empty() || !queues.events.is_empty()
    }

    /// Returns true if the next turn has work, so that the loop must not sleep.
    pub(crate) fn is_busy(&self) -> bool {
        !self.queues.run.is_empty()
            || !self.queues.dialled.is_empty()
            || !self.queues.found.is_empty()
            || !self.queues.mails.is_empty()
            || !self.queues.closed.is_empty()
            || !self.queues.events.is_empty()
            || !self.datagrams.told.is_empty()
            || !self.watches.is_idle()
            || !self.pools.sessions.dirty.is_empty()
            || (!self.queues.no_block.is_empty() && self.pools.blocks.available() > 0)
    }
}

/// A half-closed timer of so many keepalive delays may fire late by one of them.
const KEEPALIVE_DELAYS_MIN: u32 = 12;
