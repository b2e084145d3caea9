//! Runs in which the seed chooses limits, paths, work and faults. Each run leaves out some kinds of fault, because a
//! run with all of them never gets far.

use seaprox::link::{Config, LANES_MAX, Mode, Time, frame::Class};

use super::app::App;
use super::pipe::{Manner, Pipe, Shape};
use super::rng::Rng;
use super::{CLIENT, SERVER, World};

/// The rate of each kind of fault: once in this many steps of a millisecond, or never if 0.
#[derive(Clone, Copy, Debug)]
struct Faults {
    cut: u64,
    cut_tail: u64,
    cut_middle: u64,
    half_open: u64,
    freeze: u64,
    stall: u64,
    degrade: u64,
    cut_all: u64,
    class: u64,
}

impl Faults {
    fn random(rng: &mut Rng) -> Faults {
        let mut rate = || if rng.one_in(2) { 0 } else { rng.scaled(30, 3000) };
        Faults {
            cut: rate(),
            cut_tail: rate(),
            cut_middle: rate(),
            half_open: rate(),
            freeze: rate(),
            stall: rate(),
            degrade: rate(),
            cut_all: rate(),
            class: rate(),
        }
    }
}

/// Returns a configuration with small limits, so that a short run reaches all of them.
fn config(rng: &mut Rng) -> Config {
    let frame = rng.scaled(16, 4000);
    let stream = rng.scaled(1024, 20_000);
    let session = rng.scaled(stream, 60_000);
    Config {
        mode: [Mode::Stripe, Mode::Stripe, Mode::Single, Mode::Redundant][rng.range(0, 3) as usize],
        frame_bytes_max: frame,
        stream_window_bytes: (stream, rng.scaled(stream, 100_000)),
        session_window_bytes: (session, rng.scaled(session, 200_000)),
        send_bytes_max: rng.scaled(4000, 100_000),
        unsent_bytes_max: rng.scaled(500, 20_000),
        streams_max: rng.scaled(4, 40) as u32,
        lane_frames_max: rng.scaled(16, 200) as usize,
        ack_delay_us: rng.scaled(1000, 20_000),
        keepalive_us: rng.scaled(100_000, 2_000_000),
        dead_us: rng.scaled(300_000, 5_000_000),
        handshake_us: 1_000_000,
        ..Config::default()
    }
}

/// Draws a carrier: one stream, records, or lanes and messages.
fn manner(rng: &mut Rng) -> Manner {
    let has_lanes = match rng.range(0, 3) {
        0 => return Manner::default(),
        1 => return Manner { has_records: true, ..Manner::default() },
        n => n == 2 || rng.one_in(4),
    };
    Manner {
        more_lanes: rng.range(1, u64::from(LANES_MAX) - 1) as u16,
        has_records: false,
        message_bytes_max: if has_lanes { rng.scaled(20, 20_000) as usize } else { 0 },
        loss: if rng.one_in(3) { 0 } else { rng.scaled(8, 300) },
        opens_us: if rng.one_in(2) { 0 } else { rng.scaled(1000, 300_000) },
    }
}

fn world(seed: u64, carriers: Carriers) -> World {
    let mut rng = Rng::new(seed);
    let mut world = World::new(rng.next(), config(&mut rng));
    world.config[SERVER] = config(&mut rng);
    world.config[SERVER].mode = world.config[CLIENT].mode;
    // Some ends are of a version without optional features.
    let mut versions = Rng::new(seed ^ 0x0_1D);
    world.config.iter_mut().filter(|_| versions.one_in(5)).for_each(|config| config.capabilities = 0);
    world.splits = rng.one_in(2);
    world.stats = rng.one_in(3);
    for _ in 0..rng.range(1, 4) {
        let shape = Shape {
            rate: rng.scaled(50_000, 20_000_000),
            delay_us: rng.scaled(10, 60_000),
            lowat: rng.scaled(200, 30_000),
        };
        world.add_path(shape);
        let path = world.paths.last_mut().unwrap();
        path.redial_us = rng.scaled(1000, 200_000);
        path.shapes[1].rate = rng.scaled(50_000, 20_000_000);
    }
    let mut lanes = Rng::new(seed ^ 0x1A4E);
    if carriers == Carriers::Any && lanes.one_in(2) {
        world.paths.iter_mut().for_each(|path| path.manner = manner(&mut lanes));
    }
    world.start();
    world
}

/// The carriers of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carriers {
    /// Ordered streams of bytes.
    Streams,
    /// In half of the runs each path has a carrier of any kind.
    Any,
}

/// Runs one seed. Panics if a byte is wrong, a stream does not end, or an invariant is broken.
pub fn run(seed: u64) {
    run_over(seed, Carriers::Any);
}

/// Runs one seed over these carriers, as [`run`] does.
pub fn run_over(seed: u64, carriers: Carriers) {
    let mut rng = Rng::new(seed ^ 0x5EED);
    let mut world = world(seed, carriers);
    let faults = Faults::random(&mut rng);
    let break_streams = rng.one_in(3);
    let restart_at = rng.one_in(12).then(|| rng.range(20, 300));
    let mut work = rng.scaled(1, 12);
    let bytes_max = rng.scaled(100, 60_000);
    let steps = rng.scaled(50, 600);
    // Numbers of its own, so that the other draws of a seed stay as they were.
    let mut flows = Rng::new(seed ^ 0xF10);
    let flow_rate = if !flows.one_in(3) { 0 } else { flows.scaled(5, 100) };
    let datagram_bytes = flows.scaled(1, 50_000);
    let mut lanes = Rng::new(seed ^ 0x57A11);
    let hold_rate = if lanes.one_in(2) { 0 } else { lanes.scaled(10, 500) };
    for step in 0..steps {
        world.run_for(1000);
        while work > 0 && world.is_open() && rng.one_in(3) {
            let end = rng.range(0, 1) as usize;
            let plan = App::random_plan(&mut rng, bytes_max, break_streams);
            let now = world.now;
            let super::End { session, app, .. } = &mut world.ends[end];
            if app.open(session.as_mut().unwrap(), now, plan).is_some() {
                work -= 1;
            }
        }
        if work > 0 && rng.one_in(50) && world.is_open() {
            let _ = world.session(CLIENT).message("words");
        }
        if flow_rate > 0 && world.is_open() {
            drive_flows(&mut world, &mut flows, flow_rate, datagram_bytes);
        }
        if restart_at == Some(step) {
            restart(&mut world, &mut rng);
            return;
        }
        inject(&mut world, &mut rng, faults);
        if hold_rate > 0 && lanes.one_in(hold_rate) {
            hold_a_lane(&mut world, &mut lanes);
        }
    }
    heal(&mut world);
    for super::End { session, app, .. } in &mut world.ends {
        session.iter_mut().for_each(|session| app.finish_flows(session));
    }
    world.finish(300_000_000);
}

/// Takes the datagrams that have arrived, opens flows now and then, and sends datagrams of at most `bytes_max` bytes on them.
fn drive_flows(world: &mut World, rng: &mut Rng, rate: u64, bytes_max: u64) {
    for super::End { session, app, .. } in &mut world.ends {
        session.iter_mut().for_each(|session| app.take_datagrams(session));
    }
    let (now, end) = (world.now, rng.range(0, 1) as usize);
    let super::End { session, app, .. } = &mut world.ends[end];
    let Some(session) = session.as_mut() else { return };
    if app.flows().len() < 3 && rng.one_in(rate) {
        app.open_flow(session, now);
    }
    for id in app.flows() {
        if rng.one_in(3) {
            app.send_datagram(session, now, id, rng.scaled(1, bytes_max) as usize);
        }
    }
}

fn inject(world: &mut World, rng: &mut Rng, faults: Faults) {
    let mut hits = |rate: u64| rate > 0 && rng.one_in(rate);
    let cut_all = hits(faults.cut_all);
    let [cut, tail, middle, half, freeze, stall, degrade, class] = [
        faults.cut,
        faults.cut_tail,
        faults.cut_middle,
        faults.half_open,
        faults.freeze,
        faults.stall,
        faults.degrade,
        faults.class,
    ]
    .map(&mut hits);
    if cut_all {
        world.cut_all(rng.one_in(2));
    }
    if world.conns.is_empty() {
        return;
    }
    let conn = rng.range(0, world.conns.len() as u64 - 1) as usize;
    let side = rng.range(0, 1) as usize;
    if freeze {
        world.conns[conn].pipes[side].freeze();
    } else if stall {
        world.conns[conn].pipes[side].stall(rng.scaled(1000, 500_000));
    } else if degrade {
        let pipe = &mut world.conns[conn].pipes[side];
        pipe.shape.rate = (pipe.shape.rate / rng.range(2, 20)).max(20_000);
    } else if class {
        let (id, now) = (world.conns[conn].id, world.now);
        let class = if rng.one_in(2) { Class::Backup } else { Class::Active };
        let _ = now;
        world.ends[side].session.iter_mut().for_each(|session| session.set_class(id, class));
    } else if half {
        // One end learns of the loss, the other has to detect it.
        world.conns[conn].pipes.iter_mut().for_each(Pipe::freeze);
        world.hang_up(side, conn);
    } else if middle {
        let keep = rng.scaled(1, 20_000) as usize;
        world.conns[conn].pipes.iter_mut().for_each(|pipe| pipe.drop_after(keep));
        world.cut(conn, true);
    } else if cut {
        world.cut(conn, false);
    } else if tail {
        world.cut(conn, true);
    }
}

/// Stalls a lane of a connection, for a while or until [`heal`].
fn hold_a_lane(world: &mut World, rng: &mut Rng) {
    if world.conns.is_empty() {
        return;
    }
    let conn = rng.range(0, world.conns.len() as u64 - 1) as usize;
    let pipe = &mut world.conns[conn].pipes[rng.range(0, 1) as usize];
    let lane = rng.range(0, u64::from(pipe.manner.more_lanes)) as u16;
    let until = if rng.one_in(4) { Time::from_us(u64::MAX / 2) } else { world.now.after(rng.scaled(1000, 2_000_000)) };
    if pipe.manner.more_lanes > 0 {
        pipe.hold_lane(lane, until);
    }
}

/// Ends all faults: frozen pipes go on, and all rates and classes are as at the start.
fn heal(world: &mut World) {
    let now = world.now;
    for conn in &mut world.conns {
        conn.pipes.iter_mut().for_each(|pipe| {
            pipe.thaw(now);
            pipe.release_lanes(now);
        });
        for (pipe, shape) in conn.pipes.iter_mut().zip(world.paths[conn.path].shapes) {
            pipe.shape.rate = shape.rate;
        }
    }
    for end in [CLIENT, SERVER] {
        let ids: Vec<_> = world.conns.iter().map(|conn| conn.id).collect();
        let session = world.ends[end].session.iter_mut();
        session.for_each(|session| ids.iter().for_each(|id| session.set_class(*id, Class::Active)));
    }
}

/// Restarts one end. The other end must reset every stream and finish none, and a new session must open.
fn restart(world: &mut World, rng: &mut Rng) {
    let end = rng.range(0, 1) as usize;
    let other = 1 - end;
    world.ends[other].app.may_end = true;
    let live: Vec<_> = world.ends[other].app.streams.iter().filter(|(_, s)| !s.fin).map(|(id, _)| *id).collect();
    heal(world);
    // Bytes of the dead process that the kernel still delivers may complete a stream. Without them no stream may
    // complete.
    let silent = rng.one_in(2);
    if silent {
        world.conns.iter_mut().for_each(|conn| conn.pipes[end].drop_all());
    }
    world.restart(end);
    let until = world.now.after(60_000_000);
    world.run(until, |world| match end {
        SERVER => world.ends[CLIENT].app.ended.is_some(),
        _ => world.is_open(),
    });
    if end == SERVER {
        let app = &world.ends[CLIENT].app;
        assert!(app.ended.is_some() || world.sessions_never_met(), "the client never learned of the restart");
        for id in live {
            let stream = &app.streams[&id];
            let slow = stream.plan.pause_us > 0; // all bytes may have arrived before, and not have been read yet
            assert!(!stream.fin || !silent || slow, "{id:?} ended in FIN although its peer is gone");
            let ended = stream.fin || stream.reset.is_some() || stream.refused || stream.gone || app.ended.is_none();
            assert!(ended || stream.plan.abort.iter().any(Option::is_some), "{id:?} was not reset: {stream:?}");
        }
    } else {
        assert!(world.is_open(), "no new session after the restart");
    }
}
