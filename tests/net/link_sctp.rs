//! Links over kernel SCTP between two hosts. Few kernels have it: `make sctp` runs these tests in a guest whose kernel does.

use crate::kit;
use crate::link_programs::clients_share_one_carrier;
use crate::net_kit;

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use kit::Step::*;
use kit::{Peer, Scratch, Seaprox, proc, until, until_within};
use net_kit::nodes::{Forward, Options, PORT, Secret, link_figure, start, subflows};
use net_kit::transfer::swap_while;
use net_kit::{Kind, Net, Way, has_net};
use seaprox::node::CarrierKind;
use socket2::Socket;

/// An emulated processor computes a handshake in seconds.
const SCTP: Options<'static> =
    Options { both: &["--carrier", "sctp", "--handshake-timeout", "20s"], near: &[], far: &[] };
/// Options of nodes that soon notice a dead subflow and soon retry.
const HASTY: &[&str] = &[
    "--carrier",
    "sctp",
    "--handshake-timeout",
    "20s",
    "--link-keepalive",
    "200ms",
    "--link-dead",
    "2s",
    "--connect-timeout",
    "2s",
];
/// The path of the echoes, which is slow so that an emulated processor is not its limit, and the bound of their median: 117 to 157 ms were
/// measured, and 202 to 241 with a second window before them.
const RATE_MBIT: f64 = 4.0;
const ECHO: Duration = Duration::from_millis(185);
/// Time until a link is back, with handshakes and the pauses between the tries.
const BACK: Duration = Duration::from_secs(60);

/// Returns true if this system has networks and SCTP. Says so otherwise.
fn has_sctp() -> bool {
    if has_net() && !CarrierKind::Sctp.is_available() {
        println!("skipped: this kernel has no SCTP");
        return false;
    }
    has_net()
}

/// Returns the transports of the live subflows of a node's only link, sorted.
fn carriers(node: &Seaprox) -> Vec<String> {
    let live = subflows(node).into_iter().filter(|subflow| subflow["state"] == "live");
    let mut names: Vec<String> = live.map(|subflow| subflow["carrier"].as_str().unwrap_or("-").to_owned()).collect();
    names.sort();
    names
}

/// Returns the bytes that a node has sent on the subflows of one transport.
fn sent_over(node: &Seaprox, carrier: &str) -> u64 {
    let its = subflows(node).into_iter().filter(|subflow| subflow["carrier"] == carrier);
    its.map(|subflow| subflow["bytes_sent"].as_u64().unwrap_or(0)).sum()
}

/// Swaps bytes until the near node has sent this many more on the subflows of a transport.
fn until_sent(forward: &Forward, carrier: &str, bytes: u64) {
    let before = sent_over(&forward.nodes.near, carrier);
    until(&format!("{carrier} carries data"), || sent_over(&forward.nodes.near, carrier) > before + bytes);
}

#[test]
#[ignore = "needs SCTP in the kernel: make sctp"]
fn a_link_over_sctp_carries_every_byte_in_both_directions() {
    if !has_sctp() {
        return;
    }
    let net = Net::of(&[Kind::Veth]);
    let forward = Forward::start(&net, SCTP);
    for node in [&forward.nodes.near, &forward.nodes.far] {
        until("the subflow is live", || carriers(node) == ["sctp"]);
        node.wait_for_log(&["transport of the link", "carrier=sctp"]);
    }
    assert_eq!(net.path(0).connections(), [], "no connection of TCP");
    swap_while(forward.peers(), 8 << 20, || until_sent(&forward, "sctp", 1 << 20));
    assert_eq!(link_figure(&forward.nodes.near, "resumes"), 0);
}

/// Returns an option of an association, as words. libc has no names for those of SCTP.
fn option<const WORDS: usize>(socket: &Socket, option: libc::c_int) -> [u32; WORDS] {
    let mut words = [0; WORDS];
    let mut len = size_of_val(&words) as libc::socklen_t;
    let (fd, to) = (socket.as_raw_fd(), (&raw mut words).cast());
    // SAFETY: the pointers are to a live array and its length, as getsockopt requires.
    let result = unsafe { libc::getsockopt(fd, libc::IPPROTO_SCTP, option, to, &raw mut len) };
    assert_eq!(result, 0, "option {option}: {}", io::Error::last_os_error());
    words
}

#[test]
#[ignore = "needs SCTP in the kernel: make sctp"]
fn associations_send_at_once_and_acknowledge_each_packet_at_once() {
    if !has_sctp() {
        return;
    }
    let net = Net::of(&[Kind::Veth]);
    // The log of debug level tells of options that the system refuses.
    let forward = Forward::start(&net, Options { near: &["-v"], far: &["-v"], ..SCTP });
    for node in [&forward.nodes.near, &forward.nodes.far] {
        let peer = subflows(node)[0]["remote"].as_str().expect("an address").parse().expect("an address");
        let sockets = proc::sockets_to(node.pid(), peer);
        assert_eq!(sockets.len(), 1, "the association with {peer}");
        // SCTP_NODELAY, and SCTP_DELAYED_SACK: the association, the delay, and the packets of an acknowledgement.
        let ([nodelay], [_, delay, packets]) = (option(&sockets[0], 3), option(&sockets[0], 16));
        assert_eq!((nodelay, delay, packets), (1, 0, 1));
        assert_eq!(node.count_log(&["an option of SCTP is not set"]), 0);
    }
}

#[test]
#[ignore = "needs SCTP in the kernel: make sctp"]
fn an_http_and_a_socks_client_share_one_carrier_of_sctp() {
    if has_sctp() {
        clients_share_one_carrier(SCTP.both, "sctp");
    }
}

#[test]
#[ignore = "needs SCTP in the kernel: make sctp"]
fn a_link_over_sctp_carries_many_streams_at_once() {
    if !has_sctp() {
        return;
    }
    let net = Net::of(&[Kind::Veth]);
    let forward = Forward::start(&net, SCTP);
    let peers: Vec<(Peer, Peer)> = (0..100).map(|_| forward.peers()).collect();
    thread::scope(|scope| {
        for (mut client, mut server) in peers {
            // Many streams, and not many bytes, which an emulated processor encrypts too slowly for the deadline of a read.
            scope.spawn(move || _ = client.run(&[Swap(8 << 10), Fin, ReadAll]));
            scope.spawn(move || _ = server.run(&[Swap(8 << 10), Fin, ReadAll]));
        }
    });
    assert_eq!(carriers(&forward.nodes.near), ["sctp"]);
}

#[test]
#[ignore = "needs SCTP in the kernel: make sctp"]
fn a_link_over_sctp_resumes_after_a_black_hole_without_a_lost_byte() {
    if !has_sctp() {
        return;
    }
    let net = Net::of(&[Kind::Veth]);
    let forward = Forward::start(&net, Options { both: HASTY, ..SCTP });
    swap_while(forward.peers(), 0, || {
        until_sent(&forward, "sctp", 1 << 20);
        net.path(0).black_hole(Way::Both);
        for node in [&forward.nodes.near, &forward.nodes.far] {
            node.wait_for_log(&["link suspended"]);
        }
        net.path(0).heal();
        until_within(BACK, "the session resumes", || link_figure(&forward.nodes.near, "resumes") == 1);
        until_sent(&forward, "sctp", 1 << 20);
    });
}

/// The session of a process that was killed is gone: its connections are reset, and never end as if all had arrived.
#[test]
#[ignore = "needs SCTP in the kernel: make sctp"]
fn a_killed_server_is_noticed_at_once_and_dialed_again_after_its_restart() {
    if !has_sctp() {
        return;
    }
    let net = Net::of(&[Kind::Veth]);
    let mut forward = Forward::start(&net, Options { both: HASTY, ..SCTP });
    let (mut client, mut server) = forward.peers();
    client.run(&[Send(1000)]);
    server.run(&[Read(1000)]);
    let killed = Instant::now();
    forward.nodes.far.signal(libc::SIGKILL);
    until("the loss is noticed", || subflows(&forward.nodes.near).iter().all(|one| one["state"] != "live"));
    println!("noticed after {:?}", killed.elapsed());
    assert!(killed.elapsed() < Duration::from_millis(1500), "before the path is given up as dead");
    let line = forward.nodes.secret.far(HASTY);
    forward.nodes.far = start(net.far(), &line);
    client.run(&[ReadReset]);
    until_within(BACK, "the link is up again", || carriers(&forward.nodes.near) == ["sctp"]);
    swap_while(forward.peers(), 1 << 20, || ());
}

/// A socket without an address of its own has all addresses of its host, and the association goes on over another one.
#[test]
#[ignore = "needs SCTP in the kernel: make sctp"]
fn an_association_outlives_the_loss_of_the_path_that_it_was_dialed_on() {
    if !has_sctp() {
        return;
    }
    let net = Net::of(&[Kind::Veth, Kind::Veth]);
    let path = format!("->{}", net.path(0).far_ip());
    let near = ["--path", path.as_str()];
    let forward = Forward::start(&net, Options { near: &near, ..SCTP });
    let number = subflows(&forward.nodes.near)[0]["number"].clone();
    swap_while(forward.peers(), 0, || {
        until_sent(&forward, "sctp", 1 << 20);
        net.path(0).black_hole(Way::Both);
        let cut = Instant::now();
        let before = net.path(1).bytes().out;
        // Few bytes, because an emulated processor takes seconds for a mebibyte of handshakes and of data.
        until("the second path carries data", || net.path(1).bytes().out > before + (64 << 10));
        println!("64 KiB over the second path {:?} after the cut", cut.elapsed());
        assert!(cut.elapsed() < Duration::from_secs(8), "well below a timer of 30 s");
    });
    let left = subflows(&forward.nodes.near);
    assert_eq!((left.len(), &left[0]["number"]), (1, &number), "{left:?}");
    assert_eq!(link_figure(&forward.nodes.near, "resumes"), 0);
    // The first path is used again when it is back.
    net.path(0).heal();
    swap_while(forward.peers(), 0, || {
        let before = net.path(0).bytes().out;
        until("the first path carries data again", || net.path(0).bytes().out > before + (1 << 20));
    });
}

/// The sources of a path are the addresses of its association, and no others are.
#[test]
#[ignore = "needs SCTP in the kernel: make sctp"]
fn an_association_has_the_sources_of_its_path_and_outlives_the_loss_of_one() {
    if !has_sctp() {
        return;
    }
    let net = Net::of(&[Kind::Veth, Kind::Veth, Kind::Veth]);
    let sources = [0, 1].map(|index| net.path(index).near_ip());
    let path = format!("sctp:{},{}->{}", sources[0], sources[1], net.path(0).far_ip());
    let near = ["--path", path.as_str()];
    let forward = Forward::start(&net, Options { near: &near, ..SCTP });
    let associations = net.near().inside(|| std::fs::read_to_string("/proc/thread-self/net/sctp/assocs").unwrap());
    let has = |index: usize| {
        let address = net.path(index).near_ip().to_string();
        associations.split_whitespace().any(|word| word == address)
    };
    assert_eq!([has(0), has(1), has(2)], [true, true, false], "{associations}");
    let number = subflows(&forward.nodes.near)[0]["number"].clone();
    swap_while(forward.peers(), 0, || {
        until_sent(&forward, "sctp", 1 << 20);
        net.path(0).black_hole(Way::Both);
        until_sent(&forward, "sctp", 1 << 20);
        // The first source leaves this host, too. The association has the other one.
        net.path(0).change_address(9);
        until_sent(&forward, "sctp", 1 << 20);
    });
    let left = subflows(&forward.nodes.near);
    assert_eq!((left.len(), &left[0]["number"]), (1, &number), "{left:?}");
    assert_eq!(link_figure(&forward.nodes.near, "resumes"), 0);
}

/// The addresses of a name race, so a dead one costs no timeout. The handshake tells the dialing system all addresses of the peer.
#[test]
#[ignore = "needs SCTP in the kernel: make sctp"]
fn a_name_whose_first_address_is_dead_is_dialed_at_the_second_and_has_both() {
    if !has_sctp() || !has_name() {
        return;
    }
    let net = Net::of(&[Kind::Veth, Kind::Veth]);
    let listener = net.far().inside(|| std::net::TcpListener::bind("127.0.0.1:0").expect("a port"));
    let secret = Secret::new();
    let far = start(net.far(), &secret.far(SCTP.both));
    net.path(0).black_hole(Way::Both);
    let path = format!("->both:{PORT}");
    let near = [&["--path", path.as_str()], SCTP.both].concat();
    let forward = Forward::with_far(&net, (far, secret), listener, &near);
    let associations = net.near().inside(|| std::fs::read_to_string("/proc/thread-self/net/sctp/assocs").unwrap());
    let peer = associations.split("<->").nth(2).unwrap_or_default();
    assert!([0, 1].iter().all(|index| peer.contains(&net.path(*index).far_ip().to_string())), "{associations}");
    assert!(peer.contains(&format!("*{}", net.path(1).far_ip())), "{associations}");
    swap_while(forward.peers(), 1 << 20, || ());
}

/// The system would take all that a session has. The bytes that it cannot send yet would be before each echo.
#[test]
#[ignore = "needs SCTP in the kernel: make sctp"]
fn an_echo_beside_bulk_over_sctp_does_not_wait_for_a_full_send_buffer() {
    if !has_sctp() {
        return;
    }
    let net = Net::of(&[Kind::Rate(RATE_MBIT)]);
    let forward = Forward::start(&net, SCTP);
    let (mut bulk, mut sink) = forward.pair();
    let (mut pinger, mut ponger) = forward.pair();
    let closers = [&bulk, &ponger].map(|stream| stream.try_clone().expect("a descriptor"));
    let mut echoes = Vec::new();
    thread::scope(|scope| {
        scope.spawn(move || while bulk.write_all(&[7; 64 << 10]).is_ok() {});
        scope.spawn(move || io::copy(&mut sink, &mut io::sink()));
        scope.spawn(move || {
            let mut byte = [0];
            while ponger.read_exact(&mut byte).is_ok() && ponger.write_all(&byte).is_ok() {}
        });
        until_sent(&forward, "sctp", 1 << 20);
        for _ in 0..41 {
            let sent = Instant::now();
            pinger.write_all(&[1]).and_then(|()| pinger.read_exact(&mut [0])).expect("an echo");
            echoes.push(sent.elapsed());
        }
        closers.iter().for_each(|stream| _ = stream.shutdown(Shutdown::Both));
    });
    echoes.sort();
    println!("echoes beside bulk: median {:?}, longest {:?}", echoes[20], echoes[40]);
    assert!(
        echoes[20] < ECHO,
        "the queue of the path is 100 ms, and with a second window it was more than 200: {echoes:?}"
    );
}

/// One server listens for TCP and for SCTP at the same number; one session has a subflow of each and outlives either.
#[test]
#[ignore = "needs SCTP in the kernel: make sctp"]
fn a_session_has_subflows_of_tcp_and_of_sctp_and_outlives_either() {
    if !has_sctp() {
        return;
    }
    let net = Net::of(&[Kind::Rate(40.0), Kind::Rate(40.0)]);
    let paths = [format!("tcp:{}", net.path(0).near_ip()), format!("sctp:{}", net.path(1).near_ip())];
    let near = [&["--path", &paths[0], "--path", &paths[1]], &HASTY[2..]].concat();
    let listener = net.far().inside(|| std::net::TcpListener::bind("127.0.0.1:0").expect("a port"));
    let secret = Secret::new();
    let [_, file, _, directory] = secret.options();
    let head = format!("secret = {file:?}\nconfig-dir = {directory:?}\n");
    let serve = |carrier: &str| {
        format!(
            "[[serve]]\nname = {carrier:?}\nlisten = \"0.0.0.0:{PORT}\"\ncarrier = {carrier:?}\n\
             link-keepalive = \"200ms\"\nlink-dead = \"2s\"\nhandshake-timeout = \"20s\"\n"
        )
    };
    let scratch = Scratch::new();
    let file = scratch.write("mixed.toml", format!("{head}{}{}", serve("tcp"), serve("sctp")));
    let far = start(net.far(), &["run".to_owned(), file]);
    let forward = Forward::with_far(&net, (far, secret), listener, &near);
    until("both subflows are live", || carriers(&forward.nodes.near) == ["sctp", "tcp"]);
    let each = || ["tcp", "sctp"].map(|carrier| sent_over(&forward.nodes.near, carrier));
    swap_while(forward.peers(), 0, || {
        let before = each();
        until("both carry data", || each().iter().zip(before).all(|(now, before)| *now > before + (1 << 20)));
        for (cut, other) in [(0, "sctp"), (1, "tcp")] {
            net.path(cut).black_hole(Way::Both);
            until("one subflow is left", || carriers(&forward.nodes.near) == [other]);
            until_sent(&forward, other, 1 << 20);
            net.path(cut).heal();
            until_within(BACK, "both are live", || carriers(&forward.nodes.near) == ["sctp", "tcp"]);
        }
    });
    assert_eq!(link_figure(&forward.nodes.near, "resumes"), 0, "the session always had a subflow");
}

/// Returns true if `both` is a name of two addresses, as in /etc/hosts of the guest.
fn has_name() -> bool {
    std::fs::read_to_string("/etc/hosts").is_ok_and(|hosts| hosts.contains("both"))
}

#[test]
#[ignore = "needs SCTP in the kernel: make sctp"]
fn a_name_with_two_addresses_is_one_socket_at_both() {
    if !has_sctp() || !has_name() {
        return;
    }
    let net = Net::of(&[Kind::Veth, Kind::Veth]);
    let secret = Secret::new();
    let far = start(net.far(), &secret.line(&["link", "--listen", &format!("both:{PORT}"), "--carrier", "sctp"], &[]));
    assert_eq!(far.out().iter().filter(|line| line.starts_with("listening link")).count(), 1, "{:?}", far.out());
    let sockets = net.far().inside(|| std::fs::read_to_string("/proc/thread-self/net/sctp/eps").unwrap());
    assert!(sockets.lines().any(|line| line.contains("10.77.1.2") && line.contains("10.77.2.2")), "{sockets}");
}
