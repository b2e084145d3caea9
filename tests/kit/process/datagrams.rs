//! Targets of datagrams.

use std::net::{SocketAddr, UdpSocket};

/// Starts a target on IPv4 that sends each datagram back, in a thread of its own. Returns its address.
pub fn echo() -> SocketAddr {
    echo_at("127.0.0.1:0")
}

/// Starts a target at an address, as [`echo`] does.
pub fn echo_at(addr: &str) -> SocketAddr {
    let socket = UdpSocket::bind(addr).unwrap();
    let addr = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buf = [0; 65_536];
        while let Ok((len, from)) = socket.recv_from(&mut buf) {
            let _ = socket.send_to(&buf[..len], from);
        }
    });
    addr
}
