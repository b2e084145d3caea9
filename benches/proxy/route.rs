//! The route from the client to the far end: the address to dial, and the proxy's handshake.
//!
//! A handshake is a list of exchanges, each one send and one wait, as an ordinary client makes them. This file makes
//! them with blocking calls; the short connections of `connect.rs` use the same list without blocking.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

/// The handshake that a proxy needs before it relays.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Handshake {
    None,
    /// SOCKS5 without authentication (RFC 1928).
    Socks5,
    /// HTTP CONNECT (RFC 9110, section 9.3.6).
    Connect,
    /// None, and the route is for datagrams.
    Datagrams,
    /// SOCKS5 UDP ASSOCIATE (RFC 1928, section 7): each datagram has a header.
    Associate,
}

#[derive(Clone)]
pub struct Route {
    pub dial: SocketAddr,
    pub target: SocketAddr,
    pub handshake: Handshake,
}

#[derive(Clone)]
pub struct Exchange {
    pub send: Vec<u8>,
    pub expect: Expect,
}

#[derive(Clone, Copy)]
pub enum Expect {
    Bytes(usize),
    /// A head of unknown length, up to its empty line.
    Head,
}

impl Route {
    pub fn direct(target: SocketAddr) -> Route {
        Route { dial: target, target, handshake: Handshake::None }
    }

    pub fn exchanges(&self) -> Vec<Exchange> {
        match self.handshake {
            Handshake::None | Handshake::Datagrams => Vec::new(),
            Handshake::Socks5 => vec![
                Exchange { send: vec![5, 1, 0], expect: Expect::Bytes(2) },
                Exchange { send: self.socks_request(), expect: Expect::Bytes(SOCKS_REPLY_LEN) },
            ],
            Handshake::Associate => vec![Exchange { send: vec![5, 1, 0], expect: Expect::Bytes(2) }],
            Handshake::Connect => {
                let head = format!("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n", self.target);
                vec![Exchange { send: head.into_bytes(), expect: Expect::Head }]
            }
        }
    }

    /// Dials, makes the handshake and checks the proxy's answers. Reads and writes of the returned stream have a time
    /// limit.
    pub fn open(&self) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect_timeout(&self.dial, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        for exchange in self.exchanges() {
            stream.write_all(&exchange.send)?;
            let answer = receive(&mut stream, exchange.expect)?;
            let agreed = match exchange.expect {
                Expect::Bytes(_) => answer[1] == 0,
                Expect::Head => answer.split(|byte| *byte == b' ').nth(1) == Some(b"200"),
            };
            if !agreed {
                return Err(io::Error::other(format!("the proxy refused: {}", answer.escape_ascii())));
            }
        }
        Ok(stream)
    }

    /// Opens the way for datagrams: a connected socket, the header that each datagram needs, and the connection on which
    /// the way depends, if it does.
    pub fn open_datagrams(&self) -> io::Result<(UdpSocket, Vec<u8>, Option<TcpStream>)> {
        let socket = UdpSocket::bind((self.dial.ip(), 0))?;
        if self.handshake != Handshake::Associate {
            socket.connect(self.dial)?;
            return Ok((socket, Vec::new(), None));
        }
        let mut control = self.open()?;
        control.write_all(&[5, 3, 0, 1, 0, 0, 0, 0, 0, 0])?;
        let answer = receive(&mut control, Expect::Bytes(SOCKS_REPLY_LEN))?;
        if answer[1] != 0 {
            return Err(io::Error::other(format!("the proxy refused: {}", answer.escape_ascii())));
        }
        socket.connect((self.dial.ip(), u16::from_be_bytes([answer[8], answer[9]])))?;
        let mut header = vec![0, 0, 0];
        self.push_target(&mut header);
        Ok((socket, header, Some(control)))
    }

    fn socks_request(&self) -> Vec<u8> {
        let mut request = vec![5, 1, 0];
        self.push_target(&mut request);
        request
    }

    /// Appends the target's address as SOCKS5 has it.
    fn push_target(&self, request: &mut Vec<u8>) {
        match self.target {
            SocketAddr::V4(addr) => {
                request.push(1);
                request.extend(addr.ip().octets());
            }
            SocketAddr::V6(addr) => {
                request.push(4);
                request.extend(addr.ip().octets());
            }
        }
        request.extend(self.target.port().to_be_bytes());
    }
}

/// Reads the expected answer and not one byte more, because a bulk stream follows at once.
fn receive(stream: &mut TcpStream, expect: Expect) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    let complete = |answer: &[u8]| match expect {
        Expect::Bytes(len) => answer.len() == len,
        Expect::Head => answer.ends_with(b"\r\n\r\n"),
    };
    while !complete(&answer) {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        answer.push(byte[0]);
        if answer.len() > ANSWER_LEN_MAX {
            return Err(io::Error::other("the proxy's answer does not end"));
        }
    }
    Ok(answer)
}

/// The length of a reply with an IPv4 address, as proxies on 127.0.0.1 send it.
const SOCKS_REPLY_LEN: usize = 10;
const ANSWER_LEN_MAX: usize = 16 * 1024;
pub const PATIENCE: Duration = Duration::from_secs(5);
