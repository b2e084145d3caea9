//! Further verbs of the console: SOCKS proxies and tunnels of datagrams, counts, names, and the address that a peer sees. As in
//! [`super::objects`], each function is also a method of its first argument.

use std::net::SocketAddr;
use std::sync::Arc;

use mlua::{Error, IntoLuaMulti, Lua, MetaMethod, MultiValue, Table, UserDataMethods, Value};
use seaprox::Proto;

use super::board::{Entry, Kind, Place, Record};
use super::counts::Counts;
use super::node::Change;
use super::objects::{Handle, LOOPBACK, Shared, bind_of, call_method, port_of, target_of};

/// Adds the methods.
pub fn add_methods<M: UserDataMethods<Handle>>(methods: &mut M) {
    add_tunnels(methods);
    methods.add_method("stats", |lua, handle, ()| table_of(lua, &handle.entry.record().counts));
    methods.add_method("name", |_, handle, new: MultiValue| name(handle, new));
    methods.add_method("myip", |lua, handle, family: Value| {
        let family = Family::of(&family)?;
        if handle.entry.kind != Kind::Connection {
            return Err(Error::runtime("tc: expected a connection"));
        }
        let found = handle.entry.record().seen_as.into_iter().find(|addr| family.holds(addr));
        answer(lua, found, "the peer has not told the address yet")
    });
}

fn add_tunnels<M: UserDataMethods<Handle>>(methods: &mut M) {
    methods.add_method("socks", |_, handle, port: Value| {
        let port = if port.is_nil() { SOCKS_PORT } else { port_of("port", &port, 0)? };
        let listen = bind_of(LOOPBACK, port)?;
        let record = Record::new(Place::new(LOOPBACK, port), Place::default());
        handle.make_tunnel(Kind::Socks, record, |entry| Change::Socks(entry, listen))
    });
    methods.add_method("udptunnel", |_, handle, (port, host, to): (Value, Value, Value)| {
        let (port, to) = (port_of("local_port", &port, 0)?, port_of("remote_port", &to, 1)?);
        let (host, target) = target_of("remote_host", &host, to)?;
        let (listen, target) = (bind_of(LOOPBACK, port)?.with_proto(Proto::Udp), target.with_proto(Proto::Udp));
        let record = Record { proto: Proto::Udp, ..Record::new(Place::new(LOOPBACK, port), Place::new(host, to)) };
        handle.make_tunnel(Kind::Tunnel, record, |entry| Change::Forward(entry, listen, target))
    });
    methods.add_method("rudptunnel", |_, handle, (host, port, remote): (Value, Value, Value)| {
        let (port, remote) = (port_of("local_port", &port, 1)?, port_of("remote_port", &remote, 0)?);
        let (host, target) = target_of("local_host", &host, port)?;
        let (listen, target) = (bind_of(LOOPBACK, remote)?.with_proto(Proto::Udp), target.with_proto(Proto::Udp));
        let record = Record { proto: Proto::Udp, ..Record::new(Place::new(host, port), Place::new("", remote)) };
        handle.make_tunnel(Kind::Reverse, record, |entry| Change::Forward(entry, listen, target))
    });
}

/// Adds the functions that may have no object as their first argument.
///
/// # Errors
/// There is not enough memory.
pub fn add_functions(lua: &Lua, shared: &Shared) -> mlua::Result<()> {
    let globals = lua.globals();
    let all = shared.clone();
    let stats = move |lua: &Lua, args: MultiValue| match args.front() {
        None | Some(Value::Nil) => table_of(lua, &all.board.totals())?.into_lua_multi(lua),
        Some(_) => call_method(lua, "stats", args),
    };
    globals.set("stats", lua.create_function(stats)?)?;
    let all = shared.clone();
    let myip = move |lua: &Lua, args: MultiValue| match args.front() {
        Some(Value::UserData(_)) => call_method(lua, "myip", args),
        family => {
            let family = Family::of(family.unwrap_or(&Value::Nil))?;
            let open = all.board.open().into_iter();
            let seen: Vec<SocketAddr> = open.flat_map(|entry| entry.record().seen_as).collect();
            // IPv4 stands first if no family was asked for.
            let first = seen.iter().find(|addr| addr.is_ipv4() && family.holds(addr));
            let found = first.or_else(|| seen.iter().find(|addr| family.holds(addr))).copied();
            answer(lua, found, "no peer has told the address")
        }
    };
    globals.set("myip", lua.create_function(myip)?)?;
    let all = shared.clone();
    let connection = lua.create_function(move |_, name: Value| {
        Ok(named(&all, &name, |entry| entry.kind == Kind::Connection)?.map(|entry| all.handle(entry)))
    })?;
    globals.set("connection", connection)?;
    let all = shared.clone();
    let tunnel = move |lua: &Lua, args: MultiValue| match args.front() {
        Some(name @ Value::String(_)) if args.len() == 1 => {
            let found = named(&all, name, |entry| entry.parent.is_some())?;
            found.map(|entry| all.handle(entry)).into_lua_multi(lua)
        }
        _ => call_method(lua, "tunnel", args),
    };
    globals.set("tunnel", lua.create_function(tunnel)?)?;
    let all = shared.clone();
    let names = lua.create_function(move |lua, ()| {
        let names = all.board.names();
        lua.create_table_from(names.iter())
    })?;
    globals.set("names", names)?;
    let all = shared.clone();
    globals.set("forget", lua.create_function(move |_, name: Value| forget(&all, &name))?)
}

/// Returns the name of an object, or gives it another one; nil takes it away.
fn name(handle: &Handle, new: MultiValue) -> mlua::Result<Option<String>> {
    let before = handle.entry.record().label;
    let Some(new) = new.into_iter().next() else { return Ok(before) };
    let new = match &new {
        Value::Nil => None,
        value => Some(text_of("name", value)?),
    };
    let Handle { entry, shared } = handle;
    let is_saved = shared.board.rename(entry, new.as_deref()).map_err(Error::runtime)?;
    let saved = entry.key.as_deref().filter(|_| is_saved).and_then(|key| shared.board.names().change_of(key));
    if let Err(error) = shared.changes.post(Change::Rename(Arc::clone(entry), saved)) {
        // The name of before was permitted.
        let _ = shared.board.rename(entry, before.as_deref());
        return Err(Error::runtime(error));
    }
    Ok(new)
}

/// Gives up a name. Returns false if there is none.
fn forget(shared: &Shared, name: &Value) -> mlua::Result<bool> {
    let name = text_of("name", name)?;
    let Some(key) = shared.board.forget(&name) else { return Ok(false) };
    let change = shared.board.names().change_of(&key);
    change.map_or(Ok(()), |change| shared.changes.post(Change::Save(change))).map_err(Error::runtime)?;
    Ok(true)
}

/// Returns the host and the port of the saved connection with this name.
pub fn saved_place(shared: &Shared, name: &Value) -> Option<Place> {
    let Value::String(name) = name else { return None };
    let names = shared.board.names();
    let place = Place::parse(names.key_of(&name.to_string_lossy())?.strip_prefix("to ")?);
    // The key of a tunnel has its own ends behind those of its connection.
    (place.port != 0 && !place.host.contains(' ')).then_some(place)
}

fn named(shared: &Shared, name: &Value, is_it: fn(&Entry) -> bool) -> mlua::Result<Option<Arc<Entry>>> {
    Ok(shared.board.named(&text_of("name", name)?).filter(|entry| is_it(entry)))
}

fn text_of(argument: &str, value: &Value) -> mlua::Result<String> {
    match value {
        Value::String(text) => Ok(text.to_string_lossy()),
        other => Err(Error::runtime(format!("{argument}: expected a string, not {}", other.type_name()))),
    }
}

/// The address family that a caller asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Any,
    V4,
    V6,
}

impl Family {
    fn of(value: &Value) -> mlua::Result<Family> {
        let word = match value {
            Value::Nil => return Ok(Family::Any),
            Value::String(word) => word.to_string_lossy(),
            other => other.to_string()?,
        };
        match &*word {
            "ipv4" => Ok(Family::V4),
            "ipv6" => Ok(Family::V6),
            word => Err(Error::runtime(format!("family {word:?}: expected \"ipv4\" or \"ipv6\""))),
        }
    }

    fn holds(self, addr: &SocketAddr) -> bool {
        match self {
            Family::Any => true,
            Family::V4 => addr.is_ipv4(),
            Family::V6 => addr.is_ipv6(),
        }
    }
}

/// Returns the address and the port, or nil and the reason.
fn answer(lua: &Lua, found: Option<SocketAddr>, reason: &str) -> mlua::Result<MultiValue> {
    match found {
        Some(addr) => (addr.ip().to_string(), addr.port()).into_lua_multi(lua),
        None => (Value::Nil, reason).into_lua_multi(lua),
    }
}

/// Returns counts as a table, which prints them in their order.
fn table_of(lua: &Lua, counts: &Counts) -> mlua::Result<Table> {
    let table = lua.create_table_from(counts.iter())?;
    let text = counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join("  ");
    let meta = lua.create_table()?;
    meta.set(MetaMethod::ToString.name(), lua.create_function(move |_, _: Value| Ok(text.clone()))?)?;
    table.set_metatable(Some(meta))?;
    Ok(table)
}

/// The methods that are functions, too.
pub const METHODS: [&str; 6] = ["socks", "udptunnel", "rudptunnel", "stats", "name", "myip"];
/// The port of a SOCKS proxy.
const SOCKS_PORT: u16 = 1080;
