//! One request and its response, on their way through the proxy.
//!
//! Two small machines run side by side, because a server may answer before it has the whole request:
//!
//! ```text
//!   request    Bytes | Chunks ------------------> Sent
//!   response   Head --> (interim: Head again) --> Bytes | Chunks | ToTheEnd --> Done
//! ```
//! The data of a body is relayed by the loop; only heads and chunk lines pass through here.

use seaprox::{Cx, Reason, Role};

use super::Chunks;
use super::body::{self, Step as ChunkStep};
use super::head::{Asked, Body, RESPONSE_HEAD_BYTES_MAX};
use super::request::{Absolute, Client, RequestHead};
use super::response::{self, ResponseHead};
use super::rewrite;

/// One request and its response.
pub struct Exchange {
    /// The request as it goes to the origin server.
    head: Vec<u8>,
    body: Body,
    client: Client,
    asked: Asked,
    /// A request that may be sent again without doing anything twice (RFC 9110, section 9.2.2).
    is_idempotent: bool,
    /// The origin server's connection has carried another exchange before.
    is_reused: bool,
    request: Part,
    response: Part,
    /// Something of the response has gone to the client.
    has_answered: bool,
    keep_client: bool,
    keep_origin: bool,
}

/// How far a message has come.
enum Part {
    Head,
    Bytes,
    Chunks(Chunks, Framing),
    ToTheEnd,
    Done,
}

/// What becomes of the framing of a chunked body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    Kept,
    /// The client speaks HTTP/1.0 and gets the bare data.
    Dropped,
}

/// What follows.
pub enum Step {
    /// Nothing yet.
    Going,
    /// Both messages are through.
    Done { keep_client: bool, keep_origin: bool },
    /// There is no usable response, and the client has got nothing yet.
    BadGateway(&'static str),
    /// Something broke when a part had gone already; only a cut tells the client that the rest is missing.
    Cut(Reason, &'static str),
}

impl Exchange {
    /// An exchange for a request that has just been parsed.
    pub fn new(head: &RequestHead<'_>, absolute: &Absolute<'_>) -> Exchange {
        let mut bytes = Vec::new();
        rewrite::request(head, absolute, &mut bytes);
        Exchange {
            head: bytes,
            body: head.body,
            client: head.client(),
            asked: head.asked(),
            is_idempotent: matches!(head.method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE"),
            is_reused: false,
            request: Part::Head,
            response: Part::Head,
            has_answered: false,
            keep_client: false,
            keep_origin: false,
        }
    }

    /// The same, on a connection that was kept.
    pub fn on_a_used_connection(mut self: Box<Exchange>) -> Box<Exchange> {
        self.is_reused = true;
        self
    }

    /// What the request was, as far as it frames the response.
    pub fn asked(&self) -> Asked {
        self.asked
    }

    /// Sends the head and lets the body follow. Whether there was room for the head.
    pub fn begin(&mut self, cx: &mut Cx<'_>) -> bool {
        if !cx.send(Role::Dest, &self.head) {
            return false;
        }
        match self.body {
            Body::Length(length) if length > 0 => {
                self.request = Part::Bytes;
                cx.pass(Role::Source, length.min(LENGTH_MAX));
            }
            Body::Chunked => {
                self.request = Part::Chunks(Chunks::default(), Framing::Kept);
                cx.resume(Role::Source);
            }
            Body::None | Body::Length(_) | Body::UntilClose => {
                self.request = Part::Done;
                cx.hold(Role::Source);
            }
        }
        cx.resume(Role::Dest);
        true
    }

    /// The client's input, while its request is under way.
    pub fn client_sent(&mut self, cx: &mut Cx<'_>, input: &[u8]) -> (usize, Step) {
        let consumed = match &mut self.request {
            Part::Chunks(chunks, framing) => {
                let (framing, mut consumed) = (*framing, 0);
                match chunks.next(cx, input, Role::Source, framing, &mut consumed) {
                    Ok(false) => return (consumed, Step::Going),
                    Ok(true) => consumed,
                    Err(text) => return (input.len(), Step::Cut(Reason::ProtocolError, text)),
                }
            }
            _ => 0,
        };
        // What comes now belongs to the next request, which waits for this one's response.
        self.request = Part::Done;
        cx.hold(Role::Source);
        (consumed, self.outcome())
    }

    /// The origin server's input. What stands behind a response that is through was not asked for, and must never be
    /// read as the response to the next request: such a connection is not kept.
    pub fn origin_sent(&mut self, cx: &mut Cx<'_>, input: &[u8]) -> (usize, Step) {
        let (consumed, step) = self.response_part(cx, input);
        match step {
            Step::Done { keep_client, keep_origin } => {
                (consumed, Step::Done { keep_client, keep_origin: keep_origin && consumed == input.len() })
            }
            step => (consumed, step),
        }
    }

    fn response_part(&mut self, cx: &mut Cx<'_>, input: &[u8]) -> (usize, Step) {
        match &mut self.response {
            Part::Head => self.response_head(cx, input),
            Part::Chunks(chunks, framing) => {
                let (framing, mut consumed) = (*framing, 0);
                match chunks.next(cx, input, Role::Dest, framing, &mut consumed) {
                    Ok(false) => return (consumed, Step::Going),
                    Ok(true) => {}
                    Err(text) => return (input.len(), Step::Cut(Reason::ProtocolError, text)),
                }
                self.response = Part::Done;
                (consumed, self.outcome())
            }
            Part::Bytes => {
                self.response = Part::Done;
                (0, self.outcome())
            }
            Part::ToTheEnd | Part::Done => (0, Step::Going),
        }
    }

    fn response_head(&mut self, cx: &mut Cx<'_>, input: &[u8]) -> (usize, Step) {
        match response::parse_response(input, cx.input_bytes_max().min(RESPONSE_HEAD_BYTES_MAX), self.asked) {
            Ok(None) => (0, Step::Going),
            Ok(Some((head, consumed))) => (consumed, self.answer(cx, &head)),
            Err(error) if self.has_answered => (input.len(), Step::Cut(Reason::ProtocolError, error.text)),
            Err(error) => (input.len(), Step::BadGateway(error.text)),
        }
    }

    /// Passes the head of a response on, and lets its body follow.
    fn answer(&mut self, cx: &mut Cx<'_>, head: &ResponseHead<'_>) -> Step {
        if head.is_switching() {
            return Step::BadGateway("the server switched protocols without having been asked");
        }
        let mut bytes = Vec::new();
        // A response that comes before its request is through ends the connection, and says so.
        let keep_alive = self.client.keep_alive && matches!(self.request, Part::Done);
        let outgoing = rewrite::response(head, Client { keep_alive, ..self.client }, &mut bytes);
        if !cx.reply(&bytes) {
            return Step::Cut(Reason::LimitReached, "no room to send the response");
        }
        if head.is_interim() {
            return Step::Going;
        }
        self.has_answered = true;
        (self.keep_client, self.keep_origin) = (outgoing.keep_alive, head.keep_alive);
        match head.body {
            Body::Length(length) if length > 0 => {
                self.response = Part::Bytes;
                cx.pass(Role::Dest, length.min(LENGTH_MAX));
            }
            Body::Chunked => {
                let framing = if outgoing.body == Body::Chunked { Framing::Kept } else { Framing::Dropped };
                self.response = Part::Chunks(Chunks::default(), framing);
            }
            Body::UntilClose => {
                self.response = Part::ToTheEnd;
                cx.pass(Role::Dest, LENGTH_MAX);
            }
            Body::None | Body::Length(_) => {
                self.response = Part::Done;
                return self.outcome();
            }
        }
        Step::Going
    }

    /// What follows now that one more part is through. A response that is through before its request ends the
    /// exchange: nobody wants the rest, and nobody could tell it from the next request.
    fn outcome(&self) -> Step {
        let sent = matches!(self.request, Part::Done);
        match self.response {
            Part::Done => Step::Done { keep_client: self.keep_client && sent, keep_origin: self.keep_origin && sent },
            _ => Step::Going,
        }
    }

    /// The origin server gives no more.
    pub fn origin_ended(&mut self, reset: bool) -> Step {
        match self.response {
            Part::Head if !self.has_answered => Step::BadGateway("the server closed without a response"),
            Part::ToTheEnd if !reset => Step::Done { keep_client: false, keep_origin: false },
            _ if reset => Step::Cut(Reason::DestReset, "the response was reset before its body ended"),
            _ => Step::Cut(Reason::DestFin, "the response ended before its body did"),
        }
    }

    /// Whether the server may have closed before it saw the request, and it is safe to send it again.
    pub fn may_be_tried_again(&self) -> bool {
        let untouched = matches!(self.response, Part::Head) && !self.has_answered;
        self.is_reused && untouched && self.is_idempotent && matches!(self.body, Body::None | Body::Length(0))
    }

    /// The same request, for a new connection.
    pub fn again(&mut self) -> Exchange {
        Exchange {
            head: std::mem::take(&mut self.head),
            is_reused: false,
            request: Part::Head,
            response: Part::Head,
            ..*self
        }
    }
}

impl Chunks {
    /// Passes on what the input holds of a chunked body; the data of a chunk is relayed by the loop, which calls again
    /// behind it. Whether the body is through.
    fn next(
        &mut self,
        cx: &mut Cx<'_>,
        input: &[u8],
        from: Role,
        framing: Framing,
        consumed: &mut usize,
    ) -> Result<bool, &'static str> {
        let step = self.reader.next(input).map_err(|_| "the chunks of the body cannot be read")?;
        let mut bytes = Vec::new();
        let line_end = if self.line_end_due { body::CHUNK_END } else { &[] };
        bytes.extend_from_slice(line_end);
        let over = match step {
            ChunkStep::NeedMore => return Ok(false),
            ChunkStep::Chunk { consumed: framed, size } => {
                *consumed = framed;
                self.line_end_due = true;
                body::chunk_line(size, &mut bytes);
                cx.pass(from, size.min(LENGTH_MAX));
                false
            }
            ChunkStep::End { consumed: framed } => {
                *consumed = framed;
                bytes.extend_from_slice(body::LAST_CHUNK);
                true
            }
        };
        let to = if from == Role::Source { Role::Dest } else { Role::Source };
        if framing == Framing::Kept && !cx.send(to, &bytes) {
            return Err("no room to send the body");
        }
        Ok(over)
    }
}

/// The longest body that is relayed with a word at its end; no more bytes than these will ever come.
const LENGTH_MAX: u64 = u64::MAX - 1;
