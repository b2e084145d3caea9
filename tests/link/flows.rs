//! Datagrams of flows: their order on several subflows, beside bulk, and after the loss of a subflow.

use crate::link_kit;

use std::collections::BTreeSet;

use bytes::Bytes;
use link_kit::app::Plan;
use link_kit::peer::{FIRST, Peer, decode};
use link_kit::pipe::Shape;
use link_kit::{CLIENT, SERVER, World, pattern};
use seaprox::link::frame::Frame;
use seaprox::link::{Config, Kind, Open, PathStats, SessionRole, StreamId, SubflowId};

/// Opens a flow from the client.
fn open_flow(world: &mut World) -> StreamId {
    let now = world.now;
    let open = Open { kind: Kind::Udp, source: Plan::up(0).text(), ..Open::name("a", 53) };
    let id = world.session(CLIENT).open(now, open).unwrap();
    world.ends[CLIENT].app.adopt(id, Plan::up(0));
    id
}

/// Sends `count` datagrams with rising numbers on each flow, one every 10 ms. Returns the numbers that arrived in each flow,
/// in their order.
fn exchange(world: &mut World, flows: &[StreamId], count: u32) -> Vec<Vec<u32>> {
    let mut arrived = vec![Vec::new(); flows.len()];
    for number in 0..count + 50 {
        for (id, arrived) in flows.iter().zip(&mut arrived) {
            let now = world.now;
            if number < count {
                let payload = Bytes::from(number.to_be_bytes().repeat(50));
                world.session(CLIENT).send_datagram(now, *id, payload).unwrap();
            }
            while let Some(payload) = world.session(SERVER).recv_datagram(*id) {
                arrived.push(u32::from_be_bytes(payload[..4].try_into().unwrap()));
            }
        }
        world.run_for(10_000);
    }
    arrived
}

/// Returns the subflows that carried datagrams of a flow since the last call.
fn subflows_of(world: &mut World, id: StreamId) -> BTreeSet<SubflowId> {
    let sent = &mut world.watch[CLIENT].datagrams;
    let subflows = sent.iter().filter(|(flow, _)| *flow == id).map(|(_, subflow)| *subflow).collect();
    sent.retain(|(flow, _)| *flow != id);
    subflows
}

#[test]
fn a_flow_beside_bulk_stays_on_its_subflow_until_that_is_suspect() {
    let mut world = World::with_paths(5, Config::default(), &[(20, 10), (20, 12)]);
    world.run_until_up(2);
    world.sessions_unchecked();
    world.run_for(200_000);
    world.open(CLIENT, Plan::up(1 << 25));
    world.run_for(500_000);
    let flows: Vec<StreamId> = (0..20).map(|_| open_flow(&mut world)).collect();
    for arrived in exchange(&mut world, &flows, 200) {
        assert!(arrived.is_sorted_by(|a, b| a < b), "reordered: {arrived:?}");
        assert!(arrived.len() > 190, "{} arrived", arrived.len());
    }
    let before = flows.iter().map(|id| subflows_of(&mut world, *id)).collect::<Vec<_>>();
    assert!(before.iter().all(|subflows| subflows.len() == 1), "{before:?}");
    let bulk = world.ends[SERVER].app.bytes_read;
    world.run_for(1_000_000);
    let rate = world.ends[SERVER].app.bytes_read - bulk;
    assert!(rate > 4_000_000, "bulk uses both subflows: {rate} B/s");

    // The subflow of the first flow falls silent: the flow moves once, and stays there when the old one is back.
    let last = *before[0].first().unwrap();
    let conn = world.conns.iter().position(|conn| conn.id == last).unwrap();
    world.conns[conn].pipes.iter_mut().for_each(|pipe| pipe.freeze());
    world.run_for(2_000_000);
    exchange(&mut world, &flows[..1], 20);
    let now = world.now;
    world.conns[conn].pipes.iter_mut().for_each(|pipe| pipe.thaw(now));
    let moved = subflows_of(&mut world, flows[0]);
    assert!(moved.len() == 1 && !moved.contains(&last), "{last:?}, then {moved:?}");
    world.run_for(2_000_000);
    let arrived = exchange(&mut world, &flows[..1], 100);
    assert!(arrived[0].is_sorted_by(|a, b| a < b) && arrived[0].len() > 90, "{arrived:?}");
    assert_eq!(subflows_of(&mut world, flows[0]), moved);
}

#[test]
fn a_keystroke_passes_many_flows_that_wait_for_a_blocked_subflow() {
    let mut world = World::with_paths(5, Config::default(), &[(20, 40), (20, 41)]);
    world.run_until_up(2);
    world.sessions_unchecked();
    let now = world.now;
    let plan = Plan::up(1);
    let typed = world.session(CLIENT).open(now, Open { source: plan.text(), ..Open::name("a", 22) }).unwrap();
    world.ends[CLIENT].app.adopt(typed, plan);
    let flows: Vec<StreamId> = (0..60).map(|_| open_flow(&mut world)).collect();
    exchange(&mut world, &flows, 20);
    let subflows: BTreeSet<_> = flows.iter().flat_map(|id| subflows_of(&mut world, *id)).collect();
    let fast = world.conns.iter().position(|conn| conn.path == 0).unwrap();
    assert_eq!(subflows, BTreeSet::from([world.conns[fast].id]), "the subflow of least delay");

    // The fast subflow takes no more bytes, and the session cannot know yet that it is silent.
    world.conns[fast].pipes[CLIENT].freeze();
    for id in &flows {
        let now = world.now;
        world.session(CLIENT).send_datagram(now, *id, Bytes::from_static(&[1; 8000])).unwrap();
    }
    world.run_for(1000);
    world.session(CLIENT).write(typed, &mut pattern::slice(u64::from(typed.0) * 2, 0, 1)).unwrap();
    world.run_for(60_000);
    assert_eq!(world.ends[SERVER].app.streams[&typed].read, 1);
    assert_eq!(subflows_of(&mut world, flows[59]).len(), 0, "the flow waits");
}

/// Returns a session with flows that have sent a datagram each on the first subflow.
fn with_flows(count: usize) -> (Peer, Vec<StreamId>) {
    let mut peer = Peer::of(SessionRole::Client, Config::default(), 0);
    peer.session.check_only_when_asked();
    let udp = || Open { kind: Kind::Udp, ..Open::name("a", 53) };
    let flows: Vec<StreamId> = (0..count).map(|_| peer.session.open(peer.now, udp()).unwrap()).collect();
    send_on_each(&mut peer, &flows);
    (0..8).for_each(|_| drop(peer.keep_alive(FIRST)));
    (peer, flows)
}

fn send_on_each(peer: &mut Peer, flows: &[StreamId]) {
    for id in flows {
        peer.session.send_datagram(peer.now, *id, Bytes::from_static(b"x")).unwrap();
    }
}

/// Returns the subflows of the frames that the session sends now, and the number of streams that it considered for them.
fn frames_and_turns(peer: &mut Peer) -> (Vec<SubflowId>, u64) {
    let before = peer.session.stats().turns;
    let frames = peer.frames().into_iter().map(|(subflow, _)| subflow).collect();
    (frames, peer.session.stats().turns - before)
}

#[test]
fn thousands_of_flows_that_wait_for_a_subflow_are_not_considered_for_each_frame() {
    const FLOWS: usize = 8000;
    let (mut peer, flows) = with_flows(FLOWS);
    let second = peer.join(SubflowId(FIRST.0 + 1));
    peer.keep_alive(second);
    peer.session.set_room(FIRST, 0);
    send_on_each(&mut peer, &flows);
    let typed = peer.session.open(peer.now, Open::name("a", 22)).unwrap();
    for _ in 0..20 {
        peer.session.write(typed, &mut Bytes::from_static(b"key")).unwrap();
        let (frames, turns) = frames_and_turns(&mut peer);
        assert!(!frames.is_empty() && frames.iter().all(|subflow| *subflow == second), "{frames:?}");
        assert!(turns <= 16, "{turns} turns");
    }
    // The first subflow takes one frame at a time.
    let mut sent = 0;
    while sent < FLOWS {
        peer.session.set_room(FIRST, 1);
        let (frames, turns) = frames_and_turns(&mut peer);
        assert!(frames.len() == 1 && turns <= 16, "{frames:?}, {turns} turns");
        sent += frames.len();
        if sent % 1000 == 0 {
            peer.acknowledge(FIRST);
        }
    }
    peer.session.check_invariants();
}

#[test]
fn thousands_of_flows_beside_bulk_are_not_considered_while_their_subflow_is_full() {
    let (mut peer, flows) = with_flows(8000);
    let bulk = peer.session.open(peer.now, Open::name("a", 80)).unwrap();
    peer.keep_alive(FIRST);
    peer.session.set_window(FIRST, 20_000);
    peer.session.write(bulk, &mut Bytes::from(vec![0; 100_000])).unwrap();
    // Each flow has its turn as a new one, and waits with the bulk for the next.
    send_on_each(&mut peer, &flows);
    peer.session.set_room(FIRST, 1 << 20);
    frames_and_turns(&mut peer);
    send_on_each(&mut peer, &flows);
    let mut total = 0;
    for _ in 0..20 {
        peer.session.set_room(FIRST, 1 << 20);
        total += frames_and_turns(&mut peer).1;
    }
    assert!(total <= 20 * 16, "{total} turns");
    peer.session.check_invariants();
}

/// The subflow that joins those sessions whose flows began on the first one, and is faster.
const SECOND: SubflowId = SubflowId(FIRST.0 + 1);

/// Returns a session with flows on the first subflow, and a faster second one.
fn with_faster_subflow(count: usize) -> (Peer, Vec<StreamId>) {
    let (mut peer, flows) = with_flows(count);
    peer.join(SECOND);
    peer.session.path_stats(peer.now, SECOND, PathStats { srtt_us: 1000, rate: 1_000_000_000, ..PathStats::default() });
    step(&mut peer, 0);
    (peer, flows)
}

/// Waits, acknowledges everything, and returns the subflows of the datagrams that the session sends.
fn step(peer: &mut Peer, us: u64) -> Vec<SubflowId> {
    peer.now = peer.now.after(us);
    peer.session.set_room(SECOND, 1 << 20);
    let frames = peer.frames();
    for (id, frame) in &frames {
        if let Ok(Frame::Ping { token }) = decode(frame) {
            peer.send_on(*id, &Frame::Pong { token, held_us: 0 }).unwrap();
        }
    }
    peer.acknowledge(FIRST);
    peer.acknowledge(SECOND);
    let is_datagram = |frame: &[u8]| matches!(decode(frame), Ok(Frame::Datagram { .. } | Frame::DatagramPart { .. }));
    frames.into_iter().filter(|(_, frame)| is_datagram(frame)).map(|(id, _)| id).collect()
}

#[test]
fn a_flow_leaves_a_living_subflow_on_which_its_datagrams_are_late() {
    let (mut peer, flows) = with_faster_subflow(1);
    let mut sent = Vec::new();
    for n in 0..60 {
        // The first subflow takes one frame in 200 ms.
        peer.session.set_room(FIRST, usize::from(n % 20 == 19));
        send_on_each(&mut peer, &flows);
        sent.extend(step(&mut peer, 10_000));
    }
    assert!(sent.len() >= 50 && sent[1..].iter().all(|id| *id == SECOND), "{sent:?}");
    assert_eq!(peer.session.stats().suspicions, 0);
}

#[test]
fn a_silent_flow_chooses_its_subflow_again() {
    let mut world = World::with_paths(5, Config::default(), &[(20, 60)]);
    world.run_until_up(1);
    let flow = open_flow(&mut world);
    assert_eq!(exchange(&mut world, &[flow], 20)[0].len(), 20);
    let first = subflows_of(&mut world, flow);
    world.add_path(Shape::new(20, 5));
    world.run_until_up(2);
    world.run_for(1_000_000);
    let arrived = exchange(&mut world, &[flow], 20);
    assert!(arrived[0].len() == 20 && arrived[0].is_sorted(), "{arrived:?}");
    let second = subflows_of(&mut world, flow);
    assert!(first.len() == 1 && second.len() == 1 && first != second, "{first:?}, then {second:?}");
}

#[test]
fn late_datagrams_for_a_blocked_subflow_leave_room_for_other_flows() {
    let (mut peer, flows) = with_faster_subflow(80);
    peer.session.set_room(FIRST, 0);
    let [flows @ .., other] = flows.as_slice() else { unreachable!() };
    for id in flows {
        peer.session.send_datagram(peer.now, *id, Bytes::from(vec![1; 60_000])).unwrap();
    }
    let drops = |peer: &mut Peer| peer.session.take_datagram_drops(*other).queue_full;
    peer.send(&Frame::Datagram { id: other.0, payload: b"full" }).unwrap();
    assert_eq!((peer.session.recv_datagram(*other), drops(&mut peer)), (None, 1));
    peer.now = peer.now.after(60_000);
    peer.send(&Frame::Datagram { id: other.0, payload: b"later" }).unwrap();
    assert_eq!((peer.session.recv_datagram(*other).as_deref(), drops(&mut peer)), (Some(&b"later"[..]), 0));
    peer.session.check_invariants();
}
