//! The encryption of the link: TLS 1.3 between two nodes that know each other by raw ed25519 keys (RFC 8446, RFC 7250).
//!
//! Only this module calls the TLS library, and it imports nothing else of the crate. A [`TlsPipe`] is one connection
//! without its socket: the caller passes in the bytes that it has read, takes the plaintext, passes in plaintext, and
//! writes the pipe's records. A pipe knows no loop, no clock and no name, and never logs. [`Tls`] is the configuration for
//! all connections of a node in one role; [`Buffers`] is shared by the connections of one loop.
//!
//! # Rules
//! - The key identifies the peer. Sessions are never resumed and no early data is sent: a resumed session would not check
//!   again that the key is accepted, and early data can be replayed. No server name is sent.
//! - The verifier asks whether a key is accepted only after the peer has proven that it holds the key; see `verify`.
//! - An unauthenticated peer may send [`HANDSHAKE_BYTES_MAX`] bytes and gets no larger buffer. The caller must limit the
//!   number of such peers and their time. No allocation follows a length that a peer has sent.
//! - An idle pipe holds no buffer.
//! - The keys change before a cipher reaches its record limit (2^24 with AES-GCM).
//!
//! # The handshake is the library's, the records are not
//! The library makes the handshake by its unbuffered interface, and hands the keys over at its end; see `records`. It copies
//! each byte three times on the way out and once on the way in, and allocates for each record. The records here are copied once
//! on the way out and not at all on the way in, and allocate nothing. `cargo bench --bench tls` prints the throughput.
//!
//! Much of the cost of records comes from the allocator: buffers of 100 KiB and more that are freed at the top of the heap
//! return to the system, and the next use pays page faults. [`Buffers`] prevents it.
//!
//! The unbuffered interface cannot export key material: see `exporter`.
//!
//! # The key exchange
//! The same bench prints the time of a handshake (of the thread; both ends have raw keys) and the bytes of the first flights,
//! for a node that offers one group only; one that offers both sends 1,428 bytes:
//!
//! | group | both ends | the server's answer to a hello | the server in all | hello | answer |
//! | --- | --- | --- | --- | --- | --- |
//! | X25519 (ring) | 371 us | 73 us | 169 us | 206 B | 367 B |
//! | X25519MLKEM768 (rustls-graviola) | 363 us | 49 us | 118 us | 1,390 B | 1,455 B |
//!
//! So an unauthenticated peer costs a server no more than before, and gets back as many bytes as it has sent.
//!
//! # Reading order
//! `identity`, `cipher`, `group`, `error`: the types. `verify`, `admission`: the check of the peer's key. `pipe`: the states; `machine` drives
//! the library through the handshake, `keys` takes its keys, and `records` goes on with them. `crossing`, `client_hello`: a connection that both ends have dialed. `outgoing`, `buffers`: the buffers. `exporter`: key material for the link's proofs.

mod admission;
mod buffers;
mod cipher;
mod client_hello;
mod crossing;
mod error;
mod exporter;
mod group;
mod identity;
mod keys;
mod machine;
mod outgoing;
mod pipe;
#[allow(dead_code, reason = "targets that compile this module by path do not use it")]
mod quic;
mod records;
mod verify;

use std::rc::Rc;
use std::sync::Arc;

use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption, UnbufferedClientConnection};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::ServerName;
use rustls::server::{
    AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage, ResolvesServerCert, UnbufferedServerConnection,
};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};

#[allow(unused_imports, reason = "tests and benches need a part of them")]
pub(crate) use admission::{Admission, Invites, Protocol};
#[allow(unused_imports, reason = "tests and benches measure with them")]
pub(crate) use buffers::{Buffers, READ_BYTES, WRITE_BYTES};
pub use cipher::Cipher;
#[allow(unused_imports, reason = "the tests read hellos with it")]
pub(crate) use client_hello::FirstMessage;
#[allow(unused_imports, reason = "targets that compile this module by path do not use it")]
pub(crate) use crossing::Crossed;
pub(crate) use error::TlsError;
pub use group::Group;
pub(crate) use identity::Identity;
#[allow(unused_imports, reason = "the bench and the tests name it")]
pub(crate) use identity::PublicKey;
pub(crate) use pipe::{NextMessage, TlsPipe};
#[allow(unused_imports, reason = "targets that compile this module by path do not use it")]
pub(crate) use quic::{Negotiated, QUIC_VERSION, error_of_alert};
#[allow(unused_imports, reason = "tests and benches measure with them")]
pub(crate) use records::{RECORD_BYTES, RECORD_OVERHEAD};
pub(crate) use verify::Verify;

use admission::{IsInvited, NotingResolver};
use crossing::Crossing;
use exporter::Exporter;
use machine::Machine;
use pipe::Expected;
use verify::Verifier;

/// The application protocol that both ends of a link must name (RFC 7301).
pub(crate) const ALPN: &[u8] = b"seaprox/1";
/// The application protocol of a peer that holds an invitation.
pub(crate) const INVITE_ALPN: &[u8] = b"seaprox-invite/1";
/// Limit of the bytes that are read from a peer before it is authenticated. A handshake needs less than 2 KiB.
pub(crate) const HANDSHAKE_BYTES_MAX: usize = 16 * 1024;

/// The configuration for all connections of a node in one role, client or server.
#[derive(Clone)]
pub(crate) struct Tls(TlsConfig);

#[derive(Clone)]
enum TlsConfig {
    Client(Box<ClientConfig>, ServerName<'static>, Protocol),
    Server(Arc<Server>),
    /// A client that becomes the server if the peer is a client, too.
    Either(Box<ClientConfig>, ServerName<'static>, Arc<Server>),
}

/// The configuration of a server, and its parts, of which the configuration of one connection is made while an invitation is
/// pending.
struct Server {
    config: ServerConfig,
    provider: Arc<CryptoProvider>,
    key: Arc<CertifiedKey>,
    admission: Admission,
}

impl Tls {
    /// Makes the configuration for connections that this node dials. The order of the ciphers decides: a server takes the
    /// first cipher of the client that it supports. `wanted` decides on the server's key.
    ///
    /// # Errors
    /// [`TlsError::Protocol`] if there is no cipher, or no key exchange that this processor has.
    pub fn client<'a>(identity: &Identity, suite: impl Into<Suite<'a>>, wanted: Verify) -> Result<Tls, TlsError> {
        Tls::client_of(identity, provider(suite), wanted)
    }

    /// Makes the configuration for connections that this node accepts, with the ciphers that it supports. The order of its
    /// key exchanges decides. `wanted` decides on the client's key.
    ///
    /// # Errors
    /// [`TlsError::Protocol`] if there is no cipher, or no key exchange that this processor has.
    #[allow(dead_code, reason = "tests and benches need no more")]
    pub fn server<'a>(identity: &Identity, suite: impl Into<Suite<'a>>, wanted: Verify) -> Result<Tls, TlsError> {
        Tls::server_for(identity, suite, wanted.into())
    }

    /// Makes the configuration of a server, as [`Tls::server`] does, which may take peers with an invitation.
    ///
    /// # Errors
    /// The errors of [`Tls::server`].
    pub fn server_for<'a>(
        identity: &Identity,
        suite: impl Into<Suite<'a>>,
        admission: Admission,
    ) -> Result<Tls, TlsError> {
        let (provider, key) = (Arc::new(provider(suite)), Arc::clone(&identity.key));
        let config = server_config(&provider, &key, &admission, None)?;
        Ok(Tls(TlsConfig::Server(Arc::new(Server { config, provider, key, admission }))))
    }

    /// Makes the configuration of a node that joins the server's by an invitation.
    ///
    /// # Errors
    /// The errors of [`Tls::client`].
    #[allow(dead_code, reason = "targets that compile this module by path do not use it")]
    pub fn joiner<'a>(identity: &Identity, suite: impl Into<Suite<'a>>, wanted: Verify) -> Result<Tls, TlsError> {
        match Tls::client(identity, suite, wanted)?.0 {
            TlsConfig::Client(mut config, name, _) => {
                config.alpn_protocols = vec![INVITE_ALPN.to_vec()];
                Ok(Tls(TlsConfig::Client(config, name, Protocol::Invite)))
            }
            TlsConfig::Server(_) | TlsConfig::Either(..) => Err(TlsError::NotOpen),
        }
    }

    /// Makes the configuration for connections that this node and the peer may dial at the same time. `admission` decides on
    /// the peer's key in either role.
    ///
    /// # Errors
    /// The errors of [`Tls::client`].
    #[allow(dead_code, reason = "targets that compile this module by path do not use it")]
    pub fn either<'a>(identity: &Identity, suite: impl Into<Suite<'a>>, admission: Admission) -> Result<Tls, TlsError> {
        let suite = suite.into();
        let client = Tls::client(identity, suite, admission.wanted.clone())?.0;
        let server = Tls::server_for(identity, suite, Admission { invites: None, ..admission })?.0;
        match (client, server) {
            (TlsConfig::Client(config, name, _), TlsConfig::Server(server)) => {
                Ok(Tls(TlsConfig::Either(config, name, server)))
            }
            _ => Err(TlsError::NotOpen),
        }
    }

    /// Makes the configuration of a client with a provider of the library, which has settings that [`Cipher`] has not.
    pub(crate) fn client_of(identity: &Identity, provider: CryptoProvider, wanted: Verify) -> Result<Tls, TlsError> {
        let verifier = Arc::new(Verifier::new(&provider, wanted.into(), None));
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::clone(&identity.key))));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        config.enable_sni = false;
        // The records behind the handshake are this module's.
        config.enable_secret_extraction = true;
        // The library requires a name. It is neither sent nor checked.
        let name =
            ServerName::try_from("seaprox.invalid").map_err(|error| TlsError::Protocol(error.to_string().into()))?;
        Ok(Tls(TlsConfig::Client(Box::new(config), name, Protocol::Link)))
    }

    /// Starts one connection. A client has bytes to write at once.
    ///
    /// # Errors
    /// [`TlsError::Protocol`] if the system has no randomness.
    pub fn pipe(&self, buffers: &Rc<Buffers>) -> Result<TlsPipe, TlsError> {
        let exporter = Arc::new(Exporter::default());
        let client = |config: &ClientConfig, name: &ServerName<'static>| {
            let mut config = config.clone();
            config.key_log = Arc::<Exporter>::clone(&exporter);
            let connection = UnbufferedClientConnection::new(Arc::new(config), name.clone())?;
            Ok::<_, TlsError>(Machine::Client(Box::new(connection)))
        };
        let (machine, expected) = match &self.0 {
            TlsConfig::Client(config, name, protocol) => (client(config, name)?, Expected::Protocol(*protocol)),
            TlsConfig::Either(config, name, server) => {
                let expected = Expected::Protocol(Protocol::Link);
                let pipe = TlsPipe::new(client(config, name)?, expected, exporter, Rc::clone(buffers));
                return Ok(pipe.crossing(|hello| Crossing::new(hello, server)));
            }
            TlsConfig::Server(server) => {
                let (mut config, expected) = server.config_of_connection()?;
                config.key_log = Arc::<Exporter>::clone(&exporter);
                (Machine::Server(Box::new(UnbufferedServerConnection::new(Arc::new(config))?)), expected)
            }
        };
        Ok(TlsPipe::new(machine, expected, exporter, Rc::clone(buffers)))
    }
}

impl Server {
    /// Returns the configuration of one connection, and the protocols that its client may name.
    fn config_of_connection(&self) -> Result<(ServerConfig, Expected), TlsError> {
        if !self.admission.invites.as_ref().is_some_and(|is_any_pending| is_any_pending()) {
            return Ok((self.config.clone(), Expected::Protocol(Protocol::Link)));
        }
        let is_invited = IsInvited::default();
        let config = server_config(&self.provider, &self.key, &self.admission, Some(&is_invited))?;
        Ok((config, Expected::LinkUnless(is_invited)))
    }
}

/// Makes the configuration of a server. With `is_invited`, it is that of one connection, whose client may name the protocol
/// of invitations.
fn server_config(
    provider: &Arc<CryptoProvider>,
    key: &Arc<CertifiedKey>,
    admission: &Admission,
    is_invited: Option<&IsInvited>,
) -> Result<ServerConfig, TlsError> {
    let verifier = Verifier::new(provider, admission.clone(), is_invited.cloned());
    let raw = AlwaysResolvesServerRawPublicKeys::new(Arc::clone(key));
    let resolver: Arc<dyn ResolvesServerCert> = match is_invited {
        Some(is_invited) => Arc::new(NotingResolver { key: raw, is_invited: is_invited.clone() }),
        None => Arc::new(raw),
    };
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(resolver);
    // The records behind the handshake are this module's.
    config.enable_secret_extraction = true;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.alpn_protocols.extend(is_invited.map(|_| INVITE_ALPN.to_vec()));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

/// The ciphers and the key exchanges that a node offers or supports.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Suite<'a> {
    pub ciphers: &'a [Cipher],
    /// The key exchanges; empty for [`Group::preferred`].
    pub groups: &'a [Group],
}

impl<'a> From<&'a [Cipher]> for Suite<'a> {
    fn from(ciphers: &'a [Cipher]) -> Suite<'a> {
        Suite { ciphers, groups: &[] }
    }
}

impl<'a, const N: usize> From<&'a [Cipher; N]> for Suite<'a> {
    fn from(ciphers: &'a [Cipher; N]) -> Suite<'a> {
        Suite { ciphers, groups: &[] }
    }
}

/// Returns the library's provider with these ciphers and key exchanges, as far as this processor has them. All nodes have
/// X25519, and the first versions have no other.
pub(crate) fn provider<'a>(suite: impl Into<Suite<'a>>) -> CryptoProvider {
    let Suite { ciphers, groups } = suite.into();
    let groups = if groups.is_empty() { &Group::ALL[..] } else { groups };
    CryptoProvider {
        cipher_suites: ciphers.iter().map(|cipher| cipher.suite()).collect(),
        kx_groups: groups.iter().filter_map(|group| group.exchange()).collect(),
        ..default_provider()
    }
}
