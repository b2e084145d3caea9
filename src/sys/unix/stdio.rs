//! Standard input and output as descriptors of a loop. The open files, which other processes share, are not changed.
//!
//! `O_NONBLOCK` belongs to the open file, which this process shares with the shell, its parent and the other programs of a
//! pipeline. Setting it there would break those programs, and it would stay after the end of this process. So the loop does
//! not block for another reason:
//!
//! | kind | how the loop does not block |
//! | --- | --- |
//! | pipe, terminal | a new open file through `/proc`, with `O_NONBLOCK` |
//! | socket | `MSG_DONTWAIT` in each call |
//! | regular file | never blocks |
//! | other (terminal or pipe of another user) | a thread reads or writes it, joined to the loop by a private pipe |
//!
//! Nothing must be restored at the end of the process, even if it is killed.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use mio::{Interest, Registry, Token};

use crate::sys;

/// Standard input, for a loop.
#[derive(Debug)]
pub(crate) struct Input(Box<Source>);

/// Standard output, for a loop.
#[derive(Debug)]
pub(crate) struct Output(Box<Sink>);

#[derive(Debug)]
enum Source {
    /// An open file that does not block.
    File(File),
    Socket(File),
    /// A thread writes to the pipe, and stores the error that ends it.
    Thread(PipeReader, Error),
}

#[derive(Debug)]
enum Sink {
    File(File),
    Socket(File),
    /// A thread reads from the pipe, and stores the error that ends it.
    Thread(PipeWriter, Error),
}

/// The error that ended a thread.
type Error = Arc<Mutex<Option<io::Error>>>;

/// Opens standard input and output for a loop.
pub(crate) fn duplex() -> io::Result<(Input, Output)> {
    let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let input = match way_of(&input, OpenOptions::new().read(true))? {
        Way::AsItIs => Source::File(input),
        Way::Anew(own) => Source::File(own),
        Way::Flag => Source::Socket(input),
        Way::Thread => {
            let (reader, writer) = io::pipe()?;
            set_nonblocking(reader.as_fd())?;
            let (error, _) = start("stdin", input, writer)?;
            Source::Thread(reader, error)
        }
    };
    let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let output = match way_of(&output, OpenOptions::new().write(true))? {
        Way::AsItIs => Sink::File(output),
        Way::Anew(own) => Sink::File(own),
        Way::Flag => Sink::Socket(output),
        Way::Thread => {
            let (reader, writer) = io::pipe()?;
            set_nonblocking(writer.as_fd())?;
            let (error, thread) = start("stdout", reader, output)?;
            lock(&WRITERS).push((Arc::clone(&error), thread));
            Sink::Thread(writer, error)
        }
    };
    Ok((Input(Box::new(input)), Output(Box::new(output))))
}

/// Waits until all bytes for standard output are written, for as long as its reader takes. Call it when no connection that
/// [`Core::adopt_stdio`](crate::Core::adopt_stdio) or [`Core::connect_stdio`](crate::Core::connect_stdio) has made uses
/// standard output any more.
///
/// # Errors
/// Fails if not all bytes could be written.
pub fn finish() -> io::Result<()> {
    let writers = std::mem::take(&mut *lock(&WRITERS));
    for (error, thread) in writers {
        // A thread that panicked has stored no error; its panic has been printed.
        let _ = thread.join();
        if let Some(error) = lock(&error).take() {
            return Err(error);
        }
    }
    Ok(())
}

/// The threads that write to standard output.
static WRITERS: Mutex<Vec<(Error, JoinHandle<()>)>> = Mutex::new(Vec::new());

/// The way to keep a descriptor from blocking.
enum Way {
    AsItIs,
    Anew(File),
    Flag,
    Thread,
}

fn way_of(file: &File, access: &mut OpenOptions) -> io::Result<Way> {
    let found = file.metadata()?;
    let kind = found.file_type();
    if kind.is_file() || kind.is_dir() {
        return Ok(Way::AsItIs);
    }
    if kind.is_socket() {
        return Ok(Way::Flag);
    }
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // An opened terminal must not become our controlling terminal.
    let own = access.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    // Each open of a terminal's master makes another terminal.
    let is_same = |own: &File| {
        let same =
            |one: &std::fs::Metadata| (one.dev(), one.ino(), one.rdev()) == (found.dev(), found.ino(), found.rdev());
        !is_terminal_master(file) && own.metadata().is_ok_and(|own| same(&own))
    };
    let is_fit = kind.is_fifo() || kind.is_char_device();
    Ok(match own {
        Ok(own) if is_fit && is_same(&own) => Way::Anew(own),
        _ => Way::Thread,
    })
}

/// Starts a thread that copies bytes until the input ends or the output fails.
fn start(
    name: &str,
    mut from: impl Read + Send + 'static,
    mut to: impl Write + Send + 'static,
) -> io::Result<(Error, JoinHandle<()>)> {
    let error = Error::default();
    let told = Arc::clone(&error);
    let body = move || {
        let mut buf = vec![0; COPY_BYTES];
        loop {
            let result = match from.read(&mut buf) {
                Ok(0) => return,
                Ok(count) => to.write_all(&buf[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = result {
                // The error is stored before the pipe is closed, because the loop reads it then.
                *lock(&told) = Some(error);
                return;
            }
        }
    };
    Ok((error, thread::Builder::new().name(name.into()).spawn(body)?))
}

impl Input {
    /// Registers the input for the events of a token. Returns true if it needs none, because it cannot block.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<bool> {
        sys::register(self, registry, token, Interest::READABLE)
    }

    /// Returns the number of the descriptor.
    pub fn number(&self) -> i32 {
        self.as_fd().as_raw_fd()
    }
}

impl Output {
    /// Registers the output for the events of a token. Returns true if it needs none, because it cannot block.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<bool> {
        sys::register(self, registry, token, Interest::WRITABLE)
    }

    /// Returns the number of the descriptor.
    pub fn number(&self) -> i32 {
        self.as_fd().as_raw_fd()
    }

    /// Returns true if the pipe or terminal has no reader any more (`POLLERR`, poll(2)).
    pub fn is_reader_gone(&self) -> bool {
        let mut asked = libc::pollfd { fd: self.number(), events: 0, revents: 0 };
        // The pointer is to one live record, and nothing is waited for. Where it fails, the next write finds out.
        syscall!(libc::poll(&raw mut asked, 1, 0)).is_ok_and(|_| asked.revents & libc::POLLERR != 0)
    }
}

impl Read for &Input {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &*self.0 {
            Source::File(file) => (&mut &*file).read(buf),
            Source::Socket(file) => receive(file.as_fd(), buf),
            Source::Thread(pipe, error) => match (&mut &*pipe).read(buf) {
                // The end of the pipe is the end of the input, unless that has failed.
                Ok(0) if !buf.is_empty() => lock(error).take().map_or(Ok(0), Err),
                result => result,
            },
        }
    }
}

impl Write for &Output {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buf)])
    }

    // One call writes all pieces, because the loop takes a short write for an output without room.
    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match &*self.0 {
            Sink::File(file) => (&mut &*file).write_vectored(pieces),
            Sink::Socket(file) => send(file.as_fd(), pieces),
            // Report the error that ended the thread, not the closed pipe.
            Sink::Thread(pipe, error) => {
                (&mut &*pipe).write_vectored(pieces).map_err(|found| lock(error).take().unwrap_or(found))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Input {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &*self.0 {
            Source::File(file) | Source::Socket(file) => file.as_fd(),
            Source::Thread(pipe, _) => pipe.as_fd(),
        }
    }
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &*self.0 {
            Sink::File(file) | Sink::Socket(file) => file.as_fd(),
            Sink::Thread(pipe, _) => pipe.as_fd(),
        }
    }
}

/// Sets `O_NONBLOCK` on an open file that only this process has.
fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    // fcntl with these two commands takes and gives integers only.
    let flags = syscall!(libc::fcntl(fd.as_raw_fd(), libc::F_GETFL))?;
    syscall!(libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK))?;
    Ok(())
}

/// Returns true if the file is the master of a pseudo terminal (pty(7)). Only a master has a slave number.
fn is_terminal_master(file: &File) -> bool {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let mut number: libc::c_uint = 0;
        // The pointer is to a live integer, as ioctl_tty(2) requires.
        syscall!(libc::ioctl(file.as_raw_fd(), libc::TIOCGPTN, &raw mut number)).is_ok()
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = file;
        false
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn receive(socket: BorrowedFd<'_>, buf: &mut [u8]) -> io::Result<usize> {
    let (at, len) = (buf.as_mut_ptr().cast(), buf.len());
    // The pointer and the length are those of a live mutable slice.
    let count = syscall!(libc::recv(socket.as_raw_fd(), at, len, libc::MSG_DONTWAIT))?;
    Ok(count as usize)
}

fn send(socket: BorrowedFd<'_>, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | NO_SIGNAL;
    // SAFETY: the record consists of integers and pointers, for which zeros are valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    // The standard library promises that an IoSlice has the layout of an iovec, and the bytes are only read.
    message.msg_iov = pieces.as_ptr().cast_mut().cast();
    message.msg_iovlen = pieces.len() as _;
    // The pointer is to a live record, whose pointers are to live slices.
    let count = syscall!(libc::sendmsg(socket.as_raw_fd(), &raw const message, flags))?;
    Ok(count as usize)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
const NO_SIGNAL: libc::c_int = libc::MSG_NOSIGNAL;
/// No flag: programs in Rust ignore SIGPIPE.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const NO_SIGNAL: libc::c_int = 0;
/// Bytes that a thread copies in one read.
const COPY_BYTES: usize = 64 << 10;
