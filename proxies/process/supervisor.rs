//! The main thread of a process whose loops run: it does what signals and links ask for, until all loops have ended.
//!
//! Everything comes through one channel, as [`News`]. Loops never wait for it: what does not fit is dropped, and only what
//! happens to links could be that much.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use seaprox::auth::{KeysError, PublicKey};
use seaprox::node::{Happened, NetworkChanges};
use seaprox::{Core, Id, Loops, Remote};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use crate::admin::status::Teller;
use crate::frontends::access::Gate;
use crate::process::link::{self, Act, Change, Links, Questions, Told, Visits, Watch};
use crate::process::logging;
use crate::shared_file::Look;
use crate::{Exit, Failed};

/// What the main thread hears.
pub enum News {
    /// A signal.
    Signal(i32),
    /// All loops have ended.
    Over(io::Result<()>),
    /// Something happened to the link that we dial.
    Dialled(Happened),
    /// Something happened to a link that we have taken in, by its id.
    Served(Id, Happened),
    /// This machine's addresses or routes have changed.
    Network,
    /// Whether a key is the right one, as somebody says.
    Answer(PublicKey, bool),
    /// Whether a peer may have what it asked for, as somebody says.
    Permitted(bool),
}

/// The ears of the main thread. Signals are caught from here on, before anybody is told that the process is there.
pub struct Ears {
    tell: SyncSender<News>,
    told: Receiver<News>,
    signals: Signals,
}

/// What the main thread has to do with.
pub struct Process {
    remotes: Vec<Remote>,
    teller: Arc<Teller>,
    gate: Arc<Gate>,
    links: Option<Arc<Links>>,
    watch: Option<Watch>,
    visits: Option<Visits>,
    drain: Duration,
    is_draining: bool,
    /// Whether the end has begun: what happens to the link from then on is our own doing.
    is_ending: bool,
    is_asking: bool,
    questions: Questions,
    /// Why it all ends, if not because somebody asked for it.
    doom: Option<Failed>,
    /// Lines for stdout that wait until it is known that the process will run.
    unsaid: Option<Vec<String>>,
    tell: SyncSender<News>,
}

impl Ears {
    /// Begins to listen.
    ///
    /// # Errors
    /// Signals cannot be caught.
    pub fn open() -> io::Result<Ears> {
        let (tell, told) = mpsc::sync_channel(NEWS_MAX);
        Ok(Ears { tell, told, signals: Signals::new([SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2])? })
    }

    /// The other end, for loops.
    pub fn mouth(&self) -> SyncSender<News> {
        self.tell.clone()
    }
}

/// Tells the main thread of the link that is dialled.
pub fn tell_dialled(tell: &SyncSender<News>) -> Told {
    let tell = tell.clone();
    Box::new(move |_, _, happened| drop(tell.try_send(News::Dialled(happened.clone()))))
}

/// Tells the main thread of the links that are taken in.
pub fn tell_served(tell: &SyncSender<News>) -> Told {
    let tell = tell.clone();
    Box::new(move |_, id, happened| drop(tell.try_send(News::Served(id, happened.clone()))))
}

impl Process {
    /// A process with these loops.
    pub fn new(
        ears: &Ears,
        teller: Arc<Teller>,
        gate: Arc<Gate>,
        links: Option<Arc<Links>>,
        drain: Duration,
    ) -> Process {
        let watch = links.as_ref().and_then(|links| links.watch()).map(|watch| watch.asking(link::can_ask()));
        let visits = links.as_ref().and_then(|links| links.visits());
        let (remotes, tell) = (teller.remotes.clone(), ears.mouth());
        let (is_draining, is_ending, is_asking, doom) = (false, false, false, None);
        let questions = Questions::default();
        Process {
            remotes,
            teller,
            gate,
            links,
            watch,
            visits,
            drain,
            is_draining,
            is_ending,
            is_asking,
            questions,
            doom,
            unsaid: None,
            tell,
        }
    }

    /// Sets the lines that announce the listen addresses. They are printed once the process will run: at once if no link is
    /// dialled; otherwise when the link is up or its first try has failed without ending the process, and after a few
    /// seconds at the latest.
    pub fn announcing(mut self, lines: Vec<String>) -> Process {
        self.unsaid = Some(lines);
        if self.watch.is_none() {
            self.announce();
        }
        self
    }

    fn announce(&mut self) {
        // One write for all lines: a reader of the first line finds the others.
        self.unsaid
            .take()
            .filter(|lines| !lines.is_empty())
            .into_iter()
            .for_each(|lines| logging::announce(&lines.join("\n")));
    }

    /// Does what is asked for until all loops have ended.
    ///
    /// # Errors
    /// A loop failed, or a link did and that is the end.
    pub fn wait(mut self, ears: Ears, loops: Loops) -> Result<(), Failed> {
        let Ears { tell, told, mut signals } = ears;
        let (handle, over) = (signals.handle(), tell.clone());
        thread::spawn(move || {
            // The receiver waits for this to be the end.
            let _ = over.send(News::Over(loops.join()));
            handle.close();
        });
        thread::spawn(move || {
            for signal in signals.forever() {
                // Nobody hears it when the process is at its end.
                let _ = tell.send(News::Signal(signal));
            }
        });
        if self.watch.is_some() {
            watch_network(&self.tell);
        }
        let has_files = self.links.is_some() || self.gate.users().is_some();
        let (born, mut looked) = (Instant::now(), Instant::now());
        loop {
            let is_patient = self.watch.as_ref().is_none_or(Watch::is_patient);
            if born.elapsed() >= ANNOUNCE_WITHIN && is_patient && !self.is_asking && !self.is_ending {
                self.announce();
            }
            let news = match has_files {
                true => told.recv_timeout(LOOK_EVERY.saturating_sub(looked.elapsed())),
                false => told.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            if has_files && looked.elapsed() >= LOOK_EVERY {
                looked = Instant::now();
                self.look_at_files(Look::Again(looked));
            }
            match news {
                Ok(News::Over(result)) => {
                    let failed = |error| Failed::new(Exit::Failure, format!("seaprox: {error}"));
                    return self.doom.map_or(result.map_err(failed), Err);
                }
                Ok(news) => self.take(news),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    fn take(&mut self, news: News) {
        match news {
            News::Signal(SIGHUP) => self.reload(),
            News::Signal(SIGUSR2) => {
                log::warn!(target: "seaprox::process", "this version cannot replace itself while it runs")
            }
            News::Signal(SIGUSR1) => self.teller.log(),
            News::Signal(SIGTERM | SIGQUIT) if !std::mem::replace(&mut self.is_draining, true) => {
                let drain = self.drain;
                self.is_ending = true;
                log::info!(target: "seaprox::process", timeout = seaprox::units::format_duration(drain); "draining");
                tell_all(&self.remotes, move |core| core.drain(drain));
            }
            News::Signal(_) => {
                self.is_ending = true;
                log::info!(target: "seaprox::process", "stopping");
                tell_all(&self.remotes, Core::stop);
            }
            News::Dialled(_) if self.is_ending => {}
            News::Dialled(happened) => {
                let act = self.watch.as_mut().and_then(|watch| watch.take(&happened, Instant::now()));
                act.into_iter().for_each(|act| self.act(act));
                if self.watch.as_ref().is_some_and(|watch| watch.will_run(&happened)) && !self.is_ending {
                    self.announce();
                }
            }
            News::Served(_, Happened::Asked { key, request, connection }) => {
                self.questions.add(key, request, connection);
                self.ask_next();
            }
            News::Permitted(may) => self.permitted(may),
            News::Served(id, happened) => {
                self.visits.iter_mut().for_each(|visits| visits.take(id, &happened));
            }
            News::Network => {
                log::debug!(target: "seaprox::process", "an address or a route has changed");
                tell_all(&self.remotes, Core::network_changed);
            }
            News::Answer(key, is_right) => self.answered(key, is_right),
            News::Over(_) => {}
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            // Lines about the link follow the lines about the listen addresses.
            Act::Print(line) => match &mut self.unsaid {
                Some(lines) => lines.push(line),
                None => logging::announce(&line),
            },
            Act::End(failed) => self.end(failed),
            // A peer with several subflows shows its key as often.
            Act::Ask(_) if self.is_asking => {}
            Act::Ask(key) => {
                let Some(peer) = self.links.as_ref().and_then(|links| links.peer()) else { return };
                let tell = self.tell.clone();
                let asked = link::ask(peer.target(), key, move |is_right| drop(tell.send(News::Answer(key, is_right))));
                self.is_asking = asked.is_ok();
            }
        }
    }

    /// Asks the next question about a peer's request, if the terminal is free.
    fn ask_next(&mut self) {
        let Some(links) = self.links.as_ref().filter(|_| !self.is_asking && !self.is_ending) else { return };
        let Some(question) = self.questions.ask() else { return };
        let (text, tell) = (links.question(&question.key, &question.request), self.tell.clone());
        if link::ask_request(text, move |may| drop(tell.send(News::Permitted(may)))).is_err() {
            self.permitted(false);
        }
    }

    fn permitted(&mut self, may: bool) {
        let (Some(question), Some(links)) = (self.questions.answer(), &self.links) else { return };
        links.remember(&question.key, &question.request, may);
        log::info!(target: "seaprox::process", request = question.request.to_string(), permitted = may; "answered");
        let connections = question.connections;
        tell_all(&self.remotes, move |core| connections.iter().for_each(|id| core.permit(*id, may)));
        self.ask_next();
    }

    fn answered(&mut self, key: PublicKey, is_right: bool) {
        self.is_asking = false;
        self.ask_next();
        let Some(peer) = self.links.as_ref().and_then(|links| links.peer()).cloned() else { return };
        if !is_right {
            let text = format!("seaprox: the key of {} was not accepted: {}", peer.target(), key.fingerprint());
            return self.end(Failed::new(Exit::NoPermission, text));
        }
        match peer.accept(&key) {
            Ok(()) => {
                log::info!(target: "seaprox::process", node = peer.target().to_string(), key = key.fingerprint(); "key written down");
                // Who has just typed yes does not wait for the next try.
                tell_all(&self.remotes, |core| {
                    core.links().iter().filter(|link| link.dialled).for_each(|link| core.redial_link(link.id));
                });
            }
            Err(error) => self.end(Failed::new(Exit::Config, format!("seaprox: {error}"))),
        }
    }

    fn end(&mut self, failed: Failed) {
        self.is_ending = true;
        // The first reason is the reason.
        self.doom.get_or_insert(failed);
        tell_all(&self.remotes, Core::stop);
    }

    fn reload(&mut self) {
        match self.gate.refresh(Look::Now) {
            Ok(_) => log::info!(target: "seaprox::process", "reloaded"),
            Err(error) => {
                log::error!(target: "seaprox::process", error = told(&error); "not reloaded, and nothing is changed")
            }
        }
        self.look_at_keys_and_paths(Look::Now);
    }

    fn look_at_files(&self, look: Look) {
        if let Err(error) = self.gate.refresh(look) {
            log::error!(target: "seaprox::process", error = told(&error); "users not read again, and nothing is changed");
        }
        self.look_at_keys_and_paths(look);
    }

    fn look_at_keys_and_paths(&self, look: Look) {
        match self.links.as_ref().map(|links| links.refresh(look)) {
            Some(Ok(true)) => {
                log::info!(target: "seaprox::process", "keys read again");
                tell_all(&self.remotes, Core::recheck_links);
            }
            Some(Err(error)) => {
                log::error!(target: "seaprox::process", error = told(&error); "keys not read again, and nothing is changed")
            }
            Some(Ok(false)) | None => {}
        }
        match self.links.as_ref().map(|links| links.refresh_paths(look)) {
            Some(Ok(Some(change))) => {
                log::info!(target: "seaprox::process", added = change.added.len(), removed = change.removed.len(); "paths read again");
                tell_all(&self.remotes, move |core| change_paths(core, &change));
            }
            Some(Err(error)) => {
                log::error!(target: "seaprox::process", error = told(&error); "paths not read again, and nothing is changed")
            }
            Some(Ok(None)) | None => {}
        }
    }
}

/// Returns the error about a file as the log shows it.
fn told(error: &KeysError) -> String {
    format!("{error}{}", crate::hint(error))
}

/// Gives the link that is dialled its new paths before the old ones go, so that it is never without any, unless it may
/// not have so many.
fn change_paths(core: &mut Core, change: &Change) {
    for link in core.links().iter().filter(|link| link.dialled).map(|link| link.id) {
        let remove = |core: &mut Core| change.removed.iter().for_each(|path| core.remove_path(link, path));
        if change.is_tight {
            remove(core);
        }
        change.added.iter().for_each(|path| core.add_path(link, path));
        if !change.is_tight {
            remove(core);
        }
    }
}

/// Tells of changes of addresses and routes, from a thread of its own. Where that cannot be had, links are tried again
/// after their pauses.
fn watch_network(tell: &SyncSender<News>) {
    let Ok(mut changes) = NetworkChanges::open() else { return };
    let tell = tell.clone();
    let body = move || {
        while changes.wait().is_ok() && tell.send(News::Network).is_ok() {
            thread::sleep(NETWORK_PAUSE);
        }
    };
    // A process without threads to spare goes on without.
    let _ = thread::Builder::new().name("network".into()).spawn(body);
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

/// Time after which the listen addresses are announced even if the link is not up.
const ANNOUNCE_WITHIN: Duration = Duration::from_secs(3);
/// Interval between two looks at the files of keys, users and paths.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two looks at what the network has become.
const NETWORK_PAUSE: Duration = Duration::from_secs(1);
/// News that wait.
const NEWS_MAX: usize = 4096;
