//! `seaprox keygen` and `seaprox pubkey`: make the key of a node, and print its public key.
//!
//! stdout gets the public key in one line, as `authorized_keys` of other nodes takes it; everything else goes to stderr. An
//! existing file is replaced only with `--force`. Nothing private is ever printed.

use std::path::{Path, PathBuf};

use seaprox::auth::{KeysError, NodeKey, Problem, PublicKey, Secret, SecretError};

use super::exit::{Exit, Failed};
use super::logging;
use super::output::print;
use crate::cli::{Parsed, UsageError};

/// Makes a key or, with `--secret`, a secret to share. Prints its public key.
///
/// # Errors
/// Fails if the file exists and `--force` is not given, or if it cannot be written.
pub fn keygen(parsed: &Parsed) -> Result<(), Failed> {
    let (path, is_secret, force) = (path(parsed)?, parsed.flag("secret")?, parsed.flag("force")?);
    let not_random = |error: SecretError| Failed::new(Exit::Failure, format!("seaprox keygen: {error}"));
    let directory = parsed.config_directory();
    // The user makes the directory of a file that the user names.
    if path.parent() == Some(directory.path()) {
        directory.make().map_err(not_made)?;
    }
    let key = if is_secret {
        let secret = Secret::generate().map_err(not_random)?;
        let key = NodeKey::from_secret(secret.expose()).map_err(not_random)?;
        secret.create(&path, force).map_err(not_made)?;
        key
    } else {
        let key = NodeKey::generate().map_err(not_random)?;
        key.create(&path, force).map_err(not_made)?;
        key
    };
    if parsed.verbosity() >= 0 {
        let kind = if is_secret { "secret" } else { "key" };
        logging::say(&format!("seaprox keygen: the {kind} is in {}", path.display()));
    }
    print(&text(key.public(), false))
}

/// Prints the public key of a key or, with `--secret`, of a secret.
///
/// # Errors
/// Fails if the file is missing or cannot be used.
pub fn pubkey(parsed: &Parsed) -> Result<(), Failed> {
    let path = path(parsed)?;
    let unusable = |text: String| Failed::new(Exit::Config, format!("seaprox pubkey: {text}"));
    let failed = |error: KeysError| match error.is_missing() {
        true => unusable(format!("{error}; `seaprox keygen` makes one")),
        false => Failed::unusable("seaprox pubkey", &error),
    };
    let key = if parsed.flag("secret")? {
        let secret = Secret::load(&path, parsed.modes()?).map_err(failed)?;
        NodeKey::from_secret(secret.expose()).map_err(|error| unusable(format!("{}: {error}", path.display())))?
    } else {
        NodeKey::load(&path, parsed.modes()?).map_err(failed)?
    };
    print(&text(key.public(), parsed.flag("fingerprint")?))
}

fn text(key: PublicKey, with_fingerprint: bool) -> String {
    if with_fingerprint { format!("{key}\n{}\n", key.fingerprint()) } else { format!("{key}\n") }
}

/// Returns the path of the key or the secret. `SEAPROX_KEY` names the key of the node, so it is not read for a secret.
fn path(parsed: &Parsed) -> Result<PathBuf, UsageError> {
    let is_secret = parsed.flag("secret")?;
    let option = if is_secret { parsed.path_flag("key") } else { parsed.path("key") };
    match parsed.frees().first() {
        Some(_) if parsed.path_flag("key").is_some() => Err(parsed.error("expected either FILE or --key FILE")),
        Some(file) => Ok(Path::new(file).to_owned()),
        None => Ok(option.unwrap_or_else(|| {
            let directory = parsed.config_directory();
            if is_secret { directory.secret() } else { directory.key() }
        })),
    }
}

fn not_made(error: KeysError) -> Failed {
    let hint = if matches!(error.problem(), Problem::Exists) { "; --force replaces it" } else { "" };
    Failed::new(Exit::Failure, format!("seaprox keygen: {error}{hint}"))
}
