//! The wire format: frames, their bodies, and the buffers that frames are read from and written to.
//!
//! This folder imports nothing of the other folders of the link.

pub(super) mod code;
pub(super) mod content;
pub(super) mod cursor;
pub mod frame;
pub(super) mod header;
pub(super) mod hello;
pub(super) mod hello_reader;
pub(super) mod ids;
pub(super) mod open;
pub(super) mod outbox;
