//! Descriptors of the caller as sides.

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use seaprox::Duplex;

use crate::error::Error;
use crate::handle::{RawLoop, id, with};
use crate::handler::{Callbacks, seaprox_handler};
use crate::memory::{Chars, Out, Struct};

export! {
    fn seaprox_adopt(
        raw: RawLoop,
        fd: c_int,
        write_fd: c_int,
        kind: Chars,
        kind_len: usize,
        handler: Struct<seaprox_handler>,
        user: *mut c_void,
        connection: Out<u64>,
    ) {
        connection.set(0);
        let source = duplex(fd, write_fd)?;
        let kind = kind.some(kind_len)?.unwrap_or("c").to_owned();
        with(raw, |record, core| {
            let callbacks = Callbacks::read(record, handler, user)?;
            connection.set(core.adopt(source, kind, Box::new(callbacks))?.to_u64());
            Ok(0)
        })
    }

    fn seaprox_connection_connect_fd(raw: RawLoop, connection: u64, fd: c_int, write_fd: c_int) {
        let dest = duplex(fd, write_fd)?;
        with(raw, |_, core| Ok(core.connection(id(connection)?)?.connect_with(dest)?))?;
        Ok(0)
    }
}

/// Takes descriptors over: one for both directions, if `write_fd` is negative or the same. An error closes the other one.
fn duplex(fd: c_int, write_fd: c_int) -> Result<Duplex, Error> {
    let read = own(fd);
    if write_fd < 0 || write_fd == fd {
        return read.map(Duplex::new);
    }
    let write = own(write_fd);
    Ok(Duplex::pair(read?, write?))
}

/// Takes a descriptor over.
///
/// # Errors
/// It is negative, or not open.
pub fn own(fd: c_int) -> Result<OwnedFd, Error> {
    check_open(fd)?;
    // SAFETY: it is open, and the header says that the loop owns it from now on.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Checks that a number is that of an open descriptor.
pub fn check_open(fd: c_int) -> Result<(), Error> {
    if fd < 0 {
        return Err(Error::invalid("the descriptor is negative"));
    }
    // SAFETY: this command takes a number, and any number is answered.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error().into());
    }
    Ok(())
}
