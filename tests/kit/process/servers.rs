//! Servers that name themselves, so that a test sees which one a client got.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use super::{Peer, Step::*};

/// A server that greets each client with its own letter, and sends back what it receives until the client closes the
/// connection.
pub struct Server {
    pub addr: SocketAddr,
    clients: Arc<AtomicUsize>,
    listener: TcpListener,
}

impl Server {
    pub fn start(letter: u8) -> Server {
        Server::at(TcpListener::bind("127.0.0.1:0").unwrap(), letter)
    }

    pub fn at(listener: TcpListener, letter: u8) -> Server {
        let (addr, clients) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
        let (count, accepting) = (Arc::clone(&clients), listener.try_clone().unwrap());
        thread::spawn(move || {
            for client in accepting.incoming().map_while(Result::ok) {
                count.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || {
                    let mut peer = Peer::of(client.into(), false);
                    peer.run(&[Put(&[letter])]);
                    while let Some(bytes) = peer.some().ok().filter(|bytes| !bytes.is_empty()) {
                        peer.run(&[Put(&bytes)]);
                    }
                });
            }
        });
        Server { addr, clients, listener }
    }

    pub fn clients(&self) -> usize {
        self.clients.load(Ordering::SeqCst)
    }
}

/// The address refuses clients from then on; the connections go on.
impl Drop for Server {
    fn drop(&mut self) {
        let _ = socket2::SockRef::from(&self.listener).shutdown(std::net::Shutdown::Both);
    }
}

/// Connects a client to a listener. Returns the client and the letter of the server that it got.
pub fn connect(addr: SocketAddr) -> (Peer, u8) {
    let mut peer = Peer::connect(addr);
    let letter = peer.some().expect("a greeting");
    (peer, *letter.first().expect("a letter, not an end"))
}

/// Returns the letters that clients get who come one after the other and leave at once.
pub fn letters(addr: SocketAddr, count: usize) -> String {
    (0..count).map(|_| char::from(connect(addr).1)).collect()
}

/// Returns servers with the letters `a`, `b` and so on at these addresses, all at one port, and the port.
pub fn same_port(addresses: &[&str]) -> (u16, Vec<Server>) {
    let first = TcpListener::bind((addresses[0], 0)).unwrap();
    let port = first.local_addr().unwrap().port();
    let others = addresses[1..].iter().map(|address| TcpListener::bind((*address, port)).unwrap());
    let all = std::iter::once(first).chain(others).zip(b'a'..);
    (port, all.map(|(listener, letter)| Server::at(listener, letter)).collect())
}

/// A connection of the load: when it ended, and the letter of its server; none if it failed.
pub type Sample = (Instant, Option<u8>);

/// Connects again and again from several threads, until `test` returns. Returns its result, and all connections.
pub fn under_load<T>(addrs: &[SocketAddr], test: impl FnOnce() -> T) -> (T, Vec<Sample>) {
    let is_over = AtomicBool::new(false);
    let client = |addr: SocketAddr| {
        let mut samples = Vec::new();
        while !is_over.load(Ordering::Relaxed) {
            let letter = Peer::connect(addr).some().ok().and_then(|bytes| bytes.first().copied());
            samples.push((Instant::now(), letter));
        }
        samples
    };
    thread::scope(|scope| {
        let clients: Vec<_> =
            addrs.iter().flat_map(|addr| [*addr; 2]).map(|addr| scope.spawn(move || client(addr))).collect();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(test));
        is_over.store(true, Ordering::Relaxed);
        let samples = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        match result {
            Ok(result) => (result, samples),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
