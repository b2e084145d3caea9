//! The subflows of a session: lanes, estimates of a path, and the choice of a path for a frame.

pub(super) mod estimate;
pub(super) mod lane;
pub(super) mod scheduler;
pub(super) mod subflow;
