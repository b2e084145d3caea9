//! Links in a process of several loops: the links, and the clients that go over them, are in the first.

use crate::kit;

use std::net::TcpListener;

use kit::Step::{Fin, ReadAll, Swap};
use kit::link::Keys;
use kit::peer::both;
use kit::socks::{code5, connect5};
use kit::{Peer, Seaprox, proc, until};

#[test]
fn clients_of_every_front_end_reach_a_link_with_several_loops_at_both_ends() {
    let (keys, listener) = (Keys::new(), TcpListener::bind("127.0.0.1:0").unwrap());
    let target = listener.local_addr().unwrap();
    let far = keys.start_far(&["--threads", "2"]);
    let via = keys.via(&far.listens(0));
    let scratch = kit::Scratch::new();
    let unix = format!("unix:{}", scratch.file("in"));
    let mut line = vec!["socks", "--threads", "4", "--listen", "127.0.0.1:0", "--listen", &unix];
    line.extend(via.iter().map(String::as_str));
    let near = Seaprox::start(&line);
    assert_eq!((near.figure("/threads"), far.figure("/threads")), (4, 2));
    let mut pairs: Vec<_> = (0..40)
        .map(|number| {
            let mut client = if number % 4 == 0 {
                Peer::connect_unix(scratch.file("in").as_ref())
            } else {
                Peer::connect(near.addr(0))
            };
            assert_eq!(kit::socks::ask5(&mut client, "127.0.0.1", target.port())[1], 0);
            (client, Peer::accept(&listener))
        })
        .collect();
    for (client, server) in &mut pairs {
        both(client, &[Swap(100_000), Fin, ReadAll], server, &[Swap(100_000), ReadAll, Fin]);
    }
    let idle = ["loop-1", "loop-2", "loop-3"].map(|name| proc::cpu_ms_of_thread(near.pid(), name));
    assert!(idle.iter().all(|ms| *ms < 100), "the other loops have nothing to do: {idle:?}");
    near.wait_until_idle();
}

#[test]
fn all_connections_of_the_limit_are_for_the_loop_that_has_all_clients() {
    let (keys, listener) = (Keys::new(), TcpListener::bind("127.0.0.1:0").unwrap());
    let target = listener.local_addr().unwrap();
    let far = keys.start_far(&["--threads", "2"]);
    let via = keys.via(&far.listens(0));
    let mut line = vec!["socks", "--threads", "3", "--max-connections", "12", "--listen", "127.0.0.1:0"];
    line.extend(via.iter().map(String::as_str));
    let near = Seaprox::start(&line);
    // Each further loop keeps one connection, which it has no use for.
    let _held: Vec<_> = (0..10)
        .map(|_| {
            let (client, reply) = connect5(near.addr(0), "127.0.0.1", target.port());
            assert_eq!(reply[1], 0);
            (client, Peer::accept(&listener))
        })
        .collect();
    let _late = Peer::connect(near.addr(0));
    near.wait_for_log(&["accepting pauses", "connections=10"]);
}

#[test]
fn a_changed_file_of_keys_is_applied_with_several_loops() {
    let (keys, listener) = (Keys::new(), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = listener.local_addr().unwrap().port();
    let far = keys.start_far(&["--threads", "3"]);
    let via = keys.via(&far.listens(0));
    let mut line = vec!["socks", "--threads", "3", "--listen", "127.0.0.1:0"];
    line.extend(via.iter().map(String::as_str));
    let mut near = Seaprox::start(&line);
    assert_eq!(code5(near.addr(0), "127.0.0.1", port), 0);
    keys.permit(Some("permit-open=\"10.0.0.1:1\""));
    far.signal(libc::SIGHUP);
    until("new streams are refused", || code5(near.addr(0), "127.0.0.1", port) == 2);
    keys.permit(None);
    far.signal(libc::SIGHUP);
    assert_eq!(near.wait(kit::SOON).code(), Some(77));
}
