//! Allocations for each frame of a link: none, once all tables and buffers have reached their size.

#[path = "kit/link/bare.rs"]
#[allow(dead_code, reason = "the bench uses the rest")]
mod bare;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use bare::Pair;
use seaprox::link::Session;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is forwarded unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps to the contract of `alloc`, which is that of the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above; `ptr` came from the system's allocator.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    work();
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

/// This is the only test here, because the counter counts the whole process.
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
    let count = allocations(|| work(pair));
    let (frames, batches) = (pair.frames - frames, pair.batches - batches);
    println!("{count} allocations for {frames} frames {what} in {batches} batches");
    assert!(count <= batches + frames / 1000, "{count} allocations for {frames} frames {what} in {batches} batches");
}
