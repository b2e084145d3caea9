//! Splice pipes: pipes of the kernel for splice(2), pooled and counted.
//!
//! A half has a pipe only while it splices. A pipe with bytes in it is closed, never pooled, because the bytes belong to
//! one connection. The real capacity of a pipe is unknown: each partly filled page takes the room of a full one.

use std::io;

use crate::sys::{self, BorrowedSocket, PipeEnd};

/// A pipe of the kernel and the count of the bytes in it.
#[derive(Debug)]
pub(crate) struct SplicePipe {
    read: PipeEnd,
    write: PipeEnd,
    bytes_max: u32,
    bytes: u32,
    /// The bytes that have entered since the pipe was taken, at most `u32::MAX`.
    entered: u32,
}

/// The splice pipes of one loop. They are boxed once, so that a half without a pipe has room for a pointer only.
#[derive(Debug)]
#[allow(clippy::vec_box, reason = "a box moves between the pool and a half")]
pub(crate) struct SplicePipePool {
    free: Vec<Box<SplicePipe>>,
    pipe_bytes: usize,
    open: usize,
    open_max: usize,
}

impl SplicePipe {
    /// Returns the number of bytes in the pipe.
    pub fn len(&self) -> usize {
        self.bytes as usize
    }

    /// Returns the number of bytes that have entered since the pipe was taken, at most `u32::MAX`.
    pub fn entered(&self) -> u64 {
        u64::from(self.entered)
    }

    /// Moves at most `limit` bytes from a descriptor into the pipe. Returns 0 at the end of the input. `WouldBlock` means
    /// that the descriptor has no bytes or that the pipe is full; only with an empty pipe does it mean the former.
    pub fn fill(&mut self, from: BorrowedSocket<'_>, limit: u64) -> io::Result<usize> {
        let room = self.bytes_max.saturating_sub(self.bytes).max(1);
        let moved = sys::splice_in(from, &self.write, limit.min(u64::from(room)) as usize)?;
        self.bytes += moved as u32;
        self.entered = self.entered.saturating_add(moved as u32);
        Ok(moved)
    }

    /// Moves bytes from the pipe to a descriptor. Returns their count.
    pub fn drain(&mut self, to: BorrowedSocket<'_>) -> io::Result<usize> {
        let moved = sys::splice_out(&self.read, to, self.len())?;
        debug_assert!(moved <= self.len());
        self.bytes = self.bytes.saturating_sub(moved as u32);
        Ok(moved)
    }
}

impl SplicePipePool {
    /// Creates a pool of at most `open_max` pipes of `pipe_bytes` each. With 0 pipes, splicing is off.
    pub fn new(pipe_bytes: usize, open_max: usize) -> SplicePipePool {
        SplicePipePool { free: Vec::new(), pipe_bytes, open: 0, open_max }
    }

    /// Sets the limit. Pipes beyond it stay open until they are closed.
    pub fn set_limit(&mut self, open_max: usize) {
        self.open_max = open_max;
    }

    /// Takes a pipe. Returns `None` if the limit is reached or the system refuses a new pipe.
    pub fn take(&mut self) -> Option<Box<SplicePipe>> {
        if let Some(mut pipe) = self.free.pop() {
            pipe.entered = 0;
            return Some(pipe);
        }
        if self.open >= self.open_max {
            return None;
        }
        match sys::new_pipe(self.pipe_bytes) {
            Ok((read, write, bytes)) => {
                self.open += 1;
                let bytes_max = bytes.min(u32::MAX as usize) as u32;
                Some(Box::new(SplicePipe { read, write, bytes_max, bytes: 0, entered: 0 }))
            }
            Err(error) => {
                if !sys::is_out_of_descriptors(&error) {
                    self.open_max = self.open;
                }
                None
            }
        }
    }

    /// Returns a pipe to the pool. A pipe with bytes in it is closed.
    pub fn put(&mut self, pipe: Box<SplicePipe>) {
        if pipe.bytes == 0 && self.free.len() < KEPT_MAX {
            self.free.push(pipe);
        } else {
            self.open -= 1;
        }
    }

    /// Closes the free pipes. The caller has run out of descriptors.
    pub fn shrink(&mut self) {
        self.open -= self.free.len();
        self.free.clear();
    }

    pub fn open(&self) -> usize {
        self.open
    }
}

/// Free pipes that the pool keeps. Each costs two descriptors and some kernel memory.
const KEPT_MAX: usize = 32;

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn bytes_pass_through_a_pipe_and_a_pipe_with_bytes_is_closed() {
        let mut pool = SplicePipePool::new(65536, 1);
        let mut pipe = pool.take().unwrap();
        assert!(pool.take().is_none(), "the limit is one");
        let (mut near, from) = UnixStream::pair().unwrap();
        let (to, mut far) = UnixStream::pair().unwrap();
        near.write_all(b"hello").unwrap();
        assert_eq!(pipe.fill(from.as_fd(), u64::MAX).unwrap(), 5);
        assert_eq!(pipe.drain(to.as_fd()).unwrap(), 5);
        let mut bytes = [0; 5];
        far.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"hello");

        near.write_all(b"x").unwrap();
        pipe.fill(from.as_fd(), u64::MAX).unwrap();
        pool.put(pipe);
        assert_eq!((pool.open(), pool.free.len()), (0, 0), "a pipe with a byte in it is closed");
        assert_eq!(pool.take().unwrap().len(), 0);
    }

    #[test]
    fn a_pool_with_a_limit_of_zero_has_no_pipe() {
        assert!(SplicePipePool::new(65536, 0).take().is_none());
    }
}
