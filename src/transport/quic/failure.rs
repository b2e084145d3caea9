//! The ends of connections of QUIC, in the words of carriers.

use quinn_proto::{ConnectionError, TransportErrorCode, VarInt};

use crate::tls::{TlsError, error_of_alert};
use crate::transport::CarrierError;
use crate::types::reason::{Failure, Reason};

/// The code of an orderly end (RFC 9000, section 20.2).
pub(super) const CLOSED: VarInt = VarInt::from_u32(0);
/// The code of an end because the peer has violated the protocol.
pub(super) const PROTOCOL_ERROR: VarInt = VarInt::from_u32(1);

/// Returns the error of a carrier for the end of its connection. `error` is that of this end's TLS.
pub(super) fn of(end: &ConnectionError, error: Option<TlsError>) -> CarrierError {
    if let Some(error) = error {
        return error.into();
    }
    let failed = |reason, text: String| CarrierError::Failed(Failure::new(reason, text));
    match end {
        ConnectionError::ConnectionClosed(close) => match alert(close.error_code) {
            Some(alert) => error_of_alert(alert).into(),
            None if close.error_code == TransportErrorCode::CONNECTION_REFUSED => {
                failed(Reason::LimitReached, "the peer takes no more connections".to_owned())
            }
            None => failed(Reason::ProtocolError, format!("QUIC: {close}")),
        },
        ConnectionError::ApplicationClosed(close) if close.error_code != CLOSED => {
            failed(Reason::ProtocolError, "the peer gave up".to_owned())
        }
        ConnectionError::ApplicationClosed(_) | ConnectionError::LocallyClosed => {
            failed(Reason::LinkLost, "the peer closed the connection".to_owned())
        }
        ConnectionError::Reset => failed(Reason::LinkLost, "the peer has lost the connection".to_owned()),
        ConnectionError::TimedOut => failed(Reason::TimedOut, "the peer does not answer".to_owned()),
        ConnectionError::TransportError(error) => failed(Reason::ProtocolError, format!("QUIC: {error}")),
        ConnectionError::VersionMismatch | ConnectionError::CidsExhausted => {
            failed(Reason::ProtocolError, format!("QUIC: {end}"))
        }
    }
}

/// Returns the code of the alert of TLS that a code of QUIC stands for (RFC 9001, section 4.8).
fn alert(code: TransportErrorCode) -> Option<u8> {
    u64::from(code).checked_sub(ALERTS_FROM).and_then(|alert| u8::try_from(alert).ok())
}

/// The code of the first alert.
const ALERTS_FROM: u64 = 0x100;
