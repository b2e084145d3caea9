//! Simultaneous open: a dial whose target may connect to this host at the same time (RFC 9293, section 3.5).
//!
//! Neither end listens, so a SYN that comes while the other end is not connecting is refused, if no firewall drops it or its
//! refusal. Such a connect is repeated on the same socket, because a mapping of a router on the way is lost with the socket.
//! The pauses are random: two ends with equal pauses might miss each other for ever.

use std::io;
use std::net::SocketAddr;

use ring::rand::{SecureRandom, SystemRandom};
use socket2::SockRef;

use crate::engine::core::{Core, OneOff};
use crate::relay::io::Io;
use crate::relay::side::{Ready, SideState};
use crate::sys::{self, TcpStream};
use crate::types::id::Id;

impl Core {
    /// Notes that a connect was refused which is to be repeated on the same socket. Returns false for all others.
    pub(super) fn is_to_connect_again(&mut self, side: Id, error: &io::Error) -> bool {
        if !is_refusal(error) || !self.is_simultaneous(side) {
            return false;
        }
        let Some(record) = self.sides.get_mut(side).filter(|record| matches!(record.io, Io::Tcp(_))) else {
            return false;
        };
        record.ready = Ready { queued: record.ready.queued, ..Ready::default() };
        self.one_offs.push(self.now_ms + pause_ms(), OneOff::ConnectAgain(side));
        true
    }

    /// Returns true if the socket of a side waits for its next connect. A late event of the refused one is no success.
    pub(super) fn waits_to_connect_again(&mut self, side: Id) -> bool {
        if !self.is_simultaneous(side) {
            return false;
        }
        let Some(record) = self.sides.get_mut(side).filter(|record| record.io.is_unconnected()) else { return false };
        record.ready = Ready { queued: record.ready.queued, ..Ready::default() };
        true
    }

    /// Repeats a connect that was refused.
    pub(crate) fn connect_again(&mut self, side: Id) {
        let Some(record) = self.sides.get_mut(side).filter(|record| record.state == SideState::Connecting) else {
            return;
        };
        let (Io::Tcp(socket), Some(addr)) = (&record.io, record.endpoint.ip()) else { return };
        match reconnect(socket, addr) {
            Ok(()) => {}
            Err(error) if is_refusal(&error) => self.attempt_failed(side, &error, Some(addr)),
            // Other systems than Linux need not connect a socket twice (connect(2)): a new one takes its place.
            Err(_) => {
                record.io = Io::None;
                self.attempt(side, addr);
            }
        }
    }

    fn is_simultaneous(&self, side: Id) -> bool {
        self.egress_of(side).is_some_and(|egress| egress.simultaneous)
    }
}

/// Starts to connect a socket whose last connect was refused. The first call may only report that (ECONNABORTED, Linux).
fn reconnect(socket: &TcpStream, addr: SocketAddr) -> io::Result<()> {
    let socket = SockRef::from(socket);
    let connect = || match socket.connect(&addr.into()) {
        Err(error) if sys::is_in_progress(&error) => Ok(()),
        result => result,
    };
    match connect() {
        Err(error) if is_refusal(&error) => connect(),
        result => result,
    }
}

/// Returns true if the target refused the connection, or reset it before it was established.
fn is_refusal(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionRefused | ConnectionReset | ConnectionAborted)
}

/// Returns a random pause before the next connect.
fn pause_ms() -> u64 {
    let mut random = [0];
    // Without randomness the pauses are equal; the peer's are not.
    let _ = SystemRandom::new().fill(&mut random);
    PAUSE_MS_MIN + u64::from(random[0]) * PAUSE_MS_SPREAD / 256
}

/// Bounds of the pause between two connects: short beside the time for which a SYN is on its way over the Internet, and long
/// enough for ten packets a second at most.
const PAUSE_MS_MIN: u64 = 50;
const PAUSE_MS_SPREAD: u64 = 100;
