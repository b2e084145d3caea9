//! Two sessions joined in memory, to measure the cost and the allocations of the link itself.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use seaprox::link::{
    BootId, Bound, Config, Event, HelloReader, OPENS_MAX, Open, Outbox, Proofs, Session, SessionId, SessionRole,
    StreamId, SubflowId, Time,
};

const LANE: SubflowId = SubflowId(0);
/// Bytes that one end sends before they are given to the other.
const BATCH: usize = 64 * 1024;

pub struct Pair {
    pub ends: [Session; 2],
    now: Time,
    out: Outbox,
    /// Buffers that represent the wire. A buffer is used again when no session holds a part of it.
    wires: VecDeque<Bytes>,
    payload: Bytes,
    ready: Vec<StreamId>,
    pub frames: u64,
    /// Batches carried so far. Each costs one allocation of the kit's own, for its `Bytes`.
    pub batches: u64,
}

impl Pair {
    pub fn new() -> Pair {
        Pair::with(Config::default())
    }

    pub fn with(config: Config) -> Pair {
        let now = Time::from_us(1);
        let id = SessionId([1; 16]);
        let mut client = Session::new(SessionRole::Client, config, id, BootId([1; 8]), now);
        let mut server = Session::new(SessionRole::Server, config, id, BootId([2; 8]), now);
        let proofs = Proofs { ours: [0; 32], theirs: [0; 32] };
        let subflow = client.next_subflow();
        assert!(client.connect(now, subflow, 1, proofs));
        client.set_room(subflow, BATCH);
        let mut out = Outbox::new();
        client.poll_transmit(now, &mut out).unwrap();
        let mut hello = Vec::new();
        out.copy_to(&mut hello);
        let (hello, _) = HelloReader::default().feed(&hello).unwrap().unwrap();
        server.accept_subflow(now, &hello, proofs);
        let payload = Bytes::from(vec![0x5A; 4 << 20]);
        let mut pair = Pair {
            ends: [client, server],
            now,
            out,
            wires: VecDeque::new(),
            payload,
            ready: Vec::new(),
            frames: 0,
            batches: 0,
        };
        while pair.turn() {}
        assert!(pair.ends.iter().all(Session::is_open));
        pair
    }

    /// Opens streams from the first end to the second.
    pub fn open(&mut self, count: usize) -> Vec<StreamId> {
        let mut ids = Vec::new();
        while ids.len() < count {
            let some = (count - ids.len()).min(OPENS_MAX as usize);
            ids.extend((0..some).map(|_| self.ends[0].open(self.now, Open::name("x", 1)).unwrap()));
            while self.turn() {}
            // The last acknowledgement comes after its delay.
            self.now = self.now.after(50_000);
            while self.turn() {}
        }
        ids
    }

    /// Carries the frames of both ends, up to a batch each. Returns true if there were any.
    pub fn turn(&mut self) -> bool {
        self.now = self.now.after(10);
        let mut any = false;
        for from in [0, 1] {
            if self.ends[from].poll_timeout().is_some_and(|at| at <= self.now) {
                self.ends[from].handle_timeout(self.now);
            }
            self.ends[from].set_room(LANE, BATCH);
            self.out.clear();
            while self.out.len() < BATCH && self.ends[from].poll_transmit(self.now, &mut self.out).is_some() {
                self.frames += 1;
            }
            any |= !self.out.is_empty();
            self.carry(1 - from);
            self.events(1 - from);
            self.events(from);
        }
        any
    }

    /// Passes the bytes in the outbox to an end.
    fn carry(&mut self, to: usize) {
        if self.out.is_empty() {
            return;
        }
        let used = self.wires.pop_front().map(Bytes::try_into_mut);
        let mut wire = match used {
            Some(Ok(mut wire)) => {
                wire.clear();
                wire
            }
            Some(Err(busy)) => {
                self.wires.push_back(busy);
                BytesMut::with_capacity(2 * BATCH)
            }
            None => BytesMut::with_capacity(2 * BATCH),
        };
        self.out.parts().for_each(|part| wire.extend_from_slice(part));
        let wire = wire.freeze();
        self.batches += 1;
        self.wires.push_back(wire.clone());
        self.ends[to].receive(self.now, LANE, 0, wire).unwrap();
    }

    fn events(&mut self, end: usize) {
        while let Some(event) = self.ends[end].poll_event() {
            match event {
                Event::Opened { id, .. } => self.ends[end].accept(id, Bound::default()).unwrap(),
                Event::Readable(id) => self.ready.push(id),
                _ => {}
            }
        }
        for id in self.ready.drain(..) {
            let bytes = self.ends[end].readable(id).map(<[u8]>::len).sum();
            self.ends[end].consume(self.now, id, bytes);
        }
    }

    /// Sends at least `bytes` bytes on a stream, in chunks of 64 KiB. Returns how many.
    pub fn bulk(&mut self, id: StreamId, bytes: usize) -> usize {
        let mut sent = 0;
        let mut chunk = Bytes::new();
        while sent < bytes {
            loop {
                if chunk.is_empty() {
                    let at = sent % (4 << 20) / BATCH * BATCH;
                    chunk = self.payload.slice(at..at + BATCH);
                }
                let taken = self.ends[0].write(id, &mut chunk).unwrap();
                sent += taken;
                if !chunk.is_empty() {
                    break;
                }
            }
            self.turn();
        }
        sent
    }

    /// Makes at least `frames` writes of 64 bytes, one on each stream in turn, and waits until all have arrived.
    /// Returns how many.
    pub fn small(&mut self, ids: &[StreamId], frames: usize) -> usize {
        let mut sent = 0;
        while sent < frames {
            let batch = ids.len().min(512);
            for n in 0..batch {
                let at = (sent + n) * 64 % (1 << 20);
                let mut chunk = self.payload.slice(at..at + 64);
                self.ends[0].write(ids[(sent + n) % ids.len()], &mut chunk).unwrap();
            }
            sent += batch;
            self.turn();
        }
        while self.turn() {}
        sent
    }
}
