//! The gates: figures of time and rate that hold beside an attack, measured on real processes.
//!
//! `make gates`, or `cargo bench --bench gates -- [--runs N] [WORD...]` for the gates whose names contain one of the
//! words. Each gate is one line: the figure without the attack, the figure beside it (the median of the runs, and each
//! run), the limit, and the verdict. The program ends with status 1 when a gate is missed. It is no part of `make
//! test`.
//!
//! # Adding a gate
//! Add a line to [`GATES`]. Its `run` measures once: it starts the node that it needs (see `node`), measures without
//! the attack, then beside it, and returns a [`Run`]. `echo` measures an echo over a link, `floods` holds the attacks
//! of a permitted peer, `strangers` the attacks of peers that never show a key; `replace` stops a node in order. The
//! process and all its threads run on one processor, the node on another; if there is only one processor, the output
//! says so.

mod echo;
mod floods;
mod node;
mod place;
mod replace;
mod strangers;

#[path = "../../tests/kit/hostile/mod.rs"]
mod hostile_kit;
#[path = "../../tests/kit/process/mod.rs"]
mod kit;
#[path = "../../tests/kit/node/mod.rs"]
mod node_kit;
#[path = "../../tests/kit/hostile/served.rs"]
mod served;
#[path = "../../src/tls/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the bench uses a part of it")]
mod tls;

use std::io;
use std::process::ExitCode;

use place::Place;

/// One gate.
struct Gate {
    name: &'static str,
    /// The figure that is measured.
    figure: &'static str,
    unit: &'static str,
    /// The largest value that passes.
    limit: f64,
    run: fn(&Place) -> io::Result<Run>,
}

/// The figures of one run.
struct Run {
    /// The figure without the attack.
    plain: f64,
    /// The figure beside it.
    beside: f64,
    /// How strong the attack was, in words.
    attack: String,
}

const GATES: &[Gate] = &[
    Gate { name: "key-opens", figure: "echo p99", unit: "ms", limit: 5.0, run: floods::opens },
    Gate { name: "key-listens", figure: "echo p99", unit: "ms", limit: 5.0, run: floods::listens },
    Gate { name: "key-resets", figure: "echo p99", unit: "ms", limit: 5.0, run: floods::resets },
    Gate { name: "key-unopened", figure: "echo p99", unit: "ms", limit: 5.0, run: floods::unopened },
    Gate { name: "key-pieces", figure: "echo p99", unit: "ms", limit: 5.0, run: floods::pieces },
    Gate { name: "key-connections", figure: "echo p99", unit: "ms", limit: 5.0, run: floods::connections },
    Gate { name: "key-connections-end", figure: "longest echo", unit: "ms", limit: 20.0, run: floods::ends },
    Gate { name: "key-names", figure: "echo p99", unit: "ms", limit: 5.0, run: floods::names },
    Gate { name: "key-names-lookup", figure: "look-up of another key", unit: "ms", limit: 500.0, run: floods::lookups },
    Gate {
        name: "stranger-silent-one",
        figure: "in or resumed",
        unit: "ms",
        limit: 1000.0,
        run: strangers::silent_one,
    },
    Gate {
        name: "stranger-silent-many",
        figure: "in or resumed",
        unit: "ms",
        limit: 1000.0,
        run: strangers::silent_many,
    },
    Gate {
        name: "stranger-one-byte-one",
        figure: "in or resumed",
        unit: "ms",
        limit: 1000.0,
        run: strangers::one_byte_one,
    },
    Gate {
        name: "stranger-one-byte-many",
        figure: "in or resumed",
        unit: "ms",
        limit: 1000.0,
        run: strangers::one_byte_many,
    },
    Gate {
        name: "stranger-hellos-one",
        figure: "in or resumed",
        unit: "ms",
        limit: 1000.0,
        run: strangers::hellos_one,
    },
    Gate {
        name: "stranger-hellos-many",
        figure: "in or resumed",
        unit: "ms",
        limit: 1000.0,
        run: strangers::hellos_many,
    },
    Gate {
        name: "stranger-few-silent",
        figure: "in or resumed",
        unit: "ms",
        limit: 1000.0,
        run: strangers::few_silent,
    },
    Gate {
        name: "stranger-few-one-byte",
        figure: "in or resumed",
        unit: "ms",
        limit: 1000.0,
        run: strangers::few_one_byte,
    },
    Gate {
        name: "stranger-few-hellos-one",
        figure: "in or resumed",
        unit: "ms",
        limit: 1000.0,
        run: strangers::few_hellos_one,
    },
    Gate {
        name: "stranger-few-hellos-many",
        figure: "in or resumed",
        unit: "ms",
        limit: 1000.0,
        run: strangers::few_hellos,
    },
    Gate { name: "far-node-replaced", figure: "longest connect", unit: "ms", limit: 1000.0, run: replace::far_node },
    Gate { name: "stranger-echo-silent", figure: "echo p99", unit: "ms", limit: 5.0, run: strangers::echo_silent },
    Gate { name: "stranger-echo-one-byte", figure: "echo p99", unit: "ms", limit: 5.0, run: strangers::echo_one_byte },
    Gate { name: "stranger-echo-hellos", figure: "echo p99", unit: "ms", limit: 5.0, run: strangers::echo_hellos },
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
    for _ in 0..runs {
        match (gate.run)(place) {
            Ok(run) => measured.push(run),
            Err(error) => {
                println!("{:<20} MISSED: {error}", gate.name);
                return false;
            }
        }
    }
    let plain = median(measured.iter().map(|run| run.plain));
    let beside = median(measured.iter().map(|run| run.beside));
    let each: Vec<String> = measured.iter().map(|run| format!("{:.2}", run.beside)).collect();
    let attack = measured.last().map_or("", |run| &run.attack);
    let passes = beside <= gate.limit;
    let verdict = if passes { "ok" } else { "MISSED" };
    println!(
        "{:<20} {} {plain:.2} {unit} alone, {beside:.2} {unit} beside ({}), limit {} {unit}: {verdict} [{attack}]",
        gate.name,
        gate.figure,
        each.join(" "),
        gate.limit,
        unit = gate.unit,
    );
    passes
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
