//! The examples, each with real clients.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use crate::kit::{PATIENCE, Program, capitals, closed_port, compile, connect, flood, has, prefix, succeed, top, web};

/// Sends bytes over curl or a socket, and returns what comes back.
fn exchange(port: u16, bytes: &[u8]) -> Vec<u8> {
    let mut client = connect(port);
    client.write_all(bytes).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    answer
}

/// Starts an example.
fn start(name: &str, args: &[&str]) -> Program {
    let path = compile(&format!("examples/{name}.c"), &format!("example-{name}"), &[]);
    Program::start(&path, args)
}

/// Returns the page that curl gets over a SOCKS proxy, or the exit code of curl.
fn curl_over_socks(port: u16, target: &str) -> Result<String, i32> {
    let proxy = format!("socks5h://127.0.0.1:{port}");
    let mut curl = Command::new("curl");
    curl.args(["-s", "--max-time", "50", "--noproxy", "", "-x", &proxy, &format!("http://{target}/")]);
    let output = curl.stdin(Stdio::null()).output().unwrap();
    match output.status.code() {
        Some(0) => Ok(String::from_utf8(output.stdout).unwrap()),
        code => Err(code.unwrap_or(-1)),
    }
}

#[test]
fn each_c_example_has_at_most_sixty_lines() {
    for entry in std::fs::read_dir(top().join("capi/examples")).unwrap() {
        let path = entry.unwrap().path();
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 60, "{}: {lines}", path.display());
    }
}

#[test]
fn a_c_program_is_a_static_proxy() {
    let mut proxy = start("static", &["127.0.0.1:0", &capitals()]);
    let port = proxy.port();
    assert_eq!(exchange(port, b"hello"), b"HELLO");
    let end = proxy.line();
    assert!(end.starts_with("closed: ") && end.ends_with("_fin, 5 bytes sent, 5 received"), "{end}");
    if has("ncat") {
        let words = format!("printf words | ncat 127.0.0.1 {port}");
        assert_eq!(succeed(Command::new("sh").args(["-c", &words])), "WORDS");
    }
}

#[test]
fn a_c_program_is_a_socks_proxy_with_rules() {
    let (_kept, port) = closed_port();
    let (target, refused) = (web(), format!("127.0.0.1:{port}"));
    let denied = web();
    let rule = format!("deny = [\"{denied}\"]");
    let mut proxy = start("socks", &["127.0.0.1:0", &rule]);
    let port = proxy.port();
    if !has("curl") {
        return;
    }
    assert_eq!(curl_over_socks(port, &target).as_deref(), Ok("a page"));
    let line = proxy.line();
    assert!(line.starts_with("connected: socks5[ipv4[127.0.0.1:") && line.contains(&target), "{line}");
    assert!(proxy.line().ends_with("_fin"));
    // curl: the proxy could not connect.
    assert_eq!(curl_over_socks(port, &refused), Err(97));
    assert_eq!(proxy.line(), "ended: connection_refused");
    assert_eq!(curl_over_socks(port, &denied), Err(97));
    assert_eq!(proxy.line(), "ended: not_permitted");
    proxy.finish();
}

#[test]
fn a_c_program_has_a_line_protocol_of_its_own() {
    let mut proxy = start("lines", &["127.0.0.1:0"]);
    let (port, target) = (proxy.port(), capitals());
    assert_eq!(exchange(port, format!("{target}\nwords").as_bytes()), b"ok\nWORDS");
    let (_kept, closed) = closed_port();
    let refused = format!("127.0.0.1:{closed}\n");
    assert_eq!(exchange(port, refused.as_bytes()), b"connection_refused\n");
    assert_eq!(exchange(port, b"no target at all\n"), b"no target\n");
    // The Unix sockets of the host are not for clients.
    let path = prefix().join(format!("lines-{port}.sock"));
    let private = UnixListener::bind(&path).unwrap();
    private.set_nonblocking(true).unwrap();
    assert_eq!(exchange(port, format!("unix:{}\nwords", path.display()).as_bytes()), b"no target\n");
    assert!(private.accept().is_err(), "a client has reached a Unix socket");
    let mut client = connect(port);
    for byte in format!("{target}\nslow").bytes() {
        client.write_all(&[byte]).unwrap();
    }
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "ok\nSLOW");
}

#[test]
fn threads_of_a_c_program_connect_the_dests() {
    let mut proxy = start("connector", &["127.0.0.1:0"]);
    let (port, target) = (proxy.port(), web());
    if !has("curl") {
        return;
    }
    assert_eq!(curl_over_socks(port, &target).as_deref(), Ok("a page"));
    let by_name = target.replace("127.0.0.1", "localhost");
    assert_eq!(curl_over_socks(port, &by_name).as_deref(), Ok("a page"));
    let (_kept, closed) = closed_port();
    // The replies of SOCKS5 tell the reasons apart: refused is 5, and an unknown name is 4.
    for (request, reply) in
        [(&[5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1][..], 5), (&b"\x05\x01\x00\x05\x01\x00\x03\x0cname.invalid"[..], 4)]
    {
        let mut client = connect(port);
        client.write_all(request).unwrap();
        client.write_all(&closed.to_be_bytes()).unwrap();
        let mut answer = [0; 4];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(answer[3], reply, "{answer:?}");
    }
}

/// Returns the number of entries of a directory of a process.
fn count_of(process: u32, what: &str) -> usize {
    std::fs::read_dir(format!("/proc/{process}/{what}")).unwrap().count()
}

#[test]
fn clients_that_leave_take_no_threads_and_no_descriptors_of_a_c_program() {
    let mut proxy = start("connector", &["127.0.0.1:0"]);
    let port = proxy.port();
    let before = (count_of(proxy.id(), "task"), count_of(proxy.id(), "fd"));
    // Its backlog is full, so a connect hangs.
    let (silent, silent_port) = closed_port();
    silent.listen(0).unwrap();
    let fill: Vec<_> = (0..3)
        .map(|_| {
            let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            client.set_nonblocking(true).unwrap();
            // It is under way.
            let _ = client.connect(&SocketAddr::from(([127, 0, 0, 1], silent_port)).into());
            client
        })
        .collect();
    let mut request = b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01".to_vec();
    request.extend(silent_port.to_be_bytes());
    for _ in 0..400 {
        let mut client = connect(port);
        client.write_all(&request).unwrap();
        client.read_exact(&mut [0; 2]).unwrap();
    }
    // At most the eight threads have a socket each.
    let until = Instant::now() + PATIENCE;
    while count_of(proxy.id(), "fd") > before.1 + 8 {
        assert!(Instant::now() < until, "{} descriptors, {} at first", count_of(proxy.id(), "fd"), before.1);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(count_of(proxy.id(), "task") <= before.0, "threads");
    drop((fill, silent));
}

/// `make test-system` runs this.
#[test]
#[ignore = "takes a minute"]
fn valgrind_finds_no_error_in_the_c_examples_that_end() {
    assert!(has("valgrind"), "scripts/install-system-tools installs it");
    let target = capitals();
    for (name, args) in [("epoll", ["127.0.0.1:0", &target]), ("socks", ["127.0.0.1:0", "deny = [\"10.0.0.1:1\"]"])] {
        let path = compile(&format!("examples/{name}.c"), &format!("example-{name}-valgrind"), &[]);
        let flags = ["-q", "--error-exitcode=9", "--leak-check=full", "--errors-for-leak-kinds=definite,indirect"];
        let all = [&flags[..], &["--show-leak-kinds=definite,indirect", path.to_str().unwrap()], &args].concat();
        let mut proxy = Program::start("valgrind".as_ref(), &all);
        let port = proxy.port();
        match name {
            "epoll" => assert_eq!(exchange(port, b"one"), b"ONE"),
            _ => assert_eq!(curl_over_socks(port, &web()).as_deref(), Ok("a page")),
        }
        proxy.finish();
    }
}

#[test]
fn a_client_that_resets_does_not_end_a_c_program() {
    let mut proxy = start("static", &["127.0.0.1:0", &flood()]);
    let port = proxy.port();
    for _ in 0..10 {
        let (mut client, mut bytes) = (connect(port), vec![0; 300_000]);
        client.shutdown(Shutdown::Write).unwrap();
        for _ in 0..20 {
            assert!(client.read(&mut bytes).unwrap() > 0);
        }
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        let end = proxy.line();
        assert!(end.starts_with("closed: source_reset, "), "{end:?}");
    }
}

#[test]
fn two_c_programs_are_the_ends_of_a_link_with_a_forward() {
    let path = compile("examples/link.c", "example-link", &[]);
    let start = |args: &[&str]| Program::start_with(&path, args, &[("SECRET", "known to both ends only")]);
    let target = capitals();
    let mut server = start(&["serve", "127.0.0.1:0", &target]);
    let address = format!("127.0.0.1:{}", server.port());
    let mut client = start(&["dial", &address, "127.0.0.1:0", &target]);
    let port = client.port();
    assert_eq!((client.line(), server.line()), ("link: up".to_owned(), "link: up".to_owned()));
    assert_eq!(exchange(port, b"hello"), b"HELLO");
    if has("ncat") {
        let words = format!("printf words | ncat 127.0.0.1 {port}");
        assert_eq!(succeed(Command::new("sh").args(["-c", &words])), "WORDS");
    }
    // The server permits its one target, whatever its peer asks for.
    let other = web();
    let mut other = start(&["dial", &address, "127.0.0.1:0", &other]);
    let mut refused = connect(other.port());
    assert_eq!(other.line(), "link: up");
    assert!(!matches!(refused.read(&mut [0]), Ok(1..)), "the peer connects to another target");
    drop(server);
    assert_eq!(client.line(), "link: suspended");
}

#[test]
fn a_c_program_opens_a_stream_of_a_link_or_gets_the_reason_why_not() {
    let secret = [("SECRET", "known to both ends only")];
    let server = compile("examples/link.c", "example-link-server", &[]);
    let (target, other) = (capitals(), capitals());
    let mut server = Program::start_with(&server, &["serve", "127.0.0.1:0", &target], &secret);
    let address = format!("127.0.0.1:{}", server.port());
    let path = compile("examples/stream.c", "example-stream", &[]);
    let run = |target: &str| {
        let mut command = Command::new(&path);
        command.args([&address, target, "hello"]).envs(secret).env("LD_LIBRARY_PATH", prefix().join("lib"));
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    assert_eq!(run(&target), (Some(0), "HELLO".to_owned(), String::new()));
    let (code, stdout, stderr) = run(&other);
    assert_eq!((code, stdout), (Some(1), String::new()));
    assert!(stderr.starts_with("stream: not_permitted ("), "{stderr}");
}

#[test]
fn a_c_program_turns_the_loop_from_its_own_epoll() {
    let mut proxy = start("epoll", &["127.0.0.1:0", &capitals()]);
    let port = proxy.port();
    assert_eq!(exchange(port, b"one"), b"ONE");
    proxy.tell("a line\n");
    assert_eq!(proxy.line(), "read: a line");
    assert_eq!(exchange(port, b"two"), b"TWO");
    proxy.finish();
}
