//! The keys that a server admits, and its protocols: links, and invitations while one is pending.
//!
//! A peer that holds an invitation has a key that nobody knows yet. So a server with a pending invitation also names the
//! protocol of invitations, and a peer that names it *alone* may have any key. The peer must still prove that it holds its
//! key. The choice is made for each connection: the resolver of the server's key sees the ClientHello, and the verifier of
//! the client's key runs later.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::server::{AlwaysResolvesServerRawPublicKeys, ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::verify::Verify;
use super::{ALPN, INVITE_ALPN};

/// Returns true while the server takes peers with an invitation.
pub(crate) type Invites = Arc<dyn Fn() -> bool + Send + Sync>;

/// The keys that a server admits.
#[derive(Clone)]
pub(crate) struct Admission {
    /// Decides on the key of a peer.
    pub wanted: Verify,
    /// Returns true for a key that is not wanted because its time is over. The peer is told.
    pub expired: Option<Verify>,
    /// Tells if an invitation is pending. Without it, the server never names the protocol of invitations.
    pub invites: Option<Invites>,
}

/// The protocol above TLS (RFC 7301).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// A subflow of a link.
    #[default]
    Link,
    /// One frame of a peer that holds an invitation, and the answer.
    Invite,
}

impl Protocol {
    /// Returns the name on the wire.
    pub const fn name(self) -> &'static [u8] {
        match self {
            Protocol::Link => ALPN,
            Protocol::Invite => INVITE_ALPN,
        }
    }

    /// Returns the protocol with this name.
    pub fn of(name: &[u8]) -> Option<Protocol> {
        [Protocol::Link, Protocol::Invite].into_iter().find(|protocol| protocol.name() == name)
    }
}

impl From<Verify> for Admission {
    fn from(wanted: Verify) -> Admission {
        Admission { wanted, expired: None, invites: None }
    }
}

/// Set for a connection whose client names the protocol of invitations and no other.
#[derive(Clone, Default)]
pub(super) struct IsInvited(Arc<AtomicBool>);

impl IsInvited {
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Gives out the key of the server, and notes the protocol that the client names.
pub(super) struct NotingResolver {
    pub key: AlwaysResolvesServerRawPublicKeys,
    pub is_invited: IsInvited,
}

impl ResolvesServerCert for NotingResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // After a retry request there is a second hello, which counts alone.
        let is_invited = hello.alpn().is_some_and(|mut names| {
            let is_first = names.next() == Some(INVITE_ALPN);
            is_first && names.next().is_none()
        });
        self.is_invited.0.store(is_invited, Ordering::Relaxed);
        self.key.resolve(hello)
    }

    fn only_raw_public_keys(&self) -> bool {
        true
    }
}

impl fmt::Debug for NotingResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NotingResolver")
    }
}
