//! The relay as its two peers see it: FINs, resets, order and completeness (BS-02, BS-11, TS-15, TS-17, TS-28, X-15).

use crate::kit;

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::Duration;

use kit::Step::*;
use kit::peer::both;
use kit::{Peer, Relay, Seaprox, until};

const MIB: u64 = 1 << 20;

#[test]
fn a_client_can_send_a_fin_and_go_on_reading() {
    let relay = Relay::start(&[]);
    let (mut client, mut server) = relay.pair();
    client.run(&[Send(10_000), Fin]);
    server.run(&[ReadAll, Send(70_000)]);
    client.run(&[Read(70_000)]);
    server.run(&[Send(5), Fin]);
    client.run(&[ReadAll]);
    assert_eq!((client.received, server.received), (70_005, 10_000));
    let line = relay.closing_line();
    for word in ["reason=source_fin", "end=graceful", "by=source", "sent=10000", "received=70005"] {
        assert!(line.contains(word), "{word} in {line}");
    }
}

#[test]
fn a_server_can_send_a_fin_and_go_on_reading() {
    let relay = Relay::start(&[]);
    let (mut client, mut server) = relay.pair();
    server.run(&[Send(10_000), Fin]);
    client.run(&[ReadAll, Send(70_000)]);
    server.run(&[Read(70_000)]);
    client.run(&[Send(5), Fin]);
    server.run(&[ReadAll]);
    assert_eq!((client.received, server.received), (10_000, 70_005));
    let line = relay.closing_line();
    for word in ["reason=dest_fin", "end=graceful", "by=dest"] {
        assert!(line.contains(word), "{word} in {line}");
    }
}

#[test]
fn client_and_server_can_send_a_fin_at_the_same_time() {
    let relay = Relay::start(&[]);
    for _ in 0..50 {
        let (mut client, mut server) = relay.pair();
        both(&mut client, &[Send(3000), Fin, ReadAll], &mut server, &[Send(3000), Fin, ReadAll]);
        assert_eq!((client.received, server.received), (3000, 3000));
    }
    relay.seaprox.wait_until_idle();
    until("each connection has its line", || relay.seaprox.count_log(&[" closed ", "end=graceful"]) == 50);
}

#[test]
fn a_fin_arrives_after_all_queued_data() {
    let relay = Relay::start(&[]);
    for from_client in [true, false] {
        let client = Peer::connect_narrow(relay.addr());
        let server = Peer::accept(&relay.listener);
        let (mut sender, mut reader) = if from_client { (client, server) } else { (server, client) };
        // The reader starts when all bytes are under way and the sender has finished from its own point of view.
        both(
            &mut sender,
            &[Send(8 * MIB), Fin, ReadAll],
            &mut reader,
            &[Pause(200), ReadSlowly(MIB, 1 << 16, 5), ReadAll, Fin],
        );
        assert_eq!(reader.received, 8 * MIB);
    }
    relay.seaprox.wait_until_idle();
    until("each connection has its line", || relay.seaprox.count_log(&[" closed ", "end=graceful"]) == 2);
}

#[test]
fn a_sender_that_closes_its_socket_loses_no_byte() {
    let relay = Relay::start(&[]);
    let (mut client, mut server) = relay.pair();
    thread::scope(|scope| {
        scope.spawn(move || {
            client.run(&[Send(8 * MIB)]);
        });
        server.run(&[Pause(100), ReadSlowly(MIB, 1 << 16, 3), ReadAll]);
    });
    assert_eq!(server.received, 8 * MIB);
}

#[test]
fn a_reset_of_the_client_is_a_reset_at_the_server() {
    let relay = Relay::start(&[]);
    let (mut client, mut server) = relay.pair();
    client.run(&[Send(10)]);
    server.run(&[Read(10), Send(10)]);
    client.run(&[Read(10), Rst]);
    server.run(&[ReadReset]);
    let line = relay.closing_line();
    for word in ["reason=source_reset", "end=aborted", "by=source"] {
        assert!(line.contains(word), "{word} in {line}");
    }
}

#[test]
fn a_reset_of_the_server_is_a_reset_at_the_client() {
    let relay = Relay::start(&[]);
    let (mut client, mut server) = relay.pair();
    client.run(&[Send(10)]);
    server.run(&[Read(10), Send(10)]);
    client.run(&[Read(10)]);
    server.run(&[Rst]);
    client.run(&[ReadReset]);
    let line = relay.closing_line();
    for word in ["reason=dest_reset", "end=aborted", "by=dest"] {
        assert!(line.contains(word), "{word} in {line}");
    }
}

#[test]
fn a_reset_during_a_transfer_is_passed_on() {
    let relay = Relay::start(&[]);
    for from_client in [true, false] {
        let (client, server) = relay.pair();
        let (mut sender, mut reader) = if from_client { (client, server) } else { (server, client) };
        both(&mut sender, &[Send(4 * MIB), Rst], &mut reader, &[ReadReset]);
    }
    relay.seaprox.wait_for_log(&["reason=source_reset"]);
    relay.seaprox.wait_for_log(&["reason=dest_reset"]);
}

#[test]
fn a_reset_after_a_half_close_is_passed_on() {
    let relay = Relay::start(&[]);
    let (mut client, mut server) = relay.pair();
    client.run(&[Send(100), Fin]);
    server.run(&[ReadAll, Send(100)]);
    client.run(&[Read(100)]);
    server.run(&[Rst]);
    client.run(&[ReadReset]);
    assert!(relay.closing_line().contains("reason=dest_reset"), "{}", relay.closing_line());
}

#[test]
fn a_server_may_speak_first() {
    let relay = Relay::start(&[]);
    let (mut client, mut server) = relay.pair();
    server.run(&[Put(b"220 ready\r\n")]);
    client.run(&[Take(b"220 ready\r\n"), Put(b"QUIT\r\n")]);
    server.run(&[Take(b"QUIT\r\n"), Put(b"221 bye\r\n"), Fin]);
    client.run(&[Take(b"221 bye\r\n"), ReadAll]);
}

#[test]
fn an_aborted_connection_leaves_99_others_transferring() {
    let relay = Relay::start(&[]);
    let mut pairs: Vec<_> = (0..100).map(|_| relay.pair()).collect();
    thread::scope(|scope| {
        let (mut victim, mut other) = pairs.remove(50);
        for (client, server) in &mut pairs {
            scope.spawn(|| both(client, &[Swap(MIB), Fin, ReadAll], server, &[Swap(MIB), Fin, ReadAll]));
        }
        victim.run(&[Fill(MIB, 50), Rst]);
        other.run(&[ReadReset]);
    });
    for (client, server) in &pairs {
        assert_eq!((client.received, server.received), (MIB, MIB));
    }
    relay.seaprox.wait_until_idle();
    assert_eq!(relay.seaprox.figure("/closed/source_reset"), 1);
    until("each connection has its line", || relay.seaprox.count_log(&[" closed ", "end=graceful"]) == 99);
}

#[test]
fn every_pair_of_socket_types_is_relayed() {
    let scratch = kit::Scratch::new();
    let inner = scratch.file("inner");
    let unix = UnixListener::bind(&inner).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp6 = TcpListener::bind("[::1]:0").unwrap();
    let targets =
        [tcp.local_addr().unwrap().to_string(), tcp6.local_addr().unwrap().to_string(), format!("unix:{inner}")];
    for target in &targets {
        for listen in ["127.0.0.1:0".to_owned(), "[::1]:0".to_owned(), format!("unix:{}", scratch.file("outer"))] {
            let seaprox = Seaprox::start(&["static", "--listen", &listen, "--to", target]);
            let mut client = match listen.strip_prefix("unix:") {
                Some(path) => Peer::connect_unix(path.as_ref()),
                None => Peer::connect(seaprox.addr(0)),
            };
            let mut server = match target {
                target if target.starts_with("unix:") => Peer::of(unix.accept().unwrap().0.into_socket(), false),
                target if target.starts_with('[') => Peer::accept(&tcp6),
                _ => Peer::accept(&tcp),
            };
            both(&mut client, &[Swap(3 * MIB), Fin, ReadAll], &mut server, &[Swap(3 * MIB), Fin, ReadAll]);
            assert_eq!((client.received, server.received), (3 * MIB, 3 * MIB), "{listen} to {target}");
            seaprox.wait_for_log(&[" closed ", "end=graceful"]);
        }
    }
}

#[test]
fn the_closing_line_contains_all_fields() {
    let relay = Relay::start(&[]);
    let (mut client, mut server) = relay.pair();
    let (from, to) = (client.local(), relay.listener.local_addr().unwrap());
    both(&mut client, &[Send(3), Fin, ReadAll], &mut server, &[ReadAll, Send(4), Fin]);
    let line = relay.closing_line();
    for word in [
        format!("conn=static[ipv4[{from}]->ipv4[{to}]]"),
        format!("asked={to}"),
        format!("dialled=ipv4[{to}]"),
        "via=direct".into(),
        "user=-".into(),
        "sent=3".into(),
        "received=4".into(),
        "duration=".into(),
        "dial=".into(),
    ] {
        assert!(line.contains(&word), "{word} in {line}");
    }
}

#[test]
fn a_byte_passes_while_the_other_direction_is_blocked() {
    let relay = Relay::start(&[]);
    let (mut client, mut server) = relay.pair();
    client.run(&[Fill(64 * MIB, 100)]);
    assert!(client.sent < 64 * MIB, "the sender must be blocked when the reader does not read");
    server.run(&[Send(1)]);
    client.run(&[Read(1)]);
    let sent = client.sent;
    both(&mut server, &[ReadAll, Fin], &mut client, &[Fin, ReadAll]);
    assert_eq!(server.received, sent);
}

#[test]
fn the_steps_of_a_connection_are_logged_at_debug_level() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap().to_string();
    let seaprox = Seaprox::start(&["static", "-v", "--listen", "127.0.0.1:0", "--to", &to]);
    let mut client = Peer::connect(seaprox.addr(0));
    let mut server = Peer::accept(&listener);
    both(&mut client, &[Send(3), Fin, ReadAll], &mut server, &[ReadAll, Fin]);
    seaprox.wait_for_log(&[" closed "]);
    let log = seaprox.log();
    let steps = ["accepted", "connecting", "connected", "relaying", " closed "];
    let places: Vec<_> = steps.iter().map(|step| log.iter().position(|line| line.contains(step))).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?} of {steps:?} in {log:#?}");
}

/// Checks TCP_NODELAY and TCP keepalive at the sockets themselves (TS-29). Keepalive is enabled after a delay, also if
/// the client has sent a FIN by then.
#[test]
fn both_sides_have_the_configured_socket_options() {
    let mut running = Vec::new();
    for (options, nodelay, keepalive) in [
        (&[][..], true, Some(60)),
        (&["--tcp-keepalive", "90s"], true, Some(90)),
        (&["--no-nodelay", "--tcp-keepalive", "0"], false, None),
    ] {
        for is_half_closed in [false, true] {
            let relay = Relay::start(options);
            let (mut client, mut server) = relay.pair();
            // Each direction has two writes: the options of a long connection are set at the second one.
            for _ in 0..2 {
                client.run(&[Send(10)]);
                server.run(&[Read(10), Send(10)]);
                client.run(&[Read(10)]);
            }
            if is_half_closed {
                client.run(&[Fin]);
                server.run(&[ReadAll]);
            }
            running.push((relay, client, server, nodelay, keepalive));
        }
    }
    for (relay, client, _server, nodelay, keepalive) in &running {
        for addr in [client.local(), relay.listener.local_addr().unwrap()] {
            let leg = kit::proc::sockets_to(relay.seaprox.pid(), addr).remove(0);
            assert_eq!(leg.tcp_nodelay().unwrap(), *nodelay, "{addr}");
            match keepalive {
                Some(seconds) => {
                    // The relay sets them one after the other.
                    until("keepalive is on, with its time", || {
                        leg.keepalive().unwrap() && leg.tcp_keepalive_time().unwrap() == Duration::from_secs(*seconds)
                    });
                }
                None => assert!(!leg.keepalive().unwrap()),
            }
        }
    }
}

#[test]
fn an_idle_connection_holds_no_buffer() {
    let relay = Relay::start(&[]);
    let (mut client, mut server) = relay.pair();
    both(&mut client, &[Send(MIB), Read(MIB)], &mut server, &[Read(MIB), Send(MIB)]);
    until("the buffers are back", || relay.seaprox.figure("/usage/buffer_bytes") == 0);
    client.run(&[Pause(1)]);
    assert!(client.is_quiet(Duration::from_millis(10)));
    assert_eq!(relay.seaprox.figure("/usage/connections"), 1);
}

/// Converts a std socket into one of `socket2`.
trait IntoSocket {
    fn into_socket(self) -> socket2::Socket;
}

impl IntoSocket for std::os::unix::net::UnixStream {
    fn into_socket(self) -> socket2::Socket {
        std::os::fd::OwnedFd::from(self).into()
    }
}
