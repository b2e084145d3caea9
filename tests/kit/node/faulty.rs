//! A faulty TCP relay between two nodes. Each connection breaks after a number of bytes that a seed chooses, so that
//! breaks come at every moment of a handshake. Both ends notice the break, or only the dialing node.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Relays connections to `addr`.
pub struct Faulty {
    pub addr: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    to: SocketAddr,
    /// The number of connections so far.
    count: AtomicUsize,
    /// Sockets to accepting nodes that stay open and silent after a break.
    silent: Mutex<Vec<TcpStream>>,
}

/// The ends that notice a break. The dialing node always does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    Both,
    DialingNode,
}

/// A break of a connection: after `bytes[0]` bytes to the accepting node or `bytes[1]` bytes to the dialing node.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub bytes: [u64; 2],
    pub notice: Notice,
}

impl Faulty {
    /// Starts a relay whose first `faults` connections break as the seed chooses. Later connections do not break.
    pub fn new(to: SocketAddr, seed: u64, faults: usize) -> Faulty {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { to, count: AtomicUsize::new(0), silent: Mutex::default() });
        let own = Arc::clone(&shared);
        // The thread ends with the process.
        thread::spawn(move || {
            for dialled in listener.incoming().flatten() {
                let number = own.count.fetch_add(1, Ordering::Relaxed);
                own.relay(dialled, (number < faults).then(|| fault(seed, number as u64)));
            }
        });
        Faulty { addr, shared }
    }

    /// Returns the number of connections so far.
    pub fn count(&self) -> usize {
        self.shared.count.load(Ordering::Relaxed)
    }
}

/// Returns the break of a connection. Half of the breaks are within the handshakes, which take about 3 KB.
fn fault(seed: u64, number: u64) -> Fault {
    let draw = |what: u64| {
        let mut z = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (number * 8 + what).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 29)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 32)
    };
    let most = if draw(0) % 2 == 0 { 3_000 } else { 1_500_000 };
    let notice = if draw(1) % 2 == 0 { Notice::Both } else { Notice::DialingNode };
    Fault { bytes: [draw(2) % most, draw(3) % most], notice }
}

impl Shared {
    fn relay(self: &Arc<Shared>, dialled: TcpStream, fault: Option<Fault>) {
        let Ok(accepted) = TcpStream::connect(self.to) else { return };
        for (direction, from, into) in [(0, &dialled, &accepted), (1, &accepted, &dialled)] {
            let (mut from, mut into, shared) = (from.try_clone().unwrap(), into.try_clone().unwrap(), Arc::clone(self));
            let (near, far) = (dialled.try_clone().unwrap(), accepted.try_clone().unwrap());
            from.set_nodelay(true).unwrap();
            thread::spawn(move || {
                let mut left = fault.map_or(u64::MAX, |fault| fault.bytes[direction]);
                let mut buf = vec![0; 65536];
                while left > 0 {
                    let wished = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    match from.read(&mut buf[..wished]) {
                        Ok(got @ 1..) if into.write_all(&buf[..got]).is_ok() => left -= got as u64,
                        _ => break,
                    }
                }
                shared.end(&near, &far, fault.filter(|_| left == 0).map_or(Notice::Both, |fault| fault.notice));
            });
        }
    }

    fn end(&self, dialled: &TcpStream, accepted: &TcpStream, notice: Notice) {
        for (socket, hears) in [(dialled, true), (accepted, notice == Notice::Both)] {
            if hears {
                let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
                let _ = socket.shutdown(Shutdown::Both);
            } else {
                self.silent.lock().unwrap().push(socket.try_clone().unwrap());
            }
        }
    }
}
