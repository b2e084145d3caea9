//! An echo over a link: a small message every two milliseconds, and the time until each has come back.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use seaprox::link::{Host, Open, StreamId};

use crate::hostile_kit::RawLink;

/// A stream over a link to an echo server.
pub struct Echo {
    link: RawLink,
    stream: StreamId,
}

impl Echo {
    /// Opens a stream over a link of its own to an echo server.
    pub fn start(node: SocketAddr, key: [u8; 32]) -> io::Result<Echo> {
        let server = serve()?;
        let mut link = RawLink::connect(node, key)?;
        let stream = open(&mut link, Host::Addr(server.ip()), server.port())?;
        Ok(Echo { link, stream })
    }

    /// Returns the 99th percentile of the times of [`Echo::times_ms`].
    pub fn p99_ms(&mut self, time: Duration) -> io::Result<f64> {
        self.percentiles_ms(time).map(|(_, p99)| p99)
    }

    /// Returns the median and the 99th percentile of the times of [`Echo::times_ms`].
    pub fn percentiles_ms(&mut self, time: Duration) -> io::Result<(f64, f64)> {
        let times = self.times_ms(time)?;
        let of = |percent: usize| times.get(times.len() * percent / 100).copied();
        of(50).zip(of(99)).ok_or_else(|| io::Error::other("no echo"))
    }

    /// Returns the longest of the times of [`Echo::times_ms`].
    pub fn longest_ms(&mut self, time: Duration) -> io::Result<f64> {
        self.times_ms(time)?.last().copied().ok_or_else(|| io::Error::other("no echo"))
    }

    /// Sends a message every two milliseconds during `time`. Returns the times until each came back, in milliseconds,
    /// the shortest first.
    fn times_ms(&mut self, time: Duration) -> io::Result<Vec<f64>> {
        let (until, mut times) = (Instant::now() + time, Vec::new());
        while Instant::now() < until {
            let sent = Instant::now();
            let mut message = Bytes::from_static(&[b'e'; MESSAGE_BYTES]);
            self.link.session.write(self.stream, &mut message).map_err(refused)?;
            self.link.send()?;
            let mut got = 0;
            while got < MESSAGE_BYTES {
                self.link.receive()?;
                while self.link.session.poll_event().is_some() {}
                let now = self.link.now();
                let ready: usize = self.link.session.readable(self.stream).map(<[u8]>::len).sum();
                got += self.link.session.consume(now, self.stream, ready);
            }
            times.push(sent.elapsed().as_secs_f64() * 1000.0);
            thread::sleep((sent + PAUSE).saturating_duration_since(Instant::now()));
        }
        times.sort_by(f64::total_cmp);
        Ok(times)
    }

    /// Opens one more stream of the same key, to a name. Returns the time until the answer, in milliseconds.
    pub fn open_name_ms(&mut self, name: &str, port: u16) -> io::Result<f64> {
        let since = Instant::now();
        open(&mut self.link, Host::Name(name.to_owned()), port)?;
        Ok(since.elapsed().as_secs_f64() * 1000.0)
    }
}

/// Opens a stream and waits for its result. A refusal is an error.
fn open(link: &mut RawLink, host: Host, port: u16) -> io::Result<StreamId> {
    match link.open(Open { host, port, ..Open::default() })? {
        (stream, bound) if bound.failure.is_none() => Ok(stream),
        (_, bound) => Err(io::Error::other(format!("another key's stream: {bound:?}"))),
    }
}

fn refused(error: seaprox::link::Refused) -> io::Error {
    io::Error::other(format!("{error:?}"))
}

/// Starts an echo server. Its threads end with the process.
pub fn serve() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((IpAddr::V4(Ipv4Addr::LOCALHOST), 0))?;
    let addr = listener.local_addr()?;
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            thread::spawn(move || {
                let _ = client.set_nodelay(true);
                let mut buf = [0; 4096];
                while let Ok(got @ 1..) = client.read(&mut buf) {
                    if client.write_all(&buf[..got]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    Ok(addr)
}

const MESSAGE_BYTES: usize = 64;
const PAUSE: Duration = Duration::from_millis(2);
