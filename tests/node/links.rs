//! The verbs of links, through the public interface alone: over real sockets between two nodes.

use crate::node_kit;

use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use node_kit::cutter::Cutter;
use node_kit::*;
use seaprox::link::MESSAGE_BYTES_MAX;
use seaprox::node::{CarrierKind, Congestion, LinkConfig, LinkEvent, LinkMut, Path, SubflowState, Timing};
use seaprox::{Cx, Event, Failure, Handler, Id, Kind, LinkState, Loop, Observer, Reason, Target, VerbError};

fn path_from(port: u16) -> Path {
    Path { source: Some([127, 0, 0, 1].into()), local_port: Some(port), ..Path::default() }
}

#[test]
fn a_link_with_a_local_port_has_it_in_the_status_and_again_after_a_loss() {
    let (server, client) = (Node::start(), Node::start());
    let cutter = Cutter::new(server.serve());
    let port = free_addr().port();
    client.link_with(cutter.addr, move |config| config.paths = vec![path_from(port)]);
    client.until_up();
    let local = format!("127.0.0.1:{port}");
    assert_eq!(client.links()[0].subflows[0].local, local);
    cutter.cut();
    until("the link has resumed", || client.has(|event| matches!(event, LinkEvent::Resumed)));
    until("the subflow has its port again", || {
        client.links()[0].subflows.iter().any(|subflow| subflow.local == local && subflow.state == SubflowState::Live)
    });
}

#[test]
fn a_local_port_in_use_is_the_failure_in_the_status_with_the_tries() {
    let (server, client) = (Node::start(), Node::start());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    client.link_with(server.serve(), move |config| {
        (config.carrier, config.paths) = (CarrierKind::Tcp, vec![path_from(port)]);
    });
    until("two tries have failed", || client.links()[0].tries >= 2);
    let status = &client.links()[0];
    let (failure, _) = status.failure.as_ref().expect("a failure");
    assert_eq!((status.state, failure.reason), (LinkState::Connecting, Reason::AddressInUse), "{failure}");
    assert!(status.missing[0].path.starts_with(&format!("127.0.0.1:{port}->")), "{}", status.missing[0].path);
    drop(taken);
    client.until_up();
    assert_eq!(client.links()[0].tries, 0);
}

/// Closes its connection once the result of the connect is known.
struct Closes;

impl Handler for Closes {
    fn opened(&mut self, _: &mut Cx<'_>) {}

    fn readable(&mut self, _: &mut Cx<'_>, input: &[u8]) -> usize {
        input.len()
    }

    fn connected(&mut self, cx: &mut Cx<'_>, result: Result<(), &Failure>) {
        cx.close(result.map_or_else(|failure| failure.reason, |()| Reason::SourceFin));
    }
}

/// Runs a verb on the view of a link. Returns the error of the look-up or of the verb.
/// Returns what the system says about the connections of a filter of ss(8).
fn sockets(filter: [&str; 3]) -> String {
    let output = std::process::Command::new("ss").arg("-tinH").args(filter).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[cfg(target_os = "linux")]
#[test]
fn both_ends_of_a_link_use_the_congestion_control_of_their_configuration() {
    if std::process::Command::new("ss").arg("-V").output().is_err() {
        return;
    }
    let reno = || Timing { congestion: Congestion::Reno, ..timing() };
    let (server, client) = (Node::start(), Node::start());
    let to = server.serve_at("127.0.0.1:0".parse().unwrap(), reno());
    client.link_with(to, move |config| config.timing = reno());
    client.until_up();
    let port = format!(":{}", to.port());
    for end in ["dport", "sport"] {
        let text = sockets([end, "=", &port]);
        assert!(text.contains(" reno "), "{end}: {text}");
    }
}

fn verb<T: Send + 'static>(
    node: &Node,
    link: Id,
    verb: impl FnOnce(&mut LinkMut<'_>) -> Result<T, VerbError> + Send + 'static,
) -> Result<T, VerbError> {
    node.ask(move |core| core.link(link).and_then(|mut link| verb(&mut link)))
}

/// Returns the received messages of a node, in order.
fn messages(node: &Node) -> Vec<String> {
    let happened = node.happened.lock().unwrap();
    let text = |event: &LinkEvent| if let LinkEvent::Message { text } = event { Some(text.clone()) } else { None };
    happened.iter().filter_map(text).collect()
}

#[test]
fn messages_arrive_at_both_ends_in_order_and_once_across_a_loss() {
    let (server, client) = (Node::start(), Node::start());
    let cutter = Cutter::new(server.serve());
    let link = client.link(cutter.addr);
    client.until_up();
    let served = server.links()[0].id;
    assert_eq!(verb(&client, link, |link| link.send_message("one")), Ok(()));
    assert_eq!(verb(&server, served, |link| link.send_message("back")), Ok(()));
    until("the client has its message", || messages(&client) == ["back"]);
    until("the server has its message", || messages(&server) == ["one"]);
    cutter.close(true);
    cutter.cut();
    until("the link is suspended", || client.links()[0].state == LinkState::Suspended);
    for text in ["two", "three"] {
        assert_eq!(verb(&client, link, move |link| link.send_message(text)), Ok(()));
    }
    cutter.close(false);
    until("all messages have arrived", || messages(&server).len() >= 3);
    assert_eq!(messages(&server), ["one", "two", "three"]);
}

#[test]
fn messages_are_bounded_in_length_and_number() {
    let (server, client) = (Node::start(), Node::start());
    let cutter = Cutter::new(server.serve());
    cutter.close(true);
    let link = client.link(cutter.addr);
    let lost = VerbError::Over(Reason::LinkLost);
    assert_eq!(verb(&client, link, |link| link.send_message("early")), Err(lost), "there is no session");
    cutter.close(false);
    client.until_up();
    cutter.close(true);
    cutter.cut();
    until("the link is suspended", || client.links()[0].state == LinkState::Suspended);
    let long = "x".repeat(MESSAGE_BYTES_MAX);
    let sent = std::iter::repeat_with(|| {
        let long = long.clone();
        verb(&client, link, move |link| link.send_message(&long))
    });
    let sent: Vec<_> = sent.take(65).collect();
    assert!(sent[..64].iter().all(Result::is_ok) && sent[64] == Err(VerbError::Full), "{sent:?}");
    let longer = format!("{long}x");
    assert_eq!(verb(&client, link, move |link| link.send_message(&longer)), Err(VerbError::Invalid));
    cutter.close(false);
    until("all 64 messages have arrived", || messages(&server).len() == 64);
    assert!(messages(&server).iter().all(|text| *text == long));
}

#[test]
fn each_verb_of_a_link_answers_its_errors() {
    let (server, client) = (Node::start(), Node::start());
    let link = client.link_over_tcp(server.serve());
    client.until_up();
    let served = server.links()[0].id;
    assert_eq!((link.kind(), served.kind()), (Kind::Link, Kind::Link));
    let path = Path::default();
    let (same, other) = (path.clone(), Path { source: Some([127, 0, 0, 1].into()), ..path.clone() });
    let removed = other.clone();
    assert_eq!(verb(&client, link, move |link| link.add_path(&same)), Err(VerbError::Already));
    assert_eq!(verb(&client, link, move |link| link.remove_path(&removed)), Err(VerbError::Already));
    assert_eq!(verb(&server, served, move |link| link.add_path(&path)), Err(VerbError::Invalid));
    assert_eq!(verb(&server, served, |link| link.redial()), Err(VerbError::Invalid));
    assert_eq!(verb(&client, link, |link| link.redial()), Err(VerbError::Already));
    let paths: Vec<_> = (1..=16).map(|port| Path { local_port: Some(port), ..other.clone() }).collect();
    let added = verb(&client, link, move |link| Ok(paths.iter().map(|path| link.add_path(path)).collect::<Vec<_>>()));
    let added = added.unwrap();
    assert!(added[..15].iter().all(Result::is_ok) && added[15] == Err(VerbError::Full), "{added:?}");

    // The link of the loop itself is no side, and no side is a link.
    let foreign = client.ask(move |core| {
        let connection =
            core.link(link).unwrap().open_stream(Target::parse("127.0.0.1:9").unwrap(), Box::new(Closes)).unwrap();
        let side = core.connection(connection).unwrap().side_of(seaprox::Role::Source).unwrap();
        [connection, side].map(|id| core.link(id).map(drop))
    });
    assert_eq!(foreign, [Err(VerbError::Invalid), Err(VerbError::Invalid)]);
    let closed = client.ask(move |core| {
        let mut link = core.link(link).unwrap();
        (link.close(), link.close(), link.send_message("late"), link.state())
    });
    let lost = VerbError::Over(Reason::LinkLost);
    assert_eq!(closed, (Ok(()), Err(VerbError::Already), Err(lost), LinkState::Ended));
    let gone = || client.ask(move |core| core.link(link).map(drop));
    until("the link is gone", || gone() == Err(VerbError::Over(Reason::Drained)));
    let never = Id::from_u64(link.to_u64() + (7 << 32)).unwrap();
    assert_eq!(client.ask(move |core| core.link(never).map(drop)), Err(VerbError::Stale));
}

#[test]
fn a_second_dial_to_the_same_peer_answers_the_first_link() {
    let (server, client) = (Node::start(), Node::start());
    let addr = server.serve();
    let link = client.link(addr);
    client.until_up();
    let policy = Arc::clone(&client.policy);
    let answers = client.ask(move |core| {
        let dial = |core: &mut Loop<'_>, seed| {
            core.connect_link(LinkConfig::new(identity(seed), Arc::<Open>::clone(&policy), addr.into())).unwrap()
        };
        let (same, other) = (dial(core, 1), dial(core, 3));
        core.link(other.id).unwrap().close().unwrap();
        (same, other, dial(core, 3))
    });
    assert_eq!((answers.0.id, answers.0.is_new), (link, false));
    assert!(answers.1.is_new && answers.1.id != link, "another key of this node is another link");
    assert!(answers.2.is_new && answers.2.id != answers.1.id, "a link that is being closed is not answered");
}

/// Records the events of a loop.
struct Records(Arc<Mutex<Vec<Event>>>);

impl Observer for Records {
    fn event(&mut self, _: &mut Loop<'_>, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

#[test]
fn the_observer_hears_of_each_state_of_a_link() {
    let (server, client) = (Node::start(), Node::start());
    let events = Arc::<Mutex<Vec<Event>>>::default();
    let records = Records(Arc::clone(&events));
    client.ask(move |core| core.set_observer(Box::new(records)));
    let cutter = Cutter::new(server.serve());
    let id = client.link(cutter.addr);
    let states = || -> Vec<LinkState> {
        let events = events.lock().unwrap();
        let state = |event: &Event| match event {
            Event::Link { link, state } if *link == id => Some(*state),
            _ => None,
        };
        events.iter().filter_map(state).collect()
    };
    until("the link is up", || states() == [LinkState::Connecting, LinkState::Up]);
    cutter.cut();
    until("the link is up again", || states().ends_with(&[LinkState::Suspended, LinkState::Up]));
    verb(&client, id, |link| link.close()).unwrap();
    until("the link has ended", || states().len() == 5);
    assert_eq!(states()[4], LinkState::Ended);
}
