//! Callbacks, timers and coroutines that wait. Everything here belongs to the thread of the virtual machine.
//!
//! Each chunk and each callback is a coroutine of its own. `sleep` and `wait` end its turn, so that events go on meanwhile. In a
//! coroutine of a script, and below a function that cannot be left (such as the comparison of `table.sort`), they wait in the thread.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use mlua::{Error, Function, Lua, MetaMethod, MultiValue, Thread, UserData, UserDataMethods, Value};

use super::board::{Entry, Record, State};
use super::transfers::Question;

/// A chunk or a callback that has begun.
pub struct Task {
    /// Its coroutine.
    pub thread: Thread,
    /// Its origin.
    pub source: Source,
}

/// The origin of a task.
pub enum Source {
    /// A chunk of the user, who waits for its result; true to print its values.
    Chunk(bool, SyncSender<Result<(), String>>),
    /// A callback: its name for messages.
    Callback(&'static str),
    /// A callback whose value answers an offer.
    Answer(Question),
}

/// The events that scripts see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// An object works.
    Connected,
    /// An object could not be made.
    Error,
    /// An object is closed.
    Closed,
    /// The peer has sent a message.
    Message,
    /// The peer offers a file.
    Offer,
    /// A transfer of a file is over.
    File,
}

/// The end of a wait.
pub struct Plan {
    /// The object that is waited for.
    pub entry: Option<Arc<Entry>>,
    /// The latest end.
    pub until: Option<Instant>,
}

/// The callbacks, timers and coroutines of a machine.
#[derive(Default)]
pub struct Schedule(RefCell<Inner>);

#[derive(Default)]
struct Inner {
    numbers: u64,
    timers: BTreeMap<(Instant, u64), Timer>,
    handlers: Vec<Handler>,
    parked: Vec<(Task, Plan)>,
    /// The coroutine that runs, and what it waits for once it has been left.
    current: Option<(Thread, Option<Plan>)>,
}

/// A call of a function at a time.
#[derive(Clone)]
pub struct Timer {
    /// The function.
    pub function: Function,
    /// Its arguments.
    pub args: MultiValue,
    /// The name for messages.
    pub name: &'static str,
    /// The time between two calls, if it is called again.
    pub every: Option<Duration>,
}

struct Handler {
    number: u64,
    topic: Topic,
    /// The object whose events it gets; none for all.
    object: Option<u64>,
    function: Function,
}

/// An object of Lua that takes a callback back.
pub struct Cancel {
    schedule: Rc<Schedule>,
    number: u64,
}

impl Topic {
    const ALL: [Topic; 6] = [Topic::Connected, Topic::Error, Topic::Closed, Topic::Message, Topic::Offer, Topic::File];

    /// Returns the name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Topic::Connected => "connected",
            Topic::Error => "error",
            Topic::Closed => "closed",
            Topic::Message => "message",
            Topic::Offer => "offer",
            Topic::File => "file",
        }
    }

    /// Reads the name.
    ///
    /// # Errors
    /// There is no such event.
    pub fn parse(value: &Value) -> mlua::Result<Topic> {
        let name = match value {
            Value::String(name) => name.to_string_lossy(),
            other => return Err(Error::runtime(format!("event: expected a name, not {}", other.type_name()))),
        };
        Topic::ALL.into_iter().find(|topic| topic.as_str() == name).ok_or_else(|| {
            let all = Topic::ALL.map(Topic::as_str).join(", ");
            Error::runtime(format!("event: expected one of {all}, not {name:?}"))
        })
    }

    /// Returns true if an object that is in this state has had the event.
    pub fn is_past(self, state: State) -> bool {
        match self {
            Topic::Connected => state == State::Connected,
            Topic::Error => state == State::Error,
            Topic::Closed => state == State::Closed,
            Topic::Message | Topic::Offer | Topic::File => false,
        }
    }
}

impl Schedule {
    /// Adds a timer. Returns the object that cancels it.
    ///
    /// # Errors
    /// Too many timers run.
    pub fn add_timer(self: &Rc<Schedule>, after: Duration, timer: Timer) -> mlua::Result<Cancel> {
        let mut inner = self.0.borrow_mut();
        if inner.timers.len() >= TIMERS_MAX {
            return Err(Error::runtime(format!("{TIMERS_MAX} timers run already")));
        }
        let number = inner.next_number();
        inner.timers.insert((Instant::now() + after, number), timer);
        Ok(Cancel { schedule: Rc::clone(self), number })
    }

    /// Adds a handler of an event, for all objects or for one. Returns the object that takes it back.
    ///
    /// # Errors
    /// There are too many handlers.
    pub fn add_handler(
        self: &Rc<Schedule>,
        topic: Topic,
        object: Option<u64>,
        function: Function,
    ) -> mlua::Result<Cancel> {
        let mut inner = self.0.borrow_mut();
        if inner.handlers.len() >= HANDLERS_MAX {
            return Err(Error::runtime(format!("{HANDLERS_MAX} callbacks wait already")));
        }
        let number = inner.next_number();
        inner.handlers.push(Handler { number, topic, object, function });
        Ok(Cancel { schedule: Rc::clone(self), number })
    }

    /// Returns the handlers of an event of an object. Those of a closed object alone are forgotten.
    pub fn handlers(&self, topic: Topic, object: u64) -> Vec<Function> {
        let mut inner = self.0.borrow_mut();
        let its = inner.handlers.iter().filter(|it| it.topic == topic && it.object.is_none_or(|it| it == object));
        let found = its.map(|it| it.function.clone()).collect();
        if topic == Topic::Closed {
            inner.handlers.retain(|it| it.object != Some(object));
        }
        found
    }

    /// Takes the next timer that is due.
    pub fn take_due(&self, now: Instant) -> Option<Timer> {
        let mut inner = self.0.borrow_mut();
        let first = inner.timers.first_entry().filter(|entry| entry.key().0 <= now)?;
        let ((_, number), timer) = first.remove_entry();
        if let Some(every) = timer.every {
            // Calls that were missed are not made up for.
            inner.timers.insert((now + every, number), timer.clone());
        }
        Some(timer)
    }

    /// Takes the coroutines whose waits are over, with the values that their waits return.
    pub fn take_ready(&self, now: Instant) -> Vec<(Task, Value)> {
        let mut inner = self.0.borrow_mut();
        let mut ready = Vec::new();
        let mut at = 0;
        while at < inner.parked.len() {
            match inner.parked[at].1.outcome(now) {
                Some(value) => ready.push((inner.parked.remove(at).0, value)),
                None => at += 1,
            }
        }
        ready
    }

    /// Takes the chunks of the user that wait.
    pub fn take_chunks(&self) -> Vec<Task> {
        let mut inner = self.0.borrow_mut();
        let (chunks, others): (Vec<_>, Vec<_>) = std::mem::take(&mut inner.parked)
            .into_iter()
            .partition(|(task, _)| matches!(task.source, Source::Chunk(..)));
        inner.parked = others;
        chunks.into_iter().map(|(task, _)| task).collect()
    }

    /// Returns the earliest time at which something is due, and the number of what waits.
    pub fn pending(&self) -> (Option<Instant>, usize) {
        let inner = self.0.borrow();
        let timer = inner.timers.first_key_value().map(|((at, _), _)| *at);
        let parked = inner.parked.iter().filter_map(|(_, plan)| plan.until).min();
        (timer.into_iter().chain(parked).min(), inner.timers.len() + inner.parked.len())
    }

    /// Tells that a coroutine runs from now on.
    pub fn enter(&self, thread: &Thread) {
        self.0.borrow_mut().current = Some((thread.clone(), None));
    }

    /// Tells that the coroutine does not run any more. Returns what it waits for.
    pub fn leave(&self) -> Option<Plan> {
        self.0.borrow_mut().current.take().and_then(|(_, plan)| plan)
    }

    /// Keeps a coroutine until its wait is over.
    pub fn park(&self, task: Task, plan: Plan) {
        self.0.borrow_mut().parked.push((task, plan));
    }

    /// Notes what the running coroutine is going to wait for. Returns false if it must wait in the thread.
    ///
    /// # Errors
    /// Too many coroutines wait.
    pub fn plan(&self, lua: &Lua, can_yield: bool, plan: impl FnOnce() -> Plan) -> mlua::Result<bool> {
        let mut inner = self.0.borrow_mut();
        let num_parked = inner.parked.len();
        let Some((_, planned)) = inner.current.as_mut().filter(|it| can_yield && it.0 == lua.current_thread()) else {
            return Ok(false);
        };
        if num_parked >= PARKED_MAX {
            return Err(Error::runtime(format!("{PARKED_MAX} coroutines wait already")));
        }
        *planned = Some(plan());
        Ok(true)
    }
}

impl Inner {
    fn next_number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }
}

impl Plan {
    /// Returns the value of the wait if it is over.
    fn outcome(&self, now: Instant) -> Option<Value> {
        let is_late = self.until.is_some_and(|until| until <= now);
        match &self.entry {
            Some(entry) => settled(entry, self.until.is_none()).or(is_late.then_some(false)).map(Value::Boolean),
            None => is_late.then_some(Value::Nil),
        }
    }
}

/// Returns true if an object works, false if it is closed, and nothing while that is not settled. An error settles it if
/// `is_first_try`.
pub fn settled(entry: &Entry, is_first_try: bool) -> Option<bool> {
    let Record { state, is_closing, .. } = entry.record();
    match state {
        State::Closed => Some(false),
        _ if is_closing => None,
        State::Connected => Some(true),
        State::Error if is_first_try => Some(false),
        _ => None,
    }
}

impl UserData for Cancel {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("cancel", |_, cancel, ()| {
            let mut inner = cancel.schedule.0.borrow_mut();
            let before = inner.timers.len() + inner.handlers.len();
            inner.timers.retain(|key, _| key.1 != cancel.number);
            inner.handlers.retain(|it| it.number != cancel.number);
            Ok(before != inner.timers.len() + inner.handlers.len())
        });
        methods.add_meta_method(MetaMethod::ToString, |_, cancel, ()| Ok(format!("callback {}", cancel.number)));
    }
}

/// Timers at most.
const TIMERS_MAX: usize = 1000;
/// Handlers at most.
const HANDLERS_MAX: usize = 1000;
/// Coroutines that wait at most.
const PARKED_MAX: usize = 1000;
