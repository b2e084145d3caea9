//! The suite that every pipe and every stack passes: ready, readable, writable, FINs, resets.

use seaprox::pipes::{Pipe, PipeError};

use crate::node_kit::pattern;
use crate::node_kit::pipes::*;

/// Runs a test with a new pair of each kind, whose ends are ready.
fn with_every_kind(test: impl Fn(Kind, Ends)) {
    with_kinds(|kind, _, ends| test(kind, ends));
}

/// Does the same, and passes the nodes between the ends too.
fn with_kinds(test: impl Fn(Kind, &mut Kinds, Ends)) {
    let mut kinds = Kinds::default();
    for kind in Kind::ALL {
        println!("{kind:?}"); // Shown if the test fails.
        let [a, b] = kinds.pair(kind);
        let mut ends = Ends::new(a, b);
        ends.until("both ends are ready", |a, b| a.is_ready() && b.is_ready());
        test(kind, &mut kinds, ends);
    }
}

fn bytes_of(seed: u64, count: usize) -> Vec<u8> {
    (0..count as u64).map(|at| pattern(seed, at)).collect()
}

/// Sends all of `bytes` from `a` to `b`.
#[track_caller]
fn pass(ends: &mut Ends, bytes: &[u8]) {
    let (mut sent, mut got) = (0, Vec::new());
    ends.until("all bytes arrive", |a, b| {
        sent += send_some(a, &bytes[sent..]);
        assert!(!receive_some(b, &mut got), "no FIN was sent");
        got.len() == bytes.len()
    });
    assert!(got == bytes);
}

/// Sends until the pipe would block. Returns the bytes that it accepted.
#[track_caller]
fn fill(kind: Kind, kinds: &mut Kinds, ends: &mut Ends) -> Vec<u8> {
    let block = bytes_of(9, 50_000);
    let (mut sent, mut refusals) = (Vec::new(), 0);
    // The far end reads nothing, so the pipes between fill up. The loops of a stream may take more after a refusal: the
    // pipe is full if they do not, though each has turned several times.
    while refusals < if kind.has_loops() { 20 } else { 1 } {
        if kind.has_loops() {
            kinds.turn_loops();
        }
        let _ = ends.a.drive(seaprox::pipes::Readiness::BOTH);
        let count = send_some(&mut ends.a, &block);
        sent.extend_from_slice(&block[..count]);
        assert!(sent.len() < 64 << 20, "a pipe that nothing reads accepts a bounded number of bytes");
        refusals = if count == 0 { refusals + 1 } else { 0 };
    }
    sent
}

#[test]
fn every_pipe_carries_bytes_both_ways_and_says_what_it_can_do() {
    with_every_kind(|_, mut ends| {
        let mut buf = [0; 100];
        assert_eq!((ends.a.fin_sent(), ends.a.fin_received(), ends.a.broken()), (false, false, None));
        assert_eq!(ends.a.receive(&mut buf), Err(PipeError::WouldBlock));
        assert!(!ends.a.is_readable(), "a receive has found nothing");
        ends.until("it is writable", |a, _| a.is_writable());
        assert_eq!(ends.a.send(&[]), Ok(0));
        for count in [1, 2, 127, 128, 1000, 16_384, 65_000, 300_000] {
            pass(&mut ends, &bytes_of(count as u64, count));
            ends.swap();
            pass(&mut ends, &bytes_of(count as u64 + 1, count));
            ends.swap();
        }
        ends.until("a byte is sent", |a, _| now(a.send(b"x")).is_some());
        ends.until("the byte makes the other end readable", |_, b| {
            b.is_readable() && now(b.receive(&mut buf)).is_some()
        });
        assert_eq!(buf[0], b'x');
    });
}

#[test]
fn a_pipe_that_nothing_reads_is_not_writable_and_a_reader_makes_it_writable_again() {
    with_kinds(|kind, kinds, mut ends| {
        let mut sent = fill(kind, kinds, &mut ends);
        assert!(!ends.a.is_writable(), "{kind:?} has just refused a byte");
        assert!(ends.a.queued() <= 256 << 10, "{kind:?} holds {}", ends.a.queued());
        let (mut got, mut more) = (Vec::new(), 0);
        ends.until("another byte is sent, and all bytes arrive", |a, b| {
            if more == 0 && a.is_writable() {
                more = now(a.send(b"x")).unwrap_or(0);
            }
            receive_some(b, &mut got);
            more == 1 && got.len() == sent.len() + 1
        });
        sent.push(b'x');
        assert!(got == sent);
    });
}

#[test]
fn each_direction_ends_by_its_own_fin() {
    with_every_kind(|kind, mut ends| {
        pass(&mut ends, b"question");
        ends.a.finish().unwrap();
        assert_eq!(ends.a.send(b"x"), Err(PipeError::Finished));
        assert!(!ends.a.is_writable());
        ends.a.finish().unwrap();
        let mut got = Vec::new();
        ends.until("the FIN arrives", |_, b| receive_some(b, &mut got));
        ends.until("the FIN is sent", |a, _| a.fin_sent());
        assert!(got.is_empty() && ends.b.fin_received() && ends.b.is_readable());
        assert_eq!(ends.b.receive(&mut [0; 9]), Ok(0), "the end stays the end");
        assert!(!ends.b.fin_sent() && !ends.a.fin_received() && ends.a.broken().is_none(), "{kind:?}");
        ends.swap();
        pass(&mut ends, &bytes_of(5, 200_000));
        ends.a.finish().unwrap();
        ends.until("the second FIN arrives", |_, b| receive_some(b, &mut got));
        ends.until("the second FIN is sent", |a, _| a.fin_sent());
        assert_eq!((got.len(), ends.a.broken(), ends.b.broken()), (0, None, None), "{kind:?}");
    });
}

#[test]
fn a_fin_is_deferred_until_all_bytes_are_sent() {
    with_kinds(|kind, kinds, mut ends| {
        let sent = fill(kind, kinds, &mut ends);
        ends.a.finish().unwrap();
        assert!(ends.a.queued() == 0 || !ends.a.fin_sent(), "{kind:?} has sent a FIN and still holds bytes");
        let mut got = Vec::new();
        ends.until("all bytes and the FIN arrive", |_, b| receive_some(b, &mut got));
        assert!(got == sent, "{kind:?}: {} of {}", got.len(), sent.len());
        ends.until("the FIN is sent", |a, _| a.fin_sent());
        assert_eq!(ends.a.queued(), 0);
    });
}

#[test]
fn both_ends_may_send_their_fin_at_the_same_time() {
    with_every_kind(|kind, mut ends| {
        let (mut sent, mut got) = ([0, 0], [Vec::new(), Vec::new()]);
        let bytes = bytes_of(6, 100_000);
        let mut ended = [false, false];
        ends.until("both directions end", |a, b| {
            for (end, sent) in [&mut *a, &mut *b].into_iter().zip(&mut sent) {
                *sent += if *sent < bytes.len() { send_some(end, &bytes[*sent..]) } else { 0 };
                if *sent == bytes.len() {
                    end.finish().unwrap();
                }
            }
            for ((end, got), ended) in [&mut *a, &mut *b].into_iter().zip(&mut got).zip(&mut ended) {
                *ended |= receive_some(end, got);
            }
            ended == [true, true] && a.fin_sent() && b.fin_sent()
        });
        assert!(got.iter().all(|got| *got == bytes), "{kind:?}");
        assert_eq!((ends.a.broken(), ends.b.broken()), (None, None), "{kind:?}");
    });
}

/// Returns the error with which a pipe breaks, or none at a FIN.
fn end_of(ends: &mut Ends) -> Option<PipeError> {
    let mut end = None;
    ends.until("the other end hears of it", |_, b| match b.receive(&mut [0; 100]) {
        Ok(0) => true,
        Ok(_) | Err(PipeError::WouldBlock) => false,
        Err(error) => end.insert(Some(error)).is_some(),
    });
    end.flatten()
}

#[test]
fn an_abort_resets_the_peer() {
    with_every_kind(|kind, mut ends| {
        pass(&mut ends, b"x");
        ends.a.abort();
        assert_eq!(ends.a.broken(), Some(PipeError::Aborted));
        assert_eq!(ends.a.send(b"x"), Err(PipeError::Aborted));
        assert_eq!(ends.a.receive(&mut [0; 9]), Err(PipeError::Aborted));
        assert_eq!(ends.a.finish(), Err(PipeError::Aborted));
        assert!(!ends.a.is_ready());
        match end_of(&mut ends) {
            Some(error) if kind.has_reset() => {
                assert_eq!(error, PipeError::Reset, "{kind:?}");
                assert_eq!(ends.b.broken(), Some(PipeError::Reset), "{kind:?}");
                assert_eq!(ends.b.send(b"x"), Err(PipeError::Reset), "{kind:?}");
            }
            end => assert!(!kind.has_reset() || kind == Kind::Datagram, "{kind:?}: {end:?}"),
        }
    });
}

#[test]
fn a_pipe_that_is_dropped_before_its_fin_resets_the_peer() {
    with_every_kind(|kind, mut ends| {
        pass(&mut ends, b"x");
        let (gone, _) = seaprox::pipes::MemoryPipe::pair(1);
        drop(std::mem::replace(&mut ends.a, Box::new(gone)));
        let end = end_of(&mut ends);
        if kind.has_reset() && kind != Kind::Datagram {
            assert_eq!(end, Some(PipeError::Reset), "{kind:?}");
        }
    });
}

#[test]
fn a_pipe_that_is_dropped_after_its_fin_has_delivered_everything() {
    with_every_kind(|kind, mut ends| {
        let bytes = bytes_of(7, 40_000);
        let mut sent = 0;
        ends.until("the FIN is sent", |a, _| {
            sent += if sent < bytes.len() { send_some(a, &bytes[sent..]) } else { 0 };
            if sent == bytes.len() {
                a.finish().unwrap();
            }
            a.fin_sent()
        });
        let (gone, _) = seaprox::pipes::MemoryPipe::pair(1);
        drop(std::mem::replace(&mut ends.a, Box::new(gone)));
        let mut got = Vec::new();
        ends.until("the bytes and the FIN arrive", |_, b| receive_some(b, &mut got));
        assert!(got == bytes, "{kind:?}: {}", got.len());
    });
}
