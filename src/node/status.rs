//! The status of links, as plain data.

use std::net::SocketAddr;
use std::time::Duration;

use crate::engine::core::Core;
use crate::link::Session;
use crate::types::address::Endpoint;
use crate::types::id::Id;
use crate::types::reason::Failure;

use super::carrier::{Carrier, CarrierStage};
use super::control::Node;
use super::dialer::Dialer;
use super::link::Link;
use super::reverse::Remote;

/// One link.
#[derive(Clone, Debug)]
pub struct LinkStatus {
    /// Its id.
    pub id: Id,
    /// Where it was dialled to, or where its peer came from.
    pub peer: String,
    /// What the policy calls the peer.
    pub name: String,
    /// The peer's key, once it is known.
    pub key: Option<[u8; 32]>,
    /// Whether this node dialled it.
    pub dialled: bool,
    /// `connecting`, `up`, `suspended`, `draining` (its peer is about to stop, and another session is dialled) or `ended`.
    pub state: &'static str,
    /// Time since the link entered this state.
    pub state_for: Duration,
    /// Age of the link, over all its sessions.
    pub age: Duration,
    /// Age of the session, if there is one.
    pub session_age: Option<Duration>,
    /// The last failure and the time since it, if the link is not up.
    pub failure: Option<(Failure, Duration)>,
    /// The missing subflows.
    pub missing: Vec<MissingStatus>,
    /// How its subflows are used: `stripe`, `single` or `redundant`.
    pub mode: &'static str,
    /// Bytes of memory of the link: for data that the peer has not acknowledged, and for received data that was not read.
    pub memory: (u64, u64),
    /// The cipher of its first subflow.
    pub cipher: Option<&'static str>,
    /// Its subflows.
    pub subflows: Vec<SubflowStatus>,
    /// Streams that live.
    pub streams: usize,
    /// Bytes of payload sent, and received.
    pub bytes: (u64, u64),
    /// Bytes of payload that were sent again.
    pub resent_bytes: u64,
    /// Times that it had lost all subflows and went on.
    pub resumes: u64,
    /// Places where the peer listens for us, and where we listen for it.
    pub listeners: Vec<ListenerStatus>,
}

/// A missing subflow.
#[derive(Clone, Debug)]
pub struct MissingStatus {
    /// Path of the subflow, in the form of `--path`.
    pub path: String,
    /// Tries in a row that failed.
    pub tries: u32,
    /// Failure of the last try, and the time since it.
    pub failure: Option<(Failure, Duration)>,
    /// Time until the next try; none while one is under way.
    pub next: Option<Duration>,
}

/// One subflow.
#[derive(Clone, Debug)]
pub struct SubflowStatus {
    /// Its number in the session.
    pub number: Option<u16>,
    /// Our end, and the peer's.
    pub local: String,
    /// Our end as the peer sees it, which differs where an address is translated on the way.
    pub seen_as: Option<SocketAddr>,
    /// The peer's end.
    pub remote: String,
    /// `connecting`, `securing`, `greeting`, `live` or `suspect`.
    pub state: &'static str,
    /// Round trip.
    pub rtt: Duration,
    /// Rate of the subflow in bytes per second, once traffic has filled and so measured it.
    pub rate: Option<u64>,
    /// Bytes on the wire, TLS included: sent, and received.
    pub bytes: (u64, u64),
}

/// One listener that belongs to a link.
#[derive(Clone, Debug)]
pub struct ListenerStatus {
    /// Where it listens.
    pub place: String,
    /// Where its clients go.
    pub to: String,
    /// Whether the peer listens for us; otherwise we for it.
    pub remote: bool,
    /// The port, once it is bound.
    pub port: Option<u16>,
    /// Why it does not listen.
    pub failure: Option<String>,
}

impl Node {
    pub(super) fn link_status(&self, core: &Core, id: Id, link: &Link) -> LinkStatus {
        let session = core.pools.sessions.session(id);
        let stats = session.map(|session| session.stats()).unwrap_or_default();
        let carriers = link.carriers.iter().filter_map(|carrier| self.carriers.get(*carrier));
        let ours = link.listeners.values().flat_map(|ours| &ours.indices);
        let ours = ours.filter_map(|index| core.listeners.get(*index as usize));
        let ours = ours.map(|listener| ListenerStatus {
            place: address(listener.addr()),
            to: core.pools.sessions.name(id).to_owned(),
            remote: false,
            port: listener.addr().ip().map(|addr| addr.port()),
            failure: None,
        });
        let ago = |(failure, at_ms): &(Failure, u64)| (failure.clone(), self.ago(core, *at_ms));
        let (state, since_ms) = link.state_since;
        let name = core.pools.sessions.name(id);
        let now_state = link.state(session);
        LinkStatus {
            id,
            peer: link.place.to_string(),
            name: name.to_owned(),
            key: link.key,
            dialled: link.is_dialled(),
            state: now_state,
            state_for: if state == now_state { self.ago(core, since_ms) } else { Duration::ZERO },
            age: self.ago(core, link.opened_ms),
            session_age: link.up_ms.map(|up_ms| self.ago(core, up_ms)),
            failure: link.failed.as_ref().filter(|_| now_state != "up").map(ago),
            missing: link.dialer.iter().flat_map(|dialer| self.missing(core, dialer)).collect(),
            mode: link.mode.as_str(),
            memory: session.map_or((0, 0), |session| (session.sent_cost(), session.received_cost())),
            cipher: link.cipher,
            subflows: carriers.map(|carrier| Self::subflow_status(core, session, carrier)).collect(),
            streams: session.map_or(0, |session| session.streams_live()),
            bytes: (stats.data_bytes[0], stats.data_bytes[1]),
            resent_bytes: stats.resent_bytes,
            resumes: stats.resumes,
            listeners: link.remotes.iter().map(Remote::status).chain(ours).collect(),
        }
    }

    /// Returns the missing subflows of a plan.
    fn missing<'a>(&'a self, core: &'a Core, dialer: &'a Dialer) -> impl Iterator<Item = MissingStatus> + 'a {
        dialer.slots.iter().filter(|slot| slot.up_ms.is_none() && !slot.removed).map(|slot| MissingStatus {
            path: slot.path.to_text(&dialer.peer),
            tries: slot.tries,
            failure: slot.failed.as_ref().map(|(failure, at_ms)| (failure.clone(), self.ago(core, *at_ms))),
            next: slot.carrier.is_none().then(|| Duration::from_millis(slot.next_ms.saturating_sub(core.now_ms))),
        })
    }

    fn ago(&self, core: &Core, at_ms: u64) -> Duration {
        Duration::from_millis(core.now_ms.saturating_sub(at_ms))
    }

    fn subflow_status(core: &Core, session: Option<&Session>, carrier: &Carrier) -> SubflowStatus {
        let path = session.zip(carrier.subflow).and_then(|(session, id)| session.path(id));
        let (rtt_us, _, _, suspect) = path.unwrap_or_default();
        let rate = session.zip(carrier.subflow).and_then(|(session, id)| session.measured_rate(id));
        let side = core.sides.get(carrier.side);
        SubflowStatus {
            number: carrier.subflow.map(|subflow| subflow.0),
            local: side.map_or_else(String::new, |side| address(&side.io.local())),
            seen_as: carrier.seen_as,
            remote: side.map_or_else(String::new, |side| address(&side.endpoint)),
            state: match carrier.stage {
                CarrierStage::Dialling => "connecting",
                CarrierStage::Securing => "securing",
                CarrierStage::Greeting => "greeting",
                CarrierStage::Live if suspect => "suspect",
                CarrierStage::Live => "live",
                CarrierStage::Farewell => "closing",
            },
            rtt: Duration::from_micros(rtt_us),
            rate,
            bytes: carrier.bytes,
        }
    }
}

fn address(endpoint: &Endpoint) -> String {
    endpoint.ip().map_or_else(|| endpoint.to_string(), |addr| addr.to_string())
}
