//! The queues of datagrams of one flow, in both directions.
//!
//! Datagrams are neither acknowledged nor retransmitted. A queue is limited in bytes and, for sending, in time: a late
//! datagram is worth less than a lost one, so the oldest is dropped first. A limit on all flows of a session applies
//! too; above it, new datagrams are dropped.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::link::wire::frame::{FRAME_BYTES_MAX, PART_HEAD_BYTES};
use crate::link::wire::ids::{SubflowId, Time};

/// Maximum cost of a flow's queue in one direction.
pub(in crate::link) const QUEUE_BYTES_MAX: usize = DATAGRAM_BYTES_MAX + ENTRY_COST;
/// Maximum length of a datagram in bytes: that of UDP over IPv6 (RFC 8200). A longer one than a frame goes in parts.
pub const DATAGRAM_BYTES_MAX: usize = 65_527;
/// Cost of all queues of a session from which on new datagrams are dropped.
pub(in crate::link) const SESSION_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Queueing time after which a datagram is dropped.
const WAIT_US_MAX: u64 = 50_000;
/// Cost of a queued datagram beyond its bytes.
const ENTRY_COST: usize = 64;
/// Maximum payload of a part in bytes.
const PART_BYTES_MAX: usize = FRAME_BYTES_MAX - PART_HEAD_BYTES;
/// Parts of one datagram that are kept. This node makes five of the longest one; smaller frames make more.
const PARTS_MAX: usize = 128;
/// Time after the first part of a datagram in which the others must arrive.
pub(in crate::link) const PART_WAIT_US_MAX: u64 = 1_000_000;

/// Datagrams of a stream that this end has dropped, in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatagramDrops {
    /// Waited for more than 50 ms to be sent, or for more than a second for their other parts.
    pub late: u64,
    /// The queue of the stream, or all queues of the session, were full.
    pub queue_full: u64,
    /// Their parts do not fit together.
    pub malformed: u64,
    /// The number of those above that this end was to send.
    pub unsent: u64,
    /// The bytes of these.
    pub unsent_bytes: u64,
}

/// The queue of one direction.
#[derive(Debug, Default)]
struct Queue {
    entries: VecDeque<(Time, Bytes)>,
    cost: usize,
}

impl Queue {
    /// Adds a datagram, and drops the oldest ones above the limit. Returns the number of these and their bytes.
    fn push(&mut self, now: Time, payload: Bytes) -> (u64, u64) {
        self.cost += payload.len() + ENTRY_COST;
        self.entries.push_back((now, payload));
        let (mut count, mut bytes) = (0, 0);
        while self.cost > QUEUE_BYTES_MAX {
            count += 1;
            bytes += self.pop().map_or(0, |oldest| oldest.len() as u64);
        }
        (count, bytes)
    }

    fn pop(&mut self) -> Option<Bytes> {
        let (_, payload) = self.entries.pop_front()?;
        self.cost -= payload.len() + ENTRY_COST;
        Some(payload)
    }
}

/// Both queues of one flow.
#[derive(Debug, Default)]
pub(in crate::link) struct Datagrams {
    outgoing: Queue,
    incoming: Queue,
    /// The drops since the application asked for them.
    drops: DatagramDrops,
    /// A datagram of which some parts are sent.
    sending: Option<Sending>,
    /// The number of the next datagram that is sent in parts.
    next_number: u32,
    /// The parts of a datagram that has not arrived completely.
    parts: Option<Parts>,
    /// The subflow that carried the last datagram. The next ones follow it there, because another path would reorder them.
    /// `None` if the flow may choose again: a datagram that waited for the subflow was dropped as late, or the last one
    /// has arrived long ago.
    pub(in crate::link) subflow: Option<SubflowId>,
    /// The time at which that datagram was sent.
    pub(in crate::link) sent_at: Time,
}

/// The next frame of a flow.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::link) enum Outgoing {
    Whole(Bytes),
    Part { number: u32, total: u32, offset: u32, payload: Bytes },
}

/// A datagram of which the bytes before `at` are sent.
#[derive(Debug)]
struct Sending {
    begun_at: Time,
    payload: Bytes,
    at: usize,
    number: u32,
}

/// The parts of one datagram, in the order of their arrival. Subflows may change their order.
#[derive(Debug)]
struct Parts {
    /// The time of the first one.
    begun_at: Time,
    number: u32,
    total: usize,
    bytes: usize,
    pieces: Vec<(usize, Bytes)>,
}

/// A part of a datagram, as it arrives.
#[derive(Clone, Debug)]
pub(in crate::link) struct Part {
    pub number: u32,
    pub total: u32,
    pub offset: u32,
    pub payload: Bytes,
}

impl Datagrams {
    /// Queues a datagram from the application, or drops it if the session is `full`.
    pub(in crate::link) fn send(&mut self, now: Time, payload: Bytes, full: bool) {
        self.drop_late(now);
        let (count, bytes) = if full { (1, payload.len() as u64) } else { self.outgoing.push(now, payload) };
        self.drops.queue_full += count;
        self.note_unsent(count, bytes);
    }

    fn note_unsent(&mut self, count: u64, bytes: u64) {
        self.drops.unsent += count;
        self.drops.unsent_bytes += bytes;
    }

    /// Returns the next frame to send: a datagram, or a part of one that is longer than `frame_max`.
    pub(in crate::link) fn next_outgoing(&mut self, now: Time, frame_max: usize) -> Option<Outgoing> {
        self.drop_late(now);
        self.sent_at = now;
        if self.sending.is_none() {
            let payload = self.outgoing.pop()?;
            if payload.len() <= frame_max {
                return Some(Outgoing::Whole(payload));
            }
            self.sending = Some(Sending { begun_at: now, payload, at: 0, number: self.next_number });
            self.next_number = self.next_number.wrapping_add(1);
        }
        let sending = self.sending.as_mut()?;
        let end = sending.payload.len().min(sending.at + frame_max.min(PART_BYTES_MAX));
        let payload = sending.payload.slice(sending.at..end);
        let (number, total, offset) = (sending.number, sending.payload.len() as u32, sending.at as u32);
        sending.at = end;
        if end == sending.payload.len() {
            self.sending = None;
        }
        Some(Outgoing::Part { number, total, offset, payload })
    }

    /// Drops the datagram of which some parts are sent. Returns true if there was one.
    pub(in crate::link) fn give_up_sending(&mut self) -> bool {
        let Some(sending) = self.sending.take() else { return false };
        self.drops.late += 1;
        self.note_unsent(1, sending.payload.len() as u64);
        true
    }

    /// Drops the datagrams that have waited for too long, and lets the flow choose its subflow again if there were any.
    /// Returns true if so.
    pub(in crate::link) fn drop_late(&mut self, now: Time) -> bool {
        // The peer has given up the parts of a datagram that was begun long ago.
        let is_old = |sending: &Sending| now.since(sending.begun_at) > PART_WAIT_US_MAX;
        let mut has_dropped = self.sending.as_ref().is_some_and(is_old) && self.give_up_sending();
        while self.outgoing.entries.front().is_some_and(|(at, _)| now.since(*at) > WAIT_US_MAX) {
            let bytes = self.outgoing.pop().map_or(0, |late| late.len() as u64);
            self.drops.late += 1;
            self.note_unsent(1, bytes);
            has_dropped = true;
        }
        if has_dropped {
            self.subflow = None;
        }
        has_dropped
    }

    /// Returns true if some parts of a datagram are sent, and others are not.
    pub(in crate::link) fn is_sending(&self) -> bool {
        self.sending.is_some()
    }

    pub(in crate::link) fn has_outgoing(&self) -> bool {
        self.sending.is_some() || !self.outgoing.entries.is_empty()
    }

    /// Returns the length of the next datagram or part to send.
    pub(in crate::link) fn outgoing_len(&self) -> usize {
        let rest = self.sending.as_ref().map(|sending| sending.payload.len() - sending.at);
        rest.or_else(|| self.outgoing.entries.front().map(|(_, payload)| payload.len()))
            .map_or(0, |len| len.min(PART_BYTES_MAX))
    }

    /// Keeps a part of a datagram from the peer, or drops it if the session is `full`. Returns true if the datagram is complete
    /// and the only one, so that the application must be told. A datagram whose parts do not all arrive is dropped when the next
    /// one begins, after [`PART_WAIT_US_MAX`], and when the session is full. A late part of an older one is ignored.
    pub(in crate::link) fn receive_part(&mut self, now: Time, part: Part, full: bool) -> bool {
        let (total, offset) = (part.total as usize, part.offset as usize);
        let end = offset.checked_add(part.payload.len());
        let is_sound = total <= DATAGRAM_BYTES_MAX && !part.payload.is_empty() && end.is_some_and(|end| end <= total);
        self.give_up_late_parts(now);
        if full {
            self.drops.queue_full += 1 + u64::from(self.parts.take().is_some());
            return false;
        }
        if !is_sound {
            self.drops.malformed += 1;
            return false;
        }
        let is_older = |parts: &Parts| (part.number.wrapping_sub(parts.number) as i32) < 0;
        if self.parts.as_ref().is_some_and(is_older) {
            return false;
        }
        let is_same = |parts: &Parts| parts.number == part.number && parts.total == total;
        if !self.parts.as_ref().is_some_and(is_same) {
            self.give_up_parts();
            self.parts = Some(Parts { begun_at: now, number: part.number, total, bytes: 0, pieces: Vec::new() });
        }
        let Some(parts) = &mut self.parts else { return false };
        if parts.pieces.len() >= PARTS_MAX || parts.pieces.iter().any(|(at, _)| *at == offset) {
            return false;
        }
        parts.bytes += part.payload.len();
        parts.pieces.push((offset, part.payload));
        if parts.bytes < total {
            return false;
        }
        let Some(Parts { mut pieces, .. }) = self.parts.take() else { return false };
        pieces.sort_by_key(|(at, _)| *at);
        let mut whole = Vec::with_capacity(pieces.iter().map(|(_, piece)| piece.len()).sum());
        for (at, piece) in pieces {
            if at != whole.len() {
                self.drops.malformed += 1;
                return false;
            }
            whole.extend_from_slice(&piece);
        }
        self.keep(now, whole.into())
    }

    /// Drops the parts of a datagram whose other parts did not arrive in time.
    pub(in crate::link) fn give_up_late_parts(&mut self, now: Time) {
        if self.parts.as_ref().is_some_and(|parts| now.since(parts.begun_at) > PART_WAIT_US_MAX) {
            self.give_up_parts();
        }
    }

    fn give_up_parts(&mut self) {
        self.drops.late += u64::from(self.parts.take().is_some());
    }

    /// Queues a complete datagram for the application. Returns true if it is the only one.
    fn keep(&mut self, now: Time, payload: Bytes) -> bool {
        self.drops.queue_full += self.incoming.push(now, payload).0;
        self.incoming.entries.len() == 1
    }

    /// Queues a datagram from the peer, or drops it if the session is `full`. Returns true if it is the only one, so
    /// that the application must be told.
    pub(in crate::link) fn receive(&mut self, now: Time, payload: Bytes, full: bool) -> bool {
        if full {
            self.drops.queue_full += 1 + u64::from(self.parts.take().is_some());
            return false;
        }
        self.give_up_late_parts(now);
        self.keep(now, payload)
    }

    pub(in crate::link) fn next_incoming(&mut self) -> Option<Bytes> {
        self.incoming.pop()
    }

    /// Returns the cost of both queues in bytes.
    pub(in crate::link) const fn cost(&self) -> usize {
        let sending = if let Some(sending) = &self.sending { sending.payload.len() } else { 0 };
        let parts = if let Some(parts) = &self.parts { parts.bytes + parts.pieces.len() * ENTRY_COST } else { 0 };
        self.outgoing.cost + self.incoming.cost + sending + parts
    }

    /// Returns the drops since they were last taken.
    pub(in crate::link) const fn drops(&self) -> DatagramDrops {
        self.drops
    }

    /// Returns the drops since the last call.
    pub(in crate::link) fn take_drops(&mut self) -> DatagramDrops {
        std::mem::take(&mut self.drops)
    }
}

#[cfg(test)]
impl DatagramDrops {
    const fn total(&self) -> u64 {
        self.late + self.queue_full + self.malformed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// Returns the next datagram or part with its bytes.
    fn next(flow: &mut Datagrams, now: Time) -> Option<Bytes> {
        match flow.next_outgoing(now, 1_000)? {
            Outgoing::Whole(payload) | Outgoing::Part { payload, .. } => Some(payload),
        }
    }

    #[test]
    fn a_long_datagram_goes_in_parts_and_arrives_whole_in_any_order() {
        let long: Bytes = (0..DATAGRAM_BYTES_MAX).map(|at| (at / 7) as u8).collect();
        for is_reversed in [false, true] {
            let (mut near, mut far) = (Datagrams::default(), Datagrams::default());
            near.send(Time::ZERO, long.clone(), false);
            let mut parts = Vec::new();
            while let Some(Outgoing::Part { number, total, offset, payload }) = near.next_outgoing(Time::ZERO, 16_376) {
                parts.push(Part { number, total, offset, payload });
            }
            assert_eq!((parts.len(), near.cost(), near.has_outgoing()), (5, 0, false));
            if is_reversed {
                parts.reverse();
            }
            let told: Vec<bool> = parts.iter().map(|part| far.receive_part(Time::ZERO, part.clone(), false)).collect();
            assert_eq!(told, [false, false, false, false, true]);
            assert_eq!(far.next_incoming(), Some(long.clone()));
            assert_eq!((far.cost(), far.drops().total()), (0, 0));
        }
    }

    #[test]
    fn parts_that_do_not_fit_together_make_no_datagram() {
        let mut flow = Datagrams::default();
        let part = |number, total, offset, len| Part { number, total, offset, payload: vec![1; len].into() };
        for wrong in [part(0, 70_000, 0, 9), part(0, 9, 5, 5), part(0, 9, u32::MAX, 5), part(0, 9, 0, 0)] {
            assert!(!flow.receive_part(Time::ZERO, wrong, false));
        }
        assert!(!flow.receive_part(Time::ZERO, part(1, 10, 0, 6), false));
        assert!(!flow.receive_part(Time::ZERO, part(1, 10, 0, 6), false), "a repetition");
        assert!(!flow.receive_part(Time::ZERO, part(1, 10, 5, 5), false), "an overlap");
        assert!(!flow.receive_part(Time::ZERO, part(2, 10, 0, 6), false));
        assert!(!flow.receive_part(Time::ZERO, part(3, 4, 2, 2), false), "the second one is given up");
        assert!(flow.receive_part(Time::ZERO, part(3, 4, 0, 2), false));
        assert_eq!((flow.next_incoming().map(|whole| whole.len()), flow.next_incoming()), (Some(4), None));
        assert_eq!((flow.drops().malformed, flow.drops().late, flow.cost()), (5, 1, 0));
    }

    fn part(number: u32, offset: u32, len: usize) -> Part {
        Part { number, total: 10, offset, payload: vec![1; len].into() }
    }

    #[test]
    fn a_late_part_of_an_older_datagram_does_not_end_the_newer_one() {
        for (older, newer) in [(6, 7), (u32::MAX, 0)] {
            let mut flow = Datagrams::default();
            assert!(!flow.receive_part(Time::ZERO, part(older, 0, 5), false));
            assert!(!flow.receive_part(Time::ZERO, part(newer, 0, 5), false));
            assert!(!flow.receive_part(Time::ZERO, part(older, 5, 5), false));
            assert!(flow.receive_part(Time::ZERO, part(newer, 5, 5), false));
            assert_eq!((flow.next_incoming().map(|whole| whole.len()), flow.drops().total()), (Some(10), 1));
        }
    }

    #[test]
    fn parts_are_given_up_after_a_second_and_in_a_full_session() {
        let mut flow = Datagrams::default();
        for at in 0..9 {
            assert!(!flow.receive_part(Time::ZERO, part(7, at, 1), false));
        }
        assert_eq!(flow.cost(), 9 * (ENTRY_COST + 1));
        let later = Time::ZERO.after(PART_WAIT_US_MAX + 1);
        assert!(!flow.receive_part(later, part(7, 9, 1), false), "the others are too old");
        assert_eq!((flow.cost(), flow.drops().total()), (ENTRY_COST + 1, 1));
        assert!(!flow.receive_part(later, part(8, 0, 5), true));
        assert_eq!((flow.cost(), flow.drops().total()), (0, 3));
        // An older number is as good as any after that.
        assert!(!flow.receive_part(later, part(3, 0, 5), false));
        assert!(flow.receive_part(later, part(3, 5, 5), false));
        assert!(!flow.receive_part(later, part(4, 0, 5), false));
        assert!(!flow.receive(later, Bytes::from_static(b"x"), true));
        assert_eq!(flow.cost(), 10 + ENTRY_COST);
    }

    #[test]
    fn a_datagram_of_which_some_parts_are_sent_is_given_up_after_a_second() {
        let mut flow = Datagrams::default();
        let is_part_of = |outgoing: Option<Outgoing>, of: u32| match outgoing {
            Some(Outgoing::Part { number, .. }) => number == of,
            _ => false,
        };
        flow.send(Time::ZERO, vec![1; 3_000].into(), false);
        assert!(is_part_of(flow.next_outgoing(Time::ZERO, 1_000), 0));
        assert!(is_part_of(flow.next_outgoing(Time::ZERO.after(PART_WAIT_US_MAX), 1_000), 0));
        let later = Time::ZERO.after(PART_WAIT_US_MAX + 1);
        flow.send(later, vec![2; 3_000].into(), false);
        assert!(is_part_of(flow.next_outgoing(later, 1_000), 1), "the rest of the first one is sent");
        assert!(flow.give_up_sending() && !flow.give_up_sending() && !flow.has_outgoing());
        assert_eq!((flow.drops().late, flow.cost()), (2, 0));
    }

    #[test]
    fn the_oldest_datagrams_and_late_ones_are_dropped() {
        let mut flow = Datagrams::default();
        (0..80u8).for_each(|n| flow.send(Time::ZERO, Bytes::from(vec![n; 1000]), false));
        let first = next(&mut flow, Time::ZERO).unwrap();
        let dropped = u64::from(first[0]);
        let full =
            DatagramDrops { queue_full: dropped, unsent: dropped, unsent_bytes: 1000 * dropped, ..Default::default() };
        assert!(dropped > 0 && flow.drops() == full);
        assert_eq!((flow.take_drops(), flow.drops()), (full, DatagramDrops::default()));
        flow.send(Time::from_us(60_000), Bytes::from_static(b"x"), false);
        assert_eq!(next(&mut flow, Time::from_us(60_000)).unwrap(), "x");
        assert!(!flow.has_outgoing());
        let late = 79 - dropped;
        let expected = DatagramDrops { late, unsent: late, unsent_bytes: 1000 * late, ..Default::default() };
        assert_eq!(flow.take_drops(), expected);
        flow.send(Time::ZERO, Bytes::from_static(b"xyz"), true);
        assert_eq!(flow.drops(), DatagramDrops { queue_full: 1, unsent: 1, unsent_bytes: 3, ..Default::default() });
    }

    /// Returns the parts of datagrams of these lengths; those of datagram `n` stand together, with `n`.
    fn parts_of(first: u32, lens: &[usize], frame_max: usize) -> (Vec<Bytes>, Vec<(usize, Part)>) {
        let content = |n: usize, len| (0..len).map(|at| (at / 3 + 37 * n) as u8).collect::<Bytes>();
        let whole: Vec<Bytes> = lens.iter().enumerate().map(|(n, len)| content(n, *len)).collect();
        let mut near = Datagrams { next_number: first, ..Datagrams::default() };
        let mut parts = Vec::new();
        for (n, payload) in whole.iter().enumerate() {
            near.send(Time::ZERO, payload.clone(), false);
            while let Some(Outgoing::Part { number, total, offset, payload }) =
                near.next_outgoing(Time::ZERO, frame_max)
            {
                parts.push((n, Part { number, total, offset, payload }));
            }
        }
        (whole, parts)
    }

    fn received(flow: &mut Datagrams) -> Vec<Bytes> {
        std::iter::from_fn(|| flow.next_incoming()).collect()
    }

    prop_compose! {
        fn number_near_the_wrap()(before in 0u32..4, any: u32, near: bool) -> u32 {
            if near { u32::MAX - before } else { any }
        }
    }

    proptest! {
        #[test]
        fn datagrams_whose_parts_are_reordered_and_repeated_arrive_once_and_in_order(
            first in number_near_the_wrap(), lens in vec(1_501usize..9_000, 1..6), frame_max in 200usize..1_500,
            keys in vec(any::<u16>(), 256), repeated in vec(any::<bool>(), 256),
        ) {
            let (whole, mut parts) = parts_of(first, &lens, frame_max);
            let mut key = keys.iter().cycle();
            parts.sort_by_cached_key(|(n, _)| (*n, *key.next().unwrap()));
            let mut far = Datagrams::default();
            for (at, (n, part)) in parts.iter().enumerate() {
                far.receive_part(Time::ZERO, part.clone(), false);
                let is_last = parts.get(at + 1).is_none_or(|(next, _)| next != n);
                if repeated[at % repeated.len()] && !is_last {
                    prop_assert!(!far.receive_part(Time::ZERO, part.clone(), false));
                }
            }
            prop_assert_eq!(received(&mut far), whole);
            prop_assert_eq!((far.cost(), far.drops()), (0, DatagramDrops::default()));
        }

        #[test]
        fn lost_and_late_parts_make_no_datagram_that_was_not_sent(
            first in number_near_the_wrap(), lens in vec(1_501usize..6_000, 1..6), frame_max in 200usize..1_500,
            fates in vec((0u8..9, any::<u16>()), 256),
        ) {
            let (whole, parts) = parts_of(first, &lens, frame_max);
            // A part is lost, or arrives in its place, or some places later.
            let fates = fates.iter().cycle();
            let kept = parts.into_iter().enumerate().zip(fates).filter(|(_, (fate, _))| *fate > 0);
            let late = |fate: u8, key: u16| if fate == 1 { usize::from(key % 30) } else { 0 };
            let mut kept: Vec<_> = kept.map(|((at, (_, part)), (fate, key))| (at + late(*fate, *key), part)).collect();
            kept.sort_by_key(|(at, _)| *at);
            let mut far = Datagrams::default();
            for (_, part) in kept {
                far.receive_part(Time::ZERO, part, false);
            }
            for datagram in received(&mut far) {
                prop_assert!(whole.contains(&datagram), "{} bytes", datagram.len());
            }
        }

        #[test]
        fn arbitrary_parts_are_never_mixed_and_stay_within_the_bounds(
            first in number_near_the_wrap(), parts in vec((0u32..3, 0u32..12, 0u32..12, 0usize..7, 0u64..400_000), 0..200),
        ) {
            let (mut flow, mut now) = (Datagrams::default(), Time::ZERO);
            for (n, total, offset, len, us) in parts {
                now = now.after(us);
                let number = first.wrapping_add(n);
                let part = Part { number, total, offset, payload: vec![number as u8; len].into() };
                flow.receive_part(now, part, false);
                prop_assert!(flow.cost() < QUEUE_BYTES_MAX + PARTS_MAX * (ENTRY_COST + 7));
                for datagram in received(&mut flow) {
                    prop_assert_eq!(datagram.len(), total as usize);
                    prop_assert!(datagram.iter().all(|byte| *byte == number as u8));
                }
            }
        }
    }
}
