//! Compares seaprox with other proxies, on loopback, by their CPU time and by the rate and delay that a client sees.
//!
//! The bench is a program of its own (`harness = false`), because it measures processes, not functions. It enters a
//! network namespace, starts a far end and the proxies, lets them take turns under one load after the other, prints a
//! table for each load and writes all samples to a file. Absolute numbers depend on the machine and on its other work;
//! compare the ratios of the same round.
//!
//! In reading order: `sections`, `link_sections` and `datagram_sections` (the list of measurements), `trials` (how each is made), `load`
//! (the clients), `target` (the far end), `measure` and `proc` (the accounts), `peers` and `configurations` (the
//! proxies), `floor` (a proxy and a link without any policy), `run`, `report`, `json`, `picture`.
#![deny(unsafe_code)]

mod child;
mod configurations;
mod datagram_peers;
mod datagram_sections;
mod floor;
mod ground;
mod host;
mod instance;
mod json;
mod link_configurations;
mod link_peers;
mod link_sections;
mod load;
mod measure;
mod netns;
mod options;
mod peers;
mod picture;
mod priority;
mod proc;
mod report;
mod route;
mod run;
mod scraper;
mod sections;
mod stats;
mod sys;
mod target;
mod trials;

use std::env;
use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Instant;

use crate::child::ClearAtEnd;
use crate::ground::Ground;
use crate::host::Host;
use crate::json::Results;
use crate::netns::Network;
use crate::options::{HELP, Options, Parsed, Placement};
use crate::run::{Roll, Runner};
use crate::sections::{SECTIONS, Section};

fn main() -> ExitCode {
    match env::args().nth(1).as_deref() {
        Some(target::ARGUMENT) => return finish(target::serve(&env::args().nth(2).unwrap_or_default())),
        Some(floor::ARGUMENT) => return finish(floor::serve(&env::args().skip(2).collect::<Vec<_>>())),
        _ => {}
    }
    match Options::parse(env::args().skip(1)) {
        Parsed::Help => {
            println!("{HELP}");
            ExitCode::SUCCESS
        }
        Parsed::Wrong(problem) => {
            eprintln!("bench: {problem}");
            ExitCode::from(2)
        }
        Parsed::Run(options) => {
            if let Some(saved) = &options.draw {
                return finish(draw(saved, &options));
            }
            let _clear = ClearAtEnd;
            finish(bench(*options))
        }
    }
}

fn bench(options: Options) -> io::Result<()> {
    let start = Instant::now();
    // Existing threads stay in the old namespace, so the bench enters the new one before it starts any.
    let network = Network::enter(options.namespace);
    if let Some(niceness) = options.niceness {
        priority::set(niceness)?;
    }
    child::watch_for_stop(options.deadline)?;
    let (options, network) = (Rc::new(options), Rc::new(network));
    let processors = sys::processors();
    let directory = child::make_directory()?;
    let host = Host::of(&network, &processors);
    host.print();

    let (mut results, mut roll) = (Results::new(), Roll::default());
    for placement in [Placement::Pinned, Placement::Free] {
        let wanted = |section: &&Section| options.wants_section(section.group) && options.places(section, placement);
        let all = SECTIONS.iter().chain(&link_sections::SECTIONS).chain(&datagram_sections::SECTIONS);
        let sections: Vec<&Section> = all.filter(wanted).collect();
        if sections.is_empty() {
            continue;
        }
        let ground = Ground::prepare(&options, &network, placement, &processors, &directory)?;
        println!("placement   {}\n", ground.placement());
        let mut runner = Runner::new(&ground, &mut roll);
        for section in sections {
            let samples = runner.section(section);
            report::print_section(section, placement, &samples);
            results.add(section, placement, &samples);
            // After each section, so that a run that is cut keeps its samples.
            results.write(&host, &options, runner.roll)?;
        }
    }
    report::print_peers(&roll.descriptions);
    for line in &roll.left_out {
        println!("left out: {line}");
    }
    draw(&options.json, &options)?;
    println!("all samples: {}; {} s in total", options.json.display(), start.elapsed().as_secs());
    Ok(())
}

/// Draws the selected sections and peers of a run that was saved, in a file beside it.
fn draw(saved: &Path, options: &Options) -> io::Result<()> {
    let picture = saved.with_extension("svg");
    fs::write(&picture, picture::of(&json::read(saved)?, options))?;
    println!("picture: {}", picture.display());
    Ok(())
}

fn finish(outcome: io::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}
