//! The frames of the link, byte for byte.
//!
//! ```text
//!  0       1       2       4               8
//!  +-------+-------+-------+---------------+-----------
//!  | type  | flags |  len  |   id (u32)    |  body ...      big endian; len counts the body
//!  +-------+-------+-------+---------------+-----------
//! ```
//!
//! A frame has at most 16,384 bytes including its header, so that it fits one TLS record.
//!
//! | type | name | id | body |
//! | --- | --- | --- | --- |
//! | 00 | PAD | 0 | anything |
//! | 01 | HELLO | 0 | magic `SPRX`, versions min max u8, intent u16, session 16, boot 8, subflow u16, lanes u16, caps u64, limits, proof 32 |
//! | 02 | HELLO_ACK | 0 | status u8, version u8, subflow u16, session 16, boot 8, caps u64, limits, proof 32 |
//! | 03 | RESUME_STATE | 0 | lines of stream u32, received u64, credit u64, sent u64; flag 1: the last |
//! | 04, 05 | PING, PONG | 0 | token u64; PONG adds the µs between the PING and the PONG at the peer |
//! | 06, 07 | GOAWAY, CLOSE | streams seen, 0 | code u16, text |
//! | 08 | SUBFLOW | subflow | class u8: active, backup, closing |
//! | 10, 12 | OPEN, LISTEN | stream, listener | kind u8, flags u8, port u16, listener u32, host, options |
//! | 11, 13 | OPEN_RESULT, LISTEN_RESULT | the same | code u16 (0: ok), errno u16, port u16, host, text |
//! | 14 | UNLISTEN | listener | |
//! | 20 | DATA | stream | offset u64, payload; flag 1: the stream ends here |
//! | 21, 22 | RESET, STOP | stream | code u16; RESET adds the final size u64; flag 1: the sender knows no such stream |
//! | 23 | CREDIT | stream, or 0 for the session | credit limit u64, bytes taken by the reader u64 |
//! | 26 | BLOCKED | stream, or 0 for the session | offset u64 |
//! | 24 | MAX_STREAMS | 0 | streams allowed in all, u32 |
//! | 25 | ACK | 0 | lines of subflow u16, lane u16, bytes u64 |
//! | 30 | DATAGRAM | stream | payload |
//! | 31 | MESSAGE | number | text |
//! | b0 | DATAGRAM_PART | stream | number of the datagram u32, its length u32, offset u32, payload |
//!
//! Limits are streams u32, listeners u32, stream credit u64, session credit u64. `caps` has one bit for each optional
//! feature: see [`Capability`](crate::link::Capability). A node skips types from 0x80 on that it does not know, and
//! unknown options of OPEN. An unknown type below 0x80 is an error.
//!
//! This file knows the format of frames, not their effect, and holds no state. Decoding allocates only for the names
//! and texts of OPEN, LISTEN and their results, which are no longer than the frame.

use super::code::Code;
use super::cursor::{Put, Reader};
pub use super::header::{
    BODY_BYTES_MAX, DATA_BYTES_MAX, DATA_HEAD_BYTES, EXTENSION_FIRST, FRAME_BYTES_MAX, FrameError, HEADER_BYTES,
    Header, OFFSET_MAX, PART_HEAD_BYTES,
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
    pub const DATAGRAM_PART: u8 = 0xb0;
}

/// DATA: the stream ends with the last byte of this frame. RESUME_STATE: this is the last frame of the exchange.
pub const FLAG_LAST: u8 = 0x01;
/// RESET: the sender knows no such stream; the code and the size have no meaning.
pub const FLAG_UNKNOWN_STREAM: u8 = 0x01;

/// The permitted use of a subflow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Class {
    /// The subflow carries traffic.
    #[default]
    Active,
    /// The subflow carries traffic only while no active subflow is live.
    Backup,
    /// The subflow is about to be closed and gets no new traffic.
    Closing,
}

/// One line of an ACK: the number of bytes of a lane that the peer has processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneAck {
    /// The subflow.
    pub subflow: u16,
    /// The lane of the subflow.
    pub lane: u16,
    /// Bytes processed since the frame that opened the lane (HELLO or HELLO_ACK).
    pub bytes: u64,
}

/// One line of a RESUME_STATE: how far a stream is at the sender of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamPosition {
    /// The stream.
    pub id: u32,
    /// Every byte below this offset has been received.
    pub received: u64,
    /// The stream credit that was announced.
    pub credit: u64,
    /// The offset of the first byte that was never sent.
    pub sent: u64,
}

/// Lines of a fixed length in a frame's body, decoded during iteration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lines<'a, const N: usize> {
    raw: &'a [u8],
}

/// Length of an encoded [`LaneAck`] in bytes.
pub const LANE_ACK_BYTES: usize = 12;
/// Length of an encoded [`StreamPosition`] in bytes.
pub const STREAM_POSITION_BYTES: usize = 28;

impl<'a, const N: usize> Lines<'a, N> {
    /// Wraps encoded lines. Fails if the last one is incomplete.
    pub fn new(raw: &'a [u8]) -> Result<Self, FrameError> {
        if raw.len().is_multiple_of(N) { Ok(Lines { raw }) } else { Err(FrameError::Short) }
    }
}

impl<'a> Lines<'a, LANE_ACK_BYTES> {
    /// Returns the decoded lines.
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
    /// Returns the decoded lines.
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
    /// Appends the encoded line.
    pub fn encode(self, out: &mut Vec<u8>) {
        out.put_u16(self.subflow);
        out.put_u16(self.lane);
        out.put_u64(self.bytes);
    }
}

impl StreamPosition {
    /// Appends the encoded line.
    pub fn encode(self, out: &mut Vec<u8>) {
        out.put_u32(self.id);
        out.put_u64(self.received);
        out.put_u64(self.credit);
        out.put_u64(self.sent);
    }
}

/// A decoded frame. The handlers in the session define its effect.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of the table in the module's head")]
pub enum Frame<'a> {
    /// Padding of `len` bytes.
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
    /// `held_us` is the time between the arrival of the PING at the peer and this answer.
    Pong {
        token: u64,
        held_us: u64,
    },
    /// `last` is the number of the receiver's streams that the sender has seen.
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
    /// A RESET that states that its sender knows no such stream.
    UnknownStream {
        id: u32,
    },
    Stop {
        id: u32,
        code: Code,
    },
    /// `id` 0 is the session. The peer may send up to `max`; its reader has taken everything below `taken`.
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
    /// A part of a datagram that is too long for one frame. A node that does not know it drops such datagrams.
    DatagramPart {
        id: u32,
        number: u32,
        total: u32,
        offset: u32,
        payload: &'a [u8],
    },
    /// `seq` rises by one with each message of the session.
    Message {
        seq: u32,
        text: &'a str,
    },
    /// A frame of a type that this version does not know and may skip.
    Extension {
        kind: u8,
    },
}

impl<'a> Frame<'a> {
    /// Decodes `body`, the `header.len` bytes that follow `header`.
    pub fn decode(header: Header, body: &'a [u8]) -> Result<Frame<'a>, FrameError> {
        let mut r = Reader::new(body);
        let frame = match header.kind {
            kind::PAD => Frame::Pad { len: r.rest().len() },
            kind::OPEN..=kind::UNLISTEN => Self::decode_open(header, &mut r)?,
            kind::DATA..=kind::BLOCKED => Self::decode_stream(header, &mut r)?,
            kind::DATAGRAM => Frame::Datagram { id: header.id, payload: r.rest() },
            kind::MESSAGE => Frame::Message { seq: header.id, text: text(&mut r)? },
            kind::HELLO..=kind::SUBFLOW => Self::decode_session(header, &mut r)?,
            kind::DATAGRAM_PART => Frame::DatagramPart {
                id: header.id,
                number: r.u32()?,
                total: r.u32()?,
                offset: r.u32()?,
                payload: r.rest(),
            },
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

    /// Returns the type byte.
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
            Frame::DatagramPart { .. } => kind::DATAGRAM_PART,
            Frame::Message { .. } => kind::MESSAGE,
            Frame::Extension { kind } => *kind,
        }
    }

    /// Returns the id and the flags for the header.
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
            | Frame::Datagram { id, .. }
            | Frame::DatagramPart { id, .. } => (*id, 0),
            Frame::UnknownStream { id } => (*id, FLAG_UNKNOWN_STREAM),
            Frame::Data { id, fin, .. } => (*id, *fin as u8 * FLAG_LAST),
            Frame::ResumeState { last, .. } => (0, *last as u8 * FLAG_LAST),
            Frame::GoAway { last, .. } => (*last, 0),
            Frame::Message { seq, .. } => (*seq, 0),
            Frame::Subflow { subflow, .. } => (*subflow as u32, 0),
            _ => (0, 0),
        }
    }

    /// Appends the encoded frame to `out`.
    ///
    /// The caller limits texts, names and payloads, so that the body fits a frame.
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
            Frame::DatagramPart { number, total, offset, payload, .. } => {
                out.put_u32(*number);
                out.put_u32(*total);
                out.put_u32(*offset);
                out.put(payload);
            }
            Frame::Message { text, .. } => out.put(text.as_bytes()),
        }
    }
}

/// Appends a frame whose body `body` writes, and then stores the length in the header.
pub(in crate::link) fn frame_with(out: &mut Vec<u8>, kind: u8, flags: u8, id: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let len = put_frame(out, kind, flags, id, body);
    trace("sent", Header { kind, flags, len, id }, None);
}

/// Logs a frame at trace level: its type, its id and the length of its body; for OPEN and LISTEN also the address. The
/// payload is never logged.
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

/// Returns the sixteen bytes that precede the payload of a DATA frame.
pub(in crate::link) fn data_head(id: u32, offset: u64, len: usize, fin: bool) -> [u8; DATA_HEAD_BYTES] {
    let flags = if fin { FLAG_LAST } else { 0 };
    let mut head = [0; DATA_HEAD_BYTES];
    let (start, place) = head.split_at_mut(HEADER_BYTES);
    let header = Header { kind: kind::DATA, flags, len: len + 8, id };
    start.copy_from_slice(&header.encode());
    trace("sent", header, None);
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

/// Returns the name of a frame type for the log.
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
        kind::DATAGRAM_PART => "DATAGRAM_PART",
        _ => "extension",
    }
}

/// The log target for frames.
const TARGET: &str = "seaprox::link::frame";
