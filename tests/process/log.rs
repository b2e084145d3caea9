//! The log and the announcements of a process: readers that do not read, descriptors that accept no bytes (TT-17),
//! targets and levels, and signals.

use crate::kit;

use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader, Write};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use kit::Step::*;
use kit::peer::both;
use kit::{Peer, Relay, SOON, Scratch, Seaprox, run_with};

/// A relay whose output is not read. It listens on a Unix socket, so that its address is known without its output.
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
        kit::until("the process listens", || UnixStream::connect(unread.scratch.file("in")).is_ok());
        unread.listener.accept().unwrap();
        unread
    }

    fn pair(&self) -> (Peer, Peer) {
        let client = Peer::connect_unix(self.scratch.file("in").as_ref());
        (client, Peer::accept(&self.listener))
    }
}

/// Returns a full pipe.
fn full_pipe() -> (PipeReader, std::io::PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut filler = File::from(std::os::fd::OwnedFd::from(writer.try_clone().unwrap()));
    let size = kit::proc::pipe_bytes(&filler);
    filler.write_all(&vec![b'\n'; size]).unwrap();
    (reader, writer)
}

#[test]
fn an_unread_log_blocks_nothing_and_reports_the_lost_lines() {
    let (reader, writer) = full_pipe();
    let mut relay = Unread::start(&["-v"], |command| _ = command.stderr(writer));
    let (mut client, mut server) = relay.pair();
    both(&mut client, &[Swap(10)], &mut server, &[Swap(10)]);
    // About a thousand bytes of log for each connection: far more than the ring holds.
    for _ in 0..2_000 {
        let (mut client, mut server) = relay.pair();
        client.run(&[Fin]);
        server.run(&[ReadAll, Fin]);
    }
    both(&mut client, &[Swap(100_000)], &mut server, &[Swap(100_000)]);
    let mut lines = BufReader::new(reader).lines().map(Result::unwrap).filter(|line| !line.is_empty());
    let told = lines.find(|line| line.contains("dropped=")).expect("the log continues");
    let count: u64 = told.rsplit('=').next().unwrap().parse().unwrap();
    assert!(told.contains("WARN  seaprox log lines dropped") && count > 0, "{told}");
    // All later lines are complete again.
    both(&mut client, &[Fin, ReadAll], &mut server, &[ReadAll, Fin]);
    assert!(lines.any(|line| line.contains("closed") && line.contains("sent=100010")));
    relay.seaprox.signal(libc::SIGTERM);
    assert_eq!(lines.filter(|line| line.contains("draining")).count(), 1, "the log has its last line");
    assert_eq!(relay.seaprox.wait(SOON).code(), Some(0));
}

/// Standard output and error are often one pipe, whose reader may have stopped.
#[test]
fn a_full_log_pipe_does_not_block_the_exit() {
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
fn a_log_that_cannot_be_written_ends_no_connection() {
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

#[test]
fn sigquit_drains_and_sigusr1_logs_the_status() {
    let mut relay = Relay::start(&["-q"]);
    let (mut client, mut server) = relay.pair();
    both(&mut client, &[Swap(10)], &mut server, &[Swap(10)]);
    relay.seaprox.signal(libc::SIGUSR1);
    let target = relay.listener.local_addr().unwrap();
    relay.seaprox.wait_for_log(&["INFO  seaprox::status seaprox ", &format!(" pid {}", relay.seaprox.pid())]);
    relay.seaprox.wait_for_log(&["seaprox::status", "connections 1 of "]);
    relay.seaprox.wait_for_log(&["seaprox::status", "static[ipv4[", &format!("->ipv4[{target}]]"), "established"]);
    relay.seaprox.signal(libc::SIGQUIT);
    let port = relay.addr().port();
    kit::until("the port is closed", || !kit::program::is_listening(port));
    both(&mut client, &[Swap(100_000), Fin, ReadAll], &mut server, &[Swap(100_000), ReadAll, Fin]);
    assert_eq!(relay.seaprox.wait(SOON).code(), Some(0));
}

/// Frames of a link are logged at trace, and single targets have levels of their own (BS-13).
#[test]
fn trace_logs_the_frames_of_a_link_without_their_payload() {
    let scratch = Scratch::new();
    let secret = scratch.write("secret", "a secret of the two nodes in this test\n");
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let far = Seaprox::start(&["link", "--listen", "127.0.0.1:0", "--secret", &secret]);
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = server.local_addr().unwrap().to_string();
    let args = ["static", "--listen", "127.0.0.1:0", "--to", &to, "--via", &far.listens(0), "--secret", &secret];
    let start = |more: &[&str], levels: &str| {
        Seaprox::start_with(&[&args, more].concat(), |command| _ = command.env("SEAPROX_LOG", levels))
    };
    for (near, has_others) in [(start(&["-vv"], ""), true), (start(&[], "warn,seaprox::link::frame=trace"), false)] {
        let mut client = Peer::connect(near.addr(0));
        client.run(&[Put(b"a word that is nobody's business")]);
        let mut behind = Peer::accept(&server);
        behind.run(&[Take(b"a word that is nobody's business"), Fin]);
        client.run(&[ReadAll, Fin]);
        near.wait_for_log(&["TRACE seaprox::link::frame sent kind=OPEN id=", &format!("place={to}")]);
        near.wait_for_log(&["TRACE seaprox::link::frame received kind=OPEN_RESULT id="]);
        near.wait_for_log(&["TRACE seaprox::link::frame sent kind=DATA id=", "bytes=40"]);
        near.wait_until_idle();
        assert_eq!(near.count_log(&["sent kind=OPEN ", &format!("place={to}")]), 1);
        assert!(!near.log().concat().contains("business"), "{:?}", near.log());
        assert_eq!(near.count_log(&[" mio"]), 0, "{:?}", near.log());
        assert_eq!(near.count_log(&["seaprox::connection"]) > 0, has_others);
    }
}

#[test]
fn a_wrong_log_level_is_named_with_the_expected_form() {
    for (levels, word) in [
        ("seaprox::relay=trace", "SEAPROX_LOG: log target \"seaprox::relay\": expected one of seaprox, seaprox::conn"),
        ("seaprox::lnik=debug", "did you mean seaprox::link?"),
        ("saeprox::link=trace", "SEAPROX_LOG: log target \"saeprox::link\": expected one of"),
        ("loud", "level \"loud\": expected off, error, warn, info, debug or trace, or TARGET=LEVEL"),
    ] {
        let ran = run_with(&["socks", "--listen", "127.0.0.1:0"], b"", |it| _ = it.env("SEAPROX_LOG", levels));
        assert_eq!((ran.code, ran.err.lines().count()), (Some(2), 1), "{ran:?}");
        assert!(ran.err.contains(word), "{}", ran.err);
    }
    let levels = std::ffi::OsStr::from_bytes(b"seaprox=trace\xff");
    let ran = run_with(&["socks", "--listen", "127.0.0.1:99999"], b"", |it| _ = it.env("SEAPROX_LOG", levels));
    assert_eq!((ran.code, ran.err.lines().count()), (Some(2), 1), "{ran:?}");
    assert!(ran.err.contains(": expected UTF-8"), "{}", ran.err);
}

/// The manual's table of targets has all targets of the program.
#[test]
fn the_manual_lists_all_log_targets() {
    let manual = include_str!("../../README.md");
    let source = include_str!("../../proxies/process/logging/filter.rs");
    let table = source.split("TARGETS: &[(&str, &str)] = &[").nth(1).and_then(|rest| rest.split("];").next()).unwrap();
    let targets: Vec<_> = table.split("(\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert!(targets.contains(&"seaprox::link::frame"));
    for target in targets {
        assert!(manual.contains(&format!("| `{target}` |")), "{target}");
    }
}

/// Starts `seaprox ARGS` with a file as its stderr, which is a stream of the journal if `is_journal`. Returns what it wrote.
fn logged(args: &[&str], is_journal: bool) -> String {
    use std::os::unix::fs::MetadataExt as _;
    let scratch = Scratch::new();
    let file = File::create(scratch.file("err")).unwrap();
    let metadata = file.metadata().unwrap();
    let inode = metadata.ino() + u64::from(!is_journal);
    let touch = |command: &mut std::process::Command| {
        command.stderr(file.try_clone().unwrap()).env("JOURNAL_STREAM", format!("{}:{inode}", metadata.dev()));
    };
    let mut seaprox = Seaprox::spawn(args, touch);
    if !args.contains(&"127.0.0.1:x") {
        seaprox.addr(0);
        seaprox.signal(libc::SIGHUP);
        kit::until("the reload is logged", || std::fs::read_to_string(scratch.file("err")).unwrap().contains("reload"));
        seaprox.signal(libc::SIGTERM);
    }
    seaprox.wait(kit::LATE);
    std::fs::read_to_string(scratch.file("err")).unwrap()
}

#[test]
fn in_a_journal_lines_begin_with_their_level_and_have_no_time() {
    let args = ["socks", "--listen", "127.0.0.1:0", "-v"];
    let journal = logged(&args, true);
    assert!(journal.lines().any(|line| line.starts_with("<6>seaprox::process draining timeout=30s")), "{journal}");
    assert!(journal.lines().all(|line| line.starts_with("<6>seaprox") || line.starts_with("<7>seaprox")), "{journal}");
    let journal = logged(&[&args[..], &["--log-format", "json"]].concat(), true);
    assert!(journal.lines().all(|line| line.starts_with("<6>{\"") || line.starts_with("<7>{\"")), "{journal}");
    let other = logged(&args, false);
    assert!(other.lines().all(|line| line.starts_with("20") && line.contains("Z ")), "{other}");
    let wrong = logged(&["socks", "--listen", "127.0.0.1:x"], true);
    assert!(!wrong.is_empty() && wrong.lines().all(|line| line.starts_with("<3>")), "{wrong}");
}
