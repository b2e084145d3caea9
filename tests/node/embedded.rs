//! Links in loops that are parts of another loop: all deadlines and events of a link reach the outer loop (SP-35).

use crate::node_kit;

use std::os::fd::{AsFd, AsRawFd};
use std::thread;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use node_kit::cutter::Cutter;
use node_kit::*;
use seaprox::Proxy;

/// Drives a loop by another one, which sleeps for as long as it may.
fn drive(proxy: &mut Proxy) {
    let (mut poll, mut events) = (Poll::new().unwrap(), Events::with_capacity(4));
    let fd = proxy.as_fd().as_raw_fd();
    poll.registry().register(&mut SourceFd(&fd), Token(0), Interest::READABLE).unwrap();
    while proxy.turn(Some(Duration::ZERO)).unwrap() {
        poll.poll(&mut events, proxy.next_timeout()).unwrap();
    }
}

#[test]
fn a_link_carries_streams_and_comes_back_in_loops_that_another_loop_drives() {
    let [server, client] = [(); 2].map(|()| Node::run_by(drive, |_| {}));
    let cutter = Cutter::new(server.serve());
    let link = client.link(cutter.addr);
    let (listener, addr) = target();
    let front = client.forward(link, addr.into());
    let (mut near, mut far) = (connect(front), accept(&listener));
    const COUNT: u64 = 8 << 20;
    for round in 0..2 {
        thread::scope(|scope| {
            let (mut near_out, mut far_out) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            scope.spawn(move || send_pattern(&mut near_out, 1, COUNT));
            scope.spawn(move || send_pattern(&mut far_out, 2, COUNT));
            scope.spawn(|| read_pattern(&mut far, 1, COUNT));
            read_pattern(&mut near, 2, COUNT);
        });
        if round == 0 {
            assert!(cutter.cut() > 0, "a carrier was reset");
        }
    }
    for node in [&client, &server] {
        node.remote.finish(Duration::ZERO);
        until("the loop has ended", || node.is_over());
    }
}
