//! `seaprox cat` and `seaprox link -W`: connects standard input and output to a target, here or at the far end of a link,
//! or to the first client of a listener. stdout carries the bytes of the connection and nothing else.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::io::{self, IsTerminal};
use std::rc::Rc;
use std::time::{Duration, Instant};

use seaprox::config::{Link, MadeLink, MakeError, Maker};
use seaprox::node::{GroupConfig, LinkConfig, LinkEvent, LinkServer, LinkStatus, SubflowState};
use seaprox::{
    Bind, Bound, Cause, Config as LoopConfig, Cx, Duplex, Ending, Failure, Fault, Handler, Id, Limits, ListenConfig,
    Loop, Proxy, Reason, Role, Target, Workers, bind,
};

use super::exit::{Exit, Failed};
use super::link::{self, Action, GroupFailures};
use super::{logging, settings};
use crate::Parts;
use crate::cli::{CatMode, Command, Parsed};

/// The end of the connection, once it has ended.
type Ended = Rc<RefCell<Option<Failure>>>;

/// State that the connection and its link share.
#[derive(Clone, Default)]
pub(super) struct LinkState {
    /// Set if the link ends the process.
    pub exit_error: Rc<RefCell<Option<Failed>>>,
    pub was_up: Rc<Cell<bool>>,
    /// A link that was up and is lost is waited for.
    pub retries: bool,
}

/// The handler of the only connection.
struct Cat {
    /// The target to connect to; none when the client connects to us.
    target: Option<Rc<Target>>,
    ended: Ended,
    failure: Option<Failure>,
    link: LinkState,
}

/// Relays bytes both ways until both directions have ended.
///
/// # Errors
/// Fails if the target cannot be connected, the address cannot be bound, or the connection does not end in order.
pub fn run(parsed: &Parsed) -> Result<(), Failed> {
    let failed = |error: io::Error| Failed::new(Exit::Failure, format!("seaprox cat: {error}"));
    logging::detach().map_err(failed)?;
    let mode = mode(parsed)?;
    let tree = settings::config(parsed)?;
    let parts = Parts::new(&tree);
    let _instance = link::prepare(parsed, &tree, &parts)?;
    let link = tree.links.first().map(|link| tree.resolved_link(link));
    let made = link.as_ref().map(|link| make_link(link, &parts)).transpose();
    let link = link.zip(made.map_err(|error| Failed::made(parsed, error))?);
    let parts = Rc::new(parts);
    let (config, is_linked) = (tree.loops, link.is_some());
    let workers = Workers::start(WORKERS, config.limits.lookups).map_err(failed)?;
    let mut proxy = Proxy::new(LoopConfig { limits: few(&config), ..config.clone() }, Some(workers)).map_err(failed)?;
    let (ended, state) = (Ended::default(), LinkState::default());
    let bounds = match mode {
        CatMode::Connect(target) => {
            let link = link.map(|link| dial(parsed, &mut proxy.core(), &parts, link, &state)).transpose()?;
            let (ended, link_state) = (Rc::clone(&ended), state.clone());
            let cat = Cat { target: Some(Rc::new(target)), ended, failure: None, link: link_state };
            let stdio = Duplex::stdio().map_err(failed)?;
            let connection = proxy.core().adopt(stdio, "cat", Box::new(cat)).map_err(|error| failed(error.into()))?;
            if let Some(link) = link {
                let mut core = proxy.core();
                core.connection(connection).and_then(|mut it| it.route(link)).map_err(|error| failed(error.into()))?;
            }
            Vec::new()
        }
        CatMode::Listen(addrs) => listen(&mut proxy, &addrs, &config, &ended)?,
    };
    proxy.run().map_err(failed)?;
    drop((proxy, bounds));
    let written = seaprox::finish_stdio();
    if let Some(failed) = state.exit_error.take() {
        return Err(failed);
    }
    match ended.take() {
        Some(Failure { reason: Reason::SourceFin | Reason::DestFin, .. }) | None => written.map_err(failed),
        Some(failure) => {
            let exit = match failure.reason {
                Reason::NotPermitted if is_linked => Exit::NoPermission,
                Reason::LinkLost if state.was_up.get() => Exit::LinkLost,
                Reason::LinkLost => Exit::Unavailable,
                reason if reason.is_connect_failure() => Exit::Unavailable,
                _ => Exit::Failure,
            };
            let command = if parsed.command() == Command::Link { "link" } else { "cat" };
            Err(Failed::new(exit, format!("seaprox {command}: {failure}")))
        }
    }
}

/// Returns what to connect. Fails on options that contradict one another.
fn mode(parsed: &Parsed) -> Result<CatMode, Failed> {
    if let Some(target) = parsed.stdio()? {
        let has_forwards = !parsed.locals()?.is_empty() || !parsed.reverses()?.is_empty();
        let has_proxies = !parsed.dynamics()?.is_empty() || !parsed.https()?.is_empty();
        return match has_forwards || has_proxies || !parsed.link_addresses()?.is_empty() {
            true => Err(parsed.error("-W: expected no --listen, -L, -R, -D or -H beside it").into()),
            false => Ok(CatMode::Connect(target)),
        };
    }
    let mode = parsed.cat()?;
    if parsed.command() == Command::Cat && !parsed.peers()?.is_empty() {
        match &mode {
            CatMode::Listen(_) => return Err(parsed.error("-l with --via: expected HOST PORT, at the far end").into()),
            CatMode::Connect(Target::Unix(_)) => {
                return Err(parsed.error("unix: with --via: expected HOST PORT, because a link carries TCP").into());
            }
            CatMode::Connect(_) => {}
        }
    }
    Ok(mode)
}

/// Makes the link of a single connection.
pub(super) fn make_link(link: &Link, parts: &Parts) -> Result<MadeLink, MakeError> {
    let made = parts.dial(link)?;
    parts.commit(&[], std::slice::from_ref(link), &[]);
    Ok(made)
}

/// Dials the link to each server. The failure of all of them ends the process, because nobody waits for the link of a single
/// connection.
pub(super) fn dial(
    parsed: &Parsed,
    core: &mut Loop<'_>,
    parts: &Rc<Parts>,
    (link, mut made): (Link, MadeLink),
    state: &LinkState,
) -> Result<Id, Failed> {
    let failed =
        |error: &dyn Display| Failed::new(Exit::Failure, format!("seaprox: the link cannot be dialed: {error}"));
    let own = parts.public_key().map_err(|error| Failed::made(parsed, error))?;
    let failures: Rc<RefCell<GroupFailures>> = Rc::default();
    let (parts, state, record) = (Rc::clone(parts), state.clone(), link.clone());
    let make = move |server: &LinkServer| {
        let config = made(server);
        let name = record.member_name(server);
        let Some(dialed) = parts.link(&name) else { return config };
        let mut log = link::log_of(own, &dialed).exiting(true);
        let (record, failures, state) = (record.clone(), Rc::clone(&failures), state.clone());
        let handler = move |core: &mut Loop<'_>, id: Id, event: &LinkEvent| {
            if matches!(event, LinkEvent::Up { .. }) {
                state.was_up.set(true);
                failures.borrow_mut().recovered(&name);
            }
            let Some(Action::Exit(failed)) = log.handle(event, Instant::now()) else { return };
            if state.retries && state.was_up.get() && matches!(failed.exit, Exit::LinkLost | Exit::Unavailable) {
                return;
            }
            let servers = record.fixed_servers();
            let all: Vec<String> = servers.iter().map(|server| record.member_name(server)).collect();
            if let Some(failed) = failures.borrow_mut().note(&name, Some(&all), failed) {
                state.exit_error.borrow_mut().get_or_insert(failed);
                return core.stop();
            }
            // There is one group.
            for group in core.groups() {
                // A link that leaves is in nobody's way.
                let _ = core.group(group.id).and_then(|mut group| group.give_way(id));
            }
        };
        LinkConfig { on_event: Box::new(handler), ..config }
    };
    let id = core.open_group(GroupConfig { name: link.name.clone(), make: Box::new(make) });
    let id = id.map_err(|error| failed(&error))?;
    let mut group = core.group(id).map_err(|error| failed(&error))?;
    group.set_servers(&link.fixed_servers(), link.most_links()).map_err(|error| failed(&error))?;
    Ok(id)
}

fn listen(proxy: &mut Proxy, addrs: &[Bind], config: &LoopConfig, ended: &Ended) -> Result<Vec<Bound>, Failed> {
    let mut all_bounds = Vec::new();
    for addr in addrs {
        let bounds = bind(addr, 1, config).map_err(|error| {
            Failed::new(Exit::Unavailable, format!("seaprox cat: cannot listen on {addr}: {error}"))
        })?;
        all_bounds.extend(bounds);
    }
    for bound in &mut all_bounds {
        let ended = Rc::clone(ended);
        let front_end = move || -> Box<dyn Handler> {
            Box::new(Cat { target: None, ended: Rc::clone(&ended), failure: None, link: LinkState::default() })
        };
        let result = proxy.core().listen(bound, ListenConfig::new("cat", Box::new(front_end)));
        result.map_err(|error| Failed::new(Exit::Failure, format!("seaprox cat: {error}")))?;
        // On stderr, because stdout is for the bytes of the connection.
        match bound.addr() {
            seaprox::Endpoint::Ip(proto, addr) => logging::say(&format!("listening cat {}{addr}", proto.prefix())),
            seaprox::Endpoint::Unix(path) => logging::say(&format!("listening cat unix:{}", path.display())),
            _ => {}
        }
    }
    Ok(all_bounds)
}

/// Returns limits for one connection.
pub(super) fn few(config: &LoopConfig) -> Limits {
    Limits { connections: 4, ..config.limits.clone() }
}

impl Cat {
    fn remote(&self) -> Role {
        if self.target.is_some() { Role::Dest } else { Role::Source }
    }
}

impl Handler for Cat {
    fn opened(&mut self, cx: &mut Cx<'_>) {
        match &self.target {
            Some(target) => _ = cx.connect(Rc::clone(target), None),
            None => {
                cx.core().close_listeners();
                let stdio = Duplex::stdio();
                if let Err(error) = stdio.and_then(|stdio| Ok(cx.connect_with(stdio)?)) {
                    self.failure = Some(Failure::from(&error));
                    cx.close(Reason::Other);
                }
            }
        }
    }

    fn readable(&mut self, _cx: &mut Cx<'_>, _input: &[u8]) -> usize {
        0
    }

    fn connected(&mut self, cx: &mut Cx<'_>, result: Result<(), &Failure>) {
        match result {
            Ok(()) => {
                cx.relay();
                // One less than everything: `ended` is then called at the end of this direction.
                cx.relay_bytes(self.remote(), u64::MAX - 1);
            }
            Err(failure) => {
                if failure.reason == Reason::LinkLost && !self.link.was_up.get() {
                    let failed = cx.core().links().first().and_then(not_up);
                    failed.into_iter().for_each(|failed| _ = self.link.exit_error.borrow_mut().get_or_insert(failed));
                }
                self.failure = Some(failure.clone());
                cx.close(failure.reason);
            }
        }
    }

    fn ended(&mut self, cx: &mut Cx<'_>, cause: Cause) {
        match cause {
            Cause::Over(reason) => {
                let failure = self.failure.take().unwrap_or_else(|| outcome(cx, reason));
                *self.ended.borrow_mut() = Some(failure);
                match reason.ending() {
                    // Bytes that were sent over a link may still be on their way.
                    Ending::Graceful => cx.core().drain(Duration::MAX),
                    Ending::Aborted => cx.core().stop(),
                }
            }
            // A user at a terminal sends nothing more to a remote that has closed its direction.
            _ if cx.role() == self.remote() && io::stdin().is_terminal() => {
                let reason = cx.fin_reason();
                cx.close(reason);
            }
            _ => {
                let role = cx.role();
                cx.relay_bytes(role, u64::MAX);
            }
        }
    }
}

/// Returns the error for a connection that could not wait longer for its link, from the state of the first subflow. Returns
/// none between two attempts; the failure of the last attempt was reported then.
fn not_up(link: &LinkStatus) -> Option<Failed> {
    let failure = match link.subflows.first()?.state {
        SubflowState::Connecting => Failure::new(Reason::TimedOut, "no answer"),
        _ => Failure::new(Reason::HandshakeTimeout, "connected, and no answer to the handshake"),
    };
    Some(Failed::new(Exit::Unavailable, format!("seaprox: no link with {}: {failure}", link.peer)))
}

/// Returns the outcome of a connection. A graceful end that has lost bytes, for example because stdout was closed, counts as
/// a reset.
fn outcome(cx: &mut Cx<'_>, reason: Reason) -> Failure {
    let detail = cx.detail().map(Into::into);
    let reason = match (reason.ending(), cx.ending()) {
        (Ending::Graceful, Some((Ending::Aborted, Fault::Source))) => Reason::SourceReset,
        (Ending::Graceful, Some((Ending::Aborted, _))) => Reason::DestReset,
        _ => reason,
    };
    Failure { reason, detail }
}

pub(super) const WORKERS: usize = 1;
