//! Several loops and other threads: distributing clients, calls into a loop, draining, stopping.

use crate::loop_kit;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use loop_kit::*;
use seaprox::{
    Bind, Bound, Full, ListenConfig, Loop, Loops, Proxy, Reason, Remote, Setup, Snapshot, Stage, VerbError, bind,
};

/// Returns a handler that sends the number of its loop to each client and relays nothing.
fn tells_its_loop(number: usize) -> Box<dyn seaprox::Handler> {
    handler(move |cx, call| {
        if let Call::Opened = call {
            cx.reply(&[number as u8]).unwrap();
            cx.set_stage(Stage::KeepAlive);
        }
        by_default(cx, &call)
    })
}

fn listening(next: Arc<AtomicUsize>) -> Setup {
    Arc::new(move |proxy: &mut Proxy, _: &[Remote], bounds: &mut [Bound]| {
        let number = next.fetch_add(1, Ordering::SeqCst);
        let config = ListenConfig::new("test", Box::new(move || tells_its_loop(number)));
        Ok(proxy.core().listen(&mut bounds[0], config).map(drop)?)
    })
}

fn three_loops(place: &Bind) -> (Loops, seaprox::Endpoint) {
    let mut config = config();
    config.limits.connections = 360;
    let bounds = bind(place, 3, &config).unwrap();
    let addr = bounds[0].addr().clone();
    (Loops::start(3, &config, None, bounds, &listening(Arc::default())).unwrap(), addr)
}

/// Returns a snapshot of each loop.
fn snapshots(loops: &Loops) -> Vec<Snapshot> {
    let (tell, told) = mpsc::channel();
    for remote in loops.remotes() {
        let tell = tell.clone();
        remote.call(move |core| tell.send(core.snapshot()).unwrap()).unwrap();
    }
    loops.remotes().iter().map(|_| told.recv_timeout(PATIENCE).unwrap()).collect()
}

fn wait_for(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::yield_now();
    }
}

fn end(loops: Loops, what: impl Fn(&mut Loop<'_>) + Send + Clone + 'static) {
    for remote in loops.remotes() {
        let what = what.clone();
        remote.call(move |core| what(core)).unwrap();
    }
    let (tell, told) = mpsc::channel();
    thread::spawn(move || tell.send(loops.join()));
    told.recv_timeout(PATIENCE).expect("the loops end").unwrap();
}

fn counts(numbers: impl Iterator<Item = u8>) -> Vec<usize> {
    let mut counts = HashMap::new();
    numbers.for_each(|number| *counts.entry(number).or_insert(0) += 1);
    let mut counts: Vec<usize> = counts.into_values().collect();
    counts.sort_unstable();
    counts
}

#[cfg(target_os = "linux")]
#[test]
fn the_system_spreads_tcp_clients_over_the_loops() {
    let (loops, addr) = three_loops(&Bind::parse("127.0.0.1:0").unwrap());
    let addr = addr.ip().unwrap();
    let mut clients = Vec::new();
    let numbers = (0..120).map(|_| {
        let mut client = TcpStream::connect(addr).unwrap();
        let mut number = [0];
        client.read_exact(&mut number).unwrap();
        clients.push(client);
        number[0]
    });
    let counts = counts(numbers);
    assert_eq!((counts.len(), counts.iter().sum::<usize>()), (3, 120), "every loop must get connections: {counts:?}");
    let each: Vec<_> = snapshots(&loops).iter().map(|snapshot| snapshot.usage.connections).collect();
    assert_eq!(each.iter().sum::<usize>(), 120);
    assert!(clients.iter_mut().all(|client| client.write_all(b"x").is_ok()));
    end(loops, |core| core.stop());
    for mut client in clients {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        assert!(client.read(&mut [0]).is_err(), "the connection was cut");
    }
}

#[test]
fn unix_clients_go_to_the_loops_in_turn_and_the_socket_file_is_removed() {
    let path = std::env::temp_dir().join(format!("seaprox-threads-{}", std::process::id()));
    let (loops, _) = three_loops(&Bind::Unix(path.clone()));
    let mut clients = Vec::new();
    let numbers = (0..30).map(|_| {
        let mut client = UnixStream::connect(&path).unwrap();
        let mut number = [0];
        client.read_exact(&mut number).unwrap();
        clients.push(client);
        number[0]
    });
    assert_eq!(counts(numbers), [10, 10, 10]);
    assert!(snapshots(&loops).iter().all(|snapshot| snapshot.usage.connections == 10));
    end(loops, |core| core.stop());
    assert!(!path.exists());
}

/// The first loop accepts for all of them.
#[test]
fn a_loop_that_does_not_listen_any_more_gets_no_unix_clients() {
    let path = std::env::temp_dir().join(format!("seaprox-threads-two-{}", std::process::id()));
    let (loops, _) = three_loops(&Bind::Unix(path.clone()));
    let (tell, told) = mpsc::channel();
    let close = move |core: &mut Loop<'_>| {
        let listener = core.listeners()[0].id;
        tell.send(core.listener(listener).unwrap().unlisten()).unwrap();
    };
    loops.remotes()[2].call(close).unwrap();
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), Ok(()));
    let mut clients = Vec::new();
    let numbers = (0..20).map(|_| {
        let mut client = UnixStream::connect(&path).unwrap();
        let mut number = [0];
        client.read_exact(&mut number).unwrap();
        clients.push(client);
        number[0]
    });
    assert_eq!(counts(numbers), [10, 10]);
    end(loops, |core| core.stop());
    assert!(!path.exists());
}

#[test]
fn the_limits_are_divided_among_the_loops() {
    let mut config = config();
    (config.limits.connections, config.limits.pipes) = (10, 0);
    let setup: Setup = Arc::new(|_, _, _| Ok(()));
    let loops = Loops::start(3, &config, None, Vec::new(), &setup).unwrap();
    let mut connections: Vec<_> = snapshots(&loops).iter().map(|one| one.limits.connections).collect();
    connections.sort_unstable();
    assert_eq!(connections, [3, 3, 4], "the loops together have the requested connections");
    assert!(snapshots(&loops).iter().all(|one| one.limits.pipes == 0));
    end(loops, |core| core.stop());
}

#[test]
fn a_loop_that_listens_on_more_addresses_has_more_of_the_limits() {
    let mut config = config();
    let limits = &mut config.limits;
    (limits.connections, limits.buffer_bytes, limits.pipes) = (43, 103 * limits.block_bytes, 8);
    let place = Bind::parse("127.0.0.1:0").unwrap();
    // All three loops listen on the first address, and the first loop alone on the second.
    let bounds = [3, 1].map(|loops| bind(&place, loops, &config).unwrap().remove(0)).into();
    let setup: Setup = Arc::new(|proxy, all, bounds| {
        let mut core = proxy.core();
        assert!(core.number() < all.len());
        let config = || ListenConfig::new("test", Box::new(|| tells_its_loop(0)));
        core.listen(&mut bounds[0], config())?;
        match core.number() {
            0 => Ok(core.listen(&mut bounds[1], config()).map(drop)?),
            _ => Ok(()),
        }
    });
    let loops = Loops::start(3, &config, None, bounds, &setup).unwrap();
    let mut parts: Vec<_> = snapshots(&loops).into_iter().map(|one| one.limits).collect();
    parts.sort_by_key(|limits| limits.connections);
    let block = config.limits.block_bytes;
    assert_eq!(parts.iter().map(|limits| limits.connections).collect::<Vec<_>>(), [11, 11, 21]);
    assert_eq!(parts.iter().map(|limits| limits.buffer_bytes / block).collect::<Vec<_>>(), [26, 26, 51]);
    assert_eq!(parts.iter().map(|limits| limits.pipes).collect::<Vec<_>>(), [2, 2, 4]);
    assert_eq!(parts.iter().map(|limits| limits.link_bytes).collect::<Vec<_>>(), [0, 0, config.limits.link_bytes]);
    end(loops, |core| core.stop());
}

#[test]
fn a_failed_setup_fails_the_start_and_no_loop_runs() {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let setup: Setup = Arc::new(move |_, _, _| match count.fetch_add(1, Ordering::SeqCst) {
        1 => Err(std::io::Error::other("the second one")),
        _ => Ok(()),
    });
    let error = Loops::start(3, &config(), None, Vec::new(), &setup).err().unwrap();
    assert_eq!((error.to_string().as_str(), calls.load(Ordering::SeqCst)), ("the second one", 2));
}

/// A drain refuses new clients, closes kept connections without a request, and lets the others finish until its
/// timeout.
#[test]
fn a_drain_waits_for_established_connections_until_its_timeout() {
    for finishes in [true, false] {
        let mut rig = Rig::new(config());
        let (listener, target) = target();
        let addr = rig.listen(move || relay_to(target));
        let (kept, mut keeping) = rig.adopt(Kind::Unix, tells_its_loop(1));
        let mut client = Peer::connect(addr);
        let mut server = rig.accept(&listener);
        rig.until("both connections are past their handshake", |proxy| {
            proxy.core().snapshot().connections.iter().all(|c| c.stage != Stage::Handshake)
        });
        rig.core().drain(Duration::from_millis(if finishes { 60_000 } else { 2000 }));
        assert!(rig.core().is_draining());
        assert_eq!(rig.core().connection(kept).err(), Some(VerbError::Over(Reason::Drained)));
        assert!(rig.proxy.turn(Some(Duration::ZERO)).unwrap());
        assert!(rig.receive_end(&mut keeping).0 == [1] && TcpStream::connect(addr).is_err());
        server.try_send(b"still");
        assert_eq!(rig.receive(&mut client, 5), b"still");
        if finishes {
            client.fin();
            server.fin();
        }
        let since = Instant::now();
        while rig.proxy.turn(Some(Duration::from_millis(5))).unwrap() {
            assert!(since.elapsed() < PATIENCE);
        }
        assert_eq!(rig.closed(Reason::Drained), if finishes { 1 } else { 2 });
        assert_eq!(rig.snapshot().usage.connections, 0);
    }
}

/// The queue of calls has a limit, beyond which a call is refused.
#[test]
fn a_loop_that_does_not_run_refuses_calls_beyond_the_limit() {
    let mut config = config();
    config.limits.calls = 5;
    let mut rig = Rig::new(config);
    let remote = rig.proxy.remote();
    let (tell, told) = mpsc::channel();
    for number in 0..5 {
        let tell = tell.clone();
        assert_eq!(remote.call(move |_| tell.send(number).unwrap()), Ok(()));
    }
    assert_eq!(remote.call(|_| panic!("never run")), Err(Full));
    rig.until("the queue has room again", |_| remote.call(|_| ()).is_ok());
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [0, 1, 2, 3, 4], "in order");
}

/// Starts a loop in a thread of its own, which sleeps until a call wakes it.
fn sleeper() -> (Remote, thread::JoinHandle<()>) {
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || {
        let mut config = config();
        config.limits.mails_per_turn = 7;
        let mut proxy = Proxy::new(config, None).unwrap();
        tell.send(proxy.remote()).unwrap();
        proxy.run().unwrap();
    });
    (told.recv().unwrap(), thread)
}

#[test]
fn calls_from_many_threads_each_run_once() {
    let (remote, thread) = sleeper();
    let runs = Arc::new(Mutex::new(vec![0; 8 * 500]));
    let threads: Vec<_> = (0..8)
        .map(|n| {
            let (remote, runs) = (remote.clone(), Arc::clone(&runs));
            thread::spawn(move || {
                for call in 0..500 {
                    let index = n * 500 + call;
                    let runs = Arc::clone(&runs);
                    let mut count = move |_: &mut Loop<'_>| runs.lock().unwrap()[index] += 1;
                    while let Err(Full) = remote.call(count.clone()) {
                        thread::yield_now();
                    }
                    let _ = &mut count;
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    wait_for("all are run", || runs.lock().unwrap().iter().all(|count| *count == 1));
    remote.call(|core| core.stop()).unwrap();
    thread.join().unwrap();
}

/// Each call posts the next one while the loop is in the middle of a turn. No other event would ever wake the loop.
#[test]
fn a_call_posted_during_a_turn_is_not_lost() {
    fn next(left: usize, remote: &Remote, done: mpsc::Sender<()>) {
        let again = remote.clone();
        let call = move |_: &mut Loop<'_>| match left {
            0 => done.send(()).unwrap(),
            _ if left.is_multiple_of(2) => next(left - 1, &again, done),
            // From another thread, while the loop may be anywhere between this call and its sleep.
            _ => drop(thread::spawn(move || next(left - 1, &again, done))),
        };
        remote.call(call).unwrap();
    }
    let (remote, thread) = sleeper();
    let (tell, told) = mpsc::channel();
    next(2000, &remote, tell);
    told.recv_timeout(PATIENCE).expect("every call wakes the loop");
    remote.call(|core| core.stop()).unwrap();
    thread.join().unwrap();
}
