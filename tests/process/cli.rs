//! The command line and the signals: usage errors, help, exit codes, listening addresses, stopping (TT-21, TN-H2,
//! SP-37).

use crate::kit;

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use kit::Step::*;
use kit::peer::both;
use kit::{Peer, Relay, Scratch, Seaprox, run, run_with};

/// Checks that a command line gives one line on stderr with these words, nothing on stdout, and exit code 2.
#[track_caller]
fn assert_usage(args: &[&str], words: &[&str]) {
    let ran = run(args);
    assert_eq!((ran.code, ran.out.len()), (Some(2), 0), "{args:?}: {ran:?}");
    assert_eq!(ran.err.trim_end().lines().count(), 1, "{}", ran.err);
    for word in words {
        assert!(ran.err.contains(word), "{word:?} in {:?}", ran.err);
    }
}

#[test]
fn a_wrong_argument_is_named_with_the_expected_form() {
    assert_usage(&[], &["expected a command", "socks"]);
    assert_usage(&["sokcs"], &["sokcs", "did you mean socks?"]);
    assert_usage(&["stat"], &["did you mean static or status?"]);
    assert_usage(&["socks", "--lisen", "1080"], &["--lisen", "did you mean --listen?"]);
    assert_usage(&["socks", "--listen"], &["--listen", "expected ADDR"]);
    assert_usage(&["socks", "--listen", "127.0.0.1:99999"], &["--listen", "127.0.0.1:99999", "expected"]);
    assert_usage(&["socks", "--connect-timeout", "5"], &["--connect-timeout", "\"5\"", "expected", "30s"]);
    assert_usage(&["socks", "--buffer", "12"], &["--buffer", "\"12\"", "expected"]);
    assert_usage(&["socks", "--buffer", "1B"], &["--buffer", "expected"]);
    assert_usage(&["socks", "--threads", "0"], &["--threads", "\"0\"", "expected a number from 1"]);
    assert_usage(&["socks", "--cpu", "2-1"], &["--cpu", "\"2-1\"", "0,4-7"]);
    assert_usage(&["socks", "--cpu", "1024"], &["--cpu", "from 0 to 1023"]);
    assert_usage(&["socks", "--listen", "0", "--cpu", "0,0", "--threads", "2"], &["--cpu", "once"]);
    assert_usage(&["socks", "--listen", "0", "--cpu", "0,1"], &["--cpu", "2 processors", "--threads"]);
    assert_usage(&["socks", "--prefer", "ipv5"], &["--prefer", "ipv5", "ipv4 or ipv6"]);
    assert_usage(&["socks", "--allow", "10.0.0.0/33"], &["--allow", "10.0.0.0/33", "expected"]);
    assert_usage(&["socks", "--to", "x:1"], &["--to", "option of static"]);
    assert_usage(&["socks", "extra"], &["unexpected", "extra"]);
    assert_usage(&["socks", "--threads", "1", "--threads", "2"], &["--threads", "once"]);
    assert_usage(&["socks", "--listen", "0", "--threads", "3", "--max-connections", "2"], &["--threads"]);
    assert_usage(&["socks", "--listen", "0", "--buffer", "1MiB", "--buffer-memory", "512KiB"], &["--buffer-memory"]);
    assert_usage(
        &["socks", "--listen", "0", "--threads", "3", "--buffer", "1MiB", "--buffer-memory", "2MiB"],
        &["--buffer-memory", "--threads"],
    );
    assert_usage(&["static", "--listen", "9000"], &["--to"]);
    assert_usage(
        &["static", "--listen", "1", "--listen", "2", "--listen", "3", "--to", "x:1", "--to", "y:1"],
        &["3", "2"],
    );
    assert_usage(&["static", "--listen", "3000-3010", "--to", "x:1-5"], &["11", "5"]);
    assert_usage(&["static", "--listen", "1", "--to", "x"], &["--to", "\"x\"", "expected"]);
    assert_usage(&["cat"], &["expected HOST PORT"]);
    assert_usage(&["cat", "localhost", "http"], &["PORT", "http", "expected a number"]);
    assert_usage(&["completions", "csh"], &["csh", "bash"]);
    assert_usage(&["ctl", "relaod"], &["command \"relaod\"", "did you mean reload?"]);
    assert_usage(&["socks", "--log-format", "xml"], &["--log-format", "xml", "text or json"]);
}

#[test]
fn help_and_version_go_to_stdout() {
    for args in [&["-h"][..], &["--help"], &["help"], &["socks", "-h"], &["static", "--help"], &["help", "http"]] {
        let ran = run(args);
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{args:?}");
        assert!(String::from_utf8(ran.out).unwrap().contains("Usage: seaprox"));
    }
    let text = |args: &[&str]| String::from_utf8(run(args).out).unwrap();
    assert!(text(&["socks", "--help"]).contains("Examples:") && !text(&["socks", "-h"]).contains("Examples:"));
    assert_eq!(text(&["-V"]), format!("seaprox {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(text(&["--version"]), text(&["socks", "-V"]));
    assert!(text(&["man"]).starts_with(".TH SEAPROX 1"));
    assert!(text(&["completions", "bash"]).contains("complete"));
    for shell in ["zsh", "fish"] {
        assert!(
            text(&["completions", shell]).contains("--handshake-timeout")
                || text(&["completions", shell]).contains("handshake-timeout")
        );
    }
}

#[test]
fn bash_accepts_its_completion_script() {
    if kit::has("bash") {
        let script = run(&["completions", "bash"]).out;
        let mut bash = std::process::Command::new("bash");
        bash.args(["-n", "/dev/stdin"]).stdin(std::process::Stdio::piped());
        let ran = kit::seaprox::run_command(bash, &script);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
    }
}

#[test]
fn an_unavailable_address_ends_with_69_and_a_wrong_file_with_78() {
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = busy.local_addr().unwrap().to_string();
    for threads in ["1", "3"] {
        let ran = run(&["socks", "--threads", threads, "--listen", &addr]);
        assert_eq!(ran.code, Some(69), "{ran:?}");
        assert!(ran.err.contains(&addr) && ran.err.contains("in use") && ran.err.lines().count() == 1, "{}", ran.err);
    }
    let mut first = Seaprox::start(&["socks", "--threads", "2", "--listen", "127.0.0.1:0"]);
    let ran = run(&["socks", "--threads", "2", "--listen", &first.listens(0)]);
    assert_eq!(ran.code, Some(69), "two processes must not share a port: {ran:?}");
    assert!(first.runs());
    assert_eq!(run(&["socks", "--listen", "192.0.2.1:1080"]).code, Some(69));
    assert_eq!(run(&["socks", "--listen", "unix:/no/such/directory/x"]).code, Some(69));
    let scratch = Scratch::new();
    for content in ["", "no colon\n", "joe:x\njoe:y\n"] {
        let users = scratch.write("users", content);
        let ran = run(&["socks", "--listen", "127.0.0.1:0", "--users", &users]);
        assert_eq!((ran.code, ran.out.len()), (Some(78), 0), "{ran:?}");
        assert!(ran.err.contains(&users) && ran.err.starts_with("seaprox socks: --users: "), "{}", ran.err);
    }
    let ran = run(&["http", "--listen", "127.0.0.1:0", "--users", &scratch.file("none")]);
    assert_eq!(ran.code, Some(78));
    let ran = run(&["status", "--status", &format!("unix:{}", scratch.file("none"))]);
    assert_eq!(ran.code, Some(69), "{ran:?}");
}

#[test]
fn a_full_stderr_changes_neither_the_work_nor_the_exit_code() {
    let scratch = Scratch::new();
    let (listen, keys) = (format!("unix:{}", scratch.file("socket")), scratch.file("keys"));
    let start = |args: &[&str]| {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = kit::seaprox::command(args);
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).stderr(full).spawn().unwrap()
    };
    for (args, code) in [
        (&["sokcs"][..], 2),
        (&["status", "--status", &listen], 69),
        (&["http", "--users", &scratch.file("none")], 78),
        (&["keygen", "--config-dir", &keys], 0),
    ] {
        assert_eq!(start(args).wait().unwrap().code(), Some(code), "{args:?}");
    }
    let mut cat = start(&["cat", "-l", &listen]);
    kit::until("the process listens", || {
        UnixStream::connect(scratch.file("socket")).is_ok() || cat.try_wait().unwrap().is_some()
    });
    assert_eq!(cat.wait().unwrap().code(), Some(0));
}

/// The process numbers alone do not show which process is which.
#[test]
fn several_processes_are_listed_with_their_commands_and_addresses() {
    let scratch = Scratch::new();
    let start = |args: &[&str]| {
        let mut command = kit::seaprox::command(args);
        command.env("XDG_RUNTIME_DIR", scratch.file("")).stdin(std::process::Stdio::null());
        Running(command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().unwrap())
    };
    let (mut socks, mut relay) =
        (start(&["socks", "--listen", "127.0.0.1:0"]), start(&["static", "--listen", "127.0.0.1:0", "--to", "a:1"]));
    let listens = |running: &mut Running| {
        let mut line = String::new();
        BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        line.trim_end().strip_prefix("listening ").unwrap().to_owned()
    };
    let (socks_at, relay_at) = (listens(&mut socks), listens(&mut relay));
    let ran = run_with(&["status"], b"", |command| _ = command.env("XDG_RUNTIME_DIR", scratch.file("")));
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains("several processes are running; expected a PID:\n"), "{}", ran.err);
    for line in [format!("  {} {socks_at}", socks.0.id()), format!("  {} {relay_at}", relay.0.id())] {
        assert!(ran.err.lines().any(|said| said == line), "{line:?} in {}", ran.err);
    }
}

/// A child process that is killed at the end of its test.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_status_socket_that_cannot_be_created_is_named() {
    let mut command = kit::seaprox::command(&["socks", "--listen", "127.0.0.1:0", "--status", "unix:/no/such/place"]);
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        line.contains("WARN") && line.contains("the status socket cannot be created socket=/no/such/place error="),
        "{line}"
    );
}

#[test]
fn a_bare_port_is_loopback_and_a_colon_means_all_addresses() {
    let seaprox = Seaprox::start(&["socks", "--listen", "0"]);
    let (four, six) = (seaprox.addr(0), seaprox.addr(1));
    assert!(four.ip().is_loopback() && six.ip().is_loopback() && four.is_ipv4() && six.is_ipv6(), "{four} {six}");
    assert_eq!(four.port(), six.port());
    drop((TcpStream::connect(four).unwrap(), TcpStream::connect(six).unwrap()));
    for listen in [":0", "*:0"] {
        let seaprox = Seaprox::start(&["socks", "--listen", listen]);
        let all = seaprox.addr(0);
        assert!(all.ip().is_unspecified() && seaprox.out().len() == 1, "{all}");
        for host in ["127.0.0.1", "127.0.0.9", "::1"] {
            TcpStream::connect(SocketAddr::new(host.parse().unwrap(), all.port())).unwrap();
        }
    }
}

#[test]
fn the_default_listening_addresses_are_loopback() {
    if !kit::has_namespaces() {
        return;
    }
    kit::names::isolated("", |_| {
        for (args, expected) in [
            (&["static", "--to", "127.0.0.1:22"][..], "127.0.0.1:55555"),
            (&["socks"], "127.0.0.1:1080"),
            (&["http"], "127.0.0.1:8080"),
        ] {
            let seaprox = Seaprox::start(args);
            assert_eq!((seaprox.listens(0).as_str(), seaprox.out().len()), (expected, 1));
        }
    });
}

#[test]
fn a_listener_accepts_only_its_address_family() {
    for (listen, four, six) in [("0.0.0.0:0", true, false), ("[::]:0", false, true), ("[::1]:0", false, true)] {
        let seaprox = Seaprox::start(&["socks", "--listen", listen]);
        let port = seaprox.addr(0).port();
        assert_ne!(port, 0);
        assert_eq!(TcpStream::connect(("127.0.0.1", port)).is_ok(), four, "{listen}");
        assert_eq!(TcpStream::connect(("::1", port)).is_ok(), six, "{listen}");
    }
    let seaprox = Seaprox::start(&["socks", "--only", "ipv4", "--listen", "localhost:0"]);
    assert!(seaprox.addr(0).ip().is_loopback());
}

#[test]
fn a_listening_unix_socket_replaces_a_stale_one_and_is_removed_at_the_end() {
    let scratch = Scratch::new();
    let (outer, inner) = (scratch.file("outer"), scratch.file("inner"));
    let server = UnixListener::bind(&inner).unwrap();
    kit::stale_socket(&outer);
    let (listen, to) = (format!("unix:{outer}"), format!("unix:{inner}"));
    let mut seaprox = Seaprox::start(&["static", "--listen", &listen, "--to", &to]);
    assert_eq!(seaprox.listens(0), listen);
    let mut client = Peer::connect_unix(outer.as_ref());
    let socket: socket2::Socket = std::os::fd::OwnedFd::from(server.accept().unwrap().0).into();
    both(&mut client, &[Swap(100_000), Fin, ReadAll], &mut Peer::of(socket, false), &[Swap(100_000), Fin, ReadAll]);
    seaprox.wait_for_log(&[" closed ", &format!("conn=static[unix[]->unix[{inner}]]")]);
    // A socket with a listener is not replaced, and neither is a file that is no socket.
    assert_eq!(run(&["static", "--listen", &listen, "--to", &to]).code, Some(69));
    let file = scratch.write("file", "precious");
    assert_eq!(run(&["static", "--listen", &format!("unix:{file}"), "--to", &to]).code, Some(69));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    // The check if the socket has a listener was a client too, which waits for the server.
    drop(server);
    seaprox.signal(libc::SIGTERM);
    assert_eq!(seaprox.wait(kit::SOON).code(), Some(0));
    assert!(!std::path::Path::new(&outer).exists(), "the process must remove its socket");
}

/// A process that drains must not remove the socket file of its successor at its end.
#[test]
fn a_draining_process_leaves_the_unix_socket_of_its_successor() {
    let scratch = Scratch::new();
    let (path, server) = (scratch.file("socket"), TcpListener::bind("127.0.0.1:0").unwrap());
    let (listen, to) = (format!("unix:{path}"), server.local_addr().unwrap().to_string());
    let mut first = Seaprox::start(&["static", "--listen", &listen, "--to", &to]);
    let client = Peer::connect_unix(path.as_ref());
    let held = Peer::accept(&server);
    first.signal(libc::SIGTERM);
    first.wait_for_log(&["draining"]);
    kit::until("the socket is closed", || UnixStream::connect(&path).is_err());
    let next_server = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = next_server.local_addr().unwrap().to_string();
    let _second = Seaprox::start(&["static", "--listen", &listen, "--to", &to]);
    // The checks if it listens were clients too, which wait for the server.
    drop((client, held, server));
    assert_eq!(first.wait(kit::SOON).code(), Some(0));
    let mut client = Peer::connect_unix(path.as_ref());
    both(&mut client, &[Swap(10)], &mut Peer::accept(&next_server), &[Swap(10)]);
}

#[test]
fn each_listener_of_static_has_its_own_target() {
    let targets: Vec<_> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let to: Vec<_> = targets.iter().map(|target| target.local_addr().unwrap().to_string()).collect();
    let mut args = vec!["static"];
    for to in &to {
        args.extend(["--listen", "127.0.0.1:0", "--to", to]);
    }
    let seaprox = Seaprox::start(&args);
    for (index, target) in targets.iter().enumerate() {
        let mut client = Peer::connect(seaprox.addr(index));
        both(&mut client, &[Swap(10)], &mut Peer::accept(target), &[Swap(10)]);
    }
    let one = Seaprox::start(&["static", "--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--to", &to[0]]);
    for index in 0..2 {
        let mut client = Peer::connect(one.addr(index));
        both(&mut client, &[Swap(10)], &mut Peer::accept(&targets[0]), &[Swap(10)]);
    }
}

#[test]
fn a_range_of_ports_goes_to_a_range_of_targets() {
    // Three free ports in a row, for the listeners and for the targets.
    let (targets, first) = neighbours();
    let listen = kit::program::free_ports(3);
    let to = format!("127.0.0.1:{first}-{}", first + 2);
    let range = format!("127.0.0.1:{listen}-{}", listen + 2);
    let seaprox = Seaprox::start(&["static", "--listen", &range, "--to", &to]);
    for (index, target) in targets.iter().enumerate() {
        let addr = seaprox.addr(index);
        assert_eq!(addr.port(), listen + index as u16);
        both(&mut Peer::connect(addr), &[Swap(10)], &mut Peer::accept(target), &[Swap(10)]);
    }
}

fn neighbours() -> (Vec<TcpListener>, u16) {
    for _ in 0..1000 {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        let others: Vec<_> =
            (1..3).map_while(|step| TcpListener::bind(("127.0.0.1", port.checked_add(step)?)).ok()).collect();
        if others.len() == 2 {
            return (std::iter::once(first).chain(others).collect(), port);
        }
    }
    panic!("no three free ports in a row");
}

#[test]
fn a_flag_overrides_the_environment_which_overrides_the_default() {
    let limit = |seaprox: &Seaprox| seaprox.figure("/limits/connections");
    let with = |args: &[&str]| {
        let all = [&["socks", "--listen", "127.0.0.1:0"], args].concat();
        Seaprox::start_with(&all, |command| _ = command.env("SEAPROX_MAX_CONNECTIONS", "33"))
    };
    assert_eq!(limit(&with(&[])), 33);
    assert_eq!(limit(&with(&["--max-connections", "44"])), 44);
    let ran = run_with(&["socks", "--listen", "127.0.0.1:0"], b"", |command| _ = command.env("SEAPROX_THREADS", "x"));
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains("SEAPROX_THREADS \"x\""), "{}", ran.err);
    let seaprox = Seaprox::start_with(&["http"], |command| _ = command.env("SEAPROX_LISTEN", "127.0.0.1:0"));
    assert!(seaprox.addr(0).port() != 0);
}

#[test]
fn sigterm_lets_transfers_finish_and_refuses_new_clients() {
    let mut relay = Relay::start(&[]);
    let (mut client, mut server) = relay.pair();
    both(&mut client, &[Swap(10)], &mut server, &[Swap(10)]);
    relay.seaprox.signal(libc::SIGTERM);
    relay.seaprox.wait_for_log(&["draining"]);
    let addr = relay.addr();
    kit::until("the port is closed", || !kit::program::is_listening(addr.port()));
    assert!(TcpStream::connect(addr).is_err());
    both(&mut client, &[Swap(3_000_000), Fin, ReadAll], &mut server, &[Swap(3_000_000), ReadAll, Fin]);
    assert_eq!(relay.seaprox.wait(Duration::from_secs(5)).code(), Some(0));
    assert!(relay.closing_line().contains("reason=source_fin end=graceful"), "{}", relay.closing_line());
}

#[test]
fn a_drain_ends_at_its_timeout_or_at_a_second_sigterm() {
    for (options, second) in [(&["--drain-timeout", "500ms"][..], false), (&[], true)] {
        let mut relay = Relay::start(options);
        let (mut client, mut server) = relay.pair();
        both(&mut client, &[Swap(10)], &mut server, &[Swap(10)]);
        relay.seaprox.signal(libc::SIGTERM);
        relay.seaprox.wait_for_log(&["draining"]);
        let since = Instant::now();
        if second {
            relay.seaprox.signal(libc::SIGTERM);
        }
        assert_eq!(relay.seaprox.wait(Duration::from_secs(5)).code(), Some(0));
        assert!(second || since.elapsed() > Duration::from_millis(300), "{:?}", since.elapsed());
        client.run(&[ReadReset]);
        server.run(&[ReadReset]);
        assert!(relay.closing_line().contains("reason=drained end=aborted by=proxy"), "{}", relay.closing_line());
    }
}

#[test]
fn sigterm_and_sigint_stop_an_idle_process_at_once() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        for options in [&[][..], &["--threads", "3"]] {
            let mut seaprox = Seaprox::start(&[&["socks", "--listen", "127.0.0.1:0"], options].concat());
            seaprox.signal(signal);
            assert_eq!(seaprox.wait(Duration::from_secs(3)).code(), Some(0));
        }
    }
    let mut relay = Relay::start(&[]);
    let (mut client, _server) = relay.pair();
    relay.seaprox.signal(libc::SIGINT);
    assert_eq!(relay.seaprox.wait(Duration::from_secs(3)).code(), Some(0));
    client.run(&[ReadReset]);
}

#[test]
fn sighup_reloads_the_users_and_an_invalid_file_changes_nothing() {
    let scratch = Scratch::new();
    let users = scratch.write("users", "joe:old\n");
    let mut seaprox = Seaprox::start(&["socks", "--listen", "127.0.0.1:0", "--users", &users]);
    let is_let_in = |password: &[u8]| {
        let mut client = Peer::connect(seaprox.addr(0));
        let login = [b"\x01\x03joe", &[password.len() as u8][..], password].concat();
        client.run(&[Put(b"\x05\x01\x02"), Take(b"\x05\x02"), Put(&login)]);
        client.some().unwrap() == [1, 0]
    };
    assert!(is_let_in(b"old") && !is_let_in(b"new"));
    scratch.write("users", "joe:new\n");
    seaprox.signal(libc::SIGHUP);
    seaprox.wait_for_log(&["reloaded"]);
    assert!(!is_let_in(b"old") && is_let_in(b"new"));
    scratch.write("users", "nonsense\n");
    seaprox.signal(libc::SIGHUP);
    seaprox.wait_for_log(&["ERROR", "the users file cannot be read again", "users"]);
    assert!(is_let_in(b"new"));
    assert!(seaprox.runs());
}

#[test]
fn the_log_can_be_json_and_quiet() {
    let relay = Relay::start(&["--log-format", "json"]);
    let (mut client, mut server) = relay.pair();
    both(&mut client, &[Send(3), Fin, ReadAll], &mut server, &[ReadAll, Fin]);
    let line = relay.seaprox.wait_for_log(&["\"closed\""]);
    let record: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&record["reason"], &record["sent"]), (&"source_fin".into(), &3.into()));
    assert_eq!((&record["level"], &record["target"]), (&"info".into(), &"seaprox::connection".into()));
    let relay = Relay::start(&["-q"]);
    let (mut client, mut server) = relay.pair();
    both(&mut client, &[Fin, ReadAll], &mut server, &[ReadAll, Fin]);
    relay.seaprox.wait_until_idle();
    assert_eq!(relay.seaprox.log(), Vec::<String>::new());
}
