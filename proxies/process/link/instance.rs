//! The instance number of this process. It is the same for each start of the same command line in the same place, so the
//! peer can tell a restarted process, which takes over its earlier session, from a second process with the same key, which
//! does not.
//!
//! The number is a digest of the command line, the host and the network namespace. Processes that may run twice with the
//! same command line have none: those for a single connection, and those with a listener on port 0. A second process may
//! also start if all of its listeners are at the far end; it gets no number while the first one holds the name of the
//! number. Two processes with the same number would evict each other for ever.

use std::env;
use std::io::ErrorKind;

use seaprox::auth::PublicKey;
use seaprox::config::Config;
use seaprox::system::{self, NameClaim};

use crate::cli::Command;

/// The instance number, and the name that reserves it as long as this value lives.
pub struct Instance {
    /// The number, if the process has one.
    pub number: Option<u32>,
    _name: Option<NameClaim>,
}

impl Instance {
    /// Returns the instance of this process with its command line and this key.
    pub fn of(command: Command, config: &Config, key: PublicKey) -> Instance {
        match number(command, config) {
            Some(number) => Instance::reserve(number, key),
            None => Instance { number: None, _name: None },
        }
    }

    fn reserve(number: u32, key: PublicKey) -> Instance {
        match system::claim_name(&format!("seaprox-{number:08x}-{}", key.fingerprint())) {
            Ok(name) => Instance { number: Some(number), _name: name },
            Err(error) if error.kind() == ErrorKind::AddrInUse => Instance { number: None, _name: None },
            // Without a name to hold, this process counts as the only one.
            Err(_) => Instance { number: Some(number), _name: None },
        }
    }
}

fn number(command: Command, config: &Config) -> Option<u32> {
    let args: Vec<String> = env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    let may_run_twice = matches!(command, Command::Cat | Command::Send | Command::Get)
        || has_free_port(config)
        || args.iter().any(|arg| has_port_zero(arg) || is_stdio(arg));
    if may_run_twice {
        return None;
    }
    let here = system::machine();
    let words = args.iter().map(|arg| arg.as_bytes()).chain(here.iter().map(Vec::as_slice));
    Some(digest(words))
}

/// Returns true if a listener takes any free port, so that the same configuration can run twice.
fn has_free_port(config: &Config) -> bool {
    let listeners = config.all_listeners();
    let servers = config.servers.iter().flat_map(|server| &server.addresses);
    listeners.iter().flat_map(|listener| &listener.addresses).chain(servers).any(|addr| addr.port() == Some(0))
}

/// Returns true if an argument contains port 0, as an address or at the start of a forward.
fn has_port_zero(arg: &str) -> bool {
    arg.split(['=', ':']).any(|word| word == "0" || word == "-L0" || word == "-D0" || word == "-H0" || word == "-l0")
}

fn is_stdio(arg: &str) -> bool {
    arg.starts_with("-W") || arg.starts_with("--stdio")
}

/// Returns FNV-1a with 32 bits over the words, each followed by a separator.
fn digest<'a>(words: impl Iterator<Item = &'a [u8]>) -> u32 {
    let bytes = words.flat_map(|word| word.iter().copied().chain([0xff]));
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_words_have_different_digests() {
        let of = |words: &[&str]| digest(words.iter().map(|word| word.as_bytes()));
        assert_eq!(of(&["link", "-L", "1:a:2"]), of(&["link", "-L", "1:a:2"]));
        assert_ne!(of(&["link", "-L", "1:a:2"]), of(&["link", "-L", "2:a:2"]));
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
    }

    #[test]
    fn a_second_process_has_no_number_until_the_first_has_ended() {
        let key = seaprox::auth::NodeKey::generate().unwrap().public();
        let first = Instance::reserve(7, key);
        assert_eq!((first.number, Instance::reserve(7, key).number), (Some(7), None));
        assert_eq!(Instance::reserve(8, key).number, Some(8));
        drop(first);
        assert_eq!(Instance::reserve(7, key).number, Some(7));
    }

    #[test]
    fn port_zero_is_found_in_addresses_and_forwards() {
        for arg in ["0", "127.0.0.1:0", "0:db:5432", "-L0:db:5432", "--listen=0", "--local=[::1]:0:db:1", "-D0"] {
            assert!(has_port_zero(arg), "{arg}");
        }
        for arg in ["10", "127.0.0.1:10", "10:db:5432", "0.0.0.0:23232", "-L", "--listen"] {
            assert!(!has_port_zero(arg), "{arg}");
        }
    }
}
