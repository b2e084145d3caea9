//! Carriers of several kinds in one session: streams, records, lanes with messages.

use crate::link_kit;

use link_kit::app::Plan;
use link_kit::peer::{FIRST, Peer};
use link_kit::pipe::{Manner, Shape};
use link_kit::{CLIENT, SERVER, World, gates, pattern};
use seaprox::link::frame::Class;
use seaprox::link::{Config, Open, SessionRole, StreamId, SubflowId};

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

/// The bytes per second of the path of [`slow_quic`].
const RATE: f64 = 750_000.0;

/// Returns a started world with one path of QUIC of 6 Mbit/s and 10 ms, and its subflow.
fn slow_quic() -> (World, SubflowId) {
    let mut world = World::new(7, Config::default());
    world.add_path(Shape { lowat: 4 << 10, ..Shape::new(6, 10) });
    world.paths[0].manner = Manner { message_bytes_max: 0, ..Manner::quic(15, 0) };
    world.start();
    world.run_until_up(1);
    let id = world.conns[0].id;
    (world, id)
}

/// Bytes that were sent may be lost, such as in a full queue.
#[test]
fn a_subflow_has_delivered_what_its_peer_has_processed_and_not_what_was_sent() {
    for from in [CLIENT, SERVER] {
        let (mut world, id) = slow_quic();
        let stream = world.open(CLIENT, gates::endless());
        world.run_for(1_000_000);
        let read = world.ends[SERVER].app.streams[&stream].read;
        let delivered = |world: &mut World| world.session(from).delivered(id).unwrap();
        assert!(
            (read - read / 5..read + read / 5).contains(&delivered(&mut world)),
            "{} of {read}",
            delivered(&mut world)
        );
        let until = world.now.after(10_000_000);
        (0..16).for_each(|lane| world.conns[0].pipes[CLIENT].hold_lane(lane, until));
        world.run_for(50_000);
        let (before, sent) = (delivered(&mut world), world.session(CLIENT).stats().data_bytes[0]);
        world.run_for(100_000);
        let sent = world.session(CLIENT).stats().data_bytes[0] - sent;
        let delivered = delivered(&mut world) - before;
        // The peer acknowledges, and asks if the path is alive.
        assert!(sent > 5_000 && delivered < 100, "{delivered} bytes of {sent}");
    }
}

/// Writes 100 bytes every 20 ms beside a bulk transfer over a slow path of QUIC, on which a loss of a bulk frame is repaired late
/// now and then. Returns the delays of the writes in milliseconds, sorted, the share of the path that bulk has used, and the least
/// and the highest rate that the session has believed in, in shares of that of the path. The path alone takes 10 ms, and a frame 5
/// more.
fn delays_beside_bulk(bulk: usize) -> (Vec<u64>, f64, [f64; 2]) {
    const BYTES: u64 = 100;
    let (mut world, id) = slow_quic();
    world.session(CLIENT).set_window(id, 32 << 10);
    let bulk: Vec<StreamId> = (0..bulk).map(|_| world.open(CLIENT, gates::endless())).collect();
    let plan = Plan { chunk: 1, ..Plan::up(1 << 40) };
    let now = world.now;
    let small = world.session(CLIENT).open(now, Open { source: plan.text(), ..Open::name("a", 1) }).unwrap();
    world.ends[CLIENT].app.adopt(small, plan);
    world.run_for(1_000_000);
    let moved = |world: &World| bulk.iter().map(|id| world.ends[SERVER].app.streams[id].read).sum::<u64>();
    let before = moved(&world);
    let (mut written, mut waiting, mut delays) = (0, std::collections::VecDeque::new(), Vec::new());
    let mut rates = [f64::MAX, 0.0];
    for ms in 0..20_000u64 {
        if ms % 300 == 0 {
            // A packet and its repair are lost.
            let lane = 1 + (bulk[0].0 / 2) as u16 % 15;
            let until = world.now.after(60_000);
            world.conns[0].pipes[CLIENT].hold_lane(lane, until);
        }
        if ms % 20 == 0 {
            let mut chunk = pattern::slice(u64::from(small.0) * 2, written, BYTES as usize);
            world.session(CLIENT).write(small, &mut chunk).unwrap();
            written += BYTES;
            waiting.push_back((written, ms));
        }
        world.run_for(1000);
        let rate = world.session(CLIENT).path(id).map_or(0, |(_, rate, ..)| rate) as f64 / RATE;
        rates = [rates[0].min(rate), rates[1].max(rate)];
        let read = world.ends[SERVER].app.streams[&small].read;
        while let Some(&(_, since)) = waiting.front().filter(|(end, _)| *end <= read) {
            waiting.pop_front();
            delays.push(ms + 1 - since);
        }
    }
    delays.sort_unstable();
    (delays, (moved(&world) - before) as f64 / RATE / 20.0, rates)
}

/// The congestion control of a carrier may not slow down for losses, so some lane may always have a gap.
#[test]
fn the_rate_of_a_path_is_measured_though_it_loses_packets_in_each_round_trip() {
    const RATES: [u64; 2] = [4_000_000, 12_500_000];
    let mut world = World::new(7, Config::default());
    world.add_path(Shape::new(100, 10));
    world.paths[0].manner = Manner { message_bytes_max: 0, ..Manner::quic(15, 2) };
    world.start();
    world.run_until_up(1);
    let id = world.conns[0].id;
    (0..15).for_each(|_| _ = world.open(CLIENT, gates::endless()));
    for rate in RATES {
        let now = world.now;
        world.conns[0].pipes[CLIENT].set_rate(now, rate);
        world.run_for(5_000_000);
        let measured = world.session(CLIENT).measured_rate(id).unwrap_or(0) as f64 / rate as f64;
        assert!((0.6..1.6).contains(&measured), "{measured:.2} of {rate}");
    }
}

#[test]
fn small_messages_do_not_wait_for_the_repair_of_a_bulk_transfer() {
    for bulk in [1, 4] {
        let (delays, share, rates) = delays_beside_bulk(bulk);
        let at = |percent: usize| delays[delays.len() * percent / 100];
        let said = format!("{bulk} transfers: {} and {} ms, {share:.3} of the path, {rates:.2?}", at(50), at(99));
        assert!(delays.len() > 900 && at(50) <= 20 && at(99) <= 26, "{said}");
        assert!(share > 0.95 && rates[0] > 0.6 && rates[1] < 1.5, "{said}");
    }
}

#[test]
fn two_subflows_are_on_trial_while_both_carry_and_one_was_a_backup() {
    let mut peer = Peer::of(SessionRole::Client, Config::default(), 0);
    // A subflow may join once the first one is up.
    (0..8).for_each(|_| drop(peer.keep_alive(FIRST)));
    let second = peer.join(SubflowId(FIRST.0 + 1));
    assert!(!peer.session.are_on_trial([FIRST, second]), "two paths that were never backups stripe");
    peer.session.set_class(second, Class::Backup);
    assert!(!peer.session.are_on_trial([FIRST, second]), "a backup does not carry");
    peer.session.set_class(second, Class::Active);
    assert!(peer.session.are_on_trial([FIRST, second]) && peer.session.are_on_trial([second, FIRST]));
    assert!(!peer.session.are_on_trial([FIRST, SubflowId(second.0 + 1)]), "there is no such subflow");
}
