//! A path between two hosts, and the faults that a test can make on it.
//!
//! The path owns its devices and whatever stands between them, the emulator or the NAT. It must never touch anything of
//! another path of the same hosts.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::kit;

use super::capture::Capture;
use super::emulator::{Counts, Emulator};
use super::nat::Nat;
use super::pipe::Link;
use super::{Host, shape};

/// The kind of a path.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// As fast as the kernel forwards packets.
    Veth,
    /// This many megabits per second each way, counted in Ethernet bytes, with a queue of 100 ms.
    Rate(f64),
    /// The same for each TCP connection separately, up to `shape::CONNECTIONS_MAX` of them.
    PerConnection(f64),
    /// Emulated as `Link` says, each way, counted in IP bytes.
    Emulated(Link),
    /// With a router that hides the near host behind 10.77.N.1; the near host's own address is then 10.78.N.1.
    Nat,
}

/// One or both directions of a path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// From the near host to the far one.
    Out,
    Back,
    Both,
}

/// The bytes that passed, with headers, as the near end counts them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bytes {
    pub out: u64,
    pub back: u64,
}

pub struct Path {
    // Declared, and so dropped, before the hosts: the threads of an emulator end before the devices do.
    middle: Middle,
    kind: Kind,
    number: u8,
    near: Host,
    far: Host,
    far_place: usize,
    /// The last byte of the near end's address.
    near_byte: AtomicU8,
}

enum Middle {
    Direct,
    Emulator(Emulator),
    Nat(Nat),
}

/// Returns the address that the host of this index has on every path.
pub fn own_ip(place: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, u8::try_from(place + 1).expect("at most 255 hosts"))
}

impl Path {
    #[track_caller]
    pub(super) fn join(number: u8, near: (usize, &Host), far: (usize, &Host), kind: Kind) -> Path {
        let ((near_place, near), (far_place, far)) = (near, far);
        let device = format!("p{number}");
        let middle = match kind {
            Kind::Emulated(link) => Middle::Emulator(Emulator::join(near, far, &device, link)),
            Kind::Nat => Middle::Nat(Nat::join(near, far, number)),
            Kind::Veth | Kind::Rate(_) | Kind::PerConnection(_) => {
                veth((near, &device), (far, &device));
                Middle::Direct
            }
        };
        let (near, far, near_byte) = (near.clone(), far.clone(), AtomicU8::new(1));
        let path = Path { middle, kind, number, near, far, far_place, near_byte };
        path.set_up(near_place);
        path
    }

    fn set_up(&self, near_place: usize) {
        let (device, number) = (self.device(), self.number);
        for host in [&self.near, &self.far] {
            match self.kind {
                Kind::Veth | Kind::Nat => {}
                Kind::Rate(mbit) => shape::rate(host, &device, mbit),
                Kind::PerConnection(mbit) => shape::per_connection(host, &device, mbit),
                // A long queue, so that the device drops no packets when the thread is late.
                Kind::Emulated(link) => host.ip(&format!("link set {device} mtu {} txqueuelen 20000", link.mtu)),
            }
        }
        let (far, net, options) = (self.far_ip(), self.far_net(), self.far.route_options());
        self.far.ip(&format!(
            "link set {device} up\naddr add {far}/24 dev {device}\n\
             route replace {net} dev {device} {KERNEL} src {far} {options}"
        ));
        if !matches!(self.kind, Kind::Nat) {
            let (own, near) = (own_ip(near_place), self.near_ip());
            self.far.ip(&format!("route replace {own} via {near} dev {device} metric {number} {options}"));
        }
        // The near end is last and by one process: a node that notices the new path uses it, so it has to be complete.
        self.set_near_address();
    }

    /// Gives the near end its address and routes: packets from this address take this path.
    fn set_near_address(&self) {
        let (device, number, near) = (self.device(), self.number, self.near_ip());
        let (gateway, own, table) = (self.gateway(), own_ip(self.far_place), 100 + u32::from(number));
        let (net, options) = (self.far_net(), self.near.route_options());
        let to_far = match self.kind {
            Kind::Nat => format!("via {gateway}"),
            _ => format!("{KERNEL} src {near}"),
        };
        self.near.ip(&format!(
            "addr add {near}/24 dev {device}\nlink set {device} up\n\
             route replace {net} dev {device} {to_far} {options}\n\
             route replace {own} via {gateway} dev {device} metric {number} {options}\n\
             route replace default via {gateway} dev {device} table {table} {options}\n\
             rule add from {near} lookup {table}\n"
        ));
    }

    /// Returns the name of its device, the same in both hosts.
    pub fn device(&self) -> String {
        format!("p{}", self.number)
    }

    /// Returns the address of the near end.
    pub fn near_ip(&self) -> Ipv4Addr {
        let net = if matches!(self.kind, Kind::Nat) { 78 } else { 77 };
        Ipv4Addr::new(10, net, self.number, self.near_byte.load(Ordering::Relaxed))
    }

    /// Returns the address of the far end.
    pub fn far_ip(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.number, 2)
    }

    fn far_net(&self) -> String {
        format!("10.77.{}.0/24", self.number)
    }

    fn gateway(&self) -> Ipv4Addr {
        match self.kind {
            Kind::Nat => Ipv4Addr::new(10, 78, self.number, 254),
            _ => self.far_ip(),
        }
    }

    /// Drops all packets in this direction from now on, without an error to the sender.
    #[track_caller]
    pub fn black_hole(&self, way: Way) {
        let (table, device) = (self.table("hole"), self.device());
        // Dropped where they arrive: the sender's own kernel would give it an error.
        self.receivers(way, |host| {
            host.nft(&format!(
                "table inet {table}\ndelete table inet {table}\n\
                 table inet {table} {{ chain in {{ type filter hook input priority -300; iifname {device} drop; }}; }}\n"
            ));
        });
    }

    /// Pulls the cable out of the near end, whose device then has no carrier, and keeps its address and its routes. The far end has
    /// its address still.
    #[track_caller]
    pub fn pull(&self) {
        let device = self.device();
        self.far.ip(&format!("link set {device} down"));
        let lacks_carrier = || self.near.run(&format!("ip -o link show {device}")).contains("NO-CARRIER");
        kit::until("the device has no carrier", lacks_carrier);
        assert!(self.near.run(&format!("ip -o addr show {device}")).contains(&format!("{}/24", self.near_ip())));
    }

    /// Ends `pull`.
    #[track_caller]
    pub fn plug(&self) {
        self.far.ip(&format!("link set {} up", self.device()));
    }

    /// Answers every TCP packet from or to this port, at either end, with a reset to its sender from now on, as a
    /// firewall does. A connection that sends nothing gets no reset.
    #[track_caller]
    pub fn refuse(&self, port: u16) {
        let (table, device) = (self.table("refuse"), self.device());
        self.receivers(Way::Both, |host| {
            host.nft(&format!(
                "table inet {table}\ndelete table inet {table}\n\
                 table inet {table} {{ chain in {{ type filter hook input priority -300; \
                 iifname {device} tcp flags & rst == 0 tcp sport {port} reject with tcp reset; \
                 iifname {device} tcp flags & rst == 0 tcp dport {port} reject with tcp reset; }}; }}\n"
            ));
        });
    }

    /// Ends `black_hole` and `refuse`.
    #[track_caller]
    pub fn heal(&self) {
        self.receivers(Way::Both, |host| {
            for table in [self.table("hole"), self.table("refuse")] {
                host.nft(&format!("table inet {table}\ndelete table inet {table}\n"));
            }
        });
    }

    /// Resets all TCP connections from or to this port, at either end, also the idle ones, and returns their number.
    /// The programs of the far end get ECONNABORTED, those of the near end a reset. New connections can be made at
    /// once.
    #[track_caller]
    pub fn reset(&self, port: u16) -> usize {
        let filter = format!("dst {} and ( sport = :{port} or dport = :{port} )", self.far_net());
        let before = cookies(&self.far, &filter);
        self.far.run(&format!("ss -HKtn {filter}"));
        let after = cookies(&self.far, &filter);
        let survivors = before.iter().filter(|socket| after.contains(socket)).count();
        assert_eq!(survivors, 0, "sockets survive ss -K: is INET_DIAG_DESTROY in this kernel?");
        before.len()
    }

    /// Resets one of the `connections`, and returns the number of connections that were reset.
    #[track_caller]
    pub fn reset_one(&self, (near, far): (SocketAddr, SocketAddr)) -> usize {
        let filter = format!("dst {} and sport = :{} and dport = :{}", near.ip(), far.port(), near.port());
        let before = sockets(&self.far, &filter).len();
        self.far.run(&format!("ss -HKtn {filter}"));
        before - sockets(&self.far, &filter).len()
    }

    /// Replaces the near end's address by 10.77.N.`last_byte`.
    #[track_caller]
    pub fn change_address(&self, last_byte: u8) {
        assert!(![2, 254].contains(&last_byte), "these addresses are in use");
        let (device, old) = (self.device(), self.near_ip());
        self.near.ip(&format!("rule del from {old}\naddr del {old}/24 dev {device}\n"));
        self.near_byte.store(last_byte, Ordering::Relaxed);
        self.set_near_address();
    }

    /// Changes the rate both ways, in megabits per second, of the path or of each connection.
    #[track_caller]
    pub fn set_rate(&self, mbit: f64) {
        match self.kind {
            Kind::Rate(_) => self.receivers(Way::Both, |host| shape::rate(host, &self.device(), mbit)),
            Kind::PerConnection(_) => {
                self.receivers(Way::Both, |host| shape::change_per_connection(host, &self.device(), mbit));
            }
            Kind::Emulated(_) => self.link(Way::Both, |link| link.mbit = mbit),
            Kind::Veth | Kind::Nat => panic!("this path has no rate"),
        }
    }

    /// Changes the behaviour of an emulated path.
    #[track_caller]
    pub fn link(&self, way: Way, change: impl Fn(&mut Link)) {
        self.emulator().change(way, change);
    }

    /// Returns the packets of an emulated path, counted by their fate.
    #[track_caller]
    pub fn counts(&self, way: Way) -> Counts {
        self.emulator().counts(way)
    }

    #[track_caller]
    fn emulator(&self) -> &Emulator {
        let Middle::Emulator(emulator) = &self.middle else { panic!("this path is not emulated") };
        emulator
    }

    /// Returns the router of a path of the kind `Nat`.
    #[track_caller]
    pub fn nat(&self) -> &Nat {
        let Middle::Nat(nat) = &self.middle else { panic!("this path has no NAT") };
        nat
    }

    /// Returns the number of bytes that the near end's device has sent and received.
    pub fn bytes(&self) -> Bytes {
        let table = self.near.inside(|| std::fs::read_to_string("/proc/thread-self/net/dev").expect("a table"));
        let device = self.device();
        let line = table.lines().find_map(|line| line.trim_start().strip_prefix(&device)?.strip_prefix(':'));
        let fields: Vec<u64> = line.expect("the device").split_whitespace().flat_map(str::parse).collect();
        Bytes { out: fields[8], back: fields[0] }
    }

    /// Returns the TCP connections that the near host has from its address on this path: its own end, and the other
    /// end.
    pub fn connections(&self) -> Vec<(SocketAddr, SocketAddr)> {
        let near = self.near_ip().octets();
        sockets(&self.near, &format!("src {}.{}.{}.0/24", near[0], near[1], near[2]))
    }

    /// Captures all IP packets that pass the near end in a file.
    #[track_caller]
    pub fn capture(&self, file: impl Into<PathBuf>) -> Capture {
        Capture::start(&self.near, &self.device(), file.into())
    }

    /// Returns the hosts where packets of these directions arrive.
    fn receivers(&self, way: Way, act: impl Fn(&Host)) {
        if way.is_out() {
            act(&self.far);
        }
        if way.is_back() {
            act(&self.near);
        }
    }

    fn table(&self, name: &str) -> String {
        format!("{name}_p{}", self.number)
    }
}

impl Way {
    pub fn is_out(self) -> bool {
        self != Way::Back
    }

    pub fn is_back(self) -> bool {
        self != Way::Out
    }
}

/// Joins two hosts by a pair of devices.
#[track_caller]
pub fn veth(one: (&Host, &str), other: (&Host, &str)) {
    one.0.ip(&format!("link add {} type veth peer name {} netns {}", one.1, other.1, other.0.handle()));
}

/// Returns the established TCP connections of a host.
fn sockets(host: &Host, filter: &str) -> Vec<(SocketAddr, SocketAddr)> {
    let table = host.run(&format!("ss -Htn state established {filter}"));
    // A dual-stack socket shows the other end as an IPv6 address.
    let canonical = |addr: SocketAddr| SocketAddr::new(addr.ip().to_canonical(), addr.port());
    let addr = |text: Option<&str>| text.and_then(|text| text.parse().ok()).map(canonical);
    let row = |line: &str| {
        let mut fields = line.split_whitespace().skip(2);
        Some((addr(fields.next())?, addr(fields.next())?))
    };
    table.lines().filter_map(row).collect()
}

/// Returns the cookies of the established TCP connections of a host. A new connection between the same ports has another one.
fn cookies(host: &Host, filter: &str) -> Vec<String> {
    let table = host.run(&format!("ss -Htne state established {filter}"));
    let cookie = |line: &str| line.split_whitespace().find(|field| field.starts_with("sk:")).map(str::to_owned);
    table.lines().filter_map(cookie).collect()
}

/// The attributes of the route that the kernel makes for an address: a route with the same attributes replaces it.
const KERNEL: &str = "proto kernel scope link";
