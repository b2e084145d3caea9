//! The admin socket of a console, by which `seaprox status`, `top` and `ctl` see it.

use std::sync::Arc;

use seaprox::config::Config;
use serde_json::{Value, json};

use crate::admin::{AdminCommand, Cause, CommandError, Commands, Reporter, Server};
use crate::console::{Changes, Node};
use crate::process::exit::Failed;
use crate::process::{admin, logging};

/// The commands of a console: the levels of the log belong to the process, the rest to the thread of the configuration.
struct ConsoleCommands(Changes);

impl Commands for ConsoleCommands {
    fn run(&self, command: AdminCommand) -> Result<Value, CommandError> {
        match command {
            AdminCommand::LogLevel(levels) => match logging::set_levels(&levels) {
                Ok(()) => Ok(json!({ "done": "log level set", "level": levels })),
                Err(error) => Err(CommandError::new(Cause::Invalid, error)),
            },
            command => self.0.run(command),
        }
    }

    fn is_there(&self) -> bool {
        self.0.is_there()
    }
}

/// Starts the admin server of a console. It ends with the value.
///
/// # Errors
/// An option of the server is wrong.
pub fn serve(config: &Config, node: &Node) -> Result<Option<Server>, Failed> {
    let Some((remotes, workers)) = node.loops() else { return Ok(None) };
    let reporter = Arc::new(Reporter::new("console", Vec::new(), remotes, workers));
    let (server, _) = admin::serve(config, reporter, Box::new(ConsoleCommands(node.changes())))?;
    Ok(Some(server))
}
