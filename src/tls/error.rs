//! The errors of a TLS pipe, with texts that help an administrator.

use std::fmt;

use rustls::{AlertDescription, CertificateError, Error, OtherError};

use super::identity::PublicKey;
use super::records::Fault;

/// The reason why a pipe failed. All later calls of a failed pipe return the same error.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub(crate) enum TlsError {
    /// The peer has proven that it holds this key, but this node does not accept the key.
    KeyRefused(PublicKey),
    /// The peer has proven that it holds a key whose time is over.
    KeyExpired,
    /// The peer does not accept this node's key.
    OurKeyRefused,
    /// The time of this node's key is over, as the peer says.
    OurKeyExpired,
    /// A record, a signature or a Finished was altered in transit, replayed or forged.
    Authentication,
    /// The first bytes were not TLS.
    NotTls,
    /// The peer does not speak this link's protocol above TLS.
    Alpn,
    /// The peer's TLS has no cipher in common, has no raw keys, or is an older version.
    Incompatible(Box<str>),
    /// The peer sent more bytes than a handshake needs before it was authenticated.
    TooMuch,
    /// The connection ended without a close_notify, so bytes may be missing.
    Truncated,
    /// The peer ended the connection with this alert.
    Alert(Box<str>),
    /// The peer has sent this node's own ClientHello back.
    Reflected,
    /// The peer violated the protocol.
    Protocol(Box<str>),
    /// The caller sealed data before the handshake was done or after the end.
    NotOpen,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsError::KeyRefused(_) => f.write_str("the peer's key is not authorized"),
            TlsError::KeyExpired => f.write_str("the peer's key has expired"),
            TlsError::OurKeyRefused => f.write_str("the peer refused our key"),
            TlsError::OurKeyExpired => f.write_str("our key has expired at the peer"),
            TlsError::Authentication => f.write_str("authentication failed: bytes were altered or forged"),
            TlsError::NotTls => f.write_str("the peer does not speak TLS"),
            TlsError::Alpn => f.write_str("the peer does not speak this link's protocol"),
            TlsError::Incompatible(why) => write!(f, "nothing in common with the peer's TLS: {why}"),
            TlsError::TooMuch => f.write_str("too many bytes before authentication"),
            TlsError::Truncated => f.write_str("the connection ended without the end of TLS"),
            TlsError::Alert(alert) => write!(f, "the peer gave up: {alert}"),
            TlsError::Reflected => f.write_str("this node's own hello came back: the connection leads to this node"),
            TlsError::Protocol(why) => write!(f, "TLS protocol error: {why}"),
            TlsError::NotOpen => f.write_str("the pipe is not open"),
        }
    }
}

impl std::error::Error for TlsError {}

/// Carries a refused key from the verifier through the library to the pipe. The verifier serves all connections of a
/// configuration; only the error belongs to one connection.
#[derive(Debug)]
pub(super) struct Refused(pub PublicKey);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not authorized")
    }
}

impl std::error::Error for Refused {}

impl From<Refused> for Error {
    /// Makes an error whose alert is certificate_unknown. No other failure of this module sends that alert.
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
            Error::InvalidCertificate(CertificateError::Expired) => TlsError::KeyExpired,
            Error::InvalidCertificate(CertificateError::BadSignature) | Error::DecryptError => TlsError::Authentication,
            Error::AlertReceived(alert) => of_alert(*alert),
            Error::NoApplicationProtocol => TlsError::Alpn,
            Error::PeerIncompatible(why) => TlsError::Incompatible(format!("{why:?}").into()),
            Error::NoCertificatesPresented => TlsError::Incompatible("no key".into()),
            other => TlsError::Protocol(other.to_string().into()),
        }
    }
}

impl From<Fault> for TlsError {
    fn from(fault: Fault) -> TlsError {
        match fault {
            Fault::BadRecord => TlsError::Authentication,
            Fault::Overflow => TlsError::Protocol("a record above the limit".into()),
            Fault::Unexpected(what) | Fault::Malformed(what) | Fault::Illegal(what) | Fault::Internal(what) => {
                TlsError::Protocol(what.into())
            }
            Fault::Received(alert) => of_alert(alert.into()),
        }
    }
}

/// Returns the error for an alert of the peer (RFC 8446, section 6.2).
pub(super) fn of_alert(alert: AlertDescription) -> TlsError {
    use AlertDescription as A;
    match alert {
        A::CertificateUnknown | A::AccessDenied | A::UnknownCA | A::BadCertificate | A::CertificateRevoked => {
            TlsError::OurKeyRefused
        }
        A::CertificateExpired => TlsError::OurKeyExpired,
        A::BadRecordMac | A::DecryptError => TlsError::Authentication,
        A::NoApplicationProtocol => TlsError::Alpn,
        A::UnsupportedCertificate | A::CertificateRequired | A::HandshakeFailure | A::ProtocolVersion => {
            TlsError::Incompatible(format!("{alert:?}").into())
        }
        other => TlsError::Alert(format!("{other:?}").into()),
    }
}
