//! The frames of the link: what stands on the wire, byte for byte.
//!
//! ```text
//!  0       1       2       4               8
//!  +-------+-------+-------+---------------+-----------
//!  | type  | flags |  len  |   id (u32)    |  body ...      big endian; len counts the body
//!  +-------+-------+-------+---------------+-----------
//! ```
//!
//! A frame is at most 16 384 bytes with its header: one full TLS record. This file knows shapes, never meaning: it
//! holds no state, and decoding allocates only for the names and texts of OPEN, LISTEN and their results, which are
//! bounded by the frame that carries them. Types from 0x80 on are extensions that an old peer skips; an unknown type
//! below is an error.

use super::code::Code;
use super::cursor::{Put, Reader};
pub use super::header::{
    BODY_BYTES_MAX, DATA_BYTES_MAX, DATA_HEAD_BYTES, EXTENSION_FIRST, FRAME_BYTES_MAX, FrameError, HEADER_BYTES,
    Header, OFFSET_MAX,
};
use super::hello::{Hello, HelloAck};
use super::open::{Bound, Open};

/// The type byte of each frame.
#[allow(missing_docs, reason = "each is the type of the frame of the same name")]
pub mod kind {
    pub const PAD: u8 = 0x00;
    pub const HELLO: u8 = 0x01;
    pub const HELLO_ACK: u8 = 0x02;
    pub const RESUME_STATE: u8 = 0x03;
    pub const PING: u8 = 0x04;
    pub const PONG: u8 = 0x05;
    pub const GOAWAY: u8 = 0x06;
    pub const CLOSE: u8 = 0x07;
    pub const SUBFLOW: u8 = 0x08;
    pub const OPEN: u8 = 0x10;
    pub const OPEN_RESULT: u8 = 0x11;
    pub const LISTEN: u8 = 0x12;
    pub const LISTEN_RESULT: u8 = 0x13;
    pub const UNLISTEN: u8 = 0x14;
    pub const DATA: u8 = 0x20;
    pub const RESET: u8 = 0x21;
    pub const STOP: u8 = 0x22;
    pub const CREDIT: u8 = 0x23;
    pub const MAX_STREAMS: u8 = 0x24;
    pub const ACK: u8 = 0x25;
    pub const BLOCKED: u8 = 0x26;
    pub const DATAGRAM: u8 = 0x30;
    pub const MESSAGE: u8 = 0x31;
}

/// DATA: the stream ends with this frame's last byte. RESUME_STATE: this is the last of them.
pub const FLAG_LAST: u8 = 0x01;
/// RESET: the sender has no such stream; code and size mean nothing.
pub const FLAG_UNKNOWN_STREAM: u8 = 0x01;

/// How a subflow may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Class {
    /// Carries traffic.
    #[default]
    Active,
    /// Carries traffic only while no active subflow lives.
    Backup,
    /// Is about to go: nothing new is put on it.
    Closing,
}

/// One line of an ACK: so many bytes of this lane have been processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneAck {
    /// The subflow.
    pub subflow: u16,
    /// The lane of it.
    pub lane: u16,
    /// Plaintext bytes processed since the lane's HELLO.
    pub bytes: u64,
}

/// One line of a RESUME_STATE: what one end holds of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamPosition {
    /// The stream.
    pub id: u32,
    /// Every byte below has been received.
    pub received: u64,
    /// The credit that has been announced.
    pub credit: u64,
    /// The first byte that has never been sent.
    pub sent: u64,
}

/// Lines of fixed size in a frame's body, decoded as they are walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lines<'a, const N: usize> {
    raw: &'a [u8],
}

/// Bytes of a [`LaneAck`].
pub const LANE_ACK_BYTES: usize = 12;
/// Bytes of a [`StreamPosition`].
pub const STREAM_POSITION_BYTES: usize = 28;

impl<'a, const N: usize> Lines<'a, N> {
    /// Lines that are encoded already. Fails unless they are whole.
    pub fn new(raw: &'a [u8]) -> Result<Self, FrameError> {
        if raw.len().is_multiple_of(N) { Ok(Lines { raw }) } else { Err(FrameError::Short) }
    }
}

impl<'a> Lines<'a, LANE_ACK_BYTES> {
    /// The lines.
    pub fn iter(&self) -> impl Iterator<Item = LaneAck> + 'a {
        self.raw.as_chunks::<LANE_ACK_BYTES>().0.iter().map(|line| {
            let [a, b, c, d, bytes @ ..] = *line;
            LaneAck {
                subflow: u16::from_be_bytes([a, b]),
                lane: u16::from_be_bytes([c, d]),
                bytes: u64::from_be_bytes(bytes),
            }
        })
    }
}

impl<'a> Lines<'a, STREAM_POSITION_BYTES> {
    /// The lines.
    pub fn iter(&self) -> impl Iterator<Item = StreamPosition> + 'a {
        self.raw.as_chunks::<STREAM_POSITION_BYTES>().0.iter().filter_map(|line| {
            let mut r = Reader::new(line);
            Some(StreamPosition {
                id: r.u32().ok()?,
                received: r.u64().ok()?,
                credit: r.u64().ok()?,
                sent: r.u64().ok()?,
            })
        })
    }
}

impl LaneAck {
    /// Appends the line.
    pub fn encode(self, out: &mut Vec<u8>) {
        out.put_u16(self.subflow);
        out.put_u16(self.lane);
        out.put_u64(self.bytes);
    }
}

impl StreamPosition {
    /// Appends the line.
    pub fn encode(self, out: &mut Vec<u8>) {
        out.put_u32(self.id);
        out.put_u64(self.received);
        out.put_u64(self.credit);
        out.put_u64(self.sent);
    }
}

/// A frame. What it means is said where it is handled; here stands what it carries.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of the table in the module's head")]
pub enum Frame<'a> {
    /// Nothing, of some size.
    Pad {
        len: usize,
    },
    Hello(Hello),
    HelloAck(HelloAck),
    ResumeState {
        last: bool,
        states: Lines<'a, STREAM_POSITION_BYTES>,
    },
    Ping {
        token: u64,
    },
    /// `held_us` is how long the PING lay at the peer before this answer.
    Pong {
        token: u64,
        held_us: u64,
    },
    /// `last` is the highest stream of the receiver's that the sender has seen.
    GoAway {
        last: u32,
        code: Code,
        text: &'a str,
    },
    Close {
        code: Code,
        text: &'a str,
    },
    Subflow {
        subflow: u16,
        class: Class,
    },
    Open {
        id: u32,
        open: Open,
    },
    OpenResult {
        id: u32,
        result: Bound,
    },
    Listen {
        id: u32,
        open: Open,
    },
    ListenResult {
        id: u32,
        result: Bound,
    },
    Unlisten {
        id: u32,
    },
    Data {
        id: u32,
        offset: u64,
        fin: bool,
        payload: &'a [u8],
    },
    Reset {
        id: u32,
        code: Code,
        size: u64,
    },
    /// A RESET that says that its sender has no such stream.
    UnknownStream {
        id: u32,
    },
    Stop {
        id: u32,
        code: Code,
    },
    /// `id` 0 is the session. Of what may come up to `max`, everything below `taken` has been passed on.
    Credit {
        id: u32,
        max: u64,
        taken: u64,
    },
    MaxStreams {
        max: u32,
    },
    Ack {
        lanes: Lines<'a, LANE_ACK_BYTES>,
    },
    /// `id` 0 is the session.
    Blocked {
        id: u32,
        offset: u64,
    },
    Datagram {
        id: u32,
        payload: &'a [u8],
    },
    /// `seq` rises by one with each message of the session.
    Message {
        seq: u32,
        text: &'a str,
    },
    /// Of a type that this version does not know and may skip.
    Extension {
        kind: u8,
    },
}

impl<'a> Frame<'a> {
    /// Decodes the body that follows `header`. `body` must be the `header.len` bytes that follow it.
    pub fn decode(header: Header, body: &'a [u8]) -> Result<Frame<'a>, FrameError> {
        let mut r = Reader::new(body);
        let frame = match header.kind {
            kind::PAD => Frame::Pad { len: r.rest().len() },
            kind::OPEN..=kind::UNLISTEN => Self::decode_open(header, &mut r)?,
            kind::DATA..=kind::BLOCKED => Self::decode_stream(header, &mut r)?,
            kind::DATAGRAM => Frame::Datagram { id: header.id, payload: r.rest() },
            kind::MESSAGE => Frame::Message { seq: header.id, text: text(&mut r)? },
            kind::HELLO..=kind::SUBFLOW => Self::decode_session(header, &mut r)?,
            EXTENSION_FIRST.. => Frame::Extension { kind: header.kind },
            other => return Err(FrameError::UnknownKind(other)),
        };
        if !matches!(frame, Frame::Extension { .. }) {
            r.end()?;
        }
        Ok(frame)
    }

    fn decode_session(header: Header, r: &mut Reader<'a>) -> Result<Frame<'a>, FrameError> {
        Ok(match header.kind {
            kind::HELLO => Frame::Hello(Hello::decode(r)?),
            kind::HELLO_ACK => Frame::HelloAck(HelloAck::decode(r)?),
            kind::RESUME_STATE => {
                Frame::ResumeState { last: header.flags & FLAG_LAST != 0, states: Lines::new(r.rest())? }
            }
            kind::PING => Frame::Ping { token: r.u64()? },
            kind::PONG => Frame::Pong { token: r.u64()?, held_us: r.u64()? },
            kind::GOAWAY => Frame::GoAway { last: header.id, code: code(r)?, text: text(r)? },
            kind::CLOSE => Frame::Close { code: code(r)?, text: text(r)? },
            kind::SUBFLOW => Frame::Subflow { subflow: id16(header)?, class: class(r)? },
            other => return Err(FrameError::UnknownKind(other)),
        })
    }

    fn decode_open(header: Header, r: &mut Reader<'a>) -> Result<Frame<'a>, FrameError> {
        let id = header.id;
        Ok(match header.kind {
            kind::OPEN => Frame::Open { id, open: Open::decode(r)? },
            kind::OPEN_RESULT => Frame::OpenResult { id, result: Bound::decode(r)? },
            kind::LISTEN => Frame::Listen { id, open: Open::decode(r)? },
            kind::LISTEN_RESULT => Frame::ListenResult { id, result: Bound::decode(r)? },
            kind::UNLISTEN => Frame::Unlisten { id },
            other => return Err(FrameError::UnknownKind(other)),
        })
    }

    fn decode_stream(header: Header, r: &mut Reader<'a>) -> Result<Frame<'a>, FrameError> {
        let id = header.id;
        Ok(match header.kind {
            kind::DATA => Frame::Data { id, offset: r.u64()?, fin: header.flags & FLAG_LAST != 0, payload: r.rest() },
            kind::RESET => {
                let (code, size) = (code(r)?, r.u64()?);
                if header.flags & FLAG_UNKNOWN_STREAM == 0 {
                    Frame::Reset { id, code, size }
                } else {
                    Frame::UnknownStream { id }
                }
            }
            kind::STOP => Frame::Stop { id, code: code(r)? },
            kind::CREDIT => Frame::Credit { id, max: r.u64()?, taken: r.u64()? },
            kind::MAX_STREAMS => Frame::MaxStreams { max: r.u32()? },
            kind::ACK => Frame::Ack { lanes: Lines::new(r.rest())? },
            kind::BLOCKED => Frame::Blocked { id, offset: r.u64()? },
            other => return Err(FrameError::UnknownKind(other)),
        })
    }

    /// The type byte.
    pub const fn kind(&self) -> u8 {
        match self {
            Frame::Pad { .. } => kind::PAD,
            Frame::Hello(_) => kind::HELLO,
            Frame::HelloAck(_) => kind::HELLO_ACK,
            Frame::ResumeState { .. } => kind::RESUME_STATE,
            Frame::Ping { .. } => kind::PING,
            Frame::Pong { .. } => kind::PONG,
            Frame::GoAway { .. } => kind::GOAWAY,
            Frame::Close { .. } => kind::CLOSE,
            Frame::Subflow { .. } => kind::SUBFLOW,
            Frame::Open { .. } => kind::OPEN,
            Frame::OpenResult { .. } => kind::OPEN_RESULT,
            Frame::Listen { .. } => kind::LISTEN,
            Frame::ListenResult { .. } => kind::LISTEN_RESULT,
            Frame::Unlisten { .. } => kind::UNLISTEN,
            Frame::Data { .. } => kind::DATA,
            Frame::Reset { .. } | Frame::UnknownStream { .. } => kind::RESET,
            Frame::Stop { .. } => kind::STOP,
            Frame::Credit { .. } => kind::CREDIT,
            Frame::MaxStreams { .. } => kind::MAX_STREAMS,
            Frame::Ack { .. } => kind::ACK,
            Frame::Blocked { .. } => kind::BLOCKED,
            Frame::Datagram { .. } => kind::DATAGRAM,
            Frame::Message { .. } => kind::MESSAGE,
            Frame::Extension { kind } => *kind,
        }
    }

    /// What the header's id and flags are.
    const fn label(&self) -> (u32, u8) {
        match self {
            Frame::Open { id, .. }
            | Frame::OpenResult { id, .. }
            | Frame::Listen { id, .. }
            | Frame::ListenResult { id, .. }
            | Frame::Unlisten { id }
            | Frame::Reset { id, .. }
            | Frame::Stop { id, .. }
            | Frame::Credit { id, .. }
            | Frame::Blocked { id, .. }
            | Frame::Datagram { id, .. } => (*id, 0),
            Frame::UnknownStream { id } => (*id, FLAG_UNKNOWN_STREAM),
            Frame::Data { id, fin, .. } => (*id, *fin as u8 * FLAG_LAST),
            Frame::ResumeState { last, .. } => (0, *last as u8 * FLAG_LAST),
            Frame::GoAway { last, .. } => (*last, 0),
            Frame::Message { seq, .. } => (*seq, 0),
            Frame::Subflow { subflow, .. } => (*subflow as u32, 0),
            _ => (0, 0),
        }
    }

    /// Appends the frame to `out`.
    ///
    /// A body that would be longer than a frame may be is a defect of the caller, who bounds texts, names and payloads.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (id, flags) = self.label();
        let len = put_frame(out, self.kind(), flags, id, |out| self.encode_body(out));
        trace("sent", Header { kind: self.kind(), flags, len, id }, Some(self));
    }

    fn encode_body(&self, out: &mut Vec<u8>) {
        match self {
            Frame::Pad { len } => out.resize(out.len() + len, 0),
            Frame::Hello(hello) => hello.encode(out),
            Frame::HelloAck(ack) => ack.encode(out),
            Frame::ResumeState { states, .. } => out.put(states.raw),
            Frame::Ping { token } => out.put_u64(*token),
            Frame::Pong { token, held_us } => {
                out.put_u64(*token);
                out.put_u64(*held_us);
            }
            Frame::GoAway { code, text, .. } | Frame::Close { code, text } => {
                out.put_u16(code.to_wire());
                out.put(text.as_bytes());
            }
            Frame::Subflow { class, .. } => out.put_u8(*class as u8),
            Frame::Open { open, .. } | Frame::Listen { open, .. } => open.encode(out),
            Frame::OpenResult { result, .. } | Frame::ListenResult { result, .. } => result.encode(out),
            Frame::Unlisten { .. } | Frame::Extension { .. } => {}
            Frame::Data { offset, payload, .. } => {
                out.put_u64(*offset);
                out.put(payload);
            }
            Frame::Reset { code, size, .. } => {
                out.put_u16(code.to_wire());
                out.put_u64(*size);
            }
            Frame::UnknownStream { .. } => {
                out.put_u16(Code::ProtocolError.to_wire());
                out.put_u64(0);
            }
            Frame::Stop { code, .. } => out.put_u16(code.to_wire()),
            Frame::Credit { max, taken, .. } => {
                out.put_u64(*max);
                out.put_u64(*taken);
            }
            Frame::MaxStreams { max } => out.put_u32(*max),
            Frame::Ack { lanes } => out.put(lanes.raw),
            Frame::Blocked { offset, .. } => out.put_u64(*offset),
            Frame::Datagram { payload, .. } => out.put(payload),
            Frame::Message { text, .. } => out.put(text.as_bytes()),
        }
    }
}

/// Appends a frame whose body `body` writes, and then its length into the header.
pub(in crate::link) fn frame_with(out: &mut Vec<u8>, kind: u8, flags: u8, id: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let len = put_frame(out, kind, flags, id, body);
    trace("sent", Header { kind, flags, len, id }, None);
}

/// Writes a line to the log, at trace: the type of a frame, its id, and the length of its body. Of an OPEN or a LISTEN
/// the place is told, too; of no frame the payload.
#[inline]
pub(in crate::link) fn trace(way: &str, header: Header, frame: Option<&Frame<'_>>) {
    if log::log_enabled!(target: TARGET, log::Level::Trace) {
        let place = match frame {
            Some(Frame::Open { open, .. } | Frame::Listen { open, .. }) => open.to_string(),
            _ => "-".to_owned(),
        };
        log::trace!(target: TARGET, kind = kind_name(header.kind), id = header.id, bytes = header.len, flags = header.flags, place = place; "{way}");
    }
}

/// Appends a frame and returns the length of its body.
fn put_frame(out: &mut Vec<u8>, kind: u8, flags: u8, id: u32, body: impl FnOnce(&mut Vec<u8>)) -> usize {
    let start = out.len();
    out.put(&Header { kind, flags, len: 0, id }.encode());
    body(out);
    let len = out.len() - start - HEADER_BYTES;
    debug_assert!(len <= BODY_BYTES_MAX, "a body of {len} bytes in a frame of type {kind:#x}");
    let header = Header { kind, flags, len, id }.encode();
    if let Some(place) = out.get_mut(start..start + HEADER_BYTES) {
        place.copy_from_slice(&header);
    }
    len
}

/// The sixteen bytes before the payload of a DATA frame.
pub(in crate::link) fn data_head(id: u32, offset: u64, len: usize, fin: bool) -> [u8; DATA_HEAD_BYTES] {
    let flags = if fin { FLAG_LAST } else { 0 };
    let mut head = [0; DATA_HEAD_BYTES];
    let (header, place) = head.split_at_mut(HEADER_BYTES);
    let told = Header { kind: kind::DATA, flags, len: len + 8, id };
    header.copy_from_slice(&told.encode());
    trace("sent", told, None);
    place.copy_from_slice(&offset.to_be_bytes());
    head
}

fn code(r: &mut Reader<'_>) -> Result<Code, FrameError> {
    match r.u16()? {
        0 => Err(FrameError::Value),
        number => Ok(Code::from_wire(number)),
    }
}

fn text<'a>(r: &mut Reader<'a>) -> Result<&'a str, FrameError> {
    str::from_utf8(r.rest()).map_err(|_| FrameError::Value)
}

fn class(r: &mut Reader<'_>) -> Result<Class, FrameError> {
    match r.u8()? {
        0 => Ok(Class::Active),
        1 => Ok(Class::Backup),
        2 => Ok(Class::Closing),
        _ => Err(FrameError::Value),
    }
}

fn id16(header: Header) -> Result<u16, FrameError> {
    u16::try_from(header.id).map_err(|_| FrameError::Value)
}

/// The name of a type, for the log.
const fn kind_name(kind: u8) -> &'static str {
    match kind {
        kind::PAD => "PAD",
        kind::HELLO => "HELLO",
        kind::HELLO_ACK => "HELLO_ACK",
        kind::RESUME_STATE => "RESUME_STATE",
        kind::PING => "PING",
        kind::PONG => "PONG",
        kind::GOAWAY => "GOAWAY",
        kind::CLOSE => "CLOSE",
        kind::SUBFLOW => "SUBFLOW",
        kind::OPEN => "OPEN",
        kind::OPEN_RESULT => "OPEN_RESULT",
        kind::LISTEN => "LISTEN",
        kind::LISTEN_RESULT => "LISTEN_RESULT",
        kind::UNLISTEN => "UNLISTEN",
        kind::DATA => "DATA",
        kind::RESET => "RESET",
        kind::STOP => "STOP",
        kind::CREDIT => "CREDIT",
        kind::MAX_STREAMS => "MAX_STREAMS",
        kind::ACK => "ACK",
        kind::BLOCKED => "BLOCKED",
        kind::DATAGRAM => "DATAGRAM",
        kind::MESSAGE => "MESSAGE",
        _ => "extension",
    }
}

/// The target of the lines about frames.
const TARGET: &str = "seaprox::link::frame";
