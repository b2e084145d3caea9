//! Attacks of an admitted peer on the memory and the time of the other end: frames for unopened streams, and the bounds
//! that an honest peer never reaches.

use crate::link_kit;

use bytes::Bytes;
use link_kit::peer::{FIRST, Peer, decode};
use seaprox::link::frame::Frame;
use seaprox::link::{
    Capability, Code, Config, Event, OPEN_US, OPENS_MAX, Open, Refused, SessionRole, StreamId, SubflowId, Violation,
};

const ORDERED: u64 = Capability::OrderedOpens as u64;

/// Returns one frame of each type that names a stream. Each makes the receiver create a record for the stream.
fn naming(id: u32) -> [Frame<'static>; 6] {
    [
        Frame::Credit { id, max: 1 << 20, taken: 0 },
        Frame::Reset { id, code: Code::Other, size: 0 },
        Frame::Stop { id, code: Code::Other },
        Frame::Blocked { id, offset: 1 },
        Frame::Datagram { id, payload: b"x" },
        Frame::Data { id, offset: 0, fin: false, payload: b"x" },
    ]
}

/// Returns the `n`-th stream (from 0) that the peer of a session in this role opens.
fn theirs(role: SessionRole, n: u32) -> u32 {
    StreamId::nth(role.peer(), n).unwrap().0
}

fn open(id: u32) -> Frame<'static> {
    Frame::Open { id, open: Open::name("a", 1) }
}

#[test]
fn a_frame_for_an_unopened_stream_creates_only_that_streams_record() {
    for role in [SessionRole::Server, SessionRole::Client] {
        for frame in naming(theirs(role, 65_535)) {
            let mut peer = Peer::of(role, Config::default(), 0);
            // A client sends MAX_STREAMS once it knows that its peer has an old version.
            peer.frames();
            peer.events();
            peer.send(&frame).unwrap();
            assert_eq!((peer.session.streams_live(), peer.events()), (1, vec![]), "{role:?} {frame:?}");
            // The streams that were skipped can still be opened, in any order.
            for n in [40_000, 3, 65_534, 0] {
                peer.send(&open(theirs(role, n))).unwrap();
                assert!(matches!(&peer.events()[..], [Event::Opened { .. }]), "{role:?} {n}");
            }
            assert_eq!(peer.session.streams_live(), 5);
            assert_eq!(peer.session.streams_unopened(), 1);
        }
    }
}

#[test]
fn a_peer_with_ordered_opens_may_be_a_thousand_streams_ahead() {
    for role in [SessionRole::Server, SessionRole::Client] {
        for frame in naming(theirs(role, OPENS_MAX)) {
            let mut peer = Peer::of(role, Config::default(), ORDERED);
            assert_eq!(peer.send(&frame), Err(Violation::Limit), "{role:?} {frame:?}");
        }
        let mut peer = Peer::of(role, Config::default(), ORDERED);
        let announced = |peer: &mut Peer| {
            let sent = peer.keep_alive(FIRST);
            sent.iter()
                .filter_map(|f| match decode(f) {
                    Ok(Frame::MaxStreams { max }) => Some(max),
                    _ => None,
                })
                .max()
        };
        assert_eq!(announced(&mut peer), None);
        (0..700).for_each(|n| peer.send(&open(theirs(role, n))).unwrap());
        let max = announced(&mut peer).expect("the limit rises as streams arrive");
        assert_eq!(max, 700 + OPENS_MAX);
        // The peer may be this far ahead, records and gaps together, and not one stream further.
        peer.send(&naming(theirs(role, 700))[0]).unwrap();
        peer.send(&naming(theirs(role, max - 1))[0]).unwrap();
        assert_eq!((peer.session.streams_unopened(), peer.session.streams_live()), (2, 702));
        assert_eq!(
            peer.send(&naming(theirs(role, max))[0]),
            Err(Violation::Limit),
            "a stream beyond the announced limit is refused"
        );
    }
}

#[test]
fn the_announced_stream_limit_follows_the_permission_of_the_key() {
    let mut peer = Peer::of(SessionRole::Server, Config { streams_permitted: 0, ..Config::default() }, ORDERED);
    let hello_ack = peer.frames().remove(0).1;
    let Ok(Frame::HelloAck(ack)) = decode(&hello_ack) else { panic!("no HELLO_ACK") };
    assert_eq!(ack.limits.streams, 0, "a key that may open nothing");
    let mut old = Peer::of(SessionRole::Server, Config { streams_permitted: 0, ..Config::default() }, 0);
    assert_eq!(old.send(&open(131_072)), Ok(()), "an old peer keeps its limit, and is refused by the policy");
    peer.session.set_streams_permitted(3);
    assert!(peer.frames().iter().any(|(_, f)| decode(f) == Ok(Frame::MaxStreams { max: 3 })));
    (0..3).for_each(|n| peer.send(&open(theirs(SessionRole::Server, n))).unwrap());
    assert_eq!(peer.send(&open(theirs(SessionRole::Server, 3))), Err(Violation::Limit));
}

#[test]
fn a_stream_without_its_open_is_reset_after_a_minute_with_a_live_subflow() {
    let mut peer = Peer::of(SessionRole::Server, Config { hold_us: 1 << 50, ..Config::default() }, ORDERED);
    peer.send(&Frame::Data { id: 4, offset: 0, fin: false, payload: b"early" }).unwrap();
    peer.send(&open(2)).unwrap();
    let second = |peer: &mut Peer, seconds: u64| {
        for _ in 0..seconds {
            peer.pass(1_000_000);
            peer.keep_alive(FIRST);
        }
    };
    second(&mut peer, OPEN_US / 1_000_000 - 5);
    // Without a live subflow the OPEN cannot arrive, and the timer pauses.
    peer.session.subflow_down(peer.now, FIRST);
    peer.pass(10 * OPEN_US);
    assert_eq!((peer.session.streams_unopened(), peer.session.stats().unopened_given_up), (1, 0));
    peer.join(FIRST);
    peer.send(&Frame::ResumeState { last: true, states: seaprox::link::frame::Lines::new(&[]).unwrap() }).unwrap();
    second(&mut peer, 3);
    assert_eq!(peer.session.stats().unopened_given_up, 0);
    peer.pass(3_000_000);
    assert_eq!(peer.session.stats().unopened_given_up, 1);
    let sent = peer.keep_alive(FIRST);
    let says = |frame: &Frame<'_>| sent.iter().any(|f| decode(f).as_ref() == Ok(frame));
    assert!(
        says(&Frame::Reset { id: 4, code: Code::TimedOut, size: 0 })
            && says(&Frame::Stop { id: 4, code: Code::TimedOut })
    );
    assert_eq!(peer.session.memory(), (0, 0), "the received bytes are dropped");
    assert!(!peer.session.is_ended() && peer.session.progress(StreamId(2)).is_some(), "the other streams continue");
    // A late OPEN is refused, and then the record is gone.
    peer.events();
    peer.send(&open(4)).unwrap();
    let sent = peer.keep_alive(FIRST);
    let refused = |f: &Vec<u8>| matches!(decode(f), Ok(Frame::OpenResult { id: 4, result }) if result.failure == Some(Code::TimedOut));
    assert!(sent.iter().any(refused), "{sent:?}");
    assert_eq!(peer.session.streams_unopened(), 0);
    assert!(!peer.events().iter().any(|event| matches!(event, Event::Opened { .. })));
}

#[test]
fn a_sender_waits_for_an_acknowledgement_after_a_thousand_opens() {
    for role in [SessionRole::Server, SessionRole::Client] {
        let mut peer = Peer::of(role, Config::default(), ORDERED);
        peer.events();
        let now = peer.now;
        assert!((0..OPENS_MAX).all(|_| peer.session.open(now, Open::name("a", 1)).is_ok()));
        assert_eq!(peer.session.open(now, Open::name("a", 1)), Err(Refused::NotNow));
        peer.frames();
        assert_eq!(peer.events(), []);
        peer.acknowledge(FIRST);
        assert_eq!(peer.events(), [Event::Openable]);
        assert!(peer.session.open(now, Open::name("a", 1)).is_ok());
        // With an old peer, its own limit counts.
        let mut old = Peer::of(role, Config::default(), 0);
        assert!((0..2 * OPENS_MAX).all(|_| old.session.open(now, Open::name("a", 1)).is_ok()));
    }
}

/// Returns the OPEN and DATA frames of a stream among the sent frames, as (subflow, type).
fn of_stream(frames: &[(SubflowId, Vec<u8>)], id: StreamId) -> Vec<(SubflowId, u8)> {
    let is_its =
        |frame: &[u8]| u32::from_be_bytes(frame[4..8].try_into().unwrap()) == id.0 && matches!(frame[0], 0x10 | 0x20);
    frames.iter().filter(|(_, frame)| is_its(frame)).map(|(subflow, frame)| (*subflow, frame[0])).collect()
}

#[test]
fn data_uses_the_lane_of_its_open_until_the_open_is_acknowledged() {
    let (other, third) = (SubflowId(8), SubflowId(9));
    let mut peer = Peer::of(SessionRole::Server, Config::default(), ORDERED);
    peer.join(other);
    peer.frames();
    let now = peer.now;
    // Only one subflow has room while the OPEN leaves, and then only the other.
    peer.session.set_room(other, 0);
    let id = peer.session.open(now, Open::name("a", 1)).unwrap();
    assert_eq!(of_stream(&peer.frames(), id), [(FIRST, 0x10)]);
    peer.session.set_room(FIRST, 0);
    peer.session.set_room(other, 1 << 20);
    peer.session.write(id, &mut Bytes::from_static(b"hello")).unwrap();
    assert_eq!(of_stream(&peer.frames(), id), [], "the data waits for the lane of its OPEN");
    peer.session.set_room(FIRST, 1 << 20);
    assert_eq!(of_stream(&peer.frames(), id), [(FIRST, 0x20)]);
    // The lane dies: the OPEN is sent again, before the data, and on one lane.
    peer.session.set_room(other, 0);
    peer.session.subflow_down(now, FIRST);
    peer.join(third);
    peer.session.set_room(other, 1 << 20);
    let again = of_stream(&peer.frames(), id);
    assert!(matches!(again[..], [(a, 0x10), (b, 0x20)] if a == b), "{again:?}");
    // Once the OPEN is acknowledged, it is not sent again, and the data may use any lane.
    peer.acknowledge(again[0].0);
    let free = if again[0].0 == other { third } else { other };
    peer.session.subflow_down(now, again[0].0);
    peer.session.write(id, &mut Bytes::from_static(b"more")).unwrap();
    peer.session.set_room(free, 1 << 20);
    assert_eq!(of_stream(&peer.frames(), id), [(free, 0x20)]);
}

/// Each read holds seven frames of 16 KiB: one for a stalled reader and six for a reader that takes all. Of each read,
/// a seventh has to be kept.
#[test]
fn stalled_readers_cost_at_most_twice_the_received_bytes() {
    const PAYLOAD: usize = 16_368;
    let config = Config { stream_window_bytes: (1 << 20, 16 << 20), ..Config::default() };
    let mut peer = Peer::of(SessionRole::Server, config, ORDERED);
    let (stalled, busy): (Vec<u32>, u32) =
        ((0..32).map(|n| theirs(SessionRole::Server, n)).collect(), theirs(SessionRole::Server, 32));
    for id in stalled.iter().copied().chain([busy]) {
        peer.send(&open(id)).unwrap();
        peer.session.accept(StreamId(id), seaprox::link::Bound::default()).unwrap();
    }
    let mut sent = std::collections::BTreeMap::<u32, u64>::new();
    let payload = vec![7; PAYLOAD];
    let mut most = 0;
    for n in 0..32 * 60 {
        let mut wire = Vec::new();
        for id in [stalled[n % 32], busy, busy, busy, busy, busy, busy] {
            let offset = sent.entry(id).or_default();
            Frame::Data { id, offset: *offset, fin: false, payload: &payload }.encode(&mut wire);
            *offset += PAYLOAD as u64;
        }
        peer.session.receive(peer.now, FIRST, 0, Bytes::from(wire)).unwrap();
        let held: usize = peer.session.readable(StreamId(busy)).map(<[u8]>::len).sum();
        assert_eq!(peer.session.consume(peer.now, StreamId(busy), held), held);
        let (_, held) = peer.session.memory();
        most = most.max(held);
        let cost = peer.session.received_cost();
        assert!(cost <= 2 * held + (2 << 20), "{cost} bytes for {held}");
        peer.keep_alive(FIRST);
        peer.events();
    }
    assert!(most > 29 << 20, "{most}");
    for id in stalled {
        peer.session.stop(peer.now, StreamId(id), Code::Other);
    }
    assert_eq!((peer.session.memory().1, peer.session.received_cost()), (0, 0), "all memory is free");
}

#[test]
fn a_smaller_quota_limits_announced_credit_and_buffered_data() {
    let config = Config { stream_window_bytes: (2 << 20, 16 << 20), ..Config::default() };
    let mut peer = Peer::of(SessionRole::Server, config, ORDERED);
    peer.frames();
    let id = theirs(SessionRole::Server, 0);
    peer.send(&open(id)).unwrap();
    peer.session.accept(StreamId(id), seaprox::link::Bound::default()).unwrap();
    assert_eq!(peer.session.promised(), 64 << 20);
    // Announced credit is not withdrawn. No new credit is announced until the application has read the data beyond the
    // share.
    peer.session.set_receive_bytes_max(1 << 20);
    let taken = 80 * 16_000;
    for offset in (0..taken).step_by(16_000) {
        peer.send(&Frame::Data { id, offset, fin: false, payload: &[1; 16_000] }).unwrap();
        peer.session.consume(peer.now, StreamId(id), 16_000);
        peer.keep_alive(FIRST);
    }
    assert_eq!(peer.session.promised(), (64 << 20) - taken);
    assert!(
        !peer
            .keep_alive(FIRST)
            .iter()
            .any(|f| matches!(decode(f), Ok(Frame::Credit { id: 0, max, .. }) if max > 64 << 20))
    );
    // The session also accepts less data to send, and more again after the quota is raised.
    peer.session.set_send_bytes_max(64 << 10);
    let mut chunk = Bytes::from(vec![0; 1 << 20]);
    while peer.session.write(StreamId(id), &mut chunk).unwrap() > 0 {}
    assert!(peer.session.sent_cost() <= 64 << 10, "{}", peer.session.sent_cost());
    peer.events();
    peer.session.set_send_bytes_max(1 << 20);
    assert_eq!(peer.events(), [Event::Writable(StreamId(id))]);
    assert!(peer.session.write(StreamId(id), &mut chunk).unwrap() > 64 << 10);
    // A session above its quota ends at once, and its peer gets the reason.
    peer.send(&Frame::Data { id, offset: taken, fin: false, payload: &[1; 16_000] }).unwrap();
    assert!(peer.session.received_cost() >= 16_000);
    peer.session.abort(Code::LimitReached, "too much");
    assert!(peer.session.is_ended() && peer.session.received_cost() + peer.session.sent_cost() == 0);
    assert!(peer.frames().iter().any(|(_, f)| decode(f) == Ok(Frame::Close { code: Code::LimitReached, text: "" })));
}

/// Parts of datagrams that never become complete fill the session, and are given up after a second.
#[test]
fn parts_that_stay_incomplete_do_not_stop_the_datagrams_of_other_streams() {
    let mut peer = Peer::of(SessionRole::Server, Config::default(), ORDERED);
    let udp = Open { kind: seaprox::link::Kind::Udp, ..Open::name("a", 1) };
    let ids: Vec<u32> = (0..300).map(|n| theirs(SessionRole::Server, n)).collect();
    for id in &ids {
        peer.send(&Frame::Open { id: *id, open: udp.clone() }).unwrap();
        peer.session.accept(StreamId(*id), seaprox::link::Bound::default()).unwrap();
    }
    let (last, others) = ids.split_last().unwrap();
    for id in others {
        let part = Frame::DatagramPart { id: *id, number: 0, total: 65_000, offset: 0, payload: &[1; 15_000] };
        peer.send(&part).unwrap();
    }
    peer.send(&Frame::Datagram { id: *last, payload: b"full" }).unwrap();
    assert_eq!(peer.session.recv_datagram(StreamId(*last)), None, "the session is full");
    peer.now = peer.now.after(2_000_000);
    peer.send(&Frame::Datagram { id: *last, payload: b"later" }).unwrap();
    assert_eq!(peer.session.recv_datagram(StreamId(*last)).as_deref(), Some(&b"later"[..]));
    assert!(peer.session.received_cost() < 1 << 20, "{} bytes are kept", peer.session.received_cost());
}

/// A reused buffer may be far larger than the copy in it. Its whole size is counted, and limited.
#[test]
fn copied_frames_of_a_few_bytes_keep_no_large_buffers() {
    const ROUNDS: u32 = 12;
    let config = Config { stream_window_bytes: (2 << 20, 16 << 20), ..Config::default() };
    let mut peer = Peer::of(SessionRole::Server, config, ORDERED);
    let busy = theirs(SessionRole::Server, 0);
    (0..=64 * ROUNDS).for_each(|n| peer.send(&open(theirs(SessionRole::Server, n))).unwrap());
    (0..=64 * ROUNDS).for_each(|n| {
        peer.session.accept(StreamId(theirs(SessionRole::Server, n)), seaprox::link::Bound::default()).unwrap();
    });
    let mut offset = 0;
    for round in 0..ROUNDS {
        for _ in 0..128 {
            // 8 KiB in pieces that are copied: a round leaves a MiB of spare buffers.
            for _ in 0..16 {
                peer.send(&Frame::Data { id: busy, offset, fin: false, payload: &[1; 512] }).unwrap();
                offset += 512;
            }
        }
        assert_eq!(peer.session.consume(peer.now, StreamId(busy), 1 << 20), 1 << 20);
        peer.keep_alive(FIRST);
        for n in 0..64 {
            let id = theirs(SessionRole::Server, 1 + round * 64 + n);
            peer.send(&Frame::Data { id, offset: 0, fin: false, payload: b"x" }).unwrap();
        }
    }
    let (_, held) = peer.session.memory();
    assert_eq!(held, 64 * u64::from(ROUNDS));
    assert!(peer.session.received_cost() < 2 << 20, "{} bytes for {held}", peer.session.received_cost());
}
