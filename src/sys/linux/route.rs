//! Routes and interfaces (rtnetlink(7)): their changes, and a way around an interface that is cut.
//!
//! An interface without carrier, such as one whose cable was pulled, keeps its addresses and routes, which are marked
//! `linkdown`, and packets vanish there. The system passes them over only with the sysctl `ignore_routes_with_linkdown`. This
//! file makes the same choice for single sockets: the next best route of the same table. It leaves no interface that works, no
//! tunnel, which may be a VPN that has ended, and no interface or address that was named. The kernel answers a question at once, in
//! the call that asks it.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::{int_option, set_int_option};
use crate::sys::NetworkChange;

/// Returns a socket that becomes readable when an address, a route or an interface of this machine changes.
pub(crate) fn network_changes() -> io::Result<OwnedFd> {
    let socket = netlink(Type::RAW)?;
    let groups = libc::RTMGRP_LINK
        | libc::RTMGRP_IPV4_IFADDR
        | libc::RTMGRP_IPV6_IFADDR
        | libc::RTMGRP_IPV4_ROUTE
        | libc::RTMGRP_IPV6_ROUTE;
    // SAFETY: the storage is zeroed and larger than the address, all of whose fields are valid for any bits.
    let ((), addr) = unsafe {
        SockAddr::try_init(|storage, len| {
            let addr: *mut libc::sockaddr_nl = storage.cast();
            (*addr).nl_family = libc::AF_NETLINK as libc::sa_family_t;
            (*addr).nl_groups = groups as u32;
            *len = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
            Ok(())
        })
    }?;
    socket.bind(&addr)?;
    Ok(socket.into())
}

/// Returns the interfaces by their numbers, each with true if it runs.
pub(crate) fn running_interfaces() -> HashMap<u32, bool> {
    let all = Kernel::new(SocketAddr::from(([0; 4], 0)), 0, 0).and_then(|mut kernel| kernel.interfaces());
    all.unwrap_or_default().into_iter().map(|interface| (interface.index, interface.runs)).collect()
}

/// Returns what a message reports. An interface has many messages: a change is the first one of a new one, the last one, and
/// a change between running and not running, which `interfaces` remembers.
pub(crate) fn network_change(message: &[u8], interfaces: &mut HashMap<u32, bool>) -> NetworkChange {
    let (Some(kind), Some(index)) = (kind_of(message), word(message, BODY + 4)) else { return NetworkChange::Usual };
    match kind {
        RTM_DELLINK => {
            interfaces.remove(&index);
            NetworkChange::Usual
        }
        RTM_NEWLINK => {
            let runs = word(message, BODY + 8).is_some_and(runs);
            match interfaces.insert(index, runs) {
                Some(true) if !runs => NetworkChange::Cut,
                before if before == Some(runs) => NetworkChange::None,
                _ => NetworkChange::Usual,
            }
        }
        _ => NetworkChange::Usual,
    }
}

/// Leads the packets of a socket that is not connected around an interface without carrier. A socket of datagrams is led back when
/// that way has none, or when the routes lead to a tunnel or by another table now, as behind the start of a VPN; and not before, so
/// that nothing moves without need. Does nothing if the socket is bound to an interface or an
/// address, or if there is no other way.
///
/// # Errors
/// The system does not tell its routes, or refuses to bind the socket.
pub(crate) fn avoid_cut_interface(socket: SockRef<'_>, to: SocketAddr) -> io::Result<()> {
    let local = socket.local_addr()?.as_socket();
    if socket.device()?.is_some() || local.is_some_and(|local| !local.ip().is_unspecified()) {
        return Ok(());
    }
    let is_stream = socket.r#type()? == Type::STREAM;
    let proto = if is_stream { libc::IPPROTO_TCP } else { libc::IPPROTO_UDP };
    let mut kernel = Kernel::new(to, socket.mark()?, proto)?;
    if is_stream {
        let Some(detour) = kernel.detour() else { return Ok(()) };
        return match socket.bind_device(Some(&detour.name)) {
            // Before Linux 5.7 a process needs `CAP_NET_RAW` for it. A source leads there if a rule for it does.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => match kernel.source(Some(detour.index)) {
                Some(source) => socket.bind(&SocketAddr::new(source, 0).into()),
                None => Err(error),
            },
            result => result,
        };
    }
    let (level, option) = match to {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, IP_UNICAST_IF),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, IPV6_UNICAST_IF),
    };
    let now = u32::from_be(int_option(&*socket, level, option)?.cast_unsigned());
    if now != 0 && kernel.route(Some(now)).is_some_and(|route| !route.is_cut_at(now) && !kernel.overrules(&route)) {
        return Ok(());
    }
    let wanted = kernel.detour().map_or(0, |detour| detour.index);
    if wanted == now {
        return Ok(());
    }
    set_int_option(&*socket, level, option, wanted.to_be().cast_signed())
}

/// Returns true if a new connection of TCP with this mark would not leave from an address whose interface has no carrier: the system
/// would choose another address, or a dial would be led around the cut.
pub(crate) fn has_other_way(to: SocketAddr, local: IpAddr, mark: u32) -> bool {
    let Ok(mut kernel) = Kernel::new(to, mark, libc::IPPROTO_TCP) else { return false };
    match kernel.route(None) {
        Some(best) if best.is_cut() => kernel.detour().is_some(),
        Some(_) => kernel.source(None).is_some_and(|source| source != local),
        None => false,
    }
}

/// Returns true if a socket of TCP was led around a cut, and the routes lead to a tunnel or by another table now.
pub(crate) fn is_overruled(socket: SockRef<'_>, to: SocketAddr, mark: u32) -> bool {
    let Ok(Some(name)) = socket.device() else { return false };
    let Ok(mut kernel) = Kernel::new(to, mark, libc::IPPROTO_TCP) else { return false };
    let interfaces = kernel.interfaces().unwrap_or_default();
    let interface = interfaces.iter().find(|interface| interface.name == name);
    let route = interface.and_then(|interface| kernel.route(Some(interface.index)));
    route.is_some_and(|route| kernel.overrules(&route))
}

/// A question to the kernel about the way to one address.
struct Kernel {
    socket: Socket,
    to: SocketAddr,
    mark: u32,
    proto: libc::c_int,
}

/// A route, as the kernel has it in a table.
#[derive(Debug, PartialEq, Eq)]
struct Route {
    table: u32,
    prefix: u8,
    metric: u32,
    /// The interfaces that it leads to, each with true if it has no carrier.
    hops: Vec<(u32, bool)>,
}

/// An interface.
#[derive(Debug, PartialEq, Eq)]
struct Interface {
    index: u32,
    name: Vec<u8>,
    runs: bool,
    is_tunnel: bool,
}

impl Route {
    /// Returns true if an interface that it leads to has no carrier.
    fn is_cut(&self) -> bool {
        self.hops.iter().any(|(_, is_cut)| *is_cut)
    }

    /// Returns true if it does not lead to an interface, or that has no carrier.
    fn is_cut_at(&self, index: u32) -> bool {
        !self.hops.contains(&(index, false))
    }
}

impl Kernel {
    fn new(to: SocketAddr, mark: u32, proto: libc::c_int) -> io::Result<Kernel> {
        Ok(Kernel { socket: netlink(Type::RAW.nonblocking())?, to, mark, proto })
    }

    /// Returns the interface to which the next best route leads, if the best one leads to an interface without carrier.
    fn detour(&mut self) -> Option<Interface> {
        let best = self.route(None).filter(Route::is_cut)?;
        let interfaces = self.interfaces().ok()?;
        let is_tunnel = |index: &u32| interfaces.iter().any(|it| it.index == *index && it.is_tunnel);
        if best.hops.iter().any(|(index, is_cut)| *is_cut && is_tunnel(index)) {
            return None;
        }
        let mut found: Option<(_, Interface)> = None;
        for interface in interfaces.into_iter().filter(|interface| interface.runs).take(INTERFACES_MAX) {
            let route = self.route(Some(interface.index)).filter(|route| !route.is_cut_at(interface.index));
            // Rules may lead the packets that name an interface to another table, which all others never see.
            let Some(route) = route.filter(|route| route.table == best.table) else { continue };
            let order = (Reverse(route.prefix), route.metric);
            if found.as_ref().is_none_or(|(least, _)| order < *least) {
                found = Some((order, interface));
            }
        }
        found.map(|(_, interface)| interface)
    }

    /// Returns true if the best route works and leads to a tunnel, or is in another table than this way around it.
    fn overrules(&mut self, around: &Route) -> bool {
        let Some(best) = self.route(None).filter(|best| !best.is_cut()) else { return false };
        let tunnels = |all: Vec<Interface>| all.into_iter().filter(|it| it.is_tunnel).map(|it| it.index).collect();
        let tunnels: Vec<u32> = self.interfaces().map(tunnels).unwrap_or_default();
        best.table != around.table || best.hops.iter().any(|(index, _)| tunnels.contains(index))
    }

    /// Returns the route in its table for packets that leave by an interface, or by any. There is none if the kernel would drop
    /// them, or answer them itself.
    fn route(&mut self, interface: Option<u32>) -> Option<Route> {
        self.ask(interface, RTM_F_LOOKUP_TABLE | RTM_F_FIB_MATCH).and_then(|answer| parse_route(&answer))
    }

    /// Returns the address from which packets leave by an interface, or by any.
    fn source(&mut self, interface: Option<u32>) -> Option<IpAddr> {
        let answer = self.ask(interface, 0)?;
        let source = attribute(answer.get(BODY + ROUTE_BYTES..)?, RTA_PREFSRC)?;
        let v4 = || <[u8; 4]>::try_from(source).ok().map(IpAddr::from);
        v4().or_else(|| <[u8; 16]>::try_from(source).ok().map(IpAddr::from))
    }

    /// Asks for a route. Returns the answer.
    fn ask(&mut self, interface: Option<u32>, flags: u32) -> Option<Vec<u8>> {
        let (family, addr) = match self.to.ip() {
            IpAddr::V4(ip) => (libc::AF_INET, ip.octets().to_vec()),
            // The system sends them by IPv4, or an interface is part of the address.
            IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() || ip.is_unicast_link_local() => return None,
            IpAddr::V6(ip) => (libc::AF_INET6, ip.octets().to_vec()),
        };
        // struct rtmsg: family, lengths of the destination and the source, tos, table, protocol, scope, type, and the flags.
        let mut body = vec![family as u8, (addr.len() * 8) as u8, 0, 0, 0, 0, 0, 0];
        body.extend(flags.to_ne_bytes());
        put(&mut body, RTA_DST, &addr);
        interface.into_iter().for_each(|index| put(&mut body, RTA_OIF, &index.to_ne_bytes()));
        put(&mut body, RTA_MARK, &self.mark.to_ne_bytes());
        put(&mut body, RTA_IP_PROTO, &[self.proto as u8]);
        put(&mut body, RTA_DPORT, &self.to.port().to_be_bytes());
        self.send(RTM_GETROUTE, NLM_F_REQUEST, &body).ok()?;
        let mut answer = vec![0; ROUTE_ANSWER_BYTES];
        let got = self.socket.read(&mut answer).ok()?;
        answer.truncate(got);
        (kind_of(&answer)? == RTM_NEWROUTE).then_some(answer)
    }

    /// Returns all interfaces but loopback.
    fn interfaces(&mut self) -> io::Result<Vec<Interface>> {
        self.send(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, &[0; LINK_BYTES])?;
        let (mut found, mut buf) = (Vec::new(), vec![0; DUMP_BYTES]);
        loop {
            let got = self.socket.read(&mut buf)?;
            let mut rest = buf.get(..got).unwrap_or_default();
            while let Some(len) = word(rest, 0).map(|len| len as usize).filter(|len| (BODY..=rest.len()).contains(len))
            {
                let (message, behind) = rest.split_at(len);
                match kind_of(message) {
                    Some(RTM_NEWLINK) => found.extend(parse_interface(message)),
                    Some(NLMSG_DONE) => return Ok(found),
                    _ => return Err(io::ErrorKind::InvalidData.into()),
                }
                rest = behind.get(len.next_multiple_of(4) - len..).unwrap_or_default();
            }
            if got == 0 {
                return Ok(found);
            }
        }
    }

    /// Sends a request with a header before it (struct nlmsghdr).
    fn send(&mut self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        let mut message = ((BODY + body.len()) as u32).to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend([0; 8]);
        message.extend(body);
        self.socket.write_all(&message)
    }
}

fn netlink(kind: Type) -> io::Result<Socket> {
    Socket::new(Domain::from(libc::AF_NETLINK), kind, Some(Protocol::from(libc::NETLINK_ROUTE)))
}

/// Returns the route of an answer, if it leads out of this host.
fn parse_route(answer: &[u8]) -> Option<Route> {
    let (prefix, table, kind) = (*answer.get(BODY + 1)?, *answer.get(BODY + 4)?, *answer.get(BODY + 7)?);
    let (flags, attributes) = (word(answer, BODY + 8)?, answer.get(BODY + ROUTE_BYTES..)?);
    let number = |kind| attribute(attributes, kind).and_then(|value| word(value, 0));
    let is_cut = |flags: u32| flags & RTNH_F_LINKDOWN != 0;
    let hops = match attribute(attributes, RTA_MULTIPATH) {
        Some(all) => parse_hops(all).map(|(index, flags)| (index, is_cut(flags))).collect(),
        None => vec![(number(RTA_OIF)?, is_cut(flags))],
    };
    let (table, metric) = (number(RTA_TABLE).unwrap_or(table.into()), number(RTA_PRIORITY).unwrap_or(0));
    (kind == RTN_UNICAST).then_some(Route { table, prefix, metric, hops })
}

/// Returns the interfaces and the flags of a route to several (struct rtnexthop: length, flags, weight, index).
fn parse_hops(mut all: &[u8]) -> impl Iterator<Item = (u32, u32)> {
    std::iter::from_fn(move || {
        let (len, flags, index) = (half(all, 0)?, *all.get(2)?, word(all, 4)?);
        all = all.get(usize::from(len).max(8).next_multiple_of(4)..).unwrap_or_default();
        Some((index, flags.into()))
    })
}

/// Returns the interface of a message (struct ifinfomsg: family, type, index, flags, mask), unless it is loopback.
fn parse_interface(message: &[u8]) -> Option<Interface> {
    let (index, flags) = (word(message, BODY + 4)?, word(message, BODY + 8)?);
    let attributes = message.get(BODY + LINK_BYTES..)?;
    let name = attribute(attributes, IFLA_IFNAME)?.split(|byte| *byte == 0).next()?.to_vec();
    let kind = attribute(attributes, IFLA_LINKINFO).and_then(|info| attribute(info, IFLA_INFO_KIND));
    let is_tunnel = has(flags, libc::IFF_POINTOPOINT) || kind.is_some_and(|kind| kind.starts_with(b"tun"));
    (!has(flags, libc::IFF_LOOPBACK)).then_some(Interface { index, name, runs: runs(flags), is_tunnel })
}

/// Returns true for the flags of an interface that is up and has its carrier.
fn runs(flags: u32) -> bool {
    has(flags, libc::IFF_UP) && has(flags, libc::IFF_RUNNING)
}

fn has(flags: u32, flag: libc::c_int) -> bool {
    flags & flag.cast_unsigned() != 0
}

/// Appends an attribute (struct rtattr: length and kind).
fn put(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend(((4 + value.len()) as u16).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

/// Returns the value of the first attribute of a kind.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let (len, kind) = (usize::from(half(attributes, 0)?), half(attributes, 2)? & KIND_MASK);
        let value = attributes.get(4..len)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = attributes.get(len.next_multiple_of(4)..)?;
    }
}

fn kind_of(message: &[u8]) -> Option<u16> {
    half(message, 4)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes)
}

/// Sizes of struct nlmsghdr, struct rtmsg and struct ifinfomsg.
const BODY: usize = 16;
const ROUTE_BYTES: usize = 12;
const LINK_BYTES: usize = 16;
/// Room for an answer, and for the longest part of a dump that the kernel makes.
const ROUTE_ANSWER_BYTES: usize = 8 << 10;
const DUMP_BYTES: usize = 64 << 10;
/// Interfaces that are asked for a way around another one. The first ones are those of the host, and not of its containers.
const INTERFACES_MAX: usize = 64;

// linux/netlink.h, linux/rtnetlink.h and linux/if_link.h; libc names only some of them on each system.
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTM_F_LOOKUP_TABLE: u32 = 0x1000;
const RTM_F_FIB_MATCH: u32 = 0x2000;
const RTN_UNICAST: u8 = 1;
const RTNH_F_LINKDOWN: u32 = 16;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTA_MARK: u16 = 16;
const RTA_IP_PROTO: u16 = 27;
const RTA_DPORT: u16 = 29;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
/// The kind of an attribute without its flags.
const KIND_MASK: u16 = 0x3fff;
// ip(7) and ipv6(7).
const IP_UNICAST_IF: libc::c_int = 50;
const IPV6_UNICAST_IF: libc::c_int = 76;

#[cfg(test)]
mod tests {
    use super::*;

    const UP: u32 = 1;
    const POINTOPOINT: u32 = 0x10;
    const RUNNING: u32 = 0x40;

    /// Returns a message of the kernel: a header, a body, and attributes.
    fn message(kind: u16, body: &[u8], attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut message = vec![0; 4];
        message.extend(kind.to_ne_bytes());
        message.extend([0; 10]);
        message.extend(body);
        attributes.iter().for_each(|(kind, value)| put(&mut message, *kind, value));
        let len = message.len() as u32;
        message[..4].copy_from_slice(&len.to_ne_bytes());
        message
    }

    /// Returns a message about the interface of number 7.
    fn interface(kind: u16, flags: u32, info: &[u8]) -> Vec<u8> {
        let body = [[0; 4], 7u32.to_ne_bytes(), flags.to_ne_bytes(), [0; 4]].concat();
        message(kind, &body, &[(IFLA_IFNAME, b"eth7\0"), (IFLA_LINKINFO, info)])
    }

    fn route(flags: u8, attributes: &[(u16, &[u8])]) -> Option<Route> {
        parse_route(&message(RTM_NEWROUTE, &[2, 24, 0, 0, 254, 2, 0, RTN_UNICAST, flags, 0, 0, 0], attributes))
    }

    #[test]
    fn only_what_changes_at_an_interface_is_a_change() {
        let (mut known, body) = (HashMap::new(), [0; 16]);
        let mut change = |message: &[u8]| network_change(message, &mut known);
        for other in [message(20, &body, &[]), message(RTM_NEWROUTE, &body, &[]), b"cut short".to_vec()] {
            assert_eq!(change(&other), NetworkChange::Usual);
        }
        let scan: &[u8] = b"a scan of a wireless network";
        let steps = [
            (RTM_NEWLINK, UP | RUNNING, NetworkChange::Usual),
            (RTM_NEWLINK, UP | RUNNING, NetworkChange::None),
            (RTM_NEWLINK, UP, NetworkChange::Cut),
            (RTM_NEWLINK, UP, NetworkChange::None),
            // It does not run without being up.
            (RTM_NEWLINK, RUNNING, NetworkChange::None),
            (RTM_NEWLINK, UP | RUNNING, NetworkChange::Usual),
            (RTM_DELLINK, UP | RUNNING, NetworkChange::Usual),
            // Another one with the same number.
            (RTM_NEWLINK, UP, NetworkChange::Usual),
        ];
        for (step, (kind, flags, wanted)) in steps.into_iter().enumerate() {
            assert_eq!(change(&interface(kind, flags, scan)), wanted, "step {step}");
        }
    }

    #[test]
    fn routes_tell_their_interfaces_and_which_of_them_are_cut() {
        let index = 7u32.to_ne_bytes();
        let single = Route { table: 254, prefix: 24, metric: 0, hops: vec![(7, false)] };
        assert_eq!(route(0, &[(RTA_OIF, &index)]), Some(single));
        let (table, metric) = (1000u32.to_ne_bytes(), 600u32.to_ne_bytes());
        let cut = route(16, &[(RTA_TABLE, &table), (RTA_OIF, &index), (RTA_PRIORITY, &metric)]).unwrap();
        assert_eq!(cut, Route { table: 1000, prefix: 24, metric: 600, hops: vec![(7, true)] });
        assert!(cut.is_cut() && cut.is_cut_at(7) && cut.is_cut_at(8));
        // Two hops, the first of which has a gateway (kind 5) and no carrier.
        let mut hops = vec![];
        for (flags, index, gateway) in [(16, 7u32, 8), (0, 8, 0)] {
            hops.extend((8u16 + gateway).to_ne_bytes());
            hops.extend([flags, 0]);
            hops.extend(index.to_ne_bytes());
            if gateway > 0 {
                put(&mut hops, 5, &[10, 0, 0, 1]);
            }
        }
        let several = route(16, &[(RTA_MULTIPATH, &hops)]).unwrap();
        assert_eq!(several.hops, [(7, true), (8, false)]);
        assert!(several.is_cut() && several.is_cut_at(7) && !several.is_cut_at(8));
        // One that the kernel answers itself, and one that is malformed.
        let other = message(RTM_NEWROUTE, &[2, 24, 0, 0, 254, 2, 0, 7, 0, 0, 0, 0], &[(RTA_OIF, &index)]);
        assert_eq!((parse_route(&other), route(0, &[])), (None, None));
        let whole = message(RTM_NEWROUTE, &[2, 24, 0, 0, 254, 2, 0, RTN_UNICAST, 0, 0, 0, 0], &[(RTA_OIF, &index)]);
        assert!((0..whole.len()).all(|len| parse_route(&whole[..len]).is_none()));
    }

    #[test]
    fn tunnels_are_known_by_their_kind_or_their_flags() {
        let info = |kind: &[u8]| {
            let mut info = Vec::new();
            put(&mut info, IFLA_INFO_KIND, kind);
            info
        };
        let read = |flags, info: &[u8]| parse_interface(&interface(RTM_NEWLINK, flags, info)).unwrap();
        let cable = Interface { index: 7, name: b"eth7".to_vec(), runs: true, is_tunnel: false };
        assert_eq!(read(UP | RUNNING, &info(b"veth\0")), cable);
        assert!(!read(UP, &[]).runs && !read(RUNNING, &[]).runs);
        assert!(read(UP, &info(b"tun\0")).is_tunnel && read(UP | POINTOPOINT, &info(b"wireguard\0")).is_tunnel);
        assert_eq!(parse_interface(&interface(RTM_NEWLINK, UP | RUNNING | 8, &[])), None, "loopback");
    }

    #[test]
    fn the_kernel_answers() {
        let mut kernel = Kernel::new("127.0.0.1:80".parse().unwrap(), 0, libc::IPPROTO_TCP).unwrap();
        kernel.interfaces().unwrap();
        assert_eq!((kernel.route(None), kernel.detour()), (None, None), "a route of this host itself");
        // Loopback is the first interface of each network namespace.
        assert_eq!(kernel.source(Some(1)), Some(IpAddr::from([127, 0, 0, 1])));
    }
}
