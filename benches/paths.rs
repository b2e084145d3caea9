//! The rate of one connection over two unlike paths at once: through a link between two real nodes, compared with plain
//! TCP over each path alone and with the kernel's own MPTCP over both. The bench emulates the paths in a network of its
//! own, which needs root, `ip`, `tc`, `ss`, `nft` and TUN devices.
//!
//! `cargo bench --bench paths -- [SECONDS [WARM_UP_SECONDS]] [PAIR...]`, where PAIR is the index of a pair, from 0. The
//! argument `emulator` alone measures the highest rates of an emulated path on this machine.

#[path = "../tests/kit/process/mod.rs"]
mod kit;
#[path = "../tests/kit/net/mod.rs"]
mod net_kit;

use std::time::Duration;

use net_kit::goodput::goodput;
use net_kit::nodes::direct;
use net_kit::{Kind, Link, Net, Way, has_net, has_tun, pairs};

fn main() {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    if !has_net() || !has_tun() {
        return;
    }
    if std::env::args().any(|word| word == "emulator") {
        return how_fast_an_emulated_path_is();
    }
    let (time, warm_up) = (numbers.first().copied().unwrap_or(8), numbers.get(1).copied().unwrap_or(4));
    let chosen = numbers.get(2..).unwrap_or_default();
    let mut lines = vec![
        "| paths (Mbit/s, ms one way) | alone | alone | sum | link | of the sum | MPTCP | of the sum |".to_owned(),
        "| --- | --- | --- | --- | --- | --- | --- | --- |".to_owned(),
    ];
    for (place, pair) in pairs::all().iter().enumerate() {
        if !chosen.is_empty() && !chosen.contains(&(place as u64)) {
            continue;
        }
        let row = pair.measure(Duration::from_secs(warm_up), Duration::from_secs(time), true);
        let sum = row.sum();
        let kernel = match row.mptcp {
            Some(rate) => format!("{rate:.1} | {:.0} %", 100.0 * rate / sum),
            None => "- | -".to_owned(),
        };
        let [one, other] = row.alone;
        let link = format!("{:.1} | {:.0} %", row.link, 100.0 * row.share());
        lines.push(format!("| {} | {one:.1} | {other:.1} | {sum:.1} | {link} | {kernel} |", pair.name));
    }
    println!("{}", lines.join("\n"));
}

fn how_fast_an_emulated_path_is() {
    for (mbit, mtu) in
        [(100.0, 1500), (500.0, 1500), (1000.0, 1500), (1000.0, 9000), (f64::INFINITY, 1500), (f64::INFINITY, 65_000)]
    {
        let net = Net::of(&[Kind::Emulated(Link { mbit, mtu, delay: Duration::from_millis(1), ..Link::default() })]);
        let path = net.path(0);
        let pair = direct(net.near(), net.far(), path.near_ip(), path.far_ip());
        let rate = goodput(vec![pair], Duration::from_millis(300), Duration::from_secs(2));
        println!("{mbit} Mbit/s, MTU {mtu}: {rate:.0}, {:?}", path.counts(Way::Both));
    }
}
