//! The node under attack: the real binary, with the keys of the attacker and of another peer in its `authorized_keys`.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use seaprox::keys::PublicKey;

use crate::hostile_kit::public_key;
use crate::kit::{Scratch, Seaprox};
use crate::place::Place;

/// The key of the peer that keeps to the rules.
pub const HONEST: [u8; 32] = [1; 32];
/// The key of the attacker.
pub const HOSTILE: [u8; 32] = [2; 32];

/// A node that takes in links.
pub struct Node {
    pub addr: SocketAddr,
    _seaprox: Seaprox,
    _home: Scratch,
}

impl Node {
    /// Starts a node. `hostile` is what the attacker's key may do, such as `permit-open="*"`; the other may open anything.
    pub fn start(place: &Place, hostile: &str, options: &[&str]) -> Node {
        let home = Scratch::new();
        let keys = [(r#"permit-open="*""#, HONEST), (hostile, HOSTILE)];
        let line = |(options, seed)| {
            let key = PublicKey::from_bytes(public_key(seed)).expect("a key");
            format!("{options} {key}\n").trim_start().to_owned()
        };
        private(&home, "authorized_keys", &keys.map(line).concat());
        let config = home.path().to_str().expect("a path in UTF-8").to_owned();
        let words = ["link", "--listen", "127.0.0.1:0", "--config-dir", &config];
        let words: Vec<&str> = words.iter().chain(options).copied().collect();
        let seaprox = Seaprox::start_with(&words, |command| place.put_node(command));
        Node { addr: seaprox.addr(0), _seaprox: seaprox, _home: home }
    }
}

fn private(home: &Scratch, name: &str, text: &str) {
    let path = home.write(name, text);
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).expect("a file of its owner's");
}
