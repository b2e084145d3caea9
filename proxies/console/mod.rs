//! The console: a Lua prompt, and scripts, that make links and tunnels (TN-01 to TN-23).
//!
//! ```text
//!   main thread: prompt, signals --code--> thread "lua": the virtual machine --changes--> thread "console": configuration
//!        ^                                     |                                              |  ^
//!        +------------- result ----------------+---------- reads ----> Board <---- writes ----+  | events
//!                                                                                             v  |
//!                                                                                          the loop
//! ```
//! The loop never waits for Lua. The virtual machine has a thread of its own, and posts each change to the thread that changes
//! the configuration in effect. The states of all objects stand on the [`board::Board`], so that a question is answered without the
//! loop. An object of Lua is a handle: what it stands for lives on when the handle is collected.

mod attached;
mod board;
mod callbacks;
mod chat;
mod commands;
mod completion;
mod counts;
mod help;
mod keys;
mod machine;
mod mailbox;
mod names;
mod node;
mod objects;
mod paths;
mod printer;
mod prompt;
mod reading;
mod schedule;
mod transfers;
mod verbs;
mod words;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

pub use attached::{Process, ProcessError};
pub use machine::check;
use machine::{Limits, Machine};
use mailbox::{Job, Mailbox};
pub use node::{Changes, Node, NodeSetup};
pub use printer::Printer;
use prompt::Prompt;

/// The source of the code that a console runs.
pub enum Code {
    /// The lines of a prompt, whose history is kept in a file if there is one.
    Prompt(Option<PathBuf>),
    /// One chunk: its name for messages, and its text.
    Chunk(String, String),
}

/// Flags that signals set, and that the virtual machine looks at.
#[derive(Clone, Default)]
pub struct Flags {
    /// Set to end the chunk that runs.
    pub interrupt: Arc<AtomicBool>,
    /// Set to end the process.
    pub stop: Arc<AtomicBool>,
}

/// The main thread's way to the virtual machine.
#[derive(Clone)]
struct Chunks {
    mailbox: Arc<Mailbox>,
    flags: Flags,
}

/// Runs a console until its code has ended and nothing is open, until the user leaves, or until a signal stops it. Links are
/// closed in order then.
///
/// # Errors
/// The error of a chunk that is not from the prompt, or of a thread that cannot be started.
pub fn run(node: Node, code: Code, is_unsafe: bool, printer: Printer, flags: &Flags) -> Result<(), String> {
    let words = words::Words::default();
    start_machine(&node, printer.clone(), is_unsafe, flags, &words)?;
    let chunks = Chunks { mailbox: Arc::clone(node.board().mailbox()), flags: flags.clone() };
    let result = match code {
        Code::Prompt(history) => run_prompt(&chunks, history, words, printer),
        Code::Chunk(name, text) => chunks.submit(&name, text, false).and_then(|()| {
            // The links of another process are not those of the script.
            let has_open = || !node.is_attached() && node.board().has_open();
            while !chunks.is_ending() && (has_open() || chunks.mailbox.is_busy()) {
                node.board().wait(LOOK_INTERVAL);
            }
            // A script whose listener or link could not be made has failed, unless it was stopped or has closed that object.
            node.board().failure().filter(|_| !chunks.is_ending()).map_or(Ok(()), Err)
        }),
    };
    chunks.mailbox.close();
    node.finish();
    result
}

/// Runs a script beside the services of a process, to whose admin server it is attached, until a flag stops it. What it prints
/// stands in the log.
///
/// # Errors
/// The error of the script, or of a thread that cannot be started.
pub fn run_beside(process: Box<dyn Process>, name: &str, text: String, flags: &Flags) -> Result<(), String> {
    let node = Node::attach(process)?;
    let printer = Printer::to(Box::new(|text| {
        for line in text.lines() {
            let line: String = line.chars().filter(|c| !c.is_control() || *c == '\t').collect();
            log::info!(target: "seaprox::console", "{line}");
        }
    }));
    start_machine(&node, printer, false, flags, &words::Words::default())?;
    let chunks = Chunks { mailbox: Arc::clone(node.board().mailbox()), flags: flags.clone() };
    let result = chunks.submit(name, text, false);
    // Tunnels and links of the script go on.
    while result.is_ok() && !flags.stop.load(Ordering::Relaxed) {
        node.board().wait(LOOK_INTERVAL);
    }
    chunks.mailbox.close();
    node.finish();
    result
}

/// Runs a prompt in a thread of its own, so that a signal and a callback can end the console while a line is edited.
fn run_prompt(chunks: &Chunks, history: Option<PathBuf>, words: words::Words, printer: Printer) -> Result<(), String> {
    let terminal = prompt::Terminal::of_input();
    let (ended, result) = mpsc::sync_channel(1);
    let shared = chunks.clone();
    let body = move || {
        let outcome = Prompt::open(history, words, printer).map(|mut prompt| prompt.run(&shared));
        // A main thread that has left needs no result.
        let _ = ended.send(outcome);
    };
    thread::Builder::new().name("prompt".into()).spawn(body).map_err(|error| error.to_string())?;
    loop {
        match result.recv_timeout(LOOK_INTERVAL) {
            Ok(outcome) => return outcome,
            Err(RecvTimeoutError::Timeout) if !chunks.flags.stop.load(Ordering::Relaxed) => {}
            Err(_) => {
                // The prompt may be in the middle of a line.
                terminal.restore();
                return Ok(());
            }
        }
    }
}

/// Starts the thread of the virtual machine.
fn start_machine(
    node: &Node,
    printer: Printer,
    is_unsafe: bool,
    flags: &Flags,
    words: &words::Words,
) -> Result<(), String> {
    let (changes, board, flags, words) = (node.changes(), node.board(), flags.clone(), words.clone());
    let body = move || {
        let mailbox = Arc::clone(board.mailbox());
        let limits = Limits { is_unsafe, ..Limits::default() };
        match Machine::new(changes, board, printer, flags, limits) {
            Ok(machine) => run_machine(&machine, &mailbox, &words),
            Err(error) => fail(&error.to_string(), &mailbox),
        }
    };
    thread::Builder::new().name("lua".into()).spawn(body).map(drop).map_err(|error| error.to_string())
}

fn run_machine(machine: &Machine, mailbox: &Mailbox, words: &words::Words) {
    words.set(machine.words());
    loop {
        let turn = machine.next(mailbox);
        let may_change = turn.job.is_some();
        if !machine.turn(turn) {
            return;
        }
        if may_change {
            words.set(machine.words());
        }
    }
}

/// Fails each chunk, because there is no machine.
fn fail(error: &str, mailbox: &Mailbox) {
    loop {
        let turn = mailbox.next(None, 0);
        if let Some(job) = turn.job {
            // As in `run_prompt`.
            let _ = job.result.send(Err(error.to_owned()));
        }
        if turn.is_over {
            return;
        }
    }
}

impl Chunks {
    /// Has the virtual machine run a chunk, and waits for its end. A chunk that does not end within [`INTERRUPT_TIME`] of an
    /// interrupt, because one call of a library takes longer, is left to itself.
    fn submit(&self, name: &str, code: String, prints: bool) -> Result<(), String> {
        if self.mailbox.is_given_up() {
            // The interrupt stays, and ends that call when it returns.
            return Err(NOT_ENDED.to_owned());
        }
        self.flags.interrupt.store(false, Ordering::Relaxed);
        let (result, ended) = mpsc::sync_channel(1);
        let job = Job { name: name.to_owned(), code, prints, result };
        if self.mailbox.submit(job).is_err() {
            return Err(NOT_ENDED.to_owned());
        }
        let mut interrupted: Option<Instant> = None;
        loop {
            match ended.recv_timeout(LOOK_INTERVAL) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Disconnected) => return Err("the virtual machine has ended".to_owned()),
                Err(RecvTimeoutError::Timeout) if self.is_ending() => {
                    // A chunk that waits looks at the flags then.
                    self.mailbox.wake();
                    if interrupted.get_or_insert_with(Instant::now).elapsed() > INTERRUPT_TIME {
                        self.mailbox.give_up();
                        return Err("interrupted".to_owned());
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Ends the callback that runs, if one does.
    fn interrupt(&self) {
        if self.mailbox.is_running() {
            let since = Instant::now();
            self.flags.interrupt.store(true, Ordering::Relaxed);
            while self.mailbox.is_running() && since.elapsed() < INTERRUPT_TIME {
                thread::sleep(Duration::from_millis(1));
            }
            self.flags.interrupt.store(false, Ordering::Relaxed);
        }
    }

    fn is_ending(&self) -> bool {
        self.flags.interrupt.load(Ordering::Relaxed) || self.flags.stop.load(Ordering::Relaxed)
    }
}

/// Interval at which the flags of signals are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
const NOT_ENDED: &str = "an interrupted call has not ended yet";
/// Time that an interrupted chunk has for its end.
const INTERRUPT_TIME: Duration = Duration::from_secs(2);
