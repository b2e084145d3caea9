//! Dispatch: the connection that an event reaches, with one, two and all slots taken, with empty slots between them,
//! with stale events and ids, and with handlers that close and open connections during a call.

use crate::loop_kit;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use loop_kit::*;
use seaprox::{Cause, Id, Reason, Role, Stage, VerbError};

/// Returns a handler that answers every byte with that byte and the number of the connection.
fn echo(number: u8) -> Box<dyn seaprox::Handler> {
    handler(move |cx, call| match call {
        Call::Readable(input) => {
            let answer: Vec<u8> = input.iter().flat_map(|byte| [*byte, number]).collect();
            cx.reply(&answer).unwrap();
            input.len()
        }
        call => {
            if matches!(call, Call::Opened) {
                cx.set_stage(Stage::Established);
            }
            by_default(cx, &call)
        }
    })
}

fn asks(rig: &mut Rig, clients: &mut [(u8, Peer)]) {
    for (number, client) in clients.iter_mut() {
        assert_eq!(client.try_send(&[*number ^ 0x55]), 1);
    }
    for (number, client) in clients.iter_mut() {
        assert_eq!(rig.receive(client, 2), [*number ^ 0x55, *number]);
    }
}

#[test]
fn events_reach_their_connections_with_one_two_and_all_slots_used() {
    for count in [1, 2, 64] {
        let mut rig = Rig::new(config());
        let kinds = KINDS.iter().cycle();
        let mut clients: Vec<_> = (0..count).zip(kinds).map(|(n, kind)| (n, rig.adopt(*kind, echo(n)).1)).collect();
        asks(&mut rig, &mut clients);
        // Every third connection closes, so that there are empty slots between the others.
        clients.retain(|(number, _)| number % 3 != 0);
        rig.until("the closed connections are gone", |proxy| {
            proxy.core().snapshot().usage.connections == clients.len()
        });
        asks(&mut rig, &mut clients);
        // New connections take the empty slots.
        for number in 100..100 + (count - clients.len() as u8) {
            clients.push((number, rig.adopt(Kind::Tcp4, echo(number)).1));
        }
        asks(&mut rig, &mut clients);
        drop(clients);
        rig.until_empty();
        let usage = rig.snapshot().usage;
        assert_eq!((usage.sides, usage.buffer_bytes, usage.descriptors), (0, 0, 0));
    }
}

#[test]
fn a_full_table_refuses_to_adopt_and_keeps_clients_in_the_backlog() {
    let mut config = config();
    config.limits.connections = 3;
    let mut rig = Rig::new(config);
    let addr = rig.listen(|| echo(7));
    let mut clients: Vec<_> = (0..5).map(|_| (7, Peer::connect(addr))).collect();
    asks(&mut rig, &mut clients[..3]);
    assert!(rig.core().adopt(pair(Kind::Unix).1, "test", echo(0)).is_err());
    clients[3].1.try_send(b"x");
    rig.turns(20);
    assert_eq!((rig.stats().opened, rig.stats().limit_pauses), (3, 1));
    clients.remove(0);
    assert_eq!(rig.receive(&mut clients[2].1, 2), b"x\x07", "the fourth client takes the slot of the first");
    clients.clear();
    rig.until("all five connections have ended", |proxy| proxy.core().snapshot().stats.closed_total() == 5);
}

/// The socket stays open in another descriptor, so the system continues to report its events with the old token.
#[test]
fn a_stale_event_is_counted_and_calls_no_handler() {
    let (mut rig, heard) = (Rig::new(config()), Heard::default());
    let (mut peer, ours) = pair(Kind::Unix);
    let _kept = ours.try_clone().unwrap();
    let id = rig.core().adopt(ours, "test", echo(1)).unwrap();
    rig.turns(2);
    rig.core().connection(id).unwrap().close(Reason::Killed);
    rig.until_empty();
    let notes = heard.clone();
    let newcomer = handler(move |cx, call| {
        notes.note(cx.role(), &call);
        0
    });
    let (new, _client) = rig.adopt(Kind::Unix, newcomer);
    rig.turns(2);
    assert_ne!(id, new);
    let stale = rig.stats().stale;
    peer.try_send(b"to nobody");
    rig.until("the stale event is counted", |proxy| proxy.core().snapshot().stats.stale > stale);
    assert_eq!(heard.all(), ["source opened"]);
}

#[test]
fn the_id_of_an_ended_connection_gives_no_view_of_the_one_in_its_slot() {
    let mut rig = Rig::new(config());
    let (old, client) = rig.adopt(Kind::Unix, echo(1));
    let side = rig.core().connection(old).unwrap().side_of(Role::Source).unwrap();
    rig.turn();
    drop(client);
    rig.until_empty();
    let (new, mut client) = rig.adopt(Kind::Unix, echo(2));
    rig.turn();
    assert_eq!((old.to_u64() as u32, old == new), (new.to_u64() as u32, false), "the slot is reused");
    let over = VerbError::Over(Reason::SourceFin);
    assert_eq!(rig.core().connection(old).err(), Some(over));
    assert_eq!(rig.core().side(side).err(), Some(over));
    assert_eq!(stage_of(&mut rig.core(), new), Some(Stage::Established));
    client.try_send(b"a");
    assert_eq!(rig.receive(&mut client, 2), b"a\x02");
}

/// Two clients become readable in one batch of events. The handler of the first ends the second and opens a third.
#[test]
fn an_event_for_the_previous_user_of_a_slot_is_not_delivered() {
    for reuse in [false, true] {
        let (mut rig, heard) = (Rig::new(config()), Heard::default());
        let second: Rc<Cell<Option<Id>>> = Rc::default();
        let (victim, notes, third) = (Rc::clone(&second), heard.clone(), Rc::new(RefCell::new(None)));
        let keep = Rc::clone(&third);
        let killer = handler(move |cx, call| match call {
            Call::Readable(input) => {
                cx.core().connection(victim.take().unwrap()).unwrap().close(Reason::Killed);
                if reuse {
                    let (peer, ours) = pair(Kind::Unix);
                    let notes = notes.clone();
                    let fresh = handler(move |cx, call| {
                        notes.note(cx.role(), &call);
                        0
                    });
                    cx.core().adopt(ours, "test", fresh).unwrap();
                    *keep.borrow_mut() = Some(peer);
                }
                input.len()
            }
            _ => 0,
        });
        let (_, mut first_client) = rig.adopt(Kind::Unix, killer);
        let notes = heard.clone();
        let (id, mut second_client) = rig.adopt(
            Kind::Tcp4,
            handler(move |_, call| {
                if !matches!(call, Call::Opened) {
                    notes.say(format!("second {call:?}"));
                }
                0
            }),
        );
        second.set(Some(id));
        rig.turns(3);
        first_client.try_send(b"x");
        second_client.try_send(b"x");
        rig.until("the second connection is gone", |proxy| stage_of(&mut proxy.core(), id).is_none());
        rig.turns(3);
        let expected: &[&str] =
            if reuse { &["source opened", "second Ended(Over(Killed))"] } else { &["second Ended(Over(Killed))"] };
        assert_eq!(heard.all(), expected);
        assert_eq!(rig.receive_end(&mut second_client), (vec![], End::Reset));
    }
}

/// Returns a handler that runs `act` in one kind of call, and otherwise does what leads to that call.
fn acts_when(
    call_name: &'static str,
    heard: Heard,
    act: impl Fn(&mut seaprox::Cx<'_>) + 'static,
) -> Box<dyn seaprox::Handler> {
    handler(move |cx, call| {
        let name = match &call {
            Call::Opened => "opened",
            Call::Readable(_) => "readable",
            Call::Writable => "writable",
            Call::Connected(_) => "connected",
            Call::Timeout => "timeout",
            Call::Ended(Cause::Over(_)) => "over",
            Call::Ended(_) => "ended",
        };
        heard.say(name);
        if name == call_name {
            act(cx);
            return 0;
        }
        match call {
            Call::Opened if call_name == "connected" => dial(cx, refusing()),
            Call::Opened if call_name == "writable" => while cx.reply(&[0; 8000]).is_ok() {},
            call => drop(by_default(cx, &call)),
        }
        0
    })
}

/// Does what the client has to do to cause a call.
fn provoke(rig: &mut Rig, client: &mut Peer, call: &str) {
    match call {
        "readable" => drop(client.try_send(b"x")),
        "ended" => client.fin(),
        "writable" => {
            rig.turn();
            client.try_receive(&mut Vec::new(), usize::MAX);
        }
        _ => {}
    }
}

const CALLS: [&str; 7] = ["opened", "readable", "writable", "connected", "timeout", "ended", "over"];

fn rig_for(call: &str) -> Rig {
    let mut config = config();
    if matches!(call, "timeout" | "over") {
        config.timeouts.handshake = std::time::Duration::from_millis(60);
    }
    Rig::new(config)
}

#[test]
fn a_handler_may_end_its_connection_in_every_callback() {
    for call in CALLS {
        let (mut rig, heard) = (rig_for(call), Heard::default());
        let (id, mut client) = rig.adopt(Kind::Unix, acts_when(call, heard.clone(), |cx| cx.close(Reason::Killed)));
        rig.turn();
        provoke(&mut rig, &mut client, call);
        rig.until_empty();
        assert!(heard.has(call), "{call}: {:?}", heard.all());
        assert_eq!((heard.count("over"), stage_of(&mut rig.core(), id)), (1, None), "{call}");
        assert_eq!(heard.all().last().unwrap(), "over", "{call}: nothing comes after it");
        assert_eq!(rig.closed(if call == "over" { Reason::HandshakeTimeout } else { Reason::Killed }), 1);
    }
}

#[test]
fn a_handler_may_end_and_open_other_connections_in_every_callback() {
    for call in CALLS {
        let (mut rig, heard) = (rig_for(call), Heard::default());
        let (other, mut other_client) = rig.adopt(Kind::Tcp4, echo(9));
        let peers = Rc::new(RefCell::new(Vec::new()));
        let keep = Rc::clone(&peers);
        let act = move |cx: &mut seaprox::Cx<'_>| {
            cx.core().connection(other).unwrap().close(Reason::Killed);
            let (peer, ours) = pair(Kind::Unix);
            cx.core().adopt(ours, "test", echo(5)).unwrap();
            keep.borrow_mut().push(peer);
            cx.close(Reason::AuthFailed);
        };
        let (_, mut client) = rig.adopt(Kind::Unix, acts_when(call, heard.clone(), act));
        rig.turn();
        provoke(&mut rig, &mut client, call);
        rig.until("the handler has acted", |_| !peers.borrow().is_empty());
        assert_eq!(rig.receive_end(&mut other_client).1, End::Reset, "{call}");
        let mut opened = (5, peers.borrow_mut().pop().unwrap());
        asks(&mut rig, std::slice::from_mut(&mut opened));
        drop(opened);
        rig.until_empty();
        assert_eq!(heard.count("over"), 1, "{call}");
    }
}

/// A callback of the dest disconnects that dest, and another dest takes its place.
#[test]
fn a_handler_may_disconnect_its_dest_in_each_callback_of_the_dest() {
    for call in ["connected", "readable", "ended"] {
        let mut rig = Rig::new(config());
        let ((first, first_addr), (second, second_addr)) = (target(), target());
        let mut dials = 0;
        let (_, mut client) = rig.adopt(
            Kind::Unix,
            handler(move |cx, now| {
                let (first_time, dest) = (dials == 1, cx.role() == Role::Dest);
                let next = |cx: &mut seaprox::Cx<'_>| {
                    cx.disconnect().unwrap();
                    dial(cx, second_addr);
                };
                match now {
                    Call::Opened => dial(cx, first_addr),
                    Call::Connected(Ok(())) => {
                        dials += 1;
                        match (dials, call) {
                            (1, "connected") => next(cx),
                            (1, _) => cx.resume_reading(Role::Dest),
                            _ => cx.relay(),
                        }
                    }
                    Call::Readable(input) if dest && first_time => {
                        if call == "readable" {
                            next(cx);
                        }
                        return input.len();
                    }
                    Call::Ended(Cause::Fin) if dest && first_time => next(cx),
                    now => drop(by_default(cx, &now)),
                }
                0
            }),
        );
        client.try_send(b"question");
        let mut old = rig.accept(&first);
        match call {
            "readable" => drop(old.try_send(b"x")),
            "ended" => old.fin(),
            _ => {}
        }
        let mut new = rig.accept(&second);
        assert_eq!(rig.receive(&mut new, 8), b"question", "{call}: the input waits for the next dest");
        new.try_send(b"answer");
        assert_eq!(rig.receive(&mut client, 6), b"answer");
    }
}
