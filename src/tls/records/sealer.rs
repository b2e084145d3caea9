//! The records that this end sends.

use super::super::buffers::Buffers;
use super::super::outgoing::Outgoing;
use super::aead::Aead;
use super::fault::{Alert, Fault};
use super::{ALERT, DATA, HANDSHAKE, HEADER_BYTES, KEY_UPDATE, KeySchedule, RECORD_BYTES, RECORD_OVERHEAD};

/// One direction of a connection: plaintext in, records out.
pub(crate) struct Sealer {
    aead: Aead,
    /// Records after which the key is changed.
    records_max: u64,
    /// The peer has asked for new keys and has no answer yet.
    owes_update: bool,
}

impl Sealer {
    /// Creates the direction with the first key, whose cipher permits `limit` records with one key.
    pub const fn new(aead: Aead, limit: u64) -> Sealer {
        Sealer { aead, records_max: limit - limit / RESERVE, owes_update: false }
    }

    /// Seals the concatenation of `parts` in full records, and the rest in one more record.
    ///
    /// # Errors
    /// [`Fault::Internal`] if there is no next key.
    pub fn seal<'a>(
        &mut self,
        mut parts: impl Iterator<Item = &'a [u8]> + Clone,
        keys: &mut impl KeySchedule,
        outgoing: &mut Outgoing,
        buffers: &Buffers,
    ) -> Result<(), Fault> {
        let mut left: usize = parts.clone().map(<[u8]>::len).sum();
        let mut part: &[u8] = &[];
        while left > 0 {
            self.update_in_time(keys, outgoing, buffers)?;
            let bytes = left.min(RECORD_BYTES);
            self.record(DATA, bytes, outgoing, buffers, |mut content| {
                while !content.is_empty() {
                    if part.is_empty() {
                        part = parts.next().unwrap_or_default();
                    }
                    let (from, rest) = part.split_at(part.len().min(content.len()));
                    let (to, others) = content.split_at_mut(from.len());
                    to.copy_from_slice(from);
                    (part, content) = (rest, others);
                }
            })?;
            left -= bytes;
        }
        Ok(())
    }

    /// Seals an alert.
    ///
    /// # Errors
    /// [`Fault::Internal`] if it cannot be sealed.
    pub fn alert(&mut self, alert: Alert, outgoing: &mut Outgoing, buffers: &Buffers) -> Result<(), Fault> {
        self.record(ALERT, alert.0.len(), outgoing, buffers, |content| content.copy_from_slice(&alert.0))
    }

    /// Notes that the peer has asked for new keys.
    pub const fn asked_for_update(&mut self) {
        self.owes_update = true;
    }

    /// Answers the peer's request for new keys if nothing else waits to be sent. Otherwise the next record of data, or the end
    /// of the waiting bytes, brings the answer, so that no number of requests makes more than one of them wait.
    ///
    /// # Errors
    /// [`Fault::Internal`] if there is no next key.
    pub fn answer(
        &mut self,
        keys: &mut impl KeySchedule,
        outgoing: &mut Outgoing,
        buffers: &Buffers,
    ) -> Result<(), Fault> {
        if self.owes_update && outgoing.pending().is_empty() {
            self.update(false, keys, outgoing, buffers)
        } else {
            Ok(())
        }
    }

    /// Changes the key, and asks the peer to do the same if `asks` is true.
    ///
    /// # Errors
    /// [`Fault::Internal`] if there is no next key.
    pub fn update(
        &mut self,
        asks: bool,
        keys: &mut impl KeySchedule,
        outgoing: &mut Outgoing,
        buffers: &Buffers,
    ) -> Result<(), Fault> {
        let message = [KEY_UPDATE, 0, 0, 1, u8::from(asks)];
        self.record(HANDSHAKE, message.len(), outgoing, buffers, |content| content.copy_from_slice(&message))?;
        self.aead = keys.next_sealing()?;
        self.owes_update = false;
        Ok(())
    }

    /// Changes the key before a record of data if the limit is reached or the peer waits for it.
    fn update_in_time(
        &mut self,
        keys: &mut impl KeySchedule,
        outgoing: &mut Outgoing,
        buffers: &Buffers,
    ) -> Result<(), Fault> {
        let is_due = self.owes_update || self.aead.number() >= self.records_max;
        if is_due { self.update(false, keys, outgoing, buffers) } else { Ok(()) }
    }

    fn record(
        &mut self,
        kind: u8,
        bytes: usize,
        outgoing: &mut Outgoing,
        buffers: &Buffers,
        write: impl FnOnce(&mut [u8]),
    ) -> Result<(), Fault> {
        let room = outgoing.room(bytes + RECORD_OVERHEAD, buffers);
        let record = room.get_mut(..bytes + RECORD_OVERHEAD).ok_or(NO_ROOM)?;
        write(record.get_mut(HEADER_BYTES..HEADER_BYTES + bytes).ok_or(NO_ROOM)?);
        self.aead.seal(record, kind)?;
        outgoing.wrote(bytes + RECORD_OVERHEAD);
        Ok(())
    }
}

/// The part of a cipher's limit that is left as a reserve: 2^16 of 2^24 records.
const RESERVE: u64 = 256;
const NO_ROOM: Fault = Fault::Internal("no room for a record");
