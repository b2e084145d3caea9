//! The delays of echoes and new connections beside bulk transfers and stalled readers, on real paths.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::Run;
use crate::kit::Peer;
use crate::kit::Step::{Fill, Put, Read as Receive, Take};
use crate::kit::proc::rss;
use crate::kit::socks::{reply5, request5};
use crate::net_kit::goodput::Load;
use crate::net_kit::nodes::{Forward, Nodes, Options, front};
use crate::net_kit::{Kind, Link, Net, Queue, Way};
use crate::network::{self, AUTO, Pair, TCP, link_over, ms, plain, rates_of};
use crate::place::Place;

/// Measures the time that a bulk transfer adds to an echo: over a link that carries both, and over plain TCP with a
/// connection for each. The figure is the 99th percentile beside bulk, less the median without it. The queue of the path
/// holds 100 ms, which TCP fills and a link does not.
pub fn beside_bulk(carrier: &[&str]) -> io::Result<Run> {
    added_by_bulk(ms(100), 99, carrier)
}

/// Measures the same with a queue of ten milliseconds. The figure is a median: where the queue drops a packet, the echo
/// behind it waits for one more round trip.
pub fn beside_bulk_short(carrier: &[&str]) -> io::Result<Run> {
    added_by_bulk(ms(10), 50, carrier)
}

fn added_by_bulk(queue: Duration, percent: usize, carrier: &[&str]) -> io::Result<Run> {
    let net = bulk_path(queue)?;
    // Plain TCP, whose echoes take long, needs as much time for fewer of them.
    let forward = link_over(&net, 1, carrier);
    let (beside, plain) = thread::scope(|scope| {
        let plain = scope.spawn(|| added_ms([plain(&net, 1), plain(&net, 1)], 60, percent));
        (added_ms([forward.pair(), forward.pair()], 300, percent), plain.join().expect("a measurement"))
    });
    let counts = net.path(0).counts(Way::Both);
    let attack = format!("one bulk transfer, {} packets dropped, {} late", counts.dropped, counts.late);
    Ok(Run { plain: plain?, beside: beside?, attack, ..Run::default() })
}

/// Measures the rate of the bulk transfer beside echoes.
pub fn bulk_beside(_: &Place) -> io::Result<Run> {
    let net = bulk_path(ms(10))?;
    let forward = link_over(&net, 1, TCP);
    let (mut client, mut server) = forward.pair();
    let (plain, link) = (Load::start(vec![plain(&net, 1)]), Load::start(vec![forward.pair()]));
    thread::sleep(ms(500));
    thread::scope(|scope| {
        let echoes = scope.spawn(|| echo_ms(&mut client, &mut server, 150, ms(8)));
        let run = rates_of(&plain, &link, ms(1500));
        echoes.join().expect("echoes")?;
        Ok(Run { attack: "150 echoes".into(), ..run })
    })
}

/// Measures echoes beside a bulk transfer over a path that is as fast as the kernel: the 99th percentile, and beside it that without
/// the transfer.
pub fn beside_fast_bulk(_: &Place) -> io::Result<Run> {
    let net = network::of(&[Kind::Veth])?;
    let forward = link_over(&net, 1, AUTO);
    let (mut client, mut server) = forward.pair();
    let plain = percentile(&echo_ms(&mut client, &mut server, 500, ms(1))?, 99);
    let load = Load::start(vec![forward.pair()]);
    thread::sleep(ms(1000));
    let (received, since) = (load.received(), Instant::now());
    let beside = percentile(&echo_ms(&mut client, &mut server, 2000, ms(1))?, 99);
    let gbit = (load.received() - received) as f64 * 8.0 / since.elapsed().as_nanos() as f64;
    Ok(Run { plain, beside, attack: format!("{gbit:.1} Gbit/s of bulk"), ..Run::default() })
}

/// Measures the rate of a bulk transfer over such a path beside echoes, and without them.
pub fn fast_bulk_beside(_: &Place) -> io::Result<Run> {
    let net = network::of(&[Kind::Veth])?;
    let forward = link_over(&net, 1, AUTO);
    let (mut client, mut server) = forward.pair();
    let load = Load::start(vec![forward.pair()]);
    thread::sleep(ms(1000));
    let plain = load.measure(ms(1500));
    thread::scope(|scope| {
        let echoes = scope.spawn(|| echo_ms(&mut client, &mut server, 1500, ms(1)));
        let beside = load.measure(ms(1500));
        echoes.join().expect("echoes")?;
        Ok(Run { plain, beside, attack: "1,500 echoes".into(), ..Run::default() })
    })
}

/// Returns two paths of 20 Mbit/s with this queue.
fn bulk_path(queue: Duration) -> io::Result<Net> {
    let link = Link { mbit: 20.0, delay: ms(5), queue: Queue::Time(queue), ..Link::default() };
    network::of(&[Kind::Emulated(link), Kind::Emulated(link)])
}

/// Returns the milliseconds that a bulk transfer adds to an echo: this percentile of so many, less the median without it.
fn added_ms([mut echo, bulk]: [Pair; 2], count: usize, percent: usize) -> io::Result<f64> {
    let idle = echo_ms(&mut echo.0, &mut echo.1, 100, ms(2))?;
    let _load = Load::start(vec![bulk]);
    thread::sleep(ms(1000));
    let beside = echo_ms(&mut echo.0, &mut echo.1, count, ms(8))?;
    Ok(percentile(&beside, percent) - percentile(&idle, 50))
}

/// Measures the longest of eight new connections through a link whose path of 1 Mbit/s is full, with more than 4 MiB
/// waiting.
pub fn new_connections(carrier: &[&str]) -> io::Result<Run> {
    let net = network::of(&[Kind::Rate(1.0)])?;
    let nodes = Nodes::start(&net, Options { both: carrier, near: &["-D", "127.0.0.1:0"], ..Options::default() });
    let listener = net.far().inside(|| TcpListener::bind("127.0.0.1:0"))?;
    let open = || {
        let (proxy, port) = (front(&nodes.near, "socks"), listener.local_addr().map_or(0, |addr| addr.port()));
        let mut client = net.near().inside(|| Peer::connect(proxy));
        let since = Instant::now();
        client.run(&[Put(b"\x05\x01\0"), Take(b"\x05\0"), Put(&request5("127.0.0.1", port))]);
        let code = reply5(&mut client)[1];
        let took = since.elapsed().as_secs_f64() * 1000.0;
        if code == 0 { Ok((client, Peer::accept(&listener), took)) } else { Err(io::Error::other("refused")) }
    };
    let (client, server, idle) = open()?;
    let plain = |peer: &Peer| peer.socket().try_clone().map(TcpStream::from);
    let load = Load::start(vec![(plain(&client)?, plain(&server)?)]);
    let mut longest: f64 = 0.0;
    for _ in 0..8 {
        thread::sleep(ms(700));
        longest = longest.max(open()?.2);
    }
    let rate = load.measure(ms(1000));
    if rate < 0.5 {
        return Err(io::Error::other(format!("the path is not full: {rate:.2} Mbit/s")));
    }
    Ok(Run { plain: idle, beside: longest, attack: format!("{rate:.2} Mbit/s of bulk"), ..Run::default() })
}

/// Measures the p99 of echoes of a thousand streams of a link, all active at once, beside a stream whose client has
/// stopped reading; compared with a link without such a stream, and with a thousand connections of plain TCP, in turns. In
/// each round every stream has one echo. The figure is the median of the rounds: what the machine does beside it hits all of
/// them, but not the same rounds.
pub fn beside_stalled(carrier: &[&str]) -> io::Result<Run> {
    let nets = [network::of(&[Kind::Veth])?, network::of(&[Kind::Veth])?];
    let links = nets.each_ref().map(|net| Forward::start(net, Options { both: carrier, ..Options::default() }));
    let [alone, beside] = links.each_ref().map(|link| (0..STREAMS).map(|_| link.pair()).collect::<Vec<_>>());
    let pairs = [alone, beside, (0..STREAMS).map(|_| plain(&nets[0], 0)).collect()];
    for (client, server) in pairs.iter().flatten() {
        for socket in [client, server] {
            socket.set_nodelay(true)?;
            socket.set_read_timeout(Some(crate::kit::SOON))?;
        }
    }
    let (mut client, mut server) = links[1].peers();
    let offering = thread::spawn(move || {
        server.run(&[Fill(200 << 20, 300)]);
        server
    });
    client.run(&[Receive(8 << 20)]);
    let server = offering.join().map_err(|_| io::Error::other("the server of the stalled stream failed"))?;
    let memory = || [&links[1].nodes.near, &links[1].nodes.far].map(|node| rss(node.pid())).iter().sum::<u64>();
    for _ in 0..5 {
        pairs.iter().try_for_each(|pairs| round_p99_ms(pairs).map(drop))?;
    }
    let (before, mut rounds) = (memory(), [const { Vec::new() }; 3]);
    for number in 0..60 {
        for which in (0..3).map(|turn| (number + turn) % 3) {
            rounds[which].push(round_p99_ms(&pairs[which])?);
        }
    }
    let grown = memory().saturating_sub(before);
    if grown > 1 << 20 {
        return Err(io::Error::other(format!("the nodes have {} KiB more after 60 rounds", grown >> 10)));
    }
    let [alone, beside, plain] = rounds.map(|mut rounds| {
        rounds.sort_by(f64::total_cmp);
        percentile(&rounds, 50)
    });
    let taken = server.sent >> 20;
    Ok(Run {
        plain: alone,
        beside,
        attack: format!(
            "{taken} MiB taken of a stalled stream, {} KiB more memory; {plain:.2} ms by plain TCP",
            grown >> 10
        ),
        ..Run::default()
    })
}

/// Sends a byte on each stream, one after another, while the other ends send back each that arrives. Returns the 99th
/// percentile of the times until they are back, in milliseconds.
fn round_p99_ms(pairs: &[Pair]) -> io::Result<f64> {
    let (mut byte, mut answer) = ([7], [7]);
    let times = thread::scope(|scope| {
        let answering = scope.spawn(move || {
            pairs.iter().try_for_each(|pair| {
                let mut server = &pair.1;
                server.read_exact(&mut answer)?;
                server.write_all(&answer)
            })
        });
        let sent = pairs.iter().map(|pair| {
            let (mut client, now) = (&pair.0, Instant::now());
            client.write_all(&[7]).map(|()| now)
        });
        let sent = sent.collect::<io::Result<Vec<Instant>>>()?;
        let times = pairs.iter().zip(sent).map(|(pair, sent)| {
            let mut client = &pair.0;
            client.read_exact(&mut byte)?;
            Ok(sent.elapsed().as_secs_f64() * 1000.0)
        });
        let times = times.collect::<io::Result<Vec<f64>>>()?;
        answering.join().map_err(|_| io::Error::other("no answers"))??;
        io::Result::Ok(times)
    });
    let mut times = times?;
    times.sort_by(f64::total_cmp);
    Ok(percentile(&times, 99))
}

/// The streams beside a stalled reader.
const STREAMS: usize = 1000;

/// Sends this many bytes there and back, one after another, with pauses. Returns the times in milliseconds, the
/// shortest first.
pub fn echo_ms(client: &mut TcpStream, server: &mut TcpStream, count: usize, pause: Duration) -> io::Result<Vec<f64>> {
    let (mut from, mut times) = (server.try_clone()?, Vec::new());
    for socket in [&*client, &*server] {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(crate::kit::SOON))?;
    }
    let answering = thread::spawn(move || -> io::Result<()> {
        for _ in 0..count {
            let mut byte = [0];
            from.read_exact(&mut byte)?;
            from.write_all(&byte)?;
        }
        Ok(())
    });
    for number in 0..count {
        thread::sleep(pause);
        let (since, mut byte) = (Instant::now(), [0]);
        client.write_all(&[number as u8])?;
        client.read_exact(&mut byte)?;
        times.push(since.elapsed().as_secs_f64() * 1000.0);
    }
    answering.join().map_err(|_| io::Error::other("no answers"))??;
    times.sort_by(f64::total_cmp);
    Ok(times)
}

pub fn percentile(times: &[f64], percent: usize) -> f64 {
    times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}
