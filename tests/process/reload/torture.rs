//! A process whose file changes again and again, while connections and links carry bytes that are compared.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::world::{Random, World};
use crate::kit::proc::rss;
use crate::kit::{Seaprox, until_within};

#[test]
fn nothing_is_lost_and_no_listener_has_a_gap_while_the_file_changes() {
    torture(60);
}

#[test]
#[ignore = "make test-system runs it for minutes"]
fn nothing_is_lost_and_no_listener_has_a_gap_while_the_file_changes_a_thousand_times() {
    torture(1000);
}

/// The number of connections that exchange bytes during all changes, divided among a listener and one for each link.
const CONNECTIONS: usize = 200;
/// The deadline of each step. A reload asks the loops dozens of times, and each answer takes a turn of a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// The growth of memory that is allowed between the first third of the changes and their end.
const GROWTH_BYTES: u64 = 8 << 20;

fn torture(changes: usize) {
    let seed = std::env::var("SEAPROX_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let mut random = Random(seed.unwrap_or_else(|| u64::from(std::process::id()) << 20 | 1));
    println!("SEAPROX_TEST_SEED={}", random.0);
    let world = World::new(3);
    let (echo, answer) = (echo_server(), world.targets[0]);
    let file = Changing { world: &world, echo, answer, path: world.scratch.file("near.toml") };
    file.write(&file.text(&mut random, 0));
    let near =
        Seaprox::start_with(&["run", &file.path], |command| _ = command.env("SEAPROX_LOG", "seaprox::process=info"));
    let is_done = Arc::new(AtomicBool::new(false));
    let exchanges = Arc::new(AtomicU64::new(0));
    let steady: Vec<_> =
        (0..4).map(|place| exchange(file.steady(place), Arc::clone(&is_done), Arc::clone(&exchanges))).collect();
    let dialing: Vec<_> = (4..6).map(|place| dial(file.steady(place), Arc::clone(&is_done))).collect();
    let mut memory = 0;
    for change in 1..=changes {
        if change % 4 == 0 {
            let words = file.write_invalid(&mut random, change);
            near.signal(libc::SIGHUP);
            await_log(&near, &[words.as_str(), "nothing has changed"]);
        } else {
            file.write(&file.text(&mut random, change));
            near.signal(libc::SIGHUP);
            await_log(&near, &["configuration reloaded", &format!("\\\"v{change}\\\"")]);
        }
        assert_eq!(near.count_log(&["could not be made"]), 0, "{:?}", near.log());
        if change == changes / 3 {
            memory = rss(near.pid());
        }
    }
    let before_end = exchanges.load(Ordering::Relaxed);
    let grown = rss(near.pid()).saturating_sub(memory);
    assert!(grown < GROWTH_BYTES, "{grown} bytes more after {changes} changes than after a third of them");
    until_within(PATIENCE, "the connections go on", || {
        exchanges.load(Ordering::Relaxed) > before_end + 2 * CONNECTIONS as u64
    });
    is_done.store(true, Ordering::Relaxed);
    steady.into_iter().for_each(|clients| clients.join().unwrap());
    let dialed: Vec<u64> = dialing.into_iter().map(|client| client.join().unwrap()).collect();
    assert!(dialed.iter().all(|count| *count > changes as u64 / 10), "{dialed:?}");
    println!("{} exchanges, {dialed:?} dialed, {grown} bytes grown", exchanges.load(Ordering::Relaxed));
}

fn await_log(near: &Seaprox, words: &[&str]) {
    until_within(PATIENCE, &format!("a line with {words:?}"), || near.count_log(words) > 0);
}

/// The file of the process.
struct Changing<'a> {
    world: &'a World,
    echo: SocketAddr,
    answer: SocketAddr,
    path: String,
}

impl Changing<'_> {
    /// Returns the address of a listener that stays: to the echo server directly and over each of three links, and to the
    /// target directly and over the first link.
    fn steady(&self, place: usize) -> SocketAddr {
        self.world.near_addrs[place]
    }

    /// Returns a random file with the listeners that stay, and with one that has the number of the change as its name.
    fn text(&self, random: &mut Random, change: usize) -> String {
        let mut text = format!("key = \"{}\"\n", self.world.scratch.file("near-key"));
        let drain = random.below(20) + 1;
        text += &format!("drain-timeout = \"{drain}s\"\n[defaults]\nidle-timeout = \"{}s\"\n", 100 + random.below(3));
        let links = ["home", "office", "site"];
        for (place, to) in
            [self.echo, self.echo, self.echo, self.echo, self.answer, self.answer].into_iter().enumerate()
        {
            let via = match place {
                1..=3 => format!("via = \"{}\"\n", links[place - 1]),
                5 => "via = \"home\"\n".to_owned(),
                _ => String::new(),
            };
            text += &listener(&format!("steady-{place}"), self.steady(place), to, random);
            text += &via;
        }
        for (index, name) in random.shuffled(&links).iter().enumerate() {
            let far = links.iter().position(|link| link == name).unwrap();
            let peer = self.world.far[far].addr("links");
            text += &format!(
                "[[link]]\nname = \"{name}\"\nconnect = \"{peer}\"\npeer-key = \"{}\"\n",
                self.world.far_key()
            );
            if random.below(2) == 0 {
                let (at, far_at) = (self.world.near_addrs[6 + index], self.world.far_addrs[index]);
                text += &format!(
                    "forward = [{{ local = \"{at}:{}\", name = \"l{}\" }}, {{ remote = \"{far_at}:{}\", name = \"r{index}\" }}]\n",
                    self.answer,
                    random.below(2) * 10 + index,
                    self.answer
                );
            }
        }
        let at = self.world.near_addrs[9 + random.below(3)];
        text + &listener(&format!("v{change}"), at, self.answer, random)
    }

    /// Writes a file that is invalid in a random way. Returns a word of the message about it.
    fn write_invalid(&self, random: &mut Random, change: usize) -> String {
        let text = self.text(random, change);
        let (text, words) = match random.below(4) {
            0 => (format!("key{change} = 1\n{text}"), format!("key{change}")),
            1 => (format!("{text}\n[[listener]]\nfront = \"x{change}\"\n"), format!("x{change}")),
            2 => (format!("{text}\nvia = \"nowhere{change}\"\n"), format!("nowhere{change}")),
            // The address of the target is in use.
            _ => (
                text.clone() + &listener(&format!("busy{change}"), self.answer, self.echo, random),
                format!("busy{change}"),
            ),
        };
        self.write(&text);
        words
    }

    /// Replaces the file.
    fn write(&self, text: &str) {
        let new = format!("{}.new", self.path);
        std::fs::write(&new, text).unwrap();
        std::fs::set_permissions(&new, PermissionsExt::from_mode(0o600)).unwrap();
        std::fs::rename(&new, &self.path).unwrap();
    }
}

fn listener(name: &str, at: SocketAddr, to: SocketAddr, random: &mut Random) -> String {
    let backlog = 100 + random.below(2) * 100;
    let idle =
        if random.below(2) == 0 { format!("idle-timeout = \"{}s\"\n", 120 + random.below(3)) } else { String::new() };
    format!(
        "[[listener]]\nname = \"{name}\"\nlisten = \"{at}\"\nfront = \"static\"\nto = \"{to}\"\nbacklog = {backlog}\n{idle}"
    )
}

/// Starts a server that sends back what it gets.
fn echo_server() -> SocketAddr {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = server.local_addr().unwrap();
    let serve = |mut client: TcpStream| {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = client.read(&mut bytes) {
            if client.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
    };
    thread::spawn(move || server.incoming().flatten().for_each(|client| drop(thread::spawn(move || serve(client)))));
    addr
}

/// Opens connections to an address, and exchanges random bytes over all of them until it is told to stop.
fn exchange(addr: SocketAddr, is_done: Arc<AtomicBool>, exchanges: Arc<AtomicU64>) -> JoinHandle<()> {
    thread::spawn(move || {
        let connect = |_| {
            let client = TcpStream::connect(addr).expect("the address never closes");
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client
        };
        let mut clients: Vec<TcpStream> = (0..CONNECTIONS / 4).map(connect).collect();
        let mut random = Random(u64::from(addr.port()));
        while !is_done.load(Ordering::Relaxed) {
            for client in &mut clients {
                let bytes: Vec<u8> = (0..128).flat_map(|_| random.next().to_le_bytes()).collect();
                let mut back = vec![0; bytes.len()];
                client.write_all(&bytes).unwrap();
                client.read_exact(&mut back).unwrap();
                assert_eq!(back, bytes);
                exchanges.fetch_add(1, Ordering::Relaxed);
            }
            thread::sleep(Duration::from_millis(10));
        }
        for client in &mut clients {
            client.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(client.read(&mut [0]).unwrap(), 0, "nothing follows the last byte");
        }
    })
}

/// Dials an address again and again, and asks for an answer each time. Returns the number of answers.
fn dial(addr: SocketAddr, is_done: Arc<AtomicBool>) -> JoinHandle<u64> {
    thread::spawn(move || {
        let mut count = 0;
        while !is_done.load(Ordering::Relaxed) {
            let mut client = TcpStream::connect(addr).expect("the address never closes");
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.write_all(b"?").unwrap();
            client.read_exact(&mut [0]).expect("each client gets its answer");
            count += 1;
            thread::sleep(Duration::from_millis(2));
        }
        count
    })
}
