//! Ids and the tables of records that they name. Records name each other by id, and so do events and callers.
//!
//! An [`Id`] is the kind of a record, an index into the table of that kind, and the epoch of the record in that slot. A
//! record that reuses a slot gets a new epoch, so a stale id finds nothing, and an id of one kind finds nothing in the table
//! of another. The same 64 bits are the token of an event, the handle of the C interface and the integer of a script:
//!
//! ```text
//!   63                               32 31   28 27                         0
//!   +----------------------------------+-------+----------------------------+
//!   |              epoch               | kind  |           index            |
//!   +----------------------------------+-------+----------------------------+
//! ```

use std::fmt;
use std::num::NonZeroU32;

use slab::Slab;

/// Names a record of one loop: a connection, a side, a listener, a link and so on. See [`Kind`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    epoch: NonZeroU32,
    /// The kind in the 4 high bits, and the index in the others.
    place: u32,
}

/// The kinds of records that an [`Id`] names. The numbers are part of every id and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[repr(u8)]
pub enum Kind {
    /// A connection.
    Connection = 1,
    /// A side of a connection.
    Side = 2,
    /// A listener for clients.
    Listener = 3,
    /// A link to another node.
    Link = 4,
    /// A forward over a link.
    Forward = 5,
    /// A listener for links.
    Server = 6,
    /// A foreign descriptor that the loop watches.
    Watch = 7,
    /// A timer of a caller.
    Timer = 8,
    /// The transport connection of a subflow. No verb takes it.
    Carrier = 9,
    /// A group of links that stand for one another.
    Group = 10,
    /// The datagrams between one client and one target.
    Flow = 11,
    /// A UDP socket of an association. No verb takes it.
    Association = 12,
}

impl Kind {
    const ALL: [Kind; 12] = [
        Kind::Connection,
        Kind::Side,
        Kind::Listener,
        Kind::Link,
        Kind::Forward,
        Kind::Server,
        Kind::Watch,
        Kind::Timer,
        Kind::Carrier,
        Kind::Group,
        Kind::Flow,
        Kind::Association,
    ];

    /// Returns the name of the kind in one lowercase word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Connection => "connection",
            Kind::Side => "side",
            Kind::Listener => "listener",
            Kind::Link => "link",
            Kind::Forward => "forward",
            Kind::Server => "server",
            Kind::Watch => "watch",
            Kind::Timer => "timer",
            Kind::Carrier => "carrier",
            Kind::Group => "group",
            Kind::Flow => "flow",
            Kind::Association => "association",
        }
    }

    /// Returns the place of the first record of this kind.
    const fn base(self) -> u32 {
        (self as u32) << INDEX_BITS
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Id {
    /// Returns the id as one number, which is never zero. Ids of different kinds have different numbers.
    pub const fn to_u64(self) -> u64 {
        (self.epoch.get() as u64) << 32 | self.place as u64
    }

    /// Returns the id with this number, or `None` if no id can have it. An id that was never given out finds no record.
    pub const fn from_u64(number: u64) -> Option<Id> {
        let (Some(epoch), place) = (NonZeroU32::new((number >> 32) as u32), number as u32) else { return None };
        let kind = place >> INDEX_BITS;
        if kind == 0 || kind > Kind::ALL.len() as u32 {
            return None;
        }
        Some(Id { epoch, place })
    }

    /// Returns the id of this kind that is written like this, `INDEX.EPOCH`, or `None` if no id can be. An id that was never
    /// given out finds no record.
    pub fn parse(kind: Kind, text: &str) -> Option<Id> {
        let (index, epoch) = text.split_once('.')?;
        let number =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u32>().ok()).flatten();
        let (index, epoch) = (number(index)?, NonZeroU32::new(number(epoch)?)?);
        (index <= INDEX_MASK).then(|| Id { epoch, place: kind.base() | index })
    }

    /// Returns the kind of the record.
    pub const fn kind(self) -> Kind {
        Kind::ALL[(self.place >> INDEX_BITS) as usize - 1]
    }

    #[inline]
    pub(crate) const fn index(self) -> usize {
        (self.place & INDEX_MASK) as usize
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index(), self.epoch)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

const INDEX_BITS: u32 = 28;
const INDEX_MASK: u32 = (1 << INDEX_BITS) - 1;

// The token of an event holds a complete id.
const _: () = assert!(size_of::<usize>() == size_of::<u64>());
const _: () = assert!(size_of::<Option<Id>>() == 8);

/// A table of at most `capacity` records of one kind, allocated once unless a higher capacity is set.
pub(crate) struct Table<T> {
    slots: Slab<(NonZeroU32, T)>,
    kind: Kind,
    capacity: usize,
    next_epoch: NonZeroU32,
}

impl<T> Table<T> {
    /// Creates a table that never grows beyond `capacity`, and does not move its records before another capacity is set.
    pub fn new(kind: Kind, capacity: usize) -> Table<T> {
        let capacity = capacity.min(1 << INDEX_BITS);
        Table { slots: Slab::with_capacity(capacity), kind, capacity, next_epoch: NonZeroU32::MIN }
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

    /// Sets the capacity. Records beyond a lower one stay until they are removed.
    pub fn set_capacity(&mut self, capacity: usize) {
        self.capacity = capacity.min(1 << INDEX_BITS);
    }

    /// Returns the id of the record in a slot.
    fn id(&self, index: usize, epoch: NonZeroU32) -> Id {
        Id { epoch, place: self.kind.base() | index as u32 }
    }

    /// Returns the slot of an id. The result is beyond all slots if the id has another kind, so that the look-up needs no
    /// comparison of its own.
    #[inline]
    fn slot(&self, id: Id) -> usize {
        (id.place ^ self.kind.base()) as usize
    }

    /// Returns the id of the next record, for records that name each other, or `None` if the table is full.
    pub fn next_id(&self) -> Option<Id> {
        (!self.is_full()).then(|| self.id(self.slots.vacant_key(), self.next_epoch))
    }

    /// Stores a record in a free slot. Returns the record as the error if the table is full.
    pub fn insert(&mut self, record: T) -> Result<Id, T> {
        let Some(id) = self.next_id() else { return Err(record) };
        self.next_epoch = id.epoch.checked_add(1).unwrap_or(NonZeroU32::MIN);
        let index = self.slots.insert((id.epoch, record));
        debug_assert_eq!(index, id.index());
        Ok(id)
    }

    #[inline]
    pub fn get(&self, id: Id) -> Option<&T> {
        self.slots.get(self.slot(id)).filter(|slot| slot.0 == id.epoch).map(|slot| &slot.1)
    }

    #[inline]
    pub fn get_mut(&mut self, id: Id) -> Option<&mut T> {
        self.slots.get_mut(self.slot(id)).filter(|slot| slot.0 == id.epoch).map(|slot| &mut slot.1)
    }

    /// Returns two records, or `None` if the ids name the same slot or one of them is stale.
    pub fn get_two_mut(&mut self, a: Id, b: Id) -> Option<(&mut T, &mut T)> {
        let (index_a, index_b) = (self.slot(a), self.slot(b));
        // The slab panics at a slot beyond its end.
        if index_a == index_b || index_a | index_b > INDEX_MASK as usize {
            return None;
        }
        let (slot_a, slot_b) = self.slots.get2_mut(index_a, index_b)?;
        (slot_a.0 == a.epoch && slot_b.0 == b.epoch).then_some((&mut slot_a.1, &mut slot_b.1))
    }

    pub fn remove(&mut self, id: Id) -> Option<T> {
        self.get(id)?;
        Some(self.slots.remove(id.index()).1)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Id, &T)> {
        self.slots.iter().map(|(index, (epoch, record))| (self.id(index, *epoch), record))
    }

    /// Iterates over the records in the slots from `index` on.
    pub fn starting_at(&self, index: usize) -> impl Iterator<Item = (Id, &T)> {
        let slots = (index..self.slots.capacity()).filter_map(|index| Some((index, self.slots.get(index)?)));
        slots.map(|(index, (epoch, record))| (self.id(index, *epoch), record))
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
        let mut table = Table::new(Kind::Side, 4);
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
        let mut table = Table::new(Kind::Side, 1);
        let id = table.insert(1).unwrap();
        assert_eq!(table.insert(2), Err(2));
        table.remove(id);
        assert!(table.insert(3).is_ok());
    }

    #[test]
    fn an_iteration_in_steps_finds_all_records() {
        let mut table = Table::new(Kind::Side, 9);
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
        let mut table = Table::new(Kind::Side, 1);
        table.next_epoch = NonZeroU32::MAX;
        let last = table.insert(()).unwrap();
        table.remove(last);
        let first = table.insert(()).unwrap();
        assert_ne!(last, first);
        assert_eq!(Id::from_u64(first.to_u64()), Some(first));
    }

    #[test]
    fn an_id_of_another_kind_finds_nothing_and_has_another_number() {
        let mut sides = Table::new(Kind::Side, 2);
        let mut connections = Table::new(Kind::Connection, 2);
        let (side, connection) = (sides.insert(1).unwrap(), connections.insert(2).unwrap());
        assert_eq!((side.index(), side.epoch), (connection.index(), connection.epoch));
        assert_ne!(side.to_u64(), connection.to_u64());
        assert_eq!((side.kind(), connection.kind()), (Kind::Side, Kind::Connection));
        assert!(connections.get(side).is_none() && connections.get_mut(side).is_none());
        assert_eq!(connections.remove(side), None);
        assert_eq!((sides.get(connection), sides.get(side)), (None, Some(&1)));
        assert!(connections.get_two_mut(side, connection).is_none());
    }

    #[test]
    fn a_number_without_an_epoch_or_with_an_unknown_kind_is_no_id() {
        for kind in Kind::ALL {
            let number = 7 << 32 | u64::from(kind.base()) | 5;
            let id = Id::from_u64(number).unwrap();
            assert_eq!((id.kind(), id.index(), id.to_u64()), (kind, 5, number));
            assert_eq!(Id::from_u64(u64::from(kind.base()) | 5), None);
        }
        for number in [0, 1, 1 << 32, 1 << 32 | 13 << INDEX_BITS, u64::MAX] {
            assert_eq!(Id::from_u64(number), None, "{number:x}");
        }
    }

    #[test]
    fn two_records_are_borrowed_at_once_only_if_they_differ() {
        let mut table = Table::new(Kind::Side, 2);
        let (a, b) = (table.insert('a').unwrap(), table.insert('b').unwrap());
        assert!(table.get_two_mut(a, a).is_none());
        assert_eq!(table.get_two_mut(b, a), Some((&mut 'b', &mut 'a')));
    }
}
