//! A relay of datagrams between two nodes, which can lose and reorder them, stop, and send from another address.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Relays datagrams to a node, and its answers back.
pub struct DatagramRelay {
    pub addr: SocketAddr,
    state: Arc<State>,
}

struct State {
    front: UdpSocket,
    to: SocketAddr,
    /// The socket towards the node for each client.
    flows: Mutex<Vec<Flow>>,
    /// Datagrams of a thousand that are lost, and that are held back until the next one has passed.
    lost: AtomicU32,
    reordered: AtomicU32,
    is_silent: AtomicBool,
    /// The longest datagram that passes.
    bytes_max: AtomicU32,
    /// The datagrams of the clients, if they are recorded.
    record: Mutex<Option<Vec<Vec<u8>>>>,
    seed: AtomicU64,
    passed: AtomicU64,
    /// The one client whose datagrams pass, unless it is the largest number.
    only: AtomicUsize,
    /// The number of the first clients whose datagrams are lost.
    forgotten: AtomicUsize,
}

struct Flow {
    client: SocketAddr,
    socket: Arc<UdpSocket>,
    held: Option<Vec<u8>>,
}

impl DatagramRelay {
    pub fn new(to: SocketAddr) -> DatagramRelay {
        let front = UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr = front.local_addr().unwrap();
        let state = Arc::new(State {
            front,
            to,
            flows: Mutex::default(),
            lost: AtomicU32::new(0),
            reordered: AtomicU32::new(0),
            is_silent: AtomicBool::new(false),
            bytes_max: AtomicU32::new(u32::MAX),
            record: Mutex::default(),
            seed: AtomicU64::new(1),
            passed: AtomicU64::new(0),
            only: AtomicUsize::new(usize::MAX),
            forgotten: AtomicUsize::new(0),
        });
        let shared = Arc::clone(&state);
        // The threads end with the process.
        thread::spawn(move || {
            let mut room = vec![0; 65_536];
            loop {
                // Some systems report here that an answer was not taken.
                let Ok((len, client)) = shared.front.recv_from(&mut room) else { continue };
                shared.forward(client, &room[..len]);
            }
        });
        DatagramRelay { addr, state }
    }

    /// Loses and reorders so many of a thousand datagrams from now on, in each direction.
    pub fn spoil(&self, lost: u32, reordered: u32) {
        self.state.lost.store(lost, Ordering::Relaxed);
        self.state.reordered.store(reordered, Ordering::Relaxed);
    }

    /// Relays nothing from now on, or relays again.
    pub fn silence(&self, is_silent: bool) {
        self.state.is_silent.store(is_silent, Ordering::Relaxed);
    }

    /// Sends from another address from now on, as a router does that has lost its table. What is sent to the old one is lost.
    pub fn rebind(&self) {
        self.state.flows.lock().unwrap().clear();
    }

    /// Loses each datagram that is longer, from now on, without a word: a black hole.
    pub fn limit(&self, bytes_max: u32) {
        self.state.bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    /// Draws the losses from another seed from now on.
    pub fn draw_from(&self, seed: u64) {
        self.state.seed.store(seed, Ordering::Relaxed);
    }

    /// Records what the clients send from now on.
    pub fn record(&self) {
        *self.state.record.lock().unwrap() = Some(Vec::new());
    }

    /// Returns what was recorded, and records no more.
    pub fn recorded(&self) -> Vec<Vec<u8>> {
        self.state.record.lock().unwrap().take().unwrap_or_default()
    }

    /// Sends a datagram to the node once more, from the address that it has of the first client.
    pub fn repeat(&self, datagram: &[u8]) {
        let flows = self.state.flows.lock().unwrap();
        flows[0].socket.send_to(datagram, self.state.to).unwrap();
    }

    /// Relays the datagrams of no client but this one from now on. The first one has the number 0.
    pub fn answer_only(&self, number: usize) {
        self.state.only.store(number, Ordering::Relaxed);
    }

    /// Loses all datagrams of the clients of now, each way, from now on.
    pub fn forget(&self) {
        let mut flows = self.state.flows.lock().unwrap();
        self.state.forgotten.store(flows.len(), Ordering::Relaxed);
        // The thread of a flow reads its first socket only, so answers to another one are lost.
        flows.iter_mut().for_each(|flow| flow.socket = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap()));
    }

    /// Returns the number of clients since the last rebinding.
    pub fn count(&self) -> usize {
        self.state.flows.lock().unwrap().len()
    }

    /// Returns the number of datagrams that were relayed.
    pub fn passed(&self) -> u64 {
        self.state.passed.load(Ordering::Relaxed)
    }
}

impl State {
    fn forward(self: &Arc<State>, client: SocketAddr, bytes: &[u8]) {
        self.record.lock().unwrap().iter_mut().for_each(|record| record.push(bytes.to_vec()));
        let mut flows = self.flows.lock().unwrap();
        let known = flows.iter().position(|flow| flow.client == client);
        let at = known.unwrap_or_else(|| {
            let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
            self.answer(client, &socket);
            flows.push(Flow { client, socket, held: None });
            flows.len() - 1
        });
        let only = self.only.load(Ordering::Relaxed);
        if (only != usize::MAX && only != at) || at < self.forgotten.load(Ordering::Relaxed) {
            return;
        }
        let flow = &mut flows[at];
        let send = |bytes: &[u8]| _ = flow.socket.send_to(bytes, self.to);
        self.pass(bytes, &mut flow.held, send);
    }

    /// Relays the answers of the node to one client, as long as the client has this socket.
    fn answer(self: &Arc<State>, client: SocketAddr, socket: &Arc<UdpSocket>) {
        let (state, socket) = (Arc::clone(self), Arc::clone(socket));
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        thread::spawn(move || {
            let (mut room, mut held) = (vec![0; 65_536], None);
            // The other reference is that of the table.
            while Arc::strong_count(&socket) > 1 {
                let Ok((len, _)) = socket.recv_from(&mut room) else { continue };
                state.pass(&room[..len], &mut held, |bytes| _ = state.front.send_to(bytes, client));
            }
        });
    }

    /// Passes a datagram on, or spoils it.
    fn pass(&self, bytes: &[u8], held: &mut Option<Vec<u8>>, mut send: impl FnMut(&[u8])) {
        let chance = self.chance();
        let lost = self.lost.load(Ordering::Relaxed);
        let is_long = bytes.len() > self.bytes_max.load(Ordering::Relaxed) as usize;
        if self.is_silent.load(Ordering::Relaxed) || is_long || chance < lost {
            return;
        }
        self.passed.fetch_add(1, Ordering::Relaxed);
        if held.is_none() && chance < lost + self.reordered.load(Ordering::Relaxed) {
            *held = Some(bytes.to_vec());
            return;
        }
        send(bytes);
        held.take().into_iter().for_each(|held| send(&held));
    }

    /// Returns a number below a thousand.
    fn chance(&self) -> u32 {
        let step =
            |seed: u64| Some(seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
        let seed = self.seed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step).unwrap_or(0);
        ((seed >> 33) % 1000) as u32
    }
}
