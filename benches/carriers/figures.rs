//! The figures of one way over one path: its rate, the processor time of its ends, and echoes beside the bulk stream.

use std::fmt;
use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::net_kit::echoes::echo_ms;
use crate::net_kit::goodput::Load;
use crate::ways::Carried;

#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Megabits of payload per second.
    goodput: f64,
    /// Processor time of both ends for each GiB of payload, if they have processes of their own.
    cpu: Option<f64>,
    /// Milliseconds, if there are echoes.
    echo: Option<(f64, f64)>,
}

impl Figures {
    pub fn goodput(&self) -> Option<f64> {
        Some(self.goodput)
    }

    pub fn cpu(&self) -> Option<f64> {
        self.cpu
    }

    pub fn echo_p50(&self) -> Option<f64> {
        self.echo.map(|(p50, _)| p50)
    }

    pub fn echo_p99(&self) -> Option<f64> {
        self.echo.map(|(_, p99)| p99)
    }
}

/// Returns a figure of all rounds as a cell of a table: the median, and the least and the greatest if there are several.
pub fn spread(all: &[Figures], of: fn(&Figures) -> Option<f64>) -> String {
    let mut values: Vec<f64> = all.iter().filter_map(of).collect();
    values.sort_by(f64::total_cmp);
    match values[..] {
        [] => "-".to_owned(),
        [only] => said(only),
        [least, .., greatest] => format!("{} ({}–{})", said(values[values.len() / 2]), said(least), said(greatest)),
    }
}

/// Returns a figure with three digits or more.
fn said(value: f64) -> String {
    let decimals = match value {
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let figures = [Figures::goodput, Figures::cpu, Figures::echo_p50, Figures::echo_p99];
        let [goodput, cpu, p50, p99] = figures.map(|of| of(self).map_or("-".to_owned(), said));
        write!(f, "{goodput:>7} Mbit/s  {cpu:>6} s/GiB  echo p50 / p99 {p50} / {p99} ms")
    }
}

/// Measures a way for `time`, after some seconds in which the bulk stream fills the path, with echoes beside it if the way carries
/// them.
pub fn measure(carried: &Carried, time: Duration, with_echoes: bool) -> io::Result<Figures> {
    let echo = (with_echoes && carried.has_echoes).then(|| (carried.connect)());
    let load = Load::start(vec![(carried.connect)()]);
    thread::sleep(WARM_UP);
    let meter = Meter::start(&carried.pids, || load.received());
    let times = match echo {
        Some(echo) => echo_ms(echo, time)?,
        None => {
            thread::sleep(time);
            Vec::new()
        }
    };
    // The echoes under way at the end may take longer than the time.
    Ok(meter.figures(load.received(), times))
}

/// A measurement that has begun.
pub struct Meter {
    pids: Vec<u32>,
    since: Instant,
    bytes: u64,
    cpu: f64,
}

impl Meter {
    /// Begins a measurement of what arrives, and of the processor time of the ends.
    pub fn start(pids: &[u32], arrived: impl Fn() -> u64) -> Meter {
        Meter { pids: pids.to_vec(), since: Instant::now(), bytes: arrived(), cpu: cpu_s(pids) }
    }

    /// Ends it, with the bytes that have arrived until now and the times of echoes in milliseconds.
    pub fn figures(self, arrived: u64, mut times: Vec<f64>) -> Figures {
        let (took, moved) = (self.since.elapsed().as_secs_f64(), (arrived - self.bytes) as f64);
        let used = cpu_s(&self.pids) - self.cpu;
        times.sort_by(f64::total_cmp);
        let at = |percent: usize| times.get((times.len() * percent / 100).min(times.len() - 1)).copied();
        let echo = (!times.is_empty()).then(|| at(50).zip(at(99))).flatten();
        let cpu = (!self.pids.is_empty()).then(|| used / (moved / f64::from(1 << 30)));
        Figures { goodput: moved * 8e-6 / took, cpu, echo }
    }
}

/// Returns the processor time of these processes and of what they have started, in seconds.
fn cpu_s(pids: &[u32]) -> f64 {
    let of_thread = |task: &fs::DirEntry| -> f64 {
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        text.split_whitespace().next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) * 1e-9
    };
    let of_process = |pid: &u32| -> f64 {
        let tasks: Vec<fs::DirEntry> =
            fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten().collect();
        let started: Vec<u32> = tasks
            .iter()
            .flat_map(|task| {
                let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
                text.split_whitespace().flat_map(str::parse).collect::<Vec<u32>>()
            })
            .collect();
        tasks.iter().map(of_thread).sum::<f64>() + cpu_s(&started)
    };
    pids.iter().map(of_process).sum()
}

/// The time until a path of 200 ms is filled by each of the ways.
const WARM_UP: Duration = Duration::from_secs(4);
