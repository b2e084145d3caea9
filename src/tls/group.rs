//! The key exchanges of TLS 1.3, and the order in which they are offered.
//!
//! X25519MLKEM768 joins X25519 with ML-KEM-768 (FIPS 203, draft-ietf-tls-ecdhe-mlkem): a recorded connection stays secret
//! from a quantum computer as long as one of the two holds. A client sends the share of X25519 beside it, so that a server
//! without ML-KEM answers at once. The implementation needs instructions that not every processor has: see
//! [`Group::is_available`].

use rustls::NamedGroup;
use rustls::crypto::SupportedKxGroup;
use rustls::crypto::ring::kx_group;

/// A key exchange (RFC 8446, section 4.2.7: a named group).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Group {
    /// X25519 and ML-KEM-768 together.
    X25519MlKem768,
    /// X25519 alone (RFC 7748).
    X25519,
}

impl Group {
    /// All key exchanges, in the order of preference.
    pub const ALL: [Group; 2] = [Group::X25519MlKem768, Group::X25519];

    /// Returns the key exchanges that this processor can compute, in the order of preference.
    pub fn preferred() -> Vec<Group> {
        Group::ALL.into_iter().filter(|group| group.is_available()).collect()
    }

    /// Returns true if this processor can compute the key exchange.
    pub fn is_available(self) -> bool {
        self.exchange().is_some()
    }

    /// Returns the name for the status, as the registry of IANA has it.
    pub const fn name(self) -> &'static str {
        match self {
            Group::X25519MlKem768 => "X25519MLKEM768",
            Group::X25519 => "X25519",
        }
    }

    pub(super) fn exchange(self) -> Option<&'static dyn SupportedKxGroup> {
        match self {
            Group::X25519MlKem768 => hybrid(),
            Group::X25519 => Some(kx_group::X25519),
        }
    }

    pub(super) const fn of(group: NamedGroup) -> Option<Group> {
        match group {
            NamedGroup::X25519MLKEM768 => Some(Group::X25519MlKem768),
            NamedGroup::X25519 => Some(Group::X25519),
            _ => None,
        }
    }
}

/// Returns X25519MLKEM768 if the processor has the instructions that its implementation was written for. The library panics
/// without them.
#[cfg(target_arch = "x86_64")]
fn hybrid() -> Option<&'static dyn SupportedKxGroup> {
    use std::arch::is_x86_feature_detected as has;
    let has_all =
        has!("aes") && has!("pclmulqdq") && has!("bmi1") && has!("bmi2") && has!("adx") && has!("avx") && has!("avx2");
    has_all.then_some(rustls_graviola::kx::X25519MLKEM768)
}

/// Returns X25519MLKEM768 if the processor has the instructions that its implementation was written for.
#[cfg(target_arch = "aarch64")]
fn hybrid() -> Option<&'static dyn SupportedKxGroup> {
    use std::arch::is_aarch64_feature_detected as has;
    let has_all = has!("neon") && has!("aes") && has!("pmull") && has!("sha2");
    has_all.then_some(rustls_graviola::kx::X25519MLKEM768)
}

/// Returns none: there is no implementation for this architecture.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn hybrid() -> Option<&'static dyn SupportedKxGroup> {
    None
}
