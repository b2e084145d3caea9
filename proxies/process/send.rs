//! `seaprox send`: sends a file over a link to a node where `seaprox receive` runs.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use seaprox::{Config as LoopConfig, Cx, Proxy, Reason, Workers, human_size};

use super::cat::{self, LinkState};
use super::exit::{Exit, Failed};
use super::{link, logging, settings};
use crate::Parts;
use crate::cli::Parsed;
use crate::files::{Fault, FileError, Outgoing, SERVICE, SendError};

/// Sends the file, and waits until the receiver has it under its name.
///
/// # Errors
/// Fails if the file cannot be read, the link is not up in time, or the receiver does not take the file.
pub fn run(parsed: &Parsed) -> Result<(), Failed> {
    let failed = |error: &dyn std::fmt::Display| Failed::new(Exit::Failure, format!("seaprox send: {error}"));
    let file = parsed.frees().first().map_or("", String::as_str);
    if parsed.peers()?.is_empty() {
        return Err(parsed.error("expected --via HOST[:PORT], the node to send to").into());
    }
    let result: Rc<RefCell<Option<Result<(), SendError>>>> = Rc::default();
    let ended = Rc::clone(&result);
    let on_end = move |cx: &mut Cx<'_>, result| {
        *ended.borrow_mut() = Some(result);
        cx.core().drain(CLOSING);
    };
    let outgoing = Outgoing::open(Path::new(file), Box::new(on_end));
    let outgoing = outgoing.map_err(|error| failed(&format_args!("{file}: {error}")))?;
    let size = outgoing.size();
    let tree = settings::config(parsed)?;
    let parts = Parts::new(&tree);
    let _instance = link::prepare(parsed, &tree, &parts)?;
    let Some(dialed) = tree.links.first().map(|link| tree.resolved_link(link)) else {
        return Err(parsed.error("expected --via HOST[:PORT]").into());
    };
    let made = cat::make_link(&dialed, &parts).map_err(|error| Failed::made(parsed, error))?;
    let config = LoopConfig { limits: cat::few(&tree.loops), ..tree.loops };
    let workers = Workers::start(cat::WORKERS, config.limits.lookups).map_err(|error| failed(&error))?;
    let mut proxy = Proxy::new(config, Some(workers)).map_err(|error| failed(&error))?;
    let state = LinkState::default();
    let link = cat::dial(parsed, &mut proxy.core(), &Rc::new(parts), (dialed, made), &state)?;
    proxy.core().open_service(link, SERVICE, Box::new(outgoing)).map_err(|error| failed(&error))?;
    proxy.run().map_err(|error| failed(&error))?;
    drop(proxy);
    if let Some(failed) = state.exit_error.take() {
        return Err(failed);
    }
    match result.take() {
        Some(Ok(())) => {
            logging::say(&format!("sent {file} ({})", human_size(size)));
            Ok(())
        }
        Some(Err(error)) => Err(failure(file, error, state.was_up.get())),
        None => Err(failed(&"the loop has ended")),
    }
}

fn failure(file: &str, error: SendError, was_up: bool) -> Failed {
    let exit = match &error {
        SendError::File(FileError { fault: Fault::Refused, .. }) => Exit::NoPermission,
        SendError::File(_) => Exit::Failure,
        SendError::Stream(failure) => match failure.reason {
            Reason::NotPermitted => Exit::NoPermission,
            Reason::LinkLost if was_up => Exit::LinkLost,
            reason if reason == Reason::LinkLost || reason.is_connect_failure() => Exit::Unavailable,
            _ => Exit::Failure,
        },
    };
    let text = match error {
        SendError::File(error) => error.to_string(),
        SendError::Stream(failure) if failure.reason == Reason::NotPermitted => {
            format!("{failure} (expected seaprox receive at the far end)")
        }
        SendError::Stream(failure) => failure.to_string(),
    };
    Failed::new(exit, format!("seaprox send: {file}: {text}"))
}

/// Time for the peer to hear that the link is closed.
const CLOSING: Duration = Duration::from_secs(5);
