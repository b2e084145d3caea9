//! The process: runs one command, from its arguments to its exit code. Each command has a file of its own.

mod admin;
mod announced;
mod ask;
mod cat;
mod changes;
mod check;
mod console;
mod ctl;
mod events;
mod exit;
mod file_watch;
mod get;
mod invite;
mod join;
mod keygen;
mod link;
mod logging;
mod output;
mod progress;
mod receive;
mod selftest;
mod send;
mod serve;
mod service;
mod settings;
mod signals;
mod source;
mod status;
mod supervisor;
mod top;
mod transfer;

use std::process::ExitCode;

use crate::cli::{self, Command, Parsed, Request, completions, help};
use exit::Failed;
use output::print;

/// Runs the command that the arguments of this process name. Returns its exit code.
pub fn main() -> ExitCode {
    // Descriptors that are opened first would take the numbers of sockets that were announced and not passed.
    let _ = seaprox::system::passed_sockets();
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
            logging::fail(&text);
            ExitCode::from(exit as u8)
        }
    };
    logging::finish();
    code
}

fn run(parsed: &Parsed) -> Result<(), Failed> {
    // Only a process that serves is the main one of a unit.
    let tell = |failed: &Failed| service::status(&failed.text);
    // A file may set the format of the log, so it is read before there is one.
    let loaded = if parsed.command() == Command::Run { Some(settings::load(parsed).inspect_err(tell)?) } else { None };
    let log_format = loaded.as_ref().map_or_else(|| parsed.log_format(), |loaded| Ok(loaded.log_format))?;
    // Commands for one connection, and checks, log warnings only.
    let is_terse = match parsed.command() {
        Command::Cat | Command::Send | Command::Receive | Command::Get | Command::Console => true,
        Command::Check | Command::Selftest => true,
        _ => parsed.stdio()?.is_some(),
    };
    logging::init(parsed.verbosity(), is_terse, log_format).map_err(|error| parsed.error(error))?;
    if let Some(loaded) = loaded {
        return serve::run_file(parsed, loaded).inspect_err(tell);
    }
    match parsed.command() {
        Command::FrontEnd(_) | Command::Run => serve::run(parsed).inspect_err(tell),
        Command::Link if parsed.stdio()?.is_some() => cat::run(parsed),
        Command::Link => serve::run(parsed).inspect_err(tell),
        Command::Check => check::run(parsed),
        Command::Cat => cat::run(parsed),
        Command::Send => send::run(parsed),
        Command::Receive => receive::run(parsed),
        Command::Get => get::run(parsed),
        Command::Status => status::run(parsed),
        Command::Ctl => ctl::run(parsed),
        Command::Top => top::run(parsed),
        Command::Console => console::run(parsed),
        Command::Selftest => selftest::run(),
        Command::Keygen => keygen::keygen(parsed),
        Command::Pubkey => keygen::pubkey(parsed),
        Command::Invite => invite::run(parsed),
        Command::Join => join::run(parsed),
        Command::Completions => print(&completions::script(parsed.shell()?)),
        Command::Man => print(&help::man()),
    }
}
