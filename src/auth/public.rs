//! Public keys in their three forms: text, DER and fingerprint.
//!
//! The text form is `seaprox-ed25519 BASE64`: base64 with padding of the 32 bytes of RFC 8032, section 5.1.5. The DER form,
//! used on the wire (RFC 7250), is a `SubjectPublicKeyInfo` of 44 bytes (RFC 8410, section 4). The fingerprint is the
//! SHA-256 of those 44 bytes in base64 without padding, so that it can be checked without this program:
//!
//! ```text
//! openssl pkey -in key -pubout -outform DER | openssl dgst -sha256 -binary | base64
//! ```

use std::fmt;
use std::str::FromStr;

use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD, STANDARD_NO_PAD};
use base64::engine::{DecodePaddingMode, Engine as _};
use ring::digest;

/// Length of a public key in DER.
pub const SPKI_BYTES: usize = 44;

/// The word before a key.
pub(super) const KEY_TYPE: &str = "seaprox-ed25519";

/// An ed25519 public key. Invariant: not a point of small order, for which everybody can make signatures.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; KEY_BYTES]);

/// A parse error of a public key. Its text is the form that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyError(&'static str);

impl PublicKey {
    /// Makes a key of its 32 bytes.
    ///
    /// # Errors
    /// The key is a point of small order, for which everybody can make signatures.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<PublicKey, KeyError> {
        let mut plain = bytes;
        plain[KEY_BYTES - 1] &= 0x7f; // The sign of x.
        if WEAK.contains(&plain) { Err(KeyError(WEAK_FORM)) } else { Ok(PublicKey(bytes)) }
    }

    /// Parses a key in DER, the form in TLS.
    ///
    /// # Errors
    /// The input is not the 44 bytes of an ed25519 key, or [`PublicKey::from_bytes`] refuses the key.
    pub fn from_spki(der: &[u8]) -> Result<PublicKey, KeyError> {
        let key = der.strip_prefix(&SPKI_PREFIX).and_then(|key| <[u8; KEY_BYTES]>::try_from(key).ok());
        PublicKey::from_bytes(key.ok_or(KeyError("an ed25519 key in DER"))?)
    }

    /// Parses the base64 after the key type.
    pub(super) fn from_base64(text: &str) -> Result<PublicKey, KeyError> {
        let mut bytes = [0; KEY_BYTES + 2];
        match FORGIVING.decode_slice(text, &mut bytes) {
            Ok(KEY_BYTES) => {}
            _ => return Err(KeyError(BASE64_FORM)),
        }
        PublicKey::from_bytes(std::array::from_fn(|index| bytes[index]))
    }

    /// Returns the 32 bytes of the key.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the key in DER, the form in TLS.
    pub fn spki(&self) -> [u8; SPKI_BYTES] {
        let mut der = [0; SPKI_BYTES];
        der[..SPKI_PREFIX.len()].copy_from_slice(&SPKI_PREFIX);
        der[SPKI_PREFIX.len()..].copy_from_slice(&self.0);
        der
    }

    /// Returns `SHA256:` and 43 characters, the digest of the key in DER.
    pub fn fingerprint(&self) -> String {
        format!("SHA256:{}", STANDARD_NO_PAD.encode(digest::digest(&digest::SHA256, &self.spki())))
    }
}

/// Parses two words. A name may follow; it belongs to the line, not to the key.
impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<PublicKey, KeyError> {
        let mut words = text.split_ascii_whitespace();
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some(KEY_TYPE), Some(key), name, None) if name.is_none_or(is_key_name) => PublicKey::from_base64(key),
            _ => Err(KeyError(KEY_FORM)),
        }
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{KEY_TYPE} {}", STANDARD.encode(self.0))
    }
}

/// Writes the fingerprint, which people compare.
impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.fingerprint())
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", self.0)
    }
}

impl std::error::Error for KeyError {}

impl KeyError {
    pub(super) fn expected(self) -> &'static str {
        self.0
    }
}

/// Returns true if a word may name a key. Logs, descriptions and files contain the name without escapes.
pub(super) fn is_key_name(word: &str) -> bool {
    let fair = |char: char| char.is_alphanumeric() || "-_.@+:".contains(char);
    (1..=super::KEY_NAME_BYTES_MAX).contains(&word.len()) && word.chars().all(fair)
}

const KEY_BYTES: usize = 32;
/// RFC 8410, section 4: SEQUENCE { SEQUENCE { OID 1.3.101.112 }, BIT STRING with no bits unused }.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const KEY_FORM: &str = "seaprox-ed25519 BASE64, then one word as a name if need be";
const BASE64_FORM: &str = "the 44 characters of a key in base64";
const WEAK_FORM: &str = "a key that only one can sign for; this one has small order";
pub(super) const KEY_NAME_FORM: &str = "a name of at most 64 bytes: letters, digits, '-', '_', '.', '@', '+' and ':'";
/// Accepts base64 without padding, because a double click in a terminal often selects a key without its padding.
const FORGIVING: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

const fn ends(first: u8, middle: u8, last: u8) -> [u8; KEY_BYTES] {
    let mut bytes = [middle; KEY_BYTES];
    bytes[0] = first;
    bytes[KEY_BYTES - 1] = last;
    bytes
}

/// The points whose order divides 8, without the sign of x. Their y is 0, 1, -1, p and p + 1 (which are 0 and 1 again), and
/// the two values of order 8.
const WEAK: [[u8; KEY_BYTES]; 7] = [
    ends(0x00, 0x00, 0x00),
    ends(0x01, 0x00, 0x00),
    ends(0xec, 0xff, 0x7f),
    ends(0xed, 0xff, 0x7f),
    ends(0xee, 0xff, 0x7f),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
        0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
        0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The key of RFC 8032, section 7.1, test 1. Its DER, text and fingerprint come from OpenSSL 3.0:
    /// `openssl pkey -in key -pubout -outform DER`, the same with `| tail -c 32 | base64`, and the line in the module's head.
    const SPKI: &str = "302a300506032b6570032100d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    const TEXT: &str = "seaprox-ed25519 11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    const FINGERPRINT: &str = "SHA256:BuP9j9opu2CrWVV95h7bCuzbIxE0vjDnW0Vfjht5L6k";

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len() / 2).map(|index| u8::from_str_radix(&text[2 * index..][..2], 16).unwrap()).collect()
    }

    #[test]
    fn a_key_is_the_same_in_each_of_its_forms() {
        let key = PublicKey::from_spki(&hex(SPKI)).unwrap();
        assert_eq!(key.to_string(), TEXT);
        assert_eq!(key.fingerprint(), FINGERPRINT);
        assert_eq!(format!("{key:?}"), format!("PublicKey({FINGERPRINT})"));
        assert_eq!(key.spki().as_slice(), hex(SPKI));
        for text in [TEXT, TEXT.trim_end_matches('='), &format!("  {TEXT}\tjoe@laptop \n")] {
            assert_eq!(text.parse(), Ok(key), "{text:?}");
        }
    }

    #[test]
    fn an_invalid_key_is_refused() {
        let other = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHUR";
        for text in [
            "",
            "seaprox-ed25519",
            "ssh-ed25519 11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
            "seaprox-ed25519 AAAA",
            &format!("seaprox-ed25519 {other}"),
            &format!("seaprox-ed25519 {other}o=o="),
            &format!("seaprox-ed25519 {other}p="),
            &format!("{TEXT} two names"),
            &format!("{TEXT} [x]"),
        ] {
            assert!(text.parse::<PublicKey>().is_err(), "{text:?}");
        }
        let der = hex(SPKI);
        assert!(PublicKey::from_spki(&der[1..]).is_err());
        assert!(PublicKey::from_spki(&[&der[..], &[0]].concat()).is_err());
    }

    #[test]
    fn a_key_of_small_order_is_refused() {
        for mut bytes in WEAK {
            assert!(PublicKey::from_bytes(bytes).is_err());
            bytes[31] |= 0x80;
            assert!(PublicKey::from_bytes(bytes).is_err(), "with either sign of x");
            bytes[31] ^= 0x10;
            assert!(PublicKey::from_bytes(bytes).is_ok());
        }
    }

    #[test]
    fn a_key_name_contains_only_printable_characters() {
        assert!(is_key_name("joe@büro-2.example.org"));
        let long = "x".repeat(65);
        for name in ["", "a b", "a\n", "[x]", "a/b", "\u{202e}x", "\"", &long] {
            assert!(!is_key_name(name), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn a_printed_key_parses_to_itself(bytes: [u8; 32]) {
            if let Ok(key) = PublicKey::from_bytes(bytes) {
                prop_assert_eq!(key.to_string().parse(), Ok(key));
                prop_assert_eq!(PublicKey::from_spki(&key.spki()), Ok(key));
            }
        }

        #[test]
        fn no_text_panics(text in "(seaprox-ed25519 )?\\PC{0,60}|seaprox-ed25519 [A-Za-z0-9+/=]{40,48}") {
            let _ = text.parse::<PublicKey>();
        }
    }
}
