//! The link protocol on a virtual clock: simulation, traces, efficiency.

#[path = "../kit/link/mod.rs"]
mod link_kit;

mod flows;
mod gates;
mod hostile;
mod lanes;
mod mixed;
mod paths;
mod resume;
mod sim;
mod trace;
mod transcript;
