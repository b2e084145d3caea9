//! For a loop that another program runs, as one in C does: its configuration from text, its status, and its metrics.
//!
//! Nothing here runs a thread or a socket of its own. The functions that take a loop run in the thread of that loop.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use seaprox::auth::Modes;
use seaprox::config::{self, Config, FrontEnds, Listener, LoopConfig};
use seaprox::{Bind, Id, ListenConfig, Loop};

use crate::Parts;
use crate::file::{self, Environment};
use crate::frontends::Registry;

/// An error of a configuration, as text with one line for each problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(String);

/// A listener of [`parse_listener`].
pub struct Parsed {
    config: Config,
    listener: Listener,
    /// The name that the text gives to it.
    name: Option<String>,
}

/// Reads a whole configuration from a text in TOML: what a file of `seaprox run` may contain. Relative paths begin in the
/// current directory. A loop that a program runs has no admin server, so the text must not name one. An empty text is the
/// configuration of nothing.
///
/// # Errors
/// All problems, each in one line, with its line and column.
pub fn parse(text: &str) -> Result<Config, ConfigError> {
    let is_nothing = |line: &str| line.trim().is_empty() || line.trim().starts_with('#');
    if text.lines().all(is_nothing) {
        // A file of `seaprox run` names something to do; here it closes what an earlier one has opened.
        return Ok(Config::default());
    }
    let config = read(text, 0)?;
    if config.admin != config::Admin::default() {
        return Err(ConfigError("admin: found an address, expected none: the program has the loop".to_owned()));
    }
    Ok(config)
}

/// Reads a listener with a front end. `text` has the keys that the section `[[listener]]` of a file may have, without `front`
/// and `listen`. The limits and timers of the loop are the defaults.
///
/// # Errors
/// The front end is unknown, the address cannot be parsed, or all problems of the text.
pub fn parse_listener(front_end: &str, address: &str, text: &str, loops: &LoopConfig) -> Result<Parsed, ConfigError> {
    let names = Registry.names();
    if !names.contains(&front_end) {
        let text = format!("front end: found {front_end:?}, expected one of {}", names.join(", "));
        return Err(ConfigError(text));
    }
    if let Err(error) = Bind::parse(address) {
        return Err(ConfigError(format!("address: found {address:?}, expected {error}")));
    }
    let quoted = address.replace('\\', "\\\\").replace('"', "\\\"");
    let mut config =
        read(&format!("[[listener]]\nfront = \"{front_end}\"\nlisten = \"{quoted}\"\n{text}"), LINES_BEFORE)?;
    if config.listeners.len() != 1 || config.has_links() {
        return Err(ConfigError("options: found another section, expected keys of one listener".to_owned()));
    }
    (config.threads, config.loops) = (1, loops.clone());
    let listener = config.resolved_listener(&config.listeners[0]);
    // Without a name of its own it has the text of its address, and is named by the address that it gets.
    let name = (listener.name != address).then(|| listener.name.clone());
    Ok(Parsed { config, listener, name })
}

/// Opens a listener of [`parse_listener`] in a loop. Returns its id for each address that it stands for.
///
/// # Errors
/// A file of the listener cannot be used, or an address cannot be bound. Nothing stays open then.
pub fn listen(
    core: &mut Loop<'_>,
    parts: &Parts,
    Parsed { config, listener, name }: &Parsed,
) -> Result<Vec<Id>, ListenError> {
    use seaprox::config::Maker;

    let front_end = parts.front_end(listener).map_err(|error| ConfigError(error.to_string()))?;
    let mut bounds = config.bind_listener(listener)?;
    let (mut ids, timeouts) = (Vec::new(), core.config().timeouts.clone());
    for bound in &mut bounds {
        let name = name.clone().filter(|_| ids.is_empty());
        match core.listen(bound, ListenConfig { name, ..listener.listen_config(&front_end, &timeouts, None) }) {
            Ok(id) => ids.push(id),
            Err(error) => {
                ids.iter().for_each(|id| _ = core.listener(*id).and_then(|listener| listener.unlisten()));
                return Err(error.into());
            }
        }
    }
    Ok(ids)
}

/// The error of [`listen`].
#[derive(Debug)]
pub enum ListenError {
    /// The listener is wrong, or a file of it.
    Config(ConfigError),
    /// An address cannot be bound.
    Bind(config::ApplyError),
    /// The loop refuses the listener.
    Loop(seaprox::DescriptorError),
}

/// Returns the status of a loop as JSON: that of `seaprox status --json`, without what only a process of its own has.
/// `workers` are the jobs that each worker has done. It has at most `most` connections, and as many flows.
pub fn status_json(core: &mut Loop<'_>, workers: &[u64], uptime: Duration, most: usize) -> String {
    crate::admin::status_of(core, workers, uptime, most).to_string()
}

/// Returns the metrics of a loop in the text format of Prometheus.
///
/// # Errors
/// Fails if a metric cannot be encoded.
pub fn metrics_text(core: &mut Loop<'_>) -> Result<String, fmt::Error> {
    crate::admin::metrics_of(core)
}

fn read(text: &str, lines_before: usize) -> Result<Config, ConfigError> {
    let variable = |name: &str| std::env::var(name).ok();
    let environment = Environment { variable: &variable, options: None, modes: Modes::default() };
    let loaded = file::load_text(Path::new("configuration"), text, &environment);
    loaded.map(|loaded| loaded.config).map_err(|problems| ConfigError(problems.without_lines(lines_before).to_string()))
}

/// The lines that [`parse_listener`] puts in front of the keys.
const LINES_BEFORE: usize = 3;

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenError::Config(error) => error.fmt(f),
            ListenError::Bind(error) => error.fmt(f),
            ListenError::Loop(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ListenError {}

impl From<ConfigError> for ListenError {
    fn from(error: ConfigError) -> ListenError {
        ListenError::Config(error)
    }
}

impl From<config::ApplyError> for ListenError {
    fn from(error: config::ApplyError) -> ListenError {
        ListenError::Bind(error)
    }
}

impl From<seaprox::DescriptorError> for ListenError {
    fn from(error: seaprox::DescriptorError) -> ListenError {
        ListenError::Loop(error)
    }
}
