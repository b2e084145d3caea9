//! A SOCKS client, byte by byte.

use std::io::Read;
use std::net::{IpAddr, SocketAddr};

use super::Peer;

/// Returns a SOCKS5 CONNECT request for an address or a name.
pub fn request5(host: &str, port: u16) -> Vec<u8> {
    let mut bytes = vec![5, 1, 0];
    match host.parse() {
        Ok(IpAddr::V4(ip)) => {
            bytes.push(1);
            bytes.extend_from_slice(&ip.octets());
        }
        Ok(IpAddr::V6(ip)) => {
            bytes.push(4);
            bytes.extend_from_slice(&ip.octets());
        }
        Err(_) => {
            bytes.extend_from_slice(&[3, host.len() as u8]);
            bytes.extend_from_slice(host.as_bytes());
        }
    }
    bytes.extend_from_slice(&port.to_be_bytes());
    bytes
}

/// Returns a SOCKS4 CONNECT request for an address, or a SOCKS4a one for a name.
pub fn request4(host: &str, port: u16) -> Vec<u8> {
    let mut bytes = vec![4, 1];
    bytes.extend_from_slice(&port.to_be_bytes());
    match host.parse() {
        Ok(IpAddr::V4(ip)) => {
            bytes.extend_from_slice(&ip.octets());
            bytes.extend_from_slice(b"me\0");
        }
        _ => {
            bytes.extend_from_slice(b"\0\0\0\x07me\0");
            bytes.extend_from_slice(host.as_bytes());
            bytes.push(0);
        }
    }
    bytes
}

/// Connects to a target through a SOCKS5 proxy, without authentication. Returns the connection and the whole reply.
#[track_caller]
pub fn connect5(proxy: SocketAddr, host: &str, port: u16) -> (Peer, Vec<u8>) {
    let mut peer = Peer::connect(proxy);
    let reply = ask5(&mut peer, host, port);
    (peer, reply)
}

/// Asks a SOCKS5 proxy for a target, without authentication. Returns the whole reply.
#[track_caller]
pub fn ask5(peer: &mut Peer, host: &str, port: u16) -> Vec<u8> {
    let mut all = b"\x05\x01\0".to_vec();
    all.extend(request5(host, port));
    peer.run(&[super::Step::Put(&all), super::Step::Take(b"\x05\0")]);
    reply5(peer)
}

/// Returns the reply code of a SOCKS5 proxy for a target.
#[track_caller]
pub fn code5(proxy: SocketAddr, host: &str, port: u16) -> u8 {
    connect5(proxy, host, port).1[1]
}

/// Reads a SOCKS5 reply, and not a byte beyond it.
#[track_caller]
pub fn reply5(peer: &mut Peer) -> Vec<u8> {
    let mut reply = vec![0; 4];
    let read = |bytes: &mut [u8]| peer.socket().read_exact(bytes).expect("a reply");
    read(&mut reply);
    let rest = match reply[3] {
        1 => 6,
        4 => 18,
        other => panic!("an address of type {other}"),
    };
    reply.resize(4 + rest, 0);
    read(&mut reply[4..]);
    reply
}
