//! Scenes of many and changing paths, on modelled TCP over emulated lines: what a link delivers, and how late.
//!
//! A scene depends on its seed only. Beside each figure of a link stand those of plain TCP over the best of the paths, in
//! the same model.

use std::rc::Rc;

use bytes::Bytes;
use seaprox::link::frame::Class;
use seaprox::link::{Config, Mode, StreamId, SubflowId, Time};

use super::app::Plan;
use super::line::{Line, Trace};
use super::mptcp::Mptcp;
use super::rng::Rng;
use super::tcp::Tcp;
use super::{CLIENT, End, SERVER, World};

/// A set of lines, with the name of the row.
#[derive(Clone, Debug)]
pub struct Scene {
    pub name: &'static str,
    pub lines: Vec<Line>,
    pub mode: Mode,
    /// The congestion control is BBR.
    pub bbr: bool,
    /// The number of the last lines that are backups.
    pub backups: usize,
}

/// The figures of a link in a scene. Times are in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Row {
    /// The part of what the lines can carry.
    pub share: f64,
    /// The longest time without a byte.
    pub gap: f64,
    /// The median and the 99th percentile of an echo beside bulk.
    pub echo: (f64, f64),
    /// The 99th percentile of the same echoes if each took the line that is sooner, in both directions, with nothing before it:
    /// no link can be better.
    pub least: f64,
    /// The same of the time from a write to the read, with writes at 60 % of what the lines can carry.
    pub delay: (f64, f64),
    /// The part of the payload that was sent twice.
    pub twice: f64,
    /// Plain TCP over the best of the lines: its part of what all lines can carry.
    pub best: f64,
}

impl Scene {
    /// Returns a scene of these traces, each from a time in milliseconds on.
    pub fn of(name: &'static str, traces: &[(&Rc<Trace>, u64)]) -> Scene {
        let line = |(n, (trace, shift)): (usize, &(&Rc<Trace>, u64))| Line::new(trace, shift * 1000, n as u64 + 1);
        Scene { name, lines: traces.iter().enumerate().map(line).collect(), mode: Mode::Stripe, bbr: false, backups: 0 }
    }

    fn steady(name: &'static str, lines: &[(u64, u64, u64)]) -> Scene {
        let traces: Vec<_> = lines.iter().map(|&(mbit, ms, queue)| Rc::new(Trace::steady(mbit, ms, queue))).collect();
        Scene::of(name, &traces.iter().map(|trace| (trace, 0)).collect::<Vec<_>>())
    }

    pub fn with_mode(self, mode: Mode) -> Scene {
        Scene { mode, ..self }
    }

    pub fn with_bbr(self) -> Scene {
        Scene { bbr: true, ..self }
    }

    /// Returns true if the scene depends on its seed.
    pub fn is_random(&self) -> bool {
        self.lines.iter().any(Line::is_random)
    }

    /// Returns a world with a path for each line, once all are up.
    pub fn world(&self) -> World {
        let mut world = World::new(7, Config { mode: self.mode, ..Config::default() });
        world.bbr = self.bbr;
        world.sessions_unchecked();
        self.lines.iter().for_each(|line| world.add_line(line));
        world.start();
        world.sessions_unchecked();
        world.run_until_up(self.lines.len());
        let backups: Vec<SubflowId> = world.conns.iter().rev().take(self.backups).map(|conn| conn.id).collect();
        backups.into_iter().for_each(|id| world.session(CLIENT).set_class(id, Class::Backup));
        world
    }

    fn capacity(&self, from: Time, to: Time) -> f64 {
        self.lines.iter().map(|line| line.capacity(from, to)).sum::<u64>() as f64
    }

    /// Measures a bulk stream beside echoes for `seconds`, after two.
    pub fn bulk(&self, seconds: u64) -> Row {
        self.bulk_after(2, seconds)
    }

    /// Measures a bulk stream beside echoes for `seconds`, after `warm_up` seconds.
    pub fn bulk_after(&self, warm_up: u64, seconds: u64) -> Row {
        let mut world = self.world();
        let id = world.open(CLIENT, Plan::up(1 << 50));
        let echo = world.open(CLIENT, Plan { sizes: [1 << 40, 1 << 40], echo: true, ..Plan::up(0) });
        world.run_for(warm_up * 1_000_000);
        let began = world.now;
        let before = (read(&world, SERVER, id), world.session(CLIENT).stats());
        if let Some(stream) = world.ends[SERVER].app.streams.get_mut(&id) {
            stream.gap_us = 0;
        }
        let mut echoes = Echoes::new(echo);
        while world.now < began.after(seconds * 1_000_000) {
            echoes.run_for(&mut world, 37_000);
        }
        let after = (read(&world, SERVER, id), world.session(CLIENT).stats());
        let got = (after.0 - before.0) as f64;
        let twice = after.1.resent_bytes + after.1.reinjected_bytes - before.1.resent_bytes - before.1.reinjected_bytes;
        let last = world.ends[SERVER].app.streams[&id].last_byte.map_or(0, |last| world.now.since(last));
        let sum = self.capacity(began, world.now);
        let best = self.lines.iter().map(|line| plain(line, self.bbr, began, world.now)).max().unwrap_or(0);
        Row {
            share: got / sum,
            gap: world.ends[SERVER].app.streams[&id].gap_us.max(last) as f64 / 1000.0,
            least: echoes.least(&self.lines),
            echo: echoes.percentiles(),
            twice: twice as f64 / got,
            best: best as f64 / sum,
            ..Row::default()
        }
    }

    /// Returns what MPTCP delivers as a part of what the lines can carry, and its longest time without a byte in milliseconds, in
    /// `seconds` after two.
    pub fn mptcp(&self, seconds: u64) -> (f64, f64) {
        let (from, to) = (Time::from_us(2_000_000), Time::from_us((seconds + 2) * 1_000_000));
        let mut mptcp = Mptcp::new(Time::ZERO, &self.lines, self.bbr);
        let (mut before, mut last, mut gap) = (0, (0, from), 0);
        for ms in 0..to.as_us() / 1000 {
            let now = Time::from_us(1000 * ms);
            mptcp.step(now);
            if now <= from {
                (before, last) = (mptcp.received(), (mptcp.received(), from));
            }
            gap = gap.max(now.since(last.1));
            last = if mptcp.received() > last.0 { (mptcp.received(), now) } else { last };
        }
        ((mptcp.received() - before) as f64 / self.capacity(from, to), gap as f64 / 1000.0)
    }

    /// Returns the longest time of an echo without anything beside it.
    pub fn echoes(&self, seconds: u64) -> f64 {
        let mut world = self.world();
        let mut echoes = Echoes::new(world.open(CLIENT, Plan { sizes: [1 << 40, 1 << 40], echo: true, ..Plan::up(0) }));
        while world.now < Time::from_us(seconds * 1_000_000) {
            echoes.run_for(&mut world, 37_000);
        }
        let pending = echoes.asked.map(|asked| world.now.since(asked));
        echoes.times.iter().map(|(_, us)| *us).chain(pending).max().unwrap_or(0) as f64 / 1000.0
    }

    /// Measures a stream whose writer offers 60 % of what the lines can carry.
    pub fn paced(&self, seconds: u64) -> Row {
        let mut world = self.world();
        let id = world.open(CLIENT, Plan { sizes: [1 << 40, 1 << 40], echo: true, ..Plan::up(0) });
        let began = world.now;
        let (mut marks, mut delays) = (std::collections::VecDeque::<(u64, Time)>::new(), Vec::new());
        let until = began.after((seconds + 2) * 1_000_000);
        while world.now < until {
            let offered = (self.capacity(began, world.now) * 0.6) as u64 + 1;
            grant(&mut world, id, offered);
            marks.push_back((offered, world.now));
            let next = world.now.after(5000);
            world.run(next, |world| {
                while marks.front().is_some_and(|mark| mark.0 <= read(world, SERVER, id)) {
                    let (_, at) = marks.pop_front().unwrap();
                    if at >= began.after(2_000_000) {
                        delays.push(world.now.since(at));
                    }
                }
                false
            });
            world.now = next;
        }
        delays.extend(marks.iter().map(|mark| until.since(mark.1)));
        Row { delay: percentiles(&mut delays), ..Row::default() }
    }
}

fn read(world: &World, end: usize, id: StreamId) -> u64 {
    world.ends[end].app.streams.get(&id).map_or(0, |stream| stream.read)
}

fn grant(world: &mut World, id: StreamId, position: u64) {
    let now = world.now;
    let End { session, app, .. } = &mut world.ends[CLIENT];
    app.grant(session.as_mut().unwrap(), now, id, position);
}

fn percentiles(us: &mut [u64]) -> (f64, f64) {
    us.sort_unstable();
    let at = |part: usize| us.get(us.len() * part / 100).copied().unwrap_or(0) as f64 / 1000.0;
    (at(50), at(99))
}

/// Messages of 64 bytes that the other end sends back, one at a time.
struct Echoes {
    id: StreamId,
    sent: u64,
    asked: Option<Time>,
    /// When each was sent, and how long it took.
    times: Vec<(Time, u64)>,
}

impl Echoes {
    const BYTES: u64 = 64;

    fn new(id: StreamId) -> Echoes {
        Echoes { id, sent: 0, asked: None, times: Vec::new() }
    }

    /// Sends a message if none is under way, and runs for a time.
    fn run_for(&mut self, world: &mut World, us: u64) {
        if self.asked.is_none() {
            self.asked = Some(world.now);
            self.sent += Self::BYTES;
            grant(world, self.id, self.sent);
        }
        let until = world.now.after(us);
        world.run(until, |world| {
            if let Some(asked) = self.asked.filter(|_| read(world, CLIENT, self.id) == self.sent) {
                self.times.push((asked, world.now.since(asked)));
                self.asked = None;
            }
            false
        });
        world.now = until;
    }

    fn percentiles(&self) -> (f64, f64) {
        percentiles(&mut self.times.iter().map(|(_, us)| *us).collect::<Vec<_>>())
    }

    /// Returns the 99th percentile of the shortest time that each could take.
    fn least(&self, lines: &[Line]) -> f64 {
        let soonest = |at: Time| lines.iter().filter_map(|line| line.clone().put_small(at)).min();
        let back = |at: &Time| soonest(*at).and_then(soonest).map_or(u64::MAX, |back| back.since(*at));
        percentiles(&mut self.times.iter().map(|(at, _)| back(at)).collect::<Vec<_>>()).1
    }
}

/// A fault of a path under load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Every packet is lost.
    Hole,
    /// The connection is reset at both ends, and may be dialed again.
    Reset,
    /// The connection is reset, and no other one is accepted.
    Refusal,
    /// The rate falls to 100 kbit/s.
    Collapse,
}

impl Cut {
    pub const ALL: [Cut; 4] = [Cut::Hole, Cut::Reset, Cut::Refusal, Cut::Collapse];
}

/// Returns the longest time without a byte after each of `count` cuts, sorted, in milliseconds. Two equal paths are cut by
/// turns, each for a second and a half, and one cut is over before the next one.
pub fn cuts(cut: Cut, (mbit, delay_ms, queue_ms): (u64, u64, u64), count: u64) -> Vec<f64> {
    let mut rng = Rng::new(11);
    let times: Vec<u64> = (0..count).map(|n| 4000 + 4000 * n + rng.range(0, 500)).collect();
    let mut traces = [0, 1].map(|_| Trace::steady(mbit, delay_ms, queue_ms));
    for (n, at) in times.iter().enumerate() {
        match cut {
            Cut::Hole => traces[n % 2].hole(*at, at + 1500),
            Cut::Collapse => traces[n % 2].collapse(*at, at + 1500, 12_500),
            Cut::Reset | Cut::Refusal => {}
        }
    }
    let traces = traces.map(Rc::new);
    let mut world = Scene::of("cuts", &[(&traces[0], 0), (&traces[1], 0)]).world();
    let id = world.open(CLIENT, Plan::up(1 << 50));
    let mut gaps = Vec::new();
    for (n, at) in times.iter().enumerate() {
        run_until(&mut world, at * 1000);
        world.ends[SERVER].app.streams.get_mut(&id).unwrap().gap_us = 0;
        let conn = world.conns.iter().position(|conn| conn.path == n % 2);
        if let (Cut::Reset | Cut::Refusal, Some(conn)) = (cut, conn) {
            world.paths[n % 2].enabled = cut == Cut::Reset;
            world.cut(conn, false);
        }
        run_until(&mut world, (at + 1500) * 1000);
        world.paths[n % 2].enabled = true;
        run_until(&mut world, (at + 3400) * 1000);
        let stream = &world.ends[SERVER].app.streams[&id];
        let last = stream.last_byte.map_or(0, |last| world.now.since(last));
        gaps.push(stream.gap_us.max(last) as f64 / 1000.0);
    }
    gaps.sort_by(f64::total_cmp);
    gaps
}

fn run_until(world: &mut World, us: u64) {
    let left = Time::from_us(us).since(world.now);
    world.run_for(left);
}

/// Returns the bytes that plain TCP delivers over a line between two times, if it began two seconds before.
fn plain(line: &Line, bbr: bool, from: Time, to: Time) -> u64 {
    let mut tcp = Tcp::new(Time::from_us(from.as_us() - 2_000_000), line, line);
    tcp.lowat = 1 << 20;
    if bbr {
        tcp.use_bbr();
    }
    let (mut now, mut before) = (Time::from_us(from.as_us() - 2_000_000), 0);
    while now < to {
        if tcp.is_flushed() {
            tcp.write(Bytes::from_static(&[0; 65_536]));
        }
        tcp.flush(now);
        while tcp.read(now).is_some() {}
        before = if now <= from { tcp.received() } else { before };
        now = now.after(1000);
    }
    tcp.received() - before
}

/// Returns the scenes of steady and of changing lines.
pub fn all() -> Vec<Scene> {
    of_seed(0)
}

/// Returns the scenes of a seed: those of traces and of losses differ.
pub fn of_seed(seed: u64) -> Vec<Scene> {
    let first = 10 * seed;
    let (lte, other) = (Rc::new(Trace::lte(first + 1)), Rc::new(Trace::lte(first + 2)));
    let (wifi, satellite) = (Rc::new(Trace::wifi(first + 3)), Rc::new(Trace::satellite(first + 4)));
    let lossy = |ppm| Rc::new(Trace::steady(20, 10, 100).with_loss(ppm));
    let clean = lossy(0);
    let mut scenes = vec![
        Scene::steady("6 x 20", &[(20, 10, 100); 6]),
        Scene::steady(
            "six unlike",
            &[(50, 10, 100), (30, 20, 100), (20, 30, 100), (10, 50, 100), (5, 70, 100), (2, 100, 100)],
        ),
        Scene::of("LTE + LTE", &[(&lte, 0), (&other, 30_000)]),
        Scene::of("LTE + Wi-Fi", &[(&lte, 0), (&wifi, 0)]),
        Scene::of("satellite + LTE", &[(&satellite, 0), (&lte, 0)]),
        Scene::steady("bufferbloat", &[(10, 10, 2000), (20, 10, 100)]),
        Scene::of("2 % loss", &[(&lossy(20_000), 0), (&clean, 0)]),
        Scene::of("5 % loss", &[(&lossy(50_000), 0), (&clean, 0)]),
    ];
    let lines = scenes.iter_mut().flat_map(|scene| scene.lines.iter_mut().zip(1..));
    lines.for_each(|(line, n)| line.reseed(16 * seed + n));
    scenes
}

/// Returns the scenes of the traces that are written down.
pub fn written() -> [Scene; 3] {
    let (lte, wifi, satellite) = (Trace::written_lte(), Trace::written_wifi(), Trace::written_satellite());
    let (lte, wifi, satellite) = (Rc::new(lte), Rc::new(wifi), Rc::new(satellite));
    [
        Scene::of("written LTE + LTE", &[(&lte, 0), (&lte, 30_000)]),
        Scene::of("written LTE + Wi-Fi", &[(&lte, 0), (&wifi, 0)]),
        Scene::of("written satellite + LTE", &[(&satellite, 0), (&lte, 0)]),
    ]
}
