//! The memory that the links of one key can make a node use, and its return to the system. The test runs in a process
//! of its own, because it measures the memory of the process.

use crate::hostile_kit;
use crate::node_kit;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use hostile_kit::{RawLink, encode};
use node_kit::{Node, accept, connect, in_own_process, target, timing, until};
use seaprox::Reason;
use seaprox::link::frame::Frame;
use seaprox::link::{Capability, Config};
use seaprox::node::{LinkEvent, Timing};

const MIB: u64 = 1 << 20;
/// The memory budget of the node, in each direction.
const TOTAL: usize = 24 << 20;

/// Returns the resident bytes of this process.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn dial(node: SocketAddr, seed: u8, capabilities: u64) -> RawLink {
    let config = Config { capabilities, ..Config::default() };
    RawLink::connect_from(TcpStream::connect(node).unwrap(), [seed; 32], config).unwrap()
}

/// Returns the bytes of one read with one piece of an unopened stream, which is an eighth of the read.
fn pinning(id: u32, offset: u64) -> Vec<u8> {
    let mut bytes = encode(&Frame::Data { id, offset, fin: false, payload: &[7; 15_000] });
    (0..6).for_each(|_| Frame::Pad { len: 16_000 }.encode(&mut bytes));
    bytes
}

/// Returns pieces of one byte with a gap before each, which cost the node more than the credit that they use.
fn gaps(count: u64) -> Vec<u8> {
    (0..count).flat_map(|n| encode(&Frame::Data { id: 2, offset: 2 * n + 1, fin: false, payload: b"x" })).collect()
}

#[test]
fn the_links_of_one_key_use_at_most_half_of_the_memory_and_others_go_on() {
    const NAME: &str = "memory::the_links_of_one_key_use_at_most_half_of_the_memory_and_others_go_on";
    in_own_process(NAME, links_of_one_key);
}

fn links_of_one_key() {
    let node = Node::with(|config| config.limits.link_bytes = TOTAL);
    // The hostile peers answer no probe. A busy machine takes long to count their pieces.
    let hour = Duration::from_secs(3600);
    let timing = Timing { keepalive: hour, dead: hour, ..timing() };
    let at = node.serve_at("127.0.0.1:0".parse().unwrap(), timing);
    // A connection of another key, which has to work all the time.
    let near = Node::start();
    let link = near.link(at);
    near.until_up();
    let (listener, addr) = target();
    let mut client = connect(near.forward(link, addr.into()));
    let mut server = accept(&listener);
    let mut echo = || {
        let mut byte = [0];
        client.write_all(b"!").unwrap();
        server.read_exact(&mut byte).unwrap();
        server.write_all(&byte).unwrap();
        client.read_exact(&mut byte).unwrap();
    };
    echo();

    // Pieces that keep eight times their size. Four links each send more of them than they have credit for.
    let before = resident();
    let mut most = 0;
    for n in 0..4 {
        let mut hostile = dial(at, 3, [0, Capability::all()][n % 2]);
        for piece in 0..6 * MIB / 15_000 {
            let (id, offset) = (2 + 2 * (piece / 16) as u32, piece % 16 * 15_000);
            if hostile.send_raw(&pinning(id, offset)).is_err() {
                break; // The node has ended the link, which has exceeded its credit.
            }
        }
        most = most.max(resident().saturating_sub(before));
    }
    assert!(most < TOTAL as u64, "{} MiB more than before", most / MIB);
    echo();

    // Gaps cost more than the bytes between them. Together, the two links of this key need more than half of the
    // budget.
    let (mut first, mut second) = (dial(at, 4, 0), dial(at, 4, 0));
    let wire = gaps(36_000);
    first.send_raw(&wire).unwrap();
    until("the memory of the first is counted", || node.ask(|core| core.link_memory().0) > 9 * MIB);
    assert!(!node.has(|happened| matches!(happened, LinkEvent::Ended { reason: Reason::LimitReached, .. })));
    let _ = second.send_raw(&wire);
    until("a link of the key is ended", || {
        node.has(|happened| matches!(happened, LinkEvent::Ended { reason: Reason::LimitReached, .. }))
    });
    let (received, _) = node.ask(|core| core.link_memory());
    assert!(received <= TOTAL as u64 / 2, "{received}");
    echo();

    // The memory of ended links is free again.
    drop((first, second));
    until("the links are gone", || {
        node.ask(|core| {
            let links = core.links();
            links
                .iter()
                .filter(|link| link.subflows.is_empty())
                .for_each(|link| core.link(link.id).unwrap().close().unwrap());
            links.len() == 1
        })
    });
    assert!(node.ask(|core| core.link_memory().0) < MIB);
    let left = || resident().saturating_sub(before);
    until("the memory is returned to the system", || left() < 12 * MIB);
    println!("{most} bytes at most, {} in the end", left());
    echo();
}
