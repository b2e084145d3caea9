//! The library's connection, client or server, driven one step at a time.
//!
//! The module hides two demands of the unbuffered interface. The output of a step must be taken before the next step, or
//! it is lost. And each step must see *all* pending bytes: while a handshake message is incomplete, the library remembers
//! positions in it, and it panics if it sees fewer bytes than before.

use bytes::BytesMut;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError, UnbufferedStatus, WriteTraffic,
};
use rustls::{CommonState, Error};

use super::buffers::{Buffers, RECORD_BYTES, RECORD_OVERHEAD};
use super::outgoing::Outgoing;

/// A connection of the library. The variants are boxed, because a table of pipes must be small.
pub(super) enum Machine {
    Client(Box<UnbufferedClientConnection>),
    Server(Box<UnbufferedServerConnection>),
}

/// The result of one step over the incoming bytes.
#[derive(Debug)]
pub(super) struct Step {
    /// The number of bytes at the front that were used.
    pub discard: usize,
    pub next: Result<Next, Error>,
}

/// The action after a step.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Next {
    /// Take another step.
    Step,
    /// Wait for more bytes.
    Wait,
    /// Stop: the peer has sent close_notify.
    Ended,
}

/// The content of a record to seal.
#[derive(Clone, Copy, Debug)]
pub(super) enum Seal<'a> {
    /// These bytes, at most [`RECORD_BYTES`].
    Record(&'a [u8]),
    /// The alert that ends this node's side.
    CloseNotify,
}

impl Machine {
    pub fn common(&self) -> &CommonState {
        match self {
            Machine::Client(connection) => connection,
            Machine::Server(connection) => connection,
        }
    }

    /// Takes one step over `pending`, which must hold all pending bytes. Appends plaintext to `plain` and replies to
    /// `outgoing`.
    pub fn step(&mut self, pending: &mut [u8], plain: &mut BytesMut, outgoing: &mut Outgoing) -> Step {
        match self {
            Machine::Client(connection) => step(connection.process_tls_records(pending), plain, outgoing),
            Machine::Server(connection) => step(connection.process_tls_records(pending), plain, outgoing),
        }
    }

    /// Appends the alert that the library has for the peer after a failure. Reads no input.
    pub fn take_alert(&mut self, outgoing: &mut Outgoing) {
        while self.common().wants_write() {
            if self.step(&mut [], &mut BytesMut::new(), outgoing).next.is_err() {
                return;
            }
        }
    }

    /// Seals a record and appends it to `outgoing`. `pending` must be the bytes that the last step over incoming bytes left
    /// when it returned [`Next::Wait`], so that they yield nothing new.
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

/// Returns true if the record is sealed, and false if the function must be called again with the next state.
fn seal<D>(
    status: UnbufferedStatus<'_, '_, D>,
    what: Seal<'_>,
    outgoing: &mut Outgoing,
    buffers: &Buffers,
) -> Result<bool, EncryptError> {
    debug_assert_eq!(status.discard, 0, "the pending bytes are an incomplete record");
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

/// Seals a record. A KeyUpdate may go before the record and need more room; the library then reports how much, and loses
/// nothing.
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

/// Appends handshake data. The library discards the data when `data` is dropped, so the needed room is asked first.
fn encode<D>(mut data: EncodeTlsData<'_, D>, outgoing: &mut Outgoing) {
    if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) = data.encode(&mut []) {
        let written = data.encode(outgoing.small_room(required_size));
        outgoing.wrote(written.unwrap_or(0));
    }
}
