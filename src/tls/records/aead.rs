//! One key of records, and the number of its next record (RFC 8446, sections 5.2 and 5.3).

use ring::aead::{Aad, Algorithm, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::fault::Fault;
use super::{DATA, HEADER_BYTES, RECORD_BYTES, TAG_BYTES};

/// The key of one direction. Invariant: no number is used twice.
pub(crate) struct Aead {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    number: u64,
}

impl Aead {
    /// Takes a key whose next record has this number.
    ///
    /// # Errors
    /// The key or the initialization vector has another length.
    pub fn new(algorithm: &'static Algorithm, key: &[u8], iv: &[u8], number: u64) -> Result<Aead, Fault> {
        let unusable = Fault::Internal("an unusable key");
        let key = UnboundKey::new(algorithm, key).map_err(|_| unusable)?;
        Ok(Aead { key: LessSafeKey::new(key), iv: iv.try_into().map_err(|_| unusable)?, number })
    }

    /// Returns the number of the next record.
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Seals a record in place: room for the header, then the content, then room for the type and the tag.
    ///
    /// # Errors
    /// The record has no room for these, or the numbers are used up.
    pub fn seal(&mut self, record: &mut [u8], kind: u8) -> Result<(), Fault> {
        let unsealed = Fault::Internal("a record that cannot be sealed");
        let body_bytes = record.len().checked_sub(HEADER_BYTES).ok_or(unsealed)?;
        let header = header(u16::try_from(body_bytes).map_err(|_| unsealed)?);
        let (room, body) = record.split_first_chunk_mut::<HEADER_BYTES>().ok_or(unsealed)?;
        *room = header;
        let (inner, tag) = body.split_last_chunk_mut::<TAG_BYTES>().ok_or(unsealed)?;
        *inner.last_mut().ok_or(unsealed)? = kind;
        let nonce = self.next_nonce()?;
        let sealed = self.key.seal_in_place_separate_tag(nonce, Aad::from(header), inner).map_err(|_| unsealed)?;
        tag.copy_from_slice(sealed.as_ref());
        Ok(())
    }

    /// Opens a complete record in place. Returns the type and the content, without its padding.
    ///
    /// # Errors
    /// [`Fault::BadRecord`] if the record was altered, [`Fault::Unexpected`] if it has no type.
    pub fn open<'r>(&mut self, record: &'r mut [u8]) -> Result<(u8, &'r mut [u8]), Fault> {
        let (header, body) = record.split_first_chunk_mut::<HEADER_BYTES>().ok_or(Fault::BadRecord)?;
        let nonce = self.next_nonce()?;
        let inner = self.key.open_in_place(nonce, Aad::from(*header), body).map_err(|_| Fault::BadRecord)?;
        let end = inner.iter().rposition(|byte| *byte != 0).ok_or(Fault::Unexpected("a record without a type"))?;
        let (content, kind) = inner.split_at_mut(end);
        Ok((kind.first().copied().unwrap_or_default(), content))
    }

    /// Returns the nonce of the next record, and counts the record.
    fn next_nonce(&mut self) -> Result<Nonce, Fault> {
        let mut nonce = self.iv;
        let (_, low) = nonce.split_at_mut(NONCE_LEN - size_of::<u64>());
        low.iter_mut().zip(self.number.to_be_bytes()).for_each(|(byte, number)| *byte ^= number);
        self.number = self.number.checked_add(1).ok_or(Fault::Internal("the numbers of records are used up"))?;
        Ok(Nonce::assume_unique_for_key(nonce))
    }
}

/// Returns the length of the record with this header.
///
/// # Errors
/// The outer type is not that of encrypted records, or the length is above or below what such a record may have. The version
/// is authenticated with the rest of the header.
pub(super) fn record_bytes(header: [u8; HEADER_BYTES]) -> Result<usize, Fault> {
    let [kind, _, _, high, low] = header;
    let body_bytes = usize::from(u16::from_be_bytes([high, low]));
    if kind != DATA {
        return Err(Fault::Unexpected("a record in the clear"));
    }
    // The largest record of these ciphers holds a full content, its type and the tag: the protocol permits more for others.
    if body_bytes > RECORD_BYTES + 1 + TAG_BYTES {
        return Err(Fault::Overflow);
    }
    if body_bytes < 1 + TAG_BYTES { Err(Fault::BadRecord) } else { Ok(HEADER_BYTES + body_bytes) }
}

/// Returns the header of a record with this length, whose version is that of TLS 1.2.
const fn header(body_bytes: u16) -> [u8; HEADER_BYTES] {
    let [high, low] = body_bytes.to_be_bytes();
    [DATA, 3, 3, high, low]
}
