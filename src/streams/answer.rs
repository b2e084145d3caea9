//! The answers to OPEN and LISTEN, and the codes of a reset, as failures and reasons.

use crate::link::{Bound, Code, Host, Kind, Open};
use crate::types::address::Target;
use crate::types::proto::Proto;
use crate::types::reason::{Failure, Reason};

impl From<Code> for Reason {
    fn from(code: Code) -> Reason {
        // The codes of the link protocol are the reasons, in the same order.
        Reason::ALL.get(usize::from(code.to_wire()) - 1).copied().unwrap_or(Reason::Other)
    }
}

impl From<Reason> for Code {
    fn from(reason: Reason) -> Code {
        Code::from_wire(reason as u16 + 1)
    }
}

impl Bound {
    /// Returns the failure in an answer, if there is one.
    pub(crate) fn to_failure(&self) -> Option<Failure> {
        let code = self.failure?;
        let text = match code {
            // The reason says the same; the text is for nodes without that reason.
            Code::AddressInUse if self.text == IN_USE => "",
            _ => &self.text,
        };
        Some(Failure { reason: code.into(), detail: (!text.is_empty()).then(|| text.into()) })
    }

    /// Returns the answer for a failure.
    pub(crate) fn of_failure(failure: &Failure) -> Bound {
        let text = failure.detail.as_deref().unwrap_or_default().to_owned();
        Bound { failure: Some(failure.reason.into()), text, ..Bound::default() }
    }
}

impl Open {
    /// Returns the OPEN for a target; none for a Unix socket, which a link does not reach.
    pub(crate) fn to(self, target: &Target) -> Option<Open> {
        match target {
            Target::Ip(proto, addr) => {
                Some(Open { kind: kind_of(*proto), host: Host::Addr(addr.ip()), port: addr.port(), ..self })
            }
            Target::Name(proto, name, port) => {
                Some(Open { kind: kind_of(*proto), host: Host::Name(name.as_str().to_owned()), port: *port, ..self })
            }
            Target::End(name) => {
                let host = Host::Name(format!("{END_PREFIX}{name}"));
                Some(Open { kind: Kind::Internal, host, ..self })
            }
            Target::Unix(_) => None,
        }
    }
}

/// Returns the kind of the streams of a protocol.
pub(crate) fn kind_of(proto: Proto) -> Kind {
    match proto {
        Proto::Tcp => Kind::Tcp,
        Proto::Udp => Kind::Udp,
    }
}

/// The begin of the name of the service that stands for an end of the peer.
pub(crate) const END_PREFIX: &str = "end/";
/// Text for an address in use, for nodes that report it as `other`.
pub(crate) const IN_USE: &str = "address in use";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_of_the_link_has_the_word_of_its_reason() {
        for reason in Reason::ALL {
            let code = Code::from(reason);
            assert_eq!((code.as_str(), Reason::from(code)), (reason.as_str(), reason));
        }
        assert_eq!(Code::ALL.len(), Reason::ALL.len());
        let taken = Bound { text: IN_USE.to_owned(), ..Bound::refused(Code::AddressInUse) };
        assert_eq!(taken.to_failure(), Some(Reason::AddressInUse.into()));
    }
}
