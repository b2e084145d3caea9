//! Records as messages, over a pair of sockets with message boundaries: no SCTP is needed.

use std::rc::Rc;

use socket2::{Domain, Socket, Type};

use super::*;
use crate::link::Time;
use crate::relay::io::Io;
use crate::relay::side::{Owner, Side, SideState};
use crate::streams::Sessions;
use crate::transport::tcp_tls::{TlsStream, write_message};
use crate::transport::{Buffers, Demand, Setup, Transport};
use crate::types::address::Endpoint;
use crate::types::id::{Id, Kind};

/// One end of a carrier.
struct End {
    carrier: TlsStream<Sctp>,
    side: Side,
    sessions: Sessions,
}

impl End {
    fn new(socket: Socket, is_client: bool) -> End {
        let make = if is_client { TlsStream::<Sctp>::client } else { TlsStream::<Sctp>::server };
        let owner = Owner::Carrier(Id::parse(Kind::Carrier, "1.1").unwrap());
        let mut side = Side::new(owner, SideState::Connected, Io::Tcp(socket.into()), Endpoint::Unknown);
        side.ready.readable = true;
        let (id, buffers) = (Id::parse(Kind::Side, "1.1").unwrap(), Rc::new(Buffers::new(0)));
        let carrier = TlsStream::carrier(&make(&Setup::of_tests()).unwrap(), id, &mut side, &buffers).unwrap();
        End { carrier, side, sessions: Sessions::new() }
    }

    fn flush(&mut self) {
        self.side.ready.writable = true;
        self.carrier.flush(&mut self.side, &mut self.sessions).unwrap();
    }

    /// Reads all that has arrived, without an event in between. Returns the plaintext, and the number of reads that found
    /// bytes.
    fn read(&mut self) -> (Vec<u8>, usize) {
        let (mut plain, mut reads) = (Vec::new(), 0);
        self.side.ready.readable = true;
        while self.carrier.receive(&mut self.side, &mut self.sessions, usize::MAX).unwrap().is_some() {
            reads += 1;
            self.carrier.open(&mut plain).map_err(|error| error.into_failure()).unwrap();
        }
        (plain.concat(), reads)
    }
}

/// Returns a pair of sockets whose writes are messages.
fn pair() -> (Socket, Socket) {
    let (one, other) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    [&one, &other].iter().for_each(|socket| socket.set_nonblocking(true).unwrap());
    (one, other)
}

/// Returns carriers at both ends of a pair, after the handshake.
fn carriers() -> (End, End) {
    let (one, other) = pair();
    let (mut client, mut server) = (End::new(one, true), End::new(other, false));
    for _ in 0..4 {
        client.flush();
        server.read();
        server.flush();
        client.read();
    }
    assert!(!client.carrier.is_handshaking() && !server.carrier.is_handshaking());
    (client, server)
}

/// Returns the bytes of a record with this many bytes of content.
fn record(content: usize) -> Vec<u8> {
    let mut bytes = vec![23, 3, 3];
    bytes.extend_from_slice(&(content as u16).to_be_bytes());
    bytes.resize(bytes.len() + content, content as u8);
    bytes
}

#[test]
fn each_message_holds_one_record() {
    let (mut client, server) = carriers();
    let sizes = [1, 16_384, 3, 5_000, 16_384];
    for size in sizes {
        client.carrier.send_bytes(&vec![7; size]);
    }
    client.flush();
    let mut buf = vec![0; 64 << 10];
    for size in sizes {
        // Beside the carrier, which would decrypt it.
        let got = server.side.io.read_raw(&mut buf).unwrap();
        let content = usize::from(u16::from_be_bytes([buf[3], buf[4]]));
        assert_eq!((got, content), (content + 5, size + 17), "one record, with its type and its tag");
    }
    assert!(server.side.io.read_raw(&mut buf).is_err(), "no more messages");
    assert!(server.carrier.is_flushed());
}

#[test]
fn short_reads_are_not_the_end_of_what_has_arrived() {
    let (mut client, mut server) = carriers();
    for byte in 0..9 {
        client.carrier.send_bytes(&[byte; 100]);
    }
    client.flush();
    let (plain, reads) = server.read();
    assert_eq!((plain.len(), reads), (900, 9));
    assert!(plain.chunks(100).zip(0..).all(|(chunk, byte)| chunk.iter().all(|one| *one == byte)));
}

#[test]
fn a_full_socket_keeps_what_waits_in_order() {
    let (mut client, mut server) = carriers();
    let (mut sent, mut got) = (0u8, Vec::new());
    for _ in 0..200 {
        let room = Demand { rate: u64::MAX, is_alone: false, is_mixed: false };
        if client.carrier.room(&client.side, room) > 0 {
            client.carrier.send_bytes(&vec![sent; 16_000]);
            sent += 1;
        }
        client.flush();
        if !client.carrier.is_flushed() {
            got.extend(server.read().0);
        }
    }
    assert!(!client.side.ready.writable || client.carrier.is_flushed());
    client.flush();
    got.extend(server.read().0);
    assert!(usize::from(sent) > 100, "the socket has been full and free again");
    assert_eq!(got.len(), usize::from(sent) * 16_000);
    assert!(got.chunks(16_000).zip(0..).all(|(chunk, number)| chunk.iter().all(|byte| *byte == number)));
}

/// A message waits for the bulk that the carrier took before it.
#[test]
fn a_carrier_takes_half_as_much_at_once_while_messages_compete_with_bulk() {
    let (mut client, mut server) = carriers();
    // The carrier takes as much as such a path carries once it has shown that it sends that.
    for _ in 0..200 {
        client.carrier.send_bytes(&[0; 16_000]);
        client.flush();
        server.read();
    }
    let room = |is_mixed| Demand { rate: u64::MAX, is_alone: true, is_mixed };
    let alone = client.carrier.room(&client.side, room(false));
    assert_eq!((alone, client.carrier.room(&client.side, room(true))), (256 << 10, 128 << 10));
}

#[test]
fn a_record_that_was_written_in_part_is_completed_before_the_next() {
    let bytes = [record(10), record(300), record(0), vec![23, 3]].concat();
    let (mut parted, mut at, mut pieces) = (0, 0, Vec::new());
    // The system takes at most 100 bytes of each write.
    while at < bytes.len() {
        at += write_message(&bytes[at..], &mut parted, |message| {
            pieces.push(message.len());
            Ok(message.len().min(100))
        })
        .unwrap();
    }
    assert_eq!(pieces, [15, 305, 205, 105, 5, 5, 2]);
    assert!(write_message(&record(9), &mut parted, |_| Err(std::io::ErrorKind::WouldBlock.into())).is_err());
    assert_eq!(parted, 0, "a failed write parts nothing");
}

/// Returns the answer of a system that has sent `chunks_sent` chunks of 1,400 bytes, and keeps the memory of `chunks_kept`.
fn output(chunks_sent: u64, chunks_kept: u32) -> SctpOutput {
    SctpOutput { memory_bytes: chunks_kept * 2_600, chunk_bytes: 1_400, chunks_sent, srtt: Duration::ZERO }
}

/// The rate of a path for which 16 KiB may be unsent.
const SLOW: u64 = 1_000_000;

#[test]
fn chunks_that_are_sent_and_not_acknowledged_leave_room() {
    let mut backlog = Backlog::default();
    assert!(backlog.wants_more(output(0, 0), SLOW));
    (0..100).for_each(|_| backlog.give(14_000));
    assert!(!backlog.wants_more(output(900, 1_000), SLOW), "100 chunks are unsent");
    assert!(!backlog.wants_more(output(985, 1_000), SLOW), "15 chunks are more than 16 KiB");
    assert!(
        backlog.wants_more(output(990, 1_000), SLOW),
        "all but 10 chunks wait for the acknowledgement of the first"
    );
    assert!(backlog.wants_more(output(900, 1_000), 100 * SLOW), "a fast path may have more");
}

#[test]
fn a_carrier_that_waits_for_the_system_looks_again_and_less_often_while_nothing_is_sent() {
    let mut backlog = Backlog::default();
    assert!(backlog.wants_more(output(1, 1), SLOW) && backlog.next_look().is_none());
    (0..20).for_each(|_| backlog.give(16_406));
    assert_eq!(backlog.next_look(), Some(LOOK_AGAIN), "the messages may wait");
    let waits = [120, 121, 121, 121, 121, 121].map(|sent| {
        assert!(!backlog.wants_more(output(sent, 200), SLOW));
        backlog.next_look().unwrap()
    });
    assert_eq!(waits, [1, 1, 2, 4, 8, 8].map(|times| LOOK_AGAIN * times));
    assert!(backlog.wants_more(output(240, 1), SLOW) && backlog.next_look().is_none());
}

#[test]
fn the_retransmission_timeout_is_longer_than_a_round_trip_by_what_it_is_for_tcp() {
    let ms = Duration::from_millis;
    let mut backlog = Backlog::default();
    assert_eq!(backlog.new_rto_min(ms(1)), Some(ms(201)));
    assert_eq!(backlog.new_rto_min(ms(40)), None, "nearly the same");
    assert_eq!(backlog.new_rto_min(ms(200)), Some(ms(400)));
    assert_eq!(backlog.new_rto_min(ms(210)), None);
    assert_eq!(backlog.new_rto_min(ms(60_000)), Some(ms(3_000)), "the socket refuses a bound above its upper one");
    assert_eq!(backlog.new_rto_min(ms(20)), Some(ms(220)));
}

#[test]
fn a_message_that_the_system_has_cut_differently_is_forgotten_when_all_is_acknowledged() {
    let mut backlog = Backlog::default();
    assert!(backlog.wants_more(output(0, 0), SLOW));
    (0..10).for_each(|_| backlog.give(14_000));
    assert!(!backlog.wants_more(output(20, 1), SLOW), "the system has made 20 chunks of what would be 100");
    assert!(backlog.wants_more(output(20, 0), SLOW));
    backlog.give(1_400);
    assert!(backlog.wants_more(output(40, 1), SLOW), "it has made more chunks");
    assert_eq!(backlog.given, 40);
}

#[test]
fn the_path_has_no_figures_of_the_system() {
    let (mut client, _server) = carriers();
    client.carrier.send_bytes(&[0; 100]);
    client.flush();
    assert!(client.carrier.sample(&client.side, Time::ZERO.after(1_000_000)).is_none());
}
