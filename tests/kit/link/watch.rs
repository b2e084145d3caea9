//! Counts the DATA frames that overtake a waiting frame. The count is in frames, so that no delay of a path can hide
//! it.
//!
//! A frame has overtaken another if it leaves while the other waits and also arrives before it. The arrival matters:
//! while a control frame waits for the fastest subflow, a slower subflow may take many frames that arrive long after
//! it.

use seaprox::link::frame::kind;
use seaprox::link::{StreamId, SubflowId, Time};

/// A frame that has not left yet, and the DATA frames that have left since it began to wait.
#[derive(Debug)]
struct Waiting {
    kind: u8,
    id: StreamId,
    passed: Vec<(SubflowId, Time)>,
}

/// The watched frames of one end.
#[derive(Debug, Default)]
pub struct Watch {
    waiting: Vec<Waiting>,
    /// For each watched frame that has left: its type, and the number of DATA frames of other streams that overtook it
    /// on one subflow, the largest of all subflows.
    pub left: Vec<(u8, usize)>,
    /// The subflow of each datagram that has left, whole or in parts.
    pub datagrams: Vec<(StreamId, SubflowId)>,
}

impl Watch {
    /// Watches the OPEN and the first DATA of a stream that has just been opened and written to.
    pub fn expect(&mut self, id: StreamId) {
        for kind in [kind::OPEN, kind::DATA] {
            self.waiting.push(Waiting { kind, id, passed: Vec::new() });
        }
    }

    /// Records that a frame has left on a subflow and will arrive at `arrival`.
    pub fn on_frame(&mut self, subflow: SubflowId, arrival: Time, frame: &[u8]) {
        let Some((&[kind, _, _, _, a, b, c, d], _)) = frame.split_first_chunk::<8>() else { return };
        let id = StreamId(u32::from_be_bytes([a, b, c, d]));
        if matches!(kind, kind::DATAGRAM | kind::DATAGRAM_PART) {
            self.datagrams.push((id, subflow));
        }
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

    /// Returns true if all watched frames have left.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }
}
