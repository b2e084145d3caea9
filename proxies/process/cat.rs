//! `seaprox cat` and `seaprox link -W`: standard input and output, connected to a target, here or at the far end of a link,
//! or to the first client that comes. stdout carries the bytes of the connection and nothing else.

use std::cell::{Cell, RefCell};
use std::io::{self, IsTerminal};
use std::rc::Rc;
use std::time::{Duration, Instant};

use seaprox::node::{Happened, LinkStatus};
use seaprox::{
    Bind, Cause, Config, Core, Cx, Ending, Failure, Fault, Handler, Id, Proxy, Reason, Role, Target, Workers, bind,
};

use crate::cli::{CatMode, Command, Parsed};
use crate::process::link::{Act, Links};
use crate::process::logging;
use crate::process::settings;
use crate::{Exit, Failed};

/// How it ended, if it has.
type Ended = Rc<RefCell<Option<Failure>>>;
/// Why the link is the end of it, if it is.
type Doom = Rc<RefCell<Option<Failed>>>;

/// State that the connection and its link share.
#[derive(Clone, Default)]
struct Fate {
    doom: Doom,
    /// Set once the link has been up.
    was_up: Rc<Cell<bool>>,
}

/// The one connection.
struct Cat {
    /// Where to connect; none when the client comes to us.
    target: Option<Rc<Target>>,
    ended: Ended,
    failure: Option<Failure>,
    fate: Fate,
}

/// Moves bytes both ways until both have ended.
///
/// # Errors
/// The target cannot be reached, the address cannot be had, or the connection is cut.
pub fn run(parsed: &Parsed) -> Result<(), Failed> {
    let failed = |error: io::Error| Failed::new(Exit::Failure, format!("seaprox cat: {error}"));
    logging::detach().map_err(failed)?;
    let mode = mode(parsed)?;
    let config = settings::config(parsed)?;
    let links = Links::of(parsed)?;
    let workers = Workers::start(WORKERS, config.limits.lookups).map_err(failed)?;
    let mut proxy = Proxy::new(Config { limits: few(&config), ..config.clone() }, Some(workers)).map_err(failed)?;
    let (ended, fate) = (Ended::default(), Fate::default());
    let bounds = match mode {
        CatMode::Connect(target) => {
            let link = links.as_ref().map_or(Ok(None), |links| dial(proxy.core(), links, &fate)).map_err(failed)?;
            let (ended, fate) = (Rc::clone(&ended), fate.clone());
            let cat = Cat { target: Some(Rc::new(target)), ended, failure: None, fate };
            let connection = proxy.core().adopt_stdio("cat", Box::new(cat)).map_err(failed)?;
            link.into_iter().for_each(|link| proxy.core().route(connection, link));
            Vec::new()
        }
        CatMode::Listen(places) => listen(&mut proxy, &places, &config, &ended)?,
    };
    proxy.run().map_err(failed)?;
    drop((proxy, bounds));
    let written = seaprox::finish_stdio();
    if let Some(failed) = fate.doom.take() {
        return Err(failed);
    }
    match ended.take() {
        Some(Failure { reason: Reason::SourceFin | Reason::DestFin, .. }) | None => written.map_err(failed),
        Some(failure) => {
            let exit = match failure.reason {
                Reason::NotPermitted if links.is_some() => Exit::NoPermission,
                Reason::LinkLost if fate.was_up.get() => Exit::LinkLost,
                Reason::LinkLost => Exit::Unavailable,
                reason if reason.is_connect_failure() => Exit::Unavailable,
                _ => Exit::Failure,
            };
            let command = if parsed.command() == Command::Link { "link" } else { "cat" };
            Err(Failed::new(exit, format!("seaprox {command}: {failure}")))
        }
    }
}

/// What is to be connected, and that it can be.
fn mode(parsed: &Parsed) -> Result<CatMode, Failed> {
    if let Some(target) = parsed.stdio()? {
        let others = [!parsed.link_places()?.is_empty(), !parsed.locals()?.is_empty(), !parsed.reverses()?.is_empty()];
        let fronts = !parsed.dynamics()?.is_empty() || !parsed.https()?.is_empty();
        return match others.contains(&true) || fronts {
            true => Err(parsed.error("-W: expected no --listen, -L, -R, -D or -H beside it").into()),
            false => Ok(CatMode::Connect(target)),
        };
    }
    let mode = parsed.cat()?;
    if parsed.command() == Command::Cat && parsed.peer()?.is_some() {
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

/// Dials the link. One that cannot be had is the end, because nobody waits for a link to one connection.
fn dial(core: &mut Core, links: &Links, fate: &Fate) -> io::Result<Option<Id>> {
    let Some(watch) = links.watch() else { return Ok(None) };
    let (mut watch, Fate { doom, was_up }) = (watch.exiting(true), fate.clone());
    let told = move |core: &mut Core, _: Id, happened: &Happened| {
        was_up.set(was_up.get() || matches!(happened, Happened::Up { .. }));
        if let Some(Act::End(failed)) = watch.take(happened, Instant::now()) {
            doom.borrow_mut().get_or_insert(failed);
            core.stop();
        }
    };
    links.dial(core, Box::new(told))
}

fn listen(proxy: &mut Proxy, places: &[Bind], config: &Config, ended: &Ended) -> Result<Vec<seaprox::Bound>, Failed> {
    let mut bounds = Vec::new();
    for place in places {
        let bound = bind(place, 1, config).map_err(|error| {
            Failed::new(Exit::Unavailable, format!("seaprox cat: cannot listen on {place}: {error}"))
        })?;
        bounds.extend(bound);
    }
    for bound in &mut bounds {
        let ended = Rc::clone(ended);
        let front = move || -> Box<dyn Handler> {
            Box::new(Cat { target: None, ended: Rc::clone(&ended), failure: None, fate: Fate::default() })
        };
        let result = proxy.core().listen(bound, &[], "cat", Box::new(front));
        result.map_err(|error| Failed::new(Exit::Failure, format!("seaprox cat: {error}")))?;
        // stdout is for the bytes of the connection.
        match bound.addr() {
            seaprox::Endpoint::Ip(addr) => logging::say(&format!("listening cat {addr}")),
            seaprox::Endpoint::Unix(path) => logging::say(&format!("listening cat unix:{}", path.display())),
            _ => {}
        }
    }
    Ok(bounds)
}

/// One connection, and names with a few addresses.
fn few(config: &Config) -> seaprox::Limits {
    seaprox::Limits { connections: 4, ..config.limits.clone() }
}

impl Handler for Cat {
    fn opened(&mut self, cx: &mut Cx<'_>) {
        let connection = cx.connection();
        match &self.target {
            Some(target) => cx.connect(Rc::clone(target), None),
            None => {
                cx.core().close_listeners();
                if let Err(error) = cx.core().connect_stdio(connection) {
                    self.failure = Some(Failure::from(&error));
                    cx.end(Reason::Other);
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
                // All of it, and a word when it ends.
                cx.pass(self.remote(), u64::MAX - 1);
            }
            Err(failure) => {
                if failure.reason == Reason::LinkLost && !self.fate.was_up.get() {
                    let failed = cx.core().links().first().and_then(not_up);
                    failed.into_iter().for_each(|failed| _ = self.fate.doom.borrow_mut().get_or_insert(failed));
                }
                self.failure = Some(failure.clone());
                cx.end(failure.reason);
            }
        }
    }

    fn ended(&mut self, cx: &mut Cx<'_>, cause: Cause) {
        match cause {
            Cause::Over(reason) => {
                let failure = self.failure.take().unwrap_or_else(|| end_of(cx, reason));
                *self.ended.borrow_mut() = Some(failure);
                match reason.ending() {
                    // What has been sent over a link may still be on its way there.
                    Ending::Graceful => cx.core().drain(Duration::MAX),
                    Ending::Aborted => cx.core().stop(),
                }
            }
            // Nobody types on into a connection whose other end has closed.
            _ if cx.role() == self.remote() && io::stdin().is_terminal() => cx.end(cx.fin_reason()),
            _ => {
                let role = cx.role();
                cx.pass(role, u64::MAX);
            }
        }
    }
}

/// Returns the reason why a link is not up when the connection cannot wait for it any longer, from the stage of its
/// subflows. Returns none between two tries; the failure of the last try was reported then.
fn not_up(link: &LinkStatus) -> Option<Failed> {
    let failure = match link.subflows.first()?.state {
        "connecting" => Failure::new(Reason::TimedOut, "no answer"),
        _ => Failure::new(Reason::HandshakeTimeout, "connected, and no answer to the handshake"),
    };
    Some(Failed::new(Exit::Unavailable, format!("seaprox: no link with {}: {failure}", link.peer)))
}

/// What is said of an end: an orderly one that has lost bytes, such as those that stdout had no room for, is none.
fn end_of(cx: &mut Cx<'_>, reason: Reason) -> Failure {
    let connection = cx.connection();
    let detail = cx.core().detail(connection).map(Into::into);
    let reason = match (reason.ending(), cx.core().ending(connection)) {
        (Ending::Graceful, Some((Ending::Aborted, Fault::Source))) => Reason::SourceReset,
        (Ending::Graceful, Some((Ending::Aborted, _))) => Reason::DestReset,
        _ => reason,
    };
    Failure { reason, detail }
}

impl Cat {
    fn remote(&self) -> Role {
        if self.target.is_some() { Role::Dest } else { Role::Source }
    }
}

const WORKERS: usize = 1;
