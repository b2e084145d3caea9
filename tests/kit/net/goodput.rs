//! Measures the goodput of connections: the payload that arrives per second.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Sends as much as possible from the first end of each connection to the second, until it is dropped.
pub struct Load {
    received: std::sync::Arc<AtomicU64>,
    /// Microseconds.
    longest_gap: std::sync::Arc<AtomicU64>,
    is_over: std::sync::Arc<AtomicBool>,
    sockets: Vec<TcpStream>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Load {
    pub fn start(pairs: Vec<(TcpStream, TcpStream)>) -> Load {
        let received = std::sync::Arc::new(AtomicU64::new(0));
        let longest_gap = std::sync::Arc::new(AtomicU64::new(0));
        let is_over = std::sync::Arc::new(AtomicBool::new(false));
        let (mut sockets, mut threads) = (Vec::new(), Vec::new());
        for (mut from, mut to) in pairs {
            sockets.extend([from.try_clone().expect("a descriptor"), to.try_clone().expect("a descriptor")]);
            threads.push(thread::spawn(move || while from.write_all(&[7; 64 << 10]).is_ok() {}));
            to.set_read_timeout(Some(Duration::from_millis(50))).expect("a socket");
            let (received, longest_gap, is_over) = (received.clone(), longest_gap.clone(), is_over.clone());
            threads.push(thread::spawn(move || {
                let (mut buf, mut last) = (vec![0; 256 << 10], Instant::now());
                while !is_over.load(Ordering::Relaxed) {
                    let read = to.read(&mut buf);
                    longest_gap.fetch_max(last.elapsed().as_micros() as u64, Ordering::Relaxed);
                    match read {
                        Ok(0) => break,
                        Ok(got) => {
                            received.fetch_add(got as u64, Ordering::Relaxed);
                            last = Instant::now();
                        }
                        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                        Err(_) => break,
                    }
                }
            }));
        }
        Load { received, longest_gap, is_over, sockets, threads }
    }

    /// Returns the number of bytes that have arrived so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Returns the longest time in which nothing arrived on one of the connections since the last call, also one that goes on. Panics
    /// if a connection has ended.
    #[track_caller]
    pub fn longest_gap(&self) -> Duration {
        let is_whole = self.threads.iter().all(|thread| !thread.is_finished());
        assert!(is_whole, "a connection has ended");
        Duration::from_micros(self.longest_gap.swap(0, Ordering::Relaxed))
    }

    /// Measures for this long, and returns the goodput in megabits per second.
    pub fn measure(&self, time: Duration) -> f64 {
        Load::measure_all([self], time)[0]
    }

    /// Measures several at the same time, and returns the goodput of each in megabits per second.
    pub fn measure_all<'a>(loads: impl IntoIterator<Item = &'a Load>, time: Duration) -> Vec<f64> {
        let before: Vec<(&Load, u64)> = loads.into_iter().map(|load| (load, load.received())).collect();
        let since = Instant::now();
        thread::sleep(time);
        let seconds = since.elapsed().as_secs_f64();
        before.iter().map(|(load, before)| (load.received() - before) as f64 * 8e-6 / seconds).collect()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for socket in &self.sockets {
            // A connection that is already closed gives an error, which does not matter.
            let _ = socket.shutdown(Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Measures the connections for `time` after `warm_up`, and returns their goodput in megabits per second.
pub fn goodput(pairs: Vec<(TcpStream, TcpStream)>, warm_up: Duration, time: Duration) -> f64 {
    let load = Load::start(pairs);
    thread::sleep(warm_up);
    load.measure(time)
}

/// Measures each of the connections for `time` after `warm_up`, all at once, and returns their goodputs in megabits per second.
pub fn goodputs(pairs: Vec<(TcpStream, TcpStream)>, warm_up: Duration, time: Duration) -> Vec<f64> {
    let loads: Vec<Load> = pairs.into_iter().map(|pair| Load::start(vec![pair])).collect();
    thread::sleep(warm_up);
    Load::measure_all(&loads, time)
}
