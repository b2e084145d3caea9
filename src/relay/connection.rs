//! A connection: a source, a dest, and the two halves between them.
//!
//! ```text
//!   Handshake --connect--> Connecting --relay--> Established --+
//!       |  ^                   |                   |   ^       |
//!       |  +--- a request -- KeepAlive <-----------+---+       | both halves Shut, or an end
//!       +--------- finish -----+---> Closing ------------------+--> Closed --reap--> gone
//! ```
//! It is over when both halves are shut, or when it is ended; the cause is recorded once. What is Closed is freed at the
//! end of the turn, never during a call.

use std::rc::Rc;

use crate::relay::half::{Flow, Half, Phase};
use crate::relay::side::Role;
use crate::relay::timer::TimerClass;
use crate::types::address::Target;
use crate::types::id::Id;
use crate::types::peer::PeerId;
use crate::types::reason::{Ending, Fault, Reason};

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// The client has not said yet what it wants.
    Handshake,
    /// The dest is being connected.
    Connecting,
    /// Bytes flow.
    Established,
    /// The client may ask for something else.
    KeepAlive,
    /// What is left is being flushed; the client has been told that no more comes.
    Closing,
    /// It is over and waits for the end of the turn.
    Closed,
}

/// One connection, as the loop knows it.
#[derive(Debug)]
pub(crate) struct Connection {
    pub source: Id,
    pub dest: Option<Id>,
    pub halves: [Half; 2],
    pub stage: Stage,
    /// Recorded once, by whatever ended it first; a cut overrides an orderly close.
    pub reason: Option<Reason>,
    /// It has lasted for a while, and TCP keepalive is on.
    pub settled: bool,
    /// Its peers are to see a reset, whatever the reason is.
    pub cut: bool,
    /// The front end, as the description names it.
    pub kind: &'static str,
    /// The listener that accepted it.
    pub listener: u32,
    pub asked: Option<Rc<Target>>,
    /// The link that its dest is to be reached over.
    pub via: Option<Id>,
    /// The listener of a link's peer that its source came in at.
    pub returns_to: Option<u32>,
    /// The key against which the connection counts.
    pub payer: Option<PeerId>,
    /// Set if the connection counts against the network of its source.
    pub is_counted: bool,
    /// What only some connections have.
    pub notes: Option<Box<Notes>>,
    pub opened_ms: u64,
    pub dial_since_ms: u64,
    pub dial_ms: Option<u32>,
}

/// What only some connections have.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// Who it is, as the front end found out.
    pub user: Option<Box<str>>,
    /// Whose doing the end is, where the reason alone does not tell.
    pub fault: Option<Fault>,
    /// The requested address, if it is not a valid target.
    pub asked: Option<Box<str>>,
    /// Where it was connected before it let go of its dest.
    pub dialled: Option<Box<str>>,
    /// What the system said when it failed.
    pub detail: Option<Box<str>>,
}

impl Connection {
    pub fn new(source: Id, kind: &'static str, listener: u32, now_ms: u64) -> Connection {
        Connection {
            source,
            dest: None,
            halves: [Half { counts_sent: true, ..Half::new(Flow::Handler) }, Half::new(Flow::Hold)],
            stage: Stage::Handshake,
            reason: None,
            settled: false,
            cut: false,
            kind,
            listener,
            asked: None,
            via: None,
            returns_to: None,
            payer: None,
            is_counted: false,
            notes: None,
            opened_ms: now_ms,
            dial_since_ms: now_ms,
            dial_ms: None,
        }
    }

    pub fn side(&self, role: Role) -> Option<Id> {
        match role {
            Role::Source => Some(self.source),
            Role::Dest => self.dest,
        }
    }

    pub fn notes(&mut self) -> &mut Notes {
        self.notes.get_or_insert_default()
    }

    /// How it ends for this reason, and whose doing that is. A side that left before it had got what it was owed has cut
    /// it, however orderly the first close was.
    pub fn ending(&self, reason: Reason) -> (Ending, Fault) {
        let noted = self.notes.as_ref().and_then(|notes| notes.fault);
        for (role, fault) in [(Role::Source, Fault::Source), (Role::Dest, Fault::Dest)] {
            if self.halves[role.into()].lost && reason.ending() == Ending::Graceful {
                return (Ending::Aborted, noted.unwrap_or(fault));
            }
        }
        let ending = if self.cut { Ending::Aborted } else { reason.ending() };
        (ending, noted.unwrap_or(reason.fault()))
    }

    /// Returns true if the connection moved no byte and was cut by a peer or a rule. The log lines of such connections are
    /// limited.
    pub fn is_empty_failure(&self, reason: Reason) -> bool {
        reason.is_futile() && self.halves.iter().all(|half| half.bytes == 0)
    }

    pub fn is_over(&self) -> bool {
        self.halves.iter().all(|half| half.phase == Phase::Shut)
    }

    /// What it waits for in its stage.
    pub fn timer_class(&self) -> Option<TimerClass> {
        match self.stage {
            Stage::Handshake => Some(TimerClass::Handshake),
            Stage::Connecting => Some(TimerClass::Connect),
            Stage::KeepAlive => Some(TimerClass::KeepAlive),
            Stage::Closing => Some(TimerClass::Linger),
            Stage::Closed => None,
            Stage::Established if self.halves.iter().any(|half| half.dead) => Some(TimerClass::Linger),
            Stage::Established if self.halves.iter().any(|half| half.phase == Phase::Shut) => {
                Some(TimerClass::HalfClosed)
            }
            Stage::Established => Some(TimerClass::Idle),
        }
    }
}

impl Stage {
    /// The word for logs and status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Stage::Handshake => "handshake",
            Stage::Connecting => "connecting",
            Stage::Established => "established",
            Stage::KeepAlive => "keep_alive",
            Stage::Closing => "closing",
            Stage::Closed => "closed",
        }
    }
}

// With its two sides, the handler slots and the timer link, an idle connection stays below one kibibyte.
const _: () = assert!(size_of::<Connection>() <= 384);
