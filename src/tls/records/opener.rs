//! The records that the peer sends.

use std::io::{self, IoSliceMut};

use bytes::{Bytes, BytesMut};

use super::aead::Aead;
use super::contents::{Content, Contents};
use super::fault::Fault;
use super::input::{Input, Place};
use super::slots::{SLOT_BYTES, Slots};
use super::{HEADER_BYTES, KeySchedule};

/// One direction of a connection: bytes of the socket in, plaintext out.
pub(crate) struct Opener {
    aead: Aead,
    contents: Contents,
    input: Input,
}

/// The result of opening all complete records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The peer has sent close_notify.
    pub is_ended: bool,
    /// The peer asks for new keys in the other direction.
    pub asks_update: bool,
}

impl Opener {
    /// Creates the direction of an end with the first key and the bytes that were read behind the handshake.
    pub fn new(aead: Aead, is_client: bool, read: &[u8], slots: &Slots) -> Opener {
        let mut input = Input::default();
        input.put(read, slots);
        Opener { aead, contents: Contents::new(is_client), input }
    }

    /// Calls `read` with room for at most `most` bytes of the socket. Call [`open`](Self::open) before the next call.
    ///
    /// # Errors
    /// The error of `read`.
    pub fn read(
        &mut self,
        most: usize,
        slots: &Slots,
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.input.read(most, slots, read)
    }

    /// Opens all complete records and appends their data to `out`, in pieces that hold at most twice their length in memory.
    ///
    /// # Errors
    /// The fault that ends the connection. `out` gets the data before it.
    pub fn open(
        &mut self,
        keys: &mut impl KeySchedule,
        slots: &Slots,
        out: &mut Vec<Bytes>,
    ) -> Result<Progress, Fault> {
        if self.input.is_empty() {
            return Ok(Progress::default());
        }
        let mut gathered = Gathered::default();
        let mut at = 0;
        let result = self.open_from(&mut at, keys, slots, &mut gathered, out);
        gathered.hand_out(slots, out);
        match result {
            Ok(progress) if !progress.is_ended => self.input.opened(at, slots),
            // The bytes behind the end are nobody's.
            _ => self.input.clear(slots),
        }
        result
    }

    /// Drops the bytes that wait.
    pub fn clear(&mut self, slots: &Slots) {
        self.input.clear(slots);
    }

    fn open_from(
        &mut self,
        at: &mut usize,
        keys: &mut impl KeySchedule,
        slots: &Slots,
        gathered: &mut Gathered,
        out: &mut Vec<Bytes>,
    ) -> Result<Progress, Fault> {
        let mut progress = Progress::default();
        while let Some(place) = self.input.record_at(*at)? {
            match self.open_one(place, slots, gathered, out)? {
                Content::Data | Content::Nothing => {}
                Content::KeyUpdate { asks } => {
                    self.aead = keys.next_opening()?;
                    progress.asks_update |= asks;
                }
                Content::CloseNotify => {
                    progress.is_ended = true;
                    break;
                }
            }
            *at += place.bytes;
        }
        Ok(progress)
    }

    /// Opens one record. A large one is handed out where it lies, a small one is gathered with others.
    fn open_one(
        &mut self,
        place: Place,
        slots: &Slots,
        gathered: &mut Gathered,
        out: &mut Vec<Bytes>,
    ) -> Result<Content, Fault> {
        let mut joined = None;
        let record = if place.is_whole() {
            self.input.record(place)
        } else {
            let slot = joined.insert(slots.take());
            self.input.join(place, slot).and_then(|()| slot.get_mut(..place.bytes))
        };
        let (kind, content) = self.aead.open(record.ok_or(LOST)?)?;
        let meaning = self.contents.take(kind, content)?;
        let bytes = content.len();
        if meaning == Content::Data && bytes < SHARED_BYTES_MIN {
            gathered.push(content, slots, out);
        } else if meaning == Content::Data {
            gathered.hand_out(slots, out);
            let from = HEADER_BYTES + if joined.is_some() { 0 } else { place.from };
            let slot = joined.take().or_else(|| self.input.take_slot(place, slots)).ok_or(LOST)?;
            out.push(slots.lend(slot).slice(from..from + bytes));
        }
        joined.into_iter().for_each(|slot| slots.give(slot));
        Ok(meaning)
    }
}

/// The data of consecutive small records.
#[derive(Default)]
struct Gathered {
    slot: BytesMut,
    bytes: usize,
}

impl Gathered {
    fn push(&mut self, content: &[u8], slots: &Slots, out: &mut Vec<Bytes>) {
        if self.bytes + content.len() > SLOT_BYTES {
            self.hand_out(slots, out);
        }
        if self.slot.is_empty() {
            self.slot = slots.take();
        }
        if let Some(room) = self.slot.get_mut(self.bytes..self.bytes + content.len()) {
            room.copy_from_slice(content);
            self.bytes += content.len();
        }
    }

    /// Hands out what was gathered. Less than half of a slot is copied, so that it does not hold the rest.
    fn hand_out(&mut self, slots: &Slots, out: &mut Vec<Bytes>) {
        let Gathered { slot, bytes } = std::mem::take(self);
        if bytes >= SHARED_BYTES_MIN {
            return out.push(slots.lend(slot).slice(..bytes));
        }
        if let Some(data) = slot.get(..bytes).filter(|data| !data.is_empty()) {
            out.push(Bytes::copy_from_slice(data));
        }
        slots.give(slot);
    }
}

/// Data of at least this length may hold a slot.
const SHARED_BYTES_MIN: usize = SLOT_BYTES.div_ceil(2);
const LOST: Fault = Fault::Internal("a record that is not there");
