//! The part that several kits share.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

/// Returns an address of loopback that no other test, process or outgoing connection gets, and on which nothing listens. The
/// port is free on all addresses of IPv4.
///
/// The address belongs to the number of this process, and the port is below those that the system chooses. The check binds
/// without listening: a program that another test starts holds a copy of the socket until its exec, and a copy that listened
/// would keep the address in use.
pub fn free_addr() -> SocketAddr {
    const PORTS: std::ops::Range<u16> = 10_000..21_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let pid = std::process::id();
    let ip = if cfg!(target_os = "linux") {
        // 127.128.0.0 to 127.255.255.255.
        Ipv4Addr::from_bits(0x7f80_0000 | (pid & 0x007f_ffff))
    } else {
        Ipv4Addr::LOCALHOST
    };
    let count = u32::from(PORTS.end - PORTS.start);
    let ports = std::iter::repeat_with(|| {
        let offset = pid.wrapping_mul(37).wrapping_add(u32::from(NEXT.fetch_add(1, Ordering::Relaxed)));
        PORTS.start + (offset % count) as u16
    });
    let is_free = |port: &u16| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.set_reuse_address(true).expect("a socket");
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, *port)).into()).is_ok()
    };
    let port = ports.take(1000).find(is_free).expect("a port is free");
    SocketAddr::from((ip, port))
}

/// Returns an address that refuses connections. It stays bound, so that no other program gets it, and nothing listens
/// on it.
pub fn refusing() -> SocketAddr {
    static BOUND: OnceLock<(socket2::Socket, SocketAddr)> = OnceLock::new();
    let bound = BOUND.get_or_init(|| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        let addr = socket.local_addr().unwrap().as_socket().unwrap();
        (socket, addr)
    });
    bound.1
}

/// A connector that never answers.
#[derive(Default)]
pub struct Never(Vec<seaprox::Answer>);

impl seaprox::Connector for Never {
    fn wants(&self, _: &seaprox::Target) -> bool {
        true
    }

    fn connect(&mut self, _: &seaprox::Target, answer: seaprox::Answer) {
        self.0.push(answer);
    }
}
