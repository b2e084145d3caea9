//! Read buffers that received payloads keep alive, and what copies of small payloads take: the memory of what has arrived.
//!
//! A payload that is kept as a part of its read buffer keeps all of that buffer, so what counts is not the payload but
//! the buffer, once, as long as any payload of it is kept. That is cheap while payloads are taken soon: most of a buffer
//! is then payload. Where a peer makes it dear (one frame for a reader that stopped in each buffer, the rest for others),
//! payloads are copied instead: see [`Pins::keep`].

use slab::Slab;

/// Payloads below this are copied. So are those that are less than an eighth of the buffer that they would keep.
const COPY_BYTES_MAX: usize = 1024;
/// Slack beyond twice the kept payloads: once buffers take more, a payload of less than half of its buffer is copied.
const SLACK_BYTES: u64 = 1024 * 1024;

/// See the module's head.
#[derive(Debug, Default)]
pub(in crate::link) struct Pins {
    buffers: Slab<Buffer>,
    /// Σ of the buffers.
    bytes: u64,
    /// Σ of the payloads that are kept as parts of them.
    payload: u64,
    /// Σ of the capacities of copied small payloads.
    copies: u64,
    /// The buffer that is being read, and its place once a payload of it is kept.
    reading: (usize, Option<Pin>),
}

#[derive(Debug)]
struct Buffer {
    bytes: usize,
    runs: usize,
}

/// Names a buffer of which a payload is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::link) struct Pin(usize);

impl Pins {
    /// A buffer of so many bytes is read from now on.
    pub(in crate::link) const fn read(&mut self, bytes: usize) {
        self.reading = (bytes, None);
    }

    /// Notes that a payload of the buffer that is being read is kept as a part of it. Returns nothing if it is to be
    /// copied: it is small, or it is less than half of the buffer, nothing else of the buffer is kept, and buffers take
    /// more than twice what is kept of them already.
    pub(in crate::link) fn keep(&mut self, len: usize) -> Option<Pin> {
        let (bytes, pin) = self.reading;
        if len < COPY_BYTES_MAX || len < bytes / 8 {
            return None;
        }
        let pin = match pin {
            Some(pin) => pin,
            None if len < bytes / 2 && self.is_dear(bytes, len) => return None,
            None => {
                self.bytes += bytes as u64;
                Pin(self.buffers.insert(Buffer { bytes, runs: 0 }))
            }
        };
        self.reading.1 = Some(pin);
        self.payload += len as u64;
        self.buffers.get_mut(pin.0).into_iter().for_each(|buffer| buffer.runs += 1);
        Some(pin)
    }

    const fn is_dear(&self, bytes: usize, len: usize) -> bool {
        self.bytes + bytes as u64 > 2 * (self.payload + len as u64) + SLACK_BYTES
    }

    /// `len` bytes of a payload that was kept have been taken.
    pub(in crate::link) const fn take(&mut self, len: usize) {
        self.payload -= len as u64;
    }

    /// A payload that was kept is gone; its buffer too, if it was the last.
    pub(in crate::link) fn release(&mut self, pin: Pin) {
        let Some(buffer) = self.buffers.get_mut(pin.0) else { return };
        buffer.runs -= 1;
        if buffer.runs == 0 {
            self.bytes -= buffer.bytes as u64;
            self.buffers.remove(pin.0);
            if self.reading.1 == Some(pin) {
                self.reading.1 = None;
            }
        }
    }

    /// Notes that the capacity of a copy has changed.
    pub(in crate::link) const fn copies_changed(&mut self, before: usize, after: usize) {
        self.copies = self.copies + after as u64 - before as u64;
    }

    /// Returns the memory of received data that was not read yet.
    pub(in crate::link) const fn cost(&self) -> u64 {
        self.bytes + self.copies
    }

    /// Returns the room of all copies.
    pub(in crate::link) const fn copies(&self) -> u64 {
        self.copies
    }

    /// Returns the bytes of all payloads that are kept as parts of buffers.
    pub(in crate::link) const fn payload(&self) -> u64 {
        self.payload
    }

    pub(in crate::link) fn check(&self) {
        let bytes: u64 = self.buffers.iter().map(|(_, buffer)| buffer.bytes as u64).sum();
        assert_eq!(bytes, self.bytes, "bytes of the buffers that are kept");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUFFER: usize = 112 << 10;

    #[test]
    fn a_buffer_counts_once_as_long_as_a_part_of_it_is_kept() {
        let mut pins = Pins::default();
        pins.read(BUFFER);
        let kept: Vec<Pin> = (0..7).map(|_| pins.keep(16 << 10).unwrap()).collect();
        assert_eq!((pins.cost(), pins.payload()), (112 << 10, 112 << 10));
        for pin in kept {
            assert_eq!(pins.cost(), 112 << 10);
            pins.take(16 << 10);
            pins.release(pin);
            pins.check();
        }
        assert_eq!((pins.cost(), pins.payload()), (0, 0));
        assert_eq!(pins.keep(1000), None, "small");
        assert_eq!(pins.keep(BUFFER / 8 - 1), None, "small for this buffer");
    }

    #[test]
    fn a_seventh_of_each_buffer_is_copied_when_that_is_dear_and_a_half_is_kept() {
        let mut pins = Pins::default();
        let mut kept = |len| {
            pins.read(BUFFER);
            let pin = pins.keep(len);
            (pin.is_some(), pins.cost())
        };
        let sevenths = (0..1000).take_while(|_| kept(16 << 10).0).count();
        assert!((10..20).contains(&sevenths), "{sevenths}");
        let before = kept(16 << 10);
        assert_eq!(before, kept(16 << 10), "nothing is kept any more");
        assert!(kept(BUFFER / 2).0, "what is half of what it keeps is cheap");
    }
}
