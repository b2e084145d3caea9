//! Memory of the caller: the pointers that functions take. The header demands that each is null where it may be, or valid and
//! of the length that stands beside it; this file is where they are followed.

use std::ffi::{c_char, c_int};
use std::slice;

use crate::error::Error;

/// A pointer to bytes that the caller lends for the call.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Bytes(*const u8);

/// A pointer to text that the caller lends for the call.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Chars(*const c_char);

/// A pointer to a result, or null if the caller does not want it.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Out<T>(*mut T);

/// A pointer to a buffer that is filled.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Buffer(*mut c_char);

/// A pointer to a struct that begins with its size, or null for a struct of zeros.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Struct<T>(*const T);

/// A struct of the header that begins with its size in bytes, a `uint32_t`.
///
/// # Safety
/// It is `repr(C)`, its first field is a `u32`, a struct of zeros is valid, and [`Versioned::EARLIER`] has sizes of earlier versions
/// and no other: any other size would cut a field, and half a pointer is no pointer.
pub unsafe trait Versioned: Copy {
    /// The sizes of the struct in earlier versions of the header.
    const EARLIER: &'static [usize] = &[];

    /// Returns what stands in the field that has no meaning yet, which must be 0.
    fn reserved(&self) -> u32 {
        0
    }
}

impl Bytes {
    /// Returns the bytes. Null is no bytes if the length is 0.
    pub fn of<'a>(self, len: usize) -> Result<&'a [u8], Error> {
        if len == 0 {
            return Ok(&[]);
        }
        if self.0.is_null() || len > isize::MAX as usize {
            return Err(Error::invalid("a pointer is null, or a length is too large"));
        }
        // SAFETY: the caller lends this many bytes for the call, and the result is dropped with it.
        Ok(unsafe { slice::from_raw_parts(self.0, len) })
    }
}

impl Chars {
    /// Returns the text.
    pub fn of<'a>(self, len: usize) -> Result<&'a str, Error> {
        let bytes = Bytes(self.0.cast()).of(len)?;
        std::str::from_utf8(bytes).map_err(|_| Error::invalid("a text is not UTF-8"))
    }

    /// Returns the text; none if it is empty.
    pub fn some<'a>(self, len: usize) -> Result<Option<&'a str>, Error> {
        self.of(len).map(|text| Some(text).filter(|text| !text.is_empty()))
    }
}

impl From<*const c_char> for Chars {
    fn from(pointer: *const c_char) -> Chars {
        Chars(pointer)
    }
}

impl From<*const u8> for Bytes {
    fn from(pointer: *const u8) -> Bytes {
        Bytes(pointer)
    }
}

impl<T> From<*const T> for Struct<T> {
    fn from(pointer: *const T) -> Struct<T> {
        Struct(pointer)
    }
}

impl<T> Out<T> {
    /// Writes the result.
    pub fn set(self, value: T) {
        if !self.0.is_null() {
            // SAFETY: the caller lends room for one value. It may lie anywhere in memory of the caller.
            unsafe { self.0.write_unaligned(value) };
        }
    }
}

impl<T: Copy + Default> Out<T> {
    /// Writes the result, or a zero in place of an error, which is returned.
    pub fn give(self, result: Result<T, Error>) -> Result<c_int, Error> {
        self.set(result.as_ref().copied().unwrap_or_default());
        result.map(|_| 0)
    }
}

impl Buffer {
    /// Copies a text, as much as there is room for, and a zero behind it. Tells the whole length without the zero.
    pub fn fill(self, capacity: usize, len: Out<usize>, text: &[u8]) {
        len.set(text.len());
        if self.0.is_null() || capacity == 0 {
            return;
        }
        let count = whole_characters(text, capacity - 1);
        // SAFETY: the caller lends `capacity` bytes, of which at most `count + 1` are written.
        unsafe {
            self.0.copy_from_nonoverlapping(text.as_ptr().cast(), count);
            self.0.add(count).write(0);
        }
    }
}

impl<T: Versioned> Struct<T> {
    /// Returns true if there is no struct.
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// Reads the struct. A shorter one is of a program for an earlier version: what it lacks is zero. A longer one is of a
    /// program for a later version, which may use it if all that this version does not know is zero. No other size can be meant.
    pub fn read(self) -> Result<T, Error> {
        // SAFETY: zeros are valid, says the trait.
        let mut value: T = unsafe { std::mem::zeroed() };
        if self.0.is_null() {
            return Ok(value);
        }
        // SAFETY: the caller lends a struct that begins with its size.
        let size = unsafe { self.0.cast::<u32>().read_unaligned() } as usize;
        if !T::EARLIER.contains(&size) && !(size_of::<T>()..=SIZE_MAX).contains(&size) {
            return Err(Error::invalid("the first field of a struct must be its size"));
        }
        let bytes = Bytes(self.0.cast()).of(size)?;
        let known = size.min(size_of::<T>());
        if bytes[known..].iter().any(|byte| *byte != 0) {
            return Err(Error::invalid("a struct has fields that this version does not know"));
        }
        // SAFETY: `known` bytes are within both.
        unsafe { std::ptr::from_mut(&mut value).cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), known) };
        if value.reserved() != 0 {
            return Err(Error::invalid("a reserved field must be 0"));
        }
        Ok(value)
    }
}

/// Returns the length of the longest part of a text from its beginning that has at most this many bytes, and no part of a
/// character.
fn whole_characters(text: &[u8], most: usize) -> usize {
    if text.len() <= most {
        return text.len();
    }
    let is_inside = |byte: u8| byte & 0xc0 == 0x80;
    (0..=most).rev().find(|at| !is_inside(text[*at])).unwrap_or(0)
}

/// The longest struct of any version.
const SIZE_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Sample {
        size: u32,
        a: u32,
        b: u64,
    }

    // SAFETY: integers in repr(C), the size first.
    unsafe impl Versioned for Sample {
        const EARLIER: &'static [usize] = &[8];
    }

    fn read(words: &[u32]) -> Result<(u32, u64), i32> {
        let sample = Struct(words.as_ptr().cast::<Sample>()).read();
        sample.map(|sample| (sample.a, sample.b)).map_err(|error| error.code)
    }

    #[test]
    fn a_struct_of_another_version_is_read_as_far_as_it_is_known() {
        assert_eq!(read(&[16, 1, 2, 0]), Ok((1, 2)));
        assert_eq!(read(&[8, 1]), Ok((1, 0)), "an earlier one");
        assert_eq!(read(&[20, 1, 2, 0, 0]), Ok((1, 2)), "a later one whose new field is not used");
        assert_eq!(read(&[20, 1, 2, 0, 7]), Err(-22), "a later one whose new field is used");
        for size in (0..8).chain(9..16).chain([4097, u32::MAX]) {
            assert_eq!(read(&[size, 1, 2, 0]), Err(-22), "{size}");
        }
    }

    #[test]
    fn a_buffer_is_filled_as_far_as_it_reaches_and_ends_with_a_zero() {
        let (mut room, mut len) = ([b'x' as c_char; 4], 0);
        Buffer(room.as_mut_ptr()).fill(3, Out(&mut len), b"abcd");
        assert_eq!((len, room.map(|byte| byte as u8)), (4, *b"ab\0x"));
        Buffer(room.as_mut_ptr()).fill(4, Out(&mut len), "aß€".as_bytes());
        assert_eq!((len, room.map(|byte| byte as u8)), (6, [b'a', 0xc3, 0x9f, 0]), "no part of the last character");
        Buffer(room.as_mut_ptr()).fill(3, Out(&mut len), "aß€".as_bytes());
        assert_eq!(room.map(|byte| byte as u8)[..2], [b'a', 0], "no part of the second one");
        Buffer(std::ptr::null_mut()).fill(0, Out(std::ptr::null_mut()), b"abcd");
    }
}
