//! A transfer in both directions that goes on until a test is done with its network, so that everything that the test does
//! happens in the middle of it, however slow the machine is.

use std::sync::Mutex;
use std::thread;

use crate::kit::Peer;
use crate::kit::Step::{Fin, ReadAll, Swap};

/// The bytes of one piece. Both ends swap the same number of pieces.
pub const PIECE: u64 = 256 << 10;

#[derive(Default)]
struct Pieces(Mutex<State>);

#[derive(Default)]
struct State {
    /// Pieces that one of the ends has started.
    started: u64,
    /// The number of pieces, once it is known.
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

    /// Ends the transfer with the pieces that have been started, and not before it has so many.
    fn stop(&self, least: u64) {
        let mut state = self.0.lock().expect("no panic");
        state.count = Some(state.started.max(least));
    }
}

/// Stops the transfer when the work is over, or has panicked.
struct Stop<'a>(&'a Pieces, u64);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop(self.1);
    }
}

/// Swaps bytes while `work` runs, and at least `least` bytes. Every byte arrives once and in its place, and the ends after
/// them. Returns the result of `work`.
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
