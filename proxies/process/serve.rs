//! The servers: a front end or a link as a process. Fills in the configuration, puts it into effect, and runs the supervisor.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use seaprox::config::{Config, Maker, Place, Running};
use seaprox::{Loop, Workers};

use super::announced::Announced;
use super::events::{EventQueue, QueuedCommands, link_handler};
use super::exit::{Exit, Failed};
use super::signals::Signals;
use super::source::Source;
use super::supervisor::Supervisor;
use super::{admin, link, logging, service, settings, source};
use crate::Parts;
use crate::admin::Reporter;
use crate::cli::Parsed;
use crate::file;
use crate::files::{self, Event, Peer};

/// Runs the front ends and links of a command line until a signal stops them.
///
/// # Errors
/// Fails if the command line or a file is wrong, an address cannot be bound, a loop fails, or a link fails and the user
/// asked to exit in this case.
pub fn run(parsed: &Parsed) -> Result<(), Failed> {
    logging::detach().map_err(failed)?;
    let config = settings::config(parsed)?;
    run_config(parsed, config, None, None)
}

/// Runs the listeners and links of a file until a signal stops them. The file is read again on request.
///
/// # Errors
/// As for [`run`]. An error about a record names the position of the record.
pub fn run_file(parsed: &Parsed, mut loaded: file::Loaded) -> Result<(), Failed> {
    logging::detach().map_err(failed)?;
    let has_flows = settings::fit(&mut loaded.config);
    loaded.check()?;
    let again = parsed.clone();
    let load = move || {
        let loaded =
            settings::load(&again).map_err(|failed| failed.text.lines().map(str::to_owned).collect::<Vec<_>>())?;
        let (mut config, sources) = (loaded.config.clone(), watched(&loaded));
        settings::fit_again(&mut config, has_flows);
        let position = Arc::new(move |place: &Place| loaded.position(place).to_string());
        Ok(source::Loaded { config, sources, position })
    };
    let source = Source::new(watched(&loaded), load).watched(parsed.flag("watch")?);
    let place = |place: &Place| format!("{}: {place}", loaded.position(place));
    run_config(parsed, loaded.config.clone(), Some(source), Some(&place))
}

/// Returns the files of a configuration, and the directories in which others may appear.
fn watched(loaded: &file::Loaded) -> Vec<PathBuf> {
    loaded.sources.iter().chain(&loaded.directories).cloned().collect()
}

/// Runs a configuration until a signal stops it. The source is read again on request; a process without one reads only the
/// files of users, keys and paths again. The descriptor limit must have been applied to the configuration ([`settings::fit`]).
/// `context`, if there is one, returns what stands in front of an error about a place.
///
/// # Errors
/// As for [`run`].
fn run_config(
    parsed: &Parsed,
    config: Config,
    source: Option<Source>,
    context: Option<&dyn Fn(&Place) -> String>,
) -> Result<(), Failed> {
    let queue = EventQueue::new();
    let parts = Arc::new(Parts::with_events(&config, link_handler(&queue.sender())));
    let instance = link::prepare(parsed, &config, &parts)?;
    let workers = Workers::start(config.workers, config.loops.limits.lookups).map_err(failed)?;
    let maker: Arc<dyn Maker> = Arc::<Parts>::clone(&parts);
    let (running, loops) =
        Running::start(config, maker, &workers).map_err(|errors| Failed::applied(parsed, errors, context))?;
    share_files(&running);
    service::warn_of_unused_sockets(running.config());
    // Until here a signal ends the process: it may wait for the name of an address.
    let signals = Signals::open().map_err(failed)?;
    let announced = Announced::of(&running, &parts);
    let remotes = running.remotes().to_vec();
    let reporter = Arc::new(Reporter::new(parsed.command().name(), announced.addresses(), remotes, workers));
    let (_admin, addresses) =
        admin::serve(running.config(), Arc::clone(&reporter), Box::new(QueuedCommands::new(&queue)))?;
    let _script = script(running.config(), &reporter, &queue)?;
    let supervisor = Supervisor::new(parsed, &queue, running, reporter, parts)?;
    supervisor.reloading(source, instance).announcing(announced.with_admin(addresses)).run(queue, loops, signals)
}

/// Starts the script of the configuration, if there is one. The main thread carries out its commands as those of the admin server.
#[cfg(feature = "console")]
fn script(
    config: &Config,
    reporter: &Arc<Reporter>,
    queue: &EventQueue,
) -> Result<Option<super::console::Script>, Failed> {
    let start = |path: &PathBuf| {
        super::console::start_script(path.clone(), Arc::clone(reporter), Box::new(QueuedCommands::new(queue)))
    };
    config.console_script.as_ref().map(start).transpose()
}

/// Refuses a script, because this binary was built without the console.
#[cfg(not(feature = "console"))]
fn script(config: &Config, _: &Arc<Reporter>, _: &EventQueue) -> Result<Option<()>, Failed> {
    match config.console_script {
        Some(_) => {
            Err(Failed::new(Exit::Config, "seaprox: --console-script: this binary was built without the console"))
        }
        None => Ok(None),
    }
}

/// Serves the files of the folders that `permit-get=` of a key names.
fn share_files(running: &Running) {
    let on_event = |peer: &Peer, event: Event| match event {
        Event::Done(finished) => {
            let (peer, file, bytes) = (&peer.name, &finished.offer.name, finished.offer.bytes);
            log::info!(target: "seaprox::link", peer = peer, file = file, bytes = bytes; "the peer has got a file");
        }
        Event::Ended(Err(error)) => {
            log::info!(target: "seaprox::link", peer = peer.name, error:% = error; "the peer has not got a file");
        }
        _ => {}
    };
    for remote in running.remotes() {
        let share = move |core: &mut Loop<'_>| {
            files::share(core, Arc::new(|peer: &Peer| peer.folders.clone()), Arc::new(on_event));
        };
        // A loop that has just started takes a call.
        let _ = remote.call(share);
    }
}

fn failed(error: io::Error) -> Failed {
    Failed::new(Exit::Failure, format!("seaprox: {error}"))
}
