//! `seaprox join`: reads an invitation, joins the node that has made it, and writes the key of that node down.
//!
//! stdout gets a line with the node and its fingerprint, and the command to use next. The inviting node gets permissions here
//! only if the user names some.

use std::io::{self, IsTerminal, Read};
use std::path::Path;
use std::time::Duration;

use seaprox::auth::{
    AuthorizedKey, AuthorizedKeys, FromFile, INVITATION_BYTES_MAX, Invitation, KeysError, KnownNodes, Modes, NodeKey,
    Permissions, PublicKey, Secret, Standing,
};
use seaprox::invite::{JoinError, Joined, join};
use seaprox::{Target, system};

use super::exit::{Exit, Failed};
use super::logging;
use super::output::print;
use crate::cli::{Parsed, UsageError};
use crate::links::addresses::PORT;

/// Joins a node by its invitation.
///
/// # Errors
/// Fails if the invitation cannot be read, the node cannot be reached or does not take it, or a file cannot be used.
pub fn run(parsed: &Parsed) -> Result<(), Failed> {
    if !parsed.frees().is_empty() {
        return Err(argument(parsed).into());
    }
    let modes = parsed.modes()?;
    let permissions = parsed.invited_permissions()?;
    // An attempt without an end would keep the next address from being tried.
    let patience = Some(parsed.duration("connect-timeout")?).filter(|time| !time.is_zero()).unwrap_or(PATIENCE);
    let directory = parsed.config_directory();
    let unusable = |error: KeysError| Failed::unusable("seaprox join", &error);
    let text = read(parsed, modes)?;
    let invitation =
        Invitation::parse(text.expose()).map_err(|error| Failed::new(Exit::Usage, format!("seaprox join: {error}")))?;
    drop(text);
    let key_file = parsed.path("key").unwrap_or_else(|| directory.key());
    let (key, _) = NodeKey::load_or_create(&key_file, modes).map_err(unusable)?;
    let known_file = parsed.path("known-nodes").unwrap_or_else(|| directory.known_nodes());
    let known = || <KnownNodes as FromFile>::load(&known_file, modes, &()).map(|(nodes, _)| nodes);
    let authorized_file = parsed.path("authorized-keys").unwrap_or_else(|| directory.authorized_keys());
    let authorizes = permissions != Permissions::default();
    let prepare = || {
        KnownNodes::prepare(&known_file)?;
        if authorizes { AuthorizedKeys::prepare(&authorized_file, modes) } else { Ok(()) }
    };
    // All that can fail here is found before the invitation is used.
    let before = |address: &Target, found: &PublicKey| {
        if *found == key.public() {
            return Err("this node has made the invitation itself, or has the same key".to_owned());
        }
        match known().map_err(|error| error.to_string())?.look_up(address, found) {
            Standing::Changed { known, line } => Err(format!(
                "{}:{line} has another key for {address}, {}; if the invitation is right, remove that line",
                known_file.display(),
                known.fingerprint()
            )),
            Standing::Known | Standing::Unknown => prepare().map_err(|error| error.to_string()),
        }
    };
    let joined = join(&invitation, &key, patience, before).map_err(failed)?;
    let mut nodes = known().map_err(unusable)?;
    if nodes.look_up(&joined.address, &joined.key) != Standing::Known {
        let line = format!("{} {}", joined.address, joined.key);
        nodes.add(&joined.address, &joined.key).map_err(|error| by_hand(&error, &line, &known_file))?;
    }
    if authorizes {
        let file = &authorized_file;
        let entry = AuthorizedKey { key: joined.key, permissions };
        let appended = AuthorizedKeys::append(file, modes, &entry);
        if !appended.map_err(|error| by_hand(&error, &entry.to_string(), file))? {
            let file = file.display();
            logging::say(&format!(
                "seaprox join: {file} has the key of this node already; its permissions are unchanged"
            ));
        }
    }
    tell(parsed, &joined)
}

/// Returns the error of a line that could not be written although the other node has joined this one, and the invitation may be
/// used up.
fn by_hand(error: &KeysError, line: &str, file: &Path) -> Failed {
    let text = format!(
        "seaprox join: the other node has authorized this one, but {error}\nseaprox join: add this line to {} yourself: {line}",
        file.display()
    );
    Failed::new(Exit::Config, text)
}

/// Prints the node, and the command to use next.
fn tell(parsed: &Parsed, joined: &Joined) -> Result<(), Failed> {
    if joined.was_known && parsed.verbosity() >= 0 {
        let text = "seaprox join: the key of this node was authorized there before; its permissions are unchanged, and the \
                    invitation was not used";
        logging::say(text);
    }
    let address = joined.address.to_string();
    let suffix = format!(":{PORT}");
    let peer = address.strip_suffix(&suffix).filter(|host| !host.contains(':')).unwrap_or(&address);
    let options = ["config-dir", "key", "known-nodes"].iter().filter_map(|long| {
        parsed.path_flag(long).map(|path| format!(" --{long} {}", quoted(&path.display().to_string())))
    });
    let options: String = options.collect();
    print(&format!("joined {address} {}\nnext: seaprox link --connect {peer}{options}\n", joined.key.fingerprint()))
}

/// Returns a word as a shell reads it.
fn quoted(word: &str) -> String {
    let is_plain = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+@:,".contains(&byte));
    if is_plain { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

/// Reads the invitation from the file, the prompt or standard input.
fn read(parsed: &Parsed, modes: Modes) -> Result<Secret, Failed> {
    if let Some(file) = parsed.path("file") {
        return Secret::load(&file, modes).map_err(|error| Failed::unusable("seaprox join", &error));
    }
    let failed = |error: io::Error| Failed::new(Exit::Failure, format!("seaprox join: the invitation: {error}"));
    if io::stdin().is_terminal() {
        let line = system::read_hidden_line("Invitation: ", INVITATION_BYTES_MAX);
        return line.map(Secret::from).map_err(failed);
    }
    let mut bytes = Vec::with_capacity(INVITATION_BYTES_MAX + 1);
    let read = io::stdin().lock().take(INVITATION_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
    read.map_err(failed)?;
    Ok(Secret::from(bytes))
}

/// Returns the refusal of an invitation as an argument, which does not repeat it.
fn argument(parsed: &Parsed) -> UsageError {
    parsed.error(
        "expected no argument: an invitation is a secret, and arguments are shown in the list of processes and kept in the \
         history of the shell. Paste it at the prompt, pass it on standard input, or use --file FILE. If this one was meant, \
         make another: it may have been seen",
    )
}

/// Time for an address if its timer is switched off.
const PATIENCE: Duration = Duration::from_secs(60);

fn failed(error: JoinError) -> Failed {
    let exit = match &error {
        JoinError::Unreachable(_) => Exit::Unavailable,
        JoinError::Failed(_) => Exit::Failure,
        _ => Exit::NoPermission,
    };
    Failed::new(exit, format!("seaprox join: {error}"))
}
