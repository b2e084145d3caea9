//! Hooks: code of the caller that sees the bytes which a connection relays, and may change them.
//!
//! ```text
//!   set_hook --> connected --> data(source) / data(dest), as bytes arrive --> fin(source) / fin(dest) --> ended
//! ```
//! A connection without a hook pays nothing for them. A connection with one is copied, never spliced. Bytes of a handler, such
//! as the reply of a front end, are not relayed, so no hook sees them.
//!
//! # Bounds
//! Each direction has one block of [`Limits::block_bytes`](crate::Limits::block_bytes). One half of it takes the input, the
//! other half what the hook writes:
//! * [`Transit::room`] is half a block at the beginning of each call. A hook that has more to write writes as much as fits, and
//!   is called again when the other side has taken it.
//! * A hook that needs more input to go on consumes nothing, and is called again with more. A hook that consumes and writes
//!   nothing of half a block ends the connection with [`Reason::ProtocolError`], as a handler does.
//!
//! While the other side takes no bytes, the hook is not called for that direction, and nothing is read.

use crate::relay::side::Role;
use crate::types::reason::Reason;

/// The hook of a connection, set by [`ConnectionMut::set_hook`](crate::ConnectionMut::set_hook). A panic in it ends its own
/// connection with [`Reason::Internal`]. It runs in the middle of a turn, so it should do little and must not block.
pub trait Hook {
    /// Called when the connection begins to relay; for a connection with several dests one after another, with each of them.
    fn connected(&mut self) {}

    /// Called with bytes that `from` has sent. Bytes that are written to `transit` go to the other side.
    ///
    /// # Errors
    /// An error ends the connection at once with that reason. Bytes that were written before go to the other side if it takes
    /// them at once.
    fn data(&mut self, from: Role, transit: &mut Transit<'_>) -> Result<(), Reason>;

    /// Called when `from` has sent its FIN, with the input that [`Hook::data`] has left. The other side gets the FIN after the
    /// bytes that are written now. Unless overridden, the input that is left passes unchanged.
    ///
    /// It is called again until all input is consumed, or until it neither consumes nor writes anything. Input that is left
    /// then is dropped. It is not called after a reset: bytes that the hook has held back are lost with it.
    ///
    /// # Errors
    /// As for [`Hook::data`].
    fn fin(&mut self, _from: Role, transit: &mut Transit<'_>) -> Result<(), Reason> {
        transit.pass(usize::MAX);
        Ok(())
    }

    /// Called once, when the connection is over. No other call follows.
    fn ended(&mut self, _reason: Reason) {}
}

/// Bytes on their way through a hook: the input, and the room for what it writes.
#[derive(Debug)]
pub struct Transit<'a> {
    input: &'a [u8],
    room: &'a mut [u8],
    consumed: usize,
    written: usize,
    calls_again: bool,
}

impl<'a> Transit<'a> {
    pub(crate) fn new(input: &'a [u8], room: &'a mut [u8]) -> Transit<'a> {
        Transit { input, room, consumed: 0, written: 0, calls_again: false }
    }

    /// Returns the input that is not consumed yet.
    pub fn input(&self) -> &'a [u8] {
        &self.input[self.consumed..]
    }

    /// Returns the number of bytes that may still be written in this call.
    pub fn room(&self) -> usize {
        self.room.len() - self.written
    }

    /// Consumes the first `count` bytes of the input, or all of it if there are fewer.
    pub fn consume(&mut self, count: usize) {
        self.consumed += count.min(self.input.len() - self.consumed);
    }

    /// Writes bytes, as many as there is room for. Returns their number.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.room());
        self.room[self.written..self.written + count].copy_from_slice(&bytes[..count]);
        self.written += count;
        count
    }

    /// Passes the first `count` bytes of the input unchanged, as many as there are and as there is room for: writes and
    /// consumes them. Returns their number.
    pub fn pass(&mut self, count: usize) -> usize {
        let input = self.input();
        let passed = self.write(&input[..count.min(input.len())]);
        self.consumed += passed;
        passed
    }

    /// Passes the input with each byte changed, as many bytes as there is room for. Returns their number.
    pub fn pass_each(&mut self, mut change: impl FnMut(u8) -> u8) -> usize {
        let start = self.written;
        let passed = self.pass(usize::MAX);
        self.room[start..self.written].iter_mut().for_each(|byte| *byte = change(*byte));
        passed
    }

    /// Asks for another call when the other side has taken the written bytes, even if all input is consumed. This is for hooks
    /// that have more to write than there is room for. It has no effect if nothing was written in this call.
    pub fn call_again(&mut self) {
        self.calls_again = true;
    }

    /// Returns the consumed bytes, the written bytes, and true if the hook has asked for another call.
    pub(crate) fn done(self) -> (usize, usize, bool) {
        (self.consumed, self.written, self.calls_again)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transit_takes_as_much_as_fits() {
        let mut room = [0; 4];
        let mut transit = Transit::new(b"abcdef", &mut room);
        assert_eq!((transit.pass(2), transit.room()), (2, 2));
        assert_eq!((transit.write(b"xyz"), transit.room()), (2, 0));
        assert_eq!((transit.pass(9), transit.input()), (0, &b"cdef"[..]));
        transit.consume(9);
        transit.call_again();
        assert_eq!((transit.input(), transit.done()), (&b""[..], (6, 4, true)));
        assert_eq!(&room, b"abxy");
        let mut transit = Transit::new(b"abc", &mut room);
        assert_eq!(transit.pass_each(|byte| byte + 1), 3);
        assert_eq!(transit.done(), (3, 3, false));
        assert_eq!(&room[..3], b"bcd");
    }
}
