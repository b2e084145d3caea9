//! The table of flows against a model: a list of all flows in the order of their use.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::table::{ANSWER_MS, FlowKey, FlowTable, FlowTimeouts, WAITING_SHARE};
use crate::types::id::{Id, Kind};
use crate::types::peer_network::PeerNetwork;

/// A step of a test.
#[derive(Clone, Debug)]
enum Step {
    Datagram { client: u8, source: u8, timeouts: u8 },
    Answer { at: usize },
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
}

const PER_SOURCE: usize = 3;
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
}

/// Returns the flow of the model that makes room among `flows`, which are in the order of their use.
fn victim(flows: &[&Flow], room: usize, now_ms: u64) -> Id {
    let waiting = flows.iter().filter(|flow| !flow.is_answered).count();
    let first = flows.iter().find(|flow| !flow.is_answered);
    match first {
        Some(first) if waiting * WAITING_SHARE >= room || now_ms - first.used_ms >= ANSWER_MS => first.id,
        _ => flows[0].id,
    }
}

fn run(capacity: usize, steps: Vec<Step>) {
    let (mut table, mut model) = (FlowTable::new(capacity, PER_SOURCE), Vec::<Flow>::new());
    let mut now_ms = 0;
    for step in steps {
        match step {
            Step::Datagram { client, source, timeouts } => {
                let key = key(client, source);
                let found = model.iter().position(|flow| flow.key == key);
                assert_eq!(table.find(&key), found.map(|at| model[at].id));
                if let Some(at) = found {
                    let mut flow = model.remove(at);
                    table.touch(flow.id, now_ms);
                    flow.used_ms = now_ms;
                    model.push(flow);
                    continue;
                }
                let network = PeerNetwork::from(key.client.ip());
                let of_source: Vec<&Flow> = model.iter().filter(|flow| flow.source == network).collect();
                let expected = if of_source.len() >= PER_SOURCE {
                    Some(victim(&of_source, PER_SOURCE, now_ms))
                } else if model.len() >= capacity {
                    Some(victim(&model.iter().collect::<Vec<_>>(), capacity, now_ms))
                } else {
                    None
                };
                assert_eq!(table.victim(network, now_ms), expected);
                if let Some(id) = expected {
                    assert_eq!(table.remove(id), Some(()));
                    model.retain(|flow| flow.id != id);
                }
                let (first_answer_ms, idle_ms) = TIMEOUTS[usize::from(timeouts)];
                let timeouts = FlowTimeouts { first_answer_ms, idle_ms };
                let id = table.insert(Some(key), network, timeouts, (), now_ms).unwrap();
                model.push(Flow { id, key, source: network, timeouts, is_answered: false, used_ms: now_ms });
            }
            Step::Answer { at } if !model.is_empty() => {
                let mut flow = model.remove(at % model.len());
                table.answered(flow.id, now_ms);
                (flow.is_answered, flow.used_ms) = (true, now_ms);
                model.push(flow);
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
            Step::Answer { .. } | Step::End { .. } => {}
        }
        assert_eq!(table.len(), model.len());
        assert_eq!(table.waiting(), model.iter().filter(|flow| !flow.is_answered).count());
        assert_eq!(table.next_ms(), model.iter().filter_map(Flow::due_ms).min());
    }
}

proptest! {
    #[test]
    fn the_table_finds_expires_and_evicts_the_flows_that_the_model_does(
        capacity in 1usize..9,
        steps in prop::collection::vec(prop_oneof![
            4 => (0u8..4, 0u8..4, 0u8..3).prop_map(|(client, source, timeouts)| Step::Datagram { client, source, timeouts }),
            3 => any::<usize>().prop_map(|at| Step::Answer { at }),
            1 => any::<usize>().prop_map(|at| Step::End { at }),
            2 => (0u64..700).prop_map(|ms| Step::Wait { ms }),
        ], 0..120),
    ) {
        run(capacity, steps);
    }
}

#[test]
fn the_oldest_waiting_flow_that_fits_is_found_among_those_of_all_timers() {
    let mut table = FlowTable::new(64, 0);
    let flows: Vec<Id> = (0..6u8)
        .map(|number| {
            let timeouts = FlowTimeouts { first_answer_ms: [1_000, 2_000][usize::from(number % 2)], idle_ms: 600 };
            let key = key(number, 1);
            table.insert(Some(key), key.client.ip().into(), timeouts, number, 0).unwrap()
        })
        .collect();
    assert_eq!(table.oldest_waiting(|_| true), Some(flows[0]));
    assert_eq!(table.oldest_waiting(|number| *number > 2), Some(flows[3]));
    table.touch(flows[3], 1);
    assert_eq!(table.oldest_waiting(|number| *number > 2), Some(flows[4]));
    table.answered(flows[4], 1);
    assert_eq!(table.oldest_waiting(|number| *number > 2), Some(flows[5]));
    assert_eq!(table.oldest_waiting(|number| *number == 4), None, "it was answered");
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
