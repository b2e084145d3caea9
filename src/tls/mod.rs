//! The encryption of the link: TLS 1.3 between two nodes that know each other by raw ed25519 keys (RFC 8446, RFC 7250).
//!
//! This module holds every call of the TLS library, and nothing else of the crate is used in it. A [`TlsPipe`] is one
//! connection without its socket: it is given what has been read, hands out plaintext, takes plaintext, and has bytes
//! to write. It knows no loop, no clock and no name, and never logs. [`Tls`] is what the connections of a node have in
//! common; [`Buffers`] is what those of one loop share.
//!
//! # Rules
//! - A peer is its key. A session is never resumed and nothing is sent early, because a resumed session does not ask
//!   again whether its key is still wanted, and early data can be replayed. No server name is sent.
//! - Whether a key is wanted is asked only when the peer has proven to hold it; see `verify`.
//! - A visitor is heard for [`HANDSHAKE_BYTES_MAX`] bytes and gets no larger buffer; how long, and how many of them, is
//!   for the caller to limit. Nothing is allocated by a length that a peer has sent.
//! - An idle pipe holds no buffer.
//! - Keys change by themselves when a cipher's limit of records is reached (2^24 with AES-GCM).
//!
//! # Which interface of the library, and why
//! The unbuffered one. `cargo bench --bench tls` prints what this module makes of it; the last column. The others are
//! bare loops over the library in the same harness, and over ring's AEAD with records of its own, sealed and opened in
//! place. GB/s of plaintext, both ends on one thread, with one copy for what stands for the socket's write and one for
//! its read, each record gathered from 16 bytes and the rest; rustls 0.23.46, ring 0.17.14, on a Xeon with VAES and two
//! cores under load, as seconds of the thread:
//!
//! | cipher | record | buffered | unbuffered | bare ring | this module |
//! | --- | --- | --- | --- | --- | --- |
//! | AES-128-GCM | 16 KiB | 2.3 | 2.9 | 4.4 | 3.5 |
//! | | 1400 B | 1.9 | 1.9 | 3.0 | 2.1 |
//! | | 100 B | 0.29 | 0.32 | 0.51 | 0.29 |
//! | AES-256-GCM | 16 KiB | 2.9 | 2.5 | 3.9 | 3.1 |
//! | | 1400 B | 1.9 | 1.8 | 2.7 | 1.9 |
//! | ChaCha20-Poly1305 | 16 KiB | 1.05 | 1.02 | 1.15 | 1.07 |
//!
//! The buffered interface gathers without a copy on the way out and copies twice more on the way in. Much of the rest is
//! what the allocator makes of it: buffers and pieces of 100 KiB and more, freed at the top of the heap, go back to the
//! system and come back as page faults, and then the same loop does 2.2 instead of 3.5. Hence [`Buffers`].
//!
//! The library decrypts in place and still hands out a copy. Handing out slices of the read buffer instead rests on what
//! is not documented and was 4 % slower, as that buffer cannot be used again. So the plaintext of a read is copied once,
//! into a piece of its own size, and no small frame holds a large buffer.
//!
//! The unbuffered interface cannot export key material: see `exporter`.
//!
//! # Reading order
//! `identity`, `cipher`, `error`: the words. `verify`: who the peer is. `pipe`: the states; `machine` drives the
//! library for it. `outgoing`, `buffers`: where bytes wait. `exporter`: key material for the link's proofs.

mod buffers;
mod cipher;
mod error;
mod exporter;
mod identity;
mod machine;
mod outgoing;
mod pipe;
mod verify;

use std::rc::Rc;
use std::sync::Arc;

use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption, UnbufferedClientConnection};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{default_provider, kx_group};
use rustls::pki_types::ServerName;
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage, UnbufferedServerConnection};
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};

#[allow(unused_imports, reason = "tests and benches measure with them")]
pub(crate) use buffers::{Buffers, READ_BYTES, RECORD_BYTES, RECORD_OVERHEAD, WRITE_BYTES};
pub use cipher::Cipher;
pub(crate) use error::TlsError;
pub(crate) use identity::Identity;
#[allow(unused_imports, reason = "the bench and the tests name it")]
pub(crate) use identity::PublicKey;
pub(crate) use pipe::{Heard, TlsPipe};
pub(crate) use verify::Verify;

use exporter::Exporter;
use machine::Machine;
use verify::Verifier;

/// What both ends must name as the protocol above TLS (RFC 7301).
pub(crate) const ALPN: &[u8] = b"seaprox/1";
/// Bytes that are read from a peer before it is authenticated. A handshake needs less than one of them.
pub(crate) const HANDSHAKE_BYTES_MAX: usize = 16 * 1024;

/// One role of a node: what its connections have in common.
#[derive(Clone)]
pub(crate) struct Tls(Role);

#[derive(Clone)]
enum Role {
    Client(ClientConfig, ServerName<'static>),
    Server(ServerConfig),
}

impl Tls {
    /// For connections that this node dials. `ciphers` are offered in their order, which counts: a server takes the
    /// client's first that it has. `wanted` is asked with the server's key.
    ///
    /// # Errors
    /// [`TlsError::Protocol`], if `ciphers` is empty.
    pub fn client(identity: &Identity, ciphers: &[Cipher], wanted: Verify) -> Result<Tls, TlsError> {
        Tls::client_of(identity, provider(ciphers), wanted)
    }

    /// For connections that this node accepts. `ciphers` are those that it takes. `wanted` is asked with the client's
    /// key.
    ///
    /// # Errors
    /// [`TlsError::Protocol`], if `ciphers` is empty.
    pub fn server(identity: &Identity, ciphers: &[Cipher], wanted: Verify) -> Result<Tls, TlsError> {
        let provider = provider(ciphers);
        let verifier = Arc::new(Verifier { wanted, algorithms: provider.signature_verification_algorithms });
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::clone(&identity.key))));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(Tls(Role::Server(config)))
    }

    /// A client with all of the library's settings for ciphers, of which some cannot be had otherwise.
    pub(crate) fn client_of(identity: &Identity, provider: CryptoProvider, wanted: Verify) -> Result<Tls, TlsError> {
        let verifier = Arc::new(Verifier { wanted, algorithms: provider.signature_verification_algorithms });
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::clone(&identity.key))));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        config.enable_sni = false;
        // The library wants a name. None is sent, none is checked.
        let name =
            ServerName::try_from("seaprox.invalid").map_err(|error| TlsError::Protocol(error.to_string().into()))?;
        Ok(Tls(Role::Client(config, name)))
    }

    /// One connection. A client has bytes to write at once.
    ///
    /// # Errors
    /// [`TlsError::Protocol`], if the system has no randomness.
    pub fn pipe(&self, buffers: &Rc<Buffers>) -> Result<TlsPipe, TlsError> {
        let exporter = Arc::new(Exporter::default());
        let machine = match &self.0 {
            Role::Client(config, name) => {
                let mut config = config.clone();
                config.key_log = Arc::<Exporter>::clone(&exporter);
                Machine::Client(Box::new(UnbufferedClientConnection::new(Arc::new(config), name.clone())?))
            }
            Role::Server(config) => {
                let mut config = config.clone();
                config.key_log = Arc::<Exporter>::clone(&exporter);
                Machine::Server(Box::new(UnbufferedServerConnection::new(Arc::new(config))?))
            }
        };
        Ok(TlsPipe::new(machine, exporter, Rc::clone(buffers)))
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

/// The library's choices, with these ciphers and the one key exchange that all nodes have.
pub(crate) fn provider(ciphers: &[Cipher]) -> CryptoProvider {
    CryptoProvider {
        cipher_suites: ciphers.iter().map(|cipher| cipher.suite()).collect(),
        kx_groups: vec![kx_group::X25519],
        ..default_provider()
    }
}
