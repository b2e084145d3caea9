//! The test's ends of descriptors that are not all sockets: pipes and terminals beside the kinds of stream sockets.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use seaprox::Duplex;
use socket2::SockRef;

use super::{Kind, pair};

/// The descriptors of a side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Tcp,
    /// A Unix socket that was accepted by a listener.
    Unix,
    SocketPair,
    /// The ends of two pipes.
    Pipes,
    /// The master of a pseudo terminal.
    Master,
    /// The slave of a pseudo terminal, as the terminal of a program is.
    Slave,
}

impl Shape {
    pub const ALL: [Shape; 6] = [Shape::Tcp, Shape::Unix, Shape::SocketPair, Shape::Pipes, Shape::Master, Shape::Slave];

    /// Returns true if each direction can end alone.
    pub fn half_closes(self) -> bool {
        !matches!(self, Shape::Master | Shape::Slave)
    }
}

/// The test's end of a side. It does not block.
pub struct FarEnd {
    read: File,
    write: Option<File>,
}

impl FarEnd {
    /// Returns an end that does not block, of two descriptors of the test.
    pub fn new(read: OwnedFd, write: OwnedFd) -> FarEnd {
        // The calls take and give integers only, and the descriptors are open.
        for fd in [&read, &write] {
            let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
            assert!(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) } == 0);
        }
        FarEnd { read: read.into(), write: Some(write.into()) }
    }

    fn of_one(fd: OwnedFd) -> FarEnd {
        FarEnd::new(fd.try_clone().unwrap(), fd)
    }

    /// Writes as much as fits. Returns the number of bytes.
    pub fn try_send(&mut self, bytes: &[u8]) -> usize {
        match self.write.as_mut().unwrap().write(bytes) {
            Ok(put) => put,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => panic!("cannot send: {error}"),
        }
    }

    /// Reads all that is there. Returns true at the end of the input.
    pub fn try_receive(&mut self, into: &mut Vec<u8>) -> bool {
        let mut buf = [0; 65536];
        loop {
            match self.read.read(&mut buf) {
                Ok(0) => return true,
                Ok(got) => into.extend(&buf[..got]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                // The other end of a terminal is gone.
                Err(error) if error.raw_os_error() == Some(libc::EIO) => return true,
                Err(error) => panic!("cannot receive: {error}"),
            }
        }
    }

    /// Ends what this end sends, if its kind can.
    pub fn end(&mut self) {
        if let Some(write) = self.write.take() {
            // A pipe is closed by the drop, and a terminal has no end of one direction.
            let _ = SockRef::from(&write).shutdown(Shutdown::Write);
        }
    }
}

/// Returns the test's end, and the descriptors for the loop.
pub fn ends(shape: Shape) -> (FarEnd, Duplex) {
    match shape {
        Shape::Tcp => {
            let (near, far) = pair(Kind::Tcp4);
            (FarEnd::of_one(near.socket.into()), Duplex::new(far))
        }
        Shape::SocketPair => {
            let (near, far) = UnixStream::pair().unwrap();
            (FarEnd::of_one(near.into()), Duplex::new(far))
        }
        Shape::Unix => {
            let folder = std::env::temp_dir().join(format!(
                "seaprox-ends-{}-{:?}",
                std::process::id(),
                std::thread::current().id()
            ));
            let _ = std::fs::remove_file(&folder);
            let listener = UnixListener::bind(&folder).unwrap();
            let near = UnixStream::connect(&folder).unwrap();
            let (far, _) = listener.accept().unwrap();
            std::fs::remove_file(&folder).unwrap();
            (FarEnd::of_one(near.into()), Duplex::new(far))
        }
        Shape::Pipes => {
            let ((read, far_write), (far_read, write)) = (io::pipe().unwrap(), io::pipe().unwrap());
            (FarEnd::new(read.into(), write.into()), Duplex::pair(far_read, far_write))
        }
        Shape::Master | Shape::Slave => {
            let (master, slave) = terminal();
            let (near, far) = if shape == Shape::Master { (slave, master) } else { (master, slave) };
            (FarEnd::of_one(near), Duplex::new(far))
        }
    }
}

/// Returns the master and the slave of a pseudo terminal that changes no byte.
pub fn terminal() -> (OwnedFd, OwnedFd) {
    let (mut master, mut slave) = (-1, -1);
    let null = std::ptr::null_mut();
    // SAFETY: the pointers are to live integers, and null stands for no name and for the default settings.
    let made = unsafe { libc::openpty(&raw mut master, &raw mut slave, null, null.cast(), null.cast()) };
    assert_eq!(made, 0, "openpty: {}", io::Error::last_os_error());
    // SAFETY: openpty has just made both descriptors, and no other code owns them.
    let (master, slave) = unsafe { (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
    // SAFETY: the record consists of integers, for which zeros are valid, and the pointers are to it.
    unsafe {
        let mut settings: libc::termios = std::mem::zeroed();
        assert_eq!(libc::tcgetattr(slave.as_raw_fd(), &raw mut settings), 0);
        libc::cfmakeraw(&raw mut settings);
        assert_eq!(libc::tcsetattr(slave.as_raw_fd(), libc::TCSANOW, &raw const settings), 0);
    }
    (master, slave)
}
