//! What the operating system must be asked for directly: the only unsafe code.
//!
//! Every platform file exports the same names; what a system does not have answers that it is not there, and the caller
//! goes on without it.

#![allow(unsafe_code)]

use std::io;

/// Calls into libc and turns -1 into the error of the thread.
macro_rules! syscall {
    ($call:expr) => {{
        // SAFETY: the arguments are checked where the macro is used.
        let result = unsafe { $call };
        if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
    }};
}

mod limits;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod portable;
pub(crate) mod stdio;

pub(crate) use limits::raise_descriptor_limit;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use linux::{REUSE_PORT_BALANCES, network_changes, new_pipe, splice, tcp_info, wants_more};
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) use portable::{REUSE_PORT_BALANCES, network_changes, new_pipe, splice, tcp_info, wants_more};

/// What the system knows of the path of a TCP connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PathInfo {
    /// Smoothed round trip in microseconds.
    pub rtt_us: u64,
    /// Bytes per second: the larger of what was delivered and of what the congestion window allows in a round trip.
    pub rate: u64,
    /// It sends again because of a timeout.
    pub is_stuck: bool,
}

/// Whether an error says that the process or the system has no more descriptors (`EMFILE`, `ENFILE`), or no memory for
/// one more socket: states that pass.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// Whether registering failed because the descriptor cannot block, as a regular file cannot (`EPERM`).
pub(crate) fn is_unpollable(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EPERM)
}

/// Whether splice does not know this kind of descriptor (`EINVAL`, `ENOSYS`): the half copies from then on.
pub(crate) fn is_not_spliceable(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP))
}

/// Whether a connect is under way and will be told by an event (`EINPROGRESS`).
pub(crate) fn is_in_progress(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EINPROGRESS)
}
