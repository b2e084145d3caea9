//! Files at the console: `send`, `get`, `receive`, `share`, and the answers to offers. A transfer has a thread of its own.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, SyncSender};
use std::time::{Duration, Instant};

use mlua::{Error, Lua, MultiValue, UserDataMethods, Value, Variadic};
use seaprox::{Id, human_size};

use super::board::{Board, Entry, Kind, State};
use super::machine::handle_of;
use super::mailbox::Event;
use super::node::{Change, Keeper};
use super::objects::{Handle, Shared, call_method};
use crate::files::{self, Fault, FileError, Offer, Place, Settings};
use crate::text::escape;

/// A change that has to do with files.
pub enum FileChange {
    /// Send files and folders to the peer of a connection.
    Send(Arc<Entry>, Vec<PathBuf>),
    /// Get a file or a folder that the peer shares, into a folder.
    Get(Arc<Entry>, String, PathBuf),
    /// Take offers of all peers, into a folder.
    Receive(PathBuf),
    /// Share folders with all peers.
    Share(Vec<PathBuf>),
}

/// An offer of a peer, which waits for its answer.
pub struct Question {
    /// The connection.
    pub entry: Arc<Entry>,
    /// The offer.
    pub offer: Offer,
    /// Gets the answer: the folder for the offer if it is not that of `receive`, or nothing to refuse it.
    pub answer: SyncSender<Option<Option<PathBuf>>>,
}

/// The end of a transfer, for callbacks.
pub struct Outcome {
    /// The connection.
    pub entry: Arc<Entry>,
    /// The name of the file or the folder.
    pub name: String,
    /// `sent`, `received` or `failed`.
    pub word: &'static str,
    /// The path at this node, or the reason.
    pub detail: Option<String>,
}

/// Tells the user what becomes of a transfer.
struct Reporter {
    board: Arc<Board>,
    entry: Arc<Entry>,
    word: &'static str,
    name: String,
    /// The time of the first progress: before it, somebody may be asked.
    begun: Option<Instant>,
    told: Option<Instant>,
}

impl Reporter {
    fn new(board: Arc<Board>, entry: Arc<Entry>, word: &'static str, name: String) -> Reporter {
        Reporter { board, entry, word, name, begun: None, told: None }
    }

    fn tell(&self, line: &str) {
        self.board.mailbox().post(Event::Line(format!("{}: {}: {}", self.entry.label(), self.name, escape(line))));
    }

    fn end(&self, word: &'static str, detail: Option<String>) {
        let (entry, name) = (Arc::clone(&self.entry), self.name.clone());
        self.board.mailbox().post(Event::File(Outcome { entry, name, word, detail }));
    }

    fn report(&mut self, event: files::Event) {
        match event {
            files::Event::Offered(offer) => self.name = escape(&offer.name).into_owned(),
            files::Event::Progress(progress) => {
                let begun = *self.begun.get_or_insert_with(Instant::now);
                if self.told.unwrap_or(begun).elapsed() < PROGRESS_TIME {
                    return;
                }
                self.told = Some(Instant::now());
                let moved = progress.bytes.saturating_sub(progress.kept) as f64;
                let rate = moved / begun.elapsed().as_secs_f64().max(0.001);
                let left = progress.bytes_total.saturating_sub(progress.bytes) as f64 / rate.max(1.0);
                let (there, all) = (human_size(progress.bytes), human_size(progress.bytes_total));
                self.tell(&format!("{there} of {all}, {}/s, {left:.0} s left", human_size(rate as u64)));
            }
            files::Event::Retrying(failure) => self.tell(&format!("{failure}; it goes on when the link is back")),
            files::Event::Skipped(path) => {
                self.tell(&format!("{path} is neither a file nor a folder, and is left out"))
            }
            files::Event::Done(finished) => {
                let path = finished.path.map(|path| path.display().to_string());
                let at = path.as_ref().map(|path| format!(", {path}")).unwrap_or_default();
                self.name = escape(&finished.offer.name).into_owned();
                self.tell(&format!("{} ({}){at}", self.word, human_size(finished.offer.bytes)));
                self.end(self.word, path);
            }
            files::Event::Ended(Err(error)) => {
                self.tell(&format!("not {}: {error}", self.word));
                self.end("failed", Some(error.to_string()));
            }
            files::Event::Ended(Ok(())) => {}
        }
    }
}

/// Returns the handler of the transfers that peers begin. Each has a thread of its own, and in it its reporter.
fn peers(board: Arc<Board>, word: &'static str) -> files::OnPeerEvent {
    thread_local! {
        static REPORTER: RefCell<Option<Reporter>> = const { RefCell::new(None) };
    }
    Arc::new(move |peer, event| {
        REPORTER.with(|it| {
            let mut it = it.borrow_mut();
            if it.is_none() {
                let Some(entry) = entry_of(&board, peer.link) else { return };
                *it = Some(Reporter::new(Arc::clone(&board), entry, word, String::new()));
            }
            if let Some(reporter) = it.as_mut() {
                reporter.report(event);
            }
        });
    })
}

fn entry_of(board: &Board, link: Id) -> Option<Arc<Entry>> {
    board.open().into_iter().find(|entry| entry.kind == Kind::Connection && entry.record().id == Some(link))
}

/// Returns the connection of a link that a peer has dialed a moment ago, once it is an object of the console. Returns none if it is
/// not within [`OBJECT_TIME`].
fn awaited_entry(board: &Board, link: Id) -> Option<Arc<Entry>> {
    let since = Instant::now();
    loop {
        let left = OBJECT_TIME.checked_sub(since.elapsed());
        match (entry_of(board, link), left) {
            (None, Some(left)) => board.wait(left.min(OBJECT_TIME / 100)),
            (found, _) => return found,
        }
    }
}

/// Returns the function that asks the user about an offer, and waits for the answer.
fn ask(board: Arc<Board>, folder: PathBuf) -> files::Accept {
    Arc::new(move |peer, offer| {
        let refused = |text: &str| FileError::new(Fault::Refused, text);
        let entry = awaited_entry(&board, peer.link).ok_or_else(|| refused("the connection is closed"))?;
        let (answer, answered) = mpsc::sync_channel(1);
        board.mailbox().post(Event::Offer(Question { entry, offer: offer.clone(), answer }));
        match answered.recv_timeout(ANSWER_TIME) {
            Ok(Some(other)) => Ok(Place { folder: other.unwrap_or_else(|| folder.clone()), quota: None }),
            Ok(None) => Err(refused("the user does not want it")),
            Err(_) => Err(refused("the user has not answered")),
        }
    })
}

impl Keeper {
    /// Carries out a change that has to do with files.
    pub(super) fn transfer(&self, change: FileChange) {
        let board = Arc::clone(&self.board);
        let begun = match change {
            FileChange::Send(entry, paths) => {
                let name = paths.first().map(|path| path.display().to_string()).unwrap_or_default();
                let mut reporter = Reporter::new(board, Arc::clone(&entry), "sent", escape(&name).into_owned());
                self.begin(&entry, |remote, link| {
                    files::send(remote, link, paths, SETTINGS, Box::new(move |event| reporter.report(event)))
                })
            }
            FileChange::Get(entry, name, into) => {
                let mut reporter = Reporter::new(board, Arc::clone(&entry), "received", escape(&name).into_owned());
                self.begin(&entry, |remote, link| {
                    files::get(remote, link, name, into, SETTINGS, Box::new(move |event| reporter.report(event)))
                })
            }
            FileChange::Receive(folder) => self.ask(move |core| {
                files::receive(core, ask(Arc::clone(&board), folder), peers(board, "received"));
                core.permit_services();
            }),
            FileChange::Share(shared) => self.ask(move |core| {
                let folders: files::Folders = Arc::new(move |_| shared.clone());
                files::share(core, folders, peers(board, "sent"));
                core.permit_services();
            }),
        };
        if let Err(error) = begun {
            self.board.mailbox().post(Event::Note(format!("files: {error}")));
        }
    }

    fn begin(
        &self,
        entry: &Entry,
        begin: impl FnOnce(seaprox::Remote, Id) -> std::io::Result<files::Transfer>,
    ) -> Result<(), String> {
        let remote = self.running.remotes().first().cloned().ok_or("there is no loop")?;
        let link = entry.record().id.ok_or("the connection is closed")?;
        begin(remote, link).map(drop).map_err(|error| error.to_string())
    }
}

/// Adds the methods.
pub fn add_methods<M: UserDataMethods<Handle>>(methods: &mut M) {
    methods.add_method("send", |_, handle, paths: Variadic<Value>| {
        let paths = paths.iter().map(|path| path_of("file", path)).collect::<mlua::Result<Vec<_>>>()?;
        if paths.is_empty() {
            return Err(Error::runtime("file: expected a path, not nil"));
        }
        post(handle, |entry| FileChange::Send(entry, paths))
    });
    methods.add_method("get", |_, handle, (name, into): (Value, Value)| {
        let name = path_of("name", &name)?.display().to_string();
        let into = if into.is_nil() { PathBuf::from(".") } else { path_of("folder", &into)? };
        post(handle, |entry| FileChange::Get(entry, name, into))
    });
}

fn post(handle: &Handle, change: impl FnOnce(Arc<Entry>) -> FileChange) -> mlua::Result<()> {
    let Handle { entry, shared } = handle;
    if entry.kind != Kind::Connection || entry.state() != State::Connected {
        return Err(Error::runtime(format!("tc: expected a connection that works, not {}", entry.text())));
    }
    shared.changes.post(Change::Files(change(Arc::clone(entry)))).map_err(Error::runtime)
}

/// Adds the functions to the globals.
///
/// # Errors
/// There is not enough memory.
pub fn add_to(lua: &Lua, shared: &Shared) -> mlua::Result<()> {
    let globals = lua.globals();
    let all = shared.clone();
    let receive = lua.create_function(move |_, folder: Value| {
        let folder = if folder.is_nil() { PathBuf::from(".") } else { path_of("folder", &folder)? };
        all.changes.post(Change::Files(FileChange::Receive(folder))).map_err(Error::runtime)
    })?;
    globals.set("receive", receive)?;
    let all = shared.clone();
    let share = lua.create_function(move |_, folders: Variadic<Value>| {
        let folders = folders.iter().map(|it| path_of("folder", it)).collect::<mlua::Result<Vec<_>>>()?;
        all.changes.post(Change::Files(FileChange::Share(folders))).map_err(Error::runtime)
    })?;
    globals.set("share", share)?;
    for (name, accepts) in [("accept", true), ("refuse", false)] {
        let all = shared.clone();
        let answer = lua.create_function(move |_, folder: Value| {
            let folder = if folder.is_nil() { None } else { Some(path_of("folder", &folder)?) };
            let question = all.questions().borrow_mut().pop_front();
            let Some(Question { answer, .. }) = question else {
                return Err(Error::runtime(format!("{name}: there is no offer")));
            };
            let sent = answer.try_send(accepts.then_some(folder));
            sent.map_err(|_| Error::runtime(format!("{name}: the offer is over")))
        })?;
        globals.set(name, answer)?;
    }
    for name in METHODS {
        let method = lua.create_function(move |lua, args: MultiValue| call_method(lua, name, args))?;
        globals.set(name, method)?;
    }
    Ok(())
}

/// Returns the answer that the value of a callback gives: true, a folder, or anything else to refuse.
pub fn answer_of(value: Option<&Value>) -> Option<Option<PathBuf>> {
    match value {
        Some(Value::Boolean(true)) => Some(None),
        Some(folder @ Value::String(_)) => path_of("folder", folder).ok().map(Some),
        _ => None,
    }
}

/// Returns the line about an offer that waits for its answer.
pub fn question_line(question: &Question) -> String {
    let Question { entry, offer, .. } = question;
    let kind = if offer.is_folder { "the folder " } else { "" };
    let (name, size) = (escape(&offer.name), human_size(offer.bytes));
    format!("{} offers {kind}{name:?} ({size}): accept() or refuse()\n", entry.label())
}

fn path_of(argument: &str, value: &Value) -> mlua::Result<PathBuf> {
    match value {
        Value::String(path) if !path.as_bytes().is_empty() => Ok(PathBuf::from(path.to_string_lossy())),
        other if handle_of(other).is_some() => {
            Err(Error::runtime(format!("{argument}: expected a path, not an object")))
        }
        other => Err(Error::runtime(format!("{argument}: expected a path, not {}", other.type_name()))),
    }
}

/// The methods that are functions, too.
pub const METHODS: [&str; 2] = ["send", "get"];
/// A lost link is waited for as long as a session is kept.
const SETTINGS: Settings = Settings { retry: Duration::from_secs(600) };
/// Interval of the lines about the progress of a transfer.
const PROGRESS_TIME: Duration = Duration::from_secs(5);
/// Time after which a link that a peer has dialed is an object of the console, at most.
const OBJECT_TIME: Duration = Duration::from_secs(10);
/// Longest wait for the answer to an offer.
const ANSWER_TIME: Duration = Duration::from_secs(300);
/// Offers that wait for an answer at most.
pub const QUESTIONS_MAX: usize = 16;
