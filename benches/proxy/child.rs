//! The processes that the bench starts, and the means that end them with the bench.
//!
//! Each child leads a process group and dies with the bench's main thread. A signal, or the run's deadline, kills all
//! groups at once, because what a proxy forks does not inherit that tie.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::{priority, sys};

/// A running child. Dropping it kills it and its forked processes.
pub struct Child {
    process: process::Child,
}

impl Child {
    /// Starts the command on these processors (on any, if the list is empty). If `log` is given, its output goes there.
    pub fn start(command: &mut Command, processors: &[usize], log: Option<&Path>) -> io::Result<Child> {
        command.stdin(Stdio::null());
        if let Some(log) = log {
            let file = File::create(log)?;
            command.stdout(file.try_clone()?).stderr(file);
        }
        sys::prepare_child(command, processors);
        // The lock is held across the start, so that a signal cannot slip in before the child is known.
        let mut remains = remains();
        let process = command.spawn()?;
        remains.children.push(process.id());
        Ok(Child { process })
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn output(&mut self) -> Option<process::ChildStdout> {
        self.process.stdout.take()
    }

    /// Returns the exit status if the child has ended.
    pub fn ended(&mut self) -> Option<process::ExitStatus> {
        self.process.try_wait().ok().flatten()
    }

    /// Waits for the end of a child that ends by itself.
    pub fn wait(&mut self) -> io::Result<process::ExitStatus> {
        self.process.wait()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let mut remains = remains();
        sys::kill_group(self.pid());
        // The exit status of a killed child is of no use.
        let _ = self.process.wait();
        remains.children.retain(|pid| *pid != self.process.id());
    }
}

/// Creates a directory for configurations and logs, which is removed at the end.
pub fn make_directory() -> io::Result<PathBuf> {
    let path = std::env::temp_dir().join(format!("seaprox-bench-{}", process::id()));
    std::fs::create_dir(&path)?;
    remains().directory = Some(path.clone());
    Ok(path)
}

/// Ends all children and the bench itself when a signal arrives or the deadline passes. Must be called before any other
/// thread is created, so that all threads have the signals blocked.
pub fn watch_for_stop(deadline: Duration) -> io::Result<()> {
    sys::block_stop_signals()?;
    thread::spawn(move || {
        let code = match sys::wait_for_stop_signal(deadline) {
            Some(signal) => 128 + signal,
            None => {
                eprintln!("bench: stopped after {} s, its deadline", deadline.as_secs());
                1
            }
        };
        clear();
        process::exit(code);
    });
    Ok(())
}

/// Calls [`clear`] when it goes out of scope, also during a panic.
pub struct ClearAtEnd;

impl Drop for ClearAtEnd {
    fn drop(&mut self) {
        clear();
    }
}

/// Kills the running children, removes the directory and restores the session's niceness.
fn clear() {
    let mut remains = remains();
    for pid in remains.children.drain(..) {
        sys::kill_group(pid);
    }
    priority::restore();
    if let Some(directory) = remains.directory.take() {
        // A directory that cannot be removed is left to the system's own cleaning.
        let _ = std::fs::remove_dir_all(directory);
    }
}

struct Remains {
    children: Vec<u32>,
    directory: Option<PathBuf>,
}

fn remains() -> MutexGuard<'static, Remains> {
    REMAINS.lock().unwrap_or_else(PoisonError::into_inner)
}

static REMAINS: Mutex<Remains> = Mutex::new(Remains { children: Vec::new(), directory: None });
