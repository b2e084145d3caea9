//! The commands that a running process takes from its admin server. The process carries them out; this room only names them.

use std::fmt;

use serde_json::{Map, Value};

use super::path_change::PathChange;

/// A command to a running process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminCommand {
    /// Read the files again, and put what has changed into effect.
    Reload,
    /// Accept nothing more, and stop when the connections have ended.
    Drain,
    /// End a connection.
    CloseConnection(Named),
    /// End a flow of datagrams. The next datagram of its client opens another one.
    CloseFlow(Named),
    /// Close a link, with its forwards and its connections.
    CloseLink(Named),
    /// Close a forward. Its connections live on.
    CloseForward(Named),
    /// Open a forward.
    OpenForward(NewForward),
    /// Change the paths of a link that the process dials, or only list them.
    ChangePaths {
        /// The name of the link; none if the process has one link only.
        link: Option<String>,
        /// The change, with the path in the form of `--path`.
        change: PathChange<String>,
    },
    /// Set the levels of the log, in the grammar of `SEAPROX_LOG`.
    LogLevel(String),
}

/// The record that a command is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its id, as the status shows it, or its name.
    pub name: String,
    /// The number of its loop; none if the name tells it alone.
    pub thread: Option<usize>,
}

/// A forward to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewForward {
    /// The id or the name of the link; none if the process has one link only.
    pub link: Option<String>,
    /// The name of the forward; its address if there is none.
    pub name: Option<String>,
    /// The kind: `local`, `remote`, `dynamic` or `http`, as the options of these names.
    pub kind: ForwardKind,
    /// The addresses, in the grammar of the option.
    pub addresses: String,
}

/// The kind of a forward, named as the option that opens one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardKind {
    /// Listen here, and connect from the far end.
    Local,
    /// Listen at the far end, and connect from here.
    Remote,
    /// Offer a SOCKS proxy here.
    Dynamic,
    /// Offer an HTTP proxy here.
    Http,
}

/// The refusal of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandError {
    /// The cause.
    pub cause: Cause,
    /// The text for the user.
    pub text: String,
}

/// The cause of a refusal, which decides the status code and the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The command itself is wrong.
    Invalid,
    /// The command names a record that is not there.
    Missing,
    /// The state of the process does not allow the command.
    Conflict,
    /// A file of the configuration is wrong.
    Config,
    /// The process cannot carry out the command now.
    Unavailable,
}

/// The process, as the admin server sees it: it carries out commands.
pub trait Commands: Send + Sync {
    /// Carries out a command. Returns a JSON object for the client.
    ///
    /// # Errors
    /// The command is refused, or fails.
    fn run(&self, command: AdminCommand) -> Result<Value, CommandError>;

    /// Returns true if the process answers: it would carry out a command.
    fn is_there(&self) -> bool;
}

impl ForwardKind {
    /// All kinds.
    pub const ALL: [ForwardKind; 4] =
        [ForwardKind::Local, ForwardKind::Remote, ForwardKind::Dynamic, ForwardKind::Http];

    /// Returns the name of the option that opens a forward of this kind.
    pub const fn as_str(self) -> &'static str {
        match self {
            ForwardKind::Local => "local",
            ForwardKind::Remote => "remote",
            ForwardKind::Dynamic => "dynamic",
            ForwardKind::Http => "http",
        }
    }
}

impl Cause {
    /// Returns the status code of the response.
    pub const fn status(self) -> u16 {
        match self {
            Cause::Invalid => 400,
            Cause::Missing => 404,
            Cause::Conflict => 409,
            Cause::Config => 422,
            Cause::Unavailable => 503,
        }
    }
}

impl CommandError {
    /// Creates a refusal.
    pub fn new(cause: Cause, text: impl Into<String>) -> CommandError {
        CommandError { cause, text: text.into() }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for CommandError {}

impl AdminCommand {
    /// Reads the command to close a record: `{"connection": ID}`, `{"flow": ID}`, `{"link": NAME}` or `{"forward": NAME}`, and `"thread": N`.
    ///
    /// # Errors
    /// The object is not one of these.
    pub fn close(mut body: Map<String, Value>) -> Result<AdminCommand, CommandError> {
        let thread = match body.remove("thread") {
            None => None,
            Some(value) => match value.as_u64().and_then(|number| usize::try_from(number).ok()) {
                Some(number) => Some(number),
                None => return Err(invalid("thread: expected a number")),
            },
        };
        let (Some((kind, value)), 1) = (body.iter().next(), body.len()) else { return Err(invalid(CLOSE_FORM)) };
        let Some(name) = value.as_str().map(str::to_owned) else { return Err(invalid(CLOSE_FORM)) };
        let named = Named { name, thread };
        match kind.as_str() {
            "connection" => Ok(AdminCommand::CloseConnection(named)),
            "flow" => Ok(AdminCommand::CloseFlow(named)),
            "link" => Ok(AdminCommand::CloseLink(named)),
            "forward" => Ok(AdminCommand::CloseForward(named)),
            _ => Err(invalid(CLOSE_FORM)),
        }
    }

    /// Reads the command to open a forward: one of `local`, `remote`, `dynamic` and `http` with its addresses, and `link` and
    /// `name`.
    ///
    /// # Errors
    /// The object is not of this form.
    pub fn open(mut body: Map<String, Value>) -> Result<AdminCommand, CommandError> {
        let mut text = |key: &str| match body.remove(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(invalid(&format!("{key}: expected a string"))),
        };
        let (link, name) = (text("link")?, text("name")?);
        let kinds = ForwardKind::ALL.map(|kind| text(kind.as_str()).map(|addresses| Some((kind, addresses?))));
        let mut given = Vec::new();
        for kind in kinds {
            given.extend(kind?);
        }
        match given.pop() {
            Some((kind, addresses)) if given.is_empty() && body.is_empty() => {
                Ok(AdminCommand::OpenForward(NewForward { link, name, kind, addresses }))
            }
            _ => Err(invalid(OPEN_FORM)),
        }
    }

    /// Reads the command to change paths: `add` or `remove` with a path, or none of them, and `link`.
    ///
    /// # Errors
    /// The object is not of this form.
    pub fn paths(mut body: Map<String, Value>) -> Result<AdminCommand, CommandError> {
        let mut text = |key: &str| match body.remove(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(invalid(&format!("{key}: expected a string"))),
        };
        let link = text("link")?;
        let change = match (text("add")?, text("remove")?) {
            (None, None) => PathChange::List,
            (Some(path), None) => PathChange::Add(path),
            (None, Some(path)) => PathChange::Remove(path),
            (Some(_), Some(_)) => return Err(invalid(PATHS_FORM)),
        };
        if body.is_empty() { Ok(AdminCommand::ChangePaths { link, change }) } else { Err(invalid(PATHS_FORM)) }
    }

    /// Reads the command to set the levels of the log: `{"level": LEVELS}`.
    ///
    /// # Errors
    /// The object is not of this form.
    pub fn log_level(body: Map<String, Value>) -> Result<AdminCommand, CommandError> {
        match body.get("level").and_then(Value::as_str) {
            Some(levels) if body.len() == 1 => Ok(AdminCommand::LogLevel(levels.to_owned())),
            _ => Err(invalid("expected {\"level\": \"LEVEL,TARGET=LEVEL\"}")),
        }
    }
}

fn invalid(text: &str) -> CommandError {
    CommandError::new(Cause::Invalid, text)
}

const CLOSE_FORM: &str = "expected {\"connection\": \"ID\"}, {\"link\": \"NAME\"} or {\"forward\": \"NAME\"}";
const OPEN_FORM: &str = "expected one of \"local\", \"remote\", \"dynamic\" and \"http\" with its addresses, and perhaps \"link\" and \"name\"";
const PATHS_FORM: &str = "expected {\"add\": \"PATH\"}, {\"remove\": \"PATH\"} or neither, and perhaps \"link\"";
