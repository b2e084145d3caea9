//! Bound addresses: the sockets that listeners take.
//!
//! [`bind`] opens the sockets before any loop runs, so that a port in use is reported at once. Each loop then listens on
//! its own socket, and the system distributes the clients over them. For Unix sockets, for sockets that the service manager
//! has passed, and on other systems than Linux, the first loop that listens accepts, and hands clients over to the others in
//! turn.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mio::{Interest, Registry, Token};
use socket2::{Domain, SockRef, Socket, TcpKeepalive};

use crate::datagrams::socket::DatagramSocket;
use crate::engine::datagrams::listen::bind_datagrams;
use crate::engine::limits::Config;
use crate::engine::mailbox::Remote;
use crate::relay::io::Io;
use crate::sys::{self, OwnedSocket, PassedSocket, SocketFile, StreamProtocol, UnixAcceptor};
use crate::types::address::{Bind, Endpoint, at_port};
use crate::types::id::Id;
use crate::types::proto::Proto;

/// The listening sockets of all loops on one address.
#[derive(Debug)]
pub struct Bound {
    addr: Endpoint,
    sockets: Vec<Acceptor>,
    loops: usize,
    /// True if the sockets were passed to this process: one for all loops.
    is_passed: bool,
    /// The address of another protocol that belongs to this one, if it could not be bound.
    pub(crate) unbound: Option<Box<Unbound>>,
    pub(crate) members: Arc<Members>,
}

/// An address that could not be bound.
#[derive(Debug)]
pub(crate) struct Unbound {
    pub place: Bind,
    pub error: io::Error,
}

/// The loops that listen on one address.
#[derive(Debug, Default)]
pub(crate) struct Members(Mutex<MemberList>);

#[derive(Default)]
struct MemberList {
    /// Each loop with its listener, if the loops get clients in turn. The system distributes them otherwise.
    loops: Vec<(Remote, Id)>,
    /// The file of a Unix socket. It goes with the last loop that listens, or with the last owner.
    file: Option<SocketFile>,
    /// The hold on a socket that was passed to this process. It goes like the file.
    passed: Option<PassedSocket>,
}

/// A listening socket, with the options that accepted sockets inherit from it.
#[derive(Debug)]
pub(crate) struct Acceptor {
    socket: AcceptorSocket,
    inherited: Inherited,
    /// The protocol has the options of TCP.
    has_tcp_options: bool,
}

/// The options that accepted sockets inherit, which saves two system calls for each client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Inherited {
    pub nodelay: bool,
    /// The idle time before the first TCP keepalive probe; zero switches keepalive off.
    pub tcp_keepalive: Duration,
}

#[derive(Debug)]
enum AcceptorSocket {
    /// A socket of datagrams, which a listener takes for itself.
    Udp(Box<DatagramSocket>),
    Tcp(mio::net::TcpListener),
    Unix(UnixAcceptor),
}

/// Opens the listening sockets of one place for `loops` loops. Returns one [`Bound`] for each address of the place.
///
/// A Unix socket file of this user without a listener is replaced ([`SocketFile`]).
///
/// # Errors
/// The system's error for the first address that cannot be bound. If the place has addresses of both families, a family that
/// this host lacks is left out.
pub fn bind(place: &Bind, loops: usize, config: &Config) -> io::Result<Vec<Bound>> {
    bind_place(place, loops, config, StreamProtocol::Tcp)
}

/// Opens the listening sockets of one place as [`bind`] does, with stream sockets of a protocol.
///
/// # Errors
/// As for [`bind`], or the place is a UDP address.
pub(crate) fn bind_stream(
    place: &Bind,
    loops: usize,
    config: &Config,
    protocol: StreamProtocol,
) -> io::Result<Vec<Bound>> {
    place.proto().require_tcp()?;
    bind_place(place, loops, config, protocol)
}

fn bind_place(place: &Bind, loops: usize, config: &Config, protocol: StreamProtocol) -> io::Result<Vec<Bound>> {
    let sockets = Sockets { loops, protocol, proto: place.proto() };
    match place {
        Bind::Ip(_, addr) => Ok(vec![bind_tcp(&[*addr], true, sockets, config)?]),
        Bind::Unix(path) => Ok(vec![bind_unix(path, loops, config)?]),
        Bind::Descriptor(proto, name) => adopt(name.as_str(), *proto, loops, config),
        Bind::Any(_, port) => match bind_tcp(&[(Ipv6Addr::UNSPECIFIED, *port).into()], false, sockets, config) {
            Err(error) if sys::lacks_family(&error) => {
                Ok(vec![bind_tcp(&[(Ipv4Addr::UNSPECIFIED, *port).into()], true, sockets, config)?])
            }
            bound => Ok(vec![bound?]),
        },
        Bind::Loopback(_, port) => {
            let both = [(Ipv4Addr::LOCALHOST, *port).into(), (Ipv6Addr::LOCALHOST, *port).into()];
            bind_each(&both, sockets, config)
        }
        Bind::Name(_, name, port) => {
            let addresses: Vec<SocketAddr> = (name.as_str(), *port).to_socket_addrs()?.collect();
            bind_each(&addresses, sockets, config)
        }
    }
}

/// The sockets of an address: their number, if the system distributes clients over them, and their protocols.
#[derive(Clone, Copy)]
struct Sockets {
    loops: usize,
    protocol: StreamProtocol,
    proto: Proto,
}

/// Addresses that could not be bound, each with its error.
type Lacking = Vec<(SocketAddr, io::Error)>;

/// Opens the free addresses of a place with addresses of both families, after [`bind`] has found one in use.
/// Also returns the addresses that could not be bound, each with its error.
///
/// # Errors
/// The system's error if no address can be bound.
pub(crate) fn bind_some(place: &Bind, config: &Config) -> io::Result<(Vec<Bound>, Lacking)> {
    let both: [IpAddr; 2] = match place {
        Bind::Any(..) => [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
        Bind::Loopback(..) => [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        Bind::Ip(..) | Bind::Name(..) | Bind::Unix(_) | Bind::Descriptor(..) => {
            return bind(place, 1, config).map(|bounds| (bounds, Vec::new()));
        }
    };
    let (mut bounds, mut lacking): (Vec<Bound>, Lacking) = (Vec::new(), Vec::new());
    for ip in both {
        let chosen = bounds.first().and_then(|bound| bound.addr.ip()).map(|first| first.port());
        let addr = SocketAddr::new(ip, chosen.or(place.port()).unwrap_or(0));
        let sockets = Sockets { loops: 1, protocol: StreamProtocol::Tcp, proto: place.proto() };
        match bind_tcp(&[addr], true, sockets, config) {
            Ok(bound) => bounds.push(bound),
            Err(error) => lacking.push((addr, error)),
        }
    }
    if bounds.is_empty() {
        let in_use = lacking.iter().position(|(_, error)| error.kind() == io::ErrorKind::AddrInUse).unwrap_or(0);
        let (addr, error) = lacking.swap_remove(in_use);
        return Err(io::Error::new(error.kind(), format!("{addr}: {error}")));
    }
    lacking.retain(|(_, error)| !sys::lacks_family(error));
    Ok((bounds, lacking))
}

/// Binds all addresses of a place to one port, also if the system chooses it. Addresses that one socket can have are one
/// [`Bound`].
fn bind_each(addresses: &[SocketAddr], sockets: Sockets, config: &Config) -> io::Result<Vec<Bound>> {
    let mut tries = PORT_TRIES;
    'again: loop {
        let mut bounds: Vec<Bound> = Vec::new();
        let mut lacking = None;
        for group in groups(addresses, sockets.protocol) {
            let Some(addr) = group.first() else { continue };
            let chosen = bounds.first().and_then(|bound| bound.addr.ip()).map_or(addr.port(), |first| first.port());
            let group: Vec<SocketAddr> = group.iter().map(|addr| at_port(*addr, chosen)).collect();
            match bind_tcp(&group, true, sockets, config) {
                Ok(bound) if bounds.iter().all(|other| other.addr != bound.addr) => bounds.push(bound),
                Ok(_) => {}
                Err(error) if sys::lacks_family(&error) => lacking = Some(error),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && addr.port() == 0 && tries > 0 => {
                    tries -= 1;
                    continue 'again;
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && bounds.iter().any(|b| b.is_at(addr)) => {}
                Err(error) => return Err(io::Error::new(error.kind(), format!("{addr}: {error}"))),
            }
        }
        return match lacking {
            Some(error) if bounds.is_empty() => Err(error),
            _ => Ok(bounds),
        };
    }
}

/// Divides addresses by the sockets that they get: those of one family share a socket of SCTP.
fn groups(addresses: &[SocketAddr], protocol: StreamProtocol) -> Vec<Vec<SocketAddr>> {
    if protocol != StreamProtocol::Sctp {
        return addresses.iter().map(|addr| vec![*addr]).collect();
    }
    let mut unique: Vec<SocketAddr> = Vec::new();
    addresses.iter().for_each(|addr| {
        if !unique.contains(addr) {
            unique.push(*addr)
        }
    });
    let (v4, v6): (Vec<_>, Vec<_>) = unique.into_iter().partition(SocketAddr::is_ipv4);
    [v4, v6].into_iter().filter(|group| !group.is_empty()).collect()
}

/// Binds an address, with the further addresses of the same socket behind it.
fn bind_tcp(addresses: &[SocketAddr], only_ipv6: bool, sockets: Sockets, config: &Config) -> io::Result<Bound> {
    let Sockets { loops, protocol, proto } = sockets;
    let (addr, more) = addresses.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let addr = *addr;
    if proto == Proto::Udp {
        return bind_udp(addr, only_ipv6, loops);
    }
    let spread = loops > 1 && sys::REUSE_PORT_BALANCES;
    if spread && addr.port() != 0 {
        // A port that another process shares with SO_REUSEPORT must be refused. A bind without the option finds out.
        open_tcp(addr, only_ipv6, false, protocol)?;
    }
    let first = open_tcp(addr, only_ipv6, spread, protocol)?;
    let addr = first.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
    if !more.is_empty() {
        sys::sctp_bind_more(&first, &more.iter().map(|more| at_port(*more, addr.port())).collect::<Vec<_>>())?;
    }
    let mut sockets = vec![first];
    while spread && sockets.len() < loops {
        sockets.push(open_tcp(addr, only_ipv6, true, protocol)?);
    }
    let has_tcp_options = protocol != StreamProtocol::Sctp;
    let inherited = match has_tcp_options {
        true => Inherited { nodelay: config.nodelay, tcp_keepalive: config.tcp_keepalive },
        false => Inherited::OF_SYSTEM,
    };
    let mut acceptors = Vec::with_capacity(sockets.len());
    for socket in sockets {
        inherited.set(SockRef::from(&socket), Inherited::OF_SYSTEM)?;
        socket.listen(config.limits.backlog.min(i32::MAX as u32) as i32)?;
        let socket = AcceptorSocket::Tcp(mio::net::TcpListener::from_std(socket.into()));
        acceptors.push(Acceptor { socket, inherited, has_tcp_options });
    }
    Ok(Bound { addr: addr.into(), sockets: acceptors, loops, is_passed: false, unbound: None, members: Arc::default() })
}

fn bind_udp(addr: SocketAddr, only_ipv6: bool, loops: usize) -> io::Result<Bound> {
    let (addr, sockets) = bind_datagrams(addr, only_ipv6, loops)?;
    let acceptor = |socket| Acceptor::without_options(AcceptorSocket::Udp(Box::new(socket)));
    let sockets = sockets.into_iter().map(acceptor).collect();
    Ok(Bound {
        addr: Endpoint::Ip(Proto::Udp, addr),
        sockets,
        loops,
        is_passed: false,
        unbound: None,
        members: Arc::default(),
    })
}

fn open_tcp(addr: SocketAddr, only_ipv6: bool, shared: bool, protocol: StreamProtocol) -> io::Result<Socket> {
    let socket = sys::stream_socket(Domain::for_address(addr), protocol)?;
    // Permits a bind while connections of an earlier process are in TIME_WAIT; a port with a listener stays refused.
    sys::reuse_address(&socket)?;
    if shared {
        sys::share_port(&socket)?;
    }
    if addr.is_ipv6() {
        socket.set_only_v6(only_ipv6)?;
    }
    socket.bind(&addr.into())?;
    Ok(socket)
}

fn bind_unix(path: &Path, loops: usize, config: &Config) -> io::Result<Bound> {
    let (listener, file) =
        SocketFile::bind_owned(path, config.limits.backlog, config.unix_mode, config.unix_owner.as_ref())?;
    let socket = AcceptorSocket::Unix(UnixAcceptor::from_std(listener));
    let members = Members(Mutex::new(MemberList { file: Some(file), ..MemberList::default() }));
    let sockets = vec![Acceptor::without_options(socket)];
    Ok(Bound {
        addr: Endpoint::Unix(path.into()),
        sockets,
        loops,
        is_passed: false,
        unbound: None,
        members: Arc::new(members),
    })
}

/// Takes the sockets with a name that the service manager has passed.
fn adopt(name: &str, proto: Proto, loops: usize, config: &Config) -> io::Result<Vec<Bound>> {
    let adopt_one = |(socket, passed): (OwnedSocket, PassedSocket)| {
        let socket = Socket::from(socket);
        let local = socket.local_addr()?;
        let mut inherited = Inherited::OF_SYSTEM;
        let (addr, socket) = match local.as_socket() {
            Some(addr) if proto == Proto::Udp => {
                let socket = DatagramSocket::listening(socket)?;
                (Endpoint::Ip(proto, addr), AcceptorSocket::Udp(Box::new(socket)))
            }
            Some(addr) => {
                inherited = Inherited { nodelay: config.nodelay, tcp_keepalive: config.tcp_keepalive };
                inherited.set_all(SockRef::from(&socket))?;
                (addr.into(), AcceptorSocket::Tcp(mio::net::TcpListener::from_std(socket.into())))
            }
            None => {
                let (listener, path) = sys::unix_listener(socket)?;
                (Endpoint::Unix(path.into()), AcceptorSocket::Unix(UnixAcceptor::from_std(listener)))
            }
        };
        let members = Members(Mutex::new(MemberList { passed: Some(passed), ..MemberList::default() }));
        let sockets = vec![Acceptor { socket, inherited, has_tcp_options: true }];
        Ok(Bound { addr, sockets, loops, is_passed: true, unbound: None, members: Arc::new(members) })
    };
    sys::take_passed(name, proto)?.into_iter().map(adopt_one).collect()
}

impl Bound {
    /// Returns the bound address, with the port that the system has chosen.
    pub fn addr(&self) -> &Endpoint {
        &self.addr
    }

    /// Returns the number of loops that it was bound for.
    pub(crate) fn loops(&self) -> usize {
        self.loops
    }

    /// Returns true if the loops get clients in turn, because the system does not distribute them.
    pub(crate) fn hands_over(&self) -> bool {
        self.loops > 1 && !(sys::REUSE_PORT_BALANCES && matches!(self.addr, Endpoint::Ip(..)) && !self.is_passed)
    }

    /// Returns the protocol.
    pub(crate) fn proto(&self) -> Proto {
        self.addr.proto()
    }

    fn is_at(&self, addr: &SocketAddr) -> bool {
        self.addr.ip().is_some_and(|mine| mine.ip() == addr.ip())
    }

    /// Returns true if another loop can listen: there is a socket left, or clients are handed over to it.
    pub(crate) fn has_room(&self) -> bool {
        !self.sockets.is_empty() || self.hands_over()
    }

    /// Returns the socket of the next loop. A loop without a socket gets its clients from another loop.
    pub(crate) fn acceptor(&mut self) -> Option<&mut Acceptor> {
        self.sockets.first_mut()
    }

    /// Removes and returns the socket of the next loop.
    pub(crate) fn take(&mut self) -> Option<Acceptor> {
        if self.sockets.is_empty() { None } else { Some(self.sockets.remove(0)) }
    }
}

impl Members {
    /// Adds a loop that listens.
    pub fn join(&self, remote: Remote, listener: Id) {
        self.lock().loops.push((remote, listener));
    }

    /// Removes a loop. The file of a Unix socket goes with the last one.
    pub fn leave(&self, remote: &Remote, listener: Id) {
        let mut members = self.lock();
        members.loops.retain(|member| member.1 != listener || !member.0.is_same(remote));
        if members.loops.is_empty() {
            (members.file, members.passed) = (None, None);
        }
    }

    /// Returns the loop whose turn it is, with its listener.
    pub fn at_turn(&self, turn: usize) -> Option<(Remote, Id)> {
        let members = self.lock();
        members.loops.get(turn % members.loops.len().max(1)).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, MemberList> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Acceptor {
    fn without_options(socket: AcceptorSocket) -> Acceptor {
        Acceptor { socket, inherited: Inherited::OF_SYSTEM, has_tcp_options: false }
    }

    /// Returns the socket of datagrams, if it is one.
    pub fn into_datagrams(self) -> Result<DatagramSocket, Acceptor> {
        match self.socket {
            AcceptorSocket::Udp(socket) => Ok(*socket),
            _ => Err(self),
        }
    }

    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match &mut self.socket {
            AcceptorSocket::Udp(socket) => socket.register(registry, token),
            AcceptorSocket::Tcp(socket) => registry.register(socket, token, Interest::READABLE),
            AcceptorSocket::Unix(socket) => registry.register(socket, token, Interest::READABLE),
        }
    }

    /// Ends the events of the socket. The close of a socket that was passed to this process does not end them, because the
    /// process keeps the original.
    pub fn deregister(&mut self, registry: &Registry) {
        // An error means that the socket is not registered.
        let _ = match &mut self.socket {
            AcceptorSocket::Udp(socket) => {
                socket.deregister(registry);
                Ok(())
            }
            AcceptorSocket::Tcp(socket) => registry.deregister(socket),
            AcceptorSocket::Unix(socket) => registry.deregister(socket),
        };
    }

    pub fn accept(&self) -> io::Result<(Io, Endpoint)> {
        match &self.socket {
            AcceptorSocket::Udp(_) => Err(io::ErrorKind::WouldBlock.into()),
            AcceptorSocket::Tcp(socket) => {
                let (stream, peer) = socket.accept()?;
                Ok((Io::Tcp(stream.into()), peer.into()))
            }
            AcceptorSocket::Unix(socket) => {
                let (stream, _) = socket.accept()?;
                Ok((Io::Unix(stream.into()), Endpoint::Unix(Path::new("").into())))
            }
        }
    }

    /// Sets the number of clients that may wait to be accepted.
    pub fn set_backlog(&self, backlog: u32) -> io::Result<()> {
        let backlog = backlog.min(i32::MAX as u32) as i32;
        match &self.socket {
            AcceptorSocket::Udp(_) => Ok(()),
            AcceptorSocket::Tcp(socket) => SockRef::from(socket).listen(backlog),
            #[cfg(unix)]
            AcceptorSocket::Unix(socket) => SockRef::from(socket).listen(backlog),
            #[cfg(not(unix))]
            AcceptorSocket::Unix(_) => Ok(()),
        }
    }

    /// Lets TPROXY send connections to other hosts to the socket; a Unix socket gets none.
    pub fn set_transparent(&self) -> io::Result<()> {
        match &self.socket {
            AcceptorSocket::Udp(_) => Ok(()),
            AcceptorSocket::Tcp(socket) => sys::set_transparent(SockRef::from(socket), socket.local_addr()?.is_ipv6()),
            AcceptorSocket::Unix(_) => Ok(()),
        }
    }

    /// Prefers this socket, among those of other loops at its address, for clients whose packets arrive at a processor.
    pub fn prefer_cpu(&self, cpu: usize) -> io::Result<()> {
        match &self.socket {
            AcceptorSocket::Udp(socket) => socket.prefer_cpu(cpu),
            AcceptorSocket::Tcp(socket) => sys::prefer_cpu(SockRef::from(socket), cpu),
            AcceptorSocket::Unix(_) => Ok(()),
        }
    }

    /// Sets the options that sockets accepted from now on inherit.
    pub fn inherit(&mut self, inherited: Inherited) -> io::Result<()> {
        if let AcceptorSocket::Tcp(socket) = &self.socket
            && self.has_tcp_options
        {
            inherited.set(SockRef::from(socket), self.inherited)?;
        }
        self.inherited = inherited;
        Ok(())
    }
}

impl Inherited {
    /// The options of a new socket.
    const OF_SYSTEM: Inherited = Inherited { nodelay: false, tcp_keepalive: Duration::ZERO };

    /// Sets all options, also where an earlier listener had the socket.
    fn set_all(self, socket: SockRef<'_>) -> io::Result<()> {
        socket.set_tcp_nodelay(self.nodelay)?;
        match self.tcp_keepalive {
            Duration::ZERO => socket.set_keepalive(false),
            idle => socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle)),
        }
    }

    /// Sets the options that differ from the present ones.
    fn set(self, socket: SockRef<'_>, present: Inherited) -> io::Result<()> {
        if self.nodelay != present.nodelay {
            socket.set_tcp_nodelay(self.nodelay)?;
        }
        match self.tcp_keepalive {
            idle if idle == present.tcp_keepalive => Ok(()),
            Duration::ZERO => socket.set_keepalive(false),
            idle => socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(idle)),
        }
    }
}

impl std::fmt::Debug for MemberList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} loops, {:?}, {:?}", self.loops.len(), self.file, self.passed)
    }
}

/// Attempts to find a port that is free in both families, if the system chooses the port.
const PORT_TRIES: u32 = 20;

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn accepted_sockets_inherit_the_options_that_the_listener_has_now() {
        let place = Bind::parse("127.0.0.1:0").unwrap();
        let mut bound = bind(&place, 1, &Config::default()).unwrap().remove(0);
        let addr = bound.addr().ip().unwrap();
        let of_next = |acceptor: &Acceptor| {
            let _client = std::net::TcpStream::connect(addr).unwrap();
            let Ok((Io::Tcp(socket), _)) = acceptor.accept() else { panic!("a client waits") };
            let socket = SockRef::from(&socket);
            let idle = socket.keepalive().unwrap().then(|| socket.tcp_keepalive_time().unwrap());
            (socket.tcp_nodelay().unwrap(), idle)
        };
        let acceptor = bound.acceptor().unwrap();
        assert_eq!(of_next(acceptor), (true, Some(Duration::from_secs(60))));
        acceptor.inherit(Inherited { nodelay: false, tcp_keepalive: Duration::ZERO }).unwrap();
        assert_eq!(of_next(acceptor), (false, None));
        acceptor.inherit(Inherited { nodelay: true, tcp_keepalive: Duration::from_secs(7) }).unwrap();
        assert_eq!(of_next(acceptor), (true, Some(Duration::from_secs(7))));
    }
}
