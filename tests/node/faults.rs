//! Connections that break at every moment, some unnoticed by one end. The transfers must go on soon, without waiting
//! for the timer that detects a dead subflow. Over real sockets. `SEEDS=0..1000` runs more seeds.

use crate::node_kit;

use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use node_kit::faulty::Faulty;
use node_kit::*;
use seaprox::node::Timing;

/// Returns timers with which a silent subflow counts as dead only after the test's deadlines.
fn patient() -> Timing {
    Timing { dead: Duration::from_secs(120), ..timing() }
}

fn swap_over_faults(seed: u64) {
    let (server, client) = (Node::start(), Node::start());
    let faulty = Faulty::new(server.serve_at("127.0.0.1:0".parse().unwrap(), patient()), seed, 12);
    let link = client.link_with(faulty.addr, |config| (config.subflows, config.timing) = (2, patient()));
    let (listener, addr) = target();
    let front = client.forward(link, addr.into());
    let mut near = connect(front);
    let mut far = accept(&listener);
    const COUNT: u64 = 4 << 20;
    thread::scope(|scope| {
        let (mut near_out, mut far_out) = (near.try_clone().unwrap(), far.try_clone().unwrap());
        scope.spawn(move || {
            send_pattern(&mut near_out, seed, COUNT);
            near_out.shutdown(Shutdown::Write).unwrap();
        });
        scope.spawn(move || send_pattern(&mut far_out, seed + 1, COUNT));
        scope.spawn(|| {
            read_pattern(&mut far, seed, COUNT);
            assert_eq!(read_end(&mut far), Ok(0));
        });
        read_pattern(&mut near, seed + 1, COUNT);
    });
}

#[test]
fn transfers_survive_connections_that_break_after_any_number_of_bytes() {
    let seeds = std::env::var("SEEDS").ok().and_then(|seeds| {
        let (first, last) = seeds.split_once("..")?;
        Some(first.parse().ok()?..last.parse().ok()?)
    });
    for seed in seeds.unwrap_or(0..40) {
        println!("seed {seed}");
        let since = Instant::now();
        swap_over_faults(seed);
        println!("seed {seed} took {:?}", since.elapsed());
    }
}
