//! The front ends: each speaks with a client until its target is known, then lets the loop relay the bytes.
//!
//! [`FrontEndKind`] is the registry. A front end is one file or folder with a handler and a [`FrontEndSpec`]: its name, its
//! default address, its own options and its constructor. The command line, the help and the process are made from these.
//! All front ends ask [`access::AccessPolicy`] before they connect a client.

pub mod access;
mod auth_penalties;
pub mod http;
pub mod socks;
mod spec;
pub mod r#static;
pub mod users;

pub use spec::{FrontEndSpec, Make};

/// A front end that the binary offers as a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrontEndKind {
    /// One target for every client.
    Static,
    /// A SOCKS proxy.
    Socks,
    /// An HTTP proxy.
    Http,
}

impl FrontEndKind {
    /// All front ends, in the order of the help.
    pub const ALL: [FrontEndKind; 3] = [FrontEndKind::Static, FrontEndKind::Socks, FrontEndKind::Http];

    /// Returns the properties of this front end.
    pub const fn spec(self) -> &'static FrontEndSpec {
        match self {
            FrontEndKind::Static => &r#static::SPEC,
            FrontEndKind::Socks => &socks::SPEC,
            FrontEndKind::Http => &http::SPEC,
        }
    }

    /// Returns true if each listener has a target of its own.
    pub fn has_target(self) -> bool {
        matches!(self.spec().make, Make::ByListener(_))
    }
}
