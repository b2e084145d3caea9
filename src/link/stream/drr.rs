//! Deficit round robin with weights over the streams that have something to send.
//!
//! There are two lists, as in fq_codel (RFC 8290, section 4.2). A stream that becomes busy goes to the new list, which
//! is served first for one quantum: a keystroke overtakes bulk. A stream that has used its quantum goes to the old list.
//!
//! Unlike there, a stream that runs empty waits in the old list for its next bytes, and is new again with the rest of its
//! quantum if they come before its turn. A turn of bulk takes tens of milliseconds on a slow path, and longer while the window
//! is full, so the next keystroke would often wait for it. The quantum bounds what a stream sends ahead of the others in each
//! round, however often it runs empty.
//!
//! Datagrams of a flow must not overtake each other, so a flow waits for one subflow. Each list therefore has a queue for
//! the flows of each subflow, beside the one of the streams. A turn goes to the oldest ticket of the queues that can send
//! now, so its cost depends on the number of queues and not on the number of flows that wait.

use std::collections::VecDeque;

use crate::link::wire::ids::SubflowId;

/// Bytes of frames that a stream of weight 1 may send in a round: one full frame.
pub(in crate::link) const QUANTUM: i32 = 16 * 1024;

/// One of the two lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::link) enum List {
    New,
    Old,
}

/// A queue of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::link) enum Queue {
    /// Streams, which may use any subflow.
    #[default]
    Streams,
    /// Flows that wait for this subflow, or for the fastest one.
    Flows(Option<SubflowId>),
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    membership: Option<List>,
    /// True if it has run empty and waits in the old list for the end of its round.
    is_idle: bool,
    queue: Queue,
    deficit: i32,
    weight: u8,
    /// Rises when the slot is forgotten or changes its queue; a ticket with an older value is void.
    epoch: u32,
}

/// The place of a slot in a queue.
#[derive(Clone, Copy, Debug)]
struct Ticket {
    slot: u32,
    /// The epoch of the slot's entry at that time.
    epoch: u32,
    /// Rises with each ticket.
    order: u64,
}

impl Ticket {
    fn slot(&self) -> usize {
        self.slot as usize
    }
}

/// The queues of one list. The first one is that of the streams.
#[derive(Debug)]
struct Queues(Vec<(Queue, VecDeque<Ticket>)>);

impl Default for Queues {
    fn default() -> Queues {
        Queues(vec![(Queue::Streams, VecDeque::new())])
    }
}

impl Queues {
    fn find(&mut self, queue: Queue) -> Option<&mut VecDeque<Ticket>> {
        self.0.iter_mut().find(|(other, _)| *other == queue).map(|(_, tickets)| tickets)
    }

    /// Returns the tickets of a queue. A new queue takes the place of an empty one.
    fn find_or_add(&mut self, queue: Queue) -> Option<&mut VecDeque<Ticket>> {
        let is_free = |(other, tickets): &(Queue, VecDeque<Ticket>)| *other != Queue::Streams && tickets.is_empty();
        let at = self.0.iter().position(|(other, _)| *other == queue).or_else(|| self.0.iter().position(is_free));
        let at = at.unwrap_or_else(|| {
            self.0.push((queue, VecDeque::new()));
            self.0.len() - 1
        });
        let (name, tickets) = self.0.get_mut(at)?;
        *name = queue;
        Some(tickets)
    }

    /// Returns the oldest ticket of the queues that `is_allowed` accepts, and its queue.
    fn oldest(&self, is_allowed: impl Fn(Queue) -> bool) -> Option<(Queue, Ticket)> {
        let heads = self.0.iter().filter_map(|(queue, tickets)| Some((*queue, *tickets.front()?)));
        heads.filter(|(queue, _)| is_allowed(*queue)).min_by_key(|(_, ticket)| ticket.order)
    }
}

/// The lists. Streams are identified by their slot in the session's table.
#[derive(Debug, Default)]
pub(in crate::link) struct Drr {
    new: Queues,
    old: Queues,
    entries: Vec<Entry>,
    next_order: u64,
}

impl Drr {
    /// Adds a stream that has something to send, as a new one if it is in no list, or idle with a rest of its quantum. A stream
    /// of another queue changes to this one.
    pub(in crate::link) fn enter(&mut self, slot: usize, weight: u8, queue: Queue) {
        if self.entries.len() <= slot {
            self.entries.resize(slot + 1, Entry::default());
        }
        let Some(entry) = self.entries.get_mut(slot) else { return };
        if let Some(list) = entry.membership {
            let was_idle = std::mem::take(&mut entry.is_idle);
            if was_idle && entry.deficit > 0 {
                (entry.queue, entry.epoch) = (queue, entry.epoch.wrapping_add(1));
                self.put(List::New, slot);
            } else if entry.queue != queue {
                (entry.queue, entry.epoch) = (queue, entry.epoch.wrapping_add(1));
                self.push(list, slot);
            }
            return;
        }
        let weight = weight.max(1);
        let deficit = QUANTUM * i32::from(weight);
        *entry = Entry { membership: Some(List::New), is_idle: false, queue, deficit, weight, epoch: entry.epoch };
        self.push(List::New, slot);
    }

    /// Returns the stream whose turn it is in one of the lists, among the queues that `is_allowed` accepts.
    pub(in crate::link) fn head(&mut self, list: List, is_allowed: impl Fn(Queue) -> bool) -> Option<usize> {
        loop {
            let (queue, ticket) = self.queues(list).oldest(&is_allowed)?;
            let (slot, epoch) = (ticket.slot(), ticket.epoch);
            let entry = self.entries.get_mut(slot)?;
            if entry.epoch != epoch {
                self.queues(list).find(queue)?.pop_front();
            } else if entry.deficit > 0 {
                return Some(slot);
            } else {
                entry.deficit += QUANTUM * i32::from(entry.weight);
                self.rotate(slot);
            }
        }
    }

    /// Charges a frame of `bytes` to a stream at the head; `more` is true if the stream has another.
    pub(in crate::link) fn sent(&mut self, slot: usize, bytes: u64, more: bool) {
        if let Some(entry) = self.entries.get_mut(slot) {
            entry.deficit = entry.deficit.saturating_sub(i32::try_from(bytes).unwrap_or(QUANTUM));
        }
        if !more {
            self.leave(slot);
        }
    }

    /// Removes a stream at the head, which has nothing to send. It is idle in the old list for a round before, unless no other
    /// stream waits: its round is over then.
    pub(in crate::link) fn leave(&mut self, slot: usize) {
        let was_idle = self.entries.get_mut(slot).is_some_and(|entry| std::mem::replace(&mut entry.is_idle, true));
        match self.take(slot) {
            Some(_) if !was_idle && self.len(List::New) + self.len(List::Old) > 0 => self.put(List::Old, slot),
            _ => self.set_membership(slot, None),
        }
    }

    /// Moves a stream at the head behind the old list, with its deficit.
    pub(in crate::link) fn rotate(&mut self, slot: usize) {
        if self.take(slot).is_some() {
            self.put(List::Old, slot);
        }
    }

    /// Moves a stream at the head behind its own list, because the subflow that it needs is busy.
    pub(in crate::link) fn skip(&mut self, slot: usize) {
        if let Some(list) = self.take(slot) {
            self.put(list, slot);
        }
    }

    /// Returns the flow that has waited for the longest time since the last call with it, and moves it behind its own
    /// list.
    pub(in crate::link) fn next_flow(&mut self) -> Option<usize> {
        loop {
            let is_flow = |queue| queue != Queue::Streams;
            let oldest =
                [List::New, List::Old].map(|list| self.queues(list).oldest(is_flow).map(|found| (list, found)));
            let (list, (queue, ticket)) = oldest.into_iter().flatten().min_by_key(|(_, (_, ticket))| ticket.order)?;
            if self.entries.get(ticket.slot()).is_some_and(|entry| entry.epoch == ticket.epoch) {
                self.skip(ticket.slot());
                return Some(ticket.slot());
            }
            self.queues(list).find(queue)?.pop_front();
        }
    }

    /// Lets the flows of a subflow that is gone wait for the fastest one.
    pub(in crate::link) fn forget_subflow(&mut self, id: SubflowId) {
        let (old, new) = (Queue::Flows(Some(id)), Queue::Flows(None));
        for list in [List::New, List::Old] {
            let Some(moved) = self.queues(list).find(old).map(std::mem::take) else { continue };
            for ticket in &moved {
                if let Some(entry) = self.entries.get_mut(ticket.slot()).filter(|entry| entry.epoch == ticket.epoch) {
                    entry.queue = new;
                }
            }
            if let Some(tickets) = self.queues(list).find_or_add(new).filter(|_| !moved.is_empty()) {
                tickets.extend(moved);
                tickets.make_contiguous().sort_unstable_by_key(|ticket| ticket.order);
            }
        }
    }

    /// Returns the length of a list, with the slots that were forgotten.
    pub(in crate::link) fn len(&self, list: List) -> usize {
        let Queues(queues) = match list {
            List::New => &self.new,
            List::Old => &self.old,
        };
        queues.iter().map(|(_, tickets)| tickets.len()).sum()
    }

    /// Removes a slot that is free, or is about to be used by another stream.
    pub(in crate::link) fn forget(&mut self, slot: usize) {
        if let Some(entry) = self.entries.get_mut(slot)
            && entry.membership.take().is_some()
        {
            entry.epoch = entry.epoch.wrapping_add(1);
        }
    }

    pub(in crate::link) fn contains(&self, slot: usize) -> bool {
        self.entries.get(slot).is_some_and(|entry| entry.membership.is_some())
    }

    fn queues(&mut self, list: List) -> &mut Queues {
        match list {
            List::New => &mut self.new,
            List::Old => &mut self.old,
        }
    }

    fn set_membership(&mut self, slot: usize, membership: Option<List>) {
        if let Some(entry) = self.entries.get_mut(slot) {
            entry.membership = membership;
        }
    }

    /// Takes the ticket of a slot out of its queue, or makes it void if it is not the first one. Returns its list.
    fn take(&mut self, slot: usize) -> Option<List> {
        let Entry { membership, queue, epoch, .. } = *self.entries.get(slot)?;
        let list = membership?;
        let tickets = self.queues(list).find(queue);
        let is_own = |first: &Ticket| first.slot() == slot && first.epoch == epoch;
        if let Some(tickets) = tickets.filter(|tickets| tickets.front().is_some_and(is_own)) {
            tickets.pop_front();
        } else if let Some(entry) = self.entries.get_mut(slot) {
            entry.epoch = entry.epoch.wrapping_add(1);
        }
        Some(list)
    }

    fn put(&mut self, list: List, slot: usize) {
        self.set_membership(slot, Some(list));
        self.push(list, slot);
    }

    /// Appends a ticket of a slot to its queue. Void tickets are removed from a queue that they have made long.
    fn push(&mut self, list: List, slot: usize) {
        const SLACK: usize = 64;
        let Some(&Entry { epoch, queue, .. }) = self.entries.get(slot) else { return };
        let order = self.next_order;
        self.next_order += 1;
        let queues = match list {
            List::New => &mut self.new,
            List::Old => &mut self.old,
        };
        let Some(tickets) = queues.find_or_add(queue) else { return };
        if tickets.len() > 2 * self.entries.len() + SLACK {
            let entries = &self.entries;
            tickets.retain(|ticket| entries.get(ticket.slot()).is_some_and(|entry| entry.epoch == ticket.epoch));
        }
        let Ok(slot) = u32::try_from(slot) else { return };
        tickets.push_back(Ticket { slot, epoch, order });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FRAME: u64 = 16 * 1024;

    /// Returns the head of the new list, or of the old one.
    fn head(drr: &mut Drr) -> (usize, List) {
        let new = drr.head(List::New, |_| true).map(|slot| (slot, List::New));
        new.or_else(|| drr.head(List::Old, |_| true).map(|slot| (slot, List::Old))).unwrap()
    }

    fn serve_one(drr: &mut Drr, bytes: u64, more: bool) -> usize {
        let (slot, _) = head(drr);
        drr.sent(slot, bytes, more);
        slot
    }

    /// Sends `frames` frames from streams that never run empty. Returns the bytes of each stream.
    fn serve(weights: &[u8], sizes: &[u64], frames: usize) -> Vec<u64> {
        let mut drr = Drr::default();
        weights.iter().enumerate().for_each(|(slot, weight)| drr.enter(slot, *weight, Queue::Streams));
        let mut served = vec![0; weights.len()];
        for _ in 0..frames {
            let (slot, _) = head(&mut drr);
            served[slot] += sizes[slot];
            drr.sent(slot, sizes[slot], true);
        }
        served
    }

    #[test]
    fn a_new_stream_overtakes_bulk_for_one_quantum() {
        let mut drr = Drr::default();
        (0..3).for_each(|slot| drr.enter(slot, 1, Queue::Streams));
        (0..30).for_each(|_| {
            serve_one(&mut drr, FRAME, true);
        });
        drr.enter(7, 1, Queue::Streams);
        assert_eq!(serve_one(&mut drr, FRAME, true), 7);
        assert_ne!(serve_one(&mut drr, FRAME, true), 7);
    }

    #[test]
    fn a_stream_that_runs_empty_is_new_again_with_the_rest_of_its_quantum() {
        let mut drr = Drr::default();
        drr.enter(0, 1, Queue::Streams);
        drr.enter(1, 1, Queue::Streams);
        assert_eq!(serve_one(&mut drr, 6000, false), 0);
        for _ in 0..2 {
            drr.enter(0, 1, Queue::Streams);
            assert_eq!(head(&mut drr), (1, List::New), "the other one was new before");
            drr.skip(1);
            assert_eq!(serve_one(&mut drr, 6000, false), 0);
        }
        drr.enter(0, 1, Queue::Streams);
        assert_eq!(serve_one(&mut drr, FRAME, true), 1);
        assert_eq!(serve_one(&mut drr, FRAME, true), 1, "the quantum of this round is used up");
        assert_eq!(head(&mut drr), (0, List::Old));
        drr.sent(0, 100, false);
        assert_eq!(serve_one(&mut drr, FRAME, true), 1);
        assert_eq!(serve_one(&mut drr, 0, false), 0, "its turn has come");
        assert!(!drr.contains(0));
    }

    #[test]
    fn a_stream_that_runs_empty_alone_waits_in_no_list() {
        let mut drr = Drr::default();
        drr.enter(0, 1, Queue::Streams);
        assert_eq!(serve_one(&mut drr, 6000, false), 0);
        assert!(!drr.contains(0));
        assert_eq!((drr.len(List::New), drr.len(List::Old)), (0, 0));
        drr.enter(0, 1, Queue::Streams);
        drr.enter(1, 1, A);
        assert_eq!(serve_one(&mut drr, 6000, false), 0);
        assert_eq!((drr.contains(0), drr.len(List::Old)), (true, 1), "a flow waits");
    }

    #[test]
    fn a_stream_that_always_runs_empty_gets_no_more_than_its_share() {
        let mut drr = Drr::default();
        drr.enter(0, 1, Queue::Streams);
        let mut served = [0; 2];
        for _ in 0..10_000 {
            drr.enter(1, 1, Queue::Streams);
            let (slot, _) = head(&mut drr);
            let bytes = [FRAME, 700][slot];
            served[slot] += bytes;
            drr.sent(slot, bytes, slot == 0);
        }
        assert!(served[1] * 9 <= served[0] * 10, "{served:?}");
        assert!(served[1] * 2 >= served[0], "{served:?}");
    }

    #[test]
    fn a_forgotten_slot_starts_as_new() {
        let mut drr = Drr::default();
        drr.enter(0, 1, Queue::Streams);
        drr.enter(1, 1, Queue::Streams);
        serve_one(&mut drr, FRAME, true);
        drr.forget(0);
        assert!(!drr.contains(0));
        drr.enter(0, 3, Queue::Streams);
        assert_eq!(serve_one(&mut drr, FRAME, true), 1);
        assert_eq!(head(&mut drr), (0, List::New));
    }

    const A: Queue = Queue::Flows(Some(SubflowId(1)));

    #[test]
    fn flows_keep_their_place_while_their_queue_waits() {
        let mut drr = Drr::default();
        drr.enter(0, 1, A);
        drr.enter(1, 1, Queue::Streams);
        drr.enter(2, 1, A);
        drr.enter(3, 1, Queue::Flows(None));
        assert_eq!(drr.head(List::New, |queue| queue != A), Some(1));
        drr.sent(1, 100, false);
        assert_eq!(drr.head(List::New, |queue| queue != A), Some(3));
        assert_eq!(drr.head(List::New, |_| true), Some(0));
        drr.enter(0, 1, Queue::Flows(None));
        assert_eq!(drr.head(List::New, |queue| queue == A), Some(2), "slot 0 has changed its queue");
        drr.forget_subflow(SubflowId(1));
        assert_eq!(drr.head(List::New, |queue| queue == Queue::Flows(None)), Some(2), "the oldest ticket goes first");
        assert_eq!([(); 4].map(|()| drr.next_flow()), [2, 3, 0, 2].map(Some));
    }

    #[test]
    fn void_tickets_of_a_queue_that_waits_are_removed() {
        let mut drr = Drr::default();
        for _ in 0..10_000 {
            drr.enter(3, 1, A);
            drr.forget(3);
        }
        drr.enter(3, 1, A);
        assert!(drr.len(List::New) < 100, "{} tickets", drr.len(List::New));
        assert_eq!(drr.head(List::New, |_| true), Some(3));
    }

    proptest! {
        /// Each stream gets its share of the total by weight, within a quantum and a frame per round.
        #[test]
        fn streams_share_by_weight(weights in proptest::collection::vec(1u8..5, 2..6), seed in proptest::collection::vec(1u64..=FRAME, 6)) {
            let served = serve(&weights, &seed, 4000);
            let total: u64 = served.iter().sum();
            let parts: u64 = weights.iter().map(|w| u64::from(*w)).sum();
            for (slot, bytes) in served.iter().enumerate() {
                let share = total * u64::from(weights[slot]) / parts;
                let slack = 2 * u64::from(weights[slot]) * QUANTUM as u64 + FRAME;
                prop_assert!(bytes.abs_diff(share) <= slack, "slot {slot}: {bytes} of {share}, {served:?}");
            }
        }
    }
}
