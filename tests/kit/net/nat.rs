//! A router between the ends of a path that hides the near host behind its own address, like a home router.
//!
//! Packets from outside pass only if they belong to a connection that began inside.

use std::sync::atomic::{AtomicU16, Ordering};

use super::path::veth;
use super::{Host, conntrack};

pub struct Nat {
    router: Host,
    /// The first of the ports that it now gives to connections.
    first_port: AtomicU16,
}

impl Nat {
    #[track_caller]
    pub(super) fn join(near: &Host, far: &Host, number: u8) -> Nat {
        let (device, router) = (format!("p{number}"), Host::new("nat"));
        veth((near, &device), (&router, "inside"));
        veth((far, &device), (&router, "outside"));
        router.ip(&format!(
            "addr add 10.78.{number}.254/24 dev inside\naddr add 10.77.{number}.1/24 dev outside\n\
             link set inside up\nlink set outside up\nroute add default via 10.77.{number}.2\n"
        ));
        assert!(router.sysctl("net/ipv4/ip_forward", "1"), "no forwarding");
        let nat = Nat { router, first_port: AtomicU16::new(PORTS_FIRST) };
        nat.set_rules("");
        nat
    }

    /// Forgets all connections and gives other ports from now on. Packets from inside get a new port, so the far end
    /// answers them with a reset; packets from outside to the old ports are dropped.
    #[track_caller]
    pub fn rebind(&self) {
        let next = self.first_port.load(Ordering::Relaxed) + PORTS_COUNT;
        self.first_port.store(if next + PORTS_COUNT > PORTS_END { PORTS_FIRST } else { next }, Ordering::Relaxed);
        self.set_rules("");
        conntrack::flush(&self.router);
    }

    /// Forgets all connections and drops their packets without an answer; new connections can be made. Lasts until the
    /// next `rebind`.
    #[track_caller]
    pub fn forget(&self) {
        // A packet in the middle of a connection must not begin a new one.
        self.set_rules("ct state new tcp flags & (syn | ack) != syn drop; ct state invalid drop;");
        conntrack::flush(&self.router);
    }

    /// Returns the router, for tests that inspect it.
    pub fn router(&self) -> &Host {
        &self.router
    }

    fn set_rules(&self, forward: &str) {
        let first = self.first_port.load(Ordering::Relaxed);
        let ports = format!("{first}-{}", first + PORTS_COUNT - 1);
        self.router.nft(&format!(
            "table ip nat\ndelete table ip nat
             table ip nat {{
                 chain post {{
                     type nat hook postrouting priority srcnat;
                     oifname outside meta l4proto {{ tcp, udp }} masquerade to :{ports};
                 }}
                 chain forward {{ type filter hook forward priority filter; {forward}
                     iifname outside ct state new,invalid drop; }}
                 chain in {{ type filter hook input priority filter; iifname outside drop; }}
             }}\n"
        ));
    }
}

/// All the ports that it may give; `rebind` selects another range of them.
const PORTS_FIRST: u16 = 20_000;
const PORTS_END: u16 = 60_000;
const PORTS_COUNT: u16 = 4_000;
