//! Links between nodes in one process, over real sockets.

#[path = "../kit/hostile/mod.rs"]
mod hostile_kit;
#[path = "../kit/node/mod.rs"]
mod node_kit;
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
mod forwards;
mod handover;
mod hooks;
mod leaks;
mod links;
mod memory;
mod nested;
#[cfg(unix)]
mod pipes;
mod proto;
mod resume;
mod servers;
mod streams;
mod trust;
mod unauthenticated;
