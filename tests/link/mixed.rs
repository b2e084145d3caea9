//! Carriers of several kinds in one session: streams, records, lanes with messages.

use crate::link_kit;

use link_kit::app::Plan;
use link_kit::pipe::{Manner, Shape};
use link_kit::{CLIENT, SERVER, World, gates, pattern};
use seaprox::link::{Config, Open, StreamId};

/// Returns a started world of paths with these manners, each of 50 Mbit/s and 10 ms.
fn world(manners: &[Manner]) -> World {
    let mut world = World::new(7, Config::default());
    for manner in manners {
        world.add_path(Shape::new(50, 10));
        world.paths.last_mut().unwrap().manner = *manner;
    }
    world.start();
    world.run_until_up(manners.len());
    world.sessions_unchecked();
    world
}

#[test]
fn a_session_over_carriers_of_several_kinds_uses_all_paths() {
    let records = Manner { has_records: true, ..Manner::default() };
    for (manners, least) in [
        ([Manner::default(), Manner::quic(16, 0)], 0.95),
        ([Manner::quic(16, 0), records], 0.95),
        ([Manner::quic(1, 0), Manner::quic(16, 0)], 0.95),
        ([Manner::default(), Manner::quic(16, 500)], 0.9),
    ] {
        let mut world = world(&manners);
        let streams: Vec<StreamId> = (0..8).map(|_| world.open(CLIENT, gates::endless())).collect();
        world.run_for(2_000_000);
        let read = |world: &World| streams.iter().map(|id| world.ends[SERVER].app.streams[id].read).sum::<u64>();
        let (before, stats) = (read(&world), world.session(CLIENT).stats());
        world.run_for(3_000_000);
        let share = (read(&world) - before) as f64 * 8.0 / 3.0 / 100e6;
        let after = world.session(CLIENT).stats();
        let twice = after.resent_bytes + after.reinjected_bytes - stats.resent_bytes - stats.reinjected_bytes;
        let duplicates = twice as f64 / (after.data_bytes[0] - stats.data_bytes[0]) as f64;
        assert!(share >= least, "{manners:?}: {share:.3} of the sum");
        assert!(duplicates <= 0.02, "{manners:?}: {duplicates:.4} were sent twice");
    }
}

/// Writes 100 bytes to each of 32 streams every 20 ms over a path that loses one frame in 50. Returns the share of these writes
/// that take longer than 20 ms, where the path alone takes 10.
fn late_writes(more_lanes: u16) -> f64 {
    const BYTES: u64 = 100;
    let mut world = world(&[Manner { message_bytes_max: 0, ..Manner::quic(more_lanes, 50) }]);
    let plan = Plan { chunk: 1, ..Plan::up(1 << 40) };
    let ids: Vec<StreamId> = (0..32)
        .map(|_| {
            let now = world.now;
            let open = Open { source: plan.text(), ..Open::name("a", 1) };
            let id = world.session(CLIENT).open(now, open).unwrap();
            world.ends[CLIENT].app.adopt(id, plan);
            id
        })
        .collect();
    world.run_for(200_000);
    let (mut written, mut late, mut all) = (0, 0, 0);
    for turn in 0..300 {
        for id in &ids {
            let salt = u64::from(id.0) * 2;
            let mut chunk = pattern::slice(salt, written, BYTES as usize);
            world.session(CLIENT).write(*id, &mut chunk).unwrap();
        }
        written += BYTES;
        world.run_for(20_000);
        if turn > 10 {
            all += ids.len();
            late += ids.iter().filter(|id| world.ends[SERVER].app.streams[id].read < written).count();
        }
    }
    late as f64 / all as f64
}

#[test]
fn a_loss_delays_only_the_streams_of_its_lane() {
    let (one, many) = (late_writes(0), late_writes(16));
    assert!(one > 0.2, "with a single lane a loss delays all streams: {one:.3}");
    assert!(many < one / 3.0, "{many:.3} of the writes are late with lanes, {one:.3} without");
}
