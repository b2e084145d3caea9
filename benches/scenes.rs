//! Links over many and changing paths, beside plain TCP and MPTCP, on modelled TCP in virtual time: the load of the machine does not
//! matter, and each run has the same figures.
//!
//! `cargo bench --bench scenes -- [SECONDS] [MODE] [NAME...]`, where MODE is stripe, single or redundant, and NAME a part of the
//! name of a scene. The table is that of `docs/performance-link.md`, "Many and changing paths". For scenes of traces and losses
//! it has the least, the median and the greatest figure of six seeds.

#[path = "../tests/kit/link/mod.rs"]
#[allow(unused, reason = "the bench uses the scenes only")]
mod link_kit;

use link_kit::scenes::{self, Cut, Scene};
use seaprox::link::Mode;

const HEAD: [&str; 11] =
    ["%", "TCP %", "MPTCP %", "gap", "MPTCP", "echo50", "echo99", "least", "twice", "paced50", "paced99"];
const SEEDS: u64 = 6;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    if std::env::args().any(|word| word == "--list") {
        return;
    }
    let seconds = words.iter().find_map(|word| word.parse().ok()).unwrap_or(60);
    let mode = [Mode::Stripe, Mode::Single, Mode::Redundant].into_iter();
    let mode = mode.clone().find(|mode| words.iter().any(|word| word == mode.as_str())).unwrap_or_default();
    let names: Vec<&String> =
        words.iter().filter(|word| word.parse::<u64>().is_err() && *word != mode.as_str()).collect();
    let is_chosen = |name: &str| names.is_empty() || names.iter().any(|part| name.contains(*part));
    println!("{seconds} s, {}; times in ms", mode.as_str());
    println!("{:>20} {:>6} {}", "", "", HEAD.map(|head| format!("{head:>7}")).join(" "));
    for (n, scene) in scenes::all().into_iter().enumerate() {
        for bbr in [false, true] {
            let name = if bbr { format!("{}, BBR", scene.name) } else { scene.name.to_owned() };
            if is_chosen(&name) && (!bbr || name.contains("loss")) {
                let seeds = if scene.is_random() { SEEDS } else { 1 };
                let of_seed = |seed| Scene { bbr, ..scenes::of_seed(seed).swap_remove(n).with_mode(mode) };
                print_rows(&name, &(0..seeds).map(|seed| figures(&of_seed(seed), seconds)).collect::<Vec<_>>());
            }
        }
    }
    for (mbit, delay, queue) in [(20, 10, 100), (40, 10, 250)] {
        for cut in Cut::ALL {
            let name = format!("cuts {cut:?} {mbit} + {mbit}");
            if is_chosen(&name) {
                let gaps = scenes::cuts(cut, (mbit, delay, queue), 50);
                println!("{name}: gap p50 {:.0}, p99 {:.0}", gaps[25], gaps[49]);
            }
        }
    }
}

/// Returns the figures in the order of `HEAD`.
fn figures(scene: &Scene, seconds: u64) -> [f64; 11] {
    let (row, paced, mptcp) = (scene.bulk(seconds), scene.paced(seconds / 2).delay, scene.mptcp(seconds));
    let part = |part: f64| 100.0 * part;
    let [share, best, mptcp_share, twice] = [row.share, row.best, mptcp.0, row.twice].map(part);
    [share, best, mptcp_share, row.gap, mptcp.1, row.echo.0, row.echo.1, row.least, twice, paced.0, paced.1]
}

/// Prints the least, the median and the greatest of each figure, or the only one.
fn print_rows(name: &str, rows: &[[f64; 11]]) {
    let last = rows.len() - 1;
    let which = [("least", 0), ("median", rows.len() / 2), ("most", last)];
    for (which, place) in if last == 0 { &[("", 0)][..] } else { &which } {
        let line = std::array::from_fn::<_, 11, _>(|at| {
            let mut column: Vec<f64> = rows.iter().map(|row| row[at]).collect();
            column.sort_by(f64::total_cmp);
            format!("{:7.1}", column[*place])
        });
        println!("{name:>20} {which:>6} {}", line.join(" "));
    }
}
