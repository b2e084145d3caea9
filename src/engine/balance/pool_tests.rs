//! Unit tests of the table of targets, on a clock of their own.

use super::*;
use crate::engine::balance::listing::standing;
use crate::engine::discovery::Candidate;
use crate::types::upstream::Upstream;

fn candidates(texts: &[&str]) -> Candidates {
    Candidates::of(&texts.iter().map(|text| Upstream::parse(text).unwrap()).collect::<Vec<_>>())
}

fn pool(texts: &[&str]) -> Pool {
    Pool::new(Balance::RoundRobin, &candidates(texts))
}

fn refused() -> Failure {
    Reason::ConnectionRefused.into()
}

/// Returns the targets that clients get who come at a time and go at once.
fn chosen(pool: &mut Pool, count: usize, now_ms: u64) -> String {
    let targets: Vec<_> = (0..count)
        .map(|_| {
            let chosen = pool.choose(None, &[], now_ms).unwrap();
            pool.release(chosen.id, chosen.is_trial);
            format!("{}{}", chosen.target, if chosen.is_trial { "?" } else { "" })
        })
        .collect();
    targets.join(" ")
}

fn fail(pool: &mut Pool, id: u64, is_trial: bool, now_ms: u64) -> bool {
    let was_up = pool.failed(id, &refused(), is_trial, now_ms);
    pool.release(id, false);
    was_up
}

#[test]
fn a_target_that_fails_is_left_out_and_one_client_at_a_time_tries_it_again() {
    let mut pool = pool(&["a:1", "b:1"]);
    let first = pool.choose(None, &[], 0).unwrap();
    assert!(first.has_others && !first.is_trial);
    assert!(fail(&mut pool, first.id, false, 0));
    assert_eq!(chosen(&mut pool, 4, 999), "b:1 b:1 b:1 b:1");
    let trial = std::iter::from_fn(|| pool.choose(None, &[], 1000)).find(|chosen| chosen.is_trial).unwrap();
    assert_eq!(trial.target.to_string(), "a:1");
    assert_eq!(chosen(&mut pool, 4, 1000), "b:1 b:1 b:1 b:1", "one trial at a time");
    assert!(!fail(&mut pool, trial.id, true, 1000));
    assert_eq!(chosen(&mut pool, 4, 2999), "b:1 b:1 b:1 b:1", "the time doubles");
    let trial = std::iter::from_fn(|| pool.choose(None, &[], 3000)).find(|chosen| chosen.is_trial).unwrap();
    pool.connected(trial.id, 3000);
    assert!(chosen(&mut pool, 4, 3000).contains("a:1"));
    assert_eq!(pool.status()[0].state, TargetState::Up);
}

#[test]
fn a_client_that_leaves_during_a_trial_makes_room_for_the_next_one() {
    let mut pool = pool(&["a:1", "b:1"]);
    let first = pool.choose(None, &[], 0).unwrap();
    fail(&mut pool, first.id, false, 0);
    let trial = std::iter::from_fn(|| pool.choose(None, &[], 1000)).find(|chosen| chosen.is_trial).unwrap();
    pool.release(trial.id, true);
    assert!(chosen(&mut pool, 2, 1000).contains("a:1?"));
}

#[test]
fn the_failures_of_clients_on_their_way_count_and_prolong_nothing() {
    let mut pool = pool(&["a:1"]);
    let clients: Vec<_> = (0..20).map(|_| pool.choose(None, &[], 0).unwrap()).collect();
    let firsts = clients.iter().filter(|it| fail(&mut pool, it.id, it.is_trial, 5)).count();
    assert_eq!(firsts, 1);
    let status = pool.status();
    assert_eq!((status[0].state, status[0].failures, status[0].active), (TargetState::LeftOut, 20, 0));
    assert!(pool.choose(None, &[], 1005).unwrap().is_trial);
}

#[test]
fn a_client_gets_a_target_that_is_left_out_if_there_is_no_other() {
    let mut pool = pool(&["a:1", "b:1"]);
    let (a, b) = (pool.choose(None, &[], 0).unwrap(), pool.choose(None, &[], 0).unwrap());
    fail(&mut pool, a.id, false, 0);
    fail(&mut pool, b.id, false, 0);
    let again = pool.choose(None, &[], 1).unwrap();
    assert!(!again.is_trial && again.is_suspect);
    let other = pool.choose(None, &[again.id], 1).unwrap();
    assert!(other.id != again.id && !other.has_others);
    assert_eq!(pool.choose(None, &[again.id, other.id], 1), None);
    pool.connected(other.id, 2);
    assert_eq!(pool.status().iter().filter(|it| it.state == TargetState::Up).count(), 1);
}

#[test]
fn a_rule_or_a_limit_leaves_no_target_out() {
    let mut pool = pool(&["a:1"]);
    for reason in [Reason::NotPermitted, Reason::LimitReached, Reason::LinkLost] {
        let chosen = pool.choose(None, &[], 0).unwrap();
        assert!(!pool.failed(chosen.id, &reason.into(), false, 0), "{reason:?}");
        pool.release(chosen.id, false);
    }
    assert_eq!((pool.status()[0].state, pool.status()[0].failures), (TargetState::Up, 3));
}

#[test]
fn a_target_that_leaves_the_list_stays_until_its_last_connection_is_over() {
    let mut pool = pool(&["a:1", "b:1"]);
    let client = pool.choose(None, &[], 0).unwrap();
    pool.update(Listing::of(&candidates(&["b:1", "c:1"])));
    assert!(!chosen(&mut pool, 6, 0).contains("a:1"));
    assert!(chosen(&mut pool, 6, 0).contains("c:1"));
    assert_eq!(pool.status()[0].state, TargetState::Leaving);
    pool.release(client.id, false);
    assert_eq!(pool.status().len(), 2);
    // A target that comes back while it has a connection keeps its figures.
    let client = pool.choose(None, &[], 0).unwrap();
    let opened = |pool: &Pool, id: u64| pool.entries.iter().find(|it| it.id == id).map(|it| it.opened);
    let before = opened(&pool, client.id);
    pool.update(Listing::of(&candidates(&[])));
    pool.update(Listing::of(&candidates(&["b:1", "c:1"])));
    assert_eq!(opened(&pool, client.id), before);
}

#[test]
fn the_hosts_of_a_service_are_used_by_priority_and_weight_beside_other_targets() {
    let host = |upstream, target: &str, address: &str, priority, weight| Candidate {
        upstream,
        target: Target::parse(target).unwrap(),
        address: Some(address.parse().unwrap()),
        priority,
        weight,
        is_of_other_family: false,
    };
    let list = vec![
        Candidate { address: None, ..host(0, "plain:1", "10.0.0.9:1", 0, 0) },
        host(1, "a:1", "10.0.0.1:1", 10, 60),
        host(1, "a:1", "10.0.0.2:1", 10, 60),
        host(1, "b:1", "10.0.0.3:1", 10, 20),
        host(1, "b:1", "10.0.0.4:1", 20, 0),
        Candidate { is_of_other_family: true, ..host(1, "a:1", "[::1]:1", 10, 60) },
    ];
    let shown: Vec<_> = standing(&list);
    assert_eq!(shown, [(0, 1000), (0, 750), (0, 750), (0, 500), (2, 1000), (1, 1000)]);
    // The host of the next priority gets a client only if no other target can be used.
    let mut pool = Pool::new(Balance::LeastConnections, &Candidates { list: list[3..5].to_vec(), is_complete: true });
    let first = pool.choose(None, &[], 0).unwrap();
    assert_eq!(first.address.unwrap().to_string(), "10.0.0.3:1");
    assert_eq!(pool.choose(None, &[], 0).unwrap().address, first.address);
    fail(&mut pool, first.id, false, 0);
    assert_eq!(pool.choose(None, &[], 0).unwrap().address.unwrap().to_string(), "10.0.0.4:1");
}

#[test]
fn a_host_of_weight_zero_gets_a_small_share_and_equal_zeros_share_equally() {
    let host = |target: &str, weight| Candidate {
        upstream: 0,
        target: Target::parse(target).unwrap(),
        address: None,
        priority: 0,
        weight,
        is_of_other_family: false,
    };
    assert_eq!(standing(&[host("a:1", 0), host("b:1", 10)]), [(0, 1), (0, 2000)]);
    assert_eq!(standing(&[host("a:1", 0), host("b:1", 0)]), [(0, 1000), (0, 1000)]);
}

#[test]
fn a_target_that_stands_twice_in_a_list_has_both_shares() {
    let mut pool = pool(&["10.0.0.1:1", "10.0.0.1:1", "10.0.0.2:1"]);
    assert_eq!(pool.status().len(), 2);
    assert_eq!(chosen(&mut pool, 30, 0).matches("10.0.0.1:1").count(), 20);
}

#[test]
fn a_list_that_has_only_a_service_is_awaited_until_it_was_looked_up() {
    let mut pool = pool(&["srv:_x._tcp.a"]);
    assert!(pool.is_awaited() && pool.choose(None, &[], 0).is_none());
    pool.update(Listing::of(&Candidates { list: Vec::new(), is_complete: true }));
    assert!(!pool.is_awaited());
}
