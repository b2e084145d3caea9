//! The content of the streams: bytes that follow from the stream, the direction and the offset, so that a reader can
//! check them without a copy of the sent bytes.

use std::sync::LazyLock;

use bytes::Bytes;

use super::rng::Rng;

/// The period of the pattern. It is prime, so that no power of two is a multiple of it.
const PERIOD: usize = 65_521;
/// The longest slice of one call, in bytes.
pub const SLICE_MAX: usize = 65_536;

static TABLE: LazyLock<Bytes> = LazyLock::new(|| {
    let mut rng = Rng::new(42);
    let once: Vec<u8> = (0..PERIOD).map(|_| rng.next() as u8).collect();
    Bytes::from([once.as_slice(), &once, &once].concat())
});

fn start(salt: u64, offset: u64) -> usize {
    ((salt.wrapping_mul(7919) % PERIOD as u64 + offset % PERIOD as u64) % PERIOD as u64) as usize
}

/// Returns bytes `offset..offset + len` of the stream with this salt, without a copy. `len` is cut to [`SLICE_MAX`].
pub fn slice(salt: u64, offset: u64, len: usize) -> Bytes {
    let start = start(salt, offset);
    TABLE.slice(start..start + len.min(SLICE_MAX))
}

/// Returns true if `bytes` are the stream's bytes at `offset`.
pub fn matches(salt: u64, mut offset: u64, bytes: &[u8]) -> bool {
    bytes.chunks(SLICE_MAX).all(|part| {
        let same = slice(salt, offset, part.len()) == part;
        offset += part.len() as u64;
        same
    })
}
