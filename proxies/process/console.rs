//! `seaprox console`: links and tunnels at a Lua prompt, or by a script.

use super::exit::{Exit, Failed};
use crate::cli::Parsed;

/// Runs the prompt or the script, until it has ended and nothing is open.
///
/// # Errors
/// Fails if an option is wrong, a script cannot be read, or its code fails.
#[cfg(feature = "console")]
pub fn run(parsed: &Parsed) -> Result<(), Failed> {
    use super::{link, settings};
    use crate::console::{self, Code, Flags, Node, NodeSetup, Prompt};

    let failed = |text: String| Failed::new(Exit::Failure, format!("seaprox console: {text}"));
    let (mut config, link, server) = parsed.console()?;
    settings::fit(&mut config);
    parsed.check(&config)?;
    let code = match (parsed.code(), parsed.frees().first()) {
        (Some(_), Some(script)) => {
            return Err(parsed.error(format!("{script}: expected a script or --execute, not both")).into());
        }
        (Some(code), None) => Code::Chunk("=(execute)".to_owned(), code),
        (None, Some(script)) => {
            let text = std::fs::read_to_string(script);
            let text = text.map_err(|error| failed(format!("{script}: {error}")))?;
            // The first line may name an interpreter. It stays a line, so that errors have the right numbers.
            let text = if text.starts_with('#') { format!("--{text}") } else { text };
            Code::Chunk(format!("@{script}"), text)
        }
        (None, None) => Code::Prompt(Box::new(Prompt::open(state_file("console_history")).map_err(failed)?)),
    };
    let command = parsed.command();
    let prepare = Box::new(move |config: &_, parts: &_| {
        let instance = link::instance(command, config, parts).map_err(|error| error.to_string())?;
        Ok(Box::new(instance) as Box<dyn std::any::Any>)
    });
    let flags = Flags::default();
    #[cfg(unix)]
    for (signal, flag) in [
        (signal_hook::consts::SIGINT, &flags.interrupt),
        (signal_hook::consts::SIGTERM, &flags.stop),
        (signal_hook::consts::SIGHUP, &flags.stop),
    ] {
        let result = signal_hook::flag::register(signal, std::sync::Arc::clone(flag));
        result.map_err(|error| failed(error.to_string()))?;
    }
    let node =
        Node::start(NodeSetup { config, link, server, prepare, names: state_file("console_names") }).map_err(failed)?;
    console::run(node, code, parsed.flag("unsafe")?, &flags).map_err(failed)
}

/// Returns a file in the directory of states.
#[cfg(feature = "console")]
fn state_file(name: &str) -> Option<std::path::PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(std::path::PathBuf::from);
    let states = variable("XDG_STATE_HOME").filter(|path| path.is_absolute());
    let states = states.or_else(|| variable("HOME").map(|home| home.join(".local/state")))?;
    Some(states.join("seaprox").join(name))
}

/// Refuses the command, because this binary was built without the console.
///
/// # Errors
/// Fails always.
#[cfg(not(feature = "console"))]
pub fn run(_: &Parsed) -> Result<(), Failed> {
    Err(Failed::new(Exit::Usage, "seaprox console: this binary was built without the feature \"console\""))
}
