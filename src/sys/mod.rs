//! What the operating system must be asked for directly: the only unsafe code.
//!
//! Every platform file exports the same names; what a system does not have answers that it is not there, and the caller
//! goes on without it.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

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
pub(crate) mod socket_file;
pub(crate) mod stdio;

pub(crate) use limits::raise_descriptor_limit;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use linux::{
    REUSE_PORT_BALANCES, SKIPS, handshake_with_data, is_reset_behind_fin, may_choose_port, network_changes, new_pipe,
    send_before_end, skip, splice, tcp_info, trim_memory, unacknowledged, wants_more,
};
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) use portable::{
    REUSE_PORT_BALANCES, SKIPS, handshake_with_data, is_reset_behind_fin, may_choose_port, network_changes, new_pipe,
    send_before_end, skip, splice, tcp_info, trim_memory, unacknowledged, wants_more,
};

/// What the system knows of the path of a TCP connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PathInfo {
    /// Smoothed round trip in microseconds.
    pub rtt_us: u64,
    /// The shortest round trip of late, in microseconds.
    pub round_us: u64,
    /// Bytes per second: the larger of what was delivered and of what the congestion window allows in a round trip.
    pub rate: u64,
    /// It sends again because of a timeout.
    pub is_stuck: bool,
}

/// The user whose rights this process has.
pub(crate) fn effective_user() -> u32 {
    // SAFETY: geteuid takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

/// Returns true if a process with this id exists.
pub(crate) fn is_running(process: u32) -> bool {
    let Ok(process) = i32::try_from(process) else { return false };
    // Signal 0 asks and does nothing; 0 and negative numbers are groups of processes.
    process > 0 && !matches!(syscall!(libc::kill(process, 0)), Err(error) if error.raw_os_error() == Some(libc::ESRCH))
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

/// Whether a socket that is not TCP but looks like it (MPTCP of an old kernel, SCTP) does not know how to throw away, and
/// wanted to copy to nowhere (`EFAULT`).
pub(crate) fn is_not_skipped(result: &io::Result<usize>) -> bool {
    result.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EFAULT))
}

/// Whether nobody reads from a pipe, or a terminal, any more (`POLLERR`, poll(2)).
pub(crate) fn is_reader_gone(fd: BorrowedFd<'_>) -> bool {
    let mut asked = libc::pollfd { fd: fd.as_raw_fd(), events: 0, revents: 0 };
    // The pointer is to one live record, and nothing is waited for. Where it fails, the next write finds out.
    syscall!(libc::poll(&raw mut asked, 1, 0)).is_ok_and(|_| asked.revents & libc::POLLERR != 0)
}

/// The number of an interface, which may be given as that number; none if this host has no such interface.
pub(crate) fn interface_index(zone: &str) -> Option<u32> {
    if let Ok(number) = zone.parse() {
        return Some(number).filter(|number| *number > 0);
    }
    let name = CString::new(zone).ok()?;
    // SAFETY: the name is a NUL-terminated string that outlives the call.
    let number = unsafe { libc::if_nametoindex(name.as_ptr()) };
    Some(number).filter(|number| *number > 0)
}

/// Whether a connect is under way and will be told by an event (`EINPROGRESS`).
pub(crate) fn is_in_progress(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EINPROGRESS)
}
