//! The process's own limits.

use std::io;

/// Raises the soft limit of descriptors to the hard one, and says what it is then.
pub(crate) fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // The pointer is to a live value of the right type.
    syscall!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit))?;
    if limit.rlim_cur < limit.rlim_max {
        let raised = libc::rlimit { rlim_cur: limit.rlim_max, rlim_max: limit.rlim_max };
        // The pointer is to a live value of the right type. Where the raise is refused, what was there still holds.
        if syscall!(libc::setrlimit(libc::RLIMIT_NOFILE, &raised)).is_ok() {
            return Ok(raised.rlim_cur);
        }
    }
    Ok(limit.rlim_cur)
}
