//! The announced addresses: a line for each address on which the process listens, such as `socks 127.0.0.1:1080`. Scripts
//! that asked for port 0 read it on stdout behind the word `listening`.

use seaprox::auth::PublicKey;
use seaprox::config::{Config, Listening, Running};
use seaprox::{Endpoint, Proto};

use crate::Parts;
use crate::frontends::FrontEndKind;

/// The addresses that were announced, and the key that peers need.
pub struct Announced {
    addresses: Vec<String>,
    /// The addresses of the admin server that a user has asked for.
    admin: Vec<String>,
    key: Option<PublicKey>,
}

impl Announced {
    /// Returns the addresses of a running process, and its key if peers may dial it.
    pub fn of(running: &Running, parts: &Parts) -> Announced {
        let config = running.config();
        let listening = running.listening();
        let addresses = listening.iter().filter(|it| !is_beside(it, &listening));
        let addresses = addresses.map(|listening| announcement(config, listening)).collect();
        let key = (!config.servers.is_empty()).then(|| parts.public_key().ok()).flatten();
        Announced { addresses, admin: Vec::new(), key }
    }

    /// Returns no address.
    pub fn none() -> Announced {
        Announced { addresses: Vec::new(), admin: Vec::new(), key: None }
    }

    /// Adds the addresses of the admin server.
    pub fn with_admin(self, admin: Vec<String>) -> Announced {
        Announced { admin, ..self }
    }

    /// Returns the addresses, without the word `listening`.
    pub fn addresses(&self) -> Vec<String> {
        self.addresses.clone()
    }

    /// Returns all lines for stdout.
    pub fn lines(&self) -> Vec<String> {
        self.new_lines(&Announced::none())
    }

    /// Takes the present addresses of the process over. Returns the lines about those that are new.
    pub fn follow(&mut self, running: &Running, parts: &Parts) -> Vec<String> {
        let now = Announced::of(running, parts).with_admin(self.admin.clone());
        let before = std::mem::replace(self, now);
        self.new_lines(&before)
    }

    fn new_lines(&self, before: &Announced) -> Vec<String> {
        let new = self.addresses.iter().filter(|line| !before.addresses.contains(line));
        let key = self.key.filter(|_| self.key != before.key).map(|key| format!("key {key}"));
        let admin =
            self.admin.iter().filter(|addr| !before.admin.contains(addr)).map(|addr| format!("listening admin {addr}"));
        new.map(|line| format!("listening {line}")).chain(admin).chain(key).collect()
    }
}

/// Returns an address as it is written on a command line.
pub fn address_text(addr: &Endpoint) -> String {
    match addr {
        Endpoint::Ip(proto, addr) => format!("{}{addr}", proto.prefix()),
        Endpoint::Unix(path) => format!("unix:{}", path.display()),
        other => other.to_string(),
    }
}

/// Returns true for the UDP port of a server beside that of TCP with the same number.
fn is_beside(it: &Listening, all: &[Listening]) -> bool {
    let Endpoint::Ip(Proto::Udp, addr) = it.addr else { return false };
    it.front_end.is_none()
        && all.iter().any(|other| other.name == it.name && other.addr == Endpoint::Ip(Proto::Tcp, addr))
}

fn announcement(config: &Config, listening: &Listening) -> String {
    let addr = address_text(&listening.addr);
    let Some(front_end) = &listening.front_end else { return format!("link {addr}") };
    let target = FrontEndKind::find(&front_end.name).and_then(|kind| kind.spec().target());
    let target = target.and_then(|option| front_end.options.get(option)).map(|to| format!(" -> {to}"));
    let link = listening.link.as_ref().and_then(|name| config.link(name));
    let via = link.map(|link| format!(" via {}", link.peers_text()));
    format!("{} {addr}{}{}", front_end.name, target.unwrap_or_default(), via.unwrap_or_default())
}
