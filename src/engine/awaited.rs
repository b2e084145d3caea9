//! Dests that connect to this node: a connection waits at an address of its own until its dest comes, as BIND of SOCKS does.
//!
//! ```text
//!   await_dest --> a socket that listens, with a watch --the dest connects--> answered --> Handler::connected
//!                        |                                                       ^
//!                        +--- the connect timer, or the end of the connection ---+--> the socket is closed
//! ```
//! Such a dest is like one that is being dialed, so its timer, its end and its line in the log are the same. The socket accepts
//! one connection, and is closed with it.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::rc::Rc;

use socket2::{Domain, Socket};

use crate::engine::connection_view::ConnectionMut;
use crate::engine::control::Loop;
use crate::engine::core::Core;
use crate::engine::watch::Interest;
use crate::relay::dial::Permit;
use crate::relay::side::Role;
use crate::sys::duplex::Duplex;
use crate::sys::{self, AsSocket, OwnedSocket};
use crate::types::address::Target;
use crate::types::descriptor_error::DescriptorError;
use crate::types::id::Id;
use crate::types::peer_network::PeerNetwork;
use crate::types::reason::Failure;
use crate::types::verb_error::VerbError;

/// A connection that waits for its dest.
pub(crate) struct Awaited {
    connection: Id,
    /// The network of the client.
    network: PeerNetwork,
    watch: Id,
}

impl ConnectionMut<'_> {
    /// Waits until the dest connects to this node, and takes one connection: the first from the address of the target, or from any
    /// address if that is unspecified, which the permit accepts. The port of the target does not matter. Returns the address at
    /// which the dest may connect: that from which this node would connect to the target, or the one that the client has
    /// connected to. [`Handler::connected`](crate::Handler::connected) reports the dest, and `timed_out` if none has come when the connect timer ends.
    ///
    /// # Errors
    /// * [`VerbError::Already`]: the connection has a dest
    /// * [`VerbError::Invalid`]: the target is no TCP address, or is reached over a link
    /// * [`VerbError::Full`]: too many connections wait, in all or of one client network
    /// * [`VerbError::Over`]: the connection is over, or the loop is stopping
    /// * the error of the system if it has no socket
    pub fn await_dest(
        &mut self,
        target: impl Into<Rc<Target>>,
        permit: impl Into<Option<Permit>>,
    ) -> Result<SocketAddr, DescriptorError> {
        self.check_open()?;
        let (id, target, permit) = (self.id(), target.into(), permit.into());
        let Target::Ip(crate::Proto::Tcp, asked) = *target else { return Err(VerbError::Invalid.into()) };
        let (client, local) = (self.peer(Role::Source), self.local(Role::Source).ip());
        let core: &mut Core = self.core();
        if core.is_draining() {
            return Err(VerbError::Over(crate::Reason::Drained).into());
        }
        let record = core.connections.get(id).ok_or(VerbError::Stale)?;
        if record.via.is_some() {
            return Err(VerbError::Invalid.into());
        }
        let network = PeerNetwork::from(&client);
        let its = core.awaited.iter().filter(|awaited| awaited.network == network).count();
        if core.awaited.len() >= AWAITED_MAX || its >= AWAITED_OF_NETWORK_MAX {
            return Err(VerbError::Full.into());
        }
        let source = core.settings_of(record).egress.as_ref().and_then(|egress| egress.source);
        let from = Some(asked.ip().to_canonical()).filter(|ip| !ip.is_unspecified());
        let at = match from {
            Some(ip) => local_towards(ip, source)?,
            None => local.ok_or(DescriptorError::Unsuitable("the client has no address"))?.ip().to_canonical(),
        };
        let listener = listen(at, core.config.mark)?;
        let addr = listener.local_addr()?.as_socket().ok_or(VerbError::Invalid)?;
        let dest = core.new_dest(id, Some(&target)).ok_or(VerbError::Already)?;
        // The watch needs the socket before the callback has it.
        let listener = Rc::new(listener);
        let theirs = Rc::clone(&listener);
        let callback = move |core: &mut Loop<'_>, _, _| accept(core, id, dest, &theirs, (from, permit.as_ref()));
        match core.watch((*listener).as_socket(), Interest::Readable, callback) {
            Ok(watch) => {
                core.awaited.push(Awaited { connection: id, network, watch });
                core.connections.get_mut(id).into_iter().for_each(|record| record.notes().is_awaited = true);
            }
            Err(error) => {
                core.disconnect(id);
                return Err(error);
            }
        }
        log::debug!(target: "seaprox::connection", id = id.to_string(), address = addr.to_string(); "waits for its dest");
        Ok(addr)
    }
}

impl ConnectionMut<'_> {
    /// Returns true if the connection has waited for its dest ([`ConnectionMut::await_dest`]), or waits.
    pub fn has_awaited_dest(&self) -> bool {
        let record = self.core_ref().connections.get(self.id());
        record.and_then(|record| record.notes.as_ref()).is_some_and(|notes| notes.is_awaited)
    }
}

impl Core {
    /// Closes the socket at which a connection waits for its dest, if it waits.
    pub(crate) fn stop_awaiting(&mut self, connection: Id) {
        if let Some(index) = self.awaited.iter().position(|awaited| awaited.connection == connection) {
            let Awaited { watch, .. } = self.awaited.swap_remove(index);
            // A callback that has panicked has no watch any more.
            let _ = self.unwatch(watch);
        }
    }
}

/// Accepts the connections that wait at the socket, until one is the dest.
fn accept(core: &mut Core, connection: Id, dest: Id, listener: &Socket, terms: (Option<IpAddr>, Option<&Permit>)) {
    let (from, permit) = terms;
    for _ in 0..ACCEPTS_PER_TURN {
        let result = match listener.accept() {
            Ok((socket, peer)) => {
                let peer = peer.as_socket().map(|peer| SocketAddr::new(peer.ip().to_canonical(), peer.port()));
                let is_it = |peer: SocketAddr| {
                    from.is_none_or(|from| from == peer.ip()) && permit.is_none_or(|permit| permit(peer))
                };
                if !peer.is_some_and(is_it) {
                    let peer = peer.map_or_else(|| "-".to_owned(), |peer| peer.to_string());
                    log::debug!(target: "seaprox::connection", id = connection.to_string(), from = peer; "another one than the dest has connected");
                    continue;
                }
                socket.set_nonblocking(true).map(|()| Duplex::from(OwnedSocket::from(socket)))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            // The other end was gone before the accept.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => Err(error),
        };
        core.stop_awaiting(connection);
        return core.answered(dest, result.map_err(|error| Failure::from(&error)));
    }
}

/// Opens a socket that listens at a port of this address.
fn listen(at: IpAddr, mark: u32) -> io::Result<Socket> {
    let socket = sys::stream_socket(Domain::for_address((at, 0).into()), sys::StreamProtocol::Tcp)?;
    if mark != 0 {
        sys::set_mark((&socket).into(), mark)?;
    }
    socket.bind(&SocketAddr::from((at, 0)).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Returns the address from which this node would connect to another one: `source`, if that is of the same family, or the choice
/// of the system. Sends nothing.
fn local_towards(ip: IpAddr, source: Option<IpAddr>) -> io::Result<IpAddr> {
    if let Some(source) = source.filter(|source| source.is_ipv4() == ip.is_ipv4()) {
        return Ok(source);
    }
    let any: IpAddr = if ip.is_ipv4() { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((ip, ANY_PORT))?;
    Ok(socket.local_addr()?.ip())
}

/// Connections of one loop that wait for their dests.
const AWAITED_MAX: usize = 256;
/// Connections of one client network that wait for their dests, in one loop.
const AWAITED_OF_NETWORK_MAX: usize = 16;
/// Connections that one socket accepts in a turn.
const ACCEPTS_PER_TURN: usize = 16;
const BACKLOG: i32 = 16;
/// A port for a choice of routes, to which nothing is sent.
const ANY_PORT: u16 = 9;
