//! The front ends: they speak with a client until its target is known. Each asks `gate` who may do what.

pub mod fixed;
pub mod gate;
pub mod guesses;
pub mod http;
pub mod socks;
pub mod users;
