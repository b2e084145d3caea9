//! `seaprox receive`: receives files of peers over links that they dial.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::net::IpAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use seaprox::config::Maker;
use seaprox::node::{ClaimReply, LinkEvent, PeerKey, Policy, SessionReply};
use seaprox::{Bound, Cx, Endpoint, Handler, Id, Loop, Proxy, Workers, human_size};

use super::exit::{Exit, Failed};
use super::{link, logging, output, settings};
use crate::Parts;
use crate::cli::Parsed;
use crate::files::{Folder, Incoming, Received, SERVICE};

/// Receives files until one has arrived, with `--once`, or for ever.
///
/// # Errors
/// Fails if an address cannot be bound, or if there is no folder.
pub fn run(parsed: &Parsed) -> Result<(), Failed> {
    let failed = |error: &dyn Display| Failed::new(Exit::Failure, format!("seaprox receive: {error}"));
    if !parsed.flag("yes")? {
        return Err(parsed.error("expected --yes, which accepts each file of the keys in authorized_keys").into());
    }
    let once = parsed.flag("once")?;
    let path = parsed.frees().first().map_or(".", String::as_str);
    let folder = Folder::open(Path::new(path)).map_err(|error| failed(&format_args!("{path}: {error}")))?;
    let tree = settings::config(parsed)?;
    let Some(server) = tree.servers.first().map(|server| tree.resolved_server(server)) else {
        return Err(parsed.error("expected --listen ADDR, where peers dial").into());
    };
    let parts = Parts::new(&tree);
    let _instance = link::prepare(parsed, &tree, &parts)?;
    let made = parts.serve(&server).map_err(|error| Failed::made(parsed, error))?;
    parts.commit(&[], &[], std::slice::from_ref(&server));
    let config = tree.loops;
    let workers = Workers::start(WORKERS, config.limits.lookups).map_err(|error| failed(&error))?;
    let mut proxy = Proxy::new(config.clone(), Some(workers)).map_err(|error| failed(&error))?;
    let carrier = server.carrier.unwrap_or_default();
    let mut bounds: Vec<Bound> = Vec::new();
    for address in &server.addresses {
        let bound = carrier.bind(address, &config).map_err(|error| {
            Failed::new(Exit::Unavailable, format!("seaprox receive: cannot listen on {address}: {error}"))
        })?;
        bounds.extend(bound);
    }
    let unwritten: Rc<RefCell<Option<Failed>>> = Rc::default();
    let is_done: Rc<Cell<bool>> = Rc::default();
    let stop = Stop { once, is_done: Rc::clone(&is_done), unwritten: Rc::clone(&unwritten) };
    offer(&mut proxy.core(), folder, stop);
    for bound in &mut bounds {
        let mut config = made();
        let (mut log, is_done) = (config.on_event, Rc::clone(&is_done));
        let on_event = move |core: &mut Loop<'_>, id: Id, event: &LinkEvent| {
            log(core, id, event);
            if is_done.get() && matches!(event, LinkEvent::Ended { .. }) {
                core.drain(CLOSING);
            }
        };
        config.policy = Arc::new(FilesOnly(config.policy));
        config.on_event = Box::new(on_event);
        proxy.core().serve_links(bound, config).map_err(|error| failed(&error))?;
        if let Endpoint::Ip(_, addr) = bound.addr() {
            output::print(&format!("listening receive {addr}\n"))?;
        }
    }
    proxy.run().map_err(|error| failed(&error))?;
    unwritten.take().map_or(Ok(()), Err)
}

/// The end of the process. The peer closes its link first: one that was closed here would be dialed again.
#[derive(Clone)]
struct Stop {
    /// One file is enough.
    once: bool,
    /// The process ends when the link of its sender has ended.
    is_done: Rc<Cell<bool>>,
    /// Standard output cannot be written.
    unwritten: Rc<RefCell<Option<Failed>>>,
}

/// Offers the service of files to the peers of a loop. A line is printed for each file that has arrived.
fn offer(core: &mut Loop<'_>, folder: Folder, stop: Stop) {
    let make = move |key: &PeerKey, peer: &str| -> Option<Box<dyn Handler>> {
        let (peer, stop) = (peer.to_owned(), stop.clone());
        let on_end = move |cx: &mut Cx<'_>, received: Received| {
            report(&peer, &received, &stop.unwritten);
            if stop.once && received.result.is_ok() || stop.unwritten.borrow().is_some() {
                stop.is_done.set(true);
                // A sender that keeps its link open must not keep this process.
                if cx.core().after(CLOSING, |core| core.drain(CLOSING)).is_err() {
                    cx.core().drain(CLOSING);
                }
            }
        };
        Some(Box::new(Incoming::new(folder.clone(), *key, Box::new(|_| Ok(())), Box::new(on_end))))
    };
    core.set_service(SERVICE, Box::new(make));
}

fn report(peer: &str, received: &Received, unwritten: &Rc<RefCell<Option<Failed>>>) {
    let size = human_size(received.bytes);
    match &received.result {
        Ok(path) => {
            let kept = match received.kept {
                0 => String::new(),
                kept => format!(", {} of them earlier", human_size(kept)),
            };
            let line = format!("received {} ({size}{kept}) from {peer}\n", path.display());
            if let Err(failed) = output::print(&line) {
                unwritten.borrow_mut().get_or_insert(failed);
            }
        }
        Err(error) => {
            let name = received.offer.as_ref().map_or("no file", |offer| &offer.name);
            logging::say(&format!("not received: {name} ({size}) from {peer}: {error}"));
        }
    }
}

/// The policy of a node that takes files and nothing else: the same peers, and no targets and listeners for them.
struct FilesOnly(Arc<dyn Policy>);

impl Policy for FilesOnly {
    fn admits(&self, key: &PeerKey) -> bool {
        self.0.admits(key)
    }

    fn name(&self, key: &PeerKey) -> String {
        self.0.name(key)
    }

    fn may_tell_source(&self, _: &PeerKey, _: IpAddr) -> bool {
        false
    }

    fn is_expired(&self, key: &PeerKey) -> bool {
        self.0.is_expired(key)
    }

    fn is_inviting(&self) -> bool {
        self.0.is_inviting()
    }

    fn take_claim(&self, reply: ClaimReply) {
        self.0.take_claim(reply);
    }

    fn counts_sessions(&self, key: &PeerKey) -> bool {
        self.0.counts_sessions(key)
    }

    fn count_session(&self, key: &PeerKey, reply: SessionReply) {
        self.0.count_session(key, reply);
    }

    fn streams_max(&self, key: &PeerKey) -> Option<u32> {
        self.0.streams_max(key)
    }

    fn rate_max(&self, key: &PeerKey) -> Option<u64> {
        self.0.rate_max(key)
    }
}

const WORKERS: usize = 1;
/// Time for the peers to hear that their links are closed.
const CLOSING: Duration = Duration::from_secs(5);
