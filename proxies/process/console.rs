//! `seaprox console`: links and tunnels at a Lua prompt, or by a script.

#[cfg(feature = "console")]
mod attach;
#[cfg(feature = "console")]
mod commands;
#[cfg(feature = "console")]
mod script;

#[cfg(feature = "console")]
pub use script::{Script, check_script, start_script};

use super::exit::{Exit, Failed};
use crate::cli::Parsed;

/// Runs the prompt or the script, until it has ended and nothing is open.
///
/// # Errors
/// Fails if an option is wrong, a script cannot be read, or its code fails.
#[cfg(feature = "console")]
pub fn run(parsed: &Parsed) -> Result<(), Failed> {
    use super::logging;
    use crate::console::{self, Code, Node, Printer};

    let failed = |text: String| Failed::new(Exit::Failure, format!("seaprox console: {text}"));
    let code = match (parsed.code(), parsed.frees().first()) {
        (Some(_), Some(script)) => {
            return Err(parsed.error(format!("{script}: expected a script or --execute, not both")).into());
        }
        (Some(code), None) => Code::Chunk("=(execute)".to_owned(), code),
        (None, Some(file)) => Code::Chunk(format!("@{file}"), script::read(file.as_ref()).map_err(failed)?),
        (None, None) => Code::Prompt(state_file("console_history")),
    };
    let printer = Printer::default();
    let log = printer.clone();
    logging::set_terminal(Box::new(move |line| log.take_log(line)));
    if parsed.flag("attach")? {
        parsed.check_attached()?;
        let process = attach::find(parsed)?;
        let flags = flags()?;
        let node = Node::attach(Box::new(process)).map_err(failed)?;
        return console::run(node, code, parsed.flag("unsafe")?, printer, &flags).map_err(failed);
    }
    if parsed.process().is_some() {
        return Err(parsed.error("--process: expected with --attach only").into());
    }
    let setup = setup(parsed)?;
    let (config, flags) = (setup.config.clone(), flags()?);
    let node = Node::start(setup).map_err(failed)?;
    let _admin = commands::serve(&config, &node)?;
    console::run(node, code, parsed.flag("unsafe")?, printer, &flags).map_err(failed)
}

/// Has signals set the flags of a console.
#[cfg(feature = "console")]
fn flags() -> Result<crate::console::Flags, Failed> {
    let flags = crate::console::Flags::default();
    #[cfg(unix)]
    for (signal, flag) in [
        (signal_hook::consts::SIGINT, &flags.interrupt),
        (signal_hook::consts::SIGTERM, &flags.stop),
        (signal_hook::consts::SIGHUP, &flags.stop),
    ] {
        signal_hook::flag::register(signal, std::sync::Arc::clone(flag))
            .map_err(|error| Failed::new(Exit::Failure, format!("seaprox console: {error}")))?;
    }
    Ok(flags)
}

/// Returns the parts of a node that the command line sets.
#[cfg(feature = "console")]
fn setup(parsed: &Parsed) -> Result<crate::console::NodeSetup, Failed> {
    let (mut config, link, server) = parsed.console()?;
    super::settings::fit(&mut config);
    parsed.check(&config)?;
    let command = parsed.command();
    let prepare = Box::new(move |config: &_, parts: &_| {
        let instance = super::link::instance(command, config, parts).map_err(|error| error.to_string())?;
        Ok(Box::new(instance) as Box<dyn std::any::Any>)
    });
    Ok(crate::console::NodeSetup { config, link, server, prepare, names: state_file("console_names") })
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
