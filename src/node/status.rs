//! The status of links, as plain data.

use std::net::SocketAddr;
use std::time::Duration;

use crate::address::Endpoint;
use crate::core::Core;
use crate::id::Id;

use super::carrier::{Carrier, Stage};
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
    /// `connecting`, `up`, `parted`, `draining` (its peer is about to stop, and another session is dialled) or `ended`.
    pub state: &'static str,
    /// How long it has been there.
    pub age: Duration,
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
    /// Bytes per second that it is reckoned to carry.
    pub rate: u64,
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

impl Core {
    pub(super) fn link_status(&self, id: Id, link: &Link) -> LinkStatus {
        let stats = link.session.as_ref().map(|session| session.stats()).unwrap_or_default();
        let carriers = link.carriers.iter().filter_map(|carrier| self.pools.links.carriers.get(*carrier));
        let ours = link.listeners.values().flat_map(|ours| &ours.indices);
        let ours = ours.filter_map(|index| self.listeners.get(*index as usize));
        let ours = ours.map(|listener| ListenerStatus {
            place: address(listener.addr()),
            to: link.name.to_string(),
            remote: false,
            port: listener.addr().ip().map(|addr| addr.port()),
            failure: None,
        });
        LinkStatus {
            id,
            peer: link.place.to_string(),
            name: link.name.to_string(),
            key: link.key,
            dialled: link.is_dialled(),
            state: link.state(),
            age: Duration::from_millis(self.now_ms.saturating_sub(link.opened_ms)),
            cipher: link.cipher,
            subflows: carriers.map(|carrier| self.subflow_status(link, carrier)).collect(),
            streams: link.session.as_ref().map_or(0, |session| session.streams_live()),
            bytes: (stats.data_bytes[0], stats.data_bytes[1]),
            resent_bytes: stats.resent_bytes,
            resumes: stats.resumes,
            listeners: link.remotes.iter().map(Remote::status).chain(ours).collect(),
        }
    }

    fn subflow_status(&self, link: &Link, carrier: &Carrier) -> SubflowStatus {
        let path = link.session.as_ref().zip(carrier.subflow).and_then(|(session, id)| session.path(id));
        let (rtt_us, rate, _, suspect) = path.unwrap_or_default();
        let side = self.sides.get(carrier.side);
        SubflowStatus {
            number: carrier.subflow.map(|subflow| subflow.0),
            local: side.map_or_else(String::new, |side| address(&side.io.local())),
            seen_as: carrier.seen_as,
            remote: side.map_or_else(String::new, |side| address(&side.endpoint)),
            state: match carrier.stage {
                Stage::Dialling => "connecting",
                Stage::Securing => "securing",
                Stage::Greeting => "greeting",
                Stage::Live if suspect => "suspect",
                Stage::Live => "live",
                Stage::Farewell => "closing",
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
