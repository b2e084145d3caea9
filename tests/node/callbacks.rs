//! Callbacks of handlers and of link events: several verbs in one callback, panics, and wake-ups. Over real sockets.

use crate::node_kit;

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use node_kit::*;
use seaprox::node::{LinkEvent, Policy, ServeConfig};
use seaprox::{Bind, Cx, Failure, Handler, Id, ListenConfig, Reason, Target, bind};

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
    let ends: [(Verb, bool); 3] =
        [(|cx| cx.disconnect(), false), (|cx| cx.reset_dest(), false), (|cx| cx.close(Reason::Other), true)];
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
