//! A UDP socket with the QUIC endpoint above it: it passes the datagrams on to the connections that they belong to.
//!
//! The carriers of a server share the port of its listener; a carrier that this node has dialed has a port of its own. The
//! datagrams of a connection wait in its inbox until its carrier has its turn, as bytes wait in the receive buffer of a socket
//! of TCP; those that do not fit are dropped, and the peer sends them again.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Instant;

use bytes::BytesMut;
use mio::net::UdpSocket;
use quinn_proto::{
    AcceptError, ConnectionEvent, ConnectionHandle, DatagramEvent, EcnCodepoint, Endpoint, EndpointEvent, Incoming,
    ServerConfig, Transmit,
};
use quinn_udp::{UdpSockRef, UdpSocketState, is_msg_size_err};
use socket2::SockRef;

use crate::datagrams::batch::{Batch, RUN_BYTES_MAX};
use crate::sys;
use crate::tls::QUIC_VERSION;
use crate::types::id::Id;

use crate::transport::Buffers;

use super::unsent::Unsent;
use super::window::Windows;

/// One UDP socket, and the connections above it.
pub(crate) struct Port {
    socket: UdpSocket,
    state: UdpSocketState,
    endpoint: Endpoint,
    /// The inboxes, at the numbers of their connections, which the endpoint gives again.
    inboxes: Vec<Option<Inbox>>,
    /// Inboxes of unauthenticated peers.
    inboxes_unauthenticated: usize,
    /// Connections that peers have begun, and that no carrier has taken.
    arrivals: VecDeque<Incoming>,
    /// Datagrams that may begin connections, or be answered, in this turn.
    firsts_left: usize,
    /// Datagrams that were dropped because there were more of them.
    dropped: u64,
    /// The sides of carriers that have datagrams to take.
    woken: Vec<Id>,
    /// The sides of carriers whose datagrams the system did not take.
    blocked: Vec<Id>,
    /// The room for datagrams that leave.
    out: Vec<u8>,
    buffers: Rc<Buffers>,
    #[cfg(test)]
    pub(super) trial: Option<Trial>,
}

/// A system that a test keeps from taking datagrams.
#[cfg(test)]
#[derive(Default)]
pub(super) struct Trial {
    /// Calls that it refuses from now on.
    pub refusals: usize,
    /// The datagrams of each call, and true if it took them.
    pub calls: Vec<(Vec<u8>, bool)>,
}

/// The datagrams of one connection.
pub(crate) struct Inbox {
    side: Id,
    events: VecDeque<ConnectionEvent>,
    /// Bytes that wait, and the most that may.
    bytes: usize,
    bytes_max: usize,
    is_woken: bool,
}

/// A datagram, or several of one size, that the system did not take.
pub(crate) struct Kept {
    pub transmit: Transmit,
    pub contents: Vec<u8>,
}

impl Port {
    /// Makes a port of a bound socket.
    ///
    /// # Errors
    /// The error of the system.
    pub fn new(socket: UdpSocket, make: impl FnOnce(bool) -> Endpoint, buffers: &Rc<Buffers>) -> io::Result<Port> {
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        // The system may grant less, if this process may not go beyond its limit.
        if sys::force_receive_buffer(&socket, SOCKET_BYTES).is_err() {
            let _ = state.set_recv_buffer_size(UdpSockRef::from(&socket), SOCKET_BYTES);
        }
        let _ = state.set_send_buffer_size(UdpSockRef::from(&socket), SOCKET_BYTES);
        let endpoint = make(!state.may_fragment());
        Ok(Port {
            socket,
            state,
            endpoint,
            inboxes: Vec::new(),
            inboxes_unauthenticated: 0,
            arrivals: VecDeque::new(),
            firsts_left: 0,
            dropped: 0,
            woken: Vec::new(),
            blocked: Vec::new(),
            out: Vec::new(),
            buffers: Rc::clone(buffers),
            #[cfg(test)]
            trial: None,
        })
    }

    /// Returns the local address of the socket.
    pub fn local(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()
    }

    /// Returns the longest packet of the route to a peer, if the system tells it.
    pub fn route_mtu(&self, local: Option<IpAddr>, peer: SocketAddr) -> Option<usize> {
        let local = local.or_else(|| self.local().map(|local| local.ip()));
        sys::route_mtu(SockRef::from(&self.socket), local, peer)
    }

    /// Leaves by another interface than the one that the system chooses, if that has no carrier and the socket is bound to none.
    pub fn avoid_cut_interface(&self, peer: SocketAddr) {
        // Otherwise the datagrams go where the system sends them, and the timers of the session find out.
        let _ = sys::avoid_cut_interface(SockRef::from(&self.socket), peer);
    }

    /// Returns the receive windows of all connections of the loop.
    pub fn windows(&self) -> Rc<Windows> {
        Rc::clone(&self.buffers.windows)
    }

    /// Returns the endpoint.
    pub fn endpoint(&mut self) -> &mut Endpoint {
        &mut self.endpoint
    }

    /// Returns the number of datagrams that one call may send.
    pub fn segments_max(&self, mtu: usize) -> usize {
        self.state.max_gso_segments().min(SEGMENTS_MAX).min(RUN_BYTES_MAX / mtu.max(1)).max(1)
    }

    /// Receives datagrams, in at most `calls` calls of the system, and no more than an empty inbox has room for. Returns true if
    /// more may be there.
    ///
    /// # Errors
    /// The error of the socket.
    pub fn receive(&mut self, now: Instant, calls: usize) -> io::Result<bool> {
        let mut batch = self.buffers.take_batch()?;
        let mut result = Ok(true);
        self.firsts_left = FIRSTS_PER_TURN;
        let mut left = INBOX_BYTES_MAX;
        for _ in 0..calls {
            if left < RECEIVED_BYTES_MAX {
                break;
            }
            match batch.receive(UdpSockRef::from(&self.socket), quinn_udp::BATCH_SIZE) {
                Ok(count) => {
                    let costs = (0..count).map(|index| self.take_entry(now, &batch, index));
                    left = left.saturating_sub(costs.sum());
                    if count < quinn_udp::BATCH_SIZE {
                        // The socket was empty, and an event announces what comes now.
                        result = Ok(false);
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    result = Ok(false);
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Some systems report here that an earlier datagram could not be delivered. The timers of QUIC tell what is
                // lost.
                Err(error) if is_of_datagram(&error) => {}
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        self.buffers.give_batch(batch);
        result
    }

    /// Passes the datagrams of one entry on. Returns the room that they need in an inbox.
    fn take_entry(&mut self, now: Instant, batch: &Batch, index: usize) -> usize {
        let entry = batch.entry(index);
        let mut cost = entry.contents.len();
        let ecn = entry.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8));
        let mut rest = BytesMut::from(entry.contents);
        // A datagram that waits for an unauthenticated peer holds its own bytes, and not those of the whole entry.
        let is_alone =
            self.inboxes_unauthenticated > 0 || entry.contents.first().is_some_and(|first| first & 0x80 != 0);
        while !rest.is_empty() {
            let mut datagram = rest.split_to(entry.segment.min(rest.len()));
            let len = datagram.len();
            cost += EVENT_BYTES;
            if may_be_first(&datagram) {
                let Some(left) = self.firsts_left.checked_sub(1) else {
                    self.dropped += 1;
                    continue;
                };
                self.firsts_left = left;
            }
            if is_alone && len < entry.contents.len() {
                datagram = BytesMut::from(&datagram[..]);
            }
            let mut out = std::mem::take(&mut self.out);
            out.clear();
            match self.endpoint.handle(now, entry.source, entry.dest, ecn, datagram, &mut out) {
                Some(DatagramEvent::ConnectionEvent(connection, event)) => self.deliver(connection, event, len),
                Some(DatagramEvent::NewConnection(incoming)) => self.arrive(incoming),
                Some(DatagramEvent::Response(transmit)) => self.respond(&transmit, &out),
                None => {}
            }
            self.out = out;
        }
        cost
    }

    /// Puts a datagram into the inbox of its connection.
    fn deliver(&mut self, connection: ConnectionHandle, event: ConnectionEvent, len: usize) {
        let Some(inbox) = self.inbox_mut(connection) else { return };
        if inbox.bytes + len + inbox.events.len() * EVENT_BYTES > inbox.bytes_max {
            return;
        }
        inbox.bytes += len;
        inbox.events.push_back(event);
        if !std::mem::replace(&mut inbox.is_woken, true) {
            let side = inbox.side;
            self.woken.push(side);
        }
    }

    /// Makes the next peer that has begun a connection show that it receives at its address (Retry; RFC 9000, section 8.1.2).
    /// Returns false if it has shown that.
    pub fn validate_arrival(&mut self) -> bool {
        let is_unknown = |incoming: &Incoming| !incoming.remote_address_validated() && incoming.may_retry();
        if !self.arrivals.front().is_some_and(is_unknown) {
            return false;
        }
        let Some(incoming) = self.arrivals.pop_front() else { return false };
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        match self.endpoint.retry(incoming, &mut out) {
            Ok(transmit) => self.respond(&transmit, &out),
            Err(error) => self.endpoint.ignore(error.into_incoming()),
        }
        self.out = out;
        true
    }

    /// Notes a connection that a peer has begun.
    fn arrive(&mut self, incoming: Incoming) {
        if self.arrivals.len() >= ARRIVALS_MAX {
            self.endpoint.ignore(incoming);
        } else {
            self.arrivals.push_back(incoming);
        }
    }

    /// Returns the address of the next peer that has begun a connection.
    pub fn arrival(&self) -> Option<SocketAddr> {
        self.arrivals.front().map(Incoming::remote_address)
    }

    /// Takes the connection that the next peer has begun.
    pub fn take_arrival(&mut self) -> Option<Incoming> {
        self.arrivals.pop_front()
    }

    /// Tells a peer that its connection is refused.
    pub fn refuse(&mut self, incoming: Incoming) {
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        let transmit = self.endpoint.refuse(incoming, &mut out);
        self.respond(&transmit, &out);
        self.out = out;
    }

    /// Accepts a connection that a peer has begun: this computes a key exchange and a signature.
    ///
    /// # Errors
    /// The first datagram is not valid. The peer was told.
    pub fn accept(
        &mut self,
        incoming: Incoming,
        now: Instant,
        config: ServerConfig,
    ) -> Result<(ConnectionHandle, quinn_proto::Connection), quinn_proto::ConnectionError> {
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        let accepted = self.endpoint.accept(incoming, now, &mut out, Some(config.into()));
        let accepted = accepted.map_err(|AcceptError { cause, response }| {
            response.iter().for_each(|transmit| self.respond(transmit, &out));
            cause
        });
        self.out = out;
        accepted
    }

    /// Makes the inbox of a connection.
    pub fn open_inbox(&mut self, connection: ConnectionHandle, side: Id) {
        let bytes_max = INBOX_BYTES_UNAUTHENTICATED_MAX;
        let inbox = Inbox { side, events: VecDeque::new(), bytes: 0, bytes_max, is_woken: false };
        if self.inboxes.len() <= connection.0 {
            self.inboxes.resize_with(connection.0 + 1, || None);
        }
        if self.inboxes[connection.0].replace(inbox).is_none_or(|before| !before.is_unauthenticated()) {
            self.inboxes_unauthenticated += 1;
        }
    }

    fn inbox_mut(&mut self, connection: ConnectionHandle) -> Option<&mut Inbox> {
        self.inboxes.get_mut(connection.0)?.as_mut()
    }

    /// Gives the inbox of a connection its full size, once the peer is authenticated.
    pub fn widen_inbox(&mut self, connection: ConnectionHandle) {
        let Some(inbox) = self.inbox_mut(connection) else { return };
        let was_unauthenticated = inbox.is_unauthenticated();
        inbox.bytes_max = INBOX_BYTES_MAX;
        self.inboxes_unauthenticated -= usize::from(was_unauthenticated);
    }

    /// Returns the bytes that wait in the inbox of a connection.
    pub fn inbox_bytes(&self, connection: ConnectionHandle) -> usize {
        self.inboxes.get(connection.0).and_then(Option::as_ref).map_or(0, |inbox| inbox.bytes)
    }

    /// Takes the datagrams of a connection. Returns the number of their bytes.
    pub fn take_inbox(&mut self, connection: ConnectionHandle, take: impl FnMut(ConnectionEvent)) -> usize {
        let Some(inbox) = self.inbox_mut(connection) else { return 0 };
        inbox.is_woken = false;
        inbox.events.drain(..).for_each(take);
        // An idle connection keeps little memory.
        inbox.events.shrink_to(EVENTS_KEPT);
        std::mem::take(&mut inbox.bytes)
    }

    /// Forgets a connection that is over.
    pub fn forget(&mut self, connection: ConnectionHandle) {
        if let Some(inbox) = self.inboxes.get_mut(connection.0).and_then(Option::take) {
            self.inboxes_unauthenticated -= usize::from(inbox.is_unauthenticated());
            self.endpoint.handle_event(connection, EndpointEvent::drained());
        }
    }

    /// Takes the number of datagrams that were dropped because too many came in one turn that may begin connections.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// Returns the sides of carriers that have something to do.
    pub fn woken(&mut self) -> Vec<Id> {
        let mut woken = std::mem::take(&mut self.woken);
        woken.append(&mut self.blocked);
        woken
    }

    /// Sends what a connection has to send until it has no more, or the system takes no more. Returns the bytes that have left,
    /// and what was not taken.
    pub fn transmit(
        &mut self,
        now: Instant,
        connection: &mut quinn_proto::Connection,
        unsent: &mut Unsent,
    ) -> (u64, Option<Kept>) {
        let segments = self.segments_max(connection.current_mtu().into());
        let mut sent = 0;
        loop {
            let mut out = std::mem::take(&mut self.out);
            out.clear();
            let Some(transmit) = unsent.poll(connection, now, segments, &mut out) else {
                self.out = out;
                return (sent, None);
            };
            if self.is_taken(&transmit, &out) {
                sent += transmit.size as u64;
                self.out = out;
            } else {
                return (sent, Some(Kept { transmit, contents: out }));
            }
        }
    }

    /// Sends what was kept. Returns the bytes that have left, or what was kept.
    pub fn transmit_kept(&mut self, kept: Kept) -> Result<u64, Kept> {
        if self.is_taken(&kept.transmit, &kept.contents) { Ok(kept.transmit.size as u64) } else { Err(kept) }
    }

    /// Wakes a side when the system takes datagrams again.
    pub fn wake_when_writable(&mut self, side: Id) {
        if !self.blocked.contains(&side) {
            self.blocked.push(side);
        }
    }

    /// Sends an answer that belongs to no connection. It is lost if the system does not take it.
    fn respond(&mut self, transmit: &Transmit, contents: &[u8]) {
        self.is_taken(transmit, contents);
    }

    /// Sends datagrams. Returns false if the system takes none now. An error that one datagram has met is a loss of that one.
    fn is_taken(&mut self, transmit: &Transmit, contents: &[u8]) -> bool {
        #[cfg(test)]
        if let Some(trial) = &mut self.trial
            && trial.refuses(contents.get(..transmit.size).unwrap_or(contents))
        {
            return false;
        }
        let datagrams = quinn_udp::Transmit {
            destination: transmit.destination,
            ecn: transmit.ecn.and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8)),
            contents: contents.get(..transmit.size).unwrap_or(contents),
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        };
        match self.state.try_send(UdpSockRef::from(&self.socket), &datagrams) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) if transmit.segment_size.is_some() && sys::is_segments_refused(&error) => {
                self.send_each(&datagrams);
                true
            }
            _ => true,
        }
    }

    /// Sends datagrams one by one, because the device cannot part them. The state has noted that.
    fn send_each(&self, datagrams: &quinn_udp::Transmit<'_>) {
        let size = datagrams.segment_size.unwrap_or(datagrams.contents.len()).max(1);
        for contents in datagrams.contents.chunks(size) {
            let one = quinn_udp::Transmit { contents, segment_size: None, ..*datagrams };
            // A datagram that does not leave here is lost, and QUIC sends it again.
            let _ = self.state.try_send(UdpSockRef::from(&self.socket), &one);
        }
    }
}

#[cfg(test)]
impl Trial {
    fn refuses(&mut self, contents: &[u8]) -> bool {
        let is_taken = self.refusals == 0;
        self.refusals = self.refusals.saturating_sub(1);
        self.calls.push((contents.to_vec(), is_taken));
        !is_taken
    }
}

impl Inbox {
    fn is_unauthenticated(&self) -> bool {
        self.bytes_max == INBOX_BYTES_UNAUTHENTICATED_MAX
    }
}

/// Returns true if a datagram may begin a connection, or is answered without one: its first packet is an Initial packet, or one
/// of another version (RFC 9000, section 17.2). Such a datagram costs a derivation of keys before anything is known of its sender.
fn may_be_first(datagram: &[u8]) -> bool {
    match datagram {
        [first, version @ ..] if first & 0x80 != 0 => {
            first & 0x30 == 0 || !version.starts_with(&QUIC_VERSION.to_be_bytes())
        }
        _ => false,
    }
}

/// Returns true if an error is that of one datagram, and the socket goes on.
fn is_of_datagram(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable};
    matches!(error.kind(), ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable)
        || is_msg_size_err(error)
}

/// Bytes of the buffers of a socket, each way, as far as the system grants them.
const SOCKET_BYTES: usize = 4 << 20;
/// Datagrams that one call sends: more bring little (a call costs a tenth of what it did without).
const SEGMENTS_MAX: usize = 44;
/// Bytes that wait for one carrier of an authenticated peer. One turn receives no more.
const INBOX_BYTES_MAX: usize = 4 << 20;
/// Most room that the datagrams of one call of the system need in an inbox: entries of 64 KiB, each of 64 datagrams.
const RECEIVED_BYTES_MAX: usize = quinn_udp::BATCH_SIZE * ((64 << 10) + 64 * EVENT_BYTES);
const _: () = assert!(RECEIVED_BYTES_MAX < INBOX_BYTES_MAX);
/// Bytes that wait for one carrier of an unauthenticated peer.
const INBOX_BYTES_UNAUTHENTICATED_MAX: usize = 16 << 10;
/// Bytes of the record of a datagram that waits.
const EVENT_BYTES: usize = 256;
/// Records for which an inbox keeps its memory: a turn of a fast path needs some hundreds.
const EVENTS_KEPT: usize = 512;
/// Datagrams of one turn that may begin connections, or be answered without one. More are dropped unseen, so that a flood of them
/// leaves time for the others: a turn computes far fewer handshakes.
const FIRSTS_PER_TURN: usize = 64;
/// Connections that wait for a carrier: those of one batch at most, because the node takes them at once.
const ARRIVALS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::transport::{Setup, client_tls, server_tls};
    use crate::types::id::Kind;

    use super::super::config;
    use super::*;

    /// Returns the port of a server.
    fn server() -> Port {
        let socket = UdpSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let crypto = server_tls(&Setup::of_tests()).unwrap().quic_server().unwrap();
        let server = Arc::new(config::server(crypto));
        let make = |mtud| Endpoint::new(Arc::new(config::endpoint(&[7; 32])), Some(server), mtud, None);
        Port::new(socket, make, &Rc::new(Buffers::new(0))).unwrap()
    }

    /// Returns the first datagrams of a client of a server.
    fn hello(to: SocketAddr) -> Vec<Vec<u8>> {
        let crypto = client_tls(&Setup::of_tests()).unwrap().quic_client().unwrap();
        let mut endpoint = Endpoint::new(Arc::new(config::endpoint(&[8; 32])), None, true, None);
        let client = quinn_proto::ClientConfig::new(crypto);
        let (_, mut connection) = endpoint.connect(Instant::now(), client, to, "seaprox.invalid").unwrap();
        let (mut all, mut out) = (Vec::new(), Vec::new());
        while let Some(transmit) = connection.poll_transmit(Instant::now(), 1, &mut out) {
            all.push(out[..transmit.size].to_vec());
            out.clear();
        }
        all
    }

    /// Sends a datagram again and again, and lets the port receive in one turn what has arrived, until something is true: the system
    /// may drop datagrams on loopback.
    #[track_caller]
    fn flood(port: &mut Port, datagram: &[u8], count: usize, mut is_true: impl FnMut(&mut Port) -> bool) {
        let (stranger, since) = (std::net::UdpSocket::bind("127.0.0.1:0").unwrap(), Instant::now());
        loop {
            (0..count).for_each(|_| _ = stranger.send_to(datagram, port.local().unwrap()).unwrap());
            port.receive(Instant::now(), 64).unwrap();
            if is_true(port) {
                return;
            }
            assert!(since.elapsed().as_secs() < 20, "the datagrams have no effect");
        }
    }

    #[test]
    fn a_call_sends_32_to_48_datagrams_and_fewer_where_they_are_long() {
        let port = server();
        // A system without this offload sends one datagram a call.
        if port.state.max_gso_segments() > 1 {
            let usual = port.segments_max(1_452);
            assert!((32..=48).contains(&usual), "{usual} datagrams of 1,452 bytes");
        }
        for mtu in [1_200, 1_452, 4_000, 9_000, 65_507] {
            let segments = port.segments_max(mtu);
            // The length of a packet of IP has 16 bits.
            assert!(segments >= 1 && segments * mtu <= 65_507, "{segments} datagrams of {mtu} bytes");
        }
        assert!(port.state.max_gso_segments() < 7 || port.segments_max(9_000) == 7);
    }

    #[test]
    fn few_connections_wait_for_a_carrier() {
        let mut port = server();
        let stranger = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let (since, mut begun) = (Instant::now(), 0);
        // Each turn takes fewer first packets than may wait.
        while begun < 3 * ARRIVALS_MAX {
            for _ in 0..16 {
                stranger.send_to(&hello(port.local().unwrap())[0], port.local().unwrap()).unwrap();
            }
            port.receive(Instant::now(), 64).unwrap();
            begun += 16;
            assert!(port.arrivals.len() <= ARRIVALS_MAX, "{} connections wait", port.arrivals.len());
        }
        while port.arrivals.len() < ARRIVALS_MAX {
            assert!(since.elapsed().as_secs() < 20, "{} connections wait", port.arrivals.len());
            stranger.send_to(&hello(port.local().unwrap())[0], port.local().unwrap()).unwrap();
            port.receive(Instant::now(), 64).unwrap();
        }
        // A place that is free is taken again.
        let incoming = port.take_arrival().unwrap();
        port.refuse(incoming);
        let next = hello(port.local().unwrap()).swap_remove(0);
        flood(&mut port, &next, 1, |port| port.arrivals.len() == ARRIVALS_MAX);
    }

    #[test]
    fn the_inbox_of_an_unauthenticated_peer_is_small_and_a_turn_takes_few_first_packets() {
        let mut port = server();
        let hello = hello(port.local().unwrap()).swap_remove(0);
        flood(&mut port, &hello, 1, |port| port.arrival().is_some());
        let incoming = port.take_arrival().unwrap();
        let server = config::server(server_tls(&Setup::of_tests()).unwrap().quic_server().unwrap());
        let (handle, _connection) = port.accept(incoming, Instant::now(), server).unwrap();
        port.open_inbox(handle, Id::parse(Kind::Side, "1.1").unwrap());
        for _ in 0..4 {
            flood(&mut port, &hello, 40, |port| port.inbox_bytes(handle) > 0);
            let few = port.inbox_bytes(handle);
            assert!(few <= INBOX_BYTES_UNAUTHENTICATED_MAX, "{few} bytes wait");
        }
        assert_eq!(port.inboxes_unauthenticated, 1);
        port.widen_inbox(handle);
        assert_eq!(port.inboxes_unauthenticated, 0);
        flood(&mut port, &hello, 40, |port| port.inbox_bytes(handle) > INBOX_BYTES_UNAUTHENTICATED_MAX);
        assert_eq!(port.take_dropped(), 0);
        port.take_inbox(handle, drop);
        flood(&mut port, &hello, FIRSTS_PER_TURN + 20, |port| {
            let bytes = port.take_inbox(handle, drop);
            assert!(bytes <= FIRSTS_PER_TURN * hello.len(), "{bytes} bytes in a turn");
            port.take_dropped() > 0
        });
        port.forget(handle);
        assert!(port.inboxes.iter().all(Option::is_none));
    }
}
