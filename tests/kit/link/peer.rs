//! A session whose peer is the test: it sends whatever frames it likes, on any subflow, and acknowledges or not.

use std::collections::BTreeMap;

use bytes::Bytes;
use seaprox::link::frame::{Frame, LaneAck, Lines};
use seaprox::link::{
    BootId, Config, Event, Hello, HelloAck, Intent, Limits, Outbox, Proofs, Role, Session, SessionId, Status,
    SubflowId, Time, Violation,
};

/// The first subflow.
pub const FIRST: SubflowId = SubflowId(7);

const PROOFS: Proofs = Proofs { ours: [0; 32], theirs: [0; 32] };
const SESSION: SessionId = SessionId([0xAA; 16]);

pub struct Peer {
    pub session: Session,
    pub now: Time,
    caps: u64,
    /// Bytes that each lane has brought, for acknowledgements.
    brought: BTreeMap<u16, u64>,
}

pub fn bytes_of(frame: &Frame<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    frame.encode(&mut out);
    out
}

/// The limits that an honest peer announces.
pub const LIMITS: Limits =
    Limits { streams: 65_536, listeners: 256, stream_credit: 256 << 10, session_credit: 64 << 20 };

impl Peer {
    /// A session in one of the roles, with one live subflow. `caps` are those that the test, as its peer, says it has.
    pub fn of(role: Role, config: Config, caps: u64) -> Peer {
        let now = Time::from_us(1000);
        let session = Session::new(role, config, SESSION, BootId([1; 8]), now);
        let mut peer = Peer { session, now, caps, brought: BTreeMap::new() };
        peer.join(FIRST);
        peer
    }

    /// Brings up a subflow: the first, one more, or the first again after all were lost.
    pub fn join(&mut self, id: SubflowId) -> SubflowId {
        let fresh = self.session.subflow_ids().count() == 0;
        let met = !self.brought.is_empty();
        let intent = match (met, fresh) {
            (false, _) => Intent::New,
            (true, true) => Intent::Resume,
            (true, false) => Intent::Join,
        };
        self.brought.insert(id.0, 0);
        let hello = Hello {
            versions: (1, 1),
            intent,
            session: SESSION,
            boot: BootId([0xBB; 8]),
            subflow: id,
            lanes: 1,
            caps: self.caps,
            limits: LIMITS,
            proof: [0; 32],
        };
        if !self.session.connect(self.now, id, 1, PROOFS) {
            assert_eq!(self.session.accept_subflow(self.now, &hello, PROOFS), Status::Ok);
            self.session.set_room(id, 1 << 20);
            return id;
        }
        self.session.set_room(id, 1 << 20);
        let said = self.frames();
        let Ok(Frame::Hello(hello)) = decode(&said[0].1) else { panic!("no HELLO") };
        let refusal = HelloAck::refusal(Status::Ok, &hello, BootId([0xBB; 8]));
        let caps = hello.caps & self.caps;
        self.send_on(id, &Frame::HelloAck(HelloAck { caps, limits: LIMITS, ..refusal })).unwrap();
        self.brought.insert(id.0, 0);
        id
    }

    pub fn send(&mut self, frame: &Frame<'_>) -> Result<(), Violation> {
        self.send_on(FIRST, frame)
    }

    pub fn send_on(&mut self, id: SubflowId, frame: &Frame<'_>) -> Result<(), Violation> {
        self.session.input(self.now, id, 0, Bytes::from(bytes_of(frame)))
    }

    pub fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.session.poll_event()).collect()
    }

    /// Lets time pass, in steps, and the timers of the session with it.
    pub fn pass(&mut self, us: u64) {
        for _ in 0..100 {
            self.now = self.now.after(us / 100);
            self.session.handle_timeout(self.now);
        }
    }

    /// Returns all frames that the session wants to send now, with the subflow of each.
    pub fn frames(&mut self) -> Vec<(SubflowId, Vec<u8>)> {
        self.session.handle_timeout(self.now);
        let (mut out, mut all) = (Outbox::new(), Vec::new());
        while let Some(transmit) = self.session.poll_transmit(self.now, &mut out) {
            let mut frame = Vec::new();
            out.copy_to(&mut frame);
            out.clear();
            if !matches!(frame[0], 1 | 2) {
                *self.brought.entry(transmit.subflow.0).or_default() += frame.len() as u64;
            }
            all.push((transmit.subflow, frame));
        }
        all
    }

    /// Acknowledges all that has come on a subflow.
    pub fn acknowledge(&mut self, id: SubflowId) {
        let mut line = Vec::new();
        LaneAck { subflow: id.0, lane: 0, bytes: self.brought[&id.0] }.encode(&mut line);
        self.send_on(id, &Frame::Ack { lanes: Lines::new(&line).unwrap() }).unwrap();
    }

    /// Answers every PING, so that the subflow stays alive, and acknowledges what has come.
    pub fn keep_alive(&mut self, id: SubflowId) -> Vec<Vec<u8>> {
        self.session.set_room(id, 1 << 20);
        let frames: Vec<_> = self.frames().into_iter().map(|(_, frame)| frame).collect();
        for frame in &frames {
            if let Ok(Frame::Ping { token }) = decode(frame) {
                self.send_on(id, &Frame::Pong { token, held_us: 0 }).unwrap();
            }
        }
        self.acknowledge(id);
        frames
    }
}

pub fn decode(bytes: &[u8]) -> Result<Frame<'_>, seaprox::link::frame::FrameError> {
    use seaprox::link::frame::{HEADER_BYTES, Header};
    let header = Header::decode(bytes[..HEADER_BYTES].try_into().unwrap())?;
    Frame::decode(header, &bytes[HEADER_BYTES..])
}
