//! The configuration of QUIC.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn_proto::congestion::{BbrConfig, ControllerFactory, NewRenoConfig};
use quinn_proto::{
    AckFrequencyConfig, EndpointConfig, MtuDiscoveryConfig, RandomConnectionIdGenerator, ServerConfig, TransportConfig,
    VarInt, crypto,
};
use ring::hmac;

use super::congestion;
use super::unsent::Unsent;
use crate::link::LANES_MAX;
use crate::tls::QUIC_VERSION;
use crate::transport::Congestion;

/// Returns the configuration of the endpoints of a node. The key of its stateless resets comes from the key of the node, so that
/// a node that was restarted can tell its peers at once (RFC 9000, section 10.3).
pub(super) fn endpoint(seed: &[u8; 32]) -> EndpointConfig {
    let secret = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, seed), b"seaprox quic stateless reset");
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, secret.as_ref())));
    // An id must not look invalid after a restart, because no reset would be sent for it then.
    config.cid_generator(|| Box::new(RandomConnectionIdGenerator::new(ID_BYTES)));
    config.supported_versions(vec![QUIC_VERSION]);
    // Within the bounds of the standard.
    let _ = config.max_udp_payload_size(DATAGRAM_BYTES_MAX);
    config
}

/// Returns the configuration of the connections that a server accepts, without the part that each gets from [`transport`].
pub(super) fn server(crypto: Arc<dyn crypto::ServerConfig>) -> ServerConfig {
    let mut config = ServerConfig::with_crypto(crypto);
    config.migration(true);
    config.max_incoming(INCOMING_MAX);
    config.incoming_buffer_size(INCOMING_BYTES_MAX);
    config.incoming_buffer_size_total(INCOMING_MAX as u64 * INCOMING_BYTES_MAX);
    config
}

/// Returns the configuration of one connection, which tries datagrams of up to this length (`None`: the usual one). The session above
/// has its own credit and its own timers, so the windows are wide, and a connection has no idle time.
pub(super) fn transport(
    congestion: Congestion,
    datagram_bytes_max: Option<u16>,
    unsent: &Unsent,
) -> Arc<TransportConfig> {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(datagram_bytes_max.unwrap_or(DATAGRAM_BYTES_USUAL));
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(ACKED_PACKETS - 1)).max_ack_delay(Some(ACK_DELAY));
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(LANES_MAX.into()))
        .stream_receive_window(VarInt::from_u32(WINDOW_BYTES))
        .receive_window(VarInt::from_u32(WINDOW_BYTES_MIN))
        .send_window(WINDOW_BYTES.into())
        // A frame leaves as a whole before the next one: the session has decided on their order.
        .send_fairness(false)
        .max_idle_timeout(None)
        .ack_frequency_config(Some(acks))
        .mtu_discovery_config(Some(mtu))
        .datagram_receive_buffer_size(Some(MESSAGES_BYTES_MAX))
        .datagram_send_buffer_size(MESSAGES_BYTES_MAX)
        .congestion_controller_factory(unsent.watch(controller(congestion)));
    Arc::new(config)
}

/// Returns the longest datagram that is tried towards a peer, if it is not the usual one: the route begins at an interface with
/// longer packets. Elsewhere longer ones would only be lost.
pub(super) fn datagram_bytes_max(route_mtu: Option<usize>, peer: SocketAddr) -> Option<u16> {
    let headers = if peer.ip().to_canonical().is_ipv4() { HEADERS_V4 } else { HEADERS_V6 };
    let bytes = route_mtu.filter(|mtu| *mtu > ETHERNET_MTU)? - headers;
    Some(u16::try_from(bytes).map_or(DATAGRAM_BYTES_MAX, |bytes| bytes.min(DATAGRAM_BYTES_MAX)))
}

/// Returns the congestion control of a connection, which is not the system's.
fn controller(congestion: Congestion) -> Arc<dyn ControllerFactory + Send + Sync> {
    match congestion {
        Congestion::System | Congestion::Cubic => Arc::new(congestion::Factory),
        Congestion::Bbr => Arc::new(BbrConfig::default()),
        Congestion::Reno => Arc::new(NewRenoConfig::default()),
    }
}

/// Most bytes of a connection that the peer may send ahead of the reader: a gigabit per second for a quarter of a second.
pub(super) const WINDOW_BYTES: u32 = 32 << 20;
/// The same when the peer has just been authenticated.
pub(super) const WINDOW_BYTES_FIRST: u32 = 1 << 20;
/// The same before the peer is authenticated, and always.
pub(super) const WINDOW_BYTES_MIN: u32 = 64 << 10;
/// Bytes of the ids of connections.
const ID_BYTES: usize = 8;
/// Packets after which the peer acknowledges, and the time after which it does with fewer. The time is short, because it is added to
/// each round trip of a path with few packets under way, and to the time in which a loss is noticed.
const ACKED_PACKETS: u32 = 10;
const ACK_DELAY: Duration = Duration::from_millis(2);
/// The longest datagram that is received, and that is ever sent.
const DATAGRAM_BYTES_MAX: u16 = 9_000;
/// The longest datagram that is tried on a usual path: one of Ethernet, behind the headers of IPv6.
const DATAGRAM_BYTES_USUAL: u16 = 1_452;
/// The longest packet of Ethernet, and the headers of IP and UDP in front of a datagram.
const ETHERNET_MTU: usize = 1_500;
const HEADERS_V4: usize = 20 + 8;
const HEADERS_V6: usize = 40 + 8;
/// Bytes of messages that wait in a connection, each way.
pub(super) const MESSAGES_BYTES_MAX: usize = 256 << 10;
/// Connections that wait until a handshake is computed, and the bytes of each that wait behind its first datagram. The limit of
/// unauthenticated peers is lower.
const INCOMING_MAX: usize = 1_024;
const INCOMING_BYTES_MAX: u64 = 8 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use quinn_proto::congestion::{Bbr, NewReno};
    use std::time::Instant;

    #[test]
    fn datagrams_are_long_where_the_route_begins_with_longer_packets_than_those_of_ethernet() {
        let [v4, v6, mapped] =
            ["192.0.2.1:1", "[2001:db8::1]:1", "[::ffff:192.0.2.1]:1"].map(|addr| addr.parse().unwrap());
        for usual in [None, Some(1_280), Some(1_500)] {
            assert_eq!(datagram_bytes_max(usual, v4), None);
        }
        assert_eq!(datagram_bytes_max(Some(1_501), v6), Some(1_453));
        assert_eq!([v4, v6, mapped].map(|peer| datagram_bytes_max(Some(9_000), peer)), [8_972, 8_952, 8_972].map(Some));
        assert_eq!(datagram_bytes_max(Some(65_536), v4), Some(9_000));
    }

    #[test]
    fn each_name_of_a_congestion_control_is_that_of_the_connection() {
        for congestion in Congestion::ALL {
            let any = Unsent::default().watch(controller(congestion)).build(Instant::now(), 1_200).into_any();
            let is_it = match congestion {
                Congestion::System | Congestion::Cubic => any.is::<congestion::Cubic>(),
                Congestion::Bbr => any.is::<Bbr>(),
                Congestion::Reno => any.is::<NewReno>(),
            };
            assert!(is_it, "{congestion:?}");
        }
    }
}
