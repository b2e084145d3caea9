//! Response heads that are larger than the input or the output of a handler.
//!
//! The loop shows a handler at most half a buffer and takes at most one buffer, 16 and 32 KiB by default. So a head of up to
//! [`RESPONSE_HEAD_BYTES_MAX`] bytes is collected here while it arrives, and sent in pieces after it is rewritten.
//!
//! This memory is not part of `--buffer-memory`, so it has its own limit: [`SLOTS_MAX`] heads in the process, a quarter of
//! them for the clients of one network, and none for longer than the handshake timer. A head has a slot from the moment
//! that it is known to be large until the loop has taken its last byte.
//!
//! This file must never allocate a length that the server has chosen.

use std::sync::{Mutex, PoisonError};

use seaprox::PeerNetwork;

use super::head::{HeadError, HeadScan, RESPONSE_HEAD_BYTES_MAX};

/// The right to hold one large head. Dropping it frees the slot.
pub struct Slot(PeerNetwork);

/// A head that is incomplete.
pub struct PartialHead {
    bytes: Vec<u8>,
    scan: HeadScan,
    slot: Slot,
}

/// A rewritten head that is being sent to the client.
pub struct UnsentHead {
    bytes: Vec<u8>,
    sent: usize,
    _slot: Slot,
}

impl Slot {
    /// Takes a slot for a client of a network. Returns `None` if all slots, or those of the network, are in use.
    pub fn take(network: PeerNetwork) -> Option<Slot> {
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.iter().filter(|other| **other == network).count();
        if taken.len() >= SLOTS_MAX || own >= SLOTS_MAX / 4 {
            return None;
        }
        taken.push(network);
        Some(Slot(network))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = taken.iter().position(|network| *network == self.0) {
            taken.swap_remove(index);
        }
    }
}

impl PartialHead {
    /// Creates an empty head.
    pub fn new(slot: Slot) -> PartialHead {
        PartialHead { bytes: Vec::with_capacity(RESPONSE_HEAD_BYTES_MAX), scan: HeadScan::default(), slot }
    }

    /// Appends the next bytes. Returns the number of bytes that belong to the head if it is complete, or `None` if all bytes
    /// belong to it and it is incomplete.
    pub fn push(&mut self, input: &[u8]) -> Result<Option<usize>, HeadError> {
        let before = self.bytes.len();
        let whole = self.scan.next(input, RESPONSE_HEAD_BYTES_MAX)?;
        let added = whole.map_or(input.len(), |len| len - before);
        self.bytes.extend_from_slice(input.get(..added).unwrap_or_default());
        Ok(whole.map(|_| added))
    }

    /// Returns the head as it was received, and its slot.
    pub fn into_parts(self) -> (Vec<u8>, Slot) {
        (self.bytes, self.slot)
    }
}

impl UnsentHead {
    /// Creates a rewritten head of which nothing is sent.
    pub fn new(bytes: Vec<u8>, slot: Slot) -> UnsentHead {
        UnsentHead { bytes, sent: 0, _slot: slot }
    }

    /// Sends pieces of at most `piece` bytes until `send` returns false. Returns true when the whole head is sent.
    pub fn send(&mut self, piece: usize, mut send: impl FnMut(&[u8]) -> bool) -> bool {
        while let Some(rest) = self.bytes.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let now = rest.get(..piece.max(1)).unwrap_or(rest);
            if !send(now) {
                return false;
            }
            self.sent += now.len();
        }
        true
    }
}

/// Large heads in the process. Each takes at most about twice [`RESPONSE_HEAD_BYTES_MAX`], as received and as rewritten: 32
/// MiB in total.
pub const SLOTS_MAX: usize = 256;

/// The networks of the clients whose responses have a slot. Invariant: at most [`SLOTS_MAX`].
static TAKEN: Mutex<Vec<PeerNetwork>> = Mutex::new(Vec::new());

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn network(last: u8) -> PeerNetwork {
        PeerNetwork::V4(Ipv4Addr::new(192, 0, 2, last))
    }

    #[test]
    fn one_network_has_at_most_a_quarter_of_the_slots_and_frees_them() {
        let own: Vec<_> = (0..SLOTS_MAX / 4).map(|_| Slot::take(network(1)).expect("a place")).collect();
        assert!(Slot::take(network(1)).is_none(), "the share is used");
        let others: Vec<_> =
            (2..=4).flat_map(|last| (0..SLOTS_MAX / 4).map(move |_| Slot::take(network(last)))).collect();
        assert!(others.iter().all(Option::is_some));
        assert!(Slot::take(network(5)).is_none(), "all slots are used");
        drop(own);
        assert!(Slot::take(network(5)).is_some());
        drop(others);
        assert!(TAKEN.lock().unwrap().is_empty());
    }

    #[test]
    fn a_head_is_collected_from_pieces_of_any_size() {
        let head = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "a".repeat(20_000));
        let input = [head.as_bytes(), b"body"].concat();
        for piece in [1, 2, 3, 7000, 30_000] {
            let mut partial = PartialHead::new(Slot(network(250)));
            let mut taken = 0;
            for bytes in input.chunks(piece) {
                match partial.push(bytes).expect("a valid head") {
                    None => taken += bytes.len(),
                    Some(count) => {
                        taken += count;
                        break;
                    }
                }
            }
            assert_eq!(taken, head.len());
            assert_eq!(partial.into_parts().0, head.as_bytes());
        }
        let mut partial = PartialHead::new(Slot(network(250)));
        let long = vec![b'a'; 10_000];
        let refused = (0..10).find_map(|_| partial.push(&long).err()).expect("a refusal");
        assert_eq!(refused.status, 431);
        assert!(partial.bytes.len() <= RESPONSE_HEAD_BYTES_MAX);
    }
}
