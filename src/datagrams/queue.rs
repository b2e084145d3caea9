//! The datagrams of a flow that wait while its name is resolved or its stream opens.
//!
//! The first datagrams of an exchange matter most, such as those of a handshake, so a full queue refuses the new ones. All
//! queues of a loop share a limit.

use std::collections::VecDeque;

use quinn_udp::EcnCodepoint;

/// Datagrams that wait for the target of one flow.
#[derive(Debug, Default)]
pub(crate) struct WaitingQueue {
    entries: VecDeque<Waiting>,
    bytes: usize,
}

/// One datagram that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub payload: Box<[u8]>,
    pub ecn: Option<EcnCodepoint>,
}

impl WaitingQueue {
    /// Appends a datagram, and adds its cost to `used`, the cost of all queues of the loop. Returns false if the limits of
    /// the flow or of the loop forbid it. The only datagram of a flow may have any size.
    pub fn push(&mut self, payload: &[u8], ecn: Option<EcnCodepoint>, used: &mut usize) -> bool {
        let is_first = self.entries.is_empty();
        let is_full = self.entries.len() >= COUNT_MAX || self.bytes + payload.len() > BYTES_MAX;
        if (is_full && !is_first) || *used + payload.len() + ENTRY_COST > BYTES_OF_ALL_MAX {
            return false;
        }
        *used += payload.len() + ENTRY_COST;
        self.bytes += payload.len();
        self.entries.push_back(Waiting { payload: payload.into(), ecn });
        true
    }

    /// Takes the oldest datagram.
    pub fn pop(&mut self, used: &mut usize) -> Option<Waiting> {
        let entry = self.entries.pop_front()?;
        self.bytes -= entry.payload.len();
        *used -= entry.payload.len() + ENTRY_COST;
        Some(entry)
    }

    /// Drops all datagrams, and returns their number.
    pub fn clear(&mut self, used: &mut usize) -> u64 {
        let count = self.entries.len() as u64;
        while self.pop(used).is_some() {}
        count
    }
}

/// Datagrams of one flow that may wait.
const COUNT_MAX: usize = 8;
/// Bytes of one flow that may wait, unless it is one datagram.
const BYTES_MAX: usize = 8 << 10;
/// Bytes of all flows of a loop that may wait.
const BYTES_OF_ALL_MAX: usize = 4 << 20;
/// Cost of a datagram beyond its bytes.
const ENTRY_COST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_refuses_the_newest_datagram() {
        let (mut queue, mut used) = (WaitingQueue::default(), 0);
        for number in 0..COUNT_MAX as u8 {
            assert!(queue.push(&[number; 100], None, &mut used));
        }
        assert!(!queue.push(b"one more", None, &mut used));
        assert_eq!(queue.pop(&mut used).unwrap().payload[0], 0);
        assert!(queue.push(b"one more", None, &mut used));
        assert!(!queue.push(b"", None, &mut used), "the number is bounded too");
        assert_eq!(queue.clear(&mut used), COUNT_MAX as u64);
        assert_eq!((used, queue.bytes), (0, 0));
    }

    #[test]
    fn one_large_datagram_may_wait_alone() {
        let (mut queue, mut used) = (WaitingQueue::default(), 0);
        assert!(queue.push(&[1; 65_507], None, &mut used));
        assert!(!queue.push(b"x", None, &mut used));
        let mut others: Vec<WaitingQueue> = Vec::new();
        while others.len() < 1000 {
            let mut other = WaitingQueue::default();
            if !other.push(&[1; 65_507], None, &mut used) {
                break;
            }
            others.push(other);
        }
        assert!(used <= BYTES_OF_ALL_MAX && others.len() < 64, "{} queues of {used} bytes", others.len());
    }
}
