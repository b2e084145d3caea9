//! A network and a file system of a test's own, with its own `/etc/hosts`, `/etc/resolv.conf` and name server.

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::net::{IpAddr, UdpSocket};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::Scratch;

/// The addresses of a name at the name server.
#[derive(Clone, Debug, Default)]
pub struct Record {
    pub addresses: Vec<IpAddr>,
    /// The delay of an answer.
    pub delay: Duration,
}

/// A name server on 127.0.0.1:53 of a network namespace. It counts the queries.
#[derive(Clone, Default)]
pub struct NameServer(Arc<Mutex<Names>>);

/// The known names, and the number of queries for each name.
#[derive(Default)]
struct Names {
    known: HashMap<String, Record>,
    /// The hosts of services: priority, weight, port and name.
    services: HashMap<String, Vec<(u16, u16, u16, String)>>,
    /// The time to live of all answers, if it is not a minute.
    ttl: Option<u8>,
    asked: HashMap<String, u32>,
    /// Queries for names with these endings get no answer.
    swallowed: Vec<String>,
    /// Answers about these names wait.
    held: HashSet<String>,
    /// Queries for these names and types get an answer without a result (SERVFAIL).
    failing: Vec<(String, u16)>,
}

/// Runs a test in namespaces of its own, which have only loopback, `hosts` as `/etc/hosts`, and the name server.
///
/// The test runs in a thread of its own, so that the rest of this process stays in its namespaces.
#[track_caller]
pub fn isolated(hosts: &str, test: impl FnOnce(&NameServer) + Send) {
    let scratch = Scratch::new();
    let hosts = scratch.write("hosts", hosts);
    let resolv = scratch.write("resolv.conf", "nameserver 127.0.0.1\noptions timeout:20 attempts:1\n");
    let switch = scratch.write("nsswitch.conf", "hosts: files dns\n");
    let result = thread::scope(|scope| {
        let inside = scope.spawn(move || {
            // SAFETY: unshare takes an integer and concerns this thread only.
            let left = unsafe { libc::unshare(libc::CLONE_NEWNET | libc::CLONE_NEWNS) };
            assert_eq!(left, 0, "unshare: {}", std::io::Error::last_os_error());
            mount("none", "/", libc::MS_REC | libc::MS_PRIVATE);
            mount(&hosts, "/etc/hosts", libc::MS_BIND);
            mount(&resolv, "/etc/resolv.conf", libc::MS_BIND);
            mount(&switch, "/etc/nsswitch.conf", libc::MS_BIND);
            ip("link set lo up");
            let server = NameServer::default();
            server.serve();
            test(&server);
        });
        inside.join()
    });
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip ARGS`.
#[track_caller]
pub fn ip(args: &str) {
    let ran = Command::new("ip").args(args.split(' ')).output().expect("ip");
    assert!(ran.status.success(), "ip {args}: {}", String::from_utf8_lossy(&ran.stderr));
}

/// Adds two addresses that drop all packets: 198.51.100.7 and 2001:db8::7.
pub fn black_hole() {
    ip("addr add 198.51.100.7/32 dev lo");
    ip("-6 addr add 2001:db8::7/128 dev lo");
    let rules = "table inet hole { chain in { type filter hook input priority 0; \
                 ip daddr 198.51.100.7 drop; ip6 daddr 2001:db8::7 drop; }; }";
    let ran = Command::new("nft").arg(rules).output().expect("nft");
    assert!(ran.status.success(), "nft: {}", String::from_utf8_lossy(&ran.stderr));
}

/// Makes the addresses of [`black_hole`] answer again.
pub fn fill_the_hole() {
    let ran = Command::new("nft").arg("delete table inet hole").output().expect("nft");
    assert!(ran.status.success(), "nft: {}", String::from_utf8_lossy(&ran.stderr));
}

#[track_caller]
fn mount(source: &str, target: &str, flags: libc::c_ulong) {
    let (from, to) = (CString::new(source).expect("a path"), CString::new(target).expect("a path"));
    // SAFETY: both strings live through the call, and null is allowed for the type and the data.
    let result = unsafe { libc::mount(from.as_ptr(), to.as_ptr(), std::ptr::null(), flags, std::ptr::null()) };
    assert_eq!(result, 0, "mount {target}: {}", std::io::Error::last_os_error());
}

impl NameServer {
    /// Sets the addresses of a name and the delay of its answers.
    pub fn set(&self, name: &str, addresses: &[&str], delay: Duration) {
        let addresses = addresses.iter().map(|text| text.parse().expect("an address")).collect();
        self.0.lock().expect("no panic").known.insert(name.to_owned(), Record { addresses, delay });
    }

    /// Sets the hosts of a service: the priority, the weight, the port and the name of each.
    pub fn set_service(&self, name: &str, hosts: &[(u16, u16, u16, &str)]) {
        let hosts = hosts.iter().map(|(priority, weight, port, host)| (*priority, *weight, *port, (*host).to_owned()));
        self.0.lock().expect("no panic").services.insert(name.to_ascii_lowercase(), hosts.collect());
    }

    /// Sets the time to live of all answers, in seconds.
    pub fn set_ttl(&self, seconds: u8) {
        self.0.lock().expect("no panic").ttl = Some(seconds);
    }

    /// Stops answering queries for names that end in `end`.
    pub fn swallow(&self, end: &str) {
        self.0.lock().expect("no panic").swallowed.push(end.to_owned());
    }

    /// Lets the answers about a name wait until [`NameServer::release`].
    pub fn hold(&self, name: &str) {
        self.0.lock().expect("no panic").held.insert(name.to_owned());
    }

    /// Sends the answers about a name that wait.
    pub fn release(&self, name: &str) {
        self.0.lock().expect("no panic").held.remove(name);
    }

    /// Fails from now on for a name and a type, which is [`A`] or [`AAAA`].
    pub fn fail(&self, name: &str, kind: u16) {
        self.0.lock().expect("no panic").failing.push((name.to_owned(), kind));
    }

    /// Returns the number of A queries for a name.
    pub fn asked(&self, name: &str) -> u32 {
        self.0.lock().expect("no panic").asked.get(name).copied().unwrap_or(0)
    }

    /// Answers at port 53 of loopback, in the namespace of the calling thread.
    pub fn serve(&self) {
        let socket = UdpSocket::bind("127.0.0.1:53").expect("port 53");
        let names = Arc::clone(&self.0);
        thread::spawn(move || {
            let mut buf = [0; 512];
            while let Ok((got, client)) = socket.recv_from(&mut buf) {
                let query = buf[..got].to_vec();
                let Some((name, kind, question_end)) = question(&query) else { continue };
                let (record, hosts, ttl, fails, is_held) = {
                    let mut names = names.lock().expect("no panic");
                    if kind == A {
                        *names.asked.entry(name.clone()).or_default() += 1;
                    }
                    if names.swallowed.iter().any(|end| name.ends_with(end)) {
                        continue;
                    }
                    let hosts = names.services.get(&name).cloned().filter(|_| kind == SRV);
                    let fails = names.failing.iter().any(|it| it.0 == name && it.1 == kind);
                    let is_held = names.held.contains(&name);
                    (names.known.get(&name).cloned(), hosts, names.ttl.unwrap_or(60), fails, is_held)
                };
                let delay = record.as_ref().map_or(Duration::ZERO, |record| record.delay);
                let reply = match &hosts {
                    _ if fails => failure(&query[..question_end]),
                    Some(hosts) => services(&query[..question_end], hosts, ttl),
                    None => answer(&query[..question_end], kind, record.as_ref(), ttl),
                };
                let (own, names) = (socket.try_clone().expect("a socket"), Arc::clone(&names));
                let send = move || {
                    thread::sleep(delay);
                    while is_held && names.lock().expect("no panic").held.contains(&name) {
                        thread::sleep(Duration::from_millis(5));
                    }
                    let _ = own.send_to(&reply, client);
                };
                if delay.is_zero() && !is_held {
                    send();
                } else {
                    thread::spawn(send);
                }
            }
        });
    }
}

/// Returns the name, the type and the end of the question (RFC 1035, section 4).
fn question(query: &[u8]) -> Option<(String, u16, usize)> {
    let (mut at, mut labels) = (12, Vec::new());
    loop {
        let len = usize::from(*query.get(at)?);
        let label = query.get(at + 1..at + 1 + len)?;
        at += 1 + len;
        if len == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
    }
    let kind = u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]);
    Some((labels.join("."), kind, at + 4))
}

fn answer(question: &[u8], kind: u16, record: Option<&Record>, ttl: u8) -> Vec<u8> {
    let fits = |ip: &&IpAddr| (kind == A && ip.is_ipv4()) || (kind == AAAA && ip.is_ipv6());
    let found: Vec<&IpAddr> = record.iter().flat_map(|record| &record.addresses).filter(fits).collect();
    let code = if record.is_some() { 0 } else { NO_SUCH_NAME };
    let mut reply = question.to_vec();
    reply[2..12].copy_from_slice(&[0x81, 0x80 | code, 0, 1, 0, found.len() as u8, 0, 0, 0, 0]);
    for ip in found {
        let octets = match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        // The name of the question, class IN, the time to live.
        reply.extend_from_slice(&[0xc0, 12, 0, kind as u8, 0, 1, 0, 0, 0, ttl, 0, octets.len() as u8]);
        reply.extend(octets);
    }
    reply
}

/// Returns the answer that the name server has failed.
fn failure(question: &[u8]) -> Vec<u8> {
    let mut reply = question.to_vec();
    reply[2..12].copy_from_slice(&[0x81, 0x80 | FAILED, 0, 1, 0, 0, 0, 0, 0, 0]);
    reply
}

/// Returns the answer to a question for the hosts of a service (RFC 2782).
fn services(question: &[u8], hosts: &[(u16, u16, u16, String)], ttl: u8) -> Vec<u8> {
    let mut reply = question.to_vec();
    let code = if hosts.is_empty() { NO_SUCH_NAME } else { 0 };
    reply[2..12].copy_from_slice(&[0x81, 0x80 | code, 0, 1, 0, hosts.len() as u8, 0, 0, 0, 0]);
    for (priority, weight, port, host) in hosts {
        let mut data: Vec<u8> = [*priority, *weight, *port].iter().flat_map(|number| number.to_be_bytes()).collect();
        for label in host.split('.') {
            data.push(label.len() as u8);
            data.extend_from_slice(label.as_bytes());
        }
        data.push(0);
        reply.extend_from_slice(&[0xc0, 12, 0, SRV as u8, 0, 1, 0, 0, 0, ttl, 0, data.len() as u8]);
        reply.extend(data);
    }
    reply
}

pub const A: u16 = 1;
pub const AAAA: u16 = 28;
const SRV: u16 = 33;
const FAILED: u8 = 2;
const NO_SUCH_NAME: u8 = 3;
