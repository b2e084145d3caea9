//! The silence that a change of the network costs a link with nothing but its paths configured. A transfer in both
//! directions, whose bytes are compared, goes on meanwhile.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::Run;
use crate::net_kit::filter::{filter, of_links};
use crate::net_kit::nodes::{Forward, Options, PORT};
use crate::net_kit::transfer::swap_while;
use crate::net_kit::{Kind, Net, Way};
use crate::network::{self, Pair, ms};
use crate::place::Place;

pub fn tcp_dropped(_: &Place) -> io::Result<Run> {
    silence(1, "the packets of TCP are dropped", |net| filter(net, &of_links("tcp", "drop")))
}

pub fn udp_dropped(_: &Place) -> io::Result<Run> {
    silence(1, "the packets of UDP are dropped", |net| filter(net, &of_links("udp", "drop")))
}

pub fn tcp_reset(_: &Place) -> io::Result<Run> {
    silence(1, "the packets of TCP are answered by a reset", |net| net.path(0).refuse(PORT))
}

pub fn cable(_: &Place) -> io::Result<Run> {
    silence(2, "one of two paths carries nothing more", |net| net.path(0).black_hole(Way::Both))
}

/// Measures the silence while the rate of one of two paths falls to nothing in two seconds.
pub fn walk(_: &Place) -> io::Result<Run> {
    silence(2, "one of two paths fades away in 2 s", |net| {
        for step in (1..STEPS).rev() {
            net.path(0).set_rate(MBIT * f64::from(step) / f64::from(STEPS));
            thread::sleep(FADE / STEPS);
        }
        net.path(0).black_hole(Way::Both);
    })
}

/// Measures the silence after the end of two seconds in which nothing passes.
pub fn darkness(_: &Place) -> io::Result<Run> {
    let run = silence(1, "nothing passes for 2 s; counted from their end", |net| {
        net.path(0).black_hole(Way::Both);
        thread::sleep(DARKNESS);
        net.path(0).heal();
    })?;
    let beside = (run.beside - DARKNESS.as_secs_f64() * 1000.0).max(0.0);
    Ok(Run { beside, ..run })
}

/// Measures the longest echo in the seconds after a change of the network, and the longest one before.
fn silence(paths: usize, said: &str, change: fn(&Net)) -> io::Result<Run> {
    let net = network::of(&vec![Kind::Rate(MBIT); paths])?;
    let sources: Vec<String> = (0..paths).map(|index| net.path(index).near_ip().to_string()).collect();
    let near: Vec<&str> = sources.iter().flat_map(|source| ["--path", source]).collect();
    let forward = Forward::start(&net, Options { near: &near, ..Options::default() });
    forward.nodes.until_live(2 * paths);
    let [before, after] = swap_while(forward.peers(), 1 << 20, || {
        let echoes = Echoes::start(forward.pair());
        thread::sleep(ms(2000));
        let before = echoes.longest();
        change(&net);
        thread::sleep(ms(3000));
        [before, echoes.longest()]
    });
    let figure = |time: Duration| time.as_secs_f64() * 1000.0;
    Ok(Run { plain: figure(before), beside: figure(after), attack: said.to_owned(), ..Run::default() })
}

/// Small messages that follow one another, each answered before the next.
struct Echoes {
    times: Arc<Mutex<Times>>,
    client: TcpStream,
}

#[derive(Default)]
struct Times {
    /// The time at which the message under way was sent.
    sent: Option<Instant>,
    longest: Duration,
}

impl Echoes {
    fn start((client, mut server): Pair) -> Echoes {
        let times = Arc::new(Mutex::new(Times::default()));
        let mut socket = client.try_clone().expect("a descriptor");
        thread::spawn(move || {
            let mut message = [0; 8];
            while server.read_exact(&mut message).is_ok() && server.write_all(&message).is_ok() {}
        });
        let own = Arc::clone(&times);
        thread::spawn(move || {
            for number in 0u64.. {
                lock(&own).sent = Some(Instant::now());
                let mut answer = [0; 8];
                if socket.write_all(&number.to_be_bytes()).is_err() || socket.read_exact(&mut answer).is_err() {
                    return;
                }
                assert_eq!(u64::from_be_bytes(answer), number, "the echo of this message");
                let mut times = lock(&own);
                let took = times.sent.take().map_or(Duration::ZERO, |sent| sent.elapsed());
                times.longest = times.longest.max(took);
                drop(times);
                // As in typing.
                thread::sleep(ms(5));
            }
        });
        Echoes { times, client }
    }

    /// Returns the longest time for one message since the last call, also of the one under way.
    fn longest(&self) -> Duration {
        let mut times = lock(&self.times);
        let under_way = times.sent.map_or(Duration::ZERO, |sent| sent.elapsed());
        std::mem::take(&mut times.longest).max(under_way)
    }
}

impl Drop for Echoes {
    fn drop(&mut self) {
        let _ = self.client.shutdown(Shutdown::Both);
    }
}

fn lock(times: &Mutex<Times>) -> MutexGuard<'_, Times> {
    times.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The rate of each path.
const MBIT: f64 = 50.0;
/// The time in which a path fades away.
const FADE: Duration = ms(2000);
const STEPS: u32 = 20;
/// The time in which nothing passes.
const DARKNESS: Duration = ms(2000);
