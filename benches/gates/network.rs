//! Networks of namespaces for the gates, and the comparison there: a link over one path, and at the same time plain TCP
//! over a path of the same kind between the same hosts.

use std::io;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::Run;
use crate::net_kit::goodput::Load;
use crate::net_kit::line::Trace;
use crate::net_kit::nodes::{Forward, Options, direct};
use crate::net_kit::playback::Playback;
use crate::net_kit::{Kind, Link, Net, has_net, has_tun};

pub type Pair = (TcpStream, TcpStream);

pub const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Returns a network with these paths. Fails where networks cannot be made.
pub fn of(kinds: &[Kind]) -> io::Result<Net> {
    if has_net() && has_tun() {
        return Ok(Net::of(kinds));
    }
    Err(io::Error::other("needs root, ip, tc, ss, nft and /dev/net/tun"))
}

/// Returns a network with paths that are as these traces begin, and what makes the paths follow them.
pub fn of_traces(traces: [(Trace, Duration); 2]) -> io::Result<(Net, [Playback; 2])> {
    let playbacks = traces.map(|(trace, shift)| Playback::new(trace, shift));
    Ok((of(&playbacks.each_ref().map(|playback| Kind::Emulated(playback.link())))?, playbacks))
}

/// Returns an emulated path with this rate in Mbit/s and this delay in each direction.
pub fn emulated(mbit: f64, delay: Duration) -> Kind {
    Kind::Emulated(Link { mbit, delay, ..Link::default() })
}

/// The options of a link over TCP, which is compared with plain TCP.
pub const TCP: &[&str] = &["--carrier", "tcp"];
/// The options of a link with the default carrier: TCP with QUIC beside it over each path.
pub const AUTO: &[&str] = &[];
/// The options of a link over QUIC.
pub const QUIC: &[&str] = &["--carrier", "quic"];

/// Starts a link over the first paths of a network, once all its subflows are live.
pub fn link_over(net: &Net, paths: usize, carrier: &[&str]) -> Forward {
    let sources: Vec<String> = (0..paths).map(|index| net.path(index).near_ip().to_string()).collect();
    let near: Vec<&str> = sources.iter().flat_map(|source| ["--path", source]).collect();
    let forward = Forward::start(net, Options { both: carrier, near: &near, ..Options::default() });
    forward.nodes.until_live(if carrier == AUTO { 2 * paths } else { paths });
    forward
}

/// Starts a link with TCP over the first path of a network and QUIC over the second, once it is striped over both.
pub fn mixed_link(net: &Net) -> Forward {
    let [tcp, quic] =
        [(0, "tcp"), (1, "quic")].map(|(path, carrier)| format!("{carrier}:{}", net.path(path).near_ip()));
    let forward = Forward::start(net, Options { near: &["--path", &tcp, "--path", &quic], ..Options::default() });
    forward.nodes.until_subflows(2);
    forward
}

/// Connects over a path, without a node.
pub fn plain(net: &Net, path: usize) -> Pair {
    let path = net.path(path);
    direct(net.near(), net.far(), path.near_ip(), path.far_ip())
}

/// Fills the connections of a link and plain connections at the same time. Returns the rates of both in Mbit/s, after
/// `warm_up`.
pub fn rates(link: Vec<Pair>, plain: Vec<Pair>, warm_up: Duration, time: Duration) -> Run {
    let loads = [Load::start(plain), Load::start(link)];
    thread::sleep(warm_up);
    rates_of(&loads[0], &loads[1], time)
}

/// Measures two running loads.
pub fn rates_of(plain: &Load, link: &Load, time: Duration) -> Run {
    let rates = Load::measure_all([plain, link], time);
    Run { plain: rates[0], beside: rates[1], ..Run::default() }
}
