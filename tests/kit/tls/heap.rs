//! A counting allocator: the bytes that pipes hold, and the number of their allocations.

use std::alloc::{GlobalAlloc, Layout, System};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::tls::{Buffers, Cipher};
use crate::tls_kit::{give, pair_on, shake, take};

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is forwarded unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps to the contract of `alloc`, which is that of the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above; `ptr` came from the system's allocator.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Returns the bytes of the heap that are in use.
pub fn held() -> usize {
    HELD.load(Ordering::Relaxed)
}

/// Returns the number of allocations so far.
pub fn allocations() -> usize {
    ALLOCATIONS.load(Ordering::Relaxed)
}

/// Returns the bytes that an open client and an open server hold after traffic in both directions, when no data waits.
/// The buffer pool of their loop is not counted.
pub fn idle() -> (usize, usize) {
    let buffers = Rc::new(Buffers::new());
    let (mut client, mut server) = pair_on(&buffers, &Cipher::preferred());
    assert_eq!(shake(&mut client, &mut server, usize::MAX), (Ok(()), Ok(())));
    let mut out = Vec::new();
    for _ in 0..3 {
        client.seal([&[1; 100_000][..]]).unwrap();
        give(&mut server, &take(&mut client), usize::MAX, &mut out).unwrap();
        server.seal([&[1; 100_000][..]]).unwrap();
        give(&mut client, &take(&mut server), usize::MAX, &mut out).unwrap();
    }
    drop(out);
    let all = held();
    drop(client);
    let one = held();
    drop(server);
    let none = held();
    drop(buffers);
    let size = size_of::<crate::tls::TlsPipe>();
    (all - one + size, one - none + size)
}
