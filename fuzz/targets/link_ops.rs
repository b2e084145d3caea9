//! Two sessions under any sequence of commands, deliveries, and subflows that die and come back. No step may panic, and
//! every internal check must hold.
#![no_main]

use std::collections::VecDeque;

use arbitrary::Arbitrary;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use seaprox::link::frame::Class;
use seaprox::link::{
    BootId, Bound, Code, Config, Event, HelloReader, Open, Outbox, Proofs, SessionRole, Session, SessionId, StreamId, SubflowId,
    Time,
};

#[derive(Arbitrary, Debug)]
enum Op {
    Dial,
    Deliver { from: bool, conn: u8, bytes: u16 },
    Transmit { from: bool, conn: u8, room: u16 },
    Wait { ms: u16 },
    Timeout { at: bool },
    Open { at: bool },
    Accept { at: bool, id: u8 },
    Refuse { at: bool, id: u8 },
    Write { at: bool, id: u8, len: u16 },
    Read { at: bool, id: u8, len: u16 },
    Finish { at: bool, id: u8 },
    Reset { at: bool, id: u8 },
    Stop { at: bool, id: u8 },
    Message { at: bool },
    Listen { at: bool },
    Unlisten { at: bool, id: u8 },
    Class { at: bool, conn: u8, class: u8 },
    Down { at: bool, conn: u8 },
    GoAway { at: bool },
    Share { at: bool, bytes: u16 },
    Close { at: bool },
}

struct Conn {
    id: SubflowId,
    pipes: [VecDeque<u8>; 2],
    greeter: Option<HelloReader>,
    up: [bool; 2],
}

struct Link {
    ends: [Session; 2],
    conns: Vec<Conn>,
    now: Time,
    out: Outbox,
}

const PROOFS: Proofs = Proofs { ours: [0; 32], theirs: [0; 32] };

fuzz_target!(|ops: Vec<Op>| {
    let config = Config {
        frame_bytes_max: 100,
        stream_window_bytes: (1024, 3000),
        session_window_bytes: (2000, 6000),
        send_bytes_max: 3000,
        unsent_bytes_max: 600,
        streams_max: 6,
        lane_frames_max: 8,
        ..Config::default()
    };
    let id = SessionId([0; 16]);
    let ends = [(SessionRole::Client, 1), (SessionRole::Server, 2)].map(|(role, boot)| Session::new(role, config, id, BootId([boot; 8]), Time::ZERO));
    let mut link = Link { ends, conns: Vec::new(), now: Time::from_us(1), out: Outbox::new() };
    ops.into_iter().for_each(|op| link.apply(op));
});

impl Link {
    fn apply(&mut self, op: Op) {
        let now = self.now;
        let id = |n: u8| StreamId(u32::from(n % 16));
        match op {
            Op::Dial => {
                let id = self.ends[0].next_subflow();
                if self.ends[0].connect(now, id, 1, PROOFS) {
                    let greeter = Some(HelloReader::default());
                    self.conns.push(Conn { id, pipes: Default::default(), greeter, up: [true; 2] });
                }
            }
            Op::Deliver { from, conn, bytes } => self.deliver(usize::from(from), conn, usize::from(bytes)),
            Op::Transmit { from, conn, room } => self.transmit(usize::from(from), conn, usize::from(room)),
            Op::Wait { ms } => self.now = now.after(u64::from(ms) * 1000),
            Op::Timeout { at } => self.ends[usize::from(at)].handle_timeout(now),
            Op::Open { at } => drop(self.ends[usize::from(at)].open(now, Open::name("x", 1))),
            Op::Accept { at, id: n } => drop(self.ends[usize::from(at)].accept(id(n), Bound::default())),
            Op::Refuse { at, id: n } => drop(self.ends[usize::from(at)].refuse(now, id(n), Bound::refused(Code::Other))),
            Op::Write { at, id: n, len } => {
                let mut chunk = Bytes::from(vec![n; usize::from(len % 2000)]);
                let _ = self.ends[usize::from(at)].write(id(n), &mut chunk);
            }
            Op::Read { at, id: n, len } => drop(self.ends[usize::from(at)].consume(now, id(n), usize::from(len))),
            Op::Finish { at, id: n } => drop(self.ends[usize::from(at)].finish(id(n))),
            Op::Reset { at, id: n } => self.ends[usize::from(at)].reset(id(n), Code::Killed),
            Op::Stop { at, id: n } => self.ends[usize::from(at)].stop(now, id(n), Code::Killed),
            Op::Message { at } => drop(self.ends[usize::from(at)].message("hi")),
            Op::Listen { at } => drop(self.ends[usize::from(at)].listen(Open::name("", 0))),
            Op::Unlisten { at, id } => drop(self.ends[usize::from(at)].unlisten(u32::from(id))),
            Op::Class { at, conn, class } => {
                let class = [Class::Active, Class::Backup, Class::Closing][usize::from(class % 3)];
                if let Some(n) = self.pick(conn) {
                    self.ends[usize::from(at)].set_class(self.conns[n].id, class);
                }
            }
            Op::Down { at, conn } => self.down(usize::from(at), conn),
            Op::Share { at, bytes } => {
                let session = &mut self.ends[usize::from(at)];
                session.set_receive_bytes_max(u64::from(bytes));
                session.set_send_bytes_max(u64::from(bytes));
                session.set_streams_permitted(u32::from(bytes % 8));
            }
            Op::GoAway { at } => self.ends[usize::from(at)].go_away(Code::Drained, ""),
            Op::Close { at } => self.ends[usize::from(at)].close(now, Code::Killed, ""),
        }
        for end in &mut self.ends {
            while let Some(event) = end.poll_event() {
                if let Event::Listen { id, .. } = event {
                    let _ = end.listen_result(id, Bound::default());
                }
            }
        }
    }

    fn pick(&self, conn: u8) -> Option<usize> {
        usize::from(conn).checked_rem(self.conns.len())
    }

    /// Delivers at most `bytes` bytes of a connection, sent by end `from`. The sessions themselves never break the
    /// protocol.
    fn deliver(&mut self, from: usize, conn: u8, bytes: usize) {
        let Some(n) = self.pick(conn) else { return };
        let conn = &mut self.conns[n];
        let count = bytes.min(conn.pipes[from].len());
        let mut bytes = Bytes::from(conn.pipes[from].drain(..count).collect::<Vec<u8>>());
        let to = 1 - from;
        if !conn.up[to] {
            return;
        }
        if to == 1
            && let Some(greeter) = &mut conn.greeter
        {
            let Some((hello, used)) = greeter.feed(&bytes).unwrap() else { return };
            conn.greeter = None;
            if self.ends[1].accept_subflow(self.now, &hello, PROOFS) != seaprox::link::Status::Ok {
                conn.up = [false; 2];
                let id = conn.id;
                self.ends[0].subflow_down(self.now, id);
                return;
            }
            bytes = bytes.slice(used..);
        }
        let id = conn.id;
        self.ends[to].receive(self.now, id, 0, bytes).unwrap();
    }

    fn transmit(&mut self, from: usize, conn: u8, room: usize) {
        let Some(n) = self.pick(conn) else { return };
        self.ends[from].set_room(self.conns[n].id, room);
        self.out.clear();
        while let Some(transmit) = self.ends[from].poll_transmit(self.now, &mut self.out) {
            let mut wire = Vec::new();
            self.out.copy_to(&mut wire);
            self.out.clear();
            if let Some(conn) = self.conns.iter_mut().find(|conn| conn.id == transmit.subflow && conn.up[from]) {
                conn.pipes[from].extend(wire);
            }
        }
    }

    fn down(&mut self, at: usize, conn: u8) {
        let Some(n) = self.pick(conn) else { return };
        let id = self.conns[n].id;
        self.conns[n].up[at] = false;
        self.ends[at].subflow_down(self.now, id);
        if self.conns[n].up == [false; 2] {
            self.conns.remove(n);
        }
    }
}
