//! The examples as programs: each starts, prints its address, and works as its description says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::kit;

/// A running example. It is killed when dropped.
struct Example {
    child: Child,
    addr: String,
}

impl Example {
    fn start(name: &str, args: &[&str]) -> Example {
        let mut child = Command::new(binary(name)).args(args).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let addr = line.trim().strip_prefix("listening on ipv4[").and_then(|rest| rest.strip_suffix(']'));
        Example { addr: addr.unwrap_or_else(|| panic!("{line:?}")).to_owned(), child }
    }

    fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(&self.addr).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        client
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `seaprox static` over a link to an example. It is killed when dropped.
struct Front {
    child: Child,
    addr: String,
    secret: PathBuf,
}

impl Front {
    fn start(peer: &str, secret: &str) -> Front {
        let path = std::env::temp_dir().join(format!("seaprox-examples-{}", std::process::id()));
        let mut access = std::fs::File::options();
        let mut file = access.write(true).create(true).truncate(true).mode(0o600).open(&path).unwrap();
        file.write_all(secret.as_bytes()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_seaprox"));
        command.args(["static", "--listen", "127.0.0.1:0", "--to", "any.example:1", "--via", peer, "--status", "none"]);
        let mut child = command.arg("--secret").arg(&path).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let addr = line.split(' ').nth(2).unwrap_or_else(|| panic!("{line:?}")).to_owned();
        Front { child, addr, secret: path }
    }

    fn connect(&mut self) -> TcpStream {
        let client = TcpStream::connect(&self.addr).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        client
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.secret);
    }
}

/// Returns the path of an example, after building it: a run of this test alone has not built the examples. Cargo puts
/// them beside the directory of this test.
fn binary(name: &str) -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let profile = exe.parent().and_then(Path::parent).unwrap();
    let mut build = Command::new(env!("CARGO"));
    // cargo tells a test about its package. With these variables the build script of ring would run again, here and in the
    // next build without them, and everything above ring would be compiled again.
    let about = |name: &str| {
        ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"].iter().any(|it| name.starts_with(it))
    };
    std::env::vars().filter(|(name, _)| about(name)).for_each(|(name, _)| _ = build.env_remove(name));
    build.args(["build", "--quiet", "--example", name, "--manifest-path"]);
    build.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml")).arg("--target-dir").arg(profile.parent().unwrap());
    // The same profile as this test, so that nothing is built twice.
    build.args(["--profile", if profile.ends_with("release") { "release" } else { "test" }]);
    assert!(build.status().unwrap().success());
    profile.join("examples").join(name)
}

/// Starts a server that answers each client with all of its bytes, in capitals. Returns its port.
fn shouting() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, mut text) = (client.unwrap(), String::new());
            client.read_to_string(&mut text).unwrap();
            client.write_all(text.to_uppercase().as_bytes()).unwrap();
        }
    });
    port
}

/// Sends bytes in pieces and a FIN. Returns the answer.
fn ask(mut client: TcpStream, pieces: &[&str]) -> String {
    for piece in pieces {
        client.write_all(piece.as_bytes()).unwrap();
        thread::yield_now();
    }
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_example_hook_changes_both_directions() {
    let lines = include_str!("../../examples/hook.rs").lines().filter(|line| !line.trim().is_empty()).count();
    assert!(lines <= 40, "{lines} lines");
    let hook = Example::start("hook", &["127.0.0.1:0", &format!("127.0.0.1:{}", shouting())]);
    // The target gets the rotated text, and its capitals are rotated back.
    assert_eq!(ask(hook.connect(), &["Hello, ", "2026"]), "HELLO, 2026");
}

/// SP-06: a front end of at most 60 lines on the public interface.
#[test]
fn the_example_front_end_of_sixty_lines_relays_and_refuses() {
    let source = include_str!("../../examples/line.rs");
    assert!(source.lines().count() <= 60, "{} lines", source.lines().count());
    let line = Example::start("line", &["127.0.0.1:0"]);
    let port = shouting();
    assert_eq!(ask(line.connect(), &[&format!("127.0.0.1 {port}\nhello")]), "HELLO");
    assert_eq!(ask(line.connect(), &["local", "host", &format!(" {port}"), "\r\n", "in ", "pieces"]), "IN PIECES");
    // A port that is bound without a listener refuses connections, and no other program gets it.
    let bound = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    bound.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let closed = bound.local_addr().unwrap().as_socket().unwrap().port();
    assert_eq!(ask(line.connect(), &[&format!("127.0.0.1 {closed}\n")]), "ERR connection_refused\n");
    assert_eq!(ask(line.connect(), &["no-such-name.invalid 80\n"]), "ERR name_resolution_failure\n");
    for wrong in ["\n", "host\n", "host port\n", "host 65536\n", "a b c\n"] {
        assert_eq!(ask(line.connect(), &[wrong]), "ERR protocol_error\n", "{wrong:?}");
    }
    assert_eq!(ask(line.connect(), &[&format!("127.0.0.1 {port}\nstill there")]), "STILL THERE");
}

#[test]
fn the_example_connector_connects_names_and_reports_failures() {
    let port = shouting();
    let good = Example::start("connector", &["127.0.0.1:0", &format!("localhost:{port}")]);
    for number in 0..20 {
        assert_eq!(ask(good.connect(), &[&format!("client {number}")]), format!("CLIENT {number}"));
    }
    let bad = Example::start("connector", &["127.0.0.1:0", "no-such-name.invalid:1"]);
    let mut client = bad.connect();
    assert_eq!(client.read(&mut [0]).unwrap_or(0), 0, "the connection is closed");
}

/// BS-16 and BS-17: a stream without a socket at either end. The reason of a refused target is reported, and a handler
/// that panics ends its own stream and no other.
#[test]
fn the_example_handlers_serve_streams_at_both_ends_of_a_link() {
    let secret = "a secret that two nodes share";
    let server = Example::start("streams", &["127.0.0.1:0", secret]);
    let ask = |target: &str, line: &str| {
        let asked = Command::new(binary("stream")).args([&server.addr, secret, target, line]).output().unwrap();
        (asked.status.success(), String::from_utf8(asked.stdout).unwrap())
    };
    for _ in 0..3 {
        assert_eq!(ask("any.example:1", "hello"), (true, "HELLO\n".to_owned()));
    }
    // The port is bound without a listener: it refuses, and no other socket gets it.
    let bound = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    bound.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let closed = bound.local_addr().unwrap().as_socket().unwrap();
    let (is_well, said) = ask(&closed.to_string(), "hello");
    assert!(is_well && said.starts_with("refused: connection_refused"), "{said}");
    // The clients of one front end are streams of one link.
    let mut front = Front::start(&server.addr, secret);
    let shout = |client: &mut TcpStream, line: &str| -> std::io::Result<String> {
        client.write_all(line.as_bytes())?;
        let mut answer = vec![0; line.len()];
        client.read_exact(&mut answer)?;
        Ok(String::from_utf8(answer).unwrap())
    };
    let (mut one, mut other) = (front.connect(), front.connect());
    assert_eq!((shout(&mut one, "one").unwrap(), shout(&mut other, "two").unwrap()), ("ONE".into(), "TWO".into()));
    assert!(shout(&mut other, "panic").is_err(), "the stream is gone");
    assert_eq!(shout(&mut one, "still there").unwrap(), "STILL THERE");
    assert_eq!(shout(&mut front.connect(), "again").unwrap(), "AGAIN");
    assert_eq!(ask("any.example:1", "hello"), (true, "HELLO\n".to_owned()));
    let lines = include_str!("../../examples/stream.rs").lines().filter(|line| !line.trim().is_empty()).count();
    assert!(lines < 60, "{lines}");
}

#[test]
fn the_example_of_pipes_sends_datagrams_over_tls() {
    let output = Command::new(binary("pipes")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text, "3 bytes: one\n6 bytes: twenty\n13 bytes: three hundred\n");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_example_of_twenty_lines_is_a_socks_proxy() {
    let proxy = Example::start("socks", &["127.0.0.1:0"]);
    let mut client = proxy.connect();
    let [high, low] = shouting().to_be_bytes();
    client.write_all(&[5, 1, 0]).unwrap();
    client.write_all(&[5, 1, 0, 1, 127, 0, 0, 1, high, low]).unwrap();
    let mut answers = [0; 12];
    client.read_exact(&mut answers).unwrap();
    assert_eq!(answers[..4], [5, 0, 5, 0]);
    assert_eq!(ask(client, &["hello"]), "HELLO");
}

/// A program of 60 lines opens and closes listeners, forwards and a link while traffic runs, and hears of every end.
#[test]
fn the_example_of_doors_opens_and_closes_all_kinds_while_traffic_runs() {
    let scratch = kit::Scratch::new();
    let secret = scratch.write("secret", "a secret of two nodes");
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let far = kit::Seaprox::start(&["link", "--listen", "127.0.0.1:0", "--secret", &secret]);
    let echo = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = echo.local_addr().unwrap().to_string();
    let mut command = Command::new(binary("doors"));
    command.args([&far.listens(0), "a secret of two nodes", &target]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let lines = std::sync::Arc::new(std::sync::Mutex::new(Vec::<String>::new()));
    let (seen, output) = (std::sync::Arc::clone(&lines), BufReader::new(child.stdout.take().unwrap()));
    let reader =
        thread::spawn(move || output.lines().map_while(Result::ok).for_each(|line| seen.lock().unwrap().push(line)));
    let last = |start: &str| lines.lock().unwrap().iter().rev().find(|line| line.starts_with(start)).cloned();
    let count = |words: &[&str]| {
        lines.lock().unwrap().iter().filter(|line| words.iter().all(|word| line.contains(word))).count()
    };
    for name in ["echo", "local", "remote"] {
        writeln!(input, "open {name}").unwrap();
    }
    let address = |start: &str| last(start)?.rsplit(' ').next()?.parse::<SocketAddr>().ok();
    let names = ["echo ", "local listening ", "remote listening "];
    kit::until("all three listen", || names.iter().all(|name| address(name).is_some()));
    let [echoing, local, remote] = names.map(|name| address(name).unwrap());
    let mut clients = [local, remote].map(|addr| {
        let client = TcpStream::connect(addr).unwrap();
        (client, echo.accept().unwrap().0)
    });
    let mut exchange = || {
        for (client, served) in &mut clients {
            client.write_all(b"x").unwrap();
            served.read_exact(&mut [0]).unwrap();
        }
    };
    exchange();
    let mut client = TcpStream::connect(echoing).unwrap();
    client.write_all(b"word").unwrap();
    client.read_exact(&mut [0; 4]).unwrap();
    for name in ["echo", "local", "remote"] {
        writeln!(input, "close {name}").unwrap();
    }
    kit::until("all three are closed", || {
        [echoing, local, remote].iter().all(|addr| TcpStream::connect(addr).is_err())
    });
    exchange();
    kit::until("the closes are reported", || count(&["Forward", "Closed"]) == 2 && count(&["ListenerClosed"]) == 2);
    writeln!(input, "close link").unwrap();
    kit::until("each end is reported", || count(&["Link {", "Ended"]) == 1 && count(&["ConnectionEnded"]) >= 2);
    drop((input, client));
    assert!(child.wait().unwrap().success());
    reader.join().unwrap();
    let code = include_str!("../../examples/doors.rs")
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with("//"));
    assert!(code.clone().count() <= 60, "{}", code.count());
}
