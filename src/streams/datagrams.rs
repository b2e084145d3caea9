//! Datagrams on the streams of links.

use bytes::Bytes;

use super::sessions::Sessions;
use super::stream::{Slot, StreamAt};
use crate::link::{DatagramDrops, Refused};
use crate::types::dropped::Dropped;
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
    /// The datagrams of the stream, in both directions, that the session has dropped since it was last asked.
    pub drops: LinkDrops,
}

/// Datagrams of a stream that the session has dropped, in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LinkDrops {
    pub late: u64,
    pub queue_full: u64,
    pub malformed: u64,
    /// The number of those above that the session was to send, and their bytes.
    pub unsent: u64,
    pub unsent_bytes: u64,
}

impl LinkDrops {
    /// Returns the number of all dropped datagrams.
    pub fn total(&self) -> u64 {
        self.by_reason().iter().map(|(_, count)| count).sum()
    }

    /// Returns the number of dropped datagrams for each reason.
    pub fn by_reason(&self) -> [(Dropped, u64); 3] {
        [(Dropped::Late, self.late), (Dropped::QueueFull, self.queue_full), (Dropped::Malformed, self.malformed)]
    }
}

impl From<DatagramDrops> for LinkDrops {
    fn from(drops: DatagramDrops) -> LinkDrops {
        let DatagramDrops { late, queue_full, malformed, unsent, unsent_bytes } = drops;
        LinkDrops { late, queue_full, malformed, unsent, unsent_bytes }
    }
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
        given.drops = session.take_datagram_drops(at.id).into();
        self.touch(at.link);
        given
    }

    /// Takes the next datagram that was received on a stream.
    pub fn receive_datagram(&mut self, at: StreamAt) -> Option<Bytes> {
        let (_, session) = self.at(at)?;
        session.recv_datagram(at.id)
    }

    /// Returns the datagrams of a stream that this node has dropped and not counted.
    pub fn datagram_drops(&self, at: StreamAt) -> LinkDrops {
        let session = self.live(at).and_then(|link| link.session.as_ref());
        session.map_or_else(Default::default, |session| session.datagram_drops(at.id).into())
    }

    /// Returns the datagrams of a stream that this node has dropped since the last call, to be counted.
    pub fn take_datagram_drops(&mut self, at: StreamAt) -> LinkDrops {
        self.at(at).map_or_else(Default::default, |(_, session)| session.take_datagram_drops(at.id).into())
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
