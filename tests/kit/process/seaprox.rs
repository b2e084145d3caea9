//! The real binary as a child process: its output, its status, signals, and its end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, Once};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::peer::Peer;
use super::{LATE, SOON, START, Scratch, until};

/// A running `seaprox` process. It is killed when dropped.
pub struct Seaprox {
    child: Child,
    out: Lines,
    log: Lines,
    scratch: Scratch,
}

/// The exit code and the output of an ended process.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: Vec<u8>,
    pub err: String,
}

/// A static relay whose target is a listener of the test.
pub struct Relay {
    pub seaprox: Seaprox,
    pub listener: TcpListener,
}

/// Lines that a thread reads from a pipe.
#[derive(Clone, Default)]
struct Lines(Arc<(Mutex<Vec<String>>, Condvar, AtomicBool)>);

impl Seaprox {
    /// Starts `seaprox ARGS` and waits until it listens.
    #[track_caller]
    pub fn start(args: &[&str]) -> Seaprox {
        Seaprox::start_with(args, |_| {})
    }

    /// Starts `seaprox ARGS` as [`Seaprox::start`] does. `touch` may change the command first.
    #[track_caller]
    pub fn start_with(args: &[&str], touch: impl FnOnce(&mut Command)) -> Seaprox {
        let seaprox = Seaprox::spawn(args, touch);
        seaprox.addr(0);
        seaprox
    }

    /// Starts `seaprox ARGS` without waiting until it listens. `touch` may change the command first.
    pub fn spawn(args: &[&str], touch: impl FnOnce(&mut Command)) -> Seaprox {
        Seaprox::spawn_binary(BINARY, args, touch)
    }

    /// Starts another binary, such as one of an earlier version, without waiting until it listens.
    pub fn spawn_binary(binary: &str, args: &[&str], touch: impl FnOnce(&mut Command)) -> Seaprox {
        // Many tests of one process hold sockets at the same time, and a usual limit is 1,024.
        static RAISED: Once = Once::new();
        RAISED.call_once(|| _ = seaprox::raise_descriptor_limit());
        let scratch = Scratch::new();
        let mut command = command_of(binary, args);
        command.args(["--status", &format!("unix:{}", scratch.file("status"))]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        touch(&mut command);
        let mut child = command.spawn().expect("the binary starts");
        // `touch` may have replaced the descriptors.
        let out = child.stdout.take().map(Lines::of).unwrap_or_default();
        let log = child.stderr.take().map(Lines::of).unwrap_or_default();
        Seaprox { child, out, log, scratch }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the `listening KIND ADDR` line with this index. Returns its ADDR as text.
    #[track_caller]
    pub fn listens(&self, index: usize) -> String {
        match self.out.wait(START, |lines| lines.get(index).cloned()) {
            Some(line) => line.split(' ').nth(2).expect("listening KIND ADDR").to_owned(),
            None => panic!("the process does not listen: {:?} {:?}", self.out.all(), self.log.all()),
        }
    }

    /// Returns the address of the listener with this index; 0.0.0.0:0 for a Unix socket.
    #[track_caller]
    pub fn addr(&self, index: usize) -> SocketAddr {
        let text = self.listens(index);
        text.parse().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)))
    }

    /// Returns the lines on stdout so far.
    pub fn out(&self) -> Vec<String> {
        self.out.all()
    }

    /// Returns the lines on stderr so far.
    pub fn log(&self) -> Vec<String> {
        self.log.all()
    }

    /// Waits for a log line that contains all of these words.
    #[track_caller]
    pub fn wait_for_log(&self, words: &[&str]) -> String {
        let has_all = |line: &&String| words.iter().all(|word| line.contains(word));
        match self.log.wait(SOON, |lines| lines.iter().find(has_all).cloned()) {
            Some(line) => line,
            None => panic!("no line with {words:?} in\n{}", self.log.all().join("\n")),
        }
    }

    /// Returns the number of log lines that contain all of these words.
    pub fn count_log(&self, words: &[&str]) -> usize {
        self.log.all().iter().filter(|line| words.iter().all(|word| line.contains(word))).count()
    }

    /// Returns the status, as `seaprox status --json` prints it. It comes from the socket that the command asks,
    /// without a process for each question.
    #[track_caller]
    pub fn status(&self) -> Value {
        let path = self.scratch.file("status");
        let mut status = Value::Null;
        // Loops that have no time to answer on a busy machine are asked again. An answer ends in the middle if a loop does not answer
        // within two seconds.
        until("the loops answer", || {
            let mut socket = UnixStream::connect(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
            let asked = Instant::now();
            socket.set_read_timeout(Some(SOON)).expect("a socket");
            // A process of an earlier version sends its status at once.
            let _ = socket.write_all(b"GET /status HTTP/1.0\r\nHost: localhost\r\n\r\n");
            let mut document = Vec::new();
            let read = socket.read_to_end(&mut document);
            assert!(read.is_ok() || document.starts_with(b"{"), "{read:?}");
            let head = document.windows(4).position(|it| it == b"\r\n\r\n").map_or(0, |at| at + 4);
            match serde_json::from_slice(&document[head..]) {
                Ok(whole) => status = whole,
                Err(error) => {
                    assert!(error.is_eof() && asked.elapsed() >= LOOP_TIMEOUT, "status is JSON: {error}");
                    return false;
                }
            }
            status.get("error").is_none()
        });
        status
    }

    /// Returns the address of the admin server that `--admin` with a port has given this process.
    #[track_caller]
    pub fn admin_addr(&self) -> SocketAddr {
        let is_it = |line: &&String| line.starts_with("listening admin ");
        let line = self.out.wait(START, |lines| lines.iter().find(is_it).cloned()).expect("an admin address");
        line.rsplit(' ').next().and_then(|addr| addr.parse().ok()).expect("an address")
    }

    /// Waits until clients can connect to the admin socket. The file is there a moment before its socket listens.
    #[track_caller]
    pub fn wait_for_admin(&self) {
        until("the process answers", || UnixStream::connect(self.admin_socket()).is_ok());
    }

    /// Returns the path of the admin socket.
    pub fn admin_socket(&self) -> String {
        self.scratch.file("status")
    }

    /// Returns the text output of `seaprox status`.
    #[track_caller]
    pub fn status_text(&self) -> String {
        let ran = run(&["status", "--status", &format!("unix:{}", self.scratch.file("status"))]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        String::from_utf8(ran.out).expect("text")
    }

    /// Returns the number at a JSON pointer in the status.
    #[track_caller]
    pub fn figure(&self, pointer: &str) -> u64 {
        let status = self.status();
        status.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {pointer} in {status}"))
    }

    /// Waits until the process has no connection.
    #[track_caller]
    pub fn wait_until_idle(&self) {
        until("no connection is left", || self.figure("/usage/connections") == 0);
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: kill takes two integers, and the child has not been waited for, so its process id is still its own.
        unsafe { libc::kill(self.pid() as i32, signal) };
    }

    /// Stops the process until SIGCONT, so that all events meanwhile wait for it together.
    #[track_caller]
    pub fn suspend(&self) {
        self.signal(libc::SIGSTOP);
        let threads = format!("/proc/{}/task", self.pid());
        // Each thread stops separately, and the state of the process is only that of its first thread.
        until("all threads are stopped", || {
            let mut threads = std::fs::read_dir(&threads).expect("a process");
            threads.all(|thread| {
                let stat = std::fs::read_to_string(thread.expect("a thread").path().join("stat"));
                stat.is_ok_and(|stat| stat.contains(") T "))
            })
        });
    }

    /// Waits for the process to end by itself, and for its last lines.
    #[track_caller]
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let status = wait(&mut self.child, deadline);
        self.out.wait_for_end();
        self.log.wait_for_end();
        status
    }

    /// Returns true if the process still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }
}

impl Drop for Seaprox {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!(
                "--- the last of the log\n{}",
                self.log.all().iter().rev().take(20).cloned().collect::<Vec<_>>().join("\n")
            );
        }
    }
}

impl Relay {
    /// Starts a relay on a port of 127.0.0.1 with these further options.
    #[track_caller]
    pub fn start(options: &[&str]) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let to = listener.local_addr().expect("the listener's address").to_string();
        let mut args = vec!["static", "--listen", "127.0.0.1:0", "--to", &to];
        args.extend_from_slice(options);
        Relay { seaprox: Seaprox::start(&args), listener }
    }

    pub fn addr(&self) -> SocketAddr {
        self.seaprox.addr(0)
    }

    /// Connects a client through the relay. Returns it and the server's end.
    #[track_caller]
    pub fn pair(&self) -> (Peer, Peer) {
        let client = Peer::connect(self.addr());
        (client, Peer::accept(&self.listener))
    }

    /// Waits for the first log line about a closed connection.
    #[track_caller]
    pub fn closing_line(&self) -> String {
        self.seaprox.wait_for_log(&[" closed "])
    }
}

/// Runs `seaprox ARGS` to its end, with a deadline.
#[track_caller]
pub fn run(args: &[&str]) -> Ran {
    run_with(args, b"", |_| {})
}

/// Runs `seaprox ARGS` to its end, with this input. `touch` may change the command first.
#[track_caller]
pub fn run_with(args: &[&str], input: &[u8], touch: impl FnOnce(&mut Command)) -> Ran {
    let mut command = command(args);
    command.stdin(Stdio::piped());
    touch(&mut command);
    run_command(command, input)
}

/// Runs any program to its end, with a deadline.
#[track_caller]
pub fn run_command(mut command: Command, input: &[u8]) -> Ran {
    let what = format!("{command:?}");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{what}: {error}"));
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (input, deadline) = (input.to_vec(), Duration::from_secs(120));
    let writer = thread::spawn(move || {
        // The program may end without reading its input.
        stdin.map(|mut stdin| stdin.write_all(&input))
    });
    let reader = thread::spawn(move || bytes_of(stdout));
    let errors = thread::spawn(move || bytes_of(stderr));
    let code = wait(&mut child, deadline).code();
    let _ = writer.join();
    let (out, err) = (reader.join().expect("a reader"), errors.join().expect("a reader"));
    Ran { code, out, err: String::from_utf8_lossy(&err).into_owned() }
}

/// Returns the command `seaprox ARGS`, with `--no-splice` if the suite runs in copy mode (`SEAPROX_TEST_NO_SPLICE=1`).
pub fn command(args: &[&str]) -> Command {
    command_of(BINARY, args)
}

/// The time within which a loop answers a question of the status. Otherwise the document ends.
const LOOP_TIMEOUT: Duration = Duration::from_secs(2);
/// The binary of this build.
pub const BINARY: &str = env!("CARGO_BIN_EXE_seaprox");

fn command_of(binary: &str, args: &[&str]) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SEAPROX_") {
            command.env_remove(name);
        }
    }
    let Some((first, rest)) = args.split_first() else { return command };
    command.arg(first);
    if ["static", "socks", "http", "redirect", "cat"].contains(first) && copies() && !rest.contains(&"--no-splice") {
        command.arg("--no-splice");
    }
    command.args(rest);
    command
}

/// Returns true if the suite runs in copy mode.
pub fn copies() -> bool {
    std::env::var("SEAPROX_TEST_NO_SPLICE").as_deref() == Ok("1")
}

#[track_caller]
fn wait(child: &mut Child, deadline: Duration) -> ExitStatus {
    let since = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            return status;
        }
        if since.elapsed() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            panic!("the process did not end within {deadline:?}");
        }
        thread::sleep(Duration::from_millis(3));
    }
}

fn bytes_of(pipe: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        let _ = pipe.read_to_end(&mut bytes);
    }
    bytes
}

impl Lines {
    fn of(pipe: impl Read + Send + 'static) -> Lines {
        let lines = Lines::default();
        let shared = Arc::clone(&lines.0);
        shared.2.store(true, Ordering::Relaxed);
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                shared.0.lock().expect("no panic").push(String::from_utf8_lossy(&line).into_owned());
                shared.1.notify_all();
            }
            shared.2.store(false, Ordering::Relaxed);
        });
        lines
    }

    /// Waits until the last line has been read, which may be a while after the process has ended.
    fn wait_for_end(&self) {
        let since = Instant::now();
        // A process that this one has started may still hold the pipe.
        while self.0.2.load(Ordering::Relaxed) && since.elapsed() < LATE {
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn all(&self) -> Vec<String> {
        self.0.0.lock().expect("no panic").clone()
    }

    fn wait<T>(&self, deadline: Duration, find: impl Fn(&[String]) -> Option<T>) -> Option<T> {
        let since = Instant::now();
        let mut lines = self.0.0.lock().expect("no panic");
        loop {
            if let Some(found) = find(&lines) {
                return Some(found);
            }
            let left = deadline.checked_sub(since.elapsed())?;
            lines = self.0.1.wait_timeout(lines, left).expect("no panic").0;
        }
    }
}
