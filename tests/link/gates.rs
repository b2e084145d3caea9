//! Efficiency in virtual time, where it is exact: the share of the paths' capacity that streams use, and its cost.

use crate::link_kit;

use std::thread;

use link_kit::app::Plan;
use link_kit::gates::{self, Figures, GATES};
use link_kit::pipe::Shape;
use link_kit::rng::Rng;
use link_kit::{CLIENT, SERVER, World};
use seaprox::link::{Config, Mode, Session, StreamId, frame::Class};

fn assert_gate(name: &str, figures: Figures) {
    println!("{name:>16}  {figures:?}");
    assert!(figures.share >= 0.95, "{name}: {figures:?}");
    assert!(figures.duplicates <= 0.01, "{name}: {figures:?}");
}

#[test]
fn one_stream_uses_95_percent_of_all_paths() {
    for gate in GATES {
        assert_gate(gate.name, gates::run(gate.paths, false, 4000, 4000));
    }
}

#[test]
fn one_stream_uses_95_percent_of_all_paths_with_kernel_statistics() {
    for gate in GATES {
        assert_gate(gate.name, gates::run(gate.paths, true, 4000, 4000));
    }
}

#[test]
fn a_black_hole_interrupts_a_stream_for_at_most_half_a_second() {
    for paths in [&[(100, 5), (100, 5)], &[(80, 10), (10, 100)], &[(50, 60), (50, 10)]] {
        let figures = gates::failover(paths);
        println!("{paths:?} {figures:?}");
        assert!(figures.gap_ms <= 500.0, "{paths:?}: {figures:?}");
        assert!(figures.share >= 0.8, "{paths:?}: {figures:?}");
    }
}

#[test]
fn one_stream_fills_a_gigabit_at_100_ms_within_3_seconds() {
    let ms = gates::time_to_fill(1000, 50).expect("never filled");
    println!("filled in {ms} ms");
    assert!(ms <= 3000.0, "filled only after {ms} ms");
}

#[test]
fn a_degraded_path_is_used_up_to_its_new_rate() {
    let [before, during, after] = gates::degrade(&[(100, 5), (50, 10)], 5);
    println!("{before:?}\n{during:?}\n{after:?}");
    assert!(before.share >= 0.95 && during.share >= 0.95 && after.share >= 0.95, "{before:?}\n{during:?}\n{after:?}");
}

#[test]
fn a_path_that_is_nearly_closed_does_not_stall_the_stream() {
    for (mbit, ms) in [(20, 1), (20, 5), (20, 30), (100, 5)] {
        for lowat in [16 << 10, 64 << 10, 256 << 10] {
            for stats in [false, true] {
                let seconds = gates::choke(&[(mbit, ms), (mbit, ms)], 12_500, lowat, stats);
                let share = seconds.iter().sum::<f64>() / 10.0 / mbit as f64;
                let least = seconds.iter().copied().fold(f64::MAX, f64::min) / mbit as f64;
                println!("{mbit},{ms} choked behind {lowat}: {share:.3}, at least {least:.2}: {seconds:.1?}");
                assert!(share >= 0.95 && least >= 0.4, "{mbit},{ms}, {lowat}: {seconds:?}");
            }
        }
    }
}

/// Data that is late on one of two slow paths would be as late on the other.
#[test]
fn hardly_any_data_is_reinjected_when_all_paths_are_slow() {
    for lowat in [16 << 10, 64 << 10, 256 << 10] {
        let mut world = World::new(7, Config::default());
        (0..2).for_each(|_| world.add_path(Shape { lowat, ..Shape::new(20, 5) }));
        world.start();
        world.run_until_up(2);
        let id = world.open(CLIENT, gates::endless());
        world.run_for(2_000_000);
        let now = world.now;
        world.conns.iter_mut().flat_map(|conn| &mut conn.pipes).for_each(|pipe| pipe.set_rate(now, 125_000));
        let figures = gates::measure(&mut world, id, 2, 10_000);
        let stats = world.session(CLIENT).stats();
        println!("behind {lowat}: {figures:?}, {stats:?}");
        // The other path is still fast for the first late frames.
        assert!(figures.duplicates < 0.05 && stats.late_reinjections <= 5, "{figures:?}, {stats:?}");
    }
}

/// An acknowledgement is never acknowledged, so a missing answer to it must not count as a delay.
#[test]
fn an_idle_link_reinjects_nothing() {
    let mut world = World::with_paths(7, Config::default(), &[(100, 5), (50, 10)]);
    world.run_until_up(2);
    world.open(CLIENT, Plan::up(1 << 20));
    world.run_for(60_000_000);
    let stats = [CLIENT, SERVER].map(|end| world.session(end).stats());
    assert_eq!(stats.map(|stats| stats.late_reinjections), [0, 0], "{stats:?}");
}

/// Both paths become much slower while the link is idle. The next stream notices that and uses both.
#[test]
fn an_outdated_rate_estimate_does_not_keep_data_from_the_other_path() {
    for lowat in [256 << 10, 4 << 20] {
        for size in [4 << 20, 16 << 20] {
            let mut world = World::new(7, Config::default());
            let shape = Shape { rate: 180_000_000, delay_us: 30, lowat };
            (0..2).for_each(|_| world.add_path(shape));
            world.start();
            world.run_until_up(2);
            world.open(CLIENT, Plan::up(100 << 20));
            world.finish(10_000_000);
            world.run_for(500_000);
            let now = world.now;
            world.conns.iter_mut().flat_map(|conn| &mut conn.pipes).for_each(|pipe| pipe.set_rate(now, 13_000_000));
            let written = |world: &World| [0, 1].map(|conn: usize| world.conns[conn].pipes[CLIENT].written);
            let before = written(&world);
            world.open(CLIENT, Plan::up(size));
            world.finish(10_000_000);
            let after = written(&world);
            let each = [after[0] - before[0], after[1] - before[1]];
            println!("{size} bytes behind {lowat}: {each:?} over each, in {} µs", world.now.since(now));
            assert!(each.iter().all(|bytes| *bytes > size / 5), "{size} bytes behind {lowat}: {each:?}");
        }
    }
}

#[test]
fn a_path_without_measurements_is_used_at_once() {
    for slow_start in [false, true] {
        let mut world = World::new(7, Config::default());
        (world.stats, world.slow_start) = (slow_start, slow_start);
        [(50, 10), (50, 60)].iter().for_each(|&(mbit, ms)| world.add_path(Shape::new(mbit, ms)));
        world.start();
        world.run_until_up(2);
        let id = world.open(CLIENT, gates::endless());
        let mut before = 0;
        let seconds: Vec<f64> = (0..4)
            .map(|_| {
                world.run_for(500_000);
                let read = world.ends[SERVER].app.streams[&id].read;
                (read - std::mem::replace(&mut before, read)) as f64 * 16.0 / 1e6
            })
            .collect();
        println!("50,10 + 50,60 from the start, by half second: {seconds:.1?}");
        assert!(seconds[1] >= 80.0 && seconds[2] >= 95.0, "{seconds:?}");
    }
}

#[test]
fn adding_a_bad_path_is_never_slower_than_the_good_path_alone() {
    for bad in [(1, 5), (1, 300), (5, 150), (100, 300)] {
        let figures = gates::run(&[(100, 5), bad], false, 4000, 4000);
        println!("100,5 + {bad:?} {figures:?}");
        assert!(figures.goodput >= 95.0, "{bad:?}: {figures:?}");
        assert!(figures.duplicates <= 0.01, "{bad:?}: {figures:?}");
    }
}

/// Opens small streams one after the other. Returns the time of each from its opening to the reader's FIN, sorted, in
/// µs.
fn keystrokes(world: &mut World, count: usize) -> Vec<u64> {
    let mut waits = Vec::new();
    for n in 0..count {
        world.run_for(37_000 + (n as u64 % 7) * 1000);
        let id = world.open(CLIENT, Plan::up(8));
        let started = world.now;
        let until = started.after(5_000_000);
        assert!(world.run(until, |world| world.ends[SERVER].app.streams.get(&id).is_some_and(|s| s.fin)));
        waits.push(world.now.since(started));
    }
    waits.sort_unstable();
    waits
}

#[test]
fn keystrokes_overtake_bulk_transfers() {
    let mut world = World::with_paths(5, Config::default(), &[(20, 10)]);
    world.run_until_up(1);
    let idle = keystrokes(&mut world, 50);
    (0..20).for_each(|_| {
        world.open(CLIENT, gates::endless());
    });
    world.run_for(2_000_000);
    let busy = keystrokes(&mut world, 200);
    let (idle, busy) = (idle[25], busy[197]);
    println!("keystroke: {idle} µs alone, {busy} µs at p99 beside bulk");
    assert!(busy < idle + 20_000, "{idle} µs alone, {busy} µs beside bulk");
}

/// Control frames, and frames of streams that send little and seldom, wait only for the bytes that a carrier has
/// already taken and for one frame of bulk on each subflow. The count is in frames, over paths of all kinds. The
/// fastest subflow is an estimate, so one frame in a thousand may be overtaken by more.
#[test]
fn at_most_one_bulk_frame_overtakes_control_frames_and_sparse_streams() {
    let mut passed = Vec::new();
    for seed in 0..200 {
        let mut rng = Rng::new(seed);
        let paths: Vec<(u64, u64)> = (0..rng.range(1, 4)).map(|_| (rng.scaled(2, 200), rng.scaled(1, 100))).collect();
        let mut world = World::with_paths(seed, Config::default(), &paths);
        world.sessions_unchecked();
        world.run_until_up(paths.len());
        (0..rng.range(1, 12)).for_each(|_| {
            world.open(CLIENT, gates::endless());
        });
        world.run_for(1_500_000);
        for _ in 0..40 {
            world.run_for(rng.range(1000, 20_000));
            let id = world.open(CLIENT, Plan::up(8));
            world.watch[CLIENT].expect(id);
        }
        world.run_for(1_000_000);
        assert!(world.watch[CLIENT].is_idle(), "seed {seed}, paths {paths:?}: a frame never left");
        passed.extend(world.watch[CLIENT].left.iter().map(|left| left.1));
    }
    let (more, worst) = (passed.iter().filter(|passed| **passed > 1).count(), passed.iter().max());
    println!("of {} frames {more} were passed by more than one, at worst by {worst:?}", passed.len());
    assert!(more * 1000 <= passed.len() && worst <= Some(&8));
}

#[test]
fn a_small_stream_is_quick_while_bulk_fills_a_slow_path() {
    let mut world = World::with_paths(5, Config::default(), &[(1, 20)]);
    world.run_until_up(1);
    world.open(CLIENT, Plan::up(4 << 20));
    world.run_for(3_000_000);
    let started = world.now;
    let id = world.open(CLIENT, Plan { sizes: [10, 10], ..Plan::up(0) });
    let until = started.after(10_000_000);
    assert!(world.run(until, |world| world.ends[CLIENT].app.streams[&id].fin));
    let took = world.now.since(started);
    assert!(took < 1_000_000, "there and back took {took} µs");
}

#[test]
fn one_stalled_reader_does_not_slow_down_a_thousand_streams() {
    let run = |stalled: bool| {
        let mut world = World::with_paths(5, Config::default(), &[(1000, 5)]);
        world.run_until_up(1);
        if stalled {
            // Reads one byte, then nothing for an hour.
            let plan = Plan { bite: 1, pause_us: 3_600_000_000, ..gates::endless() };
            world.open(CLIENT, plan);
        }
        let ids: Vec<StreamId> = (0..1000).map(|_| world.open(CLIENT, Plan::up(200_000))).collect();
        let started = world.now;
        let until = started.after(30_000_000);
        let all = |world: &World| ids.iter().all(|id| world.ends[SERVER].app.streams.get(id).is_some_and(|s| s.fin));
        assert!(world.run(until, |world| all(world)));
        let mut ends: Vec<u64> =
            ids.iter().map(|id| world.ends[SERVER].app.streams[id].last_byte.unwrap().since(started)).collect();
        ends.sort_unstable();
        // Frames under way at that time are acknowledged.
        world.run_for(100_000);
        (ends[500], ends[990], world.session(CLIENT).memory().0, world.session(SERVER).memory().1)
    };
    let (without, with) = (run(false), run(true));
    println!("without a stalled reader {without:?}, with one {with:?}");
    assert!(with.0 <= without.0 * 105 / 100 && with.1 <= without.1 * 105 / 100);
    assert_eq!((without.2, without.3), (0, 0));
    // The unsent bytes of the stalled stream, and its window at the reader.
    let most = Config::default().unsent_bytes_max + (256 << 10);
    assert!(with.2 + with.3 <= most, "{with:?}, at most {most}");
}

/// Runs a hundred endless streams over 1 Gbit/s beside `stalled` streams whose readers stop after `stall_at` bytes.
/// Returns their rate in Mbit/s and the time of the slowest of some small streams, in µs.
fn beside_stalled(stalled: usize, stall_at: u64) -> (f64, u64) {
    // The one carrier of this world takes less at once than the carriers of a node, so less unsent data keeps it busy. With
    // the default of nodes, 4,000 stalled streams leave 924 of 999 Mbit/s.
    let config = Config { unsent_bytes_max: 256 << 10, ..Config::default() };
    let mut world = World::with_paths(5, config, &[(1000, 5)]);
    world.sessions_unchecked();
    world.run_until_up(1);
    for n in 0..stalled {
        world.open(CLIENT, Plan { stall_at: Some(stall_at), ..gates::endless() });
        if n % 10 == 9 {
            world.run_for(1000);
        }
    }
    world.run_for(1_000_000 + stalled as u64 * stall_at / 100);
    let ids: Vec<StreamId> = (0..100).map(|_| world.open(CLIENT, gates::endless())).collect();
    world.run_for(2_000_000);
    let read = |world: &World| ids.iter().map(|id| world.ends[SERVER].app.streams[id].read).sum::<u64>();
    let before = read(&world);
    world.run_for(500_000);
    let mbit = (read(&world) - before) as f64 * 8.0 / 5e5;
    let slowest = *keystrokes(&mut world, 20).last().unwrap();
    let (sent, received) = (world.session(CLIENT).memory().0, world.session(SERVER).memory().1);
    println!(
        "beside {stalled} stalled at {stall_at}: {mbit:.0} Mbit/s, {slowest} µs, {sent} and {received} bytes held"
    );
    let limits = Config::default();
    assert!(sent <= limits.send_bytes_max && received <= limits.session_window_bytes.1);
    world.ends.iter().for_each(|end| end.session.iter().for_each(Session::check_invariants));
    (mbit, slowest)
}

#[test]
fn stalled_readers_do_not_slow_down_other_streams() {
    const CASES: [(usize, u64); 7] =
        [(0, 0), (1, 0), (256, 0), (1000, 0), (4000, 0), (1000, 100_000), (200, 1_000_000)];
    // Each case is a world of its own, and together they are the longest test of this executable.
    let results = thread::scope(|scope| {
        let worlds = CASES.map(|(stalled, stall_at)| scope.spawn(move || beside_stalled(stalled, stall_at)));
        worlds.map(|world| world.join().unwrap())
    });
    let (alone, quick) = results[0];
    for ((stalled, _), (mbit, slowest)) in CASES.into_iter().zip(results).skip(1) {
        assert!(mbit >= alone * 0.95, "{stalled} stalled: {mbit} of {alone} Mbit/s");
        assert!(slowest <= quick + 20_000, "{stalled} stalled: a small stream took {slowest} µs, and {quick} without");
    }
}

#[test]
fn data_for_stalled_readers_does_not_push_short_streams_to_a_slow_path() {
    let run = |stalled: usize| {
        let mut world = World::with_paths(5, Config::default(), &[(8, 5), (4, 60)]);
        world.run_until_up(2);
        for _ in 0..stalled {
            world.open(CLIENT, Plan { stall_at: Some(0), ..gates::endless() });
        }
        world.run_for(6_000_000);
        let mut ends = Vec::new();
        for _ in 0..20 {
            let id = world.open(CLIENT, Plan::up(20_000));
            let started = world.now;
            let until = started.after(5_000_000);
            assert!(world.run(until, |world| world.ends[SERVER].app.streams.get(&id).is_some_and(|s| s.fin)));
            ends.push(world.now.since(started));
        }
        *ends.iter().max().unwrap()
    };
    let (without, with) = (run(0), run(20));
    println!("20 kB took {without} µs, and {with} µs beside stopped readers");
    assert!(with <= without * 105 / 100 && without < 30_000);
}

#[test]
fn streams_share_a_path_in_proportion_to_their_weights() {
    let mut world = World::with_paths(5, Config::default(), &[(100, 5)]);
    world.run_until_up(1);
    let weights = [1, 1, 2, 4];
    let ids: Vec<StreamId> = weights.map(|weight| world.open(CLIENT, Plan { weight, ..gates::endless() })).to_vec();
    world.run_for(3_000_000);
    let read = |world: &World| ids.iter().map(|id| world.ends[SERVER].app.streams[id].read).collect::<Vec<_>>();
    let before = read(&world);
    world.run_for(4_000_000);
    let got: Vec<u64> = read(&world).iter().zip(&before).map(|(after, before)| after - before).collect();
    let share = got.iter().sum::<u64>() / 8;
    for (bytes, weight) in got.iter().zip(weights) {
        let fair = share * u64::from(weight);
        assert!(bytes.abs_diff(fair) <= fair / 20 + 16_384, "{got:?}, a share is {share}");
    }
}

#[test]
fn a_stalled_reader_blocks_its_writer_and_memory_stays_bounded() {
    let mut world = World::with_paths(5, Config::default(), &[(1000, 5)]);
    world.run_until_up(1);
    world.open(CLIENT, Plan { bite: 1, pause_us: 3_600_000_000, ..gates::endless() });
    world.run_for(20_000_000);
    let held = world.session(CLIENT).memory().0 + world.session(SERVER).memory().1;
    assert!(held < 1 << 20, "{held} bytes held for a reader that does not read");
}

#[test]
fn single_mode_uses_one_path_and_switches_when_it_dies() {
    let config = Config { mode: Mode::Single, ..Config::default() };
    let mut world = World::with_paths(5, config, &[(50, 5), (50, 6)]);
    world.run_until_up(2);
    let id = world.open(CLIENT, gates::endless());
    world.run_for(3_000_000);
    let before = gates::measure(&mut world, id, 50, 2000);
    assert!((0.95..1.02).contains(&before.share), "{before:?}");
    world.paths[0].enabled = false;
    let conn = world.conns.iter().position(|conn| conn.path == 0).unwrap();
    world.cut(conn, false);
    world.run_for(1_000_000);
    let after = gates::measure(&mut world, id, 50, 2000);
    assert!((0.95..1.02).contains(&after.share), "{after:?}");
}

#[test]
fn redundant_mode_hides_the_death_of_a_path_from_small_streams() {
    let wait = |mode| {
        let config = Config { mode, ..Config::default() };
        let mut world = World::with_paths(5, config, &[(20, 5), (20, 10)]);
        world.run_until_up(2);
        world.run_for(2_000_000);
        let conn = world.conns.iter().position(|conn| conn.path == 0).unwrap();
        world.conns[conn].pipes.iter_mut().for_each(link_kit::pipe::Pipe::freeze);
        keystrokes(&mut world, 1)[0]
    };
    let (stripe, redundant) = (wait(Mode::Stripe), wait(Mode::Redundant));
    println!("a keystroke at the death of a path: {stripe} µs striped, {redundant} µs redundant");
    assert!(redundant < 30_000 && redundant < stripe);
}

/// Beside bulk the second subflow is often busy when the frame leaves on the first one, which dies then.
#[test]
fn copies_of_redundant_mode_wait_for_their_subflow_beside_bulk() {
    let config = Config { mode: Mode::Redundant, ..Config::default() };
    let waits = (0..16).map(|turn| {
        let mut world = World::new(5, config);
        [5, 10].iter().for_each(|ms| world.add_path(Shape { lowat: 4 << 10, ..Shape::new(20, *ms) }));
        world.start();
        world.run_until_up(2);
        world.open(CLIENT, gates::endless());
        world.run_for(2_000_000 + 1_700 * turn);
        let (id, started) = (world.open(CLIENT, Plan::up(8)), world.now);
        world.run_for(3_000);
        let conn = world.conns.iter().position(|conn| conn.path == 0).unwrap();
        world.conns[conn].pipes.iter_mut().for_each(link_kit::pipe::Pipe::freeze);
        let until = started.after(5_000_000);
        assert!(world.run(until, |world| world.ends[SERVER].app.streams.get(&id).is_some_and(|s| s.fin)));
        world.now.since(started)
    });
    let mut waits: Vec<u64> = waits.collect();
    waits.sort_unstable();
    println!("keystrokes at the death of a path: {waits:?} µs");
    assert!(waits.iter().all(|us| *us < 40_000), "{waits:?}");
}

/// Each PING has its answer and the acknowledgements of both.
#[test]
fn an_idle_link_asks_at_its_keepalive_and_no_sooner() {
    let config = Config { keepalive_us: 20_000_000, dead_us: 60_000_000, ..Config::default() };
    let mut world = World::with_paths(5, config, &[(20, 5)]);
    world.run_until_up(1);
    world.open(CLIENT, Plan::up(8));
    world.run_for(5_000_000);
    let sent = |world: &mut World| [CLIENT, SERVER].map(|end| world.session(end).stats().frames[0]);
    let before = sent(&mut world);
    world.run_for(600_000_000);
    let after = sent(&mut world);
    for (before, after) in before.into_iter().zip(after) {
        assert!((60..=150).contains(&(after - before)), "{} frames in ten minutes", after - before);
    }
}

#[test]
fn a_backup_path_is_used_only_after_the_loss_of_the_others() {
    let mut world = World::with_paths(5, Config::default(), &[(20, 5), (20, 5)]);
    world.run_until_up(2);
    let backup = world.conns.iter().find(|conn| conn.path == 1).unwrap().id;
    world.session(SERVER).set_class(backup, Class::Backup);
    world.run_for(100_000);
    let id = world.open(CLIENT, gates::endless());
    world.run_for(3_000_000);
    let figures = gates::measure(&mut world, id, 20, 2000);
    assert!((0.95..1.02).contains(&figures.share), "{figures:?}");
    world.paths[0].enabled = false;
    let conn = world.conns.iter().position(|conn| conn.path == 0).unwrap();
    world.cut(conn, false);
    world.run_for(1_000_000);
    let figures = gates::measure(&mut world, id, 20, 2000);
    assert!(figures.share >= 0.95, "{figures:?}");
}

#[test]
fn subflows_can_be_added_and_closed_during_a_transfer() {
    let mut world = World::with_paths(5, Config::default(), &[(20, 5)]);
    world.run_until_up(1);
    let id = world.open(CLIENT, gates::endless());
    world.run_for(3_000_000);
    (0..3).for_each(|_| world.add_path(link_kit::pipe::Shape::new(20, 5)));
    world.run_for(3_000_000);
    let figures = gates::measure(&mut world, id, 80, 2000);
    assert!(figures.share >= 0.95, "four subflows: {figures:?}");
    let conn = world.conns.iter().find(|conn| conn.path == 2).unwrap().id;
    world.session(CLIENT).set_class(conn, Class::Closing);
    let drained = |world: &mut World| world.session(CLIENT).path(conn).is_some_and(|path| path.2 == 0);
    let until = world.now.after(2_000_000);
    assert!(world.run(until, drained), "a closing subflow never drained");
    let figures = gates::measure(&mut world, id, 60, 2000);
    assert!((0.95..1.02).contains(&figures.share), "three of four subflows: {figures:?}");
    assert_eq!(figures.duplicates, 0.0);
}

#[test]
fn many_streams_fill_one_path() {
    for streams in [1, 64, 512] {
        let mut world = World::with_paths(5, Config::default(), &[(100, 10)]);
        world.run_until_up(1);
        let ids: Vec<StreamId> = (0..streams).map(|_| world.open(CLIENT, gates::endless())).collect();
        world.run_for(3_000_000);
        let read = |world: &World| ids.iter().map(|id| world.ends[SERVER].app.streams[id].read).sum::<u64>();
        let before = read(&world);
        world.run_for(2_000_000);
        let mbit = (read(&world) - before) as f64 * 8.0 / 2e6;
        assert!(mbit >= 95.0, "{streams} streams: {mbit} Mbit/s");
        assert_eq!(world.session(CLIENT).stats().quota_waits, 0, "nothing is held back while readers keep up");
    }
}
