//! Undelivered data: the bytes of a stream that had arrived, up to its end, when its session ended.
//!
//! The receiver of the stream still gets these bytes, however slowly it reads: the peer was told that they arrived, and may
//! be gone. The other direction of such a stream was closed before, so nothing can be written to it.
//!
//! Undelivered data counts as a stream of its key. Otherwise a peer could end its session again and again and have any
//! number of connections here.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes};

use crate::types::peer::PeerKey;

use super::stream::{PIECES_MAX, StreamAt, Taken, gather};

/// The undelivered data of one loop.
#[derive(Default)]
pub(crate) struct Undelivered {
    streams: HashMap<StreamAt, Data>,
    /// Number of streams and bytes of each key. Invariant: no key has 0 streams.
    counts: HashMap<PeerKey, (usize, usize)>,
    /// Bytes of all streams.
    held: usize,
}

/// The undelivered data of one stream.
struct Data {
    key: PeerKey,
    bytes: VecDeque<Bytes>,
}

impl Undelivered {
    /// Keeps the undelivered data of a stream until it is released. Returns false if there is too much already.
    pub fn keep(&mut self, at: StreamAt, key: PeerKey, bytes: Vec<Bytes>) -> bool {
        let count = bytes.iter().map(Bytes::len).sum::<usize>();
        let (_, of_key) = self.counts.get(&key).copied().unwrap_or_default();
        if self.held + count > HELD_BYTES_MAX || of_key + count > HELD_BYTES_MAX / 2 {
            return false;
        }
        self.held += count;
        let (streams, bytes_of_key) = self.counts.entry(key).or_default();
        *streams += 1;
        *bytes_of_key += count;
        self.streams.insert(at, Data { key, bytes: bytes.into() });
        true
    }

    /// Returns the number of streams with undelivered data of a key.
    pub fn count(&self, key: &PeerKey) -> usize {
        self.counts.get(key).map_or(0, |(streams, _)| *streams)
    }

    pub fn contains(&self, at: StreamAt) -> bool {
        !self.streams.is_empty() && self.streams.contains_key(&at)
    }

    /// Offers at most `limit` bytes of a stream to `put`, which returns the number that it took. Returns none if the stream
    /// has no undelivered data.
    pub fn write_to(
        &mut self,
        at: StreamAt,
        limit: usize,
        put: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> Option<Taken> {
        let Data { key, bytes: waiting } = self.streams.get_mut(&at)?;
        let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
        let (count, offered) = gather(waiting.iter().map(|bytes| &bytes[..]), limit, &mut pieces);
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
        while let Some(first) = waiting.front_mut().filter(|_| left > 0) {
            let taken = left.min(first.len());
            first.advance(taken);
            left -= taken;
            if first.is_empty() {
                waiting.pop_front();
            }
        }
        // No event follows: the end is found by the next call.
        Some(Taken::Bytes { put, offered, is_all: false })
    }

    /// Drops the undelivered data of a stream. Returns true if there was any.
    pub fn release(&mut self, at: StreamAt) -> bool {
        let Some(data) = self.streams.remove(&at) else { return false };
        let left = data.bytes.iter().map(Bytes::len).sum::<usize>();
        self.held -= left;
        if let Entry::Occupied(mut count) = self.counts.entry(data.key) {
            let (streams, bytes) = count.get_mut();
            *streams -= 1;
            *bytes -= left;
            if *streams == 0 {
                count.remove();
            }
        }
        true
    }
}

/// Bytes of undelivered data of a loop; one key has at most half of them. A stream with more is reset.
const HELD_BYTES_MAX: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::StreamId;
    use crate::types::id::Id;

    const KEY: PeerKey = [7; 32];
    const OTHER: PeerKey = [8; 32];

    fn at(epoch: u32) -> StreamAt {
        StreamAt { link: Id::from_u64(1 << 32 | 4 << 28).unwrap(), epoch, id: StreamId(1) }
    }

    #[test]
    fn undelivered_data_is_read_in_order_and_then_ends() {
        let mut undelivered = Undelivered::default();
        assert!(undelivered.write_to(at(1), 9, |_| Ok(0)).is_none());
        assert!(undelivered.keep(at(1), KEY, vec![Bytes::from_static(b"abc"), Bytes::from_static(b"defg")]));
        let mut got: Vec<u8> = Vec::new();
        loop {
            let taken = undelivered.write_to(at(1), 5, |pieces| {
                let all: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
                got.extend(&all[..all.len().min(4)]);
                Ok(all.len().min(4))
            });
            match taken {
                Some(Taken::Bytes { put, offered, .. }) => assert!(put <= 4 && offered <= 5),
                Some(Taken::End) => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(got, b"abcdefg");
        assert_eq!(
            (undelivered.count(&KEY), undelivered.count(&[8; 32])),
            (1, 0),
            "the stream counts until it is released"
        );
        assert!(undelivered.release(at(1)) && !undelivered.release(at(1)));
        assert!(undelivered.counts.is_empty() && undelivered.count(&KEY) == 0);
    }

    #[test]
    fn undelivered_data_is_bounded_for_each_key_and_in_total() {
        let mut undelivered = Undelivered::default();
        let half = Bytes::from(vec![0; HELD_BYTES_MAX / 2]);
        assert!(undelivered.keep(at(1), KEY, vec![half.clone()]));
        assert!(!undelivered.keep(at(3), KEY, vec![Bytes::from_static(b"x")]), "one key has at most half");
        assert!(undelivered.keep(at(2), OTHER, vec![half.clone()]));
        assert!(!undelivered.keep(at(3), [9; 32], vec![Bytes::from_static(b"x")]) && !undelivered.contains(at(3)));
        assert!(undelivered.keep(at(4), KEY, Vec::new()), "a stream without bytes costs nothing");
        assert!(matches!(undelivered.write_to(at(1), 10, |_| Ok(10)), Some(Taken::Bytes { put: 10, .. })));
        assert!(undelivered.release(at(1)));
        assert!(undelivered.keep(at(3), KEY, vec![half]));
    }
}
