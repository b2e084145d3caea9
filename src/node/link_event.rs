//! Log text of link events. Keys are shown as fingerprints, never as bytes.

use std::fmt;

use crate::auth::PublicKey;

use super::config::{LinkEvent, PeerKey};

impl LinkEvent {
    /// Returns the name of the event in the log.
    pub const fn as_str(&self) -> &'static str {
        match self {
            LinkEvent::Up { .. } => "up",
            LinkEvent::Draining => "draining",
            LinkEvent::Drained => "drained",
            LinkEvent::Suspended => "suspended",
            LinkEvent::Resumed => "resumed",
            LinkEvent::SubflowUp { .. } => "subflow_up",
            LinkEvent::NoSubflow { .. } => "no_subflow",
            LinkEvent::WrongKey { .. } => "wrong_key",
            LinkEvent::Rejected => "rejected",
            LinkEvent::Expired => "expired",
            LinkEvent::Listening { .. } => "listening",
            LinkEvent::Asked { .. } => "asked",
            LinkEvent::NotListening { .. } => "not_listening",
            LinkEvent::Message { .. } => "message",
            LinkEvent::Closed => "closed",
            LinkEvent::Ended { .. } => "ended",
        }
    }

    /// Returns the key of the event, if it has one.
    pub const fn key(&self) -> Option<&PeerKey> {
        match self {
            LinkEvent::Up { key, .. } | LinkEvent::WrongKey { key } | LinkEvent::Asked { key, .. } => Some(key),
            _ => None,
        }
    }
}

/// Writes the details of the event; `-` if it has none.
impl fmt::Display for LinkEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkEvent::Up { fresh, .. } => write!(f, "fresh {fresh}"),
            LinkEvent::SubflowUp { place, tries } => write!(f, "subflow {place} after {tries} tries"),
            LinkEvent::NoSubflow { place, failure, tries } => write!(f, "subflow {place}, try {tries}: {failure}"),
            LinkEvent::Listening { index, port, lacks } if lacks.is_empty() => write!(f, "place {index}, port {port}"),
            LinkEvent::Listening { index, port, lacks } => write!(f, "place {index}, port {port}, without {lacks}"),
            LinkEvent::Asked { request, .. } => write!(f, "{request}"),
            LinkEvent::NotListening { index, failure } => write!(f, "place {index}: {failure}"),
            LinkEvent::Message { text } => write!(f, "{text:?}"),
            LinkEvent::Ended { reason, text } => write!(f, "{reason}: {text}"),
            _ => f.write_str("-"),
        }
    }
}

/// Returns the fingerprint of a key; `-` if there is no key.
pub(super) fn fingerprint(key: Option<&PeerKey>) -> String {
    key.and_then(|key| PublicKey::from_bytes(*key).ok()).map_or_else(|| "-".to_owned(), |key| key.fingerprint())
}
