//! Unit tests of [`super`], and a simulation of a peer that comes beside floods.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use super::*;

type Table = Unauthenticated<u32>;

const ROOM: (usize, u64) = (256, 5_000);

fn network(number: u32) -> PeerNetwork {
    PeerNetwork::V4(Ipv4Addr::from_bits(number))
}

/// Lets a connection enter. Returns none if it was refused, otherwise the connection that lost its place to it.
fn enter(table: &mut Table, id: u32, from: u32, now_ms: u64, random: u64) -> Option<Option<u32>> {
    let (seat, evicted) = table.enter(network(from), ROOM, now_ms, random)?;
    table.sit(id, seat);
    Some(evicted)
}

/// Returns the recent cost of a network.
fn cost(table: &Table, network: PeerNetwork, now_ms: u64) -> u32 {
    table.costs.index.get(&network).map_or(0, |slot| table.costs.entries[*slot].now(now_ms))
}

/// Returns numbers that are spread well enough for a test.
fn random(n: u64) -> u64 {
    let mut x = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5851_F42D_4C95_7F2D;
    x ^= x >> 29;
    x = x.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x ^ (x >> 32)
}

#[test]
fn at_the_limit_silent_peers_are_displaced_first() {
    let mut table = Table::new();
    for id in 0..192 {
        assert_eq!(enter(&mut table, id, id, 0, 0), Some(None));
        if id != 17 && id != 33 {
            table.reach(id, Step::Part);
        }
    }
    let late = GRACE_MS;
    let gone: HashSet<_> = (0..2).map(|n| enter(&mut table, 300 + n, 300 + n, late, 0).unwrap().unwrap()).collect();
    assert_eq!(gone, HashSet::from([17, 33]));
    let third = enter(&mut table, 302, 302, late, 0).unwrap().unwrap();
    assert!(third < 192, "then one of those that have sent a part, and not the two that have just come: {third}");
    assert_eq!(table.len(), 192, "a quarter of 256 is kept");
}

#[test]
fn one_network_has_a_quarter_of_the_places_once_half_are_used() {
    let mut table = Table::new();
    let of_seven = |table: &Table| table.places.iter().filter(|place| place.seat.network == network(7)).count();
    (0..1_000).for_each(|id| _ = enter(&mut table, id, 7, 0, random(id.into())));
    assert_eq!(of_seven(&table), 128, "it has the first half alone");
    // Other connections come and displace it until they have a quarter of the places.
    (2_000..2_192).for_each(|id| assert!(enter(&mut table, id, id, 1, random(id.into())).is_some(), "{id}"));
    assert_eq!(of_seven(&table), 0, "each of the others has cost less");
    let mut table = Table::new();
    (0..80).for_each(|id| _ = enter(&mut table, id, id, 0, 0));
    (100..300).for_each(|id| _ = enter(&mut table, id, 7, 0, random(id.into())));
    assert_eq!((of_seven(&table), table.len()), (64, 143), "its next ones replace its own");
}

#[test]
fn a_quarter_of_the_places_is_kept_for_networks_with_a_recent_key() {
    let mut table = Table::new();
    table.know(network(5), 0);
    (100..1_100).for_each(|id| _ = enter(&mut table, id, id, 1_000, random(id.into())));
    assert_eq!(table.len(), 192);
    for id in 0..64 {
        assert_eq!(enter(&mut table, id, 5, KNOWN_MS - 1, 0), Some(None), "{id}");
    }
    assert_eq!(table.len(), 256);
    // The crowd does not displace the answered connections.
    (2_000..3_000).for_each(|id| _ = enter(&mut table, id, id, KNOWN_MS - 1, random(id.into())));
    assert_eq!(table.places.iter().filter(|place| place.id < 64).count(), 64);
    let mut table = Table::new();
    table.know(network(5), 0);
    (100..1_100).for_each(|id| _ = enter(&mut table, id, id, KNOWN_MS, random(id.into())));
    enter(&mut table, 0, 5, KNOWN_MS, 0);
    assert_eq!(table.len(), 192, "an hour later it is one of many");
}

#[test]
fn equal_peers_are_displaced_at_random() {
    let mut gone = HashSet::new();
    for n in 0..600 {
        let mut table = Table::new();
        (0..192).for_each(|id| _ = enter(&mut table, id, id, 0, 0));
        gone.insert(enter(&mut table, 300, 300, 1, random(n)).unwrap().unwrap());
    }
    assert!(gone.len() > 150, "each of them may: {}", gone.len());
}

#[test]
fn a_peer_of_a_more_expensive_network_is_displaced_before_a_new_one() {
    let mut table = Table::new();
    (0..1_920).for_each(|id| _ = enter(&mut table, id, id % 192, 0, random(id.into())));
    assert_eq!(enter(&mut table, 2_000, 2_000, 1, 3).map(|evicted| evicted.is_some()), Some(true));
    // Each other network has cost ten. None of them displaces it, however many come.
    (3_000..4_000).for_each(|id| _ = enter(&mut table, id, id % 192, 2, random(id.into())));
    assert!(table.places.iter().any(|place| place.id == 2_000));
}

#[test]
fn newcomers_displace_no_answered_peer_and_three_quarters_at_most_are_answered() {
    let mut table = Table::new();
    let mut answered = Vec::new();
    for id in 0..3_000 {
        enter(&mut table, id, id, 0, random(id.into()));
        table.wait(id);
        answered.extend(table.serve(0, random(id.into())));
        assert!(table.places.iter().filter(|place| place.step == Step::Answered).count() <= 144);
    }
    assert!(answered.len() > 1_000, "{}", answered.len());
    let mut table = Table::new();
    enter(&mut table, 0, 0, 0, 0);
    table.wait(0);
    assert_eq!(table.serve(0, 0), Some((0, None)));
    (1..10_000).for_each(|id| _ = enter(&mut table, id, id, 0, random(id.into())));
    assert!(table.places.iter().any(|place| place.id == 0));
}

#[test]
fn networks_take_turns() {
    let mut table = Table::new();
    let mut id = 0;
    // One network requests twenty handshakes, three others five each.
    for (from, count) in [(1, 20), (2, 5), (3, 5), (4, 5)] {
        for _ in 0..count {
            enter(&mut table, id, from, 0, 0);
            table.wait(id);
            id += 1;
        }
    }
    let served: Vec<u32> = (0..15).filter_map(|n| table.serve(0, random(n))).map(|(id, _)| id).collect();
    assert!(served.iter().all(|id| *id >= 20), "those that ask for less go first: {served:?}");
    for three in served.chunks(3) {
        let networks: HashSet<u32> = three.iter().map(|id| (id - 20) / 5).collect();
        assert_eq!(networks.len(), 3, "in turn: {served:?}");
    }
    assert!(table.serve(0, 0).is_some_and(|(id, _)| id < 20));
}

#[test]
fn a_second_message_is_computed_before_a_first_one() {
    let mut table = Table::new();
    for id in 0..2 {
        enter(&mut table, id, id, 0, 0);
        table.wait(id);
    }
    let (first, _) = table.serve(0, 0).unwrap();
    table.wait(first);
    assert_eq!(table.serve(0, 0), Some((first, None)));
    assert_eq!(table.serve(0, 0), Some((1 - first, None)));
    assert_eq!((table.serve(0, 0), table.has_waiting()), (None, false));
}

#[test]
fn the_time_for_a_handshake_shrinks_with_the_room() {
    let mut table = Table::new();
    (0..128).for_each(|id| _ = enter(&mut table, id, id, 0, 0));
    assert!(!table.is_crowded());
    assert_eq!((table.overdue(4_999).len(), table.overdue(5_000).len()), (0, 128), "all of it up to half");
    (128..192).for_each(|id| _ = enter(&mut table, id, id, 0, 0));
    assert!(table.is_crowded());
    assert_eq!((table.overdue(2_999).len(), table.overdue(3_000).len()), (0, 192), "three fifths at three quarters");
    (0..64).for_each(|id| table.know(network(200 + id), 0));
    (200..264).for_each(|id| _ = enter(&mut table, id, id, 0, 0));
    assert_eq!((table.overdue(999).len(), table.overdue(1_000).len()), (0, 256), "a fifth when all are used");
}

#[test]
fn the_tables_are_bounded_and_keep_expensive_networks() {
    let mut table = Table::new();
    (0..10_000).for_each(|id| _ = enter(&mut table, id, 7, 0, random(id.into())));
    let before = cost(&table, network(7), 0);
    assert_eq!(before, 10_000 - FREE_MAX);
    for id in 0..40_000u32 {
        enter(&mut table, id, 1_000 + id, 1, random(id.into()));
        if id < 4_500 {
            table.know(network(1_000 + id), 1);
        }
    }
    assert_eq!((table.costs.entries.len(), table.costs.index.len()), (COSTS_MAX, COSTS_MAX));
    assert_eq!(table.known.len(), KNOWN_MAX);
    assert_eq!(cost(&table, network(7), 1), before, "a crowd does not make a costly network cheap");
    assert_eq!(cost(&table, network(7), CAME_HALVES_MS), 5_000 - FREE_MAX);
    assert_eq!(cost(&table, network(7), 100 * SERVED_HALVES_MS), 0);
    let held: u32 = table.costs.entries.iter().map(|entry| entry.held).sum();
    assert_eq!(held as usize, table.len());
}

#[test]
fn an_admitted_key_clears_the_cost_of_its_connection() {
    let mut table = Table::new();
    for id in 0..100 {
        enter(&mut table, id, 7, 0, 0);
        table.wait(id);
        table.serve(0, 0);
        table.reach(id, Step::Admitted);
        table.join(id, 0);
    }
    assert_eq!((cost(&table, network(7), 0), table.len()), (0, 0));
    assert!(table.is_known(network(7), 0));
}

/// The bytes that a flood sends after each connect.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Flood {
    Silence,
    OneByte,
    Hellos,
}

/// Lets each network of a flood come a few times. That takes three seconds at 20,000 connections a second from 10,000
/// networks; before that, a peer is one of many new networks.
fn warm(table: &mut Table, networks: u32) {
    for from in 0..networks {
        (0..6).for_each(|n| _ = table.costs.add(network(from), 0, n, Cost::come));
    }
}

/// Simulates a loop that accepts `rate` connections a second of a flood from a number of networks, and computes 800
/// handshakes a second. A peer comes after 0.2 s, with a round trip of 40 ms, and retries as a link does. Returns the time
/// at which it was admitted.
fn in_after_ms(flood: Flood, rate: u64, networks: u32, seed: u64) -> Option<u64> {
    let (mut table, mut next_id, mut n) = (Table::new(), 1_000u32, random(seed));
    let mut draw = || {
        n = random(n);
        n
    };
    const PEER: u32 = u32::MAX;
    if rate > 10_000 {
        warm(&mut table, networks);
    }
    // The time of the peer's next step: it connects, sends its hello, or answers.
    let (mut peer_id, mut tries, mut due_us, mut step) = (0u32, 0u32, 200_000u64, Step::Silent);
    for tick in 0..6_100u64 {
        let now_us = tick * 200;
        let now_ms = now_us / 1000;
        for _ in 0..(rate * (tick + 1) / 5_000 - rate * tick / 5_000) {
            next_id += 1;
            let from = (draw() % u64::from(networks)) as u32;
            if enter(&mut table, next_id, from, now_ms, draw()).is_some() {
                match flood {
                    Flood::Silence => {}
                    Flood::OneByte => table.reach(next_id, Step::Part),
                    Flood::Hellos => table.wait(next_id),
                }
            }
        }
        let is_there = table.places.iter().any(|place| place.id == peer_id);
        if now_us >= due_us && step == Step::Silent {
            (peer_id, tries) = (next_id + 1, tries + 1);
            next_id += 1;
            match enter(&mut table, peer_id, PEER, now_ms, draw()) {
                // The hello follows the acknowledgement directly.
                Some(_) => (step, due_us) = (Step::Part, now_us + 400),
                None => due_us = now_us + (200_000 << tries),
            }
        } else if step != Step::Silent && !is_there {
            (step, due_us) = (Step::Silent, now_us + (200_000 << tries.saturating_sub(2)));
        } else if step == Step::Part && now_us >= due_us {
            table.wait(peer_id);
            step = Step::Whole;
        } else if step == Step::Answered && now_us >= due_us {
            return Some(now_ms - 200);
        }
        if tick % 6 == 0
            && let Some((served, _)) = table.serve(now_ms, draw())
            && served == peer_id
        {
            (step, due_us) = (Step::Answered, now_us + 40_000);
        }
        table.overdue(now_ms).into_iter().for_each(|id| table.leave(id));
    }
    None
}

#[test]
fn a_peer_is_admitted_within_a_second_beside_floods() {
    let floods = [
        (Flood::Silence, 20_000, 10_000),
        (Flood::OneByte, 20_000, 10_000),
        (Flood::Hellos, 20_000, 10_000),
        (Flood::Hellos, 20_000, 1),
        (Flood::Hellos, 1_000, 10_000),
    ];
    for (flood, rate, networks) in floods {
        let times: Vec<_> = (0..2).map(|seed| in_after_ms(flood, rate, networks, seed)).collect();
        println!("{flood:?} {rate}/s of {networks}: {times:?} ms");
        assert!(times.iter().all(|time| time.is_some_and(|ms| ms <= 1_000)), "{flood:?} {rate} {networks}: {times:?}");
    }
}

#[test]
fn answered_peers_that_send_without_end_do_not_keep_others_waiting() {
    let mut table = Table::new();
    for id in 0..4 {
        enter(&mut table, id, 7, 0, 0);
        table.wait(id);
        assert_eq!(table.serve(0, 0).map(|(id, _)| id), Some(id));
    }
    enter(&mut table, 100, 100, 1, 0);
    table.wait(100);
    let turn = (0..1_000).find(|turn| {
        // Each of the others has sent again as soon as it had its turn.
        (0..4).for_each(|id| table.wait(id));
        table.serve(2, random(*turn)).is_some_and(|(id, _)| id == 100)
    });
    assert_eq!(turn, Some(u64::from(4 * (TURNS_MAX - 1))));
    assert!(cost(&table, network(7), 2) > cost(&table, network(100), 2));
}
