//! Links between nodes in one process, over real sockets.
//!
//! No test here starts a program: until its exec, a program holds a copy of every socket of this process, and an address that
//! a test has just closed would be in use as long. A test that needs a program or a process of its own is in `tests/process`
//! or `tests/alloc`.

#[path = "../kit/hostile/mod.rs"]
mod hostile_kit;
#[path = "../kit/node/mod.rs"]
mod node_kit;
#[path = "../kit/hostile/quic.rs"]
mod quic_kit;
// The module is private in the library, so this target compiles its source.
#[allow(dead_code, unused_imports, reason = "the test uses a part of it")]
#[path = "../../src/tls/mod.rs"]
mod tls;

mod callbacks;
mod carriers;
#[cfg(unix)]
mod embedded;
mod ends;
mod errors;
mod faults;
mod flows;
mod forwards;
mod fresh;
mod groups;
mod handover;
mod hooks;
mod leaks;
mod links;
mod many_streams;
mod nested;
#[cfg(unix)]
mod pipes;
mod proto;
mod quic;
mod quic_hostile;
mod quic_limits;
mod quic_mixed;
mod quic_paths;
mod resume;
mod servers;
mod services;
mod simultaneous;
mod streams;
mod trust;
mod udp_port;
mod unauthenticated;
