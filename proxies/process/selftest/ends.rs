//! The two ends of the link under test: two loops in two threads, with keys that were made for this and are forgotten.
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
use seaprox::node::{Happened, Identity, LinkConfig, LinkStatus, PeerKey, Policy, ServeConfig, Verdict};
use seaprox::{
    Bind, Bound, Config, Core, Endpoint, Handler, Limits, Loops, Proxy, Reason, Remote, Setup, Target, bind,
};

use super::relay::Relay;
use crate::frontends::access::Gate;
use crate::frontends::socks::Socks;

/// Both ends, and what is between them.
pub struct Ends {
    /// What is between them.
    pub relay: Relay,
    near: Option<Loops>,
    far: Option<Loops>,
    socks: SocketAddr,
    told: Receiver<Happened>,
}

/// Lets one key in, and lets it open everything but one port.
struct Only {
    key: PublicKey,
    forbidden: u16,
}

impl Policy for Only {
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

impl Ends {
    /// Starts both ends; the far one may not open `forbidden`.
    ///
    /// # Errors
    /// What keeps one of them from starting.
    pub fn start(forbidden: u16) -> Result<Ends, String> {
        let words = |error: io::Error| error.to_string();
        let key = || NodeKey::generate().map_err(|error| error.to_string());
        let (near_key, far_key) = (key()?, key()?);
        let config = Config { limits: Limits { connections: 64, ..Limits::default() }, ..Config::default() };
        let (near_bound, socks) = loopback(&config).map_err(words)?;
        let (far_bound, addr) = loopback(&config).map_err(words)?;
        let let_in = Arc::new(Only { key: near_key.public(), forbidden });
        let far =
            Loops::start(1, &config, None, far_bound, &far_setup(Identity::new(&far_key), let_in)).map_err(words)?;
        let relay = Relay::start(addr).map_err(words)?;
        let (tell, told) = mpsc::channel();
        let dialled = Arc::new(Only { key: far_key.public(), forbidden });
        let setup = near_setup(Identity::new(&near_key), dialled, relay.addr().into(), tell);
        let near = Loops::start(1, &config, None, near_bound, &setup).map_err(words)?;
        Ok(Ends { relay, near: Some(near), far: Some(far), socks, told })
    }

    /// Where SOCKS clients are taken in.
    pub fn socks(&self) -> SocketAddr {
        self.socks
    }

    /// Waits for the link.
    ///
    /// # Errors
    /// The last that was heard of it.
    pub fn wait_until_up(&self, patience: Duration) -> Result<(), String> {
        let (since, mut last) = (Instant::now(), "nothing happened".to_owned());
        while let Ok(happened) = self.told.recv_timeout(patience.saturating_sub(since.elapsed())) {
            match happened {
                Happened::Up { .. } => return Ok(()),
                other => last = format!("{other:?}"),
            }
        }
        Err(format!("the link is not up after {}s: {last}", patience.as_secs()))
    }

    /// What the near end says of the link.
    ///
    /// # Errors
    /// It does not answer, or knows of no link.
    pub fn status(&self) -> Result<LinkStatus, String> {
        let links = ask(self.near.as_ref(), "near", |core| core.links())?;
        links.into_iter().next().ok_or_else(|| "the near end knows of no link".to_owned())
    }

    /// How many connections have ended for each reason, at the near end and at the far one.
    ///
    /// # Errors
    /// One of them does not answer.
    pub fn closed(&self) -> Result<[Closed; 2], String> {
        let counts = |core: &mut Core| core.totals().closed().collect();
        Ok([ask(self.near.as_ref(), "near", counts)?, ask(self.far.as_ref(), "far", counts)?])
    }
}

/// How many connections have ended for each reason.
pub type Closed = Vec<(Reason, u64)>;

/// Asks the loop of an end something.
fn ask<T: Send + 'static>(loops: Option<&Loops>, end: &str, what: fn(&mut Core) -> T) -> Result<T, String> {
    let (tell, told) = mpsc::channel();
    for remote in loops.map_or(&[][..], Loops::remotes) {
        let tell = tell.clone();
        // A loop whose mailbox is full does not answer; the error below reports that.
        let _ = remote.call(move |core| drop(tell.send(what(core))));
    }
    told.recv_timeout(PATIENCE).map_err(|_| format!("the {end} end does not answer"))
}

impl Drop for Ends {
    fn drop(&mut self) {
        for loops in [self.near.take(), self.far.take()].into_iter().flatten() {
            for remote in loops.remotes() {
                // One that is full is about to see that it has ended.
                let _ = remote.call(Core::stop);
            }
            // How it ended was told by the checks.
            let _ = loops.join();
        }
    }
}

fn loopback(config: &Config) -> io::Result<(Vec<Bound>, SocketAddr)> {
    let bounds = bind(&Bind::Ip((Ipv4Addr::LOCALHOST, 0).into()), 1, config)?;
    match bounds.first().map(Bound::addr) {
        Some(Endpoint::Ip(addr)) => {
            let addr = *addr;
            Ok((bounds, addr))
        }
        _ => Err(io::ErrorKind::AddrNotAvailable.into()),
    }
}

fn far_setup(identity: Identity, policy: Arc<Only>) -> Setup {
    Arc::new(move |proxy: &mut Proxy, _: &[Remote], bounds: &mut [Bound]| {
        for bound in bounds {
            let policy: Arc<dyn Policy> = Arc::<Only>::clone(&policy);
            let config = ServeConfig::new(identity.clone(), policy);
            proxy.core().serve_links(bound, config)?;
        }
        Ok(())
    })
}

fn near_setup(identity: Identity, policy: Arc<Only>, peer: Target, tell: Sender<Happened>) -> Setup {
    Arc::new(move |proxy: &mut Proxy, all: &[Remote], bounds: &mut [Bound]| {
        let tell = tell.clone();
        let policy: Arc<dyn Policy> = Arc::<Only>::clone(&policy);
        let config = LinkConfig {
            subflows: SUBFLOWS,
            // Whoever waited may have given up.
            watch: Box::new(move |_, _, happened| drop(tell.send(happened.clone()))),
            ..LinkConfig::new(identity.clone(), policy, peer.clone())
        };
        let core = proxy.core();
        let link = core.connect_link(config)?;
        let gate = Arc::new(Gate::default().over_link());
        for bound in bounds {
            let gate = Arc::clone(&gate);
            let front = move || -> Box<dyn Handler> { Box::new(Socks::new(Arc::clone(&gate))) };
            let listener = core.listen(bound, all, "socks", Box::new(front))?;
            core.route_listener(listener, link);
        }
        Ok(())
    })
}

/// Subflows of the link under test.
pub const SUBFLOWS: usize = 2;
const PATIENCE: Duration = Duration::from_secs(5);
