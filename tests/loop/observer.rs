//! The observer of a loop hears of each connection, in order, and with what it has carried.

use crate::loop_kit;

use std::cell::RefCell;
use std::net::TcpListener;
use std::rc::Rc;

use loop_kit::*;
use seaprox::{Ending, Event, Fault, Id, Loop, Observer, Reason};

/// An observer that keeps all events, and panics at each of them if it is told to.
#[derive(Clone, Default)]
struct Notes {
    events: Rc<RefCell<Vec<Event>>>,
    panics: bool,
}

impl Observer for Notes {
    fn event(&mut self, _: &mut Loop<'_>, event: Event) {
        self.events.borrow_mut().push(event);
        assert!(!self.panics, "(this message belongs to the test)");
    }
}

/// Relays five bytes to a target and two back, and ends in order. Returns the id of the connection.
fn relay_once(rig: &mut Rig) -> Id {
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let (id, mut client) = rig.adopt(Kind::Tcp4, relay_to(target.local_addr().unwrap()));
    let mut server = rig.accept(&target);
    rig.send(&mut client, b"hello");
    assert_eq!(rig.receive(&mut server, 5), b"hello");
    rig.send(&mut server, b"yo");
    client.fin();
    assert_eq!(rig.receive_all(&mut server), b"");
    server.fin();
    assert_eq!(rig.receive_all(&mut client), b"yo");
    rig.until_empty();
    id
}

fn events_of(connection: Id) -> [Event; 4] {
    let (reason, ending, fault) = (Reason::SourceFin, Ending::Graceful, Fault::Source);
    [
        Event::ConnectionOpened { connection },
        Event::ConnectionConnecting { connection },
        Event::ConnectionConnected { connection },
        Event::ConnectionEnded { connection, reason, ending, fault, sent: 5, received: 2 },
    ]
}

#[test]
fn the_observer_hears_of_a_connection_that_opens_connects_and_ends_with_its_bytes() {
    let (mut rig, notes) = (Rig::new(config()), Notes::default());
    relay_once(&mut rig);
    rig.core().set_observer(Box::new(notes.clone()));
    let id = relay_once(&mut rig);
    rig.turn();
    assert_eq!(*notes.events.borrow(), events_of(id), "only the connection since the observer was set");
}

#[test]
fn a_panic_in_the_observer_is_counted_and_the_observer_hears_the_next_event() {
    let (mut rig, notes) = (Rig::new(config()), Notes { panics: true, ..Notes::default() });
    rig.core().set_observer(Box::new(notes.clone()));
    let id = relay_once(&mut rig);
    rig.turn();
    assert_eq!(*notes.events.borrow(), events_of(id));
    assert_eq!(rig.stats().panics, 4);
    assert_eq!(rig.closed(Reason::SourceFin), 1, "the connection was not ended by the panic");
}
