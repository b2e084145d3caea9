//! HELLO and HELLO_ACK: the handshake of a subflow.
//!
//! The proofs bind a subflow to its session and to its own secure channel. The owner of the TLS connection computes
//! them: HMAC-SHA256 over [`proof_text`] with the session's key. The text includes the exporter value of the channel,
//! so a captured HELLO is useless on another channel.

use super::cursor::{Put, Reader};
use super::header::{FrameError, OFFSET_MAX};
use super::ids::{BootId, SessionId, SessionRole, SubflowId};

/// The protocol version of this code.
pub const VERSION: u8 = 1;
/// The first four bytes of a HELLO's body.
pub const MAGIC: [u8; 4] = *b"SPRX";
/// Length of a proof in bytes: one HMAC-SHA256.
pub const PROOF_BYTES: usize = 32;
/// Minimum of the initial stream credit. A smaller limit in a HELLO is an error.
pub const STREAM_CREDIT_MIN: u64 = 1024;

/// Optional features of the protocol: one bit each of `caps` in HELLO and HELLO_ACK.
///
/// The client sends its bits, the server answers with those that both ends have, and the session keeps that set: see
/// [`Session::has_capability`](crate::link::Session::has_capability). A node without optional features sends 0. Each
/// feature that changes the bytes on the wire, or the definition of a violation, has a bit here. A bit is never reused
/// for another feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
#[non_exhaustive]
pub enum Capability {
    /// A sender has at most 1,024 unacknowledged OPENs, and sends no data of a stream ahead of its OPEN.
    OrderedOpens = 1,
    /// A client that receives GOAWAY opens new streams over another session, and closes this one once its streams are
    /// over.
    Handover = 2,
    /// A LISTEN_RESULT with a failure may follow one without: the listener is gone, and the peer may ask for it again.
    ListenerLost = 4,
    /// A receiver acknowledges after 64 KiB while small messages compete with a bulk transfer on a single subflow.
    EarlyAcks = 8,
}

impl Capability {
    /// All features of this version.
    pub const LIST: &[Capability] =
        &[Capability::OrderedOpens, Capability::Handover, Capability::ListenerLost, Capability::EarlyAcks];

    /// Returns the bit of the feature in `caps`.
    pub const fn bit(self) -> u64 {
        self as u64
    }

    /// Returns the bits of all features of this version.
    pub const fn all() -> u64 {
        let (mut bits, mut rest) = (0, Capability::LIST);
        while let [first, others @ ..] = rest {
            bits |= first.bit();
            rest = others;
        }
        bits
    }
}

/// The purpose of a subflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// The subflow starts a session.
    New,
    /// The subflow joins a session that has others.
    Join,
    /// The subflow resumes a session that has lost all others; those that the peer still holds are dead.
    Resume,
}

/// The limits that one end sets for its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of live streams that the peer has opened.
    pub streams: u32,
    /// Maximum number of live listeners that the peer has asked for.
    pub listeners: u32,
    /// Initial credit of each stream in bytes.
    pub stream_credit: u64,
    /// Initial credit of the session in bytes.
    pub session_credit: u64,
}

/// The first frame of the client on a subflow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The lowest and the highest version that the client supports.
    pub versions: (u8, u8),
    /// The purpose of the subflow.
    pub intent: Intent,
    /// The session.
    pub session: SessionId,
    /// The boot id of the client.
    pub boot: BootId,
    /// The subflow's id at both ends.
    pub subflow: SubflowId,
    /// Number of lanes of the subflow.
    pub lanes: u16,
    /// Optional features of the client: see [`Capability`].
    pub caps: u64,
    /// The client's limits.
    pub limits: Limits,
    /// Proof that the client holds the session's key and is the end of this channel.
    pub proof: [u8; PROOF_BYTES],
}

/// The server's answer to a HELLO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The subflow is part of the session.
    Ok,
    /// The two ends have no version in common.
    Version,
    /// The server does not know the session: it has restarted, or has given the session up.
    UnknownSession,
    /// The proof is wrong.
    Denied,
    /// There are too many sessions or subflows.
    Limit,
}

/// The first frame of the server on a subflow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloAck {
    /// The result of the handshake.
    pub status: Status,
    /// The version in use.
    pub version: u8,
    /// The session.
    pub session: SessionId,
    /// The boot id of the server.
    pub boot: BootId,
    /// The subflow.
    pub subflow: SubflowId,
    /// Optional features that both ends have: see [`Capability`].
    pub caps: u64,
    /// The server's limits.
    pub limits: Limits,
    /// Proof that the server holds the session's key and is the end of this channel.
    pub proof: [u8; PROOF_BYTES],
}

/// Returns the text whose HMAC under the session's key is the proof of `role` for a subflow.
///
/// `channel` is the exporter value of the subflow's own secure channel, label `EXPORTER-seaprox-join`; the key is the
/// exporter value of the channel that started the session, label `EXPORTER-seaprox-session`.
pub fn proof_text(role: SessionRole, session: SessionId, subflow: SubflowId, channel: &[u8; 32]) -> Vec<u8> {
    let role: &[u8] = match role {
        SessionRole::Client => b"join client ",
        SessionRole::Server => b"join server ",
    };
    [role, &session.0, &subflow.0.to_be_bytes(), channel].concat()
}

/// Returns true if two proofs are equal. The comparison takes constant time.
pub fn proofs_match(a: &[u8; PROOF_BYTES], b: &[u8; PROOF_BYTES]) -> bool {
    let difference = a.iter().zip(b).fold(0, |sum, (x, y)| sum | (x ^ y));
    std::hint::black_box(difference) == 0
}

impl HelloAck {
    /// Returns the answer to a HELLO that no session accepts.
    pub fn refusal(status: Status, hello: &Hello, boot: BootId) -> HelloAck {
        HelloAck {
            status,
            version: VERSION,
            session: hello.session,
            boot,
            subflow: hello.subflow,
            caps: 0,
            limits: Limits {
                streams: 0,
                listeners: 0,
                stream_credit: STREAM_CREDIT_MIN,
                session_credit: STREAM_CREDIT_MIN,
            },
            proof: [0; PROOF_BYTES],
        }
    }

    pub(in crate::link) fn decode(r: &mut Reader<'_>) -> Result<HelloAck, FrameError> {
        let status = match r.u8()? {
            0 => Status::Ok,
            1 => Status::Version,
            2 => Status::UnknownSession,
            3 => Status::Denied,
            4 => Status::Limit,
            _ => return Err(FrameError::Value),
        };
        Ok(HelloAck {
            status,
            version: r.u8()?,
            subflow: SubflowId(r.u16()?),
            session: SessionId(r.array()?),
            boot: BootId(r.array()?),
            caps: r.u64()?,
            limits: Limits::decode(r)?,
            proof: r.array()?,
        })
    }

    pub(in crate::link) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(self.status as u8);
        out.put_u8(self.version);
        out.put_u16(self.subflow.0);
        out.put(&self.session.0);
        out.put(&self.boot.0);
        out.put_u64(self.caps);
        self.limits.encode(out);
        out.put(&self.proof);
    }
}

impl Hello {
    pub(in crate::link) fn decode(r: &mut Reader<'_>) -> Result<Hello, FrameError> {
        if r.array()? != MAGIC {
            return Err(FrameError::Value);
        }
        let versions = (r.u8()?, r.u8()?);
        let intent = match r.u16()? {
            0 => Intent::New,
            1 => Intent::Join,
            2 => Intent::Resume,
            _ => return Err(FrameError::Value),
        };
        Ok(Hello {
            versions,
            intent,
            session: SessionId(r.array()?),
            boot: BootId(r.array()?),
            subflow: SubflowId(r.u16()?),
            lanes: r.u16()?,
            caps: r.u64()?,
            limits: Limits::decode(r)?,
            proof: r.array()?,
        })
    }

    pub(in crate::link) fn encode(&self, out: &mut Vec<u8>) {
        out.put(&MAGIC);
        out.put(&[self.versions.0, self.versions.1]);
        out.put_u16(self.intent as u16);
        out.put(&self.session.0);
        out.put(&self.boot.0);
        out.put_u16(self.subflow.0);
        out.put_u16(self.lanes);
        out.put_u64(self.caps);
        self.limits.encode(out);
        out.put(&self.proof);
    }
}

impl Limits {
    fn decode(r: &mut Reader<'_>) -> Result<Limits, FrameError> {
        let limits =
            Limits { streams: r.u32()?, listeners: r.u32()?, stream_credit: r.u64()?, session_credit: r.u64()? };
        let credit = STREAM_CREDIT_MIN..=OFFSET_MAX;
        if !credit.contains(&limits.stream_credit) || !credit.contains(&limits.session_credit) {
            return Err(FrameError::Value);
        }
        Ok(limits)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.streams);
        out.put_u32(self.listeners);
        out.put_u64(self.stream_credit);
        out.put_u64(self.session_credit);
    }
}
