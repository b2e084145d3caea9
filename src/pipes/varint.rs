//! Lengths of one to four bytes: seven bits a byte, the lowest first, and the high bit set in all bytes but the last.
//!
//! | value | bytes |
//! | --- | --- |
//! | 0 | `00` |
//! | 127 | `7f` |
//! | 128 | `80 01` |
//! | 16383 | `ff 7f` |
//! | 2^28 - 1 | `ff ff ff 7f` |
//!
//! Each value has one encoding. The link protocol has no such number: its lengths are 16 bits, big-endian.

use super::error::PipeError;

/// The largest value: 2^28 - 1.
pub const VALUE_MAX: usize = (1 << 28) - 1;
/// The most bytes of an encoded value.
pub const BYTES_MAX: usize = 4;

/// Returns the encoding of a value, and the number of its bytes.
///
/// # Errors
/// [`PipeError::TooLong`] if the value is larger than [`VALUE_MAX`].
pub fn encode(value: usize) -> Result<([u8; BYTES_MAX], usize), PipeError> {
    if value > VALUE_MAX {
        return Err(PipeError::TooLong { bytes: value, limit: VALUE_MAX });
    }
    let (mut bytes, mut rest, mut count) = ([0; BYTES_MAX], value, 0);
    for byte in &mut bytes {
        (*byte, rest, count) = ((rest & 0x7f) as u8, rest >> 7, count + 1);
        if rest == 0 {
            break;
        }
        *byte |= 0x80;
    }
    Ok((bytes, count))
}

/// Returns the value at the front of `bytes` and the number of its bytes, or none if more bytes are needed.
///
/// # Errors
/// [`PipeError::InvalidLength`] if the encoding is over-long, which means that its last byte adds nothing, or has more than
/// [`BYTES_MAX`] bytes.
pub fn decode(bytes: &[u8]) -> Result<Option<(usize, usize)>, PipeError> {
    let mut value = 0;
    for (place, byte) in bytes.iter().take(BYTES_MAX).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            let is_over_long = *byte == 0 && place > 0;
            return if is_over_long { Err(PipeError::InvalidLength) } else { Ok(Some((value, place + 1))) };
        }
    }
    if bytes.len() >= BYTES_MAX { Err(PipeError::InvalidLength) } else { Ok(None) }
}
