//! Handlers that are replaced, dropped, or panic, while the loop and the other connections go on.

use crate::loop_kit;

use std::rc::Rc;

use loop_kit::*;
use seaprox::{Cause, Cx, Handler, Reason, Role, VerbError};

/// Returns a handler that logs its name with each call and consumes one byte at a time.
fn named(name: &'static str, heard: Heard, act: impl Fn(&mut Cx<'_>, &Call<'_>) + 'static) -> Box<dyn Handler> {
    handler(move |cx, call| {
        let input = if let Call::Readable(input) = call { input.len() } else { 0 };
        heard.say(format!("{name} {call:?}"));
        act(cx, &call);
        input.min(1)
    })
}

#[test]
fn a_replacement_handler_takes_over_when_the_current_call_returns() {
    let (mut rig, heard) = (Rig::new(config()), Heard::default());
    let notes = heard.clone();
    let first = named("first", heard.clone(), move |cx, call| {
        if let Call::Readable(_) = call {
            cx.set_handler(Role::Source, named("second", notes.clone(), |_, _| {})).unwrap();
        }
    });
    let (_, mut client) = rig.adopt(Kind::Unix, first);
    client.try_send(b"ab");
    rig.until("the second handler gets the rest", |_| heard.has("second Readable([98])"));
    client.fin();
    rig.until("the second handler gets the end", |_| heard.has("second Ended(Fin)"));
    drop(client);
    // Neither handler ends the connection by itself.
    let id = rig.snapshot().connections[0].id;
    rig.core().connection(id).unwrap().close(Reason::Killed);
    rig.until_empty();
    assert_eq!(
        heard.all(),
        [
            "first Opened",
            "first Readable([97, 98])",
            "second Readable([98])",
            "second Ended(Fin)",
            "second Ended(Over(Killed))"
        ]
    );
}

#[test]
fn replacing_a_handler_in_opened_calls_opened_only_once() {
    let (mut rig, heard) = (Rig::new(config()), Heard::default());
    let notes = heard.clone();
    let first = named("first", heard.clone(), move |cx, call| {
        if let Call::Opened = call {
            cx.set_handler(Role::Source, named("second", notes.clone(), |_, _| {})).unwrap();
        }
    });
    let (_, mut client) = rig.adopt(Kind::Unix, first);
    client.try_send(b"a");
    rig.until("the second handler gets the byte", |_| heard.has("second Readable([97])"));
    assert_eq!(heard.all(), ["first Opened", "second Readable([97])"]);
}

#[test]
fn a_dest_may_have_a_handler_of_its_own() {
    let (mut rig, heard) = (Rig::new(config()), Heard::default());
    let (listener, addr) = target();
    let notes = heard.clone();
    let source = named("source", heard.clone(), move |cx, call| match call {
        Call::Opened => dial(cx, addr),
        Call::Connected(_) => {
            cx.set_handler(Role::Dest, named("dest", notes.clone(), |_, _| {})).unwrap();
            cx.resume_reading(Role::Dest);
            cx.resume_reading(Role::Source);
        }
        Call::Ended(Cause::Fin) => cx.close(Reason::SourceFin),
        _ => {}
    });
    let (_, mut client) = rig.adopt(Kind::Unix, source);
    let mut server = rig.accept(&listener);
    server.try_send(b"x");
    rig.until("the dest's handler gets the byte", |_| heard.has("dest Readable([120])"));
    client.try_send(b"y");
    rig.until("the source's handler gets its byte", |_| heard.has("source Readable([121])"));
    server.fin();
    rig.until("the dest's handler gets the end", |_| heard.has("dest Ended(Fin)"));
    client.fin();
    rig.until_empty();
    assert_eq!(
        heard.count("source Ended(Over(SourceFin))"),
        1,
        "only the source's handler learns of the connection's end"
    );
    assert!(!heard.all().iter().any(|line| line.starts_with("dest Ended(Over")));
}

/// BS-11: one handler that panics and one client that resets do not affect 99 other transfers.
#[test]
fn a_panic_or_a_reset_ends_one_connection_of_a_hundred() {
    for config in modes() {
        let mut config = config;
        config.limits.connections = 101;
        let mut rig = Rig::new(config);
        let (listener, addr) = target();
        let data = pattern(300_000);
        let mut flows: Vec<(Peer, Peer, usize, Vec<u8>)> = Vec::new();
        for _ in 0..99 {
            let (_, client) = rig.adopt(Kind::Tcp4, relay_to(addr));
            flows.push((client, rig.accept(&listener), 0, Vec::new()));
        }
        let (_, resetting) = rig.adopt(Kind::Tcp4, relay_to(addr));
        let mut cut = rig.accept(&listener);
        let (_, mut panicking) = rig.adopt(
            Kind::Tcp4,
            handler(|_, call| match call {
                Call::Readable(_) => panic!("(this message belongs to the test)"),
                _ => 0,
            }),
        );
        let (mut resetting, mut round) = (Some(resetting), 0);
        rig.until("the others have everything", |_| {
            round += 1;
            if round == 3 {
                panicking.try_send(b"x");
                resetting.take().unwrap().reset();
            }
            for (client, server, sent, got) in &mut flows {
                *sent +=
                    if *sent < data.len() { client.try_send(&data[*sent..(*sent + 8192).min(data.len())]) } else { 0 };
                server.try_receive(got, data.len());
            }
            flows.iter().all(|flow| flow.3.len() == data.len()) && round > 3
        });
        assert!(flows.iter().all(|flow| flow.3 == data));
        assert_eq!(rig.receive_end(&mut panicking).1, End::Reset);
        assert_eq!(rig.receive_end(&mut cut).1, End::Reset);
        rig.until("both connections are gone", |proxy| proxy.core().snapshot().usage.connections == 99);
        assert_eq!((rig.closed(Reason::Internal), rig.closed(Reason::SourceReset), rig.stats().panics), (1, 1, 1));
    }
}

#[test]
fn a_panic_in_any_callback_ends_only_that_connection() {
    for name in ["Opened", "Readable", "Connected", "Timeout", "Ended(Fin", "Ended(Over"] {
        let mut config = config();
        config.timeouts.handshake = std::time::Duration::from_millis(500);
        let mut rig = Rig::new(config);
        let (_, mut other) = rig.adopt(
            Kind::Unix,
            handler(|cx, call| match call {
                Call::Readable(input) => {
                    _ = cx.reply(input);
                    input.len()
                }
                _ => 0,
            }),
        );
        let (_, mut client) = rig.adopt(
            Kind::Unix,
            handler(move |cx, call| {
                assert!(!format!("{call:?}").starts_with(name), "(this message belongs to the test)");
                if matches!(call, Call::Opened) && name == "Connected" {
                    dial(cx, refusing());
                }
                by_default(cx, &call)
            }),
        );
        match name {
            "Readable" => drop(client.try_send(b"x")),
            "Ended(Fin" => client.fin(),
            _ => {}
        }
        rig.until("the connection is gone", |proxy| proxy.core().snapshot().usage.connections == 1);
        assert_eq!(rig.stats().panics, 1, "{name}");
        other.try_send(b"still");
        assert_eq!(rig.receive(&mut other, 5), b"still", "{name}");
    }
}

#[test]
fn a_panic_in_a_call_from_another_thread_is_counted() {
    let mut rig = Rig::new(config());
    rig.proxy.remote().call(|_| panic!("(this message belongs to the test)")).unwrap();
    rig.until("the panic is counted", |proxy| proxy.core().snapshot().stats.panics == 1);
}

/// The values that a handler holds are dropped with its side, not later when another side takes the slot.
#[test]
fn a_handler_is_dropped_with_its_side() {
    for fails in [false, true] {
        let mut rig = Rig::new(config());
        let (held_by_source, held_by_dest) = (Rc::new(()), Rc::new(()));
        let (listener, addr) = target();
        let to = if fails { refusing() } else { addr };
        let (source_keeps, dest_keeps) = (Rc::clone(&held_by_source), Rc::clone(&held_by_dest));
        let (_, mut client) = rig.adopt(
            Kind::Unix,
            handler(move |cx, call| {
                let _ = &source_keeps;
                match call {
                    Call::Opened => {
                        dial(cx, to);
                        let keeps = Rc::clone(&dest_keeps);
                        let dest = handler(move |_, _| usize::from(Rc::strong_count(&keeps) == 0));
                        cx.set_handler(Role::Dest, dest).unwrap();
                    }
                    Call::Readable(input) => {
                        cx.disconnect().unwrap();
                        return input.len();
                    }
                    Call::Ended(Cause::Fin) => cx.close(Reason::SourceFin),
                    _ => {}
                }
                0
            }),
        );
        let id = rig.snapshot().connections[0].id;
        if fails {
            rig.until("the dial fails", |proxy| proxy.core().connection(id).unwrap().side_of(Role::Dest).is_none());
        } else {
            let _server = rig.accept(&listener);
            rig.turns(2);
            rig.core().connection(id).unwrap().resume_reading(Role::Source);
            client.try_send(b"x");
            rig.until("the dest is let go", |proxy| proxy.core().connection(id).unwrap().side_of(Role::Dest).is_none());
        }
        rig.turns(2);
        // The source's closure keeps a clone for later dests.
        assert_eq!((Rc::strong_count(&held_by_dest), Rc::strong_count(&held_by_source)), (2, 2), "fails: {fails}");
        drop(client);
        rig.core().connection(id).unwrap().close(Reason::Killed);
        rig.until_empty();
        assert_eq!((Rc::strong_count(&held_by_dest), Rc::strong_count(&held_by_source)), (1, 1));
    }
}

#[test]
fn a_handler_that_finishes_sends_a_fin_after_its_bytes_and_goes_on_reading() {
    for kind in KINDS {
        let (mut rig, heard) = (Rig::new(config()), Heard::default());
        let says = heard.clone();
        let handler = handler(move |cx, call| {
            says.say(format!("{call:?}"));
            match call {
                Call::Opened => {
                    assert_eq!((cx.reply(b"hello"), cx.finish()), (Ok(()), Ok(())));
                    assert_eq!(cx.reply(b"nothing follows a FIN"), Err(VerbError::Already));
                    assert_eq!(cx.finish(), Err(VerbError::Already));
                    0
                }
                Call::Readable(input) => input.len(),
                Call::Ended(Cause::Fin) => {
                    cx.close(Reason::SourceFin);
                    0
                }
                _ => 0,
            }
        });
        let (_, mut client) = rig.adopt(kind, handler);
        assert_eq!(rig.receive_end(&mut client), (b"hello".to_vec(), End::Fin));
        rig.send(&mut client, b"still read");
        rig.until("the handler reads on", |_| heard.all().iter().any(|call| call.starts_with("Readable")));
        client.fin();
        rig.until_empty();
        assert!(heard.has("Ended(Fin)") && heard.has("Ended(Over(SourceFin))"), "{:?}", heard.all());
    }
}
