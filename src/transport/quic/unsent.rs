//! The question if a connection has bytes that it was given and has not sent.
//!
//! quinn-proto does not answer it, but it asks its congestion control for the window before each datagram that the window or the
//! pacing may hold back. So if it has asked and makes no datagram, bytes are held back. It does not ask where it may send nothing to
//! an address that the peer has not confirmed (RFC 9000, section 8.2): bytes that it was given and that make no datagram are held
//! back, too.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use quinn_proto::congestion::{Controller, ControllerFactory, ControllerMetrics};
use quinn_proto::{Connection, RttEstimator, Transmit};

/// The answer for one connection.
#[derive(Debug, Default)]
pub(crate) struct Unsent {
    has_any: bool,
    /// Bytes were given since the last datagram.
    is_given: bool,
    asked: Asked,
}

/// True if a congestion control was asked for its window since this was cleared. A [`Controller`] must be [`Sync`], though one thread
/// uses it.
type Asked = Arc<AtomicBool>;

impl Unsent {
    /// Returns true if the connection had bytes left when it made no further datagram.
    pub fn has_any(&self) -> bool {
        self.has_any
    }

    /// Notes that the connection was given bytes.
    pub fn note_given(&mut self) {
        self.is_given = true;
    }

    /// Asks a connection for its next datagrams, and notes if it has more to send.
    pub fn poll(
        &mut self,
        connection: &mut Connection,
        now: Instant,
        datagrams_max: usize,
        out: &mut Vec<u8>,
    ) -> Option<Transmit> {
        self.asked.store(false, Ordering::Relaxed);
        let transmit = connection.poll_transmit(now, datagrams_max, out);
        self.is_given &= transmit.is_none();
        self.has_any = self.is_given || self.asked.load(Ordering::Relaxed);
        transmit
    }

    /// Returns a factory of congestion controls like another one, which note that they are asked.
    pub fn watch(&self, inner: Arc<dyn ControllerFactory + Send + Sync>) -> Arc<dyn ControllerFactory + Send + Sync> {
        Arc::new(Watched { inner, asked: Arc::clone(&self.asked) })
    }
}

/// A congestion control, or its factory, that notes when it is asked for the window.
struct Watched<T: ?Sized> {
    asked: Asked,
    inner: T,
}

impl ControllerFactory for Watched<Arc<dyn ControllerFactory + Send + Sync>> {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        Box::new(Watched { inner: Arc::clone(&self.inner).build(now, mtu), asked: Arc::clone(&self.asked) })
    }
}

impl Controller for Watched<Box<dyn Controller>> {
    fn on_sent(&mut self, now: Instant, bytes: u64, last: u64) {
        self.inner.on_sent(now, bytes, last);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, is_app_limited: bool, rtt: &RttEstimator) {
        self.inner.on_ack(now, sent, bytes, is_app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, is_app_limited: bool, acked: Option<u64>) {
        self.inner.on_end_acks(now, in_flight, is_app_limited, acked);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent: bool, lost: u64) {
        self.inner.on_congestion_event(now, sent, is_persistent, lost);
    }

    fn on_mtu_update(&mut self, mtu: u16) {
        self.inner.on_mtu_update(mtu);
    }

    fn window(&self) -> u64 {
        self.asked.store(true, Ordering::Relaxed);
        self.inner.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Watched { inner: self.inner.clone_box(), asked: Arc::clone(&self.asked) })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self.inner.into_any()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use quinn_proto::{ClientConfig, Endpoint};

    use super::super::config;
    use super::*;
    use crate::transport::{Congestion, Setup, client_tls};

    /// The peer does not answer, so the window lets all through that there is.
    #[test]
    fn bytes_that_were_given_and_made_no_datagram_are_held_back() {
        let (mut unsent, mut now, mut out) = (Unsent::default(), Instant::now(), Vec::new());
        let mut client = ClientConfig::new(client_tls(&Setup::of_tests()).unwrap().quic_client().unwrap());
        client.transport_config(config::transport(Congestion::System, None, &unsent));
        let mut endpoint = Endpoint::new(Arc::new(config::endpoint(&[7; 32])), None, true, None);
        let peer = "127.0.0.1:1".parse().unwrap();
        let (_, mut connection) = endpoint.connect(now, client, peer, "seaprox.invalid").unwrap();
        let mut poll_all = |unsent: &mut Unsent, connection: &mut Connection, now| {
            let count = std::iter::from_fn(|| {
                out.clear();
                unsent.poll(connection, now, 1, &mut out)
            })
            .count();
            (count > 0, unsent.has_any())
        };
        assert_eq!(poll_all(&mut unsent, &mut connection, now), (true, false));
        unsent.note_given();
        assert_eq!(poll_all(&mut unsent, &mut connection, now), (false, true));
        assert_eq!(poll_all(&mut unsent, &mut connection, now), (false, true), "it lasts until a datagram leaves");
        now += Duration::from_secs(10);
        connection.handle_timeout(now);
        assert_eq!(poll_all(&mut unsent, &mut connection, now), (true, false));
    }
}
