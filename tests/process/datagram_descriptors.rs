//! Descriptors of datagrams: floods of new flows, beside connections of the same process.

use crate::kit;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use kit::Step::*;
use kit::peer::both;
use kit::{Peer, Seaprox, proc, until};

/// A process with a TCP and a UDP listener, and a target of both protocols that answers no datagrams but those of `ask`.
struct Both {
    seaprox: Seaprox,
    connections: TcpListener,
}

impl Both {
    fn start(touch: impl FnOnce(&mut Command)) -> Both {
        let (connections, datagrams) = loop {
            let connections = TcpListener::bind("127.0.0.1:0").unwrap();
            // Another program may have this port for datagrams.
            if let Ok(datagrams) = UdpSocket::bind(connections.local_addr().unwrap()) {
                break (connections, datagrams);
            }
        };
        let to = connections.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            let mut buf = [0; 64];
            while let Ok((len, from)) = datagrams.recv_from(&mut buf) {
                if &buf[..len] == b"ask" {
                    let _ = datagrams.send_to(b"answer", from);
                }
            }
        });
        let listen = ["--listen", "127.0.0.1:0", "--listen", "udp:127.0.0.1:0"];
        let words = [&["static", "--to", &to, "--udp-first-answer-timeout", "1h"], &listen[..]].concat();
        Both { seaprox: Seaprox::start_with(&words, touch), connections }
    }

    fn udp_addr(&self) -> SocketAddr {
        self.seaprox.listens(1).strip_prefix("udp:").expect("a UDP address").parse().unwrap()
    }

    /// Connects a client, and moves bytes in both directions.
    #[track_caller]
    fn pair(&self) -> (Peer, Peer) {
        let mut client = Peer::connect(self.seaprox.addr(0));
        let mut server = Peer::accept(&self.connections);
        both(&mut client, &[Swap(1_000)], &mut server, &[Swap(1_000)]);
        (client, server)
    }
}

/// A thread that sends datagrams to an address, each from an address of its own.
struct Flood {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    fn new(to: SocketAddr) -> Flood {
        let is_over = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            for number in (0x7f10_0001_u32..0x7fff_ffff).take_while(|_| !theirs.load(Ordering::Relaxed)) {
                let socket = UdpSocket::bind((Ipv4Addr::from_bits(number), 0)).unwrap();
                // The queue of the listener may be full.
                let _ = socket.send_to(b"flood", to);
                if number % 32 == 0 {
                    // The others of this machine need time, too.
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        });
        Flood { is_over, thread: Some(thread) }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(()))));
    }
}

/// Sets both limits of descriptors of a process that starts.
fn limit_descriptors(command: &mut Command, most: u64) {
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: the function may be called between fork and exec, and the record is live.
    unsafe {
        command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
}

#[test]
fn a_flood_of_flows_takes_a_quarter_of_the_descriptors_and_connections_go_on() {
    let process = Both::start(|command| limit_descriptors(command, 600));
    let seaprox = &process.seaprox;
    let _flood = Flood::new(process.udp_addr());
    until("the flood has ended flows", || seaprox.figure("/flows_opened") > 1_000);
    let pairs: Vec<_> = (0..40).map(|_| process.pair()).collect();
    assert_eq!((seaprox.figure("/limits/flows"), seaprox.figure("/usage/flows")), (150, 150));
    assert!(proc::descriptors(seaprox.pid()) < 350, "flows, connections and the rest");
    assert_eq!(seaprox.count_log(&["no descriptors left"]), 0);
    assert_eq!(pairs.len(), 40);
}

#[test]
fn a_client_has_a_quarter_of_the_flows_that_the_descriptors_allow() {
    let start = |options: &[&str], most: u64| {
        let words = ["static", "--udp", "--to", "127.0.0.1:9", "--listen", "127.0.0.1:0"];
        Seaprox::start_with(&[&words, options].concat(), |command| limit_descriptors(command, most))
    };
    let figures = |seaprox: &Seaprox| ["/limits/flows", "/limits/flows_per_source"].map(|of| seaprox.figure(of));
    let reduced = start(&["--threads", "1"], 600);
    assert_eq!((figures(&reduced), reduced.count_log(&["--udp-flows-per-source"])), ([150, 37], 0));
    let set = start(&["--udp-flows-per-source", "100"], 600);
    set.wait_for_log(&[" WARN ", "--udp-flows-per-source", "wished=100", "flows_per_source=37"]);
    assert_eq!(figures(&set), [150, 37]);
    for (options, most, expected) in [
        (["--udp-flows-per-source", "0"], 600, [150, 0]),
        (["--udp-flows-per-source", "20"], 600, [150, 20]),
        (["--udp-flows", "150"], 1_000, [150, 4_096]),
    ] {
        assert_eq!(figures(&start(&options, most)), expected, "{options:?}");
    }
}

#[test]
fn the_connections_of_a_process_without_datagrams_have_the_descriptors_of_flows_too() {
    let connections = |words: &[&str]| {
        let words = [words, &["--listen", "127.0.0.1:0"]].concat();
        let seaprox = Seaprox::start_with(&words, |command| limit_descriptors(command, 600));
        seaprox.figure("/limits/connections")
    };
    let to_target = ["static", "--to", "127.0.0.1:9"];
    let with_flows = connections(&[&to_target[..], &["--listen", "udp:127.0.0.1:0"]].concat());
    // 150 descriptors of flows are 75 connections.
    assert_eq!(connections(&to_target), with_flows + 75);
    assert_eq!(connections(&["http"]), with_flows + 75);
    assert_eq!(connections(&["socks"]), with_flows);
}

#[test]
fn flows_have_the_descriptors_that_few_connections_leave() {
    let words = ["static", "--to", "127.0.0.1:9", "--listen", "udp:127.0.0.1:0", "--max-connections", "10"];
    let seaprox = Seaprox::start_with(&words, |command| limit_descriptors(command, 600));
    assert_eq!(seaprox.figure("/limits/connections"), 10);
    assert!(seaprox.figure("/limits/flows") > 200, "more than a quarter of 600");
    let both = [&words[..5], &["--max-connections", "1000", "--udp-flows", "1000"]].concat();
    let seaprox = Seaprox::start_with(&both, |command| limit_descriptors(command, 600));
    assert_eq!(seaprox.figure("/limits/flows"), 150);
}

#[test]
fn the_status_counts_the_sockets_of_flows_among_the_descriptors() {
    let process = Both::start(|_| {});
    let seaprox = &process.seaprox;
    let before = seaprox.figure("/usage/descriptors");
    let clients: Vec<UdpSocket> = (0..5).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    clients.iter().for_each(|client| _ = client.send_to(b"flood", process.udp_addr()).unwrap());
    until("five flows", || seaprox.figure("/usage/flows") == 5);
    assert_eq!(seaprox.figure("/usage/descriptors"), before + 5);
}

#[test]
fn without_descriptors_flows_that_wait_for_an_answer_end_for_connections_and_for_new_flows() {
    let process = Both::start(|_| {});
    let (seaprox, pid) = (&process.seaprox, process.seaprox.pid());
    let _before = process.pair();
    proc::limit_descriptors(pid, proc::descriptors(pid) as u64 + 40);
    let flood = Flood::new(process.udp_addr());
    seaprox.wait_for_log(&[" closed ", "reason=limit_reached", "its descriptor was needed"]);
    let pairs: Vec<_> = (0..8).map(|_| process.pair()).collect();
    drop(flood);
    // The flows of the flood wait for an answer for an hour, and have all descriptors that are left.
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    until("an answer", || {
        client.send_to(b"ask", process.udp_addr()).unwrap();
        client.recv(&mut [0; 64]).is_ok()
    });
    assert_eq!(pairs.len(), 8);
}

#[test]
fn flows_do_not_end_if_their_descriptors_are_of_no_use_to_connections() {
    let process = Both::start(|_| {});
    let (seaprox, pid) = (&process.seaprox, process.seaprox.pid());
    let clients: Vec<UdpSocket> =
        (0..200).map(|number| UdpSocket::bind((Ipv4Addr::new(127, 17, 0, number + 1), 0)).unwrap()).collect();
    for (count, client) in (1..).zip(&clients) {
        client.send_to(b"flood", process.udp_addr()).unwrap();
        until("the flow is open", || seaprox.figure("/usage/flows") == count);
    }
    // The limit is below the descriptors of all flows, so their end makes no room.
    proc::limit_descriptors(pid, 5);
    let _client = Peer::connect(seaprox.addr(0));
    seaprox.wait_for_log(&["no descriptors left"]);
    let log = seaprox.log();
    let before = log.iter().take_while(|line| !line.contains("no descriptors left"));
    assert_eq!(before.filter(|line| line.contains("its descriptor was needed")).count(), 16);
}
