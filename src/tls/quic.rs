//! The encryption of carriers over QUIC (RFC 9001): the same keys, the same check of the peer's key, the same ciphers and key
//! exchanges as over TCP, for the QUIC library, which drives the handshake and protects the packets.

use std::any::Any;
use std::sync::Arc;

use quinn_proto::crypto::{self, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, UnsupportedVersion};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectError, ConnectionId, Side, TransportError, TransportErrorCode};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::pki_types::ServerName;
use rustls::quic::{
    ClientConnection, Connection, DirectionalKeys, KeyChange, Secrets, ServerConnection, Suite, Version,
};
use rustls::{AlertDescription, ClientConfig, Error, ServerConfig};

use super::admission::Protocol;
use super::cipher::Cipher;
use super::error::{TlsError, of_alert};
use super::group::Group;
use super::identity::raw_key;
use super::{Tls, TlsConfig};

impl Tls {
    /// Returns the configuration for connections of QUIC that this node dials.
    ///
    /// # Errors
    /// This is not the configuration of a client.
    pub fn quic_client(&self) -> Result<Arc<dyn crypto::ClientConfig>, TlsError> {
        match &self.0 {
            TlsConfig::Client(config, name, _) => {
                let (config, name) = (Arc::new((**config).clone()), name.clone());
                Ok(Arc::new(QuicClient { config, name, initial: initial_suite()? }))
            }
            TlsConfig::Server(_) | TlsConfig::Either(..) => Err(TlsError::NotOpen),
        }
    }

    /// Returns the configuration for connections of QUIC that this node accepts. Peers with an invitation come over TCP.
    ///
    /// # Errors
    /// This is not the configuration of a server.
    pub fn quic_server(&self) -> Result<Arc<dyn crypto::ServerConfig>, TlsError> {
        match &self.0 {
            TlsConfig::Server(server) => {
                Ok(Arc::new(QuicServer { config: Arc::new(server.config.clone()), initial: initial_suite()? }))
            }
            TlsConfig::Client(..) | TlsConfig::Either(..) => Err(TlsError::NotOpen),
        }
    }
}

/// The state of the handshake of a QUIC connection: what the two ends have agreed on, and the failure if there is one.
#[derive(Debug)]
pub(crate) struct Negotiated {
    pub protocol: Option<Protocol>,
    pub cipher: Option<Cipher>,
    pub group: Option<Group>,
    pub error: Option<TlsError>,
}

/// Returns the error for the code of an alert of the peer.
pub(crate) fn error_of_alert(code: u8) -> TlsError {
    of_alert(AlertDescription::from(code))
}

struct QuicClient {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    initial: Suite,
}

struct QuicServer {
    config: Arc<ServerConfig>,
    initial: Suite,
}

impl crypto::ClientConfig for QuicClient {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        _: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn crypto::Session>, ConnectError> {
        let version = known_version(version)?;
        let connection = ClientConnection::new(Arc::clone(&self.config), version, self.name.clone(), encoded(params));
        // The library has no randomness, or no cipher for QUIC: its own errors have no word for either.
        let connection = connection.map_err(|error| ConnectError::InvalidServerName(error.to_string()))?;
        Ok(Box::new(Session::new(Connection::Client(connection), version, self.initial)))
    }
}

impl crypto::ServerConfig for QuicServer {
    fn initial_keys(&self, version: u32, dest: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        Ok(initial_keys(self.initial, known_version(version)?, dest, Side::Server))
    }

    fn retry_tag(&self, _: u32, dest: &ConnectionId, packet: &[u8]) -> [u8; RETRY_TAG_BYTES] {
        retry_tag(dest, packet)
    }

    fn start_session(self: Arc<Self>, _: u32, params: &TransportParameters) -> Box<dyn crypto::Session> {
        match ServerConnection::new(Arc::clone(&self.config), Version::V1, encoded(params)) {
            Ok(connection) => Box::new(Session::new(Connection::Server(connection), Version::V1, self.initial)),
            // The interface has no error, and the configuration was checked when it was made.
            Err(error) => unreachable!("a checked configuration: {error}"),
        }
    }
}

/// The handshake of one connection.
struct Session {
    connection: Connection,
    version: Version,
    initial: Suite,
    /// The secrets of the next keys.
    next: Option<Secrets>,
    is_agreed: bool,
    error: Option<TlsError>,
}

impl Session {
    fn new(connection: Connection, version: Version, initial: Suite) -> Session {
        Session { connection, version, initial, next: None, is_agreed: false, error: None }
    }

    /// Notes a failure. Returns it as one of QUIC, with the alert for the peer.
    fn fail(&mut self, error: Error) -> TransportError {
        self.error = Some(error.into());
        let alert = self.connection.alert().map(|alert| TransportErrorCode::crypto(alert.into()));
        alert.unwrap_or(TransportErrorCode::PROTOCOL_VIOLATION).into()
    }
}

impl crypto::Session for Session {
    fn initial_keys(&self, dest: &ConnectionId, side: Side) -> Keys {
        initial_keys(self.initial, self.version, dest, side)
    }

    /// Returns the [`Negotiated`] state, at any time.
    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        let cipher = self.connection.negotiated_cipher_suite().and_then(|suite| Cipher::of(suite.suite()));
        let group = self.connection.negotiated_key_exchange_group().and_then(|group| Group::of(group.name()));
        let protocol = self.connection.alpn_protocol().and_then(Protocol::of);
        Some(Box::new(Negotiated { protocol, cipher, group, error: self.error.clone() }))
    }

    /// Returns the public key that the peer has proven to hold, as 32 bytes.
    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        let key = self.connection.peer_certificates()?.first().and_then(|key| raw_key(key))?;
        Some(Box::new(key))
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        None
    }

    fn early_data_accepted(&self) -> Option<bool> {
        matches!(self.connection, Connection::Client(_)).then_some(false)
    }

    fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    fn read_handshake(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        self.connection.read_hs(bytes).map_err(|error| self.fail(error))?;
        let is_news = !self.is_agreed && self.connection.alpn_protocol().is_some();
        self.is_agreed |= is_news;
        Ok(is_news)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        let Some(mut bytes) = self.connection.quic_transport_parameters() else { return Ok(None) };
        let side = match self.connection {
            Connection::Client(_) => Side::Client,
            Connection::Server(_) => Side::Server,
        };
        Ok(Some(TransportParameters::read(side, &mut bytes)?))
    }

    fn write_handshake(&mut self, out: &mut Vec<u8>) -> Option<Keys> {
        Some(match self.connection.write_hs(out)? {
            KeyChange::Handshake { keys } => both(keys),
            KeyChange::OneRtt { keys, next } => {
                self.next = Some(next);
                both(keys)
            }
        })
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        let keys = self.next.as_mut()?.next_packet_keys();
        Some(KeyPair { local: Box::new(keys.local), remote: Box::new(keys.remote) })
    }

    fn is_valid_retry(&self, dest: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        let Some((rest, tag)) = payload.split_last_chunk::<RETRY_TAG_BYTES>() else { return false };
        // The tag is a checksum under a key that everyone knows, so the comparison need not be in constant time.
        retry_tag(dest, &[header, rest].concat()) == *tag
    }

    fn export_keying_material(
        &self,
        out: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        let exported = self.connection.export_keying_material(out, label, Some(context));
        exported.map(drop).map_err(|_| ExportKeyingMaterialError)
    }
}

/// Returns the keys of the first packets, which everyone can compute (RFC 9001, section 5.2).
fn initial_keys(suite: Suite, version: Version, dest: &ConnectionId, side: Side) -> Keys {
    let side = if side.is_client() { rustls::Side::Client } else { rustls::Side::Server };
    both(suite.keys(dest, side, version))
}

fn both(keys: rustls::quic::Keys) -> Keys {
    let DirectionalKeys { header: local_header, packet: local_packet, .. } = keys.local;
    let DirectionalKeys { header: remote_header, packet: remote_packet, .. } = keys.remote;
    Keys {
        header: KeyPair { local: Box::new(local_header), remote: Box::new(remote_header) },
        packet: KeyPair { local: Box::new(local_packet), remote: Box::new(remote_packet) },
    }
}

/// Returns the suite of the first packets. All versions of QUIC 1 have it, whatever the ciphers of the node are.
fn initial_suite() -> Result<Suite, TlsError> {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().and_then(|suite| suite.quic_suite());
    suite.ok_or_else(|| TlsError::Incompatible("no cipher for QUIC".into()))
}

/// Returns the tag of a Retry packet (RFC 9001, section 5.8): `packet` is the packet without it, and `dest` the destination
/// that the client had chosen.
fn retry_tag(dest: &ConnectionId, packet: &[u8]) -> [u8; RETRY_TAG_BYTES] {
    let mut sealed = [0; RETRY_TAG_BYTES];
    let length = u8::try_from(dest.len()).unwrap_or(u8::MAX);
    let pseudo = [&[length], &dest[..], packet].concat();
    let tag = UnboundKey::new(&AES_128_GCM, &RETRY_KEY).and_then(|key| {
        let nonce = Nonce::assume_unique_for_key(RETRY_NONCE);
        LessSafeKey::new(key).seal_in_place_separate_tag(nonce, Aad::from(pseudo), &mut [])
    });
    // A packet of this length, under a key of the right length, is always sealed.
    tag.iter().for_each(|tag| sealed.copy_from_slice(tag.as_ref()));
    sealed
}

fn known_version(version: u32) -> Result<Version, UnsupportedVersion> {
    if version == QUIC_VERSION { Ok(Version::V1) } else { Err(UnsupportedVersion) }
}

fn encoded(params: &TransportParameters) -> Vec<u8> {
    let mut bytes = Vec::new();
    params.write(&mut bytes);
    bytes
}

/// QUIC version 1 (RFC 9000).
pub(crate) const QUIC_VERSION: u32 = 1;
const RETRY_TAG_BYTES: usize = 16;
const RETRY_KEY: [u8; 16] =
    [0xbe, 0x0c, 0x69, 0x0b, 0x9f, 0x66, 0x57, 0x5a, 0x1d, 0x76, 0x6b, 0x54, 0xe3, 0x68, 0xc8, 0x4e];
const RETRY_NONCE: [u8; 12] = [0x46, 0x15, 0x99, 0xd3, 0x5d, 0x63, 0x2b, 0xf2, 0x23, 0x98, 0x25, 0xbb];
