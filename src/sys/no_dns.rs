//! The stand-in for questions to the name servers, on systems where this program has no call for them.

use super::DnsError;

/// False: the records of services cannot be asked for.
pub(crate) const HAS_DNS: bool = false;

/// Refuses: `getaddrinfo` answers for addresses, and nothing does for other records.
///
/// # Errors
/// Always.
pub(crate) fn query_dns(_: &str, _: u16, _: bool) -> Result<Vec<u8>, DnsError> {
    Err(DnsError::Unsupported)
}
