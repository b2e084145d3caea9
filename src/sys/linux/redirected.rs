//! Connections that netfilter redirects to this process, and the options of sockets that go with them (ip(7), socket(7)).

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6, TcpStream};
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage, recvmsg, setsockopt, sockopt,
};
use quinn_udp::EcnCodepoint;
use socket2::{SockRef, Socket};

use crate::sys::RedirectedMeta;

/// True: this system redirects connections, and tells where they were going.
pub(crate) const HAS_REDIRECT: bool = true;

/// Returns the address that a client connected to, if the system redirected it here (`SO_ORIGINAL_DST`,
/// `IP6T_SO_ORIGINAL_DST`: the destination before the NAT of netfilter).
pub(crate) fn original_dest(socket: &TcpStream) -> Option<SocketAddr> {
    let local = socket.local_addr().ok()?;
    let socket = SockRef::from(socket);
    let original =
        if local.ip().to_canonical().is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    let original = original.ok()?.as_socket()?;
    // A client that was not redirected may have its own destination here.
    let plain = |addr: SocketAddr| (addr.ip().to_canonical(), addr.port());
    (plain(original) != plain(local)).then_some(original)
}

/// Marks all packets of a socket for the rules of the system (`SO_MARK`, socket(7)). This needs `CAP_NET_ADMIN`.
pub(crate) fn set_mark(socket: SockRef<'_>, mark: u32) -> io::Result<()> {
    socket.set_mark(mark)
}

/// Lets a socket have an address that is not of this host (`IP_TRANSPARENT`, `IPV6_TRANSPARENT`): a listener accepts
/// connections to other hosts that TPROXY sends to it, and a socket that connects may be bound to the address of another
/// host. This needs `CAP_NET_ADMIN`.
pub(crate) fn set_transparent(socket: SockRef<'_>, is_ipv6: bool) -> io::Result<()> {
    // The option of IPv6 also holds for the IPv4 connections of a socket of both families.
    if is_ipv6 { socket.set_ip_transparent_v6(true) } else { socket.set_ip_transparent_v4(true) }
}

/// Makes the system choose the port of a bound address when the socket connects, so that sockets with different targets may
/// share it (`IP_BIND_ADDRESS_NO_PORT`, ip(7)).
pub(crate) fn choose_port_late(socket: &Socket) {
    let on: libc::c_int = 1;
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // The pointer and the length are those of a live integer. On failure the system chooses the port at once.
    let _ = syscall!(libc::setsockopt(
        socket.as_raw_fd(),
        libc::IPPROTO_IP,
        libc::IP_BIND_ADDRESS_NO_PORT,
        (&raw const on).cast(),
        len
    ));
}

/// Makes a UDP socket tell the address that each received datagram was sent to, which TPROXY does not change
/// (`IP_RECVORIGDSTADDR`, `IPV6_RECVORIGDSTADDR`). A socket of IPv6 may also receive datagrams of IPv4.
pub(crate) fn receive_original_dest(socket: &impl AsFd, is_ipv6: bool) -> io::Result<()> {
    if is_ipv6 {
        setsockopt(socket, sockopt::Ipv6OrigDstAddr, &true)?;
    }
    Ok(setsockopt(socket, sockopt::Ipv4OrigDstAddr, &true)?)
}

/// Receives one datagram, or several of one sender that the system has joined, with the address that they were sent to.
/// `control` is room for the control messages, of [`CONTROL_BYTES`].
///
/// The control messages are parsed by nix here, and by quinn-udp for all other sockets: none are parsed by hand.
///
/// quinn-udp receives several at once, but does not tell that address. The headers of nix's `recvmmsg` serve one call: they keep
/// the lengths that the system has written, so each call would allocate them anew.
pub(crate) fn receive_redirected(
    socket: &impl AsFd,
    buffer: &mut [u8],
    control: &mut [u8],
) -> io::Result<RedirectedMeta> {
    let mut slices = [IoSliceMut::new(buffer)];
    let fd = socket.as_fd().as_raw_fd();
    let message = recvmsg::<SockaddrStorage>(fd, &mut slices, Some(control), MsgFlags::MSG_DONTWAIT)?;
    let source = message.address.as_ref().and_then(addr_of).ok_or(io::ErrorKind::InvalidData)?;
    let mut meta = RedirectedMeta { source, original: None, ecn: None, len: message.bytes, segment: message.bytes };
    for control in message.cmsgs()? {
        match control {
            ControlMessageOwned::Ipv4OrigDstAddr(addr) => {
                meta.original = Some(SocketAddrV4::from(SockaddrIn::from(addr)).into());
            }
            ControlMessageOwned::Ipv6OrigDstAddr(addr) => {
                meta.original = Some(SocketAddrV6::from(SockaddrIn6::from(addr)).into());
            }
            ControlMessageOwned::UdpGroSegments(bytes) => meta.segment = usize::try_from(bytes).unwrap_or(meta.len),
            ControlMessageOwned::Ipv4Tos(class) => meta.ecn = EcnCodepoint::from_bits(class),
            ControlMessageOwned::Ipv6TClass(class) => meta.ecn = EcnCodepoint::from_bits(class as u8),
            _ => {}
        }
    }
    Ok(meta)
}

fn addr_of(addr: &SockaddrStorage) -> Option<SocketAddr> {
    let ipv4 = addr.as_sockaddr_in().map(|addr| SocketAddr::V4((*addr).into()));
    ipv4.or_else(|| addr.as_sockaddr_in6().map(|addr| SocketAddr::V6((*addr).into())))
}

/// Bytes of the control messages of a received datagram: two addresses, the local address of each family, the class of each
/// family, the size of joined datagrams and a time stamp take 250.
pub(crate) const CONTROL_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use quinn_udp::{Transmit, UdpSockRef, UdpSocketState};
    use std::net::UdpSocket;
    use std::time::Duration;

    #[test]
    fn a_socket_of_both_families_tells_the_address_that_a_datagram_was_sent_to() {
        let socket = UdpSocket::bind("[::]:0").unwrap();
        receive_original_dest(&socket, true).unwrap();
        let port = socket.local_addr().unwrap().port();
        for (to, shown) in [("127.0.0.7", "127.0.0.7"), ("::1", "::1")] {
            let any = if to.contains(':') { "[::1]:0" } else { "127.0.0.1:0" };
            let client = UdpSocket::bind(any).unwrap();
            let (to, shown) =
                (SocketAddr::new(to.parse().unwrap(), port), SocketAddr::new(shown.parse().unwrap(), port));
            client.send_to(b"ask", to).unwrap();
            let (mut buffer, mut control) = ([0; 16], [0; CONTROL_BYTES]);
            let deadline = std::time::Instant::now() + Duration::from_secs(20);
            let meta = loop {
                match receive_redirected(&socket, &mut buffer, &mut control) {
                    Ok(meta) => break meta,
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                }
                assert!(std::time::Instant::now() < deadline);
            };
            assert_eq!((meta.original, meta.len, &buffer[..3]), (Some(shown), 3, &b"ask"[..]));
            let source = client.local_addr().unwrap();
            assert_eq!((meta.source.ip().to_canonical(), meta.source.port()), (source.ip(), source.port()));
        }
    }

    /// A receiver, a sender and the control messages between them.
    #[derive(Clone, Debug)]
    struct Case {
        receiver: &'static str,
        sender: &'static str,
        /// The receiver joins datagrams, and is told the class and the local address of each.
        is_joined: bool,
        is_redirected: bool,
        mark: Option<EcnCodepoint>,
        /// The size of each datagram; the last one may be shorter.
        segment: usize,
        bytes: usize,
        control: usize,
    }

    fn cases() -> impl Strategy<Value = Case> {
        let sockets = prop_oneof![
            Just(("127.0.0.1:0", "127.0.0.1:0")),
            Just(("0.0.0.0:0", "127.0.0.1:0")),
            Just(("[::1]:0", "[::1]:0")),
            Just(("[::]:0", "[::1]:0")),
            Just(("[::]:0", "127.0.0.1:0")),
        ];
        let control = prop_oneof![Just(CONTROL_BYTES), 0..260_usize];
        let options = (any::<bool>(), any::<bool>(), 0..4_u8, control);
        (sockets, options, 1..1_200_usize, 1..6_usize, 0..1_200_usize).prop_map(
            |((receiver, sender), (is_joined, is_redirected, mark, control), segment, count, short)| Case {
                receiver,
                sender,
                is_joined,
                is_redirected,
                mark: EcnCodepoint::from_bits(mark),
                segment,
                bytes: segment * count - short % segment,
                control,
            },
        )
    }

    /// Receives what the case sends. Returns the bytes, or none if the control messages had no room.
    fn received(case: &Case) -> Option<Vec<u8>> {
        let (receiver, sender) = (UdpSocket::bind(case.receiver).unwrap(), UdpSocket::bind(case.sender).unwrap());
        let is_ipv6 = case.receiver.contains('[');
        if case.is_joined {
            UdpSocketState::new(UdpSockRef::from(&receiver)).unwrap();
        }
        if case.is_redirected {
            receive_original_dest(&receiver, is_ipv6).unwrap();
        }
        let source = sender.local_addr().unwrap();
        let dest = SocketAddr::new(source.ip(), receiver.local_addr().unwrap().port());
        let contents: Vec<u8> = (0..case.bytes).map(|at| (at % 251) as u8).collect();
        let transmit = Transmit {
            destination: dest,
            ecn: case.mark,
            contents: &contents,
            segment_size: Some(case.segment),
            src_ip: None,
        };
        let state = UdpSocketState::new(UdpSockRef::from(&sender)).unwrap();
        state.try_send(UdpSockRef::from(&sender), &transmit).unwrap();
        let (mut buffer, mut control) = (vec![0; 65_536], vec![0; case.control]);
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        let mut got = Vec::new();
        while got.len() < case.bytes {
            assert!(std::time::Instant::now() < deadline, "{case:?}");
            let meta = match receive_redirected(&receiver, &mut buffer, &mut control) {
                Ok(meta) => meta,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => {
                    assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS), "{case:?}");
                    assert!(case.control < 250, "{case:?}");
                    return None;
                }
            };
            let plain = |addr: SocketAddr| SocketAddr::new(addr.ip().to_canonical(), addr.port());
            assert_eq!(plain(meta.source), source, "{case:?}");
            assert_eq!(meta.original.map(plain), case.is_redirected.then_some(dest), "{case:?}");
            assert_eq!(meta.ecn, case.mark.filter(|_| case.is_joined), "{case:?}");
            let is_one = meta.len <= meta.segment;
            assert!(meta.segment == case.segment || is_one && meta.len <= case.segment, "{case:?} {meta:?}");
            got.extend(&buffer[..meta.len]);
        }
        assert!(got == contents, "{case:?}");
        Some(got)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

        #[test]
        fn control_messages_tell_the_truth_or_have_no_room(case in cases()) {
            let result = received(&case);
            prop_assert!(result.is_some() || case.control < 250);
        }
    }
}
