//! The exporter: key material of one connection for use outside of TLS (RFC 8446, section 7.5).
//!
//! The library's unbuffered connections cannot export key material, but their hook for key logs gives out the exporter
//! secret. The rest is three lines of HKDF with the library's HKDF and hash. Each connection has its own hook, which takes
//! that one secret and no other, and writes nothing.

use std::fmt;
use std::sync::OnceLock;

use rustls::crypto::tls13::{HkdfExpander, OkmBlock};
use rustls::{KeyLog, SupportedCipherSuite};

/// The exporter secret of one connection, set at the end of the handshake and wiped on drop.
#[derive(Default)]
pub(super) struct Exporter(OnceLock<OkmBlock>);

impl Exporter {
    /// Returns 32 bytes that only the two ends of this connection know, or `None` before the end of the handshake.
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

/// Computes HKDF-Expand-Label (RFC 8446, section 7.1).
fn expand_label(expander: &dyn HkdfExpander, label: &[u8], context: &[u8], out: &mut [u8]) -> Option<()> {
    let length = u16::try_from(out.len()).ok()?.to_be_bytes();
    let label_length = [u8::try_from(PREFIX.len() + label.len()).ok()?];
    let context_length = [u8::try_from(context.len()).ok()?];
    expander.expand_slice(&[&length, &label_length, PREFIX, label, &context_length, context], out).ok()
}

const PREFIX: &[u8] = b"tls13 ";
