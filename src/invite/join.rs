//! The joining node's part: dials the addresses of an invitation in turn, and proves that it holds the invitation to the node
//! with the right key. It waits for the network, so a loop must not call it.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::Target;
use crate::auth::{INVITATION_EXPORTER, Invitation, InvitedOutcome, NodeKey, ProofContext, ProofRole, PublicKey};
use crate::tls::{Buffers, Cipher, Identity, Tls, TlsError, TlsPipe};

use super::frame::{Answer, ClaimFrame, FrameReader};

/// The result of joining.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The address at which the inviting node has answered.
    pub address: Target,
    /// Its key.
    pub key: PublicKey,
    /// True if the inviting node had authorized the key of this node before, and has changed nothing.
    pub was_known: bool,
}

/// The reason why a node could not join.
#[derive(Debug)]
#[non_exhaustive]
pub enum JoinError {
    /// No address has answered; holds the failure of each.
    Unreachable(Vec<(Target, String)>),
    /// A node has answered that has another key than the invitation names. It was told nothing.
    WrongKey {
        /// The address.
        address: Target,
        /// The key of the node.
        key: PublicKey,
    },
    /// The node takes no invitation now, or does not know this one.
    NotTaken(Target),
    /// The node has closed the connection without an answer to the proof: it does not know the invitation, or was stopped.
    NoAnswer(Target),
    /// The invitation was used, or withdrawn.
    Used(Target),
    /// The invitation has expired.
    Expired(Target),
    /// The key of the caller is authorized there, and its time is over. The invitation was not used.
    KeyExpired(Target),
    /// The inviting node could not read or write its files.
    Failed(Target),
    /// The caller refuses the node before anything is proven; see [`join`].
    Refused(String),
}

/// Joins a node to the one that has made the invitation. `before` is called with the address and the key of the node, after
/// the key was compared with the invitation and before the invitation is used; an error stops there. `patience` is the
/// time for each address. A node that does not take the invitation is asked again for a moment, because it reads its file once
/// a second.
///
/// # Errors
/// See [`JoinError`].
pub fn join(
    invitation: &Invitation,
    key: &NodeKey,
    patience: Duration,
    before: impl Fn(&Target, &PublicKey) -> Result<(), String>,
) -> Result<Joined, JoinError> {
    let identity = key.pkcs8_der();
    let mut seed = [0; 32];
    // The seed is the end of what version 1 of the format holds (RFC 8410, section 7).
    seed.copy_from_slice(&identity.expose()[identity.expose().len() - 32..]);
    let identity = Identity::from_seed(&seed);
    seed.fill(0);
    let own = key.public();
    let mut outcome = JoinError::Unreachable(Vec::new());
    for round in 0..ROUNDS {
        if round > 0 {
            std::thread::sleep(ROUND_PAUSE);
        }
        let (mut failures, mut refused, mut may_change) = (Vec::new(), None, false);
        for address in invitation.addresses() {
            let identity = identity.as_ref().map_err(|error| JoinError::Refused(error.to_string()))?;
            let attempt = Attempt { invitation, identity, own: &own, address, by: Instant::now() + patience };
            match attempt.run(&before) {
                Ok(joined) => return Ok(joined),
                Err(Stop::Failed(text)) => failures.push((address.clone(), text)),
                Err(Stop::NotYet(error)) => (refused, may_change) = (Some(error), true),
                Err(Stop::Wrong(key)) => {
                    refused.get_or_insert(JoinError::WrongKey { address: address.clone(), key });
                }
                Err(Stop::Final(error)) => return Err(error),
            }
        }
        outcome = refused.unwrap_or(JoinError::Unreachable(failures));
        if !may_change {
            break;
        }
    }
    Err(outcome)
}

/// An attempt at one address.
struct Attempt<'a> {
    invitation: &'a Invitation,
    identity: &'a Identity,
    own: &'a PublicKey,
    address: &'a Target,
    by: Instant,
}

/// Why an attempt ended.
enum Stop {
    /// The address does not answer as a node does. Another one may.
    Failed(String),
    /// The node names no invitations, or does not know this one. It may not have read its file yet.
    NotYet(JoinError),
    /// The node has another key.
    Wrong(PublicKey),
    /// No other address is tried.
    Final(JoinError),
}

impl Attempt<'_> {
    fn run(&self, before: &impl Fn(&Target, &PublicKey) -> Result<(), String>) -> Result<Joined, Stop> {
        let socket = self.connect().map_err(|error| Stop::Failed(connect_failure(&error)))?;
        let expected = self.invitation.fingerprint().to_owned();
        let is_expected =
            move |key: &[u8; 32]| PublicKey::from_bytes(*key).is_ok_and(|key| key.fingerprint() == expected);
        let tls = Tls::joiner(self.identity, &Cipher::preferred()[..], Arc::new(is_expected));
        let failed = |error: TlsError| Stop::Failed(error.to_string());
        let pipe = tls.map_err(failed)?.pipe(&Rc::new(Buffers::new())).map_err(failed)?;
        let mut channel = Channel { socket, pipe, by: self.by };
        channel.shake().map_err(|error| self.stopped(error))?;
        let key = channel.pipe.peer_key().and_then(|key| PublicKey::from_bytes(key).ok());
        let key = key.ok_or_else(|| Stop::Failed("the node has no key".to_owned()))?;
        before(self.address, &key).map_err(|text| Stop::Final(JoinError::Refused(text)))?;
        let exported = channel.pipe.exporter(INVITATION_EXPORTER, &[]);
        let exported = exported.ok_or_else(|| Stop::Failed("the connection has no exporter".to_owned()))?;
        let (id, proof_key) = (self.invitation.id(), self.invitation.proof_key());
        let context = ProofContext { id, inviter: key.as_bytes(), joiner: self.own.as_bytes(), channel: &exported };
        let claim = ClaimFrame { id, proof: proof_key.prove(ProofRole::Joiner, &context) };
        // A node answers every proven claim, unless it is stopped at this moment.
        let no_answer = || Stop::NotYet(JoinError::NoAnswer(self.address.clone()));
        let (answer, proof) = match channel.ask(&claim) {
            Ok(answer) => answer,
            Err(_) => return Err(no_answer()),
        };
        if !proof_key.is_proven(ProofRole::Inviter, &context, &proof) {
            return Err(no_answer());
        }
        let address = self.address.clone();
        match answer {
            Answer::Outcome(InvitedOutcome::Joined) => Ok(Joined { address, key, was_known: false }),
            Answer::Outcome(InvitedOutcome::Known) => Ok(Joined { address, key, was_known: true }),
            Answer::Outcome(InvitedOutcome::Used) => Err(Stop::Final(JoinError::Used(address))),
            Answer::Outcome(InvitedOutcome::Expired) => Err(Stop::Final(JoinError::Expired(address))),
            Answer::Outcome(InvitedOutcome::KeyExpired) => Err(Stop::Final(JoinError::KeyExpired(address))),
            Answer::Failed => Err(Stop::Final(JoinError::Failed(address))),
        }
    }

    /// Connects to the first address of the target that answers.
    fn connect(&self) -> io::Result<TcpStream> {
        let addrs: Vec<SocketAddr> = match self.address {
            Target::Ip(_, addr) => vec![*addr],
            Target::Name(_, name, port) => (name.as_str(), *port).to_socket_addrs()?.take(ADDRS_MAX).collect(),
            Target::Unix(_) | Target::End(_) => {
                return Err(io::Error::new(ErrorKind::InvalidInput, "expected HOST:PORT"));
            }
        };
        let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
        for addr in addrs {
            match TcpStream::connect_timeout(&addr, left(self.by)?) {
                Ok(socket) => {
                    socket.set_nodelay(true)?;
                    return Ok(socket);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Returns the reason for a handshake that has failed.
    fn stopped(&self, error: Broken) -> Stop {
        match error {
            Broken::Tls(TlsError::KeyRefused(key)) => match PublicKey::from_bytes(key) {
                Ok(key) => Stop::Wrong(key),
                Err(error) => Stop::Failed(error.to_string()),
            },
            Broken::Tls(TlsError::Alpn) => Stop::NotYet(JoinError::NotTaken(self.address.clone())),
            other => Stop::Failed(other.to_string()),
        }
    }
}

/// A TLS connection on a socket that waits.
struct Channel {
    socket: TcpStream,
    pipe: TlsPipe,
    by: Instant,
}

/// The end of a channel.
#[derive(Debug)]
enum Broken {
    Io(io::Error),
    Tls(TlsError),
    Frame(super::frame::FrameError),
}

impl Channel {
    fn shake(&mut self) -> Result<(), Broken> {
        loop {
            self.flush()?;
            if !self.pipe.is_handshaking() {
                return Ok(());
            }
            self.receive(&mut Vec::new())?;
        }
    }

    /// Sends the claim, and waits for the answer.
    fn ask(&mut self, claim: &ClaimFrame) -> Result<(Answer, [u8; 32]), Broken> {
        self.pipe.seal([&claim.encode()[..]]).map_err(Broken::Tls)?;
        self.flush()?;
        let mut reader = FrameReader::default();
        loop {
            let mut plain = Vec::new();
            self.receive(&mut plain)?;
            for bytes in plain {
                if let Some(answer) = reader.answer(&bytes).map_err(Broken::Frame)? {
                    return Ok(answer);
                }
            }
        }
    }

    fn receive(&mut self, plain: &mut Vec<bytes::Bytes>) -> Result<(), Broken> {
        let socket = &mut self.socket;
        let wait = left(self.by).map_err(Broken::Io)?;
        socket.set_read_timeout(Some(wait)).map_err(Broken::Io)?;
        let got = self.pipe.read_from(|room| socket.read(room)).map_err(Broken::Io)?;
        let opened = self.pipe.open(plain).map_err(Broken::Tls);
        // The alert tells the node why this one gives up.
        let _ = self.flush();
        opened?;
        if got == 0 && plain.is_empty() {
            self.pipe.end_of_input().map_err(Broken::Tls)?;
            return Err(Broken::Io(ErrorKind::UnexpectedEof.into()));
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Broken> {
        let socket = &mut self.socket;
        while self.pipe.unsent() > 0 {
            let wait = left(self.by).map_err(Broken::Io)?;
            socket.set_write_timeout(Some(wait)).map_err(Broken::Io)?;
            self.pipe.write_to(|bytes| socket.write(bytes)).map_err(Broken::Io)?;
        }
        Ok(())
    }
}

/// Returns the failure of a connection in words. A node that listens for QUIC refuses it.
fn connect_failure(error: &io::Error) -> String {
    let hint = if error.kind() == ErrorKind::ConnectionRefused { UDP_ALONE } else { "" };
    format!("{error}{hint}")
}

/// Returns the time until a deadline.
fn left(by: Instant) -> io::Result<Duration> {
    let left = by.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Io(error) if is_timeout(error) => f.write_str(NO_ANSWER),
            Broken::Io(error) => error.fmt(f),
            Broken::Tls(error) => error.fmt(f),
            Broken::Frame(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JoinError::Unreachable(failures) => {
                f.write_str("no address of the invitation has answered")?;
                failures.iter().try_for_each(|(address, failure)| write!(f, "\n  {address}: {failure}"))
            }
            JoinError::WrongKey { address, key } => write!(
                f,
                "{address} has another key than the invitation names, {}. Nothing was sent to it.",
                key.fingerprint()
            ),
            JoinError::NotTaken(address) => write!(
                f,
                "{address} does not take this invitation: it has expired, was used or withdrawn, or the node has an earlier \
                 version. If you have not used it, somebody else has: look at authorized_keys there"
            ),
            JoinError::NoAnswer(address) => write!(
                f,
                "{address} has not answered: it does not know this invitation, or was stopped meanwhile. If it was, join once \
                 more; if the invitation is used then, the key of this node may be authorized, and `seaprox link --connect \
                 {address}` tells"
            ),
            JoinError::Used(address) => write!(
                f,
                "{address}: the invitation was used before, or withdrawn. If you have not used it, somebody else has: look at \
                 authorized_keys there"
            ),
            JoinError::Expired(address) => write!(f, "{address}: the invitation has expired"),
            JoinError::KeyExpired(address) => write!(
                f,
                "{address}: the key of this node has expired there, and the invitation was not used. The line of the key must be \
                 removed from authorized_keys there first, or this node joins with another key"
            ),
            JoinError::Failed(address) => {
                write!(f, "{address} cannot write down the key of this node; its log says why")
            }
            JoinError::Refused(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for JoinError {}

const NO_ANSWER: &str = "no answer in time";
const UDP_ALONE: &str = "; a node is joined over TCP, and with `--carrier quic` it listens on UDP alone";
/// Addresses of a name that are tried.
const ADDRS_MAX: usize = 8;
/// A running node reads a new invitation within a second.
const ROUNDS: usize = 4;
const ROUND_PAUSE: Duration = Duration::from_millis(700);
