//! The memory of received data: read buffers that payloads keep alive, and copies of small payloads.
//!
//! A payload that references its read buffer keeps the whole buffer in memory. So each buffer counts once, with its
//! full size, as long as one of its payloads is held. Usually that is cheap: applications take payloads soon, and most
//! of a buffer is payload. A peer can make it expensive with one frame per buffer for a reader that has stopped.
//! Payloads are copied then: see [`Pins::keep`].

use slab::Slab;

/// A shorter payload is copied, as is one of less than an eighth of its read buffer.
const COPY_BYTES_MAX: usize = 1024;
/// The buffer of a driver that reads each record into one of its own, and copies out of those that are less than half full.
const SLOT_BYTES: usize = 16_406;
/// Slack beyond twice the referenced payloads. Above it, a payload of less than half of its buffer is copied.
const SLACK_BYTES: u64 = 1024 * 1024;

/// Counts of the memory of received data.
#[derive(Debug, Default)]
pub(in crate::link) struct Pins {
    buffers: Slab<Buffer>,
    /// Σ of the sizes of the buffers.
    bytes: u64,
    /// Σ of the lengths of payloads that reference a buffer.
    payload: u64,
    /// Σ of the capacities of copies.
    copies: u64,
    /// Size of the current read buffer, and its pin once a payload references it.
    reading: (usize, Option<Pin>),
}

#[derive(Debug)]
struct Buffer {
    bytes: usize,
    runs: usize,
}

/// A handle for a buffer that payloads reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::link) struct Pin(usize);

impl Pins {
    /// Sets the number of bytes of the read that the next payloads are part of. At least half of a slot takes a whole one; any
    /// other read lies in memory of its size.
    pub(in crate::link) const fn read(&mut self, bytes: usize) {
        let is_in_slot = bytes < SLOT_BYTES && bytes >= SLOT_BYTES / 2;
        self.reading = (if is_in_slot { SLOT_BYTES } else { bytes }, None);
    }

    /// Counts a payload that references the current buffer. Returns `None` if the payload is to be copied instead: it
    /// is small, or it is the first of its buffer, shorter than half of it, while buffers take more than twice the
    /// referenced payloads.
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

    /// Counts `len` bytes of a referenced payload as taken.
    pub(in crate::link) const fn take(&mut self, len: usize) {
        self.payload -= len as u64;
    }

    /// Counts a referenced payload as freed, and its buffer too if it was the last.
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

    /// Counts a change of the capacity of a copy.
    pub(in crate::link) const fn copies_changed(&mut self, before: usize, after: usize) {
        self.copies = self.copies + after as u64 - before as u64;
    }

    /// Returns the memory of received data that the application has not taken.
    pub(in crate::link) const fn cost(&self) -> u64 {
        self.bytes + self.copies
    }

    /// Returns the total capacity of copies.
    pub(in crate::link) const fn copies(&self) -> u64 {
        self.copies
    }

    /// Returns the total length of payloads that reference a buffer.
    pub(in crate::link) const fn payload(&self) -> u64 {
        self.payload
    }

    pub(in crate::link) fn check(&self) {
        let bytes: u64 = self.buffers.iter().map(|(_, buffer)| buffer.bytes as u64).sum();
        assert_eq!(bytes, self.bytes, "sizes of the referenced buffers");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUFFER: usize = 112 << 10;

    #[test]
    fn a_buffer_counts_once_while_a_payload_references_it() {
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
    fn a_payload_in_a_slot_counts_as_the_slot() {
        let mut pins = Pins::default();
        let mut cost = |read, len| {
            pins.read(read);
            let pin = pins.keep(len).unwrap();
            let cost = pins.cost();
            pins.take(len);
            pins.release(pin);
            cost
        };
        assert_eq!(cost(16_384, 16_368), 16_406, "a full record");
        assert_eq!(cost(8_203, 8_187), 16_406, "half a slot");
        assert_eq!(cost(8_202, 8_186), 8_202, "memory of its own");
        assert_eq!(cost(20_000, 16_368), 20_000, "a buffer of another kind");
    }

    #[test]
    fn a_seventh_of_each_buffer_is_copied_above_the_slack_and_a_half_is_referenced() {
        let mut pins = Pins::default();
        let mut kept = |len| {
            pins.read(BUFFER);
            let pin = pins.keep(len);
            (pin.is_some(), pins.cost())
        };
        let sevenths = (0..1000).take_while(|_| kept(16 << 10).0).count();
        assert!((10..20).contains(&sevenths), "{sevenths}");
        let before = kept(16 << 10);
        assert_eq!(before, kept(16 << 10), "copies add nothing to the buffers");
        assert!(kept(BUFFER / 2).0, "half of a buffer is referenced");
    }
}
