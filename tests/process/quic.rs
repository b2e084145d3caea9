//! Links over QUIC between two processes.

use crate::kit;

use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};

use kit::Step::{Fin, ReadAll, Swap};
use kit::link::Keys;
use kit::peer::both;
use kit::socks::{ask5, connect5};
use kit::{Peer, Seaprox, until};

/// Starts a node that accepts links over QUIC, and a SOCKS proxy whose connections go over a link to it.
fn nodes(keys: &Keys) -> (Seaprox, Seaprox) {
    let far = keys.start_far(&["--carrier", "quic"]);
    let place = far.listens(0);
    let addr = place.strip_prefix("udp:").expect("a port of UDP");
    let via = keys.via(addr);
    let mut line = vec!["socks", "--listen", "127.0.0.1:0", "--carrier", "quic"];
    line.extend(via.iter().map(String::as_str));
    let near = Seaprox::start(&line);
    (far, near)
}

#[test]
fn a_link_over_quic_carries_connections_and_both_ends_name_it() {
    let (keys, listener) = (Keys::new(), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = listener.local_addr().unwrap().port();
    let (far, near) = nodes(&keys);
    let place = far.listens(0);
    let refused = TcpStream::connect(place.strip_prefix("udp:").unwrap());
    assert_eq!(refused.map(drop).map_err(|error| error.kind()), Err(ErrorKind::ConnectionRefused), "no TCP");
    for _ in 0..5 {
        let mut client = Peer::connect(near.addr(0));
        assert_eq!(ask5(&mut client, "127.0.0.1", port)[1], 0);
        let mut server = Peer::accept(&listener);
        both(&mut client, &[Swap(300_000), Fin, ReadAll], &mut server, &[Swap(300_000), ReadAll, Fin]);
    }
    for node in [&near, &far] {
        let status = node.status();
        let subflow = &status["links"][0]["subflows"][0];
        assert_eq!((&subflow["carrier"], &subflow["state"]), (&"quic".into(), &"live".into()), "{status:#}");
        assert!(subflow["group"].is_string(), "{status:#}");
        let figure = |name: &str| subflow[name].as_u64().unwrap_or_else(|| panic!("no {name}: {status:#}"));
        assert!(figure("window_bytes") >= 2_400 && (1_200..=9_000).contains(&figure("mtu_bytes")), "{status:#}");
        assert!(figure("packets_lost") < 1_000 && subflow["backup"] == false, "{status:#}");
    }
    near.wait_until_idle();
    far.wait_until_idle();
}

#[test]
fn long_streams_over_quic_are_whole_in_both_directions() {
    let (keys, listener) = (Keys::new(), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = listener.local_addr().unwrap().port();
    let (_far, near) = nodes(&keys);
    let (mut client, reply) = connect5(near.addr(0), "127.0.0.1", port);
    assert_eq!(reply[1], 0);
    let mut server = Peer::accept(&listener);
    both(&mut client, &[Swap(4 << 20), Fin, ReadAll], &mut server, &[Swap(4 << 20), ReadAll, Fin]);
}

#[test]
fn a_server_of_quic_that_is_killed_and_comes_back_has_its_clients_again() {
    let (keys, listener) = (Keys::new(), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = listener.local_addr().unwrap().port();
    let (far, near) = nodes(&keys);
    let (mut client, reply) = connect5(near.addr(0), "127.0.0.1", port);
    assert_eq!(reply[1], 0);
    let mut server = Peer::accept(&listener);
    both(&mut client, &[Swap(1000)], &mut server, &[Swap(1000)]);
    let place = far.listens(0);
    drop(far);
    let dir = keys.far_dir();
    let addr = place.strip_prefix("udp:").unwrap();
    let _far = Seaprox::start(&["link", "--listen", addr, "--config-dir", &dir, "--carrier", "quic"]);
    until("a connection goes over the new process", || {
        let (_client, reply) = connect5(near.addr(0), "127.0.0.1", port);
        reply[1] == 0
    });
}
