//! `seaprox cat`: standard input and output, connected to a target or to the first client that comes.

use std::cell::RefCell;
use std::io::{self, IsTerminal};
use std::rc::Rc;

use seaprox::{Bind, Cause, Config, Cx, Failure, Handler, Proxy, Reason, Role, Target, Workers, bind};

use crate::options::{CatMode, Parsed};
use crate::{Exit, Failed, settings};

/// How it ended, if it has.
type Ended = Rc<RefCell<Option<Failure>>>;

/// The one connection.
struct Cat {
    /// Where to connect; none when the client comes to us.
    target: Option<Rc<Target>>,
    ended: Ended,
    failure: Option<Failure>,
}

/// Moves bytes both ways until both have ended.
///
/// # Errors
/// The target cannot be reached, the address cannot be had, or the connection is cut.
pub fn run(parsed: &Parsed) -> Result<(), Failed> {
    let mode = parsed.cat()?;
    let config = settings::config(parsed)?;
    let failed = |error: io::Error| Failed::new(Exit::Failure, format!("seaprox cat: {error}"));
    let workers = Workers::start(WORKERS, config.limits.lookups).map_err(failed)?;
    let mut proxy = Proxy::new(Config { limits: few(&config), ..config.clone() }, Some(workers)).map_err(failed)?;
    let ended = Ended::default();
    let bounds = match mode {
        CatMode::Connect(target) => {
            let cat = Cat { target: Some(Rc::new(target)), ended: Rc::clone(&ended), failure: None };
            proxy.core().adopt_stdio("cat", Box::new(cat)).map_err(failed)?;
            Vec::new()
        }
        CatMode::Listen(places) => listen(&mut proxy, &places, &config, &ended)?,
    };
    proxy.run().map_err(failed)?;
    drop(bounds);
    match ended.take() {
        Some(Failure { reason: Reason::SourceFin | Reason::DestFin, .. }) | None => Ok(()),
        Some(failure) => {
            let exit = if failure.reason.is_connect_failure() { Exit::Unavailable } else { Exit::Failure };
            Err(Failed::new(exit, format!("seaprox cat: {failure}")))
        }
    }
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
        let front =
            move || -> Box<dyn Handler> { Box::new(Cat { target: None, ended: Rc::clone(&ended), failure: None }) };
        let result = proxy.core().listen(bound, &[], "cat", Box::new(front));
        result.map_err(|error| Failed::new(Exit::Failure, format!("seaprox cat: {error}")))?;
        // stdout is for the bytes of the connection.
        match bound.addr() {
            seaprox::Endpoint::Ip(addr) => eprintln!("listening cat {addr}"),
            seaprox::Endpoint::Unix(path) => eprintln!("listening cat unix:{}", path.display()),
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
                self.failure = Some(failure.clone());
                cx.end(failure.reason);
            }
        }
    }

    fn ended(&mut self, cx: &mut Cx<'_>, cause: Cause) {
        match cause {
            Cause::Over(reason) => {
                *self.ended.borrow_mut() = Some(self.failure.take().unwrap_or(reason.into()));
                cx.core().stop();
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

impl Cat {
    fn remote(&self) -> Role {
        if self.target.is_some() { Role::Dest } else { Role::Source }
    }
}

const WORKERS: usize = 1;
