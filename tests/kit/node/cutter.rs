//! A TCP relay between two nodes that can reset its connections or stop relaying.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Relays connections to `addr`.
pub struct Cutter {
    pub addr: SocketAddr,
    state: Arc<State>,
}

struct State {
    to: Mutex<SocketAddr>,
    /// The address that gets every second connection.
    other: Mutex<Option<SocketAddr>>,
    sockets: Mutex<Vec<TcpStream>>,
    /// True if new connections are closed at once.
    closed: AtomicBool,
    /// True if no byte is relayed and no connection is closed.
    silent: AtomicBool,
    count: AtomicUsize,
    /// The number of the first connections that are silent for ever.
    forgotten: AtomicUsize,
    /// The one connection that is relayed, unless it is the largest number.
    only: AtomicUsize,
    /// The connections that the client has reset.
    resets: AtomicUsize,
    /// The connections that were closed at once.
    closes: AtomicUsize,
}

impl Cutter {
    pub fn new(to: SocketAddr) -> Cutter {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::new(State {
            to: Mutex::new(to),
            other: Mutex::default(),
            sockets: Mutex::default(),
            closed: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            count: AtomicUsize::new(0),
            forgotten: AtomicUsize::new(0),
            only: AtomicUsize::new(usize::MAX),
            resets: AtomicUsize::new(0),
            closes: AtomicUsize::new(0),
        });
        let shared = Arc::clone(&state);
        // The thread ends with the process.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                shared.relay(client);
            }
        });
        Cutter { addr, state }
    }

    /// Resets all connections. Returns their number.
    pub fn cut(&self) -> usize {
        let sockets = std::mem::take(&mut *self.state.sockets.lock().unwrap());
        for socket in &sockets {
            let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
            let _ = socket.shutdown(Shutdown::Both);
        }
        sockets.len() / 2
    }

    /// Closes new connections at once from now on, or accepts them again.
    pub fn close(&self, closed: bool) {
        self.state.closed.store(closed, Ordering::Relaxed);
    }

    /// Stops relaying from now on, as a black hole, or goes on.
    pub fn silence(&self, silent: bool) {
        self.state.silent.store(silent, Ordering::Relaxed);
    }

    /// Relays no byte of the present connections any more, and closes none, as a NAT that has lost its table.
    pub fn forget(&self) {
        self.state.forgotten.store(self.count(), Ordering::Relaxed);
    }

    /// Relays the bytes of no connection but this one from now on, and closes none. The first one has the number 0.
    pub fn answer_only(&self, number: usize) {
        self.state.only.store(number, Ordering::Relaxed);
    }

    /// Relays the bytes of all connections again.
    pub fn answer_all(&self) {
        self.state.only.store(usize::MAX, Ordering::Relaxed);
    }

    /// Returns the number of connections that the client has reset.
    pub fn resets(&self) -> usize {
        self.state.resets.load(Ordering::Relaxed)
    }

    /// Returns the number of connections that were closed at once.
    pub fn closes(&self) -> usize {
        self.state.closes.load(Ordering::Relaxed)
    }

    /// Returns the number of connections so far.
    pub fn count(&self) -> usize {
        self.state.count.load(Ordering::Relaxed)
    }

    /// Relays every second connection to this address.
    pub fn balance(&self, other: SocketAddr) {
        *self.state.other.lock().unwrap() = Some(other);
    }

    /// Relays new connections to this address.
    pub fn point_to(&self, to: SocketAddr) {
        *self.state.to.lock().unwrap() = to;
    }
}

impl State {
    /// Returns true if the bytes of a connection are not relayed.
    fn holds(&self, number: usize) -> bool {
        let only = self.only.load(Ordering::Relaxed);
        self.silent.load(Ordering::Relaxed)
            || number < self.forgotten.load(Ordering::Relaxed)
            || (only != usize::MAX && only != number)
    }

    fn relay(self: &Arc<State>, client: TcpStream) {
        if self.closed.load(Ordering::Relaxed) {
            self.closes.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let to = *self.to.lock().unwrap();
        let other = self.other.lock().unwrap().filter(|_| self.count.load(Ordering::Relaxed) % 2 == 1);
        let Ok(server) = TcpStream::connect(other.unwrap_or(to)) else {
            self.count.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        for (from, into, is_client) in [(&client, &server, true), (&server, &client, false)] {
            let _ = from.set_nodelay(true);
            let (mut from, mut into) = (from.try_clone().unwrap(), into.try_clone().unwrap());
            let state = Arc::clone(self);
            thread::spawn(move || {
                let mut buf = vec![0; 65536];
                // The system reports a reset of the client once, to the one that reads from it or to the one that writes to it.
                let end_of_client = loop {
                    let got = from.read(&mut buf);
                    while state.holds(number) {
                        thread::sleep(Duration::from_millis(2));
                    }
                    let got = match got {
                        Ok(got) if got > 0 => got,
                        end => break if is_client { end.map(drop) } else { Ok(()) },
                    };
                    if let Err(error) = into.write_all(&buf[..got]) {
                        break if is_client { Ok(()) } else { Err(error) };
                    }
                };
                let is_reset = end_of_client.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset);
                state.resets.fetch_add(usize::from(is_reset), Ordering::Relaxed);
                let _ = into.shutdown(Shutdown::Both);
                let _ = from.shutdown(Shutdown::Both);
            });
        }
        self.sockets.lock().unwrap().extend([client, server]);
    }
}
