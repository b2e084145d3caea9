//! The system calls of a node under way, as strace sees them.

use crate::kit;

use std::net::TcpListener;

use kit::Step::Swap;
use kit::link::Keys;
use kit::peer::both;
use kit::{Peer, Scratch, Seaprox, proc, until};

/// A node that carries pings has a deadline some milliseconds ahead in each turn. One setting of its timer serves several polls,
/// which have no timeout of their own then.
#[test]
fn a_node_under_way_sets_its_timer_less_often_than_it_polls() {
    if !kit::has("strace") {
        return;
    }
    let (keys, listener) = (Keys::new(), TcpListener::bind("127.0.0.1:0").unwrap());
    let target = listener.local_addr().unwrap().to_string();
    let far = keys.start_far(&[]);
    let via = keys.via(&far.listens(0));
    let mut line = vec!["static", "--listen", "127.0.0.1:0", "--to", &target];
    line.extend(via.iter().map(String::as_str));
    let near = Seaprox::start(&line);
    let (mut client, mut server) = (Peer::connect(near.addr(0)), Peer::accept(&listener));
    let scratch = Scratch::new();
    let calls = scratch.file("calls");
    let mut tracer = proc::trace(near.pid(), &["-o", &calls, "-e", "trace=/^(epoll_p?wait|timerfd_settime)$"]);
    until("the timer stays set over several polls", || {
        both(&mut client, &[Swap(64)], &mut server, &[Swap(64)]);
        let calls = std::fs::read_to_string(&calls).unwrap();
        let count = |text: &str| calls.lines().filter(|line| line.contains(text)).count();
        let [settings, waits] = [count("timerfd_settime("), count(", -1) = ") + count(", -1, NULL, 8) = ")];
        settings > 0 && waits > settings + 20
    });
    let _ = tracer.kill();
    let _ = tracer.wait();
}
