//! A command as the end of a tunnel.
//!
//! The thread starts it, waits for it, and writes what it says on standard error to the log. When the connection is over, the
//! group of the command gets `SIGTERM`, and `SIGKILL` after [`GRACE`].

use std::io;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use super::{GRACE, Job, TARGET};
use crate::auth::PublicKey;
use crate::engine::connector::Answer;
use crate::sys::{ChildGroup, unix_pair};

/// Runs a command until it has exited and nothing of its group is left.
pub(super) fn run(job: &Job, arguments: &[String], answer: Answer) {
    let started = unix_pair().and_then(|(ours, theirs)| {
        let mut command = command(job, arguments)?;
        Ok((ours, ChildGroup::start(&mut command, theirs)?))
    });
    let (ours, group) = match started {
        Ok(started) => started,
        Err(error) => return job.refuse(answer, &error),
    };
    let (end, peer, pid) = (job.end.name.as_str(), &*job.peer.name, group.id());
    log::debug!(target: TARGET, end, peer, pid; "command started");
    answer.connected(ours);
    let since = Instant::now();
    let (result, bytes) = attend(job, group);
    let exit = result.map_or_else(|error| error.to_string(), |status| status.to_string());
    let time = since.elapsed().as_millis() as u64;
    log::info!(target: TARGET, end, peer, pid, exit, time_ms = time, stderr_bytes = bytes; "command ended");
}

/// Waits for the end of the command. Returns its status, and the number of bytes that it has written to standard error.
fn attend(job: &Job, mut group: ChildGroup) -> (io::Result<ExitStatus>, u64) {
    let mut words = Words::new(job, group.id());
    let mut buf = [0; 4096];
    let mut killed_at: Option<Instant> = None;
    loop {
        let patience = killed_at.map_or(LONG, |at| at.saturating_duration_since(Instant::now()));
        let events = match group.wait(killed_at.is_some(), patience) {
            Ok(events) => events,
            // Without its events the command cannot be attended.
            Err(error) => return (Err(error), words.bytes),
        };
        if events.stderr {
            let count = group.read_stderr(&mut buf);
            words.take(&buf[..count]);
        }
        if events.exited {
            // A process that is left could write for ever.
            group.kill();
            words.take_rest(&mut group, &mut buf);
            return (group.finish(), words.bytes);
        }
        if events.hung_up && killed_at.is_none() {
            group.terminate();
            killed_at = Some(Instant::now() + GRACE);
        }
        if killed_at.is_some_and(|at| at <= Instant::now()) {
            group.kill();
            killed_at = Some(Instant::now() + LONG);
        }
    }
}

/// Makes the command, with a small environment that no word of the peer is in.
fn command(job: &Job, arguments: &[String]) -> io::Result<Command> {
    let (program, arguments) = arguments.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command.args(arguments).current_dir("/").env_clear();
    let inherited = INHERITED.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    command.env("PATH", PATH).envs(inherited);
    let key = PublicKey::from_bytes(job.peer.key).map_or_else(|_| String::new(), |key| key.fingerprint());
    command.env("SEAPROX_END", job.end.name.as_str()).env("SEAPROX_PEER_KEY", key);
    command.env("SEAPROX_PEER_NAME", &*job.peer.name);
    Ok(command)
}

/// The lines of standard error, on their way to the log.
struct Words<'a> {
    job: &'a Job,
    pid: u32,
    line: Vec<u8>,
    /// Lines that were logged.
    lines: usize,
    /// All bytes that were read.
    bytes: u64,
}

impl Words<'_> {
    fn new(job: &Job, pid: u32) -> Words<'_> {
        Words { job, pid, line: Vec::new(), lines: 0, bytes: 0 }
    }

    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.bytes >= STDERR_BYTES_MAX {
                // The rest is counted, and thrown away so that the command does not wait.
                self.bytes += 1;
                continue;
            }
            self.bytes += 1;
            match byte {
                b'\n' => self.end(),
                _ if self.line.len() < LINE_BYTES_MAX => self.line.push(*byte),
                _ => {}
            }
            if self.bytes == STDERR_BYTES_MAX {
                self.end();
            }
        }
    }

    /// Takes what is in the pipe of a group that was killed.
    fn take_rest(&mut self, group: &mut ChildGroup, buf: &mut [u8]) {
        for _ in 0..READS_AFTER_EXIT {
            match group.wait(true, Duration::ZERO) {
                Ok(events) if events.stderr => {
                    let count = group.read_stderr(buf);
                    self.take(&buf[..count]);
                }
                _ => break,
            }
        }
        self.end();
    }

    /// Logs the line.
    fn end(&mut self) {
        if !self.line.is_empty() && self.lines < LINES_MAX {
            self.lines += 1;
            let (end, peer) = (self.job.end.name.as_str(), &*self.job.peer.name);
            let line = String::from_utf8_lossy(&self.line);
            log::info!(target: TARGET, end, peer, pid = self.pid, line:% = line; "stderr");
        }
        self.line.clear();
    }
}

/// The variables of this process that a command gets, beside those that tell of the tunnel.
const INHERITED: [&str; 7] = ["PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR"];
/// The search path, if this process has none.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// Bytes of standard error of one command that reach the log.
const STDERR_BYTES_MAX: u64 = 16 << 10;
/// Lines of standard error of one command that reach the log.
const LINES_MAX: usize = 200;
/// Bytes of a line of standard error that reach the log.
const LINE_BYTES_MAX: usize = 512;
/// Reads of standard error after the exit: more than a pipe holds (pipe(7)).
const READS_AFTER_EXIT: usize = 32;
/// A wait that events end.
const LONG: Duration = Duration::from_secs(3600);
