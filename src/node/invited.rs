//! Peers with an invitation: strangers whose one frame is heard while an invitation is pending.
//!
//! ```text
//!   Securing --TLS, ALPN of invitations--> Invited --claim--> the policy --answer--> Closing
//!                                              \______ deadline, wrong bytes, no answer ______/ closed without a word
//! ```
//! Such a peer stays under the limits for unauthenticated peers until the end: it keeps its place in their table, its deadline and
//! the bound on its bytes, and its network is not known afterwards. The policy checks the proof in the loop and waits for
//! the disk elsewhere; its answer comes back through the mailbox of the loop.

use std::fmt;

use crate::auth::{INVITATION_EXPORTER, InvitationId, InvitedOutcome, ProofContext, ProofKey, ProofRole};
use crate::engine::control::Loop;
use crate::engine::core::Core;
use crate::engine::mailbox::Remote;
use crate::invite::frame::{Answer, FrameReader};
use crate::types::id::Id;
use crate::types::reason::{Failure, Reason};

use super::accept::TARGET;
use super::carrier::CarrierStage;
use super::config::PeerKey;
use super::control::Node;

/// The claim of a peer that it holds an invitation. Nothing of it is proven before [`Claim::is_proven_by`].
#[derive(Clone, Debug)]
pub struct Claim {
    key: PeerKey,
    own: PeerKey,
    id: InvitationId,
    proof: [u8; 32],
    channel: [u8; 32],
}

impl Claim {
    /// Returns the key that the peer has proven to hold.
    pub fn key(&self) -> &PeerKey {
        &self.key
    }

    /// Returns the invitation that the peer names.
    pub fn id(&self) -> InvitationId {
        self.id
    }

    /// Returns true if the peer knows the secret of the invitation that has this key, and sits at the other end of this very
    /// connection. Takes the same time for each wrong proof.
    pub fn is_proven_by(&self, key: &ProofKey) -> bool {
        key.is_proven(ProofRole::Joiner, &self.context(), &self.proof)
    }

    fn context(&self) -> ProofContext<'_> {
        ProofContext { id: self.id, inviter: &self.own, joiner: &self.key, channel: &self.channel }
    }
}

/// The way back to a peer with an invitation. Dropped without an answer, it closes the peer as any stranger.
pub struct ClaimReply {
    claim: Claim,
    carrier: Id,
    remote: Option<Remote>,
}

impl ClaimReply {
    /// Returns the claim.
    pub fn claim(&self) -> &Claim {
        &self.claim
    }

    /// Answers a peer whose claim is proven by `key`. Any thread may call this.
    pub fn send(mut self, answer: Answer, key: &ProofKey) {
        let bytes = answer.encode(&key.prove(ProofRole::Inviter, &self.claim.context()));
        let (carrier, remote) = (self.carrier, self.remote.take());
        // At the limit of the mailbox, the deadline of the peer closes it. It may ask again.
        let _ = remote.map(|remote| remote.call(move |core| core.answer_claim(carrier, Some((answer, bytes)))));
    }
}

impl fmt::Debug for ClaimReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClaimReply({})", self.carrier)
    }
}

impl Drop for ClaimReply {
    fn drop(&mut self) {
        let carrier = self.carrier;
        let _ = self.remote.take().map(|remote| remote.call(move |core| core.answer_claim(carrier, None)));
    }
}

/// The bytes that a peer with an invitation has sent.
#[derive(Debug, Default)]
pub(super) struct Invited(FrameReader);

impl Loop<'_> {
    /// Sends the answer to a claim and closes its peer; without an answer, only closes it.
    fn answer_claim(&mut self, carrier: Id, answer: Option<(Answer, Vec<u8>)>) {
        let (core, node) = self.parts::<Node>();
        match answer {
            Some((answer, bytes)) => node.answer_claim(core, carrier, answer, &bytes),
            None => node.close_stranger(core, carrier),
        }
    }
}

impl Node {
    /// Takes bytes of a peer that may hold an invitation.
    pub(super) fn hear_invited(&mut self, core: &mut Core, id: Id, bytes: &[u8]) -> Result<(), Failure> {
        let Some(carrier) = self.carriers.get_mut(id) else { return Ok(()) };
        carrier.stage = CarrierStage::Invited;
        let read = carrier.invited.get_or_insert_default().0.claim(bytes);
        let frame = match read {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(()),
            Err(error) => return Err(Failure::new(Reason::ProtocolError, error.to_string())),
        };
        let (Some(transport), Some(server)) =
            (&carrier.transport, carrier.server.and_then(|server| self.servers.get(server)))
        else {
            return Err(Reason::Internal.into());
        };
        let (Some(key), Some(channel)) = (transport.peer_key(), transport.exporter(INVITATION_EXPORTER, &[])) else {
            return Err(Reason::Internal.into());
        };
        let claim = Claim { key, own: server.key, id: frame.id, proof: frame.proof, channel };
        let reply = ClaimReply { claim, carrier: id, remote: Some(core.remote()) };
        server.policy.take_claim(reply);
        Ok(())
    }

    fn answer_claim(&mut self, core: &mut Core, id: Id, answer: Answer, bytes: &[u8]) {
        let Some(carrier) = self.carriers.get_mut(id).filter(|carrier| carrier.stage == CarrierStage::Invited) else {
            return;
        };
        let from = core.peer(carrier.side);
        let key = carrier.transport.as_ref().and_then(|transport| transport.peer_key());
        if let Some(transport) = &mut carrier.transport {
            transport.send_bytes(bytes);
            transport.close();
        }
        carrier.stage = CarrierStage::Closing;
        let key = super::link_event::fingerprint(key.as_ref());
        let outcome = match answer {
            Answer::Outcome(InvitedOutcome::Joined) => "joined",
            Answer::Outcome(InvitedOutcome::Known) => "known",
            Answer::Outcome(InvitedOutcome::Used) => "used",
            Answer::Outcome(InvitedOutcome::Expired) => "expired",
            Answer::Outcome(InvitedOutcome::KeyExpired) => "key_expired",
            Answer::Failed => "failed",
        };
        if answer == Answer::Outcome(InvitedOutcome::Joined) {
            core.stats.invitations_accepted += 1;
            log::info!(target: TARGET, from = from.to_string(), key; "a node has joined by an invitation");
        } else {
            core.stats.invitations_refused += 1;
            if let Some(suppressed) = core.may_log_network(&from, Reason::AuthFailed) {
                log::warn!(target: TARGET, from = from.to_string(), key, outcome, suppressed; "a node with an invitation has not joined");
            }
        }
        if let Err(failure) = self.flush_carrier(core, id) {
            self.carrier_failed(core, id, &failure);
        }
    }

    /// Closes a peer whose claim is not proven, as any stranger.
    fn close_stranger(&mut self, core: &mut Core, id: Id) {
        if self.carriers.get(id).is_some_and(|carrier| carrier.stage == CarrierStage::Invited) {
            self.carrier_failed(core, id, &Failure::new(Reason::AuthFailed, "it does not prove an invitation"));
        }
    }
}
