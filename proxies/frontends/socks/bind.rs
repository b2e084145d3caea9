//! BIND (RFC 1928, section 6, and SOCKS4): the client is told an address, and the dest connects to it.
//!
//! The client gets two replies: one with the address as soon as this node listens, and one with the address of the dest when
//! it has connected.

use std::net::SocketAddr;
use std::rc::Rc;

use seaprox::{Cx, Proto, Reason, Target};

use super::proto::{self, BadTarget, Command, Reply4, Reply5, Version};
use super::{Socks, refuse, reply_for};

impl Socks {
    /// Handles a request to listen for a connection from the target.
    pub(super) fn bind(&mut self, cx: &mut Cx<'_>, target: Result<Target, BadTarget>, input: &[u8]) {
        cx.set_kind(if self.version == Version::Four { "socks4-bind" } else { "socks5-bind" });
        let refused = |socks: &mut Socks, cx: &mut Cx<'_>, code, detail| {
            proto::asked(input).into_iter().for_each(|text| cx.set_asked_text(&text));
            socks.reply(cx, code);
            refuse(cx, Reason::ProtocolError, detail);
        };
        let target = match target {
            _ if self.access.is_over_link() => {
                return refused(self, cx, Reply5::CommandNotSupported, "BIND is not carried over links");
            }
            Ok(target @ Target::Ip(Proto::Tcp, _)) => target,
            // The source of a connection is an address, so a name would have to be looked up before.
            _ => return refused(self, cx, Reply5::AddressTypeNotSupported, "BIND takes an address, and no name"),
        };
        match self.access.await_dest(cx, Rc::new(target)) {
            Ok(mut addr) => {
                self.command = Command::Bind;
                self.settings.bind_advertised.into_iter().for_each(|ip| addr.set_ip(ip));
                self.bound(cx, addr);
            }
            Err(failure) => {
                failure.detail.iter().for_each(|detail| cx.set_detail(detail));
                self.reply(cx, reply_for(failure.reason));
                cx.close_after_flush(failure.reason);
            }
        }
    }

    /// Sends a reply with an address: that where the dest may connect, or that of the dest.
    pub(super) fn bound(&mut self, cx: &mut Cx<'_>, addr: SocketAddr) {
        _ = match (self.version, addr) {
            (Version::Four, SocketAddr::V4(addr)) => cx.reply(&proto::reply4(Reply4::Granted, Some(addr))),
            (Version::Four, SocketAddr::V6(_)) => cx.reply(&proto::reply4(Reply4::Granted, None)),
            (Version::Five, addr) => {
                let (bytes, len) = proto::reply5(Reply5::Succeeded, Some(addr));
                cx.reply(&bytes[..len])
            }
        };
    }
}
