//! Allocations of a loop: none for relayed bytes, and a small, known number for each connection. The count runs only
//! while the loop runs, so that the peers of the test are not counted.

use std::rc::Rc;

use seaprox::{Cx, Failure, Handler, Hook, Reason, Role, Stage, Target, Transit};

use crate::heap::allocations;
use crate::loop_kit::*;

/// The static front end from the crate's documentation.
struct Static(Rc<Target>);

impl Handler for Static {
    fn opened(&mut self, cx: &mut Cx<'_>) {
        cx.connect(Rc::clone(&self.0), None).unwrap();
    }
    fn readable(&mut self, _: &mut Cx<'_>, _: &[u8]) -> usize {
        0
    }
    fn connected(&mut self, cx: &mut Cx<'_>, result: Result<(), &Failure>) {
        match result {
            Ok(()) => cx.relay(),
            Err(failure) => cx.close(failure.reason),
        }
    }
}

/// Sends chunks through the loop until `bytes` bytes have arrived. Returns the loop's allocations in that time.
fn relay(rig: &mut Rig, client: &mut Peer, server: &mut Peer, chunk: &[u8], bytes: usize) -> usize {
    let (mut counted, mut sent, mut buf) = (0, 0, Vec::with_capacity(1 << 20));
    let mut received = 0;
    while received < bytes {
        if sent < bytes {
            sent += client.try_send(&chunk[..chunk.len().min(bytes - sent)]);
        }
        counted += allocations(|| rig.turn());
        buf.clear();
        server.try_receive(&mut buf, usize::MAX);
        received += buf.len();
    }
    counted
}

#[test]
fn relaying_allocates_nothing() {
    for config in modes() {
        for chunk in [1, 1000, 200_000] {
            let mut rig = Rig::new(config.clone());
            let (listener, addr) = target();
            let (id, mut client) = rig.adopt(Kind::Tcp4, Box::new(Static(Rc::new(addr.into()))));
            let mut server = rig.accept(&listener);
            rig.until("the connection relays", |proxy| stage_of(&mut proxy.core(), id) == Some(Stage::Established));
            let data = vec![7; chunk];
            // The first transfer creates the blocks and the pipe, which are used again afterwards.
            relay(&mut rig, &mut client, &mut server, &data, chunk * 300);
            let spliced = rig.snapshot().usage.pipes > 0;
            assert_eq!(spliced, config.limits.pipes > 0 && chunk > 100_000 && cfg!(target_os = "linux"));
            let counted = relay(&mut rig, &mut client, &mut server, &data, chunk * 300);
            assert_eq!(counted, 0, "for 300 chunks of {chunk} bytes, spliced: {spliced}");
        }
    }
}

/// Passes all bytes unchanged.
struct Pass;

impl Hook for Pass {
    fn data(&mut self, _: Role, transit: &mut Transit<'_>) -> Result<(), Reason> {
        transit.pass(usize::MAX);
        Ok(())
    }
}

#[test]
fn relaying_through_a_hook_allocates_nothing() {
    for chunk in [1, 1000, 200_000] {
        let mut rig = Rig::new(config());
        let (listener, addr) = target();
        let (id, mut client) = rig.adopt(Kind::Tcp4, Box::new(Static(Rc::new(addr.into()))));
        rig.core().connection(id).unwrap().set_hook(Box::new(Pass)).unwrap();
        let mut server = rig.accept(&listener);
        let data = vec![7; chunk];
        relay(&mut rig, &mut client, &mut server, &data, chunk * 300);
        assert_eq!(rig.snapshot().usage.pipes, 0);
        let counted = relay(&mut rig, &mut client, &mut server, &data, chunk * 300);
        assert_eq!(counted, 0, "for 300 chunks of {chunk} bytes");
    }
}

#[test]
fn a_connection_makes_at_most_two_allocations() {
    const COUNT: usize = 100;
    for config in modes() {
        let mut rig = Rig::new(config);
        let (listener, to) = target();
        listener.set_nonblocking(true).unwrap();
        let target = Rc::new(Target::from(to));
        let addr = rig.listen(move || Box::new(Static(Rc::clone(&target))));
        let mut counted = 0;
        for round in 0..2 * COUNT {
            let mut client = Peer::connect(addr);
            client.try_send(b"hello");
            client.fin();
            let (mut server, mut turned) = (None, 0);
            while server.is_none() || rig.core().snapshot().usage.connections > 0 {
                turned += allocations(|| rig.turn());
                if let Some((socket, _)) = server.is_none().then(|| listener.accept().ok()).flatten() {
                    let mut peer = Peer::new(socket);
                    peer.fin();
                    server = Some(peer);
                }
            }
            // The first half of the connections warms up.
            counted += if round >= COUNT { turned } else { 0 };
        }
        println!("{:.2} allocations for each connection", counted as f64 / COUNT as f64);
        assert!(counted <= ALLOCATIONS_MAX * COUNT, "{counted} for {COUNT} connections");
        assert!(counted >= COUNT, "each connection has at least a handler: {counted}");
    }
}

/// The limit for each connection: one for its handler, and another now and then.
const ALLOCATIONS_MAX: usize = 2;
