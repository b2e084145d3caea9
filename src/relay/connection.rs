//! A connection: a source, a dest, and the two halves between them.
//!
//! ```text
//!   Handshake --connect--> Connecting --relay--> Established --+
//!       |  ^                   |                   |   ^       |
//!       |  +--- a request -- KeepAlive <-----------+---+       | both halves Shut, or an end
//!       +--------- finish -----+---> Closing ------------------+--> Closed --reap--> gone
//! ```
//! A connection is over when both halves are shut or when it is ended; the reason is recorded once. A Closed connection is
//! freed at the end of the turn, never during a call.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use crate::relay::half::{Flow, Half, Phase};
use crate::relay::side::Role;
use crate::relay::timer::TimerClass;
use crate::types::address::{Endpoint, Target};
use crate::types::id::Id;
use crate::types::label::Label;
use crate::types::peer::PeerId;
use crate::types::reason::{Ending, Fault, Reason};

/// The stage of a connection, from the request to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// The client has not sent its complete request.
    Handshake,
    /// The dest is being connected.
    Connecting,
    /// The two sides are connected and bytes are relayed.
    Established,
    /// The client may send another request.
    KeepAlive,
    /// The remaining bytes are flushed, and the client's write side is shut down.
    Closing,
    /// The connection is over and is freed at the end of the turn.
    Closed,
}

/// The loop's record of one connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub source: Id,
    pub dest: Option<Id>,
    pub halves: [Half; 2],
    pub stage: Stage,
    /// The reason of the end, recorded once by its first cause; an abort overrides an orderly close.
    pub reason: Option<Reason>,
    /// TCP keepalive is on, because the connection has lasted longer than the keepalive delay.
    pub has_keepalive: bool,
    /// The peers get a reset, whatever the reason is.
    pub cut: bool,
    /// The name of the front end, for status and log.
    pub kind: Label,
    /// The listener that accepted the source.
    pub listener: Option<Id>,
    /// The index of the settings that the connection has from its listener.
    pub profile: u16,
    pub asked: Option<Rc<Target>>,
    /// The link to the dest.
    pub via: Option<Id>,
    /// The listener at the peer of a link that accepted the source.
    pub returns_to: Option<u32>,
    /// The key whose quota the connection uses.
    pub payer: Option<PeerId>,
    /// The connection counts against the limit of its source's network.
    pub is_counted: bool,
    /// The connection keeps an association of datagrams alive.
    pub is_association: bool,
    /// The bytes of each half that the sums of the loop have.
    pub settled: [u64; 2],
    /// Details that only some connections have.
    pub notes: Option<Box<Notes>>,
    pub opened_ms: u64,
    pub dial_since_ms: u64,
    pub dial_ms: Option<u32>,
}

// Each idle connection has this record. A field that few connections use is one of the notes.
#[cfg(all(test, target_pointer_width = "64"))]
const _: () = assert!(size_of::<Connection>() <= 320);

/// Details that only some connections have.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// The user that the front end authenticated.
    pub user: Option<Arc<str>>,
    /// The party that caused the end, where the reason alone does not tell.
    pub fault: Option<Fault>,
    /// The requested address, if it is not a valid target.
    pub asked: Option<Box<str>>,
    /// The address of the previous dest, which has been disconnected.
    pub dialled: Option<Box<str>>,
    /// The text of the system's error.
    pub detail: Option<Box<str>>,
    /// The address that the client connected to, if a protocol tells it.
    pub local: Option<Box<Endpoint>>,
    /// The address of the client, as told by the peer of the link that the source is a stream of.
    pub client: Option<SocketAddr>,
    /// The dest is one that connects to this node.
    pub is_awaited: bool,
    /// The source is a stream to a service, which `asked` names.
    pub is_service: bool,
    /// A wake-up of the source's handler is pending.
    pub is_waking: bool,
}

impl Connection {
    pub fn new(source: Id, kind: Label, listener: Option<Id>, profile: u16, now_ms: u64) -> Connection {
        Connection {
            source,
            dest: None,
            halves: [Half { counts_sent: true, ..Half::new(Flow::Handler) }, Half::new(Flow::Hold)],
            stage: Stage::Handshake,
            reason: None,
            has_keepalive: false,
            cut: false,
            kind,
            listener,
            profile,
            asked: None,
            via: None,
            returns_to: None,
            payer: None,
            is_counted: false,
            is_association: false,
            settled: [0; 2],
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

    /// Returns the ending for a reason, and the party that caused it. A side that left before all bytes for it were
    /// delivered has aborted the connection, even if the first close was orderly.
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

    /// Returns true if the connection relayed no byte and a peer or a rule ended it. The number of log lines about such
    /// connections is limited.
    pub fn is_empty_failure(&self, reason: Reason) -> bool {
        reason.is_futile() && self.halves.iter().all(|half| half.bytes == 0)
    }

    pub fn is_over(&self) -> bool {
        self.halves.iter().all(|half| half.phase == Phase::Shut)
    }

    /// Returns the timer class of the stage.
    pub fn timer_class(&self) -> Option<TimerClass> {
        match self.stage {
            Stage::Handshake => Some(TimerClass::Handshake),
            Stage::Connecting => Some(TimerClass::Connect),
            Stage::KeepAlive => Some(TimerClass::HttpKeepAlive),
            Stage::Closing => Some(TimerClass::Linger),
            Stage::Closed => None,
            Stage::Established if self.halves.iter().any(|half| half.dead) => Some(TimerClass::Linger),
            Stage::Established if self.halves.iter().any(|half| half.phase == Phase::Shut) => {
                Some(TimerClass::HalfClosed)
            }
            Stage::Established if self.is_association => Some(TimerClass::Association),
            Stage::Established => Some(TimerClass::Idle),
        }
    }
}

impl Stage {
    /// Returns the word for logs and status.
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

// An idle connection takes less than 1 KiB with its two sides, the handler slots and the timer link.
const _: () = assert!(size_of::<Connection>() <= 384);
