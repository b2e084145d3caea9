//! The two ends of the link under test: two loops in two threads, with new keys that are in no file.
//!
//! ```text
//!   checks --SOCKS--> near loop ===== relay ===== far loop ----> echo
//! ```

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use seaprox::auth::{NodeKey, PublicKey};
use seaprox::node::{Identity, LinkConfig, LinkEvent, LinkStatus, PeerKey, Policy, ServeConfig, Verdict};
use seaprox::{
    Bind, Bound, Config, Endpoint, Limits, ListenConfig, Loop, Loops, Proxy, Reason, Remote, Setup, Target, bind,
};

use super::relay::Relay;
use crate::frontends::access::AccessPolicy;
use crate::frontends::socks;

/// Both ends, and the relay between them.
pub struct LinkEnds {
    /// The relay that carries the link.
    pub relay: Relay,
    near: Option<Loops>,
    far: Option<Loops>,
    socks: SocketAddr,
    /// The events of the link at the near end.
    events: Receiver<LinkEvent>,
}

/// A policy that admits one key, and permits it to open every target but one port.
struct OneKeyPolicy {
    key: PublicKey,
    forbidden: u16,
}

impl Policy for OneKeyPolicy {
    fn admits(&self, key: &PeerKey) -> bool {
        self.key.as_bytes() == key
    }

    fn name(&self, _key: &PeerKey) -> String {
        "selftest".to_owned()
    }

    fn may_open(&self, _key: &PeerKey, target: &Target) -> Verdict {
        if target.port() == Some(self.forbidden) { Verdict::No } else { Verdict::Yes }
    }
}

impl LinkEnds {
    /// Starts both ends. The far end refuses targets with the port `forbidden`.
    ///
    /// # Errors
    /// Fails if one of the ends cannot be started.
    pub fn start(forbidden: u16) -> Result<LinkEnds, String> {
        let text = |error: io::Error| error.to_string();
        let key = || NodeKey::generate().map_err(|error| error.to_string());
        let (near_key, far_key) = (key()?, key()?);
        let config = Config { limits: Limits { connections: 64, ..Limits::default() }, ..Config::default() };
        let (near_bound, socks) = loopback(&config).map_err(text)?;
        let (far_bound, addr) = loopback(&config).map_err(text)?;
        let accepted = Arc::new(OneKeyPolicy { key: near_key.public(), forbidden });
        let far =
            Loops::start(1, &config, None, far_bound, &far_setup(Identity::new(&far_key), accepted)).map_err(text)?;
        let relay = Relay::start(addr).map_err(text)?;
        let (sender, events) = mpsc::channel();
        let dialed = Arc::new(OneKeyPolicy { key: far_key.public(), forbidden });
        let setup = near_setup(Identity::new(&near_key), dialed, relay.addr().into(), sender);
        let near = Loops::start(1, &config, None, near_bound, &setup).map_err(text)?;
        Ok(LinkEnds { relay, near: Some(near), far: Some(far), socks, events })
    }

    /// Returns the address for SOCKS clients.
    pub fn socks(&self) -> SocketAddr {
        self.socks
    }

    /// Waits until the link is up.
    ///
    /// # Errors
    /// Fails after the timeout with the last event of the link.
    pub fn wait_until_up(&self, timeout: Duration) -> Result<(), String> {
        let (since, mut last) = (Instant::now(), "no event".to_owned());
        while let Ok(event) = self.events.recv_timeout(timeout.saturating_sub(since.elapsed())) {
            match event {
                LinkEvent::Up { .. } => return Ok(()),
                other => last = format!("{other:?}"),
            }
        }
        Err(format!("the link is not up after {}s; its last event: {last}", timeout.as_secs()))
    }

    /// Returns the status of the link at the near end.
    ///
    /// # Errors
    /// Fails if the near end does not answer or has no link.
    pub fn status(&self) -> Result<LinkStatus, String> {
        let links = ask(self.near.as_ref(), "near", |core| core.links())?;
        links.into_iter().next().ok_or_else(|| "the near end has no link".to_owned())
    }

    /// Returns the number of ended connections for each reason, at the near end and at the far end.
    ///
    /// # Errors
    /// Fails if one of the ends does not answer.
    pub fn closed(&self) -> Result<[Closed; 2], String> {
        let counts = |core: &mut Loop<'_>| core.totals().closed().collect();
        Ok([ask(self.near.as_ref(), "near", counts)?, ask(self.far.as_ref(), "far", counts)?])
    }
}

/// The number of ended connections for each reason.
pub type Closed = Vec<(Reason, u64)>;

/// Runs `question` in the loop of an end. Returns its answer.
fn ask<T: Send + 'static>(loops: Option<&Loops>, end: &str, question: fn(&mut Loop<'_>) -> T) -> Result<T, String> {
    let (sender, receiver) = mpsc::channel();
    for remote in loops.map_or(&[][..], Loops::remotes) {
        let sender = sender.clone();
        // A loop whose mailbox is full does not answer; the error below reports that.
        let _ = remote.call(move |core| drop(sender.send(question(core))));
    }
    receiver.recv_timeout(TIMEOUT).map_err(|_| format!("the {end} end does not answer"))
}

impl Drop for LinkEnds {
    fn drop(&mut self) {
        for loops in [self.near.take(), self.far.take()].into_iter().flatten() {
            for remote in loops.remotes() {
                // The mailbox holds the few calls of the checks, so it is not full here.
                let _ = remote.call(|core| core.stop());
            }
            // The checks have reported all errors that matter.
            let _ = loops.join();
        }
    }
}

fn loopback(config: &Config) -> io::Result<(Vec<Bound>, SocketAddr)> {
    let bounds = bind(&Bind::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))), 1, config)?;
    match bounds.first().map(Bound::addr) {
        Some(Endpoint::Ip(_, addr)) => {
            let addr = *addr;
            Ok((bounds, addr))
        }
        _ => Err(io::ErrorKind::AddrNotAvailable.into()),
    }
}

fn far_setup(identity: Identity, policy: Arc<OneKeyPolicy>) -> Setup {
    Arc::new(move |proxy: &mut Proxy, _: &[Remote], bounds: &mut [Bound]| {
        for bound in bounds {
            let policy: Arc<dyn Policy> = Arc::<OneKeyPolicy>::clone(&policy);
            let config = ServeConfig::new(identity.clone(), policy);
            proxy.core().serve_links(bound, config)?;
        }
        Ok(())
    })
}

fn near_setup(identity: Identity, policy: Arc<OneKeyPolicy>, peer: Target, sender: Sender<LinkEvent>) -> Setup {
    Arc::new(move |proxy: &mut Proxy, _: &[Remote], bounds: &mut [Bound]| {
        let sender = sender.clone();
        let policy: Arc<dyn Policy> = Arc::<OneKeyPolicy>::clone(&policy);
        let config = LinkConfig {
            subflows: SUBFLOWS,
            on_event: Box::new(move |_, _, event| drop(sender.send(event.clone()))),
            ..LinkConfig::new(identity.clone(), policy, peer.clone())
        };
        let core = &mut proxy.core();
        let link = core.connect_link(config)?.id;
        let access = Arc::new(AccessPolicy::default().over_link());
        for bound in bounds {
            let access = Arc::clone(&access);
            let front_end = Box::new(move || socks::handler(Arc::clone(&access), Default::default()));
            core.listen(bound, ListenConfig { link: Some(link), ..ListenConfig::new("socks", front_end) })?;
        }
        Ok(())
    })
}

/// Subflows of the link under test.
pub const SUBFLOWS: usize = 2;
/// Longest wait for the answer of a loop.
const TIMEOUT: Duration = Duration::from_secs(5);
