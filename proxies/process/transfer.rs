//! The common part of `seaprox send` and `seaprox get`: a link that is dialed, and one transfer over it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use seaprox::{Config as LoopConfig, Id, Proxy, Reason, Remote, Workers, human_size};

use super::cat::{self, LinkState};
use super::exit::{Exit, Failed};
use super::progress::ProgressLine;
use super::signals::{Signal, Signals};
use super::{link, settings};
use crate::Parts;
use crate::cli::Parsed;
use crate::files::{Event, Fault, OnEvent, Settings, Transfer, TransferError};

/// Runs a transfer over the link that the options name, until it is over or a signal stops it.
///
/// # Errors
/// Fails if the link is not up in time, or if the transfer fails.
pub fn run(
    parsed: &Parsed,
    verb: &'static str,
    begin: impl FnOnce(Remote, Id, Settings, OnEvent) -> std::io::Result<Transfer>,
) -> Result<(), Failed> {
    let command = parsed.command().name();
    let failed = |error: &dyn std::fmt::Display| Failed::new(Exit::Failure, format!("seaprox {command}: {error}"));
    if parsed.peers()?.is_empty() {
        return Err(parsed.error("expected --via HOST[:PORT], the node at the far end").into());
    }
    let tree = settings::config(parsed)?;
    let parts = Parts::new(&tree);
    let _instance = link::prepare(parsed, &tree, &parts)?;
    let Some(dialed) = tree.links.first().map(|link| tree.resolved_link(link)) else {
        return Err(parsed.error("expected --via HOST[:PORT]").into());
    };
    let made = cat::make_link(&dialed, &parts).map_err(|error| Failed::made(parsed, error))?;
    let settings = Settings { retry: tree.node.timing.hold };
    let config = LoopConfig { limits: cat::few(&tree.loops), ..tree.loops };
    let workers = Workers::start(cat::WORKERS, config.limits.lookups).map_err(|error| failed(&error))?;
    let mut proxy = Proxy::new(config, Some(workers)).map_err(|error| failed(&error))?;
    let state = LinkState { retries: true, ..LinkState::default() };
    let link = cat::dial(parsed, &mut proxy.core(), &Rc::new(parts), (dialed, made), &state)?;
    let remote = proxy.core().remote();
    let (ended, result) = mpsc::channel();
    let on_event = on_event(verb, remote.clone(), ended);
    let transfer = begin(remote, link, settings, on_event).map_err(|error| failed(&error))?;
    let is_stopped = stop_on_signal(move || transfer.cancel()).map_err(|error| failed(&error))?;
    proxy.run().map_err(|error| failed(&error))?;
    drop(proxy);
    if let Some(failed) = RefCell::take(&state.exit_error) {
        return Err(failed);
    }
    outcome(parsed, &result, state.was_up.get(), is_stopped())
}

/// Returns the function that shows the events, and stops the loop after the last one.
fn on_event(verb: &'static str, remote: Remote, ended: mpsc::Sender<Result<(), TransferError>>) -> OnEvent {
    let mut line = ProgressLine::new();
    Box::new(move |event| {
        line.handle(&event);
        match event {
            Event::Done(finished) => {
                let kept = match finished.kept {
                    0 => String::new(),
                    kept => format!(", {} of them earlier", human_size(kept)),
                };
                let offer = &finished.offer;
                let name = finished.path.map_or_else(|| offer.name.clone(), |path| path.display().to_string());
                let files = if offer.is_folder { format!("{} files, ", offer.entries) } else { String::new() };
                line.say(&format!("{verb} {name} ({files}{}{kept})", human_size(offer.bytes)));
            }
            Event::Skipped(path) => line.say(&format!("not sent: {path}: no file and no folder")),
            Event::Retrying(failure) => line.say(&format!("interrupted: {failure}; waiting for the link")),
            Event::Ended(result) => {
                // The main thread waits for it after the end of the loop.
                let _ = ended.send(result);
                remote.finish(CLOSING);
            }
            Event::Offered(_) | Event::Progress(_) => {}
        }
    })
}

/// Calls a function at the first signal that stops a process. Returns a function that tells if there was one.
pub fn stop_on_signal(stop: impl Fn() + Send + 'static) -> std::io::Result<impl Fn() -> bool> {
    let signals = Signals::open()?;
    let is_stopped = Arc::<Mutex<bool>>::default();
    let seen = Arc::clone(&is_stopped);
    let body = move || {
        signals.for_each(|signal| {
            if matches!(signal, Signal::Stop | Signal::Drain) {
                *seen.lock().unwrap_or_else(PoisonError::into_inner) = true;
                stop();
            }
        });
    };
    thread::Builder::new().name("signals".into()).spawn(body)?;
    Ok(move || *is_stopped.lock().unwrap_or_else(PoisonError::into_inner))
}

fn outcome(
    parsed: &Parsed,
    result: &Receiver<Result<(), TransferError>>,
    was_up: bool,
    is_stopped: bool,
) -> Result<(), Failed> {
    let command = parsed.command().name();
    let error = match result.recv_timeout(CLOSING) {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error,
        Err(_) => return Err(Failed::new(Exit::Failure, format!("seaprox {command}: the loop has ended"))),
    };
    let is_refused = matches!(&error, TransferError::Stream(failure) if failure.reason == Reason::NotPermitted);
    let exit = match &error {
        _ if is_stopped => Exit::Failure,
        TransferError::File(error) if error.fault == Fault::Refused => Exit::NoPermission,
        TransferError::File(error) if error.fault == Fault::Interrupted => Exit::LinkLost,
        TransferError::File(_) => Exit::Failure,
        TransferError::Stream(failure) => match failure.reason {
            Reason::NotPermitted => Exit::NoPermission,
            Reason::LinkLost | Reason::DestReset if was_up => Exit::LinkLost,
            reason if reason == Reason::LinkLost || reason.is_connect_failure() => Exit::Unavailable,
            _ => Exit::Failure,
        },
    };
    let hint = if is_refused { " (expected seaprox receive, or a folder that is shared, at the far end)" } else { "" };
    Err(Failed::new(exit, format!("seaprox {command}: {error}{hint}")))
}

/// Time for the peer to hear that the link is closed.
const CLOSING: Duration = Duration::from_secs(5);
