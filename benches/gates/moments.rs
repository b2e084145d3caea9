//! The timers of links on real paths, and the delays of their ends.

use std::io;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::Run;
use crate::kit::socks::connect5;
use crate::kit::{self, until};
use crate::net_kit::Kind;
use crate::net_kit::home::{far_line, homes, near_line};
use crate::net_kit::nodes::{Forward, Nodes, Options, front, start};
use crate::network;
use crate::place::Place;

fn run_of(expected: Duration, took: Duration, attack: &str) -> io::Result<Run> {
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    if took + Duration::from_millis(100) < expected {
        return Err(io::Error::other(format!("{took:?} instead of {expected:?}")));
    }
    Ok(Run { plain: 0.0, beside: ms(took.saturating_sub(expected)), attack: attack.to_owned(), ..Run::default() })
}

/// Measures how late a connection to a silent target ends.
pub fn connect_timeout(_: &Place) -> io::Result<Run> {
    let net = network::of(&[Kind::Veth])?;
    let target = net.far().inside(|| TcpListener::bind("127.0.0.1:0"))?;
    let port = target.local_addr()?.port();
    net.far().nft(&format!(
        "table inet hole {{ chain in {{ type filter hook input priority -300; iifname lo tcp dport {port} drop; }}; }}\n"
    ));
    let near = ["-D", "127.0.0.1:0", "--connect-timeout", "1s"];
    let nodes = Nodes::start(&net, Options { near: &near, ..Options::default() });
    let proxy = nodes.front("socks");
    let since = Instant::now();
    let (_client, reply) = net.near().inside(|| connect5(proxy, "127.0.0.1", port));
    let took = since.elapsed();
    if reply[1] != 6 {
        return Err(io::Error::other(format!("SOCKS code {}", reply[1])));
    }
    run_of(Duration::from_secs(1), took, "a target that does not answer")
}

/// Measures how late an idle stream ends.
pub fn idle_timeout(_: &Place) -> io::Result<Run> {
    let net = network::of(&[Kind::Veth])?;
    let forward = Forward::start(&net, Options { near: &["--idle-timeout", "1s"], ..Options::default() });
    let (mut client, mut server) = forward.peers();
    client.run(&[kit::Step::Send(10)]);
    server.run(&[kit::Step::Read(10)]);
    let since = Instant::now();
    // An end and a reset both count.
    let _ = server.some();
    run_of(Duration::from_secs(1), since.elapsed(), "an idle stream")
}

/// Measures the time from SIGINT to the end of the link's streams.
pub fn end(_: &Place) -> io::Result<Run> {
    let net = network::of(&[Kind::Veth])?;
    let forward = Forward::start(&net, Options::default());
    let mut ends: Vec<_> = (0..5).map(|_| forward.peers()).collect();
    for (client, server) in &mut ends {
        client.run(&[kit::Step::Send(1000)]);
        server.run(&[kit::Step::Read(1000)]);
    }
    let since = Instant::now();
    forward.nodes.near.signal(libc::SIGINT);
    for (client, server) in &mut ends {
        let _ = (client.some(), server.some());
    }
    run_of(Duration::ZERO, since.elapsed(), "five streams")
}

/// Measures the time until a client gets the remote port of a killed client of the same key.
pub fn port_of_a_dead_client(_: &Place) -> io::Result<Run> {
    let net = network::of(&[Kind::Veth])?;
    let (near_home, far_home) = homes("permit-open=\"*\",permit-listen=\"2222\"");
    let far = start(net.far(), &far_line(&far_home));
    let service = net.near().inside(|| TcpListener::bind("127.0.0.1:0"))?;
    let back = format!("2222:{}", service.local_addr()?);
    let holder = |options: &[&str]| {
        let node = start(net.near(), &near_line(&near_home, options));
        until("the far node listens", || node.out().iter().any(|line| line.starts_with("listening remote 2222")));
        node
    };
    let mut first = holder(&["-R", &back, "-D", "127.0.0.1:0"]);
    front(&first, "socks");
    first.signal(libc::SIGKILL);
    first.wait(kit::SOON);
    until("the session of the killed node is held", || {
        far.status()["links"].as_array().is_some_and(|links| links.iter().any(|link| link["state"] != "up"))
    });
    let since = Instant::now();
    let _second = holder(&["-R", &back]);
    run_of(Duration::ZERO, since.elapsed(), "a client that was killed")
}
