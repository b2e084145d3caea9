//! Hooks: bytes that are seen and changed on their way, in both directions, with FIN, reset, bounds and panics.

use crate::loop_kit;

use std::cell::{Cell, RefCell};
use std::net::TcpListener;
use std::rc::Rc;
use std::time::{Duration, Instant};

use loop_kit::*;
use seaprox::{Cause, Hook, Id, Reason, Role, Stage, Target, Transit, VerbError};

/// A hook made of a closure for data; `fin` passes what is left.
struct Data<F>(F);

impl<F: FnMut(Role, &mut Transit<'_>) -> Result<(), Reason>> Hook for Data<F> {
    fn data(&mut self, from: Role, transit: &mut Transit<'_>) -> Result<(), Reason> {
        (self.0)(from, transit)
    }
}

fn data(what: impl FnMut(Role, &mut Transit<'_>) -> Result<(), Reason> + 'static) -> Box<dyn Hook> {
    Box::new(Data(what))
}

fn rot13(byte: u8) -> u8 {
    match byte {
        b'a'..=b'z' => (byte - b'a' + 13) % 26 + b'a',
        b'A'..=b'Z' => (byte - b'A' + 13) % 26 + b'A',
        byte => byte,
    }
}

fn rot13_both_ways() -> Box<dyn Hook> {
    data(|_, transit| {
        transit.pass_each(rot13);
        Ok(())
    })
}

/// Returns a handler that relays its client to a target through a hook.
fn through(hook: Box<dyn Hook>, target: impl Into<Target>) -> Box<dyn seaprox::Handler> {
    let (target, mut hook) = (Rc::new(target.into()), Some(hook));
    handler(move |cx, call| {
        if matches!(call, Call::Opened) {
            cx.set_hook(hook.take().unwrap()).unwrap();
            cx.connect(Rc::clone(&target), None).unwrap();
        }
        by_default(cx, &call)
    })
}

/// Returns a relayed connection with a hook: its id, the client and the server.
fn hooked(rig: &mut Rig, kind: Kind, hook: Box<dyn Hook>) -> (Id, Peer, Peer) {
    let (listener, addr) = target();
    relayed(rig, kind, through(hook, addr), &listener)
}

fn relayed(rig: &mut Rig, kind: Kind, handler: Box<dyn seaprox::Handler>, listener: &TcpListener) -> (Id, Peer, Peer) {
    let (id, client) = rig.adopt(kind, handler);
    let server = rig.accept(listener);
    rig.until("the connection relays", |proxy| {
        let snapshot = proxy.core().snapshot();
        snapshot.connections.iter().any(|connection| connection.id == id && connection.stage == Stage::Established)
    });
    (id, client, server)
}

/// Moves all of `sent` from one peer to the other, who reads until it has `count` bytes.
fn transfer(rig: &mut Rig, from: &mut Peer, to: &mut Peer, sent: &[u8], count: usize) -> Vec<u8> {
    let (mut put, mut got) = (0, Vec::with_capacity(count));
    rig.until("all bytes arrive", |_| {
        put += if put < sent.len() { from.try_send(&sent[put..]) } else { 0 };
        to.try_receive(&mut got, count);
        got.len() == count && put == sent.len()
    });
    got
}

/// Logs all four kinds of calls, and adds a trailer to each direction.
struct Logged(Heard);

impl Hook for Logged {
    fn connected(&mut self) {
        self.0.say("connected");
    }
    fn data(&mut self, from: Role, transit: &mut Transit<'_>) -> Result<(), Reason> {
        self.0.say(format!("{from} {}", String::from_utf8_lossy(transit.input())));
        transit.pass(usize::MAX);
        Ok(())
    }
    fn fin(&mut self, from: Role, transit: &mut Transit<'_>) -> Result<(), Reason> {
        self.0.say(format!("{from} fin {}", transit.input().len()));
        transit.write(b"!");
        Ok(())
    }
    fn ended(&mut self, reason: Reason) {
        self.0.say(format!("ended {reason}"));
    }
}

#[test]
fn a_hook_hears_of_the_connection_its_bytes_in_both_directions_and_its_end_in_order() {
    for kind in KINDS {
        let (mut rig, heard) = (Rig::new(config()), Heard::default());
        let (_, mut client, mut server) = hooked(&mut rig, kind, Box::new(Logged(heard.clone())));
        assert_eq!(heard.all(), ["connected"]);
        client.try_send(b"ping");
        assert_eq!(rig.receive(&mut server, 4), b"ping");
        server.try_send(b"pong");
        assert_eq!(rig.receive(&mut client, 4), b"pong");
        client.fin();
        assert_eq!(rig.receive_all(&mut server), b"!", "the trailer comes before the FIN");
        server.try_send(b"bye");
        server.fin();
        assert_eq!(rig.receive_all(&mut client), b"bye!", "the other direction has gone on");
        rig.until_empty();
        let calls =
            ["connected", "source ping", "dest pong", "source fin 0", "dest bye", "dest fin 0", "ended source_fin"];
        assert_eq!(heard.all(), calls);
    }
}

#[test]
fn bytes_are_changed_in_both_directions() {
    for config in modes() {
        let mut rig = Rig::new(config);
        let (_, mut client, mut server) = hooked(&mut rig, Kind::Tcp4, rot13_both_ways());
        let (up, down) = (pattern(3_000_000), pattern(2_000_001));
        let changed = |bytes: &[u8]| bytes.iter().map(|byte| rot13(*byte)).collect::<Vec<u8>>();
        assert!(transfer(&mut rig, &mut client, &mut server, &up, up.len()) == changed(&up));
        assert!(transfer(&mut rig, &mut server, &mut client, &down, down.len()) == changed(&down));
    }
}

/// A hook that writes each byte `factor` times, and stops where the room ends.
fn growing(factor: usize) -> Box<dyn Hook> {
    let mut done = 0;
    data(move |_, transit| {
        while let Some(byte) = transit.input().first() {
            let wished = vec![*byte; factor - done];
            done += transit.write(&wished);
            if done < factor {
                return Ok(());
            }
            done = 0;
            transit.consume(1);
        }
        Ok(())
    })
}

#[test]
fn a_hook_may_grow_the_bytes_far_beyond_its_room() {
    let mut rig = Rig::new(config());
    for factor in [2, 3, 1000, 100_000] {
        let (_, mut client, mut server) = hooked(&mut rig, Kind::Tcp4, growing(factor));
        let sent = pattern(3_000_000 / factor);
        let wished: Vec<u8> = sent.iter().flat_map(|byte| std::iter::repeat_n(*byte, factor)).collect();
        assert!(transfer(&mut rig, &mut client, &mut server, &sent, wished.len()) == wished, "{factor}");
        drop((client, server));
        rig.until_empty();
    }
}

#[test]
fn a_hook_may_write_more_after_it_has_consumed_all_input() {
    let (mut rig, mut owed) = (Rig::new(config()), 0);
    let hook = data(move |_, transit| {
        owed += transit.input().len() * 100_000;
        transit.consume(usize::MAX);
        owed -= transit.write(&vec![b'x'; owed]);
        if owed > 0 {
            transit.call_again();
        }
        Ok(())
    });
    let (_, mut client, mut server) = hooked(&mut rig, Kind::Tcp4, hook);
    assert_eq!(transfer(&mut rig, &mut client, &mut server, b"123", 300_000), vec![b'x'; 300_000]);
    assert_eq!(rig.snapshot().usage.buffer_bytes, 0);
}

#[test]
fn a_hook_may_shrink_the_bytes_and_hold_them_back_until_more_arrive() {
    let mut rig = Rig::new(config());
    // Passes each line once it is complete, in reverse and without its vowels.
    let hook = data(|_, transit| {
        while let Some(end) = transit.input().iter().position(|byte| *byte == b'\n') {
            let line = transit.input()[..end].iter().rev().filter(|byte| !b"aeiou".contains(byte)).copied();
            let line: Vec<u8> = line.chain([b'\n']).collect();
            if transit.room() < line.len() {
                break;
            }
            transit.write(&line);
            transit.consume(end + 1);
        }
        Ok(())
    });
    let (id, mut client, mut server) = hooked(&mut rig, Kind::Tcp4, hook);
    client.try_send(b"one");
    rig.until("the input waits in the hook", |proxy| proxy.core().connection(id).unwrap().queued(Role::Dest) == 3);
    assert_eq!(rig.snapshot().usage.buffer_bytes, 0, "a few bytes hold no block");
    client.try_send(b" two\nthree\nfo");
    assert_eq!(rig.receive(&mut server, 9), b"wt n\nrht\n");
    client.fin();
    assert_eq!(rig.receive_all(&mut server), b"fo", "what is left at the end passes unchanged");
}

#[test]
fn a_hundred_megabytes_pass_a_counting_hook_unchanged() {
    const BYTES: usize = 100 << 20;
    let (mut rig, counted) = (Rig::new(config()), Rc::new(Cell::new([0, 0])));
    let counts = Rc::clone(&counted);
    let hook = data(move |from, transit| {
        let mut both = counts.get();
        both[from as usize] += transit.pass(usize::MAX);
        counts.set(both);
        Ok(())
    });
    let (id, mut client, mut server) = hooked(&mut rig, Kind::Tcp4, hook);
    let part = pattern(1 << 20);
    let mut digests =
        [ring::digest::Context::new(&ring::digest::SHA256), ring::digest::Context::new(&ring::digest::SHA256)];
    let (mut put, mut got, mut buf) = (0, 0, Vec::with_capacity(1 << 20));
    rig.until("all bytes arrive", |_| {
        let at = put % part.len();
        let sent = if put < BYTES { client.try_send(&part[at..]) } else { 0 };
        digests[0].update(&part[at..at + sent]);
        put += sent;
        buf.clear();
        server.try_receive(&mut buf, usize::MAX);
        digests[1].update(&buf);
        got += buf.len();
        got >= BYTES
    });
    assert_eq!((put, got, counted.get()), (BYTES, BYTES, [BYTES, 0]));
    let [sent, received] = digests.map(ring::digest::Context::finish);
    assert_eq!(sent.as_ref(), received.as_ref());
    let status = rig.snapshot().connections.into_iter().find(|connection| connection.id == id).unwrap();
    assert_eq!(status.source.bytes_in, BYTES as u64);
}

#[test]
#[cfg(target_os = "linux")]
fn a_connection_with_a_hook_is_not_spliced_and_one_beside_it_is() {
    if config().limits.pipes == 0 {
        return;
    }
    let mut rig = Rig::new(config());
    let (listener, addr) = target();
    let (plain, mut client, mut server) = relayed(&mut rig, Kind::Tcp4, relay_to(addr), &listener);
    let (with_hook, mut hooked_client, mut hooked_server) = hooked(&mut rig, Kind::Tcp4, rot13_both_ways());
    let sent = pattern(5_000_000);
    transfer(&mut rig, &mut client, &mut server, &sent, sent.len());
    transfer(&mut rig, &mut hooked_client, &mut hooked_server, &sent, sent.len());
    let snapshot = rig.snapshot();
    let is_spliced = |id: Id| {
        let status = snapshot.connections.iter().find(|connection| connection.id == id).unwrap();
        status.source.flags.contains(&"spliced")
    };
    assert!(is_spliced(plain) && !is_spliced(with_hook));
}

#[test]
fn a_hook_that_is_set_while_bytes_are_spliced_sees_the_bytes_after_them() {
    let mut rig = Rig::new(config());
    let (listener, addr) = target();
    let (id, mut client, mut server) = relayed(&mut rig, Kind::Tcp4, relay_to(addr), &listener);
    let (sent, mut put, mut got, mut is_set) = (pattern(8_000_000), 0, Vec::new(), false);
    let seen = Rc::new(Cell::new(0));
    rig.until("all bytes arrive", |proxy| {
        put += if put < sent.len() { client.try_send(&sent[put..]) } else { 0 };
        server.try_receive(&mut got, sent.len());
        if !is_set && got.len() > 1_000_000 {
            let seen = Rc::clone(&seen);
            let hook = data(move |_, transit| {
                seen.set(seen.get() + transit.pass_each(|byte| !byte));
                Ok(())
            });
            proxy.core().connection(id).unwrap().set_hook(hook).unwrap();
            is_set = true;
        }
        got.len() == sent.len()
    });
    let before = sent.len() - seen.get();
    assert!(before > 1_000_000 && seen.get() > 0);
    assert!(
        got[..before] == sent[..before] && got[before..].iter().zip(&sent[before..]).all(|(got, sent)| *got == !*sent)
    );
}

#[test]
fn a_hook_ends_its_connection_with_a_reason_after_its_last_bytes() {
    let (mut rig, heard) = (Rig::new(config()), Heard::default());
    struct Refuse(Heard);
    impl Hook for Refuse {
        fn data(&mut self, _: Role, transit: &mut Transit<'_>) -> Result<(), Reason> {
            transit.write(b"no");
            Err(Reason::NotPermitted)
        }
        fn ended(&mut self, reason: Reason) {
            self.0.say(reason.as_str());
        }
    }
    let (_, mut client, mut server) = hooked(&mut rig, Kind::Tcp4, Box::new(Refuse(heard.clone())));
    server.try_send(b"bad words");
    assert_eq!(rig.receive_all(&mut client), b"no");
    rig.until_empty();
    assert_eq!((rig.closed(Reason::NotPermitted), heard.all()), (1, vec!["not_permitted".to_owned()]));
}

/// Panics in one of its four calls.
struct Panics(&'static str, Heard);

impl Panics {
    fn at(&self, call: &str) {
        self.1.say(call);
        assert!(self.0 != call, "a hook panics in {call} (this message belongs to the test)");
    }
}

impl Hook for Panics {
    fn connected(&mut self) {
        self.at("connected");
    }
    fn data(&mut self, _: Role, transit: &mut Transit<'_>) -> Result<(), Reason> {
        transit.pass(usize::MAX);
        self.at("data");
        Ok(())
    }
    fn fin(&mut self, _: Role, _: &mut Transit<'_>) -> Result<(), Reason> {
        self.at("fin");
        Ok(())
    }
    fn ended(&mut self, _: Reason) {
        self.at("ended");
    }
}

#[test]
fn a_panic_in_a_hook_ends_its_own_connection_only() {
    let mut rig = Rig::new(config());
    let (listener, addr) = target();
    let (_, mut client, mut server) = relayed(&mut rig, Kind::Tcp4, relay_to(addr), &listener);
    for call in ["connected", "data", "fin"] {
        let heard = Heard::default();
        let (_, mut hooked_client) = rig.adopt(Kind::Tcp4, through(Box::new(Panics(call, heard.clone())), addr));
        let _server = rig.accept(&listener);
        if call != "connected" {
            hooked_client.try_send(b"x");
        }
        rig.until("the hook has data or is gone", |_| heard.has("data") || heard.has("ended"));
        if call == "fin" {
            hooked_client.fin();
        }
        assert_eq!(rig.receive_end(&mut hooked_client).1, End::Reset, "{call}");
        rig.until("the hook is told", |_| heard.has("ended"));
    }
    assert_eq!((rig.stats().panics, rig.closed(Reason::Internal)), (3, 3));
    let (_, mut last, _server) = hooked(&mut rig, Kind::Tcp4, Box::new(Panics("ended", Heard::default())));
    last.fin();
    drop(_server);
    rig.until("the last hook is over", |proxy| proxy.core().snapshot().usage.connections == 1);
    assert_eq!(rig.stats().panics, 4);
    rig.send(&mut client, b"still here");
    assert_eq!(rig.receive(&mut server, 10), b"still here");
}

#[test]
fn a_reset_follows_the_bytes_that_a_hook_has_passed() {
    let mut rig = Rig::new(config());
    let (_, mut client, mut server) = hooked(&mut rig, Kind::Tcp4, growing(2));
    let sent = pattern(100_000);
    rig.send(&mut client, &sent);
    let mut got = Vec::new();
    rig.until("the first bytes arrive", |_| {
        server.try_receive(&mut got, usize::MAX);
        got.len() == 200_000
    });
    client.reset();
    assert_eq!(rig.receive_end(&mut server), (vec![], End::Reset));
    rig.until_empty();
    assert_eq!(rig.closed(Reason::SourceReset), 1);
}

#[test]
fn a_slow_reader_holds_back_the_side_that_sends_through_a_hook() {
    let mut rig = Rig::new(config());
    let (id, mut client, mut server) = hooked(&mut rig, Kind::Tcp4, rot13_both_ways());
    let put = rig.congest(&mut client, id, Role::Dest);
    let usage = rig.snapshot().usage;
    assert_eq!(usage.buffer_bytes, rig.config.limits.block_bytes, "one block waits, whatever the client sends");
    client.fin();
    let got = rig.receive_all(&mut server);
    assert_eq!(got, vec![rot13(b'f'); put]);
}

#[test]
fn a_hook_that_takes_nothing_of_half_a_block_ends_the_connection_with_protocol_error() {
    let mut rig = Rig::new(config());
    let largest = Rc::new(Cell::new(0));
    let seen = Rc::clone(&largest);
    let hook = data(move |_, transit| {
        seen.set(seen.get().max(transit.input().len()));
        Ok(())
    });
    let (_, mut client, _server) = hooked(&mut rig, Kind::Tcp4, hook);
    let sent = pattern(rig.config.limits.block_bytes);
    rig.send(&mut client, &sent);
    rig.until_empty();
    assert_eq!((rig.closed(Reason::ProtocolError), largest.get()), (1, rig.config.limits.block_bytes / 2));
}

#[test]
fn hooks_that_hold_input_back_leave_the_blocks_of_a_small_pool_to_others() {
    let mut config = config();
    config.limits.buffer_bytes = config.limits.block_bytes;
    let mut rig = Rig::new(config);
    let line_by_line = || {
        data(|_, transit| {
            let end = transit.input().iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            transit.pass(end);
            Ok(())
        })
    };
    let mut peers: Vec<_> = (0..20).map(|_| hooked(&mut rig, Kind::Tcp4, line_by_line())).collect();
    for (id, client, _) in &mut peers {
        client.try_send(b"begun ");
        let id = *id;
        rig.until("the input waits", |proxy| proxy.core().connection(id).unwrap().queued(Role::Dest) == 6);
    }
    for (_, client, server) in &mut peers {
        client.try_send(b"done\n");
        assert_eq!(rig.receive(server, 11), b"begun done\n");
    }
}

#[test]
fn input_that_a_handler_left_and_a_counted_part_pass_the_hook_and_the_rest_does_not() {
    let (mut rig, heard) = (Rig::new(config()), Heard::default());
    let ((listener, addr), notes) = (target(), heard.clone());
    let target = Rc::new(Target::from(addr));
    let front = handler(move |cx, call| {
        notes.note(cx.role(), &call);
        match call {
            Call::Opened => cx.set_hook(rot13_both_ways()).unwrap(),
            Call::Readable(b"go abcdef") => {
                cx.connect(Rc::clone(&target), None).unwrap();
                return 3;
            }
            Call::Connected(Ok(())) => cx.relay_bytes(Role::Source, 4),
            Call::Ended(Cause::Fin) => cx.close(Reason::SourceFin),
            _ => {}
        }
        0
    });
    let (_, mut client) = rig.adopt(Kind::Tcp4, front);
    client.try_send(b"go abcdef");
    let mut server = rig.accept(&listener);
    assert_eq!(rig.receive(&mut server, 4), b"nopq");
    rig.until("the handler gets the rest", |_| heard.has("source readable ef"));
    client.fin();
    assert_eq!(rig.receive_all(&mut server), b"");
}

#[test]
fn a_connection_whose_hook_keeps_all_bytes_is_not_idle_until_no_more_arrive() {
    let mut config = config();
    config.timeouts.idle = Duration::from_secs(1);
    let mut rig = Rig::new(config);
    let hook = data(|_, transit| {
        transit.consume(usize::MAX);
        Ok(())
    });
    let (_, mut client, _server) = hooked(&mut rig, Kind::Tcp4, hook);
    let since = Instant::now();
    rig.until("three idle times have passed", |_| {
        client.try_send(b"x");
        since.elapsed() > Duration::from_secs(3)
    });
    assert_eq!((rig.snapshot().usage.connections, rig.closed(Reason::IdleTimeout)), (1, 0));
    rig.until_empty();
    assert_eq!(rig.closed(Reason::IdleTimeout), 1);
}

#[test]
fn a_connection_has_one_hook() {
    let mut rig = Rig::new(config());
    let (id, client, server) = hooked(&mut rig, Kind::Tcp4, rot13_both_ways());
    let second = rig.core().connection(id).unwrap().set_hook(rot13_both_ways());
    assert_eq!(second, Err(VerbError::Already));
    drop((client, server));
    rig.until_empty();
}

/// A hook that holds bytes of random numbers back and writes them later, in both directions at once.
#[test]
fn every_byte_arrives_through_a_hook_that_takes_random_parts() {
    for seed in 1..=20 {
        let mut rig = Rig::new(config());
        let random = RefCell::new(Random(seed * 0x9E37_79B9));
        let hook = data(move |_, transit| {
            let mut random = random.borrow_mut();
            let count = match random.below(3) {
                // Half a block that is not touched is the limit.
                0 if transit.input().len() < 10_000 => 0,
                1 => 1 + random.below(transit.input().len().max(1)),
                _ => usize::MAX,
            };
            transit.pass(count);
            Ok(())
        });
        let (_, mut client, mut server) = hooked(&mut rig, KINDS[seed as usize % 3], hook);
        let (up, down) = (pattern(400_000), pattern(300_000));
        let (mut sent, mut got) = ([0, 0], [Vec::new(), Vec::new()]);
        let (mut fins, mut ends) = ([false, false], [None, None]);
        rig.until("both directions are complete", |_| {
            for (at, (peer, bytes)) in [(&mut client, &up), (&mut server, &down)].into_iter().enumerate() {
                sent[at] += if sent[at] < bytes.len() { peer.try_send(&bytes[sent[at]..]) } else { 0 };
                if sent[at] == bytes.len() && !std::mem::replace(&mut fins[at], true) {
                    peer.fin();
                }
                ends[at] = ends[at].or(peer.try_receive(&mut got[1 - at], usize::MAX));
            }
            ends == [Some(End::Fin), Some(End::Fin)]
        });
        assert!(got == [up, down], "seed {seed}");
        rig.until_empty();
    }
}
