//! The link protocol on a virtual clock: simulation, traces, efficiency.

#[allow(dead_code, reason = "the bench uses the rest")]
#[path = "../kit/link/mod.rs"]
mod link_kit;

mod gates;
mod hostile;
mod sim;
mod trace;
mod transcript;
