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

use crate::sys::{self, StreamProtocol, TcpStream};

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

    fn wants_more(socket: &TcpStream) -> bool {
        sys::sctp_wants_more(socket)
    }
}

#[cfg(all(test, unix))]
#[path = "sctp_tests.rs"]
mod tests;
