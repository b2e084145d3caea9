//! An emulated path: a TUN device in each of two hosts, and two threads that carry IP packets between them.
//!
//! The emulator owns the devices and the threads, which end when it is dropped. `pipe` decides the fate of each packet;
//! this module has the descriptors and the clock. The threads get real-time priority where that is allowed, so that a
//! packet is late by about 0.1 ms; `Counts` tells how late packets really were.

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

/// The packets of one direction, counted by their fate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub packets: u64,
    pub bytes: u64,
    /// Packets dropped because the queue was full.
    pub dropped: u64,
    /// Packets lost on the wire.
    pub lost: u64,
    /// The longest delay of a packet beyond its time, because the thread was late.
    pub late_max: Duration,
    /// Packets that came more than a millisecond late because the thread was late.
    pub late: u64,
}

pub struct Emulator {
    out: Direction,
    back: Direction,
}

struct Direction {
    shared: Arc<Mutex<Shared>>,
    /// A byte written here wakes the thread; closing it ends the thread.
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

    /// Changes the behaviour of the path from now on: for the packets in the queue, but not for those on the wire.
    pub fn change(&self, way: Way, change: impl Fn(&mut Link)) {
        for direction in self.directions(way) {
            change(&mut direction.shared().link);
            direction.wake();
        }
    }

    /// Returns the packets so far, counted by their fate; for both directions, the sum.
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

/// The state of the thread of one direction.
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
                // The transmitter gets each packet at once, not after all the packets that came with it.
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
            // A device that is down takes no packets, like a host that is switched off.
            let _ = self.to.write(&packet);
        }
    }

    /// Waits until there is something to do; returns false when the emulator has ended.
    fn wait(&mut self, now: Instant) -> bool {
        // A wakeup costs more than a packet: packets that follow one another closely are carried together.
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

/// Gives this thread real-time priority where that is allowed, as it stands for hardware, and exact timers. It cannot
/// starve the senders: when they do not run, it has nothing to do.
fn hurry() {
    // SAFETY: all zeros is a valid sched_param.
    let mut param: libc::sched_param = unsafe { std::mem::zeroed() };
    param.sched_priority = 1;
    // SAFETY: the record outlives the call; all the calls concern this thread only: zero is the calling thread.
    unsafe {
        if libc::sched_setscheduler(0, libc::SCHED_RR, &raw const param) != 0 {
            libc::setpriority(libc::PRIO_PROCESS, 0, -15);
        }
        libc::prctl(libc::PR_SET_TIMERSLACK, 1_u64, 0_u64, 0_u64, 0_u64);
    }
}

/// The largest IP packet, in bytes.
const PACKET_MAX: usize = 65_535;

/// The most packets that are read before the packets that are due are delivered.
const READS_MAX: usize = 64;

/// The shortest time between two deliveries.
const NAP_MIN: Duration = Duration::from_micros(40);
