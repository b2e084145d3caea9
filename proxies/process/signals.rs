//! Signals of Unix and requests of a Windows console, under the same names.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub use unix::Signals;
#[cfg(windows)]
pub use windows::Signals;

/// A request to the process from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(windows, allow(dead_code))] // A console has one request.
pub enum Signal {
    /// End at once: INT, or any request of a Windows console.
    Stop,
    /// End when the connections have ended: TERM, QUIT.
    Drain,
    /// Read the files again: HUP.
    Reload,
    /// Write the status to the log: USR1.
    Status,
    /// Start a new version in place of this one: USR2.
    Replace,
}
