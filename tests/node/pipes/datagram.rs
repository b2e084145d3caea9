//! Datagrams, and the lengths before them.

use seaprox::pipes::{Datagram, MemoryPipe, Pipe, PipeError, Readiness, varint};

use crate::node_kit::pipes::*;

#[test]
fn datagrams_of_3_and_123_and_4_bytes_arrive_as_such() {
    let mut kinds = Kinds::default();
    for kind in [Kind::Datagram, Kind::TcpStack, Kind::StripedStack] {
        let [a, b] = kinds.pair(kind);
        let mut ends = Ends::new(a, b);
        let (mut to_send, mut got, mut buf) = (vec![4, 123, 3], Vec::new(), [0; 70_000]);
        ends.until("three datagrams arrive", |a, b| {
            while let Some(count) = to_send.last()
                && let Some(sent) = now(a.send(&vec![7; *count]))
            {
                assert_eq!(Some(sent), to_send.pop(), "a datagram is accepted as a whole");
            }
            while let Some(count) = now(b.receive(&mut buf)) {
                got.push(count);
            }
            got.len() == 3
        });
        assert_eq!(got, [3, 123, 4], "{kind:?}");
    }
}

#[test]
fn a_pipe_is_readable_while_a_complete_datagram_waits_behind_the_one_that_was_taken() {
    let (mut a, b) = MemoryPipe::pair(1000);
    let mut b = Datagram::new(b);
    assert_eq!(a.send(b"\x03one\x06second\x05th"), Ok(14));
    let mut buf = [0; 100];
    assert_eq!((b.receive(&mut buf), b.is_readable()), (Ok(3), true));
    assert_eq!((b.receive(&mut buf), b.is_readable()), (Ok(6), false));
    assert_eq!(a.send(b"ird\0"), Ok(4));
    assert_eq!((b.receive(&mut buf), b.is_readable()), (Ok(5), true), "the invalid length waits to be told");
    assert_eq!(b.receive(&mut buf), Err(PipeError::InvalidLength));
}

#[test]
fn lengths_have_the_golden_encodings() {
    let golden: [(usize, &[u8]); 7] = [
        (0, &[0]),
        (1, &[1]),
        (127, &[0x7f]),
        (128, &[0x80, 0x01]),
        (16_383, &[0xff, 0x7f]),
        (16_384, &[0x80, 0x80, 0x01]),
        ((1 << 28) - 1, &[0xff, 0xff, 0xff, 0x7f]),
    ];
    for (value, bytes) in golden {
        let (encoded, count) = varint::encode(value).unwrap();
        assert_eq!(&encoded[..count], bytes, "{value}");
        assert_eq!(varint::decode(bytes), Ok(Some((value, bytes.len()))));
        assert_eq!(varint::decode(&[bytes, &[9]].concat()), Ok(Some((value, bytes.len()))), "the rest is not its own");
        (0..bytes.len()).for_each(|count| assert_eq!(varint::decode(&bytes[..count]), Ok(None)));
    }
    let large = varint::VALUE_MAX + 1;
    assert_eq!(varint::encode(large), Err(PipeError::TooLong { bytes: large, limit: varint::VALUE_MAX }));
}

#[test]
fn over_long_and_overflowing_lengths_are_refused() {
    let invalid: [&[u8]; 5] =
        [&[0x80, 0], &[0xff, 0x80, 0], &[0x80, 0x80, 0x80, 0], &[0xff; 4], &[0xff, 0xff, 0xff, 0xff, 0x7f]];
    for bytes in invalid {
        assert_eq!(varint::decode(bytes), Err(PipeError::InvalidLength), "{bytes:?}");
        assert_eq!(receive_raw(bytes, 1000), Err(PipeError::InvalidLength), "{bytes:?}");
    }
    assert_eq!(receive_raw(&[0], 1000), Err(PipeError::InvalidLength), "an empty datagram would look like a FIN");
}

/// Gives raw bytes and a FIN to a datagram pipe with a limit. Returns the first result that is not `WouldBlock`.
fn receive_raw(bytes: &[u8], limit: usize) -> Result<usize, PipeError> {
    let (mut raw, end) = MemoryPipe::pair(100_000);
    let mut pipe = Datagram::with_limit(end, limit);
    let mut buf = vec![0; 100_000];
    for byte in bytes {
        match pipe.receive(&mut buf) {
            Err(PipeError::WouldBlock) => {}
            result => return result,
        }
        // The pipe may have reset the raw end already.
        let _ = raw.send(&[*byte]);
    }
    let result = match pipe.receive(&mut buf) {
        Err(PipeError::WouldBlock) => {
            raw.finish().unwrap();
            pipe.receive(&mut buf)
        }
        result => result,
    };
    if let Err(error) = &result {
        assert_eq!(pipe.broken().as_ref(), Some(error));
        assert!(raw.broken().is_some() || *error == PipeError::Truncated, "the peer is reset");
    }
    result
}

#[test]
fn a_datagram_above_the_limit_breaks_the_pipe_at_either_end() {
    let (near, mut raw) = MemoryPipe::pair(100_000);
    let mut pipe = Datagram::with_limit(near, 1000);
    assert_eq!((pipe.message_bytes_max(), pipe.send_bytes_max()), (Some(1000), 1000));
    assert_eq!(pipe.send(&[1; 1000]), Ok(1000));
    let error = PipeError::TooLong { bytes: 1001, limit: 1000 };
    assert_eq!(pipe.send(&[1; 1001]), Err(error.clone()));
    assert_eq!(error.to_string(), "1001 bytes at once, and the limit is 1000");
    assert_eq!((pipe.broken(), pipe.send(b"x")), (Some(error.clone()), Err(error.clone())));
    let mut buf = [0; 5000];
    let got = raw.receive(&mut buf);
    assert!(got == Ok(1002) || got == Err(PipeError::Reset), "{got:?}: no byte of the long one");

    let (length, count) = varint::encode(1001).unwrap();
    assert_eq!(receive_raw(&length[..count], 1000), Err(error), "the length is enough");
    assert_eq!(receive_raw(&[3, 1, 2], 1000), Err(PipeError::Truncated));
    assert_eq!(receive_raw(&[3, 1, 2, 3], 1000), Ok(3));
    assert_eq!(receive_raw(&[], 1000), Ok(0));
}

#[test]
fn a_small_buffer_gets_a_datagram_in_parts() {
    let (a, b) = MemoryPipe::pair(1000);
    let (mut a, mut b) = (Datagram::new(a), Datagram::new(b));
    assert_eq!((a.send(b"abcdef"), a.send(b"gh")), (Ok(6), Ok(2)));
    assert_eq!(b.next_bytes(), None, "it is not received yet");
    let mut buf = [0; 4];
    assert_eq!((b.receive(&mut buf), &buf[..], b.next_bytes()), (Ok(4), &b"abcd"[..], Some(2)));
    assert_eq!((b.receive(&mut buf), &buf[..2], b.next_bytes()), (Ok(2), &b"ef"[..], None));
    assert_eq!((b.receive(&mut buf), &buf[..2]), (Ok(2), &b"gh"[..]));
    assert!(b.drive(Readiness::BOTH).is_ok() && b.inner().is_ready());
}
