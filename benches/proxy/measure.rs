//! One sample: a load runs for a window, and its units of work are compared with the CPU time of the proxy's processes.

use std::io;
use std::time::{Duration, Instant};

use crate::ground::Ground;
use crate::load::Load;
use crate::proc::{self, Usage};
use crate::sys;

/// Named results of one sample. A value that does not apply (CPU time without a proxy) is absent.
pub type Values = Vec<(&'static str, f64)>;

/// The CPU accounts of all participants, at one moment.
pub struct Meter {
    proxies: Vec<(u32, Usage)>,
    load_ns: u64,
    idle_ns: u64,
    start: Instant,
    target: u32,
}

/// The difference of the accounts at two moments.
pub struct Reading {
    pub wall_s: f64,
    /// The time of the proxy and all its children; absent if there is no proxy.
    pub proxy: Option<ProxyTime>,
    /// CPU time of the client and the far end.
    pub load_s: f64,
    /// CPU time of the whole machine: proxy, load, kernel threads and all else.
    pub machine_s: f64,
    pub processors: f64,
}

pub struct ProxyTime {
    pub cpu_s: f64,
    /// Time during which its threads were ready to run but no processor was free.
    pub queued_s: f64,
}

impl Meter {
    /// Starts a window. `proxies` are the root processes of the proxy: two for a link between two nodes.
    pub fn start(ground: &Ground, proxies: &[u32]) -> io::Result<Meter> {
        let target = ground.target.child.pid();
        Ok(Meter {
            proxies: proxies.iter().map(|pid| (*pid, Usage::of_tree(*pid))).collect(),
            load_ns: load_ns(target)?,
            idle_ns: proc::machine_idle_ns()?.0,
            start: Instant::now(),
            target,
        })
    }

    /// Ends the window. The wall clock is read last at the start and first at the end, so that the window does not
    /// include the reading of the accounts.
    pub fn stop(self) -> io::Result<Reading> {
        let wall_s = self.start.elapsed().as_secs_f64();
        let (idle_ns, processors) = proc::machine_idle_ns()?;
        let processors = processors as f64;
        let machine_s = (wall_s * processors - seconds(idle_ns.saturating_sub(self.idle_ns))).max(0.0);
        let load_s = seconds(load_ns(self.target)?.saturating_sub(self.load_ns));
        let mut total = Usage::default();
        for (pid, before) in &self.proxies {
            let used = Usage::of_tree(*pid).since(*before);
            total.cpu_ns += used.cpu_ns;
            total.queued_ns += used.queued_ns;
        }
        let time = ProxyTime { cpu_s: seconds(total.cpu_ns), queued_s: seconds(total.queued_ns) };
        let proxy = (!self.proxies.is_empty()).then_some(time);
        Ok(Reading { wall_s, proxy, load_s, machine_s, processors })
    }
}

impl Reading {
    /// Returns the use of the processors, in percent of one processor; that of other programs and of the kernel's threads in percent
    /// of the machine.
    pub fn shares(&self) -> Values {
        let percent = |time_s: f64| time_s / self.wall_s * 100.0;
        let known_s = self.load_s + self.proxy.as_ref().map_or(0.0, |proxy| proxy.cpu_s);
        let others_s = (self.machine_s - known_s).max(0.0);
        let mut shares = vec![
            (LOAD_BUSY, percent(self.load_s)),
            (MACHINE_BUSY, percent(self.machine_s)),
            (OTHERS, percent(others_s) / self.processors),
        ];
        if let Some(proxy) = &self.proxy {
            shares.extend([(BUSY, percent(proxy.cpu_s)), (QUEUED, percent(proxy.queued_s))]);
        }
        shares
    }

    /// Returns the proxy's CPU time for each of `units`, in seconds.
    pub fn cpu_per(&self, units: f64) -> Option<f64> {
        self.proxy.as_ref().map(|proxy| proxy.cpu_s / units)
    }
}

/// Warms up, then measures one window of the load. Returns the reading and the units done in the window.
pub fn sample(ground: &Ground, proxies: &[u32], load: &mut dyn Load) -> io::Result<(Reading, f64)> {
    sample_for(ground, proxies, load, ground.options.window)
}

/// Measures a window of another length.
pub fn sample_for(
    ground: &Ground,
    proxies: &[u32],
    load: &mut dyn Load,
    window: Duration,
) -> io::Result<(Reading, f64)> {
    load.run_for(ground.options.warmup)?;
    let before = load.units();
    let meter = Meter::start(ground, proxies)?;
    load.run_for(window)?;
    let reading = meter.stop()?;
    Ok((reading, (load.units() - before) as f64))
}

fn load_ns(target: u32) -> io::Result<u64> {
    Ok(sys::process_cpu_ns(std::process::id())? + sys::process_cpu_ns(target)?)
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

// Keys of the values that all samples have.
pub const BUSY: &str = "proxy_busy_percent";
pub const QUEUED: &str = "proxy_queued_percent";
pub const LOAD_BUSY: &str = "load_busy_percent";
pub const MACHINE_BUSY: &str = "machine_busy_percent";
pub const OTHERS: &str = "others_percent_of_machine";
