//! A session whose peer is the test. The test sends any frames on any subflow and decides if it acknowledges.

use std::collections::BTreeMap;

use bytes::Bytes;
use seaprox::link::frame::{Frame, LaneAck, Lines};
use seaprox::link::{
    BootId, Config, Event, Hello, HelloAck, Intent, Limits, Outbox, Proofs, Session, SessionId, SessionRole, Status,
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
    /// Bytes received on each lane, for acknowledgements.
    received: BTreeMap<u16, u64>,
}

/// Returns the encoded bytes of a frame.
pub fn bytes_of(frame: &Frame<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    frame.encode(&mut out);
    out
}

/// The limits that an honest peer announces.
pub const LIMITS: Limits =
    Limits { streams: 65_536, listeners: 256, stream_credit: 256 << 10, session_credit: 64 << 20 };

impl Peer {
    /// Returns a session in `role` with one live subflow. `caps` are the capabilities that the test announces as its
    /// peer.
    pub fn of(role: SessionRole, config: Config, caps: u64) -> Peer {
        let now = Time::from_us(1000);
        let session = Session::new(role, config, SESSION, BootId([1; 8]), now);
        let mut peer = Peer { session, now, caps, received: BTreeMap::new() };
        peer.join(FIRST);
        peer
    }

    /// Brings up a subflow: the first, another one, or one that resumes the session after all were lost.
    pub fn join(&mut self, id: SubflowId) -> SubflowId {
        let all_lost = self.session.subflow_ids().count() == 0;
        let was_up = !self.received.is_empty();
        let intent = match (was_up, all_lost) {
            (false, _) => Intent::New,
            (true, true) => Intent::Resume,
            (true, false) => Intent::Join,
        };
        self.received.insert(id.0, 0);
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
        self.received.insert(id.0, 0);
        id
    }

    /// Sends a frame to the session on the first subflow.
    pub fn send(&mut self, frame: &Frame<'_>) -> Result<(), Violation> {
        self.send_on(FIRST, frame)
    }

    /// Sends a frame to the session on a subflow.
    pub fn send_on(&mut self, id: SubflowId, frame: &Frame<'_>) -> Result<(), Violation> {
        self.session.receive(self.now, id, 0, Bytes::from(bytes_of(frame)))
    }

    /// Takes all events of the session.
    pub fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.session.poll_event()).collect()
    }

    /// Advances the time by `us` microseconds, in 100 steps, and runs the session's timers at each.
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
                *self.received.entry(transmit.subflow.0).or_default() += frame.len() as u64;
            }
            all.push((transmit.subflow, frame));
        }
        all
    }

    /// Acknowledges all bytes received on a subflow.
    pub fn acknowledge(&mut self, id: SubflowId) {
        let mut line = Vec::new();
        LaneAck { subflow: id.0, lane: 0, bytes: self.received[&id.0] }.encode(&mut line);
        self.send_on(id, &Frame::Ack { lanes: Lines::new(&line).unwrap() }).unwrap();
    }

    /// Answers every PING, so that the subflow stays alive, and acknowledges all bytes. Returns the received frames.
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

/// Decodes the bytes of one whole frame.
pub fn decode(bytes: &[u8]) -> Result<Frame<'_>, seaprox::link::frame::FrameError> {
    use seaprox::link::frame::{HEADER_BYTES, Header};
    let header = Header::decode(bytes[..HEADER_BYTES].try_into().unwrap())?;
    Frame::decode(header, &bytes[HEADER_BYTES..])
}
