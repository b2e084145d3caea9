//! The script that a process runs beside its services: `console-script` of a file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use serde_json::Value;

use crate::admin::{AdminCommand, Commands, Reporter};
use crate::console::{self, Flags, Process, ProcessError};
use crate::process::exit::{Exit, Failed};

/// A script that runs. It is stopped when the value is dropped.
pub struct Script(Flags);

/// This process, as its own script sees it.
struct Own {
    reporter: Arc<Reporter>,
    commands: Box<dyn Commands>,
}

impl Process for Own {
    fn status(&mut self) -> Result<Value, ProcessError> {
        self.reporter.summary().ok_or_else(|| ProcessError::Refused("a loop does not answer".to_owned()))
    }

    fn command(&mut self, command: AdminCommand) -> Result<Value, ProcessError> {
        self.commands.run(command).map_err(|error| ProcessError::Refused(error.text))
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Relaxed);
    }
}

/// Reads a script. The first line may name an interpreter; it stays a line, so that errors have the right numbers.
///
/// # Errors
/// The file cannot be read.
pub fn read(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(if text.starts_with('#') { format!("--{text}") } else { text })
}

/// Checks that a script can be read, and is Lua. Runs nothing.
///
/// # Errors
/// Fails if it cannot be read, or with the error of its syntax.
pub fn check_script(path: &Path) -> Result<(), Failed> {
    let name = format!("@{}", path.display());
    let checked = read(path).and_then(|text| console::check(&name, &text));
    checked.map_err(|error| Failed::new(Exit::Config, format!("seaprox: --console-script: {error}")))
}

/// Starts a script in a thread of its own. An error of it is logged, and the services go on.
///
/// # Errors
/// Fails if the script cannot be read or is no Lua, or if the thread cannot be started.
pub fn start_script(path: PathBuf, reporter: Arc<Reporter>, commands: Box<dyn Commands>) -> Result<Script, Failed> {
    check_script(&path)?;
    let failed = |error: String| Failed::new(Exit::Failure, format!("seaprox: --console-script: {error}"));
    let text = read(&path).map_err(failed)?;
    let flags = Flags::default();
    let shared = flags.clone();
    let body = move || {
        let (file, process) = (path.display().to_string(), Box::new(Own { reporter, commands }));
        if let Err(error) = console::run_beside(process, &format!("@{file}"), text, &shared) {
            log::error!(target: "seaprox::console", script = file, error = error; "the script has failed");
        }
    };
    thread::Builder::new().name("script".into()).spawn(body).map_err(|error| failed(error.to_string()))?;
    Ok(Script(flags))
}
