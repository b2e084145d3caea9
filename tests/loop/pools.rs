//! The pools at their limits: connections without a free block wait and then go on, connections without a free pipe
//! copy, and all blocks and pipes return to the pool in the end.

use crate::loop_kit;

use loop_kit::*;
use seaprox::{Config, Id, Reason, Role, Stage, VerbError};

const BLOCK: usize = seaprox::Limits::BLOCK_BYTES_MIN;

/// Starts a loop with `blocks` blocks of the smallest size and `count` connections that relay.
fn few_blocks(blocks: usize, count: usize) -> (Rig, Vec<(Peer, Peer)>, Vec<Id>) {
    let mut config = Config { limits: seaprox::Limits { pipes: 0, ..config().limits }, ..config() };
    (config.limits.block_bytes, config.limits.buffer_bytes) = (BLOCK, BLOCK * blocks);
    let mut rig = Rig::new(config);
    let (listener, addr) = target();
    let (mut flows, mut ids) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let (id, client) = rig.adopt(Kind::Tcp4, relay_to(addr));
        flows.push((client, rig.accept(&listener)));
        ids.push(id);
    }
    (rig, flows, ids)
}

#[test]
fn connections_without_a_free_block_wait_and_then_go_on() {
    let (mut rig, mut flows, ids) = few_blocks(2, 12);
    let mut sent = [0; 2];
    for n in 0..2 {
        sent[n] = rig.congest(&mut flows[n].0, ids[n], Role::Dest);
    }
    // All blocks are taken, so the other ten connections wait.
    for (client, server) in &mut flows[2..] {
        client.try_send(b"there");
        server.try_send(b"back");
    }
    rig.until("the connections wait for blocks", |proxy| proxy.core().snapshot().stats.block_waits >= 10);
    rig.turns(10);
    for (client, server) in &mut flows[2..] {
        let mut got = Vec::new();
        server.try_receive(&mut got, 1);
        client.try_receive(&mut got, 1);
        assert!(got.is_empty(), "no byte passes without a block");
    }
    assert_eq!(rig.snapshot().usage.buffer_bytes, 2 * BLOCK);
    // One reader reads on. Its block serves the ten, one after the other.
    assert_eq!(rig.receive(&mut flows[0].1, sent[0]).len(), sent[0]);
    for (client, server) in &mut flows[2..] {
        assert_eq!(rig.receive(server, 5), b"there");
        assert_eq!(rig.receive(client, 4), b"back");
    }
    assert_eq!(rig.receive(&mut flows[1].1, sent[1]).len(), sent[1]);
    assert_eq!(rig.snapshot().usage.buffer_bytes, 0);
}

/// The connection that holds the last block is reset by its client. The waiting connections go on.
#[test]
fn a_reset_connection_returns_its_block() {
    let (mut rig, mut flows, ids) = few_blocks(1, 3);
    rig.congest(&mut flows[0].0, ids[0], Role::Dest);
    flows[1].0.try_send(b"one");
    flows[2].0.try_send(b"two");
    rig.until("the connections wait for blocks", |proxy| proxy.core().snapshot().stats.block_waits >= 2);
    let (client, _server) = flows.remove(0);
    client.reset();
    assert_eq!(rig.receive(&mut flows[0].1, 3), b"one");
    assert_eq!(rig.receive(&mut flows[1].1, 3), b"two");
    assert_eq!(rig.snapshot().usage.buffer_bytes, 0);
}

/// A handler is called only with a free block for its input. Without one it can send up to 512 bytes, and more is
/// refused.
#[test]
fn a_handshake_waits_for_a_block_and_a_long_reply_is_refused() {
    let (mut rig, mut flows, ids) = few_blocks(1, 1);
    let sent = rig.congest(&mut flows[0].0, ids[0], Role::Dest);
    let heard = Heard::default();
    let notes = heard.clone();
    let (id, mut client) = rig.adopt(
        Kind::Unix,
        handler(move |cx, call| {
            notes.note(cx.role(), &call);
            if let Call::Readable(input) = call { input.len() } else { 0 }
        }),
    );
    client.try_send(b"hello");
    rig.turns(10);
    assert_eq!(heard.all(), ["source opened"]);
    assert_eq!(
        rig.core().connection(id).unwrap().send(Role::Source, &[b'x'; 513]),
        Err(VerbError::Full),
        "more than 512 bytes without a block are refused"
    );
    assert_eq!(rig.core().connection(id).unwrap().send(Role::Source, &[b'f'; 512]), Ok(()));
    assert_eq!(rig.receive(&mut client, 512), [b'f'; 512]);
    assert_eq!(rig.receive(&mut flows[0].1, sent).len(), sent);
    rig.until("the handler gets the bytes", |_| heard.has("source readable hello"));
    assert_eq!(rig.core().connection(id).unwrap().send(Role::Source, &[b'x'; 513]), Ok(()));
    assert_eq!(rig.receive(&mut client, 513), [b'x'; 513]);
}

/// Every byte of all connections arrives.
#[test]
fn twenty_connections_with_reading_peers_share_one_block() {
    let (mut rig, flows, _) = few_blocks(1, 20);
    let data = pattern(100_000);
    let mut states: Vec<_> = flows.into_iter().map(|(client, server)| (client, server, 0, Vec::new())).collect();
    rig.until("everything arrives", |_| {
        for (client, server, sent, got) in &mut states {
            *sent += if *sent < data.len() { client.try_send(&data[*sent..]) } else { 0 };
            server.try_receive(got, data.len());
        }
        states.iter().all(|state| state.3.len() == data.len())
    });
    assert!(states.iter().all(|state| state.3 == data));
    drop(states);
    rig.until_empty();
    assert_eq!(rig.snapshot().usage.buffer_bytes, 0);
}

/// There are twice as many bulk transfers as pipes. The transfers without a pipe copy.
#[test]
fn a_connection_without_a_free_pipe_copies() {
    if config().limits.pipes == 0 || !cfg!(target_os = "linux") {
        return;
    }
    let mut config = config();
    config.limits.pipes = 3;
    // Small enough that a turn ends in the middle of a transfer, with its pipe attached.
    config.limits.relay_bytes_per_turn = 1 << 20;
    let mut rig = Rig::new(config);
    let (listener, addr) = target();
    let data = pattern(3_000_000);
    let mut flows = Vec::new();
    for _ in 0..6 {
        let (_, client) = rig.adopt(Kind::Tcp4, relay_to(addr));
        flows.push((client, rig.accept(&listener), 0, Vec::new()));
    }
    let (mut most, mut round) = (0, 0);
    rig.until("everything arrives", |proxy| {
        round += 1;
        for (client, server, sent, got) in &mut flows {
            *sent += if *sent < data.len() { client.try_send(&data[*sent..]) } else { 0 };
            // The servers read late, so that all transfers are under way at the same time.
            if round > 20 {
                server.try_receive(got, data.len());
            }
        }
        most = most.max(proxy.core().snapshot().usage.pipes);
        flows.iter().all(|flow| flow.3.len() == data.len())
    });
    assert!(flows.iter().all(|flow| flow.3 == data));
    assert_eq!(most, 3);
    drop(flows);
    rig.until_empty();
    assert!(rig.snapshot().usage.pipes <= 3);
}

/// A pipe that still holds bytes is closed with its connection, so that the next connection does not get them.
#[test]
fn a_pipe_that_still_holds_bytes_is_not_used_for_the_next_connection() {
    let mut config = config();
    if config.limits.pipes > 0 {
        config.limits.pipes = 1;
    }
    let mut rig = Rig::new(config);
    let (listener, addr) = target();
    for round in 0..10 {
        let (id, mut client) = rig.adopt(Kind::Tcp4, relay_to(addr));
        let mut server = rig.accept(&listener);
        let data = pattern(1_000_000 + round);
        let (mut sent, mut got) = (0, Vec::new());
        rig.until("everything arrives", |_| {
            sent += if sent < data.len() { client.try_send(&data[sent..]) } else { 0 };
            server.try_receive(&mut got, data.len());
            got.len() == data.len()
        });
        assert!(got == data, "round {round}");
        rig.congest(&mut client, id, Role::Dest);
        match round % 3 {
            0 => client.reset(),
            1 => server.reset(),
            _ => rig.core().connection(id).unwrap().close(Reason::Killed),
        }
        rig.until_empty();
    }
    assert_eq!(rig.snapshot().usage.buffer_bytes, 0);
    assert!(rig.snapshot().usage.pipes <= 1);
}

/// With blocks of one byte in the configuration, the loop uses the minimum and relays all bytes.
#[test]
fn a_block_size_below_the_minimum_is_raised() {
    let mut config = config();
    (config.limits.block_bytes, config.limits.buffer_bytes) = (1, 1);
    let mut rig = Rig::new(config);
    let (listener, addr) = target();
    let (id, mut client) = rig.adopt(Kind::Unix, relay_to(addr));
    let mut server = rig.accept(&listener);
    rig.until("the connection relays", |proxy| stage_of(&mut proxy.core(), id) == Some(Stage::Established));
    rig.send(&mut client, &pattern(10_000));
    assert_eq!(rig.receive(&mut server, 10_000), pattern(10_000));
}
