//! The reporter: collects the status of all loops and writes it to a client or to the log.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use seaprox::node::{ForwardStatus, LinkStatus};
use seaprox::{Full, Id, LinkState, ListenerStatus, Loop, Pending, Remote, Snapshot, Stage, Workers};
use serde_json::{Value, json};

use super::clients::{CLIENTS_MAX, Clients};
use super::events::{Events, READERS_MAX};
use super::shared::Shared;
use super::{document, forwards, links, listeners, prometheus, text};

/// The facts that a process reports of itself, and the loops that it asks for the rest.
pub struct Reporter {
    command: &'static str,
    /// The listen addresses, as they were announced.
    listening: Mutex<Vec<String>>,
    remotes: Vec<Remote>,
    workers: Arc<Workers>,
    started: Instant,
    /// True while a thread writes the status to the log.
    is_logging: AtomicBool,
    /// True once the process accepts nothing more.
    is_draining: AtomicBool,
    /// The metrics that were collected last.
    scraped: Shared<Result<Arc<str>, String>>,
    /// The last answer about the loops.
    health: Shared<Result<(), String>>,
    /// The last answer about the loops and the links.
    readiness: Shared<Result<(), NotReady>>,
    /// The events of the process, for readers of the admin server.
    pub events: Events,
    /// The use of the admin server.
    pub admin: AdminUse,
}

/// The clients and the requests of the admin server.
#[derive(Default)]
pub struct AdminUse {
    /// The clients over TCP.
    pub tcp: Arc<Clients>,
    /// The clients over Unix sockets.
    pub unix: Arc<Clients>,
    /// Requests that were read.
    pub requests: AtomicU64,
}

/// The reason for which a process is not ready for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotReady {
    /// The process accepts nothing more.
    Draining,
    /// A loop does not answer.
    Silent,
    /// The links of these names are not up.
    Down(Vec<String>),
}

impl NotReady {
    /// Returns the reason for a client that may not read names.
    pub fn without_names(&self) -> String {
        match self {
            NotReady::Down(names) if names.len() == 1 => "not up: 1 link".to_owned(),
            NotReady::Down(names) => format!("not up: {} links", names.len()),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotReady::Draining => f.write_str("the process is draining"),
            NotReady::Silent => f.write_str("the event loops do not answer"),
            NotReady::Down(names) => {
                let names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
                write!(f, "not up: link {}", names.join(", "))
            }
        }
    }
}

impl Reporter {
    /// Creates the reporter of a process that starts now.
    pub fn new(command: &'static str, listening: Vec<String>, remotes: Vec<Remote>, workers: Arc<Workers>) -> Reporter {
        let (started, is_logging, listening) = (Instant::now(), AtomicBool::new(false), Mutex::new(listening));
        Reporter {
            command,
            listening,
            events: Events::new(remotes.clone()),
            remotes,
            workers,
            started,
            is_logging,
            is_draining: AtomicBool::new(false),
            scraped: Shared::default(),
            health: Shared::default(),
            readiness: Shared::default(),
            admin: AdminUse::default(),
        }
    }

    /// Sets the listen addresses, which a reload has changed.
    pub fn set_listening(&self, listening: Vec<String>) {
        *self.listening.lock().unwrap_or_else(PoisonError::into_inner) = listening;
    }

    /// Keeps the clients and the peers of all loops away from these addresses of the process itself.
    ///
    /// # Errors
    /// A loop has no room for the call.
    pub fn guard(&self, addresses: &[SocketAddr]) -> Result<(), Full> {
        self.remotes.iter().try_for_each(|remote| {
            let addresses = addresses.to_vec();
            remote.call(move |core| core.set_guarded_addresses(addresses))
        })
    }

    /// Returns an error that names the loops that do not answer. Clients that ask at the same time share the answer, and it
    /// holds for [`KEPT`](super::shared::KEPT) if a loop does not answer: so a silent loop does not keep the threads of many clients.
    ///
    /// # Errors
    /// A loop does not answer in time, or has ended.
    pub fn check_loops(&self) -> Result<(), String> {
        self.health.get(Result::is_err, || self.ask_loops())
    }

    fn ask_loops(&self) -> Result<(), String> {
        let until = Instant::now() + LOOP_TIMEOUT;
        let asked: Vec<_> = self.remotes.iter().map(|remote| remote.ask(|_| ())).collect();
        let left = || until.saturating_duration_since(Instant::now());
        let is_answered =
            |pending: Result<Pending<()>, _>| pending.is_ok_and(|it| matches!(it.wait_for(left()), Ok(Some(()))));
        let silent: Vec<String> =
            (0_usize..).zip(asked).filter_map(|(number, it)| (!is_answered(it)).then(|| number.to_string())).collect();
        if silent.is_empty() { Ok(()) } else { Err(format!("event loop {} does not answer", silent.join(", "))) }
    }

    /// Notes that the process accepts nothing more.
    pub fn set_draining(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
        self.events.tell(json!({ "event": "drain" }));
    }

    /// Returns an error that says why the process is not ready for clients: it is draining, a loop does not answer, or a link
    /// that this node dials is not up. Of the links to several servers of one record, one is enough. Clients share an answer as
    /// they share that of [`Reporter::check_loops`].
    ///
    /// # Errors
    /// The process is not ready.
    pub fn check_readiness(&self) -> Result<(), NotReady> {
        if self.is_draining.load(Ordering::Relaxed) {
            return Err(NotReady::Draining);
        }
        self.readiness.get(|last| *last == Err(NotReady::Silent), || self.ask_links())
    }

    fn ask_links(&self) -> Result<(), NotReady> {
        let mut down = Vec::new();
        for remote in &self.remotes {
            down.extend(ask_loop(remote, groups_down).ok_or(NotReady::Silent)?);
        }
        if down.is_empty() { Ok(()) } else { Err(NotReady::Down(down)) }
    }

    /// Writes the whole status as one JSON document with a final newline: the summary, then the flows of datagrams, and the
    /// connections as its last member.
    ///
    /// # Errors
    /// Fails if `out` fails, or if a loop does not answer in time.
    pub fn write(&self, out: &mut impl Write, summary: &Value, most: usize) -> io::Result<()> {
        let mut document = serde_json::to_string(summary)?;
        document.truncate(document.len() - 1);
        write!(out, "{document},\"flows\":[")?;
        write_flows(out, &self.remotes, most)?;
        out.write_all(b"],\"connections\":[")?;
        write_connections(out, &self.remotes, most)?;
        out.write_all(b"]}\n")
    }

    /// Returns the metrics of the process in the text format of Prometheus. They are at most [`KEPT`](super::shared::KEPT) old: clients
    /// that ask in between share them, because each collection asks the loops about all connections. They share a failure too.
    ///
    /// # Errors
    /// Fails if a loop does not answer in time.
    pub fn metrics(&self) -> Result<Arc<str>, String> {
        let collect = || self.collect_metrics().map(Arc::from).map_err(|error| error.to_string());
        self.scraped.get(|_| true, collect)
    }

    fn collect_metrics(&self) -> io::Result<String> {
        let stages = settle(&self.remotes).ok_or(io::ErrorKind::TimedOut)?;
        let totals = totals(&self.remotes).ok_or(io::ErrorKind::TimedOut)?;
        let Totals { sum, links, forwards, listeners } = &totals;
        let scrape = prometheus::Scrape { totals: sum, listeners, links, forwards, stages: &stages };
        prometheus::text(&scrape).map_err(io::Error::other)
    }

    /// Writes the status as text, one call of `write_line` for each line, with the first connections. A thread does the
    /// work; a request that comes while it runs is dropped.
    pub fn log(self: &Arc<Self>, write_line: fn(&str)) {
        if self.is_logging.swap(true, Ordering::Relaxed) {
            return;
        }
        let reporter = Arc::clone(self);
        let body = move || {
            match reporter.summary() {
                Some(status) => reporter.log_status(status, write_line),
                None => write_line("the event loops do not answer"),
            }
            reporter.is_logging.store(false, Ordering::Relaxed);
        };
        if thread::Builder::new().name("report".into()).spawn(body).is_err() {
            self.is_logging.store(false, Ordering::Relaxed);
        }
    }

    fn log_status(&self, mut status: Value, write_line: fn(&str)) {
        let mut all = Vec::new();
        for (thread, remote) in self.remotes.iter().enumerate() {
            let some = ask_loop(remote, |core| core.some_connections(None, CONNECTIONS_LOGGED)).unwrap_or_default();
            all.extend(some.iter().map(|connection| document::connection(connection, thread)));
        }
        all.truncate(CONNECTIONS_LOGGED);
        status["connections"] = all.into();
        let mut flows = Vec::new();
        for (thread, remote) in self.remotes.iter().enumerate() {
            let some = ask_loop(remote, |core| core.some_flows(None, CONNECTIONS_LOGGED)).unwrap_or_default();
            flows.extend(some.iter().map(|flow| document::flow(flow, thread)));
        }
        flows.truncate(CONNECTIONS_LOGGED);
        status["flows"] = flows.into();
        let count = status.pointer("/usage/connections").and_then(Value::as_u64).unwrap_or(0);
        text::to_text(status).lines().for_each(write_line);
        let more = count.saturating_sub(CONNECTIONS_LOGGED as u64);
        if more > 0 {
            write_line(&format!("and {more} more connections, which seaprox status lists"));
        }
    }

    /// Returns the status without the connections; none if a loop does not answer.
    pub fn summary(&self) -> Option<Value> {
        settle(&self.remotes)?;
        let Totals { sum, links, forwards, listeners } = totals(&self.remotes)?;
        let mut status = document::process(&sum, self.remotes.len(), &self.workers.done(), self.started.elapsed());
        status["command"] = self.command.into();
        status["draining"] = self.is_draining.load(Ordering::Relaxed).into();
        let AdminUse { tcp, unix, requests } = &self.admin;
        status["admin"] = json!({
            "clients": tcp.count() + unix.count(),
            "requests": requests.load(Ordering::Relaxed),
            "refused_clients": tcp.refused.load(Ordering::Relaxed) + unix.refused.load(Ordering::Relaxed),
            "event_readers": self.events.readers(),
            "dropped_events": self.events.dropped(),
        });
        status["limits"]["admin_clients"] = CLIENTS_MAX.into();
        status["limits"]["admin_event_readers"] = READERS_MAX.into();
        status["listening"] = self.listening.lock().unwrap_or_else(PoisonError::into_inner).clone().into();
        status["listeners"] = listeners.iter().map(listeners::to_json).collect();
        status["links"] = links.iter().map(links::to_json).collect();
        status["forwards"] = forwards.iter().map(forwards::to_json).collect();
        Some(status)
    }
}

/// Returns the whole status of one loop as JSON, in the thread of that loop: at most `most` connections, and as many flows.
pub fn status_of(core: &mut Loop<'_>, workers: &[u64], uptime: Duration, most: usize) -> Value {
    settle_all(core);
    let mut status = document::process(&core.totals(), 1, workers, uptime);
    status["draining"] = core.is_draining().into();
    status["listeners"] = clients_listeners(core).iter().map(listeners::to_json).collect();
    status["links"] = core.links().iter().map(links::to_json).collect();
    status["forwards"] = core.forwards().iter().map(forwards::to_json).collect();
    status["flows"] = core.some_flows(None, most).iter().map(|flow| document::flow(flow, 0)).collect();
    let some = core.some_connections(None, most);
    status["connections"] = some.iter().map(|connection| document::connection(connection, 0)).collect();
    status
}

/// Returns the metrics of one loop in the text format of Prometheus, in the thread of that loop.
///
/// # Errors
/// Fails if a metric cannot be encoded.
pub fn metrics_of(core: &mut Loop<'_>) -> Result<String, fmt::Error> {
    let stages = settle_all(core);
    let (totals, links, forwards) = (core.totals(), core.links(), core.forwards());
    let listeners = clients_listeners(core);
    let scrape = prometheus::Scrape {
        totals: &totals,
        listeners: &listeners,
        links: &links,
        forwards: &forwards,
        stages: &stages,
    };
    prometheus::text(&scrape)
}

fn clients_listeners(core: &Loop<'_>) -> Vec<ListenerStatus> {
    let mut all = Vec::new();
    listeners::add(&mut all, core.listeners());
    all
}

/// Adds the bytes of all running connections of one loop to the sums of their listeners.
fn settle_all(core: &mut Loop<'_>) -> StagesByName {
    let (mut all, mut after) = (StagesByName::new(), None);
    while let Some((last, stages)) = settle_some(core, after) {
        stages.into_iter().for_each(|(key, count)| *all.entry(key).or_default() += count);
        after = Some(last);
    }
    all
}

/// Writes the connections of all loops, some at a time, so that a process with many connections holds the text of a few.
fn write_connections(out: &mut impl Write, remotes: &[Remote], most: usize) -> io::Result<()> {
    let mut left = most;
    for (thread, remote) in remotes.iter().enumerate() {
        let mut after = None;
        loop {
            let wanted = left.min(CONNECTIONS_PER_CALL);
            let some =
                ask_loop(remote, move |core| core.some_connections(after, wanted)).ok_or(io::ErrorKind::TimedOut)?;
            for connection in &some {
                out.write_all(if left == most { b"" } else { b"," })?;
                serde_json::to_writer(&mut *out, &document::connection(connection, thread))?;
                left -= 1;
            }
            after = some.last().map(|connection| connection.id);
            if some.len() < CONNECTIONS_PER_CALL {
                break;
            }
        }
    }
    Ok(())
}

/// Writes the flows of all loops, some at a time.
fn write_flows(out: &mut impl Write, remotes: &[Remote], most: usize) -> io::Result<()> {
    let mut left = most;
    for (thread, remote) in remotes.iter().enumerate() {
        let mut after = None;
        loop {
            let wanted = left.min(CONNECTIONS_PER_CALL);
            let some = ask_loop(remote, move |core| core.some_flows(after, wanted)).ok_or(io::ErrorKind::TimedOut)?;
            for flow in &some {
                out.write_all(if left == most { b"" } else { b"," })?;
                serde_json::to_writer(&mut *out, &document::flow(flow, thread))?;
                left -= 1;
            }
            after = some.last().map(|flow| flow.id);
            if some.len() < CONNECTIONS_PER_CALL {
                break;
            }
        }
    }
    Ok(())
}

/// The number of connections at each stage, by the name of their listener; an empty name if they have none.
pub type StagesByName = HashMap<(String, Stage), usize>;

/// Adds the bytes of running connections to the sums of all loops, some connections at a time. Returns none if a loop does
/// not answer.
fn settle(remotes: &[Remote]) -> Option<StagesByName> {
    let mut all = StagesByName::new();
    for remote in remotes {
        let mut after = None;
        while let Some((last, stages)) = ask_loop(remote, move |core| settle_some(core, after))? {
            stages.into_iter().for_each(|(key, count)| *all.entry(key).or_default() += count);
            after = Some(last);
        }
    }
    Some(all)
}

fn settle_some(core: &mut Loop<'_>, after: Option<Id>) -> Option<(Id, StagesByName)> {
    let (last, stages) = core.settle(after, CONNECTIONS_PER_SETTLE)?;
    let mut named = StagesByName::new();
    for ((listener, stage), count) in stages {
        let name = listener.and_then(|id| core.listener(id).ok().map(|listener| listener.name().to_owned()));
        *named.entry((name.unwrap_or_default(), stage)).or_default() += count;
    }
    Some((last, named))
}

/// The sums of all loops, and their records other than connections.
struct Totals {
    sum: Snapshot,
    links: Vec<LinkStatus>,
    forwards: Vec<ForwardStatus>,
    listeners: Vec<ListenerStatus>,
}

/// Returns the sums of all loops, their links, forwards and listeners; none if a loop does not answer.
fn totals(remotes: &[Remote]) -> Option<Totals> {
    let (mut sum, mut all_links, mut all_forwards, mut all_listeners) =
        (None::<Snapshot>, Vec::new(), Vec::new(), Vec::new());
    for remote in remotes {
        let (totals, links, forwards, of_loop) =
            ask_loop(remote, |core| (core.totals(), core.links(), core.forwards(), core.listeners()))?;
        all_links.extend(links);
        all_forwards.extend(forwards);
        listeners::add(&mut all_listeners, of_loop);
        match &mut sum {
            Some(sum) => sum.add(totals),
            None => sum = Some(totals),
        }
    }
    Some(Totals { sum: sum?, links: all_links, forwards: all_forwards, listeners: all_listeners })
}

/// Returns the names of the groups of a loop of which no link is up. Each record of a link is a group, also one with a single
/// server; a group whose list of servers is empty has no link.
fn groups_down(core: &mut Loop<'_>) -> Vec<String> {
    let links = core.links();
    let up: HashSet<Id> = links.iter().filter(|link| link.state == LinkState::Up).map(|link| link.id).collect();
    let groups = core.groups().into_iter();
    groups.filter(|group| !group.links.iter().any(|id| up.contains(id))).map(|group| group.name).collect()
}

/// Runs `question` in a loop. Returns its answer; none if the loop does not answer within [`LOOP_TIMEOUT`].
fn ask_loop<T: Send + 'static>(
    remote: &Remote,
    question: impl FnOnce(&mut Loop<'_>) -> T + Send + 'static,
) -> Option<T> {
    remote.ask(question).ok()?.wait_for(LOOP_TIMEOUT).ok().flatten()
}

/// Connections whose bytes a loop adds up in one call.
const CONNECTIONS_PER_SETTLE: usize = 4096;
/// Connections that a loop returns in one call.
const CONNECTIONS_PER_CALL: usize = 256;
/// Connections that are written to the log.
const CONNECTIONS_LOGGED: usize = 100;
/// Longest wait for a busy loop.
const LOOP_TIMEOUT: Duration = Duration::from_secs(2);
