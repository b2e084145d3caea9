//! Allocations for each frame of a link: none, once all tables and buffers have reached their size.

use seaprox::link::Session;

use crate::bare::Pair;
use crate::heap::allocations;

#[test]
fn steady_frames_allocate_nothing() {
    let mut pair = Pair::new();
    pair.ends.iter_mut().for_each(Session::check_only_when_asked);
    let bulk = pair.open(1)[0];
    pair.bulk(bulk, 64 << 20);
    measure(&mut pair, "of bulk", |pair| {
        pair.bulk(bulk, 64 << 20);
    });
    let ids = pair.open(1000);
    pair.small(&ids, 200_000);
    measure(&mut pair, "of 64 bytes", |pair| {
        pair.small(&ids, 200_000);
    });
    pair.ends.iter().for_each(Session::check_invariants);
}

/// Checks the link's own allocations: all of them less one for each batch, which the kit makes for the wire's buffer.
fn measure(pair: &mut Pair, what: &str, work: impl FnOnce(&mut Pair)) {
    let (frames, batches) = (pair.frames, pair.batches);
    let count = allocations(|| work(pair)) as u64;
    let (frames, batches) = (pair.frames - frames, pair.batches - batches);
    println!("{count} allocations for {frames} frames {what} in {batches} batches");
    assert!(count <= batches + frames / 1000, "{count} allocations for {frames} frames {what} in {batches} batches");
}
