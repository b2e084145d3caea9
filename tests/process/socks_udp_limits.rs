//! Limits of UDP ASSOCIATE: the flows of one target, and the sockets of associations.

use crate::kit;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};

use super::linked_datagrams::said;
use super::socks_udp::{Client, address, named, proxy};
use kit::datagrams::echo;
use kit::names::{NameServer, isolated};
use kit::{SOON, Scratch, Seaprox, has_namespaces, proc, until};

#[test]
fn headers_that_name_one_target_have_one_flow() {
    let proxy = proxy(&["--only", "ipv4"]);
    let to = echo();
    let client = Client::open(proxy.addr(0));
    let mapped = SocketAddr::new(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(), to.port());
    for (number, reserved) in (0..=255).map(|byte| [byte, !byte]).enumerate() {
        let to = if number % 2 == 0 { address(to) } else { address(mapped) };
        client.socket.send_to(&[&reserved[..], &[0], &to, b"ask"].concat(), client.relay).unwrap();
        client
            .take(SocketAddr::from(([127, 0, 0, 1], u16::from_be_bytes([to[to.len() - 2], to[to.len() - 1]]))), b"ask");
    }
    assert_eq!(proxy.figure("/flows_opened"), 1);
    for name in ["localhost", "LOCALHOST", "localHost"] {
        client.send(&named(name, to.port()), b"ask");
        client.take(to, b"ask");
    }
    assert_eq!((proxy.figure("/flows_opened"), proxy.figure("/usage/flows")), (2, 2));
}

#[test]
fn one_address_has_eight_flows_in_an_association_and_the_oldest_one_ends_for_another() {
    if !has_namespaces() {
        return;
    }
    let hosts: String = (0..20).map(|number| format!("127.0.0.1 name{number}.test\n")).collect();
    isolated(&hosts, |_: &NameServer| {
        let proxy = proxy(&["--only", "ipv4"]);
        let to = echo();
        let client = Client::open(proxy.addr(0));
        for number in 0..20u8 {
            client.send(&named(&format!("name{number}.test"), to.port()), &[number]);
            client.take(to, &[number]);
        }
        assert_eq!(proxy.figure("/usage/flows"), 8);
        assert_eq!(proxy.figure("/flows_closed/limit_reached"), 12);
        let left: Vec<String> =
            proxy.status()["flows"].as_array().unwrap().iter().map(|flow| flow["conn"].to_string()).collect();
        assert!(
            left.iter().all(|asked| (12..20).any(|number| asked.contains(&format!("name{number}.test")))),
            "{left:?}"
        );
    });
}

/// Connects from an address, and asks for an association. Returns the connection if it is granted.
#[track_caller]
fn associate(from: Ipv4Addr, proxy: SocketAddr) -> Option<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&proxy.into()).unwrap();
    let control = TcpStream::from(socket);
    ask(&control).then_some(control)
}

/// Asks for an association. Returns true if it is granted.
#[track_caller]
fn ask(mut control: &TcpStream) -> bool {
    control.set_read_timeout(Some(SOON)).unwrap();
    control.write_all(b"\x05\x01\0\x05\x03\0\x01\0\0\0\0\0\0").unwrap();
    let mut reply = [0; 12];
    control.read_exact(&mut reply).unwrap();
    assert_eq!(reply[..3], [5, 0, 5]);
    reply[3] == 0
}

#[test]
fn each_association_takes_the_place_of_three_flows_and_all_of_them_three_quarters_of_the_flows() {
    let [one, two] = [1, 2].map(|host| Ipv4Addr::new(127, 0, 0, host));
    let proxy = proxy(&["--udp-flows", "30", "--udp-flows-per-source", "20", "--threads", "1"]);
    let addr = proxy.addr(0);
    let mut granted: Vec<TcpStream> = (0..5).map(|_| associate(one, addr).expect("it is granted")).collect();
    assert!(associate(one, addr).is_none(), "a client has 15 of its 20 flows for associations");
    proxy.wait_for_log(&[" closed ", "reason=limit_reached", "associations"]);
    let others: Vec<_> = (0..2).map(|_| associate(two, addr).expect("another client has a share of its own")).collect();
    assert!(associate(two, addr).is_none(), "22 of 30 flows are seven associations");
    granted.pop();
    until("the place of an association is free", || {
        associate(two, addr).map(|control| granted.push(control)).is_some()
    });
    assert_eq!((granted.len(), others.len()), (5, 2));
}

#[test]
fn a_process_with_few_flows_grants_an_association_with_one_flow() {
    let proxy = proxy(&["--udp-flows", "1", "--threads", "1"]);
    let to = echo();
    let client = Client::open(proxy.addr(0));
    client.send(&address(to), b"ask");
    client.take(to, b"ask");
    assert!(associate(Ipv4Addr::LOCALHOST, proxy.addr(0)).is_none());
}

#[test]
fn without_descriptors_an_association_ends_one_flow_of_its_own_client_first() {
    let [own, other] = [1, 2].map(|host| Ipv4Addr::new(127, 0, 0, host));
    let (scratch, silent) = (Scratch::new(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let text = format!(
        "threads = 1\n[defaults]\nudp-first-answer-timeout = \"1h\"\n[[listener]]\nfront = \"socks\"\nlisten = \"127.0.0.1:0\"\n\
         [[listener]]\nfront = \"static\"\nudp = true\nlisten = \"127.0.0.1:0\"\nto = \"{}\"\n",
        silent.local_addr().unwrap()
    );
    let seaprox = Seaprox::start(&["run", &scratch.write("conf.toml", text)]);
    let (pid, datagrams) = (seaprox.pid(), said(&seaprox, "listening static "));
    let socks = said(&seaprox, "listening socks ");
    let controls: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(socks).unwrap()).collect();
    until("the connections are accepted", || seaprox.figure("/usage/connections") == 20);
    // The flows of the other client have waited for longer.
    for (index, host) in [other, other, other, other, own, own, own].into_iter().enumerate() {
        UdpSocket::bind((host, 0)).unwrap().send_to(b"ask", datagrams).unwrap();
        until("a flow", || seaprox.figure("/usage/flows") == index as u64 + 1);
    }
    let flows_of = |host: Ipv4Addr| {
        let flows = seaprox.status()["flows"].clone();
        let start = format!("[udp:{host}:");
        flows
            .as_array()
            .unwrap()
            .iter()
            .filter(|flow| flow["conn"].to_string().split("->").next().unwrap().contains(&start))
            .count()
    };
    // A question of the status may leave a descriptor, with which an association ends no flow, or a gap between their numbers, so
    // that the descriptor of the flow does not help.
    let mut states = vec![(3, 4)];
    for control in &controls {
        let limit = (0..).find(|number| !proc::has_descriptor(pid, *number)).expect("a number");
        proc::limit_descriptors(pid, limit);
        ask(control);
        proc::limit_descriptors(pid, 1_000);
        states.push((flows_of(own), flows_of(other)));
        states.dedup();
        if states.last() == Some(&(0, 3)) {
            break;
        }
    }
    assert_eq!(states, [(3, 4), (2, 4), (1, 4), (0, 4), (0, 3)]);
}
