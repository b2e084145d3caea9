//! Connections that netfilter redirects to this process, and the options of sockets that go with them (ip(7), socket(7)).

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;

use socket2::{SockRef, Socket};

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
