//! The library's connection, client or server, driven one step at a time through the handshake.
//!
//! The module hides a demand of the unbuffered interface: the output of a step must be taken before the next step, or it is
//! lost. Another one is the caller's: while a handshake message is incomplete, the library remembers positions in it, and it
//! panics if a step sees fewer bytes than the one before.

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, InsufficientSizeError, UnbufferedStatus};
use rustls::{CommonState, Error};

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
    /// Wait for more bytes, or go on without the library if the handshake is done.
    Wait,
}

impl Machine {
    pub fn common(&self) -> &CommonState {
        match self {
            Machine::Client(connection) => connection,
            Machine::Server(connection) => connection,
        }
    }

    /// Takes one step over `pending`, which must hold all complete records that an earlier step has seen and not used. Appends
    /// replies to `outgoing`.
    pub fn step(&mut self, pending: &mut [u8], outgoing: &mut Outgoing) -> Step {
        match self {
            Machine::Client(connection) => step(connection.process_tls_records(pending), outgoing),
            Machine::Server(connection) => step(connection.process_tls_records(pending), outgoing),
        }
    }

    /// Appends the alert that the library has for the peer after a failure. Reads no input.
    pub fn take_alert(&mut self, outgoing: &mut Outgoing) {
        while self.common().wants_write() {
            if self.step(&mut [], outgoing).next.is_err() {
                return;
            }
        }
    }
}

fn step<D>(status: UnbufferedStatus<'_, '_, D>, outgoing: &mut Outgoing) -> Step {
    let next = match status.state {
        Ok(ConnectionState::EncodeTlsData(data)) => {
            encode(data, outgoing);
            Ok(Next::Step)
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Next::Step)
        }
        Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => Ok(Next::Wait),
        // The records behind the handshake do not come here.
        Ok(_) => Err(Error::General("data inside the handshake".into())),
        Err(error) => Err(error),
    };
    Step { discard: status.discard, next }
}

/// Appends handshake data. The library discards the data when `data` is dropped, so the needed room is asked first.
fn encode<D>(mut data: EncodeTlsData<'_, D>, outgoing: &mut Outgoing) {
    if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) = data.encode(&mut []) {
        let written = data.encode(outgoing.small_room(required_size));
        outgoing.wrote(written.unwrap_or(0));
    }
}
