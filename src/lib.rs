//! seaprox

pub mod link;
