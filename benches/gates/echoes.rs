//! The delays of echoes and new connections beside bulk transfers and stalled readers, on real paths.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::Run;
use crate::kit::Peer;
use crate::kit::Step::{Fill, Put, Read as Receive, Take};
use crate::kit::socks::{reply5, request5};
use crate::net_kit::goodput::Load;
use crate::net_kit::nodes::{Forward, Nodes, Options, front};
use crate::net_kit::{Kind, Link, Net, Queue};
use crate::network::{self, Pair, link_over, ms, plain, rates_of};
use crate::place::Place;

/// Measures the time that a bulk transfer adds to an echo: over a link that carries both, and over plain TCP with a
/// connection for each. The figure is a median: at p99 the queue of the path drops a packet, and the echo waits for one
/// more round trip.
pub fn beside_bulk(_: &Place) -> io::Result<Run> {
    let net = bulk_path()?;
    let forward = link_over(&net, 1);
    let (beside, plain) = thread::scope(|scope| {
        let plain = scope.spawn(|| added_ms([plain(&net, 1), plain(&net, 1)]));
        (added_ms([forward.pair(), forward.pair()]), plain.join().expect("a measurement"))
    });
    Ok(Run { plain: plain?, beside: beside?, attack: "one bulk transfer".into() })
}

/// Measures the rate of the bulk transfer beside echoes.
pub fn bulk_beside(_: &Place) -> io::Result<Run> {
    let net = bulk_path()?;
    let forward = link_over(&net, 1);
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

/// Returns two paths with a queue of ten milliseconds. A longer queue would add to every echo, and no program at the
/// ends of a path can avoid that.
fn bulk_path() -> io::Result<Net> {
    let link = Link { mbit: 20.0, delay: ms(5), queue: Queue::Time(ms(10)), ..Link::default() };
    network::of(&[Kind::Emulated(link), Kind::Emulated(link)])
}

/// Returns the milliseconds that a bulk transfer adds to the median of an echo.
fn added_ms([mut echo, bulk]: [Pair; 2]) -> io::Result<f64> {
    let idle = echo_ms(&mut echo.0, &mut echo.1, 100, ms(2))?;
    let _load = Load::start(vec![bulk]);
    thread::sleep(ms(500));
    let beside = echo_ms(&mut echo.0, &mut echo.1, 200, ms(8))?;
    Ok(percentile(&beside, 50) - percentile(&idle, 50))
}

/// Measures the longest of eight new connections through a link whose path of 1 Mbit/s is full, with more than 4 MiB
/// waiting.
pub fn new_connections(_: &Place) -> io::Result<Run> {
    let net = network::of(&[Kind::Rate(1.0)])?;
    let nodes = Nodes::start(&net, Options { near: &["-D", "127.0.0.1:0"], ..Options::default() });
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
    Ok(Run { plain: idle, beside: longest, attack: format!("{rate:.2} Mbit/s of bulk") })
}

/// Measures the p99 of echoes of fifty streams on a link, beside a stream whose client has stopped reading; compared
/// with a link without such a stream at the same time.
pub fn beside_stalled(_: &Place) -> io::Result<Run> {
    let nets = [network::of(&[Kind::Veth])?, network::of(&[Kind::Veth])?];
    let links = nets.each_ref().map(|net| Forward::start(net, Options::default()));
    let mut pairs = links.each_ref().map(|link| (0..50).map(|_| link.pair()).collect::<Vec<_>>());
    let (mut client, mut server) = links[1].peers();
    let offering = thread::spawn(move || {
        server.run(&[Fill(200 << 20, 300)]);
        server
    });
    client.run(&[Receive(8 << 20)]);
    let server = offering.join().map_err(|_| io::Error::other("the server of the stalled stream failed"))?;
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..20 {
        for (times, pairs) in times.iter_mut().zip(&mut pairs) {
            for (client, server) in pairs {
                times.extend(echo_ms(client, server, 2, Duration::ZERO)?);
            }
        }
    }
    let [plain, beside] = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        percentile(&times, 99)
    });
    Ok(Run { plain, beside, attack: format!("{} MiB taken of a stalled stream", server.sent >> 20) })
}

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
