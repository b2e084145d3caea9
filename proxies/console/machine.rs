//! The virtual machine of Lua: its limits, its globals, and the run of a chunk.
//!
//! A chunk has a budget of instructions, so that a loop without end ends, and the machine a limit of memory. A chunk that is
//! ended so cannot go on by catching the error: the hook fails again at its next instruction.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use mlua::{Error, Function, HookTriggers, IntoLuaMulti, Lua, LuaOptions, MultiValue, StdLib, Table, Value, VmState};

use super::board::Board;
use super::mailbox::{Event, Mailbox, Turn};
use super::node::Changes;
use super::objects::{self, Handle, Shared};
use super::printer::Printer;
use super::schedule::{Schedule, Source, Task, Timer, Topic};
use super::transfers::{self, Outcome, QUESTIONS_MAX, Question};
use super::{Flags, callbacks, chat};
use crate::files::Offer;

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
    printer: Printer,
    objects: Shared,
    schedule: Rc<Schedule>,
    /// `os.date`.
    date: Function,
}

/// The state that the hook looks at.
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
        printer: Printer,
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
        let writer = printer.clone();
        let print = lua.create_function(move |_, values: MultiValue| {
            writer.out(&format!("{}\n", text_of(&values)?));
            Ok(())
        })?;
        lua.globals().set("print", print)?;
        let date = lua.globals().get::<Table>("os")?.get("date")?;
        let schedule = Rc::<Schedule>::default();
        let objects = Shared::new(changes, board, flags.clone(), Rc::clone(&schedule));
        objects::add_to(&lua, &objects)?;
        callbacks::add_to(&lua, &objects)?;
        transfers::add_to(&lua, &objects)?;
        let guard = Rc::new(Guard { limits, used: Cell::new(0), flags });
        Ok(Machine { lua, guard, printer, objects, schedule, date })
    }

    /// Runs what is due, and one turn of the queue. Returns false if the machine is to end.
    pub fn turn(&self, turn: Turn) -> bool {
        if self.guard.is_ending() {
            // A chunk that waits is left where it is.
            self.schedule.take_chunks().into_iter().for_each(|task| finish_chunk(task, Err("interrupted".to_owned())));
        }
        let now = Instant::now();
        for (task, value) in self.schedule.take_ready(now) {
            self.resume(task, MultiValue::from_iter([value]));
        }
        for Timer { function, args, name, .. } in (0..DUE_MAX).map_while(|_| self.schedule.take_due(now)) {
            self.start(function, args, Source::Callback(name));
        }
        if let Some(job) = turn.job {
            let source = Source::Chunk(job.prints, job.result);
            match self.load(&job.name, &job.code, job.prints) {
                Ok(function) => self.start(function, MultiValue::new(), source),
                Err(error) => self.end(source, Err(error)),
            }
        }
        turn.event.into_iter().for_each(|event| self.handle(event));
        !turn.is_over
    }

    /// Waits for work.
    pub fn next(&self, mailbox: &Mailbox) -> Turn {
        let (deadline, num_waiting) = self.schedule.pending();
        mailbox.next(deadline, num_waiting)
    }

    fn handle(&self, event: Event) {
        let (topic, entry, more) = match event {
            Event::Connected(entry) => (Topic::Connected, entry, None),
            Event::Failed(entry) => {
                let reason = entry.record().reason;
                (Topic::Error, entry, Some(reason))
            }
            Event::Closed(entry) => {
                let reason = entry.record().reason;
                (Topic::Closed, entry, Some(reason).filter(|reason| !reason.is_empty()))
            }
            Event::Message(entry, text, num_dropped) => {
                if self.objects.shows_chat() {
                    let time: String = self.date.call("%H:%M:%S").unwrap_or_default();
                    self.printer.out(&chat::line(&time, &entry.label(), &text, num_dropped));
                }
                (Topic::Message, entry, Some(text))
            }
            Event::Note(text) => return self.printer.err(&format!("{text}\n")),
            Event::Line(text) => return self.printer.out(&format!("{text}\n")),
            Event::Offer(question) => return self.offer(question),
            Event::File(Outcome { entry, name, word, detail }) => {
                let args = || (self.objects.handle(Arc::clone(&entry)), name.clone(), word, detail.clone());
                for function in self.schedule.handlers(Topic::File, entry.number) {
                    self.call(function, args().into_lua_multi(&self.lua), Source::Callback("file"));
                }
                return;
            }
        };
        for function in self.schedule.handlers(topic, entry.number) {
            let args = (self.objects.handle(Arc::clone(&entry)), more.clone()).into_lua_multi(&self.lua);
            self.call(function, args, Source::Callback(topic.as_str()));
        }
    }

    /// Has a callback answer an offer, or the user.
    fn offer(&self, question: Question) {
        let function = self.schedule.handlers(Topic::Offer, question.entry.number).pop();
        let Some(function) = function else {
            let mut questions = self.objects.questions().borrow_mut();
            // One that is dropped here is refused.
            if questions.len() < QUESTIONS_MAX {
                self.printer.out(&transfers::question_line(&question));
                questions.push_back(question);
            }
            return;
        };
        let Offer { name, bytes, is_folder, .. } = question.offer.clone();
        let handle = self.objects.handle(Arc::clone(&question.entry));
        let args = (handle, name, bytes, is_folder).into_lua_multi(&self.lua);
        self.call(function, args, Source::Answer(question));
    }

    fn call(&self, function: Function, args: mlua::Result<MultiValue>, source: Source) {
        match args {
            Ok(args) => self.start(function, args, source),
            Err(error) => self.end(source, Err(error)),
        }
    }

    /// Runs a function as a coroutine.
    fn start(&self, function: Function, args: MultiValue, source: Source) {
        // A coroutine gets the hook that is set when it is created.
        match arm(&self.lua, &self.guard, HOOK_INTERVAL).and_then(|()| self.lua.create_thread(function)) {
            Ok(thread) => self.resume(Task { thread, source }, args),
            Err(error) => self.end(source, Err(error)),
        }
    }

    /// Runs a coroutine until it ends or waits. Each such turn has a budget of instructions.
    fn resume(&self, task: Task, args: MultiValue) {
        self.guard.used.set(0);
        self.schedule.enter(&task.thread);
        let result = task.thread.resume::<MultiValue>(args);
        let plan = self.schedule.leave();
        if result.is_err() || !task.thread.is_resumable() {
            return self.end(task.source, result);
        }
        match plan {
            Some(plan) => self.schedule.park(task, plan),
            None => {
                let error = Error::runtime("coroutine.yield: outside of a coroutine of the script");
                self.end(task.source, Err(error));
            }
        }
    }

    /// Reports the end of a task.
    fn end(&self, source: Source, result: mlua::Result<MultiValue>) {
        let is_leaving = self.guard.flags.stop.load(Ordering::Relaxed);
        match source {
            Source::Answer(question) => {
                let value = result.as_ref().ok().and_then(|values| values.front());
                // A peer that has left needs no answer.
                let _ = question.answer.try_send(transfers::answer_of(value));
                self.end(Source::Callback("offer"), result);
            }
            Source::Callback(name) => {
                if let Err(error) = result.as_ref().map_err(error_text)
                    && !is_leaving
                {
                    self.printer.err(&format!("{name}: {error}\n"));
                }
            }
            Source::Chunk(prints, sender) => {
                let text = match result {
                    // The user has given up a chunk whose interrupt is still set.
                    Ok(values) if prints && !values.is_empty() && !self.guard.is_ending() => text_of(&values).map(Some),
                    result => result.map(|_| None),
                };
                let outcome = match text {
                    _ if is_leaving => Ok(()),
                    Ok(text) => {
                        text.into_iter().for_each(|text| self.printer.out(&format!("{text}\n")));
                        Ok(())
                    }
                    Err(error) => Err(error_text(&error)),
                };
                // A main thread that has left needs no result.
                let _ = sender.send(outcome);
            }
        }
    }

    fn load(&self, name: &str, code: &str, prints: bool) -> mlua::Result<Function> {
        let load =
            |code: String| self.lua.load(code).set_name(name).set_mode(mlua::chunk::ChunkMode::Text).into_function();
        let expression = if prints { load(format!("return {code}")).ok() } else { None };
        expression.map_or_else(|| load(code.to_owned()), Ok)
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

impl Guard {
    fn is_ending(&self) -> bool {
        self.flags.interrupt.load(Ordering::Relaxed) || self.flags.stop.load(Ordering::Relaxed)
    }
}

/// Reports the end of a chunk that waits.
fn finish_chunk(task: Task, outcome: Result<(), String>) {
    if let Source::Chunk(_, result) = task.source {
        // As in `Machine::end`.
        let _ = result.send(outcome);
    }
}

/// Returns values as `print` shows them, at most [`PRINTED_BYTES_MAX`] bytes: this memory is not that of the machine.
fn text_of(values: &MultiValue) -> mlua::Result<String> {
    let mut text = String::new();
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            text.push('\t');
        }
        let value = value.to_string()?;
        let room = PRINTED_BYTES_MAX.saturating_sub(text.len());
        if value.len() > room {
            let fitting = value.chars().scan(0, |end, char| {
                *end += char.len_utf8();
                (*end <= room).then_some(char)
            });
            text.extend(fitting);
            text.push_str(" ...");
            break;
        }
        text.push_str(&value);
    }
    Ok(text)
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
    globals.set("load", load.eval::<mlua::Function>()?)?;
    // Lua runs a finalizer without the hook, so that nothing would end it.
    let setmetatable = lua.load(
        "local setmetatable, rawget, type, error = setmetatable, rawget, type, error
         return function(table, metatable)
           if type(metatable) == 'table' and rawget(metatable, '__gc') ~= nil then
             error('setmetatable: a finalizer (__gc) is not permitted', 2)
           end
           return setmetatable(table, metatable)
         end",
    );
    globals.set("setmetatable", setmetatable.eval::<mlua::Function>()?)
}

/// Has the hook look after each `interval` instructions of the coroutine that runs, and of those that are created from now on.
fn arm(lua: &Lua, guard: &Rc<Guard>, interval: u32) -> mlua::Result<()> {
    let guard = Rc::clone(guard);
    lua.set_global_hook(HookTriggers::new().every_nth_instruction(interval), move |lua, _| {
        let used = guard.used.get().saturating_add(HOOK_INTERVAL.into());
        guard.used.set(used);
        let text = if guard.is_ending() {
            "interrupted".to_owned()
        } else if used > guard.limits.instructions {
            format!("more than {} instructions", guard.limits.instructions)
        } else {
            return Ok(VmState::Continue);
        };
        // A function that catches this error fails at its next instruction, in each coroutine.
        arm(lua, &guard, 1)?;
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
/// Timers of one turn.
const DUE_MAX: usize = 64;
/// Bytes that one `print` shows.
const PRINTED_BYTES_MAX: usize = 1 << 20;
/// Words for the completion.
const WORDS_MAX: usize = 5000;

#[cfg(test)]
mod tests;
