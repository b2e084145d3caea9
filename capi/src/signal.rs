//! SIGPIPE. A write to a socket or a pipe that its peer has closed raises it, and its default ends the process. The runtime of a
//! program in Rust ignores it; a program in C has no such runtime, so a peer could end it.

/// Ignores SIGPIPE in the process, if it would end the process. A handler of the program stays.
pub fn ignore_sigpipe() {
    // SAFETY: zeros are a valid record, and both calls get pointers to live records or null.
    unsafe {
        let mut present: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(libc::SIGPIPE, std::ptr::null(), &raw mut present) == 0
            && present.sa_sigaction == libc::SIG_DFL
        {
            let mut ignored: libc::sigaction = std::mem::zeroed();
            ignored.sa_sigaction = libc::SIG_IGN;
            // The signal and the record are valid, so this cannot fail.
            libc::sigaction(libc::SIGPIPE, &raw const ignored, std::ptr::null_mut());
        }
    }
}
