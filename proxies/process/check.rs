//! `seaprox check`: checks a file of configuration with the files that it names, and prints it as a whole.

use std::sync::Arc;

use seaprox::config::{Place, Preparer};

use super::exit::Failed;
use super::output::print;
use super::{admin, settings};
use crate::Parts;
use crate::cli::Parsed;
use crate::file;

/// Checks the file that the command names, and the files of keys, secrets, users and paths that it names. No address is bound,
/// and nothing is dialed. With `--print`, the file alone is read.
///
/// # Errors
/// Fails with all errors of the file, or with all files that cannot be used.
pub fn run(parsed: &Parsed) -> Result<(), Failed> {
    let loaded = settings::load(parsed)?;
    if parsed.flag("print")? {
        return print(&file::print(&loaded.config, loaded.log_format));
    }
    let config = &loaded.config;
    let place = |place: &Place| format!("{}: {place}", loaded.position(place));
    Preparer::check(config.clone(), Arc::new(Parts::checked(config)))
        .map_err(|errors| Failed::applied(parsed, errors, Some(&place)))?;
    admin::check_files(config)?;
    #[cfg(feature = "console")]
    config.console_script.as_deref().map_or(Ok(()), super::console::check_script)?;
    let counts = [("listener", config.listeners.len()), ("link", config.links.len()), ("server", config.servers.len())];
    let plural = |(kind, count): (&str, usize)| format!("{count} {kind}{}", if count == 1 { "" } else { "s" });
    let counts: Vec<_> = counts.into_iter().filter(|(_, count)| *count > 0).map(plural).collect();
    print(&format!("{} is valid: {}\n", parsed.frees()[0], counts.join(", ")))
}
