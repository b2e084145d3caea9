//! `seaprox receive`: receives files and folders of peers over links that they dial.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use seaprox::auth::PublicKey;
use seaprox::config::Maker;
use seaprox::node::{ClaimReply, LinkEvent, PeerKey, Policy, SessionReply};
use seaprox::{Bound, Endpoint, Id, Loop, Proxy, Remote, Workers, human_size};

use super::exit::{Exit, Failed};
use super::link::prompt;
use super::progress::ProgressLine;
use super::transfer::stop_on_signal;
use super::{link, output, settings};
use crate::Parts;
use crate::cli::Parsed;
use crate::files::{self, Event, Fault, FileError, Offer, Peer, Place, Quota};

/// Receives files until one offer has arrived, with `--once`, or until a signal stops it.
///
/// # Errors
/// Fails if an address cannot be bound, or if there is no folder.
pub fn run(parsed: &Parsed) -> Result<(), Failed> {
    let failed = |error: &dyn Display| Failed::new(Exit::Failure, format!("seaprox receive: {error}"));
    let rule = Rule::new(parsed)?;
    let once = parsed.flag("once")?;
    let path = parsed.frees().first().map_or(".", String::as_str);
    // A folder that is not there fails before a peer dials.
    seaprox::system::Directory::open(Path::new(path)).map_err(|error| failed(&format_args!("{path}: {error}")))?;
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
    let remote = proxy.core().remote();
    let desk = Arc::new(Desk::new(path.into(), rule, once, remote.clone()));
    offer(&mut proxy.core(), &desk);
    let mut announced: Vec<SocketAddr> = Vec::new();
    for bound in &mut bounds {
        let mut config = made();
        let (mut log, desk) = (config.on_event, Arc::clone(&desk));
        let on_event = move |core: &mut Loop<'_>, id: Id, event: &LinkEvent| {
            log(core, id, event);
            if desk.is_done.load(Ordering::Acquire) && matches!(event, LinkEvent::Ended { .. }) {
                core.drain(CLOSING);
            }
        };
        config.policy = Arc::new(FilesOnly(config.policy));
        config.on_event = Box::new(on_event);
        proxy.core().serve_links(bound, config).map_err(|error| failed(&error))?;
        // The port of UDP beside one of TCP has the same number.
        if let Endpoint::Ip(_, addr) = bound.addr()
            && !announced.contains(addr)
        {
            announced.push(*addr);
            output::print(&format!("listening receive {addr}\n"))?;
        }
    }
    // Transfers end with their streams, and their parts are kept.
    let _is_stopped = stop_on_signal(move || remote.finish(Duration::ZERO)).map_err(|error| failed(&error))?;
    proxy.run().map_err(|error| failed(&error))?;
    desk.line.lock().unwrap_or_else(PoisonError::into_inner).clear();
    let unwritten = desk.unwritten.lock().unwrap_or_else(PoisonError::into_inner).take();
    unwritten.map_or(Ok(()), Err)
}

/// The rule of the offers that are accepted.
struct Rule {
    /// All offers are accepted.
    yes: bool,
    /// Offers of peers with these keys or names are accepted.
    yes_from: Vec<String>,
    /// A user can be asked about the others.
    asks: bool,
    quota: Option<Arc<Quota>>,
}

impl Rule {
    fn new(parsed: &Parsed) -> Result<Rule, Failed> {
        let (yes, yes_from, asks) = (parsed.flag("yes")?, parsed.yes_from(), prompt::can_ask());
        if !yes && yes_from.is_empty() && !asks {
            let text = "expected --yes or --yes-from, because there is no terminal to ask on";
            return Err(parsed.error(text).into());
        }
        let quota = parsed.quota()?.map(|bytes| Arc::new(Quota::new(bytes)));
        Ok(Rule { yes, yes_from, asks, quota })
    }

    fn is_trusted(&self, peer: &Peer) -> bool {
        let key = PublicKey::from_bytes(peer.key).ok();
        let names = |wanted: &String| {
            let is_key = |key: &PublicKey| *wanted == key.to_string() || *wanted == key.fingerprint();
            *wanted == peer.name || key.as_ref().is_some_and(is_key)
        };
        self.yes || self.yes_from.iter().any(names)
    }
}

/// The state that all transfers share.
struct Desk {
    folder: PathBuf,
    rule: Rule,
    /// One offer is enough.
    once: bool,
    /// The process ends when the link of the sender has ended. The sender closes it first: one that was closed here would be
    /// dialed again.
    is_done: AtomicBool,
    remote: Remote,
    line: Mutex<ProgressLine>,
    /// Standard output cannot be written.
    unwritten: Mutex<Option<Failed>>,
    /// One question at a time.
    asking: Mutex<()>,
}

impl Desk {
    fn new(folder: PathBuf, rule: Rule, once: bool, remote: Remote) -> Desk {
        let (line, unwritten) = (Mutex::new(ProgressLine::new()), Mutex::default());
        Desk { folder, rule, once, is_done: AtomicBool::new(false), remote, line, unwritten, asking: Mutex::default() }
    }

    /// Decides about an offer, by rule or by the answer of the user. The other transfers go on meanwhile.
    fn decide(&self, peer: &Peer, offer: &Offer) -> Result<Place, FileError> {
        let is_accepted = self.rule.is_trusted(peer) || (self.rule.asks && self.ask(peer, offer));
        if !is_accepted {
            return Err(FileError::new(Fault::Refused, "the receiver does not want it"));
        }
        Ok(Place { folder: self.folder.clone(), quota: self.rule.quota.clone() })
    }

    fn ask(&self, peer: &Peer, offer: &Offer) -> bool {
        let key = PublicKey::from_bytes(peer.key).map(|key| key.fingerprint()).unwrap_or_default();
        let files = if offer.is_folder { format!("{} files and folders, ", offer.entries) } else { String::new() };
        let question = format!(
            "{} ({key}) offers {} ({files}{}). Receive it into {} (yes/no)? ",
            peer.name,
            offer.name,
            human_size(offer.bytes),
            self.folder.display()
        );
        let _one = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        self.line.lock().unwrap_or_else(PoisonError::into_inner).clear();
        prompt::read(&question)
    }

    fn report(&self, peer: &Peer, event: Event) {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        line.handle(&event);
        match event {
            Event::Done(finished) => {
                let kept = match finished.kept {
                    0 => String::new(),
                    kept => format!(", {} of them earlier", human_size(kept)),
                };
                let (offer, path) = (&finished.offer, finished.path.unwrap_or_default());
                let files = if offer.is_folder { format!("{} files, ", offer.entries) } else { String::new() };
                let size = human_size(offer.bytes);
                let text = format!("received {} ({files}{size}{kept}) from {}\n", path.display(), peer.name);
                let written = output::print(&text);
                let is_unwritten = written.is_err();
                if let Err(failed) = written {
                    self.unwritten.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failed);
                }
                if self.once || is_unwritten {
                    self.is_done.store(true, Ordering::Release);
                    // A sender that keeps its link open must not keep this process.
                    let late = |core: &mut Loop<'_>| {
                        if core.after(CLOSING, |core| core.drain(CLOSING)).is_err() {
                            core.drain(CLOSING);
                        }
                    };
                    if self.remote.call(late).is_err() {
                        self.remote.finish(CLOSING);
                    }
                }
            }
            Event::Ended(Err(error)) => line.say(&format!("not received from {}: {error}", peer.name)),
            _ => {}
        }
    }
}

/// Offers the service of files to the peers of a loop.
fn offer(core: &mut Loop<'_>, desk: &Arc<Desk>) {
    let (deciding, reporting) = (Arc::clone(desk), Arc::clone(desk));
    files::receive(
        core,
        Arc::new(move |peer, offer| deciding.decide(peer, offer)),
        Arc::new(move |peer, event| reporting.report(peer, event)),
    );
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
