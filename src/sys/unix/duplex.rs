//! The descriptors of one side: any socket, pipe, terminal or file that a loop is handed.
//!
//! `O_NONBLOCK` belongs to the open file. A private open file gets it. An open file that other processes have too is not
//! changed: the flag would break the shell, the parent or the other programs of a pipeline, and it would stay after the end
//! of this process. So the loop does not block for another reason:
//!
//! | kind | how the loop does not block, private | shared |
//! | --- | --- | --- |
//! | socket | `O_NONBLOCK` | `MSG_DONTWAIT` in each call |
//! | pipe, terminal | `O_NONBLOCK` | a new open file through `/proc`, with `O_NONBLOCK` |
//! | regular file | never blocks | never blocks |
//! | other | `O_NONBLOCK` | a thread reads or writes it, joined to the loop by a private pipe |
//!
//! Nothing must be restored at the end of the process, even if it is killed.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, PipeReader, PipeWriter, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use mio::{Interest, Registry, Token};
use socket2::{SockRef, Socket, Type};

use crate::sys;
use crate::types::descriptor_error::DescriptorError;

/// The descriptors of one side of a connection: one for both directions, or one to read from and one to write to.
///
/// Stream sockets of any family, pipes, terminals and files fit. The loop owns the descriptors from then on, and sets
/// `O_NONBLOCK` on their open files unless they are [`shared`](Duplex::shared).
///
/// The end of the output is passed on as the kind permits: a socket is shut down for writing, and the write end of a pipe is
/// closed. A terminal has no such end: its other end notices when the whole connection is over, so the half-closed timer
/// bounds the time in which it sends nothing.
#[derive(Debug)]
pub struct Duplex {
    read: OwnedFd,
    /// None if the first descriptor serves both directions.
    write: Option<OwnedFd>,
    sharing: Sharing,
}

/// The processes that have the open files of a [`Duplex`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sharing {
    Private,
    Shared,
    /// Standard input and output, which are shared. The writer of the output is waited for: see [`finish`].
    Stdio,
}

/// An opened [`Duplex`].
#[derive(Debug)]
pub(crate) enum Opened {
    /// A private stream socket. It does not block.
    Socket(Socket),
    /// A descriptor for each direction.
    Files(Input, Output),
}

/// The input of a side that is not one private socket.
#[derive(Debug)]
pub(crate) struct Input(Box<Source>);

/// The output of a side that is not one private socket.
#[derive(Debug)]
pub(crate) struct Output(Box<Sink>);

#[derive(Debug)]
enum Source {
    /// An open file that does not block.
    File(File),
    /// The master of a pseudo terminal. It does not block.
    Master(File),
    Socket(File),
    /// A thread writes to the pipe, and stores the error that ends it.
    Thread(PipeReader, Error),
}

#[derive(Debug)]
enum Sink {
    File(File),
    /// A socket, and true if the end of the output shuts it down.
    Socket(File, bool),
    /// A thread reads from the pipe, and stores the error that ends it.
    Thread(PipeWriter, Error),
}

/// The error that ended a thread.
type Error = Arc<Mutex<Option<io::Error>>>;

impl Duplex {
    /// Returns a side of one descriptor, which is read and written.
    pub fn new(descriptor: impl Into<OwnedFd>) -> Duplex {
        Duplex { read: descriptor.into(), write: None, sharing: Sharing::Private }
    }

    /// Returns a side that is read from one descriptor and written to another, such as the ends of two pipes.
    pub fn pair(read: impl Into<OwnedFd>, write: impl Into<OwnedFd>) -> Duplex {
        Duplex { read: read.into(), write: Some(write.into()), sharing: Sharing::Private }
    }

    /// Returns standard input and output, as shared descriptors.
    ///
    /// # Errors
    /// The process has no standard input or output, or the system has no descriptor left.
    pub fn stdio() -> io::Result<Duplex> {
        let (read, write) = (io::stdin().as_fd().try_clone_to_owned()?, io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Duplex { read, write: Some(write), sharing: Sharing::Stdio })
    }

    /// Says that other processes have the open files too, as they have inherited ones. The loop leaves the flags of the open
    /// files alone then, and does not shut a socket down at the end of the output.
    #[must_use]
    pub fn shared(mut self) -> Duplex {
        if self.sharing == Sharing::Private {
            self.sharing = Sharing::Shared;
        }
        self
    }

    /// Returns the numbers of the descriptors to read from and to write to.
    pub(crate) fn numbers(&self) -> (i32, i32) {
        let read = self.read.as_raw_fd();
        match self.sharing {
            Sharing::Stdio => (libc::STDIN_FILENO, libc::STDOUT_FILENO),
            _ => (read, self.write.as_ref().map_or(read, AsRawFd::as_raw_fd)),
        }
    }

    /// Checks the descriptors, and keeps them from blocking.
    pub(crate) fn open(self) -> Result<Opened, DescriptorError> {
        let is_socket = is_stream_socket(&self.read)?;
        let is_pair = self.write.as_ref().map(is_stream_socket).transpose()?.is_some();
        if is_socket && !is_pair && self.sharing == Sharing::Private {
            let socket = Socket::from(self.read);
            socket.set_nonblocking(true)?;
            return Ok(Opened::Socket(socket));
        }
        let write = self.write.map_or_else(|| self.read.try_clone(), Ok)?;
        require_access(&self.read, libc::O_WRONLY, "the descriptor is not open for reading")?;
        require_access(&write, libc::O_RDONLY, "the descriptor is not open for writing")?;
        let input = Input(Box::new(Source::open(File::from(self.read), self.sharing)?));
        Ok(Opened::Files(input, Output(Box::new(Sink::open(File::from(write), self.sharing)?))))
    }
}

impl From<OwnedFd> for Duplex {
    fn from(descriptor: OwnedFd) -> Duplex {
        Duplex::new(descriptor)
    }
}

impl From<TcpStream> for Duplex {
    fn from(socket: TcpStream) -> Duplex {
        Duplex::new(socket)
    }
}

impl From<UnixStream> for Duplex {
    fn from(socket: UnixStream) -> Duplex {
        Duplex::new(socket)
    }
}

impl Source {
    fn open(input: File, sharing: Sharing) -> io::Result<Source> {
        let is_master = is_terminal_master(&input);
        Ok(match way_of(&input, OpenOptions::new().read(true), sharing)? {
            Way::AsItIs if is_master => Source::Master(input),
            Way::AsItIs => Source::File(input),
            Way::Anew(own) => Source::File(own),
            Way::Flag => Source::Socket(input),
            Way::Thread => {
                let (reader, writer) = io::pipe()?;
                set_nonblocking(reader.as_fd())?;
                let (error, _) = start("input", input, writer)?;
                Source::Thread(reader, error)
            }
        })
    }
}

impl Sink {
    fn open(output: File, sharing: Sharing) -> io::Result<Sink> {
        Ok(match way_of(&output, OpenOptions::new().write(true), sharing)? {
            Way::AsItIs => Sink::File(output),
            Way::Anew(own) => Sink::File(own),
            Way::Flag => Sink::Socket(output, sharing == Sharing::Private),
            Way::Thread => {
                let (reader, writer) = io::pipe()?;
                set_nonblocking(writer.as_fd())?;
                let (error, thread) = start("output", reader, output)?;
                if sharing == Sharing::Stdio {
                    lock(&WRITERS).push((Arc::clone(&error), thread));
                }
                Sink::Thread(writer, error)
            }
        })
    }
}

/// Waits until all bytes for standard output are written, for as long as its reader takes. Call it when no connection with
/// the side [`Duplex::stdio`] exists any more.
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

fn way_of(file: &File, access: &mut OpenOptions, sharing: Sharing) -> io::Result<Way> {
    let found = file.metadata()?;
    let kind = found.file_type();
    if kind.is_file() || kind.is_dir() {
        return Ok(Way::AsItIs);
    }
    if kind.is_socket() {
        return Ok(Way::Flag);
    }
    if sharing == Sharing::Private {
        set_nonblocking(file.as_fd())?;
        return Ok(Way::AsItIs);
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

/// Returns true if a descriptor is a stream socket. Refuses a socket that carries no stream of bytes: a read of a datagram
/// into a small buffer would lose the rest.
fn is_stream_socket(fd: &OwnedFd) -> Result<bool, DescriptorError> {
    match SockRef::from(fd).r#type() {
        Ok(Type::STREAM) if is_listening(fd) => {
            Err(DescriptorError::Unsuitable("a listening socket has no stream of bytes"))
        }
        Ok(Type::STREAM) => Ok(true),
        Ok(_) => Err(DescriptorError::Unsuitable("a datagram socket has no stream of bytes")),
        // Other kinds of descriptors have no type of socket.
        Err(_) => Ok(false),
    }
}

fn is_listening(fd: &OwnedFd) -> bool {
    let mut listens: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    let at = (&raw mut listens).cast();
    // The pointers are to a live integer and to its length. A system without this option refuses a read later.
    syscall!(libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ACCEPTCONN, at, &raw mut len))
        .is_ok_and(|_| listens != 0)
}

/// Refuses a descriptor whose only access is `lacks`.
fn require_access(fd: &OwnedFd, lacks: libc::c_int, text: &'static str) -> Result<(), DescriptorError> {
    // fcntl with this command takes and gives integers only.
    let flags = syscall!(libc::fcntl(fd.as_raw_fd(), libc::F_GETFL))?;
    if flags & libc::O_ACCMODE == lacks { Err(DescriptorError::Unsuitable(text)) } else { Ok(()) }
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

    /// Passes the end of the output on, as far as the descriptor permits. A drop does the rest.
    pub fn end(&self) -> io::Result<()> {
        match &*self.0 {
            Sink::Socket(file, true) => SockRef::from(file).shutdown(Shutdown::Write),
            Sink::File(_) | Sink::Socket(_, false) | Sink::Thread(..) => Ok(()),
        }
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
            // The other end of the terminal is closed.
            Source::Master(file) => (&mut &*file).read(buf).or_else(end_of_terminal),
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
            Sink::Socket(file, _) => send(file.as_fd(), pieces),
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
            Source::File(file) | Source::Master(file) | Source::Socket(file) => file.as_fd(),
            Source::Thread(pipe, _) => pipe.as_fd(),
        }
    }
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &*self.0 {
            Sink::File(file) | Sink::Socket(file, _) => file.as_fd(),
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

/// Turns the error of a terminal's master after the last close of its other end (`EIO`) into the end of the input.
fn end_of_terminal(error: io::Error) -> io::Result<usize> {
    if error.raw_os_error() == Some(libc::EIO) { Ok(0) } else { Err(error) }
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
/// No flag: programs in Rust ignore SIGPIPE, and `seaprox_new` of the C interface does it for other programs.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const NO_SIGNAL: libc::c_int = 0;
/// Bytes that a thread copies in one read.
const COPY_BYTES: usize = 64 << 10;
