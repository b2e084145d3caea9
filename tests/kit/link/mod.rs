//! The simulator: two sessions on a virtual clock, joined by carriers that can fail in every way a network can.
//!
//! A run depends on its seed only. The clock jumps from one event to the next. At each event the simulator drives both
//! ends until neither has anything to do, and then checks the invariants.
#![allow(dead_code, reason = "each test binary uses its part of the kit")]

pub mod app;
pub mod bbr;
pub mod carrier;
pub mod gates;
pub mod hostile;
pub mod line;
pub mod mptcp;
pub mod pattern;
pub mod peer;
pub mod pipe;
pub mod rng;
pub mod scenes;
pub mod swarm;
pub mod tcp;
pub mod watch;

use bytes::Bytes;
use seaprox::link::{
    BootId, Config, HelloAck, HelloReader, Intent, MESSAGE_LANE, Outbox, PathStats, Proofs, Session, SessionId,
    SessionRole, Status, SubflowId, Time, frame::Frame, proof_text,
};

use app::App;
use pipe::{Manner, Pipe, Shape};
use rng::Rng;

pub const CLIENT: usize = 0;
pub const SERVER: usize = 1;

/// One end of the link.
pub struct End {
    pub session: Option<Session>,
    pub app: App,
    pub boot: u64,
}

/// One connection of a carrier.
#[derive(Debug)]
pub struct Conn {
    pub path: usize,
    pub id: SubflowId,
    /// The pipe from the client and the pipe from the server.
    pub pipes: [Pipe; 2],
    /// For each end, true while the end has the connection open.
    pub up: [bool; 2],
    /// Reads the HELLO at the server; `None` afterwards.
    greeter: Option<HelloReader>,
    /// A number that represents the secure channel of this connection.
    channel: u64,
}

impl Conn {
    /// Returns true if the session at this end has the connection as a subflow.
    fn is_known(&self, end: usize) -> bool {
        self.up[end] && (end == CLIENT || self.greeter.is_none())
    }
}

/// A path between the two ends. The client dials connections over it.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    pub shapes: [Shape; 2],
    pub manner: Manner,
    /// True if the client dials the path whenever it has no connection.
    pub enabled: bool,
    pub redial_at: Time,
    pub redial_us: u64,
}

pub struct World {
    pub now: Time,
    pub ends: [End; 2],
    pub paths: Vec<Path>,
    /// The lines of each path in both directions, if it has connections of modelled TCP.
    pub lines: Vec<Option<[line::Line; 2]>>,
    pub conns: Vec<Conn>,
    pub config: [Config; 2],
    pub rng: Rng,
    /// Numbers for the lanes of connections.
    lanes_rng: Rng,
    /// Split arriving bytes at random places.
    pub splits: bool,
    /// Tell the sessions the round-trip time and rate of the paths, as a kernel would measure them.
    pub stats: bool,
    /// The told rate begins with ten packets for each round trip and grows with the sent bytes.
    pub slow_start: bool,
    /// The modelled connections of TCP use BBR.
    pub bbr: bool,
    /// The key of the session's proofs: the channel that started the session.
    key: u64,
    channels: u64,
    out: Outbox,
    wire: Vec<u8>,
    /// Frames sent by both ends.
    pub frames: u64,
    /// The run stops after this many frames of both ends.
    pub frames_max: u64,
    pub sessions: u64,
    /// Watches the frames that leave each end.
    pub watch: [watch::Watch; 2],
    unchecked: bool,
}

impl World {
    pub fn new(seed: u64, config: Config) -> World {
        let end = |boot| End { session: None, app: App::default(), boot };
        World {
            now: Time::from_us(1000),
            ends: [end(1), end(2)],
            paths: Vec::new(),
            lines: Vec::new(),
            conns: Vec::new(),
            config: [config; 2],
            rng: Rng::new(seed),
            lanes_rng: Rng::new(seed ^ 0x1A7E5),
            splits: false,
            stats: false,
            slow_start: false,
            bbr: false,
            key: 0,
            channels: 0,
            out: Outbox::new(),
            wire: Vec::new(),
            frames: 0,
            frames_max: u64::MAX,
            sessions: 0,
            watch: Default::default(),
            unchecked: false,
        }
    }

    /// Returns a started world. Each path is its rate in megabits per second and its one-way delay in milliseconds.
    pub fn with_paths(seed: u64, config: Config, paths: &[(u64, u64)]) -> World {
        let mut world = World::new(seed, config);
        paths.iter().for_each(|&(mbit, ms)| world.add_path(Shape::new(mbit, ms)));
        world.start();
        world
    }

    pub fn add_path(&mut self, shape: Shape) {
        let manner = Manner::default();
        self.paths.push(Path { shapes: [shape; 2], manner, enabled: true, redial_at: Time::ZERO, redial_us: 50_000 });
    }

    /// Adds a path of modelled TCP connections over a line, the same in both directions.
    pub fn add_line(&mut self, line: &line::Line) {
        self.add_path(Shape::new(1, 1));
        self.lines.resize(self.paths.len() - 1, None);
        self.lines.push(Some([line.clone(), line.clone()]));
    }

    /// Starts the client, which then dials by itself.
    pub fn start(&mut self) {
        self.sessions += 1;
        let id = SessionId((u128::from(self.rng.next()) << 64 | u128::from(self.sessions)).to_be_bytes());
        let boot = BootId(self.ends[CLIENT].boot.to_be_bytes());
        self.ends[CLIENT].session = Some(Session::new(SessionRole::Client, self.config[CLIENT], id, boot, self.now));
    }

    /// Returns the session at an end.
    ///
    /// # Panics
    /// The end has none.
    pub fn session(&mut self, end: usize) -> &mut Session {
        self.ends[end].session.as_mut().expect("no session at this end")
    }

    pub fn is_open(&self) -> bool {
        self.ends.iter().all(|end| end.session.as_ref().is_some_and(Session::is_open))
    }

    /// Switches off the sessions' own checks after each call, which take too long with many streams.
    pub fn sessions_unchecked(&mut self) {
        self.unchecked = true;
        self.ends.iter_mut().flat_map(|end| &mut end.session).for_each(Session::check_only_when_asked);
    }

    /// Opens a stream at an end. If the session accepts no more for now, runs until the other end has raised the limit.
    pub fn open(&mut self, end: usize, plan: app::Plan) -> seaprox::link::StreamId {
        for _ in 0..1000 {
            let now = self.now;
            let End { session, app, .. } = &mut self.ends[end];
            if let Some(id) = app.open(session.as_mut().unwrap(), now, plan) {
                return id;
            }
            self.run_for(1000);
        }
        panic!("the stream was refused");
    }

    fn proofs(&self, end: usize, id: SubflowId, channel: u64) -> Proofs {
        let session = self.ends[CLIENT].session.as_ref().map_or(SessionId([0; 16]), Session::id);
        self.proofs_for(end, session, id, channel)
    }

    fn proofs_for(&self, end: usize, session: SessionId, id: SubflowId, channel: u64) -> Proofs {
        let mut exporter = [0; 32];
        exporter[..8].copy_from_slice(&channel.to_be_bytes());
        let proof = |role| toy_mac(self.key, &proof_text(role, session, id, &exporter));
        let (ours, theirs) = if end == CLIENT {
            (SessionRole::Client, SessionRole::Server)
        } else {
            (SessionRole::Server, SessionRole::Client)
        };
        Proofs { ours: proof(ours), theirs: proof(theirs) }
    }

    /// Dials a connection on a path, if the session takes one. Returns true if it did.
    pub fn dial(&mut self, path: usize) -> bool {
        self.channels += 1;
        let channel = self.channels;
        let now = self.now;
        let before = self.key;
        if !self.ends[CLIENT].app.up {
            self.key = channel; // as long as no subflow has been up, each starts the session anew
        }
        let Some(session) = self.ends[CLIENT].session.as_mut() else { return false };
        let id = session.next_subflow();
        let proofs = self.proofs(CLIENT, id, channel);
        let manner = self.paths[path].manner;
        if !self.session(CLIENT).connect(now, id, 1 + manner.more_lanes, proofs) {
            self.key = before;
            return false;
        }
        let mut pipes = self.paths[path].shapes.map(Pipe::new);
        pipes.iter_mut().for_each(|pipe| pipe.set_manner(now, manner, self.lanes_rng.next()));
        if let Some(Some([up, down])) = self.lines.get(path) {
            pipes[CLIENT].carrier = Some(Box::new(carrier::Carrier::new(now, up, down)));
            pipes[SERVER].carrier = Some(Box::new(carrier::Carrier::new(now, down, up)));
            let carriers = pipes.iter_mut().filter_map(|pipe| pipe.carrier.as_mut()).filter(|_| self.bbr);
            carriers.for_each(|carrier| carrier.tcp.use_bbr());
        }
        self.conns.push(Conn { path, id, pipes, up: [true; 2], greeter: Some(HelloReader::default()), channel });
        true
    }

    /// Tells an end that a connection is closed.
    pub fn hang_up(&mut self, end: usize, conn: usize) {
        let now = self.now;
        let (id, was_up, greeted) = {
            let conn = &mut self.conns[conn];
            let was_up = std::mem::take(&mut conn.up[end]);
            (conn.id, was_up, end == CLIENT || conn.greeter.is_none())
        };
        let shadowed = self.conns.iter().enumerate().any(|(n, c)| n != conn && c.id == id && c.up[end]);
        if was_up && greeted && !shadowed && self.ends[end].session.is_some() {
            self.session(end).subflow_down(now, id);
        }
    }

    /// Cuts a connection. With `tail`, the bytes that are under way still arrive.
    pub fn cut(&mut self, conn: usize, tail: bool) {
        if tail {
            for (from, to) in [(CLIENT, SERVER), (SERVER, CLIENT)] {
                self.conns[conn].pipes[from].thaw(self.now);
                while let Some((lane, bytes)) = self.conns[conn].pipes[from].read(Time::from_us(u64::MAX)) {
                    self.deliver(to, conn, lane, bytes);
                }
            }
        }
        self.conns[conn].pipes.iter_mut().for_each(Pipe::drop_all);
        self.hang_up(CLIENT, conn);
        self.hang_up(SERVER, conn);
    }

    /// Cuts all connections, as [`World::cut`] does.
    pub fn cut_all(&mut self, tail: bool) {
        (0..self.conns.len()).for_each(|conn| self.cut(conn, tail));
        self.conns.clear();
    }

    /// Restarts the process of a node, which loses its session.
    pub fn restart(&mut self, end: usize) {
        let old = self.ends[end].boot;
        self.ends[end].boot = old + 2;
        self.ends[end].session = None;
        self.ends[end].app = App { may_end: true, ..App::default() };
        for conn in &mut self.conns {
            conn.up[end] = false;
        }
        if end == CLIENT {
            self.start();
        }
    }

    /// Delivers, dials and drives both ends until nothing is left to do at this time.
    fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 100_000, "the ends never come to rest");
            let mut busy = self.deliver_due();
            self.redial();
            for end in [CLIENT, SERVER] {
                busy |= self.drive(end);
            }
            self.reap();
            if !busy || self.frames >= self.frames_max {
                return;
            }
        }
    }

    fn deliver_due(&mut self) -> bool {
        let mut any = false;
        for conn in 0..self.conns.len() {
            for (from, to) in [(CLIENT, SERVER), (SERVER, CLIENT)] {
                while let Some((lane, bytes)) = self.conns.get_mut(conn).and_then(|c| c.pipes[from].read(self.now)) {
                    any = true;
                    self.deliver(to, conn, lane, bytes);
                }
            }
        }
        any
    }

    /// Delivers bytes of a lane to an end, in one piece or in several.
    fn deliver(&mut self, to: usize, conn: usize, lane: u16, mut bytes: Bytes) {
        let splits = self.splits && lane != MESSAGE_LANE && !self.conns[conn].pipes[1 - to].manner.has_records;
        while splits && bytes.len() > 1 && !self.rng.one_in(3) {
            let at = self.rng.scaled(1, bytes.len() as u64 - 1) as usize;
            let head = bytes.split_to(at);
            self.deliver_piece(to, conn, lane, head);
        }
        self.deliver_piece(to, conn, lane, bytes);
    }

    fn deliver_piece(&mut self, to: usize, conn: usize, lane: u16, bytes: Bytes) {
        if !self.conns[conn].up[to] {
            return;
        }
        let bytes = if to == SERVER && self.conns[conn].greeter.is_some() {
            match self.greet(conn, &bytes) {
                Some(used) => bytes.slice(used..),
                None => return,
            }
        } else {
            bytes
        };
        let (now, id) = (self.now, self.conns[conn].id);
        if bytes.is_empty() {
            return;
        }
        let result = self.ends[to].session.as_mut().map_or(Ok(()), |session| session.receive(now, id, lane, bytes));
        if let Err(violation) = result {
            panic!("a session of ours broke the protocol: {violation:?} at end {to} on {id:?}");
        }
    }

    /// Reads the HELLO at the server. Returns how many of `bytes` belong to it, once it is complete.
    fn greet(&mut self, conn: usize, bytes: &Bytes) -> Option<usize> {
        let (hello, used) = self.conns[conn].greeter.as_mut()?.feed(bytes).expect("no HELLO")?;
        self.conns[conn].greeter = None;
        let now = self.now;
        let channel = self.conns[conn].channel;
        let boot = BootId(self.ends[SERVER].boot.to_be_bytes());
        let stale = self.ends[SERVER].session.as_ref().is_some_and(|old| match old.id() == hello.session {
            true => !old.is_superseded_by(&hello),
            false => u64::from_be_bytes(hello.boot.0) < self.ends[CLIENT].boot,
        });
        if hello.intent == Intent::New && !stale {
            if let Some(mut old) = self.ends[SERVER].session.take() {
                // The client did not learn of the session, or has restarted. The server's streams in it are lost.
                assert!(!self.ends[CLIENT].app.up, "a client that knows the session starts it anew");
                let may_end = std::mem::replace(&mut self.ends[SERVER].app.may_end, true);
                old.abandon(seaprox::link::Code::LinkLost);
                self.ends[SERVER].app.handle(&mut old, now);
                self.ends[SERVER].app = App { may_end, ..App::default() };
                for other in (0..self.conns.len()).filter(|other| *other != conn) {
                    self.conns[other].up[SERVER] = false;
                }
            }
            let mut session = Session::new(SessionRole::Server, self.config[SERVER], hello.session, boot, now);
            if self.unchecked {
                session.check_only_when_asked();
            }
            self.ends[SERVER].session = Some(session);
        }
        let proofs = self.proofs_for(SERVER, hello.session, hello.subflow, channel);
        let status = match self.ends[SERVER].session.as_mut() {
            Some(session) => session.accept_subflow(now, &hello, proofs),
            None => Status::UnknownSession,
        };
        if status != Status::Ok {
            let mut refusal = Vec::new();
            Frame::HelloAck(HelloAck::refusal(status, &hello, boot)).encode(&mut refusal);
            self.conns[conn].pipes[SERVER].write(now, 0, Bytes::from(refusal));
            self.conns[conn].up[SERVER] = false;
        }
        Some(used)
    }

    /// Dials all due paths that have no connection.
    fn redial(&mut self) {
        for path in 0..self.paths.len() {
            let taken = self.conns.iter().any(|conn| conn.path == path && conn.up[CLIENT]);
            if self.paths[path].enabled && !taken && self.paths[path].redial_at <= self.now {
                self.dial(path);
                self.paths[path].redial_at = self.now.after(self.paths[path].redial_us);
            }
        }
    }

    /// Drives one end until it has nothing to send. Returns true if anything was done.
    fn drive(&mut self, end: usize) -> bool {
        let now = self.now;
        let Some(mut session) = self.ends[end].session.take() else { return false };
        let mut busy = false;
        if session.poll_timeout().is_some_and(|at| at <= now) {
            session.handle_timeout(now);
            busy = true;
        }
        self.ends[end].app.tick(&mut session, now);
        loop {
            let mut again = self.ends[end].app.handle(&mut session, now);
            again |= self.transmit(end, &mut session);
            if !again {
                break;
            }
            busy = true;
        }
        self.close_dropped(end, &session);
        self.ends[end].session = Some(session);
        busy
    }

    fn transmit(&mut self, end: usize, session: &mut Session) -> bool {
        let now = self.now;
        let is_alone = self.conns.iter().filter(|conn| conn.is_known(end)).count() == 1;
        for conn in self.conns.iter_mut().filter(|conn| conn.is_known(end)) {
            if let Some(carrier) = &mut conn.pipes[end].carrier {
                let rate = session.path(conn.id).map_or(0, |(_, rate, ..)| rate);
                session.set_room(conn.id, carrier.room(now, rate, is_alone));
                continue;
            }
            if self.stats {
                let shape = conn.pipes[end].shape;
                let srtt_us: u64 = conn.pipes.iter().map(|pipe| pipe.shape.delay_us).sum();
                let cwnd = if self.slow_start { 14_480 + conn.pipes[end].written } else { u64::MAX / 1_000_000 };
                let rate = shape.rate.min(cwnd * 1_000_000 / srtt_us.max(1));
                session.path_stats(now, conn.id, PathStats { srtt_us, rate, ..PathStats::default() });
            }
            session.set_room(conn.id, conn.pipes[end].room(now));
            session.set_message_bytes_max(conn.id, conn.pipes[end].manner.message_bytes_max);
        }
        let mut any = false;
        while self.frames < self.frames_max {
            self.out.clear();
            let Some(transmit) = session.poll_transmit(now, &mut self.out) else { break };
            assert_eq!(transmit.bytes, self.out.len());
            any = true;
            self.frames += 1;
            self.wire.clear();
            self.out.copy_to(&mut self.wire);
            let conn = self.conns.iter_mut().find(|conn| conn.id == transmit.subflow && conn.is_known(end));
            if let Some(conn) = conn {
                let arrival = conn.pipes[end].write(now, transmit.lane, Bytes::copy_from_slice(&self.wire));
                self.watch[end].on_frame(transmit.subflow, arrival, &self.wire);
                if conn.pipes[end].carrier.is_none() {
                    session.set_room(conn.id, conn.pipes[end].room(now));
                }
            }
        }
        for conn in self.conns.iter_mut().filter(|conn| conn.is_known(end)) {
            let carrier = conn.pipes[end].carrier.iter_mut();
            carrier.for_each(|carrier| carrier.end_round(now, session, conn.id));
        }
        any
    }

    /// Closes the connections that the session has dropped.
    fn close_dropped(&mut self, end: usize, session: &Session) {
        for conn in self.conns.iter_mut().filter(|conn| conn.is_known(end)) {
            if !session.subflow_ids().any(|id| id == conn.id) {
                conn.up[end] = false;
            }
        }
    }

    /// Closes connections at the other end when one end has closed them and all bytes before that have arrived.
    fn reap(&mut self) {
        for conn in 0..self.conns.len() {
            for (from, to) in [(CLIENT, SERVER), (SERVER, CLIENT)] {
                let c = &self.conns[conn];
                if !c.up[from] && c.up[to] && c.pipes[from].is_empty() && !c.pipes[from].is_frozen() {
                    self.hang_up(to, conn);
                }
            }
        }
        self.conns.retain(|conn| conn.up.iter().any(|up| *up));
    }

    /// Returns true if the client has never had a subflow up, and so has no session to lose, or if the session is open.
    pub fn sessions_never_met(&self) -> bool {
        !self.ends[CLIENT].app.up || self.is_open()
    }

    fn next_time(&self) -> Option<Time> {
        let pipes = self.conns.iter().flat_map(|conn| &conn.pipes).filter_map(|pipe| pipe.next_time(self.now));
        let ends = self.ends.iter().flat_map(|end| {
            let session = end.session.as_ref().and_then(Session::poll_timeout);
            session.into_iter().chain(end.app.next_time())
        });
        let wants = self.ends[CLIENT].session.as_ref().is_some_and(|session| !session.is_ended());
        let redial = self.paths.iter().enumerate().filter(|(n, path)| {
            wants && path.enabled && !self.conns.iter().any(|conn| conn.path == *n && conn.up[CLIENT])
        });
        pipes.chain(ends).chain(redial.map(|(_, path)| path.redial_at)).min()
    }

    /// Checks both ends against each other: no end has received more than was sent, and no end believes that more has
    /// arrived than has.
    fn check_together(&self) {
        const STREAMS_MAX: usize = 64; // with more, the runs are about speed
        let [Some(client), Some(server)] = [CLIENT, SERVER].map(|end| self.ends[end].session.as_ref()) else { return };
        if client.id() != server.id() || client.is_ended() || server.is_ended() || client.streams_live() > STREAMS_MAX {
            return;
        }
        for id in self.ends[CLIENT].app.streams.keys() {
            for (from, to) in [(client, server), (server, client)] {
                let (Some(tx), Some(rx)) = (from.progress(*id), to.progress(*id)) else { continue };
                assert!(rx.highest <= tx.sent, "{id:?}: {rx:?} of {tx:?}");
                if let (Some(acked), Some(received)) = (tx.acked, rx.received) {
                    assert!(acked <= received, "{id:?}: {tx:?} believed to be at {rx:?}");
                }
            }
        }
    }

    /// Runs until `done` returns true or the time is `until`. Returns true in the first case.
    pub fn run(&mut self, until: Time, mut done: impl FnMut(&mut World) -> bool) -> bool {
        loop {
            self.settle();
            self.check_together();
            if done(self) {
                return true;
            }
            let next = self.next_time().map_or(until, |at| at.max(self.now.after(1)));
            if next >= until || self.frames >= self.frames_max {
                self.now = self.now.max(until.min(next));
                return false;
            }
            self.now = next;
        }
    }

    /// Runs for `us` microseconds.
    pub fn run_for(&mut self, us: u64) {
        let until = self.now.after(us);
        self.run(until, |_| false);
        self.now = until;
    }

    /// Runs until the session is open at both ends with `subflows` subflows. Panics after 10 s.
    pub fn run_until_up(&mut self, subflows: usize) {
        let until = self.now.after(10_000_000);
        let up = self.run(until, |world| world.is_open() && world.session(SERVER).subflow_ids().count() == subflows);
        assert!(up, "the session did not come up");
    }

    /// Returns true if all streams have ended at both ends and the sessions hold no record of them.
    pub fn is_done(&self) -> bool {
        self.ends.iter().all(|end| end.app.is_done() && end.session.as_ref().is_some_and(|s| s.streams_live() == 0))
    }

    /// Runs until all streams have ended. Panics after `us` microseconds.
    pub fn finish(&mut self, us: u64) {
        let until = self.now.after(us);
        let done = self.run(until, |world| world.is_done());
        let left: Vec<_> = self.ends.iter().flat_map(|end| &end.app.streams).filter(|(_, s)| !s.gone).take(4).collect();
        let sessions: Vec<_> = self.ends.iter().map(|end| end.session.as_ref()).collect();
        assert!(done, "not done after {us} µs: {left:?}\n{sessions:?}\n{:?}", self.conns);
    }
}

/// A cheap replacement of HMAC for the simulator, where the keys protect nothing.
fn toy_mac(key: u64, text: &[u8]) -> [u8; 32] {
    let mut rng = Rng::new(key);
    let mixed = text.iter().fold(rng.next(), |sum, byte| Rng::new(sum ^ u64::from(*byte)).next());
    let mut rng = Rng::new(mixed);
    let mut mac = [0; 32];
    mac.chunks_mut(8).for_each(|part| part.copy_from_slice(&rng.next().to_be_bytes()));
    mac
}
