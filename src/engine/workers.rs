//! Workers: the threads that do what cannot be done without waiting: looking names up.
//!
//! All loops of a process share them. The queues are bounded, and at most half of the threads sit in `getaddrinfo` at once
//! (one more for what the process itself looks up, such as the peer of a link, while it has none there),
//! so that a name server that does not answer leaves the other half to jobs of other kinds: a connect to a Unix socket
//! whose backlog is full, which has the same bound, and jobs of a user of the library. One peer of links, and one client
//! address, has a quarter of the places in a queue and of the threads; waiting askers are served in turn. Workers do not
//! connect: loops connect without blocking, so a target that swallows packets holds no thread.

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

/// A pool of threads. It ends its threads when it is dropped; one that sits in `getaddrinfo` is not waited for.
pub struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// Something that a worker does.
enum Job {
    /// Look a name up for a loop.
    Lookup(Asker, Lookup),
    /// Connect to a Unix socket.
    Connect(Asker, Task),
    /// Run something that may block.
    Run(Task),
}

type Task = Box<dyn FnOnce() + Send>;

/// A name that a loop wants, until when it wants it, and where the answer goes.
pub(crate) struct Lookup {
    pub name: Name,
    /// How long it may wait; zero is for ever.
    pub patience: Duration,
    pub answer_to: Arc<Mailbox>,
    /// The lookup of another asker has answered the name meanwhile.
    pub is_answered: Arc<AtomicBool>,
    since: Instant,
}

impl Lookup {
    pub fn new(name: Name, patience: Duration, answer_to: Arc<Mailbox>, is_answered: Arc<AtomicBool>) -> Lookup {
        Lookup { name, patience, answer_to, is_answered, since: Instant::now() }
    }
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    queue_max: usize,
    done: Vec<AtomicU64>,
}

struct State {
    lookups: FairQueue<Lookup>,
    connects: FairQueue<Task>,
    /// The queue that is asked first next time.
    connects_first: bool,
    runs: VecDeque<Task>,
    stopping: bool,
}

impl Workers {
    /// Starts `count` threads, at least one, that take up to `queue_max` waiting jobs of each kind.
    ///
    /// # Errors
    /// The system's, when it has no more threads.
    pub fn start(count: usize, queue_max: usize) -> io::Result<Arc<Workers>> {
        let count = count.max(1);
        let quarter = |whole: usize| (whole / 4).max(1);
        let shares = Shares { waiting: (queue_max, quarter(queue_max)), at_once: (count.div_ceil(2), quarter(count)) };
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(shares)),
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

    /// Jobs that each thread has done.
    pub fn done(&self) -> Vec<u64> {
        self.shared.done.iter().map(|done| done.load(Ordering::Relaxed)).collect()
    }

    /// Has something run that may block, such as connecting by other means.
    ///
    /// # Errors
    /// [`Full`] when too many jobs wait already.
    pub fn run(&self, what: impl FnOnce() + Send + 'static) -> Result<(), Full> {
        let mut state = self.shared.lock();
        if state.runs.len() >= self.shared.queue_max {
            return Err(Full);
        }
        state.runs.push_back(Box::new(what));
        drop(state);
        self.shared.work.notify_one();
        Ok(())
    }

    /// Looks a name up and posts what it finds. One that has waited for its patience is not looked up any more: whoever
    /// wanted it has given up, and those behind it should not wait for a resolver that hangs.
    ///
    /// # Errors
    /// [`Full`] when too many wait, of all or of this asker.
    pub(crate) fn look_up(&self, asker: Asker, lookup: Lookup) -> Result<(), Full> {
        self.shared.lock().lookups.push(asker, lookup).map_err(|_| Full)?;
        self.shared.work.notify_one();
        Ok(())
    }

    /// Runs a connect that may block.
    ///
    /// # Errors
    /// [`Full`] when too many jobs wait, of all or of this asker; the job is dropped then.
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
        // A thread may be in getaddrinfo for a long time; the process need not wait for it.
        self.threads.clear();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, number: usize) {
        while let Some(job) = self.next() {
            match job {
                Job::Lookup(asker, lookup) => {
                    lookup.answer(asker);
                    self.lock().lookups.done(asker);
                    // The place that became free may be what another thread waits for.
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
        let mut state = self.lock();
        loop {
            if state.stopping {
                return None;
            }
            if let Some(what) = state.runs.pop_front() {
                return Some(Job::Run(what));
            }
            if let Some(job) = state.take() {
                return Some(job);
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl State {
    fn new(shares: Shares) -> State {
        let (lookups, connects) = (FairQueue::new(shares), FairQueue::new(shares));
        State { lookups, connects, connects_first: false, runs: VecDeque::new(), stopping: false }
    }

    /// Takes a look-up or a connect, in turn.
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
    /// Looks the name up if it is still wanted, and posts the result.
    fn answer(self, asker: Asker) {
        if self.is_answered.load(Ordering::Relaxed) {
            return;
        }
        let is_late = !self.patience.is_zero() && self.since.elapsed() >= self.patience;
        let found = if is_late { Err(Reason::TimedOut.into()) } else { look_up(&self.name) };
        // The wait is due to the number of lookups of its asker, and no fault of the name.
        let late = is_late.then_some(Late { asker, is_answered: self.is_answered });
        // Answers are never refused; a loop that is gone needs none.
        let _ = self.answer_to.post(Mail::Resolved(Resolved { name: self.name, found, late }));
    }
}

/// Runs a job of a library user. A panic of the job has been printed already; the thread goes on.
fn run(what: Task) {
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(what));
}

/// The addresses of a name, in the system's order (RFC 6724).
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
    fn every_worker_works_and_a_panic_ends_none() {
        let workers = Workers::start(4, 100).unwrap();
        // Four jobs that wait for one another can only end when four threads run them.
        let barrier = Arc::new(std::sync::Barrier::new(4));
        let (sender, receiver) = mpsc::channel();
        for _ in 0..4 {
            workers.run(|| panic!("a job of somebody else (this message belongs to the test)")).unwrap();
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
    fn a_full_queue_refuses() {
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
    fn a_lookup_that_waited_too_long_is_late_for_its_asker_and_is_not_made() {
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
    fn a_literal_name_resolves_and_a_wrong_one_does_not() {
        let found = look_up(&Name::new("localhost").unwrap()).unwrap();
        assert!(found.iter().all(IpAddr::is_loopback) && !found.is_empty());
        let failure = look_up(&Name::new("no-such-name.invalid").unwrap()).unwrap_err();
        assert_eq!(failure.reason, Reason::NameResolutionFailure);
    }
}
