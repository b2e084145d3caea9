//! The static front end: connects every client of a listener to one of its targets, and sends it the datagrams of UDP.
//!
//! It reads no byte of the client; the loop relays them once a target is connected. A listener with one target connects to
//! it. A listener with several has a [`Balancer`], and its clients try one target after the other ([`Attempts`]).

use std::rc::Rc;
use std::sync::Arc;

use seaprox::config::{FrontEndConfig, FrontEndOption, OptionKind};
use seaprox::{
    Attempts, Balance, Balancer, Core, Cx, Failure, FlowRequest, FlowTarget, Handler, Next, Reason, Target, Upstream,
    Woken,
};

use super::access::AccessPolicy;
use super::spec::FrontEndSpec;

/// The static front end in the registry.
pub const SPEC: FrontEndSpec = FrontEndSpec {
    name: "static",
    summary: "relay TCP connections and UDP datagrams to fixed targets",
    synopsis: "[--listen ADDR] --to HOST:PORT[,HOST:PORT]... [OPTION]...",
    default_address: "127.0.0.1:55555",
    options: &[
        FrontEndOption { name: "to", kind: OptionKind::Targets, is_required: true },
        FrontEndOption { name: "balance", kind: OptionKind::Choice(BALANCES), is_required: false },
    ],
    flags: &["udp", "tcp", "udp-first-answer-timeout", "udp-idle-timeout", "udp-flows", "udp-flows-per-source"],
    serves_redirected: false,
    examples: &[
        ("static --to 127.0.0.1:22", "offer the SSH server of this host on port 55555 of loopback"),
        ("static --listen 9000 --to example.org:80", "relay connections to port 9000 of loopback to example.org"),
        ("static -l :3000-3010 --to 10.0.0.5:4000-4010", "relay eleven ports on every address, each to its own port"),
        ("static -l unix:/tmp/web.sock --to 127.0.0.1:8000", "offer a TCP service on a Unix socket"),
        ("static -l 5900 --to desk:5900 --via remote", "relay over a link; the node remote resolves desk"),
        ("static -l 8080 --to 10.0.0.5:80,10.0.0.6:80", "balance connections between two targets"),
        ("static --udp -l 5353 --to 10.0.0.5:53", "relay DNS queries over UDP to another server"),
        ("static -l 5353 -l udp:5353 --to 10.0.0.5:53", "relay DNS over TCP and UDP"),
        (
            "static -l 8080 --to srv:_http._tcp.example.org --balance least-connections",
            "balance connections among the hosts of a service, as DNS knows them",
        ),
    ],
    make: |config, access, balancer| {
        let access = Arc::clone(access);
        if let Some(balancer) = balancer.map(Arc::clone) {
            return Some(Box::new(move || {
                Box::new(Balanced { access: Arc::clone(&access), attempts: Attempts::new(&balancer) })
            }));
        }
        let target = Rc::new(config.upstreams("to").first()?.target()?.clone());
        Some(Box::new(move || handler(Arc::clone(&access), Rc::clone(&target))))
    },
    make_datagrams: Some(|config, access, balancer| {
        let access = Arc::clone(access);
        if let Some(balancer) = balancer.map(Arc::clone) {
            return Some(Box::new(move |_: &mut Core, request: &FlowRequest<'_>| {
                let (target, address, lease) = balancer.choose(Some(request.source.ip()))?;
                let flow = access.flow(request.source, target)?;
                Ok(FlowTarget { address, lease: Some(lease), ..flow })
            }));
        }
        let target = config.upstreams("to").first()?.target()?.clone();
        Some(Box::new(move |_: &mut Core, request: &FlowRequest<'_>| access.flow(request.source, target.clone())))
    }),
};

/// The words of `balance`.
pub const BALANCES: &[&str] = Balance::WORDS;

/// Returns the balancer of a listener, if its options ask for one: by several targets, a service, or `balance`.
pub fn balancer(config: &FrontEndConfig, is_over_link: bool) -> Option<Balancer> {
    let (upstreams, word) = (config.upstreams("to"), config.text("balance"));
    let needs_one = upstreams.len() > 1 || matches!(upstreams, [Upstream::Service(_)]);
    if upstreams.is_empty() || !(needs_one || word.is_some()) {
        return None;
    }
    let balance = word.and_then(Balance::find).unwrap_or_default();
    let make = if is_over_link { Balancer::over_link } else { Balancer::new };
    Some(make(upstreams.to_vec(), balance))
}

/// The handler of a client whose listener has one target.
struct Static {
    access: Arc<AccessPolicy>,
    target: Rc<Target>,
}

/// The handler of a client whose listener has several targets.
struct Balanced {
    access: Arc<AccessPolicy>,
    attempts: Attempts,
}

/// Returns a handler that connects its client to `target`.
pub fn handler(access: Arc<AccessPolicy>, target: Rc<Target>) -> Box<dyn Handler> {
    Box::new(Static { access, target })
}

impl Handler for Static {
    fn opened(&mut self, cx: &mut Cx<'_>) {
        if let Err(failure) = self.access.connect_configured(cx, Rc::clone(&self.target), None) {
            cx.close(failure.reason);
        }
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

impl Balanced {
    /// Connects to the next target, and to the one after it if a rule forbids that.
    fn try_next(&mut self, cx: &mut Cx<'_>) {
        loop {
            let failure = match self.attempts.next(cx) {
                Next::Connect(target, address) => match self.access.connect_configured(cx, target, address) {
                    Ok(()) => return,
                    Err(failure) if self.attempts.failed(cx, &failure) => continue,
                    Err(failure) => failure,
                },
                Next::Wait => return,
                Next::Fail(failure) => failure,
            };
            return end(cx, &failure);
        }
    }
}

impl Handler for Balanced {
    fn opened(&mut self, cx: &mut Cx<'_>) {
        self.try_next(cx);
    }

    fn readable(&mut self, _cx: &mut Cx<'_>, _input: &[u8]) -> usize {
        0
    }

    fn connected(&mut self, cx: &mut Cx<'_>, result: Result<(), &Failure>) {
        match result {
            Ok(()) => {
                self.attempts.connected(cx);
                cx.relay();
            }
            Err(failure) if self.attempts.failed(cx, failure) => self.try_next(cx),
            Err(failure) => cx.close(failure.reason),
        }
    }

    fn timeout(&mut self, cx: &mut Cx<'_>) {
        match self.attempts.is_waiting() {
            true => end(cx, &Failure::new(Reason::NameResolutionFailure, "no answer about the targets in time")),
            false => cx.close(Reason::HandshakeTimeout),
        }
    }

    fn woken(&mut self, cx: &mut Cx<'_>) {
        match self.attempts.woken(cx) {
            Woken::Nothing => {}
            Woken::TryNext => self.try_next(cx),
            Woken::Fail(failure) => end(cx, &failure),
        }
    }
}

/// Ends a connection that cannot be made.
fn end(cx: &mut Cx<'_>, failure: &Failure) {
    cx.set_detail(failure.detail.as_deref().unwrap_or_default());
    cx.close(failure.reason);
}
