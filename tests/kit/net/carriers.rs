//! Measures a link over each kind of carrier, on the same path: the goodput of one connection, and the round trip of a small
//! message beside it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use seaprox::node::CarrierKind;

use super::goodput::Load;
use super::nodes::{Forward, Options};
use super::{Kind, Net};

/// A way to carry a link.
#[derive(Clone, Copy)]
pub struct Way {
    pub name: &'static str,
    pub carrier: CarrierKind,
    /// Paths that it uses. The subflows of a link know them all, but for multipath TCP, where the kernel does.
    pub paths: usize,
    /// Subflows over each path that the link knows.
    pub subflows: usize,
}

/// The figures of a link over a way.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Megabits of payload per second.
    pub goodput: f64,
    /// Round trips of a message of 64 bytes while the connection above sends: the median and the 99th percentile.
    pub echo: [Duration; 2],
}

/// Returns the ways that this system has.
pub fn ways() -> Vec<Way> {
    let way = |name, carrier, paths, subflows| Way { name, carrier, paths, subflows };
    let all = [
        way("tcp", CarrierKind::Tcp, 1, 1),
        way("tcp x 4", CarrierKind::Tcp, 1, 4),
        way("mptcp", CarrierKind::Mptcp, 1, 1),
        way("sctp", CarrierKind::Sctp, 1, 1),
        way("tcp, two paths", CarrierKind::Tcp, 2, 1),
        way("mptcp, two paths", CarrierKind::Mptcp, 2, 1),
    ];
    all.into_iter().filter(|way| way.carrier.is_available()).collect()
}

impl Way {
    /// Measures a link over paths of this kind for `time` after `warm_up`.
    #[track_caller]
    pub fn measure(&self, kind: Kind, warm_up: Duration, time: Duration) -> Figures {
        let net = Net::of(&vec![kind; self.paths]);
        let sources: Vec<String> = (0..self.paths).map(|path| net.path(path).near_ip().to_string()).collect();
        let known = if self.carrier == CarrierKind::Mptcp { &sources[..1] } else { &sources[..] };
        if known.len() < sources.len() {
            // Before the sockets are made, which the limits hold for.
            for host in [net.near(), net.far()] {
                host.ip("mptcp limits set subflow 8 add_addr_accepted 8\n");
            }
            net.near().ip(&format!("mptcp endpoint add {} dev {} subflow\n", sources[1], net.path(1).device()));
        }
        let subflows = self.subflows.to_string();
        let mut near: Vec<&str> = known.iter().flat_map(|source| ["--path", source.as_str()]).collect();
        near.extend(["--subflows", &subflows]);
        // The handshakes of a slow, emulated processor may take long.
        let both = ["--carrier", self.carrier.name(), "--handshake-timeout", "30s"];
        let forward = Forward::start(&net, Options { both: &both, near: &near, far: &[] });
        forward.nodes.until_subflows(known.len() * self.subflows);
        let (mut client, server) = forward.pair();
        thread::spawn(move || echo(server));
        let load = Load::start(vec![forward.pair()]);
        thread::sleep(warm_up);
        let (since, before) = (Instant::now(), load.received());
        let mut trips = Vec::new();
        while since.elapsed() < time {
            let sent = Instant::now();
            client.write_all(&[7; 64]).expect("a message");
            client.read_exact(&mut [0; 64]).expect("its echo");
            trips.push(sent.elapsed());
            thread::sleep(Duration::from_millis(20));
        }
        let goodput = (load.received() - before) as f64 * 8e-6 / since.elapsed().as_secs_f64();
        trips.sort();
        let at = |part: f64| trips[((trips.len() - 1) as f64 * part) as usize];
        Figures { goodput, echo: [at(0.5), at(0.99)] }
    }
}

/// Sends back what arrives, until the end.
fn echo(mut socket: TcpStream) {
    let mut buf = [0; 4096];
    while let Ok(got @ 1..) = socket.read(&mut buf) {
        if socket.write_all(&buf[..got]).is_err() {
            return;
        }
    }
}
