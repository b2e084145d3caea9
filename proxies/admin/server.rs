//! The admin server: listens on a Unix socket of the process and on further addresses, and answers one request for each
//! connection.
//!
//! ```text
//!   accept ── room? ──> client thread: head and body ── guard ── route ──> response, close
//!                no ──> 503, close
//! ```
//! A thread accepts at each address, and each client has a thread while it is served. So a client that is slow delays no
//! loop, no other client, and no address. Every step has a deadline, and [`Clients`] bounds the threads.

use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use seaprox::{SocketFile, UnixFileError, UnixListener, UnixMode, UnixOwner, UnixStream};

use super::clients::{Class, Clients};
use super::head::{HEAD_BYTES_MAX, Head, Refusal};
use super::reply::Reply;
use super::routes::Request;
use super::service::Service;
use super::stream::{Stream, Timed};

/// The addresses of an admin server. Dropping it closes them, and waits for the answers to commands: a command may end the
/// process, and its client learns that it was carried out.
pub struct Server {
    service: Arc<Service>,
    opened: Vec<Opened>,
}

/// An address of the admin server.
struct Opened {
    place: Place,
    is_closed: Arc<AtomicBool>,
    /// Removes the socket when it is dropped.
    _file: Option<SocketFile>,
}

/// An address of the admin server that is bound.
enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Server {
    /// Creates a server without addresses.
    pub fn new(service: Arc<Service>) -> Server {
        Server { service, opened: Vec::new() }
    }

    /// Listens on a Unix socket that admits this user and root only, and the members of a group if there is one.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn open_unix(&mut self, path: &Path, group: Option<u32>) -> io::Result<()> {
        // The file has its group and its mode before anyone can connect, and neither is set through a symbolic link that took
        // its place.
        let owner = group.map(|group| format!(":{group}").parse::<UnixOwner>()).transpose();
        let mode = if group.is_some() { "0660" } else { "0600" }.parse::<UnixMode>();
        let invalid = |error: UnixFileError| io::Error::new(ErrorKind::InvalidInput, error.to_string());
        let (mode, owner) = (mode.map_err(invalid)?, owner.map_err(invalid)?);
        let (listener, file) = SocketFile::bind_owned(path, BACKLOG, Some(mode), owner.as_ref())?;
        listener.set_nonblocking(false)?;
        self.start(Place::Unix(path.to_owned()), Listener::Unix(listener), Some(file))
    }

    /// Listens on an address of TCP. Returns the address that was bound.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn open_tcp(&mut self, addr: SocketAddr) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind(addr)?;
        let addr = listener.local_addr()?;
        self.start(Place::Tcp(addr), Listener::Tcp(listener), None)?;
        Ok(addr)
    }

    /// Returns the addresses, in the order in which they were opened.
    pub fn addresses(&self) -> Vec<String> {
        self.opened.iter().map(|opened| opened.place.to_string()).collect()
    }

    /// Returns the addresses of TCP.
    pub fn tcp_addresses(&self) -> Vec<SocketAddr> {
        let addr = |opened: &Opened| match opened.place {
            Place::Tcp(addr) => Some(addr),
            Place::Unix(_) => None,
        };
        self.opened.iter().filter_map(addr).collect()
    }

    fn start(&mut self, place: Place, listener: Listener, file: Option<SocketFile>) -> io::Result<()> {
        let (service, is_closed) = (Arc::clone(&self.service), Arc::new(AtomicBool::new(false)));
        let told = Arc::clone(&is_closed);
        let accept = move || match listener {
            Listener::Tcp(listener) => accept(&service, listener.incoming().map(|it| it.map(Stream::Tcp)), &told),
            Listener::Unix(listener) => accept(&service, listener.incoming().map(|it| it.map(Stream::Unix)), &told),
        };
        thread::Builder::new().name("admin".into()).stack_size(STACK_BYTES).spawn(accept)?;
        self.opened.push(Opened { place, is_closed, _file: file });
        Ok(())
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Drop for Server {
    fn drop(&mut self) {
        self.opened.clear();
        self.service.finish(ANSWER_TIME);
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.is_closed.store(true, Ordering::Release);
        // A connection wakes the accepting thread, which then ends.
        match &self.place {
            Place::Tcp(addr) => drop(TcpStream::connect_timeout(addr, WAKE_TIME)),
            Place::Unix(path) => drop(UnixStream::connect(path)),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Tcp(addr) => addr.fmt(f),
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

fn accept(service: &Arc<Service>, incoming: impl Iterator<Item = io::Result<Stream>>, is_closed: &AtomicBool) {
    for stream in incoming {
        if is_closed.load(Ordering::Acquire) {
            return;
        }
        match stream {
            Ok(stream) => admit(service, Arc::new(stream)),
            // The process has no descriptor left, or the client has left already.
            Err(_) => thread::sleep(ACCEPT_PAUSE),
        }
    }
}

/// Starts the thread of a client, if there is room.
fn admit(service: &Arc<Service>, stream: Arc<Stream>) {
    let clients: &Arc<Clients> = service.clients_of(&stream);
    let Some(ticket) = clients.admit(&stream) else {
        let mut out = stream.until(Instant::now() + REFUSAL_TIME);
        // A client that takes no response has none.
        let _ = Reply::new(&mut out, None).error(503, "too many clients", &[("Retry-After", "1")]);
        return;
    };
    let service = Arc::clone(service);
    let body = move || {
        let request = read(&mut stream.until(Instant::now() + REQUEST_TIME));
        // An error means that the client has left.
        let _ = match request {
            Ok(request) => service.answer(request, &stream, &ticket),
            Err(_) if ticket.enter(Class::Open).is_err() => return,
            Err(refusal) => {
                let mut out = stream.until(Instant::now() + REFUSAL_TIME);
                Reply::new(&mut out, None).error(refusal.status, refusal.text, &[])
            }
        };
        if ticket.linger() {
            stream.finish();
        }
    };
    // A process that gets no further thread answers nobody.
    let _ = thread::Builder::new().name("admin-client".into()).stack_size(STACK_BYTES).spawn(body);
}

/// Reads a request. A client that leaves is refused, too, which it does not see.
fn read(socket: &mut Timed<'_>) -> Result<Request, Refusal> {
    let (mut bytes, mut buf) = (Vec::new(), [0; 4096]);
    let mut more = |bytes: &mut Vec<u8>| match socket.read(&mut buf) {
        Ok(0) => Err(Refusal { status: 400, text: "the request is not complete" }),
        Ok(count) => {
            bytes.extend_from_slice(&buf[..count]);
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
        // Earlier versions of `seaprox status` wait for an answer without a request.
        Err(_) => Err(Refusal { status: 408, text: "expected an HTTP request on this socket" }),
    };
    let (head, len) = loop {
        let some = bytes.len().min(HEAD_BYTES_MAX);
        if let Some(complete) = Head::parse(&bytes[..some])? {
            break complete;
        }
        more(&mut bytes)?;
    };
    let mut body = bytes.split_off(len);
    while body.len() < head.content_length {
        more(&mut body)?;
    }
    body.truncate(head.content_length);
    Ok(Request { head, body, may_read: false })
}

/// Clients that wait to be accepted.
const BACKLOG: u32 = 128;
/// Time for a client to send its request. Earlier versions of `seaprox status` wait for 5 s, and then show the refusal.
const REQUEST_TIME: Duration = Duration::from_secs(4);
/// Time for a client to take a refusal.
const REFUSAL_TIME: Duration = Duration::from_millis(100);
/// Longest wait for the answers to commands when the server ends.
const ANSWER_TIME: Duration = Duration::from_secs(1);
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Longest wait for the connection that wakes an accepting thread.
const WAKE_TIME: Duration = Duration::from_secs(1);
/// Stack of a thread of the server.
const STACK_BYTES: usize = 512 << 10;
