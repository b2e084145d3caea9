//! Changes of this host's addresses, routes and interfaces. Subflows from an address that is gone are closed, and those whose
//! interface is cut, and missing subflows are dialed at once.
//!
//! An interface is *cut* if it is down or has no carrier, as behind a pulled cable. Its addresses and routes may stay, so a
//! connection there is only silent. It is closed if the path leaves the choice of the interface to the system, and another one has a
//! route to the peer; a dial then avoids the one that is cut ([`Egress::avoids_cut`](crate::relay::dial::Egress)). With no other way
//! nothing is better than to wait: the cable may be back soon. QUIC moves, where its socket is bound to no address.

use std::collections::HashMap;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{SockRef, Socket};

use crate::engine::control::Loop;
use crate::engine::core::Core;
use crate::relay::io::Io;
use crate::sys::{self, NetworkChange};
use crate::types::id::Id;
use crate::types::reason::{Failure, Reason};

use super::carrier::Carrier;
use super::control::Node;

/// A source of changes of this host's addresses, routes and interfaces.
#[derive(Debug)]
pub struct NetworkChanges {
    socket: Socket,
    /// The interfaces by their numbers, each with true if it runs.
    interfaces: HashMap<u32, bool>,
    /// A change has come that was not reported.
    is_pending: bool,
}

impl NetworkChanges {
    /// Starts to listen for changes.
    ///
    /// # Errors
    /// The system reports no changes, or not to this process.
    pub fn open() -> io::Result<NetworkChanges> {
        let socket = sys::network_changes()?.into();
        Ok(NetworkChanges { interfaces: sys::running_interfaces(), ..NetworkChanges::new(socket) })
    }

    fn new(socket: Socket) -> NetworkChanges {
        NetworkChanges { socket, interfaces: HashMap::new(), is_pending: false }
    }

    /// Waits for a change and its related changes. This blocks, so it needs a thread of its own.
    ///
    /// # Errors
    /// No more changes will be reported.
    pub fn wait(&mut self) -> io::Result<()> {
        while !self.is_pending {
            self.read()?;
        }
        thread::sleep(SETTLES);
        // One change comes as many messages.
        self.socket.set_nonblocking(true)?;
        let drained = (0..MESSAGES_MAX).try_for_each(|_| self.read().map(drop));
        self.socket.set_nonblocking(false)?;
        self.is_pending = false;
        drained.or_else(|error| if error.kind() == io::ErrorKind::WouldBlock { Ok(()) } else { Err(error) })
    }

    /// Waits for this time, so that frequent changes are seldom reported, or until an interface is cut.
    ///
    /// # Errors
    /// No more changes will be reported.
    pub fn rest(&mut self, time: Duration) -> io::Result<()> {
        let until = Instant::now() + time;
        let result = loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break Ok(());
            }
            self.socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            match self.read() {
                Ok(NetworkChange::Cut) => break Ok(()),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => break Err(error),
                Ok(_) | Err(_) => {}
            }
        };
        self.socket.set_read_timeout(None)?;
        result
    }

    /// Takes a message. An overflow of the socket hides changes, so it counts as one.
    fn read(&mut self) -> io::Result<NetworkChange> {
        let mut message = [0; MESSAGE_BYTES];
        let change = match self.socket.read(&mut message) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => sys::network_change(&message[..count], &mut self.interfaces),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => NetworkChange::None,
            Err(error) if sys::is_out_of_descriptors(&error) => NetworkChange::Usual,
            Err(error) => return Err(error),
        };
        self.is_pending |= change != NetworkChange::None;
        Ok(change)
    }
}

impl Loop<'_> {
    /// Handles a change of this host's addresses, routes or interfaces: closes the subflows of dialed links whose address is gone,
    /// or whose interface is cut while there is another way, unless multipath TCP or SCTP has another address for them, and dials
    /// missing subflows at once.
    pub fn network_changed(&mut self) {
        let (core, node) = self.parts::<Node>();
        let dialled: Vec<Id> = node.links.iter().filter(|(_, link)| link.is_dialed()).map(|(id, _)| id).collect();
        let cut = if dialled.is_empty() { Vec::new() } else { sys::cut_addresses() };
        for id in dialled {
            let carriers = node.links.get(id).map(|link| link.carriers.clone()).unwrap_or_default();
            for carrier in carriers {
                if let Some(why) = node.lost_at_home(core, carrier, &cut) {
                    node.carrier_failed(core, carrier, &Failure::new(Reason::LinkLost, why));
                    continue;
                }
                let Some(record) = node.carriers.get_mut(carrier) else { continue };
                record.transport.iter_mut().for_each(|transport| transport.network_changed());
                core.enqueue(record.side);
            }
            let Some(dialer) = node.links.get_mut(id).and_then(|link| link.dialer.as_mut()) else { continue };
            // The pauses keep growing if these tries fail too.
            dialer.slots.iter_mut().for_each(|slot| slot.next_ms = 0);
            core.pools.sessions.touch(id);
        }
        log::debug!(target: "seaprox::link", cut = cut.len(); "the network has changed");
    }
}

impl Node {
    /// Returns why a carrier is lost by the state of this host, if it is. The `cut` addresses are those of interfaces that are cut.
    fn lost_at_home(&self, core: &Core, carrier: Id, cut: &[IpAddr]) -> Option<&'static str> {
        let record = self.carriers.get(carrier)?;
        let side = core.sides.get(record.side)?;
        let local = record.local(side).ip()?;
        let why = if is_gone(local) {
            "its address here is gone"
        } else if self.is_routed(record) {
            let (to, mark) = (side.endpoint.ip()?, core.config.mark);
            match &side.io {
                _ if cut.contains(&local.ip()) && sys::has_other_way(to, local.ip(), mark) => {
                    "its interface here is down"
                }
                Io::Tcp(socket) if sys::is_overruled(SockRef::from(socket), to, mark) => {
                    "the routes lead elsewhere now"
                }
                _ => return None,
            }
        } else {
            return None;
        };
        let is_held = record.transport.as_ref().is_some_and(|transport| transport.has_other_paths(side));
        (!is_held).then_some(why)
    }

    /// Returns true if the routes of the system alone decide by which interface the packets of a dialed carrier leave.
    fn is_routed(&self, carrier: &Carrier) -> bool {
        let dialer = carrier.link.and_then(|link| self.links.get(link)?.dialer.as_ref());
        dialer.and_then(|dialer| dialer.slots.get(carrier.place)).is_some_and(|slot| slot.path.is_routed())
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

    fn changes() -> (UnixDatagram, NetworkChanges) {
        let (system, own) = UnixDatagram::pair().unwrap();
        system.set_nonblocking(true).unwrap();
        (system, NetworkChanges::new(Socket::from(OwnedFd::from(own))))
    }

    #[test]
    fn a_burst_of_messages_is_one_change() {
        let (system, mut changes) = changes();
        let burst = (0..500).take_while(|_| system.send(b"route").is_ok()).count();
        assert!(burst > 5, "{burst}");
        changes.wait().unwrap();
        changes.socket.set_nonblocking(true).unwrap();
        assert_eq!(changes.wait().unwrap_err().kind(), io::ErrorKind::WouldBlock, "nothing is left to tell");
    }

    #[test]
    fn a_change_during_the_rest_is_reported_behind_it() {
        let (system, mut changes) = changes();
        system.send(b"route").unwrap();
        let since = Instant::now();
        changes.rest(Duration::from_millis(50)).unwrap();
        assert!(since.elapsed() >= Duration::from_millis(50));
        changes.wait().unwrap();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_cut_interface_ends_the_rest() {
        let (system, mut changes) = changes();
        // Of struct nlmsghdr the kind, and of struct ifinfomsg the number and the flags: up, and up and running.
        for flags in [0x41u32, 1] {
            let mut message = [0; 32];
            message[4] = 16;
            message[20] = 7;
            message[24..28].copy_from_slice(&flags.to_ne_bytes());
            system.send(&message).unwrap();
        }
        let since = Instant::now();
        changes.rest(Duration::from_secs(60)).unwrap();
        assert!(since.elapsed() < Duration::from_secs(30), "{:?}", since.elapsed());
        changes.wait().unwrap();
    }

    #[test]
    fn an_address_without_an_interface_is_gone() {
        assert!(!is_gone("127.0.0.1:80".parse().unwrap()));
        assert!(is_gone("192.0.2.1:80".parse().unwrap()));
    }
}
