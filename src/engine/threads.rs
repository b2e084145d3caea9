//! Several loops in one process. Their threads share only the workers, the mailboxes, the counts of connections of each
//! network and the listening addresses.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crate::engine::bound::Bound;
use crate::engine::control::Control;
use crate::engine::event_loop::Proxy;
use crate::engine::limits::Config;
use crate::engine::mailbox::Remote;
use crate::engine::sources::Sources;
use crate::engine::workers::Workers;
use crate::sys;

/// Running loops, each in its own thread named `loop-N`.
pub struct Loops {
    remotes: Vec<Remote>,
    threads: Vec<JoinHandle<()>>,
    /// The result of each loop that has ended.
    ended: Receiver<io::Result<()>>,
    /// Kept until the end, because a drop removes the socket files.
    _bounds: Arc<Mutex<Vec<Bound>>>,
}

/// Sets a loop up in its own thread, before any loop runs. The arguments are the loop, the handles of all loops beginning
/// with this one, and the bound addresses to [`listen`](crate::Core::listen) on.
///
/// # Errors
/// The reason why the loop cannot run; no loop runs then.
pub type Setup = Arc<dyn Fn(&mut Proxy, &[Remote], &mut [Bound]) -> io::Result<()> + Send + Sync>;

/// The parts that a thread needs besides the setup.
struct Start {
    make: fn(&Config) -> Box<dyn Control>,
    config: Config,
    workers: Option<Arc<Workers>>,
    number: usize,
    bounds: Arc<Mutex<Vec<Bound>>>,
    sources: Arc<Sources>,
    /// Sends the handle of the loop, and after the setup `None`; an error instead of either.
    tell: Sender<io::Result<Option<Remote>>>,
    /// Receives the handles of all loops, and then an empty list that lets the loop run.
    hear: Receiver<Vec<Remote>>,
}

impl Loops {
    /// Starts a loop for each weight, each with a control from `make` and its share of the limits.
    pub(crate) fn start_with(
        make: fn(&Config) -> Box<dyn Control>,
        weights: &[usize],
        config: &Config,
        workers: Option<&Arc<Workers>>,
        bounds: Vec<Bound>,
        setup: &Setup,
    ) -> io::Result<Loops> {
        let bounds = Arc::new(Mutex::new(bounds));
        let sources = Sources::new(config.limits.connections_per_source);
        let (tell, told) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let mut loops = Loops { remotes: Vec::new(), threads: Vec::new(), ended, _bounds: Arc::clone(&bounds) };
        let mut starts = Vec::new();
        for number in 0..weights.len() {
            let (start, hear) = mpsc::channel();
            let (config, workers) = (share(config, weights, number), workers.cloned());
            let start_of = Start {
                make,
                config,
                workers,
                number,
                bounds: Arc::clone(&bounds),
                tell: tell.clone(),
                hear,
                sources: Arc::clone(&sources),
            };
            let (setup, end) = (Arc::clone(setup), end.clone());
            let body = move || {
                let result = catch_unwind(AssertUnwindSafe(|| start_of.run(&setup)));
                // The receiver is gone if the start has failed.
                let _ = end.send(result.unwrap_or_else(|_| Err(io::Error::other("a loop panicked"))));
            };
            loops.threads.push(thread::Builder::new().name(format!("loop-{number}")).spawn(body)?);
            loops.remotes.extend(told.recv().map_err(io::Error::other)??);
            starts.push(start);
        }
        for (number, start) in starts.iter().enumerate() {
            let mut all = loops.remotes.clone();
            all.rotate_left(number);
            // The result of a loop that has ended is received below.
            let _ = start.send(all);
            told.recv().map_err(io::Error::other)??;
        }
        for start in starts {
            // All loops are set up; the second message lets a loop run.
            let _ = start.send(Vec::new());
        }
        Ok(loops)
    }

    /// Returns the handles of the loops for other threads.
    pub fn remotes(&self) -> &[Remote] {
        &self.remotes
    }

    /// Waits until all loops have ended. If one fails, the others are stopped at once: a service manager restarts a process
    /// that has ended, but not one that has lost a part of its loops.
    ///
    /// # Errors
    /// The error of the first loop that failed.
    pub fn join(self) -> io::Result<()> {
        let mut result = Ok(());
        for _ in &self.threads {
            let ended = self.ended.recv().unwrap_or_else(|_| Err(io::Error::other("a loop is gone")));
            if let (Ok(()), Err(error)) = (&result, ended) {
                log::error!(target: "seaprox", error = error.to_string(); "a loop failed, and all stop");
                // The only error is a full mailbox: such a loop is busy with other calls, and this one is lost.
                for remote in &self.remotes {
                    let _ = remote.call(|core| core.stop());
                }
                result = Err(error);
            }
        }
        result
    }
}

impl Start {
    fn run(self, setup: &Setup) -> io::Result<()> {
        if let Some(cpu) = self.config.cpus.first()
            && let Err(error) = sys::run_on_cpu(*cpu)
        {
            let error = io::Error::new(error.kind(), format!("processor {cpu}: {error}"));
            return self.tell.send(Err(error)).map_err(io::Error::other);
        }
        let control = (self.make)(&self.config);
        let mut proxy = match Proxy::with_control(self.config, self.workers, control) {
            Ok(proxy) => proxy,
            Err(error) => return self.tell.send(Err(error)).map_err(io::Error::other),
        };
        proxy.core.sources = self.sources;
        proxy.core.number = self.number;
        self.tell.send(Ok(Some(proxy.remote()))).map_err(io::Error::other)?;
        // If another loop cannot start, the sender is dropped, and this loop ends too.
        let Ok(all) = self.hear.recv() else { return Ok(()) };
        let result = {
            let mut bounds = self.bounds.lock().unwrap_or_else(PoisonError::into_inner);
            let set_up = || setup(&mut proxy, &all, &mut bounds);
            catch_unwind(AssertUnwindSafe(set_up)).unwrap_or_else(|_| Err(io::Error::other("the setup panicked")))
        };
        let fit = result.is_ok();
        self.tell.send(result.map(|()| None)).map_err(io::Error::other)?;
        if !fit || self.hear.recv().is_err() {
            return Ok(());
        }
        log::debug!(target: "seaprox", number = self.number; "loop runs");
        proxy.run()
    }
}

/// Returns one loop's part of the limits of the process. The parts add up to the whole.
///
/// Connections, buffers and pipes go to the loops in proportion to the addresses that each listens on, and equally if there
/// are none; each loop has at least one connection and one block. Flows are divided equally. The first loops divide the memory of links.
/// A loop gets one of the processors, if some are named.
pub(crate) fn share(config: &Config, weights: &[usize], number: usize) -> Config {
    let mut config = config.clone();
    let all: usize = weights.iter().sum();
    // The sums are rounded up, so that the parts add up to the whole and the first loops get the remainder.
    let up_to = |whole: usize, number: usize| {
        let weight: usize = weights[..number].iter().sum();
        ((whole as u128 * weight as u128).div_ceil(all as u128)) as usize
    };
    let part = |whole: usize| up_to(whole, number + 1) - up_to(whole, number);
    let part_above = |whole: usize, least: usize| least + part(whole.saturating_sub(least * weights.len()));
    let limits = &mut config.limits;
    limits.connections = part_above(limits.connections, 1);
    limits.flows = limits.flows.div_ceil(weights.len()).max(1);
    limits.flows_per_source = limits.flows_per_source.div_ceil(weights.len());
    limits.buffer_bytes = part_above(limits.buffer_bytes, limits.block_bytes);
    limits.pipes = part(limits.pipes);
    let link_loops = limits.link_loops.clamp(1, weights.len());
    limits.link_bytes = if number < link_loops { limits.link_bytes / link_loops } else { 0 };
    config.cpus = config.cpus.iter().copied().cycle().skip(number).take(1).collect();
    config
}

/// Returns these weights of at least one loop, or equal ones if all are 0.
pub(crate) fn some_weight(weights: &[usize]) -> Vec<usize> {
    if weights.iter().all(|weight| *weight == 0) { vec![1; weights.len().max(1)] } else { weights.to_vec() }
}

/// Returns the number of addresses that each loop listens on, or 1 for each loop if there are none.
pub(crate) fn weights(count: usize, bounds: &[Bound]) -> Vec<usize> {
    let weights: Vec<usize> = (0..count).map(|number| bounds.iter().filter(|it| number < it.loops()).count()).collect();
    some_weight(&weights)
}
