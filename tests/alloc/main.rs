//! Allocations: of the relay, of the link's frames, and of the pipes of its encryption. They are counted for each thread, so
//! the tests may run beside one another.

#[path = "../kit/link/bare.rs"]
#[allow(dead_code, reason = "the bench uses the rest")]
mod bare;
#[path = "../kit/heap.rs"]
mod heap;
#[path = "../kit/tls/idle.rs"]
mod idle;
#[path = "../kit/loop/mod.rs"]
mod loop_kit;
// The module is private in the library, so this target compiles its source.
#[path = "../../src/tls/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the test uses a part of it")]
mod tls;
#[path = "../kit/tls/mod.rs"]
#[allow(dead_code, reason = "the test uses a part of it")]
mod tls_kit;

mod frames;
mod pipes;
mod relay;
