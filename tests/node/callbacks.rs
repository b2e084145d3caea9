//! Callbacks of handlers and of link events: several verbs in one callback, panics, and wake-ups. Over real sockets.

use crate::node_kit;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use node_kit::*;
use seaprox::node::{ForwardConfig, LinkEvent, PeerKey, Policy, ServeConfig, Verdict};
use seaprox::{Bind, Cx, Failure, Handler, Id, LinkState, ListenConfig, Reason, Target, bind};

type Opened = dyn Fn(&mut Cx<'_>);

/// Runs a closure when a client was accepted, and relays when the dest is connected.
struct Verbs(Rc<Opened>);

impl Handler for Verbs {
    fn opened(&mut self, cx: &mut Cx<'_>) {
        (self.0)(cx);
    }

    fn readable(&mut self, _: &mut Cx<'_>, _: &[u8]) -> usize {
        0
    }

    fn connected(&mut self, cx: &mut Cx<'_>, result: Result<(), &Failure>) {
        match result {
            Ok(()) => cx.relay(),
            Err(failure) => cx.close(failure.reason),
        }
    }
}

/// Listens for clients whose dests are reached over a link. Returns the listening address.
fn front(node: &Node, link: Id, opened: impl Fn(&mut Cx<'_>) + Send + 'static) -> SocketAddr {
    node.ask(move |core| {
        let mut bound = bind(&Bind::parse("127.0.0.1:0").unwrap(), 1, core.config()).unwrap();
        let opened: Rc<Opened> = Rc::new(opened);
        let front = move || -> Box<dyn Handler> { Box::new(Verbs(Rc::clone(&opened))) };
        let config = ListenConfig { link: Some(link), ..ListenConfig::new("static", Box::new(front)) };
        core.listen(&mut bound[0], config).unwrap();
        bound[0].addr().ip().unwrap()
    })
}

/// Sends a byte in each direction.
fn swap_bytes(near: &mut std::net::TcpStream, far: &mut std::net::TcpStream) {
    near.write_all(b"x").unwrap();
    far.read_exact(&mut [0]).unwrap();
    far.write_all(b"x").unwrap();
    near.read_exact(&mut [0]).unwrap();
}

#[test]
fn a_panic_in_the_callback_of_link_events_is_counted_and_the_link_goes_on() {
    let (server, client) = (Node::start(), Node::start());
    let happened = Arc::clone(&client.happened);
    let link = client.link_with(server.serve(), move |config| {
        config.on_event = Box::new(move |_, _, event| {
            happened.lock().unwrap().push(event.clone());
            assert!(!matches!(event, LinkEvent::Up { .. }), "(this message belongs to the test)");
        });
    });
    let (listener, addr) = target();
    let (mut near, mut far) = (connect(client.forward(link, addr.into())), accept(&listener));
    swap_bytes(&mut near, &mut far);
    assert_eq!(client.ask(|core| core.stats().panics), 1);
    client.ask(move |core| core.link(link).unwrap().close().unwrap());
    until("the callback gets the next event", || client.has(|event| matches!(event, LinkEvent::Closed)));
}

#[test]
fn an_event_that_a_callback_causes_for_its_own_link_is_delivered_after_it() {
    let client = Node::start();
    let happened = Arc::clone(&client.happened);
    let closed = refusing();
    client.link_with(closed, move |config| {
        config.on_event = Box::new(move |core, id, event| {
            if matches!(event, LinkEvent::NoSubflow { .. }) {
                core.link(id).unwrap().close().unwrap();
                assert!(core.link(id).is_err(), "a link without a session is over at once");
            }
            happened.lock().unwrap().push(event.clone());
        });
    });
    until("the end of the link is reported", || client.has(|event| matches!(event, LinkEvent::Closed)));
    let events: Vec<_> = client.happened.lock().unwrap().iter().map(LinkEvent::as_str).collect();
    assert_eq!(events, ["no_subflow", "closed"], "each event once, in the order of the causes");
    assert_eq!(client.ask(|core| core.stats().panics), 0);
}

#[test]
fn the_ends_of_the_links_of_a_server_that_one_callback_closes_are_all_delivered() {
    let (server, clients) = (Node::start(), [Node::start(), Node::start(), Node::start()]);
    let ended = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (ends, happened) = (Arc::clone(&ended), Arc::clone(&server.happened));
    let addr = server.serve_with("127.0.0.1:0".parse().unwrap(), move |config| {
        config.on_event = Box::new(move |core, id, event| {
            happened.lock().unwrap().push(event.clone());
            if matches!(event, LinkEvent::Closed | LinkEvent::Ended { .. }) {
                ends.lock().unwrap().push(id);
                let others: Vec<_> = core.links().iter().map(|link| link.id).filter(|other| *other != id).collect();
                others.into_iter().for_each(|other| _ = core.link(other).map(|mut link| link.close()));
            }
        });
    });
    let first = clients[0].link(addr);
    clients[1..].iter().for_each(|client| _ = client.link(addr));
    until("all links are up", || server.links().iter().filter(|link| link.state == LinkState::Up).count() == 3);
    // A client that closes a link before it knows the session tells the server nothing.
    let is_up = |client: &Node| client.has(|event| matches!(event, LinkEvent::Up { .. }));
    until("the clients know that their links are up", || clients.iter().all(is_up));
    // The links that the server closes are dialed again, and would be links of the server again.
    server.policy.keys.lock().unwrap().push([0; 32]);
    let mut links: Vec<Id> = server.links().iter().map(|link| link.id).collect();
    clients[0].ask(move |core| core.link(first).unwrap().close().unwrap());
    until("the end of each link is reported", || ended.lock().unwrap().len() >= 3);
    until("no link is left", || server.links().is_empty());
    let mut ended = ended.lock().unwrap().clone();
    links.sort();
    ended.sort();
    assert_eq!(ended, links, "each end is reported once");
}

/// A policy that panics once at the question whose turn it is, and otherwise permits everything.
struct PanicsOnce(Arc<Open>, std::sync::Mutex<&'static str>);

impl PanicsOnce {
    fn at(&self, question: &'static str) {
        let is_due = std::mem::take(&mut *self.1.lock().unwrap());
        if is_due != question {
            *self.1.lock().unwrap() = is_due;
            return;
        }
        panic!("(this message belongs to the test)");
    }
}

impl Policy for PanicsOnce {
    fn admits(&self, key: &PeerKey) -> bool {
        self.at("admits");
        self.0.admits(key)
    }
    fn name(&self, key: &PeerKey) -> String {
        self.at("name");
        self.0.name(key)
    }
    fn may_open(&self, key: &PeerKey, target: &Target) -> Verdict {
        self.at("may_open");
        self.0.may_open(key, target)
    }
    fn may_listen(&self, key: &PeerKey, place: &Bind) -> bool {
        self.at("may_listen");
        self.0.may_listen(key, place)
    }
    fn rate_max(&self, key: &PeerKey) -> Option<u64> {
        self.at("rate_max");
        self.0.rate_max(key)
    }
}

#[test]
fn a_policy_that_panics_refuses_and_the_link_and_the_loop_go_on() {
    let (server, client) = (Node::start(), Node::start());
    let policy = Arc::new(PanicsOnce(Arc::clone(&server.policy), std::sync::Mutex::new("")));
    let own = Arc::clone(&policy) as Arc<dyn Policy>;
    let addr = server.serve_with("127.0.0.1:0".parse().unwrap(), move |config| config.policy = own);
    let panics = |count| server.ask(|core| core.stats().panics) == count;
    // The handshake.
    *policy.1.lock().unwrap() = "admits";
    let link = client.link(addr);
    client.until_up();
    until("the refused handshake is counted", || panics(1));
    // A stream.
    let (listener, target) = target();
    let front = client.forward(link, target.into());
    *policy.1.lock().unwrap() = "may_open";
    let mut refused = connect(front);
    assert!(refused.read(&mut [0]).map_or(true, |count| count == 0), "the stream is refused");
    until("the client knows why", || *client.closed.lock().unwrap() == [Reason::NotPermitted]);
    until("the refused stream is counted", || panics(2));
    let (mut near, mut far) = (connect(front), accept(&listener));
    swap_bytes(&mut near, &mut far);
    // A place to listen.
    *policy.1.lock().unwrap() = "may_listen";
    let place = Bind::parse("127.0.0.1:0").unwrap();
    client.ask(move |core| core.open_forward(ForwardConfig::remote(link, place, target.into()))).unwrap();
    until("the place is refused", || client.has(|event| matches!(event, LinkEvent::NotListening { .. })));
    until("the refused place is counted", || panics(3));
    until("the place is asked for again", || client.has(|event| matches!(event, LinkEvent::Listening { .. })));
    // The rate.
    *policy.1.lock().unwrap() = "rate_max";
    server.ask(|core| core.recheck_links());
    until("the panic about the rate is counted", || panics(4));
    swap_bytes(&mut near, &mut far);
    assert_eq!((client.links().len(), server.links().len()), (1, 1));
}

#[test]
fn a_maker_of_handlers_that_panics_makes_none_and_is_counted() {
    let (server, client) = (Node::start(), Node::start());
    let addr = server.serve_with("127.0.0.1:0".parse().unwrap(), |config| {
        config.on_stream = Some(Box::new(|_, _| panic!("(this message belongs to the test)")));
    });
    let (listener, target) = target();
    let front = client.forward(client.link(addr), target.into());
    let (mut near, mut far) = (connect(front), accept(&listener));
    swap_bytes(&mut near, &mut far);
    until("the panic is counted", || server.ask(|core| core.stats().panics) == 1);
}

#[test]
fn a_target_set_for_the_log_after_connect_does_not_change_the_target_of_the_stream() {
    let (server, client) = (Node::start(), Node::start());
    let link = client.link(server.serve());
    let (listener, addr) = target();
    let front = front(&client, link, move |cx| {
        cx.connect(Target::from(addr), None).unwrap();
        cx.set_asked(Rc::new(Target::parse("127.0.0.1:9").unwrap()));
    });
    let (mut near, mut far) = (connect(front), accept(&listener));
    swap_bytes(&mut near, &mut far);
}

#[test]
fn a_dest_that_is_released_in_the_callback_that_connects_it_is_never_requested() {
    let (server, client) = (Node::start(), Node::start());
    let link = client.link(server.serve());
    client.until_up();
    let (listener, addr) = target();
    type Verb = fn(&mut Cx<'_>);
    let ends: [(Verb, bool); 3] = [
        (|cx| cx.disconnect().unwrap(), false),
        (|cx| cx.reset_dest().unwrap(), false),
        (|cx| cx.close(Reason::Other), true),
    ];
    for (end, closes) in ends {
        let front = front(&client, link, move |cx| {
            cx.connect(Rc::new(Target::parse("127.0.0.1:9").unwrap()), None).unwrap();
            end(cx);
            cx.connect(Target::from(addr), None).unwrap();
        });
        let checked = server.policy.asked.load(Ordering::Relaxed);
        let mut near = connect(front);
        if closes {
            assert!(near.read(&mut [0]).map_or(true, |count| count == 0), "the connection was closed");
            // The second stream comes after the first one, if there is a first one.
            let (mut near, mut far) = (connect(client.forward(link, addr.into())), accept(&listener));
            swap_bytes(&mut near, &mut far);
        } else {
            let mut far = accept(&listener);
            swap_bytes(&mut near, &mut far);
        }
        assert_eq!(server.policy.asked.load(Ordering::Relaxed) - checked, 1, "one stream was requested");
    }
    assert_eq!(client.ask(|core| core.stats().stale), 0, "no result of a released dest was queued");
}

/// Greets when it is woken.
struct Greets;

impl Handler for Greets {
    fn opened(&mut self, cx: &mut Cx<'_>) {
        cx.wake_after(Duration::from_millis(10)).unwrap();
    }

    fn readable(&mut self, _: &mut Cx<'_>, input: &[u8]) -> usize {
        input.len()
    }

    fn connected(&mut self, _: &mut Cx<'_>, _: Result<(), &Failure>) {}

    fn woken(&mut self, cx: &mut Cx<'_>) {
        cx.reply(b"hello").unwrap();
    }
}

#[test]
fn the_handler_of_a_stream_is_woken() {
    let (server, client) = (Node::start(), Node::start());
    let policy = Arc::clone(&server.policy) as Arc<dyn Policy>;
    let addr = server.ask(|core| {
        let mut bound = bind(&Bind::parse("127.0.0.1:0").unwrap(), 1, core.config()).unwrap();
        let mut config = ServeConfig::new(identity(2), policy);
        config.on_stream = Some(Box::new(|_, _| Some(Box::new(Greets))));
        core.serve_links(&mut bound[0], config).unwrap();
        bound[0].addr().ip().unwrap()
    });
    let front = client.forward(client.link(addr), Target::parse("not.connected:1").unwrap());
    let mut got = [0; 5];
    connect(front).read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hello");
}
