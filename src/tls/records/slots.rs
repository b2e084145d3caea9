//! The pool of slots: buffers of one record each, which reads fill and in which records are opened.
//!
//! A slot whose plaintext was handed out is lent until its holder drops it; then it is used again, the last one first, because
//! its memory is probably in the processor's cache. A slot allocates nothing but itself: the reference count belongs to it.

use std::cell::{Cell, RefCell};

use bytes::{Bytes, BytesMut};

use super::{RECORD_BYTES, RECORD_OVERHEAD};

/// Bytes of a slot: one full record.
pub(crate) const SLOT_BYTES: usize = RECORD_BYTES + RECORD_OVERHEAD;
/// Slots that one read fills at most.
pub(crate) const SLOTS_MAX: usize = 16;

/// The slots of one loop.
#[derive(Default)]
pub(crate) struct Slots {
    free: RefCell<Vec<BytesMut>>,
    /// References to slots that were handed out, the oldest first. A slot without another reference is free.
    lent: RefCell<Vec<Bytes>>,
    list: Cell<Vec<BytesMut>>,
}

impl Slots {
    /// Returns a slot with any bytes in it.
    pub fn take(&self) -> BytesMut {
        if let Some(slot) = self.free.borrow_mut().pop() {
            return slot;
        }
        let mut lent = self.lent.borrow_mut();
        let is_unique = |at: &usize| lent.get(*at).is_some_and(Bytes::is_unique);
        // The last ones are probably dropped first, unless their reader is slower than that of earlier ones.
        let last = lent.len().saturating_sub(1);
        let at = Some(last).filter(is_unique).or_else(|| (0..LOOKED_AT).find(is_unique));
        if let Some(at) = at
            && let Ok(slot) = lent.remove(at).try_into_mut()
        {
            return slot;
        }
        new_slot()
    }

    /// Takes a slot back that was not handed out.
    pub fn give(&self, slot: BytesMut) {
        let mut free = self.free.borrow_mut();
        if slot.len() == SLOT_BYTES && free.len() < FREE_MAX {
            free.push(slot);
        }
    }

    /// Freezes a slot that is handed out, and keeps a reference to it for reuse.
    pub fn lend(&self, slot: BytesMut) -> Bytes {
        let slot = slot.freeze();
        if slot.len() == SLOT_BYTES {
            let mut lent = self.lent.borrow_mut();
            if lent.len() == LENT_MAX {
                lent.remove(0);
            }
            lent.push(slot.clone());
        }
        slot
    }

    /// Returns an empty list with room for the slots of one read.
    pub fn take_list(&self) -> Vec<BytesMut> {
        let mut list = self.list.take();
        list.reserve(SLOTS_MAX);
        list
    }

    /// Takes back a list, and the slots in it.
    pub fn give_list(&self, mut list: Vec<BytesMut>) {
        list.drain(..).for_each(|slot| self.give(slot));
        self.list.set(list);
    }

    /// Frees unused slots.
    pub fn shrink(&self) {
        self.free.take();
        self.list.take();
        self.lent.borrow_mut().retain(|slot| !slot.is_unique());
    }

    /// Returns the number of free slots.
    #[cfg(test)]
    pub fn kept(&self) -> usize {
        self.free.borrow().len()
    }
}

/// Makes a slot whose reference count is allocated once, and not whenever it is handed out.
fn new_slot() -> BytesMut {
    let mut slot = BytesMut::zeroed(SLOT_BYTES);
    drop(slot.split_off(SLOT_BYTES));
    slot
}

/// Free slots that the pool keeps: those of two reads.
const FREE_MAX: usize = 2 * SLOTS_MAX;
/// Limit of the remembered slots: 2 MiB, for the reads of a turn and for a reader that is slightly behind.
const LENT_MAX: usize = 8 * SLOTS_MAX;
/// The oldest slots of which one may be free.
const LOOKED_AT: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_used_again_when_its_holder_drops_it() {
        let slots = Slots::default();
        let held: Vec<Bytes> = (0..20).map(|_| slots.lend(slots.take())).collect();
        let at: Vec<_> = held.iter().map(|slot| slot.as_ptr()).collect();
        let part = held[3].slice(100..200);
        drop(held);
        let again: Vec<BytesMut> = (0..20).map(|_| slots.take()).collect();
        assert!(again.iter().all(|slot| slot.len() == SLOT_BYTES));
        let reused = again.iter().filter(|slot| at.contains(&slot.as_ptr())).count();
        assert_eq!(reused, 19, "all but the one that is held");
        assert!(again.iter().all(|slot| slot.as_ptr() != at[3]));
        drop(part);
        assert_eq!(slots.take().as_ptr(), at[3]);
    }

    #[test]
    fn the_pool_is_bounded_and_can_be_emptied() {
        let slots = Slots::default();
        let held: Vec<Bytes> = (0..3 * LENT_MAX).map(|_| slots.lend(slots.take())).collect();
        assert_eq!(slots.lent.borrow().len(), LENT_MAX);
        drop(held);
        (0..2 * FREE_MAX).for_each(|_| slots.give(new_slot()));
        assert_eq!(slots.kept(), FREE_MAX);
        slots.shrink();
        assert_eq!((slots.kept(), slots.lent.borrow().len()), (0, 0));
    }
}
