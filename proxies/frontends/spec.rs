//! The properties of a front end, from which the command line, the help and the process are made.

use std::rc::Rc;
use std::sync::Arc;

use seaprox::{Handler, Target};

use super::access::AccessPolicy;

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
