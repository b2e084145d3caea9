//! The way out of this host that a connect takes: its source address, its source port, and the family of its addresses.

use crate::loop_kit;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::rc::Rc;

use loop_kit::*;
use seaprox::{ConnectOptions, Egress, Handler, Reason, Target};

const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// Returns a handler that relays its client to a target, and leaves this host as `egress` says.
fn relay_from(egress: Egress, target: impl Into<Target>) -> Box<dyn Handler> {
    let target = Rc::new(target.into());
    handler(move |cx, call| {
        if matches!(call, Call::Opened) {
            let egress = Some(egress.clone());
            cx.connect(Rc::clone(&target), ConnectOptions { egress, ..ConnectOptions::default() }).unwrap();
        }
        by_default(cx, &call)
    })
}

/// Accepts a connection that the loop has dialed. Returns the address that it came from.
fn accept_from(rig: &mut Rig, listener: &TcpListener) -> SocketAddr {
    listener.set_nonblocking(true).unwrap();
    rig.wait("a connection arrives", |_| listener.accept().ok().map(|(_, from)| from))
}

#[cfg(target_os = "linux")]
#[test]
fn a_connect_comes_from_the_requested_source_address_and_port() {
    let (mut rig, (listener, target)) = (Rig::new(config()), target());
    rig.adopt(Kind::Unix, relay_from(Egress::from(OTHER), target));
    assert_eq!(accept_from(&mut rig, &listener).ip(), OTHER);
    // The system knows a port that is free; it is released before the connect, and taken again at once.
    let port = TcpListener::bind((OTHER, 0)).unwrap().local_addr().unwrap().port();
    rig.adopt(Kind::Unix, relay_from(Egress { port: Some(port), ..Egress::from(OTHER) }, target));
    assert_eq!(accept_from(&mut rig, &listener), SocketAddr::new(OTHER, port));
}

#[test]
fn a_connect_from_an_address_that_the_host_lacks_fails_with_a_reason() {
    let (mut rig, (_listener, target)) = (Rig::new(config()), target());
    let foreign = IpAddr::from([192, 0, 2, 1]);
    rig.adopt(Kind::Unix, relay_from(Egress::from(foreign), target));
    rig.until_empty();
    assert_eq!(rig.closed(Reason::NetworkUnreachable), 1, "{:#?}", rig.snapshot());
}

#[cfg(target_os = "linux")]
#[test]
fn a_name_is_connected_in_the_family_of_the_source_address() {
    let mut rig = Rig::with_workers(config());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = Target::parse(&format!("localhost:{}", listener.local_addr().unwrap().port())).unwrap();
    rig.adopt(Kind::Unix, relay_from(Egress::from(OTHER), target.clone()));
    assert_eq!(accept_from(&mut rig, &listener).ip(), OTHER);
    let v6 = IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]);
    if TcpListener::bind((v6, 0)).is_ok() {
        rig.adopt(Kind::Unix, relay_from(Egress::from(v6), target));
        rig.until("the other family is refused or unknown", |proxy| {
            let snapshot = proxy.core().snapshot();
            let of = |reason| snapshot.closed().find(|(found, _)| *found == reason).map_or(0, |(_, count)| count);
            of(Reason::ConnectionRefused) + of(Reason::NameResolutionFailure) == 1
        });
    }
}
