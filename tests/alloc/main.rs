//! Allocations: of the relay, of the link's frames, and of the pipes of its encryption. They are counted for each thread, so
//! the tests may run beside one another. And the memory of a node, in a process of its own.
#![allow(clippy::duplicate_mod, reason = "the kits of the loop and of the node share a part")]

#[path = "../kit/link/bare.rs"]
#[allow(dead_code, reason = "the bench uses the rest")]
mod bare;
#[path = "../kit/heap.rs"]
mod heap;
#[path = "../kit/hostile/mod.rs"]
mod hostile_kit;
#[path = "../kit/tls/idle.rs"]
mod idle;
#[path = "../kit/loop/mod.rs"]
mod loop_kit;
#[path = "../kit/node/mod.rs"]
mod node_kit;
// The module is private in the library, so this target compiles its source.
#[path = "../../src/tls/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the test uses a part of it")]
mod tls;
#[path = "../kit/tls/mod.rs"]
#[allow(dead_code, reason = "the test uses a part of it")]
mod tls_kit;

mod frames;
mod memory;
mod pipes;
mod relay;
