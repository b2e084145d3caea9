//! The servers: a front end or a link as a process. Binds its addresses, starts the loops, and runs the supervisor.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use seaprox::config::{self, Config as Tree, FrontEndConfig, StatusSocket, Users};
use seaprox::{
    Bind, Bound, Config, Endpoint, FrontEnd, ListenConfig, Loops, Proxy, Remote, Setup, SocketFile, Workers, bind,
};

use super::events::{EventQueue, ProcessEvent, dialed_link_handler, served_links_handler};
use super::exit::{Exit, Failed};
use super::link::Links;
use super::supervisor::Supervisor;
use super::{logging, settings};
use crate::admin::{Reporter, socket};
use crate::cli::Parsed;
use crate::frontends::access::AccessPolicy;
use crate::frontends::{FrontEndKind, FrontEndSpec};

/// The service behind one listen address.
#[derive(Clone)]
enum Service {
    /// A front end.
    FrontEnd(&'static FrontEndSpec, FrontEndConfig),
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
    let tree = settings::config(parsed)?;
    let links = Links::new(parsed, &tree)?.map(Arc::new);
    let (services, threads, config) = (services(&tree), tree.threads, tree.loops);
    let is_over_link = links.as_ref().is_some_and(|links| links.peer().is_some());
    let unusable = |error| Failed::unusable(&parsed.error("--users").to_string(), &error);
    let users = match tree.access.users {
        Users::File(file) => Some(file),
        Users::Anyone => None,
    };
    let access = AccessPolicy::new(tree.access.rules, users, tree.modes).map_err(unusable)?;
    let access = Arc::new(if is_over_link { access.over_link() } else { access });
    let (bounds, services) = bind_all(&services, links.as_deref(), threads, &config)?;
    let addresses: Vec<Endpoint> = bounds.iter().map(|bound| bound.addr().clone()).collect();

    let queue = EventQueue::new().map_err(failed)?;
    let pool = Workers::start(tree.workers, config.limits.lookups).map_err(failed)?;
    let setup = setup(Arc::clone(&access), services.clone(), links.clone(), queue.sender());
    let loops = Loops::start(threads, &config, Some(&pool), bounds, &setup).map_err(failed)?;
    let announced = announcements(&services, &addresses, links.as_deref());
    let remotes = loops.remotes().to_vec();
    let reporter = Reporter::new(parsed.command().name(), announced.clone(), remotes.clone(), Arc::clone(&pool));
    let reporter = Arc::new(reporter);
    let _socket = serve_status(tree.status, Arc::clone(&reporter));
    let key = links.as_ref().and_then(|links| links.announced_key()).map(|key| format!("key {key}"));
    let lines = announced.iter().map(|line| format!("listening {line}")).chain(key).collect();
    Supervisor::new(&queue, remotes, reporter, access, links, tree.drain).announcing(lines).run(queue, loops)
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

/// Returns each address to listen on, with its service: links that peers dial, listeners, and local forwards.
fn services(config: &Tree) -> Vec<(Bind, Service)> {
    let find = |front_end: &FrontEndConfig| {
        let kind = FrontEndKind::find(&front_end.name)?;
        Some(Service::FrontEnd(kind.spec(), front_end.clone()))
    };
    let served = config.servers.iter().flat_map(|server| &server.addresses).map(|addr| (addr, Some(Service::Links)));
    let listeners = config.listeners.iter().flat_map(|listener| {
        listener.addresses.iter().map(|addr| (addr, find(&listener.front_end))).collect::<Vec<_>>()
    });
    let forwards = config.links.iter().flat_map(|link| &link.forwards).map(|forward| match &forward.service {
        config::Service::Local(front_end) => (&forward.listen, find(front_end)),
        config::Service::Remote(_) => (&forward.listen, None),
    });
    let all = served.chain(listeners).chain(forwards);
    all.filter_map(|(addr, service)| Some((addr.clone(), service?))).collect()
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
    Arc::new(move |proxy: &mut Proxy, _: &[Remote], bounds: &mut [Bound]| {
        let core = &mut proxy.core();
        let has_links = core.number() == 0;
        let dialing = links.as_ref().filter(|_| has_links);
        let link = dialing.map_or(Ok(None), |links| links.dial(core, dialed_link_handler(&sender)))?;
        let is_here = |service: &Service| has_links || !service.needs_links(links.as_deref());
        for (bound, service) in bounds.iter_mut().zip(&services).filter(|(_, service)| is_here(service)) {
            match (service.front_end(&access), &links) {
                (Some(front_end), _) => {
                    core.listen(bound, ListenConfig { link, ..ListenConfig::new(service.name(), front_end) })?;
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
            Service::FrontEnd(spec, _) => spec.name,
            Service::Links => "link",
        }
    }

    /// Returns true if the service runs in the loop of the links alone: it is links, or its clients go over one.
    fn needs_links(&self, links: Option<&Links>) -> bool {
        matches!(self, Service::Links) || links.is_some_and(|links| links.peer().is_some())
    }

    /// Returns the front end of the clients; none for links.
    fn front_end(&self, access: &Arc<AccessPolicy>) -> Option<FrontEnd> {
        match self {
            Service::FrontEnd(spec, config) => (spec.make)(config, access),
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
            Endpoint::Ip(proto, addr) => format!("{}{addr}", proto.prefix()),
            Endpoint::Unix(path) => format!("unix:{}", path.display()),
            other => other.to_string(),
        };
        let to = match service {
            Service::FrontEnd(spec, config) => match spec.target().and_then(|option| config.target(option)) {
                Some(target) => format!(" -> {target}{via}"),
                None => via.clone(),
            },
            Service::Links => String::new(),
        };
        format!("{} {addr}{to}", service.name())
    };
    services.iter().zip(addresses).map(line).collect()
}
