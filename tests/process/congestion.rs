//! The congestion notifications of datagrams (ECN, RFC 3168), which the network marks and both ends must see.

use std::io::{ErrorKind, IoSliceMut, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use quinn_udp::{EcnCodepoint, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Socket, Type};

use super::redirect::{SERVERS, at, redirect_by_tproxy, with_servers};
use crate::kit::{SOON, Seaprox};

const MARKS: [Option<EcnCodepoint>; 4] =
    [None, Some(EcnCodepoint::Ect0), Some(EcnCodepoint::Ect1), Some(EcnCodepoint::Ce)];

/// A socket whose datagrams have marks.
struct Marked {
    socket: UdpSocket,
    state: UdpSocketState,
}

impl Marked {
    /// Binds a socket. Another one may share its address.
    fn bind(addr: SocketAddr) -> Marked {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&addr.into()).unwrap();
        let socket = UdpSocket::from(socket);
        let state = UdpSocketState::new(UdpSockRef::from(&socket)).unwrap();
        socket.set_nonblocking(false).unwrap();
        socket.set_read_timeout(Some(SOON / 20)).unwrap();
        Marked { socket, state }
    }

    fn addr(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    fn send(&self, to: SocketAddr, contents: &[u8], ecn: Option<EcnCodepoint>) {
        let transmit = Transmit { destination: to, ecn, contents, segment_size: None, src_ip: None };
        self.state.try_send(UdpSockRef::from(&self.socket), &transmit).unwrap();
    }

    /// Receives a datagram with its sender and its mark. Returns None if none arrives soon.
    fn receive(&self) -> Option<(Vec<u8>, SocketAddr, Option<EcnCodepoint>)> {
        let (mut buf, mut meta) = ([0; 2_048], [RecvMeta::default()]);
        match self.state.recv(UdpSockRef::from(&self.socket), &mut [IoSliceMut::new(&mut buf)], &mut meta) {
            Ok(count) => assert_eq!(count, 1),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            Err(error) => panic!("recv: {error}"),
        }
        Some((buf[..meta[0].len].to_vec(), meta[0].addr, meta[0].ecn))
    }

    /// Receives the datagram that `send` sends. Sends another one when none arrives: a busy system drops datagrams on loopback, too.
    #[track_caller]
    fn receive_sent(&self, send: impl Fn(&[u8])) -> (Vec<u8>, SocketAddr, Option<EcnCodepoint>) {
        static SENT: AtomicU64 = AtomicU64::new(0);
        let deadline = Instant::now() + SOON;
        loop {
            let contents = SENT.fetch_add(1, Relaxed).to_be_bytes();
            send(&contents);
            while let Some(received) = self.receive() {
                if received.0.ends_with(&contents) {
                    return received;
                }
            }
            assert!(Instant::now() < deadline, "no datagram arrives at {}", self.addr());
        }
    }
}

/// Sends datagrams with each mark to a target through a relay, and back. `header` is in front of the client's.
#[track_caller]
fn converse(client: &Marked, relay: SocketAddr, header: &[u8], target: &Marked) {
    for mark in MARKS {
        let (asked, from, ecn) = target.receive_sent(|ask| client.send(relay, &[header, ask].concat(), mark));
        assert_eq!((asked.len(), ecn), (8, mark), "to the target {}", target.addr());
        // The socket that answers redirected clients has the address of the target, and takes no datagram of a connected one.
        target.socket.connect(from).unwrap();
        let (answered, from, ecn) = client.receive_sent(|answer| target.send(from, answer, mark));
        assert_eq!((&answered[..header.len()], answered.len()), (header, header.len() + 8));
        assert_eq!((from, ecn), (relay, mark), "from the target {}", target.addr());
    }
}

fn loopback(is_ipv6: bool) -> SocketAddr {
    at(if is_ipv6 { "::1" } else { "127.0.0.1" }, 0)
}

#[test]
fn a_relay_passes_the_congestion_notifications_of_datagrams_on() {
    // A listener with several addresses names the one that its answers leave from.
    for (listen, is_ipv6) in [("127.0.0.1:0", false), ("[::1]:0", true), ("0.0.0.0:0", false), ("[::]:0", true)] {
        let target = Marked::bind(loopback(is_ipv6));
        let to = target.addr().to_string();
        let seaprox = Seaprox::start(&["static", "--udp", "--listen", listen, "--to", &to]);
        let port = seaprox.listens(0).rsplit_once(':').unwrap().1.parse().unwrap();
        let relay = SocketAddr::new(loopback(is_ipv6).ip(), port);
        converse(&Marked::bind(loopback(is_ipv6)), relay, b"", &target);
    }
}

#[test]
fn an_association_passes_the_congestion_notifications_of_datagrams_on() {
    let seaprox = Seaprox::start(&["socks", "--listen", "127.0.0.1:0"]);
    let mut control = TcpStream::connect(seaprox.addr(0)).unwrap();
    control.set_read_timeout(Some(SOON)).unwrap();
    control.write_all(b"\x05\x01\0\x05\x03\0\x01\0\0\0\0\0\0").unwrap();
    let mut reply = [0; 12];
    control.read_exact(&mut reply).unwrap();
    assert_eq!(reply[..10], *b"\x05\0\x05\0\0\x01\x7f\0\0\x01");
    let relay = SocketAddr::from(([127, 0, 0, 1], u16::from_be_bytes([reply[10], reply[11]])));
    let client = Marked::bind(loopback(false));
    for is_ipv6 in [false, true] {
        let target = Marked::bind(loopback(is_ipv6));
        let mut header = match target.addr().ip() {
            IpAddr::V4(ip) => [&[0, 0, 0, 1], &ip.octets()[..]].concat(),
            IpAddr::V6(ip) => [&[0, 0, 0, 4], &ip.octets()[..]].concat(),
        };
        header.extend(target.addr().port().to_be_bytes());
        converse(&client, relay, &header, &target);
    }
}

#[test]
fn redirected_datagrams_keep_their_congestion_notifications() {
    with_servers(|| {
        let _seaprox = Seaprox::start(&["redirect", "--listen", "12345", "--udp", "--mark", "4660"]);
        redirect_by_tproxy("udp", 12_345);
        for addr in SERVERS {
            let (server, client) = (Marked::bind(at(addr, 82)), Marked::bind(at(addr, 0)));
            converse(&client, at(addr, 82), b"", &server);
        }
    });
}
