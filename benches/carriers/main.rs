//! The carriers of links side by side, on emulated paths, with what else carries connections from one host to another:
//! plain TCP, ssh and wireguard-go. One bulk stream goes over each way, and beside it a message every 20 ms on a
//! stream of its own, which the other end sends back.
//!
//! `cargo bench --bench carriers -- [--rounds N] [--seconds S] [--at-most MBIT] [--bulk] [WORD...]`, where each WORD is the name
//! of a way or of a path, or a part of such names: only those are measured. No path is faster than MBIT Mbit/s, for a machine that
//! emulates slowly. With `--bulk` there are no echoes, beside which links move bulk in short turns. It prints a line for each
//! measurement, and then the tables of `docs/performance-link.md`: goodput, processor time of both ends together, and echoes, the
//! medians of the rounds with the least and the greatest.
//! The paths are in a network of the bench's own, which needs root, `ip`, `tc`, `ss`, `nft` and TUN devices. A way that
//! this build, this kernel or this machine does not have is named with the reason.

mod bare;
mod figures;
mod ways;

#[path = "../../tests/kit/process/mod.rs"]
mod kit;
#[path = "../../tests/kit/net/mod.rs"]
mod net_kit;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use figures::Figures;
use net_kit::{Kind, Link, Net, Queue, has_net, has_tun};
use ways::{WAYS, Way};

/// A path, and how it is named in the tables.
struct Path {
    name: &'static str,
    said: &'static str,
    kind: Kind,
}

/// Returns the paths, none faster than `at_most` Mbit/s. The losses are in both directions.
fn paths(at_most: f64) -> [Path; 7] {
    let ms = Duration::from_millis;
    let of = |mbit: f64, delay| Link { mbit: mbit.min(at_most), delay: ms(delay), ..Link::default() };
    let lossy = |loss| Kind::Emulated(Link { loss, ..of(50.0, 10) });
    let bloated = Link { queue: Queue::Time(ms(2000)), ..of(20.0, 10) };
    let path = |name, said, kind| Path { name, said, kind };
    [
        path("fast", "as fast as the kernel", if at_most.is_finite() { Kind::Rate(at_most) } else { Kind::Veth }),
        path("clean", "100 Mbit/s, 5 ms", Kind::Emulated(of(100.0, 5))),
        path("lossy-0.1", "50 Mbit/s, 10 ms, 0.1 % lost", lossy(0.001)),
        path("lossy-1", "50 Mbit/s, 10 ms, 1 % lost", lossy(0.01)),
        path("lossy-5", "50 Mbit/s, 10 ms, 5 % lost", lossy(0.05)),
        path("long", "50 Mbit/s, 100 ms", Kind::Emulated(of(50.0, 100))),
        path("bloated", "20 Mbit/s, 10 ms, 2 s of buffer", Kind::Emulated(bloated)),
    ]
}

/// The figures of each round, by the names of way and path.
type Measured = BTreeMap<(&'static str, &'static str), Vec<Figures>>;

/// Returns one of the figures.
type Figure = fn(&Figures) -> Option<f64>;

struct Options {
    rounds: usize,
    time: Duration,
    at_most: f64,
    with_echoes: bool,
    words: Vec<String>,
}

impl Options {
    fn read() -> Options {
        let mut words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
        let mut number = |name: &str, usual: f64| {
            let Some(at) = words.iter().position(|word| word == name) else { return usual };
            let value = words.get(at + 1).and_then(|word| word.parse().ok()).filter(|value| *value >= 1.0);
            words.drain(at..words.len().min(at + 2));
            value.unwrap_or(usual)
        };
        let [rounds, seconds, at_most] = [("--rounds", 1.0), ("--seconds", 6.0), ("--at-most", f64::INFINITY)]
            .map(|(name, usual)| number(name, usual));
        let with_echoes = !words.iter().any(|word| word == "--bulk");
        words.retain(|word| word != "--bulk");
        Options { rounds: rounds as usize, time: Duration::from_secs_f64(seconds), at_most, with_echoes, words }
    }

    /// Returns true if this one of `names` is chosen: if a word names it, or no word names any of them. A word that is one of
    /// the names is no part of others.
    fn wants(&self, name: &str, names: &[&str]) -> bool {
        let is_part = |name: &str, word: &str| name.contains(word) && !names.contains(&word);
        let named = |name: &str| self.words.iter().any(|word| name == word || is_part(name, word));
        named(name) || !names.iter().any(|name| named(name))
    }
}

fn main() {
    if bare::run_end() {
        return;
    }
    let options = Options::read();
    if std::env::args().any(|word| word == "--list") || !has_net() || !has_tun() {
        return;
    }
    let paths = paths(options.at_most);
    let path_names = paths.each_ref().map(|path| path.name);
    let way_names: Vec<&str> = WAYS.iter().map(|way| way.name).collect();
    let paths: Vec<Path> = paths.into_iter().filter(|path| options.wants(path.name, &path_names)).collect();
    let ways: Vec<&Way> = WAYS.iter().filter(|way| options.wants(way.name, &way_names)).collect();
    let mut measured = Measured::new();
    let mut left_out: BTreeMap<&str, String> = BTreeMap::new();
    for _ in 0..options.rounds {
        for path in &paths {
            for way in &ways {
                if left_out.contains_key(way.name) {
                    continue;
                }
                match measure(way, path, &options) {
                    Ok(figures) => {
                        println!("{:<10} {:<12} {figures}", path.name, way.name);
                        measured.entry((way.name, path.name)).or_default().push(figures);
                    }
                    Err(ways::Failure::Missing(why)) => _ = left_out.insert(way.name, why),
                    Err(ways::Failure::Failed(why)) => println!("{:<10} {:<12} failed: {why}", path.name, way.name),
                }
            }
        }
    }
    print_tables(&paths, &ways, &measured, options.rounds);
    for (name, why) in &left_out {
        println!("\nleft out: {name}: {why}");
    }
}

/// Prints a table for each figure, with the ways that were measured.
fn print_tables(paths: &[Path], ways: &[&Way], measured: &Measured, rounds: usize) {
    println!();
    for path in paths {
        println!("* {}: {}", path.name, path.said);
    }
    println!("\nMedians with least and greatest; n = {rounds} unless a cell says less.");
    let tables: [(&str, &[Figure]); 3] = [
        ("goodput, Mbit/s", &[Figures::goodput]),
        ("CPU of both ends, s/GiB", &[Figures::cpu]),
        ("echo beside bulk, p50 / p99 ms", &[Figures::echo_p50, Figures::echo_p99]),
    ];
    for (name, shown) in tables {
        println!("\n| {name} | {} |", paths.iter().map(|path| path.name).collect::<Vec<_>>().join(" | "));
        println!("| --- |{}", " --- |".repeat(paths.len()));
        for way in ways {
            let of_path = |path: &Path| {
                let all = measured.get(&(way.name, path.name)).map_or(&[][..], Vec::as_slice);
                let cell = shown.iter().map(|of| figures::spread(all, *of)).collect::<Vec<_>>().join(" / ");
                if (1..rounds).contains(&all.len()) { format!("{cell}, n = {}", all.len()) } else { cell }
            };
            let cells: Vec<String> = paths.iter().map(of_path).collect();
            if cells.iter().any(|cell| !cell.starts_with('-')) {
                println!("| {} | {} |", way.name, cells.join(" | "));
            }
        }
    }
}

/// Measures one way over a new network with one path.
fn measure(way: &Way, path: &Path, options: &Options) -> Result<Figures, ways::Failure> {
    let measured = catch_unwind(AssertUnwindSafe(|| {
        let net = Net::of(&[path.kind]);
        // As the routes of the paths have it, also for MPTCP. Not every machine lets a namespace set it.
        for host in [net.near(), net.far()] {
            let _ = host.sysctl("net/ipv4/tcp_congestion_control", "cubic");
        }
        match way.start {
            Some(start) => {
                let measured = figures::measure(&start(&net)?, options.time, options.with_echoes);
                measured.map_err(|error| ways::Failure::Failed(error.to_string()))
            }
            None => Ok(bare::measure(&net, options.time)),
        }
    }));
    measured.unwrap_or_else(|_| Err(ways::Failure::Failed("a panic, as told above".into())))
}
