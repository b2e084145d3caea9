//! Forwards that are opened and closed while links are up, through the public interface alone: over real sockets.

use crate::node_kit;

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use node_kit::*;
use seaprox::node::{Direction, ForwardConfig, ForwardMut, ForwardStatus, Service};
use seaprox::{
    Bind, DescriptorError, Event, ForwardState, Handler, Id, Kind, ListenConfig, Loop, Observer, Reason, Target,
    VerbError,
};

fn any_port() -> Bind {
    Bind::parse("127.0.0.1:0").unwrap()
}

/// Opens a forward. Returns its id.
fn open(node: &Node, config: impl FnOnce() -> ForwardConfig + Send + 'static) -> Result<Id, VerbError> {
    node.ask(move |core| {
        core.open_forward(config()).map_err(|error| match error {
            DescriptorError::Verb(error) => error,
            error => panic!("{error}"),
        })
    })
}

fn status(node: &Node, forward: Id) -> ForwardStatus {
    node.ask(move |core| core.forward(forward).and_then(|forward| forward.status())).expect("the forward is there")
}

fn verb<T: Send + 'static>(
    node: &Node,
    forward: Id,
    verb: impl FnOnce(&mut ForwardMut<'_>) -> Result<T, VerbError> + Send + 'static,
) -> Result<T, VerbError> {
    node.ask(move |core| core.forward(forward).and_then(|mut forward| verb(&mut forward)))
}

/// Waits until a forward listens. Returns its address.
#[track_caller]
fn until_listening(node: &Node, forward: Id) -> SocketAddr {
    until("the forward listens", || status(node, forward).state == ForwardState::Listening);
    status(node, forward).bound[0].ip().expect("a bound address")
}

/// Sends 100 bytes to the target and 50 back, and closes both directions in order.
#[track_caller]
fn transfer(near: &mut TcpStream, far: &mut TcpStream) {
    send_pattern(near, 1, 100);
    read_pattern(far, 1, 100);
    send_pattern(far, 2, 50);
    read_pattern(near, 2, 50);
    near.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_end(far), Ok(0));
    far.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_end(near), Ok(0));
}

/// Returns two nodes whose link is up, with the id of the link at the dialing node and at the serving node.
fn linked() -> (Node, Node, Id, Id) {
    let (server, client) = (Node::start(), Node::start());
    let link = client.link(server.serve());
    client.until_up();
    server.until_up();
    let served = server.links()[0].id;
    (server, client, link, served)
}

#[test]
fn a_local_forward_is_opened_counted_renamed_and_closed_while_its_connection_goes_on() {
    let (_server, client, link, _) = linked();
    let (listener, addr) = target();
    let forward = open(&client, move || ForwardConfig {
        name: Some("web".to_owned()),
        ..ForwardConfig::local(link, any_port(), addr.into())
    });
    let forward = forward.unwrap();
    let at = until_listening(&client, forward);
    let (mut near, mut far) = (connect(at), accept(&listener));
    transfer(&mut near, &mut far);
    until("the connection is over", || status(&client, forward).active == 0);
    let seen = status(&client, forward);
    assert_eq!(
        (seen.name.as_str(), seen.link, seen.direction, seen.kind.as_str()),
        ("web", link, Direction::Local, "static")
    );
    assert_eq!((seen.asked.clone(), seen.to.clone()), (any_port(), Some(Target::from(addr))));
    assert_eq!((seen.opened, seen.refused, seen.bytes), (1, 0, (100, 50)), "{seen:?}");
    assert_eq!((forward.kind(), seen.id), (Kind::Forward, forward));

    assert_eq!(verb(&client, forward, |forward| forward.rename("")), Err(VerbError::Invalid));
    assert_eq!(verb(&client, forward, |forward| forward.rename("site")), Ok(()));
    assert_eq!(client.ask(|core| (core.forward_named("web"), core.forward_named("site"))), (None, Some(forward)));
    let (mut near, mut far) = (connect(at), accept(&listener));
    assert_eq!(verb(&client, forward, |forward| forward.close().and(forward.close())), Err(VerbError::Already));
    until("the port is closed", || TcpStream::connect(at).is_err());
    transfer(&mut near, &mut far);
    assert_eq!(verb(&client, forward, |_| Ok(())), Err(VerbError::Over(Reason::Drained)));
    assert_eq!(client.ask(|core| core.forwards().len()), 0);
}

#[test]
fn a_remote_forward_is_opened_counted_and_closed_on_a_link_that_is_up() {
    let (server, client, link, _) = linked();
    remote(&client, &server, link);
}

#[test]
fn a_remote_forward_is_opened_counted_and_closed_on_a_link_that_the_peer_dialed() {
    let (server, client, _, served) = linked();
    remote(&server, &client, served);
}

/// Opens a forward of `asking` for which `listening` listens, uses it, and closes it.
fn remote(asking: &Node, listening: &Node, link: Id) {
    let (listener, addr) = target();
    let forward = open(asking, move || ForwardConfig::remote(link, any_port(), addr.into())).unwrap();
    let at = until_listening(asking, forward);
    assert_eq!(listening.links()[0].listeners[0].port, Some(at.port()));
    let (mut near, mut far) = (connect(at), accept(&listener));
    transfer(&mut near, &mut far);
    until("the connection is over", || status(asking, forward).active == 0);
    let seen = status(asking, forward);
    assert_eq!(
        (seen.direction, seen.kind.as_str(), seen.to.clone()),
        (Direction::Remote, "reverse", Some(addr.into()))
    );
    assert_eq!((seen.opened, seen.refused, seen.bytes), (1, 0, (100, 50)), "{seen:?}");
    let (mut near, mut far) = (connect(at), accept(&listener));
    near.write_all(b"x").unwrap();
    assert_eq!(read_end(&mut far), Ok(1));
    assert_eq!(verb(asking, forward, |forward| forward.close()), Ok(()));
    until("the port of the peer is closed", || TcpStream::connect(at).is_err());
    assert_eq!(listening.links()[0].listeners.len(), 0);
    transfer(&mut near, &mut far);
    assert_eq!(verb(asking, forward, |_| Ok(())), Err(VerbError::Over(Reason::Drained)));
    // The next one gets another number.
    let again = open(asking, move || ForwardConfig::remote(link, Bind::from(at), addr.into())).unwrap();
    assert_eq!(until_listening(asking, again), at);
}

#[test]
fn a_refused_remote_forward_has_its_failure_and_listens_once_the_peer_permits_it() {
    let (server, client, link, _) = linked();
    let (listener, addr) = target();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap();
    server.policy.listens.store(false, Ordering::Relaxed);
    let forward = open(&client, move || ForwardConfig::remote(link, Bind::from(port), addr.into())).unwrap();
    until("the peer has refused", || status(&client, forward).state == ForwardState::Failed);
    let seen = status(&client, forward);
    assert_eq!(seen.failure.map(|failure| failure.reason), Some(Reason::NotPermitted));
    assert_eq!((seen.tries, seen.bound.len()), (1, 0));
    server.policy.listens.store(true, Ordering::Relaxed);
    let reason = || status(&client, forward).failure.map(|failure| failure.reason);
    until("the port is in use", || reason() == Some(Reason::AddressInUse));
    drop(taken);
    assert_eq!(until_listening(&client, forward), port);
    assert_eq!((status(&client, forward).failure, status(&client, forward).tries), (None, 0));
    let (mut near, mut far) = (connect(port), accept(&listener));
    transfer(&mut near, &mut far);
}

#[test]
fn the_forwards_of_a_link_are_closed_with_it() {
    let (server, client, link, _) = linked();
    let (_listener, addr) = target();
    let local = open(&client, move || ForwardConfig::local(link, any_port(), addr.into())).unwrap();
    let remote = open(&client, move || ForwardConfig::remote(link, any_port(), addr.into())).unwrap();
    let (here, there) = (until_listening(&client, local), until_listening(&client, remote));
    client.ask(move |core| core.link(link).and_then(|mut link| link.close())).unwrap();
    until("both ports are closed", || [here, there].iter().all(|addr| TcpStream::connect(addr).is_err()));
    for forward in [local, remote] {
        assert_eq!(verb(&client, forward, |_| Ok(())), Err(VerbError::Over(Reason::Drained)));
    }
    until("the server has no link", || server.links().is_empty());
}

#[test]
fn a_forward_that_cannot_be_opened_answers_its_error() {
    let (_server, client, link, _) = linked();
    let (_listener, addr) = target();
    let named = move |name: &str, listen: Bind, to: Target| ForwardConfig {
        name: Some(name.to_owned()),
        ..ForwardConfig::local(link, listen, to)
    };
    let first = open(&client, move || named("one", any_port(), addr.into())).unwrap();
    assert_eq!(open(&client, move || named("one", any_port(), addr.into())), Err(VerbError::Already));
    let name = Bind::parse("a.name.example:80").unwrap();
    assert_eq!(open(&client, move || named("two", name, addr.into())), Err(VerbError::Invalid));
    let socket = Target::parse("unix:/there").unwrap();
    assert_eq!(open(&client, move || named("two", any_port(), socket)), Err(VerbError::Invalid));
    let file = Bind::parse("unix:/there").unwrap();
    assert_eq!(open(&client, move || ForwardConfig::remote(link, file, addr.into())), Err(VerbError::Invalid));
    let other = move || ForwardConfig::local(first, any_port(), addr.into());
    assert_eq!(open(&client, other), Err(VerbError::Invalid), "a forward is no link");
    let gone = Id::from_u64(link.to_u64() + (7 << 32)).unwrap();
    assert_eq!(open(&client, move || ForwardConfig::local(gone, any_port(), addr.into())), Err(VerbError::Stale));
    assert_eq!(client.ask(move |core| core.forward(link).map(drop)), Err(VerbError::Invalid));
    let error = client.ask(move |core| {
        core.open_forward(ForwardConfig::local(link, Bind::from(addr), addr.into())).map_err(|error| error.to_string())
    });
    assert!(error.unwrap_err().contains("in use"), "the error of the system");
    assert_eq!(client.ask(|core| core.forwards().len()), 1, "nothing is left of what failed");
}

#[test]
fn a_forward_with_a_front_end_of_the_caller_takes_bound_sockets() {
    let (_server, client, link, _) = linked();
    let (listener, addr) = target();
    let forward = open(&client, move || {
        let bounds = seaprox::bind(&any_port(), 1, &seaprox::Config::default()).unwrap();
        let target = Rc::new(Target::from(addr));
        let front_end = move || -> Box<dyn Handler> { Box::new(Forward(Rc::clone(&target), Arc::default())) };
        let mut config = ForwardConfig::dynamic(link, any_port(), "mine", Box::new(front_end));
        if let Service::Local { bounds: place, .. } = &mut config.service {
            *place = bounds;
        }
        config
    });
    let forward = forward.unwrap();
    assert_eq!(status(&client, forward).kind.as_str(), "mine");
    let (mut near, mut far) = (connect(until_listening(&client, forward)), accept(&listener));
    transfer(&mut near, &mut far);
}

#[test]
fn the_forwards_of_a_link_configuration_are_records() {
    let (server, client) = (Node::start(), Node::start());
    let (_listener, addr) = target();
    let (first, second) = (free_addr(), free_addr());
    client.link_with(server.serve(), move |config| {
        config.reverse = [first, second].map(|at| Node::reverse(Bind::from(at), addr)).to_vec();
    });
    until("both listen", || {
        let forwards = client.ask(|core| core.forwards());
        forwards.len() == 2 && forwards.iter().all(|forward| forward.state == ForwardState::Listening)
    });
    let forwards = client.ask(|core| core.forwards());
    assert_eq!(forwards[0].name, first.to_string());
    assert_eq!(verb(&client, forwards[0].id, |forward| forward.close()), Ok(()));
    until("the first port is closed", || TcpStream::connect(first).is_err());
    assert!(TcpStream::connect(second).is_ok());
}

/// Records the events of a loop.
struct Records(Arc<Mutex<Vec<Event>>>);

impl Observer for Records {
    fn event(&mut self, _: &mut Loop<'_>, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

#[test]
fn the_observer_hears_of_each_state_of_a_forward() {
    let (_server, client, link, _) = linked();
    let events = Arc::<Mutex<Vec<Event>>>::default();
    let records = Records(Arc::clone(&events));
    client.ask(move |core| core.set_observer(Box::new(records)));
    let (_listener, addr) = target();
    let id = open(&client, move || ForwardConfig::remote(link, any_port(), addr.into())).unwrap();
    until_listening(&client, id);
    verb(&client, id, |forward| forward.close()).unwrap();
    let states = || -> Vec<ForwardState> {
        let events = events.lock().unwrap();
        let state = |event: &Event| match event {
            Event::Forward { forward, state } if *forward == id => Some(*state),
            _ => None,
        };
        events.iter().filter_map(state).collect()
    };
    until("it is closed", || states() == [ForwardState::Waiting, ForwardState::Listening, ForwardState::Closed]);
}

#[test]
fn the_listener_of_a_forward_is_changed_and_closed_by_the_forward_alone() {
    let (server, client, link, _) = linked();
    let (_listener, addr) = target();
    let local = open(&client, move || ForwardConfig::local(link, any_port(), addr.into())).unwrap();
    let remote = open(&client, move || ForwardConfig::remote(link, any_port(), addr.into())).unwrap();
    let here = until_listening(&client, local);
    until_listening(&client, remote);
    for (node, kind) in [(&client, "static"), (&server, "reverse")] {
        let answers = node.ask(move |core| {
            let id = core.listeners().into_iter().find(|it| it.kind.as_str() == kind).unwrap().id;
            let other = ListenConfig::new("other", Box::new(|| unreachable!("nothing is replaced")));
            let replaced = core.listener(id).unwrap().replace(other);
            let is_replaced = !matches!(replaced, Err(DescriptorError::Verb(VerbError::Invalid)));
            (core.listener(id).unwrap().route(None), is_replaced, core.listener(id).unwrap().unlisten())
        });
        assert_eq!(answers, (Err(VerbError::Invalid), false, Err(VerbError::Invalid)), "{kind}");
    }
    assert_eq!(status(&client, local).state, ForwardState::Listening);
    assert!(TcpStream::connect(here).is_ok());
}

#[test]
fn a_loop_that_closes_its_listeners_closes_its_local_forwards() {
    let (_server, client, link, _) = linked();
    let events = Arc::<Mutex<Vec<Event>>>::default();
    let records = Records(Arc::clone(&events));
    client.ask(move |core| core.set_observer(Box::new(records)));
    let (_listener, addr) = target();
    let id = open(&client, move || ForwardConfig::local(link, any_port(), addr.into())).unwrap();
    client.ask(|core| core.close_listeners());
    let closed = Event::Forward { forward: id, state: ForwardState::Closed };
    until("the observer hears of it", || events.lock().unwrap().contains(&closed));
    assert_eq!(verb(&client, id, |_| Ok(())), Err(VerbError::Over(Reason::Drained)));
}
