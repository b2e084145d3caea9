//! Response heads that are larger than the loop shows or takes at once.
//!
//! The loop shows a handler half a buffer at most and takes one buffer at most, 16 and 32 KiB by default. A head of up to
//! [`RESPONSE_HEAD_BYTES_MAX`] bytes is therefore gathered here while it arrives, and sent in pieces after it has been
//! rewritten.
//!
//! This memory is not counted in `--buffer-memory`, so it has a bound of its own: [`PLACES_MAX`] heads in the process,
//! a quarter of them for the clients of one network, and none for longer than the handshake timer runs. A head holds a
//! place from when it is known to be large until its last byte has been taken by the loop.
//!
//! This file must never allocate by a length that the server chose.

use std::sync::{Mutex, PoisonError};

use seaprox::PeerNetwork;

use super::head::{HeadError, HeadScan, RESPONSE_HEAD_BYTES_MAX};

/// A permit to hold one large head. Dropping it gives the place back.
pub struct Place(PeerNetwork);

/// A head that has not arrived whole.
pub struct Gathered {
    bytes: Vec<u8>,
    scan: HeadScan,
    place: Place,
}

/// A head that has been rewritten, on its way to the client.
pub struct Unsent {
    bytes: Vec<u8>,
    sent: usize,
    _place: Place,
}

impl Place {
    /// Takes a place for a client of that network. `None` if its share or all places are in use.
    pub fn take(network: PeerNetwork) -> Option<Place> {
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.iter().filter(|other| **other == network).count();
        if taken.len() >= PLACES_MAX || own >= PLACES_MAX / 4 {
            return None;
        }
        taken.push(network);
        Some(Place(network))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = taken.iter().position(|network| *network == self.0) {
            taken.swap_remove(index);
        }
    }
}

impl Gathered {
    /// Begins a head of which nothing has been gathered yet.
    pub fn new(place: Place) -> Gathered {
        Gathered { bytes: Vec::with_capacity(RESPONSE_HEAD_BYTES_MAX), scan: HeadScan::default(), place }
    }

    /// Adds the next bytes. Returns how many of them belong to the head once it is whole, or `None` if they all do and it
    /// is not whole yet.
    pub fn push(&mut self, input: &[u8]) -> Result<Option<usize>, HeadError> {
        let before = self.bytes.len();
        let whole = self.scan.next(input, RESPONSE_HEAD_BYTES_MAX)?;
        let added = whole.map_or(input.len(), |len| len - before);
        self.bytes.extend_from_slice(input.get(..added).unwrap_or_default());
        Ok(whole.map(|_| added))
    }

    /// Returns the head as it was received, and its place.
    pub fn into_parts(self) -> (Vec<u8>, Place) {
        (self.bytes, self.place)
    }
}

impl Unsent {
    /// A rewritten head of which nothing has been sent.
    pub fn new(bytes: Vec<u8>, place: Place) -> Unsent {
        Unsent { bytes, sent: 0, _place: place }
    }

    /// Sends pieces of at most `piece` bytes until `send` takes no more. Returns true when the last one has been taken.
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

/// The most large heads in the process. Each takes about twice [`RESPONSE_HEAD_BYTES_MAX`] at most, as received and as
/// rewritten: 32 MiB together.
pub const PLACES_MAX: usize = 256;

/// The networks of the clients whose responses hold a place; never more than [`PLACES_MAX`].
static TAKEN: Mutex<Vec<PeerNetwork>> = Mutex::new(Vec::new());

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn network(last: u8) -> PeerNetwork {
        PeerNetwork::V4(Ipv4Addr::new(192, 0, 2, last))
    }

    #[test]
    fn one_network_has_a_quarter_of_the_places_and_gives_them_back() {
        let own: Vec<_> = (0..PLACES_MAX / 4).map(|_| Place::take(network(1)).expect("a place")).collect();
        assert!(Place::take(network(1)).is_none(), "the share is used");
        let others: Vec<_> =
            (2..=4).flat_map(|last| (0..PLACES_MAX / 4).map(move |_| Place::take(network(last)))).collect();
        assert!(others.iter().all(Option::is_some));
        assert!(Place::take(network(5)).is_none(), "all places are used");
        drop(own);
        assert!(Place::take(network(5)).is_some());
        drop(others);
        assert!(TAKEN.lock().unwrap().is_empty());
    }

    #[test]
    fn a_head_is_gathered_whatever_its_pieces() {
        let head = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "a".repeat(20_000));
        let input = [head.as_bytes(), b"body"].concat();
        for piece in [1, 2, 3, 7000, 30_000] {
            let mut gathered = Gathered::new(Place(network(250)));
            let mut taken = 0;
            for bytes in input.chunks(piece) {
                match gathered.push(bytes).expect("a fair head") {
                    None => taken += bytes.len(),
                    Some(count) => {
                        taken += count;
                        break;
                    }
                }
            }
            assert_eq!(taken, head.len());
            assert_eq!(gathered.into_parts().0, head.as_bytes());
        }
        let mut gathered = Gathered::new(Place(network(250)));
        let long = vec![b'a'; 10_000];
        let refused = (0..10).find_map(|_| gathered.push(&long).err()).expect("a refusal");
        assert_eq!(refused.status, 431);
        assert!(gathered.bytes.len() <= RESPONSE_HEAD_BYTES_MAX);
    }
}
