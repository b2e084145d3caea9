//! The printed report: a table for each section, the peers' configurations, and remarks on disturbed results.

use crate::instance::Description;
use crate::measure::{BUSY, LOAD_BUSY, MACHINE_BUSY, OTHERS, QUEUED};
use crate::options::Placement;
use crate::peers;
use crate::run::{BUSY_ENOUGH, DIRECT, OTHERS_MUCH, QUEUED_MUCH, Sample};
use crate::sections::{Metric, Section};
use crate::stats::{self, Spread};

/// Prints a section's table: one row for each peer, with the number of its rounds, their median and, in brackets, minimum
/// and maximum.
pub fn print_section(section: &Section, placement: Placement, samples: &[Sample]) {
    println!("{}, {}: {}", section.name, placement.name(), section.title);
    if samples.is_empty() {
        println!("  nothing was measured\n");
        return;
    }
    let titles = ["n"].into_iter().chain(section.metrics.iter().map(|metric| metric.title));
    let titles: Vec<String> = titles.map(String::from).collect();
    let mut rows = vec![Row { name: String::new(), cells: titles, remark: String::new() }];
    for peer in section.peers.iter().filter(|peer| samples.iter().any(|sample| sample.peer == **peer)) {
        let cells = section.metrics.iter().map(|metric| cell(&spread(samples, peer, metric.key), metric.decimals));
        let rounds = samples.iter().filter(|sample| sample.peer == *peer).count();
        let cells = [rounds.to_string()].into_iter().chain(cells).collect();
        rows.push(Row { name: peer.to_string(), cells, remark: remark(section, samples, peer) });
    }
    for (of, to) in section.ratios {
        let cells: Vec<String> =
            section.metrics.iter().map(|metric| cell(&ratio(samples, of, to, metric), 2)).collect();
        if cells.iter().any(|cell| !cell.is_empty()) {
            let cells = [String::new()].into_iter().chain(cells).collect();
            rows.push(Row { name: format!("{of} / {to}"), cells, remark: String::new() });
        }
    }
    print_rows(&rows);
    println!();
}

/// Prints the versions, command lines and files of the peers, without which the numbers mean nothing.
pub fn print_peers(descriptions: &[Description]) {
    println!("The peers and their configurations");
    for description in descriptions {
        println!("\n{}: {}\n  $ {}", description.name, description.version, description.command);
        for line in description.file.iter().flat_map(|file| file.lines()) {
            println!("  | {line}");
        }
    }
    println!();
}

pub fn spread(samples: &[Sample], peer: &str, key: &str) -> Option<Spread> {
    let values: Vec<f64> =
        samples.iter().filter(|sample| sample.peer == peer).filter_map(|sample| sample.value(key)).collect();
    Spread::of(&values)
}

/// Returns the ratio of two peers in one metric, over the rounds that both have. Shares of a processor are not
/// compared.
pub fn ratio(samples: &[Sample], of: &str, to: &str, metric: &Metric) -> Option<Spread> {
    if matches!(metric.key, BUSY | MACHINE_BUSY | OTHERS) {
        return None;
    }
    let rounds = |peer: &str| -> Vec<(usize, f64)> {
        let of_peer = samples.iter().filter(|sample| sample.peer == peer);
        of_peer.filter_map(|sample| Some((sample.round, sample.value(metric.key)?))).collect()
    };
    Spread::of(&stats::ratios(&rounds(of), &rounds(to)))
}

/// Returns a remark if something else than the proxy limited the rate, or disturbed it.
pub fn remark(section: &Section, samples: &[Sample], peer: &str) -> String {
    let median = |key| spread(samples, peer, key).map_or(0.0, |spread| spread.median);
    let (busy, queued, load, others) = (median(BUSY), median(QUEUED), median(LOAD_BUSY), median(OTHERS));
    if others >= OTHERS_MUCH {
        return format!("disturbed: other programs used {others:.0} % of the machine");
    }
    let threads = peers::peer(peer).map_or(1, |peer| peer.threads) as f64;
    if peer == DIRECT || busy >= BUSY_ENOUGH * threads {
        return String::new();
    }
    if queued >= QUEUED_MUCH {
        return format!("disturbed: waited {queued:.0} % of the time for a processor");
    }
    if section.saturates && busy + queued < BUSY_ENOUGH * threads {
        return format!("the proxy was not the limit; load {load:.0} % busy");
    }
    String::new()
}

struct Row {
    name: String,
    cells: Vec<String>,
    remark: String,
}

fn print_rows(rows: &[Row]) {
    let names = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    let columns = rows.iter().map(|row| row.cells.len()).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.cells.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let cells: String = row.cells.iter().zip(&widths).map(|(cell, width)| format!("  {cell:<width$}")).collect();
        let line = format!("  {:<names$}{cells}  {}", row.name, row.remark);
        println!("{}", line.trim_end());
    }
}

fn cell(spread: &Option<Spread>, decimals: usize) -> String {
    match spread {
        Some(Spread { median, min, max }) => format!("{median:.decimals$} ({min:.decimals$}-{max:.decimals$})"),
        None => String::new(),
    }
}
