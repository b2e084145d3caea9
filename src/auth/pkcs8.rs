//! The file format of private keys: PKCS#8 (RFC 5958, RFC 8410) in PEM (RFC 7468).
//!
//! The encoder writes version 1, byte for byte like `openssl genpkey -algorithm ed25519`. The decoder reads version 1 and
//! version 2, which also has the public key, with either of the two tags in use. All buffers are overwritten on drop.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::secret::Secret;

/// The content of a key file.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) seed: Secret,
    /// The public key in the file. It may not belong to the seed.
    pub(super) public: Option<[u8; SEED_BYTES]>,
}

/// Encodes a seed in DER.
pub(super) fn encode_der(seed: &[u8]) -> Secret {
    let mut der = Secret::zeroed(PREFIX.len() + SEED_BYTES);
    let (prefix, room) = der.expose_mut().split_at_mut(PREFIX.len());
    prefix.copy_from_slice(&PREFIX);
    room.copy_from_slice(seed);
    der
}

/// Encodes a seed in PEM.
pub(super) fn encode_pem(seed: &[u8]) -> Secret {
    let der = encode_der(seed);
    let mut body = Secret::zeroed(der.expose().len().div_ceil(3) * 4);
    if STANDARD.encode_slice(der.expose(), body.expose_mut()).is_err() {
        unreachable!("the buffer has the size that base64 has");
    }
    // The body is one line of 64 characters, the longest that PEM permits.
    let parts = [BEGIN.as_bytes(), b"\n", body.expose(), b"\n", END.as_bytes(), b"\n"];
    let mut pem = Secret::zeroed(parts.iter().map(|part| part.len()).sum());
    let mut room = pem.expose_mut();
    for part in parts {
        let (here, rest) = room.split_at_mut(part.len());
        here.copy_from_slice(part);
        room = rest;
    }
    pem
}

/// Decodes a key in PEM. The error is the expected form.
pub(super) fn decode_pem(text: &[u8]) -> Result<Decoded, &'static str> {
    let text = text.trim_ascii();
    if text.starts_with(b"-----BEGIN ENCRYPTED") {
        return Err("a key without a passphrase");
    }
    let body = text.strip_prefix(BEGIN.as_bytes()).and_then(|rest| rest.strip_suffix(END.as_bytes()));
    let body = body.ok_or(PEM_FORM)?;
    let mut plain = Secret::zeroed(body.len());
    let mut used = 0;
    for byte in body.iter().filter(|byte| !byte.is_ascii_whitespace()) {
        plain.expose_mut()[used] = *byte;
        used += 1;
    }
    let mut der = Secret::zeroed(base64::decoded_len_estimate(used));
    let bytes = STANDARD.decode_slice(&plain.expose()[..used], der.expose_mut()).map_err(|_| PEM_FORM)?;
    decode_der(&der.expose()[..bytes]).ok_or(KEY_FORM)
}

fn decode_der(der: &[u8]) -> Option<Decoded> {
    // A length in one byte is below 128, and so is the length of each ed25519 key without attributes.
    let (&[SEQUENCE, length, INTEGER, 1, version], rest) = der.split_first_chunk()? else { return None };
    if usize::from(length) != der.len() - 2 || length >= 0x80 {
        return None;
    }
    let rest = rest.strip_prefix(ALGORITHM)?.strip_prefix(OCTETS)?;
    let (seed, rest) = rest.split_at_checked(SEED_BYTES)?;
    let public = match (version, rest) {
        (0, []) | (1, []) => None,
        (1, rest) => {
            let key = PUBLIC.iter().find_map(|prefix| rest.strip_prefix(*prefix))?;
            Some(key.try_into().ok()?)
        }
        _ => return None,
    };
    Some(Decoded { seed: Secret::copied(seed), public })
}

pub(super) const SEED_BYTES: usize = 32;
const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
/// SEQUENCE { OID 1.3.101.112 }
const ALGORITHM: &[u8] = &[0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];
/// OCTET STRING { OCTET STRING of 32 bytes }
const OCTETS: &[u8] = &[0x04, 0x22, 0x04, 0x20];
/// BIT STRING with tag 1: implicit as in RFC 5958, or explicit as some programs write it.
const PUBLIC: [&[u8]; 2] = [&[0x81, 0x21, 0x00], &[0xa1, 0x23, 0x03, 0x21, 0x00]];
/// The bytes of version 1 before the seed.
const PREFIX: [u8; 16] =
    [SEQUENCE, 0x2e, INTEGER, 1, 0, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";
const PEM_FORM: &str = "a private key in PEM: -----BEGIN PRIVATE KEY----- (`seaprox keygen` makes one)";
const KEY_FORM: &str = "an ed25519 key in PKCS#8, as `seaprox keygen` or `openssl genpkey -algorithm ed25519` makes it";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The key of RFC 8410, section 10.3, in version 1.
    const V1: &str = "MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC";

    fn pem(der: &[u8]) -> String {
        format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode(der))
    }

    #[test]
    fn version_1_is_decoded_and_encoded_like_openssl() {
        let text = format!("{BEGIN}\n{V1}\n{END}\n");
        let decoded = decode_pem(text.as_bytes()).unwrap();
        assert_eq!(decoded.seed.expose()[..4], [0xd4, 0xee, 0x72, 0xdb]);
        assert_eq!(decoded.public, None);
        assert_eq!(encode_pem(decoded.seed.expose()).expose(), text.as_bytes());
        let crlf = format!("\n{BEGIN}\r\n{}\r\n{}\r\n{END}\r\n", &V1[..32], &V1[32..]);
        assert_eq!(decode_pem(crlf.as_bytes()).unwrap().seed.expose(), decoded.seed.expose());
    }

    #[test]
    fn version_2_is_decoded_with_either_tag() {
        let v1 = STANDARD.decode(V1).unwrap();
        for tag in PUBLIC {
            let mut der = [&v1, tag, &[7; 32]].concat();
            (der[1], der[4]) = (der.len() as u8 - 2, 1);
            let decoded = decode_pem(pem(&der).as_bytes()).unwrap();
            assert_eq!((decoded.seed.expose(), decoded.public), (&v1[16..], Some([7; 32])));
            der[4] = 0;
            assert!(decode_pem(pem(&der).as_bytes()).is_err(), "version 1 has no public key");
        }
    }

    #[test]
    fn an_invalid_key_is_refused_without_a_quote_of_it() {
        let v1 = STANDARD.decode(V1).unwrap();
        let mut x25519 = v1.clone();
        x25519[11] = 0x6e;
        for (text, expected) in [
            (String::new(), PEM_FORM),
            ("seaprox-ed25519 AAAA".to_owned(), PEM_FORM),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\n".to_owned(), PEM_FORM),
            ("-----BEGIN ENCRYPTED PRIVATE KEY-----\n".to_owned(), "a key without a passphrase"),
            (format!("{BEGIN}\n{V1}"), PEM_FORM),
            (format!("{BEGIN}{END}"), KEY_FORM),
            (format!("{BEGIN}\n!{V1}\n{END}"), PEM_FORM),
            (pem(&x25519), KEY_FORM),
            (pem(&v1[..47]), KEY_FORM),
            (pem(&[&v1[..], &[0]].concat()), KEY_FORM),
        ] {
            assert_eq!(decode_pem(text.as_bytes()).unwrap_err(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_encoded_key_decodes_to_itself(seed: [u8; 32]) {
            let pem = encode_pem(&seed);
            let decoded = decode_pem(pem.expose()).unwrap();
            prop_assert_eq!(decoded.seed.expose(), &seed);
        }

        #[test]
        fn no_bytes_panic(cut in 0_usize..50, flip in 0_usize..48, value: u8, tail in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut der = STANDARD.decode(V1).unwrap();
            der[flip] = value;
            der.truncate(cut);
            der.extend(tail);
            let _ = decode_pem(pem(&der).as_bytes());
            let _ = decode_pem(&der);
        }
    }
}
