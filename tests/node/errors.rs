//! The closed list of errors of OPEN_RESULT and LISTEN_RESULT: each is provoked at the far node, arrives with its reason, and
//! is shown by the status.

use crate::node_kit;

use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use node_kit::*;
use seaprox::node::ForwardConfig;
use seaprox::{Answer, Bind, Connector, Cx, Failure, ForwardState, Handler, Id, Reason, Target};

/// Connects the targets whose names begin with `far.`: answers with the failure that the name asks for, or never.
#[derive(Default)]
struct Fails(Vec<Answer>);

impl Connector for Fails {
    fn wants(&self, target: &Target) -> bool {
        target.host().is_some_and(|host| host.starts_with("far."))
    }

    fn connect(&mut self, target: &Target, answer: Answer) {
        match target.host() {
            Some("far.network") => answer.failed(Reason::NetworkUnreachable.into()),
            Some("far.host") => answer.failed(Reason::HostUnreachable.into()),
            Some("far.other") => answer.failed(Failure::new(Reason::Other, "a word of the far end")),
            _ => self.0.push(answer),
        }
    }
}

/// Records the result of its connect.
struct Records(Arc<Mutex<Option<Result<(), Failure>>>>);

impl Handler for Records {
    fn opened(&mut self, _: &mut Cx<'_>) {}

    fn readable(&mut self, _: &mut Cx<'_>, input: &[u8]) -> usize {
        input.len()
    }

    fn connected(&mut self, cx: &mut Cx<'_>, result: Result<(), &Failure>) {
        *self.0.lock().unwrap() = Some(result.map_err(Clone::clone));
        cx.close(Reason::SourceFin);
    }
}

/// Opens a stream over a link. Returns the result of its connect.
#[track_caller]
fn open(node: &Node, link: Id, target: &str) -> Result<(), Failure> {
    let (target, result) = (Target::parse(target).unwrap(), Arc::<Mutex<Option<_>>>::default());
    let handler = Records(Arc::clone(&result));
    node.ask(move |core| core.link(link)?.open_stream(target, Box::new(handler))).unwrap();
    until("the connect has a result", || result.lock().unwrap().is_some());
    result.lock().unwrap().take().unwrap()
}

fn failures(node: &Node, reason: Reason) -> u64 {
    node.ask(move |core| core.snapshot().stats.connect_failures[reason as usize])
}

#[test]
fn each_error_of_an_open_arrives_with_its_reason_and_is_counted_in_the_status_of_both_nodes() {
    let server = Node::with(|config| config.timeouts.connect = Duration::from_secs(2));
    let client = Node::start();
    server.ask(|core| core.set_connector(Box::<Fails>::default()));
    let link = client.link(server.serve());
    client.until_up();
    let (_listener, addr) = target();
    assert_eq!(open(&client, link, &addr.to_string()), Ok(()));
    let closed = refusing().to_string();
    for (target, reason) in [
        ("no.such.host.invalid:1", Reason::NameResolutionFailure),
        (&*closed, Reason::ConnectionRefused),
        ("far.silent:1", Reason::TimedOut),
        ("far.network:1", Reason::NetworkUnreachable),
        ("far.host:1", Reason::HostUnreachable),
        ("far.other:1", Reason::Other),
    ] {
        let (near, far) = (failures(&client, reason), failures(&server, reason));
        let failure = open(&client, link, target).expect_err(target);
        assert_eq!(failure.reason, reason, "{target}: {failure}");
        assert_eq!((failures(&client, reason), failures(&server, reason)), (near + 1, far + 1), "{target}");
    }
    assert_eq!(open(&client, link, "far.other:1").unwrap_err().detail.as_deref(), Some("a word of the far end"));
    server.policy.opens.store(false, Ordering::Relaxed);
    assert_eq!(open(&client, link, &closed).unwrap_err().reason, Reason::NotPermitted);
    *server.policy.streams_max.lock().unwrap() = Some(0);
    assert_eq!(open(&client, link, &closed).unwrap_err().reason, Reason::LimitReached);
    let refused = server.ask(|core| core.snapshot().stats.streams_refused);
    assert_eq!((refused, failures(&client, Reason::NotPermitted), failures(&client, Reason::LimitReached)), (2, 1, 1));
}

/// A connector that panics at a question, or while it connects.
struct Panics;

impl Connector for Panics {
    fn wants(&self, target: &Target) -> bool {
        assert!(!target.to_string().starts_with("wants."), "(this message belongs to the test)");
        target.to_string().starts_with("connect.")
    }

    fn connect(&mut self, _: &Target, _: Answer) {
        panic!("(this message belongs to the test)");
    }
}

#[test]
fn a_connector_that_panics_fails_the_dial_of_a_stream_and_the_loop_goes_on() {
    let (server, client) = (Node::start(), Node::start());
    server.ask(|core| core.set_connector(Box::new(Panics)));
    let link = client.link(server.serve());
    client.until_up();
    for (target, panics) in [("wants.invalid:1", 1), ("connect.invalid:1", 2)] {
        assert_eq!(open(&client, link, target).unwrap_err().reason, Reason::Internal, "{target}");
        assert_eq!(server.ask(|core| core.stats().panics), panics);
    }
    let (_listener, addr) = target();
    assert_eq!(open(&client, link, &addr.to_string()), Ok(()));
}

#[test]
fn each_error_of_a_listen_arrives_with_its_reason_and_is_the_failure_of_its_forward() {
    let (server, client) = (Node::start(), Node::start());
    let link = client.link(server.serve());
    client.until_up();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let listen = |place: &str| {
        let place = Bind::parse(place).unwrap();
        let forward = client.ask(move |core| core.open_forward(ForwardConfig::remote(link, place, addr.into())));
        let forward = forward.unwrap();
        until("the peer has answered", || status(&client, forward).state != ForwardState::Waiting);
        status(&client, forward)
    };
    assert_eq!(listen("127.0.0.1:0").failure, None);
    for (place, reason) in [
        (addr.to_string(), Reason::AddressInUse),
        ("[fe80::1%nowhere]:0".to_owned(), Reason::NameResolutionFailure),
        ("a.name.example:1".to_owned(), Reason::NotPermitted),
        ("192.0.2.1:0".to_owned(), Reason::NetworkUnreachable),
    ] {
        let seen = listen(&place);
        let failure = seen.failure.expect("a failure");
        assert_eq!((seen.state, failure.reason), (ForwardState::Failed, reason), "{place}: {failure}");
        // The status of the link has the same failure.
        let shown = client.links()[0].listeners.iter().filter_map(|it| it.failure.clone()).next_back();
        assert!(shown.is_some_and(|text| text.starts_with(reason.as_str())), "{place}");
    }
    server.policy.listens.store(false, Ordering::Relaxed);
    assert_eq!(listen("127.0.0.1:0").failure.map(|failure| failure.reason), Some(Reason::NotPermitted));
    // One more than a link may have; the first ones count too.
    let many = client.ask(move |core| {
        let open = |_| core.open_forward(ForwardConfig::remote(link, Bind::parse("127.0.0.1:0").unwrap(), addr.into()));
        (0..256).map(open).collect::<Result<Vec<_>, _>>().unwrap()
    });
    let last = many[many.len() - 1];
    until("the link takes no more listeners", || {
        status(&client, last).failure.is_some_and(|failure| failure.reason == Reason::LimitReached)
    });
}

fn status(node: &Node, forward: Id) -> seaprox::node::ForwardStatus {
    node.ask(move |core| core.forward(forward).and_then(|forward| forward.status())).unwrap()
}
