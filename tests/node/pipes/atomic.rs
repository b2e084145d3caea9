//! Atomic sends.

use seaprox::pipes::{Atomic, MemoryPipe, Pipe, PipeError, Readiness};

use crate::node_kit::pattern;
use crate::node_kit::pipes::*;

/// The pipe beneath takes one byte at a time, and the peer reads one byte at a time. No send is accepted in part.
#[test]
fn a_send_is_accepted_whole_or_not_at_all_beside_a_peer_that_reads_single_bytes() {
    let (near, mut far) = MemoryPipe::pair(1);
    let mut pipe = Atomic::with_capacity(near, 100);
    let (mut sent, mut got, mut refused) = (Vec::new(), Vec::new(), 0);
    for round in 0..3000_u64 {
        let size = 1 + (round * 37 % 100) as usize;
        let bytes: Vec<u8> = (0..size as u64).map(|at| pattern(1, sent.len() as u64 + at)).collect();
        let before = pipe.queued();
        match pipe.send(&bytes) {
            Ok(count) => {
                assert_eq!(count, size);
                sent.extend(bytes);
            }
            Err(PipeError::WouldBlock) => {
                assert!(before + size > 100 && !pipe.is_writable() && pipe.queued() <= before);
                refused += 1;
            }
            Err(error) => panic!("{error}"),
        }
        assert!(pipe.queued() <= 100);
        let mut byte = [0];
        for _ in 0..30 {
            pipe.drive(Readiness::BOTH).unwrap();
            if now(far.receive(&mut byte)).is_some() {
                got.push(byte[0]);
            }
        }
    }
    pipe.finish().unwrap();
    let mut ends = Ends::new(pipe, far);
    ends.until("the rest and the FIN arrive", |_, far| {
        let mut byte = [0];
        loop {
            match now(far.receive(&mut byte)) {
                None => return false,
                Some(0) => return true,
                Some(_) => got.push(byte[0]),
            }
        }
    });
    assert!(got == sent && refused > 100 && sent.len() > 10_000, "{refused} refused, {} sent", sent.len());
}

#[test]
fn more_bytes_than_the_capacity_are_refused_and_break_nothing() {
    let [near, far] = tcp();
    let mut pipe = Atomic::with_capacity(near, 10);
    assert_eq!(pipe.send(&[1; 11]), Err(PipeError::TooLong { bytes: 11, limit: 10 }));
    assert_eq!((pipe.send(&[2; 10]), pipe.broken(), pipe.send_bytes_max()), (Ok(10), None, 10));
    assert!(pipe.inner().is_ready());
    let mut got = Vec::new();
    Ends::new(pipe, far).until("ten bytes arrive", |_, far| !receive_some(far, &mut got) && got == [2; 10]);
}
