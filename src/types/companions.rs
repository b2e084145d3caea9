//! Companions: records that stand beside those of a [`Table`](super::id::Table), under the ids of that table.
//!
//! So two owners can each keep a part of what belongs to one id, and both parts can be borrowed at the same time.

use crate::types::id::Id;

/// At most one record for each id.
pub(crate) struct Companions<T> {
    /// The record of an id stands at the index of the id, with the id that it belongs to.
    slots: Vec<Option<(Id, T)>>,
    len: usize,
}

impl<T> Companions<T> {
    pub const fn new() -> Companions<T> {
        Companions { slots: Vec::new(), len: 0 }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Puts the record of an id in its place. A record that stands there for another id is dropped.
    pub fn insert(&mut self, id: Id, record: T) {
        if self.slots.len() <= id.index() {
            self.slots.resize_with(id.index() + 1, || None);
        }
        let before = self.slots[id.index()].replace((id, record));
        self.len += usize::from(before.is_none());
    }

    #[inline]
    pub fn get(&self, id: Id) -> Option<&T> {
        self.slots.get(id.index())?.as_ref().filter(|slot| slot.0 == id).map(|slot| &slot.1)
    }

    #[inline]
    pub fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        self.slots.get_mut(id.index())?.as_mut().filter(|slot| slot.0 == id).map(|slot| &mut slot.1)
    }

    pub fn remove(&mut self, id: Id) -> Option<T> {
        self.get(id)?;
        self.len -= 1;
        self.slots.get_mut(id.index())?.take().map(|slot| slot.1)
    }

    /// Returns all records, in the order of their indices.
    pub fn iter(&self) -> impl Iterator<Item = (Id, &T)> {
        self.slots.iter().flatten().map(|(id, record)| (*id, record))
    }

    /// Returns the ids of all records, for loops that change the table.
    pub fn ids(&self) -> Vec<Id> {
        self.iter().map(|(id, _)| id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::id::{Kind, Table};

    #[test]
    fn a_stale_id_finds_no_companion() {
        let (mut table, mut companions) = (Table::new(Kind::Link, 4), Companions::new());
        let first = table.insert(()).unwrap();
        companions.insert(first, 1);
        assert_eq!((companions.get(first), companions.len()), (Some(&1), 1));
        table.remove(first);
        let second = table.insert(()).unwrap();
        assert_eq!((second.index(), companions.get(second)), (first.index(), None));
        companions.insert(second, 2);
        assert_eq!((companions.remove(first), companions.get(first), companions.len()), (None, None, 1));
        assert_eq!((companions.ids(), companions.remove(second), companions.len()), (vec![second], Some(2), 0));
    }
}
