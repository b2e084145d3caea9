//! The terminal of a program that talks with a user.

use std::io::{self, ErrorKind};

/// Returns true if the terminal on standard input or standard output has hung up: its window or its connection is closed.
pub fn is_terminal_gone() -> bool {
    // Without events, the call asks for the hang-up and for errors alone.
    let descriptor = |fd| libc::pollfd { fd, events: 0, revents: 0 };
    let mut descriptors = [descriptor(libc::STDIN_FILENO), descriptor(libc::STDOUT_FILENO)];
    // The pointer and the count are those of the array.
    match syscall!(libc::poll(descriptors.as_mut_ptr(), descriptors.len() as libc::nfds_t, 0)) {
        Ok(_) => descriptors.iter().any(|descriptor| descriptor.revents != 0),
        Err(error) => error.kind() != ErrorKind::Interrupted,
    }
}
