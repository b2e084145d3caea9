//! For a loop that another program runs, as one in C does: its configuration from text, its status, and its metrics.
//!
//! Nothing here runs a thread or a socket of its own. The functions that take a loop run in the thread of that loop.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use std::sync::Arc;

use seaprox::auth::Modes;
use seaprox::config::{self, Config, ExpectedKey, FrontEnds, Link, LinkPaths, Listener, LoopConfig, Server};
use seaprox::node::{CarrierKind, ForwardConfig, Identity, LinkConfig, LinkStatus, Policy, ServeConfig, Service};
use seaprox::{Bind, Id, ListenConfig, Loop, Target, Upstream};

use crate::Parts;
use crate::file::{self, Environment};
use crate::frontends::{Registry, proxy_protocol};
use crate::links::{AuthorizedPeers, DialedPeer};
use crate::log_line;

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
        return Err(ConfigError(format!("address: found {address:?}, {error}")));
    }
    let quoted = quoted(address);
    let mut config =
        read(&format!("[[listener]]\nfront = \"{front_end}\"\nlisten = \"{quoted}\"\n{text}"), LINES_BEFORE)?;
    let others = Config { listeners: Vec::new(), ..config.clone() };
    if config.listeners.len() != 1 || others != Config::default() {
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

/// Makes the forward of a link whose clients speak to a front end: a local one of a listener of [`parse_listener`].
///
/// # Errors
/// A file of the listener cannot be used.
pub fn forward(
    core: &Loop<'_>,
    parts: &Parts,
    Parsed { listener, name, .. }: &Parsed,
    link: Id,
    listen: Bind,
) -> Result<ForwardConfig, ConfigError> {
    use seaprox::config::Maker;

    let front_end = parts.front_end(listener).map_err(|error| ConfigError(error.to_string()))?;
    let listener = Box::new(listener.listen_config(&front_end, &core.config().timeouts, Some(link)));
    let service = Service::Local { listener, bounds: Vec::new(), to: None };
    Ok(ForwardConfig { name: name.clone(), link, listen, service })
}

/// Reads a link that this node dials to one address. `text` has the keys that the section `[[link]]` of a file may have,
/// without `connect` and `forward`.
///
/// # Errors
/// All problems of the address and the text.
pub fn parse_link(address: &str, text: &str) -> Result<(Config, Link), ConfigError> {
    let mut config = read(&format!("[[link]]\nconnect = \"{}\"\n{text}", quoted(address)), LINES_BEFORE_LINK)?;
    let link = config.links.pop().filter(|_| config == Config::default());
    let link =
        link.ok_or_else(|| ConfigError("options: found another section, expected keys of one link".to_owned()))?;
    let problem = match &link {
        link if link.is_group() => "connect: found several servers, expected one address",
        Link { paths: LinkPaths::File(_), .. } => {
            "paths: found a file, expected path, because nothing reads the file again"
        }
        Link { exits_on_failure: true, .. } => "exit-on-failure: expected no such key, because the program decides",
        link if !link.forwards.is_empty() => "forward: expected no such key, because the program opens forwards",
        _ => return Ok((config, link)),
    };
    Err(ConfigError(problem.to_owned()))
}

/// Reads an address on which peers dial links. `text` has the keys that the section `[[serve]]` of a file may have, without
/// `listen`.
///
/// # Errors
/// All problems of the address and the text.
pub fn parse_server(address: &str, text: &str) -> Result<(Config, Server, Bind), ConfigError> {
    let mut config = read(&format!("[[serve]]\nlisten = \"{}\"\n{text}", quoted(address)), LINES_BEFORE_LINK)?;
    let server = config.servers.pop().filter(|_| config == Config::default());
    let server =
        server.ok_or_else(|| ConfigError("options: found another section, expected keys of one server".to_owned()))?;
    let place = server.addresses.first().cloned();
    let place = place.ok_or_else(|| ConfigError("listen: expected an address".to_owned()))?;
    Ok((config, server, place))
}

/// Returns the policy of a link whose text says which key the peer must have, or none. A file of keys is read now, and not
/// again.
///
/// # Errors
/// The file cannot be read or parsed.
pub fn link_policy(link: &Link) -> Result<Option<Arc<dyn Policy>>, ConfigError> {
    let target = target(link);
    let peer = match &link.expected_key {
        ExpectedKey::Pinned(pin) => DialedPeer::pinned(target, pin.clone()),
        ExpectedKey::Known(Some(file)) => {
            DialedPeer::known(target, file, Modes::default()).map_err(|error| ConfigError(error.to_string()))?
        }
        ExpectedKey::Known(None) => return Ok(None),
    };
    Ok(Some(Arc::new(peer)))
}

/// Returns the policy of a server whose text names a file of authorized keys, or none. The file is read now, and not again.
///
/// # Errors
/// The file cannot be read or parsed.
pub fn server_policy(server: &Server) -> Result<Option<Arc<dyn Policy>>, ConfigError> {
    let Some(file) = &server.authorized_keys else { return Ok(None) };
    let peers = AuthorizedPeers::new(Some(file), None, Modes::default());
    let peers = peers.map_err(|error| ConfigError(error.to_string()))?.asking(server.asks);
    Ok(Some(Arc::new(peers)))
}

/// Returns the configuration of a link of [`parse_link`].
pub fn link_config((config, link): &(Config, Link), identity: Identity, policy: Arc<dyn Policy>) -> LinkConfig {
    let paths = match &link.paths {
        LinkPaths::List(paths) => paths.clone(),
        LinkPaths::File(_) => Vec::new(),
    };
    LinkConfig {
        paths,
        carrier: link.carrier.unwrap_or(config.node.carrier),
        subflows: link.subflows,
        simultaneous: link.simultaneous,
        mode: link.mode.unwrap_or(config.node.mode),
        timing: link.timing.clone().unwrap_or_else(|| config.node.timing.clone()),
        preface: link.proxy_protocol_send.map(proxy_protocol::preface),
        ..LinkConfig::new(identity, policy, target(link))
    }
}

/// Returns the configuration of a server of [`parse_server`].
pub fn serve_config(config: &Config, server: &Server, identity: &Identity, policy: &Arc<dyn Policy>) -> ServeConfig {
    ServeConfig {
        carrier: carrier(config, server),
        mode: server.mode.unwrap_or(config.node.mode),
        timing: server.timing.clone().unwrap_or_else(|| config.node.timing.clone()),
        preface: server.proxy_protocol_send.map(proxy_protocol::preface),
        ..ServeConfig::new(identity.clone(), Arc::clone(policy))
    }
}

/// Returns the transport of a server, for which its address must be bound.
pub fn carrier(config: &Config, server: &Server) -> CarrierKind {
    server.carrier.unwrap_or(config.node.carrier)
}

/// Returns the status of a link as JSON: the member that `seaprox status --json` has of it.
pub fn link_json(link: &LinkStatus) -> String {
    crate::admin::link_json(link).to_string()
}

fn target(link: &Link) -> Target {
    // A link of `parse_link` has one address.
    let any = || Target::from(std::net::SocketAddr::from(([127, 0, 0, 1], crate::links::addresses::PORT)));
    link.peers.iter().find_map(Upstream::target).cloned().unwrap_or_else(any)
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

/// Returns a record of the log as text: its message, with its keys behind it, as the binary writes them. Bytes of peers are escaped,
/// and values that could be taken for other keys are quoted.
pub fn log_text(record: &log::Record<'_>) -> String {
    let mut line = String::new();
    log_line::message(&mut line, record);
    line
}

fn read(text: &str, lines_before: usize) -> Result<Config, ConfigError> {
    let variable = |name: &str| std::env::var(name).ok();
    let environment = Environment { variable: &variable, options: None, modes: Modes::default() };
    let loaded = file::load_text(Path::new("configuration"), text, &environment);
    loaded.map(|loaded| loaded.config).map_err(|problems| ConfigError(problems.without_lines(lines_before).to_string()))
}

/// Returns a text as it stands in a string of TOML.
fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

/// The lines that [`parse_link`] and [`parse_server`] put in front of the keys.
const LINES_BEFORE_LINK: usize = 2;
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
