//! Runs against an admitted peer that keeps no rule but the framing: frames for streams that were never opened, floods,
//! pieces that keep large buffers, resets in loops. The application at this end opens, reads, writes and resets at
//! random. The resources of the session must stay within their bounds all the time, and must be free when the session
//! has ended.

use std::collections::BTreeMap;

use bytes::Bytes;
use seaprox::link::frame::{Frame, Lines};
use seaprox::link::{
    Bound, Capability, Code, Config, Event, OPENS_MAX, Open, Session, SessionRole, StreamId, SubflowId,
};

use super::peer::{FIRST, Peer, bytes_of, decode};
use super::rng::Rng;

const MIB: u64 = 1 << 20;
static PAYLOAD: [u8; 16_368] = [7; 16_368];

struct Run {
    peer: Peer,
    rng: Rng,
    role: SessionRole,
    config: Config,
    has_feature: bool,
    /// For each of the peer's streams: the bytes that the peer has sent, and true if the peer has reset it.
    sent: BTreeMap<u32, (u64, bool)>,
    /// The streams, and the bytes on all streams, that the peer has credit for. The peer exceeds them now and then.
    allowed: (u32, u64),
    /// The sum of `sent`.
    total: u64,
    /// The streams that the application here has accepted.
    live: Vec<StreamId>,
    /// The subflow that is up.
    subflow: SubflowId,
}

/// Runs one seed. Panics if a bound or an invariant is broken.
pub fn run(seed: u64) {
    let mut rng = Rng::new(seed ^ 0xBAD);
    let role = if rng.one_in(2) { SessionRole::Server } else { SessionRole::Client };
    let window = rng.scaled(20_000, 8 * MIB);
    let stream = rng.scaled(2000, 300_000).min(window);
    let config = Config {
        stream_window_bytes: (stream, rng.scaled(stream, 2 * MIB).min(window)),
        session_window_bytes: (window, window),
        send_bytes_max: rng.scaled(4000, MIB),
        streams_max: rng.scaled(4, 5000) as u32,
        streams_permitted: if rng.one_in(3) { rng.range(0, 20) as u32 } else { u32::MAX },
        hold_us: 600_000_000,
        ..Config::default()
    };
    let has_feature = !rng.one_in(3);
    let caps = if has_feature { Capability::all() } else { 0 };
    let peer = Peer::of(role, config, caps);
    let first =
        if has_feature { config.streams_max.min(config.streams_permitted).min(OPENS_MAX) } else { config.streams_max };
    let (sent, live, allowed) = (BTreeMap::new(), Vec::new(), (first, window));
    let mut run = Run { peer, rng, role, config, has_feature, sent, allowed, total: 0, live, subflow: FIRST };
    for _ in 0..300 {
        run.step();
        run.check();
        if run.peer.session.is_ended() {
            break;
        }
    }
    run.peer.session.abort(Code::LimitReached, "the run is over");
    let session = &run.peer.session;
    assert_eq!(
        (session.memory(), session.received_cost(), session.sent_cost()),
        ((0, 0), 0, 0),
        "an aborted session must hold no memory"
    );
    assert_eq!(session.streams_live(), 0);
}

impl Run {
    fn theirs(&self, n: u32) -> u32 {
        StreamId::nth(self.role.peer(), n).map_or(2, |id| id.0)
    }

    fn step(&mut self) {
        if self.peer.session.subflow_ids().count() == 0 {
            self.join();
        }
        match self.rng.range(0, 9) {
            0..=4 => self.attack(),
            5 | 6 => self.application(),
            7 => {
                self.peer.session.set_room(self.subflow, 1 << 20);
                let frames = if self.rng.one_in(2) {
                    self.peer.keep_alive(self.subflow)
                } else {
                    self.peer.frames().into_iter().map(|(_, frame)| frame).collect()
                };
                for frame in frames {
                    match decode(&frame) {
                        Ok(Frame::MaxStreams { max }) => self.allowed.0 = self.allowed.0.max(max),
                        Ok(Frame::Credit { id: 0, max, .. }) => self.allowed.1 = self.allowed.1.max(max),
                        _ => {}
                    }
                }
            }
            8 => {
                let us = self.rng.scaled(1000, 30_000_000);
                self.peer.pass(us);
            }
            _ if self.rng.one_in(4) => {
                self.peer.session.subflow_down(self.peer.now, self.subflow);
                self.join();
            }
            _ => {
                let share = self.rng.scaled(10_000, self.config.session_window_bytes.1);
                self.peer.session.set_receive_bytes_max(share);
                self.peer.session.set_send_bytes_max(share);
            }
        }
    }

    fn join(&mut self) {
        self.subflow = SubflowId(self.subflow.0 + 1);
        self.peer.join(self.subflow);
        let states = Frame::ResumeState { last: true, states: Lines::new(&[]).unwrap() };
        self.peer.send_on(self.subflow, &states).unwrap();
    }

    /// Returns the number of a stream of the peer's that has credit, or rarely of one that has none.
    fn stream(&mut self, most: u32) -> u32 {
        let most = if self.rng.one_in(20_000) { 80_000 } else { most.min(self.allowed.0.saturating_sub(1)) };
        self.rng.scaled(1, u64::from(most) + 1) as u32 - 1
    }

    /// Returns true if the peer sends a stream up to `end`, and records it if the stream has credit.
    fn may_send(&mut self, n: u32, end: u64) -> bool {
        let (sent, is_over) = self.sent.get(&n).copied().unwrap_or_default();
        let more = end.saturating_sub(sent);
        let fits = !is_over && end <= self.config.stream_window_bytes.0 && self.total + more <= self.allowed.1;
        if fits {
            self.total += more;
            self.sent.insert(n, (sent + more, false));
        }
        fits || self.rng.one_in(20_000)
    }

    /// Passes one read of hostile frames, of one random kind, to the session.
    fn attack(&mut self) {
        let mut wire = Vec::new();
        let kind = self.rng.range(0, 5);
        let room = self.rng.scaled(24, 112 << 10) as usize;
        let first = self.stream(63);
        if self.allowed.0 == 0 {
            return;
        }
        while wire.len() < room {
            match kind {
                0 => self.name_a_stream(&mut wire),
                1 => {
                    let offset = self.rng.range(0, 4000) * 2 + 1;
                    let id = if self.may_send(first, offset + 1) { self.theirs(first) } else { 0 };
                    match id {
                        0 => Frame::Pad { len: 1 }.encode(&mut wire),
                        id => Frame::Data { id, offset, fin: false, payload: b"x" }.encode(&mut wire),
                    }
                }
                2 => {
                    // One piece in a buffer that holds nothing else of use.
                    let len = self.rng.scaled(1000, 16_368) as usize;
                    self.data(first, len, &mut wire);
                    while wire.len() < room {
                        Frame::Pad { len: 16_000.min(room) }.encode(&mut wire);
                    }
                }
                3 => {
                    let n = self.stream(2000);
                    let id = self.theirs(n);
                    let (size, _) = self.sent.get(&n).copied().unwrap_or_default();
                    self.sent.insert(n, (size, true));
                    Frame::Open { id, open: Open::name("a", 1) }.encode(&mut wire);
                    Frame::Reset { id, code: Code::Other, size }.encode(&mut wire);
                    Frame::Stop { id, code: Code::Other }.encode(&mut wire);
                }
                4 => {
                    let len = self.rng.scaled(1, 16_368) as usize;
                    let n = self.stream(63);
                    self.data(n, len, &mut wire);
                }
                _ => {
                    let n = self.stream(5000);
                    Frame::Open { id: self.theirs(n), open: Open::name("a", 1) }.encode(&mut wire);
                }
            }
        }
        self.events(None);
        let frames = self.peer.session.stats().frames[1];
        let _ = self.peer.session.receive(self.peer.now, self.subflow, 0, Bytes::from(wire));
        let frames = self.peer.session.stats().frames[1] - frames;
        self.events(Some(frames));
    }

    /// Appends the next piece of a stream, in order and within the credit that the peer knows; padding if it has none.
    fn data(&mut self, n: u32, len: usize, wire: &mut Vec<u8>) {
        let id = self.theirs(n);
        let offset = self.sent.get(&n).map_or(0, |(sent, _)| *sent);
        if self.may_send(n, offset + len as u64) {
            Frame::Data { id, offset, fin: false, payload: &PAYLOAD[..len] }.encode(wire);
        } else {
            Frame::Pad { len }.encode(wire);
        }
    }

    fn name_a_stream(&mut self, wire: &mut Vec<u8>) {
        let n = self.stream(80_000);
        let id = self.theirs(n);
        let frame = match self.rng.range(0, 5) {
            0 => Frame::Credit { id, max: 1 << 20, taken: 0 },
            1 => Frame::Stop { id, code: Code::SourceReset },
            2 => Frame::Stop { id, code: Code::Other },
            3 => Frame::Blocked { id, offset: 1 },
            4 => Frame::Datagram { id, payload: b"x" },
            _ => Frame::UnknownStream { id },
        };
        wire.extend(bytes_of(&frame));
    }

    /// Takes the session's events and accepts or refuses streams. A read of `frames` frames must lead to few events.
    fn events(&mut self, frames: Option<u64>) {
        let events = self.peer.events();
        if let Some(frames) = frames.filter(|_| !self.peer.session.is_ended()) {
            assert!(events.len() as u64 <= 4 * frames + 4, "{} events of {frames} frames", events.len());
        }
        for event in events {
            if let Event::Opened { id, .. } = event {
                if self.rng.one_in(4) {
                    let refused = Bound::refused(Code::NotPermitted);
                    // The peer may have reset it in the same read.
                    let _ = self.peer.session.refuse(self.peer.now, id, refused);
                } else if self.peer.session.accept(id, Bound::default()).is_ok() && self.live.len() < 200 {
                    self.live.push(id);
                }
            }
        }
    }

    fn application(&mut self) {
        let now = self.peer.now;
        let session: &mut Session = &mut self.peer.session;
        for _ in 0..self.rng.range(0, 30) {
            if self.live.is_empty() {
                break;
            }
            let at = self.rng.range(0, self.live.len() as u64 - 1) as usize;
            let id = self.live[at];
            match self.rng.range(0, 5) {
                0..=2 => {
                    let held: usize = session.readable(id).map(<[u8]>::len).sum();
                    session.consume(now, id, self.rng.range(0, held as u64) as usize);
                }
                3 => {
                    let _ = session.write(id, &mut Bytes::from_static(&PAYLOAD));
                }
                4 => {
                    let _ = session.open(now, Open::name("b", 2));
                }
                _ => {
                    session.reset(id, Code::SourceReset);
                    session.stop(now, id, Code::SourceReset);
                    self.live.swap_remove(at);
                }
            }
        }
        self.events(None);
    }

    /// Checks the bounds that the manual states.
    fn check(&self) {
        let session = &self.peer.session;
        let window = self.config.session_window_bytes.1;
        let (sent, received) = session.memory();
        assert!(received <= window && sent <= self.config.send_bytes_max, "{received}, {sent}");
        assert!(session.promised() <= window);
        let (unopened, gaps) = (session.streams_unopened() as u64, session.gaps() as u64);
        let most = 3 * window + 2 * MIB + 256 * gaps + 1024 * unopened + 4 * MIB;
        assert!(session.received_cost() <= most, "{} bytes for {received}", session.received_cost());
        if self.has_feature {
            assert!(unopened <= u64::from(OPENS_MAX) && unopened <= u64::from(self.config.streams_max));
        }
        session.check_invariants();
    }
}
