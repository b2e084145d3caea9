//! Flows of datagrams between clients and targets: lookup, answers, timers, limits, errors, changes of their listener.

use crate::loop_kit;

use std::cell::RefCell;
use std::net::{SocketAddr, UdpSocket};
use std::rc::Rc;
use std::time::Duration;

use loop_kit::*;
use seaprox::{
    Bind, Config, Core, Dropped, Failure, FlowRequest, FlowTarget, Id, ListenConfig, Reason, Target, VerbError, bind,
};

/// A socket of the test.
fn socket() -> (UdpSocket, SocketAddr) {
    socket_at("127.0.0.1:0")
}

fn socket_at(addr: &str) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind(addr).unwrap();
    socket.set_nonblocking(true).unwrap();
    let addr = socket.local_addr().unwrap();
    (socket, addr)
}

/// Returns a configuration whose clients send to a target.
fn sending(target: impl Into<Target>) -> ListenConfig {
    let target = target.into();
    choosing(move |_| Ok(FlowTarget::new(target.clone())))
}

fn choosing(mut choose: impl FnMut(&FlowRequest<'_>) -> Result<FlowTarget, Failure> + 'static) -> ListenConfig {
    let datagrams = move |_: &mut Core, request: &FlowRequest<'_>| choose(request);
    ListenConfig { datagrams: Some(Box::new(datagrams)), ..ListenConfig::new("udp", Box::new(|| unreachable!())) }
}

fn listen_at(rig: &mut Rig, place: &str, config: ListenConfig) -> (Id, SocketAddr) {
    let mut bounds = bind(&Bind::parse(place).unwrap(), 1, &rig.config).unwrap();
    let listener = rig.core().listen(&mut bounds[0], config).unwrap();
    (listener, bounds[0].addr().ip().unwrap())
}

fn listen(rig: &mut Rig, config: ListenConfig) -> (Id, SocketAddr) {
    listen_at(rig, "udp:127.0.0.1:0", config)
}

/// Turns the loop until a datagram is there. Returns it and its source.
fn receive(rig: &mut Rig, socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    rig.wait("a datagram", |_| {
        let mut buf = [0; 65_536];
        socket.recv_from(&mut buf).ok().map(|(len, from)| (buf[..len].to_vec(), from))
    })
}

/// Sends a question through a listener to a target, which answers. Returns the address of the flow's socket.
fn converse(rig: &mut Rig, client: &UdpSocket, listener: SocketAddr, target: &UdpSocket) -> SocketAddr {
    client.send_to(b"ask", listener).unwrap();
    let (asked, flow) = receive(rig, target);
    assert_eq!(asked, b"ask");
    target.send_to(b"answer", flow).unwrap();
    assert_eq!(receive(rig, client), (b"answer".to_vec(), listener));
    flow
}

fn flows(rig: &mut Rig) -> usize {
    rig.core().usage().flows
}

fn flows_closed(rig: &mut Rig, reason: Reason) -> u64 {
    rig.stats().flows_closed[reason as usize]
}

fn dropped(rig: &mut Rig, why: Dropped) -> u64 {
    rig.stats().datagrams_dropped[why as usize]
}

fn with_timeouts(first_answer: Duration, flow_idle: Duration) -> Config {
    let mut config = config();
    (config.timeouts.first_answer, config.timeouts.flow_idle) = (first_answer, flow_idle);
    config
}

const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(100);

#[test]
fn datagrams_of_each_size_pass_both_ways_and_keep_their_bounds() {
    for place in ["udp:127.0.0.1:0", "udp:[::1]:0"] {
        let mut rig = Rig::new(config());
        let local = if place.contains('[') { "[::1]:0" } else { "127.0.0.1:0" };
        let ((target, to), (client, _)) = (socket_at(local), socket_at(local));
        let (_, listener) = listen_at(&mut rig, place, sending(to));
        for len in [1, 0, 1, 1_400, 1_400, 1_400, 700, 9_000, 65_507, 2] {
            let payload = pattern(len);
            client.send_to(&payload, listener).unwrap();
            let (arrived, flow) = receive(&mut rig, &target);
            assert!(arrived == payload, "{len} bytes to the target");
            target.send_to(&payload, flow).unwrap();
            assert!(receive(&mut rig, &client) == (payload, listener), "{len} bytes to the client");
        }
        let status = rig.core().some_flows(None, 9).remove(0);
        assert_eq!((status.datagrams, status.dropped, status.is_answered), ((10, 10), 0, true));
        assert_eq!(status.bytes, (79_411, 79_411));
        let stats = rig.stats();
        assert_eq!((stats.datagrams_sent, stats.datagrams_received, stats.datagram_bytes_sent), (10, 10, 79_411));
        assert_eq!((flows(&mut rig), stats.flows_opened), (1, 1));
    }
}

#[test]
fn a_burst_keeps_its_order_and_each_client_gets_its_own_answers() {
    let mut rig = Rig::new(config());
    let (target, to) = socket();
    let (_, listener) = listen(&mut rig, sending(to));
    let clients: Vec<UdpSocket> = (0..4).map(|_| socket().0).collect();
    for number in 0..40u8 {
        let client = usize::from(number) % 4;
        // The sizes differ, so that some of them leave together and others do not.
        let payload = vec![number; 64 + 32 * (usize::from(number) / 16)];
        clients[client].send_to(&payload, listener).unwrap();
    }
    for _ in 0..40 {
        let (payload, flow) = receive(&mut rig, &target);
        target.send_to(&payload, flow).unwrap();
    }
    for (index, client) in clients.iter().enumerate() {
        let got: Vec<u8> = (0..10).map(|_| receive(&mut rig, client).0[0]).collect();
        assert_eq!(got, (0..40).filter(|number| usize::from(*number) % 4 == index).collect::<Vec<u8>>());
    }
    assert_eq!(flows(&mut rig), 4);
}

#[test]
fn only_the_target_can_answer() {
    let mut rig = Rig::new(config());
    let ((target, to), (client, _), (stranger, _)) = (socket(), socket(), socket());
    let (_, listener) = listen(&mut rig, sending(to));
    let flow = converse(&mut rig, &client, listener, &target);
    stranger.send_to(b"forged", flow).unwrap();
    target.send_to(b"true", flow).unwrap();
    assert_eq!(receive(&mut rig, &client).0, b"true");
}

#[test]
fn answers_leave_from_the_address_that_the_client_has_sent_to() {
    let mut rig = Rig::new(config());
    let ((target, to), (client, _)) = (socket(), socket());
    let (_, listener) = listen_at(&mut rig, "udp:0.0.0.0:0", sending(to));
    for ip in [[127, 0, 0, 1], [127, 0, 0, 9], [127, 1, 2, 3]] {
        converse(&mut rig, &client, SocketAddr::from((ip, listener.port())), &target);
    }
    assert_eq!(flows(&mut rig), 3, "each address of this host has a flow of its own");
}

#[test]
fn a_listener_of_both_families_has_clients_of_both() {
    let mut rig = Rig::new(config());
    let (target, to) = socket();
    let sources = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&sources);
    let (_, listener) = listen_at(
        &mut rig,
        "udp::0",
        choosing(move |request| {
            seen.borrow_mut().push((request.source, request.local, request.payload.to_vec()));
            Ok(FlowTarget::new(Target::from(to)))
        }),
    );
    let ((four, source4), (six, source6)) = (socket(), socket_at("[::1]:0"));
    let (at4, at6): (SocketAddr, SocketAddr) =
        (([127, 0, 0, 1], listener.port()).into(), ([0, 0, 0, 0, 0, 0, 0, 1], listener.port()).into());
    converse(&mut rig, &four, at4, &target);
    converse(&mut rig, &six, at6, &target);
    let ask = b"ask".to_vec();
    assert_eq!(*sources.borrow(), [(source4, at4, ask.clone()), (source6, at6, ask)]);
}

#[test]
fn a_flow_ends_after_the_time_without_an_answer_or_after_the_idle_time() {
    let mut rig = Rig::new(with_timeouts(LONG, LONG));
    let ((target, to), (client, _), (other, _)) = (socket(), socket(), socket());
    let (_, addr) = listen(&mut rig, sending(to));
    converse(&mut rig, &client, addr, &target);
    let hasty = Some(with_timeouts(SHORT, LONG).timeouts);
    let (listener, addr) = listen(&mut rig, ListenConfig { timeouts: hasty, ..sending(to) });
    other.send_to(b"ask", addr).unwrap();
    let timed_out = Reason::TimedOut as usize;
    rig.until("the flow without an answer ends", |proxy| proxy.core().stats().flows_closed[timed_out] == 1);
    let status = rig.core().listener(listener).unwrap().status();
    assert_eq!((status.accepted, status.active, status.failed, flows(&mut rig)), (1, 0, 1, 1));
    assert_eq!(receive(&mut rig, &target).0, b"ask");

    let mut rig = Rig::new(with_timeouts(LONG, SHORT));
    let (_, addr) = listen(&mut rig, sending(to));
    converse(&mut rig, &client, addr, &target);
    let idle = Reason::IdleTimeout as usize;
    rig.until("the idle flow ends", |proxy| proxy.core().stats().flows_closed[idle] == 1);
    converse(&mut rig, &client, addr, &target);
    assert_eq!(rig.stats().flows_opened, 2, "the next datagram opens a flow");
}

#[test]
fn a_port_that_is_unreachable_ends_the_flow_with_its_reason() {
    let mut rig = Rig::new(config());
    let ((target, to), (client, _)) = (socket(), socket());
    drop(target);
    let (_, listener) = listen(&mut rig, sending(to));
    // A process that another test starts just now may have the socket for a moment longer.
    rig.until("the flow ends", |proxy| {
        client.send_to(b"ask", listener).unwrap();
        proxy.core().stats().flows_closed[Reason::ConnectionRefused as usize] > 0
    });
    rig.until("no flow is left", |proxy| proxy.core().usage().flows == 0);
}

#[test]
fn a_target_without_a_route_ends_the_flow_at_once() {
    let mut rig = Rig::new(config());
    let (client, _) = socket();
    // A multicast address of the interface-local scope without a zone has no route, nor has a broadcast address.
    let (_, listener) = listen(&mut rig, sending(SocketAddr::from(([255; 4], 9))));
    client.send_to(b"ask", listener).unwrap();
    rig.until("the flow is over", |proxy| proxy.core().stats().flows_closed.iter().sum::<u64>() == 1);
    assert_eq!((flows(&mut rig), dropped(&mut rig, Dropped::Refused)), (0, 1));
}

#[test]
fn a_name_is_resolved_once_and_the_first_datagrams_wait_for_it() {
    let mut rig = Rig::with_workers(config());
    let ((target, to), (client, _)) = (socket(), socket());
    let name = Target::parse(&format!("udp:localhost:{}", to.port())).unwrap();
    let (_, listener) = listen(&mut rig, ListenConfig { family: Some(seaprox::Family::OnlyIpv4), ..sending(name) });
    for number in 0..4 {
        client.send_to(&[number], listener).unwrap();
    }
    for number in 0..4 {
        assert_eq!(receive(&mut rig, &target).0, [number]);
    }
    assert_eq!((rig.stats().lookups, flows(&mut rig)), (1, 1));
    let status = rig.core().some_flows(None, 9).remove(0);
    assert_eq!(status.dialled, Some(format!("ipv4[udp:{to}]")));
}

#[test]
fn a_rule_about_the_addresses_of_a_name_refuses_the_flow() {
    let mut rig = Rig::with_workers(config());
    let (client, _) = socket();
    let name = Target::parse("udp:localhost:9").unwrap();
    let permit: seaprox::Permit = Rc::new(|_| false);
    let (_, listener) = listen(
        &mut rig,
        choosing(move |_| Ok(FlowTarget { permit: Some(Rc::clone(&permit)), ..FlowTarget::new(name.clone()) })),
    );
    client.send_to(b"ask", listener).unwrap();
    rig.until("it is refused", |proxy| proxy.core().stats().flows_closed[Reason::NotPermitted as usize] == 1);
    assert_eq!(dropped(&mut rig, Dropped::Refused), 1);
}

#[test]
fn a_known_address_of_a_name_is_one_that_the_rule_and_the_family_permit() {
    let mut rig = Rig::new(config());
    let ((target, to), (client, _)) = (socket(), socket());
    let name = Target::parse(&format!("udp:known.test:{}", to.port())).unwrap();
    let choice = move |is_permitted| {
        let (name, permit): (_, seaprox::Permit) = (name.clone(), Rc::new(move |_| is_permitted));
        choosing(move |_| {
            let known = FlowTarget { address: Some(to), ..FlowTarget::new(name.clone()) };
            Ok(FlowTarget { permit: Some(Rc::clone(&permit)), ..known })
        })
    };
    let (_, denied) = listen(&mut rig, choice(false));
    client.send_to(b"ask", denied).unwrap();
    rig.until("a rule refuses it", |proxy| proxy.core().stats().flows_closed[Reason::NotPermitted as usize] == 1);
    let (_, other) = listen(&mut rig, ListenConfig { family: Some(seaprox::Family::OnlyIpv6), ..choice(true) });
    client.send_to(b"ask", other).unwrap();
    let unresolved = Reason::NameResolutionFailure as usize;
    rig.until("it has no address", |proxy| proxy.core().stats().flows_closed[unresolved] == 1);
    assert!(target.recv_from(&mut [0; 9]).is_err(), "the target got a datagram");
    let (_, permitted) = listen(&mut rig, choice(true));
    converse(&mut rig, &client, permitted, &target);
}

#[test]
fn a_handler_that_refuses_or_panics_drops_the_datagram_and_the_loop_goes_on() {
    let mut rig = Rig::new(config());
    let ((target, to), (client, _)) = (socket(), socket());
    let (listener, addr) = listen(
        &mut rig,
        choosing(move |request| match request.payload {
            b"refuse" => Err(Reason::NotPermitted.into()),
            b"panic" => panic!("(this message belongs to the test)"),
            _ => Ok(FlowTarget::new(Target::from(to))),
        }),
    );
    client.send_to(b"refuse", addr).unwrap();
    client.send_to(b"panic", addr).unwrap();
    rig.until("both are dropped", |proxy| proxy.core().stats().datagrams_dropped[Dropped::Refused as usize] == 2);
    assert_eq!((rig.stats().panics, flows(&mut rig)), (1, 0));
    assert_eq!(rig.core().listener(listener).unwrap().status().refused, 2);
    converse(&mut rig, &client, addr, &target);
}

#[test]
fn flows_beyond_the_limit_end_those_without_an_answer_and_answered_ones_live() {
    let mut config = config();
    config.limits.flows = 8;
    let mut rig = Rig::new(config);
    let (target, to) = socket();
    let (_, listener) = listen(&mut rig, sending(to));
    let real: Vec<UdpSocket> = (0..4).map(|_| socket().0).collect();
    let ways: Vec<SocketAddr> = real.iter().map(|client| converse(&mut rig, client, listener, &target)).collect();
    // They stay open: another one with the port of an earlier one would belong to its flow.
    let others: Vec<UdpSocket> = (0..200).map(|_| socket().0).collect();
    for (number, other) in (0..).zip(&others) {
        let mut turns = 0..;
        rig.until("the flow is opened", |proxy| {
            // A busy system drops datagrams on loopback, too.
            if turns.next().is_some_and(|turn: u32| turn.is_multiple_of(100)) {
                other.send_to(b"flood", listener).unwrap();
            }
            proxy.core().stats().flows_opened == number + 5
        });
        assert!(flows(&mut rig) <= 8);
    }
    assert_eq!(flows_closed(&mut rig, Reason::LimitReached), 196);
    while target.recv_from(&mut [0; 16]).is_ok() {}
    for (client, way) in real.iter().zip(ways) {
        assert_eq!(converse(&mut rig, client, listener, &target), way, "the flow is the same");
    }
}

#[test]
fn one_source_cannot_have_more_flows_than_its_limit() {
    let mut config = config();
    config.limits.flows_per_source = 2;
    let mut rig = Rig::new(config);
    let (target, to) = socket();
    let (_, listener) = listen_at(&mut rig, "udp:0.0.0.0:0", sending(to));
    let at = SocketAddr::from(([127, 0, 0, 1], listener.port()));
    let (other, _) = socket_at("127.0.0.5:0");
    converse(&mut rig, &other, at, &target);
    for _ in 0..5 {
        converse(&mut rig, &socket().0, at, &target);
    }
    assert_eq!((flows(&mut rig), flows_closed(&mut rig, Reason::LimitReached)), (3, 3));
}

#[test]
fn a_closed_listener_ends_its_flows_and_a_replaced_one_keeps_them() {
    let mut rig = Rig::new(config());
    let ((old, to_old), (new, to_new), (client, _), (later, _)) = (socket(), socket(), socket(), socket());
    let (listener, addr) = listen(&mut rig, sending(to_old));
    converse(&mut rig, &client, addr, &old);
    rig.core().listener(listener).unwrap().replace(sending(to_new)).unwrap();
    converse(&mut rig, &client, addr, &old);
    converse(&mut rig, &later, addr, &new);
    let without = ListenConfig { datagrams: None, ..sending(to_new) };
    assert!(rig.core().listener(listener).unwrap().replace(without).is_err(), "it needs a handler of datagrams");
    rig.core().listener(listener).unwrap().unlisten().unwrap();
    assert_eq!((flows(&mut rig), flows_closed(&mut rig, Reason::Killed)), (0, 2));
    let (_again, _) = socket_at(&addr.to_string());
}

#[test]
fn a_drain_opens_no_flow_and_waits_for_those_that_are_in_use() {
    let mut rig = Rig::new(config());
    let ((target, to), (client, _), (late, _)) = (socket(), socket(), socket());
    let (_, addr) = listen(&mut rig, sending(to));
    converse(&mut rig, &client, addr, &target);
    rig.core().drain(PATIENCE);
    late.send_to(b"late", addr).unwrap();
    converse(&mut rig, &client, addr, &target);
    assert_eq!(dropped(&mut rig, Dropped::Refused), 1);
    while rig.proxy.turn(Some(Duration::from_millis(10))).unwrap() {}
    assert_eq!((flows(&mut rig), flows_closed(&mut rig, Reason::Drained)), (0, 1));
}

#[test]
fn a_flow_can_be_closed_by_its_id() {
    let mut rig = Rig::new(config());
    let ((target, to), (client, _)) = (socket(), socket());
    let (_, addr) = listen(&mut rig, sending(to));
    converse(&mut rig, &client, addr, &target);
    let id = rig.core().some_flows(None, 1)[0].id;
    rig.core().close_flow(id).unwrap();
    assert_eq!(rig.core().close_flow(id), Err(VerbError::Over(Reason::Killed)));
    assert_eq!(flows(&mut rig), 0);
    converse(&mut rig, &client, addr, &target);
}

#[test]
fn a_udp_address_needs_a_handler_of_datagrams() {
    let mut rig = Rig::new(config());
    let mut bounds = bind(&Bind::parse("udp:127.0.0.1:0").unwrap(), 1, &rig.config).unwrap();
    let config = ListenConfig::new("tcp", Box::new(|| unreachable!()));
    assert!(rig.core().listen(&mut bounds[0], config).is_err());
}
