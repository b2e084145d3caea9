//! Multipath TCP (RFC 8684): the kernel's own striping over the addresses of both hosts, below TLS.
//!
//! The socket has the interface of TCP. Where this system has no multipath TCP, the socket is one of TCP from the start;
//! where the peer or the network has none, the kernel falls back to TCP in the handshake. Either way the link goes on, and the
//! carrier tells which it is. A listener takes both.

use crate::sys::{self, StreamProtocol, TcpStream};

use super::PathInfo;
use super::tcp_tls::StreamKind;

/// Multipath TCP.
pub(crate) struct Mptcp;

impl StreamKind for Mptcp {
    const PROTOCOL: StreamProtocol = StreamProtocol::Mptcp;

    fn is_available() -> bool {
        sys::has_mptcp()
    }

    fn name(socket: &TcpStream) -> &'static str {
        if sys::mptcp_subflows(socket).is_some() { "mptcp" } else { "tcp" }
    }

    fn has_other_paths(socket: &TcpStream) -> bool {
        sys::mptcp_subflows(socket).is_some_and(|others| others > 0)
    }

    /// Returns the sum over the kernel's subflows, or the figures of TCP after a fallback. No packets sent again count: a larger window
    /// for repairs would be a queue, because the kernel gives its subflows all bytes, whatever they can send.
    fn path_info(socket: &TcpStream) -> Option<PathInfo> {
        let sum = sys::mptcp_info(socket).map(|info| PathInfo { resent: 0, ..info });
        sum.or_else(|| sys::tcp_info(socket))
    }
}
