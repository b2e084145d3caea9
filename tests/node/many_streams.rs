//! Ten thousand streams over one link, over each kind of carrier. The streams lead to a service, and handlers are at both ends, so
//! they need no descriptors.

use crate::node_kit;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use node_kit::*;
use seaprox::node::CarrierKind;
use seaprox::{Cx, Failure, Handler, Id, Reason};

const COUNT: usize = 10_000;
/// Bytes of each stream in each direction.
const BYTES: usize = 2_000;
/// Longer than any machine takes.
const LATE: Duration = Duration::from_secs(120);

/// Sends back each message once it is complete.
struct Echo;

impl Handler for Echo {
    fn opened(&mut self, _: &mut Cx<'_>) {}

    fn connected(&mut self, _: &mut Cx<'_>, _: Result<(), &Failure>) {}

    fn readable(&mut self, cx: &mut Cx<'_>, input: &[u8]) -> usize {
        if input.len() < BYTES {
            return 0;
        }
        cx.reply(input).unwrap();
        input.len()
    }
}

/// The outcome of all streams so far.
#[derive(Default)]
struct Outcome {
    open: AtomicUsize,
    answered: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

/// The near end of a stream, which compares what comes back.
struct Asks {
    number: usize,
    outcome: Arc<Outcome>,
}

impl Handler for Asks {
    fn opened(&mut self, _: &mut Cx<'_>) {}

    fn connected(&mut self, _: &mut Cx<'_>, result: Result<(), &Failure>) {
        match result {
            Ok(()) => _ = self.outcome.open.fetch_add(1, Ordering::Relaxed),
            Err(failure) => self.fails(&failure.to_string()),
        }
    }

    fn readable(&mut self, _: &mut Cx<'_>, input: &[u8]) -> usize {
        if input.len() < BYTES {
            return 0;
        }
        if input != message(self.number) {
            self.fails("other bytes");
        }
        self.outcome.answered.fetch_add(1, Ordering::Relaxed);
        input.len()
    }
}

impl Asks {
    fn fails(&self, why: &str) {
        self.outcome.failures.lock().unwrap().push(format!("stream {}: {why}", self.number));
    }
}

fn message(number: usize) -> Vec<u8> {
    (0..BYTES as u64).map(|at| pattern(number as u64, at)).collect()
}

/// Opens all streams, sends on each while all others are open, and closes them.
#[track_caller]
fn ten_thousand_streams(carrier: CarrierKind) {
    let node = || {
        Node::with(|config| {
            config.limits.connections = 2 * COUNT + 20;
            // A stream waits for all others before its first byte, which takes longer on a busy machine.
            config.timeouts.handshake = LATE;
        })
    };
    let (server, client) = (node(), node());
    server.ask(|core| core.set_service("echo/1", Box::new(|_| Some(Box::new(Echo)))));
    let link = {
        let addr = server.serve_over(carrier, "127.0.0.1:0".parse().unwrap(), timing());
        client.link_with(addr, move |config| config.carrier = carrier)
    };
    client.until_up();
    let outcome = Arc::<Outcome>::default();
    let streams = || [&client, &server].map(|node| node.links()[0].streams);
    let check = || {
        let failures = outcome.failures.lock().unwrap();
        assert!(failures.is_empty(), "{} failures, {:?}", failures.len(), failures.first());
    };
    let since = Instant::now();
    let mut ids: Vec<Id> = Vec::new();
    for first in (0..COUNT).step_by(STEP) {
        let outcome = Arc::clone(&outcome);
        ids.extend(client.ask(move |core| {
            let open = |number| {
                let handler = Asks { number, outcome: Arc::clone(&outcome) };
                core.open_service(link, "echo/1", Box::new(handler)).unwrap()
            };
            (first..first + STEP).map(open).collect::<Vec<_>>()
        }));
    }
    until("all streams are open", || {
        check();
        outcome.open.load(Ordering::Relaxed) == COUNT && streams() == [COUNT; 2]
    });
    let opened = since.elapsed();
    for (step, ids) in ids.chunks(STEP).enumerate() {
        let ids = ids.to_vec();
        client.ask(move |core| {
            for (at, id) in ids.into_iter().enumerate() {
                core.connection(id).unwrap().reply(&message(step * STEP + at)).unwrap();
            }
        });
    }
    until("all streams have their answers", || {
        check();
        outcome.answered.load(Ordering::Relaxed) == COUNT
    });
    assert_eq!(streams(), [COUNT; 2]);
    println!("{carrier:?}: open after {opened:?}, answered after {:?}", since.elapsed());
    for ids in ids.chunks(STEP) {
        let ids = ids.to_vec();
        client.ask(move |core| {
            ids.into_iter().for_each(|id| core.connection(id).unwrap().close(Reason::SourceFin));
        });
    }
    until("no stream is left", || streams() == [0; 2]);
    let status = &client.links()[0];
    assert_eq!(status.stats.resumes, 0);
}

/// The streams of one call of the loop.
const STEP: usize = 500;

#[test]
fn ten_thousand_streams_share_a_connection_of_tcp() {
    ten_thousand_streams(CarrierKind::Tcp);
}

#[test]
fn ten_thousand_streams_share_a_connection_of_quic() {
    ten_thousand_streams(CarrierKind::Quic);
}
