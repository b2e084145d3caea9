//! A session receives arbitrary bytes from an authenticated peer, in frames or not. The session must not panic, and its
//! memory must stay within its limits.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use seaprox::link::frame::Header;
use seaprox::link::{
    BootId, Bound, Capability, Config, Event, Hello, Intent, Limits, Outbox, Proofs, SessionRole, Session, SessionId, SubflowId, Time,
};

const LANE: SubflowId = SubflowId(0);

fuzz_target!(|data: &[u8]| {
    let config = Config {
        stream_window_bytes: (2000, 4000),
        session_window_bytes: (4000, 8000),
        send_bytes_max: 4000,
        streams_max: 8,
        ..Config::default()
    };
    let mut session = Session::new(SessionRole::Server, config, SessionId([0; 16]), BootId([1; 8]), Time::ZERO);
    let limits = Limits { streams: 8, listeners: 8, stream_credit: 2000, session_credit: 4000 };
    let hello = Hello {
        versions: (1, 1),
        intent: Intent::New,
        session: SessionId([0; 16]),
        boot: BootId([2; 8]),
        subflow: LANE,
        lanes: 1,
        // A peer of an earlier version, or of this one.
        caps: if data.len() % 2 == 0 { 0 } else { Capability::all() },
        limits,
        proof: [0; 32],
    };
    session.accept_subflow(Time::ZERO, &hello, Proofs { ours: [0; 32], theirs: [0; 32] });
    let mut now = Time::from_us(1);
    let mut rest = data;
    let mut out = Outbox::new();
    // Each record of the input: type, flags, a small id, a length, and that many bytes. Most become valid frames, so
    // that the fuzzer gets past the header.
    while let [kind, flags, id, len, after @ ..] = rest {
        let body = &after[..after.len().min(usize::from(*len))];
        rest = &after[body.len()..];
        let header = Header { kind: *kind & 0x37, flags: *flags & 1, len: body.len(), id: u32::from(*id & 31) };
        let mut wire = header.encode().to_vec();
        wire.extend_from_slice(body);
        if *flags & 0x40 != 0 {
            wire = body.to_vec();
        }
        let _ = session.receive(now, LANE, 0, Bytes::from(wire));
        now = now.after(1000);
        drive(&mut session, now, &mut out);
        let (sent, received) = session.memory();
        assert!(sent <= 4000 && received <= 8000);
        // The manual's bound: 3 R, spare room, 256 bytes for each gap and 1,024 for each stream without its OPEN.
        let extra = 256 * session.gaps() as u64 + 1024 * session.streams_unopened() as u64;
        assert!(session.received_cost() <= 3 * 8000 + (3 << 20) + extra);
        assert!(session.streams_live() <= 8 && session.streams_unopened() <= 8 || session.is_ended());
    }
});

fn drive(session: &mut Session, now: Time, out: &mut Outbox) {
    while let Some(event) = session.poll_event() {
        match event {
            Event::Opened { id, .. } => {
                let _ = session.accept(id, Bound::default());
                let _ = session.write(id, &mut Bytes::from_static(&[7; 300]));
            }
            Event::Readable(id) if id.0 % 3 != 0 => {
                let count = session.readable(id).map(<[u8]>::len).sum();
                session.consume(now, id, count);
            }
            Event::Fin(id) => drop(session.finish(id)),
            Event::Listen { id, .. } => drop(session.listen_result(id, Bound::default())),
            _ => {}
        }
    }
    session.handle_timeout(now);
    session.set_room(LANE, 100_000);
    while session.poll_transmit(now, out).is_some() {}
    out.clear();
}
