//! Networks of a test's own: hosts that are network namespaces, and paths between them with the rates, delays, losses
//! and faults that a test wants, while real processes talk over the real TCP of the kernel.
//!
//! ```ignore
//! mod kit;
//! mod net_kit;
//! use net_kit::{Kind, Link, Net, Way, has_net, has_tun};
//!
//! if !has_net() || !has_tun() {
//!     return;
//! }
//! let slow = Link { mbit: 20.0, delay: ms(30), ..Link::default() };
//! let net = Net::of(&[Kind::Rate(100.0), Kind::Emulated(slow)]);
//! let far = Seaprox::start_with(&["link", "--listen", "0.0.0.0:23232"], |command| net.far().enter(command));
//! let near = Seaprox::start_with(&[...], |command| net.near().enter(command));
//! let listener = net.far().inside(|| TcpListener::bind("10.77.0.2:80").unwrap()); // The listener stays in that host.
//! net.path(0).black_hole(Way::Both);
//! net.path(1).link(Way::Out, |link| link.loss = 0.01);
//! net.path(0).heal();
//! net.path(0).reset(23232);
//! ```
//!
//! Path number N (from 1) is the device `pN` in both of its hosts, with 10.77.N.1 at the near end and 10.77.N.2 at the
//! far one. Each host also has an address of its own (10.77.0.1, 10.77.0.2 and so on), which every path leads to: the
//! source address or the device that a socket is bound to selects the path, as with several uplinks to one server.
//!
//! TCP uses cubic on every path, by the options of its routes, where the kernel has it; MPTCP uses the default of the
//! namespace, which may be reno, unless a socket sets another. Both are printed.
//!
//! A namespace lives as long as a descriptor of it, or a thread or process in it: it has no name in the file system, so
//! nothing is left to clean up, not even after a panic or a SIGKILL. To look into one by hand:
//! `nsenter --net=/proc/PID/fd/FD`, as `Host` prints it. Programs needed: `ip`, `tc`, `ss` and `nft`.
#![allow(dead_code, unused_imports)] // Each test file uses its part.

pub mod capture;
pub mod conntrack;
pub mod echoes;
pub mod emulator;
pub mod filter;
pub mod goodput;
pub mod home;
pub mod host;
#[path = "../link/line.rs"]
pub mod line;
pub mod nat;
pub mod nodes;
pub mod pairs;
pub mod path;
pub mod pipe;
pub mod playback;
#[path = "../link/rng.rs"]
pub mod rng;
pub mod shape;
pub mod transfer;
pub mod tun;

use crate::kit;

pub use capture::{Capture, Captured};
pub use emulator::Counts;
pub use host::Host;
pub use path::{Bytes, Kind, Path, Way, own_ip};
pub use pipe::{Link, Queue};

/// Returns true if this test may make networks and has the programs for it. Panics in CI otherwise.
pub fn has_net() -> bool {
    kit::has_namespaces() && kit::has("tc") && kit::has("ss")
}

/// Returns true if there are TUN devices, which emulated paths need. Panics in CI otherwise.
pub fn has_tun() -> bool {
    let can_open = std::fs::File::options().read(true).write(true).open(tun::DEVICE);
    let Err(error) = can_open else { return true };
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{}: {error}, and nothing is skipped in CI", tun::DEVICE);
    println!("skipped: {}: {error}", tun::DEVICE);
    false
}

/// Hosts and the paths between them, all removed when this is dropped.
pub struct Net {
    hosts: Vec<Host>,
    paths: Vec<Path>,
}

impl Net {
    /// Makes two hosts, near and far, with these paths between them.
    #[track_caller]
    pub fn of(kinds: &[Kind]) -> Net {
        let mut net = Net { hosts: Vec::new(), paths: Vec::new() };
        let (near, far) = (net.add_host("near"), net.add_host("far"));
        for kind in kinds {
            net.join(near, far, *kind);
        }
        println!("tcp: {} {}", net.near().congestion_control(), net.near().route_options());
        net
    }

    /// Adds a host and returns its index.
    #[track_caller]
    pub fn add_host(&mut self, name: &str) -> usize {
        let place = self.hosts.len();
        let host = Host::new(name);
        host.ip(&format!("addr add {}/32 dev lo", path::own_ip(place)));
        self.hosts.push(host);
        place
    }

    /// Adds a path between the hosts of these indexes and returns the index of the path.
    #[track_caller]
    pub fn join(&mut self, near: usize, far: usize, kind: Kind) -> usize {
        let number = u8::try_from(self.paths.len() + 1).expect("at most 255 paths");
        self.paths.push(Path::join(number, (near, &self.hosts[near]), (far, &self.hosts[far]), kind));
        self.paths.len() - 1
    }

    pub fn near(&self) -> &Host {
        &self.hosts[0]
    }

    pub fn far(&self) -> &Host {
        &self.hosts[1]
    }

    pub fn host(&self, place: usize) -> &Host {
        &self.hosts[place]
    }

    pub fn path(&self, index: usize) -> &Path {
        &self.paths[index]
    }
}
