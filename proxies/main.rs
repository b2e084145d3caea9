//! The `seaprox` binary: front ends on the public interface of the library, and the command line around them.
//!
//! `options` is the one table of options; `help` and `completions` are made from it. `serve` runs a front end until a
//! signal ends it, with or without the links of `link`; `cat` runs one connection, `status` tells what a process is doing,
//! `selftest` tries a link out, `keygen` makes keys. The front ends are `fixed` (the command `static`), `socks` and `http`; all of them ask the
//! `gate` who may do what.
#![forbid(unsafe_code)]

mod cat;
mod completions;
mod fixed;
mod gate;
mod guesses;
mod help;
mod http;
mod keygen;
mod link;
mod logging;
mod options;
mod process;
mod selftest;
mod serve;
mod settings;
mod shared;
mod socks;
mod status;
mod suggest;
mod users;

use std::io::Write;
use std::process::ExitCode;

use options::{Command, Parsed, Request, UsageError};
use seaprox::auth::KeysError;

/// How the process ends, beside 0 (a clean stop). The numbers are those of sysexits(3) where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Failure while running.
    Failure = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The peer or an address could not be had.
    Unavailable = 69,
    /// The link is lost, and the user asked to end then.
    LinkLost = 75,
    /// A key is rejected or is not the right one.
    NoPermission = 77,
    /// A file that configures the process cannot be used.
    Config = 78,
}

/// A command that came to nothing: what to say, and how to end.
#[derive(Debug)]
pub struct Failed {
    /// The code of the process.
    pub exit: Exit,
    /// What is said on stderr.
    pub text: String,
}

impl Failed {
    /// A failure with one line for stderr.
    pub fn new(exit: Exit, text: impl Into<String>) -> Failed {
        Failed { exit, text: text.into() }
    }

    /// A file that cannot be used; `what` stands before what is wrong with it.
    pub fn unusable(what: &str, error: &KeysError) -> Failed {
        Failed::new(Exit::Config, format!("{what}: {error}{}", hint(error)))
    }
}

/// Hint how to use a file whose owner or mode is wrong.
pub fn hint(error: &KeysError) -> &'static str {
    if error.is_about_modes() { " (or --no-strict-modes, if you trust them)" } else { "" }
}

impl From<UsageError> for Failed {
    fn from(error: UsageError) -> Failed {
        Failed::new(Exit::Usage, error.to_string())
    }
}

fn main() -> ExitCode {
    let result = options::parse(std::env::args_os().skip(1), |name| std::env::var(name).ok())
        .map_err(Failed::from)
        .and_then(|request| match request {
            Request::Help { command, long } => print(&help::text(command, long)),
            Request::Version => print(&help::version()),
            Request::Run(parsed) => run(&parsed),
        });
    let code = match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed { exit, text }) => {
            logging::say(&text);
            ExitCode::from(exit as u8)
        }
    };
    logging::finish();
    code
}

fn run(parsed: &Parsed) -> Result<(), Failed> {
    let log_format = parsed.log_format()?;
    // What is one connection, or a line for each check, says no more than it has to.
    let is_terse = matches!(parsed.command(), Command::Cat | Command::Selftest) || parsed.stdio()?.is_some();
    logging::init(parsed.verbosity(), is_terse, log_format).map_err(|error| parsed.error(error))?;
    match parsed.command() {
        Command::Static | Command::Socks | Command::Http => serve::run(parsed),
        Command::Link if parsed.stdio()?.is_some() => cat::run(parsed),
        Command::Link => serve::run(parsed),
        Command::Cat => cat::run(parsed),
        Command::Status => status::run(parsed),
        Command::Selftest => selftest::run(parsed),
        Command::Keygen => keygen::keygen(parsed),
        Command::Pubkey => keygen::pubkey(parsed),
        Command::Completions => print(&completions::script(parsed.shell()?)),
        Command::Man => print(&help::man()),
    }
}

/// Prints to stdout. A reader that has had enough is no failure.
fn print(text: &str) -> Result<(), Failed> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failed::new(Exit::Failure, format!("seaprox: stdout: {error}")))
        }
        _ => Ok(()),
    }
}
