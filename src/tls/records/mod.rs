//! The records of TLS 1.3 behind the handshake (RFC 8446, section 5): what is sealed, opened and counted here, and not by the
//! TLS library.
//!
//! The library makes the handshake, checks the keys and holds the key schedule; it hands the traffic keys over when nothing of
//! the handshake is unsent. From then on each byte is copied once on the way out, into its record, and not at all on the way
//! in: a record is opened in the slot that the system wrote it to, and its plaintext is handed out there.
//!
//! ```text
//!   parts --copy--> record --seal in place--> write       read --> slots --open in place--> plaintext, as a part of its slot
//! ```
//! # Rules
//! - A nonce is the number of its record, which starts at the library's and rises by one; it never wraps. A new key starts at 0.
//! - The keys of a direction change before the limit of the cipher (section 5.5): AES-GCM after 2^24 − 2^16 records.
//! - A KeyUpdate of the peer stands alone in its record. It is answered once, however many requests wait for the answer.
//! - A run of more than 32 records without data is an attack.
//! - The first fault is the end. Nothing behind it is opened, and the peer gets one alert.
//! - Tickets are ignored: no session is resumed.
//!
//! This folder knows no socket and imports nothing of the TLS library but through [`KeySchedule`], so the fuzz targets run it
//! with keys of their own.
//!
//! # Reading order
//! `fault`, `aead`, `contents`: one record. `slots`, `input`: the buffers of reads. `opener`, `sealer`: the two directions.

mod aead;
mod contents;
mod fault;
mod input;
mod opener;
mod sealer;
pub(crate) mod slots;

pub(crate) use aead::Aead;
pub(crate) use fault::{Alert, Fault};
pub(crate) use opener::{Opener, Progress};
pub(crate) use sealer::Sealer;

/// The source of the next traffic keys (RFC 8446, section 7.2).
pub(crate) trait KeySchedule {
    /// Returns the next key of the records that the peer sends.
    fn next_opening(&mut self) -> Result<Aead, Fault>;

    /// Returns the next key of the records that this end sends.
    fn next_sealing(&mut self) -> Result<Aead, Fault>;
}

/// Plaintext bytes of a full record (RFC 8446, section 5.1).
pub(crate) const RECORD_BYTES: usize = 16 * 1024;
/// Bytes of a record beside its plaintext: header, type and tag.
pub(crate) const RECORD_OVERHEAD: usize = HEADER_BYTES + 1 + TAG_BYTES;

/// Type, version and length.
const HEADER_BYTES: usize = 5;
/// The tag of each cipher of TLS 1.3.
const TAG_BYTES: usize = 16;

/// The types of content (RFC 8446, section 5.1).
pub(crate) const ALERT: u8 = 21;
pub(crate) const HANDSHAKE: u8 = 22;
pub(crate) const DATA: u8 = 23;
/// The messages behind the handshake (section 4).
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;
