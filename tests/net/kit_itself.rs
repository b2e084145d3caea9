//! The networks of `net_kit` themselves: rates, delays, losses, faults, counters and captures, each tested with plain
//! sockets.

use crate::kit;
use crate::net_kit;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use net_kit::{Host, Kind, Link, Net, Path, Queue, Way, has_net, has_tun, own_ip};

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Connects from one host to an address of the other, and returns both ends.
fn connect_to(near: &Host, far: &Host, from: Ipv4Addr, to: Ipv4Addr) -> (TcpStream, TcpStream) {
    let listener = far.inside(|| TcpListener::bind((to, 0)).unwrap());
    let addr = listener.local_addr().unwrap();
    let client = near.inside(|| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
        socket.connect_timeout(&addr.into(), kit::SOON).unwrap();
        TcpStream::from(socket)
    });
    let (server, _) = listener.accept().unwrap();
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(kit::SOON)).unwrap();
    }
    (client, server)
}

/// Connects over a path, and returns both ends.
fn connect(net: &Net, path: &Path) -> (TcpStream, TcpStream) {
    connect_to(net.near(), net.far(), path.near_ip(), path.far_ip())
}

/// Sends this many bytes over each connection, and returns the time until the last of them has arrived.
fn time_of(pairs: &mut [(TcpStream, TcpStream)], bytes: usize) -> Duration {
    let since = Instant::now();
    thread::scope(|scope| {
        for (from, to) in pairs {
            scope.spawn(move || from.write_all(&vec![7; bytes]).unwrap());
            scope.spawn(move || to.read_exact(&mut vec![0; bytes]).unwrap());
        }
    });
    since.elapsed()
}

/// Asserts that bytes are not faster than a rate in Mbit/s. The first tenth may pass at once, as the burst of a shaper.
/// The gates (`make gates`) measure that they are not slower either.
#[track_caller]
fn assert_no_faster_than(mbit: f64, mut pairs: Vec<(TcpStream, TcpStream)>, bytes: usize) {
    let took = time_of(&mut pairs, bytes);
    let least = Duration::from_secs_f64((pairs.len() * bytes) as f64 * 8e-6 / mbit * 0.9);
    println!("{} times {bytes} bytes at {mbit} Mbit/s: {took:?}, at least {least:?}", pairs.len());
    assert!(took >= least, "{took:?}");
}

/// Returns the round-trip time of one byte; the smallest of several, as this test may wait for a processor.
fn round_trip(client: &mut TcpStream, server: &mut TcpStream) -> Duration {
    let time = |_| {
        let since = Instant::now();
        client.write_all(b"a").unwrap();
        server.read_exact(&mut [0]).unwrap();
        server.write_all(b"b").unwrap();
        client.read_exact(&mut [0]).unwrap();
        since.elapsed()
    };
    (0..15).map(time).min().unwrap()
}

/// Returns true if a byte that is sent arrives.
fn passes(from: &mut TcpStream, to: &mut TcpStream) -> bool {
    arrives_within(from, to, kit::SOON)
}

/// Returns true if a byte that is sent does not arrive for a while.
fn is_lost(from: &mut TcpStream, to: &mut TcpStream) -> bool {
    !arrives_within(from, to, ms(300))
}

fn arrives_within(from: &mut TcpStream, to: &mut TcpStream, time: Duration) -> bool {
    from.write_all(b"x").unwrap();
    to.set_read_timeout(Some(time)).unwrap();
    let result = to.read_exact(&mut [0]);
    to.set_read_timeout(Some(kit::SOON)).unwrap();
    result.is_ok()
}

#[track_caller]
fn assert_reset(stream: &mut TcpStream) {
    let error = stream.read(&mut [0; 64]).expect_err("an error, not an end or bytes");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
}

#[test]
fn a_path_is_no_faster_than_its_rate() {
    if !has_net() || !has_tun() {
        return;
    }
    let slow = Link { mbit: 50.0, delay: ms(5), ..Link::default() };
    let net = Net::of(&[Kind::Rate(50.0), Kind::Emulated(slow)]);
    for index in [0, 1] {
        let path = net.path(index);
        assert_no_faster_than(50.0, vec![connect(&net, path)], 4_000_000);
        path.set_rate(20.0);
        let before = path.bytes();
        let (near, far) = connect(&net, path);
        assert_no_faster_than(20.0, vec![(far, near)], 2_000_000);
        let bytes = path.bytes().back - before.back;
        assert!(bytes > 2_000_000, "only {bytes} bytes counted of two million");
    }
    println!("{:?}", net.path(1).counts(Way::Both));
}

#[test]
fn each_connection_has_a_rate_of_its_own() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::PerConnection(5.0)]);
    let path = net.path(0);
    let pairs = |count| (0..count).map(|_| connect(&net, path)).collect::<Vec<_>>();
    assert_no_faster_than(5.0, pairs(1), 500_000);
    assert_no_faster_than(20.0, pairs(4), 500_000);
    path.set_rate(10.0);
    let back = pairs(2).into_iter().map(|(near, far)| (far, near)).collect();
    assert_no_faster_than(20.0, back, 500_000);
}

/// Gate `kit-delay` measures that the delay is not longer either.
#[test]
fn a_path_has_at_least_the_configured_delay() {
    if !has_net() || !has_tun() {
        return;
    }
    let net = Net::of(&[Kind::Emulated(Link { delay: ms(10), ..Link::default() })]);
    let path = net.path(0);
    let (mut client, mut server) = connect(&net, path);
    path.link(Way::Back, |link| link.delay = ms(20));
    let both = round_trip(&mut client, &mut server);
    path.link(Way::Both, |link| link.delay = Duration::ZERO);
    let none = round_trip(&mut client, &mut server);
    println!("{both:?} for a delay of 30 ms, {none:?} for no delay, {:?}", path.counts(Way::Both));
    assert!(both >= ms(30), "{both:?}");
    assert!(none < ms(30), "{none:?}");
}

#[test]
fn packet_loss_follows_the_seed_and_a_full_queue_drops() {
    if !has_net() || !has_tun() {
        return;
    }
    let run = |seed| {
        let net = Net::of(&[Kind::Emulated(Link { loss: 0.1, seed, ..Link::default() })]);
        let path = net.path(0);
        let from = net.near().inside(|| UdpSocket::bind((path.near_ip(), 0)).unwrap());
        let to = net.far().inside(|| UdpSocket::bind((path.far_ip(), 0)).unwrap());
        to.set_nonblocking(true).unwrap();
        let (mut arrived, mut buf) = (Vec::new(), [0; 4]);
        for number in 0..1000_u32 {
            let counted = || path.counts(Way::Out).packets + path.counts(Way::Out).lost;
            let before = counted();
            from.send_to(&number.to_be_bytes(), to.local_addr().unwrap()).unwrap();
            while counted() == before {
                thread::yield_now();
            }
            if to.recv(&mut buf).is_ok() {
                arrived.push(u32::from_be_bytes(buf));
            }
        }
        println!("{} of 1000 arrived", arrived.len());
        assert!((860..940).contains(&arrived.len()));
        // More packets than the queue of 20 holds, at a rate that transmits almost none of them meanwhile.
        path.link(Way::Out, |link| (link.mbit, link.queue, link.loss) = (0.001, Queue::Bytes(20_000), 0.0));
        for _ in 0..50 {
            from.send_to(&[0; 972], to.local_addr().unwrap()).unwrap();
        }
        kit::until("the queue is full", || path.counts(Way::Out).dropped >= 29);
        assert!(path.counts(Way::Out).dropped <= 30);
        arrived
    };
    let (one, same, other) = (run(1), run(1), run(2));
    assert!(one == same && one != other);
}

#[test]
fn a_black_hole_stops_one_direction_or_both_and_heals() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Veth, Kind::Veth]);
    let path = net.path(0);
    for (way, out, back) in [(Way::Both, false, false), (Way::Out, false, true), (Way::Back, true, false)] {
        let (mut near, mut far) = connect(&net, path);
        assert!(passes(&mut near, &mut far) && passes(&mut far, &mut near));
        path.black_hole(way);
        let is_as_expected = |from: &mut TcpStream, to: &mut TcpStream, expected| {
            if expected { passes(from, to) } else { is_lost(from, to) }
        };
        assert!(is_as_expected(&mut far, &mut near, back), "{way:?}");
        assert!(is_as_expected(&mut near, &mut far, out), "{way:?}");
        let (mut other_near, mut other_far) = connect(&net, net.path(1));
        assert!(passes(&mut other_near, &mut other_far), "the other path still works");
        path.heal();
        // The bytes that were sent meanwhile arrive by themselves.
        if !out {
            far.read_exact(&mut [0]).unwrap();
        }
        if !back {
            near.read_exact(&mut [0]).unwrap();
        }
        assert!(passes(&mut near, &mut far) && passes(&mut far, &mut near), "{way:?} is healed");
    }
}

#[test]
fn idle_and_busy_connections_can_be_reset() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Veth, Kind::Veth]);
    let (path, other) = (net.path(0), net.path(1));
    let (mut near, mut far) = connect(&net, path);
    let (mut other_near, mut other_far) = connect(&net, other);
    let port = far.local_addr().unwrap().port();
    assert_eq!(path.connections(), [(near.local_addr().unwrap(), far.local_addr().unwrap())]);
    for host in [net.near(), net.far()] {
        let (seen, expected) = (host.run("ss -tinH state established"), host.route_options().replace("congctl ", ""));
        assert!(seen.contains(&expected) && !seen.contains("bbr"), "{seen}");
    }
    assert_eq!(path.reset(port), 1);
    assert_reset(&mut near);
    assert!(far.read(&mut [0]).is_err());
    assert_eq!(path.connections(), []);
    assert_eq!(path.reset(port), 0, "no connection is left");
    assert!(passes(&mut other_near, &mut other_far), "a connection over another path and port still works");

    let (mut near, mut far) = connect(&net, path);
    path.refuse(far.local_addr().unwrap().port());
    near.write_all(b"x").unwrap();
    assert_reset(&mut near);
    far.write_all(b"x").unwrap();
    assert_reset(&mut far);
    path.heal();
    let (mut near, mut far) = connect(&net, path);
    assert!(passes(&mut near, &mut far));
}

#[test]
fn a_nat_hides_the_near_end_and_can_forget_it() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Nat]);
    let path = net.path(0);
    let (mut near, mut far) = connect(&net, path);
    assert_eq!(far.peer_addr().unwrap().ip(), Ipv4Addr::new(10, 77, 1, 1));
    assert_ne!(far.peer_addr().unwrap().ip(), path.near_ip());
    assert!(passes(&mut near, &mut far) && passes(&mut far, &mut near));

    path.nat().rebind();
    assert!(is_lost(&mut far, &mut near), "packets to the old port are dropped");
    near.write_all(b"x").unwrap();
    assert_reset(&mut near);

    let (mut near, mut far) = connect(&net, path);
    assert!(passes(&mut near, &mut far) && passes(&mut far, &mut near));
    path.nat().forget();
    assert!(is_lost(&mut near, &mut far) && is_lost(&mut far, &mut near), "silence");
    let (mut near, mut far) = connect(&net, path);
    assert!(passes(&mut near, &mut far) && passes(&mut far, &mut near), "a new connection works");
}

#[test]
fn the_address_of_a_path_can_be_changed() {
    if !has_net() {
        return;
    }
    let mut kinds = vec![Kind::Veth, Kind::Nat];
    kinds.extend(has_tun().then(|| Kind::Emulated(Link::default())));
    let net = Net::of(&kinds);
    for index in 0..kinds.len() {
        let path = net.path(index);
        let (mut near, mut far) = connect(&net, path);
        let old = path.near_ip();
        assert!(passes(&mut near, &mut far));
        path.change_address(7);
        assert!(path.near_ip() != old && path.near_ip().octets()[3] == 7);
        assert!(is_lost(&mut near, &mut far) && is_lost(&mut far, &mut near), "{old} is gone");
        let (mut near, mut far) = connect(&net, path);
        assert!(passes(&mut near, &mut far) && passes(&mut far, &mut near));
        let (mut near, mut far) = connect_to(net.near(), net.far(), path.near_ip(), own_ip(1));
        assert!(passes(&mut near, &mut far) && passes(&mut far, &mut near));
    }
}

#[test]
fn a_program_runs_in_its_host() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Veth]);
    let origin = net.far().inside(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let to = origin.local_addr().unwrap().to_string();
    let args = ["static", "--listen", "0.0.0.0:0", "--to", &to];
    let relay = kit::Seaprox::start_with(&args, |command| net.far().enter(command));
    let addr = SocketAddr::from((own_ip(1), relay.addr(0).port()));
    let mut client = net.near().inside(|| kit::Peer::connect(addr));
    let mut server = kit::Peer::accept(&origin);
    kit::peer::both(&mut client, &[kit::Step::Swap(1 << 20)], &mut server, &[kit::Step::Swap(1 << 20)]);
    assert_eq!(net.path(0).connections(), [(client.local(), addr)]);
    assert_eq!(net.path(0).reset(addr.port()), 1);
    client.run(&[kit::Step::ReadReset]);
    relay.wait_for_log(&[" closed "]);
}

#[test]
fn the_source_address_selects_the_path_to_a_host() {
    if !has_net() {
        return;
    }
    let mut net = Net::of(&[Kind::Veth, Kind::Nat]);
    let third = net.add_host("third");
    let index = net.join(third, 1, Kind::Veth);
    let far_own = own_ip(1);
    for (index, host) in [(0, net.near()), (1, net.near()), (index, net.host(third))] {
        let path = net.path(index);
        let before = path.bytes();
        let (mut near, mut far) = connect_to(host, net.far(), path.near_ip(), far_own);
        assert!(passes(&mut near, &mut far) && passes(&mut far, &mut near));
        let after = path.bytes();
        assert!(after.out > before.out + 150 && after.back > before.back + 150, "{before:?} {after:?}");
    }
}

#[test]
fn a_capture_finds_bytes_that_were_split_between_packets() {
    if !has_net() {
        return;
    }
    let scratch = kit::Scratch::new();
    let net = Net::of(&[Kind::Veth]);
    let path = net.path(0);
    let capture = path.capture(scratch.file("pcap"));
    let (mut near, mut far) = connect(&net, path);
    near.write_all(b"find this mar").unwrap();
    far.read_exact(&mut [0; 13]).unwrap();
    near.write_all(b"ker here").unwrap();
    far.read_exact(&mut [0; 8]).unwrap();
    far.write_all(&[b'z'; 200_000]).unwrap();
    near.read_exact(&mut [0; 200_000]).unwrap();
    let captured = capture.stop();
    near.write_all(b"too late").unwrap();
    assert_eq!(captured.missed, 0);
    assert!(captured.contains(b"find") && captured.contains(b"marker"));
    assert!(!captured.contains(b"too late") && !captured.contains(b"Marker"));
    let sent = |from: SocketAddr| {
        let streams: Vec<_> = captured.streams().into_iter().filter(|stream| stream.from == from).collect();
        assert_eq!(streams.len(), 1);
        streams[0].bytes.clone()
    };
    assert_eq!(sent(near.local_addr().unwrap()), b"find this marker here");
    assert_eq!(sent(far.local_addr().unwrap()), [b'z'; 200_000]);
}

#[test]
fn nothing_is_left_of_a_network_after_a_panic() {
    if !has_net() {
        return;
    }
    let names = || kit::seaprox::run_command(named(), b"").out;
    let before = names();
    let mut ids = Vec::new();
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let net = Net::of(&[if has_tun() { Kind::Emulated(Link::default()) } else { Kind::Veth }]);
        ids = vec![net.near().id(), net.far().id()];
        net.near().inside(|| panic!("on purpose"));
    }));
    assert!(panic.is_err());
    assert_eq!(ids.len(), 2);
    kit::until("no descriptor of the namespaces is left", || {
        let links = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
        let mut targets = links.filter_map(|link| std::fs::read_link(link.path()).ok());
        !targets.any(|target| ids.iter().any(|id| target.to_string_lossy() == *id))
    });
    assert_eq!(names(), before);
}

fn named() -> std::process::Command {
    let mut command = std::process::Command::new("ip");
    command.args(["netns", "list"]);
    command
}
