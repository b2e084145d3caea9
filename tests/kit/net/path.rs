//! A path between two hosts, and what can happen to it while a test runs.
//!
//! It owns its devices, and whatever stands between them: the emulator or the NAT. It must never touch what belongs to
//! another path of the same hosts.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};

use super::capture::Capture;
use super::emulator::{Counts, Emulator};
use super::nat::Nat;
use super::pipe::Link;
use super::{Host, shape};

/// What a path is made of.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// As fast as the kernel passes packets on.
    Veth,
    /// So many megabits per second each way, counted in Ethernet bytes, with a queue of 100 ms.
    Rate(f64),
    /// The same for each TCP connection of its own, up to `shape::CONNECTIONS_MAX` of them.
    PerConnection(f64),
    /// What `Link` says each way, counted in IP bytes.
    Emulated(Link),
    /// A router between, which hides the near host behind 10.77.N.1; there its own address is 10.78.N.1.
    Nat,
}

/// Directions of a path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// From the near host to the far one.
    Out,
    Back,
    Both,
}

/// Bytes that passed, headers and all, as the near end counts them.
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

/// The address that the host of this place has on every path.
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
                // What the device drops when the thread is late is not in the plan.
                Kind::Emulated(link) => host.ip(&format!("link set {device} mtu {} txqueuelen 20000", link.mtu)),
            }
            host.ip(&format!("link set {device} up"));
        }
        let (far, net, options) = (self.far_ip(), self.far_net(), self.far.route_options());
        self.far.ip(&format!(
            "addr add {far}/24 dev {device}\nroute replace {net} dev {device} {KERNEL} src {far} {options}"
        ));
        self.set_near_address();
        if !matches!(self.kind, Kind::Nat) {
            let (own, near) = (own_ip(near_place), self.near_ip());
            self.far.ip(&format!("route replace {own} via {near} dev {device} metric {number} {options}"));
        }
    }

    /// Gives the near end its address and the routes that go with it: what comes from this address takes this path.
    fn set_near_address(&self) {
        let (device, number, near) = (self.device(), self.number, self.near_ip());
        let (gateway, own, table) = (self.gateway(), own_ip(self.far_place), 100 + u32::from(number));
        let (net, options) = (self.far_net(), self.near.route_options());
        let to_far = match self.kind {
            Kind::Nat => format!("via {gateway}"),
            _ => format!("{KERNEL} src {near}"),
        };
        self.near.ip(&format!(
            "addr add {near}/24 dev {device}\n\
             route replace {net} dev {device} {to_far} {options}\n\
             route replace {own} via {gateway} dev {device} metric {number} {options}\n\
             route replace default via {gateway} dev {device} table {table} {options}\n\
             rule add from {near} lookup {table}\n"
        ));
    }

    /// The name of its device, in both hosts.
    pub fn device(&self) -> String {
        format!("p{}", self.number)
    }

    /// The address of the near end.
    pub fn near_ip(&self) -> Ipv4Addr {
        let net = if matches!(self.kind, Kind::Nat) { 78 } else { 77 };
        Ipv4Addr::new(10, net, self.number, self.near_byte.load(Ordering::Relaxed))
    }

    /// The address of the far end.
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

    /// Drops whatever goes this way from now on; nobody is told.
    #[track_caller]
    pub fn black_hole(&self, way: Way) {
        let (table, device) = (self.table("hole"), self.device());
        // Dropped where it arrives: a sender's own kernel would tell it.
        self.receivers(way, |host| {
            host.nft(&format!(
                "table inet {table}\ndelete table inet {table}\n\
                 table inet {table} {{ chain in {{ type filter hook input priority -300; iifname {device} drop; }}; }}\n"
            ));
        });
    }

    /// Answers every TCP packet of this port, whichever end has it, with a reset to its sender from now on, as a
    /// firewall does. A connection that sends nothing notices nothing.
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

    /// Resets all TCP connections of this port, whichever end has it, now and whether they are idle or not: the far end's
    /// programs see that they were aborted, those of the near end a reset. New ones may come at once. How many it were.
    #[track_caller]
    pub fn reset(&self, port: u16) -> usize {
        let filter = format!("dst {} and ( sport = :{port} or dport = :{port} )", self.far_net());
        let before = sockets(&self.far, &filter);
        self.far.run(&format!("ss -HKtn {filter}"));
        let after = sockets(&self.far, &filter);
        let survivors = before.iter().filter(|socket| after.contains(socket)).count();
        assert_eq!(survivors, 0, "sockets survive ss -K: is INET_DIAG_DESTROY in this kernel?");
        before.len()
    }

    /// The same for one connection, which `connections` says. How many it were.
    #[track_caller]
    pub fn reset_one(&self, (near, far): (SocketAddr, SocketAddr)) -> usize {
        let filter = format!("dst {} and sport = :{} and dport = :{}", near.ip(), far.port(), near.port());
        let before = sockets(&self.far, &filter).len();
        self.far.run(&format!("ss -HKtn {filter}"));
        before - sockets(&self.far, &filter).len()
    }

    /// Takes the near end's address away and gives it 10.77.N.`last_byte` instead.
    #[track_caller]
    pub fn change_address(&self, last_byte: u8) {
        assert!(![2, 254].contains(&last_byte), "these are taken");
        let (device, old) = (self.device(), self.near_ip());
        self.near.ip(&format!("rule del from {old}\naddr del {old}/24 dev {device}\n"));
        self.near_byte.store(last_byte, Ordering::Relaxed);
        self.set_near_address();
    }

    /// Changes the rate both ways: megabits per second, of the path or of each connection.
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

    /// Changes an emulated path.
    #[track_caller]
    pub fn link(&self, way: Way, change: impl Fn(&mut Link)) {
        self.emulator().change(way, change);
    }

    /// What became of the packets of an emulated path.
    #[track_caller]
    pub fn counts(&self, way: Way) -> Counts {
        self.emulator().counts(way)
    }

    #[track_caller]
    fn emulator(&self) -> &Emulator {
        let Middle::Emulator(emulator) = &self.middle else { panic!("this path is not emulated") };
        emulator
    }

    /// What stands between the ends of a path of the kind `Nat`.
    #[track_caller]
    pub fn nat(&self) -> &Nat {
        let Middle::Nat(nat) = &self.middle else { panic!("this path has no NAT") };
        nat
    }

    /// What the near end's device has sent and received.
    pub fn bytes(&self) -> Bytes {
        let table = self.near.inside(|| std::fs::read_to_string("/proc/thread-self/net/dev").expect("a table"));
        let device = self.device();
        let line = table.lines().find_map(|line| line.trim_start().strip_prefix(&device)?.strip_prefix(':'));
        let fields: Vec<u64> = line.expect("the device").split_whitespace().flat_map(str::parse).collect();
        Bytes { out: fields[8], back: fields[0] }
    }

    /// TCP connections that the near host has from its address on this path: its own end, and the other.
    pub fn connections(&self) -> Vec<(SocketAddr, SocketAddr)> {
        let near = self.near_ip().octets();
        sockets(&self.near, &format!("src {}.{}.{}.0/24", near[0], near[1], near[2]))
    }

    /// Writes all IP packets that pass the near end to a file.
    #[track_caller]
    pub fn capture(&self, file: impl Into<PathBuf>) -> Capture {
        Capture::start(&self.near, &self.device(), file.into())
    }

    /// The hosts where packets of these directions arrive.
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

/// Established TCP connections of a host.
fn sockets(host: &Host, filter: &str) -> Vec<(SocketAddr, SocketAddr)> {
    let table = host.run(&format!("ss -Htn state established {filter}"));
    // A socket of both families shows the other end as an address of IPv6.
    let canonical = |addr: SocketAddr| SocketAddr::new(addr.ip().to_canonical(), addr.port());
    let addr = |text: Option<&str>| text.and_then(|text| text.parse().ok()).map(canonical);
    let row = |line: &str| {
        let mut fields = line.split_whitespace().skip(2);
        Some((addr(fields.next())?, addr(fields.next())?))
    };
    table.lines().filter_map(row).collect()
}

/// What the kernel says of the route that comes with an address: a route that says the same takes its place.
const KERNEL: &str = "proto kernel scope link";
