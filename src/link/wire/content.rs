//! What a frame carries, as far as it matters if the frame is acknowledged or lost.

use super::ids::{StreamId, SubflowId};

/// What a frame carried, as far as it matters if the frame is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::link) enum FrameContent {
    /// A piece of a stream.
    Data(StreamId, Piece),
    /// A control frame, which is made anew from the state if it has to be sent again.
    Control(Key),
    /// An ACK. It is not acknowledged for its own sake.
    Ack,
    /// Something that is not sent again.
    Nothing,
}

/// A part of a stream, as one DATA frame carries it.
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

/// What a control frame is about.
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
    /// The message of this number.
    Message(u32),
    /// There is no such stream here.
    UnknownStream(StreamId),
    GoAway,
    Close,
}

impl Key {
    /// The stream that it is about, and the bit that marks it as queued there.
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

    /// The bit that marks it as queued, for what there is only one of.
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
