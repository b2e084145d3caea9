//! The PROXY protocol around a front end: reads the header of a client before the front end sees it, and sends one to each
//! target before the bytes of the client.
//!
//! The targets of streams that peers of a link open get theirs by [`preface`].
//!
//! A header is believed only if the socket's own peer is in a trusted network. A trusted client that sends none is refused,
//! as is every other client: an address is never guessed.

mod datagrams;
mod header;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use seaprox::config::{ProxyProtocol, ProxyVersion};
use seaprox::link::ClientAddrs;
use seaprox::node::Preface;
use seaprox::{
    Balancer, Cause, Cx, Endpoint, Failure, Fault, FrontEnd, Handler, Proto, Reason, Role, Target, Upstream,
};

pub use datagrams::wrap_datagrams;
use header::Header;

/// Wraps a front end whose clients or targets are given headers. The balancer is that of the front end, if it has one.
pub fn wrap(protocol: &ProxyProtocol, mut front_end: FrontEnd, balancer: Option<Arc<Balancer>>) -> FrontEnd {
    if *protocol == ProxyProtocol::default() {
        return front_end;
    }
    let protocol = Rc::new(protocol.clone());
    Box::new(move || {
        let state = if protocol.accept_from.is_empty() { State::Passed(Header::default()) } else { State::Awaited };
        let (protocol, balancer) = (Rc::clone(&protocol), balancer.clone());
        Box::new(Proxied { protocol, balancer, inner: front_end(), state, heads_datagrams: false })
    })
}

/// Returns the maker of headers for the targets of streams that peers of a link open.
pub fn preface(version: ProxyVersion) -> Preface {
    Rc::new(move |proto, addrs: Option<ClientAddrs>| {
        let header = Header { addrs: addrs.map(|addrs| (addrs.client, addrs.local)), fields: Vec::new() };
        match proto {
            Proto::Tcp => header.encode(version),
            Proto::Udp => header.encode_datagram(),
        }
    })
}

/// The handler of one client: the front end's own, behind the header.
struct Proxied {
    protocol: Rc<ProxyProtocol>,
    balancer: Option<Arc<Balancer>>,
    inner: Box<dyn Handler>,
    state: State,
    /// The datagrams of the client's association have headers.
    heads_datagrams: bool,
}

/// The header of the client.
enum State {
    /// It has not arrived yet.
    Awaited,
    /// It has arrived, or none is expected.
    Passed(Header),
}

impl Proxied {
    /// Reads the header. Returns its length; 0 if it is incomplete, or if the client is refused.
    fn header(&mut self, cx: &mut Cx<'_>, input: &[u8]) -> usize {
        let (header, length) = match header::parse(input) {
            Ok(Some(parsed)) => parsed,
            Ok(None) => return 0,
            Err(expected) => {
                cx.set_detail(expected);
                cx.set_fault(Fault::Source);
                cx.close(Reason::ProtocolError);
                return 0;
            }
        };
        if let Some((client, dest)) = header.addrs {
            let [client, dest] = [client, dest].map(|addr| Endpoint::Ip(Proto::Tcp, addr));
            if cx.set_source(client, dest).is_err() {
                cx.close(Reason::LimitReached);
                return 0;
            }
        }
        self.state = State::Passed(header);
        length
    }

    /// Returns the version of the header for the target that is connected; none if it is sent no header.
    fn version(&self, cx: &Cx<'_>) -> Option<ProxyVersion> {
        match cx.asked() {
            // The dest is one that has connected to this node.
            _ if cx.has_awaited_dest() => None,
            Some(target) => version(&self.protocol, self.balancer.as_deref(), target),
            None => self.protocol.send,
        }
    }

    /// Returns the header for a target.
    fn header_for_target(&self, cx: &Cx<'_>, version: ProxyVersion) -> Vec<u8> {
        let received = match &self.state {
            State::Passed(header) => header.clone(),
            State::Awaited => Header::default(),
        };
        let addrs = match (plain(&cx.peer(Role::Source)), plain(&cx.local(Role::Source))) {
            (Some(client), Some(dest)) => Some((client, dest)),
            // A client of a Unix socket has no address.
            _ => None,
        };
        Header { addrs, ..received }.encode(version)
    }

    /// Puts headers in front of the datagrams of the client's association, once it has one.
    fn head_datagrams(&mut self, cx: &mut Cx<'_>) {
        if !self.heads_datagrams && self.protocol.send.is_some() && cx.has_association() {
            self.heads_datagrams = true;
            let (protocol, balancer) = (Rc::clone(&self.protocol), self.balancer.clone());
            cx.set_flow_prefix(Rc::new(move |target, ClientAddrs { client, local }| {
                datagrams::prefix(&protocol, balancer.as_deref(), target, (client, local))
            }));
        }
    }
}

impl Handler for Proxied {
    fn opened(&mut self, cx: &mut Cx<'_>) {
        if let State::Passed(_) = self.state {
            return self.inner.opened(cx);
        }
        let source = cx.peer(Role::Source).ip().map(|addr| addr.ip());
        if !self.protocol.accept_from.iter().any(|network| network.contains(source)) {
            cx.set_detail("no PROXY header is accepted from this client");
            cx.close(Reason::NotPermitted);
        }
    }

    fn readable(&mut self, cx: &mut Cx<'_>, input: &[u8]) -> usize {
        if let State::Passed(_) = self.state {
            let length = self.inner.readable(cx, input);
            self.head_datagrams(cx);
            return length;
        }
        let length = self.header(cx, input);
        if length > 0 {
            self.inner.opened(cx);
        }
        length
    }

    fn writable(&mut self, cx: &mut Cx<'_>) {
        self.inner.writable(cx);
    }

    fn connected(&mut self, cx: &mut Cx<'_>, result: Result<(), &Failure>) {
        if let (Ok(()), Some(version)) = (result, self.version(cx)) {
            let header = self.header_for_target(cx, version);
            if cx.send(Role::Dest, &header).is_err() {
                cx.set_detail("no buffer for the PROXY header");
                return cx.close(Reason::LimitReached);
            }
        }
        self.inner.connected(cx, result);
    }

    fn timeout(&mut self, cx: &mut Cx<'_>) {
        match self.state {
            State::Awaited => cx.close(Reason::HandshakeTimeout),
            State::Passed(_) => self.inner.timeout(cx),
        }
    }

    fn woken(&mut self, cx: &mut Cx<'_>) {
        self.inner.woken(cx);
    }

    fn ended(&mut self, cx: &mut Cx<'_>, cause: Cause) {
        match (&self.state, cause) {
            (State::Awaited, Cause::Fin) => {
                let reason = cx.fin_reason();
                cx.close(reason);
            }
            _ => self.inner.ended(cx, cause),
        }
    }
}

/// Returns the version of the header for a target; none if it is sent no header.
fn version(protocol: &ProxyProtocol, balancer: Option<&Balancer>, target: &Target) -> Option<ProxyVersion> {
    let ProxyProtocol { send, send_to, .. } = protocol;
    if send_to.is_empty() {
        return *send;
    }
    let service = balancer.and_then(|balancer| balancer.upstream_of(target));
    let is_it = |upstream: &Upstream| upstream.target() == Some(target) || Some(upstream) == service;
    send_to.iter().find(|(upstream, _)| is_it(upstream)).map_or(*send, |(_, version)| *version)
}

fn plain(endpoint: &Endpoint) -> Option<SocketAddr> {
    let addr = endpoint.ip()?;
    Some(SocketAddr::new(addr.ip().to_canonical(), addr.port()))
}
