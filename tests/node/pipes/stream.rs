//! Streams of links, and sockets that connect, as pipes.

use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::sync::mpsc::{self, Sender};

use seaprox::node::SubflowStatus;
use seaprox::pipes::{Pipe, PipeError, SocketPipe, StreamPipe};
use seaprox::{Id, Reason, Remote, Target};

use crate::node_kit::pipes::*;
use crate::node_kit::until;

#[test]
fn a_stream_over_two_subflows_carries_bytes_over_both() {
    let mut kinds = Kinds::default();
    let [a, b] = kinds.stream(2);
    let mut ends = Ends::new(a, b);
    let bytes = vec![7; 8 << 20];
    let mut buf = vec![0; 1 << 16];
    // A subflow whose first bytes were late on a busy machine gets its share when its estimate has recovered.
    for round in 1..=20 {
        let (mut sent, mut got) = (0, 0);
        ends.until("8 MiB arrive", |a, b| {
            sent += send_some(a, &bytes[sent..]);
            while let Some(count) = now(b.receive(&mut buf)) {
                got += count;
            }
            got == bytes.len()
        });
        assert!(ends.a.connection().is_some() && ends.b.connection().is_some());
        let links = kinds.near().links();
        let two = links.iter().find(|link| link.streams == 1).unwrap();
        let is_over_tcp = |subflow: &&SubflowStatus| subflow.carrier == Some("tcp");
        let sent: Vec<u64> = two.subflows.iter().filter(is_over_tcp).map(|subflow| subflow.bytes.0).collect();
        assert_eq!(sent.len(), 2, "the others are backups: {two:?}");
        let all = two.subflows.iter().map(|subflow| subflow.bytes.0);
        assert!(all.sum::<u64>() >= round * (8 << 20), "{two:?}");
        if sent.iter().all(|bytes| *bytes >= 64 << 10) {
            break;
        }
        assert!(round < 20, "{sent:?}");
    }
    ends.a.finish().unwrap();
    ends.b.finish().unwrap();
    ends.until("both FINs pass", |a, b| now(a.receive(&mut buf)) == Some(0) && now(b.receive(&mut buf)) == Some(0));
    until("no stream is left", || kinds.near().links().iter().all(|link| link.streams == 0));
}

#[test]
fn a_stream_that_is_refused_or_whose_loop_ends_breaks_with_the_reason() {
    let mut kinds = Kinds::default();
    let (mut pipe, handler) = StreamPipe::new(&kinds.near().remote);
    drop(handler);
    assert_eq!(pipe.receive(&mut [0; 9]), Err(PipeError::Ended(Reason::LinkLost)), "there is no stream any more");

    let id = kinds.near().ask(|core| core.links()[0].id);
    let target = || Target::parse("a.example:1").unwrap();
    let broken = |kinds: &mut Kinds, link| {
        let pipe = StreamPipe::open(&kinds.near().remote, link, target());
        until("the stream is refused", || pipe.broken().is_some());
        pipe.broken()
    };
    kinds.far().policy.opens.store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(broken(&mut kinds, id), Some(PipeError::Ended(Reason::NotPermitted)));
    kinds.far().policy.opens.store(true, std::sync::atomic::Ordering::Relaxed);

    let [a, b] = kinds.stream(1);
    let mut ends = Ends::new(a, b);
    ends.until("both ends are ready", |a, b| a.is_ready() && b.is_ready());
    kinds.near().ask(|core| {
        let links: Vec<_> = core.links().iter().map(|link| link.id).collect();
        links.into_iter().for_each(|link| core.link(link).unwrap().close().unwrap());
    });
    let mut errors = [None, None];
    ends.until("both ends break", |a, b| {
        for (end, error) in [a, b].into_iter().zip(&mut errors) {
            *error = error.take().or_else(|| end.receive(&mut [0; 9]).err().filter(|error| !error.is_would_block()));
        }
        errors.iter().all(Option::is_some)
    });
    until("the links are gone", || kinds.near().links().is_empty());
    assert!(matches!(broken(&mut kinds, id), Some(PipeError::Ended(_))), "a link that is gone takes no stream");
}

#[test]
fn a_socket_connects_as_a_pipe_or_says_why_not() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let mut pipe = SocketPipe::connect(addr);
    assert!(!pipe.is_ready() && pipe.wants_write());
    assert_eq!(pipe.send(b"early"), Err(PipeError::WouldBlock));
    let far = SocketPipe::new(listener.accept().unwrap().0);
    pipe.set_nodelay();
    assert!(pipe.descriptor().is_some_and(|descriptor| descriptor.as_raw_fd() > 0));
    let mut ends = Ends::new(pipe, far);
    ends.until("it is connected", |a, _| a.is_ready());
    assert_eq!(ends.a.send(b"hello"), Ok(5));
    let mut got = Vec::new();
    ends.until("the bytes arrive", |_, b| !receive_some(b, &mut got) && got == b"hello");
    drop(listener);

    let refused = SocketPipe::connect(addr);
    let mut ends = Ends::new(refused, seaprox::pipes::MemoryPipe::pair(1).0);
    ends.until("the connect is refused", |a, _| a.broken().is_some());
    let error = PipeError::System(std::io::ErrorKind::ConnectionRefused);
    assert_eq!((ends.a.broken(), ends.a.receive(&mut [0; 9])), (Some(error.clone()), Err(error)));

    let closed = std::fs::File::open("/dev/null").unwrap();
    let pipe = SocketPipe::new(std::os::fd::OwnedFd::from(closed));
    assert!(matches!(pipe.broken(), Some(PipeError::System(_))), "a file is no socket: {:?}", pipe.broken());
}

/// Stops a loop and fills its mailbox with calls. The loop goes on when the returned sender is dropped.
fn stop_with_full_mailbox(remote: &Remote) -> Sender<()> {
    let (go, gate) = mpsc::channel::<()>();
    remote.call(move |_| _ = gate.recv()).unwrap();
    while remote.call(|_| {}).is_ok() {}
    go
}

#[test]
fn a_pipe_that_is_dropped_while_the_mailbox_is_full_resets_its_peer() {
    let mut kinds = Kinds::default();
    let [a, b] = kinds.stream(1);
    let mut ends = Ends::new(a, b);
    ends.until("both ends are ready", |a, b| a.is_ready() && b.is_ready());
    let stopped = stop_with_full_mailbox(&kinds.near().remote);
    let (a, mut b) = (ends.a, ends.b);
    drop(a);
    drop(stopped);
    until("the peer is reset", || b.receive(&mut [0; 9]) == Err(PipeError::Reset));
}

#[test]
fn a_pipe_reads_on_although_the_mailbox_was_full_when_it_had_room_again() {
    let mut kinds = Kinds::default();
    let [a, b] = kinds.stream(1);
    let mut ends = Ends::new(a, b);
    let (bytes, mut sent, mut got, mut buf) = (vec![7; 1 << 20], 0, 0, vec![0; 1 << 20]);
    ends.until("the pipe is full", |a, b| {
        sent += send_some(b, &bytes[sent..]);
        a.is_readable() && is_paused(&kinds.near().remote, a.connection())
    });
    let stopped = stop_with_full_mailbox(&kinds.near().remote);
    while let Some(count) = now(ends.a.receive(&mut buf)) {
        got += count;
    }
    drop(stopped);
    ends.until("all bytes arrive", |a, b| {
        sent += send_some(b, &bytes[sent..]);
        while let Some(count) = now(a.receive(&mut buf)) {
            got += count;
        }
        got == bytes.len()
    });
}

/// Returns true if the loop does not read the source of a connection.
fn is_paused(remote: &Remote, connection: Option<Id>) -> bool {
    let all = remote.ask(|core| core.some_connections(None, usize::MAX)).unwrap().wait().unwrap();
    all.iter().any(|one| Some(one.id) == connection && one.source.flags.contains(&"held"))
}
