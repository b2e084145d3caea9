//! Keys: who a node is, whom it lets in and for what, and which nodes it knows.
//!
//! A node has one ed25519 key ([`NodeKey`]), made at its first use. Two files say the rest, in the manner of ssh:
//!
//! ```text
//! DIRECTORY/key              the node's own key: PKCS#8 in PEM, mode 0600             NodeKey
//! DIRECTORY/authorized_keys  [OPTIONS] seaprox-ed25519 BASE64 [NAME]                  AuthorizedKeys
//! DIRECTORY/known_nodes      HOST:PORT seaprox-ed25519 BASE64 [NAME]                  KnownNodes
//! DIRECTORY/secret           a secret that two nodes share and both derive a key from Secret
//! ```
//!
//! DIRECTORY is a [`ConfigDirectory`]. A key that stands in `authorized_keys` without options may connect, and may do
//! nothing then: open no target, listen nowhere. What it may do are its [`Permissions`].
//!
//! Private data is read only from files that no other user can read, is never printed, and is overwritten when it is
//! dropped. A file that another user may change or replace is not read at all ([`Modes`]). Public files are bounded by the
//! limits below. A file with a malformed line is refused as a whole, and the reader keeps its earlier content ([`Watched`]).
//! Nothing here opens a socket or knows a link.

mod accounts;
mod authorized;
mod directory;
mod error;
mod file;
mod known;
mod lines;
mod listen;
mod modes;
mod node;
mod options;
mod permissions;
mod pkcs8;
mod public;
#[cfg(test)]
pub(crate) mod scratch;
mod secret;
mod watched;

pub use authorized::{AuthorizedKey, AuthorizedKeys};
pub use directory::ConfigDirectory;
pub use error::{KeysError, Problem, Wrong};
pub use file::Stamp;
pub use known::{KnownNodes, Standing};
pub use listen::ListenRule;
pub use modes::Modes;
pub use node::NodeKey;
pub use permissions::Permissions;
pub use public::{KeyError, PublicKey, SPKI_BYTES};
pub use secret::{SECRET_BYTES_MIN, Secret, SecretError};
pub use watched::{FromFile, Watched};

/// The largest file of keys that is read; that of a private key or a secret may have [`PRIVATE_FILE_BYTES_MAX`].
pub const FILE_BYTES_MAX: usize = 4 << 20;
/// The largest file of a private key or a secret that is read.
pub const PRIVATE_FILE_BYTES_MAX: usize = 4 << 10;
/// Keys in one file.
pub const ENTRIES_MAX: usize = 10_000;
/// Places that one key may open, and places where it may listen, each.
pub const RULES_MAX: usize = 256;
/// Bytes in the name of a key.
pub const KEY_NAME_BYTES_MAX: usize = 64;
