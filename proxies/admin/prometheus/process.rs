//! The metrics of the process that the system counts, under the names that all Prometheus clients use.
//!
//! Linux tells them in `/proc/self` (proc(5)); on other systems they are missing.

use std::fs;

use seaprox::metrics::MetricKind;

use super::family::{Families, Number};

/// Adds the metrics that the system tells.
pub fn add(families: &mut Families) {
    let Some(facts) = Facts::read() else { return };
    let mut add = |name, kind, help, number| families.family(name, kind, help).add(vec![], number);
    let cpu = "Processor time in user and system mode";
    add("process_cpu_seconds_total", MetricKind::Counter, cpu, Number::Fraction(facts.cpu_seconds));
    let resident = "Memory that is resident";
    add("process_resident_memory_bytes", MetricKind::Gauge, resident, Number::Whole(facts.resident_bytes));
    let virtual_memory = "Virtual memory";
    add("process_virtual_memory_bytes", MetricKind::Gauge, virtual_memory, Number::Whole(facts.virtual_bytes));
    let threads = "Threads";
    add("process_threads", MetricKind::Gauge, threads, Number::Whole(facts.threads));
    let start = "Start of the process in seconds since 1970";
    add("process_start_time_seconds", MetricKind::Gauge, start, Number::Fraction(facts.start_seconds));
    let open = "Open descriptors";
    add("process_open_fds", MetricKind::Gauge, open, Number::Whole(facts.open_descriptors));
    if let Some(most) = facts.descriptors_max {
        add("process_max_fds", MetricKind::Gauge, "Limit of open descriptors", Number::Whole(most));
    }
}

struct Facts {
    cpu_seconds: f64,
    virtual_bytes: u64,
    resident_bytes: u64,
    threads: u64,
    start_seconds: f64,
    open_descriptors: u64,
    descriptors_max: Option<u64>,
}

impl Facts {
    fn read() -> Option<Facts> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The name of the program, in parentheses, may contain anything. Behind it stands field 3.
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let kibibytes = |name: &str| number_behind(&status, name).map(|number| number * 1024);
        let boot = fs::read_to_string("/proc/stat").ok().and_then(|stat| number_behind(&stat, "btime "));
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let fds = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
        Some(Facts {
            cpu_seconds: (field(14)? + field(15)?) as f64 / TICKS_PER_SECOND,
            virtual_bytes: field(23)?,
            resident_bytes: kibibytes("VmRSS:")?,
            threads: field(20)?,
            start_seconds: boot.unwrap_or(0) as f64 + field(22)? as f64 / TICKS_PER_SECOND,
            // The directory itself was open while it was counted.
            open_descriptors: fds.saturating_sub(1),
            descriptors_max: number_behind(&limits, "Max open files"),
        })
    }
}

/// Returns the first number behind a name that begins a line.
fn number_behind(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// The unit of times in `/proc`, the same on each architecture that Linux runs on today.
const TICKS_PER_SECOND: f64 = 100.0;
