//! Listening sockets that a service manager passes to the process (`fd:NAME`).

use crate::kit;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::thread;

use kit::Step::{Fin, ReadAll, Swap};
use kit::link::Keys;
use kit::peer::both;
use kit::seaprox::BINARY;
use kit::socks::connect5;
use kit::{LATE, Peer, SOON, Scratch, Seaprox};

/// Starts `seaprox ARGS` with these sockets as descriptors from 3 on, as systemd does.
fn spawn(args: &[&str], names: &str, sockets: &[OwnedFd]) -> Seaprox {
    // The shell knows the process id that seaprox will have.
    let line = [&["-c", "LISTEN_PID=$$ exec \"$0\" \"$@\"", BINARY], args].concat();
    let fds: Vec<i32> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
    let touch = |command: &mut Command| {
        command.env("LISTEN_FDS", fds.len().to_string()).env("LISTEN_FDNAMES", names);
        let pass = move || {
            // Copies above all numbers first: a descriptor may have the number that another one gets.
            let mut high = [0; 8];
            for (fd, copy) in fds.iter().zip(&mut high) {
                *copy = unsafe { libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, 100) };
            }
            for (number, copy) in (3..).zip(&high[..fds.len()]) {
                if unsafe { libc::dup2(*copy, number) } < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        };
        // SAFETY: the function calls fcntl and dup2, and allocates nothing.
        unsafe { command.pre_exec(pass) };
    };
    Seaprox::spawn_binary("/bin/sh", &line, touch)
}

fn listener() -> (SocketAddr, OwnedFd) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    (listener.local_addr().expect("an address"), listener.into())
}

#[test]
fn listeners_take_the_sockets_of_their_names_and_all_loops_share_them() {
    let (to, scratch) = (TcpListener::bind("127.0.0.1:0").unwrap(), Scratch::new());
    let target = to.local_addr().unwrap().to_string();
    let (first, second, spare) = (listener(), listener(), listener());
    let unix = UnixListener::bind(scratch.file("in")).unwrap();
    let sockets = [first.1, unix.into(), spare.1, second.1];
    let args = [
        "static",
        "--threads",
        "3",
        "--max-connections",
        "6",
        "--listen",
        "fd:web",
        "--listen",
        "fd:local",
        "--to",
        &target,
    ];
    let seaprox = spawn(&args, "web:local:spare:web", &sockets);
    drop(sockets);
    let lines: Vec<String> = (0..3).map(|index| seaprox.listens(index)).collect();
    let local = format!("unix:{}", scratch.file("in"));
    assert_eq!(lines, [first.0.to_string(), second.0.to_string(), local]);
    seaprox.wait_for_log(&["WARN", "name=spare"]);
    assert_eq!(seaprox.count_log(&["passed a socket that no listener has"]), 1);
    let serve = |number: usize| {
        let mut client = match number % 3 {
            0 => Peer::connect(first.0),
            1 => Peer::connect(second.0),
            _ => Peer::connect_unix(scratch.file("in").as_ref()),
        };
        let mut server = Peer::accept(&to);
        both(&mut client, &[Swap(1_000)], &mut server, &[Swap(1_000)]);
        (client, server)
    };
    // Each loop has two of the six connections, so each has clients of the one socket.
    let held: Vec<_> = (0..6).map(|_| serve(0)).collect();
    drop(held);
    seaprox.wait_until_idle();
    for number in 0..30 {
        // A client whose turn brings it to a full loop is refused, so the one before it must have left.
        drop(serve(number));
        seaprox.wait_until_idle();
    }
    drop(seaprox);
    assert!(UnixStream::connect(scratch.file("in")).is_err(), "nobody listens any more");
    assert!(scratch.path().join("in").exists(), "the file belongs to the service manager");
}

#[test]
fn a_socket_of_another_name_or_kind_is_refused_with_the_reason() {
    let refused = |args: &[&str], names: &str, sockets: &[OwnedFd]| {
        let mut seaprox = spawn(args, names, sockets);
        assert_eq!(seaprox.wait(LATE).code(), Some(69));
        seaprox.log().join("\n")
    };
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let connected = TcpStream::connect(listener_that_stays().local_addr().unwrap()).unwrap();
    let file = File::open("/dev/null").unwrap();
    let sockets = [listener().1, udp.into(), connected.into(), file.into()];
    for (listen, words) in [
        ("fd:wep", "no socket with this name was passed to this process, but: web, udp, connected, file"),
        ("fd:udp", "the passed descriptor is no listening stream socket"),
        ("fd:connected", "the passed descriptor is no listening stream socket"),
        ("fd:file", "the passed descriptor is no socket"),
        ("udp:fd:web", "the passed descriptor is no UDP socket"),
        ("udp:fd:file", "the passed descriptor is no socket"),
    ] {
        let line = ["static", "--listen", listen, "--to", "127.0.0.1:9"];
        let said = refused(&line, "web:udp:connected:file", &sockets);
        assert!(said.contains(listen) && said.contains(words), "{said}");
    }
    let both = ["static", "--listen", "fd:web", "--tcp", "--udp", "--to", "127.0.0.1:9"];
    let said = refused(&both, "web:udp:connected:file", &sockets);
    assert!(said.contains("udp:fd:web") && said.contains("the passed descriptor is no UDP socket"), "{said}");
    let ran = kit::run(&["socks", "--listen", "udp:fd:web"]);
    assert!(ran.code == Some(2) && ran.err.contains("udp:fd:web"), "{:?} {}", ran.code, ran.err);
    let twice = ["static", "--listen", "fd:web", "--listen", "fd:web", "--to", "127.0.0.1:9"];
    let ran = kit::run(&twice);
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains("--listen \"fd:web\": expected each address once"), "{}", ran.err);
    let ran = kit::run_with(&["socks", "--listen", "fd:web"], b"", |command| {
        command.env("LISTEN_PID", "1").env("LISTEN_FDS", "1");
    });
    assert_eq!(ran.code, Some(69));
    assert!(ran.err.contains("no service manager has passed a socket to this process"), "{}", ran.err);
    let ran = kit::run(&["socks", "--listen", "fd:"]);
    assert_eq!(ran.code, Some(2), "{}", ran.err);
}

fn listener_that_stays() -> &'static TcpListener {
    Box::leak(Box::new(TcpListener::bind("127.0.0.1:0").expect("a port")))
}

/// A target that sends each datagram back, in a thread of its own. Returns its address.
fn echo() -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let mut buf = [0; 64];
        while let Ok((len, from)) = socket.recv_from(&mut buf) {
            let _ = socket.send_to(&buf[..len], from);
        }
    });
    addr
}

fn udp_socket(addr: &str) -> (SocketAddr, UdpSocket) {
    let socket = UdpSocket::bind(addr).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    (socket.local_addr().unwrap(), socket)
}

/// Takes the next datagram, which must be this one.
#[track_caller]
fn take(client: &UdpSocket, from: SocketAddr, payload: &[u8]) {
    let mut buf = [0; 64];
    let (len, sender) = client.recv_from(&mut buf).expect("a datagram");
    assert_eq!((&buf[..len], sender), (payload, from));
}

/// systemd gives all sockets of a unit one name, unless the unit says otherwise.
#[test]
fn a_listener_takes_the_passed_sockets_of_its_protocols() {
    let to = echo();
    let stream = listener();
    let (udp, udp6) = (udp_socket("127.0.0.1:0"), udp_socket("[::1]:0"));
    let sockets = [stream.1, udp.1.into(), udp6.1.into()];
    let start = |options: &[&str]| {
        let line = [&["static", "--threads", "2", "--listen", "fd:dns", "--to", &to][..], options].concat();
        spawn(&line, "dns:dns:dns", &sockets)
    };
    for options in [&["--tcp", "--udp"][..], &["--udp"], &[]] {
        let seaprox = start(options);
        let (has_tcp, has_udp) = (!options.contains(&"--udp") || options.contains(&"--tcp"), !options.is_empty());
        let mut lines = Vec::new();
        has_tcp.then(|| lines.push(stream.0.to_string()));
        has_udp.then(|| lines.extend([udp.0, udp6.0].map(|addr| format!("udp:{addr}"))));
        assert_eq!((0..lines.len()).map(|index| seaprox.listens(index)).collect::<Vec<_>>(), lines);
        if has_udp {
            for (at, local) in [(udp.0, "127.0.0.1:0"), (udp6.0, "[::1]:0")] {
                for payload in [b"one", b"two"] {
                    let (_, client) = udp_socket(local);
                    client.send_to(payload, at).unwrap();
                    take(&client, at, payload);
                }
            }
        }
        if !has_tcp {
            seaprox.wait_for_log(&["WARN", "passed a socket that no listener has", "name=dns"]);
        }
        if !has_udp {
            seaprox.wait_for_log(&["WARN", "passed a socket that no listener has", "name=udp:dns"]);
        }
        assert_eq!(seaprox.count_log(&["passed a socket that no listener has"]), usize::from(!has_tcp || !has_udp));
    }
}

#[test]
fn a_passed_socket_of_udp_is_given_up_and_taken_again_with_the_datagrams_that_wait() {
    let (to, scratch) = (echo(), Scratch::new());
    let (at, socket) = udp_socket("127.0.0.1:0");
    let file = |name: Option<&str>| {
        let of = |name| {
            format!("[[listener]]\nname = \"{name}\"\nfront = \"static\"\nlisten = \"udp:fd:dns\"\nto = \"{to}\"\n")
        };
        let other = "[[listener]]\nname = \"other\"\nfront = \"socks\"\nlisten = \"127.0.0.1:0\"\n";
        scratch.write("seaprox.toml", format!("{other}{}", name.map(of).unwrap_or_default()))
    };
    let path = file(Some("one"));
    let seaprox = spawn(&["run", &path], "dns", &[socket.into()]);
    seaprox.listens(0);
    let (_, client) = udp_socket("127.0.0.1:0");
    client.send_to(b"ask", at).unwrap();
    take(&client, at, b"ask");
    let listeners = || seaprox.status()["listeners"].to_string().matches(&at.to_string()).count();
    for name in ["two", "three"] {
        file(None);
        seaprox.signal(libc::SIGHUP);
        kit::until("the listener is closed", || listeners() == 0);
        client.send_to(name.as_bytes(), at).unwrap();
        file(Some(name));
        seaprox.signal(libc::SIGHUP);
        take(&client, at, name.as_bytes());
        client.send_to(b"ask", at).unwrap();
        take(&client, at, b"ask");
    }
    // Another listener takes the socket over in one change.
    file(Some("four"));
    seaprox.signal(libc::SIGHUP);
    kit::until("the listener has another name", || seaprox.status()["listeners"].to_string().contains("four"));
    client.send_to(b"ask", at).unwrap();
    take(&client, at, b"ask");
}

#[test]
fn links_are_accepted_on_a_passed_socket() {
    let (keys, to) = (Keys::new(), TcpListener::bind("127.0.0.1:0").unwrap());
    let (addr, socket) = listener();
    let args = ["link", "--listen", "fd:links", "--config-dir", &keys.far_dir(), "--threads", "2"];
    let far = spawn(&args, "links", &[socket]);
    assert_eq!(far.addr(0), addr);
    let mut line = vec!["socks", "--listen", "127.0.0.1:0"];
    let via = keys.via(&addr.to_string());
    line.extend(via.iter().map(String::as_str));
    let near = Seaprox::start(&line);
    let (mut client, reply) = connect5(near.addr(0), "127.0.0.1", to.local_addr().unwrap().port());
    assert_eq!(reply[1], 0);
    let mut server = Peer::accept(&to);
    both(&mut client, &[Swap(1_000), Fin, ReadAll], &mut server, &[Swap(1_000), ReadAll, Fin]);
}

#[test]
fn the_first_client_starts_the_process_under_systemd_socket_activate() {
    if !kit::has("systemd-socket-activate") {
        return;
    }
    let (to, scratch) = (TcpListener::bind("127.0.0.1:0").unwrap(), Scratch::new());
    let (path, target) = (scratch.file("in"), to.local_addr().unwrap().to_string());
    let line = ["--listen", &path, "--fdname", "web", BINARY, "static", "--listen", "fd:web", "--to", &target];
    let seaprox = Seaprox::spawn_binary("systemd-socket-activate", &line, |_| {});
    let mut client = None;
    kit::until("the socket is there", || {
        client = UnixStream::connect(&path).ok();
        client.is_some()
    });
    let mut client = client.unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    client.write_all(b"hello").unwrap();
    assert_eq!(seaprox.listens(0), format!("unix:{path}"));
    let (mut server, _) = to.accept().unwrap();
    server.set_read_timeout(Some(SOON)).unwrap();
    let mut buf = [0; 5];
    server.read_exact(&mut buf).unwrap();
    server.write_all(b"world").unwrap();
    client.read_exact(&mut buf).unwrap();
    assert_eq!(&buf, b"world");
}

#[test]
fn a_passed_socket_is_given_up_and_taken_again_with_the_clients_that_wait() {
    let (to, scratch) = (TcpListener::bind("127.0.0.1:0").unwrap(), Scratch::new());
    let target = to.local_addr().unwrap().to_string();
    let (addr, socket) = listener();
    let file = |listeners: &[(&str, &str)]| {
        let of = |(name, listen): &(&str, &str)| {
            format!("[[listener]]\nname = \"{name}\"\nfront = \"static\"\nlisten = \"{listen}\"\nto = \"{target}\"\n")
        };
        let text: String = listeners.iter().map(of).collect();
        scratch.write("seaprox.toml", format!("threads = 2\n{text}"))
    };
    let path = file(&[("one", "fd:web"), ("other", "127.0.0.1:0")]);
    let seaprox = spawn(&["run", &path], "web", &[socket]);
    seaprox.listens(0);
    // The loops accept clients in any order.
    thread::spawn(move || {
        for mut client in to.incoming().flatten() {
            thread::spawn(move || std::io::copy(&mut client.try_clone().expect("a copy"), &mut client).is_ok());
        }
    });
    let connect = || TcpStream::connect(addr).expect("the socket is open");
    let served = |client: &mut TcpStream| {
        client.set_read_timeout(Some(kit::SOON)).expect("a deadline");
        let (sent, mut got) = ([7_u8; 1_000], [0; 1_000]);
        client.write_all(&sent).and_then(|()| client.read_exact(&mut got)).expect("an echo");
        assert_eq!(sent, got);
    };
    served(&mut connect());
    let listeners = || seaprox.status()["listeners"].to_string().matches(&addr.to_string()).count();
    for name in ["two", "three"] {
        file(&[("other", "127.0.0.1:0")]);
        seaprox.signal(libc::SIGHUP);
        kit::until("the listener is closed", || listeners() == 0);
        // The connection waits in the backlog of the socket.
        let mut waiting: Vec<_> = (0..3).map(|_| connect()).collect();
        file(&[(name, "fd:web"), ("other", "127.0.0.1:0")]);
        seaprox.signal(libc::SIGHUP);
        waiting.iter_mut().for_each(served);
        (0..4).for_each(|_| served(&mut connect()));
    }
    // Another listener takes the socket over in one change.
    file(&[("other", "127.0.0.1:0"), ("four", "fd:web")]);
    seaprox.signal(libc::SIGHUP);
    kit::until("the listener has another name", || seaprox.status()["listeners"].to_string().contains("four"));
    served(&mut connect());
}
