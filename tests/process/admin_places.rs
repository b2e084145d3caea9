//! The places for clients of the admin server: slow clients and strangers keep no probe out, and cost a bounded share.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::admin::{LOCAL, get, over_tcp};
use crate::kit;
use kit::{Relay, SOON, until};

/// Asks without a panic: none if the client gets no whole answer.
fn try_get(addr: SocketAddr, path: &str) -> Option<u16> {
    let mut socket = TcpStream::connect_timeout(&addr, SOON).ok()?;
    socket.set_read_timeout(Some(SOON)).ok()?;
    socket.write_all(get(path, LOCAL).as_bytes()).ok()?;
    let mut text = String::new();
    socket.read_to_string(&mut text).ok()?;
    text.split(' ').nth(1)?.parse().ok()
}

/// Clients of one address that send a request for which no right is needed, and stay.
#[test]
fn answered_clients_that_stay_keep_no_probe_out() {
    let relay = Relay::start(&["--admin", "127.0.0.1:0"]);
    let (addr, is_over) = (relay.seaprox.admin_addr(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _end = End(&is_over);
        scope.spawn(|| {
            let mut open = std::collections::VecDeque::new();
            while !is_over.load(Ordering::Relaxed) {
                if let Ok(mut socket) = TcpStream::connect(addr) {
                    let _ = socket.write_all(get("/", LOCAL).as_bytes());
                    open.push_back(socket);
                }
                if open.len() > 64 {
                    open.pop_front();
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        until("the clients have begun", || relay.seaprox.figure("/admin/requests") > 100);
        for _ in 0..20 {
            // On a busy machine, a client may not be given its time to send.
            until("a probe is answered", || try_get(addr, "/healthz") == Some(200));
        }
    });
}

/// Ends the other thread of a test, also when the test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Clients that have the right to read, and take all places for such clients.
#[test]
fn readers_that_do_not_read_keep_no_probe_out() {
    let relay = Relay::start(&["--admin", "127.0.0.1:0"]);
    let addr = relay.seaprox.admin_addr();
    let clients: Vec<_> = (0..300).map(|_| relay.pair()).collect();
    let mut slow = Vec::new();
    for _ in 0..40 {
        let mut socket = kit::Peer::connect_narrow(addr);
        socket.run(&[kit::Step::Put(get("/status", LOCAL).as_bytes())]);
        slow.push(socket);
    }
    for _ in 0..10 {
        assert_eq!(try_get(addr, "/healthz"), Some(200));
        assert_eq!(try_get(addr, "/readyz"), Some(200));
    }
    assert_eq!(clients.len(), 300);
}

/// The status of many connections is written in pieces: a reader that stops reads a bounded part of it, and the loop goes on.
#[test]
fn the_status_of_many_connections_is_held_in_pieces() {
    let relay = Relay::start(&["--admin", "127.0.0.1:0"]);
    let addr = relay.seaprox.admin_addr();
    let clients: Vec<_> = (0..CONNECTIONS).map(|_| relay.pair()).collect();
    let whole = over_tcp(addr, &get("/status", LOCAL));
    assert_eq!(whole.json()["connections"].as_array().unwrap().len(), CONNECTIONS);
    let before = kit::proc::rss(relay.seaprox.pid());
    let slow: Vec<TcpStream> = (0..READERS).map(|_| ask_narrow(addr, &get("/status", LOCAL))).collect();
    // The status says how many readers there are, too, but it takes seconds on a busy machine, and they are given up meanwhile.
    let is_answered = |reader: &TcpStream| reader.peek(&mut [0; 4096]).is_ok_and(|count| count == 4096);
    until("all of them are being answered", || slow.iter().all(is_answered));
    let (mut client, mut server) = relay.pair();
    for _ in 0..50 {
        kit::peer::both(&mut client, &[kit::Step::Swap(10_000)], &mut server, &[kit::Step::Swap(10_000)]);
    }
    let grown = kit::proc::rss(relay.seaprox.pid()).saturating_sub(before);
    // A reader has the text of 256 connections, and the buffers of its thread.
    assert!(grown < (READERS * whole.body.len() / 2) as u64, "{grown} bytes for {READERS} of {}", whole.body.len());
    drop(clients);
}

/// Sends a request on a connection with a small receive buffer. A read waits for a while.
fn ask_narrow(addr: SocketAddr, request: &str) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::for_address(addr), socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket.connect(&addr.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

const CONNECTIONS: usize = 2_000;
const READERS: usize = 20;
