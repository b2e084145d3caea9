//! Datagrams that come at a steady rate in both directions (TN-45, BS-24), as those of a tunnel and of a voice call: nothing is
//! lost, nothing changes its place, and nothing waits.

use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use super::linked_datagrams::{Pair, said};
use super::socks_udp::{self, Client, address, datagram};
use crate::kit::{SOON, Seaprox, until};

/// The time between two datagrams: 50 a second.
const PACE: Duration = Duration::from_millis(20);
const COUNT: u32 = 75;
/// The payload of a tunnel like WireGuard, and that of a call: 20 ms of G.711 behind a header of RTP.
const SIZES: [usize; 2] = [1_200, 172];
/// Half of the datagrams must take less time from one end to the other: with more, a call is no conversation (ITU-T G.114).
const MEDIAN: Duration = Duration::from_millis(400);
/// A tenth of the datagrams must take less: a wait for a timer or for further datagrams delays all. A busy machine delays most.
const FASTEST: Duration = Duration::from_millis(100);

/// A client and its target.
struct Flow {
    name: &'static str,
    client: UdpSocket,
    /// The address to which the client sends.
    relay: SocketAddr,
    target: UdpSocket,
    /// The header of SOCKS in front of the datagrams at the client.
    header: Vec<u8>,
    /// The connection of an association, which ends with it.
    _control: Option<std::net::TcpStream>,
}

/// The datagrams that one end got: the number and the time on the way of each.
type Got = Vec<(u32, Duration)>;

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    socket
}

impl Flow {
    /// Makes the two sockets. The relay is made for the address of the target.
    fn new(name: &'static str, relay: impl FnOnce(SocketAddr) -> SocketAddr) -> Flow {
        let (client, target) = (socket(), socket());
        let relay = relay(target.local_addr().unwrap());
        Flow { name, client, relay, target, header: Vec::new(), _control: None }
    }

    fn over_socks(name: &'static str, proxy: SocketAddr) -> Flow {
        let target = socket();
        let Client { control, socket: client, relay } = Client::open(proxy);
        client.set_read_timeout(target.read_timeout().unwrap()).unwrap();
        let header = datagram(&address(target.local_addr().unwrap()), b"");
        Flow { name, client, relay, target, header, _control: Some(control) }
    }

    /// Sends until the target has an address for its answers, and the client an answer: a link may still be on its way.
    /// Returns that address.
    #[track_caller]
    fn open(&self) -> SocketAddr {
        let (mut buf, mut mapped) = ([0; 2_000], None);
        let wait = |time| [&self.client, &self.target].map(|socket| socket.set_read_timeout(Some(time)).unwrap());
        wait(Duration::from_millis(300));
        until(self.name, || {
            self.client.send_to(&[&self.header[..], b"open"].concat(), self.relay).unwrap();
            let Ok((_, from)) = self.target.recv_from(&mut buf) else { return false };
            mapped = Some(from);
            self.target.send_to(b"open", from).unwrap();
            self.client.recv(&mut buf).is_ok()
        });
        // Late copies of these datagrams are not those of the run.
        while self.client.recv(&mut buf).is_ok() || self.target.recv(&mut buf).is_ok() {}
        wait(Duration::from_secs(2));
        mapped.unwrap()
    }

    /// Sends datagrams in both directions at the same time. Returns what the target and what the client got.
    fn run(&self, mapped: SocketAddr, size: usize) -> [Got; 2] {
        let start = Instant::now();
        thread::scope(|scope| {
            scope.spawn(|| send(&self.client, &self.header, self.relay, size, start));
            scope.spawn(|| send(&self.target, b"", mapped, size, start));
            let there = scope.spawn(|| receive(&self.target, b"", size, start));
            let back = receive(&self.client, &self.header, size, start);
            [there.join().unwrap(), back]
        })
    }
}

/// Sends numbered datagrams with their time.
fn send(socket: &UdpSocket, header: &[u8], to: SocketAddr, size: usize, start: Instant) {
    for number in 0..COUNT {
        thread::sleep((PACE * number).saturating_sub(start.elapsed()));
        let mut bytes = header.to_vec();
        bytes.extend(number.to_be_bytes());
        bytes.extend((start.elapsed().as_micros() as u64).to_be_bytes());
        bytes.resize(header.len() + size, number as u8);
        socket.send_to(&bytes, to).unwrap();
    }
}

/// Receives until the last one is there, or none for 2 s.
fn receive(socket: &UdpSocket, header: &[u8], size: usize, start: Instant) -> Got {
    let (mut got, mut buf) = (Vec::new(), [0; 2_000]);
    while got.last().is_none_or(|(number, _)| *number + 1 < COUNT) {
        let Ok(len) = socket.recv(&mut buf) else { break };
        let payload = buf[..len].strip_prefix(header).expect("the header of the target");
        let (number, rest) = payload.split_first_chunk::<4>().unwrap();
        let (sent, filling) = rest.split_first_chunk::<8>().unwrap();
        let number = u32::from_be_bytes(*number);
        assert_eq!(payload.len(), size);
        assert!(filling.iter().all(|byte| *byte == number as u8), "changed bytes");
        let sent = Duration::from_micros(u64::from_be_bytes(*sent));
        got.push((number, start.elapsed().saturating_sub(sent)));
    }
    got
}

/// Returns what is wrong with a direction apart from the order, which must always be kept.
#[track_caller]
fn judge(name: &str, got: &Got) -> Option<String> {
    assert!(got.is_sorted_by(|one, next| one.0 < next.0), "{name}: out of order or twice: {got:?}");
    let mut delays: Vec<Duration> = got.iter().map(|it| it.1).collect();
    delays.sort_unstable();
    let at = |part: usize| delays.get(delays.len() / part).copied().unwrap_or(SOON);
    let (median, fastest) = (at(2), at(10));
    let is_good = got.len() == COUNT as usize && median < MEDIAN && fastest < FASTEST;
    (!is_good).then(|| format!("{name}: {} of {COUNT} arrived, median {median:?}, a tenth {fastest:?}", got.len()))
}

/// Runs a tunnel and a call through each of these flows, all at once. A machine that stands still drops datagrams, so there are
/// several attempts.
#[track_caller]
fn all_arrive(flows: &[Flow]) {
    let mapped: Vec<SocketAddr> = flows.iter().map(Flow::open).collect();
    let attempt = || {
        thread::scope(|scope| {
            let runs: Vec<_> = flows
                .iter()
                .zip(&mapped)
                .enumerate()
                .map(|(index, (flow, mapped))| scope.spawn(move || (flow.name, flow.run(*mapped, SIZES[index % 2]))))
                .collect();
            let runs = runs.into_iter().map(|run| run.join().expect("no panic"));
            runs.flat_map(|(name, [there, back])| [judge(name, &there), judge(name, &back)])
                .flatten()
                .collect::<Vec<_>>()
        })
    };
    let mut faults = Vec::new();
    for _ in 0..6 {
        faults = attempt();
        if faults.is_empty() {
            return;
        }
    }
    panic!("{}", faults.join("\n"));
}

#[test]
fn a_tunnel_and_a_call_lose_nothing_through_static_and_socks() {
    let socks = socks_udp::proxy(&[]);
    let mut relays = Vec::new();
    let mut fixed = |to: SocketAddr| {
        let relay = Seaprox::start(&["static", "--udp", "--listen", "127.0.0.1:0", "--to", &to.to_string()]);
        let addr = said(&relay, "listening static ");
        relays.push(relay);
        addr
    };
    all_arrive(&[
        Flow::new("a tunnel through static", &mut fixed),
        Flow::new("a call through static", &mut fixed),
        Flow::over_socks("a tunnel through socks", socks.addr(0)),
        Flow::over_socks("a call through socks", socks.addr(0)),
    ]);
    drop(relays);
}

#[test]
fn a_tunnel_and_a_call_lose_nothing_over_a_link() {
    let pair = Pair::new(&[]);
    let mut nodes = Vec::new();
    let mut forward = |option: &str, start: &str, to: SocketAddr| {
        let node = pair.near(&["link", option, &format!("udp:127.0.0.1:0:{to}")], "--connect");
        let addr = said(&node, start);
        nodes.push(node);
        addr
    };
    let socks = pair.near(&["socks", "--listen", "127.0.0.1:0"], "--via");
    let proxy = said(&socks, "listening socks ");
    all_arrive(&[
        Flow::new("a tunnel to the far node", |to| forward("-L", "listening static ", to)),
        Flow::new("a call to the far node", |to| forward("-L", "listening static ", to)),
        Flow::new("a tunnel from the far node", |to| forward("-R", "listening remote ", to)),
        Flow::new("a call from the far node", |to| forward("-R", "listening remote ", to)),
        Flow::over_socks("a tunnel through socks over a link", proxy),
        Flow::over_socks("a call through socks over a link", proxy),
    ]);
    drop(nodes);
}
