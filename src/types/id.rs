//! Ids and the tables of records that they name. Records name each other by id, and so do events and callers.
//!
//! An [`Id`] is an index into a table and the epoch of the record in that slot. A record that reuses a slot gets a new
//! epoch, so a stale id finds nothing. The same 64 bits are the token of an event, the handle of the C interface and the
//! integer of a script.

use std::fmt;
use std::num::NonZeroU32;

use slab::Slab;

/// Names a connection, a side or a listener of one loop.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    epoch: NonZeroU32,
    index: u32,
}

impl Id {
    /// Returns the id as one number, which is never zero.
    pub const fn to_u64(self) -> u64 {
        (self.epoch.get() as u64) << 32 | self.index as u64
    }

    /// Returns the id with this number, or `None` if no id can have it. An id that was never given out finds no record.
    pub const fn from_u64(number: u64) -> Option<Id> {
        match NonZeroU32::new((number >> 32) as u32) {
            Some(epoch) => Some(Id { epoch, index: number as u32 }),
            None => None,
        }
    }

    pub(crate) const fn index(self) -> usize {
        self.index as usize
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.epoch)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

// The token of an event holds a complete id.
const _: () = assert!(size_of::<usize>() == size_of::<u64>());
const _: () = assert!(size_of::<Option<Id>>() == 8);

/// A table of at most `capacity` records of one kind, allocated once.
pub(crate) struct Table<T> {
    slots: Slab<(NonZeroU32, T)>,
    capacity: usize,
    next_epoch: NonZeroU32,
}

impl<T> Table<T> {
    /// Creates a table that never grows beyond `capacity` and never moves its records.
    pub fn new(capacity: usize) -> Table<T> {
        Table { slots: Slab::with_capacity(capacity), capacity, next_epoch: NonZeroU32::MIN }
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn capacity(&self) -> usize {
        self.capacity
    }

    pub fn is_full(&self) -> bool {
        self.slots.len() >= self.capacity
    }

    /// Returns the id of the next record, for records that name each other, or `None` if the table is full.
    pub fn next_id(&self) -> Option<Id> {
        (!self.is_full()).then(|| Id { epoch: self.next_epoch, index: self.slots.vacant_key() as u32 })
    }

    /// Stores a record in a free slot. Returns the record as the error if the table is full.
    pub fn insert(&mut self, record: T) -> Result<Id, T> {
        let Some(id) = self.next_id() else { return Err(record) };
        self.next_epoch = id.epoch.checked_add(1).unwrap_or(NonZeroU32::MIN);
        let index = self.slots.insert((id.epoch, record));
        debug_assert_eq!(index, id.index());
        Ok(id)
    }

    pub fn get(&self, id: Id) -> Option<&T> {
        self.slots.get(id.index()).filter(|slot| slot.0 == id.epoch).map(|slot| &slot.1)
    }

    pub fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        self.slots.get_mut(id.index()).filter(|slot| slot.0 == id.epoch).map(|slot| &mut slot.1)
    }

    /// Returns two records, or `None` if the ids name the same slot or one of them is stale.
    pub fn get_two_mut(&mut self, a: Id, b: Id) -> Option<(&mut T, &mut T)> {
        if a.index == b.index {
            return None;
        }
        let (slot_a, slot_b) = self.slots.get2_mut(a.index(), b.index())?;
        (slot_a.0 == a.epoch && slot_b.0 == b.epoch).then_some((&mut slot_a.1, &mut slot_b.1))
    }

    pub fn remove(&mut self, id: Id) -> Option<T> {
        self.get(id)?;
        Some(self.slots.remove(id.index()).1)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Id, &T)> {
        self.slots.iter().map(|(index, (epoch, record))| (Id { epoch: *epoch, index: index as u32 }, record))
    }

    /// Iterates over the records in the slots from `index` on.
    pub fn starting_at(&self, index: usize) -> impl Iterator<Item = (Id, &T)> {
        let slots = (index..self.capacity).filter_map(|index| Some((index, self.slots.get(index)?)));
        slots.map(|(index, (epoch, record))| (Id { epoch: *epoch, index: index as u32 }, record))
    }

    /// Returns the ids of all records, for loops that change the table.
    pub fn ids(&self) -> Vec<Id> {
        self.iter().map(|(id, _)| id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_id_finds_nothing_in_a_reused_slot() {
        let mut table = Table::new(4);
        let old = table.insert("old").unwrap();
        assert_eq!(table.remove(old), Some("old"));
        let new = table.insert("new").unwrap();
        assert_eq!(old.index(), new.index(), "the slot is reused");
        assert_eq!(table.get(old), None);
        assert_eq!(table.remove(old), None);
        assert_eq!(table.get(new), Some(&"new"));
    }

    #[test]
    fn a_full_table_returns_the_record() {
        let mut table = Table::new(1);
        let id = table.insert(1).unwrap();
        assert_eq!(table.insert(2), Err(2));
        table.remove(id);
        assert!(table.insert(3).is_ok());
    }

    #[test]
    fn an_iteration_in_steps_finds_all_records() {
        let mut table = Table::new(9);
        let ids: Vec<_> = (0..8).map(|n| table.insert(n).unwrap()).collect();
        [0, 3, 4, 7].iter().for_each(|index: &usize| _ = table.remove(ids[*index]));
        let (mut found, mut from) = (Vec::new(), 0);
        while let Some((id, record)) = table.starting_at(from).next() {
            found.push(*record);
            from = id.index() + 1;
        }
        assert_eq!(found, [1, 2, 5, 6]);
    }

    #[test]
    fn an_epoch_that_wraps_skips_zero() {
        let mut table = Table::new(1);
        table.next_epoch = NonZeroU32::MAX;
        let last = table.insert(()).unwrap();
        table.remove(last);
        let first = table.insert(()).unwrap();
        assert_ne!(last, first);
        assert_eq!(Id::from_u64(first.to_u64()), Some(first));
    }

    #[test]
    fn two_records_are_borrowed_at_once_only_if_they_differ() {
        let mut table = Table::new(2);
        let (a, b) = (table.insert('a').unwrap(), table.insert('b').unwrap());
        assert!(table.get_two_mut(a, a).is_none());
        assert_eq!(table.get_two_mut(b, a), Some((&mut 'b', &mut 'a')));
    }
}
