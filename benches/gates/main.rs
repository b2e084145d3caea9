//! The gates: figures of time and rate that must hold, measured on real processes and real paths.
//!
//! `make gates`, or `cargo bench --bench gates -- [--runs N] [WORD...]` for the gates whose names contain one of the
//! words. Each gate is one line: the figure that it is compared with, the figure itself (the median of the runs, and
//! each run), the limit, and the verdict. The program ends with status 1 when a gate is missed. It is not a part of
//! `make test`: a test checks that something happens, and a gate measures how soon or how fast.
//!
//! # Adding a gate
//! Add a line to [`table::GATES`]. Its `run` measures once and returns a [`Run`].
//! * Attacks (`key-`, `stranger-`): `run` starts the node that it needs (see `node`), measures without the attack, then beside
//!   it. `echo` measures an echo over a link, `floods` holds the attacks of a permitted peer, `strangers` and
//!   `datagram_strangers` those of peers that never show a key; `replace` stops a node in order. The process and all its threads run on one processor, the node on
//!   another; where there is one processor only, the first line says so.
//! * Paths (`path-`): a link between two nodes over a path of a network of namespaces, and at the same moment plain TCP over a
//!   path of the same kind (see `network`). The figure is compared with that of plain TCP: the median of the ratios. Over
//!   several paths it is compared with the sum of plain TCP over each, or with what the paths carry, and must reach the rate of
//!   MPTCP over these paths, and nearly that of plain TCP over the best of them; they are measured in turns. The link has the
//!   carrier TCP, QUIC where the name ends in `-quic`, both where it ends in `-mixed`, or the default one where it ends in `-auto`.
//! * Changes (`auto-`): the silence that a change of the network costs a link, beside the longest echo before it.
//! * The others measure the relay on loopback, timers, frames, and the networks of the tests themselves.

mod auto;
mod datagram_strangers;
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
mod scenes;
mod strangers;
mod table;

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
#[path = "../../tests/kit/hostile/quic.rs"]
mod quic_kit;
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
#[derive(Default)]
struct Run {
    /// The figure for comparison: without the attack, or of plain TCP.
    plain: f64,
    /// The figure that the gate judges.
    beside: f64,
    /// The strength of the attack or other details, in words.
    attack: String,
    /// Figures that the judged one must not fall below.
    floors: Vec<Floor>,
}

/// Another figure of a run.
struct Floor {
    name: &'static str,
    figure: f64,
    /// The least ratio of the judged figure to this one, as a median of the runs.
    least: f64,
}

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
    let missed = table::GATES.iter().filter(is_chosen).filter(|gate| !passes(gate, &place, runs)).count();
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
    let (passes, mut limit) = judge(gate, &measured);
    let mut passes = passes;
    for (number, floor) in measured[0].floors.iter().enumerate() {
        let (reaches, said) = judge_floor(floor, number, &measured);
        passes &= reaches;
        limit += &said;
    }
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

/// Returns true if the runs reach the floor of this number, and the floor in words.
fn judge_floor(floor: &Floor, number: usize, runs: &[Run]) -> (bool, String) {
    let figures = || runs.iter().map(|run| run.floors[number].figure);
    let ratio = median(runs.iter().zip(figures()).map(|(run, figure)| run.beside / figure));
    let Floor { name, least, .. } = floor;
    (ratio >= *least, format!("; {ratio:.2} times {name} ({:.2}), at least {least}", median(figures())))
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
