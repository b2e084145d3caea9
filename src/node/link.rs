//! A link: the association with one peer, one session after another.
//!
//! ```text
//!   dialed by this node: no session --first subflow--> Open <--> Suspended --hold time over, or peer restarted--+
//!                        ^                                                                                      |
//!                        +--------------------------- a new session, with back-off -----------------------------+
//!                        Open --the peer is about to stop--> no session, and a record of its own for the old one
//!   dialed by the peer:  Open <--> Suspended --> gone
//! ```

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::link::{BootId, Config, Mode, Session, StreamId, SubflowId};
use crate::streams::LinkSession;
use crate::types::address::Target;
use crate::types::id::Id;
use crate::types::link_state::LinkState;
use crate::types::reason::{Failure, Reason};

use super::config::{OnDatagrams, OnLinkEvent, OnStream, PeerKey, Policy, Preface, Timing};
use super::dialer::{Dialer, LASTED_MS};
use super::memory::{Memory, Usage};
use super::rate_limit::SharedRateLimit;
use super::reverse::{PeerListener, Remote};
use super::waiting::Waiting;

/// The control of one link. Its session is in the core; see [`LinkSession`].
pub(crate) struct Link {
    /// The key of the proofs with which subflows join the session.
    pub secret: [u8; 32],
    /// The present session has had a subflow.
    pub was_established: bool,
    /// The time since which the session is established.
    pub up_ms: Option<u64>,
    pub peer_boot: Option<BootId>,
    pub key: Option<PeerKey>,
    /// The address that was dialed, or the address of the peer that dialed.
    pub place: Rc<str>,
    pub cipher: Option<&'static str>,
    /// The transport that was logged last.
    pub carrier: Option<&'static str>,
    pub policy: Arc<dyn Policy>,
    pub timing: Timing,
    pub mode: Mode,
    pub carriers: Vec<Id>,
    /// Requests to the peer for the observed address of a subflow, by their streams.
    pub address_requests: HashMap<StreamId, SubflowId>,
    /// Dests that wait for the session.
    pub waiting: Waiting,
    /// The dialer of a link that this node dials; none if the peer dials it.
    pub dialer: Option<Box<Dialer>>,
    /// The server at which the peer began the session.
    pub server: Option<Id>,
    /// Listeners of the peer for this node.
    pub remotes: Vec<Remote>,
    /// Number of the forwards that the link ever had at the peer.
    pub remotes_ever: usize,
    /// Listeners of this node for the peer, by the peer's number for them.
    pub listeners: HashMap<u32, PeerListener>,
    pub watch: Watch,
    pub takes: Takes,
    pub takes_datagrams: TakesDatagrams,
    /// Makes the first bytes of connections to targets.
    pub preface: Option<Preface>,
    /// Streams that wait for an approval.
    pub asked: Vec<(Id, Rc<Target>)>,
    /// Listeners for the peer that were closed while its session had no subflow. The next field is the time of the next try
    /// to bind those that could not be bound again.
    pub closed: Vec<(u32, PeerListener)>,
    pub rebind_ms: Option<u64>,
    /// Tries to bind them since the session has a subflow again.
    pub rebind_tries: u32,
    /// The time since which the session has no subflow.
    pub suspended_ms: Option<u64>,
    /// Consecutive takeovers of sessions younger than 10 s.
    pub consecutive_takeovers: u32,
    /// The group that the link belongs to.
    pub group: Option<Id>,
    /// Dests wait for any link of the group.
    pub group_waits: bool,
    /// The link leaves its group: it takes no new stream, and is closed with its last one, or at this time.
    pub leave_by_ms: Option<u64>,
    /// The deadline that is armed for the link.
    pub armed_ms: Option<u64>,
    pub opened_ms: u64,
    /// The memory that is counted for the link in the budget.
    pub usage: Usage,
    /// The last observed state, and the time since which it holds.
    pub state_since: (LinkState, u64),
    /// The last failure of a subflow, and its time.
    pub failed: Option<(Failure, u64)>,
    pub sent: SharedRateLimit,
    pub received: SharedRateLimit,
    /// The peer has sent more than its share of the turn. Its carriers are read again when the waiting events were
    /// delivered.
    pub behind: bool,
    /// The last turn in which an event was delivered.
    pub heard_turn: u64,
    /// The link is being closed, and no session follows.
    pub closing: bool,
    /// Another link is about to take the place of this one, so that its peer may be dialed again.
    pub leaving: bool,
    /// The latest time of the close of the session, while it waits for the close of nested links.
    pub close_by_ms: Option<u64>,
    /// The link whose streams carry this link, if it is a nested one. A hostile peer can nest two links in one another.
    pub outer: Option<Id>,
    /// For a session that was set aside because its peer stops: the link that it belonged to, which dials another session.
    pub heir: Option<Id>,
    /// Time until which the peer or its successor is expected back at any moment.
    pub hasty_until_ms: u64,
}

/// The handler of events; one for all links of a listener.
pub(crate) type Watch = Option<Callback>;

/// A callback of link events, shared by links.
pub(crate) type Callback = Rc<RefCell<OnLinkEvent>>;

/// The maker of handlers for streams; one for all links of a listener.
pub(crate) type Takes = Option<Rc<RefCell<OnStream>>>;

/// The maker of handlers for flows of datagrams; one for all links of a listener.
pub(crate) type TakesDatagrams = Option<Rc<RefCell<OnDatagrams>>>;

impl Link {
    pub fn new(policy: Arc<dyn Policy>, timing: Timing, mode: Mode, place: &str, watch: Watch, now_ms: u64) -> Link {
        Link {
            secret: [0; 32],
            was_established: false,
            up_ms: None,
            peer_boot: None,
            key: None,
            place: place.into(),
            cipher: None,
            carrier: None,
            policy,
            timing,
            mode,
            carriers: Vec::new(),
            address_requests: HashMap::new(),
            waiting: Waiting::default(),
            dialer: None,
            server: None,
            remotes: Vec::new(),
            remotes_ever: 0,
            listeners: HashMap::new(),
            watch,
            takes: None,
            takes_datagrams: None,
            preface: None,
            asked: Vec::new(),
            closed: Vec::new(),
            rebind_ms: None,
            rebind_tries: 0,
            suspended_ms: None,
            consecutive_takeovers: 0,
            group: None,
            group_waits: false,
            leave_by_ms: None,
            armed_ms: None,
            opened_ms: now_ms,
            usage: Usage::default(),
            state_since: (LinkState::Connecting, now_ms),
            failed: None,
            sent: SharedRateLimit::default(),
            received: SharedRateLimit::default(),
            behind: false,
            heard_turn: 0,
            closing: false,
            leaving: false,
            close_by_ms: None,
            outer: None,
            heir: None,
            hasty_until_ms: 0,
        }
    }

    /// Returns true if this node dialed the link, and false if the peer did.
    pub fn is_dialed(&self) -> bool {
        self.dialer.is_some() || self.heir.is_some()
    }

    /// Moves what belongs to the session to a record of its own. This link, whose id is `own`, is dialed again: at once, or
    /// after a pause if the session was established only a moment ago.
    pub fn set_aside(&mut self, own: Id, now_ms: u64) -> Link {
        let lasted = self.up_ms.is_some_and(|up_ms| now_ms.saturating_sub(up_ms) >= LASTED_MS);
        let (policy, timing) = (Arc::clone(&self.policy), self.timing.clone());
        let aside = Link {
            secret: self.secret,
            was_established: std::mem::take(&mut self.was_established),
            up_ms: self.up_ms.take(),
            peer_boot: self.peer_boot.take(),
            key: self.key,
            cipher: self.cipher,
            carriers: std::mem::take(&mut self.carriers),
            usage: std::mem::take(&mut self.usage),
            address_requests: std::mem::take(&mut self.address_requests),
            remotes: self.remotes.clone(),
            listeners: std::mem::take(&mut self.listeners),
            takes: self.takes.clone(),
            preface: self.preface.clone(),
            asked: std::mem::take(&mut self.asked),
            opened_ms: self.opened_ms,
            sent: self.sent.clone(),
            received: self.received.clone(),
            behind: std::mem::take(&mut self.behind),
            heir: Some(own),
            outer: self.outer,
            ..Link::new(policy, timing, self.mode, &self.place, None, now_ms)
        };
        self.forget_peer_listeners();
        self.remotes.iter_mut().for_each(Remote::forget);
        self.expect_back(now_ms);
        if let Some(dialer) = &mut self.dialer {
            dialer.leave_all(if lasted { None } else { Some(now_ms) }, self.timing.redial.0);
        }
        aside
    }

    /// Forgets the listeners that were to be bound again, because the session is over.
    pub fn forget_peer_listeners(&mut self) {
        self.closed.clear();
        (self.rebind_ms, self.suspended_ms, self.rebind_tries) = (None, None, 0);
    }

    /// Notes that the peer or its successor is expected back at any moment.
    pub fn expect_back(&mut self, now_ms: u64) {
        self.hasty_until_ms = now_ms + HASTY_MS;
    }

    /// Returns the longest pause between two tries to reach the peer, after a try that failed for this reason.
    pub fn longest_pause(&self, session: &LinkSession, failed: Reason, now_ms: u64) -> Duration {
        let Timing { redial: (_, longest), redial_awaited, redial_beside, .. } = self.timing;
        let is_open = session.session.as_ref().is_some_and(Session::is_open);
        let soon = match () {
            () if is_open && is_of_network(failed) => longest.min(redial_beside),
            () if self.is_awaited(session) => longest.min(redial_awaited),
            () => longest,
        };
        if now_ms < self.hasty_until_ms { soon.min(HASTY_PAUSE) } else { soon }
    }

    /// Notes the key that the peer has shown. Its rate is the one that the policy has for the key.
    pub fn note_key(&mut self, key: PeerKey, cipher: Option<&'static str>) {
        self.key = Some(key);
        self.cipher = cipher;
        self.set_rate(&key);
    }

    /// Applies the present rate of the policy.
    pub fn set_rate(&self, key: &PeerKey) {
        let rate = self.policy.rate_max(key);
        self.sent.set_rate(rate);
        self.received.set_rate(rate);
    }

    /// Returns the number of streams that the peer may have open at once, by the present policy.
    pub fn streams_permitted(&self) -> u32 {
        let Some(key) = &self.key else { return self.timing.streams };
        if self.remotes.is_empty() && !self.policy.may_open_any(key) {
            return 0;
        }
        let max = self.policy.streams_max(key).unwrap_or(self.timing.streams);
        max.saturating_add(u32::try_from(self.timing.subflows).unwrap_or(0))
    }

    /// Returns the limits and timers of a new session. The budget of memory decides about the window.
    pub fn session_config(&self, memory: &Memory) -> Config {
        let us = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let Timing { keepalive, dead, hold, handshake, memory_bytes, streams, subflows, .. } = self.timing;
        let base = Config::default();
        Config {
            mode: self.mode,
            keepalive_us: us(keepalive),
            dead_us: us(dead),
            hold_us: us(hold),
            handshake_us: us(handshake),
            session_window_bytes: (memory.first_window(self.key.as_ref(), memory_bytes), memory_bytes),
            stream_window_bytes: (
                base.stream_window_bytes.0.min(memory_bytes),
                base.stream_window_bytes.1.min(memory_bytes),
            ),
            send_bytes_max: memory_bytes,
            unsent_bytes_max: base.unsent_bytes_max.min(memory_bytes),
            streams_max: streams,
            // The peer opens one stream for each subflow to request its observed address; they come on top of the policy's
            // number.
            streams_permitted: self.streams_permitted(),
            subflows_max: subflows,
            ..base
        }
    }

    /// Returns true if a peer with this key dialed this link, and the link is not closing.
    pub fn is_served_to(&self, key: &PeerKey) -> bool {
        !self.is_dialed() && !self.closing && self.key.as_ref() == Some(key)
    }

    /// Returns true if connections wait for a subflow: for the first one of a session, or in a suspended session.
    pub fn is_awaited(&self, link: &LinkSession) -> bool {
        match &link.session {
            Some(session) if session.is_open() => false,
            _ => self.group_waits || !self.waiting.dests.is_empty() || !link.streams.is_empty(),
        }
    }

    /// Returns the present state.
    pub fn state(&self, session: Option<&Session>) -> LinkState {
        match session {
            _ if self.closing => LinkState::Ended,
            Some(session) if self.heir.is_some() && session.is_open() => LinkState::Draining,
            Some(session) if session.is_open() => LinkState::Up,
            Some(_) if self.was_established => LinkState::Suspended,
            _ => LinkState::Connecting,
        }
    }
}

/// Time for which a peer that has announced a stop is expected back, and the longest pause between two tries meanwhile.
const HASTY_MS: u64 = 60_000;
const HASTY_PAUSE: Duration = Duration::from_millis(500);

/// Returns true if a dial that fails for this reason has reached no node. Such a try is cheap for both nodes.
fn is_of_network(reason: Reason) -> bool {
    use Reason::{ConnectionRefused, HandshakeTimeout, HostUnreachable, LinkLost, NetworkUnreachable, TimedOut};
    matches!(reason, ConnectionRefused | HandshakeTimeout | HostUnreachable | LinkLost | NetworkUnreachable | TimedOut)
}
