//! Many connections that send the same bytes, and the outcome of each.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::SOON;

/// Connections that have sent all their bytes.
pub struct Crowd(Vec<TcpStream>);

impl Crowd {
    /// Opens `count` connections. Each runs all steps: it sends the bytes and then reads that many bytes of an answer.
    pub fn start(to: SocketAddr, count: usize, steps: &[(&[u8], usize)]) -> Crowd {
        let one = |_| {
            let mut socket = TcpStream::connect(to).expect("a connection");
            socket.set_read_timeout(Some(SOON)).expect("a timeout");
            for (bytes, answer) in steps {
                socket.write_all(bytes).expect("a write");
                socket.read_exact(&mut vec![0; *answer]).expect("an answer");
            }
            socket.set_nonblocking(true).expect("a socket");
            socket
        };
        Crowd((0..count).map(one).collect())
    }

    /// Returns the number of connections closed without an answer and the number that still wait for one.
    pub fn look(&mut self) -> (usize, usize) {
        let (mut closed, mut waiting) = (0, 0);
        for socket in &mut self.0 {
            match socket.peek(&mut [0]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => waiting += 1,
                Ok(0) | Err(_) => closed += 1,
                Ok(_) => {}
            }
        }
        (closed, waiting)
    }
}
