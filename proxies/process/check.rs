//! `seaprox check`: checks a file of configuration, and prints it as a whole.

use super::exit::Failed;
use super::output::print;
use super::settings;
use crate::cli::Parsed;
use crate::file;

/// Checks the file that the command names.
///
/// # Errors
/// Fails with all errors of the file.
pub fn run(parsed: &Parsed) -> Result<(), Failed> {
    let loaded = settings::load(parsed)?;
    if parsed.flag("print")? {
        return print(&file::print(&loaded.config, loaded.log_format));
    }
    let config = &loaded.config;
    let counts = [("listener", config.listeners.len()), ("link", config.links.len()), ("server", config.servers.len())];
    let plural = |(kind, count): (&str, usize)| format!("{count} {kind}{}", if count == 1 { "" } else { "s" });
    let counts: Vec<_> = counts.into_iter().filter(|(_, count)| *count > 0).map(plural).collect();
    print(&format!("{} is valid: {}\n", parsed.frees()[0], counts.join(", ")))
}
