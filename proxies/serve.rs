//! A front end as a process: bind, say where, run the loops, and do what the signals ask for.

use std::io::{self, Write};
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use seaprox::{
    Bind, Bound, Config, Core, Endpoint, FrontEnd, Handler, Loops, Proxy, Remote, Setup, Target, Workers, bind,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR2};
use signal_hook::iterator::Signals;

use crate::fixed::Fixed;
use crate::gate::Gate;
use crate::http::Http;
use crate::options::{Command, Parsed};
use crate::socks::Socks;
use crate::{Exit, Failed, settings, status};

/// What stands behind one bound address.
#[derive(Clone)]
enum Service {
    Static(Target),
    Socks,
    Http,
}

/// Runs a front end until a signal ends it.
///
/// # Errors
/// The command line or a file is wrong, an address cannot be had, or a loop fails.
pub fn run(parsed: &Parsed) -> Result<(), Failed> {
    let places = places(parsed)?;
    let threads = parsed.number("threads")? as usize;
    let workers = parsed.number("workers")? as usize;
    let drain = parsed.duration("drain-timeout")?;
    let status_at = parsed.status()?;
    let users = if parsed.knows("users") { parsed.path("users") } else { None };
    let gate =
        Gate::new(parsed.rules()?, users).map_err(|error| Failed::new(Exit::Config, format!("seaprox: {error}")))?;
    let gate = Arc::new(gate);
    let config = settings::config(parsed)?;
    if config.limits.connections < threads {
        return Err(parsed.error("there are fewer connections than --threads: expected one for each at least").into());
    }
    let (bounds, services) = bind_all(&places, threads, &config)?;
    let addresses: Vec<Endpoint> = bounds.iter().map(|bound| bound.addr().clone()).collect();

    let failed = |error: io::Error| Failed::new(Exit::Failure, format!("seaprox: {error}"));
    // Signals are caught before anybody is told that the process is there.
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR2]).map_err(failed)?;
    let pool = Workers::start(workers, config.limits.lookups).map_err(failed)?;
    let setup = setup(Arc::clone(&gate), services.clone());
    let loops = Loops::start(threads, &config, Some(&pool), bounds, &setup).map_err(failed)?;
    let remotes = loops.remotes().to_vec();
    let _status = status::serve(&status_at, remotes.clone(), Arc::clone(&pool));
    announce(&services, &addresses);
    wait(signals, loops, &remotes, &gate, drain)
}

fn places(parsed: &Parsed) -> Result<Vec<(Bind, Service)>, Failed> {
    let all = |service: Service| Ok(parsed.binds()?.into_iter().map(|place| (place, service.clone())).collect());
    match parsed.command() {
        Command::Static => {
            Ok(parsed.relays()?.into_iter().map(|(place, target)| (place, Service::Static(target))).collect())
        }
        Command::Http => all(Service::Http),
        _ => all(Service::Socks),
    }
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

fn setup(gate: Arc<Gate>, services: Vec<Service>) -> Setup {
    Arc::new(move |proxy: &mut Proxy, all: &[Remote], bounds: &mut [Bound]| {
        for (bound, service) in bounds.iter_mut().zip(&services) {
            proxy.core().listen(bound, all, service.kind(), service.front(&gate))?;
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
        }
    }

    fn front(&self, gate: &Arc<Gate>) -> FrontEnd {
        let gate = Arc::clone(gate);
        match self.clone() {
            Service::Static(target) => {
                let target = Rc::new(target);
                Box::new(move || -> Box<dyn Handler> { Box::new(Fixed::new(Arc::clone(&gate), Rc::clone(&target))) })
            }
            Service::Socks => Box::new(move || -> Box<dyn Handler> { Box::new(Socks::new(Arc::clone(&gate))) }),
            Service::Http => Box::new(move || -> Box<dyn Handler> { Box::new(Http::new(Arc::clone(&gate))) }),
        }
    }
}

/// Prints a line for each address, on stdout, so that a script that asked for port 0 can read which port it got:
/// `listening socks 127.0.0.1:1080`.
fn announce(services: &[Service], addresses: &[Endpoint]) {
    let mut out = io::stdout().lock();
    for (service, addr) in services.iter().zip(addresses) {
        let addr = match addr {
            Endpoint::Ip(addr) => addr.to_string(),
            Endpoint::Unix(path) => format!("unix:{}", path.display()),
            other => other.to_string(),
        };
        let to = match service {
            Service::Static(target) => format!(" -> {target}"),
            Service::Socks | Service::Http => String::new(),
        };
        // Somebody who does not read stdout need not know.
        let _ = writeln!(out, "listening {} {addr}{to}", service.kind());
    }
    let _ = out.flush();
}

/// Does what the signals ask for until all loops have ended.
fn wait(mut signals: Signals, loops: Loops, remotes: &[Remote], gate: &Gate, drain: Duration) -> Result<(), Failed> {
    let (handle, (tell, told)) = (signals.handle(), mpsc::channel());
    thread::spawn(move || {
        // The receiver waits for this to be the end of the signals.
        let _ = tell.send(loops.join());
        handle.close();
    });
    let mut is_draining = false;
    for signal in signals.forever() {
        match signal {
            SIGHUP => match gate.reload() {
                Ok(()) => log::info!("reloaded"),
                Err(error) => log::error!(error = error.to_string(); "not reloaded, and nothing is changed"),
            },
            SIGUSR2 => log::warn!("this version cannot replace itself while it runs"),
            SIGTERM if !std::mem::replace(&mut is_draining, true) => {
                log::info!(timeout = seaprox::units::format_duration(drain); "draining");
                tell_all(remotes, move |core| core.drain(drain));
            }
            _ => {
                log::info!("stopping");
                tell_all(remotes, Core::stop);
            }
        }
    }
    let result = told.recv().map_err(io::Error::other).and_then(|result| result);
    result.map_err(|error| Failed::new(Exit::Failure, format!("seaprox: {error}")))
}

fn tell_all(remotes: &[Remote], what: impl Fn(&mut Core) + Clone + Send + 'static) {
    for remote in remotes {
        // A loop that has as many calls waiting as it takes is making room for one more.
        while remote
            .call({
                let what = what.clone();
                move |core| what(core)
            })
            .is_err()
        {
            thread::sleep(Duration::from_millis(1));
        }
    }
}
