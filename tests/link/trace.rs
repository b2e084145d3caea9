//! The wire format, byte for byte, and the reaction of a session to a peer's frames: late, twice, in any order, split
//! anywhere, or invalid.

use crate::link_kit;

use std::net::SocketAddr;

use bytes::Bytes;
use link_kit::app::Plan;
use link_kit::{CLIENT, SERVER, World};
use proptest::prelude::*;
use seaprox::link::frame::{
    BODY_BYTES_MAX, Class, Frame, FrameError, HEADER_BYTES, Header, LaneAck, Lines, StreamPosition,
};
use seaprox::link::{
    BootId, Bound, Capability, ClientAddrs, Code, Config, Event, Hello, HelloAck, HelloReader, Host, Intent, Kind,
    Limits, Open, Outbox, Proofs, STREAMS_EVER, Session, SessionId, SessionRole, Status, StreamId, SubflowId, Time,
    Violation,
};

const LANE: SubflowId = SubflowId(7);

fn bytes_of(frame: &Frame<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    frame.encode(&mut out);
    out
}

fn decode(bytes: &[u8]) -> Result<Frame<'_>, FrameError> {
    let header = Header::decode(bytes[..HEADER_BYTES].try_into().unwrap())?;
    assert_eq!(header.len, bytes.len() - HEADER_BYTES);
    Frame::decode(header, &bytes[HEADER_BYTES..])
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|two| u8::from_str_radix(str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

const LIMITS: Limits = Limits { streams: 0x10, listeners: 0x20, stream_credit: 0x1000, session_credit: 0x2000 };

fn hello(intent: Intent) -> Hello {
    Hello {
        versions: (1, 1),
        intent,
        session: SessionId([0xAA; 16]),
        boot: BootId([0xBB; 8]),
        subflow: LANE,
        lanes: 1,
        caps: 0,
        limits: LIMITS,
        proof: [0xCC; 32],
    }
}

#[test]
fn every_frame_encodes_to_its_golden_bytes() {
    let lane_acks = hex("0007 0000 0000000000001234");
    let states = hex("00000002 0000000000000010 0000000000000020 0000000000000030");
    let open = Open {
        port: 443,
        host: Host::Name("ab.c".to_owned()),
        weight: 2,
        timeout_ms: 5000,
        source: "x".to_owned(),
        listener: 9,
        kind: Kind::Udp,
        client: None,
    };
    let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
    let client = Some(ClientAddrs { client: addr("192.0.2.7:5678"), local: addr("[::1]:80") });
    let of_client = Open { client, ..Open::name("a", 1) };
    let listen = Open { port: 80, host: Host::Addr([127, 0, 0, 1].into()), ..Open::default() };
    let bound = Bound { host: Host::Addr("::1".parse().unwrap()), port: 0x1F90, ..Bound::default() };
    let refused =
        Bound { failure: Some(Code::ConnectionRefused), errno: 111, text: "no".to_owned(), ..Bound::default() };
    let ack = HelloAck {
        status: Status::Limit,
        version: 1,
        session: SessionId([0xAA; 16]),
        boot: BootId([0xBB; 8]),
        subflow: LANE,
        caps: 0,
        limits: LIMITS,
        proof: [0xCC; 32],
    };
    let limits = "00000010 00000020 0000000000001000 0000000000002000";
    let (aa, bb, cc) = ("AA".repeat(16), "BB".repeat(8), "CC".repeat(32));
    let hello_hex = format!("01000064 00000000 53505258 01 01 0001 {aa}{bb} 0007 0001 0000000000000000 {limits} {cc}");
    let ack_hex = format!("0200005c 00000000 04 01 0007 {aa}{bb} 0000000000000000 {limits} {cc}");
    let table: Vec<(Frame<'_>, &str)> = vec![
        (Frame::Pad { len: 3 }, "00000003 00000000 000000"),
        (Frame::Hello(hello(Intent::Join)), &hello_hex),
        (Frame::HelloAck(ack), &ack_hex),
        (
            Frame::ResumeState { last: true, states: Lines::new(&states).unwrap() },
            "0301001c 00000000 00000002 0000000000000010 0000000000000020 0000000000000030",
        ),
        (Frame::Ping { token: 0x0102 }, "04000008 00000000 0000000000000102"),
        (Frame::Pong { token: 0x0102, held_us: 5 }, "05000010 00000000 0000000000000102 0000000000000005"),
        (Frame::GoAway { last: 6, code: Code::Drained, text: "bye" }, "06000005 00000006 0013 627965"),
        (Frame::Close { code: Code::Killed, text: "" }, "07000002 00000000 0014"),
        (Frame::Subflow { subflow: 7, class: Class::Backup }, "08000001 00000007 01"),
        (
            Frame::Open { id: 2, open },
            "1000001a 00000002 01 00 01bb 00000009 03 04 61622e63 01 01 02 03 04 00001388 04 01 78",
        ),
        (
            Frame::Open { id: 4, open: of_client },
            "10000027 00000004 00 00 0001 00000000 03 01 61 05 1a 01 c0000207 162e 04 00000000000000000000000000000001 0050",
        ),
        (
            Frame::OpenResult { id: 2, result: bound },
            "11000017 00000002 0000 0000 1f90 04 00000000000000000000000000000001",
        ),
        (Frame::Listen { id: 1, open: listen }, "1200000d 00000001 00 00 0050 00000000 01 7f000001"),
        (Frame::ListenResult { id: 1, result: refused }, "13000009 00000001 0002 006f 0000 00 6e6f"),
        (Frame::Unlisten { id: 1 }, "14000000 00000001"),
        (
            Frame::Data { id: 2, offset: 0x1_0000_0000, fin: true, payload: b"hi" },
            "2001000a 00000002 0000000100000000 6869",
        ),
        (Frame::Reset { id: 2, code: Code::SourceReset, size: 9 }, "2100000a 00000002 000b 0000000000000009"),
        (Frame::UnknownStream { id: 2 }, "2101000a 00000002 0010 0000000000000000"),
        (Frame::Stop { id: 2, code: Code::DestReset }, "22000002 00000002 000c"),
        (Frame::Credit { id: 0, max: 0x10, taken: 2 }, "23000010 00000000 0000000000000010 0000000000000002"),
        (Frame::MaxStreams { max: 70_000 }, "24000004 00000000 00011170"),
        (Frame::Ack { lanes: Lines::new(&lane_acks).unwrap() }, "2500000c 00000000 0007 0000 0000000000001234"),
        (Frame::Blocked { id: 2, offset: 1 }, "26000008 00000002 0000000000000001"),
        (Frame::Datagram { id: 4, payload: b"u" }, "30000001 00000004 75"),
        (
            Frame::DatagramPart { id: 4, number: 2, total: 20_000, offset: 9, payload: b"u" },
            "b000000d 00000004 00000002 00004e20 00000009 75",
        ),
        (Frame::Message { seq: 3, text: "hé" }, "31000003 00000003 68c3a9"),
        (Frame::Extension { kind: 0x99 }, "99000000 00000000"),
    ];
    for (frame, text) in &table {
        assert_eq!(bytes_of(frame), hex(text), "{frame:?}");
        assert_eq!(decode(&hex(text)).as_ref(), Ok(frame));
    }
    let line = Lines::<12>::new(&lane_acks).unwrap().iter().next().unwrap();
    assert_eq!(line, LaneAck { subflow: 7, lane: 0, bytes: 0x1234 });
    let line = Lines::<28>::new(&states).unwrap().iter().next().unwrap();
    assert_eq!(line, StreamPosition { id: 2, received: 16, credit: 32, sent: 48 });
}

#[test]
fn capabilities_are_the_intersection_agreed_in_the_first_handshake() {
    let feature = Capability::OrderedOpens;
    assert_eq!(Capability::all(), Capability::LIST.iter().fold(0, |bits, one| bits | one.bit()));
    assert_eq!(Capability::LIST.iter().map(|one| one.bit().count_ones()).sum::<u32>(), Capability::all().count_ones());
    let proofs = Proofs { ours: [0; 32], theirs: [0xCC; 32] };
    let caps_of = |frame: &[u8]| u64::from_be_bytes(frame[36..44].try_into().unwrap());
    for (ours, theirs, both) in
        [(Capability::all(), u64::MAX, true), (Capability::all(), 0, false), (0, u64::MAX, false)]
    {
        let config = Config { capabilities: ours, ..Config::default() };
        let mut server = Session::new(SessionRole::Server, config, SessionId([0xAA; 16]), BootId([1; 8]), Time::ZERO);
        let first = Hello { caps: theirs, ..hello(Intent::New) };
        assert_eq!(server.accept_subflow(Time::ZERO, &first, proofs), Status::Ok);
        let other = Hello { caps: !theirs, subflow: SubflowId(8), ..hello(Intent::Join) };
        assert_eq!(server.accept_subflow(Time::ZERO, &other, proofs), Status::Ok);
        server.set_room(LANE, 1 << 20);
        server.set_room(SubflowId(8), 1 << 20);
        let acks: Vec<_> = frames(&mut server, Time::ZERO).into_iter().filter(|frame| frame[0] == 2).collect();
        assert_eq!(
            acks.iter().map(|ack| caps_of(ack)).collect::<Vec<_>>(),
            [ours & theirs; 2],
            "a join changes nothing"
        );
        assert_eq!(server.has_capability(feature), both);

        let mut client = Session::new(SessionRole::Client, config, SessionId([0xAA; 16]), BootId([2; 8]), Time::ZERO);
        assert!(client.connect(Time::ZERO, LANE, 1, Proofs { ours: [0; 32], theirs: [0; 32] }));
        client.set_room(LANE, 1 << 20);
        let sent = frames(&mut client, Time::ZERO);
        let Ok(Frame::Hello(said)) = decode(&sent[0]) else { panic!("no HELLO") };
        assert_eq!(
            (said.caps, client.has_capability(feature)),
            (ours, false),
            "no capability is agreed before the answer"
        );
        let ack = HelloAck {
            status: Status::Ok,
            caps: theirs,
            proof: [0; 32],
            ..HelloAck::refusal(Status::Ok, &said, BootId([1; 8]))
        };
        input(&mut client, &Frame::HelloAck(ack)).unwrap();
        assert_eq!(client.has_capability(feature), both);
    }
}

#[test]
fn invalid_bytes_are_refused_with_the_right_frame_error() {
    assert_eq!(decode(&hex("7f000000 00000000")), Err(FrameError::UnknownKind(0x7F)));
    assert!(decode(&hex("ff000003 00000000 010203")).is_ok(), "an extension is skipped");
    assert_eq!(Header::decode([0x20, 0, 0xFF, 0xFF, 0, 0, 0, 2]), Err(FrameError::TooLarge));
    let len = u16::try_from(BODY_BYTES_MAX + 1).unwrap().to_be_bytes();
    assert_eq!(Header::decode([0x20, 0, len[0], len[1], 0, 0, 0, 2]), Err(FrameError::TooLarge));
    assert_eq!(decode(&hex("20000004 00000002 00000000")), Err(FrameError::Short));
    assert_eq!(decode(&hex("22000003 00000002 000c00")), Err(FrameError::Long));
    assert_eq!(decode(&hex("22000002 00000002 0000")), Err(FrameError::Value));
    assert_eq!(decode(&hex("31000001 00000000 ff")), Err(FrameError::Value));
    let open = |client: &str, len: &str| format!("100000{len} 00000004 00 00 0001 00000000 00 {client}");
    assert_eq!(decode(&hex(&open("05 0a 03 01 61 0001 01 7f000001", "15"))), Err(FrameError::Value), "a name");
    assert_eq!(decode(&hex(&open("05 07 01 7f000001 0001", "12"))), Err(FrameError::Short), "one address");
    assert!(decode(&hex(&open("06 01 ff", "0c"))).is_ok(), "an option of a later version is skipped");
}

fn any_open() -> impl Strategy<Value = Open> {
    let host = prop_oneof![
        Just(Host::None),
        any::<[u8; 4]>().prop_map(|a| Host::Addr(a.into())),
        any::<[u8; 16]>().prop_map(|a| Host::Addr(a.into())),
        "[a-zé]{0,60}".prop_map(Host::Name),
    ];
    let kind = prop_oneof![Just(Kind::Tcp), Just(Kind::Udp), Just(Kind::Internal)];
    let addr = || any::<(std::net::IpAddr, u16)>().prop_map(SocketAddr::from);
    let client = proptest::option::of((addr(), addr()).prop_map(|(client, local)| ClientAddrs { client, local }));
    (kind, any::<(u32, u16, u8, u32)>(), host, "[ -~]{0,255}", client).prop_map(
        |(kind, (listener, port, weight, timeout_ms), host, source, client)| Open {
            kind,
            listener,
            host,
            port,
            weight,
            timeout_ms,
            source,
            client,
        },
    )
}

proptest! {
    #[test]
    fn an_encoded_frame_decodes_to_itself(id: u32, offset: u64, fin: bool, payload in proptest::collection::vec(any::<u8>(), 0..300), open in any_open(), n in 0usize..22, text in ".{0,80}") {
        let code = Code::ALL[n];
        let result = Bound { failure: (n % 3 == 0).then_some(code), errno: id as u16, host: open.host.clone(), port: open.port, text: text.clone() };
        for frame in [
            Frame::Data { id, offset, fin, payload: &payload },
            Frame::Open { id, open: open.clone() },
            Frame::Listen { id, open: open.clone() },
            Frame::OpenResult { id, result: result.clone() },
            Frame::ListenResult { id, result: result.clone() },
            Frame::Reset { id, code, size: offset },
            Frame::Stop { id, code },
            Frame::Credit { id, max: offset, taken: offset / 3 },
            Frame::GoAway { last: id, code, text: &text },
            Frame::Message { seq: id, text: &text },
            Frame::Pong { token: offset, held_us: offset / 2 },
            Frame::Datagram { id, payload: &payload },
            Frame::DatagramPart { id, number: offset as u32, total: (offset >> 32) as u32, offset: id ^ 7, payload: &payload },
        ] {
            let wire = bytes_of(&frame);
            prop_assert_eq!(decode(&wire), Ok(frame));
        }
    }

    /// Any bytes that can be decoded are encoded to the same meaning, and no bytes make the decoder panic.
    #[test]
    fn arbitrary_bytes_decode_to_a_frame_or_an_error(kind: u8, flags: u8, id: u32, body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let header = Header { kind, flags, len: body.len(), id };
        prop_assert_eq!(Header::decode(header.encode()), Ok(header));
        if let Ok(frame) = Frame::decode(header, &body) {
            let again = bytes_of(&frame);
            prop_assert_eq!(decode(&again), Ok(frame));
        }
    }
}

/// Returns a server with one subflow whose client is this test.
fn server() -> Session {
    server_with(Config::default())
}

fn server_with(config: Config) -> Session {
    let mut session = Session::new(SessionRole::Server, config, SessionId([0xAA; 16]), BootId([1; 8]), Time::ZERO);
    let proofs = Proofs { ours: [0; 32], theirs: [0xCC; 32] };
    assert_eq!(session.accept_subflow(Time::ZERO, &hello(Intent::New), proofs), Status::Ok);
    session.set_room(LANE, 1 << 20);
    session
}

fn input(session: &mut Session, frame: &Frame<'_>) -> Result<(), Violation> {
    session.receive(Time::from_us(1000), LANE, 0, Bytes::from(bytes_of(frame)))
}

fn events(session: &mut Session) -> Vec<Event> {
    std::iter::from_fn(|| session.poll_event()).collect()
}

/// Takes all frames that the session has to send.
fn frames(session: &mut Session, now: Time) -> Vec<Vec<u8>> {
    session.handle_timeout(now);
    let mut out = Outbox::new();
    let mut all = Vec::new();
    while session.poll_transmit(now, &mut out).is_some() {
        let mut frame = Vec::new();
        out.copy_to(&mut frame);
        all.push(frame);
        out.clear();
    }
    all
}

fn open_frame(id: u32) -> Frame<'static> {
    Frame::Open { id, open: Open::name("a", 1) }
}

fn data(id: u32, offset: u64, payload: &'static [u8], fin: bool) -> Frame<'static> {
    Frame::Data { id, offset, fin, payload }
}

/// Reads and consumes all received bytes of a stream.
fn taken(session: &mut Session, id: u32) -> Vec<u8> {
    let bytes: Vec<u8> = session.readable(StreamId(id)).flatten().copied().collect();
    session.consume(Time::from_us(2000), StreamId(id), bytes.len());
    bytes
}

#[test]
fn a_short_exchange_sends_the_expected_bytes() {
    let mut session = server();
    let sent = frames(&mut session, Time::from_us(500));
    assert_eq!(sent[0][..12], hex("0200005c 00000000 00 01 0007")[..]);
    assert_eq!(sent[1], hex("04000008 00000000 00000000000001f4"), "a PING to measure the path");
    assert_eq!(sent.len(), 2);
    input(&mut session, &open_frame(2)).unwrap();
    input(&mut session, &data(2, 0, b"ping", true)).unwrap();
    session.accept(StreamId(2), Bound::default()).unwrap();
    assert_eq!(taken(&mut session, 2), b"ping");
    let mut reply = Bytes::from_static(b"pong");
    assert_eq!(session.write(StreamId(2), &mut reply), Ok(4));
    session.finish(StreamId(2)).unwrap();
    let sent = frames(&mut session, Time::from_us(40_000));
    assert_eq!(sent[0], hex("2500000c 00000000 0007 0000 0000000000000027"), "39 bytes of OPEN and DATA");
    assert_eq!(sent[1], hex("11000007 00000002 0000 0000 0000 00"));
    assert_eq!(sent[2], hex("2001000c 00000002 0000000000000000 706f6e67"));
    assert_eq!(sent.len(), 3);
}

/// Returns the kinds of the frames that leave at a time after an OPEN that was accepted at 1 ms.
fn kinds_with_an_answer(at_us: u64) -> Vec<u8> {
    let mut session = server();
    frames(&mut session, Time::from_us(500));
    input(&mut session, &open_frame(2)).unwrap();
    session.accept(StreamId(2), Bound::default()).unwrap();
    frames(&mut session, Time::from_us(at_us)).iter().map(|frame| frame[0]).collect()
}

/// Alone it would cost both ends a record and a packet.
#[test]
fn an_acknowledgement_that_has_waited_for_half_of_its_delay_follows_another_frame() {
    const ACK: u8 = 0x25;
    const OPEN_RESULT: u8 = 0x11;
    let is_due = |at_us: &u64| kinds_with_an_answer(*at_us)[0] == ACK;
    let delay_us = (1000..100_000).step_by(100).find(is_due).unwrap() - 1000;
    assert_eq!(kinds_with_an_answer(1000 + delay_us / 2 - 200), [OPEN_RESULT]);
    assert_eq!(kinds_with_an_answer(1000 + delay_us / 2 + 200), [OPEN_RESULT, ACK]);
}

#[test]
fn frames_are_read_in_pieces_of_any_size() {
    let mut wire = Vec::new();
    (0..100).for_each(|n| open_frame(2 + 2 * n).encode(&mut wire));
    (0..100u32).for_each(|n| data(2 + 2 * n, 0, b"some bytes", n % 2 == 0).encode(&mut wire));
    let count = |events: Vec<Event>| {
        let opened = events.iter().filter(|e| matches!(e, Event::Opened { .. })).count();
        (opened, events.iter().filter(|e| matches!(e, Event::Readable(_))).count())
    };
    for size in [1, 2, 7, 8, 9, 64, wire.len()] {
        let mut session = server();
        events(&mut session);
        for part in wire.chunks(size) {
            session.receive(Time::ZERO, LANE, 0, Bytes::copy_from_slice(part)).unwrap();
        }
        assert_eq!(count(events(&mut session)), (100, 100), "in pieces of {size}");
        assert_eq!(taken(&mut session, 2), b"some bytes");
    }
}

#[test]
fn data_before_its_open_waits_and_late_frames_open_no_stream() {
    let mut session = server();
    events(&mut session);
    input(&mut session, &data(4, 0, b"early", true)).unwrap();
    assert_eq!(events(&mut session), [], "a stream is not reported before its OPEN");
    assert_eq!(session.streams_live(), 1, "a record for this stream only");
    input(&mut session, &open_frame(4)).unwrap();
    assert!(matches!(&events(&mut session)[..], [Event::Opened { id: StreamId(4), .. }, Event::Readable(StreamId(4))]));
    session.refuse(Time::ZERO, StreamId(4), Bound::refused(Code::NotPermitted)).unwrap();
    acknowledge(&mut session, &mut 0);
    assert_eq!(session.streams_live(), 0);
    events(&mut session);
    for frame in [open_frame(4), data(4, 5, b"late", true), Frame::Reset { id: 4, code: Code::Other, size: 9 }] {
        input(&mut session, &frame).unwrap();
    }
    assert_eq!((events(&mut session), session.streams_live()), (vec![], 0));
    assert_eq!(session.stats().late_frames, 3);
    let sent = frames(&mut session, Time::from_us(60_000));
    let resets: Vec<_> = sent.iter().filter(|frame| frame[0] == 0x21).collect();
    assert_eq!(resets, [&bytes_of(&Frame::UnknownStream { id: 4 })], "one answer for all");
}

#[test]
fn a_frame_for_a_stream_that_never_existed_is_answered_once_and_opens_none() {
    let mut session = server();
    frames(&mut session, Time::from_us(500));
    events(&mut session);
    let strays = [
        data(1, 0, b"x", true),
        Frame::OpenResult { id: 1, result: Bound::default() },
        Frame::Credit { id: 1, max: 9, taken: 0 },
        Frame::Blocked { id: 1, offset: 9 },
        Frame::Stop { id: 1, code: Code::Other },
        Frame::Reset { id: 1, code: Code::Other, size: 9 },
        Frame::Datagram { id: 1, payload: b"x" },
        Frame::UnknownStream { id: 1 },
    ];
    (0..10).for_each(|_| strays.iter().for_each(|frame| input(&mut session, frame).unwrap()));
    let reported = vec![Event::Stray(StreamId(1))];
    assert_eq!((events(&mut session), session.streams_live()), (reported, 0), "reported once");
    assert_eq!((session.stats().stray_frames, session.stats().late_frames), (70, 0));
    let answers = |session: &mut Session, us| {
        let sent = frames(session, Time::from_us(us));
        sent.into_iter().filter(|frame| frame[0] == 0x21).collect::<Vec<_>>()
    };
    assert_eq!(answers(&mut session, 600), [bytes_of(&Frame::UnknownStream { id: 1 })], "one answer to all frames");
    strays[2..].iter().for_each(|frame| input(&mut session, frame).unwrap());
    assert_eq!(
        answers(&mut session, 700),
        [[0u8; 0]; 0],
        "a RESET is not answered, nor are frames that need no answer"
    );
    for n in 0..1000 {
        input(&mut session, &data(1 + 2 * n, 0, b"x", false)).unwrap();
    }
    assert_eq!(answers(&mut session, 800).len(), 64, "the waiting answers are limited");
    assert_eq!(session.open(Time::from_us(900), Open::name("a", 1)), Ok(StreamId(1)), "the id is still free");
}

#[test]
fn an_unknown_stream_answer_ends_a_running_stream_but_not_a_finished_one() {
    let absent = Frame::UnknownStream { id: 2 };
    let running = || {
        let mut session = server();
        input(&mut session, &open_frame(2)).unwrap();
        input(&mut session, &data(2, 0, b"abc", false)).unwrap();
        session.accept(StreamId(2), Bound::default()).unwrap();
        session.write(StreamId(2), &mut Bytes::from_static(b"defg")).unwrap();
        events(&mut session);
        session
    };
    let mut session = running();
    (0..2).for_each(|_| input(&mut session, &absent).unwrap());
    let (id, code) = (StreamId(2), Code::ProtocolError);
    assert_eq!(events(&mut session), [Event::Stopped { id, code }, Event::Reset { id, code }, Event::Gone(id)]);
    assert_eq!((session.streams_live(), session.memory()), (0, (0, 0)));
    // Both FINs have been sent and received. Only acknowledgements and the application's reads are missing.
    let mut session = running();
    input(&mut session, &data(2, 3, b"", true)).unwrap();
    session.finish(id).unwrap();
    frames(&mut session, Time::from_us(500));
    input(&mut session, &absent).unwrap();
    assert_eq!((events(&mut session), session.streams_live()), (vec![], 1));
    assert_eq!(taken(&mut session, 2), b"abc");
    assert_eq!(events(&mut session), [Event::Fin(id)]);
    // A stream that is being opened is refused.
    let mut session = server();
    events(&mut session);
    let id = session.open(Time::ZERO, Open::name("a", 1)).unwrap();
    input(&mut session, &Frame::UnknownStream { id: id.0 }).unwrap();
    let refused = Event::OpenResult { id, result: Bound::refused(code) };
    assert_eq!(events(&mut session), [refused, Event::Gone(id)]);
}

/// Takes all frames that the session has to send, and acknowledges them. `total` counts the bytes of the lane.
fn acknowledge(session: &mut Session, total: &mut u64) {
    let now = Time::from_us(50_000);
    let sent = frames(session, now);
    *total += sent.iter().filter(|frame| frame[0] != 2).map(|frame| frame.len() as u64).sum::<u64>();
    let mut line = Vec::new();
    LaneAck { subflow: 7, lane: 0, bytes: *total }.encode(&mut line);
    input(session, &Frame::Ack { lanes: Lines::new(&line).unwrap() }).unwrap();
}

/// Returns the bytes of the DATA frames of a stream.
fn carried(frames: &[Vec<u8>], id: u32) -> usize {
    let is_its = |frame: &&Vec<u8>| matches!(decode(frame), Ok(Frame::Data { id: its, .. }) if its == id);
    frames.iter().filter(is_its).map(|frame| frame.len()).sum()
}

#[test]
fn a_completely_received_stream_outlives_its_session() {
    for (code, acked, whole) in [
        (Code::Drained, false, true),
        (Code::Drained, true, true),
        (Code::Killed, true, true),
        // A peer that closes with another code may not have all bytes that were sent to it.
        (Code::Killed, false, false),
    ] {
        let mut session = server();
        for id in [2, 4] {
            input(&mut session, &open_frame(id)).unwrap();
            session.accept(StreamId(id), Bound::default()).unwrap();
            session.write(StreamId(id), &mut Bytes::from_static(b"answer")).unwrap();
            session.finish(StreamId(id)).unwrap();
            input(&mut session, &data(id, 0, b"said", false)).unwrap();
        }
        input(&mut session, &data(2, 4, b" to its end", true)).unwrap();
        if acked {
            acknowledge(&mut session, &mut 0);
        } else {
            frames(&mut session, Time::from_us(50_000));
        }
        events(&mut session);
        session.consume(Time::from_us(60_000), StreamId(2), 2);
        input(&mut session, &Frame::Close { code, text: "" }).unwrap();
        let said = events(&mut session);
        let rest = said.iter().find_map(|event| match event {
            Event::Undelivered { id: StreamId(2), bytes } => Some(bytes.concat()),
            _ => None,
        });
        assert_eq!(rest.as_deref(), whole.then_some(&b"id to its end"[..]), "{code:?} {acked}: {said:?}");
        let cut: Vec<_> = said.iter().filter(|event| matches!(event, Event::Reset { .. })).collect();
        let expected = if whole { vec![4] } else { vec![2, 4] };
        assert_eq!(cut.len(), expected.len(), "{said:?}");
        for id in expected {
            assert!(said.contains(&Event::Reset { id: StreamId(id), code: Code::LinkLost }), "{said:?}");
        }
    }
}

#[test]
fn a_subflow_beyond_its_window_takes_only_urgent_frames() {
    const WINDOW: usize = 64 << 10;
    let (mut session, mut total, now) = (server(), 0, Time::from_us(2000));
    for id in [2, 4] {
        input(&mut session, &open_frame(id)).unwrap();
        session.accept(StreamId(id), Bound::default()).unwrap();
    }
    for id in [0, 2, 4] {
        input(&mut session, &Frame::Credit { id, max: 1 << 20, taken: 0 }).unwrap();
    }
    session.set_window(LANE, WINDOW as u64);
    session.write(StreamId(2), &mut Bytes::from(vec![1; 512 << 10])).unwrap();
    let first = frames(&mut session, now);
    assert!((WINDOW..WINDOW + BODY_BYTES_MAX).contains(&carried(&first, 2)), "{}", carried(&first, 2));
    session.write(StreamId(4), &mut Bytes::from_static(b"urgent")).unwrap();
    let second = frames(&mut session, now);
    assert!(carried(&second, 4) > 0 && carried(&second, 2) == 0);
    // Acknowledged bytes make room for as many.
    total += first.iter().chain(&second).filter(|frame| frame[0] != 2).map(|frame| frame.len() as u64).sum::<u64>();
    acknowledge(&mut session, &mut total);
    assert!((WINDOW..WINDOW + BODY_BYTES_MAX).contains(&carried(&frames(&mut session, now), 2)));
}

/// Returns the bytes of bulk after which a server acknowledges at once, beside messages or without them.
fn acknowledged_after(capabilities: u64, has_messages: bool) -> u64 {
    let mut session =
        Session::new(SessionRole::Server, Config::default(), SessionId([0xAA; 16]), BootId([1; 8]), Time::ZERO);
    let proofs = Proofs { ours: [0; 32], theirs: [0xCC; 32] };
    let hello = Hello { caps: capabilities, ..hello(Intent::New) };
    assert_eq!(session.accept_subflow(Time::ZERO, &hello, proofs), Status::Ok);
    session.set_room(LANE, 1 << 20);
    static BULK: [u8; 16_000] = [7; 16_000];
    [2, 4].iter().for_each(|id| input(&mut session, &open_frame(*id)).unwrap());
    frames(&mut session, Time::from_us(1000));
    let mut received = 0;
    loop {
        if has_messages {
            input(&mut session, &data(4, received / 16_000, b"k", false)).unwrap();
        }
        input(&mut session, &data(2, received, &BULK, false)).unwrap();
        received += 16_000;
        // No time passes, so that only the number of bytes can cause the acknowledgement.
        let sent = frames(&mut session, Time::from_us(1000));
        if sent.iter().any(|frame| frame[0] == 0x25) || received > 1 << 20 {
            return received;
        }
        session.consume(Time::from_us(1000), StreamId(2), 16_000);
    }
}

#[test]
fn bulk_is_acknowledged_early_beside_messages_if_both_ends_support_it() {
    let early = Capability::EarlyAcks.bit();
    assert!(acknowledged_after(early, true) <= 80_000);
    assert!(acknowledged_after(early, false) >= 256_000, "bulk alone");
    assert!(acknowledged_after(0, true) >= 256_000, "the peer does not support it");
}

#[test]
fn every_control_frame_may_arrive_twice_and_in_any_order() {
    let frames = [
        open_frame(2),
        data(2, 0, b"abc", false),
        Frame::Credit { id: 2, max: 9000, taken: 0 },
        Frame::Credit { id: 0, max: 19_000, taken: 0 },
        Frame::MaxStreams { max: 100 },
        Frame::Blocked { id: 2, offset: 3 },
        Frame::Listen { id: 1, open: Open::name("b", 2) },
        Frame::Subflow { subflow: 7, class: Class::Active },
        Frame::Message { seq: 0, text: "once" },
        Frame::GoAway { last: 0, code: Code::Drained, text: "" },
        open_frame(4),
        Frame::Stop { id: 4, code: Code::Other },
        Frame::Reset { id: 4, code: Code::Other, size: 0 },
    ];
    let mut once = server();
    frames.iter().for_each(|frame| input(&mut once, frame).unwrap());
    let mut expected: Vec<String> = events(&mut once).iter().map(|event| format!("{event:?}")).collect();
    expected.sort();
    let mut rng = link_kit::rng::Rng::new(3);
    for _ in 0..200 {
        let mut session = server();
        let mut order: Vec<usize> = (0..frames.len()).chain(0..frames.len()).collect();
        (1..order.len()).rev().for_each(|n| order.swap(n, rng.range(0, n as u64) as usize));
        let stream_gone = |at: usize, of: &[usize]| of.iter().position(|n| *n == at).unwrap();
        // A stream that is reset before its OPEN is never reported. Such orders are not compared.
        if stream_gone(12, &order) < stream_gone(10, &order) || stream_gone(11, &order) < stream_gone(10, &order) {
            continue;
        }
        order.iter().for_each(|n| input(&mut session, &frames[*n]).unwrap());
        let mut got: Vec<String> = events(&mut session).iter().map(|event| format!("{event:?}")).collect();
        got.sort();
        assert_eq!(got, expected, "{order:?}");
        assert_eq!(taken(&mut session, 2), b"abc");
    }
}

#[test]
fn a_protocol_violation_ends_the_session_with_a_close_frame() {
    let cases: [(&str, Vec<Frame<'_>>); 6] = [
        ("beyond the credit", vec![open_frame(2), data(2, 256 * 1024, b"x", false)]),
        ("a FIN at another offset", vec![data(2, 0, b"abc", true), data(2, 0, b"abcd", true)]),
        ("bytes beyond the FIN", vec![data(2, 0, b"abc", true), data(2, 3, b"d", false)]),
        ("too many streams", vec![open_frame(2 + 2 * 65_536)]),
        ("an offset that overflows", vec![data(2, u64::MAX, b"x", false)]),
        ("an OPEN with an id of this end", vec![open_frame(1)]),
    ];
    for (what, frames_in) in cases {
        let mut session = server();
        frames(&mut session, Time::ZERO);
        let (last, before) = frames_in.split_last().unwrap();
        before.iter().for_each(|frame| input(&mut session, frame).unwrap());
        assert!(input(&mut session, last).is_err(), "{what}");
        assert!(session.is_ended());
        let sent = frames(&mut session, Time::from_us(2));
        assert_eq!(sent, [hex("07000002 00000000 0010")], "{what}: CLOSE, protocol_error");
    }
}

#[test]
fn an_unknown_frame_type_is_skipped_or_refused_by_its_number() {
    let mut session = server();
    events(&mut session);
    let wire = [hex("f0000003 00000009 010203"), bytes_of(&open_frame(2))].concat();
    session.receive(Time::ZERO, LANE, 0, Bytes::from(wire)).unwrap();
    assert!(matches!(&events(&mut session)[..], [Event::Opened { .. }]), "the frame after an extension is read");
    let refused = session.receive(Time::ZERO, LANE, 0, Bytes::from(hex("7f000000 00000000")));
    assert_eq!(refused, Err(Violation::Frame(FrameError::UnknownKind(0x7F))));
    assert_eq!(session.subflow_ids().count(), 0);
}

/// Adds a second subflow to a server's session.
fn join(session: &mut Session, n: u16) -> SubflowId {
    let id = SubflowId(n);
    let proofs = Proofs { ours: [0; 32], theirs: [0xCC; 32] };
    let hello = Hello { subflow: id, ..hello(Intent::Join) };
    assert_eq!(session.accept_subflow(Time::from_us(5), &hello, proofs), Status::Ok);
    session.set_room(id, 1 << 20);
    id
}

#[test]
fn bytes_that_are_no_frame_end_only_their_subflow() {
    let cases: [(&str, Vec<u8>); 8] = [
        ("a length above the limit", hex("2000ffff 00000002")),
        ("an unknown required type", hex("7f000000 00000000")),
        ("a body that ends within a field", hex("20000004 00000002 00000000")),
        ("a body that is too long", hex("22000003 00000002 000c00")),
        ("a text that is not UTF-8", hex("31000001 00000000 ff")),
        ("DATA with the id of the session", bytes_of(&data(0, 0, b"x", false))),
        ("a second HELLO", bytes_of(&Frame::Hello(hello(Intent::New)))),
        ("credit of the largest number", bytes_of(&Frame::Credit { id: 2, max: u64::MAX, taken: 0 })),
    ];
    for (what, wire) in cases {
        for size in [1, wire.len()] {
            let mut session = server();
            input(&mut session, &open_frame(2)).unwrap();
            session.accept(StreamId(2), Bound::default()).unwrap();
            session.write(StreamId(2), &mut Bytes::from_static(b"in flight")).unwrap();
            frames(&mut session, Time::from_us(500));
            let other = join(&mut session, 9);
            frames(&mut session, Time::from_us(510));
            events(&mut session);
            let results: Vec<_> = wire
                .chunks(size)
                .map(|part| session.receive(Time::from_us(1000), LANE, 0, Bytes::copy_from_slice(part)))
                .collect();
            let errors: Vec<_> = results.iter().filter(|result| result.is_err()).collect();
            assert!(matches!(errors[..], [Err(Violation::Frame(_))]), "{what}: {results:?}");
            assert_eq!(events(&mut session), [Event::SubflowDown { id: LANE, code: Code::ProtocolError }], "{what}");
            assert_eq!(session.subflow_ids().collect::<Vec<_>>(), [other], "{what}");
            assert_eq!(session.stats().framing_errors, 1, "{what}");
            let again = frames(&mut session, Time::from_us(1100));
            assert!(again.contains(&bytes_of(&data(2, 0, b"in flight", false))), "{what}: {again:?}");
        }
    }
}

#[test]
fn three_framing_errors_end_the_session() {
    let mut session = server();
    let bad = Bytes::from(hex("2000ffff 00000002"));
    assert!(session.receive(Time::ZERO, LANE, 0, bad.clone()).is_err());
    let second = join(&mut session, 8);
    assert!(session.receive(Time::ZERO, second, 0, bad.clone()).is_err());
    assert!(!session.is_ended());
    let third = join(&mut session, 9);
    frames(&mut session, Time::from_us(10));
    assert!(session.receive(Time::ZERO, third, 0, bad).is_err());
    assert!(session.is_ended());
    assert_eq!(frames(&mut session, Time::from_us(20)), [hex("07000002 00000000 0010")], "CLOSE, protocol_error");
}

#[test]
fn a_client_that_gets_noise_as_an_answer_dials_again() {
    let (id, now) = (SessionId([3; 16]), Time::from_us(1));
    let mut client = Session::new(SessionRole::Client, Config::default(), id, BootId([1; 8]), now);
    let proofs = Proofs { ours: [0; 32], theirs: [0; 32] };
    assert!(client.connect(now, SubflowId(0), 1, proofs));
    assert!(client.receive(now, SubflowId(0), 0, Bytes::from_static(b"HTTP/1.1 400 Bad Request\r\n")).is_err());
    assert_eq!(events(&mut client), [Event::SubflowDown { id: SubflowId(0), code: Code::ProtocolError }]);
    assert!(client.connect(now, SubflowId(1), 1, proofs));
}

#[test]
fn empty_data_frames_are_accepted() {
    let mut session = server();
    input(&mut session, &open_frame(2)).unwrap();
    events(&mut session);
    (0..3).for_each(|_| input(&mut session, &data(2, 0, b"", false)).unwrap());
    assert_eq!(events(&mut session), []);
    (0..2).for_each(|_| input(&mut session, &data(2, 0, b"", true)).unwrap());
    assert_eq!(events(&mut session), [Event::Fin(StreamId(2))]);
}

#[test]
fn a_wrong_proof_a_wrong_version_and_a_wrong_session_are_refused() {
    let proofs = Proofs { ours: [0; 32], theirs: [0xCC; 32] };
    let fresh =
        || Session::new(SessionRole::Server, Config::default(), SessionId([0xAA; 16]), BootId([1; 8]), Time::ZERO);
    let judge = |hello: &Hello, proofs| fresh().accept_subflow(Time::ZERO, hello, proofs);
    assert_eq!(judge(&hello(Intent::New), proofs), Status::Ok);
    assert_eq!(judge(&hello(Intent::New), Proofs { theirs: [0xCD; 32], ..proofs }), Status::Denied);
    assert_eq!(judge(&Hello { versions: (2, 3), ..hello(Intent::New) }, proofs), Status::Version);
    assert_eq!(judge(&Hello { session: SessionId([0; 16]), ..hello(Intent::New) }, proofs), Status::UnknownSession);
    assert_eq!(judge(&hello(Intent::Resume), proofs), Status::UnknownSession);
    assert_eq!(judge(&Hello { lanes: 18, ..hello(Intent::New) }, proofs), Status::Limit);
    let mut live = server();
    let other_boot = Hello { boot: BootId([9; 8]), subflow: SubflowId(8), ..hello(Intent::Join) };
    assert_eq!(live.accept_subflow(Time::ZERO, &other_boot, proofs), Status::UnknownSession);
    assert_eq!(
        live.accept_subflow(Time::ZERO, &Hello { subflow: SubflowId(8), ..hello(Intent::Join) }, proofs),
        Status::Ok
    );
}

/// An UNKNOWN_SESSION answer ends its subflow only, unless that is the last subflow of the session.
#[test]
fn an_unknown_session_answer_ends_one_subflow_but_not_the_session() {
    let (id, now) = (SessionId([3; 16]), Time::from_us(1));
    let proofs = Proofs { ours: [0; 32], theirs: [0; 32] };
    let ack = |subflow, status, boot| {
        Bytes::from(bytes_of(&Frame::HelloAck(HelloAck {
            status,
            version: 1,
            session: id,
            boot: BootId([boot; 8]),
            subflow: SubflowId(subflow),
            caps: 0,
            limits: LIMITS,
            proof: [0; 32],
        })))
    };
    let mut client = Session::new(SessionRole::Client, Config::default(), id, BootId([1; 8]), now);
    let connect = |client: &mut Session, subflow| {
        assert_eq!(client.next_subflow(), SubflowId(subflow));
        assert!(client.connect(now, SubflowId(subflow), 1, proofs));
        frames(client, now);
    };
    let refused = |subflow| Event::SubflowDown { id: SubflowId(subflow), code: Code::Other };
    connect(&mut client, 0);
    client.receive(now, SubflowId(0), 0, ack(0, Status::Ok, 2)).unwrap();
    events(&mut client);
    // Another node answers two more subflows: it does not know the session or, against the protocol, accepts it.
    for (subflow, status) in [(1, Status::UnknownSession), (2, Status::Ok)] {
        connect(&mut client, subflow);
        client.receive(now, SubflowId(subflow), 0, ack(subflow, status, 9)).unwrap();
        assert_eq!(events(&mut client), [refused(subflow)]);
        assert!(client.is_open());
    }
    // All subflows are lost, and two are dialed. The other node answers the JOIN first.
    client.subflow_down(now, SubflowId(0));
    connect(&mut client, 3);
    connect(&mut client, 4);
    events(&mut client);
    client.receive(now, SubflowId(4), 0, ack(4, Status::UnknownSession, 9)).unwrap();
    assert_eq!(events(&mut client), [refused(4)]);
    client.receive(now, SubflowId(3), 0, ack(3, Status::Ok, 2)).unwrap();
    assert!(events(&mut client).contains(&Event::SubflowUp(SubflowId(3))) && !client.is_ended());
    // The last answer to the subflows that were being dialed at the first refusal decides. The session does not wait
    // until no subflow at all is being dialed, because a restarted peer may keep the client dialing.
    client.subflow_down(now, SubflowId(3));
    connect(&mut client, 5);
    connect(&mut client, 6);
    events(&mut client);
    client.receive(now, SubflowId(5), 0, ack(5, Status::UnknownSession, 9)).unwrap();
    assert_eq!(events(&mut client), [refused(5)]);
    connect(&mut client, 7);
    client.receive(now, SubflowId(6), 0, ack(6, Status::UnknownSession, 9)).unwrap();
    assert!(client.is_ended());
}

#[test]
fn a_hello_is_read_at_every_split() {
    let mut wire = bytes_of(&Frame::Hello(hello(Intent::New)));
    let len = wire.len();
    wire.extend_from_slice(b"next");
    for at in 0..wire.len() {
        let mut greeter = HelloReader::default();
        let (first, second) = wire.split_at(at);
        let (found, used) = match greeter.feed(first).unwrap() {
            Some((found, used)) => (found, used),
            None => {
                let (found, used) = greeter.feed(second).unwrap().unwrap();
                (found, used + at)
            }
        };
        assert_eq!((found, used), (hello(Intent::New), len), "split at {at}");
    }
    assert!(HelloReader::default().feed(b"GET / HTTP/1.1\r\n").is_err());
}

#[test]
fn listeners_messages_goaway_and_close_reach_the_other_end() {
    let mut world = World::with_paths(1, Config::default(), &[(10, 1)]);
    world.run_until_up(1);
    let id = world.session(CLIENT).listen(Open::name("", 0)).unwrap();
    world.session(CLIENT).message("first").unwrap();
    world.session(CLIENT).message("second").unwrap();
    let open = world.open(CLIENT, Plan::up(5000));
    world.run_for(200_000);
    let bound = Bound { failure: Some(Code::AddressInUse), ..Bound::default() };
    world.session(SERVER).listen_result(id, bound).unwrap();
    world.run_for(200_000);
    assert_eq!(world.ends[SERVER].app.messages, ["first", "second"]);
    assert!(world.session(CLIENT).unlisten(id).is_err(), "a failed listener is already gone");
    assert!(world.ends[SERVER].app.streams[&open].fin);
    world.session(SERVER).go_away(Code::Drained, "soon");
    world.run_for(100_000);
    assert!(world.session(CLIENT).open(Time::from_us(1_000_000), Open::name("a", 1)).is_err());
    world.ends.iter_mut().for_each(|end| end.app.may_end = true);
    let now = world.now;
    world.session(CLIENT).close(now, Code::Killed, "enough");
    world.run_for(100_000);
    assert!(world.ends.iter().all(|end| end.app.ended == Some(Code::Killed)));
}

/// Returns a client session that the server has answered with these capabilities.
fn client_with(caps: u64) -> Session {
    let mut client =
        Session::new(SessionRole::Client, Config::default(), SessionId([0xAA; 16]), BootId([2; 8]), Time::ZERO);
    assert!(client.connect(Time::ZERO, LANE, 1, Proofs { ours: [0; 32], theirs: [0; 32] }));
    client.set_room(LANE, 1 << 20);
    let sent = frames(&mut client, Time::ZERO);
    let Ok(Frame::Hello(said)) = decode(&sent[0]) else { panic!("no HELLO") };
    let refusal = HelloAck::refusal(Status::Ok, &said, BootId([1; 8]));
    let limits = Limits { listeners: 10, ..LIMITS };
    input(&mut client, &Frame::HelloAck(HelloAck { caps, limits, proof: [0; 32], ..refusal })).unwrap();
    events(&mut client);
    client
}

#[test]
fn a_lost_listener_is_reported_once_if_both_ends_support_it() {
    let (feature, lost) = (Capability::ListenerLost.bit(), Bound::refused(Code::AddressInUse));
    for (caps, knows) in [(feature, true), (0, false)] {
        let config = Config::default();
        let mut server = Session::new(SessionRole::Server, config, SessionId([0xAA; 16]), BootId([1; 8]), Time::ZERO);
        let proofs = Proofs { ours: [0; 32], theirs: [0xCC; 32] };
        server.accept_subflow(Time::ZERO, &Hello { caps, ..hello(Intent::New) }, proofs);
        server.set_room(LANE, 1 << 20);
        input(&mut server, &Frame::Listen { id: 1, open: Open::name("", 0) }).unwrap();
        assert!(server.listener_lost(1, lost.clone()).is_err(), "the LISTEN has not been answered yet");
        server.listen_result(1, Bound::default()).unwrap();
        frames(&mut server, Time::ZERO);
        assert_eq!(server.listener_lost(1, lost.clone()).is_ok(), knows);
        assert!(server.listener_lost(1, lost.clone()).is_err() && server.listener_lost(2, lost.clone()).is_err());
        let answer = bytes_of(&Frame::ListenResult { id: 1, result: lost.clone() });
        assert_eq!(frames(&mut server, Time::ZERO).contains(&answer), knows);

        let mut client = client_with(caps);
        assert_eq!(client.listen(Open::name("", 0)), Ok(1));
        let answers = [Bound::default(), Bound::default(), lost.clone(), lost.clone(), Bound::default()];
        let mut told = Vec::new();
        for result in answers {
            input(&mut client, &Frame::ListenResult { id: 1, result }).unwrap();
            told.extend(events(&mut client));
        }
        let result_of = |result: &Bound| Event::ListenResult { id: 1, result: result.clone() };
        let both = [result_of(&Bound::default()), result_of(&lost)];
        assert_eq!(told, both[..if knows { 2 } else { 1 }]);
        client.set_room(LANE, 1 << 20);
        let unlisten = bytes_of(&Frame::Unlisten { id: 1 });
        assert_eq!(
            frames(&mut client, Time::ZERO).contains(&unlisten),
            knows,
            "a client that knows of the loss returns the number"
        );
        assert!(
            client.has_listener(1) && !client.has_listener(2),
            "the number is in use until the peer has acknowledged"
        );
    }
}

#[test]
fn datagrams_arrive_once_also_in_parts_and_too_large_ones_are_refused() {
    let mut world = World::with_paths(1, Config::default(), &[(10, 1)]);
    world.run_until_up(1);
    let now = world.now;
    let open = Open { kind: Kind::Udp, source: "0 0 1 1 0 - - 0".to_owned(), ..Open::name("a", 53) };
    let id = world.session(CLIENT).open(now, open).unwrap();
    for n in 0..10u8 {
        let sent = world.session(CLIENT).send_datagram(now, id, Bytes::from(vec![n; 100]));
        assert_eq!(sent, Ok(()));
    }
    assert_eq!(world.session(CLIENT).send_datagram(now, id, Bytes::from(vec![10; 60_000])), Ok(()));
    assert!(world.session(CLIENT).send_datagram(now, id, Bytes::from(vec![0; 65_528])).is_err());
    world.ends[CLIENT].app.adopt(id, Plan::up(0));
    let until = world.now.after(100_000);
    world.run(until, |_| false);
    let got: Vec<Bytes> = std::iter::from_fn(|| world.session(SERVER).recv_datagram(id)).collect();
    let (first, len) = (|datagram: &Bytes| datagram[0], |datagram: &Bytes| datagram.len());
    assert_eq!(got.iter().map(first).collect::<Vec<_>>(), (0..11).collect::<Vec<u8>>());
    assert_eq!(got.iter().map(len).collect::<Vec<_>>(), [[100; 10].as_slice(), &[60_000]].concat());
}

#[test]
fn stream_ids_are_never_reused() {
    assert_eq!(StreamId::nth(SessionRole::Client, STREAMS_EVER), None);
    let mut session = server_with(Config { streams_max: 4, ..Config::default() });
    let mut total = 0;
    for id in (2..=2000).step_by(2) {
        if input(&mut session, &open_frame(id)).is_err() {
            panic!("{id} was refused although the stream before it is gone");
        }
        session.refuse(Time::ZERO, StreamId(id), Bound::refused(Code::Other)).unwrap();
        session.set_room(LANE, 1 << 20);
        acknowledge(&mut session, &mut total);
        input(&mut session, &Frame::Reset { id, code: Code::Other, size: 0 }).unwrap();
        session.set_room(LANE, 1 << 20);
        acknowledge(&mut session, &mut total);
        events(&mut session);
        assert_eq!(session.streams_live(), 0, "{id}");
    }
}

#[test]
fn the_end_of_a_subflow_keeps_the_partial_frames_of_others() {
    let mut client = crate::lanes::Lanes::new(1).ends.into_iter().next().unwrap();
    let now = Time::from_us(10);
    let proofs = Proofs { ours: [0; 32], theirs: [0; 32] };
    for n in [1, 2] {
        assert!(client.connect(now, SubflowId(n), 1, proofs));
    }
    let answer = |n, status| {
        let hello = Hello { session: SessionId([3; 16]), subflow: SubflowId(n), ..hello(Intent::Join) };
        let ack = HelloAck { status, ..HelloAck::refusal(status, &hello, BootId([2; 8])) };
        Bytes::from(bytes_of(&Frame::HelloAck(ack)))
    };
    let (good, bad) = (answer(2, Status::Ok), answer(1, Status::Limit));
    events(&mut client);
    client.receive(now, SubflowId(2), 0, good.slice(..20)).unwrap();
    client.receive(now, SubflowId(1), 0, bad.slice(..20)).unwrap();
    client.receive(now, SubflowId(1), 0, bad.slice(20..)).unwrap();
    client.receive(now, SubflowId(2), 0, good.slice(20..)).unwrap();
    let down = Event::SubflowDown { id: SubflowId(1), code: Code::LimitReached };
    assert_eq!(events(&mut client), [down, Event::SubflowUp(SubflowId(2))]);
}

#[test]
fn pings_of_a_peer_that_never_acknowledges_use_bounded_memory() {
    let config = Config { lane_frames_max: 16, dead_us: 3_600_000_000, keepalive_us: 1_000_000, ..Config::default() };
    let mut session = server_with(config);
    for n in 0..5000u64 {
        session.set_room(LANE, 1 << 20);
        session.receive(Time::from_us(n * 30_000), LANE, 0, Bytes::from(bytes_of(&Frame::Ping { token: n }))).unwrap();
        frames(&mut session, Time::from_us(n * 30_000 + 25_000));
    }
    session.check_invariants();
    assert_eq!(session.subflow_ids().count(), 1);
}

#[test]
fn unread_datagrams_of_all_flows_have_one_common_limit() {
    let mut session = server();
    let payload = [7u8; 16_000];
    for id in (2..=2000).step_by(2) {
        let open = Open { kind: Kind::Udp, ..Open::name("a", 53) };
        input(&mut session, &Frame::Open { id, open }).unwrap();
        session.accept(StreamId(id), Bound::default()).unwrap();
        (0..3).for_each(|_| input(&mut session, &Frame::Datagram { id, payload: &payload }).unwrap());
        let _ = session.send_datagram(Time::from_us(1000), StreamId(id), Bytes::from(vec![1; 16_000]));
    }
    session.check_invariants();
    let ids = (2..=2000).step_by(2).map(StreamId);
    let taken: usize = ids.flat_map(|id| session.recv_datagram(id)).map(|d| d.len()).sum();
    assert!(taken > 1 << 20 && taken <= 4 << 20, "{taken} bytes were held");
    assert!(session.datagram_drops(StreamId(2000)).queue_full > 0);
    session.reset(StreamId(2), Code::Other);
    session.check_invariants();
}
