//! Proofs: a subflow shows that it belongs to its session.
//!
//! The key is the exporter value (RFC 8446, section 7.5) of the connection that started the session. The text is bound to
//! the subflow's own connection by its exporter value, so a captured HELLO is useless on another connection. On a connection
//! that both ends have dialed, the context of that value is the digest of both ClientHellos, of which TLS itself covers one.

use ring::hmac;

use crate::link::{Proofs, SessionId, SessionRole, SubflowId, proof_text};
use crate::transport::Carrier;

/// Returns the key of a session that starts on this connection, once its handshake is done.
pub(crate) fn session_secret(carrier: &Carrier, session: SessionId) -> Option<[u8; 32]> {
    carrier.exporter("EXPORTER-seaprox-session", &session.0)
}

/// Returns the two proofs of a subflow on this connection, seen from `role`, once its handshake is done.
pub(crate) fn proofs(
    carrier: &Carrier,
    secret: &[u8; 32],
    role: SessionRole,
    session: SessionId,
    subflow: SubflowId,
) -> Option<Proofs> {
    let crossed = carrier.crossed();
    let context = crossed.as_ref().map_or(&[][..], |crossed| &crossed.digest);
    let channel = carrier.exporter("EXPORTER-seaprox-join", context)?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let of = |role| {
        let tag = hmac::sign(&key, &proof_text(role, session, subflow, &channel));
        let mut proof = [0; 32];
        proof.copy_from_slice(tag.as_ref());
        proof
    };
    Some(Proofs { ours: of(role), theirs: of(role.peer()) })
}
