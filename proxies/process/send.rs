//! `seaprox send`: sends files and folders over a link to a node where `seaprox receive` runs.

use std::path::{Path, PathBuf};

use super::exit::{Exit, Failed};
use super::transfer;
use crate::cli::Parsed;
use crate::files;

/// Sends all files and folders, and waits until the receiver has them under their names.
///
/// # Errors
/// Fails if one cannot be read, if the link is not up in time, or if the receiver does not take one.
pub fn run(parsed: &Parsed) -> Result<(), Failed> {
    // A path that does not exist needs no link.
    for path in parsed.frees() {
        let found = Path::new(path).metadata();
        found.map_err(|error| Failed::new(Exit::Failure, format!("seaprox send: {path}: {error}")))?;
    }
    let paths: Vec<PathBuf> = parsed.frees().iter().map(PathBuf::from).collect();
    transfer::run(parsed, "sent", move |remote, link, settings, on_event| {
        files::send(remote, link, paths, settings, on_event)
    })
}
