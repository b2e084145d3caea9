//! The bridge matrix: every ordered pair of socket types carries bytes unchanged, in both modes of the relay, and
//! closes its directions separately (TS-15).

use crate::loop_kit;

use std::sync::mpsc;

use loop_kit::*;
use seaprox::{Answer, Config, Connector, Reason, Role, Stage, Target};

/// A connector that lets the test answer with a descriptor, so that a dest can be a socket of any type.
struct Ready(mpsc::Sender<Answer>);

impl Connector for Ready {
    fn wants(&self, _: &Target) -> bool {
        true
    }
    fn connect(&mut self, _: &Target, answer: Answer) {
        self.0.send(answer).unwrap();
    }
}

/// Starts a relay between two types of socket. Returns it with the client and the server at its ends.
fn bridge(config: Config, source: Kind, dest: Kind) -> (Rig, Peer, Peer) {
    let (mut rig, (sender, answers)) = (Rig::new(config), mpsc::channel());
    rig.core().set_connector(Box::new(Ready(sender)));
    let (id, client) = rig.adopt(source, relay_to(refusing()));
    let answer = rig.wait("the connector is asked", |_| answers.try_recv().ok());
    let (server, ours) = pair(dest);
    answer.connected(ours);
    rig.until("the connection relays", |proxy| stage_of(&mut proxy.core(), id) == Some(Stage::Established));
    (rig, client, server)
}

fn each_pair(mut test: impl FnMut(Rig, Peer, Peer, &str)) {
    for config in modes() {
        for source in KINDS {
            for dest in KINDS {
                let name = format!("{source:?} -> {dest:?}, {} pipes", config.limits.pipes);
                let (rig, client, server) = bridge(config.clone(), source, dest);
                test(rig, client, server, &name);
            }
        }
    }
}

/// FNV-1a, which shows a lost, doubled or misplaced byte.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// One direction of a transfer: the bytes to send, and the progress of sender and receiver.
struct Flow<'a> {
    data: &'a [u8],
    sent: usize,
    finished: bool,
    got: Vec<u8>,
    end: Option<End>,
}

impl Flow<'_> {
    fn new(data: &[u8]) -> Flow<'_> {
        Flow { data, sent: 0, finished: false, got: Vec::new(), end: None }
    }

    fn step(&mut self, from: &mut Peer, to: &mut Peer) {
        if self.sent < self.data.len() {
            self.sent += from.try_send(&self.data[self.sent..]);
        } else if !std::mem::replace(&mut self.finished, true) {
            from.fin();
        }
        if self.end.is_none() {
            self.end = to.try_receive(&mut self.got, usize::MAX);
        }
    }

    fn is_whole(&self) -> bool {
        self.end == Some(End::Fin) && checksum(&self.got) == checksum(self.data) && self.got.len() == self.data.len()
    }
}

#[test]
fn every_pair_of_socket_types_carries_bytes_unchanged_in_both_directions() {
    let (there, back) = (pattern(2_000_000), pattern(1_500_001));
    each_pair(|mut rig, mut client, mut server, name| {
        let (mut out, mut home) = (Flow::new(&there), Flow::new(&back));
        let (mut spliced, splices) = (false, rig.config.limits.pipes > 0 && cfg!(target_os = "linux"));
        rig.until("everything arrives", |proxy| {
            out.step(&mut client, &mut server);
            home.step(&mut server, &mut client);
            spliced |= proxy.core().snapshot().usage.pipes > 0;
            out.end.is_some() && home.end.is_some()
        });
        assert!(out.is_whole() && home.is_whole(), "{name}");
        assert_eq!(spliced, splices, "{name}");
        rig.until_empty();
        let stats = rig.stats();
        assert_eq!((stats.bytes_sent, stats.bytes_received), (2_000_000, 1_500_001), "{name}");
        assert_eq!(rig.snapshot().usage.buffer_bytes, 0);
    });
}

/// After the FIN of one end, all bytes of the other end still arrive, and then its FIN.
#[test]
fn every_pair_of_socket_types_closes_each_direction_separately() {
    for first_is_source in [true, false] {
        each_pair(|mut rig, client, server, name| {
            let (mut first, mut second) = if first_is_source { (client, server) } else { (server, client) };
            first.try_send(b"question");
            first.fin();
            assert_eq!(rig.receive_all(&mut second), b"question", "{name}");
            rig.turns(3);
            assert_eq!(rig.snapshot().usage.connections, 1, "{name}: the other direction is open");
            let answer = pattern(300_000);
            rig.send(&mut second, &answer[..150_000]);
            rig.until("the connection is open", |proxy| proxy.core().snapshot().usage.connections == 1);
            let got = rig.receive(&mut first, 150_000);
            rig.send(&mut second, &answer[150_000..250_000]);
            second.try_send(b"");
            assert!(got == answer[..150_000] && rig.receive(&mut first, 100_000) == answer[150_000..250_000], "{name}");
            second.fin();
            assert_eq!(rig.receive_all(&mut first), b"", "{name}");
            rig.until_empty();
            let reason = if first_is_source { Reason::SourceFin } else { Reason::DestFin };
            assert_eq!(rig.closed(reason), 1, "{name}");
        });
    }
}

/// A reader that stops blocks its writer, and the buffers stay within their limit. After it reads on, it gets all
/// bytes.
#[test]
fn every_pair_of_socket_types_waits_for_a_slow_reader() {
    // More than the system holds: four socket buffers of at most 32 MiB each (tcp_rmem, tcp_wmem) on the way.
    let data = pattern(150_000_000);
    each_pair(|mut rig, mut client, mut server, name| {
        let mut sent = 0;
        rig.until("the connection is congested", |proxy| {
            let put = client.try_send(&data[sent..]);
            sent += put;
            put == 0 && proxy.core().snapshot().connections[0].dest.as_ref().unwrap().queued > 0
        });
        client.fin();
        let usage = rig.snapshot().usage;
        assert!(sent < data.len() && usage.buffer_bytes <= 2 * rig.config.limits.block_bytes, "{name}: {usage:?}");
        let got = rig.receive_all(&mut server);
        assert!(got == data[..sent], "{name}");
        server.fin();
        rig.until_empty();
    });
}

#[test]
fn a_reset_is_passed_on_as_a_reset() {
    for source_resets in [true, false] {
        each_pair(|mut rig, client, server, name| {
            let (first, mut second) = if source_resets { (client, server) } else { (server, client) };
            let carries = [&first.socket, &second.socket].iter().all(|s| !s.local_addr().unwrap().is_unix());
            first.reset();
            let end = rig.receive_end(&mut second).1;
            if carries {
                assert_eq!(end, End::Reset, "{name}");
                rig.until_empty();
                let reason = if source_resets { Reason::SourceReset } else { Reason::DestReset };
                assert_eq!(rig.closed(reason), 1, "{name}");
            }
            drop(second);
            rig.until_empty();
        });
    }
}

/// The dest sends, closes and is gone before the source has read anything. HAProxy had splice bugs of this kind.
#[test]
fn bytes_of_a_closed_dest_are_still_delivered() {
    let data = pattern(3_000_000);
    each_pair(|mut rig, mut client, mut server, name| {
        client.try_send(b"request");
        let mut sent = 0;
        rig.until("the buffers are full", |_| {
            let put = server.try_send(&data[sent..]);
            sent += put;
            put == 0 || sent == data.len()
        });
        assert_eq!(rig.receive(&mut server, 7), b"request");
        server.fin();
        drop(server);
        let (got, end) = rig.receive_end(&mut client);
        assert!(got == data[..sent] && end == End::Fin, "{name}: {} of {sent} bytes, {end:?}", got.len());
        drop(client);
        rig.until_empty();
    });
}

#[test]
fn each_side_has_the_address_of_its_own_peer() {
    let (mut rig, client, _server) = bridge(config(), Kind::Tcp4, Kind::Tcp6);
    let id = rig.snapshot().connections[0].id;
    let source = rig.core().connection(id).unwrap().side_of(Role::Source).unwrap();
    let dest = rig.core().connection(id).unwrap().side_of(Role::Dest).unwrap();
    let mut core = rig.core();
    assert_eq!(core.side(source).unwrap().other(), Some(dest));
    assert_eq!(core.side(dest).unwrap().other(), Some(source));
    let connection = core.connection(id).unwrap();
    assert_eq!(connection.peer(Role::Source).ip(), Some(client.addr()));
    assert!(connection.local(Role::Dest).ip().unwrap().is_ipv6());
}
