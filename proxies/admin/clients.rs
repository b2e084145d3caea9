//! The clients of the admin server: their number is bounded, and one that sends no request makes room for another.
//!
//! A client is either sending its request or being answered. At the limit, the client that has been sending for longest is
//! disconnected. A client that is being answered is not; if all are, the new one is refused.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::stream::Stream;

/// The clients of one kind of address.
#[derive(Default)]
pub struct Clients {
    state: Mutex<State>,
    /// Clients that were disconnected for another, or refused, at the limit.
    pub refused: AtomicU64,
}

#[derive(Default)]
struct State {
    next: u64,
    /// The clients that are sending their requests, in the order of their arrival.
    sending: BTreeMap<u64, Arc<Stream>>,
    /// All clients that have a thread.
    count: usize,
}

/// The place of a client. Dropping it makes room for another client.
pub struct Ticket {
    clients: Arc<Clients>,
    number: u64,
}

impl Clients {
    /// Admits a client. Returns none if there is no room.
    pub fn admit(self: &Arc<Clients>, stream: &Arc<Stream>) -> Option<Ticket> {
        let mut state = self.lock();
        if state.count >= CLIENTS_MAX {
            self.refused.fetch_add(1, Ordering::Relaxed);
            // The thread of the disconnected client ends at once, and `count` bounds the threads meanwhile.
            let (_, oldest) = state.sending.pop_first()?;
            oldest.abort();
            if state.count >= CLIENTS_MAX + CLIENTS_LEAVING_MAX {
                return None;
            }
        }
        let number = state.next;
        state.next += 1;
        state.count += 1;
        state.sending.insert(number, Arc::clone(stream));
        Some(Ticket { clients: Arc::clone(self), number })
    }

    /// Returns the number of clients.
    pub fn count(&self) -> usize {
        self.lock().count
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    /// Notes that the request is complete. Returns false if the client was disconnected meanwhile.
    pub fn answering(&self) -> bool {
        self.clients.lock().sending.remove(&self.number).is_some()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.clients.lock();
        state.sending.remove(&self.number);
        state.count -= 1;
    }
}

/// Clients at a time over TCP, and as many over Unix sockets.
pub const CLIENTS_MAX: usize = 32;
/// Disconnected clients whose threads have not ended.
const CLIENTS_LEAVING_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    fn client(listener: &TcpListener) -> (TcpStream, Arc<Stream>) {
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, Arc::new(Stream::Tcp(listener.accept().unwrap().0)))
    }

    #[test]
    fn the_oldest_client_without_a_request_makes_room() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let clients = Arc::new(Clients::default());
        let mut all: Vec<_> = (0..CLIENTS_MAX)
            .map(|_| {
                let (near, stream) = client(&listener);
                let ticket = clients.admit(&stream).unwrap();
                (near, stream, ticket)
            })
            .collect();
        assert!(all[0].2.answering());
        let (_near, stream) = client(&listener);
        let ticket = clients.admit(&stream).unwrap();
        assert!(!all[1].2.answering(), "the second client was disconnected");
        assert_eq!(all[1].0.read(&mut [0]).unwrap(), 0);
        assert!(ticket.answering() && all.iter().skip(2).all(|(.., ticket)| ticket.answering()));
        let (_near, stream) = client(&listener);
        assert!(clients.admit(&stream).is_none(), "all clients are being answered");
        drop(all);
        assert_eq!((clients.count(), clients.refused.load(Ordering::Relaxed)), (1, 2));
        assert!(clients.admit(&stream).is_some());
    }
}
