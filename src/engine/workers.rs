//! Workers: the threads for calls that block, such as lookups of names.
//!
//! All loops of a process share the workers. The queues are bounded. At most half of the threads are in `getaddrinfo` at
//! once, and one more for a name of the process itself, such as the peer of a link. So a name server that does not answer
//! leaves the other half to other jobs: connects to Unix sockets with a full backlog, which have the same bound, and jobs
//! of a library user. One peer of links or one client network has at most a quarter of a queue and of the threads; waiting
//! askers are served in turn. The lookups of all lists of upstreams, for which no client waits, have such a quarter together.
//! Workers do not connect to TCP targets: loops do so without blocking, so a target that drops packets occupies no thread.

use std::collections::VecDeque;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use std::{io, vec};

use crate::engine::fair::{Asker, FairQueue, Shares};
use crate::engine::mailbox::{Full, Mail, Mailbox};
use crate::engine::resolve::{Late, Resolved};
use crate::engine::sync::thread::{self, JoinHandle};
use crate::engine::sync::{AtomicU64, Condvar, Mutex, MutexGuard, Ordering};
use crate::types::address::Name;
use crate::types::reason::{Failure, Reason};

/// A pool of threads. A drop ends the threads, and does not wait for a thread in `getaddrinfo`.
pub struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// A job of a worker.
enum Job {
    /// A lookup of a name for a loop.
    Lookup(Asker, NameJob),
    /// A connect to a Unix socket.
    Connect(Asker, Task),
    /// A function of a library user that may block.
    Run(Task),
}

type Task = Box<dyn FnOnce() + Send>;

/// A job that asks name servers.
enum NameJob {
    /// For the dials that wait for a name.
    Dial(Lookup),
    /// For a discovery, which takes the answer itself.
    Discovery(Task),
}

/// A request of a loop for the addresses of a name.
pub(crate) struct Lookup {
    pub name: Name,
    /// Longest wait in the queue; zero is no limit.
    pub patience: Duration,
    pub answer_to: Arc<Mailbox>,
    /// Set when the lookup of another asker has answered. Relaxed, because it only saves work.
    pub is_answered: Arc<AtomicBool>,
    since: Instant,
}

impl Lookup {
    pub fn new(name: Name, patience: Duration, answer_to: Arc<Mailbox>, is_answered: Arc<AtomicBool>) -> Lookup {
        Lookup { name, patience, answer_to, is_answered, since: Instant::now() }
    }
}

struct Shared {
    queues: Mutex<Queues>,
    work: Condvar,
    queue_max: usize,
    done: Vec<AtomicU64>,
}

/// The waiting jobs of each kind.
struct Queues {
    lookups: FairQueue<NameJob>,
    connects: FairQueue<Task>,
    /// True if the next worker looks into the queue of connects first.
    connects_first: bool,
    runs: VecDeque<Task>,
    stopping: bool,
}

impl Workers {
    /// Starts `count` threads, at least one, with queues of up to `queue_max` waiting jobs of each kind.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub fn start(count: usize, queue_max: usize) -> io::Result<Arc<Workers>> {
        let count = count.max(1);
        let quarter = |whole: usize| (whole / 4).max(1);
        let shares = Shares { waiting: (queue_max, quarter(queue_max)), at_once: (count.div_ceil(2), quarter(count)) };
        let shared = Arc::new(Shared {
            queues: Mutex::new(Queues::new(shares)),
            work: Condvar::new(),
            queue_max,
            done: (0..count).map(|_| AtomicU64::new(0)).collect(),
        });
        let mut threads = Vec::with_capacity(count);
        for number in 0..count {
            let shared = Arc::clone(&shared);
            let work = move || shared.work(number);
            threads.push(thread::Builder::new().name(format!("worker-{number}")).spawn(work)?);
        }
        Ok(Arc::new(Workers { shared, threads }))
    }

    /// Returns the number of jobs that each thread has done.
    pub fn done(&self) -> Vec<u64> {
        self.shared.done.iter().map(|done| done.load(Ordering::Relaxed)).collect()
    }

    /// Runs a function that may block, such as a connect through another program.
    ///
    /// # Errors
    /// [`Full`] if too many jobs wait.
    pub fn run(&self, what: impl FnOnce() + Send + 'static) -> Result<(), Full> {
        let mut queues = self.shared.lock();
        if queues.runs.len() >= self.shared.queue_max {
            return Err(Full);
        }
        queues.runs.push_back(Box::new(what));
        drop(queues);
        self.shared.work.notify_one();
        Ok(())
    }

    /// Looks a name up and posts the result. A lookup that has waited longer than its patience is not made: its asker has
    /// given up, and the lookups behind it should not wait for a resolver that hangs.
    ///
    /// # Errors
    /// [`Full`] if too many lookups wait, of all askers or of this one.
    pub(crate) fn look_up(&self, asker: Asker, lookup: Lookup) -> Result<(), Full> {
        self.shared.lock().lookups.push(asker, NameJob::Dial(lookup)).map_err(|_| Full)?;
        self.shared.work.notify_one();
        Ok(())
    }

    /// Runs a lookup of a discovery. It may block in the resolver, and reports its result by itself.
    ///
    /// # Errors
    /// [`Full`] if too many lookups wait, of all discoveries or of this one. The function is dropped then.
    pub(crate) fn discover(&self, asker: Asker, what: impl FnOnce() + Send + 'static) -> Result<(), Full> {
        self.shared.lock().lookups.push(asker, NameJob::Discovery(Box::new(what))).map_err(|_| Full)?;
        self.shared.work.notify_one();
        Ok(())
    }

    /// Runs a connect that may block.
    ///
    /// # Errors
    /// [`Full`] if too many connects wait, of all askers or of this one. The function is dropped then.
    pub(crate) fn connect(&self, asker: Asker, what: impl FnOnce() + Send + 'static) -> Result<(), Full> {
        self.shared.lock().connects.push(asker, Box::new(what)).map_err(|_| Full)?;
        self.shared.work.notify_one();
        Ok(())
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.work.notify_all();
        // The threads are not joined, because one may be in getaddrinfo for a long time.
        self.threads.clear();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, number: usize) {
        while let Some(job) = self.next() {
            match job {
                Job::Lookup(asker, lookup) => {
                    match lookup {
                        NameJob::Dial(lookup) => lookup.answer(asker),
                        NameJob::Discovery(what) => run(what),
                    }
                    self.lock().lookups.done(asker);
                    // The end of one job may permit two others: one of an asker and one of the process itself.
                    self.work.notify_one();
                }
                Job::Connect(asker, what) => {
                    run(what);
                    self.lock().connects.done(asker);
                    self.work.notify_one();
                }
                Job::Run(what) => run(what),
            }
            self.done[number].fetch_add(1, Ordering::Relaxed);
        }
    }

    fn next(&self) -> Option<Job> {
        let mut queues = self.lock();
        loop {
            if queues.stopping {
                return None;
            }
            if let Some(what) = queues.runs.pop_front() {
                return Some(Job::Run(what));
            }
            if let Some(job) = queues.take() {
                return Some(job);
            }
            queues = self.work.wait(queues).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Queues {
    fn new(shares: Shares) -> Queues {
        let (lookups, connects) = (FairQueue::new(shares), FairQueue::new(shares));
        Queues { lookups, connects, connects_first: false, runs: VecDeque::new(), stopping: false }
    }

    /// Takes a lookup or a connect, alternately.
    fn take(&mut self) -> Option<Job> {
        self.connects_first = !self.connects_first;
        let first = self.connects_first.then(|| self.take_connect()).flatten();
        let lookup = || self.lookups.take().map(|(asker, lookup)| Job::Lookup(asker, lookup));
        first.or_else(lookup).or_else(|| self.take_connect())
    }

    fn take_connect(&mut self) -> Option<Job> {
        self.connects.take().map(|(asker, what)| Job::Connect(asker, what))
    }
}

impl Lookup {
    /// Looks the name up if no other lookup has answered, and posts the result.
    fn answer(self, asker: Asker) {
        if self.is_answered.load(Ordering::Relaxed) {
            return;
        }
        let is_late = !self.patience.is_zero() && self.since.elapsed() >= self.patience;
        let found = if is_late { Err(Reason::TimedOut.into()) } else { look_up(&self.name) };
        // The asker has too many lookups; the name is not at fault.
        let late = is_late.then_some(Late { asker, is_answered: self.is_answered });
        // The mailbox never refuses an answer; a loop that is gone needs none.
        let _ = self.answer_to.post(Mail::Resolved(Resolved { name: self.name, found, late }));
    }
}

/// Runs a function of a library user. The thread goes on after a panic, which has been printed.
fn run(what: Task) {
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(what));
}

/// Returns the addresses of a name in the system's order (RFC 6724).
fn look_up(name: &Name) -> Result<Vec<IpAddr>, Failure> {
    match (name.as_str(), 0).to_socket_addrs() {
        Ok(found) => Ok(distinct(found)),
        Err(error) if crate::sys::is_out_of_descriptors(&error) => {
            Err(Failure::new(Reason::LimitReached, error.to_string()))
        }
        Err(error) => Err(Failure::new(Reason::NameResolutionFailure, error.to_string())),
    }
}

fn distinct(found: vec::IntoIter<std::net::SocketAddr>) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = Vec::with_capacity(found.len());
    for address in found.map(|found| found.ip()) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

#[cfg(all(test, loom))]
mod models;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn all_workers_run_jobs_and_a_panic_ends_none_of_them() {
        let workers = Workers::start(4, 100).unwrap();
        // Four jobs that wait for each other only end if four threads run them.
        let barrier = Arc::new(std::sync::Barrier::new(4));
        let (sender, receiver) = mpsc::channel();
        for _ in 0..4 {
            workers.run(|| panic!("a job panics (this message belongs to the test)")).unwrap();
        }
        for _ in 0..4 {
            let (barrier, sender) = (Arc::clone(&barrier), sender.clone());
            workers
                .run(move || {
                    barrier.wait();
                    sender.send(()).unwrap();
                })
                .unwrap();
        }
        for _ in 0..4 {
            receiver.recv_timeout(Duration::from_secs(10)).unwrap();
        }
    }

    #[test]
    fn a_full_queue_refuses_a_job() {
        let workers = Workers::start(1, 1).unwrap();
        let (release, gate) = mpsc::channel::<()>();
        let (started, running) = mpsc::channel();
        workers
            .run(move || {
                started.send(()).unwrap();
                let _ = gate.recv();
            })
            .unwrap();
        running.recv().unwrap();
        workers.run(|| ()).unwrap();
        assert_eq!(workers.run(|| ()), Err(Full));
        drop(release);
    }

    #[test]
    fn a_lookup_that_waited_too_long_is_not_made_and_is_reported_as_late() {
        let poll = mio::Poll::new().unwrap();
        let mailbox = Arc::new(Mailbox::new(poll.registry(), mio::Token(0), 1).unwrap());
        let answered = |since: Instant, patience: Duration| {
            let (name, asker) = (Name::new("localhost").unwrap(), Asker::Key([1; 32]));
            let lookup = Lookup::new(name, patience, Arc::clone(&mailbox), Arc::default());
            Lookup { since, ..lookup }.answer(asker);
            let mut mails = VecDeque::new();
            mailbox.take(&mut mails);
            let Some(Mail::Resolved(resolved)) = mails.pop_front() else { panic!("an answer") };
            resolved
        };
        let long_ago = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        let late = answered(long_ago, Duration::from_millis(500));
        assert_eq!(late.found.unwrap_err().reason, Reason::TimedOut);
        assert_eq!(late.late.unwrap().asker, Asker::Key([1; 32]));
        let in_time = answered(Instant::now(), Duration::from_secs(60));
        assert!(in_time.late.is_none() && !in_time.found.unwrap().is_empty());
    }

    #[test]
    fn localhost_resolves_and_an_invalid_name_fails() {
        let found = look_up(&Name::new("localhost").unwrap()).unwrap();
        assert!(found.iter().all(IpAddr::is_loopback) && !found.is_empty());
        let failure = look_up(&Name::new("no-such-name.invalid").unwrap()).unwrap_err();
        assert_eq!(failure.reason, Reason::NameResolutionFailure);
    }
}
