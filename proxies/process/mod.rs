//! The process: one command from its arguments to its exit code. Each command has a file of its own.

pub mod cat;
pub mod exit;
pub mod keygen;
pub mod link;
pub mod logging;
pub mod selftest;
pub mod serve;
pub mod settings;
pub mod supervisor;

use exit::{Exit, Failed};
use std::io::Write;
use std::process::ExitCode;

use crate::admin::status;
use crate::cli::{self, Command, Parsed, Request, completions, help};

/// Runs the command that the arguments of this process ask for. Returns its exit code.
pub fn main() -> ExitCode {
    let result = cli::parse(std::env::args_os().skip(1), |name| std::env::var(name).ok())
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
pub fn print(text: &str) -> Result<(), Failed> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failed::new(Exit::Failure, format!("seaprox: stdout: {error}")))
        }
        _ => Ok(()),
    }
}
