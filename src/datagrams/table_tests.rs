//! The table of flows against a model: a list of all flows in the order of their use.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::table::{ANSWER_MS, FlowKey, FlowTable, FlowTimeouts, WAITING_SHARE, held_max};
use crate::types::id::{Id, Kind};
use crate::types::peer::PeerId;
use crate::types::peer_network::PeerNetwork;

/// A step of a test.
#[derive(Clone, Debug)]
enum Step {
    Datagram { client: u8, source: u8, timeouts: u8 },
    Answer { at: usize },
    Payer { at: usize, payer: Option<u32> },
    Socket { at: usize },
    Hold { source: u8 },
    Release { at: usize },
    End { at: usize },
    Wait { ms: u64 },
}

/// A flow of the model.
#[derive(Clone, Debug)]
struct Flow {
    id: Id,
    key: FlowKey,
    source: PeerNetwork,
    timeouts: FlowTimeouts,
    is_answered: bool,
    used_ms: u64,
    payer: Option<u32>,
    has_socket: bool,
    /// The number of the last step at which it was used, and of those at which it went to the end of a list.
    used: usize,
    paid: usize,
    bound: usize,
}

const PER_SOURCE: usize = 8;
/// Places that are held at once.
const PLACES: usize = 2;
const PAYERS: u32 = 2;
/// The flows that a payer may have.
const SHARE: usize = 2;
const TIMEOUTS: [(u64, u64); 3] = [(100, 600), (1_000, 600), (0, 0)];

fn key(client: u8, source: u8) -> FlowKey {
    let owner = Id::from_u64(1 << 32 | (Kind::Listener as u64) << 28).unwrap();
    let client = SocketAddr::from(([10, 0, 0, source], 1000 + u16::from(client)));
    FlowKey { owner, client, dest: SocketAddr::from(([127, 0, 0, 1], 53)) }
}

impl Flow {
    fn due_ms(&self) -> Option<u64> {
        let wait_ms = if self.is_answered { self.timeouts.idle_ms } else { self.timeouts.first_answer_ms };
        (wait_ms > 0).then(|| self.used_ms + wait_ms)
    }

    fn note_use(&mut self, step: usize, now_ms: u64) {
        (self.used_ms, self.used, self.paid, self.bound) = (now_ms, step, step, step);
    }
}

/// Returns the flow of the model that makes room among `flows`, which are in the order of their list.
fn victim(flows: &[&Flow], room: usize, now_ms: u64) -> Option<Id> {
    let waiting = flows.iter().filter(|flow| !flow.is_answered).count();
    let first = |is_answered: bool| flows.iter().find(|flow| flow.is_answered == is_answered);
    let (Some(first), Some(second)) = (first(false), first(true)) else { return flows.first().map(|flow| flow.id) };
    let is_flood = waiting * WAITING_SHARE >= room;
    let is_first = is_flood || now_ms - first.used_ms >= ANSWER_MS || first.used < second.used;
    Some(if is_first { first.id } else { second.id })
}

/// Compares the heads of the lists of payers and of sockets with the model.
fn check_lists(table: &FlowTable<()>, model: &[Flow], now_ms: u64) {
    for payer in 0..PAYERS {
        let mut its: Vec<&Flow> = model.iter().filter(|flow| flow.payer == Some(payer)).collect();
        its.sort_by_key(|flow| flow.paid);
        let expected = (its.len() >= SHARE).then(|| victim(&its, SHARE, now_ms)).flatten();
        assert_eq!(table.victim_of_payer(PeerId(payer), SHARE, now_ms), expected);
    }
    let with_socket = model.iter().filter(|flow| flow.has_socket && !flow.is_answered);
    assert_eq!(table.oldest_with_socket(), with_socket.min_by_key(|flow| flow.bound).map(|flow| flow.id));
}

/// Returns the flows that have room beside held places.
fn room(places: usize, held: usize) -> usize {
    places - held.min(held_max(places))
}

/// Returns the flow of the model that must end before `new` ones of a network are opened.
fn expected(
    model: &[Flow],
    held: &[PeerNetwork],
    of: PeerNetwork,
    new: usize,
    capacity: usize,
    now_ms: u64,
) -> Option<Id> {
    let of_source: Vec<&Flow> = model.iter().filter(|flow| flow.source == of).collect();
    let its_room = room(PER_SOURCE, PLACES * held.iter().filter(|network| **network == of).count());
    let room = room(capacity, PLACES * held.len());
    if of_source.len() + new > its_room {
        victim(&of_source, its_room, now_ms)
    } else if model.len() + new > room {
        victim(&model.iter().collect::<Vec<_>>(), room, now_ms)
    } else {
        None
    }
}

fn run(capacity: usize, steps: Vec<Step>) {
    let (mut table, mut model) = (FlowTable::new(capacity, PER_SOURCE), Vec::<Flow>::new());
    let (mut now_ms, mut held) = (0, Vec::<PeerNetwork>::new());
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Datagram { client, source, timeouts } => {
                let key = key(client, source);
                let found = model.iter().position(|flow| flow.key == key);
                assert_eq!(table.find(&key), found.map(|at| model[at].id));
                if let Some(at) = found {
                    let mut flow = model.remove(at);
                    table.touch(flow.id, now_ms);
                    flow.note_use(number, now_ms);
                    model.push(flow);
                    check_lists(&table, &model, now_ms);
                    continue;
                }
                let network = PeerNetwork::from(key.client.ip());
                let expected = expected(&model, &held, network, 1, capacity, now_ms);
                assert_eq!(table.victim(network, now_ms), expected);
                if let Some(id) = expected {
                    assert_eq!(table.remove(id), Some(()));
                    model.retain(|flow| flow.id != id);
                }
                let (first_answer_ms, idle_ms) = TIMEOUTS[usize::from(timeouts)];
                let timeouts = FlowTimeouts { first_answer_ms, idle_ms };
                let id = table.insert(Some(key), network, timeouts, (), now_ms).unwrap();
                let new = Flow {
                    id,
                    key,
                    source: network,
                    timeouts,
                    is_answered: false,
                    used_ms: now_ms,
                    payer: None,
                    has_socket: false,
                    used: number,
                    paid: number,
                    bound: number,
                };
                model.push(new);
            }
            Step::Answer { at } if !model.is_empty() => {
                let mut flow = model.remove(at % model.len());
                table.answered(flow.id, now_ms);
                flow.is_answered = true;
                flow.note_use(number, now_ms);
                model.push(flow);
            }
            Step::Payer { at, payer } if !model.is_empty() => {
                let at = at % model.len();
                let flow = &mut model[at];
                table.set_payer(flow.id, payer.map(PeerId));
                (flow.payer, flow.paid) = (payer, number);
            }
            Step::Hold { source } => {
                let network = PeerNetwork::from(key(0, source).client.ip());
                let its = held.iter().filter(|other| **other == network).count();
                let is_full = |held: usize, places: usize| held > 0 && PLACES * (held + 1) > held_max(places);
                let is_held = !is_full(held.len(), capacity) && !is_full(its, PER_SOURCE);
                assert_eq!(table.hold(network, PLACES), is_held);
                if is_held {
                    held.push(network);
                }
                loop {
                    let victim = expected(&model, &held, network, 0, capacity, now_ms).filter(|_| is_held);
                    assert_eq!(table.excess(network, now_ms).filter(|_| is_held), victim);
                    let Some(victim) = victim else { break };
                    table.remove(victim);
                    model.retain(|flow| flow.id != victim);
                }
            }
            Step::Release { at } if !held.is_empty() => {
                let network = held.swap_remove(at % held.len());
                table.release(network, PLACES);
            }
            Step::Socket { at } if !model.is_empty() => {
                let at = at % model.len();
                let flow = &mut model[at];
                table.set_socket(flow.id);
                (flow.has_socket, flow.bound) = (true, number);
            }
            Step::End { at } if !model.is_empty() => {
                let flow = model.remove(at % model.len());
                assert_eq!((table.remove(flow.id), table.remove(flow.id)), (Some(()), None));
                assert_eq!(table.find(&flow.key), None);
            }
            Step::Wait { ms } => {
                now_ms += ms;
                let mut expired = Vec::new();
                while let Some(id) = table.expired(now_ms) {
                    table.remove(id);
                    expired.push(id);
                }
                let is_due = |flow: &Flow| flow.due_ms().is_some_and(|due_ms| due_ms <= now_ms);
                let mut due: Vec<Id> = model.iter().filter(|flow| is_due(flow)).map(|flow| flow.id).collect();
                model.retain(|flow| !is_due(flow));
                expired.sort();
                due.sort();
                assert_eq!(expired, due);
            }
            Step::Answer { .. }
            | Step::End { .. }
            | Step::Payer { .. }
            | Step::Socket { .. }
            | Step::Release { .. } => {}
        }
        assert_eq!(table.len(), model.len());
        assert_eq!(table.waiting(), model.iter().filter(|flow| !flow.is_answered).count());
        assert_eq!(table.next_ms(), model.iter().filter_map(Flow::due_ms).min());
        check_lists(&table, &model, now_ms);
    }
}

proptest! {
    #[test]
    fn the_table_finds_expires_and_evicts_the_flows_that_the_model_does(
        capacity in 1usize..24,
        steps in prop::collection::vec(prop_oneof![
            4 => (0u8..12, 0u8..4, 0u8..3).prop_map(|(client, source, timeouts)| Step::Datagram { client, source, timeouts }),
            3 => any::<usize>().prop_map(|at| Step::Answer { at }),
            1 => any::<usize>().prop_map(|at| Step::End { at }),
            2 => (any::<usize>(), prop::option::of(0..PAYERS)).prop_map(|(at, payer)| Step::Payer { at, payer }),
            2 => any::<usize>().prop_map(|at| Step::Socket { at }),
            1 => (0u8..4).prop_map(|source| Step::Hold { source }),
            1 => any::<usize>().prop_map(|at| Step::Release { at }),
            2 => (0u64..700).prop_map(|ms| Step::Wait { ms }),
        ], 0..200),
    ) {
        run(capacity, steps);
    }
}

#[test]
fn a_flow_with_a_socket_or_of_a_payer_is_found_behind_thousands_of_others() {
    let mut table = FlowTable::new(10_000, 0);
    let timeouts = FlowTimeouts { first_answer_ms: 10_000, idle_ms: 60_000 };
    let mut insert = |number: u16| {
        let client = SocketAddr::from(([10, 0, 0, 1], number));
        table.insert(Some(FlowKey { client, ..key(0, 0) }), client.ip().into(), timeouts, (), 0).unwrap()
    };
    let flows: Vec<Id> = (0..5_000).map(&mut insert).collect();
    flows[..4_990].iter().for_each(|id| table.set_payer(*id, Some(PeerId(7))));
    flows[4_990..].iter().for_each(|id| table.set_payer(*id, Some(PeerId(3))));
    flows[4_995..].iter().for_each(|id| table.set_socket(*id));
    assert_eq!(table.oldest_with_socket(), Some(flows[4_995]));
    table.answered(flows[4_995], 1);
    assert_eq!(table.oldest_with_socket(), Some(flows[4_996]), "an answered flow keeps its socket");
    assert_eq!(table.victim_of_payer(PeerId(3), 11, 1), None, "it has ten");
    assert_eq!(table.victim_of_payer(PeerId(3), 10, 1), Some(flows[4_990]));
}

#[test]
fn a_payer_whose_flows_are_all_answered_gives_up_the_least_recently_used_one() {
    let mut table = FlowTable::new(16, 0);
    let timeouts = FlowTimeouts { first_answer_ms: 10_000, idle_ms: 60_000 };
    let flows: Vec<Id> = (0..8).map(|_| table.insert(None, PeerNetwork::Local, timeouts, (), 0).unwrap()).collect();
    for id in &flows {
        table.set_payer(*id, Some(PeerId(0)));
        table.answered(*id, 1);
    }
    table.touch(flows[0], 2);
    assert_eq!(table.victim_of_payer(PeerId(0), 8, 2), Some(flows[1]));
}

#[test]
fn answered_flows_survive_a_flood_of_forged_sources() {
    let mut table = FlowTable::new(64, 0);
    let timeouts = FlowTimeouts { first_answer_ms: 10_000, idle_ms: 60_000 };
    let real: Vec<Id> = (0..16)
        .map(|client| {
            let key = key(client, 1);
            table.insert(Some(key), key.client.ip().into(), timeouts, (), 0).unwrap()
        })
        .collect();
    real.iter().for_each(|id| table.answered(*id, 1));
    for number in 0..100_000u32 {
        let client = SocketAddr::from((std::net::Ipv4Addr::from_bits(0x0b00_0000 + number), 1000));
        let now_ms = 10 + u64::from(number) / 100;
        while let Some(victim) = table.victim(client.ip().into(), now_ms) {
            table.remove(victim);
        }
        table.insert(Some(FlowKey { client, ..key(0, 0) }), client.ip().into(), timeouts, (), now_ms).unwrap();
    }
    assert_eq!(table.len(), 64);
    assert!(real.iter().all(|id| table.get(*id).is_some()));
}

#[test]
fn a_question_that_waits_for_its_answer_outlives_the_answered_questions_before_it() {
    let mut table = FlowTable::new(64, 0);
    let timeouts = FlowTimeouts { first_answer_ms: 10_000, idle_ms: 60_000 };
    for number in 0..1_000u16 {
        let key = FlowKey { client: SocketAddr::from(([10, 0, 0, 1], number)), ..key(0, 0) };
        let now_ms = 10 * u64::from(number);
        if let Some(victim) = table.victim(key.client.ip().into(), now_ms) {
            assert!(table.is_answered(victim), "question {number} ended another one");
            table.remove(victim);
        }
        let id = table.insert(Some(key), key.client.ip().into(), timeouts, (), now_ms).unwrap();
        if number % 8 > 0 {
            table.answered(id, now_ms + 5);
        } else {
            // Its answer is late: it comes with that of the next question.
            table.touch(id, now_ms);
        }
        if number % 8 == 1 {
            let late = FlowKey { client: SocketAddr::from(([10, 0, 0, 1], number - 1)), ..key };
            let late = table.find(&late).unwrap();
            table.answered(late, now_ms + 5);
        }
    }
}
