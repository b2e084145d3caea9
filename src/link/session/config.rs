//! The limits and timers of a session. Each limits a term of the memory formula or a deadline.

use crate::link::path::scheduler::Mode;
use crate::link::stream::credit::Bounds;
use crate::link::wire::header::DATA_BYTES_MAX;
use crate::link::wire::hello::{Capability, Limits};

/// Maximum number of frames in flight, ranges to retransmit and ranges acknowledged out of order in a session, all
/// together. So a receiver never sees more gaps than this.
pub const RANGES_MAX: usize = 65_536;
/// Maximum number of unacknowledged OPENs of one end.
pub const OPENS_MAX: u32 = 1024;
/// Time with a live subflow after which a stream without its OPEN is aborted.
pub const OPEN_US: u64 = 60_000_000;
/// Frames in flight on a subflow beyond its limit that do not wait for it: answers and acknowledgements.
pub(super) const FRAMES_SLACK: usize = 16;

/// Limits and timers of a session. The two ends need not agree: each announces its own.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The distribution of frames over subflows.
    pub mode: Mode,
    /// Optional features that this end offers or accepts: bits of [`Capability`].
    pub capabilities: u64,
    /// Maximum payload of a DATA frame in bytes, at most [`DATA_BYTES_MAX`].
    pub frame_bytes_max: u64,
    /// Initial and maximum receive window of a stream.
    pub stream_window_bytes: (u64, u64),
    /// Initial and maximum receive window of the session. The maximum is R, the limit on payload held for the
    /// application. A large initial window costs nothing while readers keep up, and the quotas of streams depend on it,
    /// so there is little reason for a small one.
    pub session_window_bytes: (u64, u64),
    /// S: the limit on payload that the peer has not acknowledged.
    pub send_bytes_max: u64,
    /// Maximum number of unsent bytes of a stream.
    pub unsent_bytes_max: u64,
    /// Maximum number of live streams of the peer. A peer with [`Capability::OrderedOpens`] is allowed at most
    /// [`OPENS_MAX`] more than it has opened.
    pub streams_max: u32,
    /// Maximum number of live streams of a peer with [`Capability::OrderedOpens`] according to its key, if that is
    /// lower.
    pub streams_permitted: u32,
    /// Maximum number of live listeners of each end.
    pub listeners_max: u32,
    /// Maximum number of subflows.
    pub subflows_max: usize,
    /// Maximum number of frames in flight on a lane.
    pub lane_frames_max: usize,
    /// Maximum delay of an acknowledgement.
    pub ack_delay_us: u64,
    /// Idle time before a PING is sent on a subflow.
    pub keepalive_us: u64,
    /// Idle time after which a subflow is dead.
    pub dead_us: u64,
    /// Timeout of a subflow's handshake.
    pub handshake_us: u64,
    /// Time for which a suspended session is kept.
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
            // More than all carriers take at once. So a carrier that takes no more while data waits is at its limit, and its
            // rate is known.
            unsent_bytes_max: 64 * DATA_BYTES_MAX as u64,
            streams_max: 65_536,
            streams_permitted: u32::MAX,
            listeners_max: 256,
            subflows_max: 16,
            lane_frames_max: 4096,
            ack_delay_us: 20_000,
            keepalive_us: 5_000_000,
            dead_us: 15_000_000,
            handshake_us: 5_000_000,
            hold_us: 600_000_000,
        }
    }
}

impl Config {
    /// Returns the interval of PINGs on an idle subflow: at least three are sent before it is dead.
    pub(super) fn ping_us(&self) -> u64 {
        self.keepalive_us.min(self.dead_us / 3)
    }

    pub(super) const fn stream_bounds(&self) -> Bounds {
        Bounds { first: self.stream_window_bytes.0, max: self.stream_window_bytes.1 }
    }

    pub(super) const fn session_bounds(&self) -> Bounds {
        Bounds { first: self.session_window_bytes.0, max: self.session_window_bytes.1 }
    }

    /// Returns the number of streams that the peer may open before its optional features are known.
    pub(super) fn streams_first(&self) -> u32 {
        if self.capabilities & Capability::OrderedOpens.bit() == 0 {
            return self.streams_max;
        }
        self.streams_max.min(self.streams_permitted).min(OPENS_MAX)
    }

    /// Returns this end's limits for HELLO or HELLO_ACK.
    pub(super) const fn limits(&self) -> Limits {
        Limits {
            streams: self.streams_max,
            listeners: self.listeners_max,
            stream_credit: self.stream_window_bytes.0,
            session_credit: self.session_window_bytes.0,
        }
    }
}
