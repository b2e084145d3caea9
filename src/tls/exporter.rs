//! Key material of one connection for others than TLS (RFC 8446, section 7.5).
//!
//! The unbuffered connections of the library cannot export. What they offer is the exporter's secret, through the hook
//! for key logs; what follows from it is three lines of HKDF, in the library's own HKDF and hash. Each connection has a
//! hook of its own, which takes that one secret and no other, and nothing is ever written anywhere.

use std::fmt;
use std::sync::OnceLock;

use rustls::crypto::tls13::{HkdfExpander, OkmBlock};
use rustls::{KeyLog, SupportedCipherSuite};

/// The exporter's secret of one connection, once its handshake is done. It is wiped when it is dropped.
#[derive(Default)]
pub(super) struct Exporter(OnceLock<OkmBlock>);

impl Exporter {
    /// Thirty-two bytes that only the two ends of this connection know.
    pub fn export(&self, suite: SupportedCipherSuite, label: &[u8], context: &[u8]) -> Option<[u8; 32]> {
        let suite = suite.tls13()?;
        let (hkdf, hash) = (suite.hkdf_provider, suite.common.hash_provider);
        let length = u16::try_from(hash.output_len()).ok()?;
        let mut derived = [0; OkmBlock::MAX_LEN];
        let derived = derived.get_mut(..usize::from(length))?;
        expand_label(&*hkdf.expander_for_okm(self.0.get()?), label, hash.hash(&[]).as_ref(), derived)?;
        let mut out = [0; 32];
        let expander = hkdf.expander_for_okm(&OkmBlock::new(derived));
        derived.fill(0);
        expand_label(&*expander, b"exporter", hash.hash(context).as_ref(), &mut out)?;
        Some(out)
    }
}

impl KeyLog for Exporter {
    fn will_log(&self, label: &str) -> bool {
        label == "EXPORTER_SECRET"
    }

    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        if self.will_log(label) && secret.len() <= OkmBlock::MAX_LEN {
            let _ = self.0.set(OkmBlock::new(secret));
        }
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exporter")
    }
}

/// HKDF-Expand-Label (RFC 8446, section 7.1).
fn expand_label(expander: &dyn HkdfExpander, label: &[u8], context: &[u8], out: &mut [u8]) -> Option<()> {
    let length = u16::try_from(out.len()).ok()?.to_be_bytes();
    let label_length = [u8::try_from(PREFIX.len() + label.len()).ok()?];
    let context_length = [u8::try_from(context.len()).ok()?];
    expander.expand_slice(&[&length, &label_length, PREFIX, label, &context_length, context], out).ok()
}

const PREFIX: &[u8] = b"tls13 ";
