//! What a frame costs in allocations: nothing, once everything has grown to the size it needs.

#[path = "link_kit/bare.rs"]
#[allow(dead_code, reason = "the bench uses the rest")]
mod bare;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use bare::Pair;
use seaprox::link::Session;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system's allocator as it is.
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

/// One test, because the count is of the whole process.
#[test]
fn steady_frames_allocate_nothing() {
    let mut pair = Pair::new();
    pair.ends.iter_mut().for_each(Session::check_only_when_asked);
    let bulk = pair.open(1)[0];
    pair.bulk(bulk, 64 << 20);
    let frames = pair.frames;
    let count = allocations(|| {
        pair.bulk(bulk, 64 << 20);
    });
    let frames = pair.frames - frames;
    println!("{count} allocations for {frames} frames of bulk");
    assert!(count < frames / 100, "{count} allocations for {frames} frames");

    let ids = pair.open(1000);
    pair.small(&ids, 100_000);
    let count = allocations(|| {
        pair.small(&ids, 100_000);
    });
    println!("{count} allocations for 100000 small frames");
    assert!(count < 1000, "{count} allocations for 100000 small frames");
    pair.ends.iter().for_each(Session::check_invariants);
}
