//! Servers that name themselves, so that a test sees which one a client got.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::{Peer, Step::*};

/// A server that greets each client with its own letter, and keeps the connection until the client closes it.
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
                    while peer.some().is_ok_and(|bytes| !bytes.is_empty()) {}
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
