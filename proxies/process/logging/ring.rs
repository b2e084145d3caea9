//! A bounded ring of lines, and the thread that writes them to a descriptor.
//!
//! ```text
//!   any thread --push--> pending (bounded) --take all--> batch --write, may block--> stderr or stdout
//!                          \--full--> dropped and counted; the count is written as soon as there is room
//! ```
//! [`Ring::push`] never waits for the reader of the descriptor and never fails: it takes a lock that is held for a copy, and
//! wakes the thread only if the thread waits. The thread pauses between two batches, so that a busy process makes one system
//! call in a few milliseconds instead of one per line. It owns a duplicate of the descriptor, so that a blocking write holds
//! no lock of the standard library.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// A ring whose thread runs until the process ends.
pub struct Ring {
    state: Mutex<State>,
    /// Wakes the writing thread.
    work: Condvar,
    /// Signals that everything is written.
    idle: Condvar,
    /// Limit of the bytes that wait or are being written.
    bytes_max: usize,
}

/// Returns the line that reports a number of dropped lines.
pub type FormatDropped = Box<dyn Fn(u64) -> String + Send>;

#[derive(Default)]
struct State {
    pending: Vec<u8>,
    /// Bytes that the thread is writing.
    in_flight: usize,
    /// Dropped lines that are not reported yet.
    dropped: u64,
    /// True if the last write failed. Dropped lines are then reported with the next line, not before.
    has_failed: bool,
    /// True if the thread waits to be woken.
    is_waiting: bool,
    /// True while a caller of `flush` waits: the thread then makes no pauses.
    is_flushing: bool,
}

impl Ring {
    /// Starts a thread with this name that writes to `out`.
    ///
    /// # Errors
    /// Fails if no thread can be started.
    pub fn start(name: &str, out: File, bytes_max: usize, format_dropped: FormatDropped) -> io::Result<Arc<Ring>> {
        let (state, work, idle) = (Mutex::default(), Condvar::new(), Condvar::new());
        let ring = Arc::new(Ring { state, work, idle, bytes_max });
        let own = Arc::clone(&ring);
        thread::Builder::new().name(name.into()).spawn(move || own.run(out, &format_dropped))?;
        Ok(ring)
    }

    /// Appends a line with its final newline. Drops and counts the line if there is no room.
    pub fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.pending.len() + state.in_flight + line.len() > self.bytes_max {
            state.dropped += 1;
            return;
        }
        state.pending.extend_from_slice(line);
        if mem::take(&mut state.is_waiting) {
            drop(state);
            self.work.notify_one();
        }
    }

    /// Waits until everything is written, for at most `timeout`. Returns true if everything is written.
    pub fn flush(&self, timeout: Duration) -> bool {
        let since = Instant::now();
        let mut state = self.lock();
        state.is_flushing = true;
        self.work.notify_one();
        while state.has_work() || state.in_flight > 0 {
            let Some(left) = timeout.checked_sub(since.elapsed()) else { break };
            state = self.idle.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.is_flushing = false;
        !state.has_work() && state.in_flight == 0
    }

    fn run(&self, mut out: File, format_dropped: &FormatDropped) {
        let mut batch = Vec::new();
        loop {
            let dropped = self.take(&mut batch);
            if dropped > 0 {
                batch.extend_from_slice(format_dropped(dropped).as_bytes());
            }
            let lost = write_lines(&mut out, &batch);
            let mut state = self.lock();
            state.in_flight = 0;
            state.has_failed = lost > 0;
            if lost > 0 {
                // The report of dropped lines was the last line of the batch, so it is lost, too.
                state.dropped += if dropped > 0 { lost - 1 + dropped } else { lost };
            }
            if !state.is_flushing {
                drop(self.work.wait_timeout(state, PAUSE));
            }
        }
    }

    /// Moves the pending lines to `batch`. Waits until there is something to write. Returns the number of dropped lines.
    fn take(&self, batch: &mut Vec<u8>) -> u64 {
        batch.clear();
        batch.shrink_to(KEPT_BYTES);
        let mut state = self.lock();
        while !state.has_work() {
            self.idle.notify_all();
            state.is_waiting = true;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.is_waiting = false;
        mem::swap(batch, &mut state.pending);
        state.in_flight = batch.len();
        mem::take(&mut state.dropped)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has_work(&self) -> bool {
        !self.pending.is_empty() || (self.dropped > 0 && !self.has_failed)
    }
}

/// Writes lines, as many at once as a pipe keeps together, so that the lines of several processes are not mixed. Returns the
/// number of lines that were lost because the descriptor failed.
fn write_lines(out: &mut impl Write, mut lines: &[u8]) -> u64 {
    while !lines.is_empty() {
        let (mut some, rest) = lines.split_at(cut(lines));
        while !some.is_empty() {
            match out.write(some) {
                Ok(0) => return count(lines),
                Ok(count) => some = &some[count..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Another process has made the open file non-blocking.
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
                Err(_) => return count(lines),
            }
        }
        lines = rest;
    }
    0
}

/// Returns the length of the complete lines that one write to a pipe keeps together; at least one line.
fn cut(lines: &[u8]) -> usize {
    let end_of = |lines: &[u8]| lines.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1);
    let first = || lines.iter().position(|byte| *byte == b'\n').map_or(lines.len(), |at| at + 1);
    if lines.len() <= PIPE_BYTES { lines.len() } else { end_of(&lines[..PIPE_BYTES]).unwrap_or_else(first) }
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// Pause between two batches.
const PAUSE: Duration = Duration::from_millis(5);
/// Bytes that a pipe keeps together (`PIPE_BUF`, pipe(7)).
const PIPE_BYTES: usize = 4096;
/// Capacity that an empty buffer keeps.
const KEPT_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Read};

    fn ring(bytes_max: usize) -> (Arc<Ring>, io::PipeReader) {
        let (reader, writer) = io::pipe().unwrap();
        let out = File::from(std::os::fd::OwnedFd::from(writer));
        let format_dropped = |dropped| format!("dropped {dropped}\n");
        (Ring::start("test", out, bytes_max, Box::new(format_dropped)).unwrap(), reader)
    }

    #[test]
    fn lines_without_room_are_dropped_and_their_number_is_written() {
        let (ring, mut reader) = ring(100_000);
        let line = |number: u32| format!("{number:099}\n");
        // More than the pipe (64 KiB) and the ring take together.
        for number in 0..5_000 {
            ring.push(line(number).as_bytes());
        }
        assert!(!ring.flush(Duration::from_millis(20)), "the deadline has passed");
        let (mut numbers, mut dropped) = (Vec::new(), 0);
        for line in BufReader::new(&mut reader).lines().map(Result::unwrap) {
            match line.strip_prefix("dropped ") {
                Some(count) => dropped += count.parse::<usize>().unwrap(),
                None => numbers.push(line.parse::<u32>().unwrap()),
            }
            if numbers.len() + dropped >= 5_000 {
                break;
            }
        }
        assert_eq!(numbers.len() + dropped, 5_000);
        assert!(numbers.is_sorted() && dropped > 0);
        ring.push(b"again\n");
        assert!(ring.flush(Duration::from_secs(20)));
        let mut again = [0; 6];
        reader.read_exact(&mut again).unwrap();
        assert_eq!(&again, b"again\n");
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_as_dropped() {
        struct Full(Vec<u8>, usize);
        impl Write for Full {
            fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
                if self.1 == 0 {
                    return Err(ErrorKind::StorageFull.into());
                }
                self.1 -= 1;
                self.0.extend_from_slice(buf);
                Ok(buf.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let lines = format!("{}\n", "x".repeat(999)).repeat(10);
        let mut out = Full(Vec::new(), 1);
        assert_eq!(write_lines(&mut out, lines.as_bytes()), 6);
        assert_eq!(out.0.len(), 4_000, "complete lines of at most PIPE_BUF bytes");
        let (ring, reader) = ring(10_000);
        drop(reader);
        ring.push(b"lost\n");
        assert!(ring.flush(Duration::from_secs(20)), "nothing is left to write after an error");
        assert_eq!(ring.lock().dropped, 1);
    }

    #[test]
    fn many_lines_are_written_with_few_system_calls() {
        // Each write is one datagram.
        let (reader, writer) = std::os::unix::net::UnixDatagram::pair().unwrap();
        reader.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let out = File::from(std::os::fd::OwnedFd::from(writer));
        let ring = Ring::start("test", out, 1 << 20, Box::new(|_| String::new())).unwrap();
        let line = [b"x".repeat(299), b"\n".to_vec()].concat();
        (0..1000).for_each(|_| ring.push(&line));
        let (mut bytes, mut writes, mut buf) = (0, 0, [0; 8192]);
        while bytes < 1000 * line.len() {
            let count = reader.recv(&mut buf).unwrap();
            assert!(count <= PIPE_BYTES && count % line.len() == 0, "complete lines");
            (bytes, writes) = (bytes + count, writes + 1);
        }
        assert!(writes < 250, "{writes} writes for a thousand lines");
    }

    #[test]
    fn a_long_line_is_written_by_itself() {
        let long = format!("{}\n", "y".repeat(9_000));
        assert_eq!(cut(format!("{long}short\n").as_bytes()), 9_001);
        assert_eq!((cut(b"a\nb\n"), cut(b"no newline")), (4, 10));
    }
}
