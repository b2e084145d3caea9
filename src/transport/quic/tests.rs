//! Two ends of a connection in one thread, over real sockets.

use crate::relay::io::Io;
use crate::relay::side::{Owner, SideState};
use crate::types::id::Kind;

use super::port::Trial;
use super::*;

/// A carrier and its side.
struct End(Quic, Side);

impl End {
    fn new(endpoint: &QuicEndpoint, io: Io, peer: Endpoint, buffers: &Rc<Buffers>) -> End {
        let owner = Owner::Carrier(Id::parse(Kind::Carrier, "1.1").unwrap());
        let mut side = Side::new(owner, SideState::Connected, io, peer);
        let carrier = Quic::carrier(endpoint, Id::parse(Kind::Side, "1.1").unwrap(), &mut side, buffers).unwrap();
        End(carrier, side)
    }

    fn receive(&mut self) -> Option<usize> {
        self.1.ready.readable = true;
        self.0.receive(&mut self.1, &mut Sessions::new(), usize::MAX).unwrap()
    }

    /// Takes in what has arrived, if anything has, and sends what is due.
    fn answer(&mut self) {
        match self.receive() {
            Some(_) => _ = self.open(),
            None => self.flush(),
        }
    }

    /// Computes what has arrived, and sends the answer. Returns the bytes of the peer.
    fn open(&mut self) -> Vec<u8> {
        let mut plain = Vec::new();
        self.0.open(&mut plain).map_err(|error| error.into_failure()).unwrap();
        self.flush();
        plain.concat()
    }

    fn flush(&mut self) {
        self.0.flush(&mut self.1, &mut Sessions::new()).unwrap();
    }
}

/// Returns an end that has dialed a server, which has received nothing yet.
fn dial() -> (End, QuicEndpoint, Rc<Buffers>) {
    let (setup, buffers) = (Setup::of_tests(), Rc::new(Buffers::new(0)));
    let bind = || mio::net::UdpSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let (socket, mut server) = (bind(), Quic::server(&setup).unwrap());
    let addr = socket.local_addr().unwrap();
    Quic::share(&mut server, socket, &buffers).unwrap();
    let near = End::new(&Quic::client(&setup).unwrap(), Io::Udp(bind()), addr.into(), &buffers);
    (near, server, buffers)
}

#[test]
fn each_message_of_a_handshake_waits_for_its_turn() {
    let (mut near, server, buffers) = dial();
    let since = Instant::now();
    // The system may drop datagrams on loopback, which the timers of the client send again.
    let until = |near: &mut End, is_true: &mut dyn FnMut(&mut End) -> bool| {
        while !is_true(near) {
            assert!(since.elapsed() < Duration::from_secs(20));
            Quic::receive_shared(&server);
            near.answer();
        }
    };
    near.open();
    until(&mut near, &mut |_| Quic::next_arrival(&server).is_some());
    let mut far = End::new(&server, Io::None, Endpoint::Unknown, &buffers);
    assert_eq!((far.receive(), far.0.next_message()), (Some(1), NextMessage::Whole));
    assert!(matches!(far.0.state, State::Arrived(..)), "nothing was computed");
    far.open();
    until(&mut near, &mut |near| {
        if !near.0.is_handshaking() {
            return true;
        }
        // A message that the client sends again is not its next one.
        if far.receive().is_some() {
            far.open();
        }
        false
    });
    let is_waiting = |far: &mut End| far.receive().is_some_and(|bytes| bytes > 1);
    until(&mut near, &mut |_| is_waiting(&mut far));
    for _ in 0..3 {
        assert!(is_waiting(&mut far) && far.0.is_handshaking());
        assert_eq!(far.0.next_message(), NextMessage::Whole);
    }
    until(&mut near, &mut |_| {
        if far.receive().is_some() {
            far.open();
        }
        !far.0.is_handshaking()
    });
}

#[test]
fn a_connection_tells_if_it_has_bytes_that_it_has_not_sent() {
    let (mut near, server, buffers) = dial();
    let mut far = None;
    let mut until = |near: &mut End, is_true: &dyn Fn(&End) -> bool| {
        let since = Instant::now();
        while !is_true(near) {
            assert!(since.elapsed() < Duration::from_secs(20));
            near.answer();
            Quic::receive_shared(&server);
            if far.is_none() && Quic::next_arrival(&server).is_some() {
                far = Some(End::new(&server, Io::None, Endpoint::Unknown, &buffers));
            }
            far.iter_mut().for_each(End::answer);
        }
    };
    near.open();
    until(&mut near, &|near| !near.0.is_handshaking() && !near.0.unsent.has_any());
    near.0.send_bytes(&[0; 300_000]);
    near.flush();
    assert!(near.0.unsent.has_any() && near.0.bytes.0 < 100_000, "{} bytes were sent", near.0.bytes.0);
    let room = Demand { rate: u64::MAX, is_alone: false, is_mixed: false };
    assert!(near.0.room(&near.1, room) == 0 && !near.0.may_wait());
    // The figures ask for the window, too, which changes nothing.
    near.0.figures(&near.1);
    until(&mut near, &|near| near.0.is_flushed() && !near.0.unsent.has_any());
    assert!(near.0.bytes.0 > 300_000, "{} bytes were sent", near.0.bytes.0);
    near.0.figures(&near.1);
    assert!(near.0.room(&near.1, room) > 0 && near.0.may_wait());
    // The carrier takes as much as such a path carries once the connection has shown that it sends that.
    near.0.bytes.0 = 8 << 20;
    assert_eq!(near.0.room(&near.1, room), 256 << 10);
    assert_eq!(near.0.room(&near.1, Demand { is_mixed: true, ..room }), 128 << 10);
}

#[test]
fn datagrams_that_the_system_does_not_take_are_kept_and_leave_first() {
    let (mut near, server, buffers) = dial();
    let (mut far, mut got, since) = (None::<End>, Vec::new(), Instant::now());
    let mut until = |near: &mut End, is_true: &mut dyn FnMut(&mut End, &[u8]) -> bool| {
        while !is_true(near, &got) {
            assert!(since.elapsed() < Duration::from_secs(20), "{} bytes have arrived", got.len());
            near.answer();
            Quic::receive_shared(&server);
            if far.is_none() && Quic::next_arrival(&server).is_some() {
                far = Some(End::new(&server, Io::None, Endpoint::Unknown, &buffers));
            }
            let Some(far) = far.as_mut() else { continue };
            if far.receive().is_some() { got.extend(far.open()) } else { far.flush() }
        }
    };
    near.open();
    until(&mut near, &mut |near, _| !near.0.is_handshaking() && !near.0.unsent.has_any());
    let (port, side) = (Rc::clone(&near.0.port), near.0.side);
    let sent: Vec<u8> = (0..300_000u32).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
    near.0.send_bytes(&sent);
    port.borrow_mut().trial = Some(Trial { refusals: 3, calls: Vec::new() });
    for _ in 0..3 {
        near.flush();
        assert_eq!(port.borrow_mut().woken(), [side], "it runs again when the socket is writable");
        assert!(!near.0.is_flushed() && !near.0.may_wait());
    }
    // The system refuses a call in every second turn from now on.
    until(&mut near, &mut |_, got| {
        let mut port = port.borrow_mut();
        let trial = port.trial.as_mut().unwrap();
        trial.refusals = usize::from(trial.calls.last().is_some_and(|(_, is_taken)| *is_taken));
        got.len() >= sent.len()
    });
    assert!(got == sent);
    let calls = port.borrow_mut().trial.take().unwrap().calls;
    for pair in calls.windows(2) {
        assert!(pair[0].1 || pair[0].0 == pair[1].0, "others have left before what was not taken");
    }
    let mut taken: Vec<&[u8]> = calls.iter().filter(|call| call.1).map(|call| call.0.as_slice()).collect();
    let count = taken.len();
    assert!(calls.len() - count >= 5, "{} of {} calls were refused", calls.len() - count, calls.len());
    taken.sort_unstable();
    taken.dedup();
    assert_eq!(taken.len(), count, "each datagram has left once");
}

#[test]
fn a_client_speaks_at_once_when_an_address_of_its_host_has_changed() {
    let (mut near, server, buffers) = dial();
    let (mut far, since, mut silent_turns) = (None::<End>, Instant::now(), 0);
    near.open();
    // The handshake, and what follows it, are over when many turns have sent nothing.
    while near.0.is_handshaking() || silent_turns < 100 {
        assert!(since.elapsed() < Duration::from_secs(20));
        let before = near.0.bytes.0;
        near.answer();
        silent_turns = if near.0.bytes.0 == before { silent_turns + 1 } else { 0 };
        Quic::receive_shared(&server);
        if far.is_none() && Quic::next_arrival(&server).is_some() {
            far = Some(End::new(&server, Io::None, Endpoint::Unknown, &buffers));
        }
        far.iter_mut().for_each(End::answer);
    }
    let before = near.0.bytes.0;
    near.0.network_changed();
    near.flush();
    assert!(near.0.bytes.0 > before, "the peer does not hear of the address");
}

#[test]
fn a_turn_is_charged_for_what_has_arrived_and_for_what_a_closed_gap_releases() {
    let mut charge = Charge::default();
    assert_eq!(charge.on_taken(100_000), 100_000);
    charge.on_read(64_000);
    charge.on_read(36_000);
    assert_eq!(charge.on_taken(0), 1, "paid for");
    assert_eq!(charge.on_taken(2_000_000), 2_000_000, "all of it waits behind a gap");
    assert_eq!(charge.on_taken(1_400), 1_400);
    charge.on_read(64_000);
    assert_eq!(charge.on_taken(0), 62_600);
    charge.on_read(64_000);
    assert_eq!(charge.on_taken(0), 64_000);
}
