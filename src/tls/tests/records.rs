//! Tests of the records behind the handshake, against the library's buffered connections in both roles.

use std::collections::HashSet;
use std::io::Write;
use std::rc::Rc;
use std::sync::Arc;

use proptest::prelude::*;
use rustls::{AlertDescription, ContentType, Error};

use super::crafted::{Forge, Peer, pipe};
use super::kit::{give, node, open_pair, read, take};
use super::{WHOLE, joined, text};
use crate::tls::{Buffers, Cipher, RECORD_BYTES, RECORD_OVERHEAD, Tls, TlsError, TlsPipe};

/// Returns an open pipe and the library's connection at the other end.
fn with_stock(is_client: bool, cipher: Cipher) -> (TlsPipe, Peer) {
    let (mut pipe, mut peer) = match is_client {
        true => {
            let tls = Tls::client(&node(3), &[cipher], Arc::new(|_| true)).unwrap();
            (tls.pipe(&Rc::new(Buffers::new())).unwrap(), Peer::server(cipher))
        }
        false => (pipe(), Peer::client(|shown, _| shown.cipher = cipher)),
    };
    peer.shake(&mut pipe).unwrap();
    (pipe, peer)
}

/// The consecutive records without data that a pipe takes.
const BARREN_RECORDS_MAX: usize = 32;

/// One thing that happens on a connection.
#[derive(Clone, Copy, Debug)]
enum Op {
    /// The pipe sends these many bytes.
    Sends(usize),
    /// The library's connection does.
    StockSends(usize),
    /// The pipe changes its keys, and perhaps asks for the same.
    Updates(bool),
    /// The library's connection does, and asks.
    StockUpdates,
    /// The bytes of both directions are passed on, in reads of these many bytes at most.
    Passes(usize),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let bytes = prop_oneof![1..400usize, 8_000..8_400usize, 16_300..16_500usize, 1..200_000usize];
    let step = prop_oneof![1..40usize, 16_380..16_420usize, 1..40_000usize, Just(WHOLE)];
    let op = prop_oneof![
        bytes.clone().prop_map(Op::Sends),
        bytes.prop_map(Op::StockSends),
        any::<bool>().prop_map(Op::Updates),
        Just(Op::StockUpdates),
        step.prop_map(Op::Passes),
    ];
    proptest::collection::vec(op, 1..24)
}

/// A connection between a pipe and the library, with all bytes that were sent and received.
struct Rig {
    pipe: TlsPipe,
    peer: Peer,
    sent: [Vec<u8>; 2],
    got: [Vec<u8>; 2],
}

impl Rig {
    fn new(is_client: bool, cipher: Cipher) -> Rig {
        let (pipe, peer) = with_stock(is_client, cipher);
        Rig { pipe, peer, sent: Default::default(), got: Default::default() }
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Sends(bytes) => {
                let bytes = text(bytes);
                let (a, b) = bytes.split_at(bytes.len() / 3);
                self.pipe.seal([a, &[], b]).unwrap();
                self.sent[0].extend(bytes);
            }
            Op::StockSends(bytes) => {
                self.peer.0.set_buffer_limit(None);
                self.peer.0.writer().write_all(&text(bytes)).unwrap();
                self.sent[1].extend(text(bytes));
            }
            Op::Updates(asks) => self.pipe.update_keys(asks).unwrap(),
            Op::StockUpdates => self.peer.0.refresh_traffic_keys().unwrap(),
            Op::Passes(step) => self.pass(step),
        }
    }

    fn pass(&mut self, step: usize) {
        while self.pipe.unsent() > 0 || self.peer.0.wants_write() {
            for part in take(&mut self.pipe).chunks(step.min(4096)) {
                self.got[1].extend(self.peer.give(part).unwrap());
            }
            let mut out = Vec::new();
            give(&mut self.pipe, &self.peer.take(), step, &mut out).unwrap();
            self.got[0].extend(joined(&out));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Data passes whole in both directions, however it is split, and whoever changes the keys.
    #[test]
    fn a_stock_peer_and_a_pipe_understand_each_other(is_client: bool, cipher in 0..3usize, ops in ops()) {
        let mut rig = Rig::new(is_client, Cipher::ALL[cipher]);
        ops.into_iter().for_each(|op| rig.run(op));
        rig.pass(WHOLE);
        prop_assert!(rig.got[1] == rig.sent[0], "to the stock peer");
        prop_assert!(rig.got[0] == rig.sent[1], "from the stock peer");
        rig.pipe.close_output().unwrap();
        rig.peer.0.send_close_notify();
        rig.pass(7);
        prop_assert!(rig.pipe.is_ended());
        prop_assert_eq!(rig.pipe.end_of_input(), Ok(()));
    }
}

#[test]
fn keys_change_in_both_directions_in_both_roles() {
    for (is_client, cipher) in [true, false].into_iter().flat_map(|role| Cipher::ALL.map(|cipher| (role, cipher))) {
        let mut rig = Rig::new(is_client, cipher);
        for round in 0..5 {
            for op in [Op::Sends(100), Op::Updates(true), Op::Sends(40_000), Op::Passes(1000 + round)] {
                rig.run(op);
            }
            for op in [Op::StockSends(100), Op::StockUpdates, Op::StockSends(40_000), Op::Passes(1000 + round)] {
                rig.run(op);
            }
        }
        assert!(rig.got[0] == rig.sent[1] && rig.got[1] == rig.sent[0], "{is_client} {cipher:?}");
    }
}

#[test]
fn a_close_notify_is_told_from_a_truncation() {
    for is_client in [true, false] {
        // By the pipe, and by the library.
        let (mut pipe, mut peer) = with_stock(is_client, Cipher::Aes128Gcm);
        pipe.seal([&b"last"[..]]).unwrap();
        pipe.close_notify();
        assert_eq!(peer.give(&take(&mut pipe)).unwrap(), b"last");
        assert!(peer.0.process_new_packets().unwrap().peer_has_closed());
        let (mut pipe, mut peer) = with_stock(is_client, Cipher::Aes128Gcm);
        peer.0.writer().write_all(b"last").unwrap();
        peer.0.send_close_notify();
        let (wire, mut out) = (peer.take(), Vec::new());
        give(&mut pipe, &wire, WHOLE, &mut out).unwrap();
        assert_eq!((joined(&out), pipe.is_ended(), pipe.end_of_input()), (b"last".to_vec(), true, Ok(())));
        // The other direction goes on.
        pipe.seal([&b"answer"[..]]).unwrap();
        assert_eq!(peer.give(&take(&mut pipe)).unwrap(), b"answer");
        // Any shorter wire is a truncation.
        for cut in [1, wire.len() - 25, wire.len() - 24, wire.len() - 1] {
            let (mut pipe, mut peer) = with_stock(is_client, Cipher::Aes128Gcm);
            peer.0.writer().write_all(b"last").unwrap();
            peer.0.send_close_notify();
            give(&mut pipe, &peer.take()[..cut], WHOLE, &mut Vec::new()).unwrap();
            assert_eq!(pipe.end_of_input(), Err(TlsError::Truncated), "{cut} bytes");
        }
    }
}

/// The server may send them with its first data or before it.
#[test]
fn the_tickets_of_a_stock_server_are_ignored() {
    for step in [1, 100, WHOLE] {
        let tls = Tls::client(&node(3), &Cipher::ALL, Arc::new(|_| true)).unwrap();
        let mut pipe = tls.pipe(&Rc::new(Buffers::new())).unwrap();
        let mut peer = Peer::server(Cipher::Aes256Gcm);
        peer.give(&take(&mut pipe)).unwrap();
        let mut out = Vec::new();
        give(&mut pipe, &peer.take(), step, &mut out).unwrap();
        peer.give(&take(&mut pipe)).unwrap();
        peer.0.writer().write_all(b"data").unwrap();
        let wire = peer.take();
        assert!(wire.len() > 200, "with tickets");
        give(&mut pipe, &wire, step, &mut out).unwrap();
        assert_eq!(joined(&out), b"data");
    }
}

/// The record may lie anywhere in the slots, and the rest of its slot belongs to others.
#[test]
fn records_of_any_size_pass_at_any_place() {
    let sizes = [1, 16_384, 8_180, 8_203, 8_204, 16_384, 16_383, 5, 16_384, 9_000, 7_000, 16_384, 16_384, 2, 12_000];
    for shift in 0..sizes.len() {
        let (mut client, mut server) = open_pair(&Cipher::preferred());
        let mut sent = Vec::new();
        for size in sizes.iter().cycle().skip(shift).take(3 * sizes.len()) {
            let part: Vec<u8> = text(*size + 1).split_off(1);
            client.seal([&part[..]]).unwrap();
            sent.extend(part);
        }
        let (wire, mut out) = (take(&mut client), Vec::new());
        give(&mut server, &wire, if shift % 2 == 0 { WHOLE } else { 30_011 * shift }, &mut out).unwrap();
        assert!(joined(&out) == sent, "shifted by {shift}");
        // A piece holds at most twice its length: a slot of its own, or memory of its size.
        let large = out.iter().filter(|piece| piece.len() > (RECORD_BYTES + RECORD_OVERHEAD) / 2).count();
        assert!(large >= 3 * 9, "{large}");
        let pointers: HashSet<_> = out.iter().map(|piece| piece.as_ptr()).collect();
        assert_eq!(pointers.len(), out.len());
        for piece in out {
            let len = piece.len();
            assert!(piece.try_into_mut().map_or(true, |piece| piece.capacity() <= 2 * len), "{len}");
        }
    }
}

#[test]
fn a_request_for_new_keys_is_answered_once_until_the_answer_is_sent() {
    const UPDATE_BYTES: usize = 5 + RECORD_OVERHEAD;
    let (mut pipe, mut peer) = with_stock(false, Cipher::Aes128Gcm);
    for _ in 0..10 {
        peer.0.refresh_traffic_keys().unwrap();
        give(&mut pipe, &peer.take(), WHOLE, &mut Vec::new()).unwrap();
        assert!(pipe.unsent() <= UPDATE_BYTES, "{}", pipe.unsent());
    }
    // The first answer is sent, and then the one for the other nine.
    let wire = pipe_writes(&mut pipe);
    assert_eq!(wire, [UPDATE_BYTES, UPDATE_BYTES]);
}

/// Returns the sizes of the writes of a pipe.
fn pipe_writes(pipe: &mut TlsPipe) -> Vec<usize> {
    std::iter::from_fn(|| pipe.write_to(|bytes| Ok(bytes.len())).ok().filter(|bytes| *bytes > 0)).collect()
}

#[test]
fn each_malformed_record_ends_the_pipe_with_its_alert() {
    let unexpected = AlertDescription::UnexpectedMessage;
    let data = ContentType::ApplicationData;
    let in_clear = |kind: u8, bytes: u16| [&[kind, 3, 3][..], &bytes.to_be_bytes(), &vec![0; bytes.into()]].concat();
    let cases: Vec<(&str, Vec<u8>, Option<AlertDescription>)> = vec![
        ("an alert in the clear", in_clear(21, 2), Some(unexpected)),
        ("a change of the cipher", in_clear(20, 1), Some(unexpected)),
        ("a handshake in the clear", in_clear(22, 40), Some(unexpected)),
        ("an unknown outer type", in_clear(99, 40), Some(unexpected)),
        ("no record at all", in_clear(23, 0), Some(AlertDescription::BadRecordMac)),
        ("no room for a type", in_clear(23, 16), Some(AlertDescription::BadRecordMac)),
        ("a forged record", in_clear(23, 17), Some(AlertDescription::BadRecordMac)),
        ("a record above the limit", in_clear(23, 16_402), Some(AlertDescription::RecordOverflow)),
        ("a length beyond any record", vec![23, 3, 3, 0xff, 0xff], Some(AlertDescription::RecordOverflow)),
    ];
    for (name, wire, alert) in cases {
        for step in [1, WHOLE] {
            let (mut pipe, mut forge) = Forge::new();
            let good = forge.record(data, b"good");
            check_end(name, (&mut pipe, &mut forge), &[good, wire.clone()].concat(), step, alert);
        }
    }
    let sealed: [(&str, ContentType, &[u8], Option<AlertDescription>); 14] = [
        ("no type", ContentType::Unknown(0), &[], Some(unexpected)),
        ("nothing but zeros", ContentType::Unknown(0), &[0; 1000], Some(unexpected)),
        ("an empty alert", ContentType::Alert, &[], Some(unexpected)),
        ("half an alert", ContentType::Alert, &[2], Some(AlertDescription::DecodeError)),
        ("two alerts", ContentType::Alert, &[1, 90, 1, 90], Some(AlertDescription::DecodeError)),
        ("an alert", ContentType::Alert, &[2, 40], None),
        ("an empty handshake", ContentType::Handshake, &[], Some(unexpected)),
        ("a hello", ContentType::Handshake, &[1, 0, 0, 0], Some(unexpected)),
        ("a ticket for a server", ContentType::Handshake, &[4, 0, 0, 14], Some(unexpected)),
        ("a part of a KeyUpdate", ContentType::Handshake, &[24, 0, 0, 1], Some(unexpected)),
        ("two KeyUpdates", ContentType::Handshake, &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0], Some(unexpected)),
        (
            "a KeyUpdate of another kind",
            ContentType::Handshake,
            &[24, 0, 0, 1, 2],
            Some(AlertDescription::IllegalParameter),
        ),
        ("a sealed change of the cipher", ContentType::ChangeCipherSpec, &[1], Some(unexpected)),
        ("an unknown type", ContentType::Unknown(99), b"x", Some(unexpected)),
    ];
    for (name, kind, content, alert) in sealed {
        for step in [1, WHOLE] {
            let (mut pipe, mut forge) = Forge::new();
            let wire = [forge.record(data, b"good"), forge.record(kind, content), forge.record(data, b"more")].concat();
            check_end(name, (&mut pipe, &mut forge), &wire, step, alert);
        }
    }
}

/// Checks that a pipe ends at the second record, says so with one alert, and hands out nothing behind it.
fn check_end(
    name: &str,
    (pipe, forge): (&mut TlsPipe, &mut Forge),
    wire: &[u8],
    step: usize,
    alert: Option<AlertDescription>,
) {
    let mut out = Vec::new();
    let error = give(pipe, wire, step, &mut out).expect_err(name);
    assert_eq!(joined(&out), b"good", "{name}");
    let told = Some(take(pipe)).filter(|told| !told.is_empty()).map(|told| forge.open(&told));
    assert_eq!(told, alert.map(|alert| vec![2, u8::from(alert), 21]), "{name}: {error}");
    assert_eq!(pipe.open(&mut out), Err(error.clone()), "{name}");
    assert_eq!(pipe.seal([&b"x"[..]]), Err(error), "{name}");
    assert_eq!(pipe.read_from(|_| panic!("nothing is read")).unwrap(), 0, "{name}");
    assert_eq!(joined(&out), b"good", "{name}");
}

#[test]
fn a_stock_peer_reads_the_alert() {
    let (mut pipe, mut peer) = with_stock(true, Cipher::ChaCha20Poly1305);
    peer.0.writer().write_all(b"altered").unwrap();
    let mut wire = peer.take();
    *wire.last_mut().unwrap() ^= 1;
    assert_eq!(give(&mut pipe, &wire, WHOLE, &mut Vec::new()), Err(TlsError::Authentication));
    let told = peer.give(&take(&mut pipe)).unwrap_err();
    assert_eq!(told, Error::AlertReceived(AlertDescription::BadRecordMac));
}

#[test]
fn records_without_data_may_come_but_not_without_end() {
    let (mut pipe, mut forge) = Forge::new();
    let mut out = Vec::new();
    for _ in 0..3 {
        for _ in 0..BARREN_RECORDS_MAX {
            give(&mut pipe, &forge.record(ContentType::ApplicationData, &[]), WHOLE, &mut out).unwrap();
        }
        give(&mut pipe, &forge.record(ContentType::ApplicationData, b"x"), WHOLE, &mut out).unwrap();
    }
    assert_eq!(joined(&out), b"xxx");
    let wire: Vec<u8> =
        (0..=BARREN_RECORDS_MAX).flat_map(|_| forge.record(ContentType::ApplicationData, &[])).collect();
    assert!(matches!(give(&mut pipe, &wire, WHOLE, &mut out), Err(TlsError::Protocol(_))));
}

/// A read never offers more than the caller wishes, and grows when reads are full.
#[test]
fn reads_grow_with_the_traffic() {
    let (mut client, mut server) = open_pair(&Cipher::preferred());
    let room = |pipe: &mut TlsPipe, most| {
        let mut offered = (0, 0);
        let _ = pipe.read_vectored_from(most, |room| {
            offered = (room.len(), room.iter().map(|buf| buf.len()).sum::<usize>());
            Err(std::io::ErrorKind::WouldBlock.into())
        });
        offered
    };
    let slot = RECORD_BYTES + RECORD_OVERHEAD;
    assert_eq!(room(&mut server, WHOLE), (2, 2 * slot));
    assert_eq!(room(&mut server, 20_000), (2, 20_000));
    assert_eq!(room(&mut server, 10), (1, 10));
    client.seal([&text(20 * RECORD_BYTES)[..]]).unwrap();
    let (wire, mut out) = (take(&mut client), Vec::new());
    assert_eq!(read(&mut server, &wire, WHOLE), 2 * slot);
    server.open(&mut out).unwrap();
    assert_eq!(read(&mut server, &wire[2 * slot..], WHOLE), 16 * slot);
    server.open(&mut out).unwrap();
    assert_eq!(read(&mut server, &wire[18 * slot..], WHOLE), 2 * slot);
    server.open(&mut out).unwrap();
    assert!(joined(&out) == text(20 * RECORD_BYTES));
    assert_eq!(room(&mut server, WHOLE), (2, 2 * slot), "a short read is followed by a small one");
}
