//! Datagrams on the streams of links.

use bytes::Bytes;

use super::sessions::Sessions;
use super::stream::{Slot, StreamAt};
use crate::link::Refused;
use crate::types::reason::Reason;

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

    /// Takes the next datagram that was received on a stream.
    pub fn receive_datagram(&mut self, at: StreamAt) -> Option<Bytes> {
        let (_, session) = self.at(at)?;
        session.recv_datagram(at.id)
    }

    /// Returns the number of datagrams of a stream that this node has dropped.
    pub fn datagrams_dropped(&self, at: StreamAt) -> u64 {
        self.live(at).and_then(|link| link.session.as_ref()).map_or(0, |session| session.datagrams_dropped(at.id))
    }

    /// Returns the reason for which a stream of datagrams is over, if it is: that of the peer's reset, or none if the peer has
    /// closed it.
    pub fn end_of_datagrams(&self, at: StreamAt) -> Option<Option<Reason>> {
        let Some(link) = self.live(at) else { return Some(Some(Reason::LinkLost)) };
        match link.streams.get(&at.id)? {
            Slot { reset: Some(code), .. } => Some(Some((*code).into())),
            Slot { fin: true, .. } => Some(None),
            _ => None,
        }
    }

    /// Resets a stream whose flow has ended for a reason.
    pub fn reset_for(&mut self, at: StreamAt, reason: Reason) {
        let now = self.now;
        let Some((_, session)) = self.at(at) else { return };
        session.reset(at.id, reason.into());
        session.stop(now, at.id, reason.into());
        self.touch(at.link);
    }
}
