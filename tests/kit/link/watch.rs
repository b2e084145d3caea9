//! What passes a frame that waits to leave: counted in frames, so that no delay of a path can hide it.
//!
//! A frame that leaves later and arrives sooner has passed nobody: while control waits for the fastest subflow, a
//! slower one may take many frames that arrive long after it. So what counts is what has left meanwhile and arrives
//! before.

use seaprox::link::frame::kind;
use seaprox::link::{StreamId, SubflowId, Time};

/// A frame that is to leave, and what has left before it.
#[derive(Debug)]
struct Waiting {
    kind: u8,
    id: StreamId,
    passed: Vec<(SubflowId, Time)>,
}

/// The frames of one end that are waited for.
#[derive(Debug, Default)]
pub struct Watch {
    waiting: Vec<Waiting>,
    /// For each that has left: its type, and the most DATA frames of other streams that left on one subflow while it
    /// waited and arrive before it.
    pub left: Vec<(u8, usize)>,
}

impl Watch {
    /// A stream has just been opened, and its first bytes written.
    pub fn expect(&mut self, id: StreamId) {
        for kind in [kind::OPEN, kind::DATA] {
            self.waiting.push(Waiting { kind, id, passed: Vec::new() });
        }
    }

    /// A frame has left on a subflow, and will arrive at this time.
    pub fn on_frame(&mut self, subflow: SubflowId, arrival: Time, frame: &[u8]) {
        let Some((&[kind, _, _, _, a, b, c, d], _)) = frame.split_first_chunk::<8>() else { return };
        let id = StreamId(u32::from_be_bytes([a, b, c, d]));
        let watched = self.waiting.iter().any(|waiting| waiting.id == id);
        self.waiting.retain(|waiting| {
            let leaves = waiting.kind == kind && waiting.id == id;
            if leaves {
                let before = |id| waiting.passed.iter().filter(|(other, at)| *other == id && *at < arrival).count();
                self.left.push((kind, waiting.passed.iter().map(|(id, _)| before(*id)).max().unwrap_or(0)));
            }
            !leaves
        });
        if kind == kind::DATA && !watched {
            self.waiting.iter_mut().for_each(|waiting| waiting.passed.push((subflow, arrival)));
        }
    }

    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }
}
