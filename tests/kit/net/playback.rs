//! Emulated paths that follow traces: their rates and delays change as in the records of mobile and satellite links.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use seaprox::link::Time;

use super::line::Trace;
use super::{Link, Net, Queue, Way};

/// A trace from a time on, which some paths follow.
pub struct Playback {
    trace: Trace,
    /// The part of the trace at the begin.
    shift: Duration,
}

impl Playback {
    pub fn new(trace: Trace, shift: Duration) -> Playback {
        Playback { trace, shift }
    }

    /// Returns an emulated path as it is at the begin.
    pub fn link(&self) -> Link {
        let queue = Queue::Bytes(usize::try_from(self.trace.queue).expect("a queue that fits in memory"));
        let mut link = Link { queue, ..Link::default() };
        self.apply(Duration::ZERO, &mut link);
        link
    }

    /// Returns the megabits per second of IP bytes that a path carries between two times after the begin.
    pub fn mbit(&self, from: Duration, to: Duration) -> f64 {
        let [since, until] = [from, to].map(|at| Time::from_us(self.us(at)));
        self.trace.capacity(since, until) as f64 * 8e-6 / (to - from).as_secs_f64()
    }

    /// Gives a link the rate and the delay of a time after the begin.
    fn apply(&self, at: Duration, link: &mut Link) {
        let step = self.trace.at(self.us(at)).0;
        (link.mbit, link.delay) = (step.rate as f64 * 8e-6, Duration::from_micros(step.delay_us));
    }

    /// Returns the time after the begin when they change next.
    fn change(&self, at: Duration) -> Duration {
        Duration::from_micros(self.trace.at(self.us(at)).1).saturating_sub(self.shift)
    }

    fn us(&self, at: Duration) -> u64 {
        (self.shift + at).as_micros() as u64
    }
}

/// Makes the first paths of a network follow one trace each, from its begin, while `work` runs.
pub fn follow<T>(net: &Net, playbacks: &[Playback], work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    thread::scope(|scope| {
        // The threads end when their channels close.
        let _ends: Vec<_> = (playbacks.iter().enumerate())
            .map(|(index, playback)| {
                let (end, ended) = channel::<()>();
                scope.spawn(move || {
                    let mut wait = Duration::ZERO;
                    while ended.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                        let now = begun.elapsed();
                        net.path(index).link(Way::Both, |link| playback.apply(now, link));
                        wait = playback.change(now).saturating_sub(begun.elapsed());
                    }
                });
                end
            })
            .collect();
        work()
    })
}
