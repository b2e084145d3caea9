//! An orderly replacement of the far node: SIGTERM, then a successor on the same port as soon as that is free. Clients
//! connect all the time; the longest connect is the outage.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::Run;
use crate::echo;
use crate::kit::{self, Scratch, Seaprox};
use crate::place::Place;

/// Measures the longest time of a new connection, from its connect to its first echo.
pub fn far_node(place: &Place) -> io::Result<Run> {
    let homes = Homes::new();
    let service = echo::serve()?;
    let far = homes.far(place, "127.0.0.1:0");
    let addr = far.addr(0);
    homes.introduce(addr);
    let (peer, local) = (addr.to_string(), format!("127.0.0.1:0:{service}"));
    let near = Seaprox::start_with(
        &["link", "--connect", &peer, "-L", &local, "--config-dir", &homes.near.file("")],
        |command| place.put_node(command),
    );
    let front = near.addr(0);
    let mut running = connect(front)?;
    let clients = Clients::start(front);
    thread::sleep(PLAIN);
    let plain = clients.take_longest();

    far.signal(libc::SIGTERM);
    kit::until("the port is free", || TcpStream::connect(addr).is_err());
    let successor = homes.far(place, &peer);
    let started = Instant::now();
    kit::until("new connections are served again", || connect(front).is_ok());
    let after = started.elapsed();
    thread::sleep(PLAIN);
    let beside = clients.take_longest();
    let count = clients.stop()?;
    exchange(&mut running)
        .map_err(|error| io::Error::new(error.kind(), format!("a running connection was cut: {error}")))?;
    drop((far, successor));
    let attack = format!("{count} connections, none failed; served {} ms after the start", after.as_millis());
    Ok(Run { plain, beside, attack, ..Run::default() })
}

/// The directories of two nodes that know one another.
struct Homes {
    near: Scratch,
    far: Scratch,
}

impl Homes {
    fn new() -> Homes {
        let homes = Homes { near: Scratch::new(), far: Scratch::new() };
        let [near, _] = homes.keys();
        write(&homes.far, "authorized_keys", &format!("permit-open=\"*\" {near}\n"));
        homes
    }

    fn keys(&self) -> [String; 2] {
        [&self.near, &self.far].map(|home| {
            let config = home.file("");
            // The second call finds the key that the first one made, and changes nothing.
            kit::run(&["keygen", "--config-dir", &config]);
            String::from_utf8_lossy(&kit::run(&["pubkey", "--config-dir", &config]).out).trim().to_owned()
        })
    }

    fn introduce(&self, addr: SocketAddr) {
        let [_, far] = self.keys();
        write(&self.near, "known_nodes", &format!("{addr} {far}\n"));
    }

    fn far(&self, place: &Place, listen: &str) -> Seaprox {
        Seaprox::start_with(&["link", "--listen", listen, "--config-dir", &self.far.file("")], |command| {
            place.put_node(command);
        })
    }
}

fn write(home: &Scratch, name: &str, text: &str) {
    let path = home.write(name, text);
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).expect("a file of its owner's");
}

/// Threads that connect, exchange a byte and close, again and again.
struct Clients {
    is_over: Arc<AtomicBool>,
    longest_us: Arc<AtomicU64>,
    failure: Arc<Mutex<Option<io::Error>>>,
    threads: Vec<JoinHandle<u64>>,
}

impl Clients {
    fn start(front: SocketAddr) -> Clients {
        let (is_over, longest_us, failure) = (Arc::default(), Arc::default(), Arc::default());
        let mut clients = Clients { is_over, longest_us, failure, threads: Vec::new() };
        for _ in 0..CLIENTS {
            let (is_over, longest_us) = (Arc::clone(&clients.is_over), Arc::clone(&clients.longest_us));
            let failure = Arc::clone(&clients.failure);
            clients.threads.push(thread::spawn(move || {
                let mut count = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let since = Instant::now();
                    if let Err(error) = connect(front) {
                        failure.lock().expect("no panic").get_or_insert(error);
                    }
                    longest_us.fetch_max(since.elapsed().as_micros() as u64, Ordering::Relaxed);
                    count += 1;
                    thread::sleep(PACE);
                }
                count
            }));
        }
        clients
    }

    /// Returns the longest connect since the last call, in milliseconds.
    fn take_longest(&self) -> f64 {
        self.longest_us.swap(0, Ordering::Relaxed) as f64 / 1000.0
    }

    /// Ends the threads. Returns the number of connections, or the error of the first that failed.
    fn stop(self) -> io::Result<u64> {
        self.is_over.store(true, Ordering::Relaxed);
        let counts = self.threads.into_iter().map(|thread| thread.join().expect("no panic"));
        let count = counts.sum();
        match self.failure.lock().expect("no panic").take() {
            Some(error) => Err(io::Error::new(error.kind(), format!("a new connection failed: {error}"))),
            None => Ok(count),
        }
    }
}

fn connect(front: SocketAddr) -> io::Result<TcpStream> {
    let mut client = TcpStream::connect_timeout(&front, kit::SOON)?;
    client.set_read_timeout(Some(kit::SOON))?;
    exchange(&mut client)?;
    Ok(client)
}

fn exchange(client: &mut TcpStream) -> io::Result<()> {
    client.write_all(b"x")?;
    client.read_exact(&mut [0])
}

/// Number of concurrent clients.
const CLIENTS: usize = 4;
/// Pause between two connections of a client.
const PACE: Duration = Duration::from_millis(5);
/// Clients connect for this long before and after the replacement.
const PLAIN: Duration = Duration::from_secs(2);
