//! Real processes in networks of namespaces that are cut, shaped and filtered.

#[allow(dead_code, reason = "each group of tests uses its part of the kit")]
#[path = "../kit/process/mod.rs"]
mod kit;
#[allow(dead_code, reason = "each group of tests uses its part of the kit")]
#[path = "../kit/net/mod.rs"]
mod net_kit;

mod kit_itself;
mod link_limits;
mod link_many;
mod link_modes;
mod link_paths;
mod link_priority;
mod link_programs;
mod link_resume;
mod link_security;
mod link_sessions;
mod link_striping;
mod link_terminal;
