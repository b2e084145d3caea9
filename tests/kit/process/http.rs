//! A minimal HTTP client and an origin server that follows a script.

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use super::{Peer, SOON, Step};

/// A response as the client received it.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

/// A server that accepts one connection for each script and follows the script on it.
pub struct Origin {
    pub addr: SocketAddr,
    seen: Receiver<String>,
}

/// One step of an origin server's script.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    /// Reads a request head and passes it to the test.
    Head,
    /// Reads this many bytes of a body and passes them to the test.
    Body(usize),
    /// Sends this text.
    Say(&'static str),
    /// Sends this many bytes.
    Bulk(usize),
    /// Closes the connection.
    Close,
    /// Resets the connection.
    Reset,
    /// Waits until the other end has closed.
    Wait,
}

impl Origin {
    /// Starts a server with one script for each connection.
    pub fn start(scripts: Vec<Vec<Act>>) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("the listener's address");
        let (tell, seen) = channel();
        thread::spawn(move || {
            for script in scripts {
                let mut peer = Peer::accept(&listener);
                let tell = tell.clone();
                thread::spawn(move || {
                    for act in script {
                        match act {
                            Act::Head => drop(tell.send(head(&mut peer))),
                            Act::Body(count) => {
                                let mut bytes = vec![0; count];
                                if peer.socket().read_exact(&mut bytes).is_ok() {
                                    let _ = tell.send(String::from_utf8_lossy(&bytes).into_owned());
                                }
                            }
                            Act::Say(text) => _ = peer.run(&[Step::Put(text.as_bytes())]),
                            Act::Bulk(count) => _ = peer.run(&[Step::Put(&vec![b'x'; count])]),
                            Act::Close => return,
                            Act::Reset => {
                                peer.run(&[Step::Rst]);
                                return;
                            }
                            Act::Wait => while peer.some().is_ok_and(|bytes| !bytes.is_empty()) {},
                        }
                    }
                });
            }
        });
        Origin { addr, seen }
    }

    /// Waits for the next head or body that the server has received.
    #[track_caller]
    pub fn saw(&self) -> String {
        self.seen.recv_timeout(SOON).expect("a request at the origin")
    }

    /// Returns true if the server has received nothing more.
    pub fn saw_nothing(&self) -> bool {
        self.seen.try_recv().is_err()
    }
}

/// Reads one head, up to and including its empty line.
pub fn head(peer: &mut Peer) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        match peer.socket().read(&mut byte) {
            Ok(1) => bytes.push(byte[0]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads a response with a Content-Length, or without a body.
#[track_caller]
pub fn response(peer: &mut Peer) -> Response {
    let head = head(peer);
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let Some(status) = status else { panic!("no response: {head:?}") };
    let mut body = vec![0; field(&head, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0)];
    peer.socket().read_exact(&mut body).expect("the body");
    Response { status, head, body }
}

/// Sends a request to a proxy and reads one response.
#[track_caller]
pub fn ask(proxy: SocketAddr, request: &str) -> Response {
    let mut peer = Peer::connect(proxy);
    peer.run(&[Step::Put(request.as_bytes())]);
    response(&mut peer)
}

/// Returns the value of a field of a head.
pub fn field(head: &str, name: &str) -> Option<String> {
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    fields.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
}
