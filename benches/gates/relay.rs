//! The relay of the binary on loopback: the delay that it adds, and one connection beside others.

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::{Duration, Instant};

use crate::Run;
use crate::kit::Step::{Fin, Pause, Read, ReadAll, ReadSlowly, Send};
use crate::kit::names::{black_hole, isolated};
use crate::kit::peer::both;
use crate::kit::socks::code5;
use crate::kit::{Peer, Relay, Scratch, Seaprox, has_namespaces, proc, until};
use crate::place::Place;

const MIB: u64 = 1 << 20;

/// Measures the time that the relay adds to the median round trip of a byte, compared with a direct connection at the
/// same time.
pub fn byte(_: &Place) -> io::Result<Run> {
    let relay = Relay::start(&["-q"]);
    let mut direct = (Peer::connect(relay.listener.local_addr()?), Peer::accept(&relay.listener));
    let mut relayed = relay.pair();
    let (mut plain, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..500 {
        plain.push(ping_ms(&mut direct));
        beside.push(ping_ms(&mut relayed));
    }
    let (plain, beside) = (crate::median(plain.into_iter()), crate::median(beside.into_iter()));
    Ok(Run { plain, beside: beside - plain, attack: format!("{beside:.3} ms relayed"), ..Run::default() })
}

/// Measures the median round trip of two small writes shortly after one another. The second must not wait for the
/// acknowledgement of the first, which takes 40 ms when the reader has nothing to send.
pub fn two_writes(_: &Place) -> io::Result<Run> {
    let relay = Relay::start(&["-q"]);
    let (mut client, mut server) = relay.pair();
    let times = (0..21).map(|_| {
        let since = Instant::now();
        client.run(&[Send(1), Pause(2), Send(1)]);
        server.run(&[Read(2), Send(1), Pause(2), Send(1)]);
        client.run(&[Read(2)]);
        since.elapsed().as_secs_f64() * 1000.0
    });
    Ok(Run { plain: 0.0, beside: crate::median(times), attack: "21 of them".into(), ..Run::default() })
}

/// Measures the median round trip of a byte beside a transfer of a gibibyte, compared with none.
pub fn beside_transfer(_: &Place) -> io::Result<Run> {
    let relay = Relay::start(&["-q"]);
    let mut pair = relay.pair();
    let (mut sender, mut reader) = relay.pair();
    let plain = crate::median((0..300).map(|_| ping_ms(&mut pair))).max(0.05);
    thread::scope(|scope| {
        let transfer = scope.spawn(|| both(&mut sender, &[Send(1 << 30), Fin, ReadAll], &mut reader, &[ReadAll, Fin]));
        until("the transfer has begun", || relay.seaprox.figure("/connections/1/source/bytes_in") > MIB);
        let beside = crate::median((0..100).map(|_| ping_ms(&mut pair)));
        if transfer.is_finished() {
            return Err(io::Error::other("the transfer ended too soon"));
        }
        Ok(Run { plain, beside, attack: "a transfer of 1 GiB".into(), ..Run::default() })
    })
}

fn ping_ms((client, server): &mut (Peer, Peer)) -> f64 {
    let since = Instant::now();
    client.run(&[Send(1)]);
    server.run(&[Read(1), Send(1)]);
    client.run(&[Read(1)]);
    since.elapsed().as_secs_f64() * 1000.0
}

/// Measures the time of a hundred slow readers with splice, compared with copying (haproxy/haproxy#901).
pub fn slow_readers(_: &Place) -> io::Result<Run> {
    let scratch = Scratch::new();
    let path = scratch.file("server");
    let listener = UnixListener::bind(&path)?;
    let to = format!("unix:{path}");
    let time = |options: &[&str]| -> io::Result<f64> {
        let seaprox = Seaprox::start(&[&["static", "-q", "--listen", "127.0.0.1:0", "--to", &to], options].concat());
        let since = Instant::now();
        thread::scope(|scope| {
            for _ in 0..100 {
                let mut client = Peer::connect_narrow(seaprox.addr(0));
                let mut server = Peer::of(OwnedFd::from(listener.accept()?.0).into(), false);
                scope.spawn(move || _ = server.run(&[Send(MIB), Fin]));
                scope.spawn(move || _ = client.run(&[ReadSlowly(MIB / 2, 32 << 10, 2), ReadAll]));
            }
            Ok::<(), io::Error>(())
        })?;
        Ok(since.elapsed().as_secs_f64())
    };
    let beside = time(&[])?;
    Ok(Run { plain: time(&["--no-splice"])?, beside, attack: "100 of them".into(), ..Run::default() })
}

/// Measures the processor time of a stream of 20 Mbit/s whose reader reads small pieces, in percent
/// (3proxy/3proxy#366).
pub fn throttled(_: &Place) -> io::Result<Run> {
    let relay = Relay::start(&["-q"]);
    let (mut client, mut server) = relay.pair();
    let pid = relay.seaprox.pid();
    let (cost, time) = thread::scope(|scope| {
        scope.spawn(move || _ = client.run(&[Send(6 * MIB), Fin, ReadAll]));
        until("the stream has begun", || relay.seaprox.figure("/usage/connections") == 1);
        let (before, since) = (proc::cpu_ms(pid), Instant::now());
        server.run(&[ReadSlowly(5 * MIB, 12_500, 5), ReadAll, Fin]);
        (proc::cpu_ms(pid) - before, since.elapsed())
    });
    Ok(Run {
        plain: 0.0,
        beside: 100.0 * cost as f64 / time.as_millis() as f64,
        attack: format!("{cost} ms"),
        ..Run::default()
    })
}

/// Measures the time until the next address of a name is tried when the first does not answer; it is 250 ms.
pub fn next_address(_: &Place) -> io::Result<Run> {
    if !has_namespaces() {
        return Err(io::Error::other("needs root, ip and nft"));
    }
    let mut took = Duration::ZERO;
    isolated("2001:db8::7 holed\n127.0.0.1 holed\n", |_| {
        black_hole();
        let four = TcpListener::bind("127.0.0.1:0").expect("a port");
        let proxy = Seaprox::start(&["socks", "-q", "--listen", "127.0.0.1:0"]);
        let since = Instant::now();
        assert_eq!(code5(proxy.addr(0), "holed", four.local_addr().expect("the listener's address").port()), 0);
        took = since.elapsed();
    });
    Ok(Run {
        plain: 250.0,
        beside: took.as_secs_f64() * 1000.0,
        attack: "an address that does not answer".into(),
        ..Run::default()
    })
}
