//! Subflows of several lanes, as in a QUIC connection: each lane is in order, but frames on different lanes arrive in any
//! order, and messages of the carrier may be lost.

use std::collections::VecDeque;

use bytes::Bytes;
use seaprox::link::frame::{Frame, Lines, kind};
use seaprox::link::{
    BootId, Bound, Code, Config, Event, HelloReader, Kind, LANES_MAX, MESSAGE_LANE, Open, Outbox, Proofs, Session,
    SessionId, SessionRole, Status, StreamId, SubflowId, Time, Violation,
};

use crate::link_kit::peer::bytes_of;
use crate::link_kit::rng::Rng;

const PROOFS: Proofs = Proofs { ours: [0; 32], theirs: [0; 32] };
const CLIENT: usize = 0;
const SERVER: usize = 1;

/// One subflow of several lanes.
struct Subflow {
    id: SubflowId,
    /// Frames under way to each end, by lane, with the time of their arrival. The last lane holds the messages.
    flying: [Vec<VecDeque<(Time, Bytes)>>; 2],
    /// Lanes on which nothing arrives, for both ends.
    held: Vec<u16>,
}

/// Two sessions with subflows of several lanes.
pub struct Lanes {
    pub ends: [Session; 2],
    subflows: Vec<Subflow>,
    now: Time,
    rng: Rng,
    /// One frame in so many is delayed with everything behind it on its lane.
    jitter: u64,
    /// One message in so many is lost, or none if 0.
    loss: u64,
    /// Maximum length of a message; 0 if the carrier has none.
    message_bytes_max: usize,
    /// The frames that each end has sent: type, lane, stream.
    sent: [Vec<(u8, u16, StreamId)>; 2],
    lanes: u16,
}

impl Lanes {
    pub fn new(lanes: u16) -> Lanes {
        let mut link = Lanes::without_subflow(lanes, Config::default());
        link.dial();
        link.run(30);
        assert!(link.ends.iter().all(Session::is_open));
        link
    }

    fn without_subflow(lanes: u16, config: Config) -> Lanes {
        let (id, now) = (SessionId([3; 16]), Time::from_us(1));
        let client = Session::new(SessionRole::Client, config, id, BootId([1; 8]), now);
        let server = Session::new(SessionRole::Server, config, id, BootId([2; 8]), now);
        Lanes {
            ends: [client, server],
            subflows: Vec::new(),
            now,
            rng: Rng::new(8),
            jitter: 4,
            loss: 0,
            message_bytes_max: 0,
            sent: Default::default(),
            lanes,
        }
    }

    /// Dials a subflow. Its HELLO has arrived, and its HELLO_ACK is under way.
    fn dial(&mut self) -> SubflowId {
        let id = self.ends[CLIENT].next_subflow();
        assert!(self.ends[CLIENT].connect(self.now, id, self.lanes, PROOFS));
        self.ends[CLIENT].set_room(id, 1 << 20);
        let mut out = Outbox::new();
        self.ends[CLIENT].poll_transmit(self.now, &mut out).unwrap();
        let mut hello = Vec::new();
        out.copy_to(&mut hello);
        let (hello, _) = HelloReader::default().feed(&hello).unwrap().unwrap();
        assert_eq!(self.ends[SERVER].accept_subflow(self.now, &hello, PROOFS), Status::Ok);
        let flying = [(); 2].map(|()| vec![VecDeque::new(); usize::from(self.lanes) + 1]);
        self.subflows.push(Subflow { id, flying, held: Vec::new() });
        id
    }

    /// Ends all subflows; what is under way is lost.
    fn cut(&mut self) {
        for subflow in std::mem::take(&mut self.subflows) {
            self.ends.iter_mut().for_each(|end| end.subflow_down(self.now, subflow.id));
        }
    }

    /// Advances the time by a millisecond, sends the frames of both ends, and delivers what has arrived: the lanes in a random
    /// order.
    fn turn(&mut self) {
        self.now = self.now.after(1000);
        for from in [CLIENT, SERVER] {
            self.ends[from].handle_timeout(self.now);
            self.transmit(from);
        }
        for to in [CLIENT, SERVER] {
            for at in 0..self.subflows.len() {
                self.deliver(to, at);
            }
        }
    }

    fn transmit(&mut self, from: usize) {
        for subflow in &self.subflows {
            self.ends[from].set_room(subflow.id, 60_000);
            self.ends[from].set_message_bytes_max(subflow.id, self.message_bytes_max);
        }
        let mut out = Outbox::new();
        while let Some(transmit) = self.ends[from].poll_transmit(self.now, &mut out) {
            let mut wire = Vec::new();
            out.copy_to(&mut wire);
            out.clear();
            let stream = StreamId(u32::from_be_bytes(wire[4..8].try_into().unwrap()));
            self.sent[from].push((wire[0], transmit.lane, stream));
            let Some(subflow) = self.subflows.iter_mut().find(|s| s.id == transmit.subflow) else { continue };
            // Messages overtake each other, frames on a lane do not.
            let is_message = transmit.lane == MESSAGE_LANE;
            if is_message && self.loss > 0 && self.rng.one_in(self.loss) {
                continue;
            }
            let late_us = if self.rng.one_in(self.jitter) { self.rng.range(1, 20_000) } else { 0 };
            let lane = &mut subflow.flying[1 - from][usize::from(transmit.lane.min(self.lanes))];
            let before = lane.back().map_or(self.now, |(at, _)| *at).max(self.now);
            let arrival = if is_message { self.now } else { before }.after(late_us);
            let place = lane.partition_point(|(at, _)| *at <= arrival);
            lane.insert(place, (arrival, Bytes::from(wire)));
        }
    }

    fn deliver(&mut self, to: usize, at: usize) {
        let first = self.rng.range(0, u64::from(self.lanes)) as u16;
        for n in 0..=self.lanes {
            let lane = (first + n) % (self.lanes + 1);
            let name = if lane == self.lanes { MESSAGE_LANE } else { lane };
            while let Some(subflow) = self.subflows.get_mut(at).filter(|s| !s.held.contains(&name)) {
                let queue = &mut subflow.flying[to][usize::from(lane)];
                if queue.front().is_none_or(|(at, _)| *at > self.now) {
                    break;
                }
                let (_, frame) = queue.pop_front().unwrap();
                self.ends[to].receive(self.now, subflow.id, name, frame).unwrap();
            }
        }
    }

    /// Runs for so many milliseconds. Nothing is read or written.
    fn run(&mut self, ms: u64) {
        (0..ms).for_each(|_| self.turn());
    }

    fn open(&mut self, kind: Kind) -> StreamId {
        self.ends[CLIENT].open(self.now, Open { kind, ..Open::name("q", 1) }).unwrap()
    }

    /// Opens streams, of which each first byte has arrived.
    fn streams(&mut self, count: usize) -> Vec<StreamId> {
        let ids: Vec<StreamId> = (0..count).map(|_| self.open(Kind::Tcp)).collect();
        self.run(60);
        events(&mut self.ends[SERVER]).into_iter().for_each(|event| {
            if let Event::Opened { id, .. } = event {
                self.ends[SERVER].accept(id, Bound::default()).unwrap();
            }
        });
        self.run(60);
        self.sent = Default::default();
        ids
    }

    /// Writes `bytes` bytes to a stream and ends it.
    fn write(&mut self, id: StreamId, bytes: usize) {
        let mut chunk = Bytes::from(vec![id.0 as u8; bytes]);
        assert_eq!(self.ends[CLIENT].write(id, &mut chunk).unwrap(), bytes);
        self.ends[CLIENT].finish(id).unwrap();
    }

    /// Takes what has arrived at the server. Returns the streams that have ended with `bytes` bytes each.
    fn ended(&mut self, bytes: usize, got: &mut std::collections::BTreeMap<StreamId, usize>) -> Vec<StreamId> {
        let mut ended = Vec::new();
        for event in events(&mut self.ends[SERVER]) {
            match event {
                Event::Opened { id, .. } => self.ends[SERVER].accept(id, Bound::default()).unwrap(),
                Event::Readable(id) => {
                    let read: Vec<u8> = self.ends[SERVER].readable(id).flatten().copied().collect();
                    assert!(read.iter().all(|byte| *byte == id.0 as u8));
                    *got.entry(id).or_default() += read.len();
                    self.ends[SERVER].consume(self.now, id, read.len());
                }
                Event::Fin(id) => {
                    assert_eq!(got[&id], bytes);
                    ended.push(id);
                }
                Event::Reset { id, code } => panic!("{id:?} was reset: {code:?}"),
                Event::Ended { code, text } => panic!("the session has ended: {code:?} {text}"),
                _ => {}
            }
        }
        ended
    }

    /// Runs until so many streams have ended with `bytes` bytes each. Returns them in the order of their ends.
    fn run_until_ended(&mut self, count: usize, bytes: usize) -> Vec<StreamId> {
        let (mut got, mut ended) = (Default::default(), Vec::new());
        for _ in 0..20_000 {
            self.turn();
            ended.extend(self.ended(bytes, &mut got));
            if ended.len() == count {
                return ended;
            }
        }
        panic!("{} of {count} streams have ended", ended.len());
    }

    /// Returns the lanes that the DATA frames of a stream have taken.
    fn lanes_of(&self, id: StreamId) -> Vec<u16> {
        let data =
            |(frame, lane, stream): &(u8, u16, StreamId)| (*frame == kind::DATA && *stream == id).then_some(*lane);
        let mut lanes: Vec<u16> = self.sent[CLIENT].iter().filter_map(data).collect();
        lanes.dedup();
        lanes
    }
}

fn events(session: &mut Session) -> Vec<Event> {
    std::iter::from_fn(|| session.poll_event()).collect()
}

#[test]
fn a_subflow_of_many_lanes_carries_each_stream_in_order() {
    for lanes in [2, 5, LANES_MAX] {
        let mut link = Lanes::new(lanes);
        let ids: Vec<StreamId> = (0..20).map(|_| link.open(Kind::Tcp)).collect();
        ids.iter().for_each(|id| link.write(*id, 100_000));
        link.run_until_ended(20, 100_000);
        for id in ids {
            let own = 1 + (id.0 / 2) as u16 % (lanes - 1);
            assert!(link.lanes_of(id).iter().all(|lane| [0, own].contains(lane)), "{:?}", link.lanes_of(id));
        }
        assert_eq!(link.ends[CLIENT].stats().suspicions, 0);
    }
}

#[test]
fn other_lanes_open_once_the_peer_has_acknowledged_the_handshake() {
    let mut link = Lanes::without_subflow(5, Config::default());
    link.message_bytes_max = 1200;
    link.dial();
    link.run(30);
    let ids = link.streams(4);
    for id in &ids {
        link.ends[SERVER].write(*id, &mut Bytes::from(vec![1; 100_000])).unwrap();
    }
    // The server may send on a second subflow at once, and the client learns of that only by the HELLO_ACK.
    let second = link.dial();
    link.subflows[1].held = vec![0];
    link.sent = Default::default();
    link.run(50);
    let early = link.subflows[1].flying[CLIENT][1..].iter().map(VecDeque::len).sum::<usize>();
    assert_eq!(early, 0, "frames on other lanes would precede the HELLO_ACK");
    link.subflows[1].held.clear();
    link.run(200);
    assert!(link.sent[SERVER].iter().any(|(_, lane, _)| *lane > 0));
    assert!(link.ends[CLIENT].subflow_ids().any(|id| id == second));
    // A message may precede the HELLO_ACK all the same, after a loss; it is dropped.
    let third = link.dial();
    let datagram = bytes_of(&Frame::Datagram { id: 2, payload: b"x" });
    link.ends[CLIENT].receive(link.now, third, MESSAGE_LANE, datagram.into()).unwrap();
    assert!(link.ends[CLIENT].subflow_ids().any(|id| id == third));
}

#[test]
fn a_resumed_session_keeps_its_streams_although_its_lanes_overtake_each_other() {
    for seed in 0..10 {
        let mut link = Lanes::new(LANES_MAX);
        (link.rng, link.jitter) = (Rng::new(seed), 2);
        let ids: Vec<StreamId> = (0..6).map(|_| link.open(Kind::Tcp)).collect();
        ids.iter().for_each(|id| link.write(*id, 200_000));
        for _ in 0..3 {
            link.run(40 + seed);
            link.cut();
            link.run(5);
            link.dial();
        }
        link.run_until_ended(6, 200_000);
        assert_eq!(link.ends.each_ref().map(|end| end.stats().resumes), [3, 3]);
    }
}

#[test]
fn a_stalled_lane_delays_only_its_own_streams() {
    let mut link = Lanes::new(5);
    let ids = link.streams(8);
    link.subflows[0].held = vec![2];
    ids.iter().for_each(|id| link.write(*id, 20_000));
    let ended = link.run_until_ended(6, 20_000);
    let is_held = |id: &StreamId| 1 + id.0 / 2 % 4 == 2;
    assert!(!ended.iter().any(is_held), "{ended:?}");
    assert_eq!(link.ends[CLIENT].stats().suspicions, 0);
    link.run(400);
    let stats = link.ends[CLIENT].stats();
    // The carrier repairs the lane, and its other lanes would be no faster.
    assert_eq!((stats.stalled_lanes, stats.resent_bytes), (1, 0), "{stats:?}");
    // New streams of the lane avoid it, and use it again when it has gone on.
    let next = link.streams(4);
    let own = *next.iter().find(|id| is_held(id)).unwrap();
    link.ends[CLIENT].write(own, &mut Bytes::from(vec![own.0 as u8; 10_000])).unwrap();
    link.run(100);
    assert_eq!(link.lanes_of(own), [3]);
    link.subflows[0].held.clear();
    link.run(100);
    link.ends[CLIENT].write(own, &mut Bytes::from(vec![own.0 as u8; 10_000])).unwrap();
    link.run(100);
    assert_eq!(link.lanes_of(own), [3, 2]);
}

#[test]
fn a_small_message_does_not_wait_for_the_frames_of_a_lost_subflow() {
    let mut link = Lanes::new(2);
    link.dial();
    link.run(60);
    let ids = link.streams(2);
    link.subflows.iter_mut().for_each(|subflow| subflow.held = vec![0, 1]);
    link.write(ids[0], 400_000);
    link.run(5);
    let lost = link.subflows.remove(0).id;
    link.ends.iter_mut().for_each(|end| end.subflow_down(link.now, lost));
    link.subflows[0].held.clear();
    link.write(ids[1], 100);
    link.sent = Default::default();
    link.run(20);
    let data: Vec<StreamId> =
        link.sent[CLIENT].iter().filter(|(frame, ..)| *frame == kind::DATA).map(|(.., stream)| *stream).collect();
    assert!(link.ends[CLIENT].stats().resent_bytes > 40_000, "{:?}", link.ends[CLIENT].stats());
    let place = data.iter().position(|id| *id == ids[1]).unwrap();
    assert!(place <= 1, "behind {place} other frames");
}

#[test]
fn the_frames_of_a_stalled_lane_take_another_subflow() {
    for lanes in [2, 5] {
        let mut link = Lanes::new(lanes);
        let ids = link.streams(2);
        let held: Vec<u16> = ids.iter().map(|id| 1 + (id.0 / 2) as u16 % (lanes - 1)).collect();
        ids.iter().for_each(|id| link.write(*id, 20_000));
        // Another stream goes on, so that the lanes are late and the subflow is not.
        let other = (lanes > 2).then(|| link.open(Kind::Tcp));
        link.subflows[0].held = held;
        for _ in 0..40 {
            other.map(|id| link.ends[CLIENT].write(id, &mut Bytes::from(vec![id.0 as u8; 100])).unwrap());
            link.run(10);
        }
        assert_eq!(link.ends[CLIENT].stats().resent_bytes, 0, "there is nothing else");
        link.dial();
        link.run_until_ended(2, 20_000);
    }
}

#[test]
fn a_lane_that_never_goes_on_ends_its_subflow() {
    for lane in [0, 1] {
        let mut link = Lanes::without_subflow(2, Config { dead_us: 2_000_000, ..Config::default() });
        link.dial();
        link.run(30);
        let ids = link.streams(2);
        ids.iter().for_each(|id| link.write(*id, 20_000));
        link.subflows[0].held = vec![lane];
        let mut events_seen = Vec::new();
        for _ in 0..2600 {
            link.turn();
            // Each end hears of the other all the time, so the subflow is not silent.
            link.ends[CLIENT].write(ids[0], &mut Bytes::new()).ok();
            events_seen.extend(events(&mut link.ends[CLIENT]));
        }
        let down = Event::SubflowDown { id: SubflowId(0), code: Code::TimedOut };
        assert!(events_seen.contains(&down), "lane {lane}: {events_seen:?}");
    }
}

#[test]
fn datagrams_that_fit_go_as_messages_and_count_in_no_lane() {
    let mut link = Lanes::new(5);
    (link.message_bytes_max, link.loss) = (1208, 4);
    let flow = link.open(Kind::Udp);
    link.ends[CLIENT].send_datagram(link.now, flow, Bytes::from(vec![1; 100])).unwrap();
    link.run(60);
    link.ended(0, &mut Default::default());
    let lanes = |link: &mut Lanes| {
        let sent = std::mem::take(&mut link.sent[CLIENT]);
        let is_datagram = |frame: u8| matches!(frame, kind::DATAGRAM | kind::DATAGRAM_PART);
        sent.iter().filter(|(frame, ..)| is_datagram(*frame)).map(|(_, lane, _)| *lane).collect::<Vec<_>>()
    };
    assert_eq!(lanes(&mut link), [0], "a datagram does not overtake its OPEN");
    assert_eq!(link.ends[SERVER].recv_datagram(flow).unwrap().len(), 100);

    let mut got = 0;
    for n in 0..400 {
        link.ends[CLIENT].send_datagram(link.now, flow, Bytes::from(vec![n as u8; 1200])).unwrap();
        link.turn();
        got += std::iter::from_fn(|| link.ends[SERVER].recv_datagram(flow)).count();
    }
    link.run(50);
    got += std::iter::from_fn(|| link.ends[SERVER].recv_datagram(flow)).count();
    assert_eq!(lanes(&mut link), vec![MESSAGE_LANE; 400]);
    assert!((250..350).contains(&got), "{got} of 400");
    let (_, _, in_flight, is_suspect) = link.ends[CLIENT].path(SubflowId(0)).unwrap();
    assert!(in_flight < 100 && !is_suspect, "a lost message leaves nothing in flight: {in_flight}");

    for _ in 0..10 {
        link.ends[CLIENT].send_datagram(link.now, flow, Bytes::from(vec![2; 1201])).unwrap();
        link.ends[CLIENT].send_datagram(link.now, flow, Bytes::from(vec![3; 20_000])).unwrap();
        link.run(60);
        let all: Vec<usize> = std::iter::from_fn(|| link.ends[SERVER].recv_datagram(flow)).map(|d| d.len()).collect();
        assert_eq!(all, [1201, 20_000], "longer ones take the lane of the flow and are not lost");
    }
}

#[test]
fn a_dead_path_of_messages_is_noticed_within_half_a_second() {
    let mut link = Lanes::new(5);
    link.message_bytes_max = 1208;
    let flow = link.open(Kind::Udp);
    link.dial();
    link.run(1500);
    // Held back, the message shows the subflow of the flow.
    link.subflows.iter_mut().for_each(|subflow| subflow.held = vec![MESSAGE_LANE]);
    link.ends[CLIENT].send_datagram(link.now, flow, Bytes::from_static(b"x")).unwrap();
    link.run(30);
    link.ended(0, &mut Default::default());
    let used = link.subflows.iter().position(|s| !s.flying[SERVER][5].is_empty()).expect("a message");
    link.subflows.iter_mut().for_each(|subflow| subflow.held.clear());
    link.subflows[used].held = (0..5).chain([MESSAGE_LANE]).collect();
    let mut last = 0;
    for ms in 0..500 {
        link.ends[CLIENT].send_datagram(link.now, flow, Bytes::from_static(b"x")).unwrap();
        link.turn();
        if std::iter::from_fn(|| link.ends[SERVER].recv_datagram(flow)).count() > 0 {
            last = ms;
        }
    }
    assert!(last > 480, "datagrams arrive again: {last}");
}

#[test]
fn messages_hold_whole_datagrams_and_nothing_else() {
    let datagram = bytes_of(&Frame::Datagram { id: 2, payload: b"abc" });
    let ping = bytes_of(&Frame::Ping { token: 1 });
    let cases = [
        (datagram.clone(), true),
        ([&datagram[..], &datagram[..]].concat(), true),
        (datagram[..9].to_vec(), false),
        ([&datagram[..], &[0]].concat(), false),
        ([&datagram[..], &ping[..]].concat(), false),
        (ping, false),
    ];
    for (bytes, is_valid) in cases {
        let mut link = Lanes::new(3);
        let result = link.ends[SERVER].receive(link.now, SubflowId(0), MESSAGE_LANE, bytes.clone().into());
        assert_eq!(result.is_ok(), is_valid, "{bytes:?}");
        assert!(is_valid || matches!(result, Err(Violation::Frame(_))));
        assert_eq!(link.ends[SERVER].subflow_ids().count(), usize::from(is_valid));
        assert!(!link.ends[SERVER].is_ended());
    }
}

#[test]
fn an_acknowledgement_is_due_by_the_bytes_of_all_lanes() {
    let mut link = Lanes::new(LANES_MAX);
    let ids = link.streams(16);
    link.run(100);
    // A full frame on each of 16 lanes is as much as what is acknowledged at once, and each lane by itself has little.
    for id in &ids {
        let frame = bytes_of(&Frame::Data { id: id.0, offset: 0, fin: false, payload: &[0; 16_368] });
        link.ends[SERVER].receive(link.now, SubflowId(0), 1 + (id.0 / 2 % 16) as u16, frame.into()).unwrap();
    }
    let mut out = Outbox::new();
    let mut sent = Vec::new();
    while link.ends[SERVER].poll_transmit(link.now, &mut out).is_some() {
        let mut wire = Vec::new();
        out.copy_to(&mut wire);
        out.clear();
        sent.push(wire);
    }
    let ack = sent.iter().find(|wire| wire[0] == kind::ACK).expect("an ACK at once");
    assert!(Lines::<12>::new(&ack[8..]).unwrap().iter().count() >= 16, "one line for each lane");
}
