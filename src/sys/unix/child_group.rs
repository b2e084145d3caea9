//! A command that this process has started, in a process group of its own.
//!
//! The group is as old as its leader: when the leader has exited, the others are killed. The leader is reaped last, because its
//! entry keeps the system from giving the number of the group to other processes meanwhile.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::Duration;

/// A command that runs. Its standard input and output are one end of a Unix socket. A drop kills its group.
#[derive(Debug)]
pub(crate) struct ChildGroup {
    child: Child,
    /// The end of the socket that the command has. It stays open here, so that the command's exit loses no byte.
    socket: UnixStream,
    stderr: Option<ChildStderr>,
    exit: Option<OwnedFd>,
    is_reaped: bool,
}

/// The events of a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChildEvents {
    /// The other end of the socket is closed.
    pub hung_up: bool,
    /// Standard error can be read, or has ended.
    pub stderr: bool,
    /// The command has exited.
    pub exited: bool,
}

impl ChildGroup {
    /// Starts a command with `socket` as its standard input and output. It inherits no other descriptor. The thread that calls
    /// this must not end before the command.
    pub fn start(command: &mut Command, socket: UnixStream) -> io::Result<ChildGroup> {
        let (input, output) = (OwnedFd::from(socket.try_clone()?), OwnedFd::from(socket.try_clone()?));
        command.stdin(input).stdout(output).stderr(Stdio::piped()).process_group(0);
        // SAFETY: the function calls nothing but system calls that are safe after a fork, and allocates nothing.
        unsafe { command.pre_exec(prepare) };
        let mut child = command.spawn()?;
        let (stderr, exit) = (child.stderr.take(), watch_exit(child.id()));
        Ok(ChildGroup { child, socket, stderr, exit, is_reaped: false })
    }

    /// Returns the process id of the command, which is also the number of its group.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for an event, at most for `patience`. With `is_ending`, a closed socket is no event any more.
    pub fn wait(&mut self, is_ending: bool, patience: Duration) -> io::Result<ChildEvents> {
        let none = -1;
        let socket = if is_ending { none } else { self.socket.as_raw_fd() };
        let stderr = self.stderr.as_ref().map_or(none, AsRawFd::as_raw_fd);
        let exit = self.exit.as_ref().map_or(none, AsRawFd::as_raw_fd);
        let poll = |fd, events| libc::pollfd { fd, events, revents: 0 };
        // A hang-up is reported without being asked for.
        let mut polled = [poll(socket, 0), poll(stderr, libc::POLLIN), poll(exit, libc::POLLIN)];
        let patience = if exit == none { patience.min(LOOK_INTERVAL) } else { patience };
        let millis = libc::c_int::try_from(patience.as_millis()).unwrap_or(libc::c_int::MAX);
        let count = polled.len() as libc::nfds_t;
        // The pointer is to live records. A signal is no event.
        match syscall!(libc::poll(polled.as_mut_ptr(), count, millis)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        let [hung_up, stderr, exited] = polled.map(|polled| polled.revents != 0);
        let exited = if exit == none { self.has_exited() } else { exited };
        Ok(ChildEvents { hung_up, stderr, exited })
    }

    /// Reads standard error after an event of it. Returns 0 at its end.
    pub fn read_stderr(&mut self, buf: &mut [u8]) -> usize {
        let count = self.stderr.as_mut().map_or(0, |stderr| stderr.read(buf).unwrap_or(0));
        if count == 0 {
            self.stderr = None;
        }
        count
    }

    /// Asks all processes of the group to end (`SIGTERM`).
    pub fn terminate(&self) {
        self.signal(libc::SIGTERM);
    }

    /// Kills all processes of the group.
    pub fn kill(&self) {
        self.signal(libc::SIGKILL);
    }

    /// Kills what is left of the group, and returns the status of the command, which has exited or been killed. The other end of
    /// the socket gets all bytes that the command has written, and then their end.
    pub fn finish(mut self) -> io::Result<ExitStatus> {
        self.kill();
        let status = self.child.wait();
        self.is_reaped = true;
        // Bytes that nobody has read would turn the end into a reset.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        let _ = self.socket.set_nonblocking(true);
        let mut buf = [0; 4096];
        while matches!((&self.socket).read(&mut buf), Ok(1..)) {}
        status
    }

    fn signal(&self, signal: libc::c_int) {
        let Ok(id) = libc::pid_t::try_from(self.child.id()) else { return };
        if !self.is_reaped {
            // The leader is not reaped, so the number belongs to this group. A group without a living process needs no signal.
            let _ = syscall!(libc::kill(-id, signal));
        }
    }

    /// Returns true if the command has exited. It is not reaped.
    fn has_exited(&self) -> bool {
        // SAFETY: the record consists of integers, for which zeros are valid.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // The pointer is to a live record. Its signal stays 0 if there is nothing to report.
        let waited = syscall!(libc::waitid(libc::P_PID, self.child.id() as libc::id_t, &raw mut info, options));
        waited.is_err() || info.si_signo != 0
    }
}

impl Drop for ChildGroup {
    fn drop(&mut self) {
        if !self.is_reaped {
            self.kill();
            let _ = self.child.wait();
        }
    }
}

/// Prepares the new process before it becomes the command: it closes the descriptors of others, as far as they are not closed
/// anyway, and ends with the thread that has started it.
fn prepare() -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let (first, last) = (3 as libc::c_uint, libc::c_uint::MAX);
        // Both calls take integers only. A kernel without the first call has descriptors that were opened with O_CLOEXEC.
        let _ = syscall!(libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_CLOEXEC));
        syscall!(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM))?;
    }
    Ok(())
}

/// Returns a descriptor that can be read when a process has exited, if the system has such.
fn watch_exit(id: u32) -> Option<OwnedFd> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use std::os::fd::FromRawFd;
        // The call takes integers only.
        let fd = syscall!(libc::syscall(libc::SYS_pidfd_open, libc::pid_t::try_from(id).ok()?, 0)).ok()?;
        // SAFETY: the descriptor is new, and nothing else owns it.
        Some(unsafe { OwnedFd::from_raw_fd(libc::c_int::try_from(fd).ok()?) })
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = id;
        None
    }
}

/// Returns the options that open a file for reading, which may be no symbolic link. The open of a pipe does not wait.
pub(crate) fn read_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY);
    options
}

/// Returns the options that open a file for appending, which may be no symbolic link. A new file has mode 0600.
pub(crate) fn append_options(creates: bool) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.append(true).create(creates).mode(0o600);
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY);
    options
}

/// The interval of looks where no descriptor tells of an exit.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
