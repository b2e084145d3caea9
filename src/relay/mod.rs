//! The data plane: sides, halves and connections, and the pump that moves bytes between two sides.
//! It knows neither handlers nor policy.

pub(crate) mod block;
pub(crate) mod connection;
pub(crate) mod dial;
pub(crate) mod exchange;
pub(crate) mod half;
pub(crate) mod io;
pub(crate) mod pump;
pub(crate) mod side;
pub(crate) mod splice_pipe;
pub(crate) mod timer;
