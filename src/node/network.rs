//! Changes of this host's addresses and routes. Subflows from an address that is gone are closed, and missing subflows are
//! dialed at once.

use std::io::{self, Read};
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use socket2::Socket;

use crate::engine::control::Loop;
use crate::sys;
use crate::types::id::Id;
use crate::types::reason::{Failure, Reason};

use super::control::Node;

/// A source of changes of this host's addresses and routes.
#[derive(Debug)]
pub struct NetworkChanges(Socket);

impl NetworkChanges {
    /// Starts to listen for changes.
    ///
    /// # Errors
    /// The system reports no changes, or not to this process.
    pub fn open() -> io::Result<NetworkChanges> {
        sys::network_changes().map(|fd| NetworkChanges(Socket::from(fd)))
    }

    /// Waits for a change and its related changes. This blocks, so it needs a thread of its own.
    ///
    /// # Errors
    /// No more changes will be reported.
    pub fn wait(&mut self) -> io::Result<()> {
        while !self.read()? {}
        thread::sleep(SETTLES);
        // One change comes as many messages.
        self.0.set_nonblocking(true)?;
        let drained = (0..MESSAGES_MAX).try_for_each(|_| self.read().map(drop));
        self.0.set_nonblocking(false)?;
        drained.or_else(|error| if error.kind() == io::ErrorKind::WouldBlock { Ok(()) } else { Err(error) })
    }

    /// Takes a message. Returns true if it reports a change; an overflow of the socket hides changes, so it counts as one.
    fn read(&mut self) -> io::Result<bool> {
        let mut message = [0; MESSAGE_BYTES];
        match self.0.read(&mut message) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => Ok(sys::is_network_change(&message[..count])),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            Err(error) if sys::is_out_of_descriptors(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

impl Loop<'_> {
    /// Handles a change of this host's addresses or routes: closes the subflows of dialed links whose address is gone,
    /// unless multipath TCP or SCTP has another address for them, and dials missing subflows at once.
    pub fn network_changed(&mut self) {
        let (core, node) = self.parts::<Node>();
        let dialled: Vec<Id> = node.links.iter().filter(|(_, link)| link.is_dialed()).map(|(id, _)| id).collect();
        for id in dialled {
            let carriers = node.links.get(id).map(|link| link.carriers.clone()).unwrap_or_default();
            for carrier in carriers {
                let record = node.carriers.get(carrier);
                let Some((record, side)) = record.and_then(|record| Some((record, core.sides.get(record.side)?)))
                else {
                    continue;
                };
                let is_held = || record.transport.as_ref().is_some_and(|transport| transport.has_other_paths(side));
                if record.local(side).ip().is_some_and(is_gone) && !is_held() {
                    node.carrier_failed(core, carrier, &Failure::new(Reason::LinkLost, "its address here is gone"));
                    continue;
                }
                let side = record.side;
                let transport = node.carriers.get_mut(carrier).and_then(|record| record.transport.as_mut());
                transport.into_iter().for_each(|transport| transport.network_changed());
                core.enqueue(side);
            }
            let Some(dialer) = node.links.get_mut(id).and_then(|link| link.dialer.as_mut()) else { continue };
            // The pauses keep growing if these tries fail too.
            dialer.slots.iter_mut().for_each(|slot| slot.next_ms = 0);
            core.pools.sessions.touch(id);
        }
    }
}

/// Returns true if no interface has this address any more.
fn is_gone(mut addr: SocketAddr) -> bool {
    addr.set_port(0);
    UdpSocket::bind(addr).is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

/// Time after a change in which related changes are expected: an address and its routes follow the interface.
const SETTLES: Duration = Duration::from_millis(200);
/// Bytes that are read of a message.
const MESSAGE_BYTES: usize = 4096;
/// Messages that are taken as one change; a socket holds a few hundred.
const MESSAGES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn a_burst_of_messages_is_one_change() {
        let (system, own) = UnixDatagram::pair().unwrap();
        let mut changes = NetworkChanges(Socket::from(OwnedFd::from(own)));
        system.set_nonblocking(true).unwrap();
        let burst = (0..500).take_while(|_| system.send(b"route").is_ok()).count();
        assert!(burst > 5, "{burst}");
        changes.wait().unwrap();
        changes.0.set_nonblocking(true).unwrap();
        assert_eq!(changes.wait().unwrap_err().kind(), io::ErrorKind::WouldBlock, "nothing is left to tell");
    }

    #[test]
    fn an_address_without_an_interface_is_gone() {
        assert!(!is_gone("127.0.0.1:80".parse().unwrap()));
        assert!(is_gone("192.0.2.1:80".parse().unwrap()));
    }
}
