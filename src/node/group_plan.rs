//! The plan of a group: which of its links stay, leave or come back, and which servers are dialed. The list of servers and
//! the states of the links alone decide.
//!
//! The group takes links and servers in this order, up to its maximum. Within each line the order of the list counts.
//!
//! ```text
//!   a link that is up                                   stays
//!   a link that is down for less than REPLACE_AFTER     stays
//!   a link that leaves, and is up                       comes back
//!   a server without a link                             is dialed; one that was given up lately comes after the others
//!   a link that is down for longer, or has failed       stays
//!   a server that was given up in this REPLACE_AFTER    is dialed
//!   a link that leaves, and is down                     comes back
//! ```
//! All others leave, and so does a link to a server that is not listed. A server whose link was closed by a caller is not
//! dialed, and a link that is being closed has no place.

use std::time::Duration;

/// The state of a listed server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ServerState {
    /// The time at which its link gave way to another server, because it was down.
    pub given_up_ms: Option<u64>,
    /// A caller has closed its link.
    pub is_closed: bool,
}

/// The state of a link of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MemberState {
    /// The place of its server in the list; none if it is not listed.
    pub server: Option<usize>,
    pub health: Health,
    pub is_leaving: bool,
}

/// The health of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// It has a subflow.
    Up,
    /// It has no subflow since this time.
    Down { since_ms: u64 },
    /// It has no subflow, and is of no use as it is, such as with a wrong key.
    Failed,
    /// It is being closed.
    Ended,
}

/// The changes of a group. The servers were dialed while the plan was made.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// The links that leave, by their places among the members.
    pub leave: Vec<usize>,
    /// The links that come back.
    pub back: Vec<usize>,
    /// The servers that are given up for now, because their links were down.
    pub given_up: Vec<usize>,
    /// The time at which another plan may differ, if nothing happens before.
    pub next_ms: Option<u64>,
}

/// A link or a server that may have a place in the group.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Seat {
    Member(usize),
    Server(usize),
}

/// The order in which links and servers get their places.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Up,
    Waiting,
    UpAgain,
    Unused,
    Dead,
    JustGivenUp,
    DeadAndLeaving,
}

/// Makes the plan of a group. `dial` dials a server, and returns false if that is not possible now.
pub(super) fn plan(
    servers: &[ServerState],
    members: &[MemberState],
    links_max: usize,
    now_ms: u64,
    mut dial: impl FnMut(usize) -> bool,
) -> Plan {
    let mut plan = Plan::default();
    let (mut taken, mut kept) = (0, vec![false; members.len()]);
    for (class, _, _, seat) in seats(servers, members, now_ms) {
        if taken == links_max {
            break;
        }
        match seat {
            Seat::Member(place) => {
                (kept[place], taken) = (true, taken + 1);
                if members[place].is_leaving {
                    plan.back.push(place);
                }
                if let (Class::Waiting, Health::Down { since_ms }) = (class, members[place].health) {
                    plan.look_at(since_ms.saturating_add(REPLACE_AFTER_MS));
                }
            }
            Seat::Server(server) if dial(server) => {
                taken += 1;
                plan.look_at(now_ms.saturating_add(REPLACE_AFTER_MS));
            }
            Seat::Server(_) => plan.look_at(now_ms.saturating_add(REPLACE_AFTER_MS)),
        }
    }
    for (place, member) in members.iter().enumerate() {
        let is_down = matches!(member.health, Health::Down { .. } | Health::Failed);
        match member.server {
            _ if member.is_leaving || member.health == Health::Ended => {}
            // A server that was given up may take the place of this one later.
            _ if kept[place] && is_down => {
                let rested = servers.iter().filter_map(|server| server.given_up_ms);
                let rested = rested.map(|at_ms| at_ms.saturating_add(REPLACE_AFTER_MS)).filter(|at_ms| *at_ms > now_ms);
                rested.min().into_iter().for_each(|at_ms| plan.look_at(at_ms));
            }
            _ if kept[place] => {}
            server => {
                plan.leave.push(place);
                plan.given_up.extend(server.filter(|_| is_down));
            }
        }
    }
    plan
}

/// Returns the links and the servers that may have a place, in their order.
fn seats(servers: &[ServerState], members: &[MemberState], now_ms: u64) -> Vec<(Class, u64, usize, Seat)> {
    let mut seats = Vec::new();
    for (place, member) in members.iter().enumerate() {
        let Some(server) = member.server else { continue };
        let class = match (member.is_leaving, member.health) {
            (_, Health::Ended) => continue,
            (false, Health::Up) => Class::Up,
            (true, Health::Up) => Class::UpAgain,
            (true, _) => Class::DeadAndLeaving,
            (false, Health::Down { since_ms }) if now_ms < since_ms.saturating_add(REPLACE_AFTER_MS) => Class::Waiting,
            (false, _) => Class::Dead,
        };
        seats.push((class, 0, server, Seat::Member(place)));
    }
    // A round over all servers is over by then, and the order of the list counts again.
    let round_ms = REPLACE_AFTER_MS.saturating_mul(2 * servers.len() as u64);
    for (server, state) in servers.iter().enumerate() {
        if state.is_closed || members.iter().any(|member| member.server == Some(server)) {
            continue;
        }
        let given_up_ms = state.given_up_ms.filter(|at_ms| now_ms < at_ms.saturating_add(round_ms));
        let is_rested = given_up_ms.is_none_or(|at_ms| at_ms.saturating_add(REPLACE_AFTER_MS) <= now_ms);
        let class = if is_rested { Class::Unused } else { Class::JustGivenUp };
        seats.push((class, given_up_ms.map_or(0, |at_ms| at_ms.saturating_add(1)), server, Seat::Server(server)));
    }
    seats.sort_unstable();
    seats
}

impl Plan {
    fn look_at(&mut self, at_ms: u64) {
        self.next_ms = Some(self.next_ms.map_or(at_ms, |next_ms| next_ms.min(at_ms)));
    }
}

/// Time after which a link that is not up gives way to a server without a link.
pub(super) const REPLACE_AFTER: Duration = Duration::from_secs(15);
const REPLACE_AFTER_MS: u64 = REPLACE_AFTER.as_millis() as u64;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const UP: Health = Health::Up;
    const SERVER: ServerState = ServerState { given_up_ms: None, is_closed: false };
    const NOW_MS: u64 = 1_000_000;

    fn stays(server: usize, health: Health) -> MemberState {
        MemberState { server: Some(server), health, is_leaving: false }
    }

    fn leaves(server: usize, health: Health) -> MemberState {
        MemberState { is_leaving: true, ..stays(server, health) }
    }

    fn down(for_ms: u64) -> Health {
        Health::Down { since_ms: NOW_MS - for_ms }
    }

    /// Returns the links that leave, those that come back, and the servers that are dialed.
    fn planned(servers: &[ServerState], members: &[MemberState], most: usize) -> (Vec<usize>, Vec<usize>, Vec<usize>) {
        let mut dialed = Vec::new();
        let plan = plan(servers, members, most, NOW_MS, |server| {
            dialed.push(server);
            true
        });
        (plan.leave, plan.back, dialed)
    }

    #[test]
    fn a_link_that_is_up_is_not_thrown_out_for_one_that_leaves() {
        for health in [UP, down(0), down(20_000), Health::Failed] {
            assert_eq!(planned(&[SERVER; 3], &[leaves(0, health), stays(1, UP)], 1), (vec![], vec![], vec![]));
        }
    }

    #[test]
    fn a_leaving_link_that_is_up_comes_back_for_one_that_is_down() {
        assert_eq!(planned(&[SERVER; 2], &[leaves(0, UP), stays(1, down(20_000))], 1), (vec![1], vec![0], vec![]));
        assert_eq!(planned(&[SERVER; 2], &[leaves(0, UP), stays(1, down(1))], 1), (vec![], vec![], vec![]));
    }

    #[test]
    fn a_server_without_a_link_goes_before_a_leaving_link_that_is_down() {
        let members = [leaves(0, down(40_000)), stays(1, down(20_000))];
        assert_eq!(planned(&[SERVER; 3], &members, 1), (vec![1], vec![], vec![2]));
        assert_eq!(planned(&[SERVER; 2], &members, 1), (vec![], vec![], vec![]));
    }

    #[test]
    fn servers_that_were_given_up_come_after_the_others_and_not_at_once() {
        let given_up = |ago_ms: u64| ServerState { given_up_ms: Some(NOW_MS - ago_ms), is_closed: false };
        let dead = [stays(2, down(20_000))];
        assert_eq!(planned(&[given_up(16_000), SERVER, SERVER], &dead, 1), (vec![0], vec![], vec![1]));
        assert_eq!(planned(&[given_up(16_000), given_up(30_000), SERVER], &dead, 1), (vec![0], vec![], vec![1]));
        assert_eq!(planned(&[given_up(1), given_up(2), SERVER], &dead, 1), (vec![], vec![], vec![]));
        // There is room, and no link has to go.
        assert_eq!(planned(&[given_up(1), given_up(2), SERVER], &dead, 2), (vec![], vec![], vec![1]));
        // The order of the list counts again.
        assert_eq!(planned(&[given_up(100_000), SERVER, SERVER], &dead, 1), (vec![0], vec![], vec![0]));
    }

    #[test]
    fn a_server_whose_link_was_closed_is_not_dialed_and_makes_room() {
        let closed = ServerState { is_closed: true, ..SERVER };
        assert_eq!(planned(&[closed, SERVER, SERVER], &[stays(1, UP)], 2), (vec![], vec![], vec![2]));
        assert_eq!(planned(&[SERVER; 3], &[stays(0, Health::Ended), stays(1, UP)], 2), (vec![], vec![], vec![2]));
    }

    #[test]
    fn a_server_that_cannot_be_dialed_leaves_its_place_to_the_next_one() {
        let mut dialed = Vec::new();
        let plan = plan(&[SERVER; 3], &[], 1, NOW_MS, |server| {
            dialed.push(server);
            server == 1
        });
        assert_eq!((dialed, plan.next_ms), (vec![0, 1], Some(NOW_MS + REPLACE_AFTER_MS)));
    }

    fn health() -> impl Strategy<Value = Health> {
        prop_oneof![
            3 => Just(UP),
            3 => (0..40_000_u64).prop_map(down),
            1 => Just(Health::Failed),
            1 => Just(Health::Ended),
        ]
    }

    /// Makes a list of servers, and members of which each has a server of its own, or one that is not listed.
    fn groups() -> impl Strategy<Value = (Vec<ServerState>, Vec<MemberState>, usize)> {
        let given_up_ms = proptest::option::of((0..100_000_u64).prop_map(|ago_ms| NOW_MS - ago_ms));
        let server = (given_up_ms, proptest::bool::weighted(0.1));
        let server = server.prop_map(|(given_up_ms, is_closed)| ServerState { given_up_ms, is_closed });
        let member = proptest::option::of((health(), any::<bool>(), proptest::bool::weighted(0.8)));
        (vec((server, member), 0..8), 1..5_usize).prop_map(|(all, most)| {
            let (mut servers, mut members) = (Vec::new(), Vec::new());
            for (server, member) in all {
                let is_listed = member.is_none_or(|(_, _, is_listed)| is_listed);
                if let Some((health, is_leaving, _)) = member {
                    members.push(MemberState { server: is_listed.then_some(servers.len()), health, is_leaving });
                }
                servers.extend(is_listed.then_some(server));
            }
            (servers, members, most)
        })
    }

    /// Applies a plan to a group. Returns the members afterwards, and the servers that were dialed.
    fn carried_out(servers: &mut [ServerState], members: &[MemberState], most: usize, now_ms: u64) -> Vec<MemberState> {
        let mut dialed = Vec::new();
        let plan = plan(servers, members, most, now_ms, |server| {
            dialed.push(server);
            true
        });
        let mut after = members.to_vec();
        plan.back.iter().for_each(|place| after[*place].is_leaving = false);
        plan.leave.iter().for_each(|place| after[*place].is_leaving = true);
        plan.given_up.iter().for_each(|server| servers[*server].given_up_ms = Some(now_ms));
        after.extend(dialed.into_iter().map(|server| stays(server, Health::Down { since_ms: now_ms })));
        after
    }

    fn is_in(member: &MemberState) -> bool {
        !member.is_leaving && member.health != Health::Ended
    }

    proptest! {
        #[test]
        fn each_plan_keeps_what_works_and_fills_the_group((mut servers, members, most) in groups()) {
            let before = servers.clone();
            let after = carried_out(&mut servers, &members, most, NOW_MS);
            let taken = after.iter().filter(|it| is_in(it)).count();
            prop_assert!(taken <= most, "{after:?}");
            prop_assert!(after.iter().filter(|it| is_in(it)).all(|it| it.server.is_some()), "not listed: {after:?}");
            let places: Vec<_> = after.iter().filter_map(|it| it.server).collect();
            prop_assert!((1..places.len()).all(|at| !places[..at].contains(&places[at])), "twice: {after:?}");
            let is_free = |server: usize| !places.contains(&server) && !servers[server].is_closed;
            let has_free = (0..servers.len()).any(is_free);
            let is_useful = |it: &MemberState| it.server.is_some() && it.health != Health::Ended;
            let is_left = after.iter().any(|it| it.is_leaving && is_useful(it));
            prop_assert!(taken == most || !has_free && !is_left, "there is room: {after:?}");
            for (old, new) in members.iter().zip(&after) {
                if is_in(old) && old.server.is_some() && old.health == UP && !is_in(new) {
                    let is_working = |it: &MemberState| is_in(it) && it.health == UP;
                    prop_assert_eq!(after.iter().filter(|it| is_working(it)).count(), most, "a working link left");
                }
                let is_long = |it: &MemberState| {
                    it.health == Health::Failed || matches!(it.health, Health::Down { since_ms } if since_ms + REPLACE_AFTER_MS <= NOW_MS)
                };
                if is_in(new) && is_long(new) {
                    let is_rested = |server: &ServerState| {
                        server.given_up_ms.is_none_or(|at_ms| at_ms + REPLACE_AFTER_MS <= NOW_MS)
                    };
                    prop_assert!(!(0..before.len()).any(|at| is_free(at) && is_rested(&before[at])), "{after:?}");
                    prop_assert!(after.iter().all(|it| !it.is_leaving || it.server.is_none() || it.health != UP));
                }
            }
            prop_assert_eq!(carried_out(&mut servers, &after, most, NOW_MS), after, "nothing is left to do");
        }

        /// Runs a group of which some servers answer, and checks that it uses one of them soon, however long the dead ones keep
        /// their streams.
        #[test]
        fn a_server_that_answers_is_found(answers in vec(any::<bool>(), 1..7), most in 1..4_usize, holds in vec(any::<bool>(), 7)) {
            prop_assume!(answers.contains(&true));
            let (mut servers, mut members, mut now_ms) = (vec![SERVER; answers.len()], Vec::new(), NOW_MS);
            let last_ms = NOW_MS + REPLACE_AFTER_MS * (answers.len() as u64 + 1);
            while !members.iter().any(|it: &MemberState| is_in(it) && it.health == UP) {
                prop_assert!(now_ms <= last_ms, "{members:?}");
                let next = plan(&servers, &members, most, now_ms, |_| true).next_ms;
                members = carried_out(&mut servers, &members, most, now_ms);
                prop_assert!(members.iter().filter(|it| is_in(it)).count() <= most);
                // Idle links that leave are closed, and the others may keep streams for as long as they like.
                members.retain(|it| is_in(it) || holds[it.server.unwrap()]);
                let is_dialed = members.iter_mut().filter(|it| answers[it.server.unwrap()]);
                is_dialed.for_each(|it| it.health = UP);
                now_ms = next.expect("another look");
            }
        }
    }
}
