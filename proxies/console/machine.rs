//! The virtual machine of Lua: its limits, its globals, and the run of a chunk.
//!
//! A chunk has a budget of instructions, so that a loop without end ends, and the machine a limit of memory. A chunk that is
//! ended so cannot go on by catching the error: the hook fails again at its next instruction.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mlua::{Error, HookTriggers, Lua, LuaOptions, MultiValue, StdLib, Value, VmState};

use super::board::Board;
use super::node::Changes;
use super::objects::{self, Handle};
use super::{Flags, Output};

/// The limits of a machine.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Instructions of one chunk.
    pub instructions: u64,
    /// Bytes of memory.
    pub memory: usize,
    /// True to give scripts files, processes and packages.
    pub is_unsafe: bool,
}

/// The virtual machine.
pub struct Machine {
    lua: Lua,
    guard: Rc<Guard>,
    output: Rc<RefCell<Output>>,
}

/// What the hook looks at.
struct Guard {
    limits: Limits,
    used: Cell<u64>,
    flags: Flags,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { instructions: 1_000_000_000, memory: 64 << 20, is_unsafe: false }
    }
}

impl Machine {
    /// Creates a machine.
    ///
    /// # Errors
    /// There is not enough memory.
    pub fn new(
        changes: Changes,
        board: Arc<Board>,
        output: Output,
        flags: Flags,
        limits: Limits,
    ) -> mlua::Result<Machine> {
        let libraries = StdLib::COROUTINE | StdLib::TABLE | StdLib::STRING | StdLib::UTF8 | StdLib::MATH | StdLib::OS;
        let more = if limits.is_unsafe { StdLib::IO | StdLib::PACKAGE } else { StdLib::NONE };
        let lua = Lua::new_with(libraries | more, LuaOptions::default())?;
        if !limits.is_unsafe {
            remove_unsafe(&lua)?;
        }
        lua.set_memory_limit(limits.memory)?;
        let output = Rc::new(RefCell::new(output));
        let writer = Rc::clone(&output);
        let print = lua.create_function(move |_, values: MultiValue| {
            let text = values.iter().map(Value::to_string).collect::<mlua::Result<Vec<_>>>()?.join("\t");
            (*writer.borrow_mut())(&format!("{text}\n"));
            Ok(())
        })?;
        lua.globals().set("print", print)?;
        objects::add_to(&lua, changes, board, flags.clone())?;
        Ok(Machine { lua, guard: Rc::new(Guard { limits, used: Cell::new(0), flags }), output })
    }

    /// Runs a chunk. With `prints`, a chunk that is an expression prints its values.
    ///
    /// # Errors
    /// The text of its error.
    pub fn run(&self, name: &str, code: &str, prints: bool) -> Result<(), String> {
        self.guard.used.set(0);
        arm(&self.lua, &self.guard, HOOK_INTERVAL).map_err(|error| error_text(&error))?;
        let result = self.evaluate(name, code, prints);
        if self.guard.flags.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let values = result.map_err(|error| error_text(&error))?;
        if prints && !values.is_empty() {
            let texts = values.iter().map(Value::to_string).collect::<mlua::Result<Vec<_>>>();
            let text = texts.map_err(|error| error_text(&error))?.join("\t");
            (*self.output.borrow_mut())(&format!("{text}\n"));
        }
        Ok(())
    }

    fn evaluate(&self, name: &str, code: &str, prints: bool) -> mlua::Result<MultiValue> {
        let load =
            |code: String| self.lua.load(code).set_name(name).set_mode(mlua::chunk::ChunkMode::Text).into_function();
        let expression = if prints { load(format!("return {code}")).ok() } else { None };
        match expression {
            Some(function) => function.call(()),
            None => load(code.to_owned())?.call(()),
        }
    }

    /// Returns the names of globals, and those of the fields of global tables behind the names of the tables.
    pub fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        for pair in self.lua.globals().pairs::<Value, Value>().flatten() {
            let (Value::String(name), value) = pair else { continue };
            let name = name.to_string_lossy();
            if let (Value::Table(table), true) = (&value, name != "_G") {
                let fields = table.pairs::<Value, Value>().flatten().take(WORDS_MAX);
                words.extend(fields.filter_map(|(field, _)| match field {
                    Value::String(field) => Some(format!("{name}.{}", field.to_string_lossy())),
                    _ => None,
                }));
            }
            words.push(name);
            if words.len() >= WORDS_MAX {
                break;
            }
        }
        words
    }
}

/// Takes files and processes away from scripts, and chunks of bytes, which Lua does not check.
fn remove_unsafe(lua: &Lua) -> mlua::Result<()> {
    let globals = lua.globals();
    for name in ["dofile", "loadfile", "require"] {
        globals.set(name, Value::Nil)?;
    }
    let os: mlua::Table = globals.get("os")?;
    for name in ["execute", "exit", "remove", "rename", "tmpname", "getenv", "setlocale"] {
        os.set(name, Value::Nil)?;
    }
    let load = lua.load(
        "local load = load
         return function(chunk, name, mode, ...)
           if select('#', ...) > 0 then return load(chunk, name, 't', ...) end
           return load(chunk, name, 't')
         end",
    );
    globals.set("load", load.eval::<mlua::Function>()?)
}

/// Has the hook look after each `interval` instructions.
fn arm(lua: &Lua, guard: &Rc<Guard>, interval: u32) -> mlua::Result<()> {
    let guard = Rc::clone(guard);
    lua.set_global_hook(HookTriggers::new().every_nth_instruction(interval), move |lua, _| {
        let used = guard.used.get().saturating_add(interval.into());
        guard.used.set(used);
        let text = if guard.flags.interrupt.load(Ordering::Relaxed) || guard.flags.stop.load(Ordering::Relaxed) {
            "interrupted".to_owned()
        } else if used > guard.limits.instructions {
            format!("more than {} instructions", guard.limits.instructions)
        } else {
            return Ok(VmState::Continue);
        };
        if interval > 1 {
            // A function that catches this error fails at its next instruction.
            arm(lua, &guard, 1)?;
        }
        Err(Error::runtime(text))
    })
}

/// Returns the text of an error, without the stack.
pub fn error_text(error: &Error) -> String {
    let text = match error {
        Error::CallbackError { cause, .. } => return error_text(cause),
        Error::RuntimeError(text) | Error::MemoryError(text) => text.clone(),
        Error::SyntaxError { message, .. } => message.clone(),
        other => other.to_string(),
    };
    text.split("\nstack traceback:").next().unwrap_or_default().to_owned()
}

/// Returns true if code is the beginning of a chunk, and not a whole one.
pub fn is_incomplete(lua: &Lua, code: &str) -> bool {
    let load = |code: String| lua.load(code).set_mode(mlua::chunk::ChunkMode::Text).into_function();
    if load(format!("return {code}")).is_ok() {
        return false;
    }
    matches!(load(code.to_owned()), Err(Error::SyntaxError { incomplete_input: true, .. }))
}

/// Checks that a text is a chunk of Lua. Runs nothing.
///
/// # Errors
/// The error of the syntax.
pub fn check(name: &str, text: &str) -> Result<(), String> {
    let chunk = Lua::new().load(text).set_name(name).set_mode(mlua::chunk::ChunkMode::Text).into_function();
    chunk.map(drop).map_err(|error| error_text(&error))
}

/// Returns the values of a handle's state that tests and the prompt use.
pub fn handle_of(value: &Value) -> Option<Handle> {
    let Value::UserData(data) = value else { return None };
    data.borrow::<Handle>().ok().map(|handle| handle.clone())
}

/// Instructions between two looks of the hook.
const HOOK_INTERVAL: u32 = 1000;
/// Words for the completion.
const WORDS_MAX: usize = 5000;

#[cfg(test)]
mod tests;
