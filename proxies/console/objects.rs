//! The functions and objects of the console: connections, listeners and tunnels, as tnlr names them. Each function is also a
//! method of its first argument.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mlua::{
    AnyUserData, Error, IntoLuaMulti, Lua, MetaMethod, MultiValue, ObjectLike, UserData, UserDataFields,
    UserDataMethods, Value,
};
use seaprox::{Bind, Target};

use super::board::{Board, Entry, Kind, Place, Record, State};
use super::machine::handle_of;
use super::node::{Change, Changes};
use super::schedule::{Schedule, settled};
use super::transfers::{self, Question};
use super::{Flags, callbacks, help, keys, paths, verbs};
use crate::links::addresses;

/// An object of Lua: a handle of a connection, a listener or a tunnel, which lives on without it.
#[derive(Clone)]
pub struct Handle {
    /// The object.
    pub entry: Arc<Entry>,
    /// All objects.
    pub shared: Shared,
}

/// The state that all handles share.
#[derive(Clone)]
pub struct Shared {
    pub(super) changes: Changes,
    pub(super) board: Arc<Board>,
    flags: Flags,
    schedule: Rc<Schedule>,
    shows_chat: Rc<Cell<bool>>,
    questions: Rc<RefCell<VecDeque<Question>>>,
}

impl Shared {
    /// Creates what all handles share.
    pub fn new(changes: Changes, board: Arc<Board>, flags: Flags, schedule: Rc<Schedule>) -> Shared {
        Shared { changes, board, flags, schedule, shows_chat: Rc::new(Cell::new(true)), questions: Rc::default() }
    }

    /// Returns a handle of an object.
    pub fn handle(&self, entry: Arc<Entry>) -> Handle {
        Handle { entry, shared: self.clone() }
    }

    /// Returns the callbacks and timers.
    pub const fn schedule(&self) -> &Rc<Schedule> {
        &self.schedule
    }

    /// Returns the offers that wait for an answer of the user, the oldest first.
    pub const fn questions(&self) -> &Rc<RefCell<VecDeque<Question>>> {
        &self.questions
    }

    /// Returns true if the messages of peers are printed.
    pub fn shows_chat(&self) -> bool {
        self.shows_chat.get()
    }

    /// Has the messages of peers printed, or not.
    pub fn set_shows_chat(&self, shows: bool) {
        self.shows_chat.set(shows);
    }

    /// Sends a message to the peer of a connection.
    ///
    /// # Errors
    /// The connection does not work, or too many changes wait.
    pub fn chat(&self, entry: &Arc<Entry>, text: String) -> mlua::Result<()> {
        if entry.kind != Kind::Connection {
            return Err(Error::runtime("tc: expected a connection"));
        }
        match entry.record() {
            Record { is_closing: false, state: State::Connected, .. } => {}
            _ => return Err(Error::runtime(format!("tc: {}", entry.text()))),
        }
        self.changes.post(Change::Chat(Arc::clone(entry), text)).map_err(Error::runtime)
    }

    /// Adds an object, and posts the change that makes it.
    fn make(
        &self,
        kind: Kind,
        parent: Option<Arc<Entry>>,
        record: Record,
        change: impl FnOnce(Arc<Entry>) -> Change,
    ) -> mlua::Result<Handle> {
        if self.board.open().len() >= OBJECTS_MAX {
            return Err(Error::runtime(format!("more than {OBJECTS_MAX} objects are open; close some")));
        }
        let entry = self.board.add(kind, parent, record);
        if let Err(error) = self.changes.post(change(Arc::clone(&entry))) {
            self.board.change(&entry, |record| record.state = State::Closed);
            return Err(Error::runtime(error));
        }
        Ok(self.handle(entry))
    }

    /// Fails if a signal ends the chunk.
    pub(super) fn check_flags(&self) -> mlua::Result<()> {
        match self.flags.interrupt.load(Ordering::Relaxed) || self.flags.stop.load(Ordering::Relaxed) {
            true => Err(Error::runtime("interrupted")),
            false => Ok(()),
        }
    }

    /// Waits in the thread.
    ///
    /// # Errors
    /// A signal ends the chunk.
    pub fn sleep(&self, time: Duration) -> mlua::Result<()> {
        let since = Instant::now();
        while let Some(left) = time.checked_sub(since.elapsed()).filter(|left| !left.is_zero()) {
            self.check_flags()?;
            std::thread::sleep(left.min(WAIT_INTERVAL));
        }
        Ok(())
    }

    /// Waits in the thread until an object works, or is closed; without a time, also until it has failed for the first time.
    /// Returns true if it works.
    ///
    /// # Errors
    /// A signal ends the chunk.
    pub fn wait(&self, entry: &Entry, time: Option<Duration>) -> mlua::Result<bool> {
        let since = Instant::now();
        loop {
            if let Some(outcome) = settled(entry, time.is_none()) {
                return Ok(outcome);
            }
            self.check_flags()?;
            let left = time.map_or(WAIT_INTERVAL, |time| time.saturating_sub(since.elapsed()));
            if left.is_zero() {
                return Ok(false);
            }
            self.board.wait(left.min(WAIT_INTERVAL));
        }
    }

    /// Returns the objects that a test holds for, as a list.
    fn list(&self, is_it: impl Fn(&Entry) -> bool) -> Vec<Handle> {
        self.board.open().into_iter().filter(|entry| is_it(entry)).map(|entry| self.handle(entry)).collect()
    }
}

impl Handle {
    fn tunnel(&self, kind: Kind, listen: Bind, to: Target, record: Record) -> mlua::Result<Handle> {
        self.make_tunnel(kind, record, |entry| Change::Forward(entry, listen, to))
    }

    /// Adds a tunnel of this connection, and posts the change that makes it.
    pub(super) fn make_tunnel(
        &self,
        kind: Kind,
        record: Record,
        change: impl FnOnce(Arc<Entry>) -> Change,
    ) -> mlua::Result<Handle> {
        if self.entry.kind != Kind::Connection {
            return Err(Error::runtime("tc: expected a connection"));
        }
        if self.entry.state() == State::Closed || self.entry.record().is_closing {
            return Err(Error::runtime("tc: the connection is closed"));
        }
        let parent = Some(Arc::clone(&self.entry));
        self.shared.make(kind, parent, record, change)
    }
}

impl UserData for Handle {
    fn add_fields<F: UserDataFields<Self>>(fields: &mut F) {
        // It is a function of Lua, because only such a function can leave its coroutine.
        fields.add_field("wait", callbacks::Wait);
    }

    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        add_tunnels(methods);
        verbs::add_methods(methods);
        paths::add_methods(methods);
        keys::add_methods(methods);
        callbacks::add_methods(methods);
        transfers::add_methods(methods);
        methods.add_meta_method(MetaMethod::ToString, |_, handle, ()| Ok(handle.entry.text()));
        methods.add_meta_method(MetaMethod::Eq, |_, handle, other: Value| {
            Ok(handle_of(&other).is_some_and(|other| other.entry.number == handle.entry.number))
        });
        methods.add_method("close", |_, handle, ()| {
            let Handle { entry, shared } = handle;
            shared.changes.post(Change::Close(Arc::clone(entry))).map_err(Error::runtime)?;
            let is_its = |it: &Entry| it.parent.as_ref().is_some_and(|parent| parent.number == entry.number);
            let tunnels = shared.board.open().into_iter().filter(|it| is_its(it));
            let all = tunnels.chain([Arc::clone(entry)]);
            all.for_each(|entry| shared.board.change(&entry, |record| record.is_closing = true));
            Ok(())
        });
        methods.add_method("status", |_, handle, ()| {
            let Record { state, reason, .. } = handle.entry.record();
            let reason = Some(reason).filter(|reason| state != State::Connected && !reason.is_empty());
            Ok((state.as_str(), reason))
        });
        methods.add_method("parent", |_, handle, ()| {
            Ok(handle.entry.parent.clone().map(|parent| handle.shared.handle(parent)))
        });
        methods.add_method("direction", |_, handle, ()| {
            Ok(match handle.entry.kind {
                Kind::Tunnel | Kind::Socks => Some("forward"),
                Kind::Reverse => Some("reverse"),
                Kind::Connection | Kind::Listener => None,
            })
        });
        let text = |text: String| Some(text).filter(|text| !text.is_empty());
        let number = |port: u16| Some(port).filter(|port| *port != 0);
        methods.add_method("local_host", move |_, handle, ()| Ok(text(handle.entry.record().local.host)));
        methods.add_method("local_port", move |_, handle, ()| Ok(number(handle.entry.record().local.port)));
        methods.add_method("remote_host", move |_, handle, ()| Ok(text(handle.entry.record().remote.host)));
        methods.add_method("remote_port", move |_, handle, ()| Ok(number(handle.entry.record().remote.port)));
        methods.add_method("fingerprint", |_, handle, ()| Ok(handle.entry.record().fingerprint));
        methods.add_method("cipher", |_, handle, ()| Ok(handle.entry.record().cipher));
    }
}

fn add_tunnels<M: UserDataMethods<Handle>>(methods: &mut M) {
    methods.add_method("tunnel", |_, handle, (port, host, to): (Value, Value, Value)| {
        let port = port_of("local_port", &port, 0)?;
        let (place, target) = end_or_target(["remote_host", "remote_port"], &host, &to)?;
        let listen = bind_of(LOOPBACK, port)?;
        let record = Record::new(Place::new(LOOPBACK, port), place);
        handle.tunnel(Kind::Tunnel, listen, target, record)
    });
    methods.add_method("rtunnel", |_, handle, (host, port, remote): (Value, Value, Value)| {
        let (place, target) = end_or_target(["local_host", "local_port"], &host, &port)?;
        let remote = port_of("remote_port", &remote, 0)?;
        let listen = bind_of(LOOPBACK, remote)?;
        let record = Record::new(place, Place::new("", remote));
        handle.tunnel(Kind::Reverse, listen, target, record)
    });
    methods.add_method("list_tunnels", |_, handle, ()| {
        let parent = handle.entry.number;
        Ok(handle.shared.list(|entry| entry.parent.as_ref().is_some_and(|it| it.number == parent)))
    });
}

/// Adds the functions of the console to the globals.
///
/// # Errors
/// There is not enough memory.
pub fn add_to(lua: &Lua, shared: &Shared) -> mlua::Result<()> {
    let globals = lua.globals();
    let all = shared.clone();
    let connect = lua.create_function(move |lua, (host, port, local): (Value, Value, Value)| {
        connect(lua, &all, &host, &port, &local)
    })?;
    globals.set("connect", connect)?;
    let all = shared.clone();
    globals.set("listen", lua.create_function(move |_, (port, host)| listen(&all, &port, &host))?)?;
    let all = shared.clone();
    let list = lua.create_function(move |_, ()| Ok(all.list(|entry| entry.kind == Kind::Connection)))?;
    globals.set("list_connections", list)?;
    let all = shared.clone();
    let quit = lua.create_function(move |_, ()| -> mlua::Result<()> {
        all.flags.stop.store(true, Ordering::Relaxed);
        Err(Error::runtime("quit"))
    })?;
    globals.set("quit", quit)?;
    // The setters of the module `callbacks` have other arguments as functions.
    for name in methods().filter(|name| !callbacks::NAMES.contains(name)) {
        let method = lua.create_function(move |lua, args: MultiValue| call_method(lua, name, args))?;
        globals.set(name, method)?;
    }
    verbs::add_functions(lua, shared)?;
    keys::add_functions(lua, shared)?;
    help::add_to(lua)
}

/// Iterates over the methods that are functions, too.
pub fn methods() -> impl Iterator<Item = &'static str> {
    METHODS.into_iter().chain(verbs::METHODS).chain(paths::METHODS).chain(keys::METHODS).chain(transfers::METHODS)
}

/// Calls the method of the first argument.
pub(super) fn call_method(lua: &Lua, name: &str, args: MultiValue) -> mlua::Result<MultiValue> {
    let mut args = args;
    let object = match args.pop_front() {
        Some(Value::UserData(object)) if object.is::<Handle>() => object,
        other => {
            let found = other.map_or("nothing", |value| value.type_name());
            return Err(Error::runtime(format!("{name}: expected a connection or a tunnel, not {found}")));
        }
    };
    let values: MultiValue = AnyUserData::call_method(&object, name, args)?;
    values.into_lua_multi(lua)
}

fn connect(lua: &Lua, shared: &Shared, host: &Value, port: &Value, local: &Value) -> mlua::Result<Handle> {
    let saved = if port.is_nil() { verbs::saved_place(shared, host) } else { None };
    let port = match &saved {
        Some(place) => place.port,
        None if port.is_nil() => addresses::PORT,
        None => port_of("remote_port", port, 1)?,
    };
    let local = if local.is_nil() { None } else { Some(port_of("local_port", local, 0)?).filter(|port| *port != 0) };
    let (host, target) = match saved {
        Some(place) => target_of("remote_host", &Value::String(lua.create_string(place.host)?), port)?,
        None => target_of("remote_host", host, port)?,
    };
    let remote = Place::new(host, port);
    let is_same = |entry: &Entry| {
        let record = entry.record();
        entry.kind == Kind::Connection && record.remote == remote && record.name.is_some() && !record.is_closing
    };
    if let Some(same) = shared.list(is_same).pop() {
        if local.is_some_and(|port| port != same.entry.record().local.port) {
            return Err(Error::runtime(format!(
                "local_port: {} is there already, from another port",
                same.entry.text()
            )));
        }
        let warning = format!("warning: {} is there already", same.entry.text());
        lua.globals().get::<mlua::Function>("print")?.call::<()>(warning)?;
        return Ok(same);
    }
    // The name marks an object that this node dials; the thread of the configuration replaces it.
    let record = Record { name: Some(String::new()), ..Record::new(Place::new("", local.unwrap_or(0)), remote) };
    shared.make(Kind::Connection, None, record, |entry| Change::Connect(entry, target, local))
}

fn listen(shared: &Shared, port: &Value, host: &Value) -> mlua::Result<Handle> {
    let port = if port.is_nil() { addresses::PORT } else { port_of("port", port, 0)? };
    let (host, bind) = match host {
        Value::Nil => (String::new(), Bind::Any(seaprox::Proto::Tcp, port)),
        host => {
            let (host, _) = target_of("host", host, 1)?;
            let bind = bind_of(&host, port)?;
            (host, bind)
        }
    };
    let record = Record::new(Place::new(host, port), Place::default());
    shared.make(Kind::Listener, None, record, |entry| Change::Listen(entry, bind))
}

/// Reads a time in seconds, of at most [`TIME_MAX`]. Fails with the name of the argument.
///
/// # Errors
/// It is no number, or a negative one.
pub fn time_of(value: &Value) -> mlua::Result<Duration> {
    let seconds = match value {
        Value::Integer(number) => Some(*number as f64),
        Value::Number(number) => Some(*number),
        _ => None,
    };
    let time = seconds.filter(|seconds| *seconds >= 0.0).map(|seconds| seconds.min(TIME_MAX.as_secs_f64()));
    time.map(Duration::from_secs_f64).ok_or_else(|| {
        let found = seconds.map_or_else(|| value.type_name().to_owned(), |seconds| seconds.to_string());
        Error::runtime(format!("seconds: expected a number from 0 on, not {found}"))
    })
}

/// Returns a port. Fails with the name of the argument.
pub(super) fn port_of(argument: &str, value: &Value, least: u16) -> mlua::Result<u16> {
    let number = match value {
        Value::Integer(number) => u16::try_from(*number).ok(),
        Value::Number(number) if number.fract() == 0.0 && (0.0..=65_535.0).contains(number) => Some(*number as u16),
        _ => None,
    };
    number.filter(|port| *port >= least).ok_or_else(|| {
        let found = match value {
            Value::Integer(_) | Value::Number(_) => value.to_string().unwrap_or_default(),
            other => other.type_name().to_owned(),
        };
        Error::runtime(format!("{argument}: expected a port from {least} to 65535, not {found}"))
    })
}

/// Returns a host, and the target of a port of it. Fails with the name of the argument.
pub(super) fn target_of(argument: &str, value: &Value, port: u16) -> mlua::Result<(String, Target)> {
    let Value::String(host) = value else {
        return Err(Error::runtime(format!("{argument}: expected a host, not {}", value.type_name())));
    };
    let host = host.to_string_lossy();
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let target =
        Target::from_host(&bare, port).map_err(|error| Error::runtime(format!("{argument} {host:?}: {error}")))?;
    Ok((bare, target))
}

/// Returns the target of a tunnel: a host and a port, or `end:NAME` without a port. Fails with the names of the arguments.
fn end_or_target(arguments: [&str; 2], host: &Value, port: &Value) -> mlua::Result<(Place, Target)> {
    if let (Value::String(text), true) = (host, port.is_nil())
        && let Ok(end @ Target::End(_)) = Target::parse(&text.to_string_lossy())
    {
        return Ok((Place::new(end.to_string(), 0), end));
    }
    let port = port_of(arguments[1], port, 1)?;
    let (host, target) = target_of(arguments[0], host, port)?;
    Ok((Place::new(host, port), target))
}

pub(super) fn bind_of(host: &str, port: u16) -> mlua::Result<Bind> {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    Bind::parse(&format!("{host}:{port}")).map_err(|error| Error::runtime(format!("host {host:?}: {error}")))
}

/// The methods that are functions, too.
const METHODS: [&str; 16] = [
    "chat",
    "on",
    "wait",
    "tunnel",
    "rtunnel",
    "list_tunnels",
    "close",
    "status",
    "parent",
    "direction",
    "local_host",
    "local_port",
    "remote_host",
    "remote_port",
    "fingerprint",
    "cipher",
];
/// Objects that are open at most, besides the links that peers dial.
const OBJECTS_MAX: usize = 10_000;
/// The address on which tunnels listen.
pub(super) const LOOPBACK: &str = "127.0.0.1";
/// Interval at which a waiting function looks for an interrupt.
const WAIT_INTERVAL: Duration = Duration::from_millis(50);
/// Longest time of a timer and of a wait: about 30 years.
const TIME_MAX: Duration = Duration::from_secs(1_000_000_000);
