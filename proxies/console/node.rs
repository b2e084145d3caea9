//! The thread that changes the configuration in effect, and writes the states of all links and tunnels on the board.

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use seaprox::auth::{AuthorizedKey, PublicKey};
use seaprox::config::{Config, FrontEndConfig, KeySource, Link, LinkPaths, Listener, Maker, Running, Server};
use seaprox::node::{ForwardConfig, ForwardStatus, LinkEvent, LinkStatus, Path, Service};
use seaprox::{Bind, Endpoint, Id, LinkState, Loop, Loops, Reason, Remote, Target, VerbError, Workers};
use serde_json::Value;

use super::attached::{self, Attached, Process, ProcessError};
use super::board::{Board, Entry, Kind, Place, Record, State};
use super::chat::{Message, Messages};
use super::counts::Counts;
use super::keys::Refusals;
use super::mailbox::Event;
use super::names::{NameChange, Names};
use super::reading::{fingerprint, write_link, write_tunnel};
use super::transfers::FileChange;
use crate::admin::{AdminCommand, CommandError, PathChange};
use crate::shared_file::Refresh;
use crate::text::escape;
use crate::{LinkOwner, Parts};

/// The parts of a node that the command line has set.
pub struct NodeSetup {
    /// The configuration, without links.
    pub config: Config,
    /// The settings of each link that this node dials.
    pub link: Link,
    /// The settings of each address on which peers dial links.
    pub server: Server,
    /// Prepares the process for its first link. The value is kept until the process ends.
    pub prepare: Prepare,
    /// The file of the names that the user gives to objects; none to forget them at the end.
    pub names: Option<PathBuf>,
}

/// Prepares a process for its first link. Fails with a text for the user.
pub type Prepare = Box<dyn FnMut(&Config, &Parts) -> Result<Box<dyn Any>, String> + Send>;

/// A running node, as the main thread sees it.
pub struct Node {
    changes: Changes,
    board: Arc<Board>,
    thread: JoinHandle<()>,
    loops: Option<(Vec<Remote>, Arc<Workers>)>,
}

/// The queue of changes, for the virtual machine.
#[derive(Clone)]
pub struct Changes {
    sender: SyncSender<Change>,
    /// True if the console is attached to a process, which does not make every change.
    is_attached: bool,
}

/// A change.
pub enum Change {
    /// Dial a link to a peer, from a local port if there is one.
    Connect(Arc<Entry>, Target, Option<u16>),
    /// Listen for links.
    Listen(Arc<Entry>, Bind),
    /// Listen at an address, here or at the peer, for the clients of a target.
    Forward(Arc<Entry>, Bind, Target),
    /// Listen at an address for the clients of a SOCKS proxy.
    Socks(Arc<Entry>, Bind),
    /// Send a message to the peer of a connection.
    Chat(Arc<Entry>, String),
    /// Change the paths of a connection, and send the list of its paths.
    Paths(Arc<Entry>, PathChange<Path>, SyncSender<Result<Vec<String>, String>>),
    /// Begin a transfer of files, or permit peers to begin some.
    Files(FileChange),
    /// Close an object, a connection after its tunnels.
    Close(Arc<Entry>),
    /// Accept the key of the peer of a connection.
    Trust(Arc<Entry>, PublicKey),
    /// Add a line to the file of authorized keys.
    Allow(Box<AuthorizedKey>),
    /// Give an object the name that it has on the board, and save it.
    Rename(Arc<Entry>, Option<NameChange>),
    /// Save a name.
    Save(NameChange),
    /// Carry out a command of the admin server, and send its result.
    Command(AdminCommand, SyncSender<Result<Value, CommandError>>),
    /// Read the states again.
    Look,
    /// Close everything, and end the thread.
    Finish,
}

/// The thread of the configuration.
pub(super) struct Keeper {
    pub(super) running: Running,
    pub(super) parts: Arc<Parts>,
    link: Link,
    pub(super) server: Server,
    pub(super) board: Arc<Board>,
    pub(super) refusals: Refusals,
    messages: Arc<Messages>,
    is_look_due: Arc<AtomicBool>,
    prepare: Option<Prepare>,
    /// The objects that could not be closed, which is tried again.
    unclosed: Vec<Arc<Entry>>,
    /// The value of [`NodeSetup::prepare`].
    _prepared: Option<Box<dyn Any>>,
    numbers: u64,
    /// The time of the last sums of what connections have carried.
    settled: Option<Instant>,
}

impl Node {
    /// Starts a node without links.
    ///
    /// # Errors
    /// A thread or a loop cannot be started.
    pub fn start(setup: NodeSetup) -> Result<Node, String> {
        let (sender, receiver) = mpsc::sync_channel(CHANGES_MAX);
        let (refusals, is_look_due) = (Refusals::default(), Arc::new(AtomicBool::new(false)));
        let messages = Arc::<Messages>::default();
        let handler = handler(sender.clone(), refusals.clone(), Arc::clone(&messages), Arc::clone(&is_look_due));
        let NodeSetup { config, link, server, prepare, names } = setup;
        let parts = Arc::new(Parts::with_events(&config, handler));
        let text = |error: io::Error| error.to_string();
        let workers = Workers::start(config.workers, config.loops.limits.lookups).map_err(text)?;
        let maker: Arc<dyn Maker> = Arc::<Parts>::clone(&parts);
        let all_workers = Arc::clone(&workers);
        let (running, loops) = Running::start(config, maker, &workers).map_err(|errors| errors.to_string())?;
        let names = names.map(Names::load).transpose()?.unwrap_or_default();
        let board = Arc::new(Board::with_names(names));
        let (shared, remotes) = (Arc::clone(&board), running.remotes().to_vec());
        let body = move || {
            let keeper = Keeper {
                running,
                parts,
                link,
                server,
                board: shared,
                refusals,
                messages,
                is_look_due,
                prepare: Some(prepare),
                unclosed: Vec::new(),
                _prepared: None,
                numbers: 0,
                settled: None,
            };
            keeper.run(&receiver, loops);
        };
        let thread = thread::Builder::new().name("console".into()).spawn(body).map_err(text)?;
        let changes = Changes { sender, is_attached: false };
        Ok(Node { changes, board, thread, loops: Some((remotes, all_workers)) })
    }

    /// Attaches a console to a process.
    ///
    /// # Errors
    /// The process cannot be asked, or a thread cannot be started.
    pub fn attach(process: Box<dyn Process>) -> Result<Node, String> {
        let (sender, receiver) = mpsc::sync_channel(CHANGES_MAX);
        let board = Arc::<Board>::default();
        let mut attached = Attached::new(process, Arc::clone(&board));
        attached.begin().map_err(|error| match error {
            ProcessError::Gone => "no process answers".to_owned(),
            ProcessError::Refused(text) => text,
        })?;
        let body = move || attached.run(&receiver);
        let thread = thread::Builder::new().name("console".into()).spawn(body).map_err(|error| error.to_string())?;
        Ok(Node { changes: Changes { sender, is_attached: true }, board, thread, loops: None })
    }

    /// Returns true if the console is attached to a process, which goes on without it.
    pub fn is_attached(&self) -> bool {
        self.changes.is_attached
    }

    /// Returns the loops of this node, and the threads that they share; none if the console is attached to a process.
    pub fn loops(&self) -> Option<(Vec<Remote>, Arc<Workers>)> {
        self.loops.clone()
    }

    /// Returns the queue of changes.
    pub fn changes(&self) -> Changes {
        self.changes.clone()
    }

    /// Returns the board.
    pub fn board(&self) -> Arc<Board> {
        Arc::clone(&self.board)
    }

    /// Closes everything in order, and waits for the end: [`FINISH_TIME`] at most for connections that go on.
    pub fn finish(self) {
        // A thread that has ended has closed everything.
        let _ = self.changes.sender.send(Change::Finish);
        let _ = self.thread.join();
    }
}

impl Changes {
    /// Creates a queue whose changes nothing carries out.
    #[cfg(test)]
    pub fn to_nowhere() -> (Changes, Receiver<Change>) {
        let (sender, receiver) = mpsc::sync_channel(CHANGES_MAX);
        (Changes { sender, is_attached: false }, receiver)
    }

    /// Posts a change. Waits at most 10 ms for room.
    ///
    /// # Errors
    /// Too many changes wait, or the process that the console is attached to does not make this one.
    pub fn post(&self, change: Change) -> Result<(), String> {
        if let Some(refusal) = attached::refusal(&change).filter(|_| self.is_attached) {
            return Err(refusal.to_owned());
        }
        let (since, mut change) = (Instant::now(), change);
        loop {
            match self.sender.try_send(change) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Disconnected(_)) if self.is_attached => {
                    return Err("the process has ended".to_owned());
                }
                Err(TrySendError::Disconnected(_)) => return Err("the console ends".to_owned()),
                Err(TrySendError::Full(_)) if since.elapsed() >= POST_TIME => {
                    return Err(format!("{CHANGES_MAX} changes wait already; try again later"));
                }
                Err(TrySendError::Full(back)) => change = back,
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Returns the handler of the events of links, which runs in the loop and never waits.
fn handler(
    changes: SyncSender<Change>,
    refusals: Refusals,
    messages: Arc<Messages>,
    is_look_due: Arc<AtomicBool>,
) -> crate::OnEvent {
    Arc::new(move |owner: &LinkOwner, id: Id, event: &LinkEvent| {
        match event {
            LinkEvent::Message { text } => messages.push(id, text, Instant::now()),
            LinkEvent::Closed | LinkEvent::Ended { .. } => messages.forget(id),
            _ => {}
        }
        if let LinkOwner::Link(name) = owner {
            refusals.record(name, event);
        }
        if !is_look_due.swap(true, Ordering::AcqRel) && changes.try_send(Change::Look).is_err() {
            // The thread looks after each change that waits.
            is_look_due.store(false, Ordering::Release);
        }
    })
}

impl Keeper {
    fn run(mut self, changes: &Receiver<Change>, loops: Loops) {
        let mut keys_read = Instant::now();
        loop {
            match changes.recv_timeout(LOOK_INTERVAL) {
                Ok(Change::Finish) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(change) => self.carry_out(change),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.is_look_due.store(false, Ordering::Release);
            self.close_again();
            if keys_read.elapsed() >= KEYS_INTERVAL {
                keys_read = Instant::now();
                self.refresh_keys(Refresh::Periodic(keys_read));
            }
            self.look();
        }
        for remote in self.running.remotes() {
            remote.finish(FINISH_TIME);
        }
        // A loop that has failed has closed everything.
        let _ = loops.join();
        for entry in self.board.open() {
            self.board.change(&entry, |record| record.state = State::Closed);
        }
    }

    fn carry_out(&mut self, change: Change) {
        let (entry, result) = match change {
            Change::Connect(entry, peer, local_port) => {
                let result = self.connect(&entry, peer, local_port);
                (entry, result)
            }
            Change::Listen(entry, bind) => {
                let result = self.listen(&entry, bind);
                (entry, result)
            }
            Change::Forward(entry, listen, to) => {
                let result = self.forward(&entry, listen, Some(to));
                (entry, result)
            }
            Change::Socks(entry, listen) => {
                let result = self.forward(&entry, listen, None);
                (entry, result)
            }
            Change::Chat(entry, text) => return self.chat(&entry, text),
            Change::Paths(entry, change, answer) => {
                let paths = self.change_paths(&entry, change);
                // A script that was interrupted waits no longer.
                let _ = answer.try_send(paths);
                return;
            }
            Change::Files(change) => return self.transfer(change),
            Change::Close(entry) => return self.close(&entry),
            Change::Trust(entry, key) => return self.trust(&entry, &key),
            Change::Allow(new) => return self.allow(&new),
            Change::Rename(entry, saved) => {
                self.rename(&entry);
                return saved.iter().for_each(save);
            }
            Change::Save(change) => return save(&change),
            Change::Command(command, result) => {
                let done = self.command(command);
                // A client that waits no longer needs no result.
                let _ = result.try_send(done);
                return;
            }
            Change::Look | Change::Finish => return,
        };
        if let Err(reason) = result {
            self.board.change(&entry, |record| {
                (record.state, record.reason, record.is_final) = (State::Error, escape(&reason).into_owned(), true);
            });
        }
    }

    fn prepare(&mut self) -> Result<(), String> {
        let Some(prepare) = &mut self.prepare else { return Ok(()) };
        // A preparation that fails is tried again for the next object.
        self._prepared = Some(prepare(self.running.config(), &self.parts)?);
        self.prepare = None;
        Ok(())
    }

    fn connect(&mut self, entry: &Arc<Entry>, peer: Target, local_port: Option<u16>) -> Result<(), String> {
        self.prepare()?;
        let name = self.name_of(entry, "console");
        let paths = match local_port {
            Some(port) => LinkPaths::List(vec![Path { local_port: Some(port), ..Path::default() }]),
            None => self.link.paths.clone(),
        };
        // A peer that dials this port from the other side at the same time needs no listener.
        let simultaneous = self.link.simultaneous || local_port.is_some();
        let link = Link { name: name.clone(), peers: vec![peer.into()], paths, simultaneous, ..self.link.clone() };
        let mut config = self.running.config().clone();
        config.links.push(link);
        self.board.change(entry, |record| record.name = Some(name.clone()));
        self.running.apply(config).map_err(|errors| errors.to_string())?;
        let id = self.running.link(&name);
        self.board.change(entry, |record| record.id = id);
        Ok(())
    }

    fn listen(&mut self, entry: &Arc<Entry>, bind: Bind) -> Result<(), String> {
        self.prepare()?;
        let name = self.name_of(entry, "listen");
        let server = Server { name: name.clone(), addresses: vec![bind], ..self.server.clone() };
        let mut config = self.running.config().clone();
        config.servers.push(server);
        self.board.change(entry, |record| record.name = Some(name.clone()));
        self.running.apply(config).map_err(|errors| errors.to_string())?;
        let listening = self.running.listening().into_iter().find(|it| it.name == name);
        self.board.change(entry, |record| {
            record.state = State::Connected;
            if let Some(Endpoint::Ip(_, addr)) = listening.map(|it| it.addr) {
                record.local = Place::new(addr.ip().to_string(), addr.port());
            }
        });
        Ok(())
    }

    /// Opens a forward for a tunnel; without a target it is a SOCKS proxy.
    fn forward(&mut self, entry: &Arc<Entry>, listen: Bind, to: Option<Target>) -> Result<(), String> {
        let Some(link) = entry.parent.as_ref().and_then(|parent| parent.record().id) else {
            return Err("link_lost: the connection is closed".to_owned());
        };
        let name = self.name_of(entry, "tunnel");
        let make = match (entry.kind, to) {
            (Kind::Reverse, Some(to)) => {
                let service = move || Service::Remote { to };
                Box::new(service) as Box<dyn FnOnce() -> Service + Send>
            }
            (_, to) => self.local_service(link, &name, &listen, to)?,
        };
        let id = self.ask(move |core| {
            let config = ForwardConfig { name: Some(name), link, listen, service: make() };
            core.open_forward(config).map_err(|error| error.to_string())
        })?;
        let id = id?;
        self.board.change(entry, |record| record.id = Some(id));
        Ok(())
    }

    /// Returns a function that makes, in the loop, the service of a tunnel that listens here.
    fn local_service(
        &self,
        link: Id,
        name: &str,
        listen: &Bind,
        to: Option<Target>,
    ) -> Result<Box<dyn FnOnce() -> Service + Send>, String> {
        let front_end = match &to {
            Some(to) => FrontEndConfig::new("static").with("to", to.clone()),
            None => FrontEndConfig::new("socks"),
        };
        let config = self.running.config();
        let listener = Listener::new(name, vec![listen.clone()], front_end);
        // The name says that the targets are behind a link.
        let listener = config.resolved_listener(&Listener { link: Some(link.to_string()), ..listener });
        let made = self.parts.front_end(&listener).map_err(|error| error.to_string())?;
        let timeouts = config.loops.timeouts.clone();
        Ok(Box::new(move || {
            let listener = Box::new(listener.listen_config(&made, &timeouts, Some(link)));
            Service::Local { listener, bounds: Vec::new(), to }
        }))
    }

    /// Returns the name of an object in the configuration: that of the user, or a number behind `kind`.
    fn name_of(&mut self, entry: &Entry, kind: &str) -> String {
        self.numbers += 1;
        entry.record().label.unwrap_or_else(|| format!("{kind}-{}", self.numbers))
    }

    /// Gives an object the name that it has on the board in the configuration, too.
    fn rename(&mut self, entry: &Arc<Entry>) {
        let Record { id, name, .. } = entry.record();
        let renamed = match (entry.kind, name, id) {
            (Kind::Connection, Some(name), _) => {
                let new = self.name_of(entry, "console");
                self.rename_record(entry, &name, new)
            }
            (Kind::Listener, Some(name), _) => {
                let new = self.name_of(entry, "listen");
                self.rename_record(entry, &name, new)
            }
            (Kind::Tunnel | Kind::Reverse | Kind::Socks, _, Some(id)) => {
                let new = self.name_of(entry, "tunnel");
                let renamed = self.ask(move |core| core.forward(id).and_then(|mut forward| forward.rename(&new)));
                renamed.and_then(|renamed| renamed.map_err(|error| error.to_string()))
            }
            // A link that the peer has dialed has the name of its key.
            _ => Ok(()),
        };
        if let Err(error) = renamed {
            log::warn!(target: "seaprox::console", object = entry.text(), error = error; "the name is not in the status");
        }
    }

    /// Renames a link or a server in the configuration.
    fn rename_record(&mut self, entry: &Arc<Entry>, name: &str, new: String) -> Result<(), String> {
        let mut config = self.running.config().clone();
        let links = config.links.iter_mut().map(|link| &mut link.name);
        let names = links.chain(config.servers.iter_mut().map(|server| &mut server.name));
        names.filter(|it| **it == name).for_each(|it| it.clone_from(&new));
        self.running.apply(config).map_err(|errors| errors.to_string())?;
        self.refusals.rename(name, &new);
        self.board.change(entry, |record| record.name = Some(new));
        Ok(())
    }

    /// Sends a message. The user is told if it could not be sent.
    fn chat(&self, entry: &Entry, text: String) {
        let result = match entry.record().id {
            Some(id) => self.ask(move |core| {
                core.link(id).and_then(|mut link| link.send_message(&text)).map_err(|error| error.to_string())
            }),
            None => Ok(Err("the connection is closed".to_owned())),
        };
        if let Ok(Err(error)) | Err(error) = result {
            self.board.mailbox().post(Event::Note(format!("chat: {}: not sent: {error}", entry.label())));
        }
    }

    /// Closes an object, a connection after its tunnels.
    pub(super) fn close(&mut self, entry: &Arc<Entry>) {
        let tunnels = self.board.open().into_iter();
        let its = tunnels.filter(|it| it.parent.as_ref().is_some_and(|parent| parent.number == entry.number));
        its.for_each(|tunnel| self.close(&tunnel));
        let Record { id, name, .. } = entry.record();
        let closed = match (entry.kind, name, id) {
            (Kind::Connection | Kind::Listener, Some(name), _) => self.remove(&name),
            (Kind::Connection, None, Some(id)) => {
                self.ask(move |core| core.link(id).and_then(|mut it| it.close()).map_err(|error| error.to_string()))
            }
            (Kind::Tunnel | Kind::Reverse | Kind::Socks, _, Some(id)) => {
                self.ask(move |core| close_tunnel(core, id).map_err(|error| error.to_string()))
            }
            _ => Ok(Ok(())),
        };
        match closed {
            Ok(Ok(())) => {}
            // An object that is gone already needs no second end.
            Ok(Err(error)) => log::debug!(target: "seaprox::console", error = error; "closed already"),
            Err(error) => {
                // It may live on, and nothing else would close it.
                log::debug!(target: "seaprox::console", object = entry.text(), error = error; "not closed yet");
                self.board.change(entry, |record| record.is_closing = true);
                self.unclosed.push(Arc::clone(entry));
                return;
            }
        }
        self.board.change(entry, |record| record.state = State::Closed);
    }

    /// Closes the objects again that could not be closed.
    fn close_again(&mut self) {
        for entry in std::mem::take(&mut self.unclosed) {
            if entry.state() != State::Closed {
                self.close(&entry);
            }
        }
    }

    /// Takes a link or a server out of the configuration.
    fn remove(&mut self, name: &str) -> Result<Result<(), String>, String> {
        self.refusals.remove(name);
        let mut config = self.running.config().clone();
        config.links.retain(|link| link.name != name);
        config.servers.retain(|server| server.name != name);
        self.running.apply(config).map(|_| Ok(())).map_err(|errors| errors.to_string())
    }

    /// Writes the states of links and tunnels on the board.
    fn look(&mut self) {
        self.settle();
        let open = self.board.open();
        // A link whose message is there is among the links that are read after it, unless it has ended.
        let mut messages = self.messages.take();
        let Ok((links, forwards, totals)) = self.ask(|core| (core.links(), core.forwards(), core.totals())) else {
            return;
        };
        self.board.set_totals(Counts::of_process(&totals));
        // A message is told before the end of its link.
        self.pass_on(&mut messages, &open);
        for entry in &open {
            let record = entry.record();
            match entry.kind {
                Kind::Connection => self.look_at_link(entry, &record, &links),
                Kind::Tunnel | Kind::Reverse | Kind::Socks => self.look_at_tunnel(entry, &record, &forwards),
                Kind::Listener => {}
            }
        }
        // A tunnel that could not be made has no end of its own.
        for entry in &open {
            if entry.parent.as_ref().is_some_and(|parent| parent.state() == State::Closed) {
                self.board.change(entry, |record| record.state = State::Closed);
            }
        }
        // A link that the peer has dialed is an object from its first session on.
        for link in links.iter().filter(|link| !link.dialled && link.state == LinkState::Up) {
            if !open.iter().any(|entry| entry.kind == Kind::Connection && entry.record().id == Some(link.id)) {
                self.add_served(link);
            }
        }
        self.pass_on(&mut messages, &self.board.open());
    }

    /// Passes the messages of these connections on to the virtual machine.
    fn pass_on(&self, messages: &mut VecDeque<Message>, open: &[Arc<Entry>]) {
        messages.retain_mut(|Message { link, text, num_dropped }| {
            let Some(entry) = open.iter().find(|entry| entry.record().id == Some(*link)) else { return true };
            let event = Event::Message(Arc::clone(entry), std::mem::take(text), *num_dropped);
            self.board.mailbox().post(event);
            false
        });
    }

    fn add_served(&self, link: &LinkStatus) {
        // A key that several nodes share tells none of them.
        let is_shared = matches!(self.running.config().node.key, KeySource::Secret(_));
        let fingerprint = fingerprint(link).filter(|_| !is_shared);
        let new = Record::new(Place::default(), Place::parse(&link.peer));
        let entry = self.board.add(Kind::Connection, None, Record { id: Some(link.id), fingerprint, ..new });
        self.board.change(&entry, |record| write_link(record, link, ""));
        // A node that has dialed asks by itself.
        let id = link.id;
        let asked = self.ask(move |core| core.link(id).map(|mut link| link.request_observed_addresses()));
        if let Err(error) = asked {
            log::debug!(target: "seaprox::console", error = error; "the peer is not asked for the address of this node");
        }
    }

    /// Adds what connections have carried to the sums, if that was not done a moment ago.
    fn settle(&mut self) {
        if self.settled.is_some_and(|settled| settled.elapsed() < SETTLE_INTERVAL) {
            return;
        }
        let mut after = None;
        while let Ok(Some(last)) = self.ask(move |core| core.settle(after, RECORDS_SETTLED).map(|(last, _)| last)) {
            after = Some(last);
        }
        self.settled = Some(Instant::now());
    }

    fn look_at_link(&self, entry: &Arc<Entry>, record: &Record, links: &[LinkStatus]) {
        let Some(id) = record.id else { return };
        match links.iter().find(|link| link.id == id) {
            Some(link) => {
                let (refusal, shown_key) = self.refusal(record);
                self.board.change(entry, |record| {
                    write_link(record, link, &refusal);
                    record.shown_key = shown_key;
                });
            }
            None => self.board.change(entry, |record| {
                (record.state, record.reason) = (State::Closed, "link_lost".to_owned());
            }),
        }
    }

    fn look_at_tunnel(&self, entry: &Arc<Entry>, record: &Record, forwards: &[ForwardStatus]) {
        let Some(id) = record.id else { return };
        match forwards.iter().find(|forward| forward.id == id) {
            Some(forward) => {
                let parent = entry.parent.as_ref().map(|parent| parent.record());
                self.board.change(entry, |record| write_tunnel(record, entry.kind, forward, parent.as_ref()));
            }
            None => self.board.change(entry, |record| record.state = State::Closed),
        }
    }

    /// Runs a question in the loop, and waits for its answer.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Loop<'_>) -> T + Send + 'static,
    ) -> Result<T, String> {
        let remote: &Remote = self.running.remotes().first().ok_or("there is no loop")?;
        let pending = remote.ask_within(ASK_TIME, question).map_err(|_| "the loop is busy")?;
        match pending.wait_for(ASK_TIME) {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err("the loop does not answer".to_owned()),
            Err(_) => Err("the loop has ended".to_owned()),
        }
    }
}

/// Saves a name.
fn save(change: &NameChange) {
    if let Err(error) = change.save() {
        log::warn!(target: "seaprox::console", error = error.to_string(); "the name cannot be saved");
    }
}

/// Closes a forward, and the connections of its clients here.
fn close_tunnel(core: &mut Loop<'_>, id: Id) -> Result<(), VerbError> {
    let bound: Vec<String> = core.forward(id)?.status()?.bound.iter().map(ToString::to_string).collect();
    // Once the listener is gone, no connection names it.
    let mut clients = core.some_connections(None, usize::MAX);
    clients.retain(|it| it.listener.as_ref().is_some_and(|listener| bound.contains(listener)));
    core.forward(id)?.close()?;
    for client in clients {
        // One that has ended meanwhile needs no second end.
        let _ = core.connection(client.id).map(|mut it| it.abort(Reason::Killed));
    }
    Ok(())
}

/// Changes that wait at most.
const CHANGES_MAX: usize = 256;
/// Longest wait of the virtual machine for room in the queue of changes.
const POST_TIME: Duration = Duration::from_millis(8);
/// Interval at which the states are read if no event tells of a change.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Interval at which the files of keys are looked at.
const KEYS_INTERVAL: Duration = Duration::from_secs(1);
/// Interval at which the sums of what connections have carried are made.
const SETTLE_INTERVAL: Duration = Duration::from_millis(200);
/// Connections and flows whose counts the loop adds up in one call.
const RECORDS_SETTLED: usize = 4096;
/// Longest wait for an answer of the loop.
const ASK_TIME: Duration = Duration::from_secs(10);
/// Time that running connections have when the console ends.
const FINISH_TIME: Duration = Duration::from_secs(3);
