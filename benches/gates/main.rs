//! The gates: figures of time and rate that must hold, measured on real processes and real paths.
//!
//! `make gates`, or `cargo bench --bench gates -- [--runs N] [WORD...]` for the gates whose names contain one of the
//! words. Each gate is one line: the figure that it is compared with, the figure itself (the median of the runs, and
//! each run), the limit, and the verdict. The program ends with status 1 when a gate is missed. It is not a part of
//! `make test`: a test checks that something happens, and a gate measures how soon or how fast.
//!
//! # Adding a gate
//! Add a line to [`GATES`]. Its `run` measures once and returns a [`Run`].
//! * Attacks (`key-`, `stranger-`): `run` starts the node that it needs (see `node`), measures without the attack, then beside
//!   it. `echo` measures an echo over a link, `floods` holds the attacks of a permitted peer, `strangers` those of peers that
//!   never show a key; `replace` stops a node in order. The process and all its threads run on one processor, the node on
//!   another; where there is one processor only, the first line says so.
//! * Paths (`path-`): a link between two nodes over a path of a network of namespaces, and at the same moment plain TCP over a
//!   path of the same kind (see `network`). The figure is compared with that of plain TCP: the median of the ratios.
//! * Changes (`auto-`): the silence that a change of the network costs a link, beside the longest echo before it.
//! * The others measure the relay on loopback, timers, frames, and the networks of the tests themselves.

mod auto;
mod echo;
mod echoes;
mod emulation;
mod floods;
mod frames;
mod moments;
mod network;
mod node;
mod place;
mod rates;
mod relay;
mod replace;
mod strangers;

#[path = "../../tests/kit/link/bare.rs"]
#[allow(dead_code, reason = "the gates use a part of it")]
mod bare;
#[path = "../../tests/kit/hostile/mod.rs"]
mod hostile_kit;
#[path = "../../tests/kit/process/mod.rs"]
mod kit;
#[path = "../../tests/kit/net/mod.rs"]
mod net_kit;
#[path = "../../tests/kit/node/mod.rs"]
mod node_kit;
#[path = "../../tests/kit/hostile/served.rs"]
mod served;
// The module is private in the library, so this target compiles its source.
#[path = "../../src/tls/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the bench uses a part of it")]
mod tls;

use std::io;
use std::process::ExitCode;
use std::thread;

use place::Place;

/// One gate.
struct Gate {
    name: &'static str,
    /// The name of the measured figure.
    figure: &'static str,
    unit: &'static str,
    limit: Limit,
    run: fn(&Place) -> io::Result<Run>,
}

/// The values that pass.
#[derive(Clone, Copy)]
enum Limit {
    /// The largest median of the figure.
    AtMost(f64),
    /// The least median of the ratios of the figure to the one that it is compared with.
    TimesAtLeast(f64),
    /// The largest median of these ratios. So much of the figure does not count.
    TimesAtMost(f64, f64),
    /// The largest figure of nine in ten runs. There are at least ten.
    MostlyAtMost(f64),
}

/// The figures of one run.
struct Run {
    /// The figure for comparison: without the attack, or of plain TCP.
    plain: f64,
    /// The figure that the gate judges.
    beside: f64,
    /// The strength of the attack or other details, in words.
    attack: String,
}

const GATES: &[Gate] = &[
    Gate { name: "key-opens", figure: "echo p99", unit: "ms", limit: Limit::AtMost(5.0), run: floods::opens },
    Gate { name: "key-listens", figure: "echo p99", unit: "ms", limit: Limit::AtMost(5.0), run: floods::listens },
    Gate { name: "key-resets", figure: "echo p99", unit: "ms", limit: Limit::AtMost(5.0), run: floods::resets },
    Gate { name: "key-unopened", figure: "echo p99", unit: "ms", limit: Limit::AtMost(5.0), run: floods::unopened },
    Gate { name: "key-pieces", figure: "echo p99", unit: "ms", limit: Limit::AtMost(5.0), run: floods::pieces },
    Gate {
        name: "key-connections",
        figure: "echo p99",
        unit: "ms",
        limit: Limit::AtMost(5.0),
        run: floods::connections,
    },
    Gate {
        name: "key-connections-end",
        figure: "longest echo",
        unit: "ms",
        limit: Limit::AtMost(20.0),
        run: floods::ends,
    },
    Gate { name: "key-names", figure: "echo p99", unit: "ms", limit: Limit::AtMost(5.0), run: floods::names },
    Gate {
        name: "key-names-lookup",
        figure: "lookup of another key",
        unit: "ms",
        limit: Limit::AtMost(500.0),
        run: floods::lookups,
    },
    Gate {
        name: "stranger-silent-one",
        figure: "in or resumed",
        unit: "ms",
        limit: Limit::AtMost(1000.0),
        run: strangers::silent_one,
    },
    Gate {
        name: "stranger-silent-many",
        figure: "in or resumed",
        unit: "ms",
        limit: Limit::AtMost(1000.0),
        run: strangers::silent_many,
    },
    Gate {
        name: "stranger-one-byte-one",
        figure: "in or resumed",
        unit: "ms",
        limit: Limit::AtMost(1000.0),
        run: strangers::one_byte_one,
    },
    Gate {
        name: "stranger-one-byte-many",
        figure: "in or resumed",
        unit: "ms",
        limit: Limit::AtMost(1000.0),
        run: strangers::one_byte_many,
    },
    Gate {
        name: "stranger-hellos-one",
        figure: "in or resumed",
        unit: "ms",
        limit: Limit::AtMost(1000.0),
        run: strangers::hellos_one,
    },
    Gate {
        name: "stranger-hellos-many",
        figure: "in or resumed",
        unit: "ms",
        limit: Limit::AtMost(1000.0),
        run: strangers::hellos_many,
    },
    Gate {
        name: "stranger-few-silent",
        figure: "in or resumed",
        unit: "ms",
        limit: Limit::AtMost(1000.0),
        run: strangers::few_silent,
    },
    Gate {
        name: "stranger-few-one-byte",
        figure: "in or resumed",
        unit: "ms",
        limit: Limit::AtMost(1000.0),
        run: strangers::few_one_byte,
    },
    Gate {
        name: "stranger-few-hellos-one",
        figure: "in or resumed",
        unit: "ms",
        limit: Limit::AtMost(1000.0),
        run: strangers::few_hellos_one,
    },
    Gate {
        name: "stranger-few-hellos-many",
        figure: "in or resumed",
        unit: "ms",
        limit: Limit::AtMost(1000.0),
        run: strangers::few_hellos,
    },
    Gate {
        name: "far-node-replaced",
        figure: "longest connect",
        unit: "ms",
        limit: Limit::AtMost(1000.0),
        run: replace::far_node,
    },
    Gate {
        name: "stranger-echo-silent",
        figure: "echo p99",
        unit: "ms",
        limit: Limit::AtMost(5.0),
        run: strangers::echo_silent,
    },
    Gate {
        name: "stranger-echo-one-byte",
        figure: "echo p99",
        unit: "ms",
        limit: Limit::AtMost(5.0),
        run: strangers::echo_one_byte,
    },
    Gate {
        name: "stranger-echo-hellos",
        figure: "echo p99",
        unit: "ms",
        limit: Limit::AtMost(5.0),
        run: strangers::echo_hellos,
    },
    Gate {
        name: "path-stream",
        figure: "rate of 1 stream",
        unit: "Mbit/s",
        limit: Limit::TimesAtLeast(0.9),
        run: rates::one_stream,
    },
    Gate {
        name: "path-streams-64",
        figure: "rate of 64 streams",
        unit: "Mbit/s",
        limit: Limit::TimesAtLeast(0.9),
        run: rates::many_streams,
    },
    Gate {
        name: "path-streams-512",
        figure: "rate of 512 streams",
        unit: "Mbit/s",
        limit: Limit::TimesAtLeast(0.9),
        run: rates::very_many_streams,
    },
    Gate {
        name: "path-stalled-rate",
        figure: "rate beside a stalled reader",
        unit: "Mbit/s",
        limit: Limit::TimesAtLeast(0.9),
        run: rates::beside_stalled,
    },
    Gate {
        name: "path-stalled-echo",
        figure: "echo p99 of 1,000 streams beside a stalled reader",
        unit: "ms",
        limit: Limit::TimesAtMost(1.05, 0.0),
        run: echoes::beside_stalled,
    },
    Gate {
        name: "path-capped",
        figure: "rate of 4 subflows",
        unit: "Mbit/s",
        limit: Limit::TimesAtLeast(3.8),
        run: rates::capped,
    },
    Gate {
        name: "path-two-equal",
        figure: "rate over 2 paths",
        unit: "Mbit/s",
        limit: Limit::TimesAtLeast(0.95),
        run: |_| rates::two_paths(0, false),
    },
    Gate {
        name: "path-two-unequal",
        figure: "rate over 2 paths",
        unit: "Mbit/s",
        limit: Limit::TimesAtLeast(0.95),
        run: |_| rates::two_paths(1, false),
    },
    Gate {
        name: "path-two-unequal-reversed",
        figure: "rate over 2 paths",
        unit: "Mbit/s",
        limit: Limit::TimesAtLeast(0.95),
        run: |_| rates::two_paths(1, true),
    },
    Gate {
        name: "path-two-delays",
        figure: "rate over 2 paths",
        unit: "Mbit/s",
        limit: Limit::TimesAtLeast(0.95),
        run: |_| rates::two_paths(2, false),
    },
    Gate {
        name: "path-two-delays-reversed",
        figure: "rate over 2 paths",
        unit: "Mbit/s",
        limit: Limit::TimesAtLeast(0.95),
        run: |_| rates::two_paths(2, true),
    },
    Gate {
        name: "path-two-unlike",
        figure: "rate over 2 paths",
        unit: "Mbit/s",
        limit: Limit::TimesAtLeast(0.95),
        run: |_| rates::two_paths(3, false),
    },
    Gate {
        name: "path-two-unlike-reversed",
        figure: "rate over 2 paths",
        unit: "Mbit/s",
        limit: Limit::TimesAtLeast(0.95),
        run: |_| rates::two_paths(3, true),
    },
    Gate {
        name: "path-two-lossy",
        figure: "rate over 2 paths",
        unit: "Mbit/s",
        limit: Limit::TimesAtLeast(0.95),
        run: |_| rates::two_paths(4, false),
    },
    Gate {
        name: "path-two-lossy-reversed",
        figure: "rate over 2 paths",
        unit: "Mbit/s",
        limit: Limit::TimesAtLeast(0.95),
        run: |_| rates::two_paths(4, true),
    },
    Gate {
        name: "path-two-farther",
        figure: "rate in seconds 2 and 3",
        unit: "Mbit/s",
        limit: Limit::TimesAtLeast(0.8),
        run: rates::farther_path,
    },
    Gate {
        name: "path-two-slow",
        figure: "rate after a path is slow",
        unit: "Mbit/s",
        limit: Limit::TimesAtLeast(0.9),
        run: rates::slow_path,
    },
    Gate {
        name: "path-long-fat",
        figure: "rate of 1 stream at 1 Gbit/s and 100 ms",
        unit: "Mbit/s",
        limit: Limit::TimesAtLeast(0.9),
        run: rates::long_fat,
    },
    Gate {
        name: "path-echo-bulk",
        figure: "echo p99, added by bulk",
        unit: "ms",
        limit: Limit::MostlyAtMost(20.0),
        run: echoes::beside_bulk,
    },
    Gate {
        name: "path-echo-short-queue",
        figure: "median echo, added by bulk",
        unit: "ms",
        limit: Limit::AtMost(20.0),
        run: echoes::beside_bulk_short,
    },
    Gate {
        name: "path-bulk-echo",
        figure: "rate beside echoes",
        unit: "Mbit/s",
        limit: Limit::TimesAtLeast(0.8),
        run: echoes::bulk_beside,
    },
    Gate {
        name: "path-new-connections",
        figure: "longest connect",
        unit: "ms",
        limit: Limit::AtMost(1000.0),
        run: echoes::new_connections,
    },
    Gate {
        name: "auto-tcp-dropped",
        figure: "longest echo",
        unit: "ms",
        limit: Limit::AtMost(500.0),
        run: auto::tcp_dropped,
    },
    Gate {
        name: "auto-udp-dropped",
        figure: "longest echo",
        unit: "ms",
        limit: Limit::AtMost(500.0),
        run: auto::udp_dropped,
    },
    Gate {
        name: "auto-tcp-reset",
        figure: "longest echo",
        unit: "ms",
        limit: Limit::AtMost(500.0),
        run: auto::tcp_reset,
    },
    Gate { name: "auto-cable", figure: "longest echo", unit: "ms", limit: Limit::AtMost(500.0), run: auto::cable },
    Gate { name: "auto-walk", figure: "longest echo", unit: "ms", limit: Limit::AtMost(500.0), run: auto::walk },
    Gate {
        name: "auto-darkness",
        figure: "longest echo after it",
        unit: "ms",
        limit: Limit::AtMost(500.0),
        run: auto::darkness,
    },
    Gate {
        name: "link-connect-timeout",
        figure: "late by",
        unit: "ms",
        limit: Limit::AtMost(700.0),
        run: moments::connect_timeout,
    },
    Gate {
        name: "link-idle-timeout",
        figure: "late by",
        unit: "ms",
        limit: Limit::AtMost(700.0),
        run: moments::idle_timeout,
    },
    Gate { name: "link-end", figure: "all streams over", unit: "ms", limit: Limit::AtMost(1000.0), run: moments::end },
    Gate {
        name: "link-dead-port",
        figure: "port served again",
        unit: "ms",
        limit: Limit::AtMost(2000.0),
        run: moments::port_of_a_dead_client,
    },
    Gate {
        name: "link-frames",
        figure: "50,000 frames",
        unit: "ms",
        limit: Limit::TimesAtMost(1.5, 0.0),
        run: frames::among_many_streams,
    },
    Gate {
        name: "relay-byte",
        figure: "added to the round trip of a byte",
        unit: "ms",
        limit: Limit::AtMost(1.0),
        run: relay::byte,
    },
    Gate {
        name: "relay-two-writes",
        figure: "round trip of two writes",
        unit: "ms",
        limit: Limit::AtMost(30.0),
        run: relay::two_writes,
    },
    Gate {
        name: "relay-beside-transfer",
        figure: "round trip of a byte",
        unit: "ms",
        limit: Limit::TimesAtMost(5.0, 0.0),
        run: relay::beside_transfer,
    },
    Gate {
        name: "relay-slow-readers",
        figure: "slow readers, spliced",
        unit: "s",
        limit: Limit::TimesAtMost(3.0, 1.0),
        run: relay::slow_readers,
    },
    Gate {
        name: "relay-throttled",
        figure: "processor time of a slow stream",
        unit: "%",
        limit: Limit::AtMost(20.0),
        run: relay::throttled,
    },
    Gate {
        name: "relay-next-address",
        figure: "connected after",
        unit: "ms",
        limit: Limit::AtMost(1000.0),
        run: relay::next_address,
    },
    Gate { name: "kit-shaped", figure: "off its rate", unit: "%", limit: Limit::AtMost(10.0), run: emulation::shaped },
    Gate {
        name: "kit-emulated",
        figure: "off its rate",
        unit: "%",
        limit: Limit::AtMost(10.0),
        run: emulation::emulated_rate,
    },
    Gate {
        name: "kit-emulated-fast",
        figure: "off its rate",
        unit: "%",
        limit: Limit::AtMost(10.0),
        run: emulation::fast,
    },
    Gate {
        name: "kit-per-connection",
        figure: "off its rate",
        unit: "%",
        limit: Limit::AtMost(10.0),
        run: emulation::per_connection,
    },
    Gate { name: "kit-delay", figure: "off its delay", unit: "ms", limit: Limit::AtMost(2.0), run: emulation::delay },
];

fn main() -> ExitCode {
    let mut words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if words.iter().any(|word| word == "--list") {
        return ExitCode::SUCCESS;
    }
    let mut runs = 3;
    if let Some(at) = words.iter().position(|word| word == "--runs") {
        runs = words.get(at + 1).and_then(|word| word.parse().ok()).filter(|runs| *runs > 0).unwrap_or(runs);
        words.drain(at..words.len().min(at + 2));
    }
    let place = Place::take();
    println!("{}; {runs} runs of each gate", place.said());
    let is_chosen = |gate: &&Gate| words.is_empty() || words.iter().any(|word| gate.name.contains(word.as_str()));
    let missed = GATES.iter().filter(is_chosen).filter(|gate| !passes(gate, &place, runs)).count();
    if missed == 0 {
        return ExitCode::SUCCESS;
    }
    println!("{missed} missed");
    ExitCode::FAILURE
}

/// Measures a gate and prints its line. Returns true if the gate passes.
fn passes(gate: &Gate, place: &Place, runs: usize) -> bool {
    let mut measured = Vec::new();
    let runs = if matches!(gate.limit, Limit::MostlyAtMost(_)) { runs.max(10) } else { runs };
    for _ in 0..runs {
        match run(gate, place) {
            Ok(run) => measured.push(run),
            Err(error) => {
                println!("{:<22} MISSED: {error}", gate.name);
                return false;
            }
        }
    }
    let plain = median(measured.iter().map(|run| run.plain));
    let beside = median(measured.iter().map(|run| run.beside));
    let each: Vec<String> = measured.iter().map(|run| format!("{:.2}", run.beside)).collect();
    let attack = measured.last().map_or("", |run| &run.attack);
    let (passes, limit) = judge(gate, &measured);
    let verdict = if passes { "ok" } else { "MISSED" };
    println!(
        "{:<22} {} {plain:.2} {unit} alone, {beside:.2} {unit} beside ({}), {limit}: {verdict} [{attack}]",
        gate.name,
        gate.figure,
        each.join(" "),
        unit = gate.unit,
    );
    passes
}

/// Runs a gate once. A gate that attacks a node has the processors of the place; the others run as programs usually do,
/// on all processors, together with the load that they are compared with.
fn run(gate: &Gate, place: &Place) -> io::Result<Run> {
    if ["key-", "stranger-", "far-node-"].iter().any(|start| gate.name.starts_with(start)) {
        return (gate.run)(place);
    }
    thread::scope(|scope| {
        let run = scope.spawn(|| {
            place.spread();
            (gate.run)(place)
        });
        run.join().unwrap_or_else(|_| Err(io::Error::other("the gate panicked")))
    })
}

/// Returns true if the runs are within the limit of their gate, and the limit in words.
fn judge(gate: &Gate, runs: &[Run]) -> (bool, String) {
    let ratio = |slack: f64| median(runs.iter().map(|run| (run.beside - slack) / run.plain));
    match gate.limit {
        Limit::AtMost(most) => {
            (median(runs.iter().map(|run| run.beside)) <= most, format!("limit {most} {}", gate.unit))
        }
        Limit::MostlyAtMost(most) => {
            let within = runs.iter().filter(|run| run.beside <= most).count();
            (within * 10 >= runs.len() * 9, format!("{within} of {} runs within {most} {}", runs.len(), gate.unit))
        }
        Limit::TimesAtLeast(least) => (ratio(0.0) >= least, format!("{:.2} times, at least {least}", ratio(0.0))),
        Limit::TimesAtMost(most, slack) => (ratio(slack) <= most, format!("{:.2} times, limit {most}", ratio(slack))),
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
