//! The fault that ends a connection, and the alert for it.

/// The reason why a record cannot be opened or sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The tag of a record does not verify.
    BadRecord,
    /// The length of a record is above the limit.
    Overflow,
    /// A record or a message that has no place here.
    Unexpected(&'static str),
    /// A message whose length does not fit.
    Malformed(&'static str),
    /// A field has a value that it must not have.
    Illegal(&'static str),
    /// This end cannot go on.
    Internal(&'static str),
    /// The peer has ended the connection with this alert.
    Received(u8),
}

/// An alert: level and description (RFC 8446, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Alert(pub [u8; 2]);

impl Alert {
    /// The end of one direction.
    pub const CLOSE_NOTIFY: Alert = Alert([1, 0]);
}

impl Fault {
    /// Returns the alert that tells the peer, or `None` if the peer has ended the connection itself.
    pub const fn alert(self) -> Option<Alert> {
        let description = match self {
            Fault::Unexpected(_) => 10,
            Fault::BadRecord => 20,
            Fault::Overflow => 22,
            Fault::Illegal(_) => 47,
            Fault::Malformed(_) => 50,
            Fault::Internal(_) => 80,
            Fault::Received(_) => return None,
        };
        Some(Alert([FATAL, description]))
    }
}

const FATAL: u8 = 2;
