//! Paths: a subflow with its lanes, the estimate of its delay and rate, and the choice of a subflow for a frame.
//!
//! This folder imports only `wire`.

pub(super) mod estimate;
pub(super) mod lane;
pub(super) mod losses;
pub(super) mod scheduler;
pub(super) mod single;
pub(super) mod subflow;
pub(super) mod switches;
pub(super) mod window;
