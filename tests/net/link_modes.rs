//! The subflows on which each mode sends bytes (TS-06), between real processes in a network of the test's own, as shown
//! by `seaprox status --json`.

use crate::kit;
use crate::net_kit;

use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use kit::until;
use net_kit::nodes::{Forward, Options, subflows};
use net_kit::transfer::swap_while;
use net_kit::{Kind, Net, has_net};

/// Starts a link in a mode over two equal paths.
fn forward(net: &Net, mode: &str) -> Forward {
    let sources = [0, 1].map(|index| net.path(index).near_ip().to_string());
    let near = ["--path", &sources[0], "--path", &sources[1]];
    // Each node sends in its own mode.
    let forward =
        Forward::start(net, Options { both: &["--mode", mode, "--carrier", "tcp"], near: &near, ..Options::default() });
    forward.nodes.until_subflows(2);
    forward
}

/// For each subflow, the bytes that the near node has sent and received.
type Carried = [[u64; 2]; 2];

fn carried(forward: &Forward) -> Carried {
    let number = |subflow: &serde_json::Value, name: &str| subflow[name].as_u64().unwrap();
    let both = |subflow: &serde_json::Value| ["bytes_sent", "bytes_received"].map(|name| number(subflow, name));
    let bytes: Vec<[u64; 2]> = subflows(&forward.nodes.near).iter().map(both).collect();
    bytes.try_into().expect("two subflows")
}

/// Returns the bytes that the subflows have carried since.
fn since(forward: &Forward, before: Carried) -> Carried {
    let after = carried(forward);
    [0, 1].map(|subflow| [0, 1].map(|way| after[subflow][way] - before[subflow][way]))
}

/// Returns the bytes of each subflow, the smaller number first.
fn by_subflow(carried: Carried) -> [u64; 2] {
    let mut bytes = carried.map(|[sent, received]| sent + received);
    bytes.sort_unstable();
    bytes
}

/// Returns the sum over both directions of the bytes on the subflow that carried less of the direction, and of those on the
/// other. Each node chooses the subflow of what it sends.
fn by_direction([one, other]: Carried) -> [u64; 2] {
    [one[0].min(other[0]) + one[1].min(other[1]), one[0].max(other[0]) + one[1].max(other[1])]
}

/// Sends this many bytes in both directions at once, and returns the bytes that each subflow carried.
fn bulk(forward: &Forward, count: usize) -> Carried {
    let before = carried(forward);
    let (client, server) = forward.pair();
    thread::scope(|scope| {
        for socket in [&client, &server] {
            scope.spawn(move || (&mut &*socket).write_all(&vec![7; count]).unwrap());
            scope.spawn(move || {
                let read = std::io::copy(&mut socket.take(count as u64), &mut std::io::sink()).unwrap();
                assert_eq!(read, count as u64);
            });
        }
    });
    since(forward, before)
}

/// Sends this many small pieces one after another, each answered, and returns the bytes that each subflow carried.
fn small(forward: &Forward, pieces: usize) -> Carried {
    let before = carried(forward);
    let (mut client, mut server) = forward.pair();
    for _ in 0..pieces {
        client.write_all(&[7; PIECE]).unwrap();
        server.read_exact(&mut [0; PIECE]).unwrap();
        server.write_all(&[8; PIECE]).unwrap();
        client.read_exact(&mut [0; PIECE]).unwrap();
        // A pause after each piece, as in typing.
        thread::sleep(Duration::from_millis(2));
    }
    since(forward, before)
}

const PIECE: usize = 500;
const PIECES: usize = 200;
const ROUNDS_MAX: usize = 5;
const BULK: usize = 16 << 20;

/// Measures the bytes on the two subflows until they fit the expectation, the smaller number first. Panics if no round fits.
///
/// A link sends bytes again if their acknowledgement is late, and on a busy machine the nodes themselves may be late. A
/// fault repeats in each round; a late process does not.
fn expect(what: &str, measure: impl Fn() -> [u64; 2], fits: impl Fn(u64, u64) -> bool) {
    let rounds: Vec<[u64; 2]> =
        (0..ROUNDS_MAX).map(|_| measure()).take_while(|[less, more]| !fits(*less, *more)).collect();
    println!("{what}: {rounds:?} did not fit");
    assert!(rounds.len() < ROUNDS_MAX, "{what}: {rounds:?}");
}

#[test]
fn each_mode_puts_bulk_and_small_pieces_on_its_subflows() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Rate(100.0), Kind::Rate(100.0)]);
    let typed = (2 * PIECE * PIECES) as u64;
    let all = 2 * BULK as u64;

    let link = forward(&net, "stripe");
    let bulk_of = |link: &Forward| by_subflow(bulk(link, BULK));
    let small_of = |link: &Forward| by_subflow(small(link, PIECES));
    expect("both subflows carry a fair part of the bulk", || bulk_of(&link), |less, _| less > all / 4);
    expect("small pieces are sent once", || small_of(&link), |less, more| less + more < typed * 8 / 5);
    drop(link);

    let link = forward(&net, "single");
    expect(
        "one subflow carries all the bulk of a direction",
        || by_direction(bulk(&link, BULK)),
        |less, more| more > all && less < all / 100,
    );
    let is_single = |less, more| more > typed && less < typed / 5;
    expect("one subflow carries all the small pieces of a direction", || by_direction(small(&link, PIECES)), is_single);
    drop(link);

    let link = forward(&net, "redundant");
    let is_redundant = |less, more| less > typed && more > typed;
    expect("both subflows carry all the small pieces", || small_of(&link), is_redundant);
    let is_spread = |less, more| less > all / 4 && less + more < all * 5 / 4;
    expect("bulk is spread over both subflows", || bulk_of(&link), is_spread);
}

/// Mode `single` is for failover: the other path takes over when the path in use dies in the middle of a transfer.
#[test]
fn single_mode_switches_to_the_other_path_when_its_path_dies() {
    if !has_net() {
        return;
    }
    let net = Net::of(&[Kind::Rate(50.0), Kind::Rate(50.0)]);
    let link = forward(&net, "single");
    swap_while(link.peers(), 0, || {
        // A transfer begins with a trial of both paths.
        let outs = || [0, 1].map(|index| net.path(index).bytes().out);
        let (mut before, mut used) = (outs(), 0);
        until("one path carries the transfer alone", || {
            let now = outs();
            let grown = [now[0] - before[0], now[1] - before[1]];
            if grown[0] + grown[1] < 2 << 20 {
                return false;
            }
            (before, used) = (now, usize::from(grown[1] > grown[0]));
            grown[1 - used] < 200_000
        });
        let other = net.path(1 - used).bytes().out;
        net.path(used).black_hole(net_kit::Way::Both);
        until("the other path carries the transfer", || net.path(1 - used).bytes().out > other + (1 << 20));
    });
}
