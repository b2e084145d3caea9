//! The handlers of streams: streams that the peer has opened, and clients of listeners for the peer.

use std::rc::Rc;

use crate::engine::handler::{Cause, Cx, Handler};
use crate::link::{Bound, ClientAddrs, Host};
use crate::relay::connection::Stage;
use crate::relay::dial::{ConnectOptions, Permit};
use crate::relay::side::Role;
use crate::types::address::Target;
use crate::types::proto::Proto;
use crate::types::reason::{Failure, Reason};

use super::config::Preface;
use super::control::Node;

/// The handler of a stream that the peer has opened: this node connects to its target.
pub(crate) struct Forwarded {
    pub target: Rc<Target>,
    pub permit: Option<Permit>,
    /// The target is that of a forward of this node.
    pub is_configured: bool,
    /// The stream waits for an approval.
    pub waits: bool,
    /// The first bytes for the target. Few streams have some, so the others hold no room for them.
    pub first: Option<Box<FirstBytes>>,
}

/// The first bytes for the target of a stream.
pub(crate) struct FirstBytes {
    /// Makes the bytes.
    pub preface: Preface,
    /// The addresses of the client, as far as they are told and believed, or those of the peer.
    pub addrs: Option<ClientAddrs>,
}

impl Handler for Forwarded {
    fn opened(&mut self, cx: &mut Cx<'_>) {
        match self.waits {
            true => cx.pause_reading(Role::Source),
            false => {
                let options =
                    ConnectOptions { is_configured: self.is_configured, ..ConnectOptions::from(self.permit.take()) };
                let _ = cx.connect(Rc::clone(&self.target), options);
            }
        }
    }

    fn readable(&mut self, _cx: &mut Cx<'_>, _input: &[u8]) -> usize {
        0
    }

    fn connected(&mut self, cx: &mut Cx<'_>, result: Result<(), &Failure>) {
        match result {
            Ok(()) => {
                let bound = match cx.local(Role::Dest).ip() {
                    Some(addr) => Bound { host: Host::Addr(addr.ip()), port: addr.port(), ..Bound::default() },
                    None => Bound::default(),
                };
                if let Err(failure) = first_bytes(cx, self.first.take()) {
                    answer_stream(cx, Err(Bound::of_failure(&failure)));
                    return cx.close(failure.reason);
                }
                answer_stream(cx, Ok(bound));
                cx.relay();
            }
            Err(failure) => {
                answer_stream(cx, Err(Bound::of_failure(failure)));
                cx.close(failure.reason);
            }
        }
    }
}

/// The handler of a stream that the application handles: it is accepted, and its bytes are the application's.
pub(crate) struct AppStream {
    pub handler: Box<dyn Handler>,
}

impl Handler for AppStream {
    fn opened(&mut self, cx: &mut Cx<'_>) {
        answer_stream(cx, Ok(Bound::default()));
        cx.set_stage(Stage::Established);
        self.handler.opened(cx);
    }

    fn readable(&mut self, cx: &mut Cx<'_>, input: &[u8]) -> usize {
        self.handler.readable(cx, input)
    }

    fn writable(&mut self, cx: &mut Cx<'_>) {
        self.handler.writable(cx);
    }

    fn connected(&mut self, cx: &mut Cx<'_>, result: Result<(), &Failure>) {
        self.handler.connected(cx, result);
    }

    fn timeout(&mut self, cx: &mut Cx<'_>) {
        self.handler.timeout(cx);
    }

    fn woken(&mut self, cx: &mut Cx<'_>) {
        self.handler.woken(cx);
    }

    fn ended(&mut self, cx: &mut Cx<'_>, cause: Cause) {
        self.handler.ended(cx, cause);
    }
}

/// The handler of a client of a listener for the peer: it goes over the link, and the peer knows the target.
pub(crate) struct ReverseClient {
    /// The number of the listener in this loop.
    pub shared: u32,
}

impl Handler for ReverseClient {
    fn opened(&mut self, cx: &mut Cx<'_>) {
        let connection = cx.id();
        let (core, node) = cx.core().parts::<Node>();
        node.connect_client(core, connection, self.shared);
    }

    fn readable(&mut self, _cx: &mut Cx<'_>, _input: &[u8]) -> usize {
        0
    }

    fn connected(&mut self, cx: &mut Cx<'_>, result: Result<(), &Failure>) {
        match result {
            Ok(()) => cx.relay(),
            Err(failure) => cx.close(failure.reason),
        }
    }
}

/// Sends the first bytes of a connection to its dest, if it has any.
///
/// # Errors
/// [`Reason::LimitReached`] if there is no buffer.
pub(super) fn first_bytes(cx: &mut Cx<'_>, first: Option<Box<FirstBytes>>) -> Result<(), Failure> {
    let Some(first) = first else { return Ok(()) };
    let preface = (first.preface)(Proto::Tcp, first.addrs);
    let no_buffer = |_| Failure::new(Reason::LimitReached, "no buffer for the first bytes of the connection");
    cx.send(Role::Dest, &preface).map_err(no_buffer)
}

/// Accepts or refuses the stream that is the source of a handler's connection.
pub(super) fn answer_stream(cx: &mut Cx<'_>, result: Result<Bound, Bound>) {
    let source = cx.side_of(Role::Source);
    let core = &mut **cx.core();
    if let Some(stream) = source.and_then(|source| core.sides.get(source)?.io.stream()) {
        core.pools.sessions.answer(stream, result);
    }
}
