//! Keys: the key of a node, the keys that may connect to it and their permissions, and the keys of the nodes it knows.
//!
//! A node has one ed25519 key ([`NodeKey`]), created at the first use. Its files are like those of ssh:
//!
//! ```text
//! DIRECTORY/key              the node's own key: PKCS#8 in PEM, mode 0600             NodeKey
//! DIRECTORY/authorized_keys  [OPTIONS] seaprox-ed25519 BASE64 [NAME]                  AuthorizedKeys
//! DIRECTORY/known_nodes      HOST:PORT seaprox-ed25519 BASE64 [NAME]                  KnownNodes
//! DIRECTORY/secret           a shared secret from which two nodes derive their key    Secret
//! DIRECTORY/invitations      the invitations of this node, mode 0600                  Invitations
//! authorized_keys.uses       the sessions of keys whose number is limited             KeyUses
//! ```
//!
//! DIRECTORY is a [`ConfigDirectory`]. A key in `authorized_keys` without options may only connect: it may open no target
//! and listen nowhere. Options add [`Permissions`].
//!
//! Private data is read only from files that no other user can read, is never printed, and is overwritten when it is
//! dropped. A file that another user can change or replace is not read at all ([`Modes`]). The limits below bound the size
//! of files. A file with a malformed line is refused as a whole, and the reader keeps its earlier content ([`Watched`]).
//! This module opens no sockets and knows no links.

mod accounts;
mod authorized;
mod directory;
mod error;
mod file;
mod invitation;
mod invitations;
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
mod uses;
mod watched;

pub use authorized::{AuthorizedKey, AuthorizedKeys};
pub use directory::ConfigDirectory;
pub use error::{KeysError, Problem, Wrong};
pub use file::Stamp;
pub use invitation::{
    INVITATION_ADDRESSES_MAX, INVITATION_BYTES_MAX, INVITATION_EXPORTER, INVITATION_PROOF_BYTES, Invitation,
    InvitationError, InvitationId, ProofContext, ProofKey, ProofRole,
};
pub use invitations::{
    INVITATION_TIME_MAX, INVITATION_USES_MAX, INVITATIONS_MAX, Invitations, InvitedOutcome, PendingInvitation,
};
pub use known::{KnownNodes, Standing};
pub use listen::ListenRule;
pub use modes::Modes;
pub use node::NodeKey;
pub use permissions::Permissions;
pub use public::{KeyError, PublicKey, SPKI_BYTES};
pub use secret::{SECRET_BYTES_MIN, Secret, SecretError};
pub use uses::KeyUses;
pub use watched::{FromFile, Watched};

/// Size limit of a file of public keys.
pub const FILE_BYTES_MAX: usize = 4 << 20;
/// Size limit of a file with a private key or a secret.
pub const PRIVATE_FILE_BYTES_MAX: usize = 4 << 10;
/// Limit of the keys in one file.
pub const ENTRIES_MAX: usize = 10_000;
/// Limit of the `permit-open` options of one key, of its `permit-end` and of its `permit-listen` options.
pub const RULES_MAX: usize = 256;
/// Size limit of the name of a key.
pub const KEY_NAME_BYTES_MAX: usize = 64;
