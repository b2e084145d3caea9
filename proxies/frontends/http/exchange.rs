//! One request and its response, on their way through the proxy.
//!
//! Two small machines run side by side, because a server may answer before it has the whole request:
//!
//! ```text
//!   request    Bytes | Chunks ------------------> Sent
//!   response   Head --> (large: Unsent) --> (interim: Head again) --> Bytes | Chunks | ToTheEnd --> Done
//! ```
//! The data of a body is relayed by the loop; only heads and chunk lines pass through here.

use seaprox::{Cx, PeerNetwork, Reason, Role, Stage};

use super::Chunks;
use super::chunked::{self, Step as ChunkStep};
use super::head::{self, Asked, Body, HeadError, RESPONSE_HEAD_BYTES_MAX};
use super::large_head::{Gathered, Place, Unsent};
use super::request::{Absolute, Client, RequestHead};
use super::response::{self, ResponseHead};
use super::rewrite;

/// One request and its response.
pub struct Exchange {
    /// The request as it goes to the origin server.
    head: Vec<u8>,
    body: Body,
    client: Client,
    /// The protocols that the client wants instead, and that the server has been told of, with commas between them.
    upgrade: Option<Vec<u8>>,
    asked: Asked,
    /// A request that may be sent again without doing anything twice (RFC 9110, section 9.2.2).
    is_idempotent: bool,
    /// The origin server's connection has carried another exchange before.
    is_reused: bool,
    request: Part,
    response: Part,
    /// The response head as far as it has arrived, if it is a large one.
    gathered: Option<Gathered>,
    /// Something of the response has gone to the client.
    has_answered: bool,
    keep_client: bool,
    keep_origin: bool,
}

/// How far a message has come.
enum Part {
    Head,
    /// The head of a response that the client has not taken whole, and the meaning of it.
    Unsent(Unsent, Answer),
    Bytes,
    Chunks(Chunks, Framing),
    ToTheEnd,
    Done,
}

/// The meaning of a response head for what follows it.
#[derive(Clone, Copy)]
struct Answer {
    /// Another head follows.
    is_interim: bool,
    /// The body as the server sends it, and as the client gets it.
    body: Body,
    body_out: Body,
    keep_client: bool,
    keep_origin: bool,
}

/// What becomes of the framing of a chunked body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    Kept,
    /// The client speaks HTTP/1.0 and gets the bare data.
    Dropped,
}

/// Why a chunked body goes no further.
#[derive(Clone, Copy)]
enum ChunksError {
    /// The sender broke the rules of the coding.
    Unreadable,
    /// The buffers are at their limit, which is nobody's fault but ours.
    NoRoom,
}

/// What follows.
pub enum Step {
    /// Nothing yet.
    Going,
    /// Both messages are through.
    Done { keep_client: bool, keep_origin: bool },
    /// The request is broken, and the client has got nothing of a response yet.
    BadRequest(&'static str),
    /// The server speaks another protocol from now on, which the client has asked for.
    Switched,
    /// There is no usable response, and the client has got nothing yet.
    BadGateway(&'static str),
    /// There is no usable response, and the client has got nothing yet; holds the status, the reason and the text of the
    /// answer.
    Refused(u16, Reason, &'static str),
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
            upgrade: head.asks_upgrade().then(|| head.fields.named("upgrade").collect::<Vec<_>>().join(&b',')),
            asked: head.asked(),
            is_idempotent: matches!(head.method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE"),
            is_reused: false,
            request: Part::Head,
            response: Part::Head,
            gathered: None,
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
        // An answer must not stand in the middle of the head of an interim response.
        let has_answered = self.has_answered || matches!(self.response, Part::Unsent(..));
        let consumed = match &mut self.request {
            Part::Chunks(chunks, framing) => {
                let (framing, mut consumed) = (*framing, 0);
                match chunks.next(cx, input, Role::Source, framing, &mut consumed) {
                    Ok(false) => return (consumed, Step::Going),
                    Ok(true) => consumed,
                    Err(error) if has_answered => return (input.len(), error.cut()),
                    Err(ChunksError::Unreadable) => return (input.len(), Step::BadRequest(UNREADABLE)),
                    Err(ChunksError::NoRoom) => {
                        // The server has a part of the body, and must not take it for the whole.
                        cx.reset_dest();
                        return (input.len(), Step::Refused(503, Reason::LimitReached, NO_ROOM));
                    }
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
                    Err(error) => return (input.len(), error.cut()),
                }
                self.response = Part::Done;
                (consumed, self.outcome())
            }
            Part::Bytes => {
                self.response = Part::Done;
                (0, self.outcome())
            }
            Part::ToTheEnd | Part::Done | Part::Unsent(..) => (0, Step::Going),
        }
    }

    fn response_head(&mut self, cx: &mut Cx<'_>, input: &[u8]) -> (usize, Step) {
        if self.gathered.is_some() {
            return self.gather(cx, input);
        }
        match response::parse_response(input, RESPONSE_HEAD_BYTES_MAX, self.asked) {
            Ok(None) if input.len() >= cx.input_bytes_max() => self.gather(cx, input),
            Ok(None) => (0, Step::Going),
            Ok(Some((head, consumed))) => (consumed, self.answer(cx, &head, None)),
            Err(error) => (input.len(), self.bad_head(&error)),
        }
    }

    /// Gathers a head that is larger than the loop shows at once. While it is gathered and sent the handshake timer runs.
    fn gather(&mut self, cx: &mut Cx<'_>, input: &[u8]) -> (usize, Step) {
        let mut gathered = match self.gathered.take() {
            Some(gathered) => gathered,
            None => match Place::take(PeerNetwork::from(&cx.peer(Role::Source))) {
                Some(place) => Gathered::new(place),
                None => return (input.len(), Step::Refused(503, Reason::LimitReached, NO_PLACE)),
            },
        };
        match gathered.push(input) {
            Ok(None) => {
                if cx.stage() == Some(Stage::Established) {
                    cx.set_stage(Stage::Handshake);
                }
                self.gathered = Some(gathered);
                (input.len(), Step::Going)
            }
            Ok(Some(consumed)) => {
                cx.set_stage(Stage::Established);
                let (bytes, place) = gathered.into_parts();
                match response::parse_response(&bytes, RESPONSE_HEAD_BYTES_MAX, self.asked) {
                    Ok(Some((head, _))) => (consumed, self.answer(cx, &head, Some(place))),
                    Ok(None) => (consumed, Step::BadGateway("the head of the response has no end")),
                    Err(error) => (input.len(), self.bad_head(&error)),
                }
            }
            Err(error) => (input.len(), self.bad_head(&error)),
        }
    }

    fn bad_head(&self, error: &HeadError) -> Step {
        match self.has_answered {
            true => Step::Cut(Reason::ProtocolError, error.text),
            false => Step::BadGateway(error.text),
        }
    }

    /// Passes the head of a response on, and lets its body follow. A large head has a `place`.
    fn answer(&mut self, cx: &mut Cx<'_>, head: &ResponseHead<'_>, place: Option<Place>) -> Step {
        if head.is_switching() {
            return self.switch(cx, head);
        }
        // A name may gain a space behind its colon, and three fields are added.
        let room = if place.is_some() { RESPONSE_HEAD_BYTES_MAX + 1024 } else { 0 };
        let mut bytes = Vec::with_capacity(room);
        // A response that comes before its request is through ends the connection, and says so.
        let keep_alive = self.client.keep_alive && matches!(self.request, Part::Done);
        let outgoing = rewrite::response(head, Client { keep_alive, ..self.client }, &mut bytes);
        let mut answer = Answer {
            is_interim: head.is_interim(),
            body: head.body,
            body_out: outgoing.body,
            keep_client: outgoing.keep_alive,
            keep_origin: head.keep_alive,
        };
        self.has_answered |= !answer.is_interim;
        match place {
            None if cx.reply(&bytes) => self.follow(cx, answer),
            None => Step::Cut(Reason::LimitReached, "no room to send the response"),
            Some(place) => {
                // Bytes behind a head are not read while the head is sent. If the answer has no body, the connection is not
                // kept, because such bytes would go unnoticed.
                answer.keep_origin &= !matches!(answer.body, Body::None | Body::Length(0));
                self.response = Part::Unsent(Unsent::new(bytes, place), answer);
                cx.hold(Role::Dest);
                cx.set_stage(Stage::Handshake);
                self.send_head(cx)
            }
        }
    }

    /// Passes the head of a 101 on, behind which everything is relayed (RFC 9110, section 15.2.2).
    fn switch(&mut self, cx: &mut Cx<'_>, head: &ResponseHead<'_>) -> Step {
        let asked: Vec<_> =
            self.upgrade.iter().flat_map(|list| list.split(|byte| *byte == b',')).map(head::trim).collect();
        if !head.switches_to_one_of(&asked) {
            return Step::BadGateway("the server switched protocols without having been asked");
        }
        let mut bytes = Vec::new();
        rewrite::response(head, self.client, &mut bytes);
        if bytes.len() > cx.input_bytes_max() || !cx.reply(&bytes) {
            return Step::Cut(Reason::LimitReached, "no room to send the response");
        }
        Step::Switched
    }

    /// Sends what the client takes of a large head; the body follows when the head is gone.
    pub fn send_head(&mut self, cx: &mut Cx<'_>) -> Step {
        let Part::Unsent(unsent, answer) = &mut self.response else { return Step::Going };
        let answer = *answer;
        if !unsent.send(cx.input_bytes_max(), |piece| cx.reply(piece)) {
            return Step::Going;
        }
        self.response = Part::Head;
        cx.set_stage(Stage::Established);
        cx.resume(Role::Dest);
        self.follow(cx, answer)
    }

    /// Lets the body follow the head that has been sent.
    fn follow(&mut self, cx: &mut Cx<'_>, answer: Answer) -> Step {
        if answer.is_interim {
            return Step::Going;
        }
        (self.keep_client, self.keep_origin) = (answer.keep_client, answer.keep_origin);
        match answer.body {
            Body::Length(length) if length > 0 => {
                self.response = Part::Bytes;
                cx.pass(Role::Dest, length.min(LENGTH_MAX));
            }
            Body::Chunked => {
                let framing = if answer.body_out == Body::Chunked { Framing::Kept } else { Framing::Dropped };
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

    /// The handshake timer has fired while a large response head was on its way.
    pub fn timed_out(&self) -> Step {
        match self.response {
            Part::Head if !self.has_answered => {
                Step::Refused(504, Reason::HandshakeTimeout, "the head of the response did not come in time")
            }
            _ => Step::Cut(Reason::HandshakeTimeout, "the head of the response was not taken in time"),
        }
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
            upgrade: self.upgrade.take(),
            is_reused: false,
            request: Part::Head,
            response: Part::Head,
            gathered: None,
            ..*self
        }
    }
}

impl ChunksError {
    /// The end of an exchange of which the client has a part already.
    fn cut(self) -> Step {
        match self {
            ChunksError::Unreadable => Step::Cut(Reason::ProtocolError, UNREADABLE),
            ChunksError::NoRoom => Step::Cut(Reason::LimitReached, NO_ROOM),
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
    ) -> Result<bool, ChunksError> {
        let step = self.reader.next(input).map_err(|_| ChunksError::Unreadable)?;
        let mut bytes = Vec::new();
        let line_end = if self.line_end_due { chunked::CHUNK_END } else { &[] };
        bytes.extend_from_slice(line_end);
        let over = match step {
            ChunkStep::NeedMore => return Ok(false),
            ChunkStep::Chunk { consumed: framed, size } => {
                *consumed = framed;
                self.line_end_due = true;
                chunked::chunk_line(size, &mut bytes);
                cx.pass(from, size.min(LENGTH_MAX));
                false
            }
            ChunkStep::End { consumed: framed } => {
                *consumed = framed;
                bytes.extend_from_slice(chunked::LAST_CHUNK);
                true
            }
        };
        let to = if from == Role::Source { Role::Dest } else { Role::Source };
        if framing == Framing::Kept && !cx.send(to, &bytes) {
            return Err(ChunksError::NoRoom);
        }
        Ok(over)
    }
}

const UNREADABLE: &str = "the chunks of the body cannot be read";
const NO_ROOM: &str = "no room to send the body";
const NO_PLACE: &str = "too many large response heads are on their way";
/// The longest body that is relayed with a word at its end; no more bytes than these will ever come.
const LENGTH_MAX: u64 = u64::MAX - 1;
