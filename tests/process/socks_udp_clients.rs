//! UDP ASSOCIATE as known clients ask for it (BS-24, X-13). The forms are those of redsocks (0.0.0.0:0, the reserved byte), tun2socks
//! (0.0.0.0:0, an association for each session), badvpn (the address of its own socket), hev-socks5-tunnel (all requests in one
//! segment) and clients that write an empty name or `[::]:0`.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};

use super::socks_udp::{Client, address, datagram, proxy};
use crate::kit::datagrams::echo;
use crate::kit::{SOON, until};

/// Sends these bytes at once. Returns the connection and the address that the proxy tells for datagrams.
#[track_caller]
fn associate(proxy: SocketAddr, bytes: &[u8]) -> (TcpStream, SocketAddr) {
    let mut control = TcpStream::connect(proxy).unwrap();
    control.set_read_timeout(Some(SOON)).unwrap();
    control.write_all(bytes).unwrap();
    let mut reply = [0; 12];
    control.read_exact(&mut reply).unwrap_or_else(|error| panic!("{bytes:?}: {error}"));
    assert_eq!(reply[..10], [5, 0, 5, 0, 0, 1, 127, 0, 0, 1], "{bytes:?}");
    (control, SocketAddr::from(([127, 0, 0, 1], u16::from_be_bytes([reply[10], reply[11]]))))
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

#[test]
fn associations_of_known_clients_are_granted() {
    let (proxy, to) = (proxy(&[]), echo());
    let own = socket();
    let zero = b"\x01\0\0\0\0\0\0".to_vec();
    let forms = [
        ("0.0.0.0:0", [b"\x05\x01\0\x05\x03\0", &zero[..]].concat()),
        ("several methods", [b"\x05\x03\x02\x01\0\x05\x03\0", &zero[..]].concat()),
        ("a reserved byte that is not 0", [b"\x05\x01\0\x05\x03\x07", &zero[..]].concat()),
        ("[::]:0 over IPv4", [b"\x05\x01\0\x05\x03\0\x04", &[0; 18][..]].concat()),
        ("an empty name", b"\x05\x01\0\x05\x03\0\x03\0\0\0".to_vec()),
        ("a name", b"\x05\x01\0\x05\x03\0\x03\x09localhost\0\0".to_vec()),
        ("127.0.0.1:0", b"\x05\x01\0\x05\x03\0\x01\x7f\0\0\x01\0\0".to_vec()),
        ("its own socket", [b"\x05\x01\0\x05\x03\0", &address(own.local_addr().unwrap())[..]].concat()),
    ];
    for (form, bytes) in forms {
        let (control, relay) = associate(proxy.addr(0), &bytes);
        let sent = datagram(&address(to), form.as_bytes());
        own.send_to(&sent, relay).unwrap();
        let mut buf = [0; 128];
        let (len, from) = own.recv_from(&mut buf).unwrap_or_else(|error| panic!("{form}: {error}"));
        assert_eq!((&buf[..len], from), (&sent[..], relay), "{form}");
        drop(control);
    }
    until("all have ended", || proxy.figure("/usage/associations") == 0);
}

#[test]
fn reserved_bytes_of_datagrams_are_ignored() {
    let (proxy, to) = (proxy(&[]), echo());
    let client = Client::open(proxy.addr(0));
    let mut bytes = datagram(&address(to), b"hello");
    bytes[..2].copy_from_slice(&[0xff, 7]);
    client.socket.send_to(&bytes, client.relay).unwrap();
    client.take(to, b"hello");
}

/// tun2socks opens an association for each pair of addresses of its network.
#[test]
fn each_session_of_a_client_has_an_association_of_its_own() {
    let proxy = proxy(&["--threads", "2"]);
    let targets: Vec<_> = (0..4).map(|_| echo()).collect();
    let clients: Vec<_> = (0..40).map(|_| Client::open(proxy.addr(0))).collect();
    for round in 0..3_u8 {
        for (index, client) in clients.iter().enumerate() {
            client.send(&address(targets[index % targets.len()]), &[round, index as u8]);
        }
        for (index, client) in clients.iter().enumerate() {
            client.take(targets[index % targets.len()], &[round, index as u8]);
        }
    }
    assert_eq!((proxy.figure("/usage/associations"), proxy.figure("/usage/flows")), (40, 40));
    drop(clients);
    until("all have ended", || proxy.figure("/usage/associations") == 0);
}

/// The client can tell nothing more on this connection, so its FIN is the end of the association, which is answered by a FIN.
#[test]
fn a_half_closed_connection_ends_its_association() {
    let (proxy, to) = (proxy(&[]), echo());
    let mut client = Client::open(proxy.addr(0));
    client.send(&address(to), b"hello");
    client.take(to, b"hello");
    client.control.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.control.read(&mut [0; 1]).unwrap(), 0);
    proxy.wait_for_log(&[" closed ", "conn=socks5-udp[", "reason=source_fin", "end=graceful", "datagrams=1/1"]);
    assert_eq!(proxy.figure("/usage/associations"), 0);
}

/// Bytes behind the request have no meaning; they must not end the association, nor be kept.
#[test]
fn bytes_on_the_connection_of_an_association_are_discarded() {
    let (proxy, to) = (proxy(&[]), echo());
    let mut client = Client::open(proxy.addr(0));
    for _ in 0..64 {
        client.control.write_all(&[7; 65_536]).unwrap();
    }
    client.send(&address(to), b"hello");
    client.take(to, b"hello");
}
