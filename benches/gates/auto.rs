//! The silence that a change of the network costs a link with nothing but its paths configured, or not even these. A transfer in both
//! directions, whose bytes are compared, goes on meanwhile.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::Run;
use crate::net_kit::filter::{filter, of_links};
use crate::net_kit::nodes::{Forward, Options, PORT};
use crate::net_kit::transfer::swap_while;
use crate::net_kit::{Kind, Net, Way};
use crate::network::{self, Pair, ms};
use crate::place::Place;

pub fn tcp_dropped(_: &Place) -> io::Result<Run> {
    silence(ONE, "the packets of TCP are dropped", |net, _| filter(net, &of_links("tcp", "drop")))
}

pub fn udp_dropped(_: &Place) -> io::Result<Run> {
    silence(ONE, "the packets of UDP are dropped", |net, _| filter(net, &of_links("udp", "drop")))
}

pub fn tcp_reset(_: &Place) -> io::Result<Run> {
    silence(ONE, "the packets of TCP are answered by a reset", |net, _| net.path(0).refuse(PORT))
}

pub fn cable(_: &Place) -> io::Result<Run> {
    silence(TWO, "one of two paths carries nothing more", |net, _| net.path(0).black_hole(Way::Both))
}

/// Measures the silence while the device that the link uses has no carrier any more, and the system has another one.
pub fn cable_unbound(_: &Place) -> io::Result<Run> {
    silence(UPLINKS, "the device loses its carrier and keeps its address; there is another one", |net, _| {
        net.path(0).pull();
    })
}

/// Measures the silence while the device that the link uses goes down, and the system has another one.
pub fn device_down(_: &Place) -> io::Result<Run> {
    silence(UPLINKS, "the device goes down; there is another one", |net, _| net.near().ip("link set p1 down"))
}

/// Measures the silence while the address that the link uses is removed, and the system has another one.
pub fn walk_out(_: &Place) -> io::Result<Run> {
    silence(UPLINKS, "the address is removed and its device goes down; there are others", |net, _| {
        net.near().ip(&format!("addr del {}/24 dev p1\nlink set p1 down", net.path(0).near_ip()));
    })
}

/// Measures the silence while the rate of one of two paths falls to nothing in two seconds.
pub fn walk(_: &Place) -> io::Result<Run> {
    silence(TWO, "one of two paths fades away in 2 s", |net, _| {
        for step in (1..STEPS).rev() {
            net.path(0).set_rate(MBIT * f64::from(step) / f64::from(STEPS));
            thread::sleep(FADE / STEPS);
        }
        net.path(0).black_hole(Way::Both);
    })
}

/// Measures the silence behind half a second in which nothing passes.
pub fn short_darkness(_: &Place) -> io::Result<Run> {
    darkness(ONE, ms(500))
}

/// Measures the silence behind two seconds in which nothing passes.
pub fn usual_darkness(_: &Place) -> io::Result<Run> {
    darkness(ONE, ms(2000))
}

/// Measures the silence behind eight seconds in which nothing passes.
pub fn long_darkness(_: &Place) -> io::Result<Run> {
    darkness(ONE, ms(8000))
}

/// Measures the silence behind eight seconds in which nothing passes, where UDP never does.
pub fn darkness_without_udp(_: &Place) -> io::Result<Run> {
    darkness(Network { has_udp: false, ..ONE }, ms(8000))
}

/// Measures the silence from the end of a time in which nothing passes. That time has a random part, because what the nodes send
/// meanwhile has a cadence. The removal of the rules is a part of the figure: a tenth of a second on a quiet machine, and seconds on a
/// busy one.
fn darkness(network: Network, time: Duration) -> io::Result<Run> {
    let chance = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_micros() / 10);
    let said = format!("nothing passes for {time:?}; counted from their end");
    silence(network, &said, |net, echoes| {
        net.path(0).black_hole(Way::Both);
        thread::sleep(time + ms(400) * (chance % 1000) / 1000);
        // The first packets pass before the last rule is gone.
        echoes.count_from(Instant::now());
        net.path(0).heal();
    })
}

/// A network with a link.
#[derive(Clone, Copy)]
struct Network {
    paths: usize,
    /// The link has a path over each source address. Otherwise the system chooses one.
    is_bound: bool,
    has_udp: bool,
}

/// Measures the longest echo in the seconds after a change of the network, and the longest one before.
fn silence(network: Network, said: &str, change: impl FnOnce(&Net, &Echoes)) -> io::Result<Run> {
    let Network { paths, is_bound, has_udp } = network;
    let net = network::of(&vec![Kind::Rate(MBIT); paths])?;
    if !has_udp {
        filter(&net, &of_links("udp", "drop"));
    }
    let bound = if is_bound { paths } else { 0 };
    let sources: Vec<String> = (0..bound).map(|index| net.path(index).near_ip().to_string()).collect();
    let near: Vec<&str> = sources.iter().flat_map(|source| ["--path", source]).collect();
    let forward = Forward::start(&net, Options { near: &near, ..Options::default() });
    forward.nodes.until_live(bound.max(1) * if has_udp { 2 } else { 1 });
    let [before, after] = swap_while(forward.peers(), 1 << 20, || {
        let echoes = Echoes::start(forward.pair());
        thread::sleep(ms(2000));
        let before = echoes.longest();
        change(&net, &echoes);
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
    /// The time before which nothing counts.
    from: Option<Instant>,
    longest: Duration,
}

impl Times {
    /// Returns the time for the message under way until now, as far as it counts.
    fn took(&self) -> Duration {
        let start = self.sent.max(self.from).filter(|_| self.sent.is_some());
        start.map_or(Duration::ZERO, |start| start.elapsed())
    }
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
                times.longest = times.longest.max(times.took());
                times.sent = None;
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
        let under_way = times.took();
        std::mem::take(&mut times.longest).max(under_way)
    }

    /// Counts no time before this one, and forgets the messages that were answered.
    fn count_from(&self, from: Instant) {
        let mut times = lock(&self.times);
        (times.from, times.longest) = (Some(from), Duration::ZERO);
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
/// One path, two of them, and two that the system chooses from.
const ONE: Network = Network { paths: 1, is_bound: true, has_udp: true };
const TWO: Network = Network { paths: 2, ..ONE };
const UPLINKS: Network = Network { is_bound: false, ..TWO };
