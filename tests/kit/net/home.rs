//! Nodes with keys of their own and the files of the keys that they trust, written as a user would write them.

use std::os::unix::fs::PermissionsExt;

use super::nodes::PORT;
use super::own_ip;
use crate::kit::{self, Scratch};

/// The directory of a node with a key of its own and the files of the keys that it trusts.
pub struct Home(Scratch);

impl Home {
    pub fn new() -> Home {
        Home(Scratch::new())
    }

    /// Returns its public key, in one line.
    pub fn key(&self) -> String {
        let config = self.0.file("config");
        let ran = kit::run(&["pubkey", "--config-dir", &config]);
        if ran.code == Some(0) {
            return String::from_utf8_lossy(&ran.out).trim().to_owned();
        }
        let ran = kit::run(&["keygen", "--config-dir", &config]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        let ran = kit::run(&["pubkey", "--config-dir", &config]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        String::from_utf8_lossy(&ran.out).trim().to_owned()
    }

    /// Writes one of its files, such as `authorized_keys`, or replaces it. A running node reads the old text or the new one.
    pub fn write(&self, name: &str, text: &str) {
        let path = format!("{}/{name}", self.0.file("config"));
        let new = format!("{path}.new");
        std::fs::write(&new, text).unwrap();
        std::fs::set_permissions(&new, PermissionsExt::from_mode(0o600)).unwrap();
        std::fs::rename(new, path).unwrap();
    }

    /// Returns the content of one of its files.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(format!("{}/{name}", self.0.file("config"))).unwrap()
    }

    /// Returns a command line with its directory.
    pub fn line(&self, words: &[&str]) -> Vec<String> {
        let config = self.0.file("config");
        words.iter().chain(&["--config-dir", &config]).map(|word| (*word).to_owned()).collect()
    }
}

/// Makes two nodes: the second authorizes the key of the first with these options, and the first knows the second's
/// key.
pub fn homes(options: &str) -> (Home, Home) {
    let (near, far) = (Home::new(), Home::new());
    let (near_key, far_key) = (near.key(), far.key());
    far.write("authorized_keys", &format!("{options} {near_key}\n"));
    near.write("known_nodes", &format!("{}:{PORT} {far_key}\n", own_ip(1)));
    (near, far)
}

/// Returns the command line of a node that accepts links.
pub fn far_line(far: &Home) -> Vec<String> {
    far.line(&["link", "-v", "--listen", &format!("0.0.0.0:{PORT}")])
}

/// Returns the command line of a node that dials the far host.
pub fn near_line(near: &Home, options: &[&str]) -> Vec<String> {
    near.line(&[&["link", "-v", "--connect", &format!("{}:{PORT}", own_ip(1))], options].concat())
}
