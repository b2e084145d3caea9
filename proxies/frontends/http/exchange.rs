//! One exchange: a request and its response, which are forwarded.
//!
//! Request and response have a state each, because a server may answer before it has the whole request:
//!
//! ```text
//!   request    Bytes | Chunks ------------------> Done
//!   response   Head --> (large: Unsent) --> (interim: Head again) --> Bytes | Chunks | UntilClose --> Done
//! ```
//! The loop relays the data of bodies; only heads and chunk lines pass through this file.

use seaprox::{Cx, PeerNetwork, Reason, Role, Stage};

use super::Chunks;
use super::chunked::{self, ChunkStep};
use super::head::{self, Body, HeadError, RESPONSE_HEAD_BYTES_MAX, RequestKind};
use super::large_head::{PartialHead, Slot, UnsentHead};
use super::request::{Absolute, Client, RequestHead};
use super::response::{self, ResponseHead};
use super::rewrite;

/// One request and its response.
pub struct Exchange {
    /// The request head as the origin server gets it.
    head: Vec<u8>,
    body: Body,
    client: Client,
    /// The protocols that the client has requested with Upgrade, separated by commas.
    upgrade: Option<Vec<u8>>,
    kind: RequestKind,
    /// True if the request may be sent again (RFC 9110, section 9.2.2).
    is_idempotent: bool,
    /// True if the origin server's connection has carried another exchange before.
    is_reused: bool,
    request: MessageState,
    response: MessageState,
    /// The received part of a large response head.
    partial_head: Option<PartialHead>,
    /// True once the client has got a byte of the final response.
    has_answered: bool,
    keep_client: bool,
    keep_origin: bool,
}

/// The state of a message.
enum MessageState {
    Head,
    /// A large response head that is not sent completely, and its meaning.
    Unsent(UnsentHead, ResponseInfo),
    Bytes,
    Chunks(Chunks, ChunkFraming),
    UntilClose,
    Done,
}

/// The properties of a response head that determine what follows.
#[derive(Clone, Copy)]
struct ResponseInfo {
    /// True if another head follows.
    is_interim: bool,
    /// The framing of the body from the server.
    body: Body,
    /// The framing of the body for the client.
    body_out: Body,
    keep_client: bool,
    keep_origin: bool,
}

/// The framing of a forwarded chunked body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ChunkFraming {
    /// The data is forwarded in chunks.
    Kept,
    /// The data alone is forwarded, because the client speaks HTTP/1.0.
    Dropped,
}

/// The error of a chunked body.
#[derive(Clone, Copy)]
enum ChunksError {
    /// The sender has violated the coding.
    Malformed,
    /// The buffers of the proxy are at their limit.
    NoRoom,
}

/// The progress of an exchange after an event.
pub enum Progress {
    /// The exchange continues.
    Going,
    /// Request and response are forwarded completely.
    Done { keep_client: bool, keep_origin: bool },
    /// The request is malformed, and the client has got nothing of a response.
    BadRequest(&'static str),
    /// The connection switches to a protocol that the client has requested.
    Switched,
    /// The response is malformed, and the client has got nothing of it.
    BadGateway(&'static str),
    /// The request is refused, and the client has got nothing of a response. Holds the status, the reason and the text.
    Refused(u16, Reason, &'static str),
    /// An error after a part of the response was sent. Only a reset tells the client that the rest is missing.
    Cut(Reason, &'static str),
}

impl Exchange {
    /// Creates the exchange for a parsed request.
    pub fn new(head: &RequestHead<'_>, absolute: &Absolute<'_>) -> Exchange {
        let mut bytes = Vec::new();
        rewrite::request(head, absolute, &mut bytes);
        Exchange {
            head: bytes,
            body: head.body,
            client: head.client(),
            upgrade: head.asks_upgrade().then(|| head.fields.named("upgrade").collect::<Vec<_>>().join(&b',')),
            kind: head.kind(),
            is_idempotent: matches!(head.method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE"),
            is_reused: false,
            request: MessageState::Head,
            response: MessageState::Head,
            partial_head: None,
            has_answered: false,
            keep_client: false,
            keep_origin: false,
        }
    }

    /// Sets that the origin server's connection was kept from an earlier exchange.
    pub fn on_kept_connection(mut self: Box<Exchange>) -> Box<Exchange> {
        self.is_reused = true;
        self
    }

    /// Returns the kind of the request.
    pub fn kind(&self) -> RequestKind {
        self.kind
    }

    /// Sends the request head and lets the body follow. Returns false if the buffers have no room for the head.
    pub fn begin(&mut self, cx: &mut Cx<'_>) -> bool {
        if cx.send(Role::Dest, &self.head).is_err() {
            return false;
        }
        match self.body {
            Body::Length(length) if length > 0 => {
                self.request = MessageState::Bytes;
                cx.relay_bytes(Role::Source, length.min(LENGTH_MAX));
            }
            Body::Chunked => {
                self.request = MessageState::Chunks(Chunks::default(), ChunkFraming::Kept);
                cx.resume_reading(Role::Source);
            }
            Body::None | Body::Length(_) | Body::UntilClose => {
                self.request = MessageState::Done;
                cx.pause_reading(Role::Source);
            }
        }
        cx.resume_reading(Role::Dest);
        true
    }

    /// Handles input of the client. Returns the consumed bytes and the progress.
    pub fn client_sent(&mut self, cx: &mut Cx<'_>, input: &[u8]) -> (usize, Progress) {
        // An error response must not be sent in the middle of the head of an interim response.
        let has_answered = self.has_answered || matches!(self.response, MessageState::Unsent(..));
        let consumed = match &mut self.request {
            MessageState::Chunks(chunks, framing) => {
                let (framing, mut consumed) = (*framing, 0);
                match chunks.next(cx, input, Role::Source, framing, &mut consumed) {
                    Ok(false) => return (consumed, Progress::Going),
                    Ok(true) => consumed,
                    Err(error) if has_answered => return (input.len(), error.cut()),
                    Err(ChunksError::Malformed) => return (input.len(), Progress::BadRequest(MALFORMED)),
                    Err(ChunksError::NoRoom) => {
                        // A reset tells the server that the body is incomplete.
                        let _ = cx.reset_dest();
                        return (input.len(), Progress::Refused(503, Reason::LimitReached, NO_ROOM));
                    }
                }
            }
            _ => 0,
        };
        // The next bytes belong to the next request, which waits for the response to this one.
        self.request = MessageState::Done;
        cx.pause_reading(Role::Source);
        (consumed, self.outcome())
    }

    /// Handles input of the origin server. Returns the consumed bytes and the progress. A connection with bytes behind the
    /// response is not kept, because these bytes could be read as the response to the next request.
    pub fn origin_sent(&mut self, cx: &mut Cx<'_>, input: &[u8]) -> (usize, Progress) {
        let (consumed, step) = self.response_part(cx, input);
        match step {
            Progress::Done { keep_client, keep_origin } => {
                (consumed, Progress::Done { keep_client, keep_origin: keep_origin && consumed == input.len() })
            }
            step => (consumed, step),
        }
    }

    fn response_part(&mut self, cx: &mut Cx<'_>, input: &[u8]) -> (usize, Progress) {
        match &mut self.response {
            MessageState::Head => self.response_head(cx, input),
            MessageState::Chunks(chunks, framing) => {
                let (framing, mut consumed) = (*framing, 0);
                match chunks.next(cx, input, Role::Dest, framing, &mut consumed) {
                    Ok(false) => return (consumed, Progress::Going),
                    Ok(true) => {}
                    Err(error) => return (input.len(), error.cut()),
                }
                self.response = MessageState::Done;
                (consumed, self.outcome())
            }
            MessageState::Bytes => {
                self.response = MessageState::Done;
                (0, self.outcome())
            }
            MessageState::UntilClose | MessageState::Done | MessageState::Unsent(..) => (0, Progress::Going),
        }
    }

    fn response_head(&mut self, cx: &mut Cx<'_>, input: &[u8]) -> (usize, Progress) {
        if self.partial_head.is_some() {
            return self.collect_head(cx, input);
        }
        match response::parse_response(input, RESPONSE_HEAD_BYTES_MAX, self.kind) {
            Ok(None) if input.len() >= cx.input_bytes_max() => self.collect_head(cx, input),
            Ok(None) => (0, Progress::Going),
            Ok(Some((head, consumed))) => (consumed, self.forward_head(cx, &head, None)),
            Err(error) => (input.len(), self.bad_head(&error)),
        }
    }

    /// Collects a head that is larger than the input that the loop shows at once. The handshake timer runs until the head is
    /// sent.
    fn collect_head(&mut self, cx: &mut Cx<'_>, input: &[u8]) -> (usize, Progress) {
        let mut partial = match self.partial_head.take() {
            Some(partial) => partial,
            None => match Slot::take(PeerNetwork::from(&cx.peer(Role::Source))) {
                Some(slot) => PartialHead::new(slot),
                None => return (input.len(), Progress::Refused(503, Reason::LimitReached, NO_SLOT)),
            },
        };
        match partial.push(input) {
            Ok(None) => {
                if cx.stage() == Stage::Established {
                    cx.set_stage(Stage::Handshake);
                }
                self.partial_head = Some(partial);
                (input.len(), Progress::Going)
            }
            Ok(Some(consumed)) => {
                cx.set_stage(Stage::Established);
                let (bytes, slot) = partial.into_parts();
                match response::parse_response(&bytes, RESPONSE_HEAD_BYTES_MAX, self.kind) {
                    Ok(Some((head, _))) => (consumed, self.forward_head(cx, &head, Some(slot))),
                    Ok(None) => {
                        (consumed, Progress::BadGateway("the head of the response has no empty line at its end"))
                    }
                    Err(error) => (input.len(), self.bad_head(&error)),
                }
            }
            Err(error) => (input.len(), self.bad_head(&error)),
        }
    }

    fn bad_head(&self, error: &HeadError) -> Progress {
        match self.has_answered {
            true => Progress::Cut(Reason::ProtocolError, error.text),
            false => Progress::BadGateway(error.text),
        }
    }

    /// Forwards the head of a response, and lets its body follow. A large head has a `slot`.
    fn forward_head(&mut self, cx: &mut Cx<'_>, head: &ResponseHead<'_>, slot: Option<Slot>) -> Progress {
        if head.is_switching() {
            return self.switch(cx, head);
        }
        // A field may gain a space behind its colon, and up to three fields are added.
        let room = if slot.is_some() { RESPONSE_HEAD_BYTES_MAX + 1024 } else { 0 };
        let mut bytes = Vec::with_capacity(room);
        // A response to an incomplete request closes the connection, and its head says so.
        let keep_alive = self.client.keep_alive && matches!(self.request, MessageState::Done);
        let outgoing = rewrite::response(head, Client { keep_alive, ..self.client }, &mut bytes);
        let mut info = ResponseInfo {
            is_interim: head.is_interim(),
            body: head.body,
            body_out: outgoing.body,
            keep_client: outgoing.keep_alive,
            keep_origin: head.keep_alive,
        };
        self.has_answered |= !info.is_interim;
        match slot {
            None if cx.reply(&bytes).is_ok() => self.follow(cx, info),
            None => Progress::Cut(Reason::LimitReached, "the buffers have no room for the response"),
            Some(slot) => {
                // The server is not read while the head is sent. So a connection is not kept after a response without a
                // body, because bytes behind the response would not be noticed.
                info.keep_origin &= !matches!(info.body, Body::None | Body::Length(0));
                self.response = MessageState::Unsent(UnsentHead::new(bytes, slot), info);
                cx.pause_reading(Role::Dest);
                cx.set_stage(Stage::Handshake);
                self.send_head(cx)
            }
        }
    }

    /// Forwards the head of a 101. All bytes behind it are relayed (RFC 9110, section 15.2.2).
    fn switch(&mut self, cx: &mut Cx<'_>, head: &ResponseHead<'_>) -> Progress {
        let requested: Vec<_> =
            self.upgrade.iter().flat_map(|list| list.split(|byte| *byte == b',')).map(head::trim).collect();
        if !head.switches_to_one_of(&requested) {
            return Progress::BadGateway("the server switched to a protocol that the client has not requested");
        }
        let mut bytes = Vec::new();
        rewrite::response(head, self.client, &mut bytes);
        if bytes.len() > cx.input_bytes_max() || cx.reply(&bytes).is_err() {
            return Progress::Cut(Reason::LimitReached, "the buffers have no room for the response");
        }
        Progress::Switched
    }

    /// Sends as much of a large head as the client takes. The body follows when the head is sent.
    pub fn send_head(&mut self, cx: &mut Cx<'_>) -> Progress {
        let MessageState::Unsent(unsent, info) = &mut self.response else { return Progress::Going };
        let info = *info;
        if !unsent.send(cx.input_bytes_max(), |piece| cx.reply(piece).is_ok()) {
            return Progress::Going;
        }
        self.response = MessageState::Head;
        cx.set_stage(Stage::Established);
        cx.resume_reading(Role::Dest);
        self.follow(cx, info)
    }

    /// Lets the body follow a sent head.
    fn follow(&mut self, cx: &mut Cx<'_>, info: ResponseInfo) -> Progress {
        if info.is_interim {
            return Progress::Going;
        }
        (self.keep_client, self.keep_origin) = (info.keep_client, info.keep_origin);
        match info.body {
            Body::Length(length) if length > 0 => {
                self.response = MessageState::Bytes;
                cx.relay_bytes(Role::Dest, length.min(LENGTH_MAX));
            }
            Body::Chunked => {
                let framing = if info.body_out == Body::Chunked { ChunkFraming::Kept } else { ChunkFraming::Dropped };
                self.response = MessageState::Chunks(Chunks::default(), framing);
            }
            Body::UntilClose => {
                self.response = MessageState::UntilClose;
                cx.relay_bytes(Role::Dest, LENGTH_MAX);
            }
            Body::None | Body::Length(_) => {
                self.response = MessageState::Done;
                return self.outcome();
            }
        }
        Progress::Going
    }

    /// Returns the progress after the handshake timer has fired during a large response head.
    pub fn timed_out(&self) -> Progress {
        match self.response {
            MessageState::Head if !self.has_answered => {
                Progress::Refused(504, Reason::HandshakeTimeout, "the head of the response did not come in time")
            }
            _ => Progress::Cut(Reason::HandshakeTimeout, "the head of the response was not taken in time"),
        }
    }

    /// Returns the progress after a message is complete. A response that is complete before its request ends the exchange and
    /// the connection, because the rest of the request could not be told from the next request.
    fn outcome(&self) -> Progress {
        let sent = matches!(self.request, MessageState::Done);
        match self.response {
            MessageState::Done => {
                Progress::Done { keep_client: self.keep_client && sent, keep_origin: self.keep_origin && sent }
            }
            _ => Progress::Going,
        }
    }

    /// Handles the end of the origin server's direction.
    pub fn origin_ended(&mut self, reset: bool) -> Progress {
        match self.response {
            MessageState::Head if !self.has_answered => Progress::BadGateway("the server closed without a response"),
            MessageState::UntilClose if !reset => Progress::Done { keep_client: false, keep_origin: false },
            _ if reset => Progress::Cut(Reason::DestReset, "the response was reset before its body ended"),
            _ => Progress::Cut(Reason::DestFin, "the response ended before its body did"),
        }
    }

    /// Returns true if the server may have closed the connection before it saw the request, and the request is safe to send
    /// again.
    pub fn can_be_retried(&self) -> bool {
        let untouched = matches!(self.response, MessageState::Head) && !self.has_answered;
        self.is_reused && untouched && self.is_idempotent && matches!(self.body, Body::None | Body::Length(0))
    }

    /// Returns an exchange that sends the request on a new connection.
    pub fn retry(&mut self) -> Exchange {
        Exchange {
            head: std::mem::take(&mut self.head),
            upgrade: self.upgrade.take(),
            is_reused: false,
            request: MessageState::Head,
            response: MessageState::Head,
            partial_head: None,
            ..*self
        }
    }
}

impl ChunksError {
    /// Returns the end of an exchange whose client has a part of the response.
    fn cut(self) -> Progress {
        match self {
            ChunksError::Malformed => Progress::Cut(Reason::ProtocolError, MALFORMED),
            ChunksError::NoRoom => Progress::Cut(Reason::LimitReached, NO_ROOM),
        }
    }
}

impl Chunks {
    /// Forwards the framing at the start of the input, and lets the loop relay the data of a chunk. Returns true if the body
    /// is complete.
    fn next(
        &mut self,
        cx: &mut Cx<'_>,
        input: &[u8],
        from: Role,
        framing: ChunkFraming,
        consumed: &mut usize,
    ) -> Result<bool, ChunksError> {
        let step = self.reader.next(input).map_err(|_| ChunksError::Malformed)?;
        let mut bytes = Vec::new();
        let line_end = if self.line_end_due { chunked::CHUNK_END } else { &[] };
        bytes.extend_from_slice(line_end);
        let over = match step {
            ChunkStep::NeedMore => return Ok(false),
            ChunkStep::Chunk { consumed: framed, size } => {
                *consumed = framed;
                self.line_end_due = true;
                chunked::chunk_line(size, &mut bytes);
                cx.relay_bytes(from, size.min(LENGTH_MAX));
                false
            }
            ChunkStep::End { consumed: framed } => {
                *consumed = framed;
                bytes.extend_from_slice(chunked::LAST_CHUNK);
                true
            }
        };
        let to = if from == Role::Source { Role::Dest } else { Role::Source };
        if framing == ChunkFraming::Kept && cx.send(to, &bytes).is_err() {
            return Err(ChunksError::NoRoom);
        }
        Ok(over)
    }
}

const MALFORMED: &str = "the chunked coding of the body is malformed";
const NO_ROOM: &str = "the buffers have no room for the body";
const NO_SLOT: &str = "too many large response heads at the same time";
/// The length of a body without a known end. The loop calls the handler at the end of each shorter relay, so one less than
/// `u64::MAX`.
const LENGTH_MAX: u64 = u64::MAX - 1;
