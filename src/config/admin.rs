//! The admin server of a process: its further addresses, and the clients that may command the process.

use std::path::PathBuf;

use crate::types::address::Bind;

/// The settings of the admin server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admin {
    /// The addresses beside the Unix socket of the process.
    pub addresses: Vec<Bind>,
    /// The file of the token with which a client over TCP may write.
    pub token_file: Option<PathBuf>,
    /// The name or the number of the group whose members may write over a Unix socket.
    pub group: Option<String>,
    /// The names beside `localhost` under which clients know an address.
    pub hosts: Vec<String>,
}

impl Admin {
    /// Returns the first address that other hosts can reach and that has no token. The addresses of a name are not known here.
    pub fn unguarded(&self) -> Option<&Bind> {
        let is_open = |bind: &&Bind| match bind {
            Bind::Any(..) => true,
            Bind::Ip(_, addr) => !addr.ip().to_canonical().is_loopback(),
            _ => false,
        };
        self.addresses.iter().find(is_open).filter(|_| self.token_file.is_none())
    }
}
