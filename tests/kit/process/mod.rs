//! The kit of the process tests: the binary as a child process, peers that follow short lists of steps, and readings of
//! `/proc`.
//!
//! Every wait has a deadline. A wait that misses it fails the test and names what was awaited. No function sleeps for a
//! fixed time to wait for an event.
#![allow(dead_code, unused_imports)] // Each test file uses its part.

pub mod crowd;
pub mod datagrams;
pub mod http;
pub mod http3;
pub mod knot;
pub mod link;
pub mod names;
pub mod peer;
pub mod proc;
pub mod program;
pub mod seaprox;
pub mod servers;
pub mod socks;
pub mod terminal;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub use peer::{Peer, Step};
pub use seaprox::{Ran, Relay, Seaprox, run, run_with};
pub use terminal::Terminal;

/// The deadline of every wait for something that normally happens at once.
pub const SOON: Duration = Duration::from_secs(20);
/// The deadline of the start of a process. A node derives its key from a secret first, which takes seconds of a processor if
/// the build is not optimised.
pub const START: Duration = Duration::from_secs(60);
/// The allowed delay on a busy machine, where a real fault would take longer.
pub const LATE: Duration = Duration::from_secs(5);

/// Polls until `is_true` returns true. Panics with `what` after [`SOON`].
#[track_caller]
pub fn until(what: &str, is_true: impl FnMut() -> bool) {
    until_within(SOON, what, is_true);
}

/// Polls as [`until`] does, with another deadline.
#[track_caller]
pub fn until_within(deadline: Duration, what: &str, mut is_true: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_true() {
        assert!(since.elapsed() < deadline, "not within {deadline:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Returns a port of 127.0.0.1 that refuses connections. It stays bound, so that no other program gets it, and nothing
/// listens on it.
pub fn closed_port() -> u16 {
    static BOUND: OnceLock<(socket2::Socket, u16)> = OnceLock::new();
    let bound = BOUND.get_or_init(|| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        socket.bind(&any.into()).expect("a free port");
        let addr = socket.local_addr().expect("the socket's address").as_socket().expect("of IPv4");
        (socket, addr.port())
    });
    bound.1
}

/// Makes the file of a Unix socket on which nothing listens, as a killed process leaves it. The socket has never listened: a
/// program that another test starts holds a copy of it until its exec.
pub fn stale_socket(path: &str) {
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&socket2::SockAddr::unix(path).expect("a short path")).expect("a path of ours");
}

/// Returns true if a program is installed. If it is missing, the test fails in CI, and reports elsewhere that it is
/// skipped.
pub fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let is_there = std::env::split_paths(&path).chain(sbin).any(|directory| directory.join(program).is_file());
    is_there || missing(program)
}

/// Returns true if this test can create namespaces and has the programs to set them up.
pub fn has_namespaces() -> bool {
    is_root() && has("ip") && has("nft")
}

/// Returns true if this test runs as root. CI runs as root; elsewhere the test reports that it skips itself or a part
/// of itself.
pub fn is_root() -> bool {
    // SAFETY: geteuid takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 || missing("root") }
}

fn missing(what: &str) -> bool {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "needs {what}, and nothing is skipped in CI");
    println!("skipped: needs {what}");
    false
}

/// A directory of this test's own, which is removed when dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("seaprox-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        // An earlier process with the same id may have been killed and have left its directory.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a scratch directory");
        Scratch(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Returns a path in the directory, as text.
    pub fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a path in UTF-8").to_owned()
    }

    /// Writes a file in the directory. Returns its path as text.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.file(name);
        std::fs::write(&path, content).expect("a scratch file");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
