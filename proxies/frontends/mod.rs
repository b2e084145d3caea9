//! The front ends: each speaks with a client until its target is known, then lets the loop relay the bytes.
//!
//! [`FrontEndKind`] is the registry. A front end is one file or folder with a handler and a [`FrontEndSpec`]: its name, its
//! default address, its own options and its constructor. The command line, the help and the process are made from these.
//! All front ends ask [`access::AccessPolicy`] before they connect a client.

pub mod access;
mod auth_penalties;
pub mod http;
pub mod socks;
pub mod r#static;
pub mod users;

use std::rc::Rc;
use std::sync::Arc;

use seaprox::{Handler, Target};

use access::AccessPolicy;

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

/// The properties of a front end.
pub struct FrontEndSpec {
    /// The command, and the kind of its connections in log and status.
    pub name: &'static str,
    /// One line for the help, without a full stop.
    pub summary: &'static str,
    /// The arguments behind the command.
    pub synopsis: &'static str,
    /// The address to listen on if `--listen` is not given.
    pub default_address: &'static str,
    /// The options that this front end has and others lack; `cli/table.rs` declares them.
    pub options: &'static [&'static str],
    /// Command lines without the leading `seaprox`, each with its meaning.
    pub examples: &'static [(&'static str, &'static str)],
    /// The constructor of the handler of one client.
    pub make: Make,
}

/// Constructors of the handler of one client.
#[derive(Clone, Copy)]
pub enum Make {
    /// The client names its target.
    ByClient(fn(Arc<AccessPolicy>) -> Box<dyn Handler>),
    /// The listener has one target for all of its clients, from `--to`.
    ByListener(fn(Arc<AccessPolicy>, Rc<Target>) -> Box<dyn Handler>),
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
