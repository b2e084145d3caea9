//! The bytes of one connection that were read and are not opened yet: a row of slots.
//!
//! A read begins at a record, so that full records lie in a slot each. A record of another size lies anywhere, perhaps across
//! two slots; the records behind it do too, until the next read begins at one again.

use std::io::{self, IoSliceMut};

use bytes::BytesMut;

use super::HEADER_BYTES;
use super::aead::record_bytes;
use super::fault::Fault;
use super::slots::{SLOT_BYTES, SLOTS_MAX, Slots};

/// The row. Invariant: it is empty while no bytes wait, and has one slot while a part of a record waits.
#[derive(Default)]
pub(super) struct Input {
    slots: Vec<BytesMut>,
    filled: usize,
    /// The last read filled the room that it got, so the next one gets more.
    is_wide: bool,
}

/// A complete record in the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    slot: usize,
    pub from: usize,
    pub bytes: usize,
}

impl Place {
    /// Returns true if the record lies in one slot.
    pub const fn is_whole(self) -> bool {
        self.from + self.bytes <= SLOT_BYTES
    }
}

impl Input {
    /// Puts bytes in front that were read before. They must be less than a slot.
    pub fn put(&mut self, bytes: &[u8], pool: &Slots) {
        debug_assert!(self.filled == 0, "they come first");
        if bytes.is_empty() {
            return;
        }
        self.prepare(1, pool);
        for (slot, bytes) in self.slots.iter_mut().zip(bytes.chunks(SLOT_BYTES)) {
            slot.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            self.filled += bytes.len();
        }
    }

    /// Returns true if no bytes wait.
    pub const fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Calls `read` with room for at most `most` bytes.
    pub fn read(
        &mut self,
        most: usize,
        pool: &Slots,
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.prepare(if self.is_wide { SLOTS_MAX } else { SLOTS_FIRST }, pool);
        let mut room: [IoSliceMut<'_>; SLOTS_MAX] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
        let (mut count, mut bytes, mut skipped) = (0, 0, self.filled);
        for (slice, slot) in room.iter_mut().zip(&mut self.slots) {
            let free = slot.get_mut(skipped..).unwrap_or_default();
            let wished = free.len().min(most - bytes);
            *slice = IoSliceMut::new(free.split_at_mut(wished).0);
            (count, bytes, skipped) = (count + 1, bytes + wished, 0);
            if bytes == most {
                break;
            }
        }
        let result = read(room.split_at_mut(count).0).map(|got| got.min(bytes));
        let got = *result.as_ref().unwrap_or(&0);
        self.filled += got;
        self.is_wide = got == bytes || got > SLOTS_FIRST * SLOT_BYTES;
        if got == 0 {
            self.release(pool);
        }
        result
    }

    /// Finds the record at a position of the waiting bytes. Returns `None` if it is not complete.
    ///
    /// # Errors
    /// The header cannot be that of a record.
    pub fn record_at(&self, at: usize) -> Result<Option<Place>, Fault> {
        let Some(header) = self.header_at(at) else { return Ok(None) };
        let bytes = record_bytes(header)?;
        let is_complete = at + bytes <= self.filled;
        Ok(is_complete.then_some(Place { slot: at / SLOT_BYTES, from: at % SLOT_BYTES, bytes }))
    }

    /// Returns the bytes of a record that lies in one slot.
    pub fn record(&mut self, place: Place) -> Option<&mut [u8]> {
        self.slots.get_mut(place.slot)?.get_mut(place.from..place.from + place.bytes)
    }

    /// Copies a record that lies across two slots to the front of `to`.
    pub fn join(&self, place: Place, to: &mut [u8]) -> Option<()> {
        let first = self.slots.get(place.slot)?.get(place.from..)?;
        let rest = place.bytes.checked_sub(first.len())?;
        let second = self.slots.get(place.slot + 1)?.get(..rest)?;
        let (front, back) = to.get_mut(..place.bytes)?.split_at_mut(first.len());
        front.copy_from_slice(first);
        back.copy_from_slice(second);
        Some(())
    }

    /// Takes the slot of a record out of the row. Waiting bytes behind the record are copied to the slot that replaces it.
    pub fn take_slot(&mut self, place: Place, pool: &Slots) -> Option<BytesMut> {
        let behind = place.from + place.bytes;
        let end = self.filled.saturating_sub(place.slot * SLOT_BYTES).min(SLOT_BYTES);
        let slot = self.slots.get_mut(place.slot)?;
        if behind >= end {
            return Some(std::mem::take(slot));
        }
        let mut next = pool.take();
        next.get_mut(behind..end)?.copy_from_slice(slot.get(behind..end)?);
        Some(std::mem::replace(slot, next))
    }

    /// Drops the bytes before a position, which are opened, and moves the rest to the front.
    pub fn opened(&mut self, at: usize, pool: &Slots) {
        let rest = self.filled.saturating_sub(at);
        let (index, from) = (at / SLOT_BYTES, at % SLOT_BYTES);
        if rest > 0 && at > 0 {
            let first = (SLOT_BYTES - from).min(rest);
            if index > 0 {
                self.slots.swap(0, index);
            }
            let (front, others) = self.slots.split_at_mut(1);
            if let (Some(slot), behind) = (front.first_mut(), others.get(index)) {
                slot.copy_within(from..from + first, 0);
                if let (Some(to), Some(bytes)) = (slot.get_mut(first..rest), behind.and_then(|b| b.get(..rest - first)))
                {
                    to.copy_from_slice(bytes);
                }
            }
        }
        self.filled = rest;
        self.release(pool);
    }

    /// Drops all bytes.
    pub fn clear(&mut self, pool: &Slots) {
        self.filled = 0;
        self.release(pool);
    }

    /// Returns the slots without waiting bytes to the pool.
    fn release(&mut self, pool: &Slots) {
        if self.filled == 0 {
            return pool.give_list(std::mem::take(&mut self.slots));
        }
        self.slots.drain(self.filled.div_ceil(SLOT_BYTES)..).for_each(|slot| pool.give(slot));
    }

    fn prepare(&mut self, count: usize, pool: &Slots) {
        if self.slots.is_empty() {
            self.slots = pool.take_list();
        }
        while self.slots.len() < count {
            self.slots.push(pool.take());
        }
    }

    fn header_at(&self, at: usize) -> Option<[u8; HEADER_BYTES]> {
        if self.filled < at + HEADER_BYTES {
            return None;
        }
        let mut header = [0; HEADER_BYTES];
        for (at, byte) in (at..).zip(&mut header) {
            *byte = *self.slots.get(at / SLOT_BYTES)?.get(at % SLOT_BYTES)?;
        }
        Some(header)
    }
}

/// Slots of a read on a connection that does not fill them: a vectored read of many costs more than a small record.
const SLOTS_FIRST: usize = 2;
