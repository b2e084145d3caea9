//! Groups of links to several servers, and listeners that several peers serve.

use crate::node_kit;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use node_kit::cutter::Cutter;
use node_kit::*;
use seaprox::node::{
    ForwardConfig, GroupConfig, LinkConfig, LinkEvent, LinkServer, PeerKey, Policy, Reverse, Timing, Verdict,
};
use seaprox::{Bind, Id, LinkState, Target};

/// Starts a target that sends its letter, and then keeps the connection open.
fn lettered(letter: u8) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    // The thread ends with the process.
    thread::spawn(move || {
        let mut kept = Vec::new();
        for mut client in listener.incoming().flatten() {
            let _ = client.write_all(&[letter]);
            kept.push(client);
        }
    });
    addr
}

/// Connects, and reads the letter of the target.
fn ask(addr: SocketAddr) -> std::io::Result<(u8, TcpStream)> {
    let mut client = TcpStream::connect(addr)?;
    client.set_read_timeout(Some(SOON))?;
    let mut letter = [0];
    client.read_exact(&mut letter)?;
    Ok((letter[0], client))
}

fn servers(addrs: &[SocketAddr]) -> Vec<LinkServer> {
    addrs.iter().map(|addr| LinkServer::from(Target::from(*addr))).collect()
}

/// Opens a group with a link to each of these servers.
fn group(node: &Node, addrs: &[SocketAddr]) -> Id {
    group_of(node, addrs, addrs.len())
}

/// Opens a group with at most this number of links to these servers.
fn group_of(node: &Node, addrs: &[SocketAddr], most: usize) -> Id {
    let policy = Arc::clone(&node.policy);
    let servers = servers(addrs);
    node.ask(move |core| {
        let make = move |server: &LinkServer| {
            let policy = Arc::<Open>::clone(&policy);
            LinkConfig { timing: timing(), ..LinkConfig::new(identity(1), policy, server.addr.clone()) }
        };
        let id = core.open_group(GroupConfig { name: "group".to_owned(), make: Box::new(make) }).unwrap();
        core.group(id).unwrap().set_servers(&servers, most).unwrap();
        id
    })
}

fn up(node: &Node) -> usize {
    node.links().iter().filter(|link| link.state == LinkState::Up).count()
}

#[test]
fn the_others_of_a_group_carry_on_when_a_server_is_gone() {
    let target = lettered(b'x');
    let mut gateways: Vec<Node> = (0..3).map(|_| Node::start()).collect();
    let cutters: Vec<Cutter> = gateways.iter().map(|gateway| Cutter::new(gateway.serve())).collect();
    let client = Node::start();
    let addrs: Vec<SocketAddr> = cutters.iter().map(|cutter| cutter.addr).collect();
    let listen = client.forward(group(&client, &addrs), target.into());
    until("all links are up", || up(&client) == 3);
    for cutter in &cutters[..2] {
        (0..10).for_each(|_| drop(ask(listen).unwrap()));
        // The server is lost without a word, and its link is suspended.
        cutter.close(true);
        cutter.cut();
        gateways.remove(0);
        let since = Instant::now();
        (0..10).for_each(|_| drop(ask(listen).unwrap()));
        assert!(since.elapsed() < SOON / 2);
    }
    until("one link is left", || up(&client) == 1);
}

#[test]
fn the_streams_of_a_group_are_spread_over_links_that_are_equal() {
    let target = lettered(b'x');
    let gateways: Vec<Node> = (0..2).map(|_| Node::start()).collect();
    let addrs: Vec<SocketAddr> = gateways.iter().map(Node::serve).collect();
    let client = Node::start();
    let listen = client.forward(group(&client, &addrs), target.into());
    until("all links are up", || up(&client) == 2);
    let kept: Vec<_> = (0..20).map(|_| ask(listen).unwrap()).collect();
    let streams: Vec<usize> = client.links().iter().map(|link| link.streams).collect();
    assert!(streams.iter().all(|streams| *streams >= 3), "{streams:?}");
    drop(kept);
}

#[test]
fn a_change_of_the_servers_touches_only_the_links_that_differ() {
    let target = lettered(b'x');
    let gateways: Vec<Node> = (0..3).map(|_| Node::start()).collect();
    let addrs: Vec<SocketAddr> = gateways.iter().map(Node::serve).collect();
    let client = Node::start();
    let id = group(&client, &addrs[..2]);
    let listen = client.forward(id, target.into());
    until("all links are up", || up(&client) == 2);
    let before = client.links();
    let id_of = |links: &[seaprox::node::LinkStatus], addr: SocketAddr| {
        links.iter().find(|link| link.peer == addr.to_string()).map(|link| link.id)
    };
    let mut kept: Vec<_> = (0..8).map(|_| ask(listen).unwrap().1).collect();
    let new = servers(&addrs[1..]);
    client.ask(move |core| core.group(id).unwrap().set_servers(&new, 2).unwrap());
    until("the third server has a link", || {
        let third = client.links().into_iter().find(|link| link.peer == addrs[2].to_string());
        third.is_some_and(|link| link.state == LinkState::Up)
    });
    assert_eq!(id_of(&client.links(), addrs[1]), id_of(&before, addrs[1]), "the same link");
    assert!(id_of(&client.links(), addrs[0]).is_some(), "its connections go on");
    kept.iter_mut().for_each(|client| client.set_read_timeout(Some(Duration::from_millis(1))).unwrap());
    let is_open = |client: &mut TcpStream| client.read(&mut [0]).is_err_and(|error| error.raw_os_error() == Some(11));
    assert!(kept.iter_mut().all(is_open));
    // The target keeps its side open, so that only a reset ends the connections.
    kept.iter().for_each(|client| socket2::SockRef::from(client).set_linger(Some(Duration::ZERO)).unwrap());
    drop(kept);
    until("the first link is closed", || id_of(&client.links(), addrs[0]).is_none());
}

/// A group of a client with gateways behind cutters, of which it uses one at a time.
struct Failover {
    _gateways: Vec<Node>,
    cutters: Vec<Cutter>,
    client: Node,
    group: Id,
    listen: SocketAddr,
}

impl Failover {
    /// Starts this number of gateways, and lists the first ones.
    fn start(gateways: usize, listed: usize) -> Failover {
        let gateways: Vec<Node> = (0..gateways).map(|_| Node::start()).collect();
        let cutters: Vec<Cutter> = gateways.iter().map(|gateway| Cutter::new(gateway.serve())).collect();
        let client = Node::start();
        let addrs: Vec<SocketAddr> = cutters[..listed].iter().map(|cutter| cutter.addr).collect();
        let group = group_of(&client, &addrs, 1);
        let listen = client.forward(group, lettered(b'x').into());
        let failover = Failover { _gateways: gateways, cutters, client, group, listen };
        failover.until_used(0);
        failover
    }

    fn list(&self, places: &[usize]) {
        let addrs: Vec<SocketAddr> = places.iter().map(|place| self.cutters[*place].addr).collect();
        let (group, new) = (self.group, servers(&addrs));
        self.client.ask(move |core| core.group(group).unwrap().set_servers(&new, 1).unwrap());
    }

    /// Returns the link to a gateway, and its state.
    fn link(&self, place: usize) -> Option<(Id, LinkState)> {
        let peer = self.cutters[place].addr.to_string();
        self.client.links().into_iter().find(|link| link.peer == peer).map(|link| (link.id, link.state))
    }

    fn is_up(&self, place: usize) -> bool {
        self.link(place).is_some_and(|(_, state)| state == LinkState::Up)
    }

    /// Returns the links that take new streams.
    fn used(&self) -> Vec<Id> {
        let group = self.group;
        self.client.ask(move |core| core.group(group).unwrap().links())
    }

    /// Waits until the only link that takes new streams is the one to a gateway, and is up.
    #[track_caller]
    fn until_used(&self, place: usize) {
        let is_used = || self.link(place).is_some_and(|(id, state)| self.used() == [id] && state == LinkState::Up);
        until("the link is the one in use", is_used);
    }

    /// Cuts the link to a gateway, and says that it is of no use.
    #[track_caller]
    fn lose(&self, place: usize) {
        self.cutters[place].close(true);
        self.cutters[place].cut();
        until("the link is down", || self.link(place).is_some_and(|(_, state)| state == LinkState::Suspended));
        let (group, (link, _)) = (self.group, self.link(place).unwrap());
        self.client.ask(move |core| core.group(group).unwrap().give_way(link).unwrap());
    }
}

#[test]
fn a_list_that_grows_again_does_not_touch_the_link_in_use() {
    let it = Failover::start(3, 1);
    // Its stream keeps the first link, which leaves.
    let kept = ask(it.listen).unwrap();
    it.list(&[1]);
    it.until_used(1);
    let (second, _) = it.link(1).unwrap();
    it.list(&[0, 1]);
    assert_eq!(it.used(), [second], "the first link is up, and leaves");
    it.list(&[0, 1, 2]);
    assert_eq!(it.used(), [second]);
    assert!(it.is_up(0) && it.link(2).is_none());
    drop(kept);
}

#[test]
fn a_dead_server_that_holds_streams_gets_nobody_back_from_the_one_that_works() {
    let it = Failover::start(3, 2);
    let kept = ask(it.listen).unwrap();
    it.lose(0);
    it.until_used(1);
    let (second, _) = it.link(1).unwrap();
    it.list(&[0, 1, 2]);
    assert_eq!(it.used(), [second]);
    drop(kept);
}

#[test]
fn a_link_that_leaves_comes_back_when_the_other_one_is_lost() {
    let it = Failover::start(2, 2);
    let kept = ask(it.listen).unwrap();
    it.lose(0);
    it.until_used(1);
    let other = ask(it.listen).unwrap();
    it.cutters[0].close(false);
    until("the first link is up again", || it.is_up(0));
    it.lose(1);
    it.until_used(0);
    assert_eq!(ask(it.listen).unwrap().0, b'x');
    drop((kept, other));
}

#[test]
fn each_server_has_its_turn_while_the_dead_ones_hold_streams() {
    let it = Failover::start(3, 3);
    let first = ask(it.listen).unwrap();
    it.lose(0);
    it.until_used(1);
    let second = ask(it.listen).unwrap();
    it.lose(1);
    it.until_used(2);
    assert_eq!(ask(it.listen).unwrap().0, b'x');
    drop((first, second));
}

#[test]
fn a_link_that_is_closed_makes_room_for_another_server() {
    let it = Failover::start(2, 2);
    let close = |place: usize| {
        let (link, _) = it.link(place).unwrap();
        it.client.ask(move |core| core.link(link).unwrap().close().unwrap());
    };
    close(0);
    it.until_used(1);
    close(1);
    until("both links are closed", || it.client.links().is_empty());
    let group = it.group;
    it.client.ask(move |core| core.group(group).unwrap().dial_closed().unwrap());
    it.until_used(0);
}

#[test]
fn the_forward_of_a_group_is_requested_from_each_server() {
    let target = lettered(b'x');
    let gateways: Vec<Node> = (0..2).map(|_| Node::start()).collect();
    let addrs: Vec<SocketAddr> = gateways.iter().map(Node::serve).collect();
    let client = Node::start();
    let id = group(&client, &addrs);
    let forward = client.ask(move |core| {
        core.open_forward(ForwardConfig::remote(id, Bind::parse("127.0.0.1:0").unwrap(), target.into())).unwrap()
    });
    until("both peers listen", || {
        client.ask(move |core| core.forward(forward).unwrap().status().unwrap().bound.len()) == 2
    });
    let status = client.ask(move |core| core.forward(forward).unwrap().status().unwrap());
    for bound in &status.bound {
        assert_eq!(ask(bound.ip().unwrap()).unwrap().0, b'x');
    }
    client.ask(move |core| core.forward(forward).unwrap().close().unwrap());
    let bound: Vec<SocketAddr> = status.bound.iter().filter_map(seaprox::Endpoint::ip).collect();
    until("both ports are closed", || bound.iter().all(|addr| TcpStream::connect(addr).is_err()));
}

/// Dials a link with a key that asks for a listener on `port`.
fn agent(node: &Node, peer: SocketAddr, seed: u8, port: u16, to: SocketAddr) {
    node.link_with(peer, move |config| {
        config.identity = identity(seed);
        config.reverse = vec![Reverse { listen: SocketAddr::from(([127, 0, 0, 1], port)).into(), to: to.into() }];
    });
}

fn is_listening(node: &Node) -> bool {
    node.has(|event| matches!(event, LinkEvent::Listening { .. }))
}

fn is_refused(node: &Node) -> bool {
    node.has(|event| matches!(event, LinkEvent::NotListening { .. }))
}

/// Starts an agent that listens on a port of the system's choice at the peer. Returns the port.
fn first_agent(node: &Node, peer: SocketAddr, seed: u8, to: SocketAddr) -> u16 {
    agent(node, peer, seed, 0, to);
    until("the peer listens", || is_listening(node));
    let port = |event: &LinkEvent| if let LinkEvent::Listening { port, .. } = event { Some(*port) } else { None };
    node.happened.lock().unwrap().iter().find_map(port).unwrap()
}

#[test]
fn agents_with_one_key_share_an_address_and_stand_for_one_another() {
    let gateway = Node::start();
    let peer = gateway.serve_at(([127, 0, 0, 1], 0).into(), Timing { dead: Duration::from_secs(60), ..timing() });
    let (one, two) = (Node::start(), Node::start());
    let cutter = Cutter::new(peer);
    let port = first_agent(&one, cutter.addr, 1, lettered(b'a'));
    agent(&two, peer, 1, port, lettered(b'b'));
    until("the second agent has a part", || is_listening(&two));
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    let kept: Vec<_> = (0..10).map(|_| ask(at).unwrap()).collect();
    assert_eq!(kept.iter().filter(|(letter, _)| *letter == b'a').count(), 5, "the fewest connections decide");
    // A suspended link gets no client.
    cutter.close(true);
    cutter.cut();
    until("the link is suspended", || gateway.has(|event| matches!(event, LinkEvent::Suspended)));
    assert!((0..10).all(|_| ask(at).unwrap().0 == b'b'));
    cutter.close(false);
    until("the link is back", || gateway.has(|event| matches!(event, LinkEvent::Resumed)));
    until("it gets clients again", || ask(at).unwrap().0 == b'a');
    drop(two);
    until("the other agent has left", || gateway.links().len() == 1);
    assert!((0..5).all(|_| ask(at).unwrap().0 == b'a'));
    drop(one);
    until("the port is closed with the last agent", || TcpStream::connect(at).is_err());
}

#[test]
fn a_client_goes_to_another_agent_if_the_target_of_the_first_one_refuses() {
    let gateway = Node::start();
    let peer = gateway.serve();
    let (one, two) = (Node::start(), Node::start());
    // The port of a listener that is bound and does not listen refuses connections.
    let refusing = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    refusing.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let refused = refusing.local_addr().unwrap().as_socket().unwrap();
    let port = first_agent(&one, peer, 1, refused);
    agent(&two, peer, 1, port, lettered(b'b'));
    until("the second agent has a part", || is_listening(&two));
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    assert!((0..20).all(|_| ask(at).unwrap().0 == b'b'));
}

/// Puts the keys of the seeds 1 and 2 in one group, until the key of one leaves it.
#[derive(Default)]
struct Grouped {
    has_left: AtomicBool,
}

impl Policy for Grouped {
    fn admits(&self, _: &PeerKey) -> bool {
        true
    }

    fn name(&self, _: &PeerKey) -> String {
        "agent".to_owned()
    }

    fn may_open(&self, _: &PeerKey, _: &Target) -> Verdict {
        Verdict::No
    }

    fn may_listen(&self, _: &PeerKey, _: &Bind) -> bool {
        true
    }

    fn listen_group(&self, key: &PeerKey) -> Option<String> {
        let own = |seed| seaprox::auth::PublicKey::from_bytes(*key).is_ok_and(|key| key == public_key(seed));
        let is_in = own(1) && !self.has_left.load(Ordering::Relaxed) || own(2);
        is_in.then(|| "web".to_owned())
    }
}

fn public_key(seed: u8) -> seaprox::auth::PublicKey {
    use ring::signature::{Ed25519KeyPair, KeyPair};
    let pair = Ed25519KeyPair::from_seed_unchecked(&identity(seed).seed).unwrap();
    seaprox::auth::PublicKey::from_bytes(pair.public_key().as_ref().try_into().unwrap()).unwrap()
}

#[test]
fn agents_with_different_keys_share_an_address_only_in_one_group() {
    let gateway = Node::start();
    let peer = gateway.serve_with(([127, 0, 0, 1], 0).into(), |config| config.policy = Arc::new(Grouped::default()));
    let (one, two, stranger) = (Node::start(), Node::start(), Node::start());
    let port = first_agent(&one, peer, 1, lettered(b'a'));
    agent(&stranger, peer, 3, port, lettered(b's'));
    until("the stranger is refused", || is_refused(&stranger));
    agent(&two, peer, 2, port, lettered(b'b'));
    until("the second agent has a part", || is_listening(&two));
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    let kept: Vec<_> = (0..10).map(|_| ask(at).unwrap()).collect();
    assert_eq!(kept.iter().filter(|(letter, _)| *letter == b'b').count(), 5);
    assert!(!is_listening(&stranger));
}

#[test]
fn a_key_that_leaves_the_group_loses_the_address_also_if_it_was_first() {
    let gateway = Node::start();
    let policy = Arc::new(Grouped::default());
    let its = Arc::clone(&policy);
    let peer = gateway.serve_with(([127, 0, 0, 1], 0).into(), move |config| config.policy = its);
    let (one, two) = (Node::start(), Node::start());
    let port = first_agent(&one, peer, 1, lettered(b'a'));
    agent(&two, peer, 2, port, lettered(b'b'));
    until("the second agent has a part", || is_listening(&two));
    policy.has_left.store(true, Ordering::Relaxed);
    gateway.ask(|core| core.recheck_links());
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    assert!((0..20).all(|_| ask(at).unwrap().0 == b'b'));
    until("the first agent is told", || is_refused(&one));
    assert!(!is_refused(&two));
}
