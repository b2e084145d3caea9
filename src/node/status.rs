//! The status of links, as plain data.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::engine::core::Core;
use crate::link::{self, RoundTrips, Session};
use crate::metrics::{BOUNDS_US, Histogram, LinkStats};
use crate::transport::PathFigures;
use crate::types::address::Endpoint;
use crate::types::id::Id;
use crate::types::link_state::LinkState;
use crate::types::reason::Failure;

use super::carrier::{Carrier, CarrierStage};
use super::control::Node;
use super::dialer::{Dialer, SubflowSlot};
use super::link::Link;
use super::reverse::Remote;

/// The status of one link.
#[derive(Clone, Debug)]
pub struct LinkStatus {
    /// The id of the link.
    pub id: Id,
    /// The address that was dialed, or the address of the peer that dialed.
    pub peer: String,
    /// The name of the peer.
    pub name: String,
    /// The key of the peer, once it is known.
    pub key: Option<[u8; 32]>,
    /// True if this node dialed the link.
    pub dialled: bool,
    /// The state.
    pub state: LinkState,
    /// Time since the link entered this state.
    pub state_for: Duration,
    /// Consecutive failed tries of the missing subflow that was tried most.
    pub tries: u32,
    /// Age of the link, over all its sessions.
    pub age: Duration,
    /// Age of the session, if there is one.
    pub session_age: Option<Duration>,
    /// The last failure and the time since it, if the link is not up.
    pub failure: Option<(Failure, Duration)>,
    /// The missing subflows: one of them is a path that carries nothing, or over which only QUIC passes.
    pub missing: Vec<MissingStatus>,
    /// The subflows of QUIC that are to be beside TCP (`--carrier auto`) and are not up, because UDP does not pass, or because the
    /// peer has no QUIC. The link needs none of them.
    pub blocked: Vec<MissingStatus>,
    /// The distribution over subflows: `stripe`, `single` or `redundant`.
    pub mode: &'static str,
    /// Bytes of memory of the link: for data that the peer has not acknowledged, and for received data that was not read.
    pub memory: (u64, u64),
    /// The cipher of its first subflow.
    pub cipher: Option<&'static str>,
    /// The established subflows, and those that are being established.
    pub subflows: Vec<SubflowStatus>,
    /// Number of streams.
    pub streams: usize,
    /// Counts of the present session.
    pub stats: LinkStats,
    /// Listeners of the peer for this node, and of this node for the peer.
    pub listeners: Vec<LinkListenerStatus>,
}

/// A missing subflow.
#[derive(Clone, Debug)]
pub struct MissingStatus {
    /// Path of the subflow, in the form of `--path`.
    pub path: String,
    /// Consecutive failed tries.
    pub tries: u32,
    /// Failure of the last try, and the time since it.
    pub failure: Option<(Failure, Duration)>,
    /// Time until the next try; none while a try is under way.
    pub next: Option<Duration>,
}

/// A stream of a link that is a side now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamStatus {
    /// The number of the stream in its session, the same at both nodes. A session uses no number twice.
    pub number: u32,
    /// The side that the stream is.
    pub side: Id,
    /// The connection of the side.
    pub connection: Id,
}

/// The status of one subflow.
#[derive(Clone, Debug)]
pub struct SubflowStatus {
    /// The number of the subflow in its session.
    pub number: Option<u16>,
    /// The local address.
    pub local: String,
    /// The local address as the peer sees it, which differs behind address translation.
    pub seen_as: Option<SocketAddr>,
    /// The address of the peer.
    pub remote: String,
    /// The transport of its connection, once it is connected: `tcp`, `mptcp`, `sctp`, `quic`, or `unix` for a Unix socket. A subflow that was to have multipath TCP, and
    /// whose system or peer has none, has `tcp`.
    pub carrier: Option<&'static str>,
    /// The key exchange of its connection, once it is negotiated: `X25519MLKEM768` or `X25519`.
    pub group: Option<&'static str>,
    /// The stage of its establishment, and its health after that.
    pub state: SubflowState,
    /// True if it carries data only while no other subflow can: of two carriers over one path, the one that delivers less.
    pub is_backup: bool,
    /// Round-trip time.
    pub rtt: Duration,
    /// Rate of the subflow in bytes per second, once traffic has filled and so measured it.
    pub rate: Option<u64>,
    /// The measurements of its transport, as far as it has any.
    pub figures: Option<PathFigures>,
    /// Bytes on the wire, TLS included: sent, and received.
    pub bytes: (u64, u64),
}

/// The state of a subflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SubflowState {
    /// Its connection is being made.
    Connecting,
    /// The TLS handshake is under way.
    Securing,
    /// The nodes exchange their first frames.
    Greeting,
    /// It carries the frames of the link.
    Live,
    /// It is live, but has been silent for longer than it should be, so other subflows carry the frames.
    Suspect,
    /// It is ending in order.
    Closing,
}

impl SubflowState {
    /// Returns the name of the state in the status.
    pub const fn as_str(self) -> &'static str {
        match self {
            SubflowState::Connecting => "connecting",
            SubflowState::Securing => "securing",
            SubflowState::Greeting => "greeting",
            SubflowState::Live => "live",
            SubflowState::Suspect => "suspect",
            SubflowState::Closing => "closing",
        }
    }
}

impl fmt::Display for SubflowState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The status of one listener of a link.
#[derive(Clone, Debug)]
pub struct LinkListenerStatus {
    /// The address to listen on.
    pub place: String,
    /// The target of its clients.
    pub to: String,
    /// True if the peer listens for this node, false if this node listens for the peer.
    pub remote: bool,
    /// The port, once it is bound.
    pub port: Option<u16>,
    /// The failure, if it does not listen.
    pub failure: Option<String>,
}

impl Node {
    pub(super) fn link_status(&self, core: &Core, id: Id, link: &Link) -> LinkStatus {
        let session = core.pools.sessions.session(id);
        let carriers = link.carriers.iter().filter_map(|carrier| self.carriers.get(*carrier));
        let ours = link.listeners.values().flat_map(|ours| self.shared.indices(ours.shared));
        let ours = ours.filter_map(|index| core.listeners.get(*index));
        let ours = ours.map(|listener| LinkListenerStatus {
            place: address(&listener.addr),
            to: core.pools.sessions.name(id).to_owned(),
            remote: false,
            port: listener.addr.ip().map(|addr| addr.port()),
            failure: None,
        });
        let ago = |(failure, at_ms): &(Failure, u64)| (failure.clone(), self.ago(core, *at_ms));
        let (state, since_ms) = link.state_since;
        let name = core.pools.sessions.name(id);
        let now_state = link.state(session);
        let dialer = link.dialer.as_deref().into_iter();
        LinkStatus {
            id,
            peer: link.place.to_string(),
            name: name.to_owned(),
            key: link.key,
            dialled: link.is_dialed(),
            state: now_state,
            state_for: if state == now_state { self.ago(core, since_ms) } else { Duration::ZERO },
            tries: dialer.clone().flat_map(Dialer::missing_paths).map(|slot| slot.tries).max().unwrap_or(0),
            age: self.ago(core, link.opened_ms),
            session_age: link.up_ms.map(|up_ms| self.ago(core, up_ms)),
            failure: link.failed.as_ref().filter(|_| now_state != LinkState::Up).map(ago),
            missing: dialer
                .clone()
                .flat_map(|it| it.missing_paths().map(|slot| self.missing(core, it, slot)))
                .collect(),
            blocked: dialer.flat_map(|it| it.missing_beside().map(|slot| self.missing(core, it, slot))).collect(),
            mode: link.mode.as_str(),
            memory: session.map_or((0, 0), |session| (session.sent_cost(), session.received_cost())),
            cipher: link.cipher,
            subflows: carriers.map(|carrier| Self::subflow_status(core, session, carrier)).collect(),
            streams: session.map_or(0, |session| session.streams_live()),
            stats: session.map(|session| link_stats(&session.stats())).unwrap_or_default(),
            listeners: link.remotes.iter().map(Remote::status).chain(ours).collect(),
        }
    }

    /// Returns the status of a missing subflow.
    fn missing(&self, core: &Core, dialer: &Dialer, slot: &SubflowSlot) -> MissingStatus {
        MissingStatus {
            path: slot.path.to_text(&dialer.peer),
            tries: slot.tries,
            failure: slot.failed.as_ref().map(|(failure, at_ms)| (failure.clone(), self.ago(core, *at_ms))),
            next: slot.carrier.is_none().then(|| Duration::from_millis(slot.next_ms.saturating_sub(core.now_ms))),
        }
    }

    fn ago(&self, core: &Core, at_ms: u64) -> Duration {
        Duration::from_millis(core.now_ms.saturating_sub(at_ms))
    }

    fn subflow_status(core: &Core, session: Option<&Session>, carrier: &Carrier) -> SubflowStatus {
        let path = session.zip(carrier.subflow).and_then(|(session, id)| session.path(id));
        let (rtt_us, _, _, suspect) = path.unwrap_or_default();
        let is_live = session.zip(carrier.subflow).is_some_and(|(session, id)| session.is_live(id));
        let rate = session.zip(carrier.subflow).and_then(|(session, id)| session.measured_rate(id));
        let side = core.sides.get(carrier.side);
        SubflowStatus {
            number: carrier.subflow.map(|subflow| subflow.0),
            local: side.map_or_else(String::new, |side| address(&carrier.local(side))),
            seen_as: carrier.seen_as,
            remote: side.map_or_else(String::new, |side| address(&side.endpoint)),
            carrier: side.and_then(|side| carrier.name(side)),
            group: carrier.transport.as_ref().and_then(|transport| transport.group()),
            state: match carrier.stage {
                CarrierStage::Dialing => SubflowState::Connecting,
                CarrierStage::Securing => SubflowState::Securing,
                CarrierStage::Greeting | CarrierStage::Invited => SubflowState::Greeting,
                CarrierStage::Live if !is_live => SubflowState::Greeting,
                CarrierStage::Live if suspect => SubflowState::Suspect,
                CarrierStage::Live => SubflowState::Live,
                CarrierStage::Closing => SubflowState::Closing,
            },
            is_backup: session.zip(carrier.subflow).is_some_and(|(session, id)| session.is_backup(id)),
            rtt: Duration::from_micros(rtt_us),
            rate,
            figures: side.and_then(|side| carrier.transport.as_ref()?.figures(side)),
            bytes: carrier.bytes(),
        }
    }
}

const _: () = {
    let (mut at, same) = (0, BOUNDS_US);
    while at < same.len() {
        assert!(same[at] == RoundTrips::BOUNDS_US[at], "round trips are counted by the bounds of histograms");
        at += 1;
    }
};

/// Returns the counts of a session as metrics.
fn link_stats(stats: &link::Stats) -> LinkStats {
    let ([frames_sent, frames_received], [bytes_sent, bytes_received]) = (stats.frames, stats.data_bytes);
    let RoundTrips { counts, sum_us } = stats.round_trips;
    LinkStats {
        round_trip: Histogram::from_counts(counts, sum_us),
        frames_sent,
        frames_received,
        bytes_sent,
        bytes_received,
        resent_bytes: stats.resent_bytes,
        reinjected_bytes: stats.reinjected_bytes,
        repeated_bytes: stats.repeated_bytes,
        resumes: stats.resumes,
        suspicions: stats.suspicions,
        switches: stats.switches,
        late_reinjections: stats.late_reinjections,
        quota_waits: stats.quota_waits,
        late_frames: stats.late_frames,
        stray_frames: stats.stray_frames,
        unopened_given_up: stats.unopened_given_up,
        framing_errors: stats.framing_errors,
    }
}

fn address(endpoint: &Endpoint) -> String {
    endpoint.ip().map_or_else(|| endpoint.to_string(), |addr| addr.to_string())
}
