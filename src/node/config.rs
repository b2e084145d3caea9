//! What a node is told: who it is, whom it trusts with what, and how each of its links is to be.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::auth::{NodeKey, PublicKey};
use crate::engine::control::Loop;
use crate::engine::handler::Handler;
use crate::link::Mode;
pub use crate::tls::Cipher;
use crate::types::address::{Bind, Target};
use crate::types::id::Id;
use crate::types::reason::{Failure, Reason};

pub use crate::types::peer::PeerKey;

/// Whom a node has to do with, and what they may do. It is asked anew each time, also by other threads, so what it
/// says may change while links live.
pub trait Policy: Send + Sync {
    /// Whether a peer with this key may have a link with us. Asked during the handshake of each of its subflows.
    fn admits(&self, key: &PeerKey) -> bool;

    /// What the peer is called in logs and in the status.
    fn name(&self, key: &PeerKey) -> String;

    /// Whether the peer may have us connect to a target.
    fn may_open(&self, _key: &PeerKey, _target: &Target) -> Verdict {
        Verdict::No
    }

    /// Returns true if the peer may open any target, or if any target would be put to a user for approval. If false, the
    /// peer is allowed no stream from the start.
    fn may_open_any(&self, _key: &PeerKey) -> bool {
        true
    }

    /// Whether the peer may have us connect to this address, which the name of a target turned out to have. Asked where
    /// [`Policy::may_open`] said [`Verdict::ByAddress`].
    fn may_reach(&self, _key: &PeerKey, _name: &str, _addr: SocketAddr) -> bool {
        false
    }

    /// Whether the peer may have us listen here.
    fn may_listen(&self, _key: &PeerKey, _place: &Bind) -> bool {
        false
    }

    /// Whether somebody is asked about this, which the peer may not do as things are: [`LinkEvent::Asked`] tells of it. A
    /// stream then waits for [`Loop::permit`]; a place to listen is refused until the peer asks again.
    fn asks(&self, _key: &PeerKey, _request: &Request) -> bool {
        false
    }

    /// Streams that the peer may have open at once.
    fn streams_max(&self, _key: &PeerKey) -> Option<u32> {
        None
    }

    /// Bytes per second that the peer may send us, and we send it.
    fn rate_max(&self, _key: &PeerKey) -> Option<u64> {
        None
    }
}

/// Something that a peer wants this node to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// To connect to a target.
    Open(Target),
    /// To listen.
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

/// What a policy says of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Yes,
    /// No.
    No,
    /// It depends on the addresses that the name has.
    ByAddress,
}

/// Who this node is: the seed of its key, and what it may encrypt with.
#[derive(Clone)]
pub struct Identity {
    /// The seed of the ed25519 key (RFC 8032).
    pub seed: [u8; 32],
    /// Ciphers in the order in which they are preferred; empty for what the processor does best.
    pub ciphers: Vec<Cipher>,
    /// What is the same in each life of this process, and differs between two that run beside one another, so that the
    /// peer knows a restart from a companion: a process that comes back takes over at once from the one that it was.
    /// None for a process that nobody can mistake for another.
    pub instance: Option<u32>,
}

/// A link that this node dials.
pub struct LinkConfig {
    /// Who we are.
    pub identity: Identity,
    /// Whether the peer's key is the right one, and what the peer may do here: nothing but the reverse forwards below,
    /// unless it says otherwise.
    pub policy: Arc<dyn Policy>,
    /// The peer.
    pub peer: Target,
    /// The ways there; at least one.
    pub paths: Vec<Path>,
    /// Subflows over each path.
    pub subflows: usize,
    /// How frames are spread over subflows.
    pub mode: Mode,
    /// Where the peer is to listen for us, and where what connects there goes from here.
    pub reverse: Vec<Reverse>,
    /// Timers and limits.
    pub timing: Timing,
    /// Takes streams that the peer opens, and that the policy permits, into its own hands.
    pub on_stream: Option<OnStream>,
    /// Is told what happens to the link.
    pub on_event: OnLinkEvent,
}

/// Is told what happens to a link.
pub type OnLinkEvent = Box<dyn FnMut(&mut Loop<'_>, Id, &LinkEvent)>;

/// Makes the handler of a stream that the peer has opened to a target; none leaves it to be connected there. With a
/// handler the stream is accepted, and its bytes are the handler's.
pub type OnStream = Box<dyn FnMut(&PeerKey, &Target) -> Option<Box<dyn Handler>>>;

/// How this node takes in links that others dial.
pub struct ServeConfig {
    /// Who we are.
    pub identity: Identity,
    /// Who may come, and what they may do.
    pub policy: Arc<dyn Policy>,
    /// How frames are spread over subflows.
    pub mode: Mode,
    /// Timers and limits.
    pub timing: Timing,
    /// Takes streams that peers open, and that the policy permits, into its own hands.
    pub on_stream: Option<OnStream>,
    /// Is told what happens to links.
    pub on_event: OnLinkEvent,
}

/// One way to the peer: where a subflow leaves from, and where it goes. `SOURCE[%INTERFACE][->ADDR]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path {
    /// Our address; the system chooses if there is none.
    pub source: Option<IpAddr>,
    /// The interface that the subflow must leave by.
    pub interface: Option<String>,
    /// The peer's address on this path, if it is another.
    pub peer: Option<Target>,
}

impl Path {
    /// The path as the command line says it, with the peer's address where it has none of its own.
    pub(crate) fn to_text(&self, peer: &Target) -> String {
        let source = self.source.map_or_else(String::new, |source| source.to_string());
        let interface = self.interface.as_ref().map_or_else(String::new, |name| format!("%{name}"));
        let arrow = if source.is_empty() && interface.is_empty() { "" } else { "->" };
        format!("{source}{interface}{arrow}{}", self.peer.as_ref().unwrap_or(peer))
    }
}

/// A place where the peer listens, and the target here of what connects there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reverse {
    /// Where the peer listens.
    pub listen: Bind,
    /// Where its clients are connected to from here.
    pub to: Target,
}

/// Timers and limits of links. Zero does not switch any of them off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// A silent subflow is asked for a sign of life this often.
    pub keepalive: Duration,
    /// A subflow that has been silent for so long is dead.
    pub dead: Duration,
    /// A session without subflows is kept for so long.
    pub hold: Duration,
    /// A subflow has so long from its first byte to its last handshake message.
    pub handshake: Duration,
    /// The first pause before a lost subflow is dialled again, after the try at once, and the longest.
    pub redial: (Duration, Duration),
    /// The longest pause between two tries while connections of clients wait for the link, if it is shorter than `redial`.
    pub redial_awaited: Duration,
    /// Bytes that one session may hold for its readers, and as many for its peer.
    pub memory_bytes: u64,
    /// Streams of one session.
    pub streams: u32,
    /// Subflows of one session.
    pub subflows: usize,
    /// Links that others have dialled.
    pub links: usize,
    /// Those of them that one key may have.
    pub links_per_key: usize,
    /// Visitors that have not proved yet who they are.
    pub unauthenticated: usize,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            keepalive: Duration::from_secs(5),
            dead: Duration::from_secs(15),
            hold: Duration::from_secs(600),
            handshake: Duration::from_secs(5),
            redial: (Duration::from_millis(200), Duration::from_secs(15)),
            redial_awaited: Duration::from_secs(5),
            memory_bytes: 64 << 20,
            streams: 65_536,
            subflows: 16,
            links: 256,
            links_per_key: 64,
            unauthenticated: 256,
        }
    }
}

/// An event of a link.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum LinkEvent {
    /// It has a session: streams can be opened. Again after the peer was restarted.
    Up {
        /// The peer's key.
        key: PeerKey,
        /// Whether it is a session other than the one before.
        fresh: bool,
    },
    /// The peer is about to stop: running connections go on over the present session, and another session is dialled for new
    /// ones.
    Draining,
    /// The last session with a peer that was about to stop is over, as far as this node knows.
    Drained,
    /// Its last subflow is gone; the session is held.
    Suspended,
    /// It has a subflow again, and nothing was lost.
    Resumed,
    /// A subflow carries frames.
    SubflowUp {
        /// Which of the wanted subflows it is, in the order of the paths.
        place: usize,
        /// How often in a row it could not be had before.
        tries: u32,
    },
    /// A subflow could not be had, or was lost; the next try follows by itself.
    NoSubflow {
        /// Which of the wanted subflows it is, in the order of the paths.
        place: usize,
        /// Why.
        failure: Failure,
        /// How often in a row, this subflow.
        tries: u32,
    },
    /// The peer proved to have a key that the policy does not admit.
    WrongKey {
        /// That key.
        key: PeerKey,
    },
    /// The peer does not admit our key.
    Rejected,
    /// The peer listens for us.
    Listening {
        /// The place in [`LinkConfig::reverse`].
        index: usize,
        /// The port that was bound.
        port: u16,
        /// The addresses that could not be bound, with the reasons in the peer's words; empty if all were bound.
        lacks: String,
    },
    /// The peer wants something that it may not do, and that [`Policy::asks`] about.
    Asked {
        /// The peer's key.
        key: PeerKey,
        /// What it wants.
        request: Request,
        /// The connection that waits for [`Loop::permit`].
        connection: Option<Id>,
    },
    /// The peer does not listen for us; the next try follows by itself.
    NotListening {
        /// The place in [`LinkConfig::reverse`].
        index: usize,
        /// Why.
        failure: Failure,
    },
    /// This end has closed the link.
    Closed,
    /// The session is over though this end did not close it, and with it its streams.
    Ended {
        /// Why; [`Reason::Drained`] if the peer has left in order.
        reason: Reason,
        /// Words of the peer's.
        text: String,
    },
}

impl Identity {
    /// A node with this key.
    pub fn new(key: &NodeKey) -> Identity {
        let der = key.pkcs8_der();
        let mut seed = [0; 32];
        // The seed is the end of what version 1 of the format holds (RFC 8410, section 7).
        seed.copy_from_slice(&der.expose()[der.expose().len() - 32..]);
        Identity { seed, ciphers: Vec::new(), instance: None }
    }
}

impl LinkConfig {
    /// A link with one subflow that the system finds a way for, and nothing else said.
    pub fn new(identity: Identity, policy: Arc<dyn Policy>, peer: Target) -> LinkConfig {
        LinkConfig {
            identity,
            policy,
            peer,
            paths: vec![Path::default()],
            subflows: 1,
            mode: Mode::default(),
            reverse: Vec::new(),
            timing: Timing::default(),
            on_stream: None,
            on_event: Box::new(|_, _, _| {}),
        }
    }
}

impl ServeConfig {
    /// Takes in whom the policy admits, and nothing else said.
    pub fn new(identity: Identity, policy: Arc<dyn Policy>) -> ServeConfig {
        let (mode, timing) = (Mode::default(), Timing::default());
        ServeConfig { identity, policy, mode, timing, on_stream: None, on_event: Box::new(|_, _, _| {}) }
    }
}

/// The policy of two nodes of one's own that share a secret, and so a key: the other may do everything.
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
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(..)")
    }
}
