//! The kit: the installed library, compilers, and running programs.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

/// Longest wait for anything.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The flags that each program and the header compile with.
pub const STRICT: [&str; 4] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];

/// Returns the top of the repository.
pub fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Returns the prefix under which the library is installed, once for all tests of this process.
pub fn prefix() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(|| {
        remove_old();
        let prefix = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("capi-{}", std::process::id()));
        let archive = archive();
        let mut install = Command::new(top().join("scripts/install-capi"));
        // Debug information makes the library ten times as large, and the tests do not read it.
        succeed(install.arg(archive).arg(&prefix).env("STRIP_DEBUG", "1"));
        // The archive is large, too.
        let installed = prefix.join("lib/libseaprox.a");
        fs::remove_file(&installed).unwrap();
        symlink(self::archive(), installed).unwrap();
        prefix
    })
}

/// Removes what earlier processes have installed.
fn remove_old() {
    for entry in fs::read_dir(env!("CARGO_TARGET_TMPDIR")).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap_or_default();
        let process = name.strip_prefix("capi-").filter(|id| !Path::new("/proc").join(id).exists());
        if process.is_some() {
            // Another process may remove it at the same time.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Returns the archive that was built with this test. Cargo leaves it beside the test, with a hash in its name.
fn archive() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let beside = fs::read_dir(test.parent().unwrap()).unwrap().map(|entry| entry.unwrap());
    let is_archive = |name: &str| name.starts_with("libseaprox_c-") && name.ends_with(".a");
    let archives = beside.filter(|entry| entry.file_name().to_str().is_some_and(is_archive));
    let newest = archives.max_by_key(|entry| entry.metadata().unwrap().modified().unwrap());
    newest.expect("the library is built before its tests").path()
}

/// Runs a command to its end. Returns its standard output.
pub fn succeed(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{stdout}\n{stderr}");
    stdout.into_owned()
}

/// Returns true if a program is installed. In CI no program of scripts/install-test-tools may be missing.
pub fn has(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap();
    if !found.status.success() {
        assert!(std::env::var_os("CI").is_none(), "{program} is not installed");
        eprintln!("skipped: {program} is not installed");
    }
    found.status.success()
}

/// Compiles a C program against the installed library, as its manual says. Returns its path.
pub fn compile(source: &str, name: &str, flags: &[&str]) -> PathBuf {
    let config = |what| {
        let mut command = Command::new("pkg-config");
        command.args([what, "seaprox"]).env("PKG_CONFIG_PATH", prefix().join("lib/pkgconfig"));
        succeed(&mut command).split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    // Several tests may compile a program, and a file that a linker writes cannot be run.
    static COMPILED: AtomicU32 = AtomicU32::new(0);
    let program = prefix().join(name);
    let made = prefix().join(format!("{name}.{}", COMPILED.fetch_add(1, Relaxed)));
    let mut cc = Command::new("cc");
    cc.args(["-std=gnu11", "-g", "-pthread"]).args(STRICT).args(flags).args(config("--cflags"));
    succeed(cc.arg("-o").arg(&made).arg(top().join("capi").join(source)).args(config("--libs")));
    fs::rename(made, &program).unwrap();
    program
}

/// Compiles an example into which the library is linked statically, as the manual says: the whole program with `-static`, or the
/// library alone without it. Returns its path.
pub fn compile_static(example: &str, is_whole: bool) -> PathBuf {
    let program = prefix().join(format!("static-{example}-{is_whole}"));
    let (flag, edit) = if is_whole { ("-static", "") } else { ("", "| sed 's/-lseaprox/-l:libseaprox.a/'") };
    let script = format!("cc {flag} -o $1 $2 $(pkg-config --static --cflags --libs seaprox {edit})");
    let mut sh = Command::new("sh");
    sh.args(["-ec", &script, "sh"]).arg(&program).arg(top().join(format!("capi/examples/{example}.c")));
    succeed(sh.env("PKG_CONFIG_PATH", prefix().join("lib/pkgconfig")));
    program
}

/// A running program. It is killed at the end of the test.
pub struct Program {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Program {
    /// Starts a program with the installed library.
    pub fn start(path: &Path, args: &[&str]) -> Program {
        Program::start_with(path, args, &[])
    }

    /// Starts a program with the installed library and these variables.
    pub fn start_with(path: &Path, args: &[&str], variables: &[(&str, &str)]) -> Program {
        let mut command = Command::new(path);
        command.args(args).envs(variables.iter().copied()).env("LD_LIBRARY_PATH", prefix().join("lib"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Program { child, lines }
    }

    /// Returns the next line that it prints.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Returns the port that it says it listens on.
    pub fn port(&mut self) -> u16 {
        let line = self.line();
        line.strip_prefix("listening on port ").unwrap_or_else(|| panic!("{line:?}")).parse().unwrap()
    }

    /// Returns the number of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Writes to its standard input.
    pub fn tell(&mut self, text: &str) {
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Ends its standard input, and waits for its end.
    pub fn finish(&mut self) {
        drop(self.child.stdin.take());
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "{status}");
                return;
            }
            assert!(Instant::now() < until, "the program does not end");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // A program that has ended is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a server that answers each client with its bytes in capitals, and ends when the client does. Returns its address.
pub fn capitals() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(count @ 1..) = client.read(&mut bytes) {
                    bytes[..count].make_ascii_uppercase();
                    if client.write_all(&bytes[..count]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// Starts a server that sends each client bytes without an end. Returns its address.
pub fn flood() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            thread::spawn(move || while client.write_all(&[b'x'; 65_536]).is_ok() {});
        }
    });
    address
}

/// Starts a web server with one page. Returns its address.
pub fn web() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = BufReader::new(client.unwrap());
            thread::spawn(move || {
                let mut line = String::new();
                while client.read_line(&mut line).is_ok_and(|count| count > 2) {
                    line.clear();
                }
                // The client may be gone.
                let _ = client
                    .get_mut()
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\na page");
            });
        }
    });
    address
}

/// Connects to a port of this host.
pub fn connect(port: u16) -> TcpStream {
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

/// Returns a port at which connections are refused, with the socket that keeps it: bound, and never listening.
pub fn closed_port() -> (Socket, u16) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    (socket, port)
}
