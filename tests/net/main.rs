//! Real processes in networks of namespaces that are cut, shaped and filtered.

#[path = "../kit/tls/hello.rs"]
mod hello;
#[path = "../kit/process/mod.rs"]
mod kit;
#[path = "../kit/net/mod.rs"]
mod net_kit;

mod console;
mod datagrams;
mod kit_itself;
mod link_auto;
mod link_cable;
mod link_carriers;
mod link_groups;
mod link_limits;
mod link_many;
mod link_modes;
mod link_paths;
mod link_priority;
mod link_programs;
mod link_quic;
mod link_resume;
mod link_sctp;
mod link_security;
mod link_sessions;
mod link_simultaneous;
mod link_striping;
mod link_terminal;
mod redirect;
