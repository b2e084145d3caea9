//! The log and the announcements as a process writes them: readers that do not read, descriptors that take nothing (TT-17),
//! targets and levels, and the signals that ask for something.

mod kit;

use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;

use kit::Step::*;
use kit::peer::both;
use kit::{Peer, SOON, Scratch, Seaprox};

/// A relay that listens on a Unix socket, because nobody reads where it listens.
struct Unread {
    seaprox: Seaprox,
    scratch: Scratch,
    listener: TcpListener,
}

impl Unread {
    fn start(options: &[&str], touch: impl FnOnce(&mut std::process::Command)) -> Unread {
        let (scratch, listener) = (Scratch::new(), TcpListener::bind("127.0.0.1:0").unwrap());
        let (listen, to) = (format!("unix:{}", scratch.file("in")), listener.local_addr().unwrap().to_string());
        let seaprox = Seaprox::spawn(&[&["static", "--listen", &listen, "--to", &to], options].concat(), touch);
        let unread = Unread { seaprox, scratch, listener };
        kit::until("it listens", || UnixStream::connect(unread.scratch.file("in")).is_ok());
        unread.listener.accept().unwrap();
        unread
    }

    fn pair(&self) -> (Peer, Peer) {
        let client = Peer::connect_unix(self.scratch.file("in").as_ref());
        (client, Peer::accept(&self.listener))
    }
}

/// A pipe that has room for nothing more.
fn full_pipe() -> (PipeReader, std::io::PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut filler = File::from(std::os::fd::OwnedFd::from(writer.try_clone().unwrap()));
    let size = kit::proc::pipe_bytes(&filler);
    filler.write_all(&vec![b'\n'; size]).unwrap();
    (reader, writer)
}

#[test]
fn a_log_that_nobody_reads_stops_nothing_and_says_what_was_lost() {
    let (reader, writer) = full_pipe();
    let mut relay = Unread::start(&["-v"], |command| _ = command.stderr(writer));
    let (mut client, mut server) = relay.pair();
    both(&mut client, &[Swap(10)], &mut server, &[Swap(10)]);
    // Far more than the ring holds: a thousand bytes of log for each.
    for _ in 0..2_000 {
        let (mut client, mut server) = relay.pair();
        client.run(&[Fin]);
        server.run(&[ReadAll, Fin]);
    }
    both(&mut client, &[Swap(100_000)], &mut server, &[Swap(100_000)]);
    let mut lines = BufReader::new(reader).lines().map(Result::unwrap).filter(|line| !line.is_empty());
    let told = lines.find(|line| line.contains("dropped=")).expect("the log goes on");
    let count: u64 = told.rsplit('=').next().unwrap().parse().unwrap();
    assert!(told.contains("WARN  seaprox log lines dropped") && count > 0, "{told}");
    // From then on everything is there again.
    both(&mut client, &[Fin, ReadAll], &mut server, &[ReadAll, Fin]);
    assert!(lines.any(|line| line.contains("closed") && line.contains("sent=100010")));
    relay.seaprox.signal(libc::SIGTERM);
    assert_eq!(lines.filter(|line| line.contains("draining")).count(), 1, "to the last line");
    assert_eq!(relay.seaprox.wait(SOON).code(), Some(0));
}

/// Standard output and error are often one pipe; whoever reads it may have stopped.
#[test]
fn a_reader_that_does_not_read_cannot_hold_the_end() {
    let (reader, writer) = full_pipe();
    let out = writer.try_clone().unwrap();
    let mut relay = Unread::start(&[], |command| _ = command.stderr(writer).stdout(out));
    let (mut client, mut server) = relay.pair();
    both(&mut client, &[Swap(10), Fin, ReadAll], &mut server, &[Swap(10), ReadAll, Fin]);
    relay.seaprox.signal(libc::SIGTERM);
    assert_eq!(relay.seaprox.wait(SOON).code(), Some(0));
    drop(reader);
}

#[test]
fn a_log_that_cannot_be_written_ends_nothing() {
    let (reader, closed) = std::io::pipe().unwrap();
    drop(reader);
    let full = File::options().write(true).open("/dev/full").unwrap();
    for stderr in [std::process::Stdio::from(closed), full.into()] {
        let mut relay = Unread::start(&["-v"], |command| _ = command.stderr(stderr));
        for _ in 0..10 {
            let (mut client, mut server) = relay.pair();
            both(&mut client, &[Swap(10), Fin, ReadAll], &mut server, &[Swap(10), ReadAll, Fin]);
        }
        relay.seaprox.wait_until_idle();
        relay.seaprox.signal(libc::SIGTERM);
        assert_eq!(relay.seaprox.wait(SOON).code(), Some(0));
    }
}
