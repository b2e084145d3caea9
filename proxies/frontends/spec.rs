//! The properties of a front end, from which the command line, the help and the process are made.

use std::sync::Arc;

use seaprox::config::{FrontEndConfig, FrontEndOption, OptionKind};
use seaprox::{Balancer, DatagramFrontEnd, FrontEnd};

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
    /// The options that a listener with this front end has; `cli/table.rs` declares a flag for each.
    pub options: &'static [FrontEndOption],
    /// The flags of the process that concern this front end and not all of them, such as `users`.
    pub flags: &'static [&'static str],
    /// True if the system redirects its clients.
    pub serves_redirected: bool,
    /// Command lines without the leading `seaprox`, each with its meaning.
    pub examples: &'static [(&'static str, &'static str)],
    /// Makes the front end of one listener in one loop, with the balancer of its targets if it has one; none if a required
    /// option is missing.
    pub make: Make,
    /// Makes the handler of datagrams of one listener in one loop in the same way; none if the front end carries no datagrams.
    pub make_datagrams: Option<MakeDatagrams>,
}

/// Makes a front end from the options of its listener, the access policy, and the balancer of its targets.
pub type Make = fn(&FrontEndConfig, &Arc<AccessPolicy>, Option<&Arc<Balancer>>) -> Option<FrontEnd>;

/// Makes the handler of datagrams from the options of its listener, the access policy, and the balancer of its targets.
pub type MakeDatagrams = fn(&FrontEndConfig, &Arc<AccessPolicy>, Option<&Arc<Balancer>>) -> Option<DatagramFrontEnd>;

impl FrontEndSpec {
    /// Returns the option that has the targets of a listener, if the front end has one.
    pub fn target(&self) -> Option<&'static str> {
        self.options.iter().find(|option| option.kind == OptionKind::Targets).map(|option| option.name)
    }

    /// Returns true if the command of this front end has the flag, and not all front ends have it.
    pub fn has_flag(&self, long: &str) -> bool {
        self.flags.contains(&long) || self.options.iter().any(|option| option.name == long)
    }
}
