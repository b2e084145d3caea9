//! Properties of invitations: their line, and the frames between the two nodes.

use seaprox::auth::Invitation;
use seaprox::invite::{CLAIM_BYTES_MAX, FrameReader};

/// Checks the parser of the claim, which strangers send: the pieces in which the bytes come make no difference, and a claim has
/// one encoding.
pub fn claim(bytes: &[u8]) {
    let whole = FrameReader::default().claim(bytes);
    let mut reader = FrameReader::default();
    let mut last = Ok(None);
    for byte in bytes {
        last = reader.claim(&[*byte]);
        if last.is_err() {
            break;
        }
    }
    match (whole, last) {
        (Ok(whole), last) => assert_eq!(last, Ok(whole)),
        (Err(_), last) => assert!(last.is_err()),
    }
    if let Ok(Some(claim)) = whole {
        assert_eq!(claim.encode(), bytes);
    }
    if bytes.len() > CLAIM_BYTES_MAX {
        assert!(whole.is_err());
    }
    // The joining node parses the answer of a node with the right key.
    let _ = FrameReader::default().answer(bytes);
}

/// Checks the parser of the line: what it accepts is printed in one form, which it accepts as the same.
pub fn invitation(bytes: &[u8]) {
    let Ok(read) = Invitation::parse(bytes) else { return };
    let line = read.to_line();
    let again = Invitation::parse(line.expose()).expect("a printed line is a line");
    assert_eq!((again.id(), again.fingerprint(), again.addresses()), (read.id(), read.fingerprint(), read.addresses()));
    assert_eq!(again.to_line().expose(), line.expose());
}
