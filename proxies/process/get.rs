//! `seaprox get`: gets a file or a folder that another node shares.

use std::path::PathBuf;

use super::exit::Failed;
use super::transfer;
use crate::cli::Parsed;
use crate::files;

/// Gets what the first argument names into the folder that the second one names, or into the present one.
///
/// # Errors
/// Fails if the link is not up in time, if the node does not share it, or if it cannot be written.
pub fn run(parsed: &Parsed) -> Result<(), Failed> {
    let name = parsed.frees().first().cloned().unwrap_or_default();
    let folder = PathBuf::from(parsed.frees().get(1).map_or(".", String::as_str));
    transfer::run(parsed, "got", move |remote, link, settings, on_event| {
        files::get(remote, link, name, folder, settings, on_event)
    })
}
