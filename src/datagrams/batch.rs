//! The receive buffers of a loop. All of its sockets share them, because a batch is passed on before the next is received.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use bytes::Bytes;
use mio::net::UdpSocket;
use quinn_udp::{BATCH_SIZE, EcnCodepoint, RecvMeta, UdpSockRef, UdpSocketState};
use socket2::Domain;

use crate::sys;

/// A received batch, and its buffers. An entry is one datagram, or several of one sender that the system has joined.
pub(crate) struct Batch {
    /// Receiving uses no state of a socket, so one serves all.
    state: UdpSocketState,
    buffers: Box<[u8]>,
    metas: [RecvMeta; BATCH_SIZE],
    /// The addresses that redirected datagrams were sent to.
    originals: [Option<SocketAddr>; BATCH_SIZE],
    control: Box<[u8]>,
    /// Room in which entries are joined for one call.
    joined: Box<[u8]>,
    /// A datagram that did not fit behind others.
    held: Option<Bytes>,
}

/// One entry of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received<'a> {
    pub source: SocketAddr,
    /// The local address that the datagrams were sent to, if the system tells it.
    pub dest: Option<IpAddr>,
    /// The address that redirected datagrams were sent to.
    pub original: Option<SocketAddr>,
    pub ecn: Option<EcnCodepoint>,
    /// The datagrams behind one another, each of `segment` bytes; the last may be shorter.
    pub contents: &'a [u8],
    pub segment: usize,
}

impl Batch {
    /// Creates the buffers. The system gives memory to those that are used.
    ///
    /// # Errors
    /// The system's error if no socket can be opened.
    pub fn new() -> io::Result<Batch> {
        let probe = sys::datagram_socket(Domain::IPV4)?;
        Ok(Batch {
            state: UdpSocketState::new(UdpSockRef::from(&probe))?,
            buffers: vec![0; BATCH_SIZE * BUFFER_BYTES].into(),
            metas: [RecvMeta::default(); BATCH_SIZE],
            originals: [None; BATCH_SIZE],
            control: vec![0; sys::CONTROL_BYTES].into(),
            joined: vec![0; BUFFER_BYTES].into(),
            held: None,
        })
    }

    /// Receives up to `count_max` entries. Returns their number; a smaller number means that no more is there now.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if there are none, or the error of the socket.
    pub fn receive(&mut self, socket: UdpSockRef<'_>, count_max: usize) -> io::Result<usize> {
        let count_max = count_max.clamp(1, BATCH_SIZE);
        let mut rest = &mut *self.buffers;
        let mut slices = [const { None }; BATCH_SIZE].map(|_: Option<()>| {
            let (buffer, others) = std::mem::take(&mut rest).split_at_mut(BUFFER_BYTES);
            rest = others;
            IoSliceMut::new(buffer)
        });
        self.originals.fill(None);
        self.state.recv(socket, &mut slices[..count_max], &mut self.metas[..count_max])
    }

    /// Receives entries as [`Batch::receive`] does, with the addresses that they were sent to before the system redirected them:
    /// one call of the system for each. Returns their number, and true if more may be there now.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if there are none, or the error of the socket.
    pub fn receive_redirected(&mut self, socket: &UdpSocket, count_max: usize) -> io::Result<(usize, bool)> {
        let count_max = count_max.clamp(1, BATCH_SIZE);
        for (index, buffer) in self.buffers.chunks_mut(BUFFER_BYTES).take(count_max).enumerate() {
            let received = match sys::receive_redirected(socket, buffer, &mut self.control) {
                // An error other than a lack of datagrams is that of one datagram. Others may be behind it.
                Err(error) if index > 0 => return Ok((index, error.kind() != io::ErrorKind::WouldBlock)),
                received => received?,
            };
            let meta = &mut self.metas[index];
            (meta.addr, meta.len, meta.stride) = (received.source, received.len, received.segment);
            (meta.ecn, meta.dst_ip) = (received.ecn, received.original.map(|addr| addr.ip()));
            self.originals[index] = received.original;
        }
        Ok((count_max, true))
    }

    /// Returns an entry of the last batch.
    pub fn entry(&self, index: usize) -> Received<'_> {
        let meta = &self.metas[index];
        let start = index * BUFFER_BYTES;
        Received {
            source: meta.addr,
            dest: meta.dst_ip,
            original: self.originals[index],
            ecn: meta.ecn,
            contents: &self.buffers[start..start + meta.len.min(BUFFER_BYTES)],
            segment: meta.stride.max(1),
        }
    }

    /// Returns the entries from `first` on that can be sent in one call with the first one: datagrams of one size, of which
    /// the last may be shorter, with one congestion notification. `is_same` tells which entries have the same way.
    pub fn run(&self, first: usize, count: usize, mut is_same: impl FnMut(usize) -> bool) -> Range<usize> {
        let begin = self.entry(first);
        let size = begin.segment;
        let (mut bytes, mut end) = (begin.contents.len(), first + 1);
        // An empty datagram, or one that ends before its segment, is the last of a run.
        let mut is_open = bytes > 0 && bytes.is_multiple_of(size);
        while is_open && end < count && is_same(end) {
            let next = self.entry(end);
            let len = next.contents.len();
            let fits = len > 0 && bytes + len <= RUN_BYTES_MAX && (next.segment == size || len < size);
            if !fits || next.ecn != begin.ecn {
                break;
            }
            is_open = len.is_multiple_of(size);
            bytes += len;
            end += 1;
        }
        first..end
    }

    /// Takes datagrams from `next` that can be sent in one call. Returns them behind one another, and the size of the first, or
    /// none if there are none. A datagram of another size waits for the next call.
    pub fn join(&mut self, mut next: impl FnMut() -> Option<Bytes>) -> Option<(&[u8], usize)> {
        let first = self.held.take().or_else(&mut next)?;
        let (size, mut at) = (first.len(), first.len());
        self.joined[..at].copy_from_slice(&first);
        let mut is_open = size > 0;
        while is_open && let Some(datagram) = next() {
            let len = datagram.len();
            if len == 0 || len > size || at + len > RUN_BYTES_MAX {
                self.held = Some(datagram);
                break;
            }
            self.joined[at..at + len].copy_from_slice(&datagram);
            at += len;
            is_open = len == size;
        }
        Some((&self.joined[..at], size.max(1)))
    }

    /// Returns true if a datagram waits for the next call of [`Batch::join`].
    pub fn has_held(&self) -> bool {
        self.held.is_some()
    }

    /// Drops the datagram that waits, whose flow may be over.
    pub fn drop_held(&mut self) {
        self.held = None;
    }

    /// Returns the datagrams of a run behind one another. Those of several entries are copied.
    pub fn contents(&mut self, run: Range<usize>) -> &[u8] {
        if run.len() == 1 {
            return self.entry(run.start).contents;
        }
        let mut at = 0;
        for index in run {
            let (start, len) = (index * BUFFER_BYTES, self.metas[index].len);
            self.joined[at..at + len].copy_from_slice(&self.buffers[start..start + len]);
            at += len;
        }
        &self.joined[..at]
    }
}

impl Received<'_> {
    /// Returns the number of datagrams.
    pub fn count(&self) -> u64 {
        self.contents.len().div_ceil(self.segment).max(1) as u64
    }
}

/// Bytes of a buffer: the system may join datagrams up to the largest packet.
const BUFFER_BYTES: usize = 64 << 10;
/// Bytes that one call sends: the largest packet without its headers.
pub(crate) const RUN_BYTES_MAX: usize = 65_000;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::time::{Duration, Instant};

    /// Receives until `count` datagrams are there.
    fn received(sent: &[&[u8]]) -> (Batch, usize) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sent.iter().for_each(|bytes| _ = sender.send_to(bytes, socket.local_addr().unwrap()).unwrap());
        socket.set_nonblocking(true).unwrap();
        let mut batch = Batch::new().unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            assert!(Instant::now() < deadline);
            match batch.receive(UdpSockRef::from(&socket), BATCH_SIZE) {
                Ok(count) => return (batch, count),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
        }
    }

    #[test]
    fn equal_datagrams_and_a_shorter_last_one_are_joined() {
        let (mut batch, count) = received(&[b"aaaa", b"bbbb", b"cc", b"dddd", b"", b"eeeeee"]);
        if count < 6 {
            return; // A system that receives them one by one joins none.
        }
        let mut at = 0;
        let mut runs = Vec::new();
        while at < count {
            let run = batch.run(at, count, |_| true);
            at = run.end;
            runs.push(String::from_utf8(batch.contents(run).to_vec()).unwrap());
        }
        assert_eq!(runs, ["aaaabbbbcc", "dddd", "", "eeeeee"]);
        assert_eq!(batch.run(0, count, |index| index != 1), 0..1, "another client is between them");
        assert_eq!(batch.entry(4).count(), 1, "an empty datagram is one");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_datagram_with_an_error_does_not_hide_those_behind_it() {
        let socket = UdpSocket::bind("[::]:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        sys::receive_original_dest(&socket, true).unwrap();
        let port = socket.local_addr().unwrap().port();
        let (ipv4, ipv6) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("[::1]:0").unwrap());
        let socket = super::UdpSocket::from_std(socket);
        ipv4.send_to(b"before", ("127.0.0.1", port)).unwrap();
        ipv6.send_to(b"unreadable", ("::1", port)).unwrap();
        ipv4.send_to(b"behind", ("127.0.0.1", port)).unwrap();
        // There is room for an address of IPv4, but none for one of IPv6.
        let mut batch = Batch { control: vec![0; 40].into(), ..Batch::new().unwrap() };
        assert_eq!(batch.receive_redirected(&socket, BATCH_SIZE).unwrap(), (1, true));
        assert_eq!(batch.entry(0).contents, b"before");
        assert_eq!(batch.receive_redirected(&socket, BATCH_SIZE).unwrap(), (1, false));
        assert_eq!(batch.entry(0).contents, b"behind");
        let error = batch.receive_redirected(&socket, BATCH_SIZE).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
