//! The positions of streams that both ends exchange when a session is resumed.

use crate::link_kit;

use bytes::Bytes;
use link_kit::peer::{FIRST, Peer, decode};
use seaprox::link::frame::{Frame, Lines, StreamPosition};
use seaprox::link::{Bound, Code, Config, Event, Kind, Open, SessionRole, StreamId, SubflowId};

const STREAM: StreamId = StreamId(2);

/// Returns a server with one accepted stream of its peer.
fn with_stream() -> Peer {
    let mut peer = Peer::of(SessionRole::Server, Config::default(), 0);
    peer.send(&Frame::Open { id: STREAM.0, open: Open::name("a", 1) }).unwrap();
    peer.events();
    peer.session.accept(STREAM, Bound::default()).unwrap();
    peer.keep_alive(FIRST);
    peer
}

/// Loses all subflows and brings up another one. Returns it.
fn cut(peer: &mut Peer) -> SubflowId {
    peer.session.subflow_down(peer.now, FIRST);
    peer.events();
    peer.join(SubflowId(FIRST.0 + 1))
}

/// Ends the exchange with this position of the stream.
fn answer(peer: &mut Peer, subflow: SubflowId, position: StreamPosition) {
    let mut line = Vec::new();
    position.encode(&mut line);
    peer.send_on(subflow, &Frame::ResumeState { last: true, states: Lines::new(&line).unwrap() }).unwrap();
}

/// A peer that had an acknowledgement of these bytes took the stream for damaged.
#[test]
fn a_stopped_stream_has_received_the_bytes_that_it_dropped() {
    let mut peer = with_stream();
    peer.session.stop(peer.now, STREAM, Code::SourceReset);
    peer.send(&Frame::Data { id: STREAM.0, offset: 0, fin: true, payload: b"late" }).unwrap();
    peer.keep_alive(FIRST);
    cut(&mut peer);
    let frames = peer.frames();
    let position = frames.iter().find_map(|(_, frame)| match decode(frame) {
        Ok(Frame::ResumeState { states, .. }) => states.iter().next(),
        _ => None,
    });
    let position = position.expect("the position of the stream");
    assert_eq!((position.id, position.received, position.sent), (STREAM.0, 4, 0));
}

/// Without the event its connection would wait for bytes for ever.
#[test]
fn the_application_hears_of_a_stream_whose_positions_do_not_agree() {
    let mut peer = with_stream();
    let subflow = cut(&mut peer);
    // The peer claims bytes that it was never sent.
    answer(&mut peer, subflow, StreamPosition { id: STREAM.0, received: 50, credit: 1 << 18, sent: 0 });
    let events = peer.events();
    assert!(events.contains(&Event::Reset { id: STREAM, code: Code::Internal }), "{events:?}");
    assert!(!peer.session.is_ended());
    let sent = peer.keep_alive(subflow);
    let says = |frame: &Frame<'_>| sent.iter().any(|sent| decode(sent).as_ref() == Ok(frame));
    assert!(says(&Frame::Reset { id: STREAM.0, code: Code::Internal, size: 0 }));
    assert!(says(&Frame::Stop { id: STREAM.0, code: Code::Internal }));
}

#[test]
fn a_stream_whose_positions_agree_goes_on() {
    let mut peer = with_stream();
    let subflow = cut(&mut peer);
    answer(&mut peer, subflow, StreamPosition { id: STREAM.0, received: 0, credit: 1 << 18, sent: 0 });
    peer.send_on(subflow, &Frame::Data { id: STREAM.0, offset: 0, fin: false, payload: b"more" }).unwrap();
    let events = peer.events();
    assert!(events.contains(&Event::Readable(STREAM)), "{events:?}");
    assert!(!events.iter().any(|event| matches!(event, Event::Reset { .. })), "{events:?}");
}

#[test]
fn datagrams_of_before_the_loss_of_all_subflows_are_not_sent_after_it() {
    let mut peer = Peer::of(SessionRole::Server, Config::default(), 0);
    peer.send(&Frame::Open { id: STREAM.0, open: Open { kind: Kind::Udp, ..Open::name("a", 53) } }).unwrap();
    peer.events();
    peer.session.accept(STREAM, Bound::default()).unwrap();
    peer.keep_alive(FIRST);
    // A subflow with room for one byte takes one frame.
    peer.session.set_room(FIRST, 1);
    peer.session.send_datagram(peer.now, STREAM, Bytes::from(vec![1; 60_000])).unwrap();
    let parts = |frames: &[(SubflowId, Vec<u8>)]| {
        frames.iter().filter(|(_, frame)| matches!(decode(frame), Ok(Frame::DatagramPart { .. }))).count()
    };
    assert_eq!(parts(&peer.frames()), 1);
    peer.session.subflow_down(peer.now, FIRST);
    peer.session.send_datagram(peer.now, STREAM, Bytes::from_static(b"old")).unwrap();
    peer.pass(100_000);
    peer.session.send_datagram(peer.now, STREAM, Bytes::from_static(b"new")).unwrap();
    peer.events();
    let subflow = peer.join(SubflowId(FIRST.0 + 1));
    answer(&mut peer, subflow, StreamPosition { id: STREAM.0, received: 0, credit: 1 << 18, sent: 0 });
    let frames = peer.frames();
    assert_eq!(parts(&frames), 0, "the rest of a datagram whose begin may be lost");
    let payload = |frame: &[u8]| match decode(frame) {
        Ok(Frame::Datagram { payload, .. }) => Some(payload.to_vec()),
        _ => None,
    };
    let sent: Vec<Vec<u8>> = frames.iter().filter_map(|(_, frame)| payload(frame)).collect();
    assert_eq!(sent, [b"new"]);
    assert_eq!(peer.session.datagram_drops(STREAM).late, 2);
}
