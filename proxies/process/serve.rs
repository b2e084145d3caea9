//! The servers: a front end or a link as a process. Binds its addresses, starts the loops, and runs the supervisor.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use seaprox::units::format_size;
use seaprox::{
    Bind, Bound, Config, Endpoint, FrontEnd, Handler, Loops, Proxy, Remote, Setup, SocketFile, Target, Workers, bind,
};

use super::events::{EventQueue, ProcessEvent, dialed_link_handler, served_links_handler};
use super::exit::{Exit, Failed};
use super::link::Links;
use super::supervisor::Supervisor;
use super::{logging, settings};
use crate::admin::{Reporter, socket};
use crate::cli::forwards::Forward;
use crate::cli::{Command, Parsed, StatusSocket};
use crate::frontends::access::AccessPolicy;
use crate::frontends::{Make, http, socks, r#static};

/// The service behind one listen address.
#[derive(Clone)]
enum Service {
    /// A front end whose clients name their targets.
    Proxy(&'static str, fn(Arc<AccessPolicy>) -> Box<dyn Handler>),
    /// A front end with one target for all clients.
    Relay(&'static str, fn(Arc<AccessPolicy>, Rc<Target>) -> Box<dyn Handler>, Target),
    /// Links that peers dial.
    Links,
}

/// Runs front ends and links until a signal stops them.
///
/// # Errors
/// Fails if the command line or a file is wrong, an address cannot be bound, a loop fails, or a link fails and the user
/// asked to exit in this case.
pub fn run(parsed: &Parsed) -> Result<(), Failed> {
    let failed = |error: io::Error| Failed::new(Exit::Failure, format!("seaprox: {error}"));
    logging::detach().map_err(failed)?;
    let services = services(parsed)?;
    let threads = parsed.number("threads")? as usize;
    let workers = parsed.number("workers")? as usize;
    let drain = parsed.duration("drain-timeout")?;
    let status_socket = parsed.status()?;
    let users = if parsed.knows("users") { parsed.path("users") } else { None };
    let rules = parsed.rules()?;
    let config = settings::config(parsed)?;
    check_threads(parsed, threads, &config)?;
    let links = Links::from_options(parsed)?.map(Arc::new);
    let is_over_link = links.as_ref().is_some_and(|links| links.peer().is_some());
    let unusable = |error| Failed::unusable(&parsed.error("--users").to_string(), &error);
    let access = AccessPolicy::new(rules, users, parsed.modes()?).map_err(unusable)?;
    let access = Arc::new(if is_over_link { access.over_link() } else { access });
    let (bounds, services) = bind_all(&services, links.as_deref(), threads, &config)?;
    let addresses: Vec<Endpoint> = bounds.iter().map(|bound| bound.addr().clone()).collect();

    let queue = EventQueue::new().map_err(failed)?;
    let pool = Workers::start(workers, config.limits.lookups).map_err(failed)?;
    let setup = setup(Arc::clone(&access), services.clone(), links.clone(), queue.sender());
    let loops = Loops::start(threads, &config, Some(&pool), bounds, &setup).map_err(failed)?;
    let announced = announcements(&services, &addresses, links.as_deref());
    let remotes = loops.remotes().to_vec();
    let reporter = Reporter::new(parsed.command().name(), announced.clone(), remotes.clone(), Arc::clone(&pool));
    let reporter = Arc::new(reporter);
    let _socket = serve_status(status_socket, Arc::clone(&reporter));
    let key = links.as_ref().and_then(|links| links.announced_key()).map(|key| format!("key {key}"));
    let lines = announced.iter().map(|line| format!("listening {line}")).chain(key).collect();
    Supervisor::new(&queue, remotes, reporter, access, links, drain).announcing(lines).run(queue, loops)
}

/// Checks that connections and buffers suffice for one of each per loop.
fn check_threads(parsed: &Parsed, threads: usize, config: &Config) -> Result<(), Failed> {
    let limits = &config.limits;
    if limits.connections < threads {
        let text = format!(
            "--threads {threads}: expected at most {}, because each thread needs one of the connections that \
             --max-connections and the descriptor limit allow",
            limits.connections
        );
        return Err(parsed.error(text).into());
    }
    if limits.buffer_bytes / threads < limits.block_bytes {
        let [memory, needed] = [limits.buffer_bytes, threads * limits.block_bytes].map(|it| format_size(it as u64));
        let text = format!("--buffer-memory {memory}: expected at least {needed}, one --buffer for each of --threads");
        return Err(parsed.error(text).into());
    }
    Ok(())
}

/// Starts the status socket, unless `--status none` is given.
fn serve_status(at: StatusSocket, reporter: Arc<Reporter>) -> Option<SocketFile> {
    let path = match at {
        StatusSocket::Off => return None,
        StatusSocket::At(path) => Ok(path),
        StatusSocket::PerProcess => match socket::path_of(std::process::id()) {
            // A system without Unix sockets has no status socket unless a user asks for one.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => return None,
            path => path,
        },
    };
    socket::serve(path, reporter)
}

/// Returns each address that the command line asks to listen on, with its service.
fn services(parsed: &Parsed) -> Result<Vec<(Bind, Service)>, Failed> {
    let Command::FrontEnd(kind) = parsed.command() else { return link_services(parsed) };
    let name = kind.spec().name;
    match kind.spec().make {
        Make::ByClient(make) => {
            Ok(parsed.binds()?.into_iter().map(|addr| (addr, Service::Proxy(name, make))).collect())
        }
        Make::ByListener(make) => {
            let relays = parsed.relays()?;
            let unix = relays.iter().find(|(_, target)| matches!(target, Target::Unix(_)));
            if let (Some((_, target)), Some(_)) = (unix, parsed.peer()?) {
                let text = format!("--to \"{target}\" with --via: expected HOST:PORT, because a link carries TCP");
                return Err(parsed.error(text).into());
            }
            Ok(relays.into_iter().map(|(addr, target)| (addr, Service::Relay(name, make, target))).collect())
        }
    }
}

/// Returns the addresses of `seaprox link`: of the links that peers dial, and of the forwards.
fn link_services(parsed: &Parsed) -> Result<Vec<(Bind, Service)>, Failed> {
    let mut services: Vec<_> = parsed.link_addresses()?.into_iter().map(|addr| (addr, Service::Links)).collect();
    let relay = |Forward { listen, to }| (listen, Service::Relay("static", r#static::handler, to));
    services.extend(parsed.locals()?.into_iter().map(relay));
    services.extend(parsed.dynamics()?.into_iter().map(|addr| (addr, Service::Proxy("socks", socks::handler))));
    services.extend(parsed.https()?.into_iter().map(|addr| (addr, Service::Proxy("http", http::handler))));
    Ok(services)
}

/// Binds all addresses; a name or `:PORT` may stand for several.
fn bind_all(
    services: &[(Bind, Service)],
    links: Option<&Links>,
    threads: usize,
    config: &Config,
) -> Result<(Vec<Bound>, Vec<Service>), Failed> {
    let (mut all_bounds, mut all_services) = (Vec::new(), Vec::new());
    for (addr, service) in services {
        let loops = if service.needs_links(links) { 1 } else { threads };
        let bounds = bind(addr, loops, config)
            .map_err(|error| Failed::new(Exit::Unavailable, format!("seaprox: cannot listen on {addr}: {error}")))?;
        all_services.extend(bounds.iter().map(|_| service.clone()));
        all_bounds.extend(bounds);
    }
    Ok((all_bounds, all_services))
}

/// Returns the set-up of each loop: it serves the bound addresses. The first loop has the links, and the clients that go
/// over them.
fn setup(
    access: Arc<AccessPolicy>,
    services: Vec<Service>,
    links: Option<Arc<Links>>,
    sender: SyncSender<ProcessEvent>,
) -> Setup {
    Arc::new(move |proxy: &mut Proxy, all: &[Remote], bounds: &mut [Bound]| {
        let core = &mut proxy.core();
        let has_links = core.number() == 0;
        let dialing = links.as_ref().filter(|_| has_links);
        let link = dialing.map_or(Ok(None), |links| links.dial(core, dialed_link_handler(&sender)))?;
        let is_here = |service: &Service| has_links || !service.needs_links(links.as_deref());
        for (bound, service) in bounds.iter_mut().zip(&services).filter(|(_, service)| is_here(service)) {
            match (service.front_end(&access), &links) {
                (Some(front_end), _) => {
                    let listener = core.listen(bound, all, service.name(), front_end)?;
                    link.into_iter().for_each(|link| core.route_listener(listener, link));
                }
                (None, Some(links)) => links.serve(core, bound, served_links_handler(&sender))?,
                (None, None) => {}
            }
        }
        Ok(())
    })
}

impl Service {
    /// Returns the name of the front end: the command, and the kind of its connections in log and status.
    fn name(&self) -> &'static str {
        match self {
            Service::Proxy(name, _) | Service::Relay(name, ..) => name,
            Service::Links => "link",
        }
    }

    /// Returns true if the service runs in the loop of the links alone: it is links, or its clients go over one.
    fn needs_links(&self, links: Option<&Links>) -> bool {
        matches!(self, Service::Links) || links.is_some_and(|links| links.peer().is_some())
    }

    /// Returns the front end of the clients; none for links.
    fn front_end(&self, access: &Arc<AccessPolicy>) -> Option<FrontEnd> {
        let access = Arc::clone(access);
        match self.clone() {
            Service::Proxy(_, make) => Some(Box::new(move || make(Arc::clone(&access)))),
            Service::Relay(_, make, target) => {
                let target = Rc::new(target);
                Some(Box::new(move || make(Arc::clone(&access), Rc::clone(&target))))
            }
            Service::Links => None,
        }
    }
}

/// Returns a line for each address, such as `socks 127.0.0.1:1080`. Scripts that asked for port 0 read it on stdout behind
/// the word `listening`.
fn announcements(services: &[Service], addresses: &[Endpoint], links: Option<&Links>) -> Vec<String> {
    let via = links.and_then(Links::peer).map(|peer| format!(" via {}", peer.target())).unwrap_or_default();
    let line = |(service, addr): (&Service, &Endpoint)| {
        let addr = match addr {
            Endpoint::Ip(addr) => addr.to_string(),
            Endpoint::Unix(path) => format!("unix:{}", path.display()),
            other => other.to_string(),
        };
        let to = match service {
            Service::Relay(_, _, target) => format!(" -> {target}{via}"),
            Service::Proxy(..) => via.clone(),
            Service::Links => String::new(),
        };
        format!("{} {addr}{to}", service.name())
    };
    services.iter().zip(addresses).map(line).collect()
}
