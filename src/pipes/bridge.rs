//! A bridge: everything that one pipe receives is sent by the other, both ways.

use std::task::Waker;

use super::error::PipeError;
use super::pipe::{Pipe, Readiness};

/// Two pipes, joined. Bytes pass in both directions, and a FIN passes in each by itself, after all bytes. When a pipe breaks,
/// what it had received before is offered to the other one once, which then gets a reset.
///
/// Each direction holds one buffer, and receives only when the buffer is empty: a slow reader holds its sender back. A
/// message of a [`Datagram`](super::Datagram) pipe stays one message in another one.
#[derive(Debug)]
pub struct Bridge<A, B> {
    a: A,
    b: B,
    a_to_b: Lane,
    b_to_a: Lane,
    broken: Option<(End, PipeError)>,
}

/// One end of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The first pipe.
    A,
    /// The second pipe.
    B,
}

/// The state of a bridge after it was driven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Both directions wait for their pipes.
    Waiting,
    /// The share of this call is used up: drive the bridge again, after the others have had their share.
    Again,
    /// Both directions have ended with a FIN, and all bytes are sent.
    Done,
    /// A pipe has broken, and the other one was reset.
    Broken(End, PipeError),
}

/// One direction.
#[derive(Debug)]
struct Lane {
    buf: Vec<u8>,
    start: usize,
    end: usize,
    /// The FIN of the sender has been received.
    ended: bool,
    /// The FIN has been passed on.
    finished: bool,
    bytes: u64,
}

/// The reason why a lane stopped.
enum Stop {
    Blocked,
    Budget,
    ReceiveFailed(PipeError),
    SendFailed(PipeError),
}

impl<A: Pipe, B: Pipe> Bridge<A, B> {
    /// Joins two pipes. Nothing moves before [`drive`](Bridge::drive).
    pub fn new(a: A, b: B) -> Bridge<A, B> {
        let (a_to_b, b_to_a) = (Lane::new(&a), Lane::new(&b));
        Bridge { a, b, a_to_b, b_to_a, broken: None }
    }

    /// Moves bytes both ways, as far as possible now. `a` and `b` say what the caller knows of the descriptors of the pipes.
    pub fn drive(&mut self, a: Readiness, b: Readiness) -> Progress {
        if let Some((end, error)) = &self.broken {
            // The end that was reset may still have to pass the reset on.
            let (end, error) = (*end, error.clone());
            let _ = (self.a.drive(a), self.b.drive(b));
            return Progress::Broken(end, error);
        }
        // A pipe that breaks here says so when it is used.
        let _ = (self.a.drive(a), self.b.drive(b));
        let forth = self.a_to_b.run(&mut self.a, &mut self.b);
        let back = self.b_to_a.run(&mut self.b, &mut self.a);
        let failed = match (&forth, &back) {
            (Stop::ReceiveFailed(error), _) | (_, Stop::SendFailed(error)) => Some((End::A, error)),
            (_, Stop::ReceiveFailed(error)) | (Stop::SendFailed(error), _) => Some((End::B, error)),
            _ => None,
        };
        if let Some((end, error)) = failed {
            let error = error.clone();
            return self.fail(end, error);
        }
        if self.a_to_b.finished && self.b_to_a.finished && self.a.fin_sent() && self.b.fin_sent() {
            return Progress::Done;
        }
        let is_blocked = matches!((forth, back), (Stop::Blocked, Stop::Blocked));
        if is_blocked { Progress::Waiting } else { Progress::Again }
    }

    /// Returns the first pipe.
    pub fn a(&self) -> &A {
        &self.a
    }

    /// Returns the second pipe.
    pub fn b(&self) -> &B {
        &self.b
    }

    /// Returns the two pipes, to register them or to set their wakers.
    pub fn pipes_mut(&mut self) -> (&mut A, &mut B) {
        (&mut self.a, &mut self.b)
    }

    /// Returns the number of bytes that were passed on: from the first pipe to the second, and back.
    pub fn bytes(&self) -> (u64, u64) {
        (self.a_to_b.bytes, self.b_to_a.bytes)
    }

    /// Returns the number of bytes that the bridge and its pipes hold.
    pub fn queued(&self) -> usize {
        self.a_to_b.len() + self.b_to_a.len() + self.a.queued() + self.b.queued()
    }

    /// Sets the waker of both pipes.
    pub fn set_waker(&mut self, waker: &Waker) {
        self.a.set_waker(waker);
        self.b.set_waker(waker);
    }

    fn fail(&mut self, end: End, error: PipeError) -> Progress {
        match end {
            End::A => self.b.abort(),
            End::B => self.a.abort(),
        }
        self.broken = Some((end, error.clone()));
        Progress::Broken(end, error)
    }
}

impl Lane {
    fn new(from: &impl Pipe) -> Lane {
        let room = from.message_bytes_max().unwrap_or(0).max(BUFFER_BYTES);
        Lane { buf: vec![0; room], start: 0, end: 0, ended: false, finished: false, bytes: 0 }
    }

    fn len(&self) -> usize {
        self.end - self.start
    }

    /// Moves bytes until a pipe blocks, or the budget is used up.
    fn run(&mut self, from: &mut impl Pipe, to: &mut impl Pipe) -> Stop {
        for _ in 0..ROUNDS_MAX {
            if let Err(stop) = self.pass(from, to) {
                return stop;
            }
            if self.finished {
                return Stop::Blocked;
            }
            match from.receive(&mut self.buf) {
                Ok(0) => self.ended = true,
                Ok(count) => (self.start, self.end) = (0, count.min(self.buf.len())),
                Err(PipeError::WouldBlock) => return Stop::Blocked,
                Err(error) => return Stop::ReceiveFailed(error),
            }
        }
        self.pass(from, to).err().unwrap_or(if self.finished { Stop::Blocked } else { Stop::Budget })
    }

    /// Sends all bytes of the buffer, and the FIN behind the last ones.
    fn pass(&mut self, from: &impl Pipe, to: &mut impl Pipe) -> Result<(), Stop> {
        while self.len() > 0 {
            // A message goes into a pipe of messages as a whole, or breaks it.
            let is_message = from.message_bytes_max().is_some() && to.message_bytes_max().is_some();
            let most = if is_message { usize::MAX } else { to.send_bytes_max() };
            let end = self.end.min(self.start.saturating_add(most));
            match to.send(&self.buf[self.start..end]) {
                Ok(count) => {
                    self.start += count.min(end - self.start);
                    self.bytes += count as u64;
                }
                Err(PipeError::WouldBlock) => return Err(Stop::Blocked),
                Err(error) => return Err(Stop::SendFailed(error)),
            }
        }
        if self.ended && !self.finished {
            to.finish().map_err(Stop::SendFailed)?;
            self.finished = true;
        }
        Ok(())
    }
}

/// The buffer of a direction. It is larger if the pipe has larger messages.
const BUFFER_BYTES: usize = 64 * 1024;
/// Receives of one direction in one call.
const ROUNDS_MAX: usize = 16;
