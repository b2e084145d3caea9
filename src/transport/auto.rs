//! TCP first, and QUIC beside it over the same path: `node/auto.rs` dials both and chooses between them.
//!
//! This kind is the TCP of such a link. A listener of this kind has a port of UDP beside the one of TCP, with the same number,
//! whose carriers are of QUIC: see [`CarrierKind::at`](super::CarrierKind::at).

use std::io;

use crate::engine::bound::Bound;
use crate::engine::limits::Config;
use crate::sys::{self, StreamProtocol, TcpStream};
use crate::types::address::Bind;

use super::PathInfo;
use super::both::bind_both;
use super::tcp_tls::StreamKind;

/// TCP that has QUIC beside it.
pub(crate) struct Auto;

impl StreamKind for Auto {
    const PROTOCOL: StreamProtocol = StreamProtocol::Tcp;

    fn is_available() -> bool {
        true
    }

    fn bind(place: &Bind, config: &Config) -> io::Result<Vec<Bound>> {
        bind_both(place, config)
    }

    fn name(_: &TcpStream) -> &'static str {
        "tcp"
    }

    #[inline]
    fn path_info(socket: &TcpStream) -> Option<PathInfo> {
        sys::tcp_info(socket)
    }
}
