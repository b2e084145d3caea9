//! Foreign programs, which are ended with the test.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::seaprox::{Ran, run_command};

/// A program in the background. It is killed when dropped.
pub struct Program(pub Child);

impl Program {
    /// Starts a command with its stdout and stderr piped to the test.
    #[track_caller]
    pub fn start(mut command: Command) -> Program {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Program(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    /// Reads the first line of its stdout.
    #[track_caller]
    pub fn first_line(&mut self) -> String {
        let mut line = String::new();
        let out = self.0.stdout.as_mut().expect("piped");
        BufReader::new(out).read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }

    /// Reads its stdout to the end.
    #[track_caller]
    pub fn rest(&mut self) -> String {
        let mut text = String::new();
        self.0.stdout.as_mut().expect("piped").read_to_string(&mut text).expect("text");
        text
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a shell command to its end, with a deadline. `$0` is the first of the arguments.
#[track_caller]
pub fn shell(line: &str, args: &[&str]) -> Ran {
    let mut command = Command::new("sh");
    command.args(["-c", line]).args(args).stdin(Stdio::null());
    // The programs must not use a proxy of the environment.
    for name in
        ["http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"]
    {
        command.env_remove(name);
    }
    run_command(command, b"")
}

/// Runs a shell command that must succeed. Returns its trimmed stdout.
#[track_caller]
pub fn output(line: &str, args: &[&str]) -> String {
    let ran = shell(line, args);
    assert_eq!(ran.code, Some(0), "{line} {args:?}: {}", ran.err);
    String::from_utf8_lossy(&ran.out).trim_end().to_owned()
}

/// Returns true if a socket listens on this port over IPv4. Does not connect to it.
pub fn is_listening(port: u16) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let is_it = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(1).is_some_and(|local| local.ends_with(&format!(":{port:04X}"))) && fields.get(3) == Some(&"0A")
    };
    table.lines().any(is_it)
}

/// Returns a free port, for programs that cannot choose one themselves. It is below the ports that the system uses for
/// outgoing connections, and is returned only once.
pub fn free_port() -> u16 {
    free_ports(1)
}

/// Returns the first of `count` free ports in a row, as [`free_port`] does. Each process begins with another port, because
/// several runs of the tests may be on one machine.
pub fn free_ports(count: u16) -> u16 {
    const FIRST: u16 = 21_000;
    const PLACES: u32 = 10_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..1000 {
        let offset = std::process::id().wrapping_mul(41).wrapping_add(NEXT.fetch_add(count.into(), Ordering::Relaxed));
        let first = FIRST + (offset % PLACES) as u16;
        if (first..first + count).all(is_free) {
            return first;
        }
    }
    panic!("no port is free");
}

/// Returns true if nothing listens on a port over IPv4. The check does not listen: a program that another test starts holds a
/// copy of the socket until its exec, and a copy that listened would keep the port in use.
fn is_free(port: u16) -> bool {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("a socket");
    socket.bind(&std::net::SocketAddr::from(([0, 0, 0, 0], port)).into()).is_ok()
}
