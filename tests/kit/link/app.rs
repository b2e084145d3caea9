//! The application at one end: writes the planned bytes of each stream, reads the other end's bytes and compares them.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use seaprox::link::{Bound, Code, Event, Kind, Open, Session, StreamId, Time};

use super::pattern;
use super::rng::Rng;

/// The plan of a stream. It is sent in the `source` of the OPEN, so that both ends know it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Bytes from the opener, and to the opener.
    pub sizes: [u64; 2],
    /// Bytes of one write, at most.
    pub chunk: u64,
    /// Bytes of one read, at most. After each read the reader pauses.
    pub bite: u64,
    /// The pause after a read, in microseconds.
    pub pause_us: u64,
    /// The reader stops after this many bytes.
    pub stall_at: Option<u64>,
    /// The opener, or the acceptor, resets the stream after it has written this many bytes.
    pub abort: [Option<u64>; 2],
    /// The acceptor refuses the stream.
    pub refuse: bool,
    /// The acceptor writes no more than it has read.
    pub echo: bool,
    pub weight: u8,
}

impl Plan {
    /// Returns a plan that sends `bytes` from the opener to the acceptor.
    pub fn up(bytes: u64) -> Plan {
        Plan { sizes: [bytes, 0], chunk: 65_536, bite: u64::MAX, weight: 1, ..Plan::default() }
    }

    /// Returns the plan as the `source` of an OPEN.
    pub fn text(&self) -> String {
        let number = |n: Option<u64>| n.map_or("-".to_owned(), |n| n.to_string());
        format!(
            "{} {} {} {} {} {} {} {} {}{}",
            self.sizes[0],
            self.sizes[1],
            self.chunk,
            self.bite,
            self.pause_us,
            number(self.abort[0]),
            number(self.abort[1]),
            u8::from(self.refuse),
            number(self.stall_at),
            if self.echo { " 1" } else { "" }
        )
    }

    fn decode(text: &str) -> Plan {
        let f: Vec<Option<u64>> = text.split(' ').map(|word| word.parse().ok()).collect();
        let n = |i: usize| f[i].unwrap();
        Plan {
            sizes: [n(0), n(1)],
            chunk: n(2),
            bite: n(3),
            pause_us: n(4),
            abort: [f[5], f[6]],
            refuse: n(7) == 1,
            stall_at: f.get(8).copied().flatten(),
            echo: f.len() > 9,
            weight: 1,
        }
    }
}

/// One stream, as the application sees it.
#[derive(Debug)]
pub struct AppStream {
    pub plan: Plan,
    /// 0 if this end opened the stream, 1 if the other end did.
    side: usize,
    pub written: u64,
    /// Bytes that may be written until now.
    granted: u64,
    left_over: Bytes,
    finished: bool,
    blocked: bool,
    pub read: u64,
    next_bite: Time,
    pub fin: bool,
    pub reset: Option<Code>,
    pub stopped: bool,
    pub refused: bool,
    pub gone: bool,
    aborted: bool,
    pub first_byte: Option<Time>,
    pub last_byte: Option<Time>,
    /// The longest time between two reads, in microseconds.
    pub gap_us: u64,
}

impl AppStream {
    fn new(plan: Plan, side: usize) -> AppStream {
        AppStream {
            plan,
            side,
            written: 0,
            granted: if plan.echo { 0 } else { u64::MAX },
            left_over: Bytes::new(),
            finished: false,
            blocked: false,
            read: 0,
            next_bite: Time::ZERO,
            fin: false,
            reset: None,
            stopped: false,
            refused: false,
            gone: false,
            aborted: false,
            first_byte: None,
            last_byte: None,
            gap_us: 0,
        }
    }

    fn to_write(&self) -> u64 {
        self.plan.sizes[self.side]
    }

    fn to_read(&self) -> u64 {
        self.plan.sizes[1 - self.side]
    }

    /// Returns true if the plan resets or refuses the stream.
    fn may_break(&self) -> bool {
        self.plan.refuse || self.plan.abort.iter().any(Option::is_some)
    }
}

/// The application at one end.
#[derive(Debug, Default)]
pub struct App {
    pub streams: BTreeMap<StreamId, AppStream>,
    pub messages: Vec<String>,
    pub ended: Option<Code>,
    pub suspensions: u64,
    pub resumed: u64,
    /// The number of events so far.
    pub events: u64,
    pub bytes_read: u64,
    /// True if the session may end during the run.
    pub may_end: bool,
    /// True if a subflow has ever been up.
    pub up: bool,
    /// The flows that this end has opened and not finished, with the number of their next datagram.
    pub flow_numbers: BTreeMap<StreamId, u32>,
    /// The datagrams that have arrived.
    pub datagrams: BTreeSet<(StreamId, u32)>,
}

fn salt(id: StreamId, side: usize) -> u64 {
    u64::from(id.0) * 2 + side as u64
}

/// Returns a datagram of at least four bytes: its number, and bytes that depend on the flow, the number and the length.
fn datagram(id: StreamId, number: u32, len: usize) -> Bytes {
    let rest = pattern::slice(u64::from(id.0), u64::from(number) * 1_009 + len as u64, len.saturating_sub(4));
    [&number.to_be_bytes(), &rest[..]].concat().into()
}

impl App {
    /// Opens a stream with a plan and writes its first bytes. Returns `None` if the session accepts no more streams.
    pub fn open(&mut self, session: &mut Session, now: Time, plan: Plan) -> Option<StreamId> {
        let open = Open { source: plan.text(), weight: plan.weight, ..Open::name("example.org", 80) };
        let id = session.open(now, open).ok()?;
        self.streams.insert(id, AppStream::new(plan, 0));
        self.write(session, now, id);
        Some(id)
    }

    /// Opens a flow of datagrams, which carries no bytes. Returns `None` if the session accepts no more streams.
    pub fn open_flow(&mut self, session: &mut Session, now: Time) -> Option<StreamId> {
        let open = Open { kind: Kind::Udp, source: Plan::up(0).text(), ..Open::name("example.org", 53) };
        let id = session.open(now, open).ok()?;
        self.adopt(id, Plan::up(0));
        self.flow_numbers.insert(id, 0);
        Some(id)
    }

    /// Returns the flows that this end has opened and not finished.
    pub fn flows(&self) -> Vec<StreamId> {
        self.flow_numbers.keys().copied().collect()
    }

    /// Sends the next datagram of a flow. The session may drop it.
    pub fn send_datagram(&mut self, session: &mut Session, now: Time, id: StreamId, len: usize) {
        let Some(number) = self.flow_numbers.get_mut(&id) else { return };
        let _ = session.send_datagram(now, id, datagram(id, *number, len));
        *number += 1;
    }

    /// Finishes all flows that this end has opened.
    pub fn finish_flows(&mut self, session: &mut Session) {
        for id in std::mem::take(&mut self.flow_numbers).into_keys() {
            self.stream(id).finished = true;
            let _ = session.finish(id);
        }
    }

    /// Takes the datagrams of all flows. None may arrive twice or with other bytes.
    pub fn take_datagrams(&mut self, session: &mut Session) {
        for id in self.streams.keys() {
            while let Some(payload) = session.recv_datagram(*id) {
                let number = u32::from_be_bytes(payload[..4].try_into().unwrap());
                assert!(payload == datagram(*id, number, payload.len()), "{id:?}: wrong bytes in datagram {number}");
                assert!(self.datagrams.insert((*id, number)), "{id:?}: datagram {number} arrived twice");
            }
        }
    }

    /// Adds a stream that this end opened without [`App::open`].
    pub fn adopt(&mut self, id: StreamId, plan: Plan) {
        self.streams.insert(id, AppStream::new(plan, 0));
    }

    /// Handles all events of the session. Returns true if there was one.
    pub fn handle(&mut self, session: &mut Session, now: Time) -> bool {
        let mut any = false;
        while let Some(event) = session.poll_event() {
            any = true;
            self.events += 1;
            self.on_event(session, now, event);
        }
        any
    }

    fn on_event(&mut self, session: &mut Session, now: Time, event: Event) {
        match event {
            Event::Opened { id, open } => {
                let plan = Plan::decode(&open.source);
                let fresh = self.streams.insert(id, AppStream::new(plan, 1)).is_none();
                assert!(fresh, "{id:?} was opened twice");
                if plan.refuse {
                    self.stream(id).refused = true;
                    session.refuse(now, id, Bound::refused(Code::ConnectionRefused)).unwrap();
                } else {
                    session.accept(id, Bound::default()).unwrap();
                    self.write(session, now, id);
                }
            }
            Event::OpenResult { id, result } => {
                let stream = self.stream(id);
                assert!(result.failure.is_some() == stream.plan.refuse || stream.may_break(), "{id:?}: {result:?}");
                stream.refused = result.failure.is_some();
            }
            Event::Readable(id) => self.read(session, now, id),
            Event::Writable(id) => {
                self.stream(id).blocked = false;
                self.write(session, now, id);
            }
            Event::Fin(id) => {
                let stream = self.stream(id);
                assert!(!stream.fin && stream.reset.is_none(), "{id:?}: FIN after the end");
                assert_eq!(stream.read, stream.to_read(), "{id:?}: FIN before the last byte");
                stream.fin = true;
            }
            Event::Undelivered { id, bytes } => {
                let may_end = self.may_end;
                let stream = self.stream(id);
                assert!(may_end && stream.reset.is_none() && !stream.refused, "{id:?}");
                for run in &bytes {
                    let salt = salt(id, 1 - stream.side);
                    assert!(pattern::matches(salt, stream.read, run), "{id:?}: wrong bytes at {}", stream.read);
                    stream.read += run.len() as u64;
                }
                assert_eq!(stream.read, stream.to_read(), "{id:?}: undelivered data is missing");
                assert!(stream.finished, "{id:?}: this end has not finished");
                stream.fin = true;
            }
            Event::Reset { id, code } => {
                let may_end = self.may_end;
                let stream = self.stream(id);
                assert!(stream.reset.is_none(), "{id:?}: RESET twice");
                assert!(!stream.fin || code == Code::LinkLost, "{id:?}: RESET after FIN");
                assert!(stream.may_break() || (may_end && code == Code::LinkLost), "{id:?} was reset: {code:?}");
                stream.reset = Some(code);
            }
            Event::Stopped { id, code } => {
                let stream = self.stream(id);
                assert!(stream.may_break(), "{id:?} was stopped: {code:?} {stream:?}");
                stream.stopped = true;
            }
            Event::Gone(id) => {
                if let Some(stream) = self.streams.get_mut(&id) {
                    assert!(!stream.gone);
                    stream.gone = true;
                    let whole = stream.fin && stream.finished;
                    assert!(whole || stream.may_break(), "{id:?} is gone with {stream:?}");
                }
            }
            Event::Message(text) => self.messages.push(text),
            Event::SubflowUp(_) => self.up = true,
            Event::Suspended => self.suspensions += 1,
            Event::Resumed => self.resumed += 1,
            Event::Ended { code, text } => {
                assert!(self.may_end, "the session ended: {code:?} {text}");
                self.ended = Some(code);
            }
            _ => {}
        }
    }

    /// Lets a stream write up to a position.
    pub fn grant(&mut self, session: &mut Session, now: Time, id: StreamId, position: u64) {
        self.stream(id).granted = position;
        self.write(session, now, id);
    }

    fn stream(&mut self, id: StreamId) -> &mut AppStream {
        self.streams.get_mut(&id).expect("the stream of an event is known")
    }

    fn write(&mut self, session: &mut Session, now: Time, id: StreamId) {
        let stream = self.streams.get_mut(&id).unwrap();
        if stream.finished || stream.aborted || stream.blocked {
            return;
        }
        loop {
            if stream.plan.abort[stream.side].is_some_and(|after| stream.written >= after) {
                stream.aborted = true;
                session.reset(id, Code::SourceReset);
                session.stop(now, id, Code::SourceReset);
                return;
            }
            if stream.left_over.is_empty() {
                let offset = stream.written;
                let len = (stream.to_write() - offset).min(stream.plan.chunk).min(pattern::SLICE_MAX as u64);
                if len == 0 {
                    break;
                }
                let len = len.min(stream.granted - offset);
                if len == 0 {
                    return;
                }
                stream.left_over = pattern::slice(salt(id, stream.side), offset, len as usize);
            }
            match session.write(id, &mut stream.left_over) {
                Ok(taken) => stream.written += taken as u64,
                Err(_) => {
                    assert!(stream.may_break() || session.is_ended(), "a write was refused");
                    stream.finished = true;
                    return;
                }
            }
            if !stream.left_over.is_empty() {
                stream.blocked = true;
                return;
            }
        }
        stream.finished = true;
        let _ = session.finish(id);
    }

    fn read(&mut self, session: &mut Session, now: Time, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.next_bite > now || stream.plan.stall_at.is_some_and(|at| stream.read >= at) {
            return;
        }
        let mut taken = 0;
        for run in session.readable(id) {
            let run = &run[..run.len().min((stream.plan.bite - taken) as usize)];
            assert!(
                pattern::matches(salt(id, 1 - stream.side), stream.read + taken, run),
                "{id:?}: wrong bytes at {}",
                stream.read + taken
            );
            taken += run.len() as u64;
            if taken == stream.plan.bite {
                break;
            }
        }
        if taken == 0 {
            return;
        }
        stream.read += taken;
        self.bytes_read += taken;
        assert!(stream.read <= stream.to_read());
        stream.first_byte.get_or_insert(now);
        let last = stream.last_byte.replace(now);
        stream.gap_us = stream.gap_us.max(last.map_or(0, |last| now.since(last)));
        if stream.plan.pause_us > 0 {
            stream.next_bite = now.after(stream.plan.pause_us);
        }
        let (echoes, position) = (stream.plan.echo && stream.side == 1, stream.read);
        assert_eq!(session.consume(now, id, taken as usize) as u64, taken);
        if echoes {
            self.grant(session, now, id, position);
        }
    }

    /// Reads for all readers whose pause is over.
    pub fn tick(&mut self, session: &mut Session, now: Time) {
        let due = |s: &AppStream| s.plan.pause_us > 0 && !s.fin && s.next_bite <= now && s.next_bite > Time::ZERO;
        let ids: Vec<StreamId> = self.streams.iter().filter(|(_, s)| due(s)).map(|(id, _)| *id).collect();
        for id in ids {
            self.stream(id).next_bite = Time::ZERO;
            self.read(session, now, id);
        }
    }

    /// Returns the time when the next pause of a reader ends.
    pub fn next_time(&self) -> Option<Time> {
        let waiting = |s: &&AppStream| s.plan.pause_us > 0 && !s.fin && s.next_bite > Time::ZERO;
        self.streams.values().filter(waiting).map(|s| s.next_bite).min()
    }

    /// Returns true if every stream has ended.
    pub fn is_done(&self) -> bool {
        self.streams.values().all(|stream| stream.gone)
    }

    /// Returns a random plan of at most `bytes_max` bytes in each direction. With `break_some`, some plans reset or
    /// refuse.
    pub fn random_plan(rng: &mut Rng, bytes_max: u64, break_some: bool) -> Plan {
        let size = |rng: &mut Rng| if rng.one_in(4) { 0 } else { rng.scaled(1, bytes_max) };
        let sizes = [size(rng), size(rng)];
        let abort = |rng: &mut Rng, size: u64| (break_some && rng.one_in(6)).then(|| rng.range(0, size));
        let slow = rng.one_in(3);
        Plan {
            sizes,
            chunk: rng.scaled(1, 20_000).max(bytes_max / 200),
            bite: if slow { rng.scaled(100, 20_000).max(bytes_max / 50) } else { u64::MAX },
            pause_us: if slow { rng.scaled(100, 100_000) } else { 0 },
            stall_at: None,
            abort: [abort(rng, sizes[0]), abort(rng, sizes[1])],
            refuse: break_some && rng.one_in(10),
            echo: false,
            weight: rng.range(1, 3) as u8,
        }
    }
}
