//! Two nodes on this machine with a link between them, each with a key of its own.

use std::os::unix::fs::PermissionsExt;

use super::{Scratch, Seaprox, run};

/// Generates the key of a node in a configuration directory. Returns the public key.
#[track_caller]
pub fn generate_key(config: &str) -> String {
    assert_eq!(run(&["keygen", "--config-dir", config]).code, Some(0));
    String::from_utf8(run(&["pubkey", "--config-dir", config]).out).expect("a key").trim_end().to_owned()
}

/// The configuration directories of two nodes that trust each other.
pub struct Keys {
    scratch: Scratch,
    /// The near node's public key.
    near: String,
    /// The far node's public key.
    far: String,
}

impl Keys {
    /// Generates both keys. The far node permits the near one all targets on 127.0.0.1.
    #[track_caller]
    pub fn new() -> Keys {
        let scratch = Scratch::new();
        let [near, far] = ["near", "far"].map(|name| scratch.file(name));
        let [near_key, far] = [near, far].map(|config| generate_key(&config));
        let authorized = scratch.write("far/authorized_keys", format!("permit-open=\"127.0.0.1:*\" {near_key}\n"));
        std::fs::set_permissions(authorized, PermissionsExt::from_mode(0o600)).expect("a file of ours");
        Keys { scratch, near: near_key, far }
    }

    /// Rewrites the far node's file of keys: these permissions for the near node, or no key at all.
    pub fn permit(&self, permissions: Option<&str>) {
        let line = permissions.map_or("# nobody\n".to_owned(), |it| format!("{it} {}\n", self.near));
        let file = self.scratch.write("far/new_keys", line);
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).expect("a file of ours");
        std::fs::rename(file, self.scratch.file("far/authorized_keys")).expect("a directory of ours");
    }

    /// Returns the directory of the node that accepts links.
    pub fn far_dir(&self) -> String {
        self.scratch.file("far")
    }

    /// Writes a file beside the directories of the nodes. Returns its path.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        self.scratch.write(name, content)
    }

    /// Starts the node that accepts links, with these further options.
    #[track_caller]
    pub fn start_far(&self, options: &[&str]) -> Seaprox {
        let config = self.scratch.file("far");
        Seaprox::start(&[&["link", "--listen", "127.0.0.1:0", "--config-dir", &config], options].concat())
    }

    /// Returns the options of a front end whose connections go over a link to the node at `addr`.
    pub fn via(&self, addr: &str) -> Vec<String> {
        let config = self.scratch.file("near");
        ["--via", addr, "--peer-key", &self.far, "--config-dir", &config].map(str::to_owned).to_vec()
    }
}
