//! The directory of a node's files.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::error::KeysError;
use super::file;
use crate::sys;

/// The directory with the key of a node, the keys that may connect to it, and the nodes that it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigDirectory(PathBuf);

impl ConfigDirectory {
    /// Makes a reference to a directory. Does not touch the file system.
    pub fn at(path: impl Into<PathBuf>) -> ConfigDirectory {
        ConfigDirectory(path.into())
    }

    /// Returns the default directory: `$XDG_CONFIG_HOME/seaprox`, else `$HOME/.config/seaprox`, else `%APPDATA%\\seaprox` on
    /// Windows, else `/etc/seaprox`. A variable that is not an absolute path counts as unset, as in the XDG base directory
    /// specification.
    pub fn find(env: impl Fn(&str) -> Option<OsString>) -> ConfigDirectory {
        let path = |name: &str| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let home = || path("HOME").map(|home| home.join(".config"));
        let above = path("XDG_CONFIG_HOME")
            .or_else(home)
            .or_else(|| path(sys::CONFIG_VARIABLE?))
            .unwrap_or_else(|| "/etc".into());
        ConfigDirectory(above.join("seaprox"))
    }

    /// Creates the directory and its parents, accessible to their owner only. Existing directories are not changed.
    ///
    /// # Errors
    /// A directory cannot be created.
    pub fn make(&self) -> Result<(), KeysError> {
        file::make_directory(&self.0)
    }

    /// Returns the path of the directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Returns the path of the node's private key.
    pub fn key(&self) -> PathBuf {
        self.0.join("key")
    }

    /// Returns the path of the secret that is shared with another node.
    pub fn secret(&self) -> PathBuf {
        self.0.join("secret")
    }

    /// Returns the path of the keys that may connect.
    pub fn authorized_keys(&self) -> PathBuf {
        self.0.join("authorized_keys")
    }

    /// Returns the path of the invitations of this node.
    pub fn invitations(&self) -> PathBuf {
        self.0.join("invitations")
    }

    /// Returns the path of the known nodes.
    pub fn known_nodes(&self) -> PathBuf {
        self.0.join("known_nodes")
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::tests::mode;
    use super::super::scratch::Scratch;
    use super::*;

    #[test]
    fn the_default_directory_follows_the_environment() {
        for (xdg, home, found) in [
            ("/x", "/h", "/x/seaprox"),
            ("", "/h", "/h/.config/seaprox"),
            ("relative", "/h", "/h/.config/seaprox"),
            ("", "", "/etc/seaprox"),
        ] {
            let env = |name: &str| Some(if name == "HOME" { home } else { xdg }.into()).filter(|_| name != "OTHER");
            assert_eq!(ConfigDirectory::find(env), ConfigDirectory::at(found));
        }
        assert_eq!(ConfigDirectory::find(|_| None).key(), Path::new("/etc/seaprox/key"));
    }

    #[test]
    fn the_directory_is_created_for_its_owner_only() {
        let scratch = Scratch::new();
        let directory = ConfigDirectory::at(scratch.path("a/seaprox"));
        directory.make().unwrap();
        directory.make().unwrap();
        assert_eq!((mode(directory.path()), mode(&scratch.path("a"))), (0o700, 0o700));
        scratch.write("file", "", 0o600);
        assert!(ConfigDirectory::at(scratch.path("file/seaprox")).make().is_err());
    }
}
