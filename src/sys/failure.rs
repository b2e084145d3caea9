//! The reasons of the system's errors.

use std::io;

use crate::types::reason::{Failure, Reason};

impl From<&io::Error> for Failure {
    /// Maps an error of `socket`, `bind` or `connect`.
    fn from(error: &io::Error) -> Failure {
        use io::ErrorKind as Kind;
        let reason = match error.kind() {
            // A target that resets the connection before the loop has seen the connect refuses it too.
            Kind::ConnectionRefused | Kind::ConnectionReset | Kind::NotFound => Reason::ConnectionRefused,
            Kind::TimedOut => Reason::TimedOut,
            Kind::NetworkUnreachable | Kind::NetworkDown => Reason::NetworkUnreachable,
            Kind::HostUnreachable => Reason::HostUnreachable,
            Kind::PermissionDenied => Reason::NotPermitted,
            // No interface has the address. connect(2) returns the same error when no source port is free; the dialer
            // tells the two apart.
            Kind::AddrNotAvailable => Reason::NetworkUnreachable,
            Kind::AddrInUse => Reason::AddressInUse,
            _ if super::is_out_of_descriptors(error) => Reason::LimitReached,
            _ => Reason::Other,
        };
        Failure::new(reason, error.to_string())
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_connect_is_mapped_to_its_reason() {
        let refused = io::Error::from_raw_os_error(libc::ECONNREFUSED);
        assert_eq!(Failure::from(&refused).reason, Reason::ConnectionRefused);
        let full = io::Error::from_raw_os_error(libc::EMFILE);
        assert_eq!(Failure::from(&full).reason, Reason::LimitReached);
        let taken = io::Error::from_raw_os_error(libc::EADDRINUSE);
        assert_eq!(Failure::from(&taken).reason, Reason::AddressInUse);
        let odd = io::Error::from_raw_os_error(libc::EPROTO);
        let failure = Failure::from(&odd);
        assert_eq!(failure.reason, Reason::Other);
        assert!(failure.detail.is_some());
    }
}
