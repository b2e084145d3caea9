//! The library's connection, client or server, one step at a time.
//!
//! It hides two things that the unbuffered interface asks of its user. What a step hands out must be taken before the
//! next, or it is lost. And every step must see *all* bytes that are pending, because the library remembers positions
//! among them while a handshake message lies there in pieces; fewer bytes than before make it panic.

use bytes::BytesMut;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError, UnbufferedStatus, WriteTraffic,
};
use rustls::{CommonState, Error};

use super::buffers::{Buffers, RECORD_BYTES, RECORD_OVERHEAD};
use super::outgoing::Outgoing;

/// See the module's head. Boxed, because the two are large and a table of pipes should not be.
pub(super) enum Machine {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
}

/// What one step over incoming bytes has done.
#[derive(Debug)]
pub(super) struct Step {
    /// So many bytes at the front are done with.
    pub discard: usize,
    pub next: Result<Next, Error>,
}

/// What follows a step.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Next {
    /// Another step.
    Step,
    /// Nothing, until there are more bytes.
    Wait,
    /// The peer has ended its side; nothing more will come.
    Ended,
}

/// What is to be sealed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Seal<'a> {
    /// One record with these bytes, at most [`RECORD_BYTES`] of them.
    Record(&'a [u8]),
    /// The end of our side.
    CloseNotify,
}

impl Machine {
    pub fn common(&self) -> &CommonState {
        match self {
            Machine::Client(connection) => connection,
            Machine::Server(connection) => connection,
        }
    }

    /// Takes one step over `pending`, all of it. Plaintext is appended to `plain`, what is to be answered to
    /// `outgoing`.
    pub fn step(&mut self, pending: &mut [u8], plain: &mut BytesMut, outgoing: &mut Outgoing) -> Step {
        match self {
            Machine::Client(connection) => step(connection.process_tls_records(pending), plain, outgoing),
            Machine::Server(connection) => step(connection.process_tls_records(pending), plain, outgoing),
        }
    }

    /// Takes out what the library still wants to tell the peer after it has failed: an alert. Looks at no input.
    pub fn take_alert(&mut self, outgoing: &mut Outgoing) {
        while self.common().wants_write() {
            if self.step(&mut [], &mut BytesMut::new(), outgoing).next.is_err() {
                return;
            }
        }
    }

    /// Appends to `outgoing`. `pending` is what the last step over incoming bytes, which answered [`Next::Wait`], has left:
    /// nothing new comes of it.
    pub fn seal(
        &mut self,
        what: Seal<'_>,
        pending: &mut [u8],
        outgoing: &mut Outgoing,
        buffers: &Buffers,
    ) -> Result<(), EncryptError> {
        loop {
            let done = match self {
                Machine::Client(connection) => seal(connection.process_tls_records(pending), what, outgoing, buffers),
                Machine::Server(connection) => seal(connection.process_tls_records(pending), what, outgoing, buffers),
            };
            if done? {
                return Ok(());
            }
        }
    }
}

fn step<D>(status: UnbufferedStatus<'_, '_, D>, plain: &mut BytesMut, outgoing: &mut Outgoing) -> Step {
    let mut discard = status.discard;
    let next = match status.state {
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    discard += record.discard;
                    plain.extend_from_slice(record.payload);
                }
                Some(Err(error)) => break Err(error),
                None => break Ok(Next::Step),
            }
        },
        Ok(ConnectionState::EncodeTlsData(data)) => {
            encode(data, outgoing);
            Ok(Next::Step)
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Next::Step)
        }
        Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Ok(Next::Ended),
        Ok(_) => Ok(Next::Wait),
        Err(error) => Err(error),
    };
    Step { discard, next }
}

/// Answers whether it is done, or must be called with the next state.
fn seal<D>(
    status: UnbufferedStatus<'_, '_, D>,
    what: Seal<'_>,
    outgoing: &mut Outgoing,
    buffers: &Buffers,
) -> Result<bool, EncryptError> {
    debug_assert_eq!(status.discard, 0, "nothing pending can be done with here");
    match status.state {
        Ok(ConnectionState::WriteTraffic(traffic)) => write(traffic, what, outgoing, buffers).map(|()| true),
        Ok(ConnectionState::EncodeTlsData(data)) => {
            encode(data, outgoing);
            Ok(false)
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(false)
        }
        _ => Err(EncryptError::EncryptExhausted),
    }
}

/// A change of keys goes before the record and needs room of its own. The library says how much, and loses nothing.
fn write<D>(
    mut traffic: WriteTraffic<'_, D>,
    what: Seal<'_>,
    outgoing: &mut Outgoing,
    buffers: &Buffers,
) -> Result<(), EncryptError> {
    let mut need = match what {
        Seal::Record(plain) => plain.len() + RECORD_OVERHEAD,
        Seal::CloseNotify => 2 + RECORD_OVERHEAD,
    };
    loop {
        let written = match what {
            Seal::Record(plain) => {
                debug_assert!(plain.len() <= RECORD_BYTES, "one record");
                traffic.encrypt(plain, outgoing.room(need, buffers))
            }
            Seal::CloseNotify => traffic.queue_close_notify(outgoing.small_room(need)),
        };
        match written {
            Ok(bytes) => {
                outgoing.wrote(bytes);
                return Ok(());
            }
            Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size })) if required_size > need => {
                need = required_size;
            }
            Err(error) => return Err(error),
        }
    }
}

/// The library forgets the data when `data` is dropped, so the room is found first.
fn encode<D>(mut data: EncodeTlsData<'_, D>, outgoing: &mut Outgoing) {
    if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) = data.encode(&mut []) {
        let written = data.encode(outgoing.small_room(required_size));
        outgoing.wrote(written.unwrap_or(0));
    }
}
