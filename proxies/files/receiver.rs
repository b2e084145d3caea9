//! The receiver of one file, as a state machine without files and sockets.
//!
//! ```text
//!   Waiting --OFFER--> Deciding --accept--> Accepted --START--> Receiving --END--> Complete --done--> Over
//! ```

use ring::digest::{Context, SHA256};

use super::fault::{Fault, FileError};
use super::message::Message;
use super::offer::{Offer, check_name};
use super::sender::finish;

/// Receives one file.
pub struct Receiver {
    state: State,
    size: u64,
    digest: Context,
}

/// What the caller does about a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Decide about an offer: [`Receiver::accept`], or an error to the sender.
    Decide(Offer),
    /// Drop what is there behind this place: the bytes that follow belong there.
    Begin {
        /// The place.
        offset: u64,
    },
    /// Append bytes.
    Write(&'a [u8]),
    /// Give the file its name, because all bytes are there and the digest is right; then call [`Receiver::done`].
    Place,
}

enum State {
    Waiting,
    Deciding,
    Accepted { offset: u64 },
    Receiving { at: u64 },
    Complete,
    Over,
}

impl Default for Receiver {
    fn default() -> Receiver {
        Receiver { state: State::Waiting, size: 0, digest: Context::new(&SHA256) }
    }
}

impl Receiver {
    /// Handles a message of the sender. Returns what the caller does about it.
    ///
    /// # Errors
    /// Fails if the sender has failed, if the message does not fit, or if the bytes are not those of the file.
    pub fn handle<'a>(&mut self, message: Message<'a>) -> Result<Step<'a>, FileError> {
        match (&mut self.state, message) {
            (_, Message::Failed(error)) => Err(error),
            (State::Waiting, Message::Offer(offer)) => {
                check_name(&offer.name).map_err(|error| FileError::new(Fault::Refused, error.to_string()))?;
                (self.size, self.state) = (offer.size, State::Deciding);
                Ok(Step::Decide(offer))
            }
            (State::Accepted { offset: known }, Message::Start { offset }) if offset == *known || offset == 0 => {
                if offset == 0 {
                    self.digest = Context::new(&SHA256);
                }
                self.state = State::Receiving { at: offset };
                Ok(Step::Begin { offset })
            }
            (State::Receiving { at }, Message::Data(bytes)) => {
                let end = at.checked_add(bytes.len() as u64).filter(|end| *end <= self.size);
                *at = end.ok_or_else(|| FileError::protocol("more bytes than the file has"))?;
                self.digest.update(bytes);
                Ok(Step::Write(bytes))
            }
            (State::Receiving { at }, Message::End(digest)) => {
                if *at != self.size || finish(&self.digest) != digest {
                    return Err(FileError::new(Fault::Changed, "the SHA-256 differs"));
                }
                self.state = State::Complete;
                Ok(Step::Place)
            }
            _ => Err(FileError::protocol("the sender has sent a message that does not fit")),
        }
    }

    /// Accepts the offer. `digest` has taken the first `offset` bytes of the file, which are there. Appends messages to `out`.
    pub fn accept(&mut self, offset: u64, digest: Context, out: &mut Vec<u8>) {
        if matches!(self.state, State::Deciding) {
            Message::Accept { offset, digest: finish(&digest) }.encode(out);
            self.digest = digest;
            self.state = State::Accepted { offset };
        }
    }

    /// Tells the sender that the file has its name.
    pub fn done(&mut self, out: &mut Vec<u8>) {
        if matches!(self.state, State::Complete) {
            Message::Done.encode(out);
            self.state = State::Over;
        }
    }

    /// Returns true if the sender was told that the file has its name.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// Returns the bytes that are there.
    pub fn position(&self) -> u64 {
        match self.state {
            State::Waiting | State::Deciding => 0,
            State::Accepted { offset } => offset,
            State::Receiving { at } => at,
            State::Complete | State::Over => self.size,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Decoder, Sender, Want};
    use super::*;

    fn offer(size: usize) -> Offer {
        Offer { name: "film".to_owned(), size: size as u64, mode: 0o644, modified: (1, 2) }
    }

    fn digest_of(bytes: &[u8]) -> Context {
        let mut digest = Context::new(&SHA256);
        digest.update(bytes);
        digest
    }

    /// Transfers `file` in pieces to a receiver that has `part`. Returns what the receiver has then, the bytes that were sent, and
    /// the result.
    fn transfer(file: &[u8], part: &[u8], piece: usize) -> (Vec<u8>, usize, Result<(), FileError>) {
        let (mut to_receiver, mut to_sender, mut there, mut sent) = (Vec::new(), Vec::new(), part.to_vec(), 0);
        let mut sender = Sender::new(offer(file.len()), &mut to_receiver);
        let (mut receiver, mut decoders) = (Receiver::default(), [Decoder::default(), Decoder::default()]);
        loop {
            while let Some((message, used)) = decoders[0].next(&to_receiver).unwrap() {
                match receiver.handle(message) {
                    Ok(Step::Decide(_)) => receiver.accept(part.len() as u64, digest_of(part), &mut to_sender),
                    Ok(Step::Begin { offset }) => there.truncate(offset as usize),
                    Ok(Step::Write(bytes)) => {
                        sent += bytes.len();
                        there.extend_from_slice(bytes);
                    }
                    Ok(Step::Place) => receiver.done(&mut to_sender),
                    Err(error) => return (there, sent, Err(error)),
                }
                to_receiver.drain(..used);
            }
            while let Some((message, used)) = decoders[1].next(&to_sender).unwrap() {
                if let Err(error) = sender.handle(message, &mut to_receiver) {
                    return (there, sent, Err(error));
                }
                to_sender.drain(..used);
            }
            match sender.want() {
                Want::Bytes { at, most } => {
                    let rest = &file[at as usize..];
                    let count = rest.len().min(piece).min(most as usize);
                    sender.supply(&rest[..count], &mut to_receiver).unwrap();
                }
                Want::Answer => {}
                Want::Nothing => return (there, sent, Ok(())),
            }
        }
    }

    #[test]
    fn a_file_arrives_whole_also_if_it_is_empty() {
        let file: Vec<u8> = (0..1000_u32).map(|at| (at * 7) as u8).collect();
        for size in [0, 1, 999, 1000] {
            for piece in [1, 3, 1000] {
                assert_eq!(transfer(&file[..size], b"", piece), (file[..size].to_vec(), size, Ok(())));
            }
        }
    }

    #[test]
    fn a_transfer_goes_on_behind_the_part_that_is_there() {
        let file: Vec<u8> = (0..1000_u32).map(|at| (at * 7) as u8).collect();
        for part in [1, 500, 1000] {
            assert_eq!(transfer(&file, &file[..part], 64), (file.clone(), 1000 - part, Ok(())));
        }
    }

    #[test]
    fn a_part_of_another_file_is_sent_again_from_the_beginning() {
        let file = b"the file".to_vec();
        for part in [&b"tha"[..], b"another file, and longer"] {
            assert_eq!(transfer(&file, part, 3), (file.clone(), file.len(), Ok(())));
        }
    }

    #[test]
    fn bytes_that_are_not_those_of_the_file_are_never_placed() {
        let mut receiver = Receiver::default();
        receiver.handle(Message::Offer(offer(4))).unwrap();
        receiver.accept(0, digest_of(b""), &mut Vec::new());
        receiver.handle(Message::Start { offset: 0 }).unwrap();
        receiver.handle(Message::Data(b"file")).unwrap();
        let ended = receiver.handle(Message::End(finish(&digest_of(b"life"))));
        assert_eq!(ended.map_err(|error| error.fault), Err(Fault::Changed));
    }

    #[test]
    fn a_message_that_does_not_fit_ends_the_transfer() {
        let fault = |result: Result<Step<'_>, FileError>| result.map(|_| ()).map_err(|error| error.fault);
        let mut receiver = Receiver::default();
        assert_eq!(fault(receiver.handle(Message::Data(b"x"))), Err(Fault::Protocol));
        assert_eq!(fault(receiver.handle(Message::Offer(offer(4)))), Ok(()));
        // Nothing is taken before the offer is accepted.
        assert_eq!(fault(receiver.handle(Message::Start { offset: 0 })), Err(Fault::Protocol));
        receiver.accept(0, digest_of(b""), &mut Vec::new());
        assert_eq!(fault(receiver.handle(Message::Start { offset: 3 })), Err(Fault::Protocol));
        assert_eq!(fault(receiver.handle(Message::Start { offset: 0 })), Ok(()));
        assert_eq!(fault(receiver.handle(Message::Data(b"a fifth"))), Err(Fault::Protocol));
        assert_eq!(fault(receiver.handle(Message::End([0; 32]))), Err(Fault::Changed));
        let mut sender = Sender::new(offer(4), &mut Vec::new());
        assert_eq!(sender.handle(Message::Done, &mut Vec::new()).map_err(|error| error.fault), Err(Fault::Protocol));
    }

    #[test]
    fn a_name_that_leaves_the_folder_is_refused_before_the_caller_sees_it() {
        let offered = Receiver::default().handle(Message::Offer(Offer { name: "../a".to_owned(), ..offer(4) }));
        assert_eq!(offered.map_err(|error| error.fault), Err(Fault::Refused));
    }

    #[test]
    fn a_file_that_becomes_shorter_fails_at_the_sender() {
        let mut sender = Sender::new(offer(4), &mut Vec::new());
        sender.handle(Message::Accept { offset: 0, digest: [0; 32] }, &mut Vec::new()).unwrap();
        sender.supply(b"fi", &mut Vec::new()).unwrap();
        assert_eq!(sender.supply(b"", &mut Vec::new()).map_err(|error| error.fault), Err(Fault::Changed));
    }
}
