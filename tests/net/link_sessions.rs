//! Several sessions of one key at one node, between real processes in a network of the test's own: their limit, the
//! remote port of a session that is suspended, the log of sessions that end, and the replacement of the far node.

use crate::kit;
use crate::net_kit;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kit::socks::connect5;
use kit::{Seaprox, until};
use net_kit::home::{Home, far_line, homes, near_line};
use net_kit::nodes::{PORT, front, start};
use net_kit::{Kind, Net, has_net};

const EVERYTHING: &str = "permit-open=\"*\",permit-listen=\"2222\"";

/// Starts a service in the near host, and returns it with the option that makes the far node listen for it on port
/// 2222.
fn service(net: &Net) -> (TcpListener, String) {
    let inner = net.near().inside(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let option = format!("2222:{}", inner.local_addr().unwrap());
    (inner, option)
}

/// Starts a near node that holds port 2222 for a service.
fn holder(net: &Net, home: &Home, options: &[&str]) -> Seaprox {
    let node = start_near(net, home, options);
    until_it_listens(&node);
    node
}

fn start_near(net: &Net, home: &Home, options: &[&str]) -> Seaprox {
    let line = near_line(home, options);
    let words: Vec<&str> = line.iter().map(String::as_str).collect();
    Seaprox::spawn(&words, |command| net.near().enter(command))
}

fn until_it_listens(node: &Seaprox) {
    until("the far node listens for the near one", || {
        node.out().iter().any(|line| line.starts_with("listening remote 2222"))
    });
}

/// Returns true if a client of port 2222 of the far host reaches this service.
fn is_served_by(net: &Net, inner: &TcpListener) -> bool {
    inner.set_nonblocking(true).unwrap();
    let at = SocketAddr::from(([127, 0, 0, 1], 2222));
    let Ok(_client) = net.far().inside(|| TcpStream::connect(at)) else { return false };
    let since = Instant::now();
    while since.elapsed() < Duration::from_millis(500) {
        if inner.accept().is_ok() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

fn kill(mut node: Seaprox) {
    node.signal(libc::SIGKILL);
    node.wait(kit::SOON);
}

fn link_states(far: &Seaprox) -> Vec<String> {
    let status = far.status();
    let links = status["links"].as_array().unwrap().iter();
    links.map(|link| link["state"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_remote_port_of_a_killed_client_passes_to_the_same_key_at_once() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Veth]);
    let (near_home, far_home) = homes(EVERYTHING);
    let far = start(net.far(), &far_line(&far_home));
    let ((one, first), (two, second)) = (service(&net), service(&net));
    let node = holder(&net, &near_home, &["-R", &first]);
    until("its service has the client", || is_served_by(&net, &one));
    // A session that is up shares its port with another of its key.
    let other = holder(&net, &near_home, &["-R", &second]);
    until("the second node has a client", || is_served_by(&net, &two));
    until("the first node has a client", || is_served_by(&net, &one));
    drop(other);
    until("the first node serves alone", || is_served_by(&net, &one));
    // A dead one does not, although its session is held for ten more minutes, and the new command line is different.
    // Gate `link-dead-port` measures how soon.
    kill(node);
    until("the session of the killed node is held", || link_states(&far).iter().any(|state| state == "suspended"));
    let since = Instant::now();
    let node = holder(&net, &near_home, &["-R", &second]);
    println!("another node had the port after {:?}", since.elapsed());
    until("its service has the client", || is_served_by(&net, &two));
    assert!(since.elapsed() < 2 * kit::LATE, "{:?}", since.elapsed());
    drop(node);
    // Another key does not get the port.
    let other_home = Home::new();
    let keys = format!("{EVERYTHING} {}\n{EVERYTHING} {}\n", near_home.key(), other_home.key());
    far_home.write("authorized_keys", &keys);
    far.signal(libc::SIGHUP);
    far.wait_for_log(&["keys read again"]);
    other_home.write("known_nodes", &format!("{}:{PORT} {}\n", net_kit::own_ip(1), far_home.key()));
    let node = holder(&net, &near_home, &["-R", &first]);
    kill(node);
    let node = start_near(&net, &other_home, &["-R", &second]);
    node.wait_for_log(&["the peer does not listen", "address_in_use"]);
}

/// As for a client on a train: while it is away its port passes to another, and comes back when that one is away.
#[test]
fn a_resumed_session_gets_its_remote_port_back_when_it_is_free() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Veth, Kind::Veth]);
    let (near_home, far_home) = homes(EVERYTHING);
    let far = start(net.far(), &far_line(&far_home));
    let ((one, first), (two, second)) = (service(&net), service(&net));
    let sources = [0, 1].map(|index| net.path(index).near_ip().to_string());
    let node = holder(&net, &near_home, &["-R", &first, "--path", &sources[0], "--carrier", "tcp"]);
    net.path(0).refuse(PORT);
    net.path(0).reset(PORT);
    until("the session is suspended", || link_states(&far) == ["suspended"]);
    let other = holder(&net, &near_home, &["-R", &second, "--path", &sources[1]]);
    until("its service has the client", || is_served_by(&net, &two));
    kill(other);
    net.path(0).heal();
    node.wait_for_log(&["link resumed"]);
    until("the first node has its port again", || is_served_by(&net, &one));
}

#[test]
fn beyond_the_session_limit_of_a_key_only_a_suspended_session_is_replaced() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Veth]);
    let (near_home, far_home) = homes(EVERYTHING);
    let far = start(net.far(), &[far_line(&far_home), ["--link-key-max", "2"].map(str::to_owned).to_vec()].concat());
    let up = |node: &Seaprox| node.out().iter().any(|line| line.starts_with("link up"));
    let [one, two] = [0, 1].map(|_| start_near(&net, &near_home, &["-D", "127.0.0.1:0"]));
    until("two links are up", || up(&one) && up(&two));
    let three = start_near(&net, &near_home, &["-D", "127.0.0.1:0"]);
    three.wait_for_log(&["no subflow", "limit_reached"]);
    assert_eq!(link_states(&far), ["up", "up"], "sessions that are up are kept");
    assert!(!up(&three));
    kill(one);
    until("the third replaces a dead one", || up(&three));
    assert_eq!(link_states(&far), ["up", "up"]);
    drop(two);
}

#[test]
fn the_log_names_peer_and_target_and_an_orderly_end_is_not_link_lost() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Veth]);
    let refusing = net.far().inside(kit::closed_port);
    let (near_home, far_home) = homes(&format!("permit-open=\"127.0.0.1:{refusing}\""));
    let far = start(net.far(), &far_line(&far_home));
    let mut near = start(net.near(), &near_line(&near_home, &["-D", "127.0.0.1:0"]));
    let proxy = front(&near, "socks");
    let code = |host: &str, port: u16| net.near().inside(|| connect5(proxy, host, port).1[1]);
    assert_eq!(code("127.0.0.1", refusing), 5);
    let line = near.wait_for_log(&[" closed ", "connection_refused"]);
    assert!(line.contains(&format!(" via={}:{PORT} ", net_kit::own_ip(1))), "{line}");
    assert_eq!(code("db", 22), 2);
    far.wait_for_log(&["stream refused", " asked=db:22 ", "not_permitted"]);
    near.signal(libc::SIGTERM);
    assert_eq!(near.wait(kit::SOON).code(), Some(0));
    far.wait_for_log(&["link ended", "reason=drained", "detail=closed"]);
    assert_eq!(far.count_log(&["link_lost"]), 0);
}

/// Starts a listener in a host that sends back each byte of each client, and returns its address.
fn echo(host: &net_kit::Host) -> SocketAddr {
    let listener = host.inside(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut from = client.try_clone().unwrap();
                // The thread ends when its client has left.
                let _ = std::io::copy(&mut from, &mut client);
            });
        }
    });
    addr
}

/// Makes a new connection and exchanges a byte over it.
fn exchange(at: SocketAddr) -> std::io::Result<TcpStream> {
    let mut client = TcpStream::connect_timeout(&at, kit::SOON)?;
    client.set_read_timeout(Some(kit::SOON))?;
    again(&mut client)?;
    Ok(client)
}

fn again(client: &mut TcpStream) -> std::io::Result<()> {
    client.write_all(b"x")?;
    client.read_exact(&mut [0])
}

/// The far node is stopped with SIGTERM and restarted while clients come: none fails, and running connections continue.
#[test]
fn an_orderly_replacement_of_the_far_node_fails_no_client() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Veth]);
    let (near_home, far_home) = homes("permit-open=\"*\",permit-listen=\"2222\"");
    let [service, inner] = [echo(net.far()), echo(net.near())];
    let mut far = start(net.far(), &far_line(&far_home));
    let forward = format!("127.0.0.1:7000:{service}");
    let near = holder(&net, &near_home, &["-L", &forward, "-R", &format!("2222:{inner}")]);
    let (front, back) = (SocketAddr::from(([127, 0, 0, 1], 7000)), SocketAddr::from(([127, 0, 0, 1], 2222)));
    let mut running = net.near().inside(|| exchange(front)).unwrap();
    let mut returning = net.far().inside(|| exchange(back)).unwrap();

    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let until_so_many_more = || {
        let before = count.load(Ordering::Relaxed);
        until("forty more clients have come and gone", || count.load(Ordering::Relaxed) >= before + 40);
    };
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
            net.near().spawn(move || {
                let mut longest = Duration::ZERO;
                while !stop.load(Ordering::Relaxed) {
                    let since = Instant::now();
                    exchange(front).expect("no client fails");
                    longest = longest.max(since.elapsed());
                    count.fetch_add(1, Ordering::Relaxed);
                }
                longest
            })
        })
        .collect();
    until_so_many_more();
    far.signal(libc::SIGTERM);
    far.wait_for_log(&["draining"]);
    until("the far node has closed its listeners", || {
        let at = SocketAddr::from(([127, 0, 0, 1], PORT));
        net.far().inside(|| TcpStream::connect(at)).is_err()
    });
    let successor = start(net.far(), &far_line(&far_home));
    let since = Instant::now();
    net.near().inside(|| exchange(front)).unwrap();
    let served = since.elapsed();
    until("the remote port listens again", || net.far().inside(|| exchange(back)).is_ok());
    println!("clients are served after {served:?}, at the port of -R after {:?}", since.elapsed());
    // A client waits and does not fail; gate `far-node-replaced` measures how long.

    until_so_many_more();
    again(&mut running).unwrap();
    again(&mut returning).unwrap();
    assert!(far.runs(), "the old process runs until its connections end");
    drop((running, returning));
    assert_eq!(far.wait(kit::SOON).code(), Some(0));
    again(&mut net.near().inside(|| exchange(front)).unwrap()).unwrap();
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        println!("the longest exchange took {:?}", client.join().unwrap());
    }
    println!("{} connections", count.load(Ordering::Relaxed));
    near.wait_for_log(&["the peer is stopping"]);
    assert_eq!(near.count_log(&["link ended"]), 0);
    assert_eq!(link_states(&successor), ["up"]);
}

/// The port of a killed client is free long before its session is forgotten.
#[test]
fn a_remote_port_of_a_killed_client_is_free_for_other_keys_after_the_dead_time() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Veth]);
    let (near_home, far_home) = homes(EVERYTHING);
    let other_home = Home::new();
    far_home
        .write("authorized_keys", &format!("{EVERYTHING} {}\n{EVERYTHING} {}\n", near_home.key(), other_home.key()));
    other_home.write("known_nodes", &format!("{}:{PORT} {}\n", net_kit::own_ip(1), far_home.key()));
    let far = start(
        net.far(),
        &[far_line(&far_home), ["--link-keepalive", "300ms", "--link-dead", "1s"].map(str::to_owned).to_vec()].concat(),
    );
    let ((_one, first), (two, second)) = (service(&net), service(&net));
    kill(holder(&net, &near_home, &["-R", &first]));
    let since = Instant::now();
    let _other = holder(&net, &other_home, &["-R", &second]);
    println!("another key had the port after {:?}", since.elapsed());
    until("its service has the client", || is_served_by(&net, &two));
    far.wait_for_log(&["the peer is away, and its ports are free for others"]);
    assert_eq!(link_states(&far).iter().filter(|state| *state == "suspended").count(), 1, "its session is still held");
}
