//! Reads /proc for a process and its descendants: CPU time, time spent queued, private memory, descriptors.
//!
//! A proxy is measured as a tree of processes, because some proxies fork for each connection. A process that ends
//! between two readings is no error: its CPU time is then in its parent's account of reaped children.

use std::fs;
use std::io;

use crate::sys;

/// Totals of a process tree since its start.
#[derive(Clone, Copy, Default)]
pub struct Usage {
    pub cpu_ns: u64,
    /// Time in which a thread was runnable but did not run, because the processor was busy with other work.
    pub queued_ns: u64,
}

impl Usage {
    pub fn of_tree(root: u32) -> Usage {
        let mut usage = Usage::default();
        for process in tree(root) {
            usage.cpu_ns += sys::process_cpu_ns(process.pid).unwrap_or(0) + process.reaped_ns;
            usage.queued_ns += queued_ns(process.pid);
        }
        usage
    }

    pub fn since(self, earlier: Usage) -> Usage {
        Usage {
            cpu_ns: self.cpu_ns.saturating_sub(earlier.cpu_ns),
            queued_ns: self.queued_ns.saturating_sub(earlier.queued_ns),
        }
    }
}

/// Returns the private bytes of the tree's processes: pages that they have written to, swapped ones included.
pub fn private_bytes(root: u32) -> u64 {
    let of_one = |pid: u32| -> u64 {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let kib = |key: &str| -> u64 {
            let line = rollup.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
            line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        (kib("Private_Dirty:") + kib("Swap:")) * 1024
    };
    tree(root).iter().map(|process| of_one(process.pid)).sum()
}

pub fn descriptors(root: u32) -> u64 {
    let of_one = |pid: u32| fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |entries| entries.count() as u64);
    tree(root).iter().map(|process| of_one(process.pid)).sum()
}

/// Returns the time that all processors have been idle or taken by the host since their start, and how many there are.
///
/// The kernel counts idle time in nanoseconds, and busy time by samples; so the time that a machine was busy is best told by
/// the rest.
pub fn machine_idle_ns() -> io::Result<(u64, u64)> {
    let stat = fs::read_to_string("/proc/stat")?;
    let all = stat.lines().find_map(|line| line.strip_prefix("cpu ")).unwrap_or_default();
    let ticks: Vec<u64> = all.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    let idle: u64 = [IDLE, WAITS_FOR_DISK, STOLEN].iter().filter_map(|index| ticks.get(*index)).sum();
    let processors = stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count();
    Ok((idle * 1_000_000_000 / sys::ticks_per_second(), processors as u64))
}

struct Process {
    pid: u32,
    parent: u32,
    /// CPU time of the children that it has waited for.
    reaped_ns: u64,
}

/// Returns the process and all its living descendants.
fn tree(root: u32) -> Vec<Process> {
    let mut others: Vec<Process> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(process)
        .collect();
    let mut found: Vec<Process> = Vec::new();
    let mut next = 0;
    take(&mut others, &mut found, |process| process.pid == root);
    while let Some(pid) = found.get(next).map(|process| process.pid) {
        take(&mut others, &mut found, |process| process.parent == pid);
        next += 1;
    }
    found
}

fn take(from: &mut Vec<Process>, to: &mut Vec<Process>, wanted: impl Fn(&Process) -> bool) {
    to.extend(from.extract_if(.., |process| wanted(process)));
}

fn process(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may contain any bytes; after the last parenthesis there are only numbers.
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().collect();
    let number = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
    let ticks = number(CHILDREN_USER)? + number(CHILDREN_SYSTEM)?;
    Some(Process { pid, parent: number(PARENT)? as u32, reaped_ns: ticks * 1_000_000_000 / sys::ticks_per_second() })
}

fn queued_ns(pid: u32) -> u64 {
    let of_thread = |entry: std::io::Result<fs::DirEntry>| -> Option<u64> {
        let text = fs::read_to_string(entry.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().nth(1)?.parse().ok()
    };
    fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().filter_map(of_thread).sum()
}

// Indices into the fields of /proc/PID/stat that follow the name (proc(5), counted from the state).
const PARENT: usize = 1;
const CHILDREN_USER: usize = 13;
const CHILDREN_SYSTEM: usize = 14;
// Indices into the fields of the first line of /proc/stat.
const IDLE: usize = 3;
const WAITS_FOR_DISK: usize = 4;
const STOLEN: usize = 7;
