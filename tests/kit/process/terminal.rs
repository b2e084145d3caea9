//! The binary on a terminal of its own, made by `script` of util-linux. A test reads the output and types answers.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::until;

/// A terminal on which `seaprox` runs.
pub struct Terminal {
    child: Child,
    keys: ChildStdin,
    shown: Arc<Mutex<String>>,
    /// The number of shown bytes before the next [`Terminal::wait_for`].
    read: usize,
}

impl Terminal {
    /// Runs `seaprox WORDS` on a terminal. `touch` may change the command first.
    #[track_caller]
    pub fn start(words: &[String], touch: impl FnOnce(&mut Command)) -> Terminal {
        let quoted = |word: &str| format!("'{}'", word.replace('\'', "'\\''"));
        let line = std::iter::once(env!("CARGO_BIN_EXE_seaprox")).chain(words.iter().map(String::as_str));
        let line = format!("exec {}", line.map(quoted).collect::<Vec<_>>().join(" "));
        let mut command = Command::new("script");
        command.args(["-qefc", &line, "/dev/null"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        touch(&mut command);
        let mut child = command.spawn().expect("script starts");
        let keys = child.stdin.take().expect("piped");
        let shown = Arc::<Mutex<String>>::default();
        let (mut screen, all) = (child.stdout.take().expect("piped"), Arc::clone(&shown));
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(got @ 1..) = screen.read(&mut bytes) {
                all.lock().expect("no panic").push_str(&String::from_utf8_lossy(&bytes[..got]));
            }
        });
        Terminal { child, keys, shown, read: 0 }
    }

    /// Returns all that the terminal has shown.
    pub fn shown(&self) -> String {
        self.shown.lock().expect("no panic").clone()
    }

    /// Waits until the terminal shows `text`, after the texts of earlier calls.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        until(text, || {
            let shown = self.shown();
            let found = shown[self.read..].find(text);
            found.into_iter().for_each(|at| self.read += at + text.len());
            found.is_some()
        });
    }

    /// Types a line.
    pub fn type_line(&mut self, line: &str) {
        self.type_keys(&format!("{line}\n"));
    }

    /// Types text without its end.
    pub fn type_keys(&mut self, text: &str) {
        self.keys.write_all(text.as_bytes()).and_then(|()| self.keys.flush()).expect("the program reads its input");
    }

    /// Waits for the program to end. Returns its exit code.
    #[track_caller]
    pub fn code(&mut self) -> Option<i32> {
        let mut status = None;
        until("the program ends", || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        });
        status.and_then(|status| status.code())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Ctrl-C reaches the program itself, which is not a child of this process.
        let _ = self.keys.write_all(b"\x03").and_then(|()| self.keys.flush());
        for _ in 0..200 {
            if self.child.try_wait().is_ok_and(|status| status.is_some()) {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- what the terminal showed\n{}", self.shown());
        }
    }
}

/// Returns the master and the slave of a pseudo terminal in raw mode.
pub fn raw_pair() -> (OwnedFd, File) {
    let master = File::options().read(true).write(true).open("/dev/ptmx").expect("a terminal");
    let (mut locked, mut number) = (0 as libc::c_int, 0 as libc::c_uint);
    // SAFETY: both pointers are to live integers of the type that ioctl_tty(2) names.
    unsafe {
        assert_eq!(libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw mut locked), 0);
        assert_eq!(libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &raw mut number), 0);
    }
    let mut access = File::options();
    access.read(true).write(true).custom_flags(libc::O_NOCTTY);
    let slave = access.open(format!("/dev/pts/{number}")).expect("the slave of the terminal");
    // SAFETY: a record of integers, for which zeros are values; it is live while the calls use it.
    unsafe {
        let mut modes: libc::termios = std::mem::zeroed();
        assert_eq!(libc::tcgetattr(slave.as_raw_fd(), &raw mut modes), 0);
        libc::cfmakeraw(&raw mut modes);
        assert_eq!(libc::tcsetattr(slave.as_raw_fd(), libc::TCSANOW, &raw const modes), 0);
    }
    (master.into(), slave)
}
