//! Links over two paths as they are in the field: with a deep buffer, with losses toward the reader, with the rates and delays of
//! mobile networks, and with cuts.

use std::io;
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use crate::echoes::percentile;
use crate::net_kit::echoes::echo_ms;
use crate::net_kit::goodput::{Load, goodput, goodputs};
use crate::net_kit::line::Trace;
use crate::net_kit::nodes::PORT;
use crate::net_kit::playback::follow;
use crate::net_kit::{Kind, Link, Net, Queue, Way};
use crate::network::{self, TCP, emulated, link_over, ms, plain};
use crate::place::Place;
use crate::{Run, rates};

type Traces = [(Trace, Duration); 2];

pub fn lte_lte() -> Traces {
    [(Trace::written_lte(), ms(0)), (Trace::written_lte(), ms(30_000))]
}

pub fn lte_wifi() -> Traces {
    [(Trace::written_lte(), ms(0)), (Trace::written_wifi(), ms(0))]
}

pub fn satellite_lte() -> Traces {
    [(Trace::written_satellite(), ms(0)), (Trace::written_lte(), ms(0))]
}

/// Measures one stream over a path of 10 Mbit/s with two seconds of buffer and one of 20 Mbit/s.
pub fn bloated(_: &Place) -> io::Result<Run> {
    rates::over(&bloated_paths(), TCP)
}

/// Measures the longest time without a byte over the same paths; compared with plain TCP over the shorter one.
pub fn bloated_gap(_: &Place) -> io::Result<Run> {
    let net = network::of(&bloated_paths())?;
    let gap = |pair| {
        let load = Load::start(vec![pair]);
        thread::sleep(ms(2000));
        load.longest_gap();
        thread::sleep(ms(10_000));
        figure(load.longest_gap())
    };
    let beside = gap(link_over(&net, 2, TCP).pair());
    Ok(Run { plain: gap(plain(&net, 1)), beside, attack: "for 10 s".to_owned(), ..Run::default() })
}

fn bloated_paths() -> [Kind; 2] {
    let bloated = Link { mbit: 10.0, delay: ms(10), queue: Queue::Time(ms(2000)), ..Link::default() };
    [Kind::Emulated(bloated), emulated(20.0, ms(10))]
}

/// Measures one stream over two paths of 20 Mbit/s. One of them loses this part of the packets toward the reader.
pub fn lossy(loss: f64) -> io::Result<Run> {
    let net = network::of(&[emulated(20.0, ms(20)), emulated(20.0, ms(20))])?;
    net.path(1).link(Way::Out, |link| link.loss = loss);
    Ok(rates::in_turns(&net, 2, link_over(&net, 2, TCP), |pairs| goodputs(pairs, ms(4000), ms(10_000))))
}

/// Measures one stream over a path that loses 2 % of the packets toward the reader, with BBR. The figure for comparison is that of
/// plain TCP with BBR, measured first.
pub fn lossy_with_bbr(_: &Place) -> io::Result<Run> {
    let net = network::of(&[emulated(20.0, ms(10))])?;
    net.path(0).link(Way::Out, |link| link.loss = 0.02);
    let alone = {
        let pair = plain(&net, 0);
        for end in [&pair.0, &pair.1] {
            SockRef::from(end).set_tcp_congestion(b"bbr")?;
        }
        goodput(vec![pair], ms(4000), ms(10_000))
    };
    let beside = goodput(vec![link_over(&net, 1, BBR).pair()], ms(4000), ms(10_000));
    Ok(Run { plain: alone, beside, ..Run::default() })
}

/// Measures the 99th percentile of echoes beside a bulk stream while the paths follow traces. The figure for comparison is the
/// median.
pub fn echoes_beside_bulk(traces: Traces, options: &[&str]) -> io::Result<Run> {
    let (net, playbacks) = network::of_traces(traces)?;
    let forward = link_over(&net, 2, options);
    let (mut times, rate) = follow(&net, &playbacks, || {
        let load = Load::start(vec![forward.pair()]);
        thread::sleep(ms(2000));
        let before = load.received();
        let times = echo_ms(forward.pair(), TIME)?;
        io::Result::Ok((times, (load.received() - before) as f64 * 8e-6 / TIME.as_secs_f64()))
    })?;
    times.sort_by(f64::total_cmp);
    let attack = format!("{} echoes, {rate:.1} Mbit/s of bulk", times.len());
    Ok(Run { plain: percentile(&times, 50), beside: percentile(&times, 99), attack, ..Run::default() })
}

/// Measures one stream of a link that uses one path at a time while the paths follow traces; compared with plain TCP over the
/// better one.
pub fn single(traces: Traces) -> io::Result<Run> {
    let (net, playbacks) = network::of_traces(traces)?;
    let measure = |pairs| follow(&net, &playbacks, || goodputs(pairs, ms(2000), TIME));
    let beside = {
        let forward = link_over(&net, 2, SINGLE);
        measure(vec![forward.pair()])[0]
    };
    let alone = measure(vec![plain(&net, 0), plain(&net, 1)]);
    let best = alone.iter().copied().fold(0.0, f64::max);
    Ok(Run { plain: best, beside, attack: format!("{:.1} and {:.1} alone", alone[0], alone[1]), ..Run::default() })
}

/// Ends what passes over a path, and leaves it so for a while.
type Cut = fn(&Net, usize);

pub const HOLE: Cut = |net, path| net.path(path).black_hole(Way::Both);
pub const RESET: Cut = |net, path| _ = net.path(path).reset(PORT);
pub const REFUSAL: Cut = |net, path| net.path(path).refuse(PORT);
/// The rate falls to a two-hundredth.
pub const COLLAPSE: Cut = |net, path| net.path(path).set_rate(MBIT / 200.0);

/// Measures the gaps in one stream that the cuts of one of two paths cause, by turns. The figure is the 99th percentile, and the
/// one for comparison the median, which has a limit too.
pub fn cuts(cut: Cut) -> io::Result<Run> {
    let deep = Link { mbit: MBIT, delay: ms(10), queue: Queue::Time(ms(250)), ..Link::default() };
    let net = network::of(&[Kind::Emulated(deep), Kind::Emulated(deep)])?;
    let forward = link_over(&net, 2, TCP);
    let load = Load::start(vec![forward.pair()]);
    let mut gaps = Vec::new();
    for number in 0..CUTS {
        // A path is full again.
        thread::sleep(ms(1500));
        load.longest_gap();
        cut(&net, number % 2);
        thread::sleep(ms(1500));
        gaps.push(figure(load.longest_gap()));
        net.path(number % 2).heal();
        net.path(number % 2).set_rate(MBIT);
        forward.nodes.until_live(2);
    }
    gaps.sort_by(f64::total_cmp);
    let (median, late) = (percentile(&gaps, 50), percentile(&gaps, 99));
    if median > MEDIAN_MAX {
        return Err(io::Error::other(format!(
            "the median is {median:.0} ms, limit {MEDIAN_MAX}, and p99 {late:.0} ms"
        )));
    }
    Ok(Run { plain: median, beside: late, attack: format!("{CUTS} cuts"), ..Run::default() })
}

fn figure(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

pub const REDUNDANT: &[&str] = &["--carrier", "tcp", "--mode", "redundant"];
const SINGLE: &[&str] = &["--carrier", "tcp", "--mode", "single"];
const BBR: &[&str] = &["--carrier", "tcp", "--congestion", "bbr"];
/// The time of a measurement on traces.
const TIME: Duration = ms(20_000);
const MBIT: f64 = 40.0;
const CUTS: usize = 50;
/// Milliseconds.
const MEDIAN_MAX: f64 = 300.0;
