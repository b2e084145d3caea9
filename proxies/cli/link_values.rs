//! The getters of options about links.

use seaprox::node::{Path, Reverse};
use seaprox::{Bind, Target, Upstream};

use super::forwards::{self, Forward, ForwardError};
use super::{Command, Group, OptionSpec, Parsed, UsageError, options_of};
use crate::links::addresses;

impl Parsed {
    /// Returns the servers to link with, from `--connect` or the argument of `link`, or from `--via` of other commands. Each
    /// of these has one or more, with commas between them.
    pub fn peers(&self) -> Result<Vec<Upstream>, UsageError> {
        let long = if self.command() == Command::Link { "connect" } else { "via" };
        let argument = self.frees().first().filter(|_| self.command() == Command::Link);
        let mut given = self.given(long);
        if let Some(argument) = argument {
            if !given.is_empty() {
                return Err(
                    self.error(format!("unexpected argument {argument:?} beside --connect: expected one of them"))
                );
            }
            given.push(("HOST".to_owned(), argument.clone()));
        }
        if given.is_empty() && self.count("port") > 0 {
            return Err(self.error("-p is about a link that this node dials: expected HOST too"));
        }
        let texts = given.iter().flat_map(|(name, text)| text.split(',').map(move |text| (name, text)));
        texts.map(|(name, text)| self.parsed_peer(name, text)).collect()
    }

    fn parsed_peer(&self, name: &str, text: &str) -> Result<Upstream, UsageError> {
        if text.contains('@') {
            let error = "expected HOST[:PORT] without a user, because the key of this node tells the peer who it is";
            return Err(self.wrong(name, text, error));
        }
        let form = "expected HOST[:PORT] or [IPV6][:PORT]";
        let has_port = addresses::peer_or(text, 1).ok() == addresses::peer_or(text, 2).ok();
        let server = addresses::server(text);
        let is_service = matches!(server, Ok(Upstream::Service(_)));
        let peer = if self.count("port") == 0 {
            server
        } else if is_service || has_port && server.is_ok() {
            return Err(self.wrong(name, text, "expected HOST without a port beside -p"));
        } else {
            let port = u16::try_from(self.number("port")?).unwrap_or(addresses::PORT);
            addresses::peer_or(text, port).map(Upstream::Target)
        };
        let peer = peer.map_err(|_| self.wrong(name, text, form))?;
        peer.proto().require_tcp().map_err(|error| self.wrong(name, text, error))?;
        Ok(peer)
    }

    /// Returns the addresses on which `link` accepts links.
    pub fn link_addresses(&self) -> Result<Vec<Bind>, UsageError> {
        let address = |(name, text): (String, String)| {
            let place = addresses::listen(&text).map_err(|error| self.wrong(&name, &text, error))?;
            place.proto().require_tcp().map_err(|error| self.wrong(&name, &text, error))?;
            Ok(place)
        };
        self.given("listen").into_iter().map(address).collect()
    }

    /// Returns the forwards of `-L`.
    pub fn locals(&self) -> Result<Vec<Forward>, UsageError> {
        self.forwards("local", forwards::local)
    }

    /// Returns the forwards of `-R`.
    pub fn reverses(&self) -> Result<Vec<Reverse>, UsageError> {
        let all = self.forwards("remote", forwards::reverse)?;
        Ok(all.into_iter().map(|Forward { listen, to }| Reverse { listen, to }).collect())
    }

    /// Returns the addresses of `-D`.
    pub fn dynamics(&self) -> Result<Vec<Bind>, UsageError> {
        self.forwards("dynamic", forwards::listen)
    }

    /// Returns the addresses of `-H`.
    pub fn https(&self) -> Result<Vec<Bind>, UsageError> {
        self.forwards("http", forwards::listen)
    }

    /// Returns the target of `-W`.
    pub fn stdio(&self) -> Result<Option<Target>, UsageError> {
        Ok(self.forwards("stdio", forwards::far_target)?.pop())
    }

    /// Returns the paths of `--path`; without one, a single path that the system chooses.
    pub fn paths(&self, peers: &[Upstream]) -> Result<Vec<Path>, UsageError> {
        let port = peers.iter().find_map(Upstream::port).unwrap_or(addresses::PORT);
        let path = |(name, text): (String, String)| {
            addresses::path(&text, port).map_err(|error| self.wrong(&name, &text, error))
        };
        let mut paths = self.given("path").into_iter().map(path).collect::<Result<Vec<Path>, UsageError>>()?;
        if paths.is_empty() {
            paths.push(Path::default());
        }
        if self.count("local-port") > 0 {
            let local_port = u16::try_from(self.number("local-port")?).ok();
            paths.iter_mut().for_each(|path| path.local_port = path.local_port.or(local_port));
        }
        if let Some(path) = paths.iter().find_map(|path| path.local_port)
            && self.number("subflows")? > 1
        {
            return Err(self.error(format!("--path with the source port {path}: expected one subflow over each path")));
        }
        Ok(paths)
    }

    /// Checks that options about links are given only with such a link. `dials` is true if this process dials a link,
    /// `accepts` if peers dial it.
    ///
    /// # Errors
    /// Fails with the first option that has no link.
    pub fn check_link_options(&self, dials: bool, accepts: bool) -> Result<(), UsageError> {
        if matches!(self.command(), Command::Invite | Command::Join) {
            return Ok(());
        }
        if self.command() == Command::Receive && !accepts {
            return Err(self.error("expected --listen ADDR, where peers dial"));
        }
        let dialing = if self.command() == Command::Link { "--connect HOST[:PORT]" } else { "--via HOST[:PORT]" };
        let given = |long: &str| self.count(long) > 0;
        let about_links = |option: &&OptionSpec| matches!(option.group, Group::Links | Group::Keys);
        for long in options_of(self.command()).filter(about_links).map(|option| option.long).filter(|long| given(long))
        {
            if !dials && (!accepts || FOR_DIALED.contains(&long)) {
                return Err(
                    self.error(format!("--{long} is about a link that this node dials: expected {dialing} too"))
                );
            }
            if !accepts && FOR_ACCEPTED.contains(&long) {
                return Err(self.error(format!("--{long} is about links that peers dial: expected --listen ADDR too")));
            }
        }
        self.check_exclusive()?;
        let forwards = [("local", 'L'), ("remote", 'R'), ("dynamic", 'D'), ("http", 'H'), ("stdio", 'W')];
        if let Some((_, short)) = forwards.into_iter().find(|(long, _)| !dials && given(long)) {
            return Err(self.error(format!("-{short} is about a link that this node dials: expected {dialing} too")));
        }
        match FOR_SOCKS.iter().find(|long| given(long)) {
            Some(long) if self.command() == Command::Link && !given("dynamic") => {
                Err(self.error(format!("--{long} is about a SOCKS proxy: expected -D [BIND:]PORT too")))
            }
            _ => Ok(()),
        }
    }

    /// Checks that of options that contradict each other only one is given.
    ///
    /// # Errors
    /// Fails with the first two that contradict each other.
    pub(super) fn check_exclusive(&self) -> Result<(), UsageError> {
        match EXCLUSIVE.iter().find(|(one, other, _)| self.count(one) > 0 && self.count(other) > 0) {
            Some((one, other, why)) => {
                Err(self.error(format!("--{one} and --{other}: expected one of them, because {why}")))
            }
            None => Ok(()),
        }
    }

    /// Parses the forwards of an option. Errors name its letter, by which users know it.
    fn forwards<T>(&self, long: &str, parse: impl Fn(&str) -> Result<T, ForwardError>) -> Result<Vec<T>, UsageError> {
        let name = self.spec(long).short.map_or_else(|| format!("--{long}"), |short| format!("-{short}"));
        let one = |(_, text): (String, String)| parse(&text).map_err(|error| self.wrong(&name, &text, error));
        self.given(long).into_iter().map(one).collect()
    }
}

/// Options about the link that this node dials.
const FOR_DIALED: &[&str] = &[
    "known-nodes",
    "peer-key",
    "links-max",
    "subflows",
    "path",
    "paths",
    "local-port",
    "simultaneous",
    "exit-on-failure",
    "link-retry-max",
];
/// Options about clients of SOCKS, which a link has with `-D`.
const FOR_SOCKS: &[&str] = &["udp-advertise", "udp-any-source"];
/// Options about the links that peers dial.
const FOR_ACCEPTED: &[&str] = &["authorized-keys", "ask", "link-max", "link-key-max"];
/// Pairs of options of which only one may be given, with the reason.
pub const EXCLUSIVE: &[(&str, &str, &str)] = &[
    ("secret", "key", "the key is derived from the secret"),
    ("secret", "peer-key", "the key of the peer is derived from the secret"),
    ("secret", "known-nodes", "the key of the peer is derived from the secret"),
    ("path", "paths", "the file contains all paths"),
    ("local-port", "paths", "the file contains all source ports"),
    ("peer-key", "known-nodes", "a pinned key is not looked up in a file"),
];
