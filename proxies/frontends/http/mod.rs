//! The HTTP front end: tunnels for CONNECT, and forwarding of requests in absolute form.
//!
//! ```text
//!            CONNECT                     connected
//!   Request ---------> Tunneling ----------------------> relay
//!      ^  \  http://            connected, or kept
//!      |   `---------> Dialing -------------------> Exchange --+
//!      |                                                       |
//!      +-------------- response and request are complete ------+--> close, if the connection does not persist
//!                                                              \--101--> relay
//! ```
//! Heads are parsed and rewritten; the loop relays the data of bodies, and no handler sees it. `head`, `request` and
//! `response` parse, `rewrite` and `reply` write, `chunked` is the chunked coding, `exchange` is one request with its
//! response.

mod chunked;
mod exchange;
mod head;
mod large_head;
mod reply;
mod request;
mod response;
mod rewrite;

use std::rc::Rc;
use std::sync::Arc;

use seaprox::{Cause, Cx, Failure, Fault, Handler, Reason, Role, Stage, Target};

use super::access::AccessPolicy;
use super::auth_penalties::FAILURES_PER_CONNECTION;
use super::spec::FrontEndSpec;
use chunked::ChunkedReader;
use exchange::{Exchange, Progress};
use head::{Body, HeadError, RequestKind};
use request::{Form, RequestHead};

/// The HTTP front end in the registry.
pub const SPEC: FrontEndSpec = FrontEndSpec {
    name: "http",
    summary: "HTTP proxy: CONNECT, and requests for http:// addresses",
    synopsis: "[--listen ADDR] [OPTION]...",
    default_address: "127.0.0.1:8080",
    options: &[],
    flags: &["users", "handshake-timeout", "keepalive-timeout"],
    serves_redirected: false,
    examples: &[
        ("http", "serve on 127.0.0.1:8080"),
        ("http --allow '*:443' --allow '*:80'", "permit the two ports of the web and no others"),
    ],
    make: |_, access, _| {
        let access = Arc::clone(access);
        Some(Box::new(move || handler(Arc::clone(&access))))
    },
    make_datagrams: None,
};

/// The handler of one client.
struct Http {
    access: Arc<AccessPolicy>,
    state: State,
    /// True once the client has sent a byte of a request.
    has_spoken: bool,
    /// The origin server that the dest is connected to.
    origin: Option<Rc<Target>>,
    /// Failed logins of this client.
    failures: u8,
}

enum State {
    /// The next request is awaited.
    Request,
    /// The target of a CONNECT is being connected.
    Tunneling,
    /// The origin server of a request is being connected.
    Dialing(Box<Exchange>),
    /// A request or its response is being forwarded.
    Exchange(Box<Exchange>),
    /// The login has failed, and its answer is delayed. Holds true if the connection is kept, and how the request frames
    /// the answer.
    Denied(bool, RequestKind),
    /// No further input is read.
    Over,
}

/// Returns a handler for a client that has sent nothing yet.
pub fn handler(access: Arc<AccessPolicy>) -> Box<dyn Handler> {
    Box::new(Http { access, state: State::Request, has_spoken: false, origin: None, failures: 0 })
}

impl Http {
    fn request(&mut self, cx: &mut Cx<'_>, input: &[u8]) -> usize {
        // Some clients send a line end after a body (RFC 9112, section 2.2). It is skipped and starts no request.
        let (empty_len, rest) = request::skip_empty_lines(input);
        if rest.is_empty() || rest == b"\r" {
            return empty_len;
        }
        self.has_spoken = true;
        if cx.stage() == Stage::KeepAlive {
            // The first byte of a request starts the timer for its whole head.
            cx.set_stage(Stage::Handshake);
        }
        match request::parse_request(rest, cx.input_bytes_max().min(head::HEAD_BYTES_MAX)) {
            Ok(None) => empty_len,
            Ok(Some((head, consumed))) => {
                self.serve(cx, &head);
                empty_len + consumed
            }
            Err(HeadError { status, text }) => {
                request::asked(input).into_iter().for_each(|asked| cx.set_asked_text(&asked));
                self.refuse(cx, status, text, Reason::ProtocolError, RequestKind::Other);
                input.len()
            }
        }
    }

    fn serve(&mut self, cx: &mut Cx<'_>, head: &RequestHead<'_>) {
        if !self.is_authenticated(cx, head) {
            return;
        }
        match &head.form {
            Form::Connect(target) => {
                cx.set_kind("http");
                self.leave_origin(cx);
                self.state = State::Tunneling;
                self.connect(cx, Rc::new(target.clone()), RequestKind::Connect);
            }
            Form::Absolute(absolute) => {
                let target = Rc::new(absolute.target.clone());
                log::debug!(
                    target: "seaprox::http", conn = cx.id().to_string(), method = head.method,
                    asked = target.to_string(); "request"
                );
                let exchange = Box::new(Exchange::new(head, absolute));
                // The origin server may have closed a kept connection, or sent bytes without a request (RFC 9112, sections
                // 9.2 and 9.3.1), and the event for it may not have arrived yet.
                if self.origin.as_ref() == Some(&target) && cx.is_silent(Role::Dest) {
                    cx.set_stage(Stage::Established);
                    return self.begin(cx, exchange.on_kept_connection());
                }
                let kind = exchange.kind();
                self.leave_origin(cx);
                self.state = State::Dialing(exchange);
                self.connect(cx, target, kind);
            }
        }
    }

    /// Returns true if no login is required, or if the request has valid credentials (RFC 9110, section 11.7). Otherwise
    /// starts the answer.
    fn is_authenticated(&mut self, cx: &mut Cx<'_>, head: &RequestHead<'_>) -> bool {
        let Some(users) = self.access.users() else { return true };
        if let Some(user) = head.proxy_authorization.and_then(|value| users.check_basic(value)) {
            cx.set_user(user);
            return true;
        }
        let keeps = head.keep_alive && head.body == Body::None;
        if head.proxy_authorization.is_none() {
            self.deny(cx, keeps, head.kind());
            return false;
        }
        self.failures += 1;
        self.state = State::Denied(keeps && self.failures < FAILURES_PER_CONNECTION, head.kind());
        match self.access.login_failed(cx) {
            Some(delay) => {
                cx.pause_reading(Role::Source);
                // The delay does not count as the client's time for a request.
                cx.set_stage(Stage::Handshake);
                // A wake-up that is pending already also ends the delay.
                let _ = cx.wake_after(delay);
            }
            None => {
                cx.set_detail(WRONG);
                cx.close(Reason::AuthFailed);
            }
        }
        false
    }

    /// Answers 407, which asks for a user and a password.
    fn deny(&mut self, cx: &mut Cx<'_>, keeps: bool, kind: RequestKind) {
        let keeps = keeps && !cx.core().is_draining();
        let text = "the proxy asks for a user and a password";
        _ = cx.reply(&reply::error_response(407, text, Some(reply::PROXY_AUTHENTICATE), keeps, kind));
        if keeps {
            return self.await_request(cx);
        }
        self.state = State::Over;
        cx.set_detail(if self.failures > 0 { WRONG } else { text });
        cx.close_after_flush(Reason::AuthFailed);
    }

    fn connect(&mut self, cx: &mut Cx<'_>, target: Rc<Target>, kind: RequestKind) {
        match self.access.connect(cx, Rc::clone(&target)) {
            Ok(()) => self.origin = Some(target),
            Err(failure) => self.fail(cx, &failure, kind),
        }
    }

    fn leave_origin(&mut self, cx: &mut Cx<'_>) {
        if self.origin.take().is_some() {
            // An origin that has left already needs no release.
            let _ = cx.disconnect();
        }
    }

    /// Sends a request to the origin server, which is connected.
    fn begin(&mut self, cx: &mut Cx<'_>, mut exchange: Box<Exchange>) {
        if exchange.begin(cx) {
            self.state = State::Exchange(exchange);
        } else {
            self.refuse(cx, 503, "the buffers have no room for the request", Reason::LimitReached, exchange.kind());
        }
    }

    fn exchange(&mut self, cx: &mut Cx<'_>, input: &[u8]) -> usize {
        let State::Exchange(exchange) = &mut self.state else { return input.len() };
        let (consumed, progress) = match cx.role() {
            Role::Source => exchange.client_sent(cx, input),
            Role::Dest => exchange.origin_sent(cx, input),
        };
        self.follow(cx, progress);
        consumed
    }

    fn follow(&mut self, cx: &mut Cx<'_>, progress: Progress) {
        let State::Exchange(exchange) = &self.state else { return };
        match progress {
            Progress::Going => {}
            Progress::Done { keep_client, keep_origin } => {
                if keep_client && !cx.core().is_draining() {
                    if !keep_origin {
                        self.leave_origin(cx);
                    }
                    self.await_request(cx);
                } else {
                    self.state = State::Over;
                    cx.close_after_flush(Reason::DestFin);
                }
            }
            Progress::BadRequest(text) => {
                let kind = exchange.kind();
                // A reset tells the server that the body is incomplete.
                let _ = cx.reset_dest();
                self.refuse(cx, 400, text, Reason::ProtocolError, kind);
            }
            Progress::Switched => {
                self.state = State::Over;
                cx.relay();
            }
            Progress::BadGateway(text) => {
                cx.set_fault(Fault::Dest);
                let kind = exchange.kind();
                self.refuse(cx, 502, text, Reason::ProtocolError, kind);
            }
            Progress::Refused(status, reason, text) => {
                cx.set_fault(if reason == Reason::LimitReached { Fault::Proxy } else { Fault::Dest });
                let kind = exchange.kind();
                self.refuse(cx, status, text, reason, kind);
            }
            Progress::Cut(reason, text) => {
                self.state = State::Over;
                cx.set_detail(text);
                let fault = match (reason, cx.role()) {
                    (Reason::LimitReached, _) => Fault::Proxy,
                    (_, Role::Dest) => Fault::Dest,
                    (_, Role::Source) => Fault::Source,
                };
                cx.set_fault(fault);
                cx.abort(reason);
            }
        }
    }

    fn await_request(&mut self, cx: &mut Cx<'_>) {
        self.state = State::Request;
        cx.set_stage(Stage::KeepAlive);
        cx.resume_reading(Role::Source);
    }

    fn fail(&mut self, cx: &mut Cx<'_>, failure: &Failure, kind: RequestKind) {
        self.origin = None;
        let text = failure.to_string();
        self.refuse(cx, status_for(failure.reason), &text, failure.reason, kind);
    }

    /// Answers with an error and closes the connection, because the start of the next request is unknown.
    fn refuse(&mut self, cx: &mut Cx<'_>, status: u16, text: &str, reason: Reason, kind: RequestKind) {
        self.state = State::Over;
        cx.set_detail(text);
        _ = cx.reply(&reply::error_response(status, text, None, false, kind));
        cx.close_after_flush(reason);
    }

    /// Handles the end of the origin server's direction.
    fn origin_ended(&mut self, cx: &mut Cx<'_>, reset: bool) {
        match &mut self.state {
            State::Exchange(exchange) => {
                if exchange.can_be_retried() {
                    // The server closed a kept connection, as it may at any time, and has not seen the request (RFC 9112,
                    // section 9.3.1).
                    let exchange = exchange.retry();
                    let (origin, kind) = (self.origin.clone(), exchange.kind());
                    self.leave_origin(cx);
                    self.state = State::Dialing(Box::new(exchange));
                    return origin.into_iter().for_each(|origin| self.connect(cx, origin, kind));
                }
                let progress = exchange.origin_ended(reset);
                self.follow(cx, progress);
            }
            _ => self.leave_origin(cx),
        }
    }
}

impl Handler for Http {
    fn opened(&mut self, _cx: &mut Cx<'_>) {}

    fn readable(&mut self, cx: &mut Cx<'_>, input: &[u8]) -> usize {
        match (&self.state, cx.role()) {
            (State::Request, Role::Source) => self.request(cx, input),
            (State::Exchange(_), _) => self.exchange(cx, input),
            (_, Role::Source) => {
                cx.pause_reading(Role::Source);
                0
            }
            (_, Role::Dest) => {
                // A server that sends bytes without a request could answer the next request with them.
                if !input.is_empty() {
                    self.leave_origin(cx);
                }
                input.len()
            }
        }
    }

    fn writable(&mut self, cx: &mut Cx<'_>) {
        if let (State::Exchange(exchange), Role::Source) = (&mut self.state, cx.role()) {
            let progress = exchange.send_head(cx);
            self.follow(cx, progress);
        }
    }

    fn connected(&mut self, cx: &mut Cx<'_>, result: Result<(), &Failure>) {
        match (std::mem::replace(&mut self.state, State::Over), result) {
            (State::Tunneling, Ok(())) => {
                _ = cx.reply(reply::ESTABLISHED);
                cx.relay();
            }
            (State::Dialing(exchange), Ok(())) => {
                cx.set_stage(Stage::Established);
                self.begin(cx, exchange);
            }
            (State::Dialing(exchange), Err(failure)) => self.fail(cx, failure, exchange.kind()),
            (_, Err(failure)) => self.fail(cx, failure, RequestKind::Connect),
            (_, Ok(())) => {}
        }
    }

    fn woken(&mut self, cx: &mut Cx<'_>) {
        if let State::Denied(keeps, kind) = self.state {
            self.deny(cx, keeps, kind);
        }
    }

    fn timeout(&mut self, cx: &mut Cx<'_>) {
        if let State::Denied(..) = self.state {
            cx.set_detail(WRONG);
            return cx.close(Reason::AuthFailed);
        }
        if cx.stage() == Stage::KeepAlive {
            return cx.close(Reason::IdleTimeout);
        }
        if let State::Exchange(exchange) = &self.state {
            let progress = exchange.timed_out();
            return self.follow(cx, progress);
        }
        if !self.has_spoken {
            // Browsers open connections in advance, and could take a 408 for the response to their first request.
            return cx.close(Reason::HandshakeTimeout);
        }
        self.refuse(cx, 408, "the request did not come in time", Reason::HandshakeTimeout, RequestKind::Other);
    }

    fn ended(&mut self, cx: &mut Cx<'_>, cause: Cause) {
        match (cause, cx.role(), &mut self.state) {
            (Cause::Over(_), ..) => {}
            (cause, Role::Dest, _) => self.origin_ended(cx, cause == Cause::Reset),
            (_, Role::Source, State::Exchange(_)) => {
                cx.set_detail("the request ended before its body did");
                cx.abort(Reason::SourceFin);
            }
            (_, Role::Source, _) => cx.close(Reason::SourceFin),
        }
    }
}

/// The progress of a chunked body that is forwarded.
#[derive(Default)]
struct Chunks {
    reader: ChunkedReader,
    /// True if the line end after the data of a chunk is due.
    line_end_due: bool,
}

/// Detail of a connection whose client failed to log in.
const WRONG: &str = "wrong user or password";

/// Returns the HTTP status for a reason (RFC 9110, sections 15.5 and 15.6).
fn status_for(reason: Reason) -> u16 {
    match reason {
        Reason::NotPermitted => 403,
        Reason::TimedOut => 504,
        Reason::LimitReached => 503,
        _ => 502,
    }
}
