//! The observer of a loop hears of the end of every record, and the id of each record answers with the reason then.

use crate::node_kit;

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use node_kit::*;
use seaprox::node::{ForwardConfig, LinksOfServer};
use seaprox::{Bind, Event, ForwardState, Id, LinkState, Loop, Observer, Reason, VerbError};

/// The numbers of the records that have begun and not ended, as an observer has heard of them.
#[derive(Clone, Default)]
struct Alive(Arc<Mutex<HashSet<u64>>>);

impl Observer for Alive {
    fn event(&mut self, core: &mut Loop<'_>, event: Event) {
        let (id, answer) = match event {
            Event::ConnectionEnded { connection, .. } => (connection, core.connection(connection).err()),
            Event::ListenerClosed { listener } => (listener, core.listener(listener).err()),
            Event::Link { link, state: LinkState::Ended } => (link, core.link(link).err()),
            Event::Forward { forward, state: ForwardState::Closed } => (forward, core.forward(forward).err()),
            Event::ConnectionOpened { connection: id } | Event::ListenerOpened { listener: id } => {
                return self.begin(id);
            }
            Event::Link { link: id, .. } | Event::Forward { forward: id, .. } => return self.begin(id),
            _ => return,
        };
        assert!(self.0.lock().unwrap().remove(&id.to_u64()), "{id} had begun");
        assert!(matches!(answer, Some(VerbError::Over(_))), "{id} {answer:?}");
    }
}

impl Alive {
    fn begin(&self, id: Id) {
        self.0.lock().unwrap().insert(id.to_u64());
    }

    fn count(&self, kind: seaprox::Kind) -> usize {
        self.0.lock().unwrap().iter().filter(|number| Id::from_u64(**number).unwrap().kind() == kind).count()
    }
}

/// Opens a forward of a link that is up. Returns its id and its address.
fn open(node: &Node, config: ForwardConfigMaker, link: Id, to: SocketAddr) -> (Id, SocketAddr) {
    let listen = Bind::parse("127.0.0.1:0").unwrap();
    let forward = node.ask(move |core| core.open_forward(config(link, listen, to.into())).unwrap());
    let bound = || node.ask(move |core| core.forward(forward).unwrap().status().unwrap().bound);
    until("the forward listens", || !bound().is_empty());
    (forward, bound()[0].ip().unwrap())
}

type ForwardConfigMaker = fn(Id, Bind, seaprox::Target) -> ForwardConfig;

/// Passes bytes through a connection, both ways.
fn exchange((near, far): &mut (TcpStream, TcpStream)) {
    near.write_all(b"there").unwrap();
    far.read_exact(&mut [0; 5]).unwrap();
    far.write_all(b"back").unwrap();
    near.read_exact(&mut [0; 4]).unwrap();
}

#[test]
fn the_observer_hears_of_the_end_of_every_record_and_its_id_answers_over() {
    let (server, client) = (Node::start(), Node::start());
    let observers = [&server, &client].map(|node| {
        let alive = Alive::default();
        let observer = alive.clone();
        node.ask(move |core| core.set_observer(Box::new(observer)));
        alive
    });
    let link = client.link(server.serve());
    client.until_up();
    let (listener, to): (TcpListener, SocketAddr) = target();
    let front = client.forward(link, to.into());
    let mut lasting = (connect(front), accept(&listener));
    for config in [ForwardConfig::local as ForwardConfigMaker, ForwardConfig::remote] {
        let (forward, addr) = open(&client, config, link, to);
        let mut passing = (connect(addr), accept(&listener));
        exchange(&mut passing);
        client.ask(move |core| core.forward(forward).unwrap().close().unwrap());
        exchange(&mut passing);
        exchange(&mut lasting);
        until("the forward has ended", || observers[1].count(seaprox::Kind::Forward) == 0);
    }
    client.ask(|core| {
        let listener = core.listeners()[0].id;
        core.listener(listener).unwrap().unlisten().unwrap();
        let connection = core.snapshot().connections[0].id;
        core.connection(connection).unwrap().close(Reason::Killed);
    });
    client.ask(move |core| core.link(link).unwrap().close().unwrap());
    server.ask(|core| {
        // One for each protocol.
        let servers = core.servers().into_iter().map(|server| server.id);
        servers.for_each(|id| core.server(id).unwrap().stop(LinksOfServer::Close).unwrap());
    });
    for (node, alive) in [&server, &client].into_iter().zip(&observers) {
        until("everything has ended", || alive.0.lock().unwrap().is_empty());
        assert_eq!(node.ask(|core| core.stats().panics), 0);
    }
}
