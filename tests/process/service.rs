//! The process under a service manager: notices to the manager, and sockets and intervals from it.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Instant;

use crate::kit::{self, LATE, START, Scratch, Seaprox};

/// The socket of a service manager.
struct Manager {
    socket: UnixDatagram,
    path: String,
    _scratch: Scratch,
}

impl Manager {
    fn start() -> Manager {
        let scratch = Scratch::new();
        let path = scratch.file("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        Manager { socket, path, _scratch: scratch }
    }

    /// Makes a command notify this manager.
    fn of(&self, command: &mut Command) {
        command.env("NOTIFY_SOCKET", &self.path).env_remove("WATCHDOG_USEC").env_remove("WATCHDOG_PID");
    }

    /// Returns the next message that has this line.
    #[track_caller]
    fn wait_for(&self, line: &str) -> String {
        let (since, mut seen) = (Instant::now(), Vec::new());
        while let Some(left) = START.checked_sub(since.elapsed()).filter(|left| !left.is_zero()) {
            self.socket.set_read_timeout(Some(left)).expect("a socket");
            let mut buf = [0; 4096];
            let Ok(count) = self.socket.recv(&mut buf) else { break };
            let message = String::from_utf8_lossy(&buf[..count]).into_owned();
            if message.lines().any(|one| one == line) {
                return message;
            }
            seen.push(message);
        }
        panic!("no message with {line}: {seen:?}")
    }
}

#[test]
fn the_service_manager_is_told_of_the_start_of_reloads_and_of_the_stop() {
    let manager = Manager::start();
    let mut seaprox = Seaprox::spawn(&["socks", "--listen", "127.0.0.1:0"], |command| manager.of(command));
    let ready = manager.wait_for("READY=1");
    assert!(ready.contains("STATUS=Listening on 1 address\n"), "{ready}");
    seaprox.addr(0);
    for _ in 0..2 {
        seaprox.signal(libc::SIGHUP);
        let reloading = manager.wait_for("RELOADING=1");
        let time = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
        assert!(time.is_some_and(|time| time.parse::<u64>().is_ok_and(|time| time > 0)), "{reloading}");
        manager.wait_for("READY=1");
    }
    seaprox.signal(libc::SIGTERM);
    let stopping = manager.wait_for("STOPPING=1");
    assert!(stopping.contains("STATUS=Draining for at most 30s\nEXTEND_TIMEOUT_USEC=40000000\n"), "{stopping}");
    assert_eq!(seaprox.wait(LATE).code(), Some(0));
}

#[test]
fn a_process_that_cannot_start_tells_the_service_manager_why() {
    let manager = Manager::start();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("an address").to_string();
    let mut seaprox = Seaprox::spawn(&["socks", "--listen", &addr], |command| manager.of(command));
    assert_eq!(seaprox.wait(LATE).code(), Some(69));
    let said = seaprox.log().join("\n");
    manager.wait_for(&format!("STATUS={said}"));
}

#[test]
fn the_watchdog_is_told_again_and_again_and_only_of_the_process_that_it_is_for() {
    let manager = Manager::start();
    let watched = |command: &mut Command| {
        manager.of(command);
        command.env("WATCHDOG_USEC", "200000");
    };
    let seaprox = Seaprox::spawn(&["socks", "--listen", "127.0.0.1:0", "--threads", "2"], watched);
    (0..3).for_each(|_| _ = manager.wait_for("WATCHDOG=1"));
    drop(seaprox);
    let manager = Manager::start();
    let other = |command: &mut Command| {
        manager.of(command);
        command.env("WATCHDOG_USEC", "20000").env("WATCHDOG_PID", "1");
    };
    let mut seaprox = Seaprox::spawn(&["socks", "--listen", "127.0.0.1:0"], other);
    manager.wait_for("READY=1");
    seaprox.signal(libc::SIGTERM);
    assert_eq!(seaprox.wait(LATE).code(), Some(0));
    let mut buf = [0; 4096];
    manager.socket.set_nonblocking(true).expect("a socket");
    while let Ok(count) = manager.socket.recv(&mut buf) {
        assert!(!buf[..count].starts_with(b"WATCHDOG"));
    }
}

#[test]
fn a_manager_with_an_abstract_socket_is_told_and_one_that_is_gone_changes_nothing() {
    use std::os::linux::net::SocketAddrExt as _;
    let name = format!("seaprox-test-{}", std::process::id());
    let addr = std::os::unix::net::SocketAddr::from_abstract_name(&name).expect("a name");
    let manager = Manager {
        socket: UnixDatagram::bind_addr(&addr).expect("a socket"),
        path: format!("@{name}"),
        _scratch: Scratch::new(),
    };
    let _seaprox = Seaprox::spawn(&["socks", "--listen", "127.0.0.1:0"], |command| manager.of(command));
    manager.wait_for("READY=1");
    let gone = |command: &mut Command| _ = command.env("NOTIFY_SOCKET", "/nonexistent/notify");
    let seaprox = Seaprox::start_with(&["socks", "--listen", "127.0.0.1:0"], gone);
    seaprox.wait_for_log(&["NOTIFY_SOCKET cannot be used", "/nonexistent/notify"]);
}

#[test]
fn the_file_of_a_unix_socket_has_the_mode_and_the_owner_of_the_options() {
    use std::os::unix::fs::MetadataExt as _;
    let scratch = Scratch::new();
    let listen = format!("unix:{}", scratch.file("in"));
    let mut args = vec!["socks", "--listen", &listen, "--unix-mode", "0666"];
    if kit::is_root() {
        args.extend(["--unix-owner", "nobody:daemon"]);
    }
    let seaprox = Seaprox::start(&args);
    let file = std::fs::metadata(scratch.file("in")).expect("a socket");
    assert_eq!(file.mode() & 0o777, 0o666);
    if kit::is_root() {
        assert_eq!((file.uid(), file.gid()), (65_534, 1));
    }
    drop(seaprox);
    // A killed process has left the file behind, and its successor replaces it.
    let _seaprox = Seaprox::start(&args);
    for (option, value, expected) in [
        ("--unix-mode", "rw", "expected an octal mode from 0000 to 0777, such as 0660"),
        ("--unix-owner", "a:b:c", "expected USER, USER:GROUP or :GROUP"),
    ] {
        let ran = kit::run(&["socks", option, value]);
        assert_eq!(ran.code, Some(2));
        assert!(ran.err.contains(&format!("{option} \"{value}\": {expected}")), "{}", ran.err);
    }
    let ran =
        kit::run(&["socks", "--listen", &format!("unix:{}", scratch.file("other")), "--unix-owner", "no-such-user"]);
    assert_eq!(ran.code, Some(69));
    assert!(ran.err.contains("this host has no user \"no-such-user\""), "{}", ran.err);
}
