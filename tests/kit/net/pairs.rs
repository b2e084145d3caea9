//! Measures the goodput of one connection over pairs of unlike paths: by plain TCP over each path alone, by a link over
//! both, and by the kernel's own MPTCP over both.

use std::net::TcpStream;
use std::ops::Range;
use std::thread;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::goodput::goodput;
use super::nodes::{Forward, Options, direct};
use super::{Kind, Link, Net, own_ip};
use crate::kit::SOON;

/// Two paths between the same hosts.
#[derive(Clone, Copy)]
pub struct Pair {
    pub name: &'static str,
    pub paths: [Link; 2],
}

/// The goodput of one connection, in megabits of payload per second.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Plain TCP, over each path alone.
    pub alone: [f64; 2],
    pub link: f64,
    /// `None` where the kernel has no MPTCP.
    pub mptcp: Option<f64>,
}

impl Row {
    /// Returns the sum of the paths alone.
    pub fn sum(&self) -> f64 {
        self.alone[0] + self.alone[1]
    }

    /// Returns the goodput of the link as a fraction of the sum.
    pub fn share(&self) -> f64 {
        self.link / self.sum()
    }
}

/// Returns the pairs of paths for which the link is designed, in Mbit/s and milliseconds one way.
pub fn all() -> [Pair; 5] {
    let path = |mbit, ms| Link { mbit, delay: Duration::from_millis(ms), ..Link::default() };
    let pair = |name, one, other| Pair { name, paths: [one, other] };
    let lossy = Link { loss: 0.005, ..path(50.0, 10) };
    [
        pair("100,5 + 100,5", path(100.0, 5), path(100.0, 5)),
        pair("100,5 + 20,5", path(100.0, 5), path(20.0, 5)),
        pair("50,10 + 50,60", path(50.0, 10), path(50.0, 60)),
        pair("80,10 + 10,100", path(80.0, 10), path(10.0, 100)),
        pair("50,10 + 50,10 with 0.5 % loss", path(50.0, 10), lossy),
    ]
}

impl Pair {
    /// Measures one way after another, each for `time` after `warm_up`.
    #[track_caller]
    pub fn measure(&self, warm_up: Duration, time: Duration, with_mptcp: bool) -> Row {
        let net = Net::of(&self.paths.map(Kind::Emulated));
        let alone = thread::scope(|scope| {
            [0, 1]
                .map(|index| {
                    let path = net.path(index);
                    let pair = direct(net.near(), net.far(), path.near_ip(), path.far_ip());
                    scope.spawn(move || goodput(vec![pair], warm_up, time))
                })
                .map(|thread| thread.join().expect("a measurement"))
        });
        let link = {
            let sources = [0, 1].map(|index| net.path(index).near_ip().to_string());
            let near = ["--path", &sources[0], "--path", &sources[1]];
            let forward = Forward::start(&net, Options { near: &near, ..Options::default() });
            forward.nodes.until_subflows(2);
            goodput(vec![forward.pair()], warm_up, time)
        };
        let mptcp = if with_mptcp { mptcp(&net, 0..2) } else { None };
        let mptcp = mptcp.map(|(_listener, pair)| goodput(vec![pair], warm_up, time));
        Row { alone, link, mptcp }
    }
}

/// Returns the only connection of the kernel's MPTCP in this network, over these paths, if this kernel has it. The other
/// subflows arrive at the listener too, so the listener is returned with the connection.
#[track_caller]
pub fn mptcp(net: &Net, mut paths: Range<usize>) -> Option<(Socket, (TcpStream, TcpStream))> {
    let open = || Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)).ok();
    open()?;
    // Before the socket is made: these limits apply only to sockets made later.
    for host in [net.near(), net.far()] {
        host.ip("mptcp limits set subflow 8 add_addr_accepted 8\n");
    }
    let first = net.path(paths.next()?).near_ip();
    for path in paths.map(|index| net.path(index)) {
        net.near().ip(&format!("mptcp endpoint add {} dev {} subflow\n", path.near_ip(), path.device()));
    }
    let socket = || {
        let socket = open()?;
        // As on the routes. Not every machine lets a namespace set it; the default of the machine then stays.
        let _ = socket.set_tcp_congestion(b"cubic");
        Some(socket)
    };
    let (server, client) = (net.far().inside(socket)?, net.near().inside(socket)?);
    server.bind(&SockAddr::from(std::net::SocketAddr::from((own_ip(1), 0)))).expect("a port");
    server.listen(1).expect("a listener");
    client.bind(&SockAddr::from(std::net::SocketAddr::from((first, 0)))).expect("an address");
    client.connect_timeout(&server.local_addr().expect("the server's address"), SOON).expect("a connection");
    let accepted = server.accept().expect("the client").0;
    Some((server, (client.into(), accepted.into())))
}
