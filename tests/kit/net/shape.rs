//! Rates by the kernel's own queueing disciplines: tbf for a whole path, htb with a class for each connection.
//!
//! Both shape the traffic that a host sends, so each path has them at both ends. Segments leave TCP one by one: a batch
//! of TCP segments can be more than a slow path sends in a tenth of a second.

use std::fmt::Write;

use super::Host;

/// The number of connections that have a class of their own; the next one shares with the first.
pub const CONNECTIONS_MAX: u32 = 64;

/// Sets, or changes, the rate at which a host sends to a device.
#[track_caller]
pub fn rate(host: &Host, device: &str, mbit: f64) {
    single_segments(host, device);
    let (bits, burst, queue) = parameters(mbit);
    host.tc(&format!("qdisc replace dev {device} root tbf rate {bits}bit burst {burst} limit {queue}"));
}

/// Sets the rate at which a host sends to a device, for each TCP connection.
///
/// The class cannot come from the ports: two of them may have the same remainder. Connections are counted as they
/// begin, conntrack keeps the number of each, and nft hands it to htb with each packet.
#[track_caller]
pub fn per_connection(host: &Host, device: &str, mbit: f64) {
    single_segments(host, device);
    host.tc(&format!("qdisc replace dev {device} root handle 1: htb default 0"));
    change_per_connection(host, device, mbit);
    let (_, _, queue) = parameters(mbit);
    let leaf = |class| format!("qdisc replace dev {device} parent 1:{class:x} bfifo limit {queue}\n");
    host.tc(&(1..=CONNECTIONS_MAX).map(leaf).collect::<String>());
    let classes: Vec<String> = (1..=CONNECTIONS_MAX).map(|class| format!("{class} : 1:{class:x}")).collect();
    let is_first = "tcp flags & (syn | ack) == syn ct mark 0 jump pick";
    host.nft(&format!(
        "table inet caps_{device} {{
             chain pick {{ ct mark set numgen inc mod {CONNECTIONS_MAX} offset 1; }}
             chain in {{ type filter hook prerouting priority mangle; iifname {device} {is_first}; }}
             chain out {{ type filter hook output priority mangle; oifname {device} {is_first}; }}
             chain classify {{
                 type filter hook postrouting priority mangle;
                 oifname {device} meta priority set ct mark map {{ {} }};
             }}
         }}\n",
        classes.join(", ")
    ));
}

/// Changes the rate of each TCP connection.
#[track_caller]
pub fn change_per_connection(host: &Host, device: &str, mbit: f64) {
    let (bits, burst, _) = parameters(mbit);
    let mut lines = String::new();
    for class in 1..=CONNECTIONS_MAX {
        let rates = format!("rate {bits}bit ceil {bits}bit burst {burst} cburst {burst} quantum {FRAME_MAX}");
        let _ = writeln!(lines, "class replace dev {device} parent 1: classid 1:{class:x} htb {rates}");
    }
    host.tc(&lines);
}

#[track_caller]
fn single_segments(host: &Host, device: &str) {
    host.ip(&format!("link set {device} gso_max_segs 1"));
}

/// Returns the rate in bits per second, the burst in bytes (ten milliseconds, as timers are late on a busy machine),
/// and the queue in bytes (a tenth of a second).
fn parameters(mbit: f64) -> (u64, u64, u64) {
    let bytes_per_ms = (mbit * 125.0) as u64;
    ((mbit * 1e6) as u64, (10 * bytes_per_ms).max(2 * FRAME_MAX), (100 * bytes_per_ms).max(10 * FRAME_MAX))
}

/// The largest frame of a shaped path, in bytes: 1,500 bytes of IP and the Ethernet header.
const FRAME_MAX: u64 = 1514;
