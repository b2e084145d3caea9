//! The redirect front end: connects every client to the address that it had connected to, before the rules of the system
//! redirected it to the listener.
//!
//! Both NAT (`redirect` of nftables) and TPROXY may lead to one listener: [`seaprox::ConnectionMut::redirected_dest`] tells
//! them apart. Datagrams come by TPROXY alone. A client that nothing redirected is refused, as is a connection of this process that comes back.

use std::sync::Arc;

use seaprox::{Core, Cx, Failure, FlowRequest, Handler, Proto, Reason, Target};

use super::access::AccessPolicy;
use super::spec::FrontEndSpec;

/// The redirect front end in the registry.
pub const SPEC: FrontEndSpec = FrontEndSpec {
    name: "redirect",
    summary: "relay connections and datagrams that nftables redirects (Linux)",
    synopsis: "[--listen ADDR] [OPTION]...",
    default_address: "12345",
    options: &[],
    flags: &["udp", "tcp", "udp-first-answer-timeout", "udp-idle-timeout", "udp-flows", "udp-flows-per-source"],
    serves_redirected: true,
    examples: &[
        (
            "redirect -l 12345 --mark 4660 --via home",
            "carry the redirected connections over a link; the rules leave out packets with the mark 4660",
        ),
        (
            "redirect -l 12345 --mark 4660 --bind-source transparent",
            "relay the redirected connections, and let the targets see the addresses of the clients",
        ),
        (
            "redirect --tcp --udp -l 12345 --mark 4660",
            "relay the redirected connections, and the datagrams that tproxy sends here",
        ),
        ("redirect -l 12345 --deny 10.0.0.0/8", "relay the redirected connections except those to 10.0.0.0/8"),
    ],
    make: |_, access, _| {
        let access = Arc::clone(access);
        Some(Box::new(move || Box::new(Redirect { access: Arc::clone(&access) })))
    },
    make_datagrams: Some(|_, access, _| {
        let access = Arc::clone(access);
        Some(Box::new(move |_: &mut Core, request: &FlowRequest<'_>| {
            let not_redirected = || Failure::new(Reason::NotPermitted, "the datagram was not redirected");
            let dest = request.original_dest.ok_or_else(not_redirected)?;
            access.flow(request.source, Target::Ip(Proto::Udp, dest))
        }))
    }),
};

/// The handler of a redirected client.
struct Redirect {
    access: Arc<AccessPolicy>,
}

impl Handler for Redirect {
    fn opened(&mut self, cx: &mut Cx<'_>) {
        let connected = match cx.redirected_dest() {
            Ok(dest) => self.access.connect(cx, Target::from(dest).into()),
            Err(failure) => {
                cx.set_detail(failure.detail.as_deref().unwrap_or_default());
                Err(failure)
            }
        };
        if let Err(failure) = connected {
            cx.close(failure.reason);
        }
    }

    fn readable(&mut self, _: &mut Cx<'_>, _: &[u8]) -> usize {
        0
    }

    fn connected(&mut self, cx: &mut Cx<'_>, result: Result<(), &Failure>) {
        match result {
            Ok(()) => cx.relay(),
            Err(failure) => cx.close(failure.reason),
        }
    }
}
