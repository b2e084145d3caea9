//! Many connections, and their memory, buffers and descriptors (TS-16, TS-19, TS-20, TS-29 to TS-31, TS-H1, SP-08,
//! SP-27, X-10).

use crate::kit;

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use kit::Step::*;
use kit::peer::both;
use kit::{LATE, Peer, Relay, Seaprox, proc, until};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

#[test]
fn a_thousand_sequential_and_a_hundred_concurrent_connections_work() {
    let relay = Relay::start(&["-q"]);
    for _ in 0..1000 {
        let (mut client, mut server) = relay.pair();
        client.run(&[Send(100), Fin]);
        server.run(&[ReadAll, Send(100), Fin]);
        client.run(&[ReadAll]);
        assert_eq!((client.received, server.received), (100, 100));
    }
    thread::scope(|scope| {
        for _ in 0..100 {
            let (mut client, mut server) = relay.pair();
            scope.spawn(move || {
                both(&mut client, &[Swap(300_000), Fin, ReadAll], &mut server, &[Swap(300_000), ReadAll, Fin])
            });
        }
    });
    relay.seaprox.wait_until_idle();
    assert_eq!(relay.seaprox.figure("/opened"), 1100);
}

#[test]
fn five_thousand_concurrent_connections_work() {
    let granted = seaprox::raise_descriptor_limit().unwrap();
    let count: usize = 5000;
    assert!(granted > 3 * count as u64, "needs more descriptors than {granted}");
    let relay = Relay::start(&["-q", "--max-connections", "5001"]);
    let mut pairs: Vec<_> = (0..count).map(|_| relay.pair()).collect();
    assert_eq!(relay.seaprox.figure("/usage/connections"), count as u64);
    // Every connection works, also with others in the neighbouring slots.
    for (client, server) in &mut pairs {
        client.run(&[Send(100)]);
        server.run(&[Send(100)]);
    }
    for (client, server) in &mut pairs {
        client.run(&[Read(100)]);
        server.run(&[Read(100)]);
    }
    // Free slots in the tables are used again.
    let mut number = 0;
    pairs.retain(|_| {
        number += 1;
        number % 3 != 0
    });
    until("every third connection has ended", || relay.seaprox.figure("/usage/connections") == pairs.len() as u64);
    pairs.extend((0..500).map(|_| relay.pair()));
    for (client, server) in &mut pairs {
        client.run(&[Send(10)]);
        server.run(&[Read(10), Fin]);
        client.run(&[ReadAll]);
    }
    pairs.clear();
    relay.seaprox.wait_until_idle();
    assert_eq!(relay.seaprox.figure("/usage/descriptors"), 1 + 2 * relay.seaprox.figure("/usage/pipes"));
}

#[test]
fn thousands_of_short_connections_leave_no_resources() {
    let relay = Relay::start(&["-q"]);
    let use_it = |rounds: usize| {
        thread::scope(|scope| {
            for worker in 0..8 {
                let relay = &relay;
                scope.spawn(move || {
                    for round in 0..rounds {
                        // The accepted server is not always the one of this client, so each closes in its own way.
                        let mut client = Peer::connect(relay.addr());
                        // A client that sends bytes and resets before its dest is connected may never be seen by the
                        // server, because the handshake waits for those bytes. So a client that resets sends none.
                        if (round + worker) % 4 != 0 {
                            // The server may have reset it already.
                            let _ = client.socket().send(b"some bytes");
                        }
                        let mut server = Peer::accept(&relay.listener);
                        match (round + worker) % 4 {
                            0 => _ = client.run(&[Rst]),
                            1 => _ = server.run(&[Rst]),
                            // The other end may have reset it.
                            2 => _ = client.socket().shutdown(std::net::Shutdown::Write),
                            _ => {}
                        }
                    }
                });
            }
        });
        relay.seaprox.wait_until_idle();
    };
    use_it(20);
    let pid = relay.seaprox.pid();
    let usage = || (relay.seaprox.status()["usage"].clone(), proc::descriptors(pid));
    let (before, rss) = (usage(), proc::rss(pid));
    assert_eq!((&before.0["sides"], &before.0["buffer_bytes"]), (&0.into(), &0.into()));
    use_it(600);
    // The process closes the socket of a question about its status a moment after the answer.
    until("nothing is left in use", || {
        let now = usage();
        now.0 == before.0 && now.1 <= before.1
    });
    assert!(proc::rss(pid) < rss + 2 * MIB, "{} became {}", rss, proc::rss(pid));
}

/// Sends much data to a reader that does not read. Returns the growth of the process's memory, in bytes.
fn growth_with_a_stopped_reader(options: &[&str]) -> u64 {
    let relay = Relay::start(&[&["-q"], options].concat());
    let (mut client, mut server) = relay.pair();
    both(&mut client, &[Swap(4 * MIB)], &mut server, &[Swap(4 * MIB)]);
    let before = proc::rss(relay.seaprox.pid());
    let congested = |status: &serde_json::Value, name: &str| status["connections"][0][name]["congested"].as_u64();
    // On a busy machine either end may have been congested before.
    let source_before = congested(&relay.seaprox.status(), "source");
    client.run(&[Fill(1 << 30, 150)]);
    assert!(client.sent < 200 * MIB, "the sender is blocked, and its bytes do not fill the memory: {}", client.sent);
    let grown = proc::rss(relay.seaprox.pid()).saturating_sub(before);
    let status = relay.seaprox.status();
    let leg = |name: &str, key: &str| status["connections"][0][name][key].as_u64().unwrap_or(0);
    assert!(leg("dest", "congested") > 0, "{status}");
    assert_eq!(congested(&status, "source"), source_before, "{status}");
    let limit = if status["connections"][0]["source"]["flags"].as_array().unwrap().contains(&"spliced".into()) {
        status["limits"]["pipe_bytes"].as_u64().unwrap()
    } else {
        status["limits"]["block_bytes"].as_u64().unwrap()
    };
    assert!(leg("dest", "queued") <= limit && leg("dest", "queued") > 0, "{limit} in {status}");
    assert_eq!(leg("source", "queued"), 0);
    let sent = client.sent;
    both(&mut client, &[Fin, ReadAll], &mut server, &[ReadAll, Fin]);
    assert_eq!(server.received, sent);
    grown
}

#[test]
fn a_stalled_reader_does_not_increase_the_memory() {
    for options in [&[][..], &["--no-splice"], &["--no-splice", "--buffer", "4KiB"], &["--buffer", "256KiB"]] {
        let grown = growth_with_a_stopped_reader(options);
        assert!(grown < 2 * MIB, "{grown} bytes with {options:?}");
    }
}

#[test]
fn a_gibibyte_to_a_slow_reader_uses_constant_memory() {
    let relay = Relay::start(&["-q"]);
    let (mut client, mut server) = relay.pair();
    both(&mut client, &[Send(4 * MIB)], &mut server, &[Read(4 * MIB)]);
    let pid = relay.seaprox.pid();
    let before = proc::rss(pid);
    let mut highest = 0;
    thread::scope(|scope| {
        scope.spawn(move || _ = client.run(&[Send(1 << 30), Fin, ReadAll]));
        // It pauses now and then, so that all buffers before it fill up.
        for _ in 0..20 {
            server.run(&[Pause(10), Read((1 << 30) / 20)]);
            highest = highest.max(proc::rss(pid));
        }
        server.run(&[ReadAll, Fin]);
    });
    assert!(highest < before + 3 * MIB, "{before} became {highest}");
}

#[test]
fn a_blocked_direction_holds_one_buffer_of_the_configured_size() {
    for (buffer, bytes) in [("4KiB", 4 * KIB), ("256KiB", 256 * KIB)] {
        let relay = Relay::start(&["-q", "--no-splice", "--buffer", buffer]);
        let mut pairs: Vec<_> = (0..20).map(|_| relay.pair()).collect();
        for (client, _) in &mut pairs {
            client.run(&[Fill(64 * MIB, 50)]);
        }
        // On a busy machine some bytes may still be on their way to a socket that has room.
        until("one buffer is held for each half that is stuck", || {
            relay.seaprox.figure("/usage/buffer_bytes") == 20 * bytes
        });
        for (client, server) in &mut pairs {
            let sent = client.sent;
            both(client, &[Fin, ReadAll], server, &[ReadAll, Fin]);
            assert_eq!(server.received, sent);
        }
        until("the buffers are free", || relay.seaprox.figure("/usage/buffer_bytes") == 0);
    }
}

#[test]
fn the_buffer_memory_is_limited_and_every_connection_progresses() {
    // Memory for two buffers, and ten transfers that need one.
    let relay = Relay::start(&["-q", "--no-splice", "--buffer", "32KiB", "--buffer-memory", "64KiB"]);
    let mut pairs: Vec<_> = (0..10).map(|_| relay.pair()).collect();
    for (client, _) in &mut pairs {
        client.run(&[Fill(32 * MIB, 30)]);
    }
    assert!(relay.seaprox.figure("/usage/buffer_bytes") <= 64 * KIB);
    thread::scope(|scope| {
        for (client, server) in &mut pairs {
            let sent = client.sent;
            scope.spawn(move || {
                both(client, &[Fin, ReadAll], server, &[ReadAll, Fin]);
                assert_eq!(server.received, sent);
            });
        }
    });
    assert!(relay.seaprox.figure("/block_waits") > 0);
}

#[test]
fn an_idle_connection_uses_at_most_1_kib() {
    let _ = seaprox::raise_descriptor_limit();
    let relay = Relay::start(&["-q", "--max-connections", "2100"]);
    let pid = relay.seaprox.pid();
    let mut pairs: Vec<_> = (0..100).map(|_| relay.pair()).collect();
    for (client, server) in &mut pairs {
        both(client, &[Swap(1000)], server, &[Swap(1000)]);
    }
    let before = proc::rss(pid);
    let mut more: Vec<_> = (0..2000).map(|_| relay.pair()).collect();
    for (client, server) in &mut more {
        client.run(&[Send(1)]);
        server.run(&[Read(1)]);
    }
    let each = proc::rss(pid).saturating_sub(before) / 2000;
    assert!(each <= 1024, "{each} bytes for each idle connection");
}

/// The gates `relay-byte`, `relay-two-writes` and `relay-beside-transfer` measure the time of a byte.
#[test]
fn single_bytes_pass_while_a_transfer_runs() {
    let relay = Relay::start(&["-q"]);
    let (mut client, mut server) = relay.pair();
    let (mut sender, mut reader) = relay.pair();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                sender.run(&[Send(MIB)]);
            }
            sender.run(&[Fin, ReadAll]);
        });
        scope.spawn(|| reader.run(&[ReadAll, Fin]).received);
        until("the transfer has begun", || relay.seaprox.figure("/connections/1/source/bytes_in") > MIB);
        for _ in 0..20 {
            let since = Instant::now();
            client.run(&[Send(1)]);
            server.run(&[Read(1), Send(1)]);
            client.run(&[Read(1)]);
            assert!(since.elapsed() < LATE, "{:?}", since.elapsed());
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(reader.received, sender.sent);
}

#[test]
fn congestion_is_counted_on_the_congested_side_only() {
    let relay = Relay::start(&["-q"]);
    let (mut client, mut server) = relay.pair();
    server.run(&[Fill(64 * MIB, 100)]);
    let congested = |leg: &str| relay.seaprox.figure(&format!("/connections/0/{leg}/congested"));
    // On a busy machine the sender may pause before all buffers are full.
    until("the side of the client is congested", || {
        server.run(&[Fill(64 * MIB, 20)]);
        congested("source") > 0
    });
    assert_eq!(congested("dest"), 0);
    let sent = server.sent;
    both(&mut server, &[Fin, ReadAll], &mut client, &[ReadAll, Fin]);
    assert_eq!(client.received, sent);
}

#[test]
fn all_connections_relay_after_every_second_one_is_replaced() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap().to_string();
    let seaprox = Seaprox::start(&["static", "-q", "--listen", "127.0.0.1:0", "--to", &to, "--max-connections", "64"]);
    let pair = || (Peer::connect(seaprox.addr(0)), Peer::accept(&listener));
    let mut pairs: Vec<Option<(Peer, Peer)>> = Vec::new();
    for count in [1, 2, 64] {
        while pairs.len() < count {
            pairs.push(Some(pair()));
        }
        for (client, server) in pairs.iter_mut().flatten() {
            both(client, &[Swap(5000)], server, &[Swap(5000)]);
        }
    }
    for slot in pairs.iter_mut().skip(1).step_by(2) {
        *slot = None;
    }
    for (client, server) in pairs.iter_mut().flatten() {
        both(client, &[Swap(5000)], server, &[Swap(5000)]);
    }
    until("every second connection is gone", || seaprox.figure("/usage/connections") == 32);
    for slot in pairs.iter_mut().filter(|slot| slot.is_none()) {
        *slot = Some(pair());
    }
    for (client, server) in pairs.iter_mut().flatten() {
        both(client, &[Swap(5000), Fin, ReadAll], server, &[Swap(5000), ReadAll, Fin]);
    }
}
