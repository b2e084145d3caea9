//! Datagrams on the streams of links.

use bytes::Bytes;

use super::sessions::Sessions;
use super::stream::StreamAt;
use crate::link::Refused;

/// The result of giving datagrams to a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Given {
    /// Datagrams that the session has taken, and their bytes. It may still drop them.
    pub datagrams: u64,
    pub bytes: u64,
    /// Datagrams that are too long for a link.
    pub too_long: u64,
    /// Datagrams that the stream does not take, because it is over.
    pub refused: u64,
}

impl Sessions {
    /// Sends datagrams on a stream. The session copies them, and drops those that it cannot send soon.
    pub fn send_datagrams<'a>(&mut self, at: StreamAt, datagrams: impl Iterator<Item = &'a [u8]>) -> Given {
        let (now, mut given) = (self.now, Given::default());
        let Some((_, session)) = self.at(at) else {
            return Given { refused: datagrams.count() as u64, ..given };
        };
        for payload in datagrams {
            match session.send_datagram(now, at.id, Bytes::copy_from_slice(payload)) {
                Ok(()) => {
                    given.datagrams += 1;
                    given.bytes += payload.len() as u64;
                }
                Err(Refused::TooLong) => given.too_long += 1,
                Err(_) => given.refused += 1,
            }
        }
        self.touch(at.link);
        given
    }

    #[allow(dead_code)] // The links use it.
    /// Takes the next datagram that was received on a stream.
    pub fn receive_datagram(&mut self, at: StreamAt) -> Option<Bytes> {
        let (_, session) = self.at(at)?;
        session.recv_datagram(at.id)
    }
}
