//! Recorded exchanges with a node of an earlier version: this version replays its own part of each, in both roles.
//!
//! A file in `transcripts/` holds every frame that one end of an earlier version sent while both ends followed the
//! script below: one line for each frame, after a line for each step. The replay runs the script at the other end and
//! feeds it those frames. The numbers in acknowledgements depend on the sizes of frames. So an ACK beyond the bytes
//! that this version has sent is lowered to them, and each step ends with an ACK of all bytes that this version has
//! sent.
//!
//! The ignored test `record` writes the files with the code of this checkout. Run it in a checkout of the earlier
//! version.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use bytes::Bytes;
use seaprox::link::frame::{Frame, HEADER_BYTES, Header, Lines, kind};
use seaprox::link::{
    BootId, Bound, Code, Config, Event, Host, Intent, Kind, Open, Outbox, Proofs, Session, SessionId, SessionRole,
    Status, StreamId, SubflowId, Time,
};

const SUBFLOW: SubflowId = SubflowId(1);
const PROOFS: Proofs = Proofs { ours: [0xA5; 32], theirs: [0xA5; 32] };
/// Bytes in each direction of the large stream: more than its first window.
const BULK: usize = 700_000;

/// One end, with an application that reads and stores all bytes.
struct End {
    role: SessionRole,
    session: Session,
    now: Time,
    /// Bytes received on each stream; `unsent` holds the bytes to be written, and whether a FIN follows them.
    received: BTreeMap<u32, Vec<u8>>,
    unsent: BTreeMap<u32, (Bytes, bool)>,
    /// The checked events, as text.
    events: Vec<String>,
    sent_bytes: u64,
}

impl End {
    fn new(role: SessionRole) -> End {
        let boot = BootId([role as u8 + 1; 8]);
        let mut session = Session::new(role, Config::default(), SessionId([7; 16]), boot, Time::ZERO);
        if role == SessionRole::Client {
            while session.next_subflow() != SUBFLOW {}
            assert!(session.connect(Time::ZERO, SUBFLOW, 1, PROOFS));
        }
        let (received, unsent) = (BTreeMap::new(), BTreeMap::new());
        End { role, session, now: Time::ZERO, received, unsent, events: Vec::new(), sent_bytes: 0 }
    }

    /// Does this end's part of a step. Returns false after the last step.
    fn step(&mut self, step: usize) -> bool {
        self.now = Time::from_us(1_000 + step as u64 * 50_000);
        self.session.handle_timeout(self.now);
        let (is_client, stream) =
            (self.role == SessionRole::Client, |n: u32, mine: bool| StreamId(2 * n + u32::from(!mine)));
        match (step, is_client) {
            // A stream that the client opens, with bytes and a FIN in both directions.
            (1, true) => self.open(&Open::name("db.example", 5432), b"select", true),
            (2, false) => self.send(stream(1, true), pattern(100_000), true),
            // A stream that the server refuses.
            (3, true) => self.open(&Open::name("refused.example", 1), b"", false),
            // A listener of the client's at the server, and a stream from it.
            (4, true) => {
                let place = Open { host: Host::Addr([127, 0, 0, 1].into()), port: 2222, ..Open::default() };
                self.session.listen(place).expect("room for a listener");
            }
            (5, false) => self.open(&Open { listener: 1, ..Open::default() }, b"ssh", false),
            (6, true) => self.send(stream(0, false), pattern(3_000), true),
            (7, false) => self.session.reset(stream(0, false), Code::SourceReset),
            // More than the window of a stream, in both directions.
            (8, true) => self.open(&Open::name("bulk.example", 9), pattern(BULK), true),
            (9, false) => self.send(stream(3, true), pattern(BULK), true),
            // A STOP, datagrams, messages.
            (30, true) => self.open(&Open::name("stop.example", 7), b"x", false),
            (31, false) => self.session.stop(self.now, stream(4, true), Code::DestReset),
            (32, true) => self.open(&Open { kind: Kind::Udp, ..Open::name("dns.example", 53) }, b"", false),
            (33, true) => {
                self.session.send_datagram(self.now, stream(5, true), Bytes::from_static(b"query")).expect("a flow");
            }
            (34, true) => self.session.message("hello").expect("a session"),
            (35, false) => self.session.finish(stream(4, true)).expect("a stream that is open"),
            (36, true) => self.session.reset(stream(5, true), Code::Killed),
            // A silence that is long enough for a PING in each direction, then GOAWAY and CLOSE.
            (200, false) => self.session.go_away(Code::Drained, "the server stops"),
            (201, true) => self.session.close(self.now, Code::Drained, "the client stops"),
            (210, _) => return false,
            _ => {}
        }
        true
    }

    fn open(&mut self, open: &Open, bytes: &'static [u8], fin: bool) {
        let id = self.session.open(self.now, open.clone()).expect("room for a stream");
        self.send(id, bytes, fin);
    }

    fn send(&mut self, id: StreamId, bytes: &'static [u8], fin: bool) {
        self.unsent.insert(id.0, (Bytes::from_static(bytes), fin));
    }

    /// Handles events, reads all received bytes and writes as many bytes as possible.
    fn apply(&mut self) {
        while let Some(event) = self.session.poll_event() {
            self.handle(event);
        }
        for (id, (bytes, fin)) in std::mem::take(&mut self.unsent) {
            let mut bytes = bytes;
            let stream = StreamId(id);
            if !bytes.is_empty() && self.session.write(stream, &mut bytes).is_err() {
                continue;
            }
            if !bytes.is_empty() {
                self.unsent.insert(id, (bytes, fin));
            } else if fin {
                self.session.finish(stream).expect("a stream that is open");
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Opened { id, open } if open.port == 1 => {
                let result = Bound { text: "nothing there".to_owned(), ..Bound::refused(Code::ConnectionRefused) };
                self.session.refuse(self.now, id, result).expect("the stream waits for an answer");
            }
            Event::Opened { id, open } => {
                self.events.push(format!("opened {} {:?} {} {}", id.0, open.host, open.port, open.listener));
                self.session.accept(id, Bound::default()).expect("the stream waits for an answer");
            }
            Event::OpenResult { id, result } => {
                self.events.push(format!("result {} {:?} {}", id.0, result.failure, result.text));
            }
            Event::Listen { id, .. } => {
                self.session
                    .listen_result(id, Bound { port: 2222, ..Bound::default() })
                    .expect("the listener waits for an answer");
            }
            Event::ListenResult { id, result } => self.events.push(format!("listens {id} {}", result.port)),
            Event::Readable(id) => {
                let bytes: Vec<u8> = self.session.readable(id).flatten().copied().collect();
                self.session.consume(self.now, id, bytes.len());
                self.received.entry(id.0).or_default().extend(bytes);
            }
            Event::Datagram(id) => {
                while let Some(datagram) = self.session.recv_datagram(id) {
                    self.events.push(format!("datagram {} {datagram:?}", id.0));
                }
            }
            Event::Fin(id) => self.events.push(format!("fin {}", id.0)),
            Event::Reset { id, code } => self.events.push(format!("reset {} {code:?}", id.0)),
            Event::Stopped { id, code } => self.events.push(format!("stopped {} {code:?}", id.0)),
            Event::Message(text) => self.events.push(format!("message {text}")),
            Event::GoAway { code, text } => self.events.push(format!("goes away {code:?} {text}")),
            Event::Ended { code, text } => self.events.push(format!("ended {code:?} {text}")),
            _ => {}
        }
    }

    /// Takes all frames that the end has to send.
    fn transmit(&mut self) -> Vec<Vec<u8>> {
        let (mut out, mut frames) = (Outbox::new(), Vec::new());
        loop {
            self.apply();
            self.session.set_room(SUBFLOW, 1 << 16);
            let before = frames.len();
            while self.session.poll_transmit(self.now, &mut out).is_some() {
                let mut frame = Vec::new();
                out.copy_to(&mut frame);
                out.clear();
                self.sent_bytes +=
                    if matches!(frame[0], kind::HELLO | kind::HELLO_ACK) { 0 } else { frame.len() as u64 };
                frames.push(frame);
            }
            if frames.len() == before {
                return frames;
            }
        }
    }

    /// Receives a frame of the other end.
    fn receive(&mut self, frame: &[u8]) {
        if self.role == SessionRole::Server && frame[0] == kind::HELLO {
            let Ok(Frame::Hello(hello)) = decode(frame) else { panic!("an invalid HELLO") };
            assert_eq!((hello.intent, hello.subflow), (Intent::New, SUBFLOW));
            assert_eq!(self.session.accept_subflow(self.now, &hello, PROOFS), Status::Ok);
        } else if !self.session.is_ended() {
            self.session
                .receive(self.now, SUBFLOW, 0, Bytes::copy_from_slice(frame))
                .expect("the earlier node's frame is valid");
        }
        self.apply();
    }

    /// Checks the results of the script at this end.
    fn check(&self) {
        let expected: &[&str] = match self.role {
            SessionRole::Client => &[
                "result 2 None ",
                "fin 2",
                "result 4 Some(ConnectionRefused) nothing there",
                "listens 1 2222",
                "opened 1 None 0 1",
                "reset 1 SourceReset",
                "result 6 None ",
                "fin 6",
                "result 8 None ",
                "stopped 8 DestReset",
                "result 10 None ",
                "fin 8",
                "goes away Drained the server stops",
            ],
            SessionRole::Server => &[
                "opened 2 Name(\"db.example\") 5432 0",
                "fin 2",
                "result 1 None ",
                "fin 1",
                "opened 6 Name(\"bulk.example\") 9 0",
                "fin 6",
                "opened 8 Name(\"stop.example\") 7 0",
                "opened 10 Name(\"dns.example\") 53 0",
                "datagram 10 b\"query\"",
                "message hello",
                "reset 10 Killed",
                "ended Drained the client stops",
            ],
        };
        assert_eq!(self.events, expected);
        let received: &[(u32, &[u8])] = match self.role {
            SessionRole::Client => &[(1, b"ssh"), (2, pattern(100_000)), (6, pattern(BULK))],
            SessionRole::Server => &[(1, pattern(3_000)), (2, b"select"), (6, pattern(BULK)), (8, b"x")],
        };
        for (id, bytes) in received {
            assert!(self.received.get(id).is_some_and(|got| got == bytes), "the bytes of stream {id}");
        }
        assert_eq!(self.received.len(), received.len());
    }
}

fn pattern(len: usize) -> &'static [u8] {
    static ALL: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    let all = ALL.get_or_init(|| (0..BULK as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 19) as u8).collect());
    &all[..len]
}

fn decode(bytes: &[u8]) -> Result<Frame<'_>, seaprox::link::frame::FrameError> {
    let header = Header::decode(bytes[..HEADER_BYTES].try_into().expect("a header"))?;
    Frame::decode(header, &bytes[HEADER_BYTES..])
}

/// Returns the line of a frame. The payload of a DATA frame is given by the script, so only its length is written.
fn line_of(frame: &[u8], script: &mut BTreeMap<u32, Vec<u8>>) -> String {
    let (head, payload) = frame.split_at(if frame[0] == kind::DATA { HEADER_BYTES + 8 } else { frame.len() });
    let mut line = head.iter().fold(String::new(), |mut line, byte| {
        let _ = write!(line, "{byte:02x}");
        line
    });
    if frame[0] == kind::DATA {
        let Ok(Frame::Data { id, offset, payload: bytes, .. }) = decode(frame) else { panic!("an invalid DATA") };
        let sent = script.entry(id).or_default();
        sent.resize(sent.len().max(offset as usize + bytes.len()), 0);
        sent[offset as usize..offset as usize + bytes.len()].copy_from_slice(bytes);
        let _ = write!(line, " +{}", payload.len());
    }
    line
}

/// Returns the frame of a line. The payload of a DATA frame is taken from the script.
fn frame_of(line: &str, role: SessionRole) -> Vec<u8> {
    let mut words = line.split(' ');
    let digits = words.next().expect("digits").as_bytes();
    let byte = |two: &[u8]| u8::from_str_radix(str::from_utf8(two).expect("digits"), 16).expect("digits");
    let mut frame: Vec<u8> = digits.chunks(2).map(byte).collect();
    if let Some(len) = words.next() {
        let len: usize = len[1..].parse().expect("a length");
        let id = u32::from_be_bytes(frame[4..8].try_into().expect("an id"));
        let offset = u64::from_be_bytes(frame[8..16].try_into().expect("an offset")) as usize;
        frame.extend_from_slice(&scripted(id, role)[offset..offset + len]);
    }
    frame
}

/// Returns the bytes that an end sends on a stream.
fn scripted(id: u32, role: SessionRole) -> &'static [u8] {
    match (id, role) {
        (2, SessionRole::Client) => b"select",
        (2, SessionRole::Server) => pattern(100_000),
        (1, SessionRole::Server) => b"ssh",
        (1, SessionRole::Client) => pattern(3_000),
        (8, SessionRole::Client) => b"x",
        _ => pattern(BULK),
    }
}

/// Lowers acknowledgements that are beyond the `sent` bytes.
fn adapted(frame: Vec<u8>, sent: u64) -> Vec<u8> {
    if frame[0] != kind::ACK {
        return frame;
    }
    let mut frame = frame;
    for line in frame[HEADER_BYTES..].chunks_mut(12) {
        let bytes = u64::from_be_bytes(line[4..].try_into().expect("a number"));
        line[4..].copy_from_slice(&bytes.min(sent).to_be_bytes());
    }
    frame
}

fn path(role: SessionRole) -> String {
    let role = if role == SessionRole::Client { "client" } else { "server" };
    format!("{}/tests/transcripts/287446b-{role}.txt", env!("CARGO_MANIFEST_DIR"))
}

/// Runs both ends through the script. Returns the transcript of each.
fn run() -> [String; 2] {
    let mut ends = [SessionRole::Client, SessionRole::Server].map(End::new);
    let mut texts = [String::new(), String::new()];
    let mut sent = [BTreeMap::new(), BTreeMap::new()];
    for step in 0.. {
        let mut goes_on = true;
        for (end, text) in ends.iter_mut().zip(&mut texts) {
            goes_on &= end.step(step);
            let _ = writeln!(text, "step {step}");
        }
        loop {
            let mut is_quiet = true;
            for from in 0..2 {
                for frame in ends[from].transmit() {
                    is_quiet = false;
                    texts[from].push_str(&line_of(&frame, &mut sent[from]));
                    texts[from].push('\n');
                    ends[1 - from].receive(&frame);
                }
            }
            if is_quiet {
                break;
            }
        }
        if !goes_on {
            break;
        }
    }
    ends.iter().for_each(End::check);
    for (role, sent) in [SessionRole::Client, SessionRole::Server].into_iter().zip(&sent) {
        sent.iter().for_each(|(id, bytes)| assert!(scripted(*id, role).starts_with(bytes), "stream {id}"));
    }
    // A step without frames is left out.
    texts.map(|text| {
        let lines: Vec<&str> = text.lines().collect();
        let is_empty =
            |at: usize| lines[at].starts_with("step") && lines.get(at + 1).is_none_or(|l| l.starts_with("step"));
        (0..lines.len()).filter(|at| !is_empty(*at)).map(|at| format!("{}\n", lines[at])).collect()
    })
}

/// Replays this version's part at one end against the recorded frames of the other. This version may send only frame
/// types and flags that the earlier version sent, because a peer without capabilities knows no others.
fn replay(role: SessionRole) {
    let read = |role| std::fs::read_to_string(path(role)).expect("a transcript");
    let (recorded, own) = (read(role.peer()), read(role));
    let kind_of = |frame: &[u8]| (frame[0], frame[1]);
    let frames = |text: &str, role| -> Vec<Vec<u8>> {
        text.lines().filter(|line| !line.starts_with("step")).map(|line| frame_of(line, role)).collect()
    };
    let known: BTreeSet<_> =
        frames(&recorded, role.peer()).iter().chain(&frames(&own, role)).map(|frame| kind_of(frame)).collect();
    let mut end = End::new(role);
    let mut sent = Vec::new();
    let mut lines = recorded.lines().peekable();
    for step in 0.. {
        let goes_on = end.step(step);
        sent.extend(end.transmit());
        if lines.next_if_eq(&format!("step {step}").as_str()).is_some() {
            while let Some(line) = lines.next_if(|line| !line.starts_with("step")) {
                let frame = adapted(frame_of(line, role.peer()), end.sent_bytes);
                end.receive(&frame);
                sent.extend(end.transmit());
            }
            let lanes: Vec<u8> = [&[0, 1, 0, 0], &end.sent_bytes.to_be_bytes()[..]].concat();
            let mut ack = Vec::new();
            Frame::Ack { lanes: Lines::new(&lanes).expect("one line") }.encode(&mut ack);
            end.receive(&ack);
            sent.extend(end.transmit());
        }
        if !goes_on {
            break;
        }
    }
    assert_eq!(lines.next(), None, "all lines were replayed");
    end.check();
    for frame in &sent {
        let (kind, flags) = kind_of(frame);
        assert!(known.contains(&(kind, flags)), "the earlier version never sent type {kind:02x} with flags {flags:x}");
    }
}

#[test]
fn a_client_of_this_version_understands_a_recorded_server() {
    replay(SessionRole::Client);
}

#[test]
fn a_server_of_this_version_understands_a_recorded_client() {
    replay(SessionRole::Server);
}

#[test]
fn two_ends_of_this_version_complete_the_script() {
    run();
}

#[test]
#[ignore = "writes the transcripts; only for the checkout of an earlier version"]
fn record() {
    for (role, text) in [SessionRole::Client, SessionRole::Server].into_iter().zip(run()) {
        std::fs::create_dir_all(format!("{}/tests/transcripts", env!("CARGO_MANIFEST_DIR"))).expect("a directory");
        std::fs::write(path(role), text).expect("a file");
    }
}
