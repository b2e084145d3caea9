//! Tests of the pump alone, over Unix socket pairs. There is no loop and there are no events; the tests set the readiness.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::*;
use crate::relay::io::Io;
use crate::relay::side::{Owner, SideState};
use crate::types::address::Endpoint;
use crate::types::id::{Kind, Table};

struct Rig {
    half: Half,
    from: Side,
    to: Side,
    pools: Pools,
    near: UnixStream,
    far: UnixStream,
}

const BLOCK: usize = 4096;

impl Rig {
    fn new(pipes: usize) -> Rig {
        let (near, from) = UnixStream::pair().unwrap();
        let (to, far) = UnixStream::pair().unwrap();
        for socket in [&near, &from, &to, &far] {
            socket.set_nonblocking(true).unwrap();
        }
        let owner = Owner::Race(Table::new(Kind::Side, 1).insert(()).unwrap());
        let side = |socket| Side::new(owner, SideState::Connected, Io::Unix(socket), Endpoint::Unknown);
        let pools = Pools {
            blocks: BlockPool::new(BLOCK, 4 * BLOCK),
            splice_pipes: SplicePipePool::new(65536, pipes),
            sessions: Sessions::new(),
        };
        let mut rig = Rig { half: Half::new(Flow::Relay), from: side(from), to: side(to), pools, near, far };
        rig.ready();
        rig
    }

    fn pump(&mut self, budget: usize) -> Pumped {
        pump(&mut self.half, Role::Source, &mut self.from, &mut self.to, &mut self.pools, budget)
    }

    fn ready(&mut self) {
        (self.from.ready.readable, self.to.ready.writable) = (true, true);
    }

    fn drain_far(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // The socket does not block, so the read ends with WouldBlock after all received bytes.
        let _ = self.far.read_to_end(&mut bytes);
        bytes
    }

    fn holds_nothing(&self) -> bool {
        self.pools.blocks.taken() == 0 && self.half.splice_pipe.is_none()
    }
}

fn pattern(count: usize) -> Vec<u8> {
    (0..count).map(|n| (n * 31 % 251) as u8).collect()
}

#[test]
fn relayed_bytes_leave_no_block() {
    let mut rig = Rig::new(0);
    rig.near.write_all(b"hello").unwrap();
    assert!(matches!(rig.pump(1 << 20), Pumped::Blocked));
    assert_eq!(rig.drain_far(), b"hello");
    assert!(!rig.from.ready.readable, "a short read clears it");
    assert!(rig.holds_nothing());
    assert_eq!(rig.half.bytes, 5);
}

#[test]
fn a_short_read_after_a_fin_does_not_hide_the_end() {
    let mut rig = Rig::new(0);
    rig.near.write_all(b"last").unwrap();
    rig.near.shutdown(std::net::Shutdown::Write).unwrap();
    rig.from.ready.fin = true;
    assert!(matches!(rig.pump(1 << 20), Pumped::Done));
    assert_eq!(rig.drain_far(), b"last");
}

/// Sends `count` bytes through a reader that pauses often, in both modes, and checks that all bytes arrive in order.
fn all_arrive(pipes: usize, count: usize) {
    let mut rig = Rig::new(pipes);
    let sent = pattern(count);
    let (mut offset, mut arrived, mut spliced) = (0, Vec::new(), false);
    while arrived.len() < count {
        while offset < count {
            match rig.near.write(&sent[offset..]) {
                Ok(put) => offset += put,
                Err(_) => break,
            }
        }
        rig.ready();
        while matches!(rig.pump(3 * BLOCK), Pumped::Budget) {}
        spliced |= rig.half.splice_pipe.is_some() || rig.half.has_spliced;
        arrived.extend(rig.drain_far());
    }
    assert_eq!(arrived, sent);
    assert_eq!(spliced, pipes > 0 && cfg!(target_os = "linux"));
    rig.ready();
    rig.pump(usize::MAX);
    assert!(rig.holds_nothing());
}

#[test]
fn a_slow_reader_gets_all_copied_bytes() {
    all_arrive(0, 3_000_000);
}

#[test]
fn a_slow_reader_gets_all_spliced_bytes() {
    all_arrive(1, 3_000_000);
}

#[test]
fn a_full_pipe_is_not_taken_for_an_empty_socket() {
    let mut rig = Rig::new(1);
    rig.half.full_reads = SPLICE_AFTER;
    // The pipe is small and the data far larger, so each fill meets a pipe that was full a moment ago.
    let mut sent = 0;
    while let Ok(put) = rig.near.write(&[7; 8192]) {
        sent += put;
    }
    let mut arrived = 0;
    while arrived < sent {
        rig.ready();
        assert!(!matches!(rig.pump(usize::MAX), Pumped::Done | Pumped::Broken(..)));
        arrived += rig.drain_far().len();
    }
    assert_eq!(arrived, sent);
}

#[test]
fn the_end_waits_for_the_bytes_in_the_pipe() {
    let mut rig = Rig::new(1);
    rig.half.full_reads = SPLICE_AFTER;
    while rig.to.io.write(&[0; 65536], &mut rig.pools.sessions).is_ok() {}
    rig.near.write_all(&pattern(10_000)).unwrap();
    rig.near.shutdown(std::net::Shutdown::Write).unwrap();
    rig.from.ready.fin = true;
    assert!(matches!(rig.pump(usize::MAX), Pumped::Blocked), "the bytes are in the pipe and cannot leave it");
    assert_eq!(rig.half.queued(), 10_000);
    let filler = rig.drain_far().len();
    rig.ready();
    let mut arrived = Vec::new();
    loop {
        rig.ready();
        let pumped = rig.pump(usize::MAX);
        arrived.extend(rig.drain_far());
        if matches!(pumped, Pumped::Done) {
            break;
        }
    }
    assert!(filler > 0);
    assert_eq!(arrived, pattern(10_000));
}

#[test]
fn the_budget_bounds_a_turn() {
    let mut rig = Rig::new(0);
    rig.near.write_all(&pattern(5 * BLOCK)).unwrap();
    assert!(matches!(rig.pump(2 * BLOCK), Pumped::Budget));
    assert_eq!(rig.half.bytes, 2 * BLOCK as u64);
}

#[test]
fn without_a_block_nothing_is_read() {
    let mut rig = Rig::new(0);
    rig.near.write_all(b"x").unwrap();
    let held: Vec<_> = std::iter::from_fn(|| rig.pools.blocks.take()).collect();
    assert!(matches!(rig.pump(1), Pumped::NoBlock));
    assert!(rig.from.ready.readable, "it is still to be read");
    held.into_iter().for_each(|block| rig.pools.blocks.put(block));
    rig.pump(usize::MAX);
    assert_eq!(rig.drain_far(), b"x");
}

#[test]
fn a_count_of_bytes_is_relayed_exactly_and_the_rest_stays() {
    let mut rig = Rig::new(0);
    rig.near.write_all(b"0123456789").unwrap();
    rig.half.left = 4;
    assert!(matches!(rig.pump(usize::MAX), Pumped::CountReached));
    assert_eq!(rig.drain_far(), b"0123");
    assert_eq!(rig.half.store.bytes(), b"456789");
    rig.half.left = 100;
    rig.near.shutdown(std::net::Shutdown::Write).unwrap();
    rig.from.ready.readable = true;
    assert!(matches!(rig.pump(usize::MAX), Pumped::EndedEarly));
    assert_eq!(rig.drain_far(), b"456789");
}

#[test]
fn a_failed_reader_is_distinguished_from_a_failed_writer() {
    let mut rig = Rig::new(0);
    rig.near.write_all(b"x").unwrap();
    drop(std::mem::replace(&mut rig.far, UnixStream::pair().unwrap().0));
    assert!(matches!(rig.pump(usize::MAX), Pumped::Broken(Role::Dest, _)));
}

#[test]
fn discarded_input_is_written_nowhere_and_holds_no_block() {
    let mut rig = Rig::new(1);
    rig.half.flow = Flow::Discard;
    rig.near.write_all(&pattern(BLOCK * 3)).unwrap();
    rig.near.shutdown(std::net::Shutdown::Write).unwrap();
    rig.from.ready.fin = true;
    let pumped = discard(&mut rig.half, Role::Source, &mut rig.from, &mut rig.pools, usize::MAX);
    assert!(matches!(pumped, Pumped::Done));
    assert_eq!((rig.drain_far().len(), rig.half.bytes), (0, 0));
    assert!(rig.holds_nothing());
}
