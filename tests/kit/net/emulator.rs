//! An emulated path: a TUN device in each of two hosts, and two threads that carry IP packets between them.
//!
//! It owns the devices and the threads, which end when it is dropped. What the path does to a packet is in `pipe`; here
//! are the descriptors and the clock. The threads run before everything else where that is allowed, so that a packet is
//! late by some 0.1 ms; `Counts` tells how late packets really were.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::path::Way;
use super::pipe::{Fate, Link, Pipe};
use super::{Host, tun};

/// What became of the packets of one direction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub packets: u64,
    pub bytes: u64,
    /// Packets that found the queue full.
    pub dropped: u64,
    /// Packets that got lost on the wire.
    pub lost: u64,
    /// How late a packet came because the thread was late, at most.
    pub late_max: Duration,
    /// Packets that came more than a millisecond late for that reason.
    pub late: u64,
}

pub struct Emulator {
    out: Direction,
    back: Direction,
}

struct Direction {
    shared: Arc<Mutex<Shared>>,
    /// What is written here wakes the thread; its end ends the thread.
    waker: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    link: Link,
    counts: Counts,
}

impl Emulator {
    /// Makes devices of this name in both hosts and carries packets between them.
    #[track_caller]
    pub fn join(near: &Host, far: &Host, device: &str, link: Link) -> Emulator {
        let (near, far) = (tun::create(near, device), tun::create(far, device));
        let twin = |file: &File| file.try_clone().expect("a descriptor");
        let back = Direction::start(twin(&far), twin(&near), link, link.seed ^ !0);
        Emulator { out: Direction::start(near, far, link, link.seed), back }
    }

    /// Changes how it behaves from now on. Packets on the wire are not concerned, those in the queue are.
    pub fn change(&self, way: Way, change: impl Fn(&mut Link)) {
        for direction in self.directions(way) {
            change(&mut direction.shared().link);
            direction.wake();
        }
    }

    /// What became of the packets so far; for both ways it is the sum.
    pub fn counts(&self, way: Way) -> Counts {
        let mut sum = Counts::default();
        for direction in self.directions(way) {
            let counts = direction.shared().counts;
            sum.packets += counts.packets;
            sum.bytes += counts.bytes;
            sum.dropped += counts.dropped;
            sum.lost += counts.lost;
            sum.late += counts.late;
            sum.late_max = sum.late_max.max(counts.late_max);
        }
        sum
    }

    fn directions(&self, way: Way) -> impl Iterator<Item = &Direction> {
        let out = way.is_out().then_some(&self.out);
        out.into_iter().chain(way.is_back().then_some(&self.back))
    }
}

impl Direction {
    fn start(from: File, to: File, link: Link, seed: u64) -> Direction {
        let shared = Arc::new(Mutex::new(Shared { link, counts: Counts::default() }));
        let (waker, woken) = UnixStream::pair().expect("a pair of sockets");
        woken.set_nonblocking(true).expect("a socket");
        let carrier = Carrier { from, to, woken, shared: Arc::clone(&shared), pipe: Pipe::new(Instant::now(), seed) };
        let thread = thread::Builder::new().name("emulator".to_owned()).spawn(|| carrier.run());
        Direction { shared, waker: Some(waker), thread: Some(thread.expect("a thread")) }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        let _ = self.waker.as_ref().map(|mut waker| waker.write(&[0]));
    }
}

impl Drop for Direction {
    fn drop(&mut self) {
        self.waker = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// What the thread of a direction has.
struct Carrier {
    from: File,
    to: File,
    woken: UnixStream,
    shared: Arc<Mutex<Shared>>,
    pipe: Pipe,
}

impl Carrier {
    fn run(mut self) {
        hurry();
        let mut buf = vec![0; PACKET_MAX];
        let mut now = Instant::now();
        while self.wait(now) {
            let (link, mut counts) = {
                let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
                (shared.link, shared.counts)
            };
            for _ in 0..READS_MAX {
                let Ok(got) = self.from.read(&mut buf) else { break };
                // The transmitter sees each packet when it comes, not when all that came with it are read.
                now = Instant::now();
                counts.lost += self.pipe.advance(&link, now);
                counts.dropped += u64::from(self.pipe.put(&link, &buf[..got]) == Fate::Dropped);
                self.deliver(now, &mut counts);
            }
            now = Instant::now();
            counts.lost += self.pipe.advance(&link, now);
            self.deliver(now, &mut counts);
            self.shared.lock().unwrap_or_else(PoisonError::into_inner).counts = counts;
        }
    }

    fn deliver(&mut self, now: Instant, counts: &mut Counts) {
        while let Some((due, packet)) = self.pipe.take(now) {
            let late = now - due;
            counts.late_max = counts.late_max.max(late);
            counts.late += u64::from(late > Duration::from_millis(1));
            counts.packets += 1;
            counts.bytes += packet.len() as u64;
            // A device that is down takes nothing, as a host that is off.
            let _ = self.to.write(&packet);
        }
    }

    /// Waits until there is something to do; false when all is over.
    fn wait(&mut self, now: Instant) -> bool {
        // Waking up costs more than a packet does: those that follow closely are carried together.
        let timeout = self.pipe.next().map(|at| at.saturating_duration_since(now).max(NAP_MIN));
        let spec =
            timeout.map(|wait| libc::timespec { tv_sec: wait.as_secs() as _, tv_nsec: wait.subsec_nanos().into() });
        let poll = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let mut polls = [poll(self.from.as_raw_fd()), poll(self.woken.as_raw_fd())];
        let spec = spec.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the array and the time outlive the call, the length is that of the array, and no mask is given.
        unsafe { libc::ppoll(polls.as_mut_ptr(), 2, spec, std::ptr::null()) };
        !self.woken.read(&mut [0; 64]).is_ok_and(|got| got == 0)
    }
}

/// Lets this thread run before all others where that is allowed, as the hardware that it stands for would, and its timers
/// fire when they are due. It cannot starve those who send: when they do not run, it has nothing to do.
fn hurry() {
    // SAFETY: all zeros is a valid sched_param.
    let mut param: libc::sched_param = unsafe { std::mem::zeroed() };
    param.sched_priority = 1;
    // SAFETY: the record outlives the call; all of these concern this thread only: zero is the calling thread.
    unsafe {
        if libc::sched_setscheduler(0, libc::SCHED_RR, &raw const param) != 0 {
            libc::setpriority(libc::PRIO_PROCESS, 0, -15);
        }
        libc::prctl(libc::PR_SET_TIMERSLACK, 1_u64, 0_u64, 0_u64, 0_u64);
    }
}

/// The largest IP packet.
const PACKET_MAX: usize = 65_535;

/// Packets that are read before those are looked after that are due.
const READS_MAX: usize = 64;

/// The least time between two looks at what is due.
const NAP_MIN: Duration = Duration::from_micros(40);
