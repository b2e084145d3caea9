//! The networks of the tests themselves: the rates and delays of their paths, measured with plain sockets.

use std::io;

use crate::Run;
use crate::echoes::{echo_ms, percentile};
use crate::net_kit::goodput::goodput;
use crate::net_kit::{Kind, Link, Queue, Way};
use crate::network::{self, emulated, ms, plain};
use crate::place::Place;

/// Measures the rate of a shaped path.
pub fn shaped(_: &Place) -> io::Result<Run> {
    rate_of(Kind::Rate(50.0), 1, 50.0)
}

/// Measures the rate of an emulated path. Its queue is long: a dropped packet is sent again and delays all later ones.
pub fn emulated_rate(_: &Place) -> io::Result<Run> {
    rate_of(
        Kind::Emulated(Link { mbit: 50.0, delay: ms(5), queue: Queue::Bytes(32 << 20), ..Link::default() }),
        1,
        50.0,
    )
}

/// Measures the rate of the fastest path of the gates.
pub fn fast(_: &Place) -> io::Result<Run> {
    let queue = Queue::Bytes(32 << 20);
    rate_of(Kind::Emulated(Link { mbit: 1000.0, mtu: 9000, delay: ms(1), queue, ..Link::default() }), 1, 1000.0)
}

/// Measures the rate of each connection of a path that gives each its own.
pub fn per_connection(_: &Place) -> io::Result<Run> {
    rate_of(Kind::PerConnection(5.0), 4, 20.0)
}

/// Returns the difference between the rate of this many plain connections and the expected rate, as a fraction of the
/// expected rate.
fn rate_of(kind: Kind, count: usize, expected: f64) -> io::Result<Run> {
    let net = network::of(&[kind])?;
    let pairs = || (0..count).map(|_| plain(&net, 0)).collect::<Vec<_>>();
    let out = goodput(pairs(), ms(1500), ms(1000));
    let back = goodput(pairs().into_iter().map(|(near, far)| (far, near)).collect(), ms(1500), ms(1000));
    let off = |rate: f64| (rate / expected - 1.0).abs() * 100.0;
    Ok(Run {
        plain: 0.0,
        beside: off(out).max(off(back)),
        attack: format!("{out:.1} and {back:.1} Mbit/s"),
        ..Run::default()
    })
}

/// Measures the delay of an emulated path: with 10 ms there and 20 ms back, the shortest round trip is 30 ms.
pub fn delay(_: &Place) -> io::Result<Run> {
    let net = network::of(&[emulated(f64::INFINITY, ms(10))])?;
    let path = net.path(0);
    path.link(Way::Back, |link| link.delay = ms(20));
    let (mut client, mut server) = plain(&net, 0);
    let both = percentile(&echo_ms(&mut client, &mut server, 15, ms(0))?, 0);
    path.link(Way::Both, |link| link.delay = ms(0));
    let none = percentile(&echo_ms(&mut client, &mut server, 15, ms(0))?, 0);
    if both < 30.0 {
        return Err(io::Error::other(format!("{both:.2} ms instead of 30")));
    }
    Ok(Run {
        plain: 0.0,
        beside: (both - 30.0).max(none),
        attack: format!("{both:.2} and {none:.2} ms"),
        ..Run::default()
    })
}
