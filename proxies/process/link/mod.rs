//! The links of this process, as its supervisor sees them: their log, the requests that a user approves, and the number that
//! tells a restart of this process from a second one. [`Parts`] makes the links themselves.

mod approvals;
mod group_failures;
mod instance;
mod link_log;
pub mod prompt;
mod served_links;

use seaprox::auth::PublicKey;
use seaprox::config::{Config, MakeError};

pub use approvals::Approvals;
pub use group_failures::GroupFailures;
pub use instance::Instance;
pub use link_log::{Action, LinkLog};
pub use served_links::ServedLinks;

use super::exit::Failed;
use crate::cli::{Command, Parsed};
use crate::{DialedLink, Parts};

/// Prepares a process for the links of its configuration: loads the key of this node, and reserves the instance number.
/// Returns none if there are no links.
///
/// # Errors
/// Fails if the key cannot be used, or if the user is to be asked without a terminal.
pub fn prepare(parsed: &Parsed, config: &Config, parts: &Parts) -> Result<Option<Instance>, Failed> {
    if !config.has_links() {
        return Ok(None);
    }
    if config.servers.iter().any(|server| server.asks) && !prompt::can_ask() {
        return Err(parsed.error("--ask: expected a terminal on stdin and stderr, to ask there").into());
    }
    instance(parsed.command(), config, parts).map(Some).map_err(|error| Failed::made(parsed, error))
}

/// Loads the key of this node, and reserves the instance number of the process for its links.
///
/// # Errors
/// Fails if the key cannot be used.
pub fn instance(command: Command, config: &Config, parts: &Parts) -> Result<Instance, MakeError> {
    let instance = Instance::of(command, config, parts.public_key()?);
    parts.set_instance(instance.number);
    Ok(instance)
}

/// Returns the log of a link that this node dials. The key is that of this node.
pub fn log_of(key: PublicKey, link: &DialedLink) -> LinkLog {
    LinkLog::new(link.peer.clone(), key, link.current_paths().len(), &link.reverse).exiting(link.exits)
}
