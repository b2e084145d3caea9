//! Requests to the process from outside: signals of Unix, or events of a Windows console.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub use unix::Signals;
#[cfg(windows)]
pub use windows::Signals;

/// A request to the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(windows, allow(dead_code))] // A console has one request.
pub enum Signal {
    /// Stop at once: INT, or any event of a Windows console.
    Stop,
    /// Stop when the connections have ended: TERM, QUIT.
    Drain,
    /// Read the files again: HUP.
    Reload,
    /// Write the status to the log: USR1.
    Status,
    /// Replace the binary of the running process: USR2.
    Replace,
}
