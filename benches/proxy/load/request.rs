//! Requests on connections that stay open: each connection sends the next request as soon as an answer is complete.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::Load;
use crate::route::{PATIENCE, Route};
use crate::sys::{self, Epoll};
use crate::target::RESPONSE;

/// The unit is one answered request.
pub struct Request {
    connections: Vec<Connection>,
    epoll: Epoll,
    request: Vec<u8>,
    done: u64,
}

struct Connection {
    stream: TcpStream,
    received: usize,
}

impl Request {
    pub fn open(route: &Route, concurrent: usize) -> io::Result<Request> {
        let epoll = Epoll::new()?;
        let request = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", route.target).into_bytes();
        let mut connections = Vec::new();
        for index in 0..concurrent {
            let mut stream = route.open()?;
            stream.set_nonblocking(true)?;
            epoll.add(&stream, index as u64, sys::READABLE)?;
            stream.write_all(&request)?;
            connections.push(Connection { stream, received: 0 });
        }
        Ok(Request { connections, epoll, request, done: 0 })
    }

    fn advance(&mut self, index: usize) -> io::Result<()> {
        let mut buf = [0; 2048];
        let connection = &mut self.connections[index];
        match connection.stream.read(&mut buf) {
            Ok(0) => return Err(io::Error::other("a connection that was to stay open ended")),
            Ok(len) => connection.received += len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        if connection.received >= RESPONSE.len() {
            connection.received -= RESPONSE.len();
            self.done += 1;
            connection.stream.write_all(&self.request)?;
        }
        Ok(())
    }
}

impl Load for Request {
    fn run_for(&mut self, window: Duration) -> io::Result<()> {
        let start = Instant::now();
        let end = start + window;
        let mut progress = start;
        let mut ready = Vec::new();
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            self.epoll.wait(&mut ready, Some(end - now))?;
            if !ready.is_empty() {
                progress = now;
            } else if now - progress > PATIENCE {
                return Err(io::Error::other("no request is answered"));
            }
            for token in &ready {
                self.advance(*token as usize)?;
            }
        }
    }

    fn units(&self) -> u64 {
        self.done
    }
}
