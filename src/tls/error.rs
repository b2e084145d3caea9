//! Why a pipe failed, in words that an administrator can act on.

use std::fmt;

use rustls::{AlertDescription, CertificateError, Error, OtherError};

use super::identity::PublicKey;

/// The end of a pipe that did not end well. A pipe that has failed answers the same error ever after.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub(crate) enum TlsError {
    /// The peer has proven that it holds this key, and the key is not wanted here.
    KeyRefused(PublicKey),
    /// The peer does not want our key.
    OurKeyRefused,
    /// A record, a signature or a Finished was not the peer's: altered on the way, replayed, or forged.
    Authentication,
    /// What came first was no TLS.
    NotTls,
    /// The peer speaks TLS, but not this link's protocol on it.
    Alpn,
    /// The peer speaks TLS with nothing in common: no cipher, no raw keys, an older version.
    Incompatible(Box<str>),
    /// The peer sent more than a handshake may need before it was authenticated.
    TooMuch,
    /// The connection ended without the end of TLS, so bytes may be missing.
    Truncated,
    /// The peer gave up with this alert.
    Alert(Box<str>),
    /// The peer broke the protocol.
    Protocol(Box<str>),
    /// Our own call came too early or too late: the pipe does not carry data now.
    NotOpen,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsError::KeyRefused(_) => f.write_str("the peer's key is not authorized"),
            TlsError::OurKeyRefused => f.write_str("the peer refused our key"),
            TlsError::Authentication => f.write_str("authentication failed: bytes were altered or forged"),
            TlsError::NotTls => f.write_str("the peer does not speak TLS"),
            TlsError::Alpn => f.write_str("the peer does not speak this link's protocol"),
            TlsError::Incompatible(why) => write!(f, "nothing in common with the peer's TLS: {why}"),
            TlsError::TooMuch => f.write_str("too many bytes before authentication"),
            TlsError::Truncated => f.write_str("the connection ended without the end of TLS"),
            TlsError::Alert(alert) => write!(f, "the peer gave up: {alert}"),
            TlsError::Protocol(why) => write!(f, "TLS protocol error: {why}"),
            TlsError::NotOpen => f.write_str("the pipe is not open"),
        }
    }
}

impl std::error::Error for TlsError {}

/// How a key that is not wanted travels from the verifier through the library to the pipe. The library has one
/// configuration for many connections, and the error is what belongs to one.
#[derive(Debug)]
pub(super) struct Refused(pub PublicKey);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not authorized")
    }
}

impl std::error::Error for Refused {}

impl From<Refused> for Error {
    /// The alert for it is certificate_unknown: no other failure of ours sends that one.
    fn from(refused: Refused) -> Error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(std::sync::Arc::new(refused))))
    }
}

impl From<Error> for TlsError {
    fn from(error: Error) -> TlsError {
        match &error {
            Error::InvalidCertificate(CertificateError::Other(OtherError(other))) => match other.downcast_ref() {
                Some(Refused(key)) => TlsError::KeyRefused(*key),
                None => TlsError::Protocol(other.to_string().into()),
            },
            Error::InvalidCertificate(CertificateError::BadSignature) | Error::DecryptError => TlsError::Authentication,
            Error::AlertReceived(alert) => of_alert(*alert),
            Error::NoApplicationProtocol => TlsError::Alpn,
            Error::PeerIncompatible(why) => TlsError::Incompatible(format!("{why:?}").into()),
            Error::NoCertificatesPresented => TlsError::Incompatible("no key".into()),
            other => TlsError::Protocol(other.to_string().into()),
        }
    }
}

/// What an alert of the peer means (RFC 8446, section 6.2).
fn of_alert(alert: AlertDescription) -> TlsError {
    use AlertDescription as A;
    match alert {
        A::CertificateUnknown | A::AccessDenied | A::UnknownCA | A::BadCertificate | A::CertificateRevoked => {
            TlsError::OurKeyRefused
        }
        A::BadRecordMac | A::DecryptError => TlsError::Authentication,
        A::NoApplicationProtocol => TlsError::Alpn,
        A::UnsupportedCertificate | A::CertificateRequired | A::HandshakeFailure | A::ProtocolVersion => {
            TlsError::Incompatible(format!("{alert:?}").into())
        }
        other => TlsError::Alert(format!("{other:?}").into()),
    }
}
