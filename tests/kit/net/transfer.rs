//! A transfer in both directions that continues while a test changes its network, so that every change happens in the
//! middle of the transfer, however slow the machine is.

use std::sync::Mutex;
use std::thread;

use crate::kit::Peer;
use crate::kit::Step::{Fin, ReadAll, Swap};

/// The size of a piece in bytes. Both ends send the same number of pieces.
pub const PIECE: u64 = 256 << 10;

#[derive(Default)]
struct Pieces(Mutex<State>);

#[derive(Default)]
struct State {
    /// The number of pieces that either end has started.
    started: u64,
    /// The number of pieces of the transfer, once it is known.
    count: Option<u64>,
}

impl Pieces {
    /// Returns true if the piece of this number is part of the transfer.
    fn has(&self, number: u64) -> bool {
        let mut state = self.0.lock().expect("no panic");
        let is_part = state.count.is_none_or(|count| number < count);
        if is_part {
            state.started = state.started.max(number + 1);
        }
        is_part
    }

    /// Ends the transfer after the pieces that have been started, and after at least `least` pieces.
    fn stop(&self, least: u64) {
        let mut state = self.0.lock().expect("no panic");
        state.count = Some(state.started.max(least));
    }
}

/// Stops the transfer when it is dropped: when the work has returned or panicked.
struct Stop<'a>(&'a Pieces, u64);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop(self.1);
    }
}

/// Sends bytes in both directions while `work` runs, and at least `least` bytes each way. Every byte arrives once and
/// in order, then the ends. Returns the result of `work`.
#[track_caller]
pub fn swap_while<T>(peers: (Peer, Peer), least: u64, work: impl FnOnce() -> T) -> T {
    let (mut client, mut server) = peers;
    let pieces = Pieces::default();
    let swap = |peer: &mut Peer| {
        let mut number = 0;
        while pieces.has(number) {
            peer.run(&[Swap(PIECE)]);
            number += 1;
        }
        peer.run(&[Fin, ReadAll]);
    };
    thread::scope(|scope| {
        let swaps = [&mut client, &mut server].map(|peer| scope.spawn(|| swap(peer)));
        let result = {
            let _stop = Stop(&pieces, least / PIECE);
            work()
        };
        for swap in swaps {
            swap.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
        result
    })
}
