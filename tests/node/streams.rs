//! Streams of a link between two loops: bytes, ends, refusals, reverse listeners. Over real sockets.

use crate::node_kit;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use node_kit::*;
use seaprox::Reason;

#[test]
fn a_stream_carries_bytes_in_both_directions_at_once() {
    let (server, client) = (Node::start(), Node::start());
    let link = client.link_over_tcp(server.serve());
    let (listener, addr) = target();
    let front = client.forward(link, addr.into());
    let mut near = connect(front);
    let mut far = accept(&listener);
    const COUNT: u64 = 48 << 20;
    thread::scope(|scope| {
        let (mut near_out, mut far_out) = (near.try_clone().unwrap(), far.try_clone().unwrap());
        scope.spawn(move || send_pattern(&mut near_out, 1, COUNT));
        scope.spawn(move || send_pattern(&mut far_out, 2, COUNT));
        scope.spawn(|| read_pattern(&mut far, 1, COUNT));
        read_pattern(&mut near, 2, COUNT);
    });
    let status = &client.links()[0];
    assert_eq!((status.streams, status.subflows.len()), (1, 1));
    assert!(status.stats.bytes_sent >= COUNT && status.stats.bytes_received >= COUNT, "{status:?}");
}

#[test]
fn both_nodes_list_the_live_streams_of_a_link_by_the_same_numbers() {
    let (server, client) = (Node::start(), Node::start());
    let link = client.link(server.serve());
    let (listener, addr) = target();
    let front = client.forward(link, addr.into());
    let mut pairs: Vec<_> = (0..3).map(|_| (connect(front), accept(&listener))).collect();
    let listed = |node: &Node| {
        node.ask(|core| {
            let link = core.links()[0].id;
            let streams = core.link(link).unwrap().streams();
            for stream in &streams {
                let side = core.side(stream.side).unwrap();
                assert_eq!(side.id(), stream.connection);
                assert!(side.peer(side.role()).to_string().ends_with(&format!("/{}]", stream.number)));
            }
            streams.into_iter().map(|stream| stream.number).collect::<Vec<_>>()
        })
    };
    let before = listed(&client);
    assert_eq!((before.len(), &listed(&server)), (3, &before));
    drop(pairs.remove(1));
    until("one stream is gone at both nodes", || listed(&client).len() == 2 && listed(&server).len() == 2);
    pairs.push((connect(front), accept(&listener)));
    let after = listed(&client);
    assert_eq!((after.len(), &listed(&server)), (3, &after));
    assert_eq!(after.iter().filter(|number| !before.contains(number)).count(), 1, "the new stream has a new number");
}

#[test]
fn a_stream_passes_on_the_fin_of_each_direction_separately() {
    let (server, client) = (Node::start(), Node::start());
    let link = client.link(server.serve());
    let (listener, addr) = target();
    let front = client.forward(link, addr.into());
    for first_is_near in [true, false] {
        let near = connect(front);
        let far = accept(&listener);
        let (mut first, mut second) = if first_is_near { (near, far) } else { (far, near) };
        first.write_all(b"question").unwrap();
        first.shutdown(Shutdown::Write).unwrap();
        let mut got = Vec::new();
        second.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"question");
        second.write_all(b"answer").unwrap();
        drop(second);
        got.clear();
        first.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"answer");
    }
    until("both connections have ended", || client.closed.lock().unwrap().len() == 2);
    assert_eq!(*client.closed.lock().unwrap(), [Reason::SourceFin, Reason::DestFin]);
    until("no stream is left", || client.links()[0].streams == 0 && server.links()[0].streams == 0);
}

/// The client sends its request and a FIN before its stream is open. Both arrive, and so does the response.
#[test]
fn a_request_sent_before_the_stream_is_open_arrives_complete() {
    let (server, client) = (Node::start(), Node::start());
    let link = client.link(server.serve());
    let (listener, addr) = target();
    let front = client.forward(link, addr.into());
    for count in [1, 511, 512, 513, 100_000, 3_000_000] {
        let sent: Vec<u8> = (0..count).map(|at| pattern(3, at)).collect();
        let mut near = connect(front);
        let mut asks = near.try_clone().unwrap();
        let question = sent.clone();
        let asker = thread::spawn(move || {
            asks.write_all(&question).unwrap();
            asks.shutdown(Shutdown::Write).unwrap();
        });
        let (mut far, mut got) = (accept(&listener), Vec::new());
        far.read_to_end(&mut got).unwrap();
        assert!(got == sent, "{} of {count} bytes of the question", got.len());
        asker.join().unwrap();
        let answerer = thread::spawn(move || far.write_all(&sent).map(|()| sent).unwrap());
        got.clear();
        near.read_to_end(&mut got).unwrap();
        assert!(got == answerer.join().unwrap(), "{} of {count} bytes of the answer", got.len());
    }
    until("no stream is left", || client.links()[0].streams == 0 && server.links()[0].streams == 0);
}

/// The reader sends a FIN and then resets. The endless sender is cut off over a link as it is without one.
#[test]
fn an_endless_sender_over_a_link_is_cut_off_when_its_reader_is_gone() {
    let patient = |config: &mut seaprox::Config| config.timeouts.linger = Duration::from_secs(3600);
    let (server, client) = (Node::with(patient), Node::with(patient));
    let link = client.link(server.serve());
    let (listener, addr) = target();
    let front = client.forward(link, addr.into());
    let (near, mut far) = (connect(front), accept(&listener));
    near.shutdown(Shutdown::Write).unwrap();
    assert_eq!(far.read(&mut [0]).unwrap(), 0);
    socket2::SockRef::from(&near).set_linger(Some(Duration::ZERO)).unwrap();
    drop(near);
    let block = vec![7; 1 << 20];
    let sent = (0..256).take_while(|_| far.write_all(&block).is_ok()).count();
    assert!(sent < 256, "256 MiB were discarded");
    until("no stream is left", || client.links()[0].streams == 0 && server.links()[0].streams == 0);
}

#[test]
fn a_reset_is_passed_on_over_a_link() {
    let (server, client) = (Node::start(), Node::start());
    let link = client.link(server.serve());
    let (listener, addr) = target();
    let front = client.forward(link, addr.into());
    for near_resets in [true, false] {
        let (mut near, mut far) = (connect(front), accept(&listener));
        near.write_all(b"x").unwrap();
        far.read_exact(&mut [0]).unwrap();
        let (resets, mut other) = if near_resets { (near, far) } else { (far, near) };
        socket2::SockRef::from(&resets).set_linger(Some(Duration::ZERO)).unwrap();
        drop(resets);
        assert_eq!(read_end(&mut other), Err(std::io::ErrorKind::ConnectionReset));
    }
    until("no stream is left", || client.links()[0].streams == 0 && server.links()[0].streams == 0);
}

/// A connection that times out has not ended in order, so the far end must see a reset and not a FIN.
#[test]
fn a_connection_that_times_out_is_reset_at_the_far_end() {
    let hasty = |config: &mut seaprox::Config| config.timeouts.idle = Duration::from_millis(300);
    for near_is_hasty in [true, false] {
        let make = |is_hasty: bool| if is_hasty { Node::with(hasty) } else { Node::start() };
        let (server, client) = (make(!near_is_hasty), make(near_is_hasty));
        let link = client.link(server.serve());
        let (listener, addr) = target();
        let front = client.forward(link, addr.into());
        let (mut near, mut far) = (connect(front), accept(&listener));
        near.write_all(b"half of it").unwrap();
        far.read_exact(&mut [0; 10]).unwrap();
        far.write_all(b"half of it").unwrap();
        near.read_exact(&mut [0; 10]).unwrap();
        let other = if near_is_hasty { &mut far } else { &mut near };
        assert_eq!(read_end(other), Err(std::io::ErrorKind::ConnectionReset), "near is hasty: {near_is_hasty}");
        until("no stream is left", || client.links()[0].streams == 0 && server.links()[0].streams == 0);
    }
}

#[test]
fn a_finished_direction_is_delivered_completely_when_the_other_times_out() {
    let hasty = |config: &mut seaprox::Config| config.timeouts.half_closed = Duration::from_millis(300);
    let (server, client) = (Node::with(hasty), Node::start());
    let link = client.link(server.serve());
    let (listener, addr) = target();
    let front = client.forward(link, addr.into());
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&front.into()).unwrap();
    let mut near = std::net::TcpStream::from(socket);
    near.set_read_timeout(Some(SOON)).unwrap();
    let mut far = accept(&listener);
    near.write_all(b"question").unwrap();
    far.read_exact(&mut [0; 8]).unwrap();
    // A response that fills all buffers on the way.
    far.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut count = 0;
    while let Ok(put) = far.write(&(count..count + 4096).map(|at| pattern(5, at)).collect::<Vec<_>>()) {
        count += put as u64;
    }
    far.shutdown(Shutdown::Write).unwrap();
    // The client reads until the far node has passed on all of it, and then nothing until the far node times out.
    let is_passed_on = || {
        let is_shut = |status: &seaprox::ConnectionStatus| status.source.flags.contains(&"shut");
        server.ask(move |core| core.snapshot().connections.iter().all(is_shut))
    };
    let (mut at, mut buf) = (0, [0; 4096]);
    while !is_passed_on() {
        let got = near.read(&mut buf).unwrap();
        assert!(buf[..got].iter().zip(at..).all(|(byte, at)| *byte == pattern(5, at)));
        at += got as u64;
    }
    until("the far node has ended it", || server.ask(|core| core.usage().connections) == 0);
    assert!(at < count, "some of the response is still to be read");
    near.write_all(b"more").unwrap();
    while at < count {
        let got = near.read(&mut buf).expect("the response arrives completely");
        assert!(got > 0 && buf[..got].iter().zip(at..).all(|(byte, at)| *byte == pattern(5, at)));
        at += got as u64;
    }
    assert_eq!(read_end(&mut near), Ok(0));
}

#[test]
fn the_reason_of_a_failed_connect_reaches_the_near_node() {
    let (server, client) = (Node::start(), Node::start());
    let link = client.link(server.serve());
    let bound = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    bound.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    let closed = bound.local_addr().unwrap().as_socket().unwrap();
    let front = client.forward(link, closed.into());
    let _ = connect(front).read(&mut [0]);
    until("the client gets connection_refused", || {
        client.closed.lock().unwrap().first() == Some(&Reason::ConnectionRefused)
    });
    let nowhere = client.forward(link, seaprox::Target::parse("no-such-name.invalid:80").unwrap());
    let _ = connect(nowhere).read(&mut [0]);
    until("the client gets name_resolution_failure", || {
        client.closed.lock().unwrap().get(1) == Some(&Reason::NameResolutionFailure)
    });
    server.policy.opens.store(false, std::sync::atomic::Ordering::Relaxed);
    let (_listener, addr) = target();
    let forbidden = client.forward(link, addr.into());
    let _ = connect(forbidden).read(&mut [0]);
    until("the client gets not_permitted", || client.closed.lock().unwrap().get(2) == Some(&Reason::NotPermitted));
    assert_eq!(server.ask(|core| core.stats().streams_refused), 1);
}

#[test]
fn a_hundred_streams_share_one_connection() {
    let (server, client) = (Node::start(), Node::start());
    let cutter = cutter::Cutter::new(server.serve());
    let link = client.link(cutter.addr);
    let (listener, addr) = target();
    let front = client.forward(link, addr.into());
    let echo = thread::spawn(move || {
        thread::scope(|scope| {
            for _ in 0..100 {
                let mut socket = accept(&listener);
                scope.spawn(move || {
                    let mut out = socket.try_clone().unwrap();
                    std::io::copy(&mut socket, &mut out).unwrap();
                    out.shutdown(Shutdown::Write).unwrap();
                });
            }
        });
    });
    thread::scope(|scope| {
        for seed in 0..100 {
            scope.spawn(move || {
                let mut socket = connect(front);
                let mut out = socket.try_clone().unwrap();
                thread::scope(|inner| {
                    inner.spawn(move || {
                        send_pattern(&mut out, seed, 100_000);
                        out.shutdown(Shutdown::Write).unwrap();
                    });
                    read_pattern(&mut socket, seed, 100_000);
                    assert_eq!(read_end(&mut socket), Ok(0));
                });
            });
        }
    });
    echo.join().unwrap();
    assert_eq!(cutter.count(), 1, "one connection carries all streams");
    until("no stream is left", || client.links()[0].streams == 0 && server.links()[0].streams == 0);
}

/// Replies to all bytes with the same bytes in capitals. Panics on the word "panic".
struct Shout;

impl seaprox::Handler for Shout {
    fn opened(&mut self, _: &mut seaprox::Cx<'_>) {}

    fn readable(&mut self, cx: &mut seaprox::Cx<'_>, input: &[u8]) -> usize {
        assert!(!input.starts_with(b"panic"), "(this message belongs to the test)");
        if cx.reply(&input.to_ascii_uppercase()).is_ok() { input.len() } else { 0 }
    }

    fn connected(&mut self, _: &mut seaprox::Cx<'_>, _: Result<(), &seaprox::Failure>) {}
}

#[test]
fn a_handler_can_answer_the_streams_of_a_peer_without_a_socket() {
    let (server, client) = (Node::start(), Node::start());
    let policy = std::sync::Arc::clone(&server.policy) as std::sync::Arc<dyn seaprox::node::Policy>;
    let addr = server.ask(|core| {
        let mut bound = seaprox::bind(&seaprox::Bind::parse("127.0.0.1:0").unwrap(), 1, core.config()).unwrap();
        let mut config = seaprox::node::ServeConfig::new(identity(2), policy);
        config.on_stream = Some(Box::new(|_, _| Some(Box::new(Shout))));
        core.serve_links(&mut bound[0], config).unwrap();
        bound[0].addr().ip().unwrap()
    });
    let link = client.link(addr);
    let front = client.forward(link, seaprox::Target::parse("not.connected:1").unwrap());
    let (mut one, mut other) = (connect(front), connect(front));
    let shout = |socket: &mut std::net::TcpStream, word: &[u8]| {
        socket.write_all(word).unwrap();
        let mut got = vec![0; word.len()];
        socket.read_exact(&mut got).map(|()| got)
    };
    assert_eq!(shout(&mut one, b"hello").unwrap(), b"HELLO");
    assert!(shout(&mut other, b"panic").is_err(), "the stream is gone");
    assert_eq!(shout(&mut one, b"again").unwrap(), b"AGAIN");
    assert_eq!(server.ask(|core| core.stats().panics), 1);
}

#[test]
fn a_node_learns_the_address_that_its_peer_observes() {
    let (server, client) = (Node::start(), Node::start());
    let cutter = cutter::Cutter::new(server.serve());
    client.link_with(cutter.addr, |config| config.subflows = 2);
    until("both subflows know their address", || {
        let subflows = client.links().remove(0).subflows;
        subflows.len() == 2 && subflows.iter().all(|subflow| subflow.seen_as.is_some())
    });
    let mut seen: Vec<String> = client.links()[0].subflows.iter().map(|s| s.seen_as.unwrap().to_string()).collect();
    let mut there: Vec<String> = server.links()[0].subflows.iter().map(|s| s.remote.clone()).collect();
    seen.sort();
    there.sort();
    assert_eq!(seen, there, "behind a relay, the observed address is the relay's");
    until("no stream is left", || client.links()[0].streams == 0 && server.links()[0].streams == 0);
}

#[test]
fn ending_a_connection_during_its_connect_is_reported_to_the_peer_at_once() {
    let (server, client) = (Node::start(), Node::start());
    let link = client.link(server.serve());
    server.ask(|core| core.set_connector(Box::new(Never::default())));
    let (_listener, addr) = target();
    let front = client.forward(link, addr.into());
    let mut near = connect(front);
    let dialing = || server.ask(|core| core.snapshot().connections.first().map(|status| status.id));
    until("the server connects to the target", || dialing().is_some());
    let id = dialing().unwrap();
    server.ask(move |core| core.connection(id).unwrap().close(Reason::Killed));
    let _ = near.read(&mut [0]);
    until("the client's connection is closed", || !client.closed.lock().unwrap().is_empty());
    assert_eq!(*client.closed.lock().unwrap(), [Reason::Other], "not a timeout");
    until("no stream is left", || client.links()[0].streams == 0 && server.links()[0].streams == 0);
}

#[test]
fn clients_that_reset_during_the_connect_leave_no_streams() {
    let (server, client) = (Node::start(), Node::start());
    let link = client.link(server.serve());
    server.ask(|core| core.set_connector(Box::new(Never::default())));
    let (_listener, addr) = target();
    let front = client.forward(link, addr.into());
    for _ in 0..20 {
        let near = connect(front);
        until("the server connects to the target", || server.ask(|core| core.usage().connections) == 1);
        socket2::SockRef::from(&near).set_linger(Some(Duration::ZERO)).unwrap();
        drop(near);
        until("the server has given up the connect", || server.ask(|core| core.usage().connections) == 0);
    }
    until("no stream is left", || client.links()[0].streams == 0 && server.links()[0].streams == 0);
}

/// A node that is stopped resets its connections, so that no peer takes a part for the whole or waits for more.
#[test]
fn a_stop_during_a_transfer_is_a_reset_at_the_far_end() {
    for near_stops in [true, false].repeat(3) {
        let (server, client) = (Node::start(), Node::start());
        let link = client.link(server.serve());
        let (listener, addr) = target();
        let front = client.forward(link, addr.into());
        let (near, far) = (connect(front), accept(&listener));
        let (stops, other, stays, mut goes) =
            if near_stops { (client, server, far, near) } else { (server, client, near, far) };
        thread::scope(|scope| {
            let mut out = stays.try_clone().unwrap();
            // Either the reader or the writer gets the reset. The other one only learns that the connection is closed.
            let writer = scope.spawn(move || {
                loop {
                    if let Err(error) = out.write_all(&[1; 65536]) {
                        break error.kind();
                    }
                }
            });
            scope.spawn(move || {
                let mut buf = [0; 65536];
                while goes.read(&mut buf).is_ok_and(|got| got > 0) && goes.write_all(&buf).is_ok() {}
            });
            let (mut stays, mut buf, mut total) = (&stays, [0; 65536], 0);
            let mut stops = Some(stops);
            let end = loop {
                match stays.read(&mut buf) {
                    Ok(0) => break Ok(()),
                    Ok(got) => total += got,
                    Err(error) => break Err(error.kind()),
                }
                if total > 4 << 20 {
                    drop(stops.take());
                }
            };
            let ends = [end.err(), Some(writer.join().unwrap())];
            assert!(ends.contains(&Some(std::io::ErrorKind::ConnectionReset)), "near stops: {near_stops}: {ends:?}");
        });
        until("no stream is left", || other.links().iter().all(|link| link.streams == 0));
    }
}

#[test]
fn a_draining_node_delivers_all_bytes_that_it_has_read() {
    let (server, client) = (Node::start(), Node::start());
    let link = client.link(server.serve());
    let (listener, addr) = target();
    let front = client.forward(link, addr.into());
    let (mut near, mut far) = (connect(front), accept(&listener));
    far.shutdown(Shutdown::Write).unwrap();
    // All buffers on the way are full when the sender ends.
    let count = fill(&mut near);
    near.shutdown(Shutdown::Write).unwrap();
    let mut at = 0;
    while client.ask(|core| core.usage().connections) > 0 {
        read_some(&mut far, &mut at);
    }
    client.ask(|core| core.drain(SOON));
    while read_some(&mut far, &mut at) {}
    assert_eq!(at, count);
    until("the link has ended", || server.links().is_empty());
}

/// A stream that a node has received up to its FIN is delivered, however slowly, after the peer has gone. An incomplete
/// stream is reset.
#[test]
fn a_stream_received_completely_is_delivered_after_the_peer_has_left() {
    let (server, client) = (Node::start(), Node::start());
    let link = client.link(server.serve());
    let (listener, addr) = target();
    let front = client.forward(link, addr.into());
    let (mut whole, mut far_whole) = (connect(front), accept(&listener));
    let (mut half, mut far_half) = (connect(front), accept(&listener));
    far_whole.shutdown(Shutdown::Write).unwrap();
    let count = fill(&mut whole);
    whole.shutdown(Shutdown::Write).unwrap();
    half.write_all(b"half of it").unwrap();
    let mut at = 0;
    while client.ask(|core| core.usage().connections) > 1 || client.links()[0].streams > 1 {
        read_some(&mut far_whole, &mut at);
    }
    drop(client);
    until("the link has ended", || server.links().is_empty());
    assert!(is_cut(&mut far_half));
    assert!(read_some(&mut far_whole, &mut at) && at < count, "the test has to leave something unread");
    while read_some(&mut far_whole, &mut at) {}
    assert_eq!(at, count);
    until("no connection is left at the server", || server.ask(|core| core.usage().connections) == 0);
}

/// Sends until all buffers on the way are full. Returns the number of bytes.
fn fill(near: &mut std::net::TcpStream) -> u64 {
    near.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut count = 0;
    while let Ok(put) = near.write(&(count..count + 4096).map(|at| pattern(6, at)).collect::<Vec<_>>()) {
        count += put as u64;
    }
    count
}

/// Reads some of the bytes that [`fill`] has sent, from offset `at` on. Returns false at the end.
fn read_some(far: &mut std::net::TcpStream, at: &mut u64) -> bool {
    let mut buf = [0; 4096];
    let got = far.read(&mut buf).expect("all bytes arrive");
    assert!(buf[..got].iter().zip(*at..).all(|(byte, at)| *byte == pattern(6, at)));
    *at += got as u64;
    got > 0
}

fn is_cut(socket: &mut std::net::TcpStream) -> bool {
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
}

/// The room of a stream seldom ends where a write ends. A short write must be followed by an event as soon as there is room.
#[test]
fn a_handler_that_fills_a_stream_is_told_when_there_is_room() {
    struct Fill(u64);
    impl Fill {
        fn fill(&mut self, cx: &mut seaprox::Cx<'_>) {
            while self.0 < COUNT {
                let piece: Vec<u8> = (self.0..COUNT.min(self.0 + 4999)).map(|at| pattern(5, at)).collect();
                if cx.reply(&piece).is_err() {
                    return;
                }
                self.0 += piece.len() as u64;
            }
            cx.close_after_flush(Reason::SourceFin);
        }
    }
    impl seaprox::Handler for Fill {
        fn opened(&mut self, _: &mut seaprox::Cx<'_>) {}
        fn readable(&mut self, _: &mut seaprox::Cx<'_>, input: &[u8]) -> usize {
            input.len()
        }
        fn connected(&mut self, cx: &mut seaprox::Cx<'_>, result: Result<(), &seaprox::Failure>) {
            assert!(result.is_ok());
            cx.set_stage(seaprox::Stage::Established);
            self.fill(cx);
        }
        fn writable(&mut self, cx: &mut seaprox::Cx<'_>) {
            self.fill(cx);
        }
    }
    const COUNT: u64 = 8 << 20;
    let (server, client) = (Node::start(), Node::start());
    let link = client.link(server.serve());
    let (listener, addr) = target();
    client.ask(move |core| core.link(link).unwrap().open_stream(addr.into(), Box::new(Fill(0))).unwrap());
    let mut far = accept(&listener);
    // The reader starts when the stream is full.
    let queued = || {
        client.ask(|core| {
            let id = core.snapshot().connections.first().map(|connection| connection.id);
            id.map_or(0, |id| core.connection(id).map_or(0, |connection| connection.queued(seaprox::Role::Source)))
        })
    };
    until("bytes wait for room", || queued() > 0);
    read_pattern(&mut far, 5, COUNT);
    assert_eq!(read_end(&mut far), Ok(0));
}
