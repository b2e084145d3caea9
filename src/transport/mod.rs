//! Transports: the connections that carry the subflows of links, each kind in a file of its own.
//!
//! A [`Carrier`] is one connection to a peer, encrypted and authenticated: it takes frames of the session and gives out
//! plaintext. An [`Endpoint`] holds what the carriers of one link or of one listener share, such as the configuration of TLS;
//! it dials and makes carriers. `node/` knows these two and [`CARRIERS`], and no kind by its name.
//!
//! ```text
//!   node:    LinkConfig --> Endpoint::client --dial--> socket connected --+
//!            ServeConfig -> Endpoint::server, CarrierKind::bind, accept --+--> Endpoint::carrier --> Carrier
//!   Carrier: send, end_batch, flush --> socket          socket --> receive, open --> plaintext of one lane
//! ```
//! # A new kind
//! It is a type that implements [`Transport`], in a file of its own, and a row of `carriers!` below. The row yields the
//! variants of [`CarrierKind`], [`Carrier`] and [`Endpoint`], the entry of [`CARRIERS`], and with it the value of `--carrier`.
//! Calls are dispatched by a match, never through a pointer.
//!
//! The trait does not ask for a stream of bytes on a socket of its own:
//! * **Lanes.** A carrier may have several ordered lanes ([`Transport::lanes`]). [`Transport::open`] yields the plaintext of
//!   one lane in each call, and [`Transport::send`] names the lane.
//! * **Messages.** [`Transport::send`] gets each frame by itself. If frames share a record or a packet is the carrier's
//!   choice; [`Transport::end_batch`] ends what they share. A carrier that can send a message without its lanes, as QUIC can,
//!   gets datagrams for it ([`Transport::message_bytes_max`]).
//! * **A shared socket.** The endpoint is at hand when a carrier is made, so both can share a queue: an endpoint that owns a
//!   datagram socket puts datagrams into the queues of its carriers, and [`Transport::receive`] takes from there. The side of
//!   such a carrier has no socket.
//! * **Encryption.** The peer's key, the cipher, the key exchange and exported key material come from the carrier. `tls/` is
//!   the encryption of the carriers over streams of bytes.
//!
//! # What a carrier must hold
//! * A carrier that is being read gives the session no byte before the peer's key was admitted.
//! * An unauthenticated peer costs a bounded number of bytes, and [`Transport::next_message`] says when the next call of
//!   [`Transport::open`] computes a key exchange or a signature, so that the node can put it off.
//! * Figures of the path that the system does not have are not made up: [`Transport::sample`] returns none, and the
//!   acknowledgements of the lanes measure the path.

mod auto;
mod both;
mod buffers;
mod carriers;
mod mptcp;
mod quic;
mod sctp;
mod tcp_tls;

use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use mio::net::UdpSocket;

use crate::engine::bound::Bound;
use crate::engine::core::Core;
use crate::engine::limits::Config;
use crate::link::{Outbox, Time};
use crate::relay::dial::Egress;
use crate::relay::side::Side;
use crate::streams::Sessions;
pub use crate::sys::PathFigures;
pub(crate) use crate::sys::PathInfo;
pub use crate::tls::{Cipher, Group};
pub(crate) use crate::tls::{Crossed, Invites, NextMessage, Protocol};
use crate::tls::{Identity, TlsError, Verify};
use crate::types::address::{Bind, Endpoint, Target};
use crate::types::id::Id;
use crate::types::peer::PeerKey;
use crate::types::proto::Proto;
use crate::types::reason::{Failure, Reason};

pub(crate) use buffers::Buffers;
pub use carriers::{CARRIERS, CarrierKind, CarrierRow};
pub(crate) use carriers::{Carrier, CarrierEndpoint};
pub(crate) use tcp_tls::{client_tls, server_tls};

/// A kind of carrier: how carriers of the kind are dialed and made, and one carrier.
pub(crate) trait Transport: Sized {
    /// The state that all carriers of one link, or of one listener, share.
    type Endpoint;

    /// Returns true if this system has the transport. Without it, the node takes what [`dial`](Self::dial) falls back to, or
    /// gets its failure.
    fn is_available() -> bool;

    /// Succeeds if this system has the transport, or the kind falls back to another one.
    ///
    /// # Errors
    /// An error that names what is missing.
    fn require() -> io::Result<()> {
        Ok(())
    }

    /// Returns true if the carriers of a listener share its socket, which is one of UDP.
    fn shares_socket() -> bool {
        false
    }

    /// Opens the listening sockets of a place. Returns one [`Bound`] for each of its addresses.
    ///
    /// # Errors
    /// The system's error for an address that cannot be bound.
    fn bind(place: &Bind, config: &Config) -> io::Result<Vec<Bound>>;

    /// Makes the endpoint of a link that this node dials.
    ///
    /// # Errors
    /// The key or the ciphers cannot be used.
    fn client(setup: &Setup<'_>) -> io::Result<Self::Endpoint>;

    /// Makes the endpoint of a listener.
    ///
    /// # Errors
    /// The key or the ciphers cannot be used.
    fn server(setup: &Setup<'_>) -> io::Result<Self::Endpoint>;

    /// Gives the endpoint of a listener the bound socket that its carriers share, if the kind has one.
    ///
    /// # Errors
    /// The kind has no such socket, or the system refuses an option.
    fn share(_: &mut Self::Endpoint, _: SharedSocket, _: &Rc<Buffers>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Takes over the shared socket and the carriers of the endpoint that this one replaces.
    fn take_over(_: &mut Self::Endpoint, _before: Self::Endpoint) {}

    /// Takes the shared socket out of an endpoint, with the carriers that use it, as an endpoint that accepts no more.
    fn leave(_: &mut Self::Endpoint) -> Option<Self::Endpoint> {
        None
    }

    /// Receives from the shared socket of a listener, for its carriers.
    fn receive_shared(_: &Self::Endpoint) -> Arrivals {
        Arrivals::default()
    }

    /// Returns the address of a peer that has begun a connection at the shared socket. [`carrier`](Self::carrier) takes it.
    fn next_arrival(_: &Self::Endpoint) -> Option<Endpoint> {
        None
    }

    /// Makes the peer that [`next_arrival`](Self::next_arrival) has named show first that it receives at its address. Returns false if
    /// it has shown that.
    fn validate_arrival(_: &Self::Endpoint) -> bool {
        false
    }

    /// Returns true if a carrier uses the shared socket.
    fn is_shared(_: &Self::Endpoint) -> bool {
        false
    }

    /// Refuses the peer that [`next_arrival`](Self::next_arrival) has named.
    fn refuse_arrival(_: &Self::Endpoint) {}

    /// Starts to connect a side that has just been made. The loop reports the result.
    fn dial(endpoint: &Self::Endpoint, core: &mut Core, side: Id, target: &Rc<Target>, egress: Egress);

    /// Makes the carrier of a side that has been connected or accepted. A carrier of a client has bytes to send at once. The
    /// carrier may take the socket out of the side.
    ///
    /// # Errors
    /// The system has no randomness, or the side has a socket of another kind.
    fn carrier(endpoint: &Self::Endpoint, side: Id, record: &mut Side, buffers: &Rc<Buffers>) -> io::Result<Self>;

    /// Returns the number of lanes, which the HELLO tells the peer.
    fn lanes(&self) -> u16 {
        1
    }

    /// Returns the maximum length of a frame that fits in a message of the carrier now, which may be lost and may overtake
    /// others; 0 if it has no such messages. [`send`](Self::send) gets such frames for
    /// [`MESSAGE_LANE`](crate::link::MESSAGE_LANE), and [`open`](Self::open) yields one whole message with that lane.
    fn message_bytes_max(&self) -> usize {
        0
    }

    /// Returns the name of the transport that the connection uses, which may be what this kind fell back to.
    fn name(&self, side: &Side) -> &'static str;

    /// Returns the address of this host that the connection uses.
    fn local(&self, side: &Side) -> Endpoint {
        side.io.local()
    }

    /// Returns true if the connection has a path from another address of this host, so that it outlives its own.
    fn has_other_paths(&self, _: &Side) -> bool {
        false
    }

    /// Returns the bytes that the carrier takes from the session now.
    fn room(&mut self, side: &Side, demand: Demand) -> usize;

    /// Takes an outgoing frame for a lane.
    fn send(&mut self, lane: u16, frame: &Outbox);

    /// Takes outgoing bytes for the first lane, such as the answer to a HELLO.
    fn send_bytes(&mut self, bytes: &[u8]);

    /// Ends a batch: the frames that share a record are ready to be written.
    fn end_batch(&mut self);

    /// Writes waiting bytes, as many as the socket takes, or the stream of another link that stands for it.
    ///
    /// # Errors
    /// The error of the socket.
    fn flush(&mut self, side: &mut Side, sessions: &mut Sessions) -> io::Result<()>;

    /// Returns true if no byte waits to be written.
    fn is_flushed(&self) -> bool;

    /// Receives at most `most` bytes once. Returns their number, or none if there is nothing to receive now. Call
    /// [`open`](Self::open) before the next call.
    ///
    /// # Errors
    /// The connection has ended or failed.
    fn receive(&mut self, side: &mut Side, sessions: &mut Sessions, most: usize) -> Result<Option<usize>, Failure>;

    /// Decrypts what was received, appends the plaintext of one lane to `plain`, and continues the handshake. Returns the
    /// lane.
    ///
    /// # Errors
    /// The encryption has failed. The caller then flushes the carrier, because its last message tells the peer the cause.
    fn open(&mut self, plain: &mut Vec<Bytes>) -> Result<u16, CarrierError>;

    /// Returns true if the peer is not authenticated yet.
    fn is_handshaking(&self) -> bool;

    /// Returns the received part of the next message of an unauthenticated peer.
    fn next_message(&self) -> NextMessage;

    /// Returns the key that the peer has proven to hold.
    fn peer_key(&self) -> Option<PeerKey>;

    /// Returns the protocol above the encryption, once the handshake is done.
    fn protocol(&self) -> Protocol;

    /// Returns the name of the cipher, once it is negotiated.
    fn cipher(&self) -> Option<&'static str>;

    /// Returns the name of the key exchange, once it is negotiated.
    fn group(&self) -> Option<&'static str>;

    /// Returns key material that only the two ends of this connection have. Returns `None` before the end of the handshake.
    fn exporter(&self, label: &str, context: &[u8]) -> Option<[u8; 32]>;

    /// Returns the role of this end and the digest of the first messages, if both ends have dialed the connection.
    fn crossed(&self) -> Option<Crossed> {
        None
    }

    /// Tells the peer that this node sends no more. Input is dropped from now on.
    fn close(&mut self);

    /// Returns true if the carrier must stay for a while after [`close`](Self::close), until it is flushed, because the system does
    /// not deliver what it has taken from it.
    fn lingers(&self) -> bool {
        false
    }

    /// Returns true if [`flush`](Self::flush) may wait until the session was asked for frames: the carrier has nothing but an
    /// acknowledgement of its own, which shares a packet with them then.
    fn may_wait(&self) -> bool {
        false
    }

    /// Returns the time until the carrier has something to do without an event, such as to send a lost datagram again.
    fn next_timeout(&mut self) -> Option<Duration> {
        None
    }

    /// Notes that the addresses or the routes of this host have changed.
    fn network_changed(&mut self) {}

    /// Samples the state of the path, if a sample is due and the transport knows it.
    fn sample(&mut self, side: &Side, now: Time) -> Option<PathInfo>;

    /// Returns the figures of the path for the status, if the transport knows them.
    fn figures(&self, _: &Side) -> Option<PathFigures> {
        None
    }

    /// Adapts the unsent bytes in the system to the rate of the path.
    fn follow_rate(&mut self, side: &Side, rate: u64);

    /// Sets the options of a new connection.
    fn tune(&mut self, side: &Side, options: Options);

    /// Adapts the receive buffer to the rate at which this node reads.
    fn limit_rate(&self, side: &Side, rate: u64);

    /// Returns the bytes on the wire, sent and received.
    fn bytes(&self) -> (u64, u64);
}

/// A bound socket of datagrams that the carriers of a listener share.
pub(crate) type SharedSocket = UdpSocket;

/// The result of a receive from a shared socket.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    /// The sides of carriers that have something to do.
    pub woken: Vec<Id>,
    /// More may be there.
    pub has_more: bool,
    /// Datagrams of strangers that were dropped because there were too many.
    pub dropped: u64,
}

/// The keys of a node, for an endpoint.
pub(crate) struct Setup<'a> {
    /// The seed of this node's key.
    pub seed: &'a [u8; 32],
    /// The ciphers in the order of preference; empty for the fastest ones of this processor.
    pub ciphers: &'a [Cipher],
    /// The key exchanges in the order of preference; empty for all of this processor.
    pub groups: &'a [Group],
    /// Decides on the key of a peer.
    pub admits: Verify,
    /// Returns true for a key that is not admitted because its time is over. A server tells the peer.
    pub expired: Verify,
    /// Tells a server if an invitation is pending.
    pub invites: Option<Invites>,
    /// The peer may dial the connections of a client at the same time.
    pub simultaneous: bool,
    /// The congestion control of carriers that have their own.
    pub congestion: Congestion,
}

impl Setup<'_> {
    /// Returns this node's public key.
    ///
    /// # Errors
    /// The seed cannot be used.
    pub fn public_key(&self) -> io::Result<PeerKey> {
        Identity::from_seed(self.seed).map(|identity| identity.public_key()).map_err(io::Error::other)
    }
}

#[cfg(test)]
impl Setup<'static> {
    /// Returns the setup of tests: one key for both ends, which admit every key.
    fn of_tests() -> Setup<'static> {
        Setup {
            seed: &[7; 32],
            ciphers: &[],
            groups: &[],
            admits: std::sync::Arc::new(|_| true),
            expired: std::sync::Arc::new(|_| false),
            invites: None,
            simultaneous: false,
            congestion: Congestion::System,
        }
    }
}

/// The options of a new connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// The silence after which the session gives the path up.
    pub dead: Duration,
    pub congestion: Congestion,
}

/// The congestion control of carriers.
///
/// It decides how much a sender believes a loss: `cubic` and `reno` halve their rate, or nearly, and give a path of 20 Mbit/s
/// that loses one packet in fifty less than a quarter of it. `bbr` measures rate and round trip instead, and keeps queues short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Congestion {
    /// The default of the system; CUBIC over QUIC, which has its own.
    #[default]
    System,
    /// BBR.
    Bbr,
    /// CUBIC (RFC 9438).
    Cubic,
    /// Reno (RFC 5681).
    Reno,
}

impl Congestion {
    /// All kinds, in the order of [`NAMES`](Self::NAMES).
    pub const ALL: [Congestion; 4] = [Congestion::System, Congestion::Bbr, Congestion::Cubic, Congestion::Reno];
    /// The names on the command line.
    pub const NAMES: &[&str] = &["system", "bbr", "cubic", "reno"];

    /// Returns the system's name of it, or `None` for the default.
    pub fn of_system(self) -> Option<&'static str> {
        match self {
            Congestion::System => None,
            Congestion::Bbr => Some("bbr"),
            Congestion::Cubic => Some("cubic"),
            Congestion::Reno => Some("reno"),
        }
    }
}

/// The demand of the session on a carrier, as far as [`Transport::room`] depends on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demand {
    /// Bytes per second that the path carries.
    pub rate: u64,
    /// No other carrier of the link carries: there is none, or the others are backups.
    pub is_alone: bool,
    /// Small messages compete with a bulk transfer.
    pub is_mixed: bool,
}

/// The end of a carrier by its encryption.
#[derive(Clone, Debug)]
pub(crate) enum CarrierError {
    /// The peer has proven that it holds this key, but the key is not admitted.
    KeyRefused(PeerKey, Failure),
    /// The peer does not admit this node's key.
    OwnKeyRefused(Failure),
    /// The time of this node's key is over, as the peer says.
    OwnKeyExpired(Failure),
    /// Another failure.
    Failed(Failure),
}

impl CarrierError {
    /// Returns the failure with its reason.
    pub fn into_failure(self) -> Failure {
        match self {
            CarrierError::KeyRefused(_, failure)
            | CarrierError::OwnKeyRefused(failure)
            | CarrierError::OwnKeyExpired(failure)
            | CarrierError::Failed(failure) => failure,
        }
    }
}

impl From<TlsError> for CarrierError {
    fn from(error: TlsError) -> CarrierError {
        let failure = |reason| Failure::new(reason, error.to_string());
        match error {
            TlsError::KeyRefused(key) => CarrierError::KeyRefused(key, failure(Reason::AuthFailed)),
            TlsError::OurKeyRefused => CarrierError::OwnKeyRefused(failure(Reason::AuthFailed)),
            TlsError::OurKeyExpired => CarrierError::OwnKeyExpired(failure(Reason::AuthFailed)),
            TlsError::Authentication | TlsError::KeyExpired => CarrierError::Failed(failure(Reason::AuthFailed)),
            _ => CarrierError::Failed(failure(Reason::ProtocolError)),
        }
    }
}

impl fmt::Display for CarrierKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl CarrierKind {
    /// Returns the name on the command line and in the status.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Returns the kind with this name.
    pub fn parse(name: &str) -> Option<CarrierKind> {
        CARRIERS.iter().find(|row| row.name == name).map(|row| row.kind)
    }

    /// Returns true if this system has the transport.
    pub fn is_available(self) -> bool {
        (self.row().is_available)()
    }

    /// Succeeds if this system has the transport, or the kind falls back to another one.
    ///
    /// # Errors
    /// An error of the kind [`Unsupported`](io::ErrorKind::Unsupported) that names what is missing.
    pub fn require(self) -> io::Result<()> {
        (self.row().require)()
    }

    /// Returns true if the carriers of a listener share its socket, which is one of UDP.
    pub(crate) fn shares_socket(self) -> bool {
        (self.row().shares_socket)()
    }

    /// Returns the kind of the carriers at a listener of this protocol: a kind may listen for several.
    pub(crate) fn at(self, proto: Proto) -> CarrierKind {
        match (self, proto) {
            (CarrierKind::Auto, Proto::Udp) => CarrierKind::Quic,
            (kind, Proto::Tcp | Proto::Udp) => kind,
        }
    }

    /// Opens the listening sockets of one place for nodes that dial links with this kind of carrier. Returns one
    /// [`Bound`] for each address of the place, for [`Loop::serve_links`](crate::Loop::serve_links).
    ///
    /// # Errors
    /// The error of [`require`](Self::require), or the system's error for the first address that cannot be bound.
    pub fn bind(self, place: &Bind, config: &Config) -> io::Result<Vec<Bound>> {
        self.require()?;
        (self.row().bind)(place, config)
    }
}

/// Minimum of the bytes that a carrier takes from the session at once.
pub(crate) const BATCH_BYTES_MIN: usize = 2 << 10;
/// Bytes that a carrier reads and sends in one turn while small messages compete with a bulk transfer. They bound the wait of
/// a message.
pub(crate) const BYTES_MIXED: usize = 128 << 10;
