//! The question if a connection has bytes that it was given and has not sent.
//!
//! quinn-proto does not answer it, but it asks its congestion control for the window before each datagram that the window or the
//! pacing may hold back. So if it has asked and makes no datagram, bytes are held back. It does not ask where it may send nothing to
//! an address that the peer has not confirmed (RFC 9000, section 8.2): bytes that it was given and that make no datagram are held
//! back, too. The answer to its question is also where a single datagram is let through that the window holds back.

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
    /// The next datagram may exceed the window.
    passes: bool,
    shared: Arc<Shared>,
}

/// The part that the congestion control knows. A [`Controller`] must be [`Sync`], though one thread uses it.
#[derive(Debug, Default)]
struct Shared {
    /// The congestion control was asked for its window since this was cleared.
    is_asked: AtomicBool,
    /// Its window has no end.
    is_open: AtomicBool,
}

impl Unsent {
    /// Returns true if the connection had bytes left when it made no further datagram.
    pub fn has_any(&self) -> bool {
        self.has_any
    }

    /// Notes that the connection was given bytes.
    pub fn note_given(&mut self) {
        self.is_given = true;
    }

    /// Lets the next datagram exceed the window: bytes that were sent to a silent peer fill it until the peer answers.
    pub fn let_one_pass(&mut self) {
        self.passes = true;
    }

    /// Asks a connection for its next datagrams, and notes if it has more to send.
    pub fn poll(
        &mut self,
        connection: &mut Connection,
        now: Instant,
        datagrams_max: usize,
        out: &mut Vec<u8>,
    ) -> Option<Transmit> {
        let passes = std::mem::take(&mut self.passes);
        self.shared.is_asked.store(false, Ordering::Relaxed);
        self.shared.is_open.store(passes, Ordering::Relaxed);
        let transmit = connection.poll_transmit(now, if passes { 1 } else { datagrams_max }, out);
        self.shared.is_open.store(false, Ordering::Relaxed);
        self.is_given &= transmit.is_none();
        self.has_any = self.is_given || self.shared.is_asked.load(Ordering::Relaxed);
        transmit
    }

    /// Returns a factory of congestion controls like another one, which note that they are asked.
    pub fn watch(&self, inner: Arc<dyn ControllerFactory + Send + Sync>) -> Arc<dyn ControllerFactory + Send + Sync> {
        Arc::new(Watched { inner, shared: Arc::clone(&self.shared) })
    }
}

/// A congestion control, or its factory, that notes when it is asked for the window.
struct Watched<T: ?Sized> {
    shared: Arc<Shared>,
    inner: T,
}

impl ControllerFactory for Watched<Arc<dyn ControllerFactory + Send + Sync>> {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        Box::new(Watched { inner: Arc::clone(&self.inner).build(now, mtu), shared: Arc::clone(&self.shared) })
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
        self.shared.is_asked.store(true, Ordering::Relaxed);
        if self.shared.is_open.load(Ordering::Relaxed) { u64::MAX } else { self.inner.window() }
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Watched { inner: self.inner.clone_box(), shared: Arc::clone(&self.shared) })
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

    use quinn_proto::congestion::NewRenoConfig;
    use quinn_proto::{ClientConfig, Endpoint, TransportConfig};

    use super::super::config;
    use super::*;
    use crate::transport::{Congestion, Setup, client_tls};

    /// Returns a connection with this configuration to a peer that does not answer.
    fn connection(config: Arc<TransportConfig>, now: Instant) -> Connection {
        let mut client = ClientConfig::new(client_tls(&Setup::of_tests()).unwrap().quic_client().unwrap());
        client.transport_config(config);
        let mut endpoint = Endpoint::new(Arc::new(config::endpoint(&[7; 32])), None, true, None);
        let peer = "127.0.0.1:1".parse().unwrap();
        endpoint.connect(now, client, peer, "seaprox.invalid").unwrap().1
    }

    #[test]
    fn one_datagram_may_exceed_the_window() {
        let (mut unsent, now, mut out) = (Unsent::default(), Instant::now(), Vec::new());
        let (mut closed, mut config) = (NewRenoConfig::default(), TransportConfig::default());
        closed.initial_window(0);
        config.congestion_controller_factory(unsent.watch(Arc::new(closed)));
        let mut connection = connection(Arc::new(config), now);
        assert!(unsent.poll(&mut connection, now, 1, &mut out).is_none());
        assert!(unsent.has_any());
        unsent.let_one_pass();
        assert!(unsent.poll(&mut connection, now, 10, &mut out).is_some_and(|sent| sent.segment_size.is_none()));
        connection.ping();
        out.clear();
        assert!(unsent.poll(&mut connection, now, 1, &mut out).is_none());
    }

    /// The window lets all through that there is.
    #[test]
    fn bytes_that_were_given_and_made_no_datagram_are_held_back() {
        let (mut unsent, mut now, mut out) = (Unsent::default(), Instant::now(), Vec::new());
        let mut connection = connection(config::transport(Congestion::System, None, &unsent), now);
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
