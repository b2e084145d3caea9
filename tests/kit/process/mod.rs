//! What the process tests share: the binary as a child process, peers that follow short lists of steps, and a few looks
//! into `/proc`.
//!
//! Everything that waits has a deadline, and a deadline that passes is a failed test with a word about what was awaited.
//! Nothing here sleeps in the hope that something has happened meanwhile.
#![allow(dead_code, unused_imports)] // Each test file uses its part.

pub mod crowd;
pub mod http;
pub mod link;
pub mod names;
pub mod peer;
pub mod proc;
pub mod program;
pub mod seaprox;
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

/// How long anything may take that is expected to happen at once.
pub const SOON: Duration = Duration::from_secs(20);
/// How late something may be because the machine has other things to do, where what would make it really late takes longer.
pub const LATE: Duration = Duration::from_secs(5);

/// Polls until something is true; fails the test when it does not become true.
#[track_caller]
pub fn until(what: &str, is_true: impl FnMut() -> bool) {
    until_within(SOON, what, is_true);
}

/// The same, with a deadline of its own.
#[track_caller]
pub fn until_within(deadline: Duration, what: &str, mut is_true: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_true() {
        assert!(since.elapsed() < deadline, "waited {deadline:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A port of IPv4's loopback that refuses: bound for as long as the test runs, so that nobody else gets it, and not
/// listened on.
pub fn closed_port() -> u16 {
    static BOUND: OnceLock<(socket2::Socket, u16)> = OnceLock::new();
    let bound = BOUND.get_or_init(|| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        socket.bind(&any.into()).expect("a free port");
        let addr = socket.local_addr().expect("its address").as_socket().expect("of IPv4");
        (socket, addr.port())
    });
    bound.1
}

/// Whether a program is there. In CI one that is missing fails the test; elsewhere the test says that it is skipped.
pub fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let is_there = std::env::split_paths(&path).chain(sbin).any(|directory| directory.join(program).is_file());
    is_there || missing(program)
}

/// Whether this test may make namespaces of its own, and has the programs to furnish them.
pub fn has_namespaces() -> bool {
    is_root() && has("ip") && has("nft")
}

/// Returns true if this test runs as root. CI runs as root; elsewhere the test reports that it skips itself or a part of
/// itself.
pub fn is_root() -> bool {
    // SAFETY: geteuid takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 || missing("root") }
}

fn missing(what: &str) -> bool {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "needs {what}, and nothing is skipped in CI");
    println!("skipped: needs {what}");
    false
}

/// A directory of this test's own, which goes with it.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("seaprox-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        // One of an earlier process with the same number may have been killed.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a scratch directory");
        Scratch(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A path in it, as text.
    pub fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a path in UTF-8").to_owned()
    }

    /// A file in it with this content; its path as text.
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
