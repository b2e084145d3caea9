//! The parser of `seaprox COMMAND [OPTION]... [ARGUMENT]...`.
//!
//! [`parse`] finds the command and its options; the getters of [`Parsed`] in `values` and `link_values` return typed values.
//! A flag takes precedence over the environment, and the environment over the default of the table. An error is one line
//! that names the command, the argument, the expected value, and the nearest match if there is one. Secrets are never
//! arguments.

use std::ffi::OsString;
use std::fmt;

use getopts::{Fail, HasArg, Matches, Occur};
use seaprox::Bind;

use super::{Command, OPTIONS, OptionSpec, Value, options_of, suggest};

/// The request of a command line.
#[derive(Debug)]
pub enum Request {
    /// Print help.
    Help {
        /// The command to explain; none for all commands.
        command: Option<Command>,
        /// True for `--help`, false for `-h`.
        long: bool,
    },
    /// Print the version.
    Version,
    /// Run a command.
    Run(Parsed),
}

/// A command with its options and arguments.
///
/// An option that the command does not have keeps its default, so commands can share code. A getter panics only for a name
/// that is not in the table, which is a bug of its caller.
#[derive(Clone, Debug)]
pub struct Parsed {
    command: Command,
    matches: Matches,
    /// The variables that are set and not empty: option, variable, value.
    environment: Vec<(&'static str, String, String)>,
}

/// A wrong command line: a line for stderr for each error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageError {
    command: Option<Command>,
    /// One line for each error.
    lines: Vec<String>,
}

/// Parses a command line, without the name of the program, and the environment.
///
/// # Errors
/// Fails on an unknown command or option, an option without its value, and too many or too few arguments. The getters check
/// the values.
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
    env: impl Fn(&str) -> Option<String>,
) -> Result<Request, UsageError> {
    let text = |arg: OsString| {
        arg.into_string().map_err(|arg| UsageError::new(None, format!("argument {arg:?}: expected UTF-8")))
    };
    let args = args.into_iter().map(text).collect::<Result<Vec<String>, UsageError>>()?;
    let Some((first, rest)) = args.split_first() else {
        return Err(UsageError::new(None, format!("expected a command: {} (see seaprox --help)", command_names())));
    };
    match first.as_str() {
        "-h" => return Ok(Request::Help { command: None, long: false }),
        "--help" => return Ok(Request::Help { command: None, long: true }),
        "-V" | "--version" => return Ok(Request::Version),
        "help" => {
            let command = rest.first().map(|name| find_command(name)).transpose()?;
            return Ok(Request::Help { command, long: true });
        }
        _ => {}
    }
    parse_command(find_command(first)?, rest, env)
}

impl Parsed {
    /// Returns the command.
    pub fn command(&self) -> Command {
        self.command
    }

    /// Returns the arguments that are not options. Their number is within the range of the command.
    pub fn frees(&self) -> &[String] {
        &self.matches.free
    }

    /// Returns an error about this command line.
    pub fn error(&self, text: impl Into<String>) -> UsageError {
        UsageError::new(Some(self.command), text)
    }

    /// Returns an error with several lines about this command line.
    pub(super) fn errors(&self, lines: Vec<String>) -> UsageError {
        UsageError { command: Some(self.command), lines }
    }

    /// Returns true if a flag or a variable sets an option of this command.
    pub(super) fn is_set(&self, option: &OptionSpec) -> bool {
        self.count(option.long) > 0 || self.environment.iter().any(|(long, _, _)| *long == option.long)
    }

    /// Returns the number of times that an option is on the command line.
    pub(super) fn count(&self, long: &str) -> usize {
        if self.knows(long) { self.matches.opt_count(long) } else { 0 }
    }

    /// Returns the values of an option, each with the flag or variable that sets it: all flags, else the variable, else the
    /// default. A flag without a value has none.
    pub(super) fn given(&self, long: &str) -> Vec<(String, String)> {
        let spec = self.spec(long);
        let flag = format!("--{long}");
        let flags = if self.knows(long) { self.matches.opt_strs(long) } else { Vec::new() };
        if !flags.is_empty() || self.count(long) > 0 {
            return flags.into_iter().map(|text| (flag.clone(), text)).collect();
        }
        if let Some((_, name, text)) = self.environment.iter().find(|(option, _, _)| *option == spec.long) {
            let texts: Vec<&str> = if spec.repeat { text.split_whitespace().collect() } else { vec![text] };
            return texts.into_iter().map(|text| (name.clone(), text.to_owned())).collect();
        }
        spec.default_for(self.command).map(|text| (flag, text)).into_iter().collect()
    }

    /// Returns the values of a flag with their positions on the command line.
    pub(super) fn positioned(&self, long: &str) -> Vec<(usize, String)> {
        if self.knows(long) { self.matches.opt_strs_pos(long) } else { Vec::new() }
    }

    /// Returns true if the command has this option.
    pub fn knows(&self, long: &str) -> bool {
        self.spec(long).belongs_to(self.command)
    }

    pub(super) fn spec(&self, long: &str) -> &'static OptionSpec {
        let named = || OPTIONS.iter().filter(|option| option.long == long);
        match named().find(|option| option.belongs_to(self.command)).or_else(|| named().next()) {
            Some(spec) => spec,
            None => panic!("the table has no option --{long}"),
        }
    }
}

fn parse_command(
    command: Command,
    args: &[String],
    env: impl Fn(&str) -> Option<String>,
) -> Result<Request, UsageError> {
    let matches = getopts_of(command).parse(args).map_err(|fail| refused(command, args, fail))?;
    if matches.opt_present("help") || matches.opt_present("h") {
        return Ok(Request::Help { command: Some(command), long: matches.opt_present("help") });
    }
    if matches.opt_present("version") {
        return Ok(Request::Version);
    }
    let is_path = |option: &&OptionSpec| matches!(option.value, Value::File | Value::Directory);
    if let Some(option) =
        options_of(command).filter(is_path).find(|option| matches.opt_strs(option.long).contains(&String::new()))
    {
        let expected = option.placeholder().unwrap_or_default();
        return Err(UsageError::new(Some(command), format!("--{} \"\": expected {expected}", option.long)));
    }
    let (least, most) = command.spec().frees;
    if let Some(extra) = matches.free.get(most) {
        let hint = address_hint(command, &matches, extra);
        return Err(UsageError::new(Some(command), format!("unexpected argument {extra:?}{hint} {}", see(command))));
    }
    if matches.free.len() < least {
        return Err(UsageError::new(Some(command), format!("expected {}", command.spec().synopsis[0])));
    }
    let variable = |option: &'static OptionSpec| {
        let name = option.env_name(command)?;
        env(&name).filter(|text| !text.is_empty()).map(|text| (option.long, name, text))
    };
    let environment = options_of(command).filter_map(variable).collect();
    Ok(Request::Run(Parsed { command, matches, environment }))
}

/// Returns a hint for an address without its option, as other programs take it: `socks 1080`, `static host:80`.
fn address_hint(command: Command, matches: &Matches, extra: &str) -> String {
    let is_port = extra.bytes().all(|byte| byte.is_ascii_digit());
    let option = match command {
        _ if Bind::parse(extra).is_err() => return String::new(),
        Command::FrontEnd(kind) if kind.spec().target().is_some() && !is_port && !matches.opt_present("to") => "to",
        Command::FrontEnd(_) => "listen",
        _ => return String::new(),
    };
    format!("; did you mean --{option} {extra}?")
}

fn getopts_of(command: Command) -> getopts::Options {
    let mut options = getopts::Options::new();
    for option in options_of(command) {
        // `-h` and `--help` have different meanings, and repeating them is no error.
        if option.long == "help" {
            options.optflagmulti("h", "", "").optflagmulti("", "help", "");
            continue;
        }
        let short = option.short.map(String::from).unwrap_or_default();
        let arg = if option.value == Value::None { HasArg::No } else { HasArg::Yes };
        let occur = if option.repeat { Occur::Multi } else { Occur::Optional };
        options.opt(&short, option.long, "", "", arg, occur);
    }
    options
}

/// Returns the error for a failure of getopts.
fn refused(command: Command, args: &[String], fail: Fail) -> UsageError {
    let text = match fail {
        Fail::UnrecognizedOption(name) => unknown_option(command, args, &name),
        Fail::ArgumentMissing(name) => {
            let is_named =
                |option: &&OptionSpec| option.long == name || option.short.is_some_and(|c| name == c.to_string());
            let value = options_of(command).find(is_named).and_then(OptionSpec::placeholder).unwrap_or_default();
            format!("{}: expected {value}", dashed(args, &name))
        }
        Fail::OptionDuplicated(name) => format!("{}: expected at most once", dashed(args, &name)),
        Fail::UnexpectedArgument(name) => format!("{}: expected no value", dashed(args, &name)),
        Fail::OptionMissing(name) => format!("expected {}", dashed(args, &name)),
    };
    UsageError::new(Some(command), text)
}

fn unknown_option(command: Command, args: &[String], name: &str) -> String {
    let given = dashed(args, name);
    if command == Command::Link && name == "f" {
        return format!(
            "{given}: seaprox stays in the foreground; expected a service manager to start it, such as systemd"
        );
    }
    if OPTIONS.iter().any(|option| option.long == name) {
        let has = |command: &Command| options_of(*command).any(|option| option.long == name);
        let owners: Vec<_> = Command::ALL.into_iter().filter(has).map(Command::name).collect();
        return format!("{given} is an option of {}, not of {} {}", owners.join(", "), command.name(), see(command));
    }
    let hint = suggest::hint(name, "--", options_of(command).map(|option| option.long));
    format!("unknown option {given}{hint} {}", see(command))
}

/// Returns an option as it stands on the command line, because getopts reports its name without the dashes.
fn dashed(args: &[String], name: &str) -> String {
    let long = format!("--{name}");
    let is_long = args.iter().any(|arg| arg.split('=').next() == Some(&long));
    let text = if is_long || name.chars().count() > 1 { long } else { format!("-{name}") };
    text.chars().flat_map(|char| if char.is_control() { char.escape_default().collect() } else { vec![char] }).collect()
}

fn find_command(name: &str) -> Result<Command, UsageError> {
    if let Some(command) = Command::from_name(name) {
        return Ok(command);
    }
    if name.starts_with('-') {
        let text =
            format!("unknown option {name:?}: expected a command first: {} (see seaprox --help)", command_names());
        return Err(UsageError::new(None, text));
    }
    let hint = suggest::hint(name, "", Command::ALL.into_iter().map(Command::name));
    Err(UsageError::new(None, format!("unknown command {name:?}{hint} (see seaprox --help)")))
}

fn command_names() -> String {
    Command::ALL.map(Command::name).join(", ")
}

fn see(command: Command) -> String {
    format!("(see seaprox {} --help)", command.name())
}

impl UsageError {
    fn new(command: Option<Command>, text: impl Into<String>) -> UsageError {
        UsageError { command, lines: vec![text.into()] }
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, line) in self.lines.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            match self.command {
                Some(command) => write!(f, "{end}seaprox {}: {line}", command.name())?,
                None => write!(f, "{end}seaprox: {line}")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for UsageError {}

#[cfg(test)]
mod link_tests;
#[cfg(test)]
mod tests;
