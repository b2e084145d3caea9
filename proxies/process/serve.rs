//! The servers: a front end or a link as a process. Fills in the configuration, puts it into effect, and runs the supervisor.

use std::io;
use std::sync::Arc;

use seaprox::config::{Config, Listening, Maker, Running, StatusSocket};
use seaprox::{Endpoint, SocketFile, Workers};

use super::events::{EventQueue, link_handler};
use super::exit::{Exit, Failed};
use super::signals::Signals;
use super::supervisor::Supervisor;
use super::{link, logging, settings};
use crate::Parts;
use crate::admin::{Reporter, socket};
use crate::cli::Parsed;
use crate::frontends::FrontEndKind;

/// Runs front ends and links until a signal stops them.
///
/// # Errors
/// Fails if the command line or a file is wrong, an address cannot be bound, a loop fails, or a link fails and the user
/// asked to exit in this case.
pub fn run(parsed: &Parsed) -> Result<(), Failed> {
    let failed = |error: io::Error| Failed::new(Exit::Failure, format!("seaprox: {error}"));
    logging::detach().map_err(failed)?;
    let config = settings::config(parsed)?;
    let queue = EventQueue::new();
    let parts = Arc::new(Parts::with_events(&config, link_handler(&queue.sender())));
    let _instance = link::prepare(parsed, &config, &parts)?;
    let workers = Workers::start(config.workers, config.loops.limits.lookups).map_err(failed)?;
    let maker: Arc<dyn Maker> = Arc::<Parts>::clone(&parts);
    let (running, loops) = Running::start(config, maker, &workers).map_err(|error| Failed::applied(parsed, error))?;
    // Until here a signal ends the process: it may wait for the name of an address.
    let signals = Signals::open().map_err(failed)?;
    let announced = announcements(&running);
    let remotes = running.remotes().to_vec();
    let reporter = Arc::new(Reporter::new(parsed.command().name(), announced.clone(), remotes, workers));
    let _socket = serve_status(&running.config().status, Arc::clone(&reporter));
    let key = (!running.config().servers.is_empty()).then(|| parts.public_key().ok()).flatten();
    let key = key.map(|key| format!("key {key}"));
    let lines = announced.iter().map(|line| format!("listening {line}")).chain(key).collect();
    let supervisor = Supervisor::new(parsed, &queue, running, reporter, parts)?;
    supervisor.announcing(lines).run(queue, loops, signals)
}

/// Starts the status socket, unless `--status none` is given.
fn serve_status(at: &StatusSocket, reporter: Arc<Reporter>) -> Option<SocketFile> {
    let path = match at {
        StatusSocket::Off => return None,
        StatusSocket::At(path) => Ok(path.clone()),
        StatusSocket::PerProcess => match socket::path_of(std::process::id()) {
            // A system without Unix sockets has no status socket unless a user asks for one.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => return None,
            path => path,
        },
    };
    socket::serve(path, reporter)
}

/// Returns a line for each address, such as `socks 127.0.0.1:1080`. Scripts that asked for port 0 read it on stdout behind
/// the word `listening`.
fn announcements(running: &Running) -> Vec<String> {
    running.listening().iter().map(|listening| announcement(running.config(), listening)).collect()
}

fn announcement(config: &Config, listening: &Listening) -> String {
    let addr = match &listening.addr {
        Endpoint::Ip(proto, addr) => format!("{}{addr}", proto.prefix()),
        Endpoint::Unix(path) => format!("unix:{}", path.display()),
        other => other.to_string(),
    };
    let Some(front_end) = &listening.front_end else { return format!("link {addr}") };
    let target = FrontEndKind::find(&front_end.name).and_then(|kind| kind.spec().target());
    let target = target.and_then(|option| front_end.options.get(option)).map(|to| format!(" -> {to}"));
    let link = listening.link.as_ref().and_then(|name| config.link(name));
    let via = link.map(|link| format!(" via {}", link.peer));
    format!("{} {addr}{}{}", front_end.name, target.unwrap_or_default(), via.unwrap_or_default())
}
