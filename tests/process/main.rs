//! The real binary as a child process, with programs that others wrote.

#[path = "../kit/hostile/mod.rs"]
mod hostile_kit;
#[path = "../kit/invite.rs"]
mod invite_kit;
#[path = "../kit/process/mod.rs"]
mod kit;
#[path = "../kit/node/mod.rs"]
mod node_kit;
#[path = "../kit/hostile/served.rs"]
mod served;
// The module is private in the library, so this target compiles its source.
#[allow(dead_code, unused_imports, reason = "each group of tests uses its part")]
#[path = "../../src/tls/mod.rs"]
mod tls;

mod admin;
mod admin_guard;
mod admin_places;
mod admin_reach;
mod cat;
mod cli;
mod config;
mod congestion;
mod console;
mod console_attached;
mod console_events;
mod console_files;
mod console_keys;
mod console_manual;
mod console_proofs;
mod console_verbs;
mod datagram_descriptors;
mod datagram_programs;
mod datagrams;
mod deploying;
mod discovery;
mod ends;
mod examples;
mod file;
mod file_examples;
mod files;
mod full_disk;
mod http;
mod http_refused;
mod invitations;
mod invitations_hostile;
mod key_limits;
mod keys;
mod limits;
mod link_calls;
mod link_cli;
mod link_interop;
mod link_peers;
mod link_records;
mod link_servers;
mod link_threads;
mod linked_datagrams;
mod load;
mod log;
mod mail;
mod names;
mod paced_datagrams;
mod passed;
mod programs;
mod proxy_protocol;
mod proxy_protocol_datagrams;
mod proxy_protocol_links;
mod quic;
mod readme;
mod redirect;
mod redirected;
mod relay;
mod reload;
mod requirements;
mod service;
mod socks;
mod socks_bind;
mod socks_udp;
mod socks_udp_clients;
mod socks_udp_limits;
mod splice;
mod status;
mod targets;
mod top;
mod transfers;
mod tunnel_ends;
mod tunnel_ends_bounds;
