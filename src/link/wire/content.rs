//! The content of a sent frame, as far as the sender needs it when the frame is acknowledged or lost.

use super::ids::{StreamId, SubflowId};

/// The content of a sent frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::link) enum FrameContent {
    /// A piece of a stream.
    Data(StreamId, Piece),
    /// A control frame. If it is lost, it is written anew from the current state.
    Control(Key),
    /// An ACK, which does not elicit an acknowledgement.
    Ack,
    /// Content that is not sent again, such as a PING or a datagram.
    Nothing,
}

/// The part of a stream that one DATA frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::link) struct Piece {
    pub(in crate::link) offset: u64,
    pub(in crate::link) len: u32,
    pub(in crate::link) fin: bool,
}

impl Piece {
    pub(in crate::link) const fn end(&self) -> u64 {
        self.offset + self.len as u64
    }
}

/// The subject of a control frame: the queue of control frames and the lanes hold keys instead of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::link) enum Key {
    Open(StreamId),
    OpenResult(StreamId),
    Reset(StreamId),
    Stop(StreamId),
    Credit(StreamId),
    Blocked(StreamId),
    SessionCredit,
    SessionBlocked,
    MaxStreams,
    Listen(u32),
    ListenResult(u32),
    Unlisten(u32),
    Class(SubflowId),
    /// The message with this number.
    Message(u32),
    /// The peer named a stream that this end does not know.
    UnknownStream(StreamId),
    GoAway,
    Close,
}

impl Key {
    /// Returns the stream that the frame concerns, and the bit that marks the key as queued in its record.
    pub(in crate::link) const fn stream_bit(self) -> Option<(StreamId, u8)> {
        match self {
            Key::Open(id) => Some((id, 1)),
            Key::OpenResult(id) => Some((id, 2)),
            Key::Reset(id) => Some((id, 4)),
            Key::Stop(id) => Some((id, 8)),
            Key::Credit(id) => Some((id, 16)),
            Key::Blocked(id) => Some((id, 32)),
            _ => None,
        }
    }

    /// Returns the bit that marks the key as queued, if a session has only one such key.
    pub(in crate::link) const fn single_bit(self) -> Option<u8> {
        match self {
            Key::SessionCredit => Some(1),
            Key::SessionBlocked => Some(2),
            Key::MaxStreams => Some(4),
            Key::GoAway => Some(8),
            Key::Close => Some(16),
            _ => None,
        }
    }
}
