//! The two frames between a node that joins and the node that has invited it.
//!
//! ```text
//! frame  = length (2 bytes, big endian: of the rest), kind (1 byte), body
//! claim  = kind 1: id (8 bytes), proof (32 bytes)
//! answer = kind 2: outcome (1 byte), proof (32 bytes)
//! ```
//! A frame has exactly the length of its kind. A receiver keeps no more than [`CLAIM_BYTES_MAX`] bytes, whatever length
//! the frame claims to have.

use std::fmt;

use crate::auth::{INVITATION_PROOF_BYTES, InvitationId, InvitedOutcome};

/// Limit of the bytes of a frame.
pub const CLAIM_BYTES_MAX: usize = 512;

/// The claim of a node that joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimFrame {
    /// The invitation.
    pub id: InvitationId,
    /// The proof of the joining node.
    pub proof: [u8; INVITATION_PROOF_BYTES],
}

/// The answer to a proven claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The invitation was looked at.
    Outcome(InvitedOutcome),
    /// The inviting node cannot read or write its files, and its log says why.
    Failed,
}

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// The frame is longer than [`CLAIM_BYTES_MAX`].
    TooLong,
    /// The kind or the length is wrong.
    Malformed,
    /// Bytes follow the frame.
    Trailing,
}

impl ClaimFrame {
    /// Returns the bytes of the frame.
    pub fn encode(&self) -> Vec<u8> {
        frame(CLAIM, &[&self.id.0, &self.proof])
    }

    /// Parses the body of a frame.
    fn parse(body: &[u8]) -> Option<ClaimFrame> {
        let (id, proof) = body.split_first_chunk()?;
        Some(ClaimFrame { id: InvitationId(*id), proof: proof.try_into().ok()? })
    }
}

impl Answer {
    /// Returns the bytes of the frame.
    pub fn encode(self, proof: &[u8; INVITATION_PROOF_BYTES]) -> Vec<u8> {
        frame(ANSWER, &[&[self.number()], proof])
    }

    fn number(self) -> u8 {
        match self {
            Answer::Outcome(InvitedOutcome::Joined) => 0,
            Answer::Outcome(InvitedOutcome::Known) => 1,
            Answer::Outcome(InvitedOutcome::Used) => 2,
            Answer::Outcome(InvitedOutcome::Expired) => 3,
            Answer::Failed => 4,
            Answer::Outcome(InvitedOutcome::KeyExpired) => 5,
        }
    }

    fn parse(body: &[u8]) -> Option<(Answer, [u8; INVITATION_PROOF_BYTES])> {
        let (number, proof) = body.split_first()?;
        let answer = match number {
            0 => Answer::Outcome(InvitedOutcome::Joined),
            1 => Answer::Outcome(InvitedOutcome::Known),
            2 => Answer::Outcome(InvitedOutcome::Used),
            3 => Answer::Outcome(InvitedOutcome::Expired),
            4 => Answer::Failed,
            5 => Answer::Outcome(InvitedOutcome::KeyExpired),
            _ => return None,
        };
        Some((answer, proof.try_into().ok()?))
    }
}

fn frame(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body: usize = parts.iter().map(|part| part.len()).sum();
    let length = u16::try_from(body + 1).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.push(kind);
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}

/// Gathers the bytes of one frame.
#[derive(Debug, Default)]
pub struct FrameReader(Vec<u8>);

impl FrameReader {
    /// Takes received bytes. Returns the claim when it is complete.
    ///
    /// # Errors
    /// The bytes are no claim, or more than one.
    pub fn claim(&mut self, bytes: &[u8]) -> Result<Option<ClaimFrame>, FrameError> {
        self.frame(CLAIM, CLAIM_BODY, bytes)?
            .map(|body| ClaimFrame::parse(body).ok_or(FrameError::Malformed))
            .transpose()
    }

    /// Takes received bytes. Returns the answer and its proof when they are complete.
    ///
    /// # Errors
    /// The bytes are no answer, or more than one.
    pub fn answer(&mut self, bytes: &[u8]) -> Result<Option<(Answer, [u8; INVITATION_PROOF_BYTES])>, FrameError> {
        self.frame(ANSWER, ANSWER_BODY, bytes)?.map(|body| Answer::parse(body).ok_or(FrameError::Malformed)).transpose()
    }

    /// Takes bytes of a frame of one kind, whose body has this length. Returns the body of the complete frame.
    fn frame(&mut self, kind: u8, body: usize, bytes: &[u8]) -> Result<Option<&[u8]>, FrameError> {
        if self.0.len() + bytes.len() > CLAIM_BYTES_MAX {
            return Err(FrameError::TooLong);
        }
        self.0.extend_from_slice(bytes);
        let Some((length, rest)) = self.0.split_first_chunk() else { return Ok(None) };
        // The length and the kind are wrong as soon as they are there, so that no rest is waited for.
        if usize::from(u16::from_be_bytes(*length)) != body + 1 || rest.first().is_some_and(|first| *first != kind) {
            return Err(FrameError::Malformed);
        }
        match rest.len().cmp(&(body + 1)) {
            std::cmp::Ordering::Less => Ok(None),
            std::cmp::Ordering::Equal => Ok(rest.get(1..)),
            std::cmp::Ordering::Greater => Err(FrameError::Trailing),
        }
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FrameError::TooLong => "a frame of more than 512 bytes",
            FrameError::Malformed => "a malformed frame",
            FrameError::Trailing => "bytes after the frame",
        })
    }
}

impl std::error::Error for FrameError {}

const CLAIM: u8 = 1;
const ANSWER: u8 = 2;
/// The length and the kind.
const HEADER_BYTES: usize = 3;
const CLAIM_BODY: usize = 8 + INVITATION_PROOF_BYTES;
const ANSWER_BODY: usize = 1 + INVITATION_PROOF_BYTES;
const _: () = assert!(HEADER_BYTES + CLAIM_BODY <= CLAIM_BYTES_MAX && HEADER_BYTES + ANSWER_BODY <= CLAIM_BYTES_MAX);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn claim() -> ClaimFrame {
        ClaimFrame { id: InvitationId([1, 2, 3, 4, 5, 6, 7, 8]), proof: [9; 32] }
    }

    #[test]
    fn a_frame_has_these_bytes() {
        let claim = claim().encode();
        assert_eq!(claim[..11], [0, 41, 1, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!((claim.len(), &claim[11..]), (43, &[9; 32][..]));
        let answer = Answer::Outcome(InvitedOutcome::Used).encode(&[7; 32]);
        assert_eq!((answer.len(), &answer[..4], &answer[4..]), (36, &[0, 34, 2, 2][..], &[7; 32][..]));
    }

    #[test]
    fn a_frame_is_read_however_it_arrives() {
        let bytes = claim().encode();
        for step in [1, 2, 3, 10, 43] {
            let mut reader = FrameReader::default();
            let mut found = Vec::new();
            bytes.chunks(step).for_each(|part| found.push(reader.claim(part).unwrap()));
            assert_eq!(found.pop(), Some(Some(claim())), "{step}");
            assert!(found.iter().all(Option::is_none), "{step}");
        }
        use InvitedOutcome::{Expired, Joined, KeyExpired, Known, Used};
        for outcome in [Joined, Known, Used, Expired, KeyExpired] {
            let answer = Answer::Outcome(outcome);
            assert_eq!(FrameReader::default().answer(&answer.encode(&[1; 32])), Ok(Some((answer, [1; 32]))));
        }
        assert_eq!(
            FrameReader::default().answer(&Answer::Failed.encode(&[1; 32])),
            Ok(Some((Answer::Failed, [1; 32])))
        );
    }

    #[test]
    fn a_frame_of_another_length_or_kind_is_refused_at_once() {
        let bytes = claim().encode();
        let read = |bytes: &[u8]| FrameReader::default().claim(bytes);
        for start in [&[0, 40][..], &[0, 42], &[2, 0], &[255, 255], &[0, 0], &[0, 41, 2], &[0, 41, 0]] {
            assert_eq!(read(start), Err(FrameError::Malformed), "{start:?}");
        }
        assert_eq!(read(&[&bytes[..], &[0]].concat()), Err(FrameError::Trailing));
        assert_eq!(read(&[&bytes[..], &[0; 470]].concat()), Err(FrameError::TooLong), "513 bytes");
        assert_eq!(read(&[&bytes[..], &[0; 469]].concat()), Err(FrameError::Trailing), "512 bytes");
        let mut reader = FrameReader::default();
        assert_eq!(reader.claim(&bytes), Ok(Some(claim())));
        assert_eq!(reader.claim(&[0]), Err(FrameError::Trailing), "a second frame");
        assert_eq!(FrameReader::default().answer(&[0, 34, 2, 5]).unwrap(), None);
        assert!(FrameReader::default().answer(&frame(ANSWER, &[&[6], &[0; 32]])).is_err(), "an unknown outcome");
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_no_more_than_the_limit_is_kept(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
            is_near: bool,
        ) {
            let mut reader = FrameReader::default();
            if is_near {
                let _ = reader.claim(&claim().encode()[..20]);
            }
            for part in parts {
                let _ = reader.claim(&part);
                prop_assert!(reader.0.len() <= CLAIM_BYTES_MAX);
            }
        }

        #[test]
        fn a_complete_claim_parses_to_itself(id: [u8; 8], proof: [u8; 32], cut in 0..43_usize) {
            let claim = ClaimFrame { id: InvitationId(id), proof };
            let bytes = claim.encode();
            let mut reader = FrameReader::default();
            prop_assert_eq!(reader.claim(&bytes[..cut]), Ok(None));
            prop_assert_eq!(reader.claim(&bytes[cut..]), Ok(Some(claim)));
        }
    }
}
