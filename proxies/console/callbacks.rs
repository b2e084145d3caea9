//! The functions of the console that deal with time and events: `on`, `after`, `every`, `sleep`, `wait`, and `chat`.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mlua::{Error, Function, IntoLua, IntoLuaMulti, Lua, MultiValue, UserDataMethods, Value};

use super::machine::handle_of;
use super::objects::{Handle, Shared, time_of};
use super::schedule::{Cancel, Plan, Timer, Topic, settled};

/// The function `wait`, as a field of objects.
pub struct Wait;

impl IntoLua for Wait {
    fn into_lua(self, lua: &Lua) -> mlua::Result<Value> {
        lua.named_registry_value(WAIT)
    }
}

/// Adds the methods.
pub fn add_methods<M: UserDataMethods<Handle>>(methods: &mut M) {
    methods.add_method("on", |lua, handle, (event, function): (Value, Value)| {
        on(lua, &handle.shared, Some(handle), &event, function)
    });
    methods.add_method("chat", |_, handle, text: Value| send(handle, &text));
}

/// Adds the functions to the globals.
///
/// # Errors
/// There is not enough memory.
pub fn add_to(lua: &Lua, objects: &Shared) -> mlua::Result<()> {
    let globals = lua.globals();
    let all = objects.clone();
    let function =
        lua.create_function(move |lua, (first, second, third): (Value, Value, Value)| match handle_of(&first) {
            Some(handle) => on(lua, &all, Some(&handle), &second, third),
            None => on(lua, &all, None, &first, second),
        })?;
    globals.set("on", function)?;
    for (name, repeats) in [("after", false), ("every", true)] {
        let all = objects.clone();
        let function = lua.create_function(move |_, (seconds, function): (Value, Value)| {
            let time = time_of(&seconds)?;
            if repeats && time < EVERY_MIN {
                return Err(Error::runtime("seconds: expected at least 0.01"));
            }
            let function = function_of(function)?;
            let timer = Timer { function, args: MultiValue::new(), name, every: repeats.then_some(time) };
            all.schedule().add_timer(time, timer)
        })?;
        globals.set(name, function)?;
    }
    let all = objects.clone();
    let chat = lua.create_function(move |_, (first, text): (Value, Value)| match (&first, handle_of(&first)) {
        (_, Some(handle)) => send(&handle, &text),
        (Value::Boolean(shows), None) => {
            all.set_shows_chat(*shows);
            Ok(())
        }
        _ => Err(Error::runtime(format!("tc: expected a connection, true or false, not {}", first.type_name()))),
    })?;
    globals.set("chat", chat)?;
    add_waits(lua, objects)
}

/// Adds `sleep` and `wait`. They are functions of Lua around functions that tell whether the wait is over already.
fn add_waits(lua: &Lua, objects: &Shared) -> mlua::Result<()> {
    let until = |time: Duration| Some(Instant::now() + time);
    let all = objects.clone();
    let sleep = lua.create_function(move |lua, (can_yield, seconds): (bool, Value)| {
        let time = time_of(&seconds)?;
        if all.schedule().plan(lua, can_yield, || Plan { entry: None, until: until(time) })? {
            return false.into_lua_multi(lua);
        }
        all.sleep(time)?;
        true.into_lua_multi(lua)
    })?;
    let all = objects.clone();
    let wait = lua.create_function(move |lua, (can_yield, object, seconds): (bool, Value, Value)| {
        let Some(Handle { entry, .. }) = handle_of(&object) else {
            let found = object.type_name();
            return Err(Error::runtime(format!("wait: expected a connection or a tunnel, not {found}")));
        };
        let time = if seconds.is_nil() { None } else { Some(time_of(&seconds)?) };
        if let Some(outcome) = settled(&entry, time.is_none()) {
            return (true, outcome).into_lua_multi(lua);
        }
        let plan = || Plan { entry: Some(Arc::clone(&entry)), until: time.and_then(until) };
        if all.schedule().plan(lua, can_yield, plan)? {
            return false.into_lua_multi(lua);
        }
        (true, all.wait(&entry, time)?).into_lua_multi(lua)
    })?;
    let wrap: Function = lua
        .load(
            "local yield, is_yieldable = coroutine.yield, coroutine.isyieldable
             local function outcome(is_over, ...)
               if is_over then return ... end
               return yield()
             end
             return function(begin)
               return function(...) return outcome(begin(is_yieldable(), ...)) end
             end",
        )
        .set_name("=console")
        .eval()?;
    lua.globals().set("sleep", wrap.call::<Function>(sleep)?)?;
    let wait = wrap.call::<Function>(wait)?;
    lua.set_named_registry_value(WAIT, &wait)?;
    lua.globals().set("wait", wait)
}

/// Has a function called at each event. An event of one object that has been already is told once more.
fn on(lua: &Lua, objects: &Shared, handle: Option<&Handle>, event: &Value, function: Value) -> mlua::Result<Cancel> {
    let (topic, function) = (Topic::parse(event)?, function_of(function)?);
    let schedule = objects.schedule();
    if let Some(handle) = handle.filter(|handle| topic.is_past(handle.entry.state())) {
        let reason = Some(handle.entry.record().reason).filter(|reason| !reason.is_empty());
        let args = (handle.clone(), reason).into_lua_multi(lua)?;
        let timer = Timer { function: function.clone(), args, name: topic.as_str(), every: None };
        let once = schedule.add_timer(Duration::ZERO, timer)?;
        if topic == Topic::Closed {
            return Ok(once);
        }
    }
    Rc::clone(schedule).add_handler(topic, handle.map(|handle| handle.entry.number), function)
}

fn send(handle: &Handle, text: &Value) -> mlua::Result<()> {
    let text = match text {
        Value::String(text) => text.to_string_lossy(),
        Value::Integer(_) | Value::Number(_) => text.to_string()?,
        other => return Err(Error::runtime(format!("text: expected a string, not {}", other.type_name()))),
    };
    if text.is_empty() || text.len() > seaprox::link::MESSAGE_BYTES_MAX {
        let (most, found) = (seaprox::link::MESSAGE_BYTES_MAX, text.len());
        return Err(Error::runtime(format!("text: expected 1 to {most} bytes, not {found}")));
    }
    handle.shared.chat(&handle.entry, text)
}

fn function_of(value: Value) -> mlua::Result<Function> {
    match value {
        Value::Function(function) => Ok(function),
        other => Err(Error::runtime(format!("f: expected a function, not {}", other.type_name()))),
    }
}

/// The functions that are methods, too.
pub const NAMES: [&str; 3] = ["chat", "on", "wait"];
/// The place of `wait` in the registry of Lua.
const WAIT: &str = "seaprox.wait";
/// Shortest time between two calls.
const EVERY_MIN: Duration = Duration::from_millis(10);
