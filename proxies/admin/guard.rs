//! The guard of the admin server: decides which client may have which answer.
//!
//! A page in a browser of this host can send requests to a loopback address, and by DNS rebinding it can read the answers. So
//! the `Host` field must name this server before anything else is looked at; a browser states the origin of a command, and
//! no other site may give one. Beyond that, a right to write comes from the Unix user of the client, or from a token.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use ring::digest::{SHA256, digest};
use seaprox::auth::{Modes, Secret};
use seaprox::system::effective_user;

use super::head::Head;
use super::stream::Stream;

/// The rights that a route asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// None beyond the connection: the answer names no client, no target and no user.
    Nothing,
    /// To read about clients and targets.
    Reading,
    /// To command the process.
    Writing,
}

/// The rules of the guard.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// The names beside `localhost` that the `Host` field may have, in lower case.
    pub hosts: Vec<String>,
    /// The file of the token.
    pub token_file: Option<PathBuf>,
    /// The check of that file.
    pub modes: Modes,
    /// The group whose members may write.
    pub group: Option<u32>,
    /// The error of the last attempt to read the token.
    pub token_failure: Arc<Mutex<Option<String>>>,
}

/// A refused request: the status code, and the reason.
pub type Refused = (u16, String);

impl Rules {
    /// Checks the fields that a browser controls, before the target is looked at. `is_endless` tells that the response would
    /// go on until the client leaves.
    ///
    /// # Errors
    /// The request may come from a page in a browser.
    pub fn check_origin(&self, head: &Head, is_endless: bool, stream: &Stream) -> Result<(), Refused> {
        let host = head.host.as_deref().unwrap_or_default();
        if !self.is_known_host(host, stream.local_ip()) {
            let text = format!(
                "Host {host:?}: expected localhost, the address that the connection was made to, or a name of --admin-host"
            );
            return Err((421, text));
        }
        let is_read = matches!(head.method.as_str(), "GET" | "HEAD");
        let is_own = |origin: &str| origin.strip_prefix("http://").is_some_and(|it| it.eq_ignore_ascii_case(host));
        if !is_read && head.origin.as_deref().is_some_and(|origin| !is_own(origin)) {
            return Err((403, "Origin: a page of another site may not command this process".to_owned()));
        }
        let is_allowed = match head.fetch_site.as_deref() {
            None | Some("same-origin") => true,
            // A user has typed the address.
            Some("none") => is_read,
            // A user has followed a link. A page that embeds the answer in a frame navigates too, and an answer without an
            // end would keep its place for as long as that page is open.
            Some(_) => {
                let is_followed =
                    head.fetch_mode.as_deref() == Some("navigate") && head.fetch_dest.as_deref() == Some("document");
                is_read && is_followed && !is_endless
            }
        };
        if is_allowed { Ok(()) } else { Err((403, "Sec-Fetch-Site: expected no page of another site".to_owned())) }
    }

    /// Checks the rights of a client.
    ///
    /// # Errors
    /// The client lacks a right.
    pub fn check_rights(&self, needs: Needs, head: &Head, stream: &Stream) -> Result<(), Refused> {
        let is_granted = match needs {
            Needs::Nothing => true,
            Needs::Reading => match stream {
                // A client that can open the socket may read.
                Stream::Unix(_) => true,
                // A program that connects for others, such as this process, reaches a loopback address for them.
                Stream::Tcp(_) => self.token_file.is_none() && stream.local_ip().is_some_and(|ip| ip.is_loopback()),
            },
            Needs::Writing => matches!(stream, Stream::Unix(_)) && self.may_write(stream),
        };
        if is_granted {
            return Ok(());
        }
        match (stream, &head.authorization) {
            (_, Some(given)) if self.is_token(given) => Ok(()),
            (_, Some(_)) => Err((401, "the token is wrong".to_owned())),
            (Stream::Unix(_), None) => Err((
                403,
                "commands are for the user of this process, for root, and for members of --admin-group".to_owned(),
            )),
            (Stream::Tcp(_), None) if self.token_file.is_some() => Err((401, "expected a bearer token".to_owned())),
            (Stream::Tcp(_), None) => Err((403, "over TCP this needs the token of --admin-token-file".to_owned())),
        }
    }

    /// Returns true if the `Host` field, without its port, names this server.
    fn is_known_host(&self, host: &str, local: Option<IpAddr>) -> bool {
        let Some(name) = without_port(host) else { return false };
        let name = name.to_ascii_lowercase();
        let ip = match name.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').and_then(|ip| ip.parse::<IpAddr>().ok()).filter(IpAddr::is_ipv6),
            None => name.parse::<IpAddr>().ok().filter(IpAddr::is_ipv4),
        };
        match ip {
            Some(ip) => Some(ip.to_canonical()) == local,
            None => {
                let name = name.strip_suffix('.').unwrap_or(&name);
                name == "localhost" || self.hosts.iter().any(|host| host == name)
            }
        }
    }

    fn may_write(&self, stream: &Stream) -> bool {
        match stream.credentials() {
            Ok(peer) => {
                peer.user == effective_user()
                    || peer.user == 0
                    || self.group.is_some_and(|group| peer.groups.contains(&group))
            }
            // Where the system does not tell the user, the mode of the socket admits this user and root alone.
            Err(_) => self.group.is_none(),
        }
    }

    /// Returns true if an `Authorization` field has the token. The file is read for each request, so a new token holds at
    /// once.
    fn is_token(&self, field: &str) -> bool {
        let Some((scheme, given)) = field.split_once(' ') else { return false };
        let Some(file) = self.token_file.as_ref().filter(|_| scheme.eq_ignore_ascii_case("bearer")) else {
            return false;
        };
        match Secret::load(file, self.modes) {
            // Digests take the same time to compare, however much of the token is right.
            Ok(token) => {
                self.note_failure(None);
                is_fit(&token)
                    && digest(&SHA256, given.trim().as_bytes()).as_ref() == digest(&SHA256, token.expose()).as_ref()
            }
            Err(error) => {
                self.note_failure(Some(error.to_string()));
                false
            }
        }
    }

    /// Logs that the token cannot be read, once for each error: any client can make the file be read.
    fn note_failure(&self, error: Option<String>) {
        let mut last = self.token_failure.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = error.as_deref().filter(|_| *last != error) {
            log::warn!(target: "seaprox::admin", error = error; "the token of the admin server cannot be read");
        }
        *last = error;
    }
}

/// Returns true if a token is long enough, and can stand in a field.
pub fn is_fit(token: &Secret) -> bool {
    token.expose().len() >= TOKEN_BYTES_MIN && token.expose().iter().all(u8::is_ascii_graphic)
}

/// Returns the host of a `Host` field; none if it is malformed.
fn without_port(host: &str) -> Option<&str> {
    let end = match host.rfind(']') {
        Some(end) => end + 1,
        None => host.find(':').unwrap_or(host.len()),
    };
    let (name, port) = host.split_at(end);
    let is_port = |port: &str| port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    let is_fit = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
    (is_fit && !name.is_empty()).then_some(name)
}

/// The shortest token.
pub const TOKEN_BYTES_MIN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_known_by_its_address_or_its_name() {
        let rules = Rules { hosts: vec!["proxy.example.org".to_owned()], ..Rules::default() };
        let (v4, v6) = (Some("127.0.0.1".parse().unwrap()), Some("::1".parse().unwrap()));
        for (host, local, is_known) in [
            ("127.0.0.1", v4, true),
            ("127.0.0.1:9090", v4, true),
            ("127.0.0.2:9090", v4, false),
            ("127.0.0.1", v6, false),
            ("127.0.0.1", None, false),
            ("[::1]:9090", v6, true),
            ("[0:0::1]", v6, true),
            ("[::ffff:127.0.0.1]", v4, true),
            ("::1", v6, false),
            ("[127.0.0.1]", v4, false),
            ("localhost", v4, true),
            ("LOCALHOST:1", None, true),
            ("localhost.", v6, true),
            ("proxy.example.org:80", v4, true),
            ("example.org", v4, false),
            ("localhost.example.org", v4, false),
            ("127.0.0.1.example.org", v4, false),
            ("127.0.0.1:9090:1", v4, false),
            ("127.0.0.1:x", v4, false),
            ("0x7f.1", v4, false),
            ("2130706433", v4, false),
            ("", v4, false),
            (":80", v4, false),
            ("a@localhost", v4, false),
        ] {
            assert_eq!(rules.is_known_host(host, local), is_known, "{host} {local:?}");
        }
    }
}
