//! The static front end: connects every client of a listener to one target.
//!
//! It reads no byte of the client; the loop relays them once the target is connected.

use std::rc::Rc;
use std::sync::Arc;

use seaprox::config::{FrontEndOption, OptionKind};
use seaprox::{Cx, Failure, FrontEnd, Handler, Target};

use super::access::AccessPolicy;
use super::spec::FrontEndSpec;

/// The static front end in the registry.
pub const SPEC: FrontEndSpec = FrontEndSpec {
    name: "static",
    summary: "relay TCP connections to a fixed target",
    synopsis: "[--listen ADDR] --to HOST:PORT [OPTION]...",
    default_address: "127.0.0.1:55555",
    options: &[
        FrontEndOption { name: "to", kind: OptionKind::Targets, is_required: true },
        FrontEndOption { name: "balance", kind: OptionKind::Choice(BALANCES), is_required: false },
    ],
    flags: &[],
    examples: &[
        ("static --to 127.0.0.1:22", "offer the SSH server of this host on port 55555 of loopback"),
        ("static --listen 9000 --to example.org:80", "relay connections to port 9000 of loopback to example.org"),
        ("static -l :3000-3010 --to 10.0.0.5:4000-4010", "relay eleven ports on every address, each to its own port"),
        ("static -l unix:/tmp/web.sock --to 127.0.0.1:8000", "offer a TCP service on a Unix socket"),
        ("static -l 5900 --to desk:5900 --via remote", "relay over a link; the node remote resolves desk"),
    ],
    make: |config, access| {
        let access = Arc::clone(access);
        let targets: Vec<Rc<Target>> =
            config.upstreams("to").iter().filter_map(|upstream| upstream.target().cloned().map(Rc::new)).collect();
        let mut turns = 0..targets.len();
        (!targets.is_empty()).then(|| -> FrontEnd {
            Box::new(move || {
                let turn = turns.next().unwrap_or_else(|| {
                    turns = 1..targets.len();
                    0
                });
                handler(Arc::clone(&access), Rc::clone(&targets[turn]))
            })
        })
    },
};

/// The words of `balance`.
pub const BALANCES: &[&str] = &["round-robin", "least-connections", "source-hash"];

/// The handler of one client.
struct Static {
    access: Arc<AccessPolicy>,
    target: Rc<Target>,
}

/// Returns a handler that connects its client to `target`.
pub fn handler(access: Arc<AccessPolicy>, target: Rc<Target>) -> Box<dyn Handler> {
    Box::new(Static { access, target })
}

impl Handler for Static {
    fn opened(&mut self, cx: &mut Cx<'_>) {
        if let Err(failure) = self.access.connect(cx, Rc::clone(&self.target)) {
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
