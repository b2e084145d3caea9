//! Bugs that other proxies had with splice(2), one test for each kind. The tests must also pass in copy mode.
//!
//! * haproxy/haproxy#356: a response from a Unix socket in bursts, each read to its end, stops forever.
//! * haproxy/haproxy#901: with slow readers on many connections, spliced connections are very slow.
//! * haproxy/haproxy#2505: the server has closed, the last bytes are in the pipe, and the close overtakes them.
//! * 3proxy/3proxy#366: a throttled stream keeps the processor busy.

use crate::kit;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::{Duration, Instant};

use kit::Step::*;
use kit::peer::both;
use kit::{Peer, Relay, Scratch, Seaprox, proc, until};

const MIB: u64 = 1 << 20;

/// Returns true if bytes of this side went through a pipe.
fn is_spliced(seaprox: &Seaprox, leg: &str) -> bool {
    seaprox.status()["connections"][0][leg]["flags"].as_array().is_some_and(|flags| flags.contains(&"spliced".into()))
}

#[test]
fn a_fast_transfer_is_spliced_unless_splicing_is_switched_off() {
    for (options, expected) in
        [(&[][..], !kit::seaprox::copies()), (&["--no-splice"], false), (&["--pipes", "0"], false)]
    {
        let relay = Relay::start(options);
        let (mut client, mut server) = relay.pair();
        client.run(&[Fill(64 * MIB, 100)]);
        assert_eq!(is_spliced(&relay.seaprox, "source"), expected, "{options:?}");
        let sent = client.sent;
        both(&mut client, &[Fin, ReadAll], &mut server, &[ReadAll, Fin]);
        assert_eq!(server.received, sent);
    }
}

#[test]
fn bursts_from_a_unix_socket_arrive_completely() {
    let scratch = Scratch::new();
    let path = scratch.file("server");
    let listener = UnixListener::bind(&path).unwrap();
    let seaprox = Seaprox::start(&["static", "--listen", "127.0.0.1:0", "--to", &format!("unix:{path}")]);
    for round in 0..40 {
        let mut client = Peer::connect(seaprox.addr(0));
        let socket: socket2::Socket = OwnedFd::from(listener.accept().unwrap().0).into();
        let mut server = Peer::of(socket, false);
        // Each burst is read before the next, so that the proxy finds an empty socket after it. The sizes are around
        // pages and blocks.
        for size in [613, 16_320, 65_536 + round, 400_000, 1, 4096, 32_768, 1_000_000 + round, 7] {
            both(&mut server, &[Send(size)], &mut client, &[Read(size)]);
        }
        both(&mut server, &[Send(300_000), Fin], &mut client, &[ReadAll]);
        assert_eq!(client.received, server.sent);
    }
}

/// The gate `relay-slow-readers` compares the time of spliced connections with that of copied ones.
#[test]
fn slow_readers_on_a_hundred_connections_get_all_bytes() {
    let scratch = Scratch::new();
    let path = scratch.file("server");
    let listener = UnixListener::bind(&path).unwrap();
    let to = format!("unix:{path}");
    let seaprox = Seaprox::start(&["static", "-q", "--listen", "127.0.0.1:0", "--to", &to]);
    thread::scope(|scope| {
        for _ in 0..100 {
            let mut client = Peer::connect_narrow(seaprox.addr(0));
            let socket: socket2::Socket = OwnedFd::from(listener.accept().unwrap().0).into();
            let mut server = Peer::of(socket, false);
            scope.spawn(move || _ = server.run(&[Send(MIB), Fin]));
            scope.spawn(move || {
                client.run(&[ReadSlowly(MIB / 2, 32 << 10, 2), ReadAll]);
                assert_eq!(client.received, MIB);
            });
        }
    });
}

#[test]
fn a_fin_does_not_overtake_bytes_in_the_pipe() {
    for from_client in [false, true] {
        let relay = Relay::start(&[]);
        let (client, server) = (Peer::connect_narrow(relay.addr()), Peer::accept(&relay.listener));
        let (mut sender, mut reader) = if from_client { (client, server) } else { (server, client) };
        // The reader's socket, the pipe and the sender's socket are full when the FIN comes. They stay full for a
        // while, with other events for the connection.
        sender.run(&[Fill(64 * MIB, 100), Fin]);
        for _ in 0..5 {
            reader.run(&[Send(10), Pause(20)]);
            sender.run(&[Read(10)]);
        }
        reader.run(&[ReadSlowly(MIB / 4, 8 << 10, 1), ReadAll]);
        assert_eq!(reader.received, sender.sent, "from the client: {from_client}");
        reader.run(&[Fin]);
        sender.run(&[ReadAll]);
        let line = relay.closing_line();
        assert!(line.contains("end=graceful"), "{line}");
    }
}

#[test]
fn bytes_in_the_pipe_arrive_although_their_sender_is_gone() {
    let relay = Relay::start(&[]);
    for _ in 0..10 {
        let (mut client, mut server) = (Peer::connect_narrow(relay.addr()), Peer::accept(&relay.listener));
        server.run(&[Fill(64 * MIB, 50)]);
        let sent = server.sent;
        drop(server);
        client.run(&[Pause(50), ReadAll]);
        assert_eq!(client.received, sent);
    }
}

#[test]
fn a_reset_of_the_reader_with_bytes_in_the_pipe_frees_the_pipe() {
    let relay = Relay::start(&["--pipes", "4"]);
    for _ in 0..20 {
        let (mut client, mut server) = (Peer::connect_narrow(relay.addr()), Peer::accept(&relay.listener));
        server.run(&[Fill(64 * MIB, 30)]);
        client.run(&[Rst]);
        server.run(&[ReadReset]);
    }
    relay.seaprox.wait_until_idle();
    assert!(relay.seaprox.figure("/usage/pipes") <= 4);
    let open = 1 + 2 * relay.seaprox.figure("/usage/pipes");
    assert_eq!(relay.seaprox.figure("/usage/descriptors"), open);
    // The bytes left in a pipe must not appear in another connection.
    let (mut client, mut server) = relay.pair();
    both(&mut client, &[Swap(8 * MIB), Fin, ReadAll], &mut server, &[Swap(8 * MIB), ReadAll, Fin]);
}

#[test]
fn more_fast_transfers_than_pipes_all_arrive() {
    let relay = Relay::start(&["-q", "--pipes", "3", "--pipe-size", "64KiB"]);
    let mut pairs: Vec<_> = (0..12).map(|_| relay.pair()).collect();
    thread::scope(|scope| {
        for (client, server) in &mut pairs {
            scope.spawn(|| both(client, &[Swap(16 * MIB), Fin, ReadAll], server, &[Swap(16 * MIB), ReadAll, Fin]));
        }
    });
    assert!(pairs.iter().all(|(client, server)| client.received == 16 * MIB && server.received == 16 * MIB));
    relay.seaprox.wait_until_idle();
}

#[test]
fn a_half_closed_connection_carries_a_large_transfer() {
    let relay = Relay::start(&[]);
    let (mut client, mut server) = relay.pair();
    client.run(&[Send(100), Fin]);
    server.run(&[ReadAll]);
    both(&mut server, &[Send(200 * MIB), Fin], &mut client, &[ReadAll]);
    assert_eq!(client.received, 200 * MIB);
}

/// Returns the processor time of a second in which no byte can move, in milliseconds.
fn cost_of_waiting(seaprox: &Seaprox) -> u64 {
    let before = proc::cpu_ms(seaprox.pid());
    thread::sleep(Duration::from_secs(1));
    proc::cpu_ms(seaprox.pid()) - before
}

/// Checks that a process uses no processor time. On a busy machine bytes may still move in the first seconds; a process that
/// spins uses time in every second.
#[track_caller]
fn assert_quiet(seaprox: &Seaprox, what: &str) {
    let is_quiet = (0..5).any(|_| cost_of_waiting(seaprox) < 50);
    assert!(is_quiet, "{what}: 50 ms or more in each of five seconds");
}

#[test]
fn a_waiting_connection_uses_no_processor_time() {
    let relay = Relay::start(&["-q"]);
    let (mut stuck, _stuck_server) = (Peer::connect_narrow(relay.addr()), Peer::accept(&relay.listener));
    stuck.run(&[Fill(64 * MIB, 100)]);
    assert_quiet(&relay.seaprox, "a full pipe");
    stuck.run(&[Fin]);
    assert_quiet(&relay.seaprox, "a full pipe and a FIN after it");
    let (mut half, mut half_server) = relay.pair();
    half.run(&[Send(10), Fin]);
    half_server.run(&[ReadAll]);
    assert_quiet(&relay.seaprox, "a half-closed connection");
    let (mut reset, mut reset_server) = (Peer::connect_narrow(relay.addr()), Peer::accept(&relay.listener));
    reset_server.run(&[Fill(64 * MIB, 100), Rst]);
    assert_quiet(&relay.seaprox, "a server that is gone");
    reset.run(&[Pause(1)]);
}

#[test]
fn a_throttled_stream_uses_little_processor_time() {
    let relay = Relay::start(&["-q"]);
    let (mut client, mut server) = relay.pair();
    let (cost, since) = thread::scope(|scope| {
        scope.spawn(move || _ = client.run(&[Send(6 * MIB), Fin, ReadAll]));
        until("the transfer has begun", || relay.seaprox.figure("/usage/connections") == 1);
        let (before, since) = (proc::cpu_ms(relay.seaprox.pid()), Instant::now());
        // 2.5 MB a second in small pieces: about 20 Mbit/s, as in the bug report.
        server.run(&[ReadSlowly(5 * MIB, 12_500, 5), ReadAll, Fin]);
        (proc::cpu_ms(relay.seaprox.pid()) - before, since.elapsed())
    });
    let percent = u128::from(cost) * 100 / since.as_millis();
    assert!(percent < 20, "{percent} % of a processor for a throttled stream");
}
