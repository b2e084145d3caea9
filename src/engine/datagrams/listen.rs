//! Listeners of UDP: binding, opening and closing.
//!
//! Each loop has a socket of its own, over which the system distributes the clients by their addresses. Where it does not,
//! the first loop that listens has all of them.

use std::io;
use std::net::SocketAddr;

use mio::net::UdpSocket;
use mio::{Interest, Token};

use super::ClientSocket;
use super::flow::Dest;
use crate::datagrams::batch::Batch;
use crate::datagrams::reply::ReplySockets;
use crate::datagrams::socket::DatagramSocket;
use crate::engine::core::Core;
use crate::engine::redirected::{note_socket, warn_not_transparent};
use crate::sys;
use crate::types::id::Id;
use crate::types::reason::Reason;

/// Binds the sockets of `loops` loops to one address. Returns them with the address.
///
/// # Errors
/// The error of the system.
pub(crate) fn bind_datagrams(
    addr: SocketAddr,
    only_ipv6: bool,
    loops: usize,
) -> io::Result<(SocketAddr, Vec<DatagramSocket>)> {
    let is_spread = loops > 1 && sys::REUSE_PORT_BALANCES;
    if is_spread && addr.port() != 0 {
        // A port that another process shares must be refused. A bind without the option finds out.
        DatagramSocket::bind(addr, only_ipv6, false)?;
    }
    let first = DatagramSocket::bind(addr, only_ipv6, is_spread)?;
    let addr = first.local();
    let mut sockets = vec![first];
    while is_spread && sockets.len() < loops {
        sockets.push(DatagramSocket::bind(addr, only_ipv6, true)?);
    }
    Ok((addr, sockets))
}

impl Core {
    /// Takes the registered socket of a UDP listener that is being opened.
    pub(crate) fn hold_datagrams(&mut self, listener: Id, socket: DatagramSocket) {
        let has_several_addresses = socket.local().ip().is_unspecified();
        let client = ClientSocket {
            socket,
            has_several_addresses,
            flows: 0,
            reader: None,
            is_redirected: false,
            replies: ReplySockets::new(self.datagrams.flows.capacity()),
            is_closing: false,
        };
        self.datagrams.sockets.insert(listener, client);
    }

    /// Sets if the system redirects clients to the socket of a UDP listener. Without the right to receive their datagrams there
    /// is a warning. Flows of redirected clients go on.
    pub(crate) fn redirect_datagrams(&mut self, listener: Id, is_redirected: bool) {
        let Some(client) = self.datagrams.sockets.get_mut(&listener) else { return };
        if is_redirected && !client.is_redirected {
            client.is_redirected = client.socket.redirect().map_err(|error| warn_not_transparent(&error)).is_ok();
            self.note_open_sockets();
        } else {
            client.is_redirected &= is_redirected;
        }
    }

    /// Notes the sockets of flows and associations that were opened before any listener for redirected clients, so that their
    /// datagrams are known when they come back.
    fn note_open_sockets(&mut self) {
        for id in self.datagrams.flows.ids() {
            let Some(flow) = self.datagrams.flows.get_mut(id).filter(|flow| flow.own_socket.is_none()) else {
                continue;
            };
            if let Dest::Socket(socket) = &flow.dest {
                flow.own_socket = note_socket(socket.local(), socket.peer());
            }
        }
        for id in self.datagrams.association_sockets.ids() {
            let Some(record) = self.datagrams.association_sockets.get_mut(id) else { continue };
            if record.own_socket.is_none() {
                record.own_socket = note_socket(record.socket.local(), None);
            }
        }
    }

    /// Takes the socket out of a UDP listener for links. Its events stay those of the listener: each one is a
    /// [`Request::Datagrams`](crate::engine::control::Request::Datagrams).
    ///
    /// # Errors
    /// The listener has no such socket, or the system does not register it for both directions.
    pub(crate) fn take_shared_socket(&mut self, listener: Id) -> io::Result<UdpSocket> {
        let client = self.datagrams.sockets.remove(&listener).ok_or(io::ErrorKind::NotFound)?;
        let mut socket = client.socket.into_socket();
        let token = Token(listener.to_u64() as usize);
        self.registry.reregister(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(socket)
    }

    /// Makes the receive buffers of the loop, if there are none yet.
    pub(crate) fn need_batch(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.datagrams.has_batch, true) {
            let batch = Batch::new();
            self.datagrams.has_batch = batch.is_ok();
            self.datagrams.batch = Some(Box::new(batch?));
        }
        Ok(())
    }

    /// Closes the socket of a UDP listener that is closed, and ends its flows, because their answers could not leave from
    /// another socket. While the loop drains, the flows go on until they are idle, and the socket with them.
    pub(crate) fn close_datagrams(&mut self, listener: Id) {
        let is_draining = self.is_draining();
        let Some(client) = self.datagrams.sockets.get_mut(&listener) else { return };
        client.is_closing = true;
        if !is_draining {
            let its: Vec<Id> = self.datagrams.flows.ids();
            let its =
                its.into_iter().filter(|id| self.datagrams.flows.get(*id).is_some_and(|flow| flow.is_of(listener)));
            its.collect::<Vec<_>>().into_iter().for_each(|id| self.end_flow(id, Reason::Killed, None));
        }
        self.drop_closed_socket(listener);
    }

    /// Drops the socket of a closed listener if no flow uses it any more.
    pub(super) fn drop_closed_socket(&mut self, listener: Id) {
        let is_unused = |client: &ClientSocket| client.is_closing && client.flows == 0;
        if self.datagrams.sockets.get(&listener).is_some_and(is_unused)
            && let Some(mut client) = self.datagrams.sockets.remove(&listener)
        {
            client.socket.deregister(&self.registry);
        }
    }
}
