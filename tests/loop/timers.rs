//! Timers: each class fires, none fires too early, activity restarts it, and zero switches it off.

use crate::loop_kit;

use std::time::{Duration, Instant};

use loop_kit::*;
use seaprox::{Config, Cx, Failure, Handler, Id, Reason, Stage, Timeouts, TimerClass, VerbError};

/// Returns a configuration with all timers off but those that `set` sets.
fn with(set: impl Fn(&mut Timeouts)) -> Config {
    let mut config = config();
    let off = Duration::ZERO;
    let timeouts = &mut config.timeouts;
    (timeouts.handshake, timeouts.connect, timeouts.keep_alive) = (off, off, off);
    (timeouts.idle, timeouts.half_closed, timeouts.linger) = (off, off, off);
    // The loop enables TCP keepalive with a timer.
    config.tcp_keepalive = off;
    set(&mut config.timeouts);
    config
}

const SHORT: Duration = Duration::from_millis(80);
/// The length of a timer that a test restarts, and does not reach on a busy machine.
const RESTARTED: Duration = Duration::from_secs(1);

fn outlive(rig: &mut Rig, id: Id) {
    rig.until("the connection has ended", |proxy| stage_of(&mut proxy.core(), id).is_none());
}

/// Checks that a connection still exists after twice a timeout.
fn lives_on(rig: &mut Rig, id: Id, timeout: Duration) {
    let since = Instant::now();
    while since.elapsed() < 2 * timeout {
        rig.turn();
    }
    assert!(stage_of(&mut rig.core(), id).is_some());
}

/// The most by which a timer may be early: the loop's clock counts whole milliseconds.
const EARLY: Duration = Duration::from_millis(3);

#[test]
fn the_handshake_and_keep_alive_timeouts_fire_despite_incomplete_requests() {
    for (stage, class) in [(Stage::Handshake, TimerClass::Handshake), (Stage::KeepAlive, TimerClass::HttpKeepAlive)] {
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
            assert_eq!(rig.core().connection(id).unwrap().timer(), on.then_some(class));
            if !on {
                lives_on(&mut rig, id, SHORT);
                continue;
            }
            // Bytes of an incomplete request do not restart the timer.
            while stage_of(&mut rig.core(), id).is_some() {
                client.try_send(b"x");
                rig.turn();
                assert!(since.elapsed() < PATIENCE);
            }
            assert!(since.elapsed() + EARLY >= SHORT, "after {:?}", since.elapsed());
            assert_eq!(rig.closed(Reason::HandshakeTimeout), 1);
        }
    }
}

/// A handler extends the deadline twice. At the third timeout the connection ends.
#[test]
fn a_handler_may_extend_its_deadline() {
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
    rig.until("the connection relays", |proxy| stage_of(&mut proxy.core(), id) == Some(Stage::Established));
    (rig, id, client, server)
}

#[test]
fn bytes_in_either_direction_restart_the_idle_timeout() {
    for from_source in [true, false] {
        let (mut rig, id, mut client, mut server) = relayed(with(|timeouts| timeouts.idle = RESTARTED));
        assert_eq!(rig.core().connection(id).unwrap().timer(), Some(TimerClass::Idle));
        let (since, mut last) = (Instant::now(), Instant::now());
        while since.elapsed() < RESTARTED * 3 / 2 {
            last = Instant::now();
            let (writer, reader) = if from_source { (&mut client, &mut server) } else { (&mut server, &mut client) };
            writer.try_send(b"x");
            rig.turn();
            // The reader reads on, so that the bytes are not blocked.
            reader.try_receive(&mut Vec::new(), 1 << 16);
            assert!(stage_of(&mut rig.core(), id).is_some(), "after {:?}", since.elapsed());
        }
        outlive(&mut rig, id);
        let quiet = last.elapsed();
        // Activity moves the timer only if that changes it by more than 1/32 of the duration.
        assert!(quiet + EARLY + RESTARTED / 32 >= RESTARTED, "after {quiet:?}");
        assert_eq!(rig.closed(Reason::IdleTimeout), 1);
    }
}

#[test]
fn the_idle_timeout_is_off_unless_it_is_set() {
    let (mut rig, id, _client, _server) = relayed(with(|_| {}));
    assert_eq!(rig.core().connection(id).unwrap().timer(), None);
    lives_on(&mut rig, id, SHORT);
}

#[test]
fn the_half_closed_timeout_starts_when_one_direction_is_closed() {
    for source_closes in [true, false] {
        let (mut rig, id, mut client, mut server) = relayed(with(|timeouts| timeouts.half_closed = RESTARTED));
        lives_on(&mut rig, id, RESTARTED);
        let (first, second) = if source_closes { (&mut client, &mut server) } else { (&mut server, &mut client) };
        first.fin();
        assert_eq!(rig.receive_all(second), b"");
        assert_eq!(rig.core().connection(id).unwrap().timer(), Some(TimerClass::HalfClosed));
        let (since, mut last) = (Instant::now(), Instant::now());
        while since.elapsed() < RESTARTED * 3 / 2 {
            last = Instant::now();
            second.try_send(b"x");
            rig.turn();
            first.try_receive(&mut Vec::new(), 1 << 16);
            assert!(stage_of(&mut rig.core(), id).is_some());
        }
        outlive(&mut rig, id);
        assert!(last.elapsed() + EARLY + RESTARTED / 32 >= RESTARTED);
        assert_eq!(rig.closed(Reason::HalfClosedTimeout), 1);
    }
}

#[test]
fn the_connect_timeout_ends_a_dial_and_zero_switches_it_off() {
    for on in [true, false] {
        let limit = if on { SHORT } else { Duration::ZERO };
        let mut rig = Rig::new(with(|timeouts| timeouts.connect = limit));
        rig.core().set_connector(Box::new(Never::default()));
        let since = Instant::now();
        let (id, _client) = rig.adopt(Kind::Unix, relay_to(refusing()));
        rig.turn();
        assert_eq!(rig.core().connection(id).unwrap().timer(), on.then_some(TimerClass::Connect));
        if on {
            outlive(&mut rig, id);
            assert!(since.elapsed() + EARLY >= SHORT);
            assert_eq!(rig.closed(Reason::TimedOut), 1);
        } else {
            lives_on(&mut rig, id, SHORT);
        }
    }
}

#[test]
fn a_zero_linger_timeout_waits_for_the_client() {
    let mut rig = Rig::new(with(|_| {}));
    let (id, mut client) = rig.adopt(Kind::Unix, handler(|_, _| 0));
    rig.turn();
    rig.core().connection(id).unwrap().close_after_flush(Reason::AuthFailed);
    lives_on(&mut rig, id, SHORT);
    client.fin();
    outlive(&mut rig, id);
}

/// The timer depends on the stage only, in any order of the stages.
#[test]
fn each_stage_has_its_timer() {
    let all = with(|timeouts| {
        let far = Duration::from_secs(1000);
        (timeouts.handshake, timeouts.connect, timeouts.keep_alive) = (far, far, far);
        (timeouts.idle, timeouts.half_closed, timeouts.linger) = (far, far, far);
    });
    let (mut rig, id, _client, _server) = relayed(all);
    for (stage, class) in [
        (Stage::KeepAlive, TimerClass::HttpKeepAlive),
        (Stage::Connecting, TimerClass::Connect),
        (Stage::Handshake, TimerClass::Handshake),
        (Stage::Established, TimerClass::Idle),
        (Stage::Closing, TimerClass::Linger),
    ] {
        rig.core().connection(id).unwrap().set_stage(stage);
        assert_eq!(rig.core().connection(id).unwrap().timer(), Some(class));
    }
}

/// There are more due timers than one turn fires.
#[test]
fn three_hundred_timers_due_together_all_fire() {
    let mut config = with(|timeouts| timeouts.handshake = SHORT);
    (config.limits.connections, config.limits.timers_per_turn) = (300, 7);
    let mut rig = Rig::new(config);
    let clients: Vec<_> =
        (0..300).map(|_| rig.adopt(Kind::Unix, handler(|cx, call| by_default(cx, &call))).1).collect();
    rig.until_empty();
    assert_eq!((rig.closed(Reason::HandshakeTimeout), clients.len()), (300, 300));
}

/// A loop that sleeps for up to 20 s is woken by the deadline.
#[test]
fn a_deadline_wakes_a_sleeping_loop() {
    let mut rig = Rig::new(with(|timeouts| timeouts.handshake = SHORT));
    let (id, _client) = rig.adopt(Kind::Unix, handler(|cx, call| by_default(cx, &call)));
    let since = Instant::now();
    for _ in 0..20 {
        rig.proxy.turn(Some(PATIENCE)).unwrap();
        if stage_of(&mut rig.core(), id).is_none() {
            break;
        }
    }
    assert!(stage_of(&mut rig.core(), id).is_none() && since.elapsed() < PATIENCE / 2);
}

/// The longest durations mean "no limit". They must not become short because a sum wraps around.
#[test]
fn a_timer_with_the_longest_duration_does_not_fire() {
    for forever in [Duration::MAX, Duration::from_millis(u64::MAX), Duration::from_millis(u64::MAX - 2)] {
        let mut rig = Rig::new(with(|timeouts| (timeouts.handshake, timeouts.linger) = (forever, forever)));
        rig.turns(5);
        let (id, _client) = rig.adopt(Kind::Unix, handler(|cx, call| by_default(cx, &call)));
        rig.turns(5);
        assert_eq!(stage_of(&mut rig.core(), id), Some(Stage::Handshake));
        rig.core().connection(id).unwrap().close_after_flush(Reason::AuthFailed);
        rig.turns(5);
        assert_eq!(stage_of(&mut rig.core(), id), Some(Stage::Closing));
    }
}

/// Asks for a wake-up after each time in turn, and counts how often it was woken.
struct Sleeps(Vec<Duration>, std::rc::Rc<std::cell::Cell<usize>>);

impl Handler for Sleeps {
    fn opened(&mut self, cx: &mut Cx<'_>) {
        cx.wake_after(self.0.remove(0)).unwrap();
        assert_eq!(cx.wake_after(Duration::ZERO), Err(VerbError::Already), "one wake-up is pending");
    }

    fn readable(&mut self, _: &mut Cx<'_>, input: &[u8]) -> usize {
        input.len()
    }

    fn connected(&mut self, _: &mut Cx<'_>, _: Result<(), &Failure>) {}

    fn woken(&mut self, cx: &mut Cx<'_>) {
        self.1.set(self.1.get() + 1);
        if !self.0.is_empty() {
            cx.wake_after(self.0.remove(0)).unwrap();
        }
    }
}

#[test]
fn a_connection_has_one_pending_wake_up_and_gets_another_when_it_was_woken() {
    let mut config = with(|_| {});
    config.limits.connections = 4;
    let (mut rig, count) = (Rig::new(config), std::rc::Rc::new(std::cell::Cell::new(0)));
    let sleeps = |times: &[Duration]| Box::new(Sleeps(times.to_vec(), std::rc::Rc::clone(&count)));
    let (_first, _peer) = rig.adopt(Kind::Unix, sleeps(&[SHORT, Duration::from_millis(1)]));
    // Wake-ups of connections that end first, of which the loop drops those beyond its bound.
    for _ in 0..40 {
        let (id, _peer) = rig.adopt(Kind::Unix, sleeps(&[Duration::from_secs(3600)]));
        rig.turn();
        rig.core().connection(id).unwrap().close(Reason::Other);
        outlive(&mut rig, id);
    }
    rig.until("both wake-ups have come", |_| count.get() == 2);
}
