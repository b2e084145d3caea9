//! Descriptors of the caller as sides: every ordered pair of kinds is bridged, and what is no stream of bytes is refused
//! (SP-01).

use crate::loop_kit;

use std::fs::File;
use std::io::Read;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};

use loop_kit::ends::{FarEnd, Shape, ends, terminal};
use loop_kit::*;
use ring::digest::{SHA256, digest};
use seaprox::{Answer, Config, Connector, DescriptorError, Duplex, Id, Reason, Role, Stage, Target, VerbError};

/// Makes a connection of two sides that the caller has, and relays between them.
fn bridge(rig: &mut Rig, source: Duplex, dest: Duplex) -> Id {
    let mut dest = Some(dest);
    let handler = handler(move |cx, call| {
        if matches!(call, Call::Opened) {
            cx.connect_with(dest.take().unwrap()).unwrap();
        }
        by_default(cx, &call)
    });
    let id = rig.core().adopt(source, "test", handler).unwrap();
    rig.until("the connection relays", |proxy| stage_of(&mut proxy.core(), id) == Some(Stage::Established));
    id
}

fn each_pair(mut test: impl FnMut(Config, Shape, Shape)) {
    for config in modes() {
        for source in Shape::ALL {
            Shape::ALL.into_iter().for_each(|dest| test(config.clone(), source, dest));
        }
    }
}

/// One direction of a transfer.
struct Transfer<'a> {
    data: &'a [u8],
    sent: usize,
    got: Vec<u8>,
    has_ended: bool,
}

impl Transfer<'_> {
    fn new(data: &[u8]) -> Transfer<'_> {
        Transfer { data, sent: 0, got: Vec::new(), has_ended: false }
    }

    /// Moves what can be moved. Returns true when as many bytes have arrived as are sent.
    fn step(&mut self, from: &mut FarEnd, to: &mut FarEnd) -> bool {
        if self.sent < self.data.len() {
            self.sent += from.try_send(&self.data[self.sent..]);
        }
        if !self.has_ended {
            self.has_ended = to.try_receive(&mut self.got);
        }
        self.got.len() >= self.data.len()
    }

    fn is_whole(&self) -> bool {
        digest(&SHA256, &self.got).as_ref() == digest(&SHA256, self.data).as_ref()
    }
}

#[test]
fn every_pair_of_descriptors_carries_bytes_unchanged_in_both_directions() {
    let (there, back) = (pattern(2_500_000), pattern(2_000_001));
    each_pair(|config, source, dest| {
        let name = format!("{source:?} -> {dest:?}, {} pipes", config.limits.pipes);
        let mut rig = Rig::new(config);
        let ((mut client, near), (mut server, far)) = (ends(source), ends(dest));
        bridge(&mut rig, near, far);
        let (mut out, mut home) = (Transfer::new(&there), Transfer::new(&back));
        rig.until(&format!("everything arrives: {name}"), |_| {
            let (out, home) = (out.step(&mut client, &mut server), home.step(&mut server, &mut client));
            out && home
        });
        assert!(out.is_whole() && home.is_whole(), "{name}");
        assert!(!out.has_ended && !home.has_ended, "{name}: no end has closed yet");
        drop(client);
        drop(server);
        rig.until_empty();
        assert_eq!(rig.snapshot().usage.buffer_bytes, 0, "{name}");
    });
}

/// The end of a terminal is that of the whole connection, so only the other kinds are tried.
#[test]
fn every_pair_of_descriptors_that_half_close_closes_each_direction_separately() {
    each_pair(|config, source, dest| {
        if !source.half_closes() || !dest.half_closes() {
            return;
        }
        let mut rig = Rig::new(config);
        let ((mut client, near), (mut server, far)) = (ends(source), ends(dest));
        bridge(&mut rig, near, far);
        client.try_send(b"question");
        client.end();
        let mut got = Vec::new();
        rig.until("the question ends", |_| server.try_receive(&mut got));
        assert_eq!(got, b"question", "{source:?} -> {dest:?}");
        rig.turns(3);
        assert_eq!(rig.snapshot().usage.connections, 1, "{source:?} -> {dest:?}: the other direction is open");
        assert_eq!(server.try_send(b"answer"), 6);
        server.end();
        got.clear();
        rig.until("the answer ends", |_| client.try_receive(&mut got));
        assert_eq!(got, b"answer", "{source:?} -> {dest:?}");
        rig.until_empty();
        assert_eq!(rig.closed(Reason::SourceFin), 1);
    });
}

#[test]
fn the_end_of_a_terminal_ends_the_direction_in_order() {
    let mut rig = Rig::new(config());
    let ((mut client, near), (server, far)) = (ends(Shape::Tcp), ends(Shape::Master));
    bridge(&mut rig, near, far);
    let mut server = server;
    assert_eq!(server.try_send(b"goodbye"), 7);
    drop(server);
    let mut got = Vec::new();
    rig.until("the end arrives", |_| client.try_receive(&mut got));
    assert_eq!(got, b"goodbye");
    drop(client);
    rig.until_empty();
    assert_eq!(rig.closed(Reason::DestFin), 1);
}

#[test]
fn a_regular_file_is_read_to_its_end_and_written() {
    let folder = std::env::temp_dir().join(format!("seaprox-files-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (from, to) = (folder.join("from"), folder.join("to"));
    let bytes = pattern(1_000_000);
    std::fs::write(&from, &bytes).unwrap();
    let (silent, mut held) = UnixStream::pair().unwrap();
    let mut rig = Rig::new(config());
    let source = Duplex::pair(File::open(&from).unwrap(), held.try_clone().unwrap());
    bridge(&mut rig, source, Duplex::pair(silent, File::create(&to).unwrap()));
    rig.until("the copy is complete", |_| std::fs::metadata(&to).is_ok_and(|file| file.len() == 1_000_000));
    held.set_nonblocking(true).unwrap();
    assert!(held.read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
    drop(held);
    rig.until("the connection ends or is half closed", |proxy| {
        let written = std::fs::read(&to).unwrap() == bytes;
        written && proxy.core().snapshot().usage.buffer_bytes == 0
    });
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_descriptor_without_a_stream_of_bytes_is_refused() {
    let mut rig = Rig::new(config());
    let (seqpacket, _other) = socket2::Socket::pair(socket2::Domain::UNIX, socket2::Type::SEQPACKET, None).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let unsuitable: [(Duplex, &str); 6] = [
        (Duplex::new(UdpSocket::bind("127.0.0.1:0").unwrap()), "datagram"),
        (Duplex::new(UnixDatagram::unbound().unwrap()), "datagram"),
        (Duplex::new(seqpacket), "datagram"),
        (Duplex::new(TcpListener::bind("127.0.0.1:0").unwrap()), "listening"),
        (Duplex::new(reader), "writing"),
        (Duplex::new(writer), "reading"),
    ];
    for (side, word) in unsuitable {
        let error = rig.core().adopt(side, "test", handler(|_, _| 0)).unwrap_err();
        assert!(matches!(error, DescriptorError::Unsuitable(text) if text.contains(word)), "{error}");
        assert_eq!(error.code(), VerbError::Invalid.code());
    }
    assert_eq!(rig.snapshot().usage.connections, 0);
}

#[test]
fn a_second_dest_is_refused_and_a_dest_that_does_not_fit_leaves_the_connection_as_it_was() {
    let mut rig = Rig::new(config());
    let (id, mut client) = rig.adopt(
        Kind::Unix,
        handler(|cx, call| {
            if let Call::Connected(Ok(())) = call {
                cx.relay();
            }
            0
        }),
    );
    let udp = || Duplex::new(UdpSocket::bind("127.0.0.1:0").unwrap());
    assert!(matches!(rig.core().connection(id).unwrap().connect_with(udp()), Err(DescriptorError::Unsuitable(_))));
    assert_eq!(
        (rig.core().connection(id).unwrap().side_of(Role::Dest), stage_of(&mut rig.core(), id)),
        (None, Some(Stage::Handshake))
    );
    let (mut server, far) = ends(Shape::Pipes);
    rig.core().connection(id).unwrap().connect_with(far).unwrap();
    let again = rig.core().connection(id).unwrap().connect_with(ends(Shape::Pipes).1);
    assert!(matches!(again, Err(DescriptorError::Verb(VerbError::Already))), "{again:?}");
    client.try_send(b"hello");
    let mut got = Vec::new();
    rig.until("the bytes arrive", |_| {
        server.try_receive(&mut got);
        got == b"hello"
    });
    drop((client, server));
    rig.until_empty();
    assert!(matches!(rig.core().connection(id).err(), Some(VerbError::Over(_))));
}

/// Returns the flags of an open file.
fn flags(fd: &OwnedFd) -> i32 {
    // SAFETY: the call takes and gives integers only.
    unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) }
}

#[test]
fn shared_descriptors_keep_their_flags_and_the_loop_does_not_block() {
    let data = pattern(300_000);
    for shape in Shape::ALL {
        let (mut client, own) = match shape {
            Shape::Pipes => {
                let ((read, far_write), (far_read, write)) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
                (FarEnd::new(read.into(), write.into()), [OwnedFd::from(far_read), far_write.into()])
            }
            Shape::Master | Shape::Slave => {
                let (master, slave) = terminal();
                let (near, far) = if shape == Shape::Master { (slave, master) } else { (master, slave) };
                (FarEnd::new(near.try_clone().unwrap(), near), [far.try_clone().unwrap(), far])
            }
            Shape::Tcp | Shape::Unix | Shape::SocketPair => {
                let (near, far) = pair(if shape == Shape::Tcp { Kind::Tcp4 } else { Kind::Unix });
                (FarEnd::new(near.dup(), near.dup()), [far.try_clone().unwrap(), far])
            }
        };
        let before = [flags(&own[0]), flags(&own[1])];
        let mut rig = Rig::new(config());
        let [read, write] = own.each_ref().map(|fd| fd.try_clone().unwrap());
        let (mut server, far) = ends(Shape::SocketPair);
        bridge(&mut rig, Duplex::pair(read, write).shared(), far);
        let (mut out, mut home) = (Transfer::new(&data), Transfer::new(&data));
        rig.until(&format!("everything arrives: {shape:?}"), |_| {
            let (out, home) = (out.step(&mut client, &mut server), home.step(&mut server, &mut client));
            out && home
        });
        assert!(out.is_whole() && home.is_whole(), "{shape:?}");
        assert_eq!([flags(&own[0]), flags(&own[1])], before, "{shape:?}");
        assert!(before.iter().all(|flags| flags & libc::O_NONBLOCK == 0), "{shape:?}");
    }
}

/// A connector that keeps its answer for the test.
struct Later(std::sync::mpsc::Sender<Answer>);

impl Connector for Later {
    fn wants(&self, _: &Target) -> bool {
        true
    }
    fn connect(&mut self, _: &Target, answer: Answer) {
        self.0.send(answer).unwrap();
    }
}

#[test]
fn a_connector_may_answer_with_pipes() {
    let (mut rig, (sender, answers)) = (Rig::new(config()), std::sync::mpsc::channel());
    rig.core().set_connector(Box::new(Later(sender)));
    let (id, mut client) = rig.adopt(Kind::Tcp4, relay_to(refusing()));
    let answer = rig.wait("the connector is asked", |_| answers.try_recv().ok());
    let (mut server, far) = ends(Shape::Pipes);
    answer.connected(far);
    rig.until("the connection relays", |proxy| stage_of(&mut proxy.core(), id) == Some(Stage::Established));
    client.try_send(b"ping");
    let mut got = Vec::new();
    rig.until("the bytes arrive", |_| {
        server.try_receive(&mut got);
        got == b"ping"
    });
    server.try_send(b"pong");
    assert_eq!(rig.receive(&mut client, 4), b"pong");
}

#[test]
fn a_loop_that_stops_or_drains_adopts_no_descriptor() {
    for stop in [|core: &mut seaprox::Loop<'_>| core.stop(), |core: &mut seaprox::Loop<'_>| core.drain(PATIENCE)] {
        let mut rig = Rig::new(config());
        let (_kept, _client) = rig.adopt(Kind::Tcp4, handler(|_, _| 0));
        stop(&mut rig.core());
        let (mut far, near) = ends(Shape::SocketPair);
        let refused = rig.core().adopt(near, "test", handler(|_, _| 0)).unwrap_err();
        assert_eq!(refused.code(), seaprox::VerbError::Over(seaprox::Reason::Drained).code());
        let mut nothing = Vec::new();
        assert!(far.try_receive(&mut nothing), "the descriptors are closed");
    }
}
