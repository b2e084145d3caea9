//! Bugs in the calls to handlers, front ends, permits and setups: their order, their number, and panics in them.

use crate::loop_kit;

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use loop_kit::*;
use seaprox::{Cause, Loops, Permit, Reason, Role, Stage, Target};

/// The handler of a dest was kept after the dest was disconnected. It received the calls of the next side in that slot,
/// so that `opened` of a new client's handler was never called.
#[test]
fn disconnecting_a_dest_drops_its_handler() {
    let (mut rig, heard) = (Rig::new(config()), Heard::default());
    let (listener, addr) = target();
    let notes = heard.clone();
    let (old, mut client) = rig.adopt(
        Kind::Unix,
        handler(move |cx, call| {
            if cx.role() == Role::Dest {
                notes.say("dial is over");
            }
            match call {
                Call::Opened => dial(cx, addr),
                Call::Connected(_) => {
                    cx.set_handler(Role::Dest, handler(|_, _| 0)).unwrap();
                    cx.resume_reading(Role::Source);
                }
                Call::Readable(_) => cx.disconnect().unwrap(),
                _ => {}
            }
            0
        }),
    );
    let _server = rig.accept(&listener);
    rig.until("connected", |_| heard.has("dial is over"));
    client.try_send(b"x");
    rig.until("the dest is released", |proxy| proxy.core().connection(old).unwrap().side_of(Role::Dest).is_none());
    let new = heard.clone();
    let (_, _client) = rig.adopt(
        Kind::Unix,
        handler(move |cx, call| {
            new.note(cx.role(), &call);
            0
        }),
    );
    rig.until("the new client's handler gets Opened", |_| heard.has("source opened"));
}

/// A connection had no timer if its handler did nothing after a failed connect or did not relay after a good one.
#[test]
fn a_connection_whose_handler_does_nothing_after_connected_times_out() {
    let (_listener, good) = target();
    for addr in [refusing(), good] {
        let mut config = config();
        (config.timeouts.handshake, config.timeouts.connect) = (Duration::from_millis(50), Duration::from_millis(50));
        let mut rig = Rig::new(config);
        let idle = handler(move |cx, call| match call {
            Call::Opened => {
                dial(cx, addr);
                0
            }
            Call::Connected(_) => 0,
            call => by_default(cx, &call),
        });
        let (_, _client) = rig.adopt(Kind::Unix, idle);
        rig.until_empty();
    }
}

/// `opened` was called after the end of a connection that was adopted and ended between two turns.
#[test]
fn opened_is_not_called_after_the_end() {
    let (mut rig, heard) = (Rig::new(config()), Heard::default());
    let notes = heard.clone();
    let (id, _client) = rig.adopt(
        Kind::Unix,
        handler(move |cx, call| {
            notes.note(cx.role(), &call);
            0
        }),
    );
    rig.core().connection(id).unwrap().close(Reason::Killed);
    rig.until_empty();
    assert!(!heard.has("source opened"), "{:?}", heard.all());
}

/// When each handler adopted another connection in `opened`, the calls nested, and the stack grew with each.
#[test]
fn adopting_connections_in_opened_does_not_grow_the_stack() {
    fn chain(left: usize, deepest: &Rc<Cell<usize>>) -> Box<dyn seaprox::Handler> {
        let deepest = Rc::clone(deepest);
        handler(move |cx, call| {
            if let Call::Opened = call {
                let here = &call as *const _ as usize;
                let top = deepest.get();
                deepest.set(if top == 0 { here } else { top });
                assert!(deepest.get().abs_diff(here) < 200_000, "the stack grows with each");
                if left > 0 {
                    let next = chain(left - 1, &deepest);
                    cx.core().adopt(pair(Kind::Unix).1, "test", next).unwrap();
                }
            }
            0
        })
    }
    let mut config = config();
    config.limits.connections = 1000;
    let mut rig = Rig::new(config);
    let (_, _client) = rig.adopt(Kind::Unix, chain(500, &Rc::default()));
    rig.until("all connections are opened", |proxy| proxy.core().snapshot().stats.opened == 501);
    rig.turns(3);
    assert_eq!(rig.stats().panics, 0, "the stack must not grow with each connection");
}

/// A panic of a front end while it made a handler ended the loop.
#[test]
fn a_front_end_that_panics_ends_only_that_client() {
    let mut rig = Rig::new(config());
    let mut count = 0;
    let addr = rig.listen(move || {
        count += 1;
        assert!(count > 1, "(this message belongs to the test)");
        handler(|cx, call| {
            if let Call::Opened = call {
                cx.reply(b"hi").unwrap();
            }
            0
        })
    });
    let mut first = Peer::connect(addr);
    let end = catch_unwind(AssertUnwindSafe(|| rig.receive_end(&mut first)));
    assert!(end.is_ok(), "the loop continues");
    let mut second = Peer::connect(addr);
    assert_eq!(rig.receive(&mut second, 2), b"hi");
}

/// A panic of a permit, which is called when a worker's answer is read, ended the loop.
#[test]
fn a_permit_that_panics_ends_only_that_connection() {
    let mut rig = Rig::with_workers(config());
    let (_, mut client) = rig.adopt(
        Kind::Unix,
        handler(|cx, call| {
            if let Call::Opened = call {
                let target = Target::from_host("localhost", 1).unwrap();
                let permit: Permit = Rc::new(|_| panic!("(this message belongs to the test)"));
                cx.connect(Rc::new(target), Some(permit)).unwrap();
            }
            by_default(cx, &call)
        }),
    );
    let end = catch_unwind(AssertUnwindSafe(|| rig.receive_end(&mut client)));
    assert!(end.is_ok(), "the loop continues");
    rig.until_empty();
}

/// A handler that relayed before the dest was connected was told of a reset instead of the refusal, if the source's
/// event came first.
#[test]
fn relaying_before_the_connect_still_reports_a_refusal() {
    let (mut rig, heard) = (Rig::new(config()), Heard::default());
    let (notes, addr) = (heard.clone(), refusing());
    let (_, mut client) = rig.adopt(
        Kind::Tcp4,
        handler(move |cx, call| {
            notes.note(cx.role(), &call);
            if let Call::Opened = call {
                dial(cx, addr);
                cx.relay();
            }
            by_default(cx, &call)
        }),
    );
    client.try_send(b"early");
    rig.until_empty();
    assert!(heard.has("source connected connection_refused"), "{:?}", heard.all());
}

/// A reset of a kept server connection ended the client's connection too, although the client could send more requests.
#[test]
fn a_reset_of_an_idle_dest_is_reported_to_the_handler() {
    let (mut rig, heard) = (Rig::new(config()), Heard::default());
    let (listener, addr) = target();
    let notes = heard.clone();
    let (id, _client) = rig.adopt(
        Kind::Tcp4,
        handler(move |cx, call| {
            notes.note(cx.role(), &call);
            match call {
                Call::Opened => dial(cx, addr),
                Call::Connected(_) => {
                    cx.set_stage(Stage::KeepAlive);
                    cx.resume_reading(Role::Source);
                    cx.resume_reading(Role::Dest);
                }
                Call::Ended(seaprox::Cause::Reset) => cx.disconnect().unwrap(),
                _ => {}
            }
            0
        }),
    );
    let server = rig.accept(&listener);
    rig.until("the connection is idle", |proxy| stage_of(&mut proxy.core(), id) == Some(Stage::KeepAlive));
    server.reset();
    rig.until("the dest is gone", |proxy| proxy.core().connection(id).unwrap().side_of(Role::Dest).is_none());
    assert!(heard.has("dest ended Reset"), "{:?}", heard.all());
    assert_eq!(stage_of(&mut rig.core(), id), Some(Stage::KeepAlive));
}

/// `writable` was not called if relayed bytes waited after the bytes that the handler had sent.
#[test]
fn writable_is_called_although_relayed_bytes_wait_too() {
    for mut config in modes() {
        config.limits.relay_bytes_per_turn = usize::MAX;
        let (mut rig, heard) = (Rig::new(config), Heard::default());
        let (listener, addr) = target();
        let notes = heard.clone();
        let (id, mut client) = rig.adopt(
            Kind::Tcp4,
            handler(move |cx, call| {
                notes.note(cx.role(), &call);
                if let Call::Opened = call {
                    dial(cx, addr);
                }
                by_default(cx, &call)
            }),
        );
        let mut server = rig.accept(&listener);
        server.socket.set_recv_buffer_size(16 << 10).unwrap();
        let sent = rig.congest(&mut client, id, Role::Dest);
        assert_eq!(rig.core().connection(id).unwrap().send(Role::Dest, b"word"), Ok(()));
        assert!(rig.core().connection(id).unwrap().queued(Role::Dest) > 4, "the bytes wait");
        let mut got = Vec::new();
        rig.until("all bytes arrive", |_| {
            let next = got.len() + (32 << 10);
            server.try_receive(&mut got, next);
            got.len() >= sent + 4
        });
        rig.turns(3);
        assert_eq!(heard.count("dest writable"), 1, "{:?}", heard.all());
    }
}

/// A handler that stopped the loop in its last call prevented the last calls of the other handlers.
#[test]
fn a_stop_in_an_ended_callback_still_calls_the_other_handlers() {
    let (mut rig, over) = (Rig::new(config()), Rc::new(Cell::new(0)));
    let mut ids = Vec::new();
    for _ in 0..3 {
        let over = Rc::clone(&over);
        let stopper = handler(move |cx, call| {
            if let Call::Ended(Cause::Over(_)) = call {
                over.set(over.get() + 1);
                cx.core().stop();
            }
            0
        });
        ids.push(rig.adopt(Kind::Unix, stopper));
    }
    rig.turn();
    rig.core().connection(ids[0].0).unwrap().close(Reason::Killed);
    while rig.proxy.turn(Some(Duration::from_millis(1))).unwrap() {}
    assert_eq!(over.get(), 3);
}

/// After a panic of a setup, `Loops::start` never returned.
#[test]
fn a_setup_that_panics_fails_the_start() {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let setup: seaprox::Setup = std::sync::Arc::new(|_, _, _| panic!("(this message belongs to the test)"));
        let _ = tell.send(Loops::start(2, &config(), None, Vec::new(), &setup).is_err());
    });
    assert_eq!(told.recv_timeout(Duration::from_secs(5)), Ok(true));
}
