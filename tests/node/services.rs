//! Services: streams to the peer itself, by the name of what it offers.

use crate::node_kit;

use std::sync::{Arc, Mutex};

use node_kit::*;
use seaprox::node::ServicePeer;
use seaprox::{Cause, Cx, Failure, Handler, Id, Reason, VerbError};

/// Sends back what it gets.
struct Echo;

impl Handler for Echo {
    fn opened(&mut self, _: &mut Cx<'_>) {}

    fn connected(&mut self, _: &mut Cx<'_>, _: Result<(), &Failure>) {}

    fn readable(&mut self, cx: &mut Cx<'_>, input: &[u8]) -> usize {
        cx.reply(input).unwrap();
        input.len()
    }
}

/// The answers that a stream got: the result of its opening, and the bytes.
type Answers = Arc<Mutex<(Option<Result<(), Reason>>, Vec<u8>)>>;

/// Sends a question, and closes when it has the answer.
struct Asks(Answers);

impl Handler for Asks {
    fn opened(&mut self, _: &mut Cx<'_>) {}

    fn connected(&mut self, cx: &mut Cx<'_>, result: Result<(), &Failure>) {
        match result {
            Ok(()) => cx.reply(b"question").unwrap(),
            Err(failure) => {
                self.0.lock().unwrap().0 = Some(Err(failure.reason));
                cx.close(failure.reason);
            }
        }
    }

    fn readable(&mut self, cx: &mut Cx<'_>, input: &[u8]) -> usize {
        let mut answers = self.0.lock().unwrap();
        answers.1.extend_from_slice(input);
        if answers.1.len() == b"question".len() {
            answers.0 = Some(Ok(()));
            cx.close(Reason::SourceFin);
        }
        input.len()
    }

    fn ended(&mut self, _: &mut Cx<'_>, _: Cause) {}
}

/// Opens a stream to a service. Returns the result, and the answer.
#[track_caller]
fn ask(node: &Node, link: Id, name: &'static str) -> (Result<(), Reason>, Vec<u8>) {
    let answers = Answers::default();
    let handler = Asks(Arc::clone(&answers));
    node.ask(move |core| core.open_service(link, name, Box::new(handler))).unwrap();
    until("the stream has a result", || answers.lock().unwrap().0.is_some());
    let mut answers = answers.lock().unwrap();
    (answers.0.take().unwrap(), std::mem::take(&mut answers.1))
}

#[test]
fn a_stream_reaches_the_service_of_its_name_and_no_other() {
    let (server, client) = (Node::start(), Node::start());
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let peers = Arc::clone(&asked);
    server.ask(move |core| {
        let echo = move |peer: &ServicePeer<'_>| -> Option<Box<dyn Handler>> {
            peers.lock().unwrap().push(format!("{} {}", peer.name, peer.is_dialed));
            Some(Box::new(Echo))
        };
        core.set_service("echo/1", Box::new(echo));
        core.set_service("nobody/1", Box::new(|_| None));
        core.set_service("panics/1", Box::new(|_| panic!("expected by the test")));
    });
    // The stream waits for its link.
    let link = client.link(server.serve());
    assert_eq!(ask(&client, link, "echo/1"), (Ok(()), b"question".to_vec()));
    assert_eq!(*asked.lock().unwrap(), ["peer false"]);
    for refused in ["nobody/1", "panics/1", "echo/2"] {
        assert_eq!(ask(&client, link, refused), (Err(Reason::NotPermitted), Vec::new()), "{refused}");
    }
    assert_eq!(ask(&client, link, "echo/1").0, Ok(()));
    // The peer of a link that this node has dialed has the same services, and is known as such.
    let dialed = Arc::<Mutex<Vec<bool>>>::default();
    let seen = Arc::clone(&dialed);
    client.ask(move |core| {
        let echo = move |peer: &ServicePeer<'_>| -> Option<Box<dyn Handler>> {
            seen.lock().unwrap().push(peer.is_dialed);
            Some(Box::new(Echo))
        };
        core.set_service("echo/1", Box::new(echo));
    });
    assert_eq!(ask(&server, server.links()[0].id, "echo/1").0, Ok(()));
    assert_eq!(*dialed.lock().unwrap(), [true]);
    until("no stream is left", || client.links()[0].streams == 0 && server.links()[0].streams == 0);
}

#[test]
fn the_limit_of_streams_of_a_key_holds_for_services() {
    let (server, client) = (Node::start(), Node::start());
    server.ask(|core| core.set_service("echo/1", Box::new(|_| Some(Box::new(Echo)))));
    let link = client.link(server.serve());
    assert_eq!(ask(&client, link, "echo/1").0, Ok(()));
    *server.policy.streams_max.lock().unwrap() = Some(0);
    assert_eq!(ask(&client, link, "echo/1").0, Err(Reason::LimitReached));
}

#[test]
fn a_service_needs_a_name_and_a_link() {
    let client = Node::start();
    let link = client.link(refusing());
    let open = |id: Id, name: String| {
        client.ask(move |core| core.open_service(id, &name, Box::new(Asks(Answers::default()))).map(|_| ()))
    };
    assert_eq!(open(link, String::new()), Err(VerbError::Invalid));
    assert_eq!(open(link, "a".repeat(256)), Err(VerbError::Invalid));
    let connection =
        client.ask(move |core| core.open_service(link, "a/1", Box::new(Asks(Answers::default())))).unwrap();
    assert_eq!(open(connection, "a/1".to_owned()), Err(VerbError::Invalid));
}
