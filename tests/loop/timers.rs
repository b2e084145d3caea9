//! Timers: each class fires, none fires too early, a touch puts it off, and zero switches it off.

use crate::loop_kit;

use std::time::{Duration, Instant};

use loop_kit::*;
use seaprox::{Config, Id, Reason, Stage, Timeouts, TimerClass};

/// All timers off but those that a test sets.
fn with(set: impl Fn(&mut Timeouts)) -> Config {
    let mut config = config();
    let off = Duration::ZERO;
    let timeouts = &mut config.timeouts;
    (timeouts.handshake, timeouts.connect, timeouts.keep_alive) = (off, off, off);
    (timeouts.idle, timeouts.half_closed, timeouts.linger) = (off, off, off);
    // It is switched on by a timer of its own.
    config.tcp_keepalive = off;
    set(&mut config.timeouts);
    config
}

const SHORT: Duration = Duration::from_millis(80);

fn outlive(rig: &mut Rig, id: Id) {
    rig.until("it is over", |proxy| proxy.core().stage(id).is_none());
}

/// It is in a class of timer and stays so; nothing ends it.
fn lives_on(rig: &mut Rig, id: Id) {
    let since = Instant::now();
    while since.elapsed() < 2 * SHORT {
        rig.turn();
    }
    assert!(rig.core().stage(id).is_some());
}

/// The clock of the loop counts whole milliseconds.
const EARLY: Duration = Duration::from_millis(3);

#[test]
fn handshake_and_keep_alive() {
    for (stage, class) in [(Stage::Handshake, TimerClass::Handshake), (Stage::KeepAlive, TimerClass::KeepAlive)] {
        for on in [true, false] {
            let limit = if on { SHORT } else { Duration::ZERO };
            let mut rig = Rig::new(with(|timeouts| (timeouts.handshake, timeouts.keep_alive) = (limit, limit)));
            rig.turn();
            let since = Instant::now();
            let (id, mut client) = rig.adopt(
                Kind::Unix,
                handler(move |cx, call| {
                    match call {
                        Call::Opened => cx.set_stage(stage),
                        Call::Readable(input) => return input.len(),
                        call => drop(by_default(cx, &call)),
                    }
                    0
                }),
            );
            rig.turn();
            assert_eq!(rig.core().waits_for(id), on.then_some(class));
            if !on {
                lives_on(&mut rig, id);
                continue;
            }
            // Bytes that make no request do not put it off.
            while rig.core().stage(id).is_some() {
                client.try_send(b"x");
                rig.turn();
                assert!(since.elapsed() < PATIENCE);
            }
            assert!(since.elapsed() + EARLY >= SHORT, "after {:?}", since.elapsed());
            assert_eq!(rig.closed(Reason::HandshakeTimeout), 1);
        }
    }
}

/// A handler may give its client more time.
#[test]
fn a_handler_may_put_its_deadline_off() {
    let (mut rig, heard) = (Rig::new(with(|timeouts| timeouts.handshake = SHORT)), Heard::default());
    let (notes, since) = (heard.clone(), Instant::now());
    let (id, _client) = rig.adopt(
        Kind::Unix,
        handler(move |cx, call| {
            notes.note(cx.role(), &call);
            match call {
                Call::Timeout if notes.count("source timeout") < 3 => cx.set_stage(Stage::Handshake),
                call => drop(by_default(cx, &call)),
            }
            0
        }),
    );
    outlive(&mut rig, id);
    assert!(since.elapsed() + EARLY >= 3 * SHORT);
    assert_eq!(heard.count("source timeout"), 3);
}

fn relayed(config: Config) -> (Rig, Id, Peer, Peer) {
    let mut rig = Rig::new(config);
    let (listener, addr) = target();
    let (id, client) = rig.adopt(Kind::Tcp4, relay_to(addr));
    let server = rig.accept(&listener);
    rig.until("it relays", |proxy| proxy.core().stage(id) == Some(Stage::Established));
    (rig, id, client, server)
}

#[test]
fn idle_is_put_off_by_bytes_in_either_direction() {
    for from_source in [true, false] {
        let (mut rig, id, mut client, mut server) = relayed(with(|timeouts| timeouts.idle = SHORT));
        assert_eq!(rig.core().waits_for(id), Some(TimerClass::Idle));
        let (since, mut last) = (Instant::now(), Instant::now());
        while since.elapsed() < 4 * SHORT {
            last = Instant::now();
            let (writer, reader) = if from_source { (&mut client, &mut server) } else { (&mut server, &mut client) };
            writer.try_send(b"x");
            rig.turn();
            // A reader that stops would hold the bytes up.
            reader.try_receive(&mut Vec::new(), 1 << 16);
            assert!(rig.core().stage(id).is_some(), "after {:?}", since.elapsed());
        }
        outlive(&mut rig, id);
        let quiet = last.elapsed();
        // A touch within a small part of the duration is not worth the move.
        assert!(quiet + EARLY + SHORT / 32 >= SHORT, "after {quiet:?}");
        assert_eq!(rig.closed(Reason::IdleTimeout), 1);
    }
}

#[test]
fn idle_is_off_unless_it_is_set() {
    let (mut rig, id, _client, _server) = relayed(with(|_| {}));
    assert_eq!(rig.core().waits_for(id), None);
    lives_on(&mut rig, id);
}

#[test]
fn half_closed_starts_when_one_direction_is_closed() {
    for source_closes in [true, false] {
        let (mut rig, id, mut client, mut server) = relayed(with(|timeouts| timeouts.half_closed = SHORT));
        lives_on(&mut rig, id);
        let (first, second) = if source_closes { (&mut client, &mut server) } else { (&mut server, &mut client) };
        first.fin();
        assert_eq!(rig.receive_all(second), b"");
        assert_eq!(rig.core().waits_for(id), Some(TimerClass::HalfClosed));
        let (since, mut last) = (Instant::now(), Instant::now());
        while since.elapsed() < 3 * SHORT {
            last = Instant::now();
            second.try_send(b"x");
            rig.turn();
            first.try_receive(&mut Vec::new(), 1 << 16);
            assert!(rig.core().stage(id).is_some());
        }
        outlive(&mut rig, id);
        assert!(last.elapsed() + EARLY + SHORT / 32 >= SHORT);
        assert_eq!(rig.closed(Reason::HalfClosedTimeout), 1);
    }
}

#[test]
fn connect_is_bounded_and_zero_switches_it_off() {
    for on in [true, false] {
        let limit = if on { SHORT } else { Duration::ZERO };
        let mut rig = Rig::new(with(|timeouts| timeouts.connect = limit));
        rig.core().set_connector(Box::new(Never::default()));
        let since = Instant::now();
        let (id, _client) = rig.adopt(Kind::Unix, relay_to(refusing()));
        rig.turn();
        assert_eq!(rig.core().waits_for(id), on.then_some(TimerClass::Connect));
        if on {
            outlive(&mut rig, id);
            assert!(since.elapsed() + EARLY >= SHORT);
            assert_eq!(rig.closed(Reason::TimedOut), 1);
        } else {
            lives_on(&mut rig, id);
        }
    }
}

/// A connector that keeps its dials to itself.
#[derive(Default)]
struct Never(Vec<seaprox::Answer>);

impl seaprox::Connector for Never {
    fn wants(&self, _: &seaprox::Target) -> bool {
        true
    }
    fn connect(&mut self, _: &seaprox::Target, answer: seaprox::Answer) {
        self.0.push(answer);
    }
}

#[test]
fn linger_zero_waits_for_the_client() {
    let mut rig = Rig::new(with(|_| {}));
    let (id, mut client) = rig.adopt(Kind::Unix, handler(|_, _| 0));
    rig.turn();
    rig.core().finish(id, Reason::AuthFailed);
    lives_on(&mut rig, id);
    client.fin();
    outlive(&mut rig, id);
}

/// The stage decides the timer, whatever order the stages come in.
#[test]
fn each_stage_has_its_timer() {
    let all = with(|timeouts| {
        let far = Duration::from_secs(1000);
        (timeouts.handshake, timeouts.connect, timeouts.keep_alive) = (far, far, far);
        (timeouts.idle, timeouts.half_closed, timeouts.linger) = (far, far, far);
    });
    let (mut rig, id, _client, _server) = relayed(all);
    for (stage, class) in [
        (Stage::KeepAlive, TimerClass::KeepAlive),
        (Stage::Connecting, TimerClass::Connect),
        (Stage::Handshake, TimerClass::Handshake),
        (Stage::Established, TimerClass::Idle),
        (Stage::Closing, TimerClass::Linger),
    ] {
        rig.core().set_stage(id, stage);
        assert_eq!(rig.core().waits_for(id), Some(class));
    }
}

/// A thousand timers at once, more than one turn fires.
#[test]
fn many_timers_that_are_due_together_all_fire() {
    let mut config = with(|timeouts| timeouts.handshake = SHORT);
    (config.limits.connections, config.limits.timers_per_turn) = (300, 7);
    let mut rig = Rig::new(config);
    let clients: Vec<_> =
        (0..300).map(|_| rig.adopt(Kind::Unix, handler(|cx, call| by_default(cx, &call))).1).collect();
    rig.until_empty();
    assert_eq!((rig.closed(Reason::HandshakeTimeout), clients.len()), (300, 300));
}

/// The deadline wakes a loop that sleeps: nobody turns it in the meantime.
#[test]
fn a_deadline_wakes_a_sleeping_loop() {
    let mut rig = Rig::new(with(|timeouts| timeouts.handshake = SHORT));
    let (id, _client) = rig.adopt(Kind::Unix, handler(|cx, call| by_default(cx, &call)));
    let since = Instant::now();
    for _ in 0..20 {
        rig.proxy.turn(Some(PATIENCE)).unwrap();
        if rig.core().stage(id).is_none() {
            break;
        }
    }
    assert!(rig.core().stage(id).is_none() && since.elapsed() < PATIENCE / 2);
}

/// The longest durations are those of people who want no end; they are not short because a sum wraps around.
#[test]
fn a_timer_of_all_the_time_in_the_world_does_not_fire() {
    for forever in [Duration::MAX, Duration::from_millis(u64::MAX), Duration::from_millis(u64::MAX - 2)] {
        let mut rig = Rig::new(with(|timeouts| (timeouts.handshake, timeouts.linger) = (forever, forever)));
        rig.turns(5);
        let (id, _client) = rig.adopt(Kind::Unix, handler(|cx, call| by_default(cx, &call)));
        rig.turns(5);
        assert_eq!(rig.core().stage(id), Some(Stage::Handshake));
        rig.core().finish(id, Reason::AuthFailed);
        rig.turns(5);
        assert_eq!(rig.core().stage(id), Some(Stage::Closing));
    }
}
