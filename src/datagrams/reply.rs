//! The sockets from which redirected clients are answered: each has the address that a client has sent to, which is of another
//! host (`IP_TRANSPARENT`).
//!
//! An address has a socket from its first answer to the end of its last flow. Beyond a number of sockets those that were not
//! used for the longest time are closed, as they are when the process has no descriptors left, and opened again when they are needed.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;

use socket2::{Domain, SockRef};

use super::socket::DatagramSocket;
use crate::sys;

/// The sockets of one listener, by their addresses.
#[derive(Debug)]
pub(crate) struct ReplySockets {
    addresses: HashMap<SocketAddr, Reply>,
    /// The number of open sockets, and its limit.
    open: usize,
    open_max: usize,
    /// Number of the last use of any socket.
    uses: u64,
}

#[derive(Debug, Default)]
struct Reply {
    socket: Option<DatagramSocket>,
    /// The flows whose clients have sent to the address.
    flows: usize,
    /// Number of the last use.
    used: u64,
}

impl ReplySockets {
    /// Creates an empty set for a loop that may have this many flows.
    pub fn new(flows: usize) -> ReplySockets {
        let open_max = (flows / FLOWS_OF_SOCKET).clamp(1, SOCKETS_MAX);
        ReplySockets { addresses: HashMap::new(), open: 0, open_max, uses: 0 }
    }

    /// Returns the number of open sockets.
    pub fn open(&self) -> usize {
        self.open
    }

    /// Notes a flow whose client has sent to an address.
    pub fn enter(&mut self, addr: SocketAddr) {
        self.addresses.entry(addr).or_default().flows += 1;
    }

    /// Notes the end of a flow. The socket of the address is closed with its last flow.
    pub fn leave(&mut self, addr: SocketAddr) {
        let Some(reply) = self.addresses.get_mut(&addr) else { return };
        reply.flows = reply.flows.saturating_sub(1);
        if reply.flows == 0 {
            let reply = self.addresses.remove(&addr);
            self.open -= usize::from(reply.is_some_and(|reply| reply.socket.is_some()));
        }
    }

    /// Returns the socket with an address that a flow has entered. Opens it if need be, with a mark unless that is 0.
    ///
    /// # Errors
    /// The error of the system.
    pub fn socket(&mut self, addr: SocketAddr, mark: u32) -> io::Result<&mut DatagramSocket> {
        self.uses += 1;
        let is_open = self.addresses.get(&addr).is_some_and(|reply| reply.socket.is_some());
        if !is_open {
            if self.open >= self.open_max {
                self.close_oldest();
            }
            let mut opened = open(addr, mark);
            if self.open > 0 && opened.as_ref().is_err_and(sys::is_out_of_own_descriptors) {
                self.close_oldest();
                opened = open(addr, mark);
            }
            let socket = opened?;
            self.addresses.entry(addr).or_default().socket = Some(socket);
            self.open += 1;
        }
        let reply = self.addresses.get_mut(&addr).ok_or(io::ErrorKind::NotFound)?;
        reply.used = self.uses;
        reply.socket.as_mut().ok_or(io::ErrorKind::NotFound.into())
    }

    /// Closes an eighth of the sockets, those that were not used for the longest time: this looks at all addresses.
    fn close_oldest(&mut self) {
        let open = self.addresses.values().filter(|reply| reply.socket.is_some());
        let mut uses: Vec<u64> = open.map(|reply| reply.used).collect();
        let count = (self.open_max / 8).max(1).min(uses.len());
        if count == 0 {
            return;
        }
        let (_, last, _) = uses.select_nth_unstable(count - 1);
        for reply in self.addresses.values_mut().filter(|reply| reply.socket.is_some() && reply.used <= *last) {
            reply.socket = None;
            self.open -= 1;
        }
    }
}

/// Opens a socket with the address of another host.
fn open(addr: SocketAddr, mark: u32) -> io::Result<DatagramSocket> {
    let socket = sys::datagram_socket(Domain::for_address(addr))?;
    // Other loops have a socket with this address, too.
    sys::reuse_address(&socket)?;
    sys::set_transparent(SockRef::from(&socket), addr.is_ipv6())?;
    if mark != 0 {
        sys::set_mark(SockRef::from(&socket), mark)?;
    }
    // It receives nothing that anyone reads: clients reach the listener.
    socket.set_recv_buffer_size(0)?;
    socket.bind(&addr.into())?;
    DatagramSocket::unconnected(socket)
}

/// Open sockets of one listener in one loop.
const SOCKETS_MAX: usize = 1_024;
/// Flows of the loop for each open socket. Each flow has a descriptor, and the sockets add a quarter to these at most.
const FLOWS_OF_SOCKET: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    /// Addresses of loopback need no rights.
    fn addr(number: u32) -> SocketAddr {
        let [.., high, low] = number.to_be_bytes();
        SocketAddr::from(([127, 77, high, low], 7))
    }

    fn opened(replies: &mut ReplySockets, addr: SocketAddr) -> bool {
        let is_permitted = replies.socket(addr, 0).is_ok();
        assert_eq!(replies.open, replies.addresses.values().filter(|reply| reply.socket.is_some()).count());
        is_permitted
    }

    #[test]
    fn a_socket_lives_as_long_as_the_flows_of_its_address() {
        let mut replies = ReplySockets::new(16_384);
        (0..2).for_each(|_| replies.enter(addr(1)));
        if !opened(&mut replies, addr(1)) {
            return println!("skipped: this user may not open transparent sockets");
        }
        replies.leave(addr(1));
        assert_eq!((replies.open, replies.addresses.len()), (1, 1));
        replies.leave(addr(1));
        assert_eq!((replies.open, replies.addresses.len()), (0, 0));
    }

    #[test]
    fn one_scan_closes_an_eighth_of_the_sockets_and_those_are_the_oldest() {
        let mut replies = ReplySockets { open_max: 16, ..ReplySockets::new(16_384) };
        (0..17).for_each(|number| replies.enter(addr(number)));
        for number in (0..16).chain([0]) {
            if !opened(&mut replies, addr(number)) {
                return println!("skipped: this user may not open transparent sockets");
            }
        }
        assert!(opened(&mut replies, addr(16)));
        let open: Vec<u32> = (0..17).filter(|number| replies.addresses[&addr(*number)].socket.is_some()).collect();
        assert_eq!(open, [0].into_iter().chain(3..17).collect::<Vec<_>>());
    }

    #[test]
    fn beyond_the_limit_the_socket_that_was_not_used_for_the_longest_time_is_closed() {
        let mut replies = ReplySockets { open_max: 3, ..ReplySockets::new(16_384) };
        (0..5).for_each(|number| replies.enter(addr(number)));
        for number in 0..3 {
            if !opened(&mut replies, addr(number)) {
                return println!("skipped: this user may not open transparent sockets");
            }
        }
        assert!(opened(&mut replies, addr(0)) && opened(&mut replies, addr(3)));
        let is_open = |number| replies.addresses[&addr(number)].socket.is_some();
        assert!(is_open(0) && !is_open(1) && is_open(2) && is_open(3) && replies.open == 3);
    }
}
