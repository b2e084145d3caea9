//! A console that is attached to a process: its objects are the links and forwards of that process, read from the status, and its
//! changes are commands of the admin server. What such a command cannot do, this console cannot do.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use seaprox::node::Path;
use seaprox::{ForwardState, Id, Kind as IdKind, LinkState, Proto};
use serde_json::Value;

use super::board::{Board, Entry, Kind, Place, Record, State};
use super::counts::{Counts, LinkParts};
use super::node::Change;
use crate::admin::command::{ForwardKind, Named, NewForward};
use crate::admin::{AdminCommand, PathChange};

/// The process that a console is attached to.
pub trait Process: Send {
    /// Returns the status without its connections.
    ///
    /// # Errors
    /// The process cannot be asked.
    fn status(&mut self) -> Result<Value, ProcessError>;

    /// Carries out a command. Returns its result.
    ///
    /// # Errors
    /// The process refuses the command, or cannot be asked.
    fn command(&mut self, command: AdminCommand) -> Result<Value, ProcessError>;
}

/// The failure of a question to a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessError {
    /// The process has ended.
    Gone,
    /// The process refuses, or does not answer now.
    Refused(String),
}

impl ProcessError {
    /// Returns the text for the user.
    fn text(self) -> String {
        match self {
            ProcessError::Gone => "the process has ended".to_owned(),
            ProcessError::Refused(text) => text,
        }
    }
}

/// The thread that reads the status and sends the commands.
pub struct Attached {
    process: Box<dyn Process>,
    board: Arc<Board>,
    /// Number of forwards without a name that were opened.
    numbers: u64,
}

/// Returns the reason for which an attached console does not make a change, if it does not.
pub fn refusal(change: &Change) -> Option<&'static str> {
    match change {
        Change::Forward(..) | Change::Socks(..) | Change::Paths(..) => None,
        Change::Close(_) | Change::Look | Change::Finish => None,
        Change::Connect(..) => Some(
            "connect: the links of the process stand in its configuration; this console is attached, and dials none",
        ),
        Change::Listen(..) => Some(
            "listen: the servers of the process stand in its configuration; this console is attached, and opens none",
        ),
        Change::Rename(..) | Change::Save(_) => {
            Some("name: names stand in the configuration of the process; this console is attached, and gives none")
        }
        _ => Some("this console is attached to a process, whose admin server has no command for this"),
    }
}

impl Attached {
    /// Creates the thread's part of an attached console.
    pub fn new(process: Box<dyn Process>, board: Arc<Board>) -> Attached {
        Attached { process, board, numbers: 0 }
    }

    /// Reads the status once.
    ///
    /// # Errors
    /// The process cannot be asked.
    pub fn begin(&mut self) -> Result<(), ProcessError> {
        let status = self.process.status()?;
        self.show(&status);
        Ok(())
    }

    /// Carries out changes until the console or the process ends. The process goes on.
    pub fn run(mut self, changes: &Receiver<Change>) {
        loop {
            match changes.recv_timeout(LOOK_INTERVAL) {
                Ok(Change::Finish) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(change) => self.carry_out(change),
                Err(RecvTimeoutError::Timeout) => {}
            }
            match self.process.status() {
                Ok(status) => self.show(&status),
                Err(ProcessError::Gone) => {
                    log::warn!(target: "seaprox::console", "the process has ended");
                    break;
                }
                // A process that is busy answers later.
                Err(ProcessError::Refused(error)) => {
                    log::debug!(target: "seaprox::console", error = error; "the status cannot be read");
                }
            }
        }
        for entry in self.board.open() {
            self.board.change(&entry, |record| record.state = State::Closed);
        }
    }

    fn carry_out(&mut self, change: Change) {
        let (entry, result) = match change {
            Change::Forward(entry, listen, to) => {
                let kind = if entry.kind == Kind::Reverse { ForwardKind::Remote } else { ForwardKind::Local };
                // The protocol stands once, in front.
                let addresses = format!("{listen}:{}", to.with_proto(Proto::Tcp));
                let result = self.open(&entry, kind, addresses, listen.port());
                (entry, result)
            }
            Change::Socks(entry, listen) => {
                let result = self.open(&entry, ForwardKind::Dynamic, listen.to_string(), listen.port());
                (entry, result)
            }
            Change::Paths(entry, change, answer) => {
                let paths = self.change_paths(&entry, change);
                // A script that was interrupted waits no longer.
                let _ = answer.try_send(paths);
                return;
            }
            Change::Close(entry) => {
                let result = self.close(&entry);
                (entry, result)
            }
            _ => return,
        };
        if let Err(error) = result {
            let reason = error.text();
            self.board.change(&entry, |record| {
                (record.state, record.reason, record.is_closing) = (State::Error, reason, false);
            });
        }
    }

    fn open(
        &mut self,
        entry: &Arc<Entry>,
        kind: ForwardKind,
        addresses: String,
        port: Option<u16>,
    ) -> Result<(), ProcessError> {
        let link = entry.parent.as_ref().and_then(|parent| parent.record().name);
        // Forwards of free ports would all have the same name.
        let name = (port == Some(0)).then(|| {
            self.numbers += 1;
            format!("tunnel-{}-{}", std::process::id(), self.numbers)
        });
        let done = self.process.command(AdminCommand::OpenForward(NewForward { link, name, kind, addresses }))?;
        let name = done["forward"].as_str().map(str::to_owned);
        self.board.change(entry, |record| record.name = name);
        Ok(())
    }

    /// Changes the paths of a link of the process. Returns its paths afterwards.
    fn change_paths(&mut self, entry: &Entry, change: PathChange<Path>) -> Result<Vec<String>, String> {
        let link = entry.record().name;
        let change = change.try_map(|path| Ok::<_, String>(path.to_string()))?;
        let done = self.process.command(AdminCommand::ChangePaths { link, change }).map_err(ProcessError::text)?;
        let paths = done["paths"].as_array().into_iter().flatten();
        Ok(paths.filter_map(|path| path.as_str().map(str::to_owned)).collect())
    }

    fn close(&mut self, entry: &Arc<Entry>) -> Result<(), ProcessError> {
        let Record { id, state, .. } = entry.record();
        let Some(id) = id.filter(|_| state != State::Closed) else {
            self.board.change(entry, |record| record.state = State::Closed);
            return Ok(());
        };
        let named = Named { name: id.to_string(), thread: None };
        let command = match entry.kind {
            Kind::Connection => AdminCommand::CloseLink(named),
            _ => AdminCommand::CloseForward(named),
        };
        let closed = self.process.command(command);
        if let Err(ProcessError::Refused(error)) = &closed {
            log::warn!(target: "seaprox::console", object = entry.text(), error = error; "not closed");
        }
        closed?;
        self.board.change(entry, |record| record.state = State::Closed);
        Ok(())
    }

    /// Writes a status on the board.
    fn show(&self, status: &Value) {
        self.board.set_totals(totals(status));
        let open = self.board.open();
        let links = parsed(&status["links"], IdKind::Link);
        let known = open.iter().filter(|entry| entry.kind == Kind::Connection);
        let mut shown = Vec::new();
        for (id, link) in &links {
            let entry = open.iter().find(|entry| entry.kind == Kind::Connection && entry.record().id == Some(*id));
            let entry =
                entry.cloned().unwrap_or_else(|| self.board.add(Kind::Connection, None, link_record(*id, link)));
            self.board.change(&entry, |record| write_link(record, link));
            shown.push((*id, entry));
        }
        self.close_missing(known, &links);
        let forwards = parsed(&status["forwards"], IdKind::Forward);
        for (id, forward) in &forwards {
            let is_it = |record: &Record| match record.id {
                Some(known) => known == *id,
                None => record.name.is_some() && record.name.as_deref() == forward["name"].as_str(),
            };
            let entry = open.iter().find(|entry| entry.kind != Kind::Connection && is_it(&entry.record()));
            let entry = entry.cloned().or_else(|| self.add_forward(*id, forward, &shown));
            if let Some(entry) = entry {
                self.board.change(&entry, |record| write_forward(record, entry.kind, *id, forward));
            }
        }
        self.close_missing(open.iter().filter(|entry| entry.kind != Kind::Connection), &forwards);
    }

    fn add_forward(&self, id: Id, forward: &Value, links: &[(Id, Arc<Entry>)]) -> Option<Arc<Entry>> {
        let link = &forward["link"];
        // The forward of a group of links is shown with the first of them.
        let parent = links.iter().find(|(id, _)| *link == *id.to_string()).or_else(|| links.first())?;
        let kind = match (forward["direction"].as_str(), forward["kind"].as_str()) {
            (Some("remote"), _) => Kind::Reverse,
            (_, Some("socks")) => Kind::Socks,
            _ => Kind::Tunnel,
        };
        let (name, asked) = (text(forward, "name"), text(forward, "asked"));
        let record = Record::new(Place::default(), Place::default());
        let label = name.filter(|name| Some(name) != asked.as_ref());
        Some(self.board.add(kind, Some(Arc::clone(&parent.1)), Record { id: Some(id), label, ..record }))
    }

    /// Closes objects that the status does not have any more.
    fn close_missing<'a>(&self, known: impl Iterator<Item = &'a Arc<Entry>>, present: &[(Id, &Value)]) {
        for entry in known {
            if entry.record().id.is_some_and(|id| !present.iter().any(|(other, _)| *other == id)) {
                self.board.change(entry, |record| record.state = State::Closed);
            }
        }
    }
}

fn text(value: &Value, key: &str) -> Option<String> {
    value[key].as_str().map(str::to_owned)
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or(0)
}

/// Returns the records of a list that have an id of this kind.
fn parsed(list: &Value, kind: IdKind) -> Vec<(Id, &Value)> {
    let all = list.as_array().into_iter().flatten();
    all.filter_map(|record| Some((Id::parse(kind, record["id"].as_str()?)?, record))).collect()
}

/// Returns the reason and the detail of a failure.
fn failure(value: &Value) -> Option<String> {
    let reason = text(&value["failure"], "reason")?;
    let reason = text(&value["failure"], "detail").map_or(reason.clone(), |detail| format!("{reason}: {detail}"));
    Some(crate::text::escape(&reason).into_owned())
}

fn link_record(id: Id, link: &Value) -> Record {
    let peer = text(link, "peer").unwrap_or_default();
    Record { id: Some(id), ..Record::new(Place::default(), Place::parse(&peer)) }
}

fn write_link(record: &mut Record, link: &Value) {
    let state = text(link, "state").unwrap_or_default();
    let (is, failure) = (|it: LinkState| state == it.as_str(), failure(link));
    record.state = match failure {
        _ if is(LinkState::Up) || is(LinkState::Draining) => State::Connected,
        _ if is(LinkState::Ended) => State::Closed,
        Some(_) if is(LinkState::Connecting) => State::Error,
        _ => State::Connecting,
    };
    record.reason = failure.filter(|_| record.state == State::Error).unwrap_or_default();
    let subflows: Vec<&Value> = link["subflows"].as_array().into_iter().flatten().collect();
    if let Some(subflow) = subflows.first() {
        record.local = Place::parse(&text(subflow, "local").unwrap_or_default());
        if link["dialled"] != true {
            record.remote = Place::parse(&text(subflow, "remote").unwrap_or_default());
        }
    }
    // A link has its name when the peer has shown its key.
    let name = text(link, "name");
    record.label = name.clone().filter(|name| text(link, "peer").as_ref() != Some(name));
    record.name = name.filter(|_| link["dialled"] == true);
    (record.fingerprint, record.cipher) = (text(link, "fingerprint"), text(link, "cipher"));
    record.seen_as = subflows.iter().filter_map(|subflow| subflow["seen_as"].as_str()?.parse().ok()).collect();
    let wire = |key: &str| subflows.iter().map(|subflow| number(subflow, key)).sum();
    record.counts = Counts::of_parts(&LinkParts {
        sent: number(link, "bytes_sent"),
        resent: number(link, "resent_bytes") + number(link, "reinjected_bytes"),
        received: number(link, "bytes_received"),
        repeated: number(link, "repeated_bytes"),
        frames: (number(link, "frames_sent"), number(link, "frames_received")),
        wire: (wire("bytes_sent"), wire("bytes_received")),
        streams: number(link, "streams"),
    });
}

fn write_forward(record: &mut Record, kind: Kind, id: Id, forward: &Value) {
    let state = text(forward, "state").unwrap_or_default();
    record.id = Some(id);
    record.state = match &*state {
        it if it == ForwardState::Listening.as_str() => State::Connected,
        it if it == ForwardState::Failed.as_str() => State::Error,
        it if it == ForwardState::Closed.as_str() => State::Closed,
        _ => State::Connecting,
    };
    record.reason = failure(forward).filter(|_| record.state == State::Error).unwrap_or_default();
    let asked = text(forward, "asked").unwrap_or_default();
    record.proto = if asked.starts_with("udp:") { Proto::Udp } else { Proto::Tcp };
    let place = |address: &str| Place::parse(address.trim_start_matches("udp:"));
    let listens = place(forward["bound"][0].as_str().unwrap_or(&asked));
    let target = text(forward, "to").map(|to| place(&to)).unwrap_or_default();
    (record.local, record.remote) = if kind == Kind::Reverse { (target, listens) } else { (listens, target) };
    record.counts = Counts::new([
        ("bytes_sent", number(forward, "bytes_sent")),
        ("bytes_received", number(forward, "bytes_received")),
        ("datagrams_sent", number(forward, "datagrams_sent")),
        ("datagrams_received", number(forward, "datagrams_received")),
        ("opened", number(forward, "opened")),
        ("active", number(forward, "active")),
        ("refused", number(forward, "refused")),
    ]);
}

fn totals(status: &Value) -> Counts {
    let usage = &status["usage"];
    Counts::new([
        ("bytes_sent", number(status, "bytes_sent") + number(status, "datagram_bytes_sent")),
        ("bytes_received", number(status, "bytes_received") + number(status, "datagram_bytes_received")),
        ("datagrams_sent", number(status, "datagrams_sent")),
        ("datagrams_received", number(status, "datagrams_received")),
        ("opened", number(status, "opened") + number(status, "flows_opened")),
        ("active", number(usage, "connections") + number(usage, "flows")),
    ])
}

/// Interval at which the status is read if nothing is changed.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
