//! A process that is changed to a configuration is the same as one that was started with it.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpStream};

use seaprox::node::{Direction, LinkStatus};
use seaprox::{ForwardState, LinkState, Loop};

use super::world::{Random, World};
use crate::config::{Client, Process};
use crate::kit::until;
use crate::node_kit::in_own_process;

/// A process as others see it.
#[derive(Debug, PartialEq, Eq)]
struct View {
    /// The addresses on which it listens.
    listening: BTreeSet<String>,
    /// The listeners, links and forwards of each loop.
    records: Vec<BTreeSet<String>>,
    /// The answers at all addresses, here and at the far nodes.
    answers: Vec<(SocketAddr, String)>,
}

#[test]
fn a_change_leads_to_the_same_process_as_a_start() {
    // Another test may start a program that holds a closed socket until its exec.
    in_own_process("reload::equivalence::a_change_leads_to_the_same_process_as_a_start", || {
        let pairs = std::env::var("SEAPROX_TEST_PAIRS").ok().and_then(|text| text.parse().ok()).unwrap_or(12);
        let seed = std::env::var("SEAPROX_TEST_SEED").ok().and_then(|text| text.parse().ok());
        let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) << 20 | 1);
        println!("SEAPROX_TEST_SEED={seed}");
        let world = World::new(2);
        let mut random = Random(seed);
        for threads in [1, 3] {
            let mut process = Process::start(world.config(&mut random, threads));
            for pair in 0..pairs {
                let (old, new) = (process.running.config().clone(), world.config(&mut random, threads));
                process
                    .running
                    .apply(new.clone())
                    .unwrap_or_else(|error| panic!("pair {pair}: {error}\n{old:#?}\n{new:#?}"));
                assert_eq!(process.running.config(), &new);
                let changed = view(&process, &world);
                drop(process);
                process = Process::start(new.clone());
                let started = view(&process, &world);
                assert!(
                    changed == started,
                    "pair {pair} of {old:#?}\nand {new:#?}\nchanged {changed:#?}\nstarted {started:#?}"
                );
            }
        }
    });
}

fn view(process: &Process, world: &World) -> View {
    let links = process.running.config().links.len();
    let is_settled = move |core: &mut Loop<'_>| {
        let is_up =
            |link: &LinkStatus| link.state == LinkState::Up && link.missing.is_empty() && link.blocked.is_empty();
        let dialed: Vec<_> = core.links().into_iter().filter(|link| link.dialled).collect();
        // A link that was dialed again leaves a moment after the new one is up. The links are in the first loop.
        [0, links].contains(&dialed.len())
            && dialed.iter().all(is_up)
            && core.forwards().iter().all(|forward| forward.state == ForwardState::Listening)
    };
    until("all links are up and all forwards listen", || {
        process.running.remotes().iter().all(|remote| remote.ask(is_settled).unwrap().wait().unwrap())
    });
    let listening = process.running.listening().iter().map(|it| format!("{it:?}")).collect();
    let records = process.running.remotes().iter().map(|remote| remote.ask(records).unwrap().wait().unwrap()).collect();
    let answers = world.near_addrs.iter().chain(&world.far_addrs).map(|addr| (*addr, answer(*addr))).collect();
    View { listening, records, answers }
}

fn records(core: &mut Loop<'_>) -> BTreeSet<String> {
    // The second address of a listener has the address in its name, and which one was first depends on the past.
    let plain = |name: &str| name.split(' ').next().unwrap_or_default().to_owned();
    let listeners = core.listeners();
    let listeners =
        listeners.iter().map(|it| format!("{} {} {} {}", plain(&it.name), it.kind, it.addr, it.link.is_some()));
    let mut records: BTreeSet<String> = listeners.collect();
    let links = core.links();
    let links = links.iter().filter(|link| link.dialled);
    records.extend(links.map(|link| format!("link {} {} {} subflows", link.peer, link.mode, link.subflows.len())));
    for forward in core.forwards() {
        let is_local = forward.direction == Direction::Local;
        records.insert(format!("forward {} {is_local} {} {:?}", forward.name, forward.asked, forward.to));
    }
    records
}

/// Returns the answer of a target, or how the client was refused.
fn answer(addr: SocketAddr) -> String {
    match TcpStream::connect(addr) {
        Ok(client) => {
            Client::of(client).ask().map_or_else(|_| "closed".to_owned(), |byte| char::from(byte).to_string())
        }
        Err(error) => error.kind().to_string(),
    }
}
