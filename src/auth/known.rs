//! The file `known_nodes`: the keys of the nodes that this node connects to. One line for each key of a node:
//!
//! ```text
//! HOST:PORT seaprox-ed25519 BASE64 [NAME]
//! ```
//! A node with several lines may have any of their keys. seaprox only appends lines and never changes the others. Names
//! are compared without case and without the final dot, addresses in canonical form. Neither is resolved: a node is known
//! by the address in the configuration.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::error::{KeysError, Problem, Wrong};
use super::file;
use super::public::PublicKey;
use super::watched::FromFile;
use super::{ENTRIES_MAX, FILE_BYTES_MAX, lines};
use crate::{Name, Proto, Target};

/// The known nodes. The default is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownNodes {
    path: PathBuf,
    /// Each node with the number of its line, counted from 1.
    nodes: Vec<(usize, Target, PublicKey)>,
}

/// The result of a lookup of a node and the key that it has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The node is known with this key.
    Known,
    /// The node is not known.
    Unknown,
    /// The node is known with another key. It may have a new key, or an attacker may be in the middle.
    Changed {
        /// The known key, the first if there are several.
        known: PublicKey,
        /// The number of its line, counted from 1.
        line: usize,
    },
}

impl KnownNodes {
    /// Looks up a node and a key. A Unix socket is never known.
    pub fn look_up(&self, node: &Target, key: &PublicKey) -> Standing {
        let Some(node) = plain(node) else { return Standing::Unknown };
        let mut standing = Standing::Unknown;
        for (line, _, known) in self.nodes.iter().filter(|(_, known, _)| *known == node) {
            if known == key {
                return Standing::Known;
            }
            if standing == Standing::Unknown {
                standing = Standing::Changed { known: *known, line: *line };
            }
        }
        standing
    }

    /// Returns the known keys of a node.
    pub fn keys_of(&self, node: &Target) -> impl Iterator<Item = &PublicKey> {
        let node = plain(node);
        self.nodes.iter().filter(move |(_, known, _)| Some(known) == node.as_ref()).map(|(_, _, key)| key)
    }

    /// Returns the number of entries.
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// Appends a line for a node and its key to the file. Creates the file and its directory if they do not exist.
    ///
    /// # Errors
    /// The node is a Unix socket, or the file is full or cannot be written. The known nodes do not change then.
    pub fn add(&mut self, node: &Target, key: &PublicKey) -> Result<(), KeysError> {
        let Some(node) = plain(node) else {
            return Err(KeysError::new(&self.path, Problem::Content(Wrong::word(&node.to_string(), NODE_FORM))));
        };
        if self.nodes.len() >= ENTRIES_MAX {
            return Err(KeysError::content(&self.path, file::NO_ROOM));
        }
        file::make_directory(file::parent(&self.path))?;
        let line = file::append_line(&self.path, &format!("{node} {key}"))?;
        self.nodes.push((line, node, *key));
        Ok(())
    }

    /// Creates the file of known nodes and its directory if they do not exist, and checks that a line can be
    /// added.
    ///
    /// # Errors
    /// The file cannot be created or written.
    pub fn prepare(path: &Path) -> Result<(), KeysError> {
        file::check_appendable(path)
    }

    /// Parses the content of a file; `path` is for errors and for [`KnownNodes::add`].
    ///
    /// # Errors
    /// A line is malformed, or there are too many lines.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<KnownNodes, KeysError> {
        let entries = lines::entries(path, bytes, parse_line)?;
        let nodes = entries.into_iter().map(|(line, (node, key))| (line, node, key)).collect();
        Ok(KnownNodes { path: path.to_owned(), nodes })
    }
}

impl FromFile for KnownNodes {
    type Context = ();
    const BYTES_MAX: usize = FILE_BYTES_MAX;

    fn parse(path: &Path, bytes: Option<&[u8]>, (): &()) -> Result<KnownNodes, KeysError> {
        KnownNodes::parse(path, bytes.unwrap_or_default())
    }

    fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    fn keeps(&self, earlier: &KnownNodes) -> bool {
        let now: HashSet<_> = self.nodes.iter().map(|(_, node, key)| (node, key)).collect();
        earlier.nodes.iter().all(|(_, node, key)| now.contains(&(node, key)))
    }
}

fn parse_line(line: &str) -> Result<(Target, PublicKey), Wrong> {
    let (word, rest) = lines::split_word(line);
    // A port alone would be a node on this host; more likely the line has lost its host.
    let node = Target::parse(word).ok().filter(|_| word.contains(':')).as_ref().and_then(plain);
    let form = if Proto::split(word).0 == Proto::Udp { TCP_FORM } else { NODE_FORM };
    let node = node.ok_or_else(|| Wrong::word(word, form))?;
    let (key, _) = lines::parse_key(rest)?;
    Ok((node, key))
}

/// Returns the form in which nodes are compared and written, or `None` for a Unix socket, an end and UDP.
fn plain(node: &Target) -> Option<Target> {
    match node {
        Target::Ip(Proto::Tcp, addr) => Some(SocketAddr::new(addr.ip().to_canonical(), addr.port()).into()),
        Target::Name(Proto::Tcp, name, port) => {
            let lower = Name::new(&name.as_str().to_ascii_lowercase()).ok()?;
            Some(Target::Name(Proto::Tcp, lower, *port))
        }
        Target::Ip(Proto::Udp, _) | Target::Name(Proto::Udp, ..) | Target::Unix(_) | Target::End(_) => None,
    }
}

const TCP_FORM: &str = "a TCP address";
const NODE_FORM: &str = "HOST:PORT seaprox-ed25519 BASE64, where HOST is a name or an address ([::1] in brackets)";

#[cfg(test)]
mod tests {
    use super::super::file::Stamp;
    use super::super::file::tests::mode;
    use super::super::modes::Modes;
    use super::super::scratch::Scratch;
    use super::*;
    use proptest::prelude::*;

    fn key(byte: u8) -> PublicKey {
        PublicKey::from_bytes([byte; 32]).unwrap()
    }

    fn node(text: &str) -> Target {
        Target::parse(text).unwrap()
    }

    fn load(path: &Path) -> Result<(KnownNodes, Stamp), KeysError> {
        <KnownNodes as FromFile>::load(path, Modes::Strict, &())
    }

    fn parse(text: &str) -> Result<KnownNodes, String> {
        KnownNodes::parse(Path::new("known_nodes"), text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_node_is_known_unknown_or_changed() {
        let (one, two, three) = (key(3), key(4), key(5));
        let text =
            format!("# mine\nExample.org.:23232 {one} home\nexample.org:23232 {two}\n[::ffff:10.0.0.1]:1 {one}\n");
        let known = parse(&text).unwrap();
        for (target, key, standing) in [
            ("example.ORG:23232", one, Standing::Known),
            ("example.org.:23232", two, Standing::Known),
            ("example.org:23232", three, Standing::Changed { known: one, line: 2 }),
            ("example.org:23233", one, Standing::Unknown),
            ("www.example.org:23232", one, Standing::Unknown),
            ("10.0.0.1:1", one, Standing::Known),
            ("10.0.0.1:1", two, Standing::Changed { known: one, line: 4 }),
            ("unix:/run/x", one, Standing::Unknown),
        ] {
            assert_eq!(known.look_up(&node(target), &key), standing, "{target}");
        }
        assert!(known.keys_of(&node("example.org:23232")).eq([&one, &two]));
        assert_eq!(known.keys_of(&node("unix:/x")).count(), 0);
    }

    #[test]
    fn a_malformed_line_fails_the_whole_file_and_is_named() {
        for (line, said) in [
            ("example.org", r#""example.org": expected HOST:PORT"#),
            ("23232 seaprox-ed25519", r#""23232": expected HOST:PORT"#),
            ("unix:/x seaprox-ed25519", r#""unix:/x": expected HOST:PORT"#),
            ("udp:a:1 seaprox-ed25519", r#""udp:a:1": expected a TCP address"#),
            ("a:1", "expected seaprox-ed25519 BASE64"),
            ("a:1 ssh-ed25519 AAAA", r#""ssh-ed25519": expected seaprox-ed25519"#),
            ("a:1 seaprox-ed25519 AAAA", r#""AAAA": expected the 44"#),
        ] {
            let error = parse(&format!("a:1 {}\n{line}", key(3))).unwrap_err();
            assert!(error.starts_with("known_nodes:2: ") && error.contains(said), "{error}");
        }
    }

    #[test]
    fn an_added_node_is_appended_and_the_other_lines_stay() {
        let scratch = Scratch::new();
        let path = scratch.path("new/known_nodes");
        let (mut known, stamp) = load(&path).unwrap();
        assert_eq!((known.count(), stamp), (0, Stamp::MISSING));
        known.add(&node("Example.org:23232"), &key(3)).unwrap();
        assert_eq!(known.look_up(&node("example.org:23232"), &key(3)), Standing::Known);
        assert_eq!(mode(&path), 0o600);
        // A user adds a comment without a newline.
        let first = format!("example.org:23232 {}\n", key(3));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), first);
        std::fs::write(&path, format!("{first}# mine")).unwrap();
        known.add(&node("[::1]:1"), &key(4)).unwrap();
        let text = format!("{first}# mine\n[::1]:1 {}\n", key(4));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        let (again, _) = load(&path).unwrap();
        assert_eq!(again, known, "with the same lines");
        assert_eq!(again.look_up(&node("[::1]:1"), &key(5)), Standing::Changed { known: key(4), line: 3 });
    }

    #[test]
    fn a_node_that_cannot_be_added_stays_unknown() {
        let scratch = Scratch::new();
        let mut known = load(&scratch.write("file", "", 0o600)).unwrap().0;
        assert!(known.add(&node("unix:/run/x"), &key(3)).unwrap_err().to_string().contains("unix:/run/x"));
        known.path = scratch.path("file/known_nodes");
        assert!(known.add(&node("a:1"), &key(3)).is_err());
        assert_eq!(known.look_up(&node("a:1"), &key(3)), Standing::Unknown);
        let line = format!("a:1 {}\n", key(3));
        let mut full = parse(&line.repeat(ENTRIES_MAX)).unwrap();
        full.path = scratch.path("full");
        assert!(full.add(&node("b:1"), &key(3)).unwrap_err().to_string().contains("room"));
        assert_eq!(scratch.names(), ["file"]);
    }

    proptest! {
        #[test]
        fn a_printed_line_parses_to_itself(host in "[a-zA-Z0-9.-]{1,20}|\\[[0-9a-f:]{2,12}\\]", port: u16, bytes: [u8; 32]) {
            let (Ok(target), Ok(key)) = (Target::from_host(&host, port.max(1)), PublicKey::from_bytes(bytes)) else {
                return Ok(());
            };
            let node = plain(&target).unwrap();
            prop_assert_eq!(parse_line(&format!("{node} {key}")), Ok((node, key)));
        }

        #[test]
        fn no_line_panics(line in "\\PC{0,60}|[a-z0-9.:\\[\\]]{0,20} (seaprox-ed25519)? ?[A-Za-z0-9+/]{0,44}=?") {
            let _ = parse_line(&line);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = KnownNodes::parse(Path::new("f"), &bytes);
        }
    }
}
