//! `seaprox cat`: standard input and output as one end of a connection (SP-15).

use crate::kit;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::thread;

use kit::Step::*;
use kit::link::generate_key;
use kit::seaprox::command;
use kit::{Peer, Scratch, run, run_with};

/// A child process that is killed at the end of its test.
struct Running(Child);

impl Running {
    fn start(cat: &mut Command) -> Running {
        Running(cat.spawn().unwrap())
    }

    #[track_caller]
    fn assert_ends_well(&mut self) {
        let mut status = None;
        kit::until("the process ends", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        assert_eq!(status.and_then(|status| status.code()), Some(0));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a server that reads to the end and then sends `goodbye`. Returns its port, and a thread that returns the read
/// bytes.
fn server_once(goodbye: &'static [u8]) -> (String, thread::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let reader = thread::spawn(move || {
        let mut peer = Peer::accept(&listener);
        let bytes = peer.rest();
        peer.run(&[Put(goodbye), Fin]);
        bytes
    });
    (port, reader)
}

#[test]
fn the_end_of_standard_input_is_a_half_close() {
    let (port, server) = server_once(b"goodbye");
    let input = vec![b'i'; 3_000_000];
    let ran = run_with(&["cat", "127.0.0.1", &port], &input, |_| {});
    assert_eq!((ran.code, ran.out.as_slice(), ran.err.as_str()), (Some(0), b"goodbye".as_slice(), ""));
    assert!(server.join().unwrap() == input);
}

#[test]
fn standard_input_may_be_a_file_or_null() {
    let scratch = Scratch::new();
    let content = vec![b'f'; 1_000_000];
    let path = scratch.write("file", &content);
    let (port, server) = server_once(b"x");
    let ran = run_with(&["cat", &format!("127.0.0.1:{port}")], b"", |cat| _ = cat.stdin(File::open(&path).unwrap()));
    assert_eq!((ran.code, ran.out), (Some(0), b"x".to_vec()));
    assert!(server.join().unwrap() == content);
    let (port, server) = server_once(b"y");
    let ran = run_with(&["cat", "localhost", &port], b"", |cat| _ = cat.stdin(Stdio::null()));
    assert_eq!((ran.code, ran.out), (Some(0), b"y".to_vec()));
    assert!(server.join().unwrap().is_empty());
}

#[test]
fn standard_output_may_be_a_file() {
    let scratch = Scratch::new();
    let path = scratch.file("out");
    let (port, server) = server_once(b"to the file");
    let mut cat = command(&["cat", "127.0.0.1", &port]);
    cat.stdin(Stdio::null()).stdout(File::create(&path).unwrap());
    let mut child = Running::start(&mut cat);
    assert!(server.join().unwrap().is_empty());
    child.assert_ends_well();
    assert_eq!(std::fs::read_to_string(path).unwrap(), "to the file");
}

#[test]
fn a_full_output_is_a_failure_with_code_1() {
    // Both with an input that has ended and with an open one.
    for input in [Stdio::null(), Stdio::piped()] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut cat = command(&["cat", "127.0.0.1", &port]);
        let mut child = Running::start(cat.stdin(input).stdout(full).stderr(Stdio::piped()));
        let mut server = Peer::accept(&listener);
        server.run(&[Put(b"nowhere to put this")]);
        let mut said = String::new();
        child.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(child.0.wait().unwrap().code(), Some(1), "{said}");
        assert!(said.contains("source_reset: No space left on device") && said.lines().count() == 1, "{said}");
    }
    let ran = run_with(&["cat", "127.0.0.1", &server_once(b"x").0], b"", |cat| _ = cat.stdin(File::open("/").unwrap()));
    assert!(ran.code == Some(1) && ran.err.contains("Is a directory"), "{ran:?}");
}

#[test]
fn a_fin_of_the_server_does_not_end_the_input() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut cat = command(&["cat", "127.0.0.1", &listener.local_addr().unwrap().port().to_string()]);
    let mut child = Running::start(cat.stdin(Stdio::piped()).stdout(Stdio::piped()));
    let mut server = Peer::accept(&listener);
    server.run(&[Put(b"all there is"), Fin]);
    let (mut input, mut output) = (child.0.stdin.take().unwrap(), child.0.stdout.take().unwrap());
    let mut got = [0; 12];
    output.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"all there is");
    input.write_all(b"one more thing").unwrap();
    server.run(&[Take(b"one more thing")]);
    drop(input);
    server.run(&[ReadAll]);
    child.assert_ends_well();
}

#[test]
fn cat_failures_have_an_exit_code_and_a_reason() {
    let closed = kit::closed_port().to_string();
    let ran = run(&["cat", "127.0.0.1", &closed]);
    assert_eq!(ran.code, Some(69));
    assert!(ran.err.contains("connection_refused") && ran.err.lines().count() == 1, "{}", ran.err);
    let ran = run(&["cat", "no-such-name.invalid", "80"]);
    assert_eq!(ran.code, Some(69));
    assert!(ran.err.contains("name_resolution_failure"), "{}", ran.err);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    assert_eq!(run(&["cat", "-l", &listener.local_addr().unwrap().to_string()]).code, Some(69), "the port is busy");
    let port = listener.local_addr().unwrap().port().to_string();
    let server = thread::spawn(move || {
        Peer::accept(&listener).run(&[Take(b"hi"), Put(b"some"), Rst]);
    });
    let ran = run_with(&["cat", "127.0.0.1", &port], b"hi", |_| {});
    server.join().unwrap();
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains("reset"), "{}", ran.err);
}

#[test]
fn cat_listens_for_one_client() {
    for listen in ["127.0.0.1:0", "0", "[::1]:0"] {
        let mut cat = command(&["cat", "-l", listen]);
        let mut child = Running::start(cat.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()));
        let mut errors = BufReader::new(child.0.stderr.take().unwrap());
        let mut line = String::new();
        errors.read_line(&mut line).unwrap();
        let addr =
            line.trim_end().strip_prefix("listening cat ").expect("a line with the listening address").parse().unwrap();
        let mut client = Peer::connect(addr);
        child.0.stdin.take().unwrap().write_all(b"from the input").unwrap();
        client.run(&[Take(b"from the input"), ReadAll, Put(b"from the client")]);
        assert!(std::net::TcpStream::connect(addr).is_err(), "a second client is refused");
        client.run(&[Fin]);
        let mut got = String::new();
        child.0.stdout.take().unwrap().read_to_string(&mut got).unwrap();
        assert_eq!(got, "from the client");
        child.assert_ends_well();
    }
}

#[test]
fn cat_connects_to_and_listens_on_unix_sockets() {
    let scratch = Scratch::new();
    let path = scratch.file("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let server = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        stream.write_all(b"pong").unwrap();
        got
    });
    let ran = run_with(&["cat", &format!("unix:{path}")], b"ping", |_| {});
    assert_eq!((ran.code, ran.out), (Some(0), b"pong".to_vec()));
    assert_eq!(server.join().unwrap(), b"ping");
    let own = scratch.file("own");
    let mut cat = command(&["cat", "-l", &format!("unix:{own}")]);
    let mut child = Running::start(cat.stdin(Stdio::null()).stdout(Stdio::piped()));
    // The file is there before the socket listens. The first connection is the only one.
    let mut connected = None;
    kit::until("the process listens", || {
        connected = UnixStream::connect(&own).ok();
        connected.is_some()
    });
    let mut client = Peer::of(OwnedFd::from(connected.unwrap()).into(), true);
    client.run(&[ReadAll, Put(b"hello"), Fin]);
    let mut got = String::new();
    child.0.stdout.take().unwrap().read_to_string(&mut got).unwrap();
    assert_eq!(got, "hello");
    child.assert_ends_well();
}

#[test]
fn two_cat_processes_make_a_pipe_between_two_programs() {
    let mut cat = command(&["cat", "-l", "127.0.0.1:0"]);
    let mut child = Running::start(cat.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let mut line = String::new();
    BufReader::new(child.0.stderr.take().unwrap()).read_line(&mut line).unwrap();
    let addr = line.trim_end().rsplit(' ').next().unwrap().to_owned();
    let input: Vec<u8> = (0..5_000_000_u32).map(|number| number as u8).collect();
    let expected = input.clone();
    let mut output = child.0.stdout.take().unwrap();
    let reader = thread::spawn(move || {
        let mut got = Vec::new();
        output.read_to_end(&mut got).unwrap();
        got == expected
    });
    assert_eq!(run_with(&["cat", &addr], &input, |_| {}).code, Some(0));
    assert!(reader.join().unwrap());
    child.assert_ends_well();
}

#[test]
fn cat_ends_when_the_reader_of_its_output_is_gone() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    // The process notices it at the next byte, and also without one.
    for speaks_on in [true, false] {
        let mut cat = command(&["cat", "127.0.0.1", &port]);
        let mut child = Running::start(cat.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()));
        let mut server = Peer::accept(&listener);
        server.run(&[Put(b"read")]);
        let mut out = child.0.stdout.take().unwrap();
        out.read_exact(&mut [0; 4]).unwrap();
        drop(out);
        if speaks_on {
            // The process may have ended already; then the send fails.
            let _ = server.socket().send(b"this is not read");
        }
        kit::until("the process ends although its input is open", || child.0.try_wait().unwrap().is_some());
    }
}

/// Returns true if the open file of this descriptor, which other descriptors share, is in non-blocking mode.
fn is_nonblocking(fd: &impl AsRawFd) -> bool {
    // SAFETY: fcntl with this command takes and returns integers only.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
    assert!(flags >= 0);
    flags & libc::O_NONBLOCK != 0
}

/// A parent can use its end of a socket pair after the child has ended in any way. A parent that does not read blocks
/// that direction only.
#[test]
fn a_socket_of_the_parent_stays_blocking_and_blocks_one_direction_only() {
    for signal in [None, Some(libc::SIGTERM)] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let copy = || OwnedFd::from(theirs.try_clone().unwrap());
        let mut cat = command(&["cat", "127.0.0.1", &port]);
        let mut child = Running::start(cat.stdin(copy()).stdout(copy()));
        let mut server = Peer::accept(&listener);
        // More than all sockets on the way can hold.
        let socket = server.socket().try_clone().unwrap();
        let writer = thread::spawn(move || (&socket).write_all(&vec![b'o'; 16 << 20]));
        ours.write_all(b"still there").unwrap();
        server.run(&[Take(b"still there")]);
        assert!(!is_nonblocking(&theirs), "while it runs");
        match signal {
            Some(signal) => {
                // SAFETY: kill takes two integers, and the child has not been waited for.
                unsafe { libc::kill(child.0.id() as i32, signal) };
                kit::until("the process ends", || child.0.try_wait().unwrap().is_some());
                drop(ours);
            }
            None => {
                ours.shutdown(std::net::Shutdown::Write).unwrap();
                let mut got = vec![0; 16 << 20];
                ours.read_exact(&mut got).unwrap();
                assert!(got.iter().all(|byte| *byte == b'o'));
                server.run(&[ReadAll, Fin]);
                child.assert_ends_well();
            }
        }
        // The server's end is reset if the child was killed.
        let _ = writer.join().unwrap();
        assert!(!is_nonblocking(&theirs), "after its end");
    }
}

/// The master of a terminal cannot be opened again: that opens another terminal.
#[test]
fn a_terminal_that_cannot_be_reopened_stays_blocking_and_loses_no_byte() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let (master, mut slave) = kit::terminal::raw_pair();
    let copy = || master.try_clone().unwrap();
    let mut cat = command(&["cat", "127.0.0.1", &port]);
    let mut child = Running::start(cat.stdin(copy()).stdout(copy()).stderr(Stdio::piped()));
    let mut server = Peer::accept(&listener);
    slave.write_all(b"from the terminal").unwrap();
    server.run(&[Take(b"from the terminal")]);
    // More than a terminal holds, without a reader. The other direction goes on.
    let bytes = vec![b'b'; 40_000];
    server.run(&[Put(&bytes)]);
    slave.write_all(b"and more").unwrap();
    server.run(&[Take(b"and more"), Rst]);
    assert!(!is_nonblocking(&master.as_fd()));
    let mut got = vec![0; bytes.len()];
    slave.read_exact(&mut got).unwrap();
    assert!(got == bytes);
    // The server cut the connection, but all bytes were passed on before.
    let mut said = String::new();
    child.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("dest_reset"), "{said}");
    assert!(!is_nonblocking(&master.as_fd()));
}

/// Several pieces from a link are written to the output at once. A write must use all the free room: after a shorter
/// write the loop would wait for room that is already there.
#[test]
fn bytes_from_a_link_reach_outputs_of_every_type() {
    let scratch = Scratch::new();
    let (far_home, near_home) = (scratch.file("far"), scratch.file("near"));
    let (far_key, near_key) = (generate_key(&far_home), generate_key(&near_home));
    std::fs::write(format!("{far_home}/authorized_keys"), format!("permit-open=\"*\" {near_key}\n")).unwrap();
    let far = kit::Seaprox::start(&["link", "--listen", "127.0.0.1:0", "--config-dir", &far_home]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let bytes: Vec<u8> = (0..5_000_000_u32).map(|number| (number >> 4) as u8).collect();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let (mut pipe, end) = std::io::pipe().unwrap();
    let outputs: [(Stdio, &mut dyn Read); 2] = [(OwnedFd::from(theirs).into(), &mut ours), (end.into(), &mut pipe)];
    for (output, reader) in outputs {
        let mut cat = command(&["cat", "--via", &far.listens(0), "--config-dir", &near_home, "--peer-key", &far_key]);
        cat.args(["127.0.0.1", &port]).stdin(Stdio::null()).stdout(output);
        let mut child = Running::start(&mut cat);
        drop(cat);
        let mut server = Peer::accept(&listener);
        server.run(&[Put(&bytes), Fin]);
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        assert!(got == bytes, "{} of {} bytes", got.len(), bytes.len());
        child.assert_ends_well();
    }
}
