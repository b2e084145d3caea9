//! The part of a reload that waits for files and names, in a thread of its own: reads the configuration, makes the parts that
//! are new, binds their addresses, and reads the files of users, keys and paths.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use seaprox::config::{ApplyErrors, Config, Forward, Place, PreparedChange, Preparer};

use super::commands::add_opened_forwards;
use super::files::FilesRead;
use super::reload::check_terminal;
use crate::Parts;
use crate::cli::Command;
use crate::process::link::{self, Instance};
use crate::process::source::{Load, Position};
use crate::shared_file::Refresh;

/// The work of a reload.
pub struct Job {
    /// Reads the configuration; none if the process has only flags.
    pub load: Option<Load>,
    pub preparer: Preparer,
    pub parts: Arc<Parts>,
    pub command: Command,
    /// The forwards that commands have opened.
    pub opened_forwards: Vec<(String, Forward)>,
    pub has_instance: bool,
    /// True if the files of users, keys and paths are read as well.
    pub reads_files: bool,
    pub progress: Progress,
}

/// The result of that work, before anything has changed but the users and keys in use.
pub struct Prepared {
    /// The files that were read, and the positions in them.
    pub read: Option<(Vec<PathBuf>, Position)>,
    /// The change, and the configuration that was read; none if the process has only flags.
    pub change: Result<Option<(PreparedChange, Config)>, Problems>,
    /// The opened forwards that are part of the change.
    pub opened_forwards: Vec<(String, Forward)>,
    /// The instance number of a process that has its first links now.
    pub instance: Option<Instance>,
    pub files: Option<FilesRead>,
}

/// The problems of a reload.
pub enum Problems {
    /// Lines that are complete.
    Lines(Vec<String>),
    /// Errors whose positions are to be added.
    Errors(ApplyErrors),
}

/// The progress of a reload, for the main thread.
#[derive(Clone, Default)]
pub struct Progress(Arc<State>);

#[derive(Default)]
struct State {
    step: Mutex<String>,
    is_abandoned: AtomicBool,
}

impl Job {
    /// Does the work. A panic is a problem like others, so that the main thread learns of the end, and later reloads start.
    pub fn run(self) -> Prepared {
        let opened_forwards = self.opened_forwards.clone();
        // A panic leaves everything that other threads share usable: poisoned locks are taken all the same.
        catch_unwind(AssertUnwindSafe(|| self.work())).unwrap_or_else(|_| {
            let change = Err(Problems::Lines(vec![PANICKED.to_owned()]));
            Prepared { read: None, change, opened_forwards, instance: None, files: None }
        })
    }

    fn work(mut self) -> Prepared {
        self.progress.set("the files of the configuration".to_owned());
        let (mut read, mut instance) = (None, None);
        let change = match self.load.take().map(|load| load()) {
            None => Ok(None),
            Some(Err(problems)) => Err(Problems::Lines(problems)),
            Some(Ok(loaded)) => {
                read = Some((loaded.sources, Arc::clone(&loaded.position)));
                let mut config = loaded.config;
                add_opened_forwards(&mut config, &mut self.opened_forwards);
                self.instance(&config, &mut instance).and_then(|()| {
                    let (progress, position) = (self.progress.clone(), loaded.position);
                    let tell = move |place: &Place| progress.set(format!("{}: {place}", position(place)));
                    let change = self.preparer.telling(tell).prepare(config.clone()).map_err(Problems::Errors)?;
                    Ok(Some((change, config)))
                })
            }
        };
        let reads_files = self.reads_files && !self.progress.is_abandoned();
        let files = reads_files.then(|| {
            self.progress.set("the files of users, keys and paths".to_owned());
            FilesRead::read(&self.parts, Refresh::Forced)
        });
        Prepared { read, change, opened_forwards: self.opened_forwards, instance, files }
    }

    /// Makes the instance number of a process that has its first links now.
    fn instance(&self, config: &Config, instance: &mut Option<Instance>) -> Result<(), Problems> {
        check_terminal(config).map_err(Problems::Lines)?;
        if config.has_links() && !self.has_instance {
            self.progress.set("the key of this node".to_owned());
            let new = link::instance(self.command, config, &self.parts);
            *instance = Some(new.map_err(|error| Problems::Lines(vec![error.to_string()]))?);
        }
        Ok(())
    }
}

impl Problems {
    /// Returns the lines about all problems.
    pub fn explained(self, explain: impl Fn(&ApplyErrors) -> Vec<String>) -> Vec<String> {
        match self {
            Problems::Lines(lines) => lines,
            Problems::Errors(errors) => explain(&errors),
        }
    }
}

impl Progress {
    fn set(&self, step: String) {
        *self.0.step.lock().unwrap_or_else(PoisonError::into_inner) = step;
    }

    /// Returns the record or the files that the thread is at.
    pub fn step(&self) -> String {
        self.0.step.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes that the result is not wanted any more.
    pub fn abandon(&self) {
        self.0.is_abandoned.store(true, Ordering::Relaxed);
    }

    /// Returns true if the result is not wanted any more.
    pub fn is_abandoned(&self) -> bool {
        self.0.is_abandoned.load(Ordering::Relaxed)
    }
}

const PANICKED: &str = "the reload panicked";

#[cfg(test)]
mod tests {
    use super::*;
    use seaprox::Workers;
    use seaprox::config::Running;

    #[test]
    fn a_reload_that_panics_is_a_problem_that_the_main_thread_learns_of() {
        let config = Config::default();
        let workers = Workers::start(1, 1).unwrap();
        let parts = Arc::new(Parts::new(&config));
        let (running, loops) = Running::start(config, parts.clone(), &workers).unwrap();
        let job = Job {
            load: Some(Arc::new(|| panic!("a fault of the reader"))),
            preparer: running.preparer(),
            parts,
            command: Command::Run,
            opened_forwards: Vec::new(),
            has_instance: false,
            reads_files: true,
            progress: Progress::default(),
        };
        let Err(problems) = job.run().change else { panic!("a change") };
        assert_eq!(problems.explained(|_| Vec::new()), [PANICKED]);
        running.stop();
        loops.join().unwrap();
    }
}
