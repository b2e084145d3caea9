//! The configuration of a node: its identity, its policy for peers, and the parameters of each link.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::auth::{NodeKey, PublicKey};
use crate::engine::control::Loop;
use crate::engine::datagrams::program::SharedFlowHandler;
use crate::engine::handler::Handler;
use crate::link::{ClientAddrs, Config as SessionConfig, Mode};
use crate::transport::{CarrierKind, Congestion, Options};
pub use crate::transport::{Cipher, Group};
use crate::types::address::{Bind, Target};
use crate::types::end::{End, EndName};
use crate::types::id::Id;
use crate::types::proto::Proto;
use crate::types::reason::{Failure, Reason};
use crate::types::verb_error::VerbError;

pub use crate::types::peer::PeerKey;

use super::counted::SessionReply;
use super::invited::ClaimReply;
use super::nested::Over;

/// Decides which peers may have links with this node, and what they may do. It is asked each time, also by other threads, so
/// its answers may change while links are up.
///
/// A panic counts in [`Stats::panics`](crate::Stats::panics), and the answer is the one that gives the peer least: it is not
/// admitted, or may not do what it asks for.
pub trait Policy: Send + Sync {
    /// Returns true if a peer with this key may have a link. Asked during the handshake of each subflow.
    fn admits(&self, key: &PeerKey) -> bool;

    /// Returns the name of the peer in logs and in the status.
    fn name(&self, key: &PeerKey) -> String;

    /// Decides if this node may connect to a target for the peer.
    fn may_open(&self, _key: &PeerKey, _target: &Target) -> Verdict {
        Verdict::No
    }

    /// Returns true if the peer may open any target or end, or if any target would be put to a user for approval. If false,
    /// the peer is allowed no stream from the start.
    fn may_open_any(&self, _key: &PeerKey) -> bool {
        true
    }

    /// Returns true if this node may connect to an address for the peer, to which the name of the target was resolved. Asked
    /// if [`Policy::may_open`] returned [`Verdict::ByAddress`].
    fn may_reach(&self, _key: &PeerKey, _target: &Target, _addr: SocketAddr) -> bool {
        false
    }

    /// Returns the end with this name that the peer may open, or that a remote forward of this node has as its target. The name is
    /// all that the peer chooses.
    fn end(&self, _key: &PeerKey, _name: &EndName) -> Option<Arc<End>> {
        None
    }

    /// Returns true if this node may listen here for the peer.
    fn may_listen(&self, _key: &PeerKey, _place: &Bind) -> bool {
        false
    }

    /// Returns the group of the key. Peers whose keys are in one group may listen on the same address, and then stand for one
    /// another; each needs [`Policy::may_listen`] for the address. Peers with the same key may do so without a group.
    fn listen_group(&self, _key: &PeerKey) -> Option<String> {
        None
    }

    /// Returns true if this node takes the peer's word that a stream is that of a client with this address. Otherwise the
    /// client is the peer itself, for [`Preface`], the status and the log.
    fn may_tell_source(&self, _key: &PeerKey, _client: IpAddr) -> bool {
        false
    }

    /// Returns true if a user is asked for approval of a request that the peer may not make so far; [`LinkEvent::Asked`]
    /// reports it. A stream of bytes then waits for [`Loop::permit`]; a flow of datagrams and a place to listen are refused
    /// until the peer asks again.
    fn asks(&self, _key: &PeerKey, _request: &Request) -> bool {
        false
    }

    /// Returns true if a key is not admitted because its time is over. Asked about a key that is not admitted, so that the peer
    /// is told.
    fn is_expired(&self, _key: &PeerKey) -> bool {
        false
    }

    /// Returns true while an invitation is pending. Peers with any key may then claim that they hold one. Asked for each
    /// connection to a server.
    fn is_inviting(&self) -> bool {
        false
    }

    /// Takes the claim of a peer that it holds an invitation. The reply may be sent later and from another thread; a claim
    /// that is not proven must get none. The loop waits for this call, so it must not wait for a file.
    fn take_claim(&self, _reply: ClaimReply) {}

    /// Returns true if each new session of the key must be counted before it begins.
    fn counts_sessions(&self, _key: &PeerKey) -> bool {
        false
    }

    /// Counts a new session of the key. The reply may be sent later and from another thread. The loop waits for this call, so it must
    /// not wait for a file.
    fn count_session(&self, _key: &PeerKey, _reply: SessionReply) {}

    /// Returns the folders whose files the peer may get, for services that share files.
    fn shared_folders(&self, _key: &PeerKey) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Returns the number of streams that the peer may have open at once.
    fn streams_max(&self, _key: &PeerKey) -> Option<u32> {
        None
    }

    /// Returns the bytes per second that the peer may send, and that this node sends to it.
    fn rate_max(&self, _key: &PeerKey) -> Option<u64> {
        None
    }
}

/// A request of a peer to this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Connect to a target.
    Open(Target),
    /// Listen on an address.
    Listen(Bind),
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Open(target) => write!(f, "connect to {target}"),
            Request::Listen(place) => write!(f, "listen on {place}"),
        }
    }
}

/// The decision of a policy about a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The target is permitted.
    Yes,
    /// The target is not permitted.
    No,
    /// The decision depends on the addresses of the name.
    ByAddress,
}

/// The identity of this node: the seed of its key, and its ciphers.
#[derive(Clone)]
pub struct Identity {
    /// The seed of the ed25519 key (RFC 8032).
    pub seed: [u8; 32],
    /// Ciphers in the order of preference; empty for the fastest ones of this processor.
    pub ciphers: Vec<Cipher>,
    /// Key exchanges in the order of preference; empty for all that this processor has, X25519MLKEM768 first.
    pub groups: Vec<Group>,
    /// A number that is the same after each restart of this process, and differs between two processes that run beside each
    /// other. It tells the peer a restart from a second process: a restarted process takes over at once from its
    /// predecessor. None for a process that cannot be mistaken for another.
    pub instance: Option<u32>,
}

/// A link that this node dials.
pub struct LinkConfig {
    /// The identity of this node.
    pub identity: Identity,
    /// The policy: which key the peer may have, and what it may do here. Without further permissions it may only use the
    /// reverse forwards below.
    pub policy: Arc<dyn Policy>,
    /// The address of the peer.
    pub peer: Target,
    /// The transport of the subflows.
    pub carrier: CarrierKind,
    /// The link whose streams carry this link, if it is a nested one. Its paths then have no source, and its carrier is
    /// [`CarrierKind::Tcp`], for which [`CarrierKind::Auto`] stands, too.
    pub over: Option<Over>,
    /// The paths to the peer; at least one.
    pub paths: Vec<Path>,
    /// Number of subflows over each path.
    pub subflows: usize,
    /// True if the peer may dial this node at the same time, and neither listens (simultaneous open, RFC 9293, section 3.5).
    /// Each path then has a local port, to which the peer dials, and the carrier is [`CarrierKind::Tcp`], for which
    /// [`CarrierKind::Auto`] stands, too.
    pub simultaneous: bool,
    /// The distribution of frames over subflows.
    pub mode: Mode,
    /// Addresses on which the peer listens for this node, with the targets of their clients.
    pub reverse: Vec<Reverse>,
    /// Timers and limits.
    pub timing: Timing,
    /// Gives streams that the peer opens, and that the policy permits, to handlers.
    pub on_stream: Option<OnStream>,
    /// Gives flows of datagrams that the peer opens, and that the policy permits, to handlers.
    pub on_datagrams: Option<OnDatagrams>,
    /// Makes the first bytes of each connection to a target of a reverse forward.
    pub preface: Option<Preface>,
    /// Handles the events of the link.
    pub on_event: OnLinkEvent,
}

/// Handles the events of a link. A panic counts in [`Stats::panics`](crate::Stats::panics); the link goes on, and the callback
/// gets the next event.
///
/// The callback may change the loop. Events that it causes, of any link, are delivered after it has returned and before the
/// loop sleeps, in their order. The id of a link that has ended since is [`VerbError::Over`] by then.
pub type OnLinkEvent = Box<dyn FnMut(&mut Loop<'_>, Id, &LinkEvent)>;

/// Makes the handler of a stream that the peer has opened to a target. Without a handler, this node connects to the target.
/// With a handler the stream is accepted, and its bytes are the handler's.
pub type OnStream = Box<dyn FnMut(&PeerKey, &Target) -> Option<Box<dyn Handler>>>;

/// Returns the handler of a flow of datagrams that the peer has opened to a target. Without a handler, this node sends the datagrams
/// to the target.
pub type OnDatagrams = Box<dyn FnMut(&PeerKey, &Target) -> Option<SharedFlowHandler>>;

/// Makes the bytes that begin a connection to the target of a stream, such as a header of the PROXY protocol. The addresses are
/// those of the client if the policy takes the peer's word ([`Policy::may_tell_source`]), otherwise those of a subflow of the link:
/// the peer is the client then. A link over a link may have none. A panic ends the connection.
pub type Preface = Rc<dyn Fn(Proto, Option<ClientAddrs>) -> Vec<u8>>;

/// Links that peers dial to this node.
pub struct ServeConfig {
    /// The identity of this node.
    pub identity: Identity,
    /// The policy: which peers are admitted, and what they may do.
    pub policy: Arc<dyn Policy>,
    /// The transport of the subflows. The address must be bound for it: see [`CarrierKind::bind`].
    pub carrier: CarrierKind,
    /// The distribution of frames over subflows.
    pub mode: Mode,
    /// True if peers of other links of the loop may carry links to this server over streams; see [`Over::Peer`].
    pub over_links: bool,
    /// Timers and limits.
    pub timing: Timing,
    /// Gives streams that peers open, and that the policy permits, to handlers.
    pub on_stream: Option<OnStream>,
    /// Gives flows of datagrams that peers open, and that the policy permits, to handlers.
    pub on_datagrams: Option<OnDatagrams>,
    /// Makes the first bytes of each connection to a target of a peer.
    pub preface: Option<Preface>,
    /// Handles the events of the links.
    pub on_event: OnLinkEvent,
}

/// A path to the peer: the source of a subflow and its destination.
/// `[CARRIER:][SOURCE[,SOURCE]...[:PORT]][%INTERFACE][->ADDR]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path {
    /// The kind of the carriers on this path, if it is another one than that of the link.
    pub carrier: Option<CarrierKind>,
    /// The source address; the system chooses if there is none.
    pub source: Option<IpAddr>,
    /// Further source addresses of each carrier, of the family of `source`. Only carriers of SCTP have any: they go on over another
    /// address when one is lost.
    pub more_sources: Vec<IpAddr>,
    /// The port of the source; the system chooses if there is none. Only one subflow can have it, so a link with several
    /// subflows over each path takes no such path.
    pub local_port: Option<u16>,
    /// The interface that the subflow must use.
    pub interface: Option<String>,
    /// The peer's address on this path, if it differs.
    pub peer: Option<Target>,
}

impl Path {
    /// Returns true if the routes of the system alone decide by which interface its packets leave.
    pub(crate) fn is_routed(&self) -> bool {
        self.source.is_none() && self.interface.is_none()
    }

    /// Returns the path in the form of the command line, with the peer's address if the path has none of its own.
    pub(crate) fn to_text(&self, peer: &Target) -> String {
        match (&self.peer, self.source_text()) {
            (own, source) if source.is_empty() => own.as_ref().unwrap_or(peer).to_string(),
            (own, source) => format!("{source}->{}", own.as_ref().unwrap_or(peer)),
        }
    }

    fn source_text(&self) -> String {
        let first = self.source.map_or_else(String::new, |source| source.to_string());
        let source = match (self.source, self.local_port) {
            _ if !self.more_sources.is_empty() => self.sources_text(first),
            (Some(source), Some(port)) => SocketAddr::new(source, port).to_string(),
            (None, Some(port)) => format!(":{port}"),
            (_, None) => first,
        };
        let interface = self.interface.as_ref().map_or_else(String::new, |name| format!("%{name}"));
        let carrier = self.carrier.map_or_else(String::new, |carrier| format!("{carrier}:"));
        format!("{carrier}{source}{interface}")
    }

    /// Returns the source addresses, the first of which is `first`, and their port.
    fn sources_text(&self, first: String) -> String {
        let port = self.local_port.map_or_else(String::new, |port| format!(":{port}"));
        let bracketed = |text: String| if !port.is_empty() && text.contains(':') { format!("[{text}]") } else { text };
        let all: Vec<String> =
            std::iter::once(first).chain(self.more_sources.iter().map(IpAddr::to_string)).map(bracketed).collect();
        format!("{}{port}", all.join(","))
    }

    /// Returns true if the kind of its carriers has as many source addresses as the path, and they are of one family.
    fn has_usable_sources(&self, kind: CarrierKind) -> bool {
        let is_one_family = |source: IpAddr| self.more_sources.iter().all(|more| more.is_ipv4() == source.is_ipv4());
        self.more_sources.is_empty() || kind == CarrierKind::Sctp && self.source.is_some_and(is_one_family)
    }
}

/// Writes the path in the form of the command line. A path that leaves everything to the system is an empty text.
impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.peer, self.source_text()) {
            (Some(peer), source) => write!(f, "{source}->{peer}"),
            (None, source) => f.write_str(&source),
        }
    }
}

/// A reverse forward: an address on which the peer listens, and the target of its clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reverse {
    /// The address on which the peer listens.
    pub listen: Bind,
    /// The target, to which this node connects.
    pub to: Target,
}

/// Timers and limits of links. Zero does not switch any of them off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Interval of keepalive probes on an idle subflow.
    pub keepalive: Duration,
    /// Silence after which a subflow is dead.
    pub dead: Duration,
    /// Time for which a session without subflows is kept.
    pub hold: Duration,
    /// Time of a subflow from its first byte to its last handshake message.
    pub handshake: Duration,
    /// First and longest pause before a lost subflow is dialed again. The first try follows at once, without a pause.
    pub redial: (Duration, Duration),
    /// Longest pause between two tries while connections of clients wait for the link, if it is shorter than `redial`.
    pub redial_awaited: Duration,
    /// Longest pause between two tries of a path that does not answer while another subflow of the link is up, if it is
    /// shorter than `redial`: the path is used again soon after it is back.
    pub redial_beside: Duration,
    /// First and longest pause between two tries of QUIC while TCP is up on the same path: see [`CarrierKind::Auto`]. UDP may
    /// be blocked there for ever, so they are long.
    pub redial_quic: (Duration, Duration),
    /// The congestion control of subflows over TCP, MPTCP and QUIC, for what this node sends.
    pub congestion: Congestion,
    /// Bytes that one session may hold for its readers, and as many for its peer.
    pub memory_bytes: u64,
    /// Streams of one session.
    pub streams: u32,
    /// Subflows of one session.
    pub subflows: usize,
    /// Maximum of the links that peers have dialed. A loop has at most 1,024 links, dialed by either node.
    pub links: usize,
    /// Maximum of these links for one key.
    pub links_per_key: usize,
    /// Maximum of the peers that have not authenticated yet.
    pub unauthenticated: usize,
}

impl Default for Timing {
    fn default() -> Timing {
        // The session has these defaults; a test of either side sees the same values.
        let session = SessionConfig::default();
        Timing {
            keepalive: Duration::from_micros(session.keepalive_us),
            dead: Duration::from_micros(session.dead_us),
            hold: Duration::from_micros(session.hold_us),
            handshake: Duration::from_micros(session.handshake_us),
            redial: (Duration::from_millis(200), Duration::from_secs(15)),
            redial_awaited: Duration::from_secs(5),
            redial_beside: Duration::from_secs(1),
            redial_quic: (Duration::from_secs(5), Duration::from_secs(600)),
            congestion: Congestion::System,
            memory_bytes: session.send_bytes_max,
            streams: session.streams_max,
            subflows: session.subflows_max,
            links: 256,
            links_per_key: 64,
            unauthenticated: 256,
        }
    }
}

impl Timing {
    /// Returns the options of the connections of carriers.
    pub(super) fn options(&self) -> Options {
        Options { dead: self.dead, congestion: self.congestion }
    }
}

/// An event of a link.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum LinkEvent {
    /// The link has a session, so that streams can be opened. Reported again after a restart of the peer.
    Up {
        /// The peer's key.
        key: PeerKey,
        /// True if the session is a new one.
        fresh: bool,
    },
    /// The peer is about to stop: running connections go on over the present session, and another session is dialed for new
    /// ones.
    Draining,
    /// The last session with a peer that was about to stop is over, as far as this node knows.
    Drained,
    /// The last subflow is gone; the session is kept.
    Suspended,
    /// The session has a subflow again, and no data was lost.
    Resumed,
    /// A subflow carries frames.
    SubflowUp {
        /// The number of the subflow, in the order of the paths.
        place: usize,
        /// Consecutive failed tries before.
        tries: u32,
    },
    /// A subflow could not be established, or was lost. Another try follows.
    NoSubflow {
        /// The number of the subflow, in the order of the paths.
        place: usize,
        /// The failure.
        failure: Failure,
        /// Consecutive failed tries of this subflow.
        tries: u32,
    },
    /// The peer has shown a key that the policy does not admit.
    WrongKey {
        /// The key of the peer.
        key: PeerKey,
    },
    /// The peer does not admit the key of this node.
    Rejected,
    /// The peer does not admit the key of this node any more, because its time is over.
    Expired,
    /// The peer listens for this node.
    Listening {
        /// The index in [`LinkConfig::reverse`].
        index: usize,
        /// The bound port.
        port: u16,
        /// The addresses that could not be bound, with the reasons in the peer's words; empty if all were bound.
        lacks: String,
    },
    /// The peer has made a request that needs approval; see [`Policy::asks`].
    Asked {
        /// The peer's key.
        key: PeerKey,
        /// The request.
        request: Request,
        /// The connection that waits for [`Loop::permit`]; none for a flow of datagrams and for a place to listen.
        connection: Option<Id>,
    },
    /// The peer does not listen for this node. Another try follows.
    NotListening {
        /// The index in [`LinkConfig::reverse`].
        index: usize,
        /// The failure.
        failure: Failure,
    },
    /// The peer has sent a message for the user of this node, of at most
    /// [`MESSAGE_BYTES_MAX`](crate::link::MESSAGE_BYTES_MAX) bytes. Its text is the peer's, so it must not reach a terminal as
    /// it is.
    Message {
        /// The text.
        text: String,
    },
    /// This node has closed the link, which may never have been up.
    Closed,
    /// The session and its streams are over, and this node did not close it.
    Ended {
        /// The reason; [`Reason::Drained`] if the peer has left in order.
        reason: Reason,
        /// The text of the peer.
        text: String,
    },
}

impl Identity {
    /// Returns the identity of a node with this key.
    pub fn new(key: &NodeKey) -> Identity {
        let der = key.pkcs8_der();
        let mut seed = [0; 32];
        // The seed is the end of what version 1 of the format holds (RFC 8410, section 7).
        seed.copy_from_slice(&der.expose()[der.expose().len() - 32..]);
        Identity { seed, ciphers: Vec::new(), groups: Vec::new(), instance: None }
    }
}

impl LinkConfig {
    /// Checks that no address of the peer is a UDP address, that each forward has one protocol, and that only paths of SCTP have several
    /// sources.
    pub(super) fn check_protocols(&self) -> Result<(), VerbError> {
        let targets = self.paths.iter().filter_map(|path| path.peer.as_ref()).chain([&self.peer]);
        let is_tcp = targets.map(Target::proto).all(|proto| proto == Proto::Tcp);
        let is_one = self.reverse.iter().all(|reverse| reverse.listen.proto() == reverse.to.proto());
        let has_sources = self.paths.iter().all(|path| path.has_usable_sources(path.carrier.unwrap_or(self.carrier)));
        if is_tcp && is_one && has_sources { Ok(()) } else { Err(VerbError::Invalid) }
    }

    /// Returns the transport of the subflows. A connection that both nodes dial, and a stream of another link, have no QUIC
    /// beside them.
    pub(super) fn kind(&self) -> CarrierKind {
        match self.carrier {
            CarrierKind::Auto if self.simultaneous || self.over.is_some() => CarrierKind::Tcp,
            kind => kind,
        }
    }

    /// Returns true if both nodes can dial the connections of the link at the same time, or if they need not.
    pub(super) fn has_ports(&self) -> bool {
        let is_tcp = |path: &Path| path.carrier.unwrap_or(self.kind()) == CarrierKind::Tcp;
        let has_ports = || self.paths.iter().all(|path| path.local_port.is_some() && is_tcp(path));
        !self.simultaneous || self.over.is_none() && self.kind() == CarrierKind::Tcp && has_ports()
    }

    /// Returns the configuration of a link with one subflow over the system's default path.
    pub fn new(identity: Identity, policy: Arc<dyn Policy>, peer: Target) -> LinkConfig {
        LinkConfig {
            identity,
            policy,
            peer,
            carrier: CarrierKind::default(),
            over: None,
            paths: vec![Path::default()],
            subflows: 1,
            simultaneous: false,
            mode: Mode::default(),
            reverse: Vec::new(),
            timing: Timing::default(),
            on_stream: None,
            on_datagrams: None,
            preface: None,
            on_event: Box::new(|_, _, _| {}),
        }
    }
}

impl ServeConfig {
    /// Returns the configuration that accepts the peers of a policy.
    pub fn new(identity: Identity, policy: Arc<dyn Policy>) -> ServeConfig {
        let (mode, timing) = (Mode::default(), Timing::default());
        let carrier = CarrierKind::default();
        ServeConfig {
            identity,
            policy,
            carrier,
            mode,
            over_links: false,
            timing,
            on_stream: None,
            on_datagrams: None,
            preface: None,
            on_event: Box::new(|_, _, _| {}),
        }
    }
}

/// The policy for two nodes of one owner that share a key: the other node may do everything.
#[derive(Clone, Copy, Debug)]
pub struct SameKey(pub PublicKey);

impl Policy for SameKey {
    fn admits(&self, key: &PeerKey) -> bool {
        self.0.as_bytes() == key
    }

    fn name(&self, _: &PeerKey) -> String {
        "same-key".to_owned()
    }

    fn may_open(&self, key: &PeerKey, _: &Target) -> Verdict {
        if self.admits(key) { Verdict::Yes } else { Verdict::No }
    }

    fn may_listen(&self, key: &PeerKey, _: &Bind) -> bool {
        self.admits(key)
    }

    fn may_tell_source(&self, key: &PeerKey, _: IpAddr) -> bool {
        self.admits(key)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(..)")
    }
}
