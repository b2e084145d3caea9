//! The verifier of the peer's key, for both roles.
//!
//! It asks whether the key is accepted only after the peer has proven that it holds the key. So an attacker who knows a
//! public key can neither find out whether it is authorized here, nor make this node print it as a rejected key.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, PeerMisbehaved,
    SignatureScheme,
};

use super::admission::{Admission, IsInvited};
use super::error::Refused;
use super::identity::{PublicKey, raw_key};

/// Returns true if this node accepts the peer's key.
pub(crate) type Verify = Arc<dyn Fn(&PublicKey) -> bool + Send + Sync>;

/// The verifier of one configuration.
pub(super) struct Verifier {
    admission: Admission,
    algorithms: WebPkiSupportedAlgorithms,
    /// Set for one connection, whose client may hold an invitation.
    is_invited: Option<IsInvited>,
}

impl Verifier {
    pub fn new(provider: &CryptoProvider, admission: Admission, is_invited: Option<IsInvited>) -> Verifier {
        Verifier { admission, algorithms: provider.signature_verification_algorithms, is_invited }
    }

    /// Checks that the peer presents a single ed25519 key. Does not ask whether the key is accepted.
    fn check_form(key: &CertificateDer<'_>, more: &[CertificateDer<'_>]) -> Result<(), Error> {
        match raw_key(key) {
            Some(_) if more.is_empty() => Ok(()),
            _ => Err(CertificateError::BadEncoding.into()),
        }
    }

    /// Checks that the peer holds the presented key, and that the key is accepted.
    fn check(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let public = raw_key(key).ok_or(CertificateError::BadEncoding)?;
        if signed.scheme != SignatureScheme::ED25519 {
            return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
        }
        let spki = SubjectPublicKeyInfoDer::from(key.as_ref());
        let valid = verify_tls13_signature_with_raw_key(message, &spki, signed, &self.algorithms)?;
        // A peer with an invitation may have any key, and the list of wanted keys is not asked.
        if self.is_invited.as_ref().is_some_and(IsInvited::get) || (self.admission.wanted)(&public) {
            return Ok(valid);
        }
        match &self.admission.expired {
            // The only failure of this module with the alert certificate_expired.
            Some(is_expired) if is_expired(&public) => Err(CertificateError::Expired.into()),
            _ => Err(Refused(public).into()),
        }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier")
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Verifier::check_form(key, more).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Verifier::check_form(key, more).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check(message, key, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
