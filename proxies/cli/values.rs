//! The getters of options: values of the command line and the environment as their types.
//!
//! Each error names the option or the variable, the given value, and the expected value.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use seaprox::auth::{ConfigDirectory, KeysError, Modes};
use seaprox::config::StatusSocket;
use seaprox::rules::{Action, Rules};
use seaprox::{AddressError, Bind, Target, Upstream, split_port_range};

use super::{Command, Parsed, UsageError, Value, parsers};

/// The format of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people.
    #[default]
    Text,
    /// One JSON object per line, for programs.
    Json,
}

/// The two uses of `seaprox cat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatMode {
    /// Connect to a target.
    Connect(Target),
    /// Wait for a connection at one of these addresses.
    Listen(Vec<Bind>),
}

/// A shell with completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shell {
    /// bash.
    Bash,
    /// zsh.
    Zsh,
    /// fish.
    Fish,
}

/// Returns a hint how to use a file whose owner or mode is wrong, or nothing for other errors.
pub fn modes_hint(error: &KeysError) -> &'static str {
    if error.is_about_modes() { " (--no-strict-modes accepts the file anyway)" } else { "" }
}

impl Parsed {
    /// Returns true if a flag is given, or if its environment variable is true.
    pub fn flag(&self, long: &str) -> Result<bool, UsageError> {
        match self.given(long).pop() {
            None => Ok(self.count(long) > 0),
            Some((name, text)) => parsers::flag(&text).map_err(|expected| self.wrong(&name, &text, expected)),
        }
    }

    /// Returns the checks of owner and mode that `--no-strict-modes` selects.
    pub fn modes(&self) -> Result<Modes, UsageError> {
        Ok(if self.flag("no-strict-modes")? { Modes::Lax } else { Modes::Strict })
    }

    /// Returns a duration; zero means off.
    pub fn duration(&self, long: &str) -> Result<Duration, UsageError> {
        self.value(long, parsers::duration)
    }

    /// Returns a size in bytes, within the limits of the table.
    pub fn size(&self, long: &str) -> Result<u64, UsageError> {
        self.value(long, |text| parsers::size(self.spec(long).value, text))
    }

    /// Returns a number, within the limits of the table.
    pub fn number(&self, long: &str) -> Result<u64, UsageError> {
        self.value(long, |text| parsers::number(self.spec(long).value, text))
    }

    fn value<T>(&self, long: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, UsageError> {
        let (name, text) = self.one(long);
        parse(&text).map_err(|expected| self.wrong(&name, &text, expected))
    }

    /// Returns a path, if one is given.
    pub fn path(&self, long: &str) -> Option<PathBuf> {
        self.given(long).pop().map(|(_, text)| text.into())
    }

    /// Returns a path from the command line only, not from the environment.
    pub fn path_flag(&self, long: &str) -> Option<PathBuf> {
        self.positioned(long).pop().map(|(_, text)| text.into())
    }

    /// Returns the directory of `--config-dir`, or the default directory.
    pub fn config_directory(&self) -> ConfigDirectory {
        match self.path("config-dir") {
            Some(path) => ConfigDirectory::at(path),
            None => ConfigDirectory::find(|name| std::env::var_os(name)),
        }
    }

    /// Returns the text of an option.
    pub(super) fn text(&self, long: &str) -> String {
        self.one(long).1
    }

    /// Returns the value of `--log-format`.
    pub fn log_format(&self) -> Result<LogFormat, UsageError> {
        let index = self.word("log-format")?;
        Ok(index.map_or_else(LogFormat::default, |index| [LogFormat::Text, LogFormat::Json][index]))
    }

    /// Returns the number of `-v` minus the number of `-q`.
    pub fn verbosity(&self) -> i8 {
        let count = |long| i8::try_from(self.count(long)).unwrap_or(i8::MAX);
        count("verbose").saturating_sub(count("quiet"))
    }

    /// Returns the addresses to listen on, a range as its single ports. Empty only for commands without a default address.
    pub fn binds(&self) -> Result<Vec<Bind>, UsageError> {
        let ranges = self.ranges("listen", Bind::parse, Bind::port, Bind::with_port)?;
        Ok(ranges.into_iter().flatten().collect())
    }

    /// Returns each address to listen on with its targets, from `--listen` and the option of the targets.
    pub fn relays(&self, to: &str) -> Result<Vec<(Bind, Vec<Upstream>)>, UsageError> {
        let binds = self.ranges("listen", Bind::parse, Bind::port, Bind::with_port)?;
        let targets = self.target_lists(to)?;
        for (values, option) in [(binds.len(), "--listen ADDR"), (targets.len(), "--to HOST:PORT")] {
            if values == 0 {
                return Err(self.error(format!("expected {option}")));
            }
        }
        if targets.len() != 1 && targets.len() != binds.len() {
            let (listens, tos) = (binds.len(), targets.len());
            return Err(self.error(format!(
                "{listens} --listen and {tos} --to: expected one --to, or one --to for each --listen"
            )));
        }
        let mut relays = Vec::new();
        for (index, binds) in binds.into_iter().enumerate() {
            let targets = if targets.len() == 1 { &targets[0] } else { &targets[index] };
            if let Some(wrong) = targets.iter().find(|ports| ports.len() != 1 && ports.len() != binds.len()) {
                let (from, to) = (binds.len(), wrong.len());
                return Err(self.error(format!(
                    "--listen has {from} ports and its --to has {to}: expected one target port, or one for each port"
                )));
            }
            let all = |place: usize| targets.iter().map(|ports| ports[place % ports.len()].clone()).collect();
            relays.extend(binds.into_iter().enumerate().map(|(place, bind)| (bind, all(place))));
        }
        Ok(relays)
    }

    /// Returns the list of targets of each value of an option; each target has its ports.
    fn target_lists(&self, long: &str) -> Result<Vec<Vec<Vec<Upstream>>>, UsageError> {
        let list = |(name, text): (String, String)| {
            let one = |target: &str| match Upstream::parse(target) {
                Ok(service @ Upstream::Service(_)) => Ok(vec![service]),
                _ => self.range(&name, target, Upstream::parse, Upstream::port, Upstream::with_port),
            };
            split_list(&text).into_iter().map(one).collect()
        };
        self.given(long).into_iter().map(list).collect()
    }

    /// Returns the rules of `--allow`, `--deny` and `--rule`, in the order of the command line.
    pub fn rules(&self) -> Result<Rules, UsageError> {
        let mut rules = Vec::new();
        for (action, long) in [(Some(Action::Allow), "allow"), (Some(Action::Deny), "deny"), (None, "rule")] {
            for (position, text) in self.positioned(long) {
                let rule =
                    parsers::rule(action, &text).map_err(|error| self.wrong(&format!("--{long}"), &text, error))?;
                rules.push((position, rule));
            }
        }
        rules.sort_by_key(|(position, _)| *position);
        Ok(Rules::new(rules.into_iter().map(|(_, rule)| rule).collect()))
    }

    /// Returns the value of `--status`.
    pub fn status(&self) -> Result<StatusSocket, UsageError> {
        match self.given("status").pop() {
            Some((name, text)) => parsers::status(&text).map_err(|expected| self.wrong(&name, &text, expected)),
            None => Ok(StatusSocket::PerProcess),
        }
    }

    /// Returns the target of `seaprox cat` (`HOST PORT`, `HOST:PORT` or `unix:/path`), or the addresses of `-l ADDR`.
    pub fn cat(&self) -> Result<CatMode, UsageError> {
        let binds = self.binds()?;
        for bind in &binds {
            bind.proto().require_tcp().map_err(|error| self.wrong("--listen", &bind.to_string(), error))?;
        }
        let target = match self.frees() {
            [] if !binds.is_empty() => return Ok(CatMode::Listen(binds)),
            [_, ..] if !binds.is_empty() => return Err(self.error("expected either HOST PORT or -l ADDR")),
            [] => return Err(self.error("expected HOST PORT, unix:/path or -l ADDR")),
            [address] => {
                let target = Target::parse(address).map_err(|error| self.wrong("the target", address, error))?;
                target.proto().require_tcp().map_err(|error| self.wrong("the target", address, error))?;
                target
            }
            [host, port, ..] => {
                let number = port.bytes().all(|byte| byte.is_ascii_digit()).then(|| port.parse().ok()).flatten();
                let number = number
                    .filter(|port| *port != 0)
                    .ok_or_else(|| self.wrong("PORT", port, "expected a number from 1 to 65535"))?;
                Target::from_host(host, number).map_err(|error| self.wrong("HOST", host, error))?
            }
        };
        Ok(CatMode::Connect(target))
    }

    /// Returns the number or the name of the process that `seaprox status` or `seaprox ctl` asks, if one is given.
    pub fn process(&self) -> Option<String> {
        match self.command() {
            Command::Ctl | Command::Console => self.given("process").pop().map(|(_, text)| text),
            _ => self.frees().first().cloned(),
        }
    }

    /// Returns the forwards that `seaprox ctl open` opens: the name of the option, and the text of its value.
    pub fn opened_forwards(&self) -> Vec<(&'static str, String)> {
        let all = ["local", "remote", "dynamic", "http"].into_iter();
        all.flat_map(|long| self.given(long).into_iter().map(move |(_, text)| (long, text))).collect()
    }

    /// Returns the keys, fingerprints and names of `--yes-from`.
    pub fn yes_from(&self) -> Vec<String> {
        self.given("yes-from").into_iter().map(|(_, text)| text).collect()
    }

    /// Returns the bytes of `--quota`, if there is a limit.
    pub fn quota(&self) -> Result<Option<u64>, UsageError> {
        if self.given("quota").is_empty() { Ok(None) } else { self.size("quota").map(Some) }
    }

    /// Returns the code of `--execute`, if there is any.
    #[cfg(feature = "console")]
    pub fn code(&self) -> Option<String> {
        self.given("execute").pop().map(|(_, text)| text)
    }

    /// Returns the first name of `--name`, if one is given.
    pub fn first_name(&self) -> Option<String> {
        self.given("name").into_iter().next().map(|(_, text)| text)
    }

    /// Returns the argument of `seaprox completions`.
    pub fn shell(&self) -> Result<Shell, UsageError> {
        let text = self.frees().first().map_or("", String::as_str);
        let place = parsers::word(&["bash", "zsh", "fish"], text).map_err(|error| self.wrong("SHELL", text, error))?;
        Ok([Shell::Bash, Shell::Zsh, Shell::Fish][place])
    }

    /// Returns the place of the given word in the table; none if the option is not set.
    pub(super) fn word(&self, long: &str) -> Result<Option<usize>, UsageError> {
        let (Value::Choice(words), Some((name, text))) = (self.spec(long).value, self.given(long).pop()) else {
            return Ok(None);
        };
        parsers::word(words, &text).map(Some).map_err(|expected| self.wrong(&name, &text, expected))
    }

    /// Returns the addresses of an option, each as the list of its ports.
    fn ranges<T>(
        &self,
        long: &str,
        parse: impl Fn(&str) -> Result<T, AddressError>,
        port: impl Fn(&T) -> Option<u16>,
        with_port: impl Fn(&T, u16) -> T,
    ) -> Result<Vec<Vec<T>>, UsageError> {
        let range = |(name, text): (String, String)| self.range(&name, &text, &parse, &port, &with_port);
        self.given(long).into_iter().map(range).collect()
    }

    /// Returns an address, or all addresses of a range of ports.
    fn range<T>(
        &self,
        name: &str,
        text: &str,
        parse: impl Fn(&str) -> Result<T, AddressError>,
        port: impl Fn(&T) -> Option<u16>,
        with_port: impl Fn(&T, u16) -> T,
    ) -> Result<Vec<T>, UsageError> {
        let wrong = |error: AddressError| self.wrong(name, text, error);
        let (first, count) = split_port_range(text).map_err(wrong)?;
        let first = parse(&first).map_err(wrong)?;
        // The port cannot overflow, because both ends of the range were parsed. Only addresses with a port have a range.
        let ports = port(&first).unwrap_or(0)..=port(&first).unwrap_or(0).saturating_add(count.saturating_sub(1));
        Ok(ports.map(|port| with_port(&first, port)).collect())
    }

    pub(super) fn wrong(&self, name: &str, text: &str, expected: impl Display) -> UsageError {
        self.error(format!("{name} {text:?}: {expected}"))
    }

    /// Returns the value of an option that has a default.
    fn one(&self, long: &str) -> (String, String) {
        let missing = || (format!("--{long}"), String::new());
        self.given(long).pop().unwrap_or_else(missing)
    }
}

/// Splits a list at its commas. What follows a comma belongs to the path of a Unix socket before it if it has no colon.
pub fn split_list(text: &str) -> Vec<&str> {
    let mut parts: Vec<&str> = Vec::new();
    let (mut start, mut end) = (0, 0);
    for segment in text.split(',') {
        let is_of_path = end > 0 && text[start..].starts_with("unix:") && !segment.contains(':');
        if end > 0 && !is_of_path {
            parts.push(&text[start..end - 1]);
            start = end;
        }
        end += segment.len() + 1;
    }
    parts.push(&text[start..]);
    parts
}
