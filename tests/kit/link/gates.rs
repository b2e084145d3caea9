//! Efficiency of the link in virtual time: the share of the paths' capacity that it uses. Tests assert the figures of
//! these runs, and the bench prints them.

use seaprox::link::{Config, Time};

use super::app::Plan;
use super::{CLIENT, SERVER, World};

/// A set of paths. Each path is its rate in megabits per second and its one-way delay in milliseconds.
pub struct Gate {
    pub name: &'static str,
    pub paths: &'static [(u64, u64)],
}

/// The sets of paths that are measured. Some are the reverse of another, because the order must not matter.
pub const GATES: &[Gate] = &[
    Gate { name: "100,5 + 100,5", paths: &[(100, 5), (100, 5)] },
    Gate { name: "100,5 + 20,5", paths: &[(100, 5), (20, 5)] },
    Gate { name: "20,5 + 100,5", paths: &[(20, 5), (100, 5)] },
    Gate { name: "50,10 + 50,60", paths: &[(50, 10), (50, 60)] },
    Gate { name: "50,60 + 50,10", paths: &[(50, 60), (50, 10)] },
    Gate { name: "80,10 + 10,100", paths: &[(80, 10), (10, 100)] },
    Gate { name: "10,100 + 80,10", paths: &[(10, 100), (80, 10)] },
    Gate { name: "50,10 + 50,10", paths: &[(50, 10), (50, 10)] },
    Gate { name: "1000,1 + 10,50", paths: &[(1000, 1), (10, 50)] },
    Gate { name: "10,50 + 1000,1", paths: &[(10, 50), (1000, 1)] },
    Gate { name: "4 x 25,10", paths: &[(25, 10), (25, 10), (25, 10), (25, 10)] },
    Gate { name: "1000,50 alone", paths: &[(1000, 50)] },
];

/// The figures of one run.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Megabits per second of payload, in order, at the reader.
    pub goodput: f64,
    /// The goodput as a share of the paths' summed rate.
    pub share: f64,
    /// The share of the payload that was sent twice.
    pub duplicates: f64,
    /// The longest time without a byte at the reader, in milliseconds.
    pub gap_ms: f64,
    /// The stream's window at the end, in bytes.
    pub window: u64,
    /// The longest time that a stream needed to fill the paths, in milliseconds.
    pub fill_ms: f64,
}

/// Returns the plan of an endless stream from the client to the server.
pub fn endless() -> Plan {
    Plan::up(1 << 50)
}

/// Runs one stream over these paths. Measures for `measure_ms` milliseconds after `warm_ms`. `stats` tells the sessions
/// the round-trip time and the rate of each path, as a kernel does.
pub fn run(paths: &[(u64, u64)], stats: bool, warm_ms: u64, measure_ms: u64) -> Figures {
    let mut world = World::new(7, Config::default());
    world.stats = stats;
    paths.iter().for_each(|&(mbit, ms)| world.add_path(super::pipe::Shape::new(mbit, ms)));
    world.start();
    world.run_until_up(paths.len());
    let id = world.open(CLIENT, endless());
    world.run_for(warm_ms * 1000);
    let figures = measure(&mut world, id, paths.iter().map(|path| path.0).sum(), measure_ms);
    assert_eq!(world.session(CLIENT).stats().quota_waits, 0, "nothing is held back while readers keep up");
    figures
}

/// Measures a running stream for `measure_ms` milliseconds. `mbit` is the summed rate of the paths.
pub fn measure(world: &mut World, id: seaprox::link::StreamId, mbit: u64, measure_ms: u64) -> Figures {
    let before = (world.ends[SERVER].app.streams[&id].read, world.session(CLIENT).stats());
    world.ends[SERVER].app.streams.get_mut(&id).unwrap().gap_us = 0;
    world.run_for(measure_ms * 1000);
    let after = (world.ends[SERVER].app.streams[&id].read, world.session(CLIENT).stats());
    let sent = (after.1.data_bytes[0] - before.1.data_bytes[0]) as f64;
    let twice =
        (after.1.resent_bytes + after.1.reinjected_bytes - before.1.resent_bytes - before.1.reinjected_bytes) as f64;
    let goodput = (after.0 - before.0) as f64 * 8.0 / measure_ms as f64 / 1000.0;
    Figures {
        goodput,
        share: goodput / mbit as f64,
        duplicates: twice / sent,
        gap_ms: world.ends[SERVER].app.streams[&id].gap_us as f64 / 1000.0,
        window: world.session(SERVER).window(id).unwrap_or(0),
        fill_ms: 0.0,
    }
}

/// Turns the first path into a black hole while a stream runs. `gap_ms` of the result is the time without a byte.
pub fn failover(paths: &[(u64, u64)]) -> Figures {
    let mut world = World::with_paths(7, Config::default(), paths);
    world.run_until_up(paths.len());
    let id = world.open(CLIENT, endless());
    world.run_for(3_000_000);
    let conn = world.conns.iter().position(|conn| conn.path == 0).unwrap();
    world.conns[conn].pipes.iter_mut().for_each(super::pipe::Pipe::freeze);
    measure(&mut world, id, paths.iter().skip(1).map(|path| path.0).sum(), 4000)
}

/// Returns the milliseconds until a new stream reaches 90 % of a path's rate, averaged over 100 ms; `None` after 20 s.
pub fn time_to_fill(mbit: u64, ms: u64) -> Option<f64> {
    let mut world = World::with_paths(7, Config::default(), &[(mbit, ms)]);
    world.run_until_up(1);
    let started = world.now;
    let id = world.open(CLIENT, endless());
    let mut before = 0;
    while world.now < started.after(20_000_000) {
        world.run_for(100_000);
        let Some(stream) = world.ends[SERVER].app.streams.get(&id) else { continue };
        if (stream.read - before) * 80 >= mbit * 1_000_000 * 9 / 10 {
            return Some(world.now.since(started) as f64 / 1000.0);
        }
        before = stream.read;
    }
    None
}

/// Reduces the rate of the last path, including for the bytes that wait in front of it, while a stream runs. Returns
/// the stream's megabits per second in each of the next ten seconds.
pub fn choke(paths: &[(u64, u64)], to_bytes_per_second: u64, lowat: u64, stats: bool) -> Vec<f64> {
    let mut world = World::new(7, Config::default());
    world.stats = stats;
    for &(mbit, ms) in paths {
        world.add_path(super::pipe::Shape { lowat, ..super::pipe::Shape::new(mbit, ms) });
    }
    world.start();
    world.run_until_up(paths.len());
    let id = world.open(CLIENT, endless());
    world.run_for(2_000_000);
    let now = world.now;
    let conn = world.conns.iter_mut().find(|conn| conn.path == paths.len() - 1).unwrap();
    conn.pipes.iter_mut().for_each(|pipe| pipe.set_rate(now, to_bytes_per_second));
    let second = |world: &mut World| {
        let before = world.ends[SERVER].app.streams[&id].read;
        world.run_for(1_000_000);
        (world.ends[SERVER].app.streams[&id].read - before) as f64 * 8.0 / 1e6
    };
    (0..10).map(|_| second(&mut world)).collect()
}

/// Reduces the rate of the first path for 10 s while a stream runs. Returns the figures before, during and after.
pub fn degrade(paths: &[(u64, u64)], to_mbit: u64) -> [Figures; 3] {
    let mut world = World::with_paths(7, Config::default(), paths);
    world.run_until_up(paths.len());
    let id = world.open(CLIENT, endless());
    world.run_for(2_000_000);
    let sum = paths.iter().map(|path| path.0).sum();
    let first = measure(&mut world, id, sum, 3000);
    let set = |world: &mut World, mbit: u64| {
        let conn = world.conns.iter_mut().find(|conn| conn.path == 0).unwrap();
        conn.pipes.iter_mut().for_each(|pipe| pipe.shape.rate = mbit * 125_000);
    };
    set(&mut world, to_mbit);
    let second = measure(&mut world, id, sum - paths[0].0 + to_mbit, 10_000);
    set(&mut world, paths[0].0);
    world.run_for(2_000_000);
    let third = measure(&mut world, id, sum, 5000);
    let _ = Time::ZERO;
    [first, second, third]
}
