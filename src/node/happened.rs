//! Log text of link events. Keys are shown as fingerprints, never as bytes.

use std::fmt;

use crate::auth::PublicKey;

use super::config::{Happened, PeerKey};

impl Happened {
    /// The word for the log.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Happened::Up { .. } => "up",
            Happened::Draining => "draining",
            Happened::Drained => "drained",
            Happened::Parted => "parted",
            Happened::Resumed => "resumed",
            Happened::SubflowUp { .. } => "subflow_up",
            Happened::NoSubflow { .. } => "no_subflow",
            Happened::WrongKey { .. } => "wrong_key",
            Happened::Rejected => "rejected",
            Happened::Listening { .. } => "listening",
            Happened::Asked { .. } => "asked",
            Happened::NotListening { .. } => "not_listening",
            Happened::Closed => "closed",
            Happened::Ended { .. } => "ended",
        }
    }

    /// Returns the key of the event, if it has one.
    pub const fn key(&self) -> Option<&PeerKey> {
        match self {
            Happened::Up { key, .. } | Happened::WrongKey { key } | Happened::Asked { key, .. } => Some(key),
            _ => None,
        }
    }
}

/// Writes the details of the event; `-` if it has none.
impl fmt::Display for Happened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Happened::Up { fresh, .. } => write!(f, "fresh {fresh}"),
            Happened::SubflowUp { place, tries } => write!(f, "subflow {place} after {tries} tries"),
            Happened::NoSubflow { place, failure, tries } => write!(f, "subflow {place}, try {tries}: {failure}"),
            Happened::Listening { index, port, lacks } if lacks.is_empty() => write!(f, "place {index}, port {port}"),
            Happened::Listening { index, port, lacks } => write!(f, "place {index}, port {port}, without {lacks}"),
            Happened::Asked { request, .. } => write!(f, "{request}"),
            Happened::NotListening { index, failure } => write!(f, "place {index}: {failure}"),
            Happened::Ended { reason, text } => write!(f, "{reason}: {text}"),
            _ => f.write_str("-"),
        }
    }
}

/// Returns the fingerprint of a key; `-` if there is no key.
pub(super) fn fingerprint(key: Option<&PeerKey>) -> String {
    key.and_then(|key| PublicKey::from_bytes(*key).ok()).map_or_else(|| "-".to_owned(), |key| key.fingerprint())
}
