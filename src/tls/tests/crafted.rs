//! Tests against peers that are not pipes: the library's buffered connections, settings that nodes do not have, and
//! crafted records.

use std::io::{Read, Write};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::cipher::{MessageEncrypter, OutboundChunks, OutboundPlainMessage};
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::ring::sign::any_eddsa_type;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, ClientConnection, Connection, ConnectionTrafficSecrets, ContentType, DigitallySignedStruct,
    DistinguishedName, Error, ProtocolVersion, ServerConfig, ServerConnection, SignatureScheme, SupportedCipherSuite,
    Tls13CipherSuite,
};

use super::kit::{give, node, open_pair, server, shake, take};
use super::{WHOLE, joined, text};
use crate::tls::{ALPN, Buffers, Cipher, RECORD_BYTES, RECORD_OVERHEAD, Tls, TlsError, TlsPipe, provider};

/// A verifier that accepts each key.
#[derive(Debug)]
struct Trusting;

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// The properties of a client that a test can change.
pub(super) struct Shown {
    /// The seed of the key that signs; the key that the client shows is node 1's.
    pub seed: u8,
    pub cipher: Cipher,
}

impl ClientCertVerifier for Trusting {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }
    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// One of the library's buffered connections, with the key of node 1.
pub(super) struct Peer(pub Connection);

impl Peer {
    pub fn client(change: impl FnOnce(&mut Shown, &mut Vec<Vec<u8>>)) -> Peer {
        let mut shown = Shown { seed: 1, cipher: Cipher::Aes128Gcm };
        let mut alpn = vec![ALPN.to_vec()];
        change(&mut shown, &mut alpn);
        let key = key_of(&shown);
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider(&[shown.cipher])))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Trusting))
            .with_client_cert_resolver(Arc::new(rustls::client::AlwaysResolvesClientRawPublicKeys::new(key)));
        config.alpn_protocols = alpn;
        config.enable_secret_extraction = true;
        Peer(ClientConnection::new(Arc::new(config), "example.org".try_into().unwrap()).unwrap().into())
    }

    /// Makes a server, which sends two tickets.
    pub fn server(cipher: Cipher) -> Peer {
        let key = key_of(&Shown { seed: 1, cipher });
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider(&[cipher])))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(Arc::new(Trusting))
            .with_cert_resolver(Arc::new(rustls::server::AlwaysResolvesServerRawPublicKeys::new(key)));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.enable_secret_extraction = true;
        config.send_tls13_tickets = 2;
        Peer(ServerConnection::new(Arc::new(config)).unwrap().into())
    }

    pub fn take(&mut self) -> Vec<u8> {
        let mut wire = Vec::new();
        while self.0.wants_write() {
            self.0.write_tls(&mut wire).unwrap();
        }
        wire
    }

    pub fn give(&mut self, mut wire: &[u8]) -> Result<Vec<u8>, Error> {
        let mut plain = Vec::new();
        while !wire.is_empty() {
            self.0.read_tls(&mut wire).unwrap();
            self.0.process_new_packets()?;
            let _ = self.0.reader().read_to_end(&mut plain);
        }
        Ok(plain)
    }

    /// Runs the handshake. Returns the pipe's result.
    pub fn shake(&mut self, pipe: &mut TlsPipe) -> Result<(), TlsError> {
        let mut out = Vec::new();
        while pipe.is_handshaking() || self.0.is_handshaking() {
            let wire = self.take();
            assert!(!wire.is_empty() || pipe.unsent() > 0, "the handshake must continue");
            give(pipe, &wire, WHOLE, &mut out)?;
            let _ = self.give(&take(pipe));
        }
        Ok(())
    }

    /// Returns what makes arbitrary records, and opens the records of the other end.
    fn forge(self) -> Forge {
        let secrets = self.0.dangerous_extract_secrets().unwrap();
        let (number, ConnectionTrafficSecrets::Aes128Gcm { key, iv }) = secrets.tx else { panic!("another cipher") };
        let (theirs, ConnectionTrafficSecrets::Aes128Gcm { key: their_key, iv: their_iv }) = secrets.rx else {
            panic!("another cipher")
        };
        let suite = TLS13_AES_128_GCM_SHA256.tls13().unwrap();
        Forge {
            encrypter: suite.aead_alg.encrypter(key, iv),
            number,
            key: LessSafeKey::new(UnboundKey::new(&AES_128_GCM, their_key.as_ref()).unwrap()),
            iv: their_iv.as_ref().try_into().unwrap(),
            theirs,
        }
    }
}

fn key_of(shown: &Shown) -> Arc<CertifiedKey> {
    let pkcs8 =
        [&[0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20][..], &[shown.seed; 32]].concat();
    let spki = [&[0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0][..], &node(1).public_key()].concat();
    let key = any_eddsa_type(&PrivatePkcs8KeyDer::from(pkcs8)).unwrap();
    Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], key))
}

pub(super) fn pipe() -> TlsPipe {
    server(2, 1, &Cipher::ALL).pipe(&Rc::new(Buffers::new())).unwrap()
}

#[test]
fn a_peer_with_another_protocol_or_none_is_refused() {
    for protocols in [vec![b"http/1.1".to_vec()], vec![]] {
        let mut pipe = pipe();
        let mut peer = Peer::client(|_, alpn| *alpn = protocols);
        assert_eq!(peer.shake(&mut pipe), Err(TlsError::Alpn));
        assert_eq!(pipe.peer_key(), None);
    }
}

#[test]
fn the_exporter_computes_the_same_as_the_library() {
    for cipher in Cipher::ALL {
        let (mut pipe, mut peer) = (pipe(), Peer::client(|shown, _| shown.cipher = cipher));
        peer.shake(&mut pipe).unwrap();
        for context in [&b""[..], b"context"] {
            let theirs = peer.0.export_keying_material([0; 32], b"EXPORTER-seaprox", Some(context)).unwrap();
            assert_eq!(pipe.exporter("EXPORTER-seaprox", context), Some(theirs), "{cipher:?}");
        }
    }
}

#[test]
fn a_key_update_of_the_peer_is_followed() {
    let (mut pipe, mut peer) = (pipe(), Peer::client(|_, _| {}));
    peer.shake(&mut pipe).unwrap();
    for round in 0..100u8 {
        let mut out = Vec::new();
        peer.0.writer().write_all(&[round; 10]).unwrap();
        peer.0.refresh_traffic_keys().unwrap();
        peer.0.writer().write_all(&[round; 20]).unwrap();
        give(&mut pipe, &peer.take(), 1 + usize::from(round), &mut out).unwrap();
        assert_eq!(joined(&out), [round; 30]);
        pipe.seal([&[round; 40][..]]).unwrap();
        assert_eq!(peer.give(&take(&mut pipe)).unwrap(), [round; 40], "after the answer, with new keys");
    }
}

/// Returns a client whose cipher permits this number of records with one key. The real limit is 2^24.
fn short_lived(records: u64) -> Tls {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().unwrap();
    let common = rustls::crypto::CipherSuiteCommon { confidentiality_limit: records, ..suite.common };
    let short = Tls13CipherSuite { common, ..*suite };
    let mut provider = provider(&[Cipher::Aes128Gcm]);
    provider.cipher_suites = vec![SupportedCipherSuite::Tls13(Box::leak(Box::new(short)))];
    Tls::client_of(&node(1), provider, Arc::new(|_| true)).unwrap()
}

#[test]
fn keys_are_changed_at_the_record_limit() {
    let (mut client, mut server) = (short_lived(5).pipe(&Rc::new(Buffers::new())).unwrap(), pipe());
    assert_eq!(shake(&mut client, &mut server, WHOLE), (Ok(()), Ok(())));
    let (mut wire, mut records) = (0, 0);
    for round in 1..300 {
        let sent = text(round * 131);
        client.seal(sent.chunks(1000)).unwrap();
        let bytes = take(&mut client);
        (wire, records) = (wire + bytes.len(), records + sent.len() + (sent.len().div_ceil(16_384)) * 22);
        let mut out = Vec::new();
        give(&mut server, &bytes, 5000, &mut out).unwrap();
        assert!(joined(&out) == sent);
        server.seal([&b"so far so good"[..]]).unwrap();
        give(&mut client, &take(&mut server), WHOLE, &mut out).unwrap();
    }
    assert!(wire > records, "KeyUpdates have gone out, too");
}

/// The reserve is a 256th of the limit.
#[test]
fn a_key_is_changed_while_a_reserve_of_its_records_is_left() {
    let (mut client, mut server) = (short_lived(512).pipe(&Rc::new(Buffers::new())).unwrap(), pipe());
    assert_eq!(shake(&mut client, &mut server, WHOLE), (Ok(()), Ok(())));
    let mut out = Vec::new();
    let mut send = |_: &usize| {
        client.seal([&b"x"[..]]).unwrap();
        let bytes = take(&mut client);
        give(&mut server, &bytes, WHOLE, &mut out).unwrap();
        bytes.len() > 1 + RECORD_OVERHEAD
    };
    assert_eq!((0..1100).filter(&mut send).collect::<Vec<_>>(), [510, 1020]);
}

/// The last record before the buffer is full may follow a KeyUpdate of 27 bytes.
#[test]
fn a_key_update_in_a_full_buffer_gets_room() {
    let dialler = short_lived(5);
    for (phase, updates) in (0..5).flat_map(|phase| (0..5).map(move |updates| (phase, updates))) {
        let (mut client, mut server) = (dialler.pipe(&Rc::new(Buffers::new())).unwrap(), pipe());
        assert_eq!(shake(&mut client, &mut server, WHOLE), (Ok(()), Ok(())));
        let mut out = Vec::new();
        for _ in 0..phase {
            client.seal([&b"x"[..]]).unwrap();
            give(&mut server, &take(&mut client), WHOLE, &mut out).unwrap();
        }
        out.clear();
        let sent = text(16 * RECORD_BYTES - updates * (5 + RECORD_OVERHEAD));
        let (first, rest) = sent.split_at(RECORD_BYTES - updates * (5 + RECORD_OVERHEAD));
        client.seal([first]).unwrap();
        client.seal([rest]).unwrap();
        give(&mut server, &take(&mut client), WHOLE, &mut out).unwrap();
        assert!(joined(&out) == sent, "after {phase} records, with room for {updates} changes");
    }
}

/// Makes arbitrary records with the keys of an open pipe's peer.
pub(super) struct Forge {
    encrypter: Box<dyn MessageEncrypter>,
    number: u64,
    key: LessSafeKey,
    iv: [u8; 12],
    /// The number of the next record of the pipe.
    theirs: u64,
}

impl Forge {
    pub fn new() -> (TlsPipe, Forge) {
        let (mut pipe, mut peer) = (pipe(), Peer::client(|_, _| {}));
        peer.shake(&mut pipe).unwrap();
        (pipe, peer.forge())
    }

    /// Opens a record of the pipe. Returns its content and its type.
    pub fn open(&mut self, record: &[u8]) -> Vec<u8> {
        let (header, body) = record.split_at(5);
        let mut nonce = self.iv;
        nonce.iter_mut().rev().zip(self.theirs.to_le_bytes()).for_each(|(byte, number)| *byte ^= number);
        self.theirs += 1;
        let (nonce, mut body) = (Nonce::assume_unique_for_key(nonce), body.to_vec());
        self.key.open_in_place(nonce, Aad::from(header), &mut body).unwrap().to_vec()
    }

    pub fn record(&mut self, typ: ContentType, payload: &[u8]) -> Vec<u8> {
        let plain =
            OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload: OutboundChunks::Single(payload) };
        let record = self.encrypter.encrypt(plain, self.number).unwrap().encode();
        self.number += 1;
        record
    }
}

/// A KeyUpdate is type 24, a length of three bytes, and a flag that requests an answer.
#[test]
fn a_key_update_that_shares_its_record_or_spans_several_is_refused() {
    let whole = [24, 0, 0, 1, 1];
    for parts in [vec![&whole[..1], &whole[1..]], vec![&[24, 0, 0, 1, 0, 24, 0, 0, 1, 0][..]]] {
        let (mut pipe, mut forge) = Forge::new();
        let mut out = Vec::new();
        let wire: Vec<u8> = parts.iter().flat_map(|part| forge.record(ContentType::Handshake, part)).collect();
        let result = give(&mut pipe, &wire, 9, &mut out);
        assert!(matches!(result, Err(TlsError::Protocol(_))), "{result:?}");
    }
    // With new keys, a record with the old ones is refused.
    let (mut pipe, mut forge) = Forge::new();
    let mut out = Vec::new();
    give(&mut pipe, &forge.record(ContentType::ApplicationData, &[5; 300]), WHOLE, &mut out).unwrap();
    give(&mut pipe, &forge.record(ContentType::Handshake, &whole), WHOLE, &mut out).unwrap();
    let late = forge.record(ContentType::ApplicationData, &[6; 300]);
    assert_eq!(give(&mut pipe, &late, WHOLE, &mut out), Err(TlsError::Authentication));
    assert_eq!(joined(&out), [5; 300]);
}

/// Padding is zeros after the type (RFC 8446, section 5.4), so a record of type 0 is a padded record.
#[test]
fn a_padded_record_holds_no_more_memory_than_it_has_bytes() {
    let (mut pipe, mut forge) = Forge::new();
    let padded = [&b"a small thing"[..], &[23], &[0; 16_000]].concat();
    let wire = forge.record(ContentType::Unknown(0), &padded).into_iter();
    let wire: Vec<u8> = wire.chain(forge.record(ContentType::Unknown(0), &padded)).collect();
    let mut out = Vec::new();
    give(&mut pipe, &wire, WHOLE, &mut out).unwrap();
    assert_eq!(joined(&out), b"a small thinga small thing");
    let piece = out.pop().unwrap().try_into_mut().unwrap();
    assert!(piece.capacity() <= 2 * piece.len(), "{} bytes for {}", piece.capacity(), piece.len());
}

#[test]
fn a_malformed_record_fails_the_pipe() {
    let key_update = |asked| [24, 0, 0, 1, asked];
    for (typ, payload) in [
        (ContentType::Handshake, &key_update(7)[..]),
        (ContentType::Handshake, &[1, 0, 0, 0]),
        (ContentType::Alert, &[2]),
        (ContentType::ChangeCipherSpec, &[1]),
        (ContentType::Unknown(99), &[0; 50]),
    ] {
        let (mut pipe, mut forge) = Forge::new();
        let mut out: Vec<Bytes> = Vec::new();
        let wire = forge.record(typ, payload);
        let result = give(&mut pipe, &wire, WHOLE, &mut out);
        assert!(matches!(result, Err(TlsError::Protocol(_))), "{typ:?}: {result:?}");
        let wire = forge.record(ContentType::ApplicationData, b"more");
        let _ = give(&mut pipe, &wire, WHOLE, &mut out);
        assert!(out.is_empty());
    }
    // Endless requests for new keys are an attack.
    let (mut pipe, mut peer) = (pipe(), Peer::client(|_, _| {}));
    peer.shake(&mut pipe).unwrap();
    let many = (0..40).try_for_each(|_| {
        peer.0.refresh_traffic_keys().unwrap();
        give(&mut pipe, &peer.take(), WHOLE, &mut Vec::new())
    });
    assert!(matches!(many, Err(TlsError::Protocol(_))), "{many:?}");
}

#[test]
fn a_failed_handshake_ends_with_one_alert() {
    let (_, mut server) = open_pair(&[Cipher::Aes128Gcm]);
    assert_eq!(take(&mut server).len(), 0);
    assert_eq!(give(&mut server, &[23, 3, 3, 0, 17, 0, 0], WHOLE, &mut Vec::new()), Ok(()), "not complete yet");
    assert_eq!(give(&mut server, &[0; 15], WHOLE, &mut Vec::new()), Err(TlsError::Authentication));
    assert_eq!(take(&mut server).len(), 2 + 22);
    server.close_notify();
    assert_eq!(take(&mut server).len(), 0);
}
