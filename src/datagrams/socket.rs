//! A UDP socket of a listener or of a flow.
//!
//! A datagram that the system does not take at once is dropped and counted: to keep it would delay those behind it. Several
//! datagrams of one size leave in one call where the system takes them so (`UDP_SEGMENT`); where that fails, they leave one
//! by one.
//!
//! Most flows are short, so a flow's socket is made with as few system calls as possible. It gets its sending state, which takes
//! eight, when there are several datagrams to send or to receive at once.

use std::io;
use std::net::{IpAddr, SocketAddr};

use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use quinn_udp::{EcnCodepoint, Transmit, UdpSockRef, UdpSocketState, is_msg_size_err};
use socket2::{Domain, SockRef, Socket};

use super::batch::Batch;
use crate::sys::{self, Fragmentation};
use crate::types::dropped::Dropped;

/// A UDP socket.
#[derive(Debug)]
pub(crate) struct DatagramSocket {
    socket: UdpSocket,
    local: SocketAddr,
    /// The peer of a connected socket.
    peer: Option<SocketAddr>,
    sending: Option<Box<UdpSocketState>>,
    /// Calls with several datagrams that the system has refused.
    refusals: u8,
    /// The system has reported datagrams, and no receive has found none since.
    pub is_readable: bool,
    /// The socket waits for its turn.
    pub is_queued: bool,
}

/// Datagrams to send: those of `contents` behind one another, each of `segment` bytes; the last may be shorter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing<'a> {
    /// The receiver; not used by a connected socket.
    pub to: SocketAddr,
    /// The local address that the receiver shall see, for a socket with several.
    pub from: Option<IpAddr>,
    pub ecn: Option<EcnCodepoint>,
    pub contents: &'a [u8],
    pub segment: usize,
}

/// The result of a send.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    pub datagrams: u64,
    pub bytes: u64,
    /// Datagrams that were dropped, and the last reason.
    pub dropped: u64,
    pub why: Option<Dropped>,
    /// The error of the system, unless it means a lack of room or a datagram that is too long. It may be that of an earlier
    /// datagram of a connected socket: then these have left all the same.
    pub error: Option<io::Error>,
}

impl DatagramSocket {
    /// Binds the socket of a listener. `shared` lets other sockets of this process have the address too.
    ///
    /// # Errors
    /// The error of the system.
    pub fn bind(addr: SocketAddr, only_ipv6: bool, shared: bool) -> io::Result<DatagramSocket> {
        let socket = sys::datagram_socket(Domain::for_address(addr))?;
        if shared {
            sys::share_port(&socket)?;
        }
        if addr.is_ipv6() {
            socket.set_only_v6(only_ipv6)?;
        }
        socket.bind(&addr.into())?;
        DatagramSocket::listening(socket)
    }

    /// Makes the socket of a listener of a bound one.
    ///
    /// # Errors
    /// The error of the system.
    pub fn listening(socket: Socket) -> io::Result<DatagramSocket> {
        let mut socket = DatagramSocket::new(socket)?;
        socket.sending = Some(socket.sending_state()?);
        Ok(socket)
    }

    /// Makes the socket of a flow of a connected one.
    ///
    /// # Errors
    /// The error of the system.
    pub fn connected(socket: Socket, peer: SocketAddr) -> io::Result<DatagramSocket> {
        let domain = Domain::for_address(peer);
        sys::receive_ecn(&socket, domain)?;
        sys::report_errors(&socket, domain)?;
        Ok(DatagramSocket { peer: Some(peer), ..DatagramSocket::new(socket)? })
    }

    /// Makes a bound socket of an association: it receives from any address, and sends to any.
    ///
    /// # Errors
    /// The error of the system.
    pub fn shared(socket: Socket) -> io::Result<DatagramSocket> {
        let socket = DatagramSocket::new(socket)?;
        sys::receive_ecn(&SockRef::from(&socket.socket), Domain::for_address(socket.local))?;
        Ok(socket)
    }

    /// Makes a socket that sends to any address, and that nothing is received from.
    ///
    /// # Errors
    /// The error of the system.
    pub fn unconnected(socket: Socket) -> io::Result<DatagramSocket> {
        DatagramSocket::new(socket)
    }

    fn new(socket: Socket) -> io::Result<DatagramSocket> {
        let socket = UdpSocket::from_std(socket.into());
        let local = socket.local_addr()?;
        Ok(DatagramSocket {
            socket,
            local,
            peer: None,
            sending: None,
            refusals: 0,
            is_readable: false,
            is_queued: false,
        })
    }

    /// Returns the socket of the system.
    pub fn into_socket(self) -> UdpSocket {
        self.socket
    }

    /// Returns the local address.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Returns the peer of a connected socket.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Prefers this socket, among those that share its port, for datagrams that arrive at a processor.
    pub fn prefer_cpu(&self, cpu: usize) -> io::Result<()> {
        sys::prefer_cpu(SockRef::from(&self.socket), cpu)
    }

    /// Registers the socket for received datagrams.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.socket, token, Interest::READABLE)
    }

    /// Ends the registration.
    pub fn deregister(&mut self, registry: &Registry) {
        // An error means that the system has ended it already.
        let _ = registry.deregister(&mut self.socket);
    }

    /// Receives up to `count_max` entries into a batch. Returns their number.
    ///
    /// # Errors
    /// The error of the socket, but not a lack of datagrams.
    pub fn receive(&mut self, batch: &mut Batch, count_max: usize) -> io::Result<usize> {
        let wanted = count_max.min(quinn_udp::BATCH_SIZE);
        match batch.receive(UdpSockRef::from(&self.socket), wanted) {
            Ok(count) => {
                // Where one call receives one datagram, only the error tells that there are no more.
                self.is_readable = count == wanted || quinn_udp::BATCH_SIZE == 1;
                if count > 1 && self.sending.is_none() {
                    // A busy socket: the system joins its datagrams from now on.
                    self.sending = self.sending_state().ok();
                }
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.is_readable = false;
                Ok(0)
            }
            // An earlier datagram was too long for a router. The system knows what fits now, and fragments the next one.
            Err(error) if is_msg_size_err(&error) => {
                self.drop_errors();
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes the socket of a listener receive datagrams that TPROXY sends there, with the addresses that they were sent to.
    ///
    /// # Errors
    /// This system has no such thing, or the process may not have it.
    pub fn redirect(&self) -> io::Result<()> {
        let is_ipv6 = self.local.is_ipv6();
        sys::set_transparent(SockRef::from(&self.socket), is_ipv6)?;
        sys::receive_original_dest(&self.socket, is_ipv6)
    }

    /// Receives as [`DatagramSocket::receive`] does, with the addresses that redirected datagrams were sent to.
    ///
    /// # Errors
    /// The error of the socket, but not a lack of datagrams.
    pub fn receive_redirected(&mut self, batch: &mut Batch, count_max: usize) -> io::Result<usize> {
        let wanted = count_max.min(quinn_udp::BATCH_SIZE);
        match batch.receive_redirected(&self.socket, wanted) {
            Ok((count, has_more)) => {
                self.is_readable = has_more;
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.is_readable = false;
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }

    /// Sends datagrams, or drops them.
    pub fn send(&mut self, out: Outgoing<'_>) -> Sent {
        let mut sent = Sent::default();
        if out.contents.len() <= out.segment {
            self.send_one(out, &mut sent);
            return sent;
        }
        let mut rest = out.contents;
        while !rest.is_empty() {
            let count = if out.segment <= SEGMENT_BYTES_MAX { self.segments_max() } else { 1 };
            let (now, later) = rest.split_at(rest.len().min(out.segment * count));
            let some = Outgoing { contents: now, ..out };
            if now.len() <= out.segment || !self.send_some(some, &mut sent) {
                for contents in now.chunks(out.segment) {
                    self.send_one(Outgoing { contents, ..out }, &mut sent);
                }
            }
            rest = later;
        }
        sent
    }

    /// Returns the number of datagrams that one call may send.
    fn segments_max(&mut self) -> usize {
        if !sys::SENDS_SEGMENTS || self.refusals >= REFUSALS_MAX {
            return 1;
        }
        if self.sending.is_none() {
            self.sending = self.sending_state().ok();
        }
        self.sending.as_ref().map_or(1, |state| state.max_gso_segments().max(1))
    }

    /// Sends several datagrams in one call. Returns false if they must be sent one by one.
    fn send_some(&mut self, out: Outgoing<'_>, sent: &mut Sent) -> bool {
        let Some(state) = &self.sending else { return false };
        let count = out.contents.len().div_ceil(out.segment) as u64;
        let try_send = || state.try_send(UdpSockRef::from(&self.socket), &self.transmit(out));
        let result = match try_send() {
            // Without a reported error, the length refuses these.
            Err(error) if self.may_be_earlier(&error) && (self.drop_errors() || !is_msg_size_err(&error)) => {
                sent.note_earlier(error);
                try_send()
            }
            result => result,
        };
        match result {
            Ok(()) => {
                sent.datagrams += count;
                sent.bytes += out.contents.len() as u64;
                true
            }
            Err(error) if is_lack_of_room(&error) => {
                sent.note(count, Dropped::NoRoom);
                true
            }
            Err(error) if sys::is_segments_refused(&error) => {
                // The path cannot take them, or the device cannot part them. The state remembers that, so another one tries
                // again: the next receiver may be behind another device.
                self.refusals += 1;
                self.sending = None;
                false
            }
            Err(error) => {
                sent.note(count, Dropped::Failed);
                sent.error = Some(error);
                true
            }
        }
    }

    fn send_one(&mut self, out: Outgoing<'_>, sent: &mut Sent) {
        let result = match self.try_send_one(out) {
            Err(error) if self.may_be_earlier(&error) => {
                self.drop_errors();
                sent.note_earlier(error);
                self.try_send_one(out)
            }
            result => result,
        };
        match result {
            Ok(()) => {
                sent.datagrams += 1;
                sent.bytes += out.contents.len() as u64;
            }
            Err(error) if is_lack_of_room(&error) => sent.note(1, Dropped::NoRoom),
            Err(error) if is_msg_size_err(&error) => {
                if self.peer.is_some() {
                    // The system reports a datagram that is too long, too.
                    self.drop_errors();
                }
                sent.note(1, Dropped::TooLong);
            }
            Err(error) => {
                sent.note(1, Dropped::Failed);
                sent.error = Some(error);
            }
        }
    }

    fn try_send_one(&mut self, out: Outgoing<'_>) -> io::Result<()> {
        let is_plain = out.ecn.is_none() && (self.peer.is_some() || out.from.is_none());
        if is_plain || (self.peer.is_some() && !sys::SENDS_SEGMENTS) {
            self.send_plain(out)
        } else {
            self.send_marked(out)
        }
    }

    /// Returns true if the error of a send may be that of an earlier datagram, which a router or the peer has refused.
    fn may_be_earlier(&self, error: &io::Error) -> bool {
        use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
        let is_reported = matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable);
        self.peer.is_some() && (is_reported || is_msg_size_err(error))
    }

    /// Drops the copies of reported errors that the system keeps. Returns true if there was one.
    pub fn drop_errors(&self) -> bool {
        sys::drop_errors(SockRef::from(&self.socket))
    }

    fn send_plain(&self, out: Outgoing<'_>) -> io::Result<()> {
        match self.peer {
            Some(_) => self.socket.send(out.contents).map(drop),
            None => self.socket.send_to(out.contents, out.to).map(drop),
        }
    }

    /// Sends a datagram with a congestion notification, or from one of several local addresses.
    fn send_marked(&mut self, out: Outgoing<'_>) -> io::Result<()> {
        if self.sending.is_none() {
            self.sending = Some(self.sending_state()?);
        }
        let Some(state) = &self.sending else { return self.send_plain(out) };
        let one = Transmit { segment_size: None, ..self.transmit(out) };
        state.try_send(UdpSockRef::from(&self.socket), &one)
    }

    fn transmit<'a>(&self, out: Outgoing<'a>) -> Transmit<'a> {
        Transmit {
            destination: self.peer.unwrap_or(out.to),
            ecn: out.ecn,
            contents: out.contents,
            segment_size: Some(out.segment),
            src_ip: out.from.filter(|_| self.peer.is_none()),
        }
    }

    /// Makes the state of a socket that sends or receives several datagrams at once. The system goes on to fragment what is
    /// longer than the path permits, as for any program.
    fn sending_state(&self) -> io::Result<Box<UdpSocketState>> {
        let fragmentation = Fragmentation::of(&self.socket);
        let state = UdpSocketState::new(UdpSockRef::from(&self.socket));
        fragmentation.restore(&self.socket);
        Ok(Box::new(state?))
    }
}

impl Sent {
    /// Notes dropped datagrams.
    pub fn note(&mut self, count: u64, why: Dropped) {
        self.dropped += count;
        self.why = Some(why);
    }

    /// Notes the error of an earlier datagram. One that was too long for a router says only what fits from now on.
    fn note_earlier(&mut self, error: io::Error) {
        if !is_msg_size_err(&error) {
            self.error = Some(error);
        }
    }
}

fn is_lack_of_room(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || sys::is_out_of_buffers(error)
}

/// The longest datagram of a call with several. A longer one may need fragments, which such calls have not.
pub(crate) const SEGMENT_BYTES_MAX: usize = 1_452;
/// Refused calls after which a socket sends its datagrams one by one.
const REFUSALS_MAX: u8 = 8;

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_os = "linux")]
    use socket2::{Protocol, Type};
    use std::net::UdpSocket as StdSocket;
    use std::time::{Duration, Instant};

    fn connected(to: SocketAddr) -> DatagramSocket {
        let socket = sys::datagram_socket(Domain::for_address(to)).unwrap();
        socket.connect(&to.into()).unwrap();
        DatagramSocket::connected(socket, to).unwrap()
    }

    fn out(to: SocketAddr, contents: &[u8], segment: usize) -> Outgoing<'_> {
        Outgoing { to, from: None, ecn: None, contents, segment }
    }

    /// A receiver of another kind than those that are tested.
    fn receiver(addr: &str) -> (StdSocket, SocketAddr) {
        let socket = StdSocket::bind(addr).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let addr = socket.local_addr().unwrap();
        (socket, addr)
    }

    fn next(socket: &StdSocket) -> Vec<u8> {
        let mut buf = [0; 65_536];
        let (len, _) = socket.recv_from(&mut buf).unwrap();
        buf[..len].to_vec()
    }

    #[test]
    fn datagrams_of_one_size_leave_together_and_arrive_apart() {
        for (addr, segment) in [("127.0.0.1:0", 700), ("[::1]:0", 64), ("127.0.0.1:0", 20_000)] {
            let (far, to) = receiver(addr);
            let mut socket = connected(to);
            let contents: Vec<u8> = (0..3 * segment - 1).map(|at| (at / segment) as u8).collect();
            let sent = socket.send(out(to, &contents, segment));
            assert_eq!((sent.datagrams, sent.bytes, sent.dropped), (3, contents.len() as u64, 0), "{sent:?}");
            for chunk in contents.chunks(segment) {
                assert!(next(&far) == chunk, "{addr} {segment}");
            }
        }
    }

    #[test]
    fn more_datagrams_than_one_call_takes_leave_in_several() {
        let (far, to) = receiver("127.0.0.1:0");
        let mut socket = connected(to);
        let contents: Vec<u8> = (0..100u16).flat_map(|number| number.to_be_bytes()).collect();
        assert_eq!(socket.send(out(to, &contents, 2)).datagrams, 100);
        (0..100u16).for_each(|number| assert_eq!(next(&far), number.to_be_bytes()));
    }

    #[test]
    fn an_empty_datagram_is_sent_and_one_that_is_too_long_is_dropped() {
        let (far, to) = receiver("127.0.0.1:0");
        let mut socket = connected(to);
        assert_eq!(socket.send(out(to, b"", 1)).datagrams, 1);
        assert_eq!(next(&far), b"");
        let sent = socket.send(out(to, &[0; 65_508], 65_508));
        assert_eq!((sent.dropped, sent.why, sent.error.is_none()), (1, Some(Dropped::TooLong), true));
        assert_eq!(socket.send(out(to, &[7; 65_507], 65_507)).datagrams, 1);
        assert_eq!(next(&far).len(), 65_507, "the largest datagram is fragmented as usual");
    }

    /// A socket without checksums sends no several datagrams in one call, as a device without checksums does not.
    #[cfg(target_os = "linux")]
    #[test]
    fn datagrams_that_the_system_does_not_part_leave_one_by_one() {
        let (far, to) = receiver("127.0.0.1:0");
        let mut socket = connected(to);
        sys::set_no_checksums(&socket.socket).unwrap();
        for round in 1..=2 * REFUSALS_MAX {
            let sent = socket.send(out(to, b"aabbccd", 2));
            assert_eq!((sent.datagrams, sent.bytes, sent.dropped), (4, 7, 0), "{sent:?}");
            for expected in [b"aa".as_slice(), b"bb", b"cc", b"d"] {
                assert_eq!(next(&far), expected, "each arrives once and in order");
            }
            assert_eq!(
                socket.refusals,
                round.min(REFUSALS_MAX),
                "the system refuses such calls, which end after a while"
            );
        }
    }

    #[test]
    fn a_port_without_a_receiver_is_an_error_of_the_next_call() {
        let (far, to) = receiver("127.0.0.1:0");
        drop(far);
        let mut socket = connected(to);
        assert_eq!(socket.send(out(to, b"x", 1)).datagrams, 1);
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut batch = Batch::new().unwrap();
        let error = loop {
            assert!(Instant::now() < deadline, "no error");
            match socket.receive(&mut batch, 8) {
                Ok(count) => assert_eq!(count, 0),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn the_reported_error_of_an_earlier_datagram_costs_no_later_one() {
        let (far, to) = receiver("127.0.0.1:0");
        drop(far);
        for (contents, count) in [(&b"aabbcc"[..], 3), (b"aa", 1)] {
            let mut socket = connected(to);
            let deadline = Instant::now() + Duration::from_secs(5);
            let sent = loop {
                assert!(Instant::now() < deadline, "no error");
                let sent = socket.send(out(to, contents, 2));
                if sent.error.is_some() {
                    break sent;
                }
            };
            let error = sent.error.map(|error| error.kind());
            assert_eq!((sent.datagrams, sent.dropped, error), (count, 0, Some(io::ErrorKind::ConnectionRefused)));
            assert_eq!(socket.refusals, 0, "the error is no refusal of several datagrams");
        }
    }

    /// Reported errors use room of the receive buffer.
    #[cfg(target_os = "linux")]
    #[test]
    fn datagrams_that_are_too_long_leave_no_reported_errors_behind() {
        let (_far, to) = receiver("127.0.0.1:0");
        let mut socket = connected(to);
        for _ in 0..5 {
            assert_eq!(socket.send(out(to, &[0; 65_508], 65_508)).why, Some(Dropped::TooLong));
            assert!(!sys::has_error(SockRef::from(&socket.socket)));
        }
    }

    /// Tells a socket that a datagram was too long for a router. Returns false if this process may not.
    #[cfg(target_os = "linux")]
    fn report_too_long(socket: &DatagramSocket) -> bool {
        let Ok(raw) = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)) else { return false };
        let (Some(SocketAddr::V4(to)), SocketAddr::V4(from)) = (socket.peer, socket.local) else { panic!("IPv4") };
        // Type 3, code 4, the length that fits, and the headers of the datagram.
        let mut message = vec![3, 4, 0, 0, 0, 0, 0x05, 0x78, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0];
        message.extend([from.ip().octets(), to.ip().octets()].concat());
        message.extend([from.port(), to.port(), 8, 0].map(u16::to_be_bytes).concat());
        let words = message.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
        // The sum is that of ones' complement (RFC 1071).
        let sum = words.sum::<u32>() % 0xffff;
        message[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        raw.send_to(&message, &SocketAddr::from(from).into()).unwrap();
        true
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_reported_length_is_no_refusal_of_several_datagrams() {
        // The system notes the length that fits for this address.
        let (far, to) = receiver("127.83.12.8:0");
        // An IPv6 socket reports lengths in any case, and an IPv4 socket if the system has chosen its options.
        let plain = Socket::new(Domain::IPV4, Type::DGRAM.nonblocking(), None).unwrap();
        plain.connect(&to.into()).unwrap();
        let mut socket = DatagramSocket::connected(plain, to).unwrap();
        let (mut poll, mut events) = (mio::Poll::new().unwrap(), mio::Events::with_capacity(8));
        socket.register(poll.registry(), Token(0)).unwrap();
        for _ in 0..2 * REFUSALS_MAX {
            if !report_too_long(&socket) {
                return;
            }
            poll.poll(&mut events, Some(Duration::from_secs(5))).unwrap();
            assert!(events.iter().any(mio::event::Event::is_error), "the system has taken the report");
            let sent = socket.send(out(to, b"aabbc", 2));
            assert_eq!((sent.datagrams, sent.dropped, socket.refusals), (3, 0, 0), "{sent:?}");
            [&b"aa"[..], b"bb", b"c"].iter().for_each(|expected| assert_eq!(next(&far), *expected));
        }
    }

    #[test]
    fn answers_leave_from_the_address_that_the_client_has_asked() {
        let mut socket = DatagramSocket::bind("0.0.0.0:0".parse().unwrap(), true, false).unwrap();
        let to = SocketAddr::from(([127, 0, 0, 7], socket.local().port()));
        let (client, from) = receiver("127.0.0.1:0");
        client.send_to(b"ask", to).unwrap();
        let mut batch = Batch::new().unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while socket.receive(&mut batch, 1).unwrap() == 0 {
            assert!(Instant::now() < deadline);
        }
        let entry = batch.entry(0);
        assert_eq!((entry.source, entry.dest, entry.contents), (from, Some(to.ip()), &b"ask"[..]));
        let answer = Outgoing { from: entry.dest, ..out(from, b"answer", 6) };
        assert_eq!(socket.send(answer).datagrams, 1);
        let mut buf = [0; 16];
        assert_eq!(client.recv_from(&mut buf).unwrap(), (6, to));
    }
}
