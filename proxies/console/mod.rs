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
mod commands;
mod completion;
mod counts;
mod machine;
mod names;
mod node;
mod objects;
mod prompt;
mod verbs;
mod words;

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

pub use attached::{Process, ProcessError};
pub use machine::check;
use machine::{Limits, Machine};
pub use node::{Changes, Node, NodeSetup};
pub use prompt::Prompt;

/// The source of the code that a console runs.
pub enum Code {
    /// The lines of a prompt.
    Prompt(Box<Prompt>),
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

/// A chunk for the virtual machine.
struct Job {
    name: String,
    code: String,
    /// True to print the values of an expression.
    prints: bool,
    result: SyncSender<Result<(), String>>,
}

/// Writes text for the user.
type Output = Box<dyn FnMut(&str) + Send>;

/// Runs a console until its code has ended and nothing is open, until the user leaves, or until a signal stops it. Links are
/// closed in order then.
///
/// # Errors
/// The error of a chunk that is not from the prompt, or of a thread that cannot be started.
pub fn run(node: Node, code: Code, is_unsafe: bool, flags: &Flags) -> Result<(), String> {
    let output: Output = Box::new(|text| {
        let mut out = std::io::stdout().lock();
        // A reader that has closed its end is no error of the script.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    });
    let words = match &code {
        Code::Prompt(prompt) => prompt.words(),
        Code::Chunk(..) => words::Words::default(),
    };
    let jobs = start_machine(&node, output, is_unsafe, flags, &words)?;
    let result = match code {
        Code::Prompt(mut prompt) => {
            prompt.run(flags, &mut |line| submit(&jobs, "=prompt", line, true, flags));
            Ok(())
        }
        Code::Chunk(name, text) => submit(&jobs, &name, text, false, flags).and_then(|()| {
            // The links of another process are not those of the script.
            while !is_leaving(flags) && !node.is_attached() && node.board().has_open() {
                node.board().wait(LOOK_INTERVAL);
            }
            // A script whose listener or link could not be made has failed, unless it was stopped or has closed that object.
            node.board().failure().filter(|_| !is_leaving(flags)).map_or(Ok(()), Err)
        }),
    };
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
    let output: Output = Box::new(|text| {
        for line in text.lines() {
            let line: String = line.chars().filter(|c| !c.is_control() || *c == '\t').collect();
            log::info!(target: "seaprox::console", "{line}");
        }
    });
    let jobs = start_machine(&node, output, false, flags, &words::Words::default())?;
    let result = submit(&jobs, name, text, false, flags);
    // What the script has begun goes on.
    while result.is_ok() && !is_leaving(flags) {
        node.board().wait(LOOK_INTERVAL);
    }
    node.finish();
    result
}

/// Starts the thread of the virtual machine.
fn start_machine(
    node: &Node,
    output: Output,
    is_unsafe: bool,
    flags: &Flags,
    words: &words::Words,
) -> Result<SyncSender<Job>, String> {
    let (jobs, received) = mpsc::sync_channel::<Job>(1);
    let (changes, board, flags, words) = (node.changes(), node.board(), flags.clone(), words.clone());
    let body = move || {
        let limits = Limits { is_unsafe, ..Limits::default() };
        match Machine::new(changes, board, output, flags, limits) {
            Ok(machine) => run_jobs(&machine, &received, &words),
            Err(error) => fail_jobs(&error.to_string(), &received),
        }
    };
    thread::Builder::new().name("lua".into()).spawn(body).map_err(|error| error.to_string())?;
    Ok(jobs)
}

fn run_jobs(machine: &Machine, jobs: &Receiver<Job>, words: &words::Words) {
    words.set(machine.words());
    for Job { name, code, prints, result } in jobs {
        let outcome = machine.run(&name, &code, prints);
        words.set(machine.words());
        // A main thread that has left needs no result.
        let _ = result.send(outcome);
    }
}

fn fail_jobs(error: &str, jobs: &Receiver<Job>) {
    for job in jobs {
        // As above.
        let _ = job.result.send(Err(error.to_owned()));
    }
}

/// Has the virtual machine run a chunk, and waits for its end. A chunk that does not end within [`INTERRUPT_TIME`] of an
/// interrupt, because one call of a library takes longer, is left to itself.
fn submit(jobs: &SyncSender<Job>, name: &str, code: String, prints: bool, flags: &Flags) -> Result<(), String> {
    flags.interrupt.store(false, Ordering::Relaxed);
    let (result, ended) = mpsc::sync_channel(1);
    let job = Job { name: name.to_owned(), code, prints, result };
    if jobs.try_send(job).is_err() {
        return Err("an interrupted call has not ended yet".to_owned());
    }
    let mut interrupted: Option<Instant> = None;
    loop {
        match ended.recv_timeout(LOOK_INTERVAL) {
            Ok(result) => return result,
            Err(RecvTimeoutError::Disconnected) => return Err("the virtual machine has ended".to_owned()),
            Err(RecvTimeoutError::Timeout) if flags.interrupt.load(Ordering::Relaxed) || is_leaving(flags) => {
                if interrupted.get_or_insert_with(Instant::now).elapsed() > INTERRUPT_TIME {
                    return Err("interrupted".to_owned());
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

fn is_leaving(flags: &Flags) -> bool {
    flags.stop.load(Ordering::Relaxed)
}

/// Interval at which the flags of signals are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Time that an interrupted chunk has for its end.
const INTERRUPT_TIME: Duration = Duration::from_secs(2);
