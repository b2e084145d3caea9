//! The places for clients of the admin server: their number is bounded, and a client without rights keeps no other one out.
//!
//! ```text
//!   admit ──> sending ── request ──> probe, open or granted ── answered ──> lingering ──> gone
//! ```
//! Each stage has places of its own. If those of a stage are taken, a client of it is disconnected for the new one: the oldest
//! of the network that has most of them. Only a client that has the right to its answer is not; if there is no other, the new
//! one is refused. So probes are answered whatever others do.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use seaprox::PeerNetwork;

use super::stream::Stream;

/// The clients of one kind of address.
#[derive(Default)]
pub struct Clients {
    state: Mutex<State>,
    /// A client has left its stage, or its thread has ended.
    changed: Condvar,
    /// Clients that were disconnected for another, or refused, at a limit.
    pub refused: AtomicU64,
}

/// The class of a client whose request is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It asks for health or readiness.
    Probe,
    /// It asks for what needs no right, or is refused.
    Open,
    /// It has the right to its answer.
    Granted,
}

/// The reason for which a client is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It was disconnected for another client.
    Gone,
    /// All places are taken by clients that have a right to theirs.
    Out,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Sending,
    Answered(Class),
    Lingering,
}

#[derive(Default)]
struct State {
    next: u64,
    /// The clients that were not disconnected, in the order of their arrival.
    clients: BTreeMap<u64, Client>,
    /// The threads, also those of clients that were disconnected a moment ago. At most [`THREADS_MAX`].
    threads: usize,
}

struct Client {
    stage: Stage,
    network: PeerNetwork,
    since: Instant,
    stream: Arc<Stream>,
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
        while state.count(Stage::Sending) >= CLIENTS_MAX
            && let Some((number, since)) = state.victim(Stage::Sending)
        {
            // The thread of a client whose request has arrived may not have run yet.
            let left = SEND_TIME_MIN.saturating_sub(since.elapsed());
            if left.is_zero() {
                self.refused.fetch_add(1, Ordering::Relaxed);
                state.disconnect(number);
            } else {
                state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        // The threads of disconnected clients end at once, unless they wait for a loop.
        let is_full = |state: &mut State| state.threads >= THREADS_MAX;
        let waited = self.changed.wait_timeout_while(state, LEAVE_TIME, is_full);
        let (mut state, result) = waited.unwrap_or_else(PoisonError::into_inner);
        if result.timed_out() {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let number = state.next;
        state.next += 1;
        state.threads += 1;
        let (stage, network, since) = (Stage::Sending, stream.network(), Instant::now());
        state.clients.insert(number, Client { stage, network, since, stream: Arc::clone(stream) });
        Some(Ticket { clients: Arc::clone(self), number })
    }

    /// Returns the number of clients that were not answered yet.
    pub fn count(&self) -> usize {
        self.lock().clients.values().filter(|client| client.stage != Stage::Lingering).count()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn count(&self, stage: Stage) -> usize {
        self.clients.values().filter(|client| client.stage == stage).count()
    }

    /// Returns the client of a stage that makes room for another one, and the time of its arrival.
    fn victim(&self, stage: Stage) -> Option<(u64, Instant)> {
        let all = || self.clients.iter().filter(|(_, client)| client.stage == stage);
        let mut of_network = HashMap::<PeerNetwork, usize>::new();
        all().for_each(|(_, client)| *of_network.entry(client.network).or_default() += 1);
        let most = of_network.values().copied().max()?;
        let (number, client) = all().find(|(_, client)| of_network.get(&client.network) == Some(&most))?;
        Some((*number, client.since))
    }

    fn disconnect(&mut self, number: u64) {
        if let Some(client) = self.clients.remove(&number) {
            client.stream.abort();
        }
    }
}

impl Ticket {
    /// Gives the client, whose request is complete, a place of its class until it is answered.
    ///
    /// # Errors
    /// The client was disconnected meanwhile, or there is no room.
    pub fn enter(&self, class: Class) -> Result<(), Kept> {
        let mut state = self.clients.lock();
        if !state.clients.contains_key(&self.number) {
            return Err(Kept::Gone);
        }
        let count = |class| state.count(Stage::Answered(class));
        let (is_full, leaving) = match class {
            Class::Probe => (count(Class::Probe) >= PROBES_MAX, Class::Probe),
            Class::Open | Class::Granted => (count(Class::Open) + count(Class::Granted) >= CLIENTS_MAX, Class::Open),
        };
        if is_full {
            self.clients.refused.fetch_add(1, Ordering::Relaxed);
            let (number, _) = state.victim(Stage::Answered(leaving)).ok_or(Kept::Out)?;
            state.disconnect(number);
        }
        self.set(&mut state, Stage::Answered(class));
        Ok(())
    }

    /// Notes that the client was answered, and has to close. Returns false if it was disconnected.
    pub fn linger(&self) -> bool {
        let mut state = self.clients.lock();
        if !state.clients.contains_key(&self.number) {
            return false;
        }
        if state.count(Stage::Lingering) >= LINGERING_MAX
            && let Some((number, _)) = state.victim(Stage::Lingering)
        {
            // It has had its answer, so it is not counted.
            state.disconnect(number);
        }
        self.set(&mut state, Stage::Lingering);
        true
    }

    fn set(&self, state: &mut State, stage: Stage) {
        state.clients.get_mut(&self.number).into_iter().for_each(|client| client.stage = stage);
        self.clients.changed.notify_all();
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.clients.lock();
        state.clients.remove(&self.number);
        state.threads -= 1;
        self.clients.changed.notify_all();
    }
}

/// Clients at a time that send their requests, and as many that are answered; over TCP, and as many over Unix sockets.
pub const CLIENTS_MAX: usize = 32;
/// Probes that are answered at a time.
const PROBES_MAX: usize = 8;
/// Clients at a time that were answered and have not closed.
const LINGERING_MAX: usize = 32;
/// Threads: one for each client, and those of clients that were disconnected a moment ago.
const THREADS_MAX: usize = 2 * CLIENTS_MAX + PROBES_MAX + LINGERING_MAX + CLIENTS_LEAVING_MAX;
const CLIENTS_LEAVING_MAX: usize = 8;
/// Time that each client has to send its request, however many wait.
const SEND_TIME_MIN: Duration = Duration::from_millis(10);
/// Longest wait for the thread of a disconnected client to end.
const LEAVE_TIME: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    struct Client {
        near: TcpStream,
        ticket: Ticket,
    }

    struct World {
        listener: TcpListener,
        clients: Arc<Clients>,
    }

    impl World {
        fn new() -> World {
            World { listener: TcpListener::bind("127.0.0.1:0").unwrap(), clients: Arc::default() }
        }

        fn stream(&self) -> (TcpStream, Arc<Stream>) {
            let near = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
            (near, Arc::new(Stream::Tcp(self.listener.accept().unwrap().0)))
        }

        fn admit(&self) -> Client {
            let (near, stream) = self.stream();
            Client { near, ticket: self.clients.admit(&stream).unwrap() }
        }

        fn answering(&self, class: Class) -> Client {
            let client = self.admit();
            client.ticket.enter(class).unwrap();
            client
        }

        fn refused(&self) -> u64 {
            self.clients.refused.load(Ordering::Relaxed)
        }
    }

    fn is_disconnected(client: &mut Client) -> bool {
        client.near.set_nonblocking(true).unwrap();
        matches!(client.near.read(&mut [0]), Ok(0))
    }

    #[test]
    fn the_oldest_client_without_a_request_makes_room() {
        let world = World::new();
        let mut all: Vec<_> = (0..CLIENTS_MAX).map(|_| world.admit()).collect();
        assert_eq!(all[0].ticket.enter(Class::Granted), Ok(()));
        let (_other, last) = (world.admit(), world.admit());
        assert_eq!(all[1].ticket.enter(Class::Open), Err(Kept::Gone), "the second client was disconnected");
        assert!(is_disconnected(&mut all[1]) && !is_disconnected(&mut all[2]));
        assert_eq!((last.ticket.enter(Class::Open), world.refused()), (Ok(()), 1));
    }

    #[test]
    fn a_client_with_a_right_is_answered_to_the_end() {
        let world = World::new();
        let open: Vec<_> = (0..CLIENTS_MAX).map(|_| world.answering(Class::Open)).collect();
        let granted: Vec<_> = (0..CLIENTS_MAX).map(|_| world.answering(Class::Granted)).collect();
        assert!(open.iter().all(|client| !client.ticket.linger()), "they made room for those");
        let client = world.admit();
        assert_eq!(client.ticket.enter(Class::Granted), Err(Kept::Out));
        assert_eq!(client.ticket.enter(Class::Open), Err(Kept::Out));
        assert_eq!(client.ticket.enter(Class::Probe), Ok(()));
        assert!(granted.iter().all(|client| client.ticket.linger()));
        assert_eq!(world.admit().ticket.enter(Class::Granted), Ok(()));
    }

    #[test]
    fn probes_and_answered_clients_have_places_of_their_own() {
        let world = World::new();
        let granted: Vec<_> = (0..CLIENTS_MAX).map(|_| world.answering(Class::Granted)).collect();
        let sending: Vec<_> = (0..CLIENTS_MAX - 1).map(|_| world.admit()).collect();
        let mut probes: Vec<_> = (0..PROBES_MAX + 1).map(|_| world.answering(Class::Probe)).collect();
        assert!(is_disconnected(&mut probes[0]) && !is_disconnected(&mut probes[1]));
        let mut answered = Vec::new();
        for _ in 0..LINGERING_MAX + 1 {
            let client = world.answering(Class::Probe);
            assert!(client.ticket.linger());
            answered.push(client);
        }
        assert!(is_disconnected(&mut answered[0]) && !is_disconnected(&mut answered[1]));
        // The first one had the place of a probe, which is free now.
        assert_eq!(world.clients.count(), granted.len() + sending.len() + PROBES_MAX - 1);
        drop((granted, sending, probes, answered));
        assert_eq!((world.clients.count(), world.clients.lock().threads), (0, 0));
    }

    #[test]
    fn the_network_with_most_clients_makes_room() {
        let world = World::new();
        let other = world.admit();
        let network = PeerNetwork::from(std::net::IpAddr::from([192, 0, 2, 1]));
        world.clients.lock().clients.get_mut(&other.ticket.number).unwrap().network = network;
        let all: Vec<_> = (0..CLIENTS_MAX + 3).map(|_| world.admit()).collect();
        assert_eq!(all[3].ticket.enter(Class::Open), Err(Kept::Gone));
        assert_eq!(other.ticket.enter(Class::Open), Ok(()));
    }

    #[test]
    fn the_number_of_threads_is_bounded() {
        let world = World::new();
        let all: Vec<_> = (0..THREADS_MAX).map(|_| world.admit()).collect();
        let (_near, stream) = world.stream();
        assert!(world.clients.admit(&stream).is_none(), "no thread has ended");
        drop(all);
        assert!(world.clients.admit(&stream).is_some());
    }
}
