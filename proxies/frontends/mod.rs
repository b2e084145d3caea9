//! The front ends: they speak with a client until its target is known. Each asks `access` who may do what.

pub mod access;
pub mod auth_penalties;
pub mod http;
pub mod socks;
pub mod r#static;
pub mod users;
