//! SCTP (RFC 9260), by the kernel and in the one-to-one style, below TLS.
//!
//! An association is an ordered pipe as TCP is: one of its streams is used, and each message holds one record of TLS. It may
//! have several addresses at both ends, and goes on over another one when the first is lost; it does not use them at the same
//! time. A socket that is bound to no address, or to all, has all addresses of the host, and the handshake tells the peer.
//!
//! There is nothing to fall back to: a listener of SCTP does not answer TCP. Where this system has no SCTP, the start fails
//! with an error that says so.
//!
//! The system's figures of a path count in its clock ticks and hold no rate, so the acknowledgements of the session measure
//! the path.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use crate::sys::{self, SctpOutput, StreamProtocol, TcpStream};

use super::PathInfo;
use super::tcp_tls::StreamKind;

/// SCTP.
pub(crate) struct Sctp;

impl StreamKind for Sctp {
    const PROTOCOL: StreamProtocol = StreamProtocol::Sctp;
    const HAS_MESSAGES: bool = true;

    fn is_available() -> bool {
        Self::require().is_ok()
    }

    fn require() -> io::Result<()> {
        sys::stream_socket(socket2::Domain::IPV4, StreamProtocol::Sctp).map(drop)
    }

    fn name(_: &TcpStream) -> &'static str {
        "sctp"
    }

    fn has_other_paths(socket: &TcpStream) -> bool {
        let has = |address: &IpAddr| !address.is_loopback() && sys::has_address(*address);
        sys::sctp_local_addresses(socket).is_ok_and(|addresses| addresses.iter().any(has))
    }

    fn path_info(_: &TcpStream) -> Option<PathInfo> {
        None
    }

    fn wants_more(socket: &TcpStream, backlog: &mut Backlog, rate: u64) -> bool {
        // Where the system does not tell, the send buffer alone bounds the bytes.
        let Ok(output) = sys::sctp_output(socket) else { return true };
        if let Some(bound) = backlog.new_rto_min(output.srtt) {
            // Without it the timer is less patient.
            let _ = sys::sctp_set_rto_min(socket, bound);
        }
        backlog.wants_more(output, rate)
    }
}

/// The chunks of an association that the system has not sent yet.
///
/// The system tells how many chunks it has sent, and how much memory the chunks take that it keeps. The memory alone does not tell what
/// is unsent: it holds each chunk until all before it are acknowledged, which is up to two windows while a lost one is sent again. So
/// the carrier counts the chunks that it gives to the system.
#[derive(Default)]
pub(crate) struct Backlog {
    /// Chunks that the system got since the association began.
    given: u64,
    /// The chunks of `given` that were sent when the system was asked last.
    sent: u64,
    /// Payload of a full chunk, once the system was asked.
    chunk_bytes: u32,
    /// Limit of the unsent bytes.
    limit: u64,
    /// Questions to the system since it has sent a chunk.
    looks: u32,
    /// Lower bound of the retransmission timeout, once it was set.
    rto_min: Duration,
}

impl Backlog {
    /// Notes a message that the system has taken.
    pub fn give(&mut self, bytes: usize) {
        self.given += bytes.div_ceil(self.chunk_bytes.max(CHUNK_BYTES_MIN) as usize) as u64;
    }

    /// Asks the system. Returns true if it has few unsent bytes for a path that carries `rate` bytes per second.
    pub fn wants_more(&mut self, output: SctpOutput, rate: u64) -> bool {
        self.limit = (rate / UNSENT_PER_SECOND).clamp(UNSENT_BYTES.0, UNSENT_BYTES.1);
        self.looks = if output.chunks_sent == self.sent { self.looks.saturating_add(1) } else { 0 };
        (self.sent, self.chunk_bytes) = (output.chunks_sent, output.chunk_bytes);
        // The system may have cut a message differently, such as when the path has changed. That is known when it has nothing more.
        self.given = if output.memory_bytes == 0 { self.sent } else { self.given.max(self.sent) };
        self.has_room()
    }

    /// Returns a lower bound of the retransmission timeout for a path of this round trip, if the present one differs much.
    ///
    /// The system's timeout is the round trip and four times its variance, which on a steady path is nearly the round trip alone: a
    /// queue that begins to grow is a timeout then. Its window is one packet again, and nothing undoes that. TCP therefore waits
    /// 200 ms longer than a round trip at least, and so does this bound.
    pub fn new_rto_min(&mut self, srtt: Duration) -> Option<Duration> {
        let bound = (srtt + RTO_PATIENCE).min(RTO_MIN_MAX);
        let is_near = bound.abs_diff(self.rto_min) <= RTO_PATIENCE / 4;
        (!is_near).then(|| std::mem::replace(&mut self.rto_min, bound)).map(|_| bound)
    }

    /// Returns the time until the carrier asks again without an event, if the system may have many unsent bytes. Acknowledgements make
    /// events for nearly all chunks, but not for those behind a lost one.
    pub fn next_look(&self) -> Option<Duration> {
        (!self.has_room()).then(|| LOOK_AGAIN * (1 << self.looks.min(LOOKS_DOUBLED)))
    }

    fn has_room(&self) -> bool {
        (self.given - self.sent) * u64::from(self.chunk_bytes) <= self.limit
    }
}

/// Time that the retransmission timeout is longer than a round trip, and the longest bound of it, which is below that of the socket.
const RTO_PATIENCE: Duration = Duration::from_millis(200);
const RTO_MIN_MAX: Duration = Duration::from_secs(3);
/// Payload of a full chunk on a path of the smallest MTU of IPv6.
const CHUNK_BYTES_MIN: u32 = 1180;
/// The unsent bytes last for this part of a second: several looks.
const UNSENT_PER_SECOND: u64 = 100;
/// Limit of the unsent bytes on the slowest and on the fastest path.
const UNSENT_BYTES: (u64, u64) = (16 << 10, 256 << 10);
/// Time until the carrier asks again. It doubles this many times while nothing is sent.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
const LOOKS_DOUBLED: u32 = 3;

#[cfg(all(test, unix))]
#[path = "sctp_tests.rs"]
mod tests;
