//! The rate of links over real paths, compared with plain TCP at the same time.

use std::io;
use std::thread;
use std::time::Duration;

use crate::kit::Step::{Fill, Read};
use crate::net_kit::goodput::{Load, goodput, goodputs};
use crate::net_kit::line::Trace;
use crate::net_kit::nodes::{Forward, Options};
use crate::net_kit::playback::follow;
use crate::net_kit::{Kind, Link, Net, Way, pairs};
use crate::network::{self, Pair, TCP, emulated, link_over, mixed_link, ms, plain, rates, rates_of};
use crate::place::Place;
use crate::{Floor, Run};

/// Measures one stream over a link on a path of 100 Mbit/s.
pub fn one_stream(place: &Place) -> io::Result<Run> {
    streams(place, 1)
}

/// Measures 64 streams together over a link on this path.
pub fn many_streams(place: &Place) -> io::Result<Run> {
    streams(place, 64)
}

/// Measures 512 streams together over a link on this path.
pub fn very_many_streams(place: &Place) -> io::Result<Run> {
    streams(place, 512)
}

fn streams(_: &Place, count: usize) -> io::Result<Run> {
    let net = network::of(&[Kind::Rate(100.0), Kind::Rate(100.0)])?;
    let forward = link_over(&net, 1, TCP);
    let pairs = (0..count).map(|_| forward.pair()).collect();
    Ok(rates(pairs, vec![plain(&net, 1)], ms(1000), ms(2000)))
}

/// Measures one stream beside another whose client has stopped reading.
pub fn beside_stalled(_: &Place) -> io::Result<Run> {
    let net = network::of(&[Kind::Rate(100.0), Kind::Rate(100.0)])?;
    let forward = link_over(&net, 1, TCP);
    let (mut client, mut server) = forward.peers();
    let offering = thread::spawn(move || {
        server.run(&[Fill(100 << 20, 300)]);
        server
    });
    client.run(&[Read(4 << 20)]);
    let server = offering.join().map_err(|_| io::Error::other("the server of the stalled stream failed"))?;
    let run = rates(vec![forward.pair()], vec![plain(&net, 1)], ms(500), ms(2000));
    Ok(Run { attack: format!("{} MiB taken of a stalled stream", server.sent >> 20), ..run })
}

/// Measures four subflows on a path that gives each TCP connection 5 Mbit/s.
pub fn capped(_: &Place) -> io::Result<Run> {
    let net = network::of(&[Kind::PerConnection(5.0)])?;
    let forward = Forward::start(&net, Options { both: TCP, near: &["--subflows", "4"], ..Options::default() });
    forward.nodes.until_subflows(4);
    Ok(rates(vec![forward.pair()], vec![plain(&net, 0)], ms(1000), ms(3000)))
}

/// Measures one stream over two paths. The pair is that of this index, in the reverse order if `reversed`.
pub fn two_paths(index: usize, reversed: bool, carrier: &[&str]) -> io::Result<Run> {
    let mut kinds = pairs::all()[index].paths.map(Kind::Emulated);
    if reversed {
        kinds.reverse();
    }
    over(&kinds, carrier)
}

/// Measures one stream over two unequal paths, by TCP over the faster one and by QUIC over the other.
pub fn mixed_paths() -> io::Result<Run> {
    let net = network::of(&pairs::all()[1].paths.map(Kind::Emulated))?;
    Ok(in_turns(&net, 2, mixed_link(&net), |pairs| goodputs(pairs, WARM_UP, TIME)))
}

/// Measures one stream over six paths of the same kind, or over six unlike ones.
pub fn six_paths(are_alike: bool) -> io::Result<Run> {
    let kinds = [(50.0, 10), (30.0, 20), (20.0, 30), (10.0, 50), (5.0, 70), (2.0, 100)]
        .map(|(mbit, delay)| emulated(if are_alike { 20.0 } else { mbit }, ms(if are_alike { 10 } else { delay })));
    over(&kinds, TCP)
}

/// Measures one stream over these paths.
pub fn over(kinds: &[Kind], carrier: &[&str]) -> io::Result<Run> {
    let net = network::of(kinds)?;
    let count = kinds.len();
    Ok(in_turns(&net, count, link_over(&net, count, carrier), |pairs| goodputs(pairs, WARM_UP, TIME)))
}

/// Measures one stream over two paths whose rates and delays follow traces, compared with what the paths carry.
pub fn changing_paths(traces: [(Trace, Duration); 2]) -> io::Result<Run> {
    let (warm_up, time) = (ms(2000), ms(20_000));
    let (net, playbacks) = network::of_traces(traces)?;
    let link = link_over(&net, 2, TCP);
    let run = in_turns(&net, 2, link, |pairs| follow(&net, &playbacks, || goodputs(pairs, warm_up, time)));
    let carried = playbacks.iter().map(|playback| playback.mbit(warm_up, warm_up + time)).sum::<f64>();
    // The payload of a packet of TCP with a timestamp.
    Ok(Run { plain: carried * 1448.0 / 1500.0, ..run })
}

/// Measures one stream of a link, which ends then, over the first `count` paths of a network, then one connection of MPTCP over the
/// same paths, then plain connections, one over each, at the same time: a machine with two processors does not carry all of them at once. The
/// figure for comparison is the sum of the plain ones. The link must reach MPTCP, where the kernel has it, and nearly the best
/// path alone.
pub fn in_turns(net: &Net, count: usize, forward: Forward, measure: impl Fn(Vec<Pair>) -> Vec<f64>) -> Run {
    let link = measure(vec![forward.pair()]);
    drop(forward);
    // The listener lives as long as the connection.
    let kernel = pairs::mptcp(net, 0..count).map(|(_listener, pair)| measure(vec![pair]));
    let plain = measure((0..count).map(|path| plain(net, path)).collect());
    let best = plain.iter().copied().fold(0.0, f64::max);
    let kernel = kernel.map(|rates| Floor { name: "MPTCP", figure: rates[0], least: 1.0 });
    let floors = kernel.into_iter().chain([Floor { name: "the best path alone", figure: best, least: 0.98 }]);
    let late = (0..count).map(|path| net.path(path).counts(Way::Both).late).sum::<u64>();
    Run { plain: plain.iter().sum(), beside: link[0], attack: format!("{late} packets late"), floors: floors.collect() }
}

/// Measures one stream over a path of 1 Gbit/s with a round trip of 100 ms, and plain TCP over the same path before. The
/// path has packets of 9,000 bytes, of which the emulator carries so many.
pub fn long_fat(carrier: &[&str]) -> io::Result<Run> {
    let net = network::of(&[Kind::Emulated(Link { mbit: 1000.0, mtu: 9000, delay: ms(50), ..Link::default() })])?;
    // The sockets of both have to be able to hold what is under way.
    for (host, name) in [net.near(), net.far()].iter().flat_map(|host| [(host, "tcp_rmem"), (host, "tcp_wmem")]) {
        if !host.sysctl(&format!("net/ipv4/{name}"), "4096 131072 67108864") {
            return Err(io::Error::other(format!("{name} cannot be set")));
        }
    }
    let alone = goodput(vec![plain(&net, 0)], ms(6000), ms(6000));
    if alone < 500.0 {
        return Err(io::Error::other(format!("the machine does not carry it: plain TCP has {alone:.0} Mbit/s")));
    }
    let forward = link_over(&net, 1, carrier);
    let beside = goodput(vec![forward.pair()], ms(6000), ms(6000));
    let late = net.path(0).counts(Way::Both).late;
    Ok(Run { plain: alone, beside, attack: format!("{late} packets late"), ..Run::default() })
}

/// Measures the first seconds over two paths of the same rate, one with six times the delay, for which the kernel still
/// reports a low rate. The plain connections are warm: the figure shows how soon the link reaches their rate.
pub fn farther_path(_: &Place) -> io::Result<Run> {
    let [one, other] = pairs::all()[2].paths.map(Kind::Emulated);
    let net = network::of(&[one, other, one, other])?;
    let forward = link_over(&net, 2, TCP);
    let plain = Load::start(vec![plain(&net, 2), plain(&net, 3)]);
    thread::sleep(ms(2000));
    let link = Load::start(vec![forward.pair()]);
    thread::sleep(ms(1000));
    Ok(rates_of(&plain, &link, ms(2000)))
}

/// Measures the ten seconds after one of two paths has become slow.
pub fn slow_path(_: &Place) -> io::Result<Run> {
    let net = network::of(&[Kind::Rate(20.0), Kind::Rate(20.0), Kind::Rate(20.0)])?;
    let forward = link_over(&net, 2, TCP);
    let (plain, link) = (Load::start(vec![plain(&net, 2)]), Load::start(vec![forward.pair()]));
    thread::sleep(ms(1000));
    let before = rates_of(&plain, &link, ms(1000));
    // The figure has no meaning if the link did not use both paths before.
    if before.beside < 1.5 * before.plain {
        return Err(io::Error::other(format!("{:.1} Mbit/s over both paths before", before.beside)));
    }
    net.path(1).set_rate(0.1);
    let run = rates_of(&plain, &link, Duration::from_secs(10));
    Ok(Run { attack: format!("{:.1} Mbit/s over both paths before", before.beside), ..run })
}

/// The farthest paths, at 100 ms each way, need some seconds until TCP fills them.
const WARM_UP: Duration = ms(4000);
const TIME: Duration = ms(5000);
