//! A scraper of the admin server: asks for /metrics and /status once a second, as a Prometheus and a person do.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

/// A thread that scrapes until this value is dropped.
pub struct Scraper {
    _ends: Sender<()>,
}

impl Scraper {
    /// Scrapes once, and starts the thread.
    pub fn start(addr: SocketAddr) -> io::Result<Scraper> {
        scrape(addr)?;
        let (ends, ended) = mpsc::channel();
        thread::spawn(move || {
            while ended.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                if let Err(error) = scrape(addr) {
                    eprintln!("bench: {addr} was not scraped: {error}");
                }
            }
        });
        Ok(Scraper { _ends: ends })
    }
}

fn scrape(addr: SocketAddr) -> io::Result<()> {
    for path in ["/metrics", "/status"] {
        let mut client = TcpStream::connect_timeout(&addr, ANSWER_TIME_MAX)?;
        client.set_read_timeout(Some(ANSWER_TIME_MAX))?;
        write!(client, "GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        client.read_to_end(&mut answer)?;
        if !answer.starts_with(b"HTTP/1.1 200 ") || answer.len() < ANSWER_BYTES_MIN {
            let head = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
            return Err(io::Error::other(format!("{path}: {}", String::from_utf8_lossy(head))));
        }
    }
    Ok(())
}

const PERIOD: Duration = Duration::from_secs(1);
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
/// Both documents are longer.
const ANSWER_BYTES_MIN: usize = 1000;
