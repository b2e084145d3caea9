//! Measures the harm that a permitted peer can do to other peers: floods of one key, and the time that an echo of
//! another key takes during a flood.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use seaprox::link::frame::Frame;
use seaprox::link::{Code, Host, Open};

use crate::Run;
use crate::echo::{self, Echo};
use crate::hostile_kit::{RawLink, encode};
use crate::kit;
use crate::node::{HONEST, HOSTILE, Node};
use crate::place::{Place, give_way};

/// Flood: streams to a port that refuses, as many at once as the session allows.
pub fn opens(place: &Place) -> io::Result<Run> {
    let port = kit::closed_port();
    beside(place, r#"permit-open="*""#, &[], "opens", move |link| flood_opens(link, local(port), false))
}

/// Flood: streams to a port that accepts, each reset as soon as it is opened.
pub fn resets(place: &Place) -> io::Result<Run> {
    let server = echo::serve()?;
    beside(place, r#"permit-open="*""#, &[], "resets", move |link| flood_opens(link, local(server.port()), true))
}

/// Flood: listeners that are requested and cancelled at once.
pub fn listens(place: &Place) -> io::Result<Run> {
    let mut number = 0;
    beside(place, r#"permit-listen="*""#, &[], "listens", move |link| {
        let mut frames = Vec::new();
        for _ in 0..256 {
            number += 1;
            frames.extend(encode(&Frame::Listen { id: number, open: Open::default() }));
            frames.extend(encode(&Frame::Unlisten { id: number }));
        }
        link.send_raw(&frames)?;
        link.drain()?;
        Ok(256)
    })
}

/// Flood: frames for streams that were never opened, each with one of a thousand ids.
pub fn unopened(place: &Place) -> io::Result<Run> {
    let mut max = 1 << 20;
    beside(place, r#"permit-open="*""#, &[], "frames", move |link| {
        max += 1;
        let frames: Vec<u8> =
            (1..=1_000).flat_map(|index| encode(&Frame::Credit { id: 2 * index, max, taken: 0 })).collect();
        link.send_raw(&frames)?;
        link.drain()?;
        Ok(1_000)
    })
}

/// Flood: small pieces with a gap before each, for streams that were never opened. The receiver has to store each
/// piece.
pub fn pieces(place: &Place) -> io::Result<Run> {
    let mut index = 0;
    beside(place, r#"permit-open="*""#, &[], "pieces", move |link| {
        let id = 2 * (1 + index % 100);
        index += 1;
        let frames: Vec<u8> = (0..200)
            .flat_map(|piece| encode(&Frame::Data { id, offset: 1_200 * piece + 600, fin: false, payload: &[7; 600] }))
            .collect();
        link.send_raw(&frames)?;
        link.drain()?;
        Ok(200)
    })
}

/// Flood: as many connections as the key may have, which stay open.
pub fn connections(place: &Place) -> io::Result<Run> {
    let keeper = Keeper::start()?;
    let port = keeper.port;
    beside(place, r#"permit-open="*""#, &["--max-connections", MANY], "connections", move |link| {
        flood_opens(link, local(port), false)
    })
}

/// Flood: as many connections as the key may have, which all end at once. Measures the longest echo in the next second.
pub fn ends(place: &Place) -> io::Result<Run> {
    let keeper = Keeper::start()?;
    let port = keeper.port;
    let node = Node::start(place, r#"permit-open="*""#, &["--max-connections", MANY]);
    let mut echo = Echo::start(node.addr, HONEST)?;
    let plain = echo.longest_ms(MEASURE)?;
    let flood = Flood::start(node.addr, move |link| flood_opens(link, local(port), false))?;
    flood.wait_until_steady();
    let attack = format!("{} connections", flood.count());
    // A connection that is dropped is a lost subflow; the session is ended by its CLOSE.
    flood.end_session();
    let beside = echo.longest_ms(Duration::from_secs(1))?;
    Ok(Run { plain, beside, attack, ..Run::default() })
}

/// Flood: streams to names for which no answer comes.
pub fn names(place: &Place) -> io::Result<Run> {
    in_names(|_| {
        let mut number = 0;
        let flood = move |link: &mut RawLink| flood_names(link, &mut number);
        beside(place, r#"permit-open="10.0.0.0/8:80""#, &[], "names", flood)
    })
}

/// The same flood as [`names`]. Measures the time until a stream of another key to a name is connected.
pub fn lookups(place: &Place) -> io::Result<Run> {
    in_names(|server| {
        let target = echo::serve()?;
        let names: Vec<String> = (0..12).map(|number| format!("good{number}.test")).collect();
        names.iter().for_each(|name| server.set(name, &["127.0.0.1"], Duration::ZERO));
        let node = Node::start(place, r#"permit-open="10.0.0.0/8:80""#, &[]);
        let mut echo = Echo::start(node.addr, HONEST)?;
        let mut worst = |names: &[String]| -> io::Result<f64> {
            let times: io::Result<Vec<f64>> = names.iter().map(|name| echo.open_name_ms(name, target.port())).collect();
            Ok(times?.into_iter().fold(0.0, f64::max))
        };
        let plain = worst(&names[..4])?;
        let mut number = 0;
        let flood = Flood::start(node.addr, move |link| flood_names(link, &mut number))?;
        thread::sleep(WARM_UP);
        let beside = worst(&names[4..])?;
        Ok(Run { plain, beside, attack: flood.strength("names"), ..Run::default() })
    })
}

/// Measures the echo of another key without a flood, then during one.
fn beside(
    place: &Place,
    permissions: &str,
    options: &[&str],
    what: &str,
    step: impl FnMut(&mut RawLink) -> io::Result<u64> + Send + 'static,
) -> io::Result<Run> {
    let node = Node::start(place, permissions, options);
    let mut echo = Echo::start(node.addr, HONEST)?;
    let plain = echo.p99_ms(MEASURE)?;
    let flood = Flood::start(node.addr, step)?;
    thread::sleep(WARM_UP);
    let (median, beside) = echo.percentiles_ms(MEASURE)?;
    Ok(Run { plain, beside, attack: format!("median {median:.2} ms; {}", flood.strength(what)), ..Run::default() })
}

/// Opens streams until the session takes no more, and resets them at once if `resets`. Returns their number.
fn flood_opens(link: &mut RawLink, to: Open, resets: bool) -> io::Result<u64> {
    let now = link.now();
    let mut count = 0;
    while let Ok(stream) = link.session.open(now, to.clone()) {
        count += 1;
        if resets {
            link.session.reset(stream, Code::SourceReset);
            link.session.stop(now, stream, Code::SourceReset);
        }
    }
    link.turn()?;
    while link.session.poll_event().is_some() {}
    Ok(count)
}

/// Opens streams until the session takes no more, each to a name of its own. Returns their number.
fn flood_names(link: &mut RawLink, number: &mut u64) -> io::Result<u64> {
    let (now, before) = (link.now(), *number);
    while link.session.open(now, Open::name(&format!("n{number}.slow.test"), 80)).is_ok() {
        *number += 1;
    }
    link.turn()?;
    while link.session.poll_event().is_some() {}
    Ok(*number - before)
}

/// Calls `run` in a network whose name server never answers for the names of the flood.
fn in_names(run: impl FnOnce(&kit::names::NameServer) -> io::Result<Run> + Send) -> io::Result<Run> {
    if !kit::has_namespaces() {
        return Err(io::Error::other("needs root, ip and nft"));
    }
    let mut result = Err(io::Error::other("no run"));
    kit::names::isolated("127.0.0.1 localhost\n", |server| {
        server.swallow(".slow.test");
        result = run(server);
    });
    result
}

/// A flood in a thread of its own, until it is dropped.
struct Flood {
    state: Arc<State>,
    since: Instant,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    stop: AtomicBool,
    closes: AtomicBool,
    count: AtomicU64,
}

impl Flood {
    /// Brings up a link with the attacker's key and calls `step` again and again. `step` returns how many units it did.
    fn start(
        node: SocketAddr,
        mut step: impl FnMut(&mut RawLink) -> io::Result<u64> + Send + 'static,
    ) -> io::Result<Flood> {
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut link = match RawLink::connect(node, HOSTILE) {
                Ok(link) => link,
                Err(error) => return drop(tell.send(Err(error))),
            };
            drop(tell.send(Ok(())));
            give_way();
            while !shared.stop.load(Ordering::Relaxed) {
                // A node may close the attacker's link. That ends the flood.
                let Ok(did) = step(&mut link) else { break };
                shared.count.fetch_add(did, Ordering::Relaxed);
                if did == 0 {
                    thread::sleep(Duration::from_millis(1));
                }
            }
            if shared.closes.load(Ordering::Relaxed) {
                let now = link.now();
                link.session.close(now, Code::Drained, "");
                // The end of the session may come with the answer.
                let _ = link.turn();
            }
        });
        told.recv().map_err(io::Error::other)??;
        Ok(Flood { state, since: Instant::now(), thread: Some(thread) })
    }

    fn count(&self) -> u64 {
        self.state.count.load(Ordering::Relaxed)
    }

    fn strength(&self, what: &str) -> String {
        format!("{:.0} {what} a second", self.count() as f64 / self.since.elapsed().as_secs_f64())
    }

    /// Waits until the flood does nothing new for 300 ms, for at most two seconds.
    fn wait_until_steady(&self) {
        let (until, mut before) = (Instant::now() + Duration::from_secs(2), u64::MAX);
        while Instant::now() < until && self.count() != before {
            before = self.count();
            thread::sleep(Duration::from_millis(300));
        }
    }

    /// Tells the flood to end its session in order, soon.
    fn end_session(&self) {
        self.state.closes.store(true, Ordering::Relaxed);
        self.state.stop.store(true, Ordering::Relaxed);
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn local(port: u16) -> Open {
    Open { host: Host::Addr(IpAddr::V4(Ipv4Addr::LOCALHOST)), port, ..Open::default() }
}

/// A server that accepts connections and keeps them open, until it is dropped.
struct Keeper {
    port: u16,
    is_over: Arc<AtomicBool>,
}

impl Keeper {
    fn start() -> io::Result<Keeper> {
        let listener = TcpListener::bind((IpAddr::V4(Ipv4Addr::LOCALHOST), 0))?;
        listener.set_nonblocking(true)?;
        let (port, is_over) = (listener.local_addr()?.port(), Arc::new(AtomicBool::new(false)));
        let over = Arc::clone(&is_over);
        thread::spawn(move || {
            give_way();
            let mut kept = Vec::new();
            while !over.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((socket, _)) => kept.push(socket),
                    // No client waits, or no descriptor is free.
                    Err(_) => thread::sleep(Duration::from_millis(1)),
                }
            }
        });
        Ok(Keeper { port, is_over })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

const MEASURE: Duration = Duration::from_secs(2);
const WARM_UP: Duration = Duration::from_millis(500);
/// The node's connection limit in the floods that use all connections of the key.
const MANY: &str = "8000";
