//! The rest: what had arrived of a stream, up to its end, when its session ended.
//!
//! It is owed to whom the stream was for, however slowly that takes it: the peer has been told that it arrived, and may be
//! gone since. Nothing can be written to such a stream; that direction was over before.
//!
//! A rest still counts as a stream of the key that it came from. Otherwise a peer would only have to end its session to have
//! as many connections here as it likes.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes};

use crate::types::peer::PeerKey;

use super::stream::{PIECES_MAX, StreamAt, Taken, gather};

/// The rests of a loop's streams.
#[derive(Default)]
pub(crate) struct Rests {
    rests: HashMap<StreamAt, Rest>,
    /// Number and bytes of the rests of each key. Invariant: no key has 0 rests.
    counts: HashMap<PeerKey, (usize, usize)>,
    /// Bytes in `rests`.
    held: usize,
}

/// What is left of one stream.
struct Rest {
    key: PeerKey,
    bytes: VecDeque<Bytes>,
}

impl Rests {
    /// Keeps a rest of a peer's until it is taken and released. Not if there is too much of that already.
    pub fn keep(&mut self, at: StreamAt, key: PeerKey, bytes: Vec<Bytes>) -> bool {
        let count = bytes.iter().map(Bytes::len).sum::<usize>();
        let (_, of_key) = self.counts.get(&key).copied().unwrap_or_default();
        if self.held + count > HELD_BYTES_MAX || of_key + count > HELD_BYTES_MAX / 2 {
            return false;
        }
        self.held += count;
        let (rests, bytes_of_key) = self.counts.entry(key).or_default();
        *rests += 1;
        *bytes_of_key += count;
        self.rests.insert(at, Rest { key, bytes: bytes.into() });
        true
    }

    /// How many there are of a key's.
    pub fn count(&self, key: &PeerKey) -> usize {
        self.counts.get(key).map_or(0, |(rests, _)| *rests)
    }

    pub fn contains(&self, at: StreamAt) -> bool {
        !self.rests.is_empty() && self.rests.contains_key(&at)
    }

    /// Offers a rest, at most `limit` bytes of it, to `put`, which says how many it took. Nothing if there is none of it.
    pub fn write_to(
        &mut self,
        at: StreamAt,
        limit: usize,
        put: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> Option<Taken> {
        let Rest { key, bytes: rest } = self.rests.get_mut(&at)?;
        let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
        let (count, offered) = gather(rest.iter().map(|bytes| &bytes[..]), limit, &mut pieces);
        if offered == 0 {
            return Some(Taken::End);
        }
        let put = match put(&pieces[..count]) {
            Ok(put) => put,
            Err(error) => return Some(Taken::Failed(error)),
        };
        self.held -= put;
        self.counts.get_mut(key).into_iter().for_each(|(_, bytes)| *bytes -= put);
        let mut left = put;
        while let Some(first) = rest.front_mut().filter(|_| left > 0) {
            let taken = left.min(first.len());
            first.advance(taken);
            left -= taken;
            if first.is_empty() {
                rest.pop_front();
            }
        }
        Some(Taken::Bytes { put, offered })
    }

    /// Nobody wants it any more. Whether there was one.
    pub fn release(&mut self, at: StreamAt) -> bool {
        let Some(rest) = self.rests.remove(&at) else { return false };
        let left = rest.bytes.iter().map(Bytes::len).sum::<usize>();
        self.held -= left;
        if let Entry::Occupied(mut count) = self.counts.entry(rest.key) {
            let (rests, bytes) = count.get_mut();
            *rests -= 1;
            *bytes -= left;
            if *rests == 0 {
                count.remove();
            }
        }
        true
    }
}

/// Bytes of all rests of a loop, of which one key has half at most. A stream whose rest is beyond that is cut.
const HELD_BYTES_MAX: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::StreamId;
    use crate::types::id::Id;

    const KEY: PeerKey = [7; 32];
    const OTHER: PeerKey = [8; 32];

    fn at(epoch: u32) -> StreamAt {
        StreamAt { link: Id::from_u64(1 << 32).unwrap(), epoch, id: StreamId(1) }
    }

    #[test]
    fn a_rest_is_taken_in_order_and_then_over() {
        let mut rests = Rests::default();
        assert!(rests.write_to(at(1), 9, |_| Ok(0)).is_none());
        assert!(rests.keep(at(1), KEY, vec![Bytes::from_static(b"abc"), Bytes::from_static(b"defg")]));
        let mut got: Vec<u8> = Vec::new();
        loop {
            let taken = rests.write_to(at(1), 5, |pieces| {
                let all: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
                got.extend(&all[..all.len().min(4)]);
                Ok(all.len().min(4))
            });
            match taken {
                Some(Taken::Bytes { put, offered }) => assert!(put <= 4 && offered <= 5),
                Some(Taken::End) => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(got, b"abcdefg");
        assert_eq!((rests.count(&KEY), rests.count(&[8; 32])), (1, 0), "it counts until it is released");
        assert!(rests.release(at(1)) && !rests.release(at(1)));
        assert!(rests.counts.is_empty() && rests.count(&KEY) == 0);
    }

    #[test]
    fn what_they_hold_is_bounded_and_given_back() {
        let mut rests = Rests::default();
        let half = Bytes::from(vec![0; HELD_BYTES_MAX / 2]);
        assert!(rests.keep(at(1), KEY, vec![half.clone()]));
        assert!(!rests.keep(at(3), KEY, vec![Bytes::from_static(b"x")]), "half is the most for one key");
        assert!(rests.keep(at(2), OTHER, vec![half.clone()]));
        assert!(!rests.keep(at(3), [9; 32], vec![Bytes::from_static(b"x")]) && !rests.contains(at(3)));
        assert!(rests.keep(at(4), KEY, Vec::new()), "an end alone costs nothing");
        assert!(matches!(rests.write_to(at(1), 10, |_| Ok(10)), Some(Taken::Bytes { put: 10, .. })));
        assert!(rests.release(at(1)));
        assert!(rests.keep(at(3), KEY, vec![half]));
    }
}
