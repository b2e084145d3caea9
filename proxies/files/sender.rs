//! The sender of one file, as a state machine without files and sockets.
//!
//! ```text
//!   Offered --ACCEPT--> Checking --same--> Sending --all--> Sent --DONE--> Over
//!                          `----differs: from 0----^
//! ```
//! A part at the receiver that has more bytes than the file is not checked. While the sender reads the part again, it
//! digests it, so the digest of the whole file needs no second reading.

use ring::digest::{Context, SHA256};

use super::fault::{Fault, FileError};
use super::message::{Digest, Message};
use super::offer::Offer;

/// Sends one file.
pub struct Sender {
    size: u64,
    state: State,
    digest: Context,
}

/// What a sender waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// A message of the receiver.
    Answer,
    /// Bytes of the file, from this place on and at most so many, for [`Sender::supply`].
    Bytes {
        /// The place of the first byte.
        at: u64,
        /// The most bytes.
        most: u64,
    },
    /// Nothing: the receiver has the file.
    Nothing,
}

enum State {
    Offered,
    Checking { at: u64, offset: u64, digest: Digest },
    Sending { at: u64 },
    Sent,
    Over,
}

impl Sender {
    /// Offers a file; appends the message to `out`.
    pub fn new(offer: Offer, out: &mut Vec<u8>) -> Sender {
        let size = offer.size;
        Message::Offer(offer).encode(out);
        Sender { size, state: State::Offered, digest: Context::new(&SHA256) }
    }

    /// Returns what the sender waits for.
    pub fn want(&self) -> Want {
        match self.state {
            State::Checking { at, offset, .. } => Want::Bytes { at, most: offset - at },
            State::Sending { at } => Want::Bytes { at, most: self.size - at },
            State::Offered | State::Sent => Want::Answer,
            State::Over => Want::Nothing,
        }
    }

    /// Returns the size of the file.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the bytes that the receiver has, or that were sent to it.
    pub fn position(&self) -> u64 {
        match self.state {
            State::Offered => 0,
            State::Checking { at, .. } | State::Sending { at } => at,
            State::Sent | State::Over => self.size,
        }
    }

    /// Handles a message of the receiver; appends messages to `out`.
    ///
    /// # Errors
    /// Fails if the receiver has failed, or if the message does not fit.
    pub fn handle(&mut self, message: Message<'_>, out: &mut Vec<u8>) -> Result<(), FileError> {
        match (&self.state, message) {
            (_, Message::Failed(error)) => Err(error),
            (State::Offered, Message::Accept { offset, digest }) => {
                if offset == 0 || offset > self.size {
                    self.start(0, out);
                } else {
                    self.state = State::Checking { at: 0, offset, digest };
                }
                Ok(())
            }
            (State::Sent, Message::Done) => {
                self.state = State::Over;
                Ok(())
            }
            _ => Err(FileError::protocol("the receiver has sent a message that does not fit")),
        }
    }

    /// Takes bytes of the file from the place that [`Sender::want`] tells; appends messages to `out`. No bytes mean that the
    /// file ends there.
    ///
    /// # Errors
    /// Fails if the file is shorter than it was when it was offered, or if no bytes are wanted.
    pub fn supply(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), FileError> {
        let Want::Bytes { most, .. } = self.want() else {
            return Err(FileError::protocol("the sender wants no bytes"));
        };
        let count = bytes.len() as u64;
        if count == 0 {
            return Err(FileError::new(Fault::Changed, "the file has become shorter"));
        }
        if count > most {
            return Err(FileError::protocol("the sender wants fewer bytes"));
        }
        self.digest.update(bytes);
        match &mut self.state {
            State::Checking { at, offset, digest } => {
                *at += count;
                if at == offset {
                    let (offset, is_same) = (*offset, self.digest.clone().finish().as_ref() == digest);
                    self.start(if is_same { offset } else { 0 }, out);
                }
            }
            State::Sending { at } => {
                *at += count;
                let at = *at;
                Message::Data(bytes).encode(out);
                self.end_at(at, out);
            }
            State::Offered | State::Sent | State::Over => {}
        }
        Ok(())
    }

    fn start(&mut self, offset: u64, out: &mut Vec<u8>) {
        if offset == 0 {
            self.digest = Context::new(&SHA256);
        }
        Message::Start { offset }.encode(out);
        self.state = State::Sending { at: offset };
        self.end_at(offset, out);
    }

    fn end_at(&mut self, at: u64, out: &mut Vec<u8>) {
        if at == self.size {
            Message::End(finish(&self.digest)).encode(out);
            self.state = State::Sent;
        }
    }
}

/// Returns the digest of the bytes so far.
pub(super) fn finish(context: &Context) -> Digest {
    let mut digest = Digest::default();
    digest.copy_from_slice(context.clone().finish().as_ref());
    digest
}
