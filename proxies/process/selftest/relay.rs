//! A relay between the two ends of a link, which can be slowed down and can cut its connections.
//!
//! It uses two threads for each connection and shares no code with the library under test.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

/// A relay that runs until it is dropped.
pub struct Relay {
    addr: SocketAddr,
    inner: Arc<Inner>,
}

struct Inner {
    to: SocketAddr,
    pairs: Mutex<Vec<Pair>>,
    /// Pause after each chunk, in microseconds.
    pause_us: AtomicU64,
    is_over: AtomicBool,
}

/// A relayed connection.
struct Pair {
    near: TcpStream,
    far: TcpStream,
    bytes: Arc<AtomicU64>,
}

impl Relay {
    /// Starts a relay to this address.
    ///
    /// # Errors
    /// Fails if no port or no thread is available.
    pub fn start(to: SocketAddr) -> io::Result<Relay> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        // Accepted sockets inherit the buffer size. Large buffers would hide that the relay is slow.
        SockRef::from(&listener).set_recv_buffer_size(BUFFER_BYTES)?;
        let addr = listener.local_addr()?;
        let pairs = Mutex::default();
        let inner = Arc::new(Inner { to, pairs, pause_us: AtomicU64::new(0), is_over: AtomicBool::new(false) });
        let relay = Relay { addr, inner: Arc::clone(&inner) };
        let accept_all = move || {
            for near in listener.incoming().flatten() {
                if inner.is_over.load(Ordering::Relaxed) {
                    return;
                }
                // After an error both sockets are dropped, and the link sees a closed connection.
                let _ = inner.join(near);
            }
        };
        thread::Builder::new().name("relay".into()).spawn(accept_all)?;
        Ok(relay)
    }

    /// Returns the address of the relay.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Sets the pause after each chunk.
    pub fn slow_down(&self, pause: Duration) {
        self.inner.pause_us.store(pause.as_micros() as u64, Ordering::Relaxed);
    }

    /// Cuts all connections. Returns their number.
    pub fn cut(&self) -> usize {
        let pairs = std::mem::take(&mut *self.inner.pairs());
        pairs.iter().for_each(Pair::cut);
        pairs.len()
    }

    /// Returns the bytes that each connection has carried so far, in both directions.
    pub fn carried(&self) -> Vec<u64> {
        self.inner.pairs().iter().map(|pair| pair.bytes.load(Ordering::Relaxed)).collect()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.inner.is_over.store(true, Ordering::Relaxed);
        self.cut();
        // Wakes the thread that accepts, so that it ends.
        let _ = TcpStream::connect(self.addr);
    }
}

impl Inner {
    fn pairs(&self) -> std::sync::MutexGuard<'_, Vec<Pair>> {
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(self: &Arc<Self>, near: TcpStream) -> io::Result<()> {
        let far = TcpStream::connect(self.to)?;
        SockRef::from(&far).set_recv_buffer_size(BUFFER_BYTES)?;
        for socket in [&near, &far] {
            SockRef::from(socket).set_send_buffer_size(BUFFER_BYTES)?;
        }
        let bytes = Arc::new(AtomicU64::new(0));
        for (from, to) in [(&near, &far), (&far, &near)] {
            from.set_nodelay(true)?;
            let (from, to) = (from.try_clone()?, to.try_clone()?);
            let (inner, bytes) = (Arc::clone(self), Arc::clone(&bytes));
            thread::Builder::new().name("relay".into()).spawn(move || inner.copy(from, to, &bytes))?;
        }
        let mut pairs = self.pairs();
        // Removes ended connections.
        pairs.retain(|pair| pair.near.peer_addr().is_ok());
        pairs.push(Pair { near, far, bytes });
        Ok(())
    }

    fn copy(&self, mut from: TcpStream, mut to: TcpStream, bytes: &AtomicU64) {
        let mut buf = vec![0; CHUNK_BYTES];
        while let Ok(count @ 1..) = from.read(&mut buf) {
            if to.write_all(&buf[..count]).is_err() {
                break;
            }
            bytes.fetch_add(count as u64, Ordering::Relaxed);
            let pause = self.pause_us.load(Ordering::Relaxed);
            if pause > 0 {
                thread::sleep(Duration::from_micros(pause));
            }
        }
        // The sockets may be closed already.
        let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
    }
}

impl Pair {
    fn cut(&self) {
        // The sockets may be closed already.
        let _ = (self.near.shutdown(Shutdown::Both), self.far.shutdown(Shutdown::Both));
    }
}

/// Buffer size of each socket of the relay, in each direction.
const BUFFER_BYTES: usize = 64 << 10;
const CHUNK_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_carries_counts_and_cuts() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let relay = Relay::start(server.local_addr().unwrap()).unwrap();
        let mut client = TcpStream::connect(relay.addr()).unwrap();
        let (mut end, _) = server.accept().unwrap();
        client.write_all(b"hello").unwrap();
        let mut buf = [0; 5];
        end.read_exact(&mut buf).unwrap();
        assert_eq!(&buf, b"hello");
        while relay.carried() != [5] {
            thread::yield_now();
        }
        assert_eq!(relay.cut(), 1);
        assert_eq!((client.read(&mut buf).unwrap_or(0), end.read(&mut buf).unwrap_or(0)), (0, 0));
        assert!(relay.carried().is_empty());
    }
}
