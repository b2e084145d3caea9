//! A front end or a link as a process: bind, say where, and run the loops.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::SyncSender;
use std::time::Instant;

use seaprox::{Bind, Bound, Config, Endpoint, FrontEnd, Handler, Loops, Proxy, Remote, Setup, Target, Workers, bind};

use crate::admin::status;
use crate::admin::status::Teller;
use crate::cli::forwards::Forward;
use crate::cli::{Command, Parsed};
use crate::frontends::access::Gate;
use crate::frontends::http::Http;
use crate::frontends::socks::Socks;
use crate::frontends::r#static::Fixed;
use crate::process::link::Links;
use crate::process::logging;
use crate::process::settings;
use crate::process::supervisor::{Ears, News, Process, tell_dialled, tell_served};
use crate::{Exit, Failed};

/// What stands behind one bound address.
#[derive(Clone)]
enum Service {
    Static(Target),
    Socks,
    Http,
    Link,
}

/// Runs front ends and links until a signal ends them.
///
/// # Errors
/// The command line or a file is wrong, an address cannot be had, a loop fails, or a link does and that is the end.
pub fn run(parsed: &Parsed) -> Result<(), Failed> {
    let failed = |error: io::Error| Failed::new(Exit::Failure, format!("seaprox: {error}"));
    logging::detach().map_err(failed)?;
    let places = places(parsed)?;
    let threads = parsed.number("threads")? as usize;
    let workers = parsed.number("workers")? as usize;
    let drain = parsed.duration("drain-timeout")?;
    let status_at = parsed.status()?;
    let users = if parsed.knows("users") { parsed.path("users") } else { None };
    let rules = parsed.rules()?;
    let config = settings::config(parsed)?;
    if config.limits.connections < threads {
        return Err(parsed.error("there are fewer connections than --threads: expected one for each at least").into());
    }
    if config.limits.buffer_bytes / threads < config.limits.block_bytes {
        return Err(parsed.error("--buffer-memory: expected room for one --buffer for each of --threads").into());
    }
    let links = Links::of(parsed)?.map(Arc::new);
    let is_routed = links.as_ref().is_some_and(|links| links.peer().is_some());
    let unusable = |error| Failed::unusable(&parsed.error("--users").to_string(), &error);
    let gate = Gate::new(rules, users, parsed.modes()?).map_err(unusable)?;
    let gate = Arc::new(if is_routed { gate.over_link() } else { gate });
    let (bounds, services) = bind_all(&places, threads, &config)?;
    let addresses: Vec<Endpoint> = bounds.iter().map(|bound| bound.addr().clone()).collect();

    let ears = Ears::open().map_err(failed)?;
    let pool = Workers::start(workers, config.limits.lookups).map_err(failed)?;
    let setup = setup(Arc::clone(&gate), services.clone(), links.clone(), ears.mouth());
    let loops = Loops::start(threads, &config, Some(&pool), bounds, &setup).map_err(failed)?;
    let announced = announcements(&services, &addresses, links.as_deref());
    let teller = Arc::new(Teller {
        command: parsed.command().name(),
        listening: announced.clone(),
        remotes: loops.remotes().to_vec(),
        workers: Arc::clone(&pool),
        born: Instant::now(),
        is_logging: AtomicBool::new(false),
    });
    let _status = status::serve(&status_at, Arc::clone(&teller));
    let key = links.as_ref().and_then(|links| links.shown_key()).map(|key| format!("key {key}"));
    let lines = announced.iter().map(|line| format!("listening {line}")).chain(key).collect();
    Process::new(&ears, teller, gate, links, drain).announcing(lines).wait(ears, loops)
}

fn places(parsed: &Parsed) -> Result<Vec<(Bind, Service)>, Failed> {
    let all = |service: Service| Ok(parsed.binds()?.into_iter().map(|place| (place, service.clone())).collect());
    match parsed.command() {
        Command::Static => {
            let relays = parsed.relays()?;
            let unix = relays.iter().find(|(_, target)| matches!(target, Target::Unix(_)));
            if let (Some((_, target)), Some(_)) = (unix, parsed.peer()?) {
                let text = format!("--to \"{target}\" with --via: expected HOST:PORT, because a link carries TCP");
                return Err(parsed.error(text).into());
            }
            Ok(relays.into_iter().map(|(place, target)| (place, Service::Static(target))).collect())
        }
        Command::Http => all(Service::Http),
        Command::Link => forwards(parsed),
        _ => all(Service::Socks),
    }
}

/// What `seaprox link` listens for: links, and the clients of its forwards.
fn forwards(parsed: &Parsed) -> Result<Vec<(Bind, Service)>, Failed> {
    let mut places: Vec<_> = parsed.link_places()?.into_iter().map(|place| (place, Service::Link)).collect();
    places.extend(parsed.locals()?.into_iter().map(|Forward { listen, to }| (listen, Service::Static(to))));
    places.extend(parsed.dynamics()?.into_iter().map(|place| (place, Service::Socks)));
    places.extend(parsed.https()?.into_iter().map(|place| (place, Service::Http)));
    Ok(places)
}

/// Binds every place; a place may stand for several addresses.
fn bind_all(places: &[(Bind, Service)], threads: usize, config: &Config) -> Result<(Vec<Bound>, Vec<Service>), Failed> {
    let (mut bounds, mut services) = (Vec::new(), Vec::new());
    for (place, service) in places {
        let bound = bind(place, threads, config)
            .map_err(|error| Failed::new(Exit::Unavailable, format!("seaprox: cannot listen on {place}: {error}")))?;
        services.extend(bound.iter().map(|_| service.clone()));
        bounds.extend(bound);
    }
    Ok((bounds, services))
}

fn setup(gate: Arc<Gate>, services: Vec<Service>, links: Option<Arc<Links>>, tell: SyncSender<News>) -> Setup {
    Arc::new(move |proxy: &mut Proxy, all: &[Remote], bounds: &mut [Bound]| {
        let core = proxy.core();
        let link = links.as_ref().map_or(Ok(None), |links| links.dial(core, tell_dialled(&tell)))?;
        for (bound, service) in bounds.iter_mut().zip(&services) {
            match (service.front(&gate), &links, link) {
                (Some(front), _, link) => {
                    let listener = core.listen(bound, all, service.kind(), front)?;
                    link.into_iter().for_each(|link| core.route_listener(listener, link));
                }
                (None, Some(links), _) => links.serve(core, bound, tell_served(&tell))?,
                (None, None, _) => {}
            }
        }
        Ok(())
    })
}

impl Service {
    fn kind(&self) -> &'static str {
        match self {
            Service::Static(_) => "static",
            Service::Socks => "socks",
            Service::Http => "http",
            Service::Link => "link",
        }
    }

    /// The front end of its clients; those of a link are other nodes.
    fn front(&self, gate: &Arc<Gate>) -> Option<FrontEnd> {
        let gate = Arc::clone(gate);
        Some(match self.clone() {
            Service::Static(target) => {
                let target = Rc::new(target);
                Box::new(move || -> Box<dyn Handler> { Box::new(Fixed::new(Arc::clone(&gate), Rc::clone(&target))) })
            }
            Service::Socks => Box::new(move || -> Box<dyn Handler> { Box::new(Socks::new(Arc::clone(&gate))) }),
            Service::Http => Box::new(move || -> Box<dyn Handler> { Box::new(Http::new(Arc::clone(&gate))) }),
            Service::Link => return None,
        })
    }
}

/// A line for each address, which a script that asked for port 0 reads on stdout behind the word `listening`:
/// `socks 127.0.0.1:1080`.
fn announcements(services: &[Service], addresses: &[Endpoint], links: Option<&Links>) -> Vec<String> {
    let via = links.and_then(Links::peer).map(|peer| format!(" via {}", peer.target())).unwrap_or_default();
    let line = |(service, addr): (&Service, &Endpoint)| {
        let addr = match addr {
            Endpoint::Ip(addr) => addr.to_string(),
            Endpoint::Unix(path) => format!("unix:{}", path.display()),
            other => other.to_string(),
        };
        let to = match service {
            Service::Static(target) => format!(" -> {target}{via}"),
            Service::Socks | Service::Http => via.clone(),
            Service::Link => String::new(),
        };
        format!("{} {addr}{to}", service.kind())
    };
    services.iter().zip(addresses).map(line).collect()
}
