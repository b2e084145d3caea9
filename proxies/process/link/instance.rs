//! What is the same in each life of this process and differs between two that run beside one another: the peer then knows a
//! restart, which takes over from what it was, from a companion with the same key, which does not.
//!
//! It is a digest of the command line and of where it runs. Processes that may run twice with the same command line have
//! none: those that are one connection each, and those whose ports the system chooses. Where nothing else keeps a second
//! one from starting, because it listens at the far end alone, the first one holds a name, and the second has no number:
//! otherwise each of them would take over from the other for ever.

use std::env;
use std::fs;
use std::os::unix::net::UnixListener;

use seaprox::auth::PublicKey;

use crate::cli::Command;

/// The number of this process, if it has one. It is this process's as long as this lives.
pub struct Instance {
    /// The number.
    pub number: Option<u32>,
    _name: Option<UnixListener>,
}

impl Instance {
    /// The instance of a process with this command line and this key.
    pub fn of(command: Command, key: PublicKey) -> Instance {
        match number(command) {
            Some(number) => Instance::hold(number, key),
            None => Instance { number: None, _name: None },
        }
    }

    fn hold(number: u32, key: PublicKey) -> Instance {
        match claim(&format!("seaprox-{number:08x}-{}", key.fingerprint())) {
            Ok(name) => Instance { number: Some(number), _name: name },
            Err(Taken) => Instance { number: None, _name: None },
        }
    }
}

/// Another process that lives has the name.
struct Taken;

/// Takes a name that goes with this process, however it ends. Where that cannot be had, everybody is thought to be alone.
#[cfg(target_os = "linux")]
fn claim(name: &str) -> Result<Option<UnixListener>, Taken> {
    use std::io::ErrorKind;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;

    match SocketAddr::from_abstract_name(name).and_then(|addr| UnixListener::bind_addr(&addr)) {
        Ok(held) => Ok(Some(held)),
        Err(error) if error.kind() == ErrorKind::AddrInUse => Err(Taken),
        Err(_) => Ok(None),
    }
}

#[cfg(not(target_os = "linux"))]
fn claim(_name: &str) -> Result<Option<UnixListener>, Taken> {
    Ok(None)
}

fn number(command: Command) -> Option<u32> {
    let args: Vec<String> = env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    let comes_alone = command != Command::Cat && !args.iter().any(|arg| chooses_port(arg) || is_stdio(arg));
    if !comes_alone {
        return None;
    }
    let read = |path: &str| fs::read(path).unwrap_or_default();
    let network = fs::read_link("/proc/self/ns/net").map(|link| link.to_string_lossy().into_owned());
    let here = [read("/etc/machine-id"), read("/proc/sys/kernel/hostname"), network.unwrap_or_default().into_bytes()];
    let words = args.iter().map(|arg| arg.as_bytes()).chain(here.iter().map(Vec::as_slice));
    Some(digest(words))
}

/// Whether an argument says port 0, as an address or as the beginning of a forward.
fn chooses_port(arg: &str) -> bool {
    arg.split(['=', ':']).any(|word| word == "0" || word == "-L0" || word == "-D0" || word == "-H0" || word == "-l0")
}

fn is_stdio(arg: &str) -> bool {
    arg.starts_with("-W") || arg.starts_with("--stdio")
}

/// FNV-1a with 32 bits, over words with their ends.
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
    #[cfg(target_os = "linux")]
    fn who_runs_beside_another_has_no_number_until_that_one_is_gone() {
        let key = seaprox::auth::NodeKey::generate().unwrap().public();
        let first = Instance::hold(7, key);
        assert_eq!((first.number, Instance::hold(7, key).number), (Some(7), None));
        assert_eq!(Instance::hold(8, key).number, Some(8));
        drop(first);
        assert_eq!(Instance::hold(7, key).number, Some(7));
    }

    #[test]
    fn ports_that_the_system_chooses_are_seen() {
        for arg in ["0", "127.0.0.1:0", "0:db:5432", "-L0:db:5432", "--listen=0", "--local=[::1]:0:db:1", "-D0"] {
            assert!(chooses_port(arg), "{arg}");
        }
        for arg in ["10", "127.0.0.1:10", "10:db:5432", "0.0.0.0:23232", "-L", "--listen"] {
            assert!(!chooses_port(arg), "{arg}");
        }
    }
}
