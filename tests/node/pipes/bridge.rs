//! Bridges between any two pipes.

use std::time::Duration;

use ring::digest::{Context, SHA256};
use seaprox::pipes::{Bridge, End, MemoryPipe, Pipe, PipeError, Poller, Progress, Readiness};

use crate::node_kit::pattern;
use crate::node_kit::pipes::*;

/// A client and a server, with a bridge between them.
struct Joined {
    client: Any,
    server: Any,
    bridge: Bridge<Any, Any>,
    poller: Poller,
    /// The bridge is to be driven again without an event.
    again: bool,
    progress: Progress,
}

impl Joined {
    fn new(kinds: &mut Kinds, [a, b]: [Kind; 2]) -> Joined {
        let ([mut client, near], [far, mut server]) = (kinds.pair(a), kinds.pair(b));
        let (mut bridge, poller) = (Bridge::new(near, far), Poller::new().unwrap());
        poller.add(&mut client, 0).unwrap();
        poller.add(&mut server, 1).unwrap();
        let (near, far) = bridge.pipes_mut();
        poller.add(near, 2).unwrap();
        poller.add(far, 3).unwrap();
        Joined { client, server, bridge, poller, again: false, progress: Progress::Waiting }
    }

    /// Drives everything at its events until `is_true` returns true.
    #[track_caller]
    fn until(&mut self, what: &str, mut is_true: impl FnMut(&mut Any, &mut Any, &Progress) -> bool) {
        let mut patience = Patience::new();
        while !is_true(&mut self.client, &mut self.server, &self.progress) {
            let wait = if self.again { Duration::ZERO } else { patience.left() };
            let events = self.poller.wait(Some(wait)).unwrap();
            if self.again || !events.is_empty() {
                patience.restart();
            }
            if patience.is_over() {
                let pipes: [&dyn Pipe; 4] = [&self.client, self.bridge.a(), self.bridge.b(), &self.server];
                panic!("never: {what}: {:?} {:?}\n{:#?}", self.progress, self.bridge.bytes(), pipes.map(described));
            }
            let (mut near, mut far) = (Readiness::NONE, Readiness::NONE);
            for (key, ready) in events {
                match key {
                    0 => _ = self.client.drive(ready),
                    1 => _ = self.server.drive(ready),
                    2 => near = Readiness { read: near.read | ready.read, write: near.write | ready.write },
                    _ => far = Readiness { read: far.read | ready.read, write: far.write | ready.write },
                }
            }
            self.progress = self.bridge.drive(near, far);
            self.again = self.progress == Progress::Again;
        }
    }
}

/// Sends bytes of a pattern and then a FIN, and digests what comes.
struct Peer {
    block: Vec<u8>,
    left: usize,
    sent: Context,
    got: Context,
    count: usize,
    ended: bool,
}

impl Peer {
    fn new(seed: u64, total: usize) -> Peer {
        let block = (0..60_000).map(|at| pattern(seed, at)).collect();
        Peer { block, left: total, sent: Context::new(&SHA256), got: Context::new(&SHA256), count: 0, ended: false }
    }

    fn run(&mut self, pipe: &mut Any, buf: &mut [u8]) {
        while self.left > 0 {
            let most = self.block.len().min(self.left).min(pipe.send_bytes_max());
            let Some(count) = now(pipe.send(&self.block[..most])) else { break };
            self.sent.update(&self.block[..count]);
            self.block.rotate_left(count % 59_999);
            self.left -= count;
            if self.left == 0 {
                pipe.finish().unwrap();
            }
        }
        while !self.ended {
            match now(pipe.receive(buf)) {
                None => break,
                Some(0) => self.ended = true,
                Some(count) => {
                    self.got.update(&buf[..count]);
                    self.count += count;
                }
            }
        }
    }
}

#[test]
fn every_ordered_pair_of_pipes_is_bridged_with_the_same_sha256_at_both_ends() {
    let mut kinds = Kinds::default();
    let mut buf = vec![0; 70_000];
    for pair in Kind::ALL.iter().flat_map(|a| Kind::ALL.map(|b| [*a, b])) {
        println!("{pair:?}"); // Shown if the test fails.
        let (forth, back) = (2 << 20, 1 << 19);
        let (mut client, mut server) = (Peer::new(1, forth), Peer::new(2, back));
        let mut joined = Joined::new(&mut kinds, pair);
        joined.until("both directions end", |near, far, progress| {
            client.run(near, &mut buf);
            server.run(far, &mut buf);
            client.ended && server.ended && *progress == Progress::Done
        });
        assert_eq!((server.count, client.count), (forth, back), "{pair:?}");
        let digest = |context: Context| context.finish().as_ref().to_vec();
        assert_eq!(digest(client.sent), digest(server.got), "{pair:?}");
        assert_eq!(digest(server.sent), digest(client.got), "{pair:?}");
        assert_eq!(joined.bridge.bytes(), (forth as u64, back as u64));
        assert_eq!(joined.bridge.queued(), 0);
    }
}

#[test]
fn a_bridge_passes_each_fin_by_itself_and_a_reset_as_a_reset() {
    let mut kinds = Kinds::default();
    let sources = Kind::ALL.into_iter().filter(|kind| kind.has_reset() && *kind != Kind::Datagram);
    for (at, kind) in sources.enumerate() {
        for pair in [[kind, Kind::Tcp], [Kind::Tls, kind]] {
            println!("{pair:?}"); // Shown if the test fails.
            let mut joined = Joined::new(&mut kinds, pair);
            let (mut got, mut sent) = (Vec::new(), false);
            joined.until("a question and its FIN pass", |near, far, _| {
                if !sent && now(near.send(b"question")).is_some() {
                    near.finish().unwrap();
                    sent = true;
                }
                receive_some(far, &mut got)
            });
            assert_eq!((&got[..], joined.client.fin_received()), (&b"question"[..], false));
            joined.until("an answer passes the other way", |near, far, _| {
                if got.len() == 8 && now(far.send(b"answer")).is_some() {
                    got.push(b':');
                }
                !receive_some(near, &mut got) && got.len() == 15
            });
            assert_eq!(got, b"question:answer");
            let near_resets = at % 2 == 0;
            if near_resets {
                joined.client.abort()
            } else {
                joined.server.abort()
            }
            let mut error = None;
            joined.until("the reset arrives at the other end", |near, far, _| {
                let other = if near_resets { far } else { near };
                // The server has the FIN of the client already, and finds out when it sends.
                let result = if near_resets { other.send(b"x") } else { other.receive(&mut [0; 9]) };
                error = result.err().filter(|error| !error.is_would_block());
                error.is_some()
            });
            assert_eq!(error, Some(PipeError::Reset), "{pair:?}");
            let end = if near_resets { End::A } else { End::B };
            assert_eq!(joined.progress, Progress::Broken(end, PipeError::Reset), "{pair:?}");
        }
    }
}

/// The server reads nothing. The client can send no more than the pipes and one buffer of the bridge hold.
#[test]
fn a_bridge_holds_a_fast_sender_back_and_a_bounded_number_of_bytes() {
    let ((mut client, near), (far, mut server)) = (MemoryPipe::pair(10_000), MemoryPipe::pair(20_000));
    let mut bridge = Bridge::new(near, far);
    let mut sent = 0;
    for _ in 0..1000 {
        sent += send_some(&mut client, &[7; 5000]);
        assert!(bridge.queued() <= 64 << 10);
        bridge.drive(Readiness::BOTH, Readiness::BOTH);
    }
    assert!(sent <= 30_000 + (64 << 10), "{sent}");
    assert_eq!(bridge.bytes(), (20_000, 0));
    assert!(!client.is_writable());
    let mut got = Vec::new();
    while got.len() < sent {
        receive_some(&mut server, &mut got);
        assert_ne!(bridge.drive(Readiness::BOTH, Readiness::BOTH), Progress::Done);
    }
    assert!(client.is_writable() && bridge.a().is_ready() && bridge.b().is_ready());
}

#[test]
fn a_bridge_keeps_datagrams_and_breaks_at_one_that_is_too_long_for_the_other_pipe() {
    use seaprox::pipes::Datagram;
    let ((client, near), (far, server)) = (MemoryPipe::pair(100_000), MemoryPipe::pair(100_000));
    let (mut client, mut server) = (Datagram::new(client), Datagram::with_limit(server, 1000));
    let mut bridge = Bridge::new(Datagram::new(near), Datagram::with_limit(far, 1000));
    for size in [3, 123, 4, 1000] {
        assert_eq!(client.send(&vec![1; size]), Ok(size));
    }
    assert_eq!(bridge.drive(Readiness::BOTH, Readiness::BOTH), Progress::Waiting);
    let mut buf = [0; 5000];
    assert_eq!([(); 4].map(|()| server.receive(&mut buf)), [Ok(3), Ok(123), Ok(4), Ok(1000)]);
    assert_eq!(client.send(&[1; 1001]), Ok(1001));
    let error = PipeError::TooLong { bytes: 1001, limit: 1000 };
    assert_eq!(bridge.drive(Readiness::BOTH, Readiness::BOTH), Progress::Broken(End::B, error));
    assert_eq!((client.receive(&mut buf), server.receive(&mut buf)), (Err(PipeError::Reset), Err(PipeError::Reset)));
}

/// A waker of the caller's own, without a [`Poller`].
#[test]
fn a_bridge_calls_the_waker_that_its_caller_sets() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    struct Count(AtomicU32);
    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let count = Arc::new(Count(AtomicU32::new(0)));
    let ((mut client, near), (far, mut server)) = (MemoryPipe::pair(100), MemoryPipe::pair(100));
    let mut bridge = Bridge::new(near, far);
    bridge.set_waker(&Arc::clone(&count).into());
    assert_eq!(bridge.drive(Readiness::NONE, Readiness::NONE), Progress::Waiting);
    assert_eq!(client.send(b"x"), Ok(1));
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
    assert_eq!(bridge.drive(Readiness::NONE, Readiness::NONE), Progress::Waiting);
    assert_eq!(server.receive(&mut [0; 9]), Ok(1));
    server.finish().unwrap();
    assert!(count.0.load(Ordering::Relaxed) >= 2);
}
