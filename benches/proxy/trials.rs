//! The trials: each one opens its connections through a proxy, or directly to the target, and returns one sample.

use std::io;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::child::Child;
use crate::ground::Ground;
use crate::instance::Instance;
use crate::load::{Bulk, Connect, Datagrams, Load, Ping, Request, Shape};
use crate::measure::{self, Meter, OTHERS, Reading, Values};
use crate::proc;
use crate::route::Route;
use crate::stats;
use crate::target::Wish;

/// The subject of a trial: a running proxy, or none.
pub struct Subject<'a> {
    instance: Option<&'a Instance>,
    small: Route,
    bulk: Route,
}

impl<'a> Subject<'a> {
    pub fn new(ground: &Ground, instance: Option<&'a Instance>) -> Subject<'a> {
        let direct = Route::direct(ground.target.addr);
        Subject {
            instance,
            small: instance.map_or(direct.clone(), |instance| instance.small.clone()),
            bulk: instance.map_or(direct, |instance| instance.bulk.clone()),
        }
    }

    fn pids(&self) -> &[u32] {
        self.instance.map_or(&[], Instance::pids)
    }
}

pub fn bulk_1(ground: &Ground, subject: &Subject) -> io::Result<Values> {
    bulk(ground, subject, Bulk::open(&subject.bulk, 1)?, ground.options.window)
}

pub fn bulk_8(ground: &Ground, subject: &Subject) -> io::Result<Values> {
    bulk(ground, subject, Bulk::open(&subject.bulk, 8)?, ground.options.window)
}

/// Measures one stream whose ends copy its bytes.
pub fn busy_bulk_1(ground: &Ground, subject: &Subject) -> io::Result<Values> {
    bulk(ground, subject, Bulk::open_copied(&subject.bulk, 1)?, ground.options.window)
}

pub fn busy_bulk_8(ground: &Ground, subject: &Subject) -> io::Result<Values> {
    bulk(ground, subject, Bulk::open_copied(&subject.bulk, 8)?, ground.options.window)
}

/// Measures one bulk stream for as long as a scraper asks twice.
pub fn scraped_bulk(ground: &Ground, subject: &Subject) -> io::Result<Values> {
    bulk(ground, subject, Bulk::open(&subject.bulk, 1)?, SCRAPED_WINDOW)
}

fn bulk(ground: &Ground, subject: &Subject, mut load: Bulk, window: Duration) -> io::Result<Values> {
    let (reading, bytes) = measure::sample_for(ground, subject.pids(), &mut load, window)?;
    let mut values = reading.shares();
    values.push((GBIT_PER_S, gbit(bytes) / reading.wall_s));
    values.extend(reading.cpu_per(bytes / GIB).map(|cpu_s| (CPU_S_PER_GIB, cpu_s)));
    values.push((MACHINE_S_PER_GIB, reading.machine_s / (bytes / GIB)));
    Ok(values)
}

/// Measures short connections.
pub fn connections(ground: &Ground, subject: &Subject) -> io::Result<Values> {
    let mut load = Connect::open(&subject.small, CONCURRENT)?;
    units(ground, subject, &mut load, ground.options.window)
}

/// Measures short connections for as long as a scraper asks twice.
pub fn scraped_connections(ground: &Ground, subject: &Subject) -> io::Result<Values> {
    let mut load = Connect::open(&subject.small, CONCURRENT)?;
    units(ground, subject, &mut load, SCRAPED_WINDOW)
}

/// Measures requests on connections that stay open.
pub fn requests(ground: &Ground, subject: &Subject) -> io::Result<Values> {
    let mut load = Request::open(&subject.small, KEPT_ALIVE)?;
    units(ground, subject, &mut load, ground.options.window)
}

/// Measures requests beside a thousand idle connections, for as long as a scraper asks twice. The status lists them all.
pub fn scraped_requests(ground: &Ground, subject: &Subject) -> io::Result<Values> {
    let mut held = Vec::new();
    hold(&mut held, &subject.small, SCRAPED_IDLE.min(ground.idle()))?;
    let mut load = Request::open(&subject.small, KEPT_ALIVE)?;
    units(ground, subject, &mut load, SCRAPED_WINDOW)
}

fn units(ground: &Ground, subject: &Subject, load: &mut dyn Load, window: Duration) -> io::Result<Values> {
    let (reading, done) = measure::sample_for(ground, subject.pids(), load, window)?;
    if done == 0.0 {
        return Err(io::Error::other("nothing was done in the whole window"));
    }
    let mut values = reading.shares();
    values.push((PER_S, done / reading.wall_s));
    values.extend(each(&reading, done));
    Ok(values)
}

/// Measures the same requests sent by wrk, an independent tool. wrk runs for whole seconds and includes its connects.
pub fn wrk(ground: &Ground, subject: &Subject) -> io::Result<Values> {
    let log = ground.directory.join("wrk.log");
    let mut command = Command::new("wrk");
    command.args(["-t1", &format!("-c{KEPT_ALIVE}"), "-d1s", &format!("http://{}/", subject.small.dial)]);
    command.stderr(Stdio::null());
    let meter = Meter::start(ground, subject.pids())?;
    let mut child = Child::start(&mut command, &ground.load, Some(&log))?;
    child.wait()?;
    let reading = meter.stop()?;
    let output = std::fs::read_to_string(log)?;
    let before = |word: &str| {
        let line = output.lines().find(|line| line.contains(word))?;
        line.split(word).next()?.split_whitespace().next_back()?.parse::<f64>().ok()
    };
    let after = |word: &str| output.split(word).nth(1)?.split_whitespace().next()?.parse::<f64>().ok();
    let (Some(done), Some(rate)) = (before("requests in"), after("Requests/sec:")) else {
        return Err(io::Error::other(format!("wrk: {}", output.trim().escape_debug())));
    };
    if output.contains("Socket errors") || output.contains("Non-2xx") {
        return Err(io::Error::other(format!("wrk saw errors: {}", output.trim().escape_debug())));
    }
    let mut values = reading.shares();
    // The time of wrk itself would count as that of other programs.
    values.retain(|(key, _)| *key != OTHERS);
    values.push((PER_S, rate));
    values.extend(each(&reading, done));
    Ok(values)
}

/// Measures one ping after the other, without other load.
pub fn ping(ground: &Ground, subject: &Subject) -> io::Result<Values> {
    let mut load = Ping::open(&subject.small, Wish::Ping)?;
    load.run_for(ground.options.warmup)?;
    load.take_times_ns();
    let (reading, done) = measure::sample(ground, subject.pids(), &mut load)?;
    let mut values = reading.shares();
    values.extend(each(&reading, done));
    values.extend(latencies(load.take_times_ns()));
    Ok(values)
}

/// Measures datagrams of one shape. Their times are those from a send to its echo.
pub fn datagrams(ground: &Ground, subject: &Subject, shape: Shape) -> io::Result<Values> {
    let mut load = Datagrams::open(&subject.small, shape)?;
    load.run_for(ground.options.warmup)?;
    load.take_times_ns();
    let lost = load.lost();
    let mut values = units(ground, subject, &mut load, ground.options.window)?;
    values.push((LOST, (load.lost() - lost) as f64));
    values.extend(latencies(load.take_times_ns()));
    let each = values.iter().find(|(key, _)| *key == CPU_US_EACH).map(|(_, each)| *each);
    values.extend(each.map(|each| (CPU_S_PER_GIB, each / 1e6 * GIB / shape.len as f64)));
    Ok(values)
}

/// Measures pings while a bulk stream runs through the same proxy.
pub fn ping_beside_bulk(ground: &Ground, subject: &Subject) -> io::Result<Values> {
    let mut bulk = Bulk::open(&subject.bulk, 1)?;
    let mut ping = Ping::open(&subject.small, Wish::Ping)?.paced(PING_PAUSE);
    bulk.run_for(ground.options.warmup)?;
    thread::scope(|scope| {
        let window = ground.options.window;
        let before = bulk.units();
        let meter = Meter::start(ground, subject.pids())?;
        let stream = scope.spawn(move || bulk.run_for(window).map(|()| bulk.units()));
        let pinged = ping.run_for(window);
        let streamed = stream.join().unwrap_or_else(|_| Err(io::Error::other("the stream's thread panicked")));
        let reading = meter.stop()?;
        pinged?;
        let bytes = (streamed? - before) as f64;
        let mut values = reading.shares();
        values.push((GBIT_PER_S, gbit(bytes) / reading.wall_s));
        values.extend(latencies(ping.take_times_ns()));
        Ok(values)
    })
}

/// Measures many open and silent connections: their memory and descriptors, and the CPU time of one event on another
/// connection. Each has carried a ping, so that it is certainly relayed and has used its buffers.
pub fn idle(ground: &Ground, subject: &Subject) -> io::Result<Values> {
    idle_up_to(ground, subject, ground.idle())
}

/// Measures idle connections as [`idle`] does, with `count` of them.
pub fn idle_up_to(ground: &Ground, subject: &Subject, count: usize) -> io::Result<Values> {
    let roots = subject.pids();
    if roots.is_empty() {
        return Err(io::Error::other("there is no proxy to measure"));
    }
    let total = |of: fn(u32) -> u64| roots.iter().map(|root| of(*root)).sum::<u64>();
    let mut held = Vec::new();
    hold(&mut held, &subject.small, IDLE_FEW)?;
    let mut active = Ping::open(&subject.small, Wish::Echo)?;
    let (few, few_events) = measure::sample(ground, roots, &mut active)?;
    let (memory, descriptors) = (total(proc::private_bytes), total(proc::descriptors));

    let more = count.saturating_sub(IDLE_FEW).max(1);
    hold(&mut held, &subject.small, more)?;
    // Proxies release buffers after a while.
    thread::sleep(SETTLE);
    let (memory_after, descriptors_after) = (total(proc::private_bytes), total(proc::descriptors));
    let (many, many_events) = measure::sample(ground, roots, &mut active)?;
    let more = more as f64;
    let per_event = |cpu_s: Option<f64>| cpu_s.unwrap_or(f64::NAN) * 1e6;
    Ok(vec![
        (MEMORY_EACH, (memory_after as f64 - memory as f64) / more),
        (MEMORY_TOTAL, memory_after as f64 / 1024.0 / 1024.0),
        (DESCRIPTORS_EACH, (descriptors_after as f64 - descriptors as f64) / more),
        (EVENT_FEW, per_event(few.cpu_per(few_events))),
        (EVENT_MANY, per_event(many.cpu_per(many_events))),
    ])
}

fn hold(held: &mut Vec<Ping>, route: &Route, count: usize) -> io::Result<()> {
    let start = Instant::now();
    for _ in 0..count {
        if start.elapsed() > HOLD_TIME_MAX {
            return Err(io::Error::other(format!(
                "only {} connections after {} s",
                held.len(),
                HOLD_TIME_MAX.as_secs()
            )));
        }
        let opened = Ping::open(route, Wish::Echo);
        held.push(opened.map_err(|error| io::Error::other(format!("at {} connections: {error}", held.len())))?);
    }
    Ok(())
}

/// Returns the CPU time of each unit: the proxy's, and the machine's.
fn each(reading: &Reading, done: f64) -> Values {
    let proxy = reading.cpu_per(done).map(|cpu_s| (CPU_US_EACH, cpu_s * 1e6));
    proxy.into_iter().chain([(MACHINE_US_EACH, reading.machine_s / done * 1e6)]).collect()
}

fn latencies(mut times_ns: Vec<u64>) -> Values {
    let mut at = |share| stats::percentile(&mut times_ns, share).map_or(f64::NAN, |ns| ns as f64 / 1000.0);
    vec![(P50_US, at(0.5)), (P99_US, at(0.99)), (P999_US, at(0.999))]
}

fn gbit(bytes: f64) -> f64 {
    bytes * 8.0 / 1e9
}

// Keys of the values.
pub const GBIT_PER_S: &str = "gbit_per_s";
pub const CPU_S_PER_GIB: &str = "cpu_s_per_gib";
pub const MACHINE_S_PER_GIB: &str = "machine_cpu_s_per_gib";
pub const PER_S: &str = "per_s";
pub const LOST: &str = "lost";
pub const CPU_US_EACH: &str = "cpu_us_each";
pub const MACHINE_US_EACH: &str = "machine_cpu_us_each";
pub const P50_US: &str = "p50_us";
pub const P99_US: &str = "p99_us";
pub const P999_US: &str = "p999_us";
pub const MEMORY_EACH: &str = "private_bytes_each";
pub const MEMORY_TOTAL: &str = "private_mib_total";
pub const DESCRIPTORS_EACH: &str = "descriptors_each";
pub const EVENT_FEW: &str = "event_cpu_us_beside_10";
pub const EVENT_MANY: &str = "event_cpu_us_beside_all";

const GIB: f64 = (1u64 << 30) as f64;
const CONCURRENT: usize = 32;
const KEPT_ALIVE: usize = 64;
const IDLE_FEW: usize = 10;
/// Length of a sample with two scrapes of each document.
const SCRAPED_WINDOW: Duration = Duration::from_secs(2);
const SCRAPED_IDLE: usize = 1_000;
/// Pause between pings beside a stream: a person who types also pauses, and the client has to receive the stream as
/// well.
const PING_PAUSE: Duration = Duration::from_micros(200);
const HOLD_TIME_MAX: Duration = Duration::from_secs(15);
const SETTLE: Duration = Duration::from_millis(500);
