//! What the command line says of links, as values of their types.

use std::time::Duration;

use seaprox::auth::PublicKey;
use seaprox::link::Mode;
use seaprox::node::{Cipher, Path, Reverse, Timing};
use seaprox::{Bind, Target};

use super::forwards::{self, Forward, ForwardError};
use super::{Command, Group, OptionSpec, Parsed, UsageError, addresses, options_of};

/// The one key that a peer may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pin {
    /// The whole of it.
    Key(PublicKey),
    /// Its digest.
    Fingerprint(String),
}

impl Pin {
    /// Whether a key is the one.
    pub fn fits(&self, key: &PublicKey) -> bool {
        match self {
            Pin::Key(pinned) => pinned == key,
            Pin::Fingerprint(fingerprint) => *fingerprint == key.fingerprint(),
        }
    }

    /// What can be compared with what the peer shows.
    pub fn fingerprint(&self) -> String {
        match self {
            Pin::Key(key) => key.fingerprint(),
            Pin::Fingerprint(fingerprint) => fingerprint.clone(),
        }
    }
}

impl Parsed {
    /// The peer to link with: `--connect` of `link`, `--via` of the others.
    pub fn peer(&self) -> Result<Option<Target>, UsageError> {
        let long = if self.command() == Command::Link { "connect" } else { "via" };
        let peer = |(name, text): (String, String)| {
            addresses::peer(&text).map_err(|_| self.wrong(&name, &text, "expected HOST[:PORT] or [IPV6][:PORT]"))
        };
        self.given(long).pop().map(peer).transpose()
    }

    /// Where `link` takes in links.
    pub fn link_places(&self) -> Result<Vec<Bind>, UsageError> {
        let place =
            |(name, text): (String, String)| addresses::here(&text).map_err(|error| self.wrong(&name, &text, error));
        self.given("listen").into_iter().map(place).collect()
    }

    /// `-L`.
    pub fn locals(&self) -> Result<Vec<Forward>, UsageError> {
        self.forwards("local", forwards::local)
    }

    /// `-R`.
    pub fn reverses(&self) -> Result<Vec<Reverse>, UsageError> {
        let all = self.forwards("remote", forwards::reverse)?;
        Ok(all.into_iter().map(|Forward { listen, to }| Reverse { listen, to }).collect())
    }

    /// `-D`.
    pub fn dynamics(&self) -> Result<Vec<Bind>, UsageError> {
        self.forwards("dynamic", forwards::listen)
    }

    /// `-H`.
    pub fn https(&self) -> Result<Vec<Bind>, UsageError> {
        self.forwards("http", forwards::listen)
    }

    /// `-W`.
    pub fn stdio(&self) -> Result<Option<Target>, UsageError> {
        Ok(self.forwards("stdio", forwards::far_target)?.pop())
    }

    /// `--path`; the way that the system chooses, if there is none.
    pub fn paths(&self, peer: &Target) -> Result<Vec<Path>, UsageError> {
        let port = peer.port().unwrap_or(addresses::PORT);
        let path = |(name, text): (String, String)| {
            addresses::path(&text, port).map_err(|error| self.wrong(&name, &text, error))
        };
        let paths = self.given("path").into_iter().map(path).collect::<Result<Vec<Path>, UsageError>>()?;
        Ok(if paths.is_empty() { vec![Path::default()] } else { paths })
    }

    /// `--mode`.
    pub fn mode(&self) -> Result<Mode, UsageError> {
        Ok(self.choice("mode", &[Mode::Stripe, Mode::Single, Mode::Redundant])?.unwrap_or_default())
    }

    /// `--cipher`; none for what the processor does best.
    pub fn ciphers(&self) -> Result<Vec<Cipher>, UsageError> {
        let known = [Cipher::Aes128Gcm, Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305];
        let Some((name, text)) = self.given("cipher").pop() else { return Ok(Vec::new()) };
        let mut ciphers = Vec::new();
        for word in text.split(',') {
            let cipher = self.pick(&name, word, &CIPHERS, &known)?;
            if ciphers.contains(&cipher) {
                return Err(self.wrong(&name, &text, format!("expected {word} once")));
            }
            ciphers.push(cipher);
        }
        Ok(ciphers)
    }

    /// `--peer-key`.
    pub fn pin(&self) -> Result<Option<Pin>, UsageError> {
        let Some((name, text)) = self.given("peer-key").pop() else { return Ok(None) };
        let digest = text.strip_prefix("SHA256:").map(|digest| digest.trim_end_matches('='));
        match digest {
            Some(digest) if digest.len() == FINGERPRINT_CHARS && digest.bytes().all(is_base64) => {
                Ok(Some(Pin::Fingerprint(format!("SHA256:{digest}"))))
            }
            Some(_) => Err(self.wrong(&name, &text, "expected SHA256: and the 43 characters of a fingerprint")),
            None => {
                let key = text.parse().map_err(|_| {
                    self.wrong(&name, &text, "expected 'seaprox-ed25519 BASE64' or a fingerprint SHA256:...")
                })?;
                Ok(Some(Pin::Key(key)))
            }
        }
    }

    /// The timers and limits of links.
    pub fn timing(&self) -> Result<Timing, UsageError> {
        let handshake = match self.command() {
            // The clients of the other commands have this timer; the peer of their link has its own.
            Command::Link => self.positive("handshake-timeout")?,
            _ => Timing::default().handshake,
        };
        let longest = self.positive("link-retry-max")?;
        let timing = Timing {
            handshake,
            redial: (Timing::default().redial.0.min(longest), longest),
            keepalive: self.positive("link-keepalive")?,
            dead: self.positive("link-dead")?,
            hold: self.positive("link-hold")?,
            memory_bytes: self.size("link-memory")?,
            streams: self.number("link-streams")? as u32,
            links: self.number("link-max")? as usize,
            links_per_key: self.number("link-key-max")? as usize,
            ..Timing::default()
        };
        if timing.dead <= timing.keepalive {
            return Err(self.error("--link-dead is not longer than --link-keepalive: expected time for an answer"));
        }
        Ok(timing)
    }

    /// Refuses options of links where there is no link for them: `dials` says whether this process dials one, `takes`
    /// whether it takes some in.
    ///
    /// # Errors
    /// The first such option on the command line.
    pub fn check_link_options(&self, dials: bool, takes: bool) -> Result<(), UsageError> {
        let dialling = if self.command() == Command::Link { "--connect HOST[:PORT]" } else { "--via HOST[:PORT]" };
        let given = |long: &str| self.count(long) > 0;
        let about_links = |option: &&OptionSpec| matches!(option.group, Group::Links | Group::Keys);
        for long in options_of(self.command()).filter(about_links).map(|option| option.long).filter(|long| given(long))
        {
            if !dials && (!takes || DIALLED.contains(&long)) {
                return Err(self.error(format!("--{long} is about a link that is dialled: expected {dialling} too")));
            }
            if !takes && TAKEN.contains(&long) {
                return Err(
                    self.error(format!("--{long} is about links that are taken in: expected --listen ADDR too"))
                );
            }
        }
        for (one, other, why) in EXCLUSIVE {
            if given(one) && given(other) {
                return Err(self.error(format!("--{one} and --{other}: expected one of them, because {why}")));
            }
        }
        let forwards = [("local", 'L'), ("remote", 'R'), ("dynamic", 'D'), ("http", 'H'), ("stdio", 'W')];
        match forwards.into_iter().find(|(long, _)| !dials && given(long)) {
            Some((_, short)) => {
                Err(self.error(format!("-{short} is about a link that is dialled: expected {dialling} too")))
            }
            None => Ok(()),
        }
    }

    /// A duration that cannot be switched off.
    fn positive(&self, long: &str) -> Result<Duration, UsageError> {
        let duration = self.duration(long)?;
        if duration.is_zero() {
            return Err(self.wrong(&format!("--{long}"), "0", "expected more than 0: a link needs this timer"));
        }
        Ok(duration)
    }

    /// Forwards by their letter, because that is how people know them.
    fn forwards<T>(&self, long: &str, parse: impl Fn(&str) -> Result<T, ForwardError>) -> Result<Vec<T>, UsageError> {
        let name = self.spec(long).short.map_or_else(|| format!("--{long}"), |short| format!("-{short}"));
        let one = |(_, text): (String, String)| parse(&text).map_err(|error| self.wrong(&name, &text, error));
        self.given(long).into_iter().map(one).collect()
    }
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/'
}

/// In the order of preference of a processor that knows AES.
const CIPHERS: [&str; 3] = ["aes-128-gcm", "aes-256-gcm", "chacha20-poly1305"];
const FINGERPRINT_CHARS: usize = 43;
/// Options that say something of a link that is dialled, and nothing of those that are taken in.
const DIALLED: &[&str] = &["known-nodes", "peer-key", "subflows", "path", "paths", "exit-on-failure", "link-retry-max"];
const TAKEN: &[&str] = &["authorized-keys", "ask", "link-max", "link-key-max"];
const EXCLUSIVE: &[(&str, &str, &str)] = &[
    ("secret", "key", "the key follows from the secret"),
    ("secret", "peer-key", "the peer has the key that follows from the secret"),
    ("secret", "known-nodes", "the peer has the key that follows from the secret"),
    ("path", "paths", "the paths stand in the file"),
    ("peer-key", "known-nodes", "a pinned key is looked up nowhere"),
];
