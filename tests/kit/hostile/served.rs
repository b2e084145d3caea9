//! The real binary as a node that accepts links of two keys: an honest one and an attacker's.
//!
//! A test that uses it declares `mod kit;` and `#[path = "kit/hostile/served.rs"] mod served;` beside `mod
//! hostile_kit;`.
#![allow(dead_code)] // Each user takes its part.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use seaprox::auth::PublicKey;

use crate::hostile_kit::public_key;
use crate::kit::{Scratch, Seaprox};

/// The key of the honest peer.
pub const HONEST: [u8; 32] = [1; 32];
/// The key of the attacker.
pub const HOSTILE: [u8; 32] = [2; 32];

/// A node that accepts links. It is killed when dropped.
pub struct Served {
    pub addr: SocketAddr,
    pub seaprox: Seaprox,
    _home: Scratch,
}

impl Served {
    /// Starts a node. `hostile` holds the permissions of the attacker's key, such as `permit-open="*"`; the honest key
    /// has all.
    #[track_caller]
    pub fn start(hostile: &str, options: &[&str]) -> Served {
        Served::start_with(hostile, options, |_| {})
    }

    /// Starts a node as [`Served::start`] does. `touch` may change the command first.
    #[track_caller]
    pub fn start_with(hostile: &str, options: &[&str], touch: impl FnOnce(&mut Command)) -> Served {
        let home = Scratch::new();
        let keys = [(r#"permit-open="*",permit-listen="*""#, HONEST), (hostile, HOSTILE)];
        let line = |(options, seed)| {
            let key = PublicKey::from_bytes(public_key(seed)).expect("a key");
            format!("{options} {key}\n").trim_start().to_owned()
        };
        let path = home.write("authorized_keys", keys.map(line).concat());
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).expect("a file of its owner's");
        let config = home.path().to_str().expect("a path in UTF-8");
        let words = ["link", "--listen", "127.0.0.1:0", "--config-dir", config];
        let words: Vec<&str> = words.iter().chain(options).copied().collect();
        let seaprox = Seaprox::start_with(&words, touch);
        Served { addr: seaprox.addr(0), seaprox, _home: home }
    }
}
