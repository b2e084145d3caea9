//! What a session may use: its limits and its timers. Each is a bound that the memory formula or a deadline refers to.

use crate::link::path::scheduler::Mode;
use crate::link::stream::credit::Bounds;
use crate::link::wire::header::DATA_BYTES_MAX;
use crate::link::wire::hello::{Capability, Limits};

/// Frames in flight, ranges to be sent again and ranges acknowledged out of order that a session may have together. A
/// receiver can count on it: it never sees more gaps than this.
pub const RANGES_MAX: usize = 65_536;
/// OPENs of one end that may be unacknowledged at once.
pub const OPENS_MAX: u32 = 1024;
/// A stream without its OPEN is given up after so much time with a live subflow.
pub const OPEN_US: u64 = 60_000_000;
/// Frames in flight on a subflow beyond its limit, of the kinds that need not wait for it: answers, acknowledgements.
pub(super) const FRAMES_SLACK: usize = 16;

/// Limits and timers of a session. The two ends need not agree: each announces what it can take.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How frames are spread over subflows.
    pub mode: Mode,
    /// Optional features that this end offers or takes: bits of [`Capability`].
    pub capabilities: u64,
    /// Payload bytes of the largest DATA frame, at most [`DATA_BYTES_MAX`].
    pub frame_bytes_max: u64,
    /// A stream's receive window: what it starts with, and how far it may grow.
    pub stream_window_bytes: (u64, u64),
    /// The session's receive window; its second value is R, the bound on all payload held for the application. It costs
    /// nothing before readers fall behind, and what one stream may hold of it depends on its size, so there is little
    /// reason to begin with less.
    pub session_window_bytes: (u64, u64),
    /// S: the bound on all payload that is held until the peer has it.
    pub send_bytes_max: u64,
    /// Bytes that one stream may have waiting to be sent for the first time.
    pub unsent_bytes_max: u64,
    /// Streams of the peer's that may live at once. A peer with [`Capability::OrderedOpens`] is told of [`OPENS_MAX`] more
    /// than it has opened, at most.
    pub streams_max: u32,
    /// Streams that a peer with [`Capability::OrderedOpens`] is allowed at once, if they are fewer: as its key permits.
    pub streams_permitted: u32,
    /// Listeners of each end that may live at once.
    pub listeners_max: u32,
    /// Subflows of the session.
    pub subflows_max: usize,
    /// Frames in flight on one lane.
    pub lane_frames_max: usize,
    /// An acknowledgement waits no longer than this.
    pub ack_delay_us: u64,
    /// A silent subflow is asked for a sign of life this often.
    pub keepalive_us: u64,
    /// A subflow that has been silent for so long is dead.
    pub dead_us: u64,
    /// A subflow has so long to introduce itself.
    pub handshake_us: u64,
    /// A session without subflows is kept for so long.
    pub hold_us: u64,
}

impl Default for Config {
    fn default() -> Config {
        const KIB: u64 = 1024;
        Config {
            mode: Mode::Stripe,
            capabilities: Capability::all(),
            frame_bytes_max: DATA_BYTES_MAX as u64,
            stream_window_bytes: (256 * KIB, 16 * KIB * KIB),
            session_window_bytes: (64 * KIB * KIB, 64 * KIB * KIB),
            send_bytes_max: 64 * KIB * KIB,
            unsent_bytes_max: 256 * KIB,
            streams_max: 65_536,
            streams_permitted: u32::MAX,
            listeners_max: 256,
            subflows_max: 16,
            lane_frames_max: 4096,
            ack_delay_us: 20_000,
            keepalive_us: 5_000_000,
            dead_us: 15_000_000,
            handshake_us: 10_000_000,
            hold_us: 600_000_000,
        }
    }
}

impl Config {
    /// How often a silent subflow is asked: at least three times before it counts as dead.
    pub(super) fn ping_us(&self) -> u64 {
        self.keepalive_us.min(self.dead_us / 3)
    }

    pub(super) const fn stream_bounds(&self) -> Bounds {
        Bounds { first: self.stream_window_bytes.0, max: self.stream_window_bytes.1 }
    }

    pub(super) const fn session_bounds(&self) -> Bounds {
        Bounds { first: self.session_window_bytes.0, max: self.session_window_bytes.1 }
    }

    /// How many streams the peer is allowed before it has said which optional features it has.
    pub(super) fn streams_first(&self) -> u32 {
        if self.capabilities & Capability::OrderedOpens.bit() == 0 {
            return self.streams_max;
        }
        self.streams_max.min(self.streams_permitted).min(OPENS_MAX)
    }

    /// What this end says of itself in HELLO or HELLO_ACK.
    pub(super) const fn limits(&self) -> Limits {
        Limits {
            streams: self.streams_max,
            listeners: self.listeners_max,
            stream_credit: self.stream_window_bytes.0,
            session_credit: self.session_window_bytes.0,
        }
    }
}
