//! Links over QUIC between real processes, in a network that blocks UDP, rebinds NATs, swallows long datagrams and cuts what it
//! can (TS-04, SP-13): every byte arrives once and in order, and a cut costs less than half a second of silence.

use crate::kit;
use crate::net_kit;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kit::Step::{Fin, Read as Take, ReadAll, Send};
use kit::{Peer, until, until_within};
use net_kit::filter::{filter, of_links};
use net_kit::goodput::Load;
use net_kit::nodes::{Forward, Options, PORT, direct, link_figure, subflows};
use net_kit::transfer::swap_while;
use net_kit::{Kind, Net, has_net};

/// A link over QUIC alone, which soon notices a dead subflow.
const QUIC: Options<'static> =
    Options { both: &["--carrier", "quic", "--link-dead", "2s", "--link-keepalive", "500ms"], near: &["-v"], far: &[] };

/// The time in which the far node sees another address of the near one, on a busy machine. A node waits for 200 ms behind a change, for
/// related ones.
const NOTICED: Duration = Duration::from_secs(3);

/// Returns the names of the transports of the live subflows at the near node, sorted.
fn live(forward: &Forward) -> Vec<String> {
    let live = subflows(&forward.nodes.near).into_iter().filter(|subflow| subflow["state"] == "live");
    let mut names: Vec<String> = live.map(|subflow| subflow["carrier"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

#[track_caller]
fn until_live(forward: &Forward, wanted: &[&str]) {
    until(&format!("{wanted:?} are live"), || live(forward) == wanted);
}

/// Measures the longest time from a small message to its echo, again and again until it is asked.
struct Echoes {
    worst: thread::JoinHandle<Duration>,
    is_over: std::sync::Arc<AtomicBool>,
}

impl Echoes {
    fn start((mut near, mut far): (TcpStream, TcpStream)) -> Echoes {
        let is_over = std::sync::Arc::new(AtomicBool::new(false));
        let until = std::sync::Arc::clone(&is_over);
        thread::spawn(move || {
            let mut piece = [0; 64];
            while far.read_exact(&mut piece).is_ok() && far.write_all(&piece).is_ok() {}
        });
        let worst = thread::spawn(move || {
            let mut worst = Duration::ZERO;
            while !until.load(Ordering::Relaxed) {
                let sent = Instant::now();
                near.write_all(&[7; 64]).unwrap();
                near.read_exact(&mut [0; 64]).unwrap();
                worst = worst.max(sent.elapsed());
                // As in typing.
                thread::sleep(Duration::from_millis(5));
            }
            worst
        });
        Echoes { worst, is_over }
    }

    fn worst(self) -> Duration {
        self.is_over.store(true, Ordering::Relaxed);
        self.worst.join().unwrap()
    }
}

/// Runs `work` beside echoes over the link, and over plain TCP on the same path: a busy machine is late with both. Returns the
/// longest silence of the link, without that of plain TCP.
#[track_caller]
fn silence(net: &Net, forward: &Forward, work: impl FnOnce()) -> Duration {
    let path = net.path(0);
    let [link, plain] =
        [forward.pair(), direct(net.near(), net.far(), path.near_ip(), path.far_ip())].map(Echoes::start);
    work();
    // Long enough that a silence is seen to its end.
    thread::sleep(Duration::from_millis(700));
    let [link, plain] = [link, plain].map(Echoes::worst);
    println!("the longest echo took {link:?}, and {plain:?} over plain TCP");
    link.saturating_sub(plain)
}

#[test]
#[ignore = "longer; make test-system"]
fn each_change_of_what_a_network_blocks_costs_less_than_half_a_second() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Rate(100.0)]);
    filter(&net, &of_links("udp", "drop"));
    let auto = ["--carrier", "auto", "--link-dead", "2s", "--link-keepalive", "500ms", "--handshake-timeout", "1s"];
    let forward = Forward::start(&net, Options { both: &auto, near: &["--connect-timeout", "1s"], far: &[] });
    swap_while(forward.peers(), 0, || {
        until_live(&forward, &["tcp"]);
        let changes: [(&str, &str, &[&str]); 5] = [
            ("UDP is opened", "", &["quic", "tcp"]),
            ("TCP is blocked", "tcp", &["quic"]),
            ("TCP is opened", "", &["quic", "tcp"]),
            ("UDP is blocked", "udp", &["tcp"]),
            ("UDP is opened again", "", &["quic", "tcp"]),
        ];
        for (what, blocked, wanted) in changes {
            let silence = silence(&net, &forward, || {
                filter(&net, &if blocked.is_empty() { String::new() } else { of_links(blocked, "drop") });
                until_live(&forward, wanted);
            });
            println!("{what}: {silence:?}");
            assert!(silence < Duration::from_millis(500), "{what}: {silence:?}");
        }
    });
    assert_eq!(link_figure(&forward.nodes.near, "resumes"), 0, "the session always had a subflow");
}

#[test]
fn a_nat_that_forgets_a_connection_of_quic_costs_no_byte_and_no_redial() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Nat]);
    let forward = Forward::start(&net, QUIC);
    until_live(&forward, &["quic"]);
    let seen = || {
        let subflow = subflows(&forward.nodes.far).swap_remove(0);
        (subflow["number"].clone(), subflow["remote"].as_str().unwrap().to_owned())
    };
    let (number, mut remote) = seen();
    swap_while(forward.peers(), 0, || {
        for _ in 0..3 {
            net.path(0).nat().rebind();
            until("the far node sees another address", || seen().1 != remote);
            let (same, now) = seen();
            assert_eq!(same, number, "it is the same subflow");
            remote = now;
            let before = link_figure(&forward.nodes.near, "bytes_received");
            until("the transfer goes on", || link_figure(&forward.nodes.near, "bytes_received") > before + (1 << 20));
        }
    });
    assert_eq!(subflows(&forward.nodes.near).len(), 1);
    assert_eq!(link_figure(&forward.nodes.near, "resumes"), 0);
    assert_eq!(forward.nodes.near.count_log(&["no subflow"]), 0, "nothing was dialed again");
}

#[test]
fn another_address_of_this_host_costs_no_byte_and_no_redial() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Veth]);
    // Nothing but the change itself makes the near node speak.
    let both = ["--carrier", "quic", "--link-keepalive", "300s", "--link-dead", "600s"];
    let forward = Forward::start(&net, Options { both: &both, near: &["-v"], far: &[] });
    until_live(&forward, &["quic"]);
    let number = subflows(&forward.nodes.far)[0]["number"].clone();
    let change = |last_byte| {
        net.path(0).change_address(last_byte);
        let (now, changed) = (format!("{}:", net.path(0).near_ip()), Instant::now());
        until_within(NOTICED, "the far node sees the new address", || {
            subflows(&forward.nodes.far)[0]["remote"].as_str().is_some_and(|remote| remote.starts_with(&now))
        });
        println!("{now} is seen {:?} after the change", changed.elapsed());
    };
    swap_while(forward.peers(), 0, || {
        for last_byte in 10..13 {
            change(last_byte);
            let before = link_figure(&forward.nodes.near, "bytes_received");
            until("the transfer goes on", || link_figure(&forward.nodes.near, "bytes_received") > before + (1 << 20));
        }
    });
    // A node that only listens is found at its new address, too.
    let (mut client, mut server) = forward.peers();
    client.run(&[Send(1_000)]);
    server.run(&[Take(1_000)]);
    for last_byte in 13..16 {
        change(last_byte);
        server.run(&[Send(100_000)]);
        client.run(&[Take(100_000)]);
    }
    let now = subflows(&forward.nodes.far);
    assert_eq!((now.len(), &now[0]["number"]), (1, &number), "it is the same subflow");
    assert_eq!(link_figure(&forward.nodes.near, "resumes"), 0);
    assert_eq!(forward.nodes.near.count_log(&["no subflow"]), 0, "nothing was dialed again");
}

#[test]
fn tcp_and_quic_over_two_paths_share_a_transfer() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Rate(50.0), Kind::Rate(50.0)]);
    let near = ["--path", "tcp:%p1", "--path", "quic:%p2"];
    let forward = Forward::start(&net, Options { near: &near, ..Options::default() });
    until_live(&forward, &["quic", "tcp"]);
    let sent = || {
        let all = subflows(&forward.nodes.near);
        let of = |name: &str| all.iter().find(|it| it["carrier"] == name).and_then(|it| it["bytes_sent"].as_u64());
        ["tcp", "quic"].map(|name| of(name).unwrap_or(0))
    };
    let load = Load::start(vec![forward.pair()]);
    let [tcp, quic] = {
        until("16 MiB have left", || sent().iter().sum::<u64>() > 16 << 20);
        sent()
    };
    println!("{} KiB by TCP, {} KiB by QUIC", tcp >> 10, quic >> 10);
    assert!(tcp.min(quic) > (tcp + quic) / 4, "{tcp} bytes by TCP, {quic} by QUIC");
    // At the rate of the slow path, the bytes would take eleven minutes.
    for slow in [0, 1] {
        net.path(slow).set_rate(0.1);
        let before = load.received();
        until("bytes go over the other path", || load.received() > before + (8 << 20));
        net.path(slow).set_rate(50.0);
        let before = sent()[slow];
        until("the path carries again", || sent()[slow] > before + (1 << 20));
    }
    assert_eq!(link_figure(&forward.nodes.near, "resumes"), 0);
}

/// Sets the longest packet of the devices of both ends.
#[track_caller]
fn set_mtu(net: &Net, bytes: u32) {
    [net.near(), net.far()]
        .into_iter()
        .for_each(|host| host.ip(&format!("link set {} mtu {bytes}", net.path(0).device())));
}

#[test]
fn links_over_quic_fill_the_datagrams_of_each_path() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Veth]);
    // 1,228 is the least that QUIC needs: 1,200 bytes behind the headers of IPv4 and UDP.
    for (mtu, payload) in [(1_228, 1_200), (1_280, 1_252), (1_500, 1_452), (4_000, 3_972), (9_000, 8_972)] {
        set_mtu(&net, mtu);
        let forward = Forward::start(&net, QUIC);
        let mtu_bytes = || subflows(&forward.nodes.near)[0]["mtu_bytes"].as_u64().unwrap_or(0);
        swap_while(forward.peers(), 1 << 20, || {
            // The search ends when two steps would be shorter than 20 bytes.
            until("the longest datagram is found", || (payload - 40..=payload).contains(&mtu_bytes()));
        });
        println!("{mtu} bytes of IP: {} of UDP", mtu_bytes());
        assert!(mtu_bytes() <= payload, "{}", mtu_bytes());
        assert_eq!(link_figure(&forward.nodes.near, "resumes"), 0);
    }
}

#[test]
fn a_path_that_swallows_long_datagrams_from_now_on_stops_a_transfer_for_seconds_at_most() {
    if !has_net() {
        return;
    }
    // Datagrams leave one by one, so that their own lengths are judged.
    let net = Net::of(&[Kind::Rate(200.0)]);
    let forward = Forward::start(&net, Options { both: &["--carrier", "quic"], ..Options::default() });
    let mtu_bytes = || subflows(&forward.nodes.near)[0]["mtu_bytes"].as_u64().unwrap_or(0);
    swap_while(forward.peers(), 0, || {
        until("the datagrams are long", || mtu_bytes() > 1_400);
        let silence = silence(&net, &forward, || {
            // Without an error to the sender, as a router does that sends no ICMP.
            filter(&net, &of_links("udp", "meta length > 1228 drop"));
            until("the datagrams are short", || mtu_bytes() == 1_200);
            let before = link_figure(&forward.nodes.near, "bytes_received");
            until("the transfer goes on", || link_figure(&forward.nodes.near, "bytes_received") > before + (1 << 20));
        });
        assert!(silence < Duration::from_secs(4), "{silence:?}");
    });
    assert_eq!(link_figure(&forward.nodes.near, "resumes"), 0);
    assert_eq!(live(&forward), ["quic"]);
}

/// Returns the number of bytes that have arrived in each direction at least.
fn moved(forward: &Forward) -> u64 {
    let bytes = |node| link_figure(node, "bytes_received");
    bytes(&forward.nodes.near).min(bytes(&forward.nodes.far))
}

/// Makes a cut of one of six kinds: of UDP, of TCP, or of both.
#[track_caller]
fn cut_some(net: &Net, forward: &Forward, number: usize) {
    match number % 6 {
        0 => filter(net, &of_links("udp", "drop")),
        // The sender gets an error for each datagram.
        1 => filter(net, &of_links("udp", "reject")),
        2 => _ = net.path(0).reset(PORT),
        3 => net.path(0).change_address(10 + (number % 200) as u8),
        4 => filter(net, &of_links("tcp", "drop")),
        // No subflow is left.
        _ => filter(net, &[of_links("udp", "drop"), of_links("tcp", "reject with tcp reset")].concat()),
    }
    let (at, before) = (Instant::now(), moved(forward));
    // Bytes that still pass go on; where none do, both ends notice.
    let is_over = || moved(forward) > before + (256 << 10) || at.elapsed() > Duration::from_millis(600);
    until("the cut was felt", is_over);
}

/// Cuts every subflow, in one of four ways, until no node has any.
#[track_caller]
fn cut_all(net: &Net, forward: &Forward, number: usize) {
    let both =
        |verdicts: [&str; 2]| filter(net, &[of_links("tcp", verdicts[0]), of_links("udp", verdicts[1])].concat());
    match number % 4 {
        0 => both(["drop", "drop"]),
        1 => both(["reject with tcp reset", "reject"]),
        2 => {
            both(["drop", "drop"]);
            net.path(0).change_address(10 + (number % 200) as u8);
        }
        _ => {
            both(["reject with tcp reset", "drop"]);
            net.path(0).reset(PORT);
        }
    }
    for node in [&forward.nodes.near, &forward.nodes.far] {
        until("every subflow is cut", || node.status()["links"][0]["state"] == "suspended");
    }
}

/// Moves bytes in both directions while the path is cut a number of times, over subflows of TCP and of QUIC.
/// `cut` makes the cut of a number, and returns when it was felt. Returns the number of resumes.
#[track_caller]
fn survive(least: u64, cuts: usize, cut: fn(&Net, &Forward, usize)) -> u64 {
    let net = Net::of(&[Kind::Veth]);
    let hasty = ["--link-keepalive", "100ms", "--link-dead", "400ms", "--connect-timeout", "1s", "--carrier", "auto"];
    let near = ["--path", "tcp:%p1", "--path", "quic:%p1"];
    let forward = Forward::start(&net, Options { both: &hasty, near: &near, far: &[] });
    until_live(&forward, &["quic", "tcp"]);
    let moved = || moved(&forward);
    let (since, mut worst) = (Instant::now(), Duration::ZERO);
    swap_while(forward.peers(), least, || {
        for number in 0..cuts {
            cut(&net, &forward, number);
            filter(&net, "");
            let (at, before) = (Instant::now(), moved());
            until_within(kit::SOON, "the transfer goes on", || moved() > before + (256 << 10));
            worst = worst.max(at.elapsed());
        }
    });
    let resumes = link_figure(&forward.nodes.near, "resumes");
    println!(
        "{} MiB each way with {cuts} cuts in {:?}, {worst:?} after the longest one, {resumes} resumes",
        moved() >> 20,
        since.elapsed()
    );
    assert_eq!(forward.nodes.near.count_log(&["link ended"]), 0, "it is the session that began");
    until_live(&forward, &["quic", "tcp"]);
    resumes
}

#[test]
fn a_transfer_over_tcp_and_quic_survives_cuts_of_alternating_kinds() {
    if has_net() {
        survive(16 << 20, 12, cut_some);
    }
}

#[test]
#[ignore = "longer; make test-system"]
fn a_gibibyte_over_tcp_and_quic_survives_a_hundred_cuts() {
    if has_net() {
        // As much in each direction.
        survive(512 << 20, 102, cut_some);
    }
}

#[test]
fn a_transfer_over_tcp_and_quic_survives_cuts_of_every_subflow() {
    if has_net() {
        let resumes = survive(8 << 20, 8, cut_all);
        assert!(resumes >= 8, "{resumes} resumes");
    }
}

#[test]
#[ignore = "longer; make test-system"]
fn every_subflow_is_cut_a_hundred_times() {
    if has_net() {
        let resumes = survive(64 << 20, 100, cut_all);
        assert!(resumes >= 100, "{resumes} resumes");
    }
}

/// Has this many streams over one subflow of QUIC at once, and moves bytes over each in both directions.
#[track_caller]
fn many_streams(count: usize) {
    let net = Net::of(&[Kind::Veth]);
    let most = (2 * count + 20).to_string();
    let both = ["--carrier", "quic", "--max-connections", &most, "--udp-flows", "1"];
    let forward = Forward::start(&net, Options { both: &both, ..Options::default() });
    let mut pairs: Vec<(TcpStream, TcpStream)> = (0..count).map(|_| forward.pair()).collect();
    assert_eq!(link_figure(&forward.nodes.far, "streams"), count as u64);
    let pattern = |number: usize, len: usize| (0..len).map(|at| (at * 31 + number * 7) as u8).collect::<Vec<u8>>();
    // All of them have bytes under way before any is read.
    for (number, (client, server)) in pairs.iter_mut().enumerate() {
        client.write_all(&pattern(number, 2_000)).unwrap();
        server.write_all(&pattern(number + 1, 2_000)).unwrap();
    }
    for (number, (client, server)) in pairs.iter_mut().enumerate() {
        for (socket, number) in [(server, number), (client, number + 1)] {
            let mut got = vec![0; 2_000];
            socket.read_exact(&mut got).unwrap();
            assert!(got == pattern(number, 2_000), "stream {number}");
        }
    }
    assert_eq!(live(&forward), ["quic"]);
    drop(pairs);
    until("no stream is left", || link_figure(&forward.nodes.far, "streams") == 0);
    let (mut client, mut server): (Peer, Peer) = forward.peers();
    client.run(&[Send(1_000), Fin]);
    server.run(&[Take(1_000), ReadAll]);
}

#[test]
fn a_thousand_streams_share_a_subflow_of_quic() {
    if has_net() {
        many_streams(1_000);
    }
}

#[test]
#[ignore = "longer; make test-system"]
fn ten_thousand_streams_share_a_subflow_of_quic() {
    if has_net() {
        // The far node counts two descriptors for each stream, and one key gets half of its connections.
        let count = (crate::link_many::descriptors_max().saturating_sub(420) / 4).min(10_000);
        println!("{count} streams");
        many_streams(count);
    }
}
