//! The registry of transports: one row for each kind, and the dispatch to them by a match.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use crate::engine::bound::Bound;
use crate::engine::core::Core;
use crate::engine::limits::Config;
use crate::link::{Outbox, Time};
use crate::relay::dial::Egress;
use crate::relay::side::Side;
use crate::streams::Sessions;
use crate::types::address::{Bind, Endpoint, Target};
use crate::types::id::Id;
use crate::types::peer::PeerKey;
use crate::types::reason::Failure;

use super::auto::Auto;
use super::mptcp::Mptcp;
use super::quic::Quic;
use super::sctp::Sctp;
use super::tcp_tls::{Tcp, TlsStream};
use super::{
    Arrivals, Buffers, CarrierError, Crossed, Demand, NextMessage, Options, PathFigures, PathInfo, Protocol, Setup,
    SharedSocket, Transport,
};

/// One kind of carrier.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CarrierRow {
    /// The kind.
    pub kind: CarrierKind,
    /// The name on the command line and in the status.
    pub name: &'static str,
    /// A sentence for the help.
    pub help: &'static str,
    pub(super) is_available: fn() -> bool,
    pub(super) require: fn() -> io::Result<()>,
    pub(super) shares_socket: fn() -> bool,
    pub(super) bind: fn(&Bind, &Config) -> io::Result<Vec<Bound>>,
}

/// Makes the enums and the table of the rows. The first token is a dollar sign, for the macro that it makes.
macro_rules! carriers {
    ($d:tt $($(#[$doc:meta])* $kind:ident: $transport:ty = $name:literal, $help:literal;)+) => {
        /// A kind of carrier.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum CarrierKind {
            $($(#[$doc])* $kind,)+
        }

        /// The kinds of carriers, in the order of the documentation. The first one is the default.
        pub static CARRIERS: &[CarrierRow] = &[$(CarrierRow {
            kind: CarrierKind::$kind,
            name: $name,
            help: $help,
            is_available: <$transport as Transport>::is_available,
            require: <$transport as Transport>::require,
            shares_socket: <$transport as Transport>::shares_socket,
            bind: <$transport as Transport>::bind,
        },)+];

        impl CarrierKind {
            /// The names of all kinds, in the order of [`CARRIERS`].
            pub const NAMES: &[&str] = &[$($name,)+];
        }

        /// One connection that carries a subflow of a link; the methods are those of [`Transport`].
        pub(crate) enum Carrier {
            $($kind($transport),)+
        }

        /// The state that the carriers of one link, or of one listener, share.
        pub(crate) enum CarrierEndpoint {
            $($kind(<$transport as Transport>::Endpoint),)+
        }

        /// Calls a method of whichever carrier it is.
        macro_rules! dispatch {
            ($d carrier:expr, $d bound:ident => $d call:expr) => {
                match $d carrier {
                    $(Carrier::$kind($d bound) => $d call,)+
                }
            };
        }

        impl CarrierKind {
            /// Returns the row of the kind.
            pub(super) fn row(self) -> &'static CarrierRow {
                &CARRIERS[self as usize]
            }
        }

        impl Carrier {
            /// Returns the kind, which does not tell if the connection has fallen back.
            pub fn kind(&self) -> CarrierKind {
                match self {
                    $(Carrier::$kind(_) => CarrierKind::$kind,)+
                }
            }
        }

        impl CarrierEndpoint {
            /// Makes the endpoint of a link that this node dials.
            pub fn client(kind: CarrierKind, setup: &Setup<'_>) -> io::Result<CarrierEndpoint> {
                match kind {
                    $(CarrierKind::$kind => <$transport as Transport>::client(setup).map(CarrierEndpoint::$kind),)+
                }
            }

            /// Makes the endpoint of a listener.
            pub fn server(kind: CarrierKind, setup: &Setup<'_>) -> io::Result<CarrierEndpoint> {
                match kind {
                    $(CarrierKind::$kind => <$transport as Transport>::server(setup).map(CarrierEndpoint::$kind),)+
                }
            }

            /// Returns the kind of the carriers.
            pub fn kind(&self) -> CarrierKind {
                match self {
                    $(CarrierEndpoint::$kind(_) => CarrierKind::$kind,)+
                }
            }

            /// Starts to connect a side that has just been made. The loop reports the result.
            pub fn dial(&self, core: &mut Core, side: Id, target: &Rc<Target>, egress: Egress) {
                match self {
                    $(CarrierEndpoint::$kind(endpoint) => <$transport>::dial(endpoint, core, side, target, egress),)+
                }
            }

            /// Makes the carrier of a side that has been connected or accepted.
            pub fn carrier(&self, side: Id, record: &mut Side, buffers: &Rc<Buffers>) -> io::Result<Carrier> {
                match self {
                    $(CarrierEndpoint::$kind(endpoint) => {
                        <$transport>::carrier(endpoint, side, record, buffers).map(Carrier::$kind)
                    })+
                }
            }

            /// Gives the endpoint of a listener the bound socket that its carriers share.
            pub fn share(&mut self, socket: SharedSocket, buffers: &Rc<Buffers>) -> io::Result<()> {
                match self {
                    $(CarrierEndpoint::$kind(endpoint) => <$transport>::share(endpoint, socket, buffers),)+
                }
            }

            /// Takes over the shared socket and the carriers of the endpoint that this one replaces.
            pub fn take_over(&mut self, before: CarrierEndpoint) {
                match (self, before) {
                    $((CarrierEndpoint::$kind(endpoint), CarrierEndpoint::$kind(before)) => <$transport>::take_over(endpoint, before),)+
                    _ => {}
                }
            }

            /// Takes the shared socket out, with the carriers that use it, as an endpoint that accepts no more.
            pub fn leave(&mut self) -> Option<CarrierEndpoint> {
                match self {
                    $(CarrierEndpoint::$kind(endpoint) => <$transport>::leave(endpoint).map(CarrierEndpoint::$kind),)+
                }
            }

            /// Receives from the shared socket of a listener.
            pub fn receive_shared(&self) -> Arrivals {
                match self {
                    $(CarrierEndpoint::$kind(endpoint) => <$transport>::receive_shared(endpoint),)+
                }
            }

            /// Returns the address of a peer that has begun a connection at the shared socket.
            pub fn next_arrival(&self) -> Option<Endpoint> {
                match self {
                    $(CarrierEndpoint::$kind(endpoint) => <$transport>::next_arrival(endpoint),)+
                }
            }

            /// Makes the peer that `next_arrival` has named show its address first. Returns false if it has shown it.
            pub fn validate_arrival(&self) -> bool {
                match self {
                    $(CarrierEndpoint::$kind(endpoint) => <$transport>::validate_arrival(endpoint),)+
                }
            }

            /// Returns true if a carrier uses the shared socket.
            pub fn is_shared(&self) -> bool {
                match self {
                    $(CarrierEndpoint::$kind(endpoint) => <$transport>::is_shared(endpoint),)+
                }
            }

            /// Refuses the peer that `next_arrival` has named.
            pub fn refuse_arrival(&self) {
                match self {
                    $(CarrierEndpoint::$kind(endpoint) => <$transport>::refuse_arrival(endpoint),)+
                }
            }
        }
    };
}

carriers! { $
    /// TCP, and QUIC beside it: the one that delivers more carries.
    #[default]
    Auto: TlsStream<Auto> = "auto", "TCP, and QUIC beside it where UDP passes; the one that delivers more carries";
    /// TCP.
    Tcp: TlsStream<Tcp> = "tcp", "TCP";
    /// Multipath TCP (RFC 8684), and TCP where this system or the peer has none.
    Mptcp: TlsStream<Mptcp> = "mptcp", "multipath TCP, and TCP where this system or the peer has none";
    /// SCTP (RFC 9260).
    Sctp: TlsStream<Sctp> = "sctp", "SCTP, which both systems must have";
    /// QUIC (RFC 9000), over UDP.
    Quic: Quic = "quic", "QUIC, over UDP";
}

impl Carrier {
    pub fn lanes(&self) -> u16 {
        dispatch!(self, carrier => carrier.lanes())
    }

    #[inline]
    pub fn message_bytes_max(&self) -> usize {
        dispatch!(self, carrier => carrier.message_bytes_max())
    }

    pub fn name(&self, side: &Side) -> &'static str {
        dispatch!(self, carrier => carrier.name(side))
    }

    pub fn local(&self, side: &Side) -> Endpoint {
        dispatch!(self, carrier => carrier.local(side))
    }

    pub fn has_other_paths(&self, side: &Side) -> bool {
        dispatch!(self, carrier => carrier.has_other_paths(side))
    }

    #[inline]
    pub fn room(&mut self, side: &Side, demand: Demand) -> usize {
        dispatch!(self, carrier => carrier.room(side, demand))
    }

    #[inline]
    pub fn send(&mut self, lane: u16, frame: &Outbox) {
        dispatch!(self, carrier => carrier.send(lane, frame));
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        dispatch!(self, carrier => carrier.send_bytes(bytes));
    }

    #[inline]
    pub fn end_batch(&mut self) {
        dispatch!(self, carrier => carrier.end_batch());
    }

    #[inline]
    pub fn flush(&mut self, side: &mut Side, sessions: &mut Sessions) -> io::Result<()> {
        dispatch!(self, carrier => carrier.flush(side, sessions))
    }

    #[inline]
    pub fn is_flushed(&self) -> bool {
        dispatch!(self, carrier => carrier.is_flushed())
    }

    #[inline]
    pub fn receive(&mut self, side: &mut Side, sessions: &mut Sessions, most: usize) -> Result<Option<usize>, Failure> {
        dispatch!(self, carrier => carrier.receive(side, sessions, most))
    }

    #[inline]
    pub fn open(&mut self, plain: &mut Vec<Bytes>) -> Result<u16, CarrierError> {
        dispatch!(self, carrier => carrier.open(plain))
    }

    pub fn is_handshaking(&self) -> bool {
        dispatch!(self, carrier => carrier.is_handshaking())
    }

    pub fn next_message(&self) -> NextMessage {
        dispatch!(self, carrier => carrier.next_message())
    }

    pub fn peer_key(&self) -> Option<PeerKey> {
        dispatch!(self, carrier => carrier.peer_key())
    }

    pub fn protocol(&self) -> Protocol {
        dispatch!(self, carrier => carrier.protocol())
    }

    pub fn cipher(&self) -> Option<&'static str> {
        dispatch!(self, carrier => carrier.cipher())
    }

    pub fn group(&self) -> Option<&'static str> {
        dispatch!(self, carrier => carrier.group())
    }

    pub fn exporter(&self, label: &str, context: &[u8]) -> Option<[u8; 32]> {
        dispatch!(self, carrier => carrier.exporter(label, context))
    }

    pub fn crossed(&self) -> Option<Crossed> {
        dispatch!(self, carrier => carrier.crossed())
    }

    pub fn close(&mut self) {
        dispatch!(self, carrier => carrier.close());
    }

    pub fn lingers(&self) -> bool {
        dispatch!(self, carrier => carrier.lingers())
    }

    pub fn may_wait(&self) -> bool {
        dispatch!(self, carrier => carrier.may_wait())
    }

    pub fn next_timeout(&mut self) -> Option<Duration> {
        dispatch!(self, carrier => carrier.next_timeout())
    }

    pub fn network_changed(&mut self) {
        dispatch!(self, carrier => carrier.network_changed());
    }

    pub fn sample(&mut self, side: &Side, now: Time) -> Option<PathInfo> {
        dispatch!(self, carrier => carrier.sample(side, now))
    }

    pub fn figures(&self, side: &Side) -> Option<PathFigures> {
        dispatch!(self, carrier => carrier.figures(side))
    }

    pub fn follow_rate(&mut self, side: &Side, rate: u64) {
        dispatch!(self, carrier => carrier.follow_rate(side, rate));
    }

    pub fn tune(&mut self, side: &Side, options: Options) {
        dispatch!(self, carrier => carrier.tune(side, options));
    }

    pub fn limit_rate(&self, side: &Side, rate: u64) {
        dispatch!(self, carrier => carrier.limit_rate(side, rate));
    }

    pub fn bytes(&self) -> (u64, u64) {
        dispatch!(self, carrier => carrier.bytes())
    }
}
