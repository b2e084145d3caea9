//! What stands on the wire: frames and what they are made of.

pub(super) mod code;
pub(super) mod content;
pub(super) mod cursor;
pub mod frame;
pub(super) mod greeter;
pub(super) mod header;
pub(super) mod hello;
pub(super) mod ids;
pub(super) mod open;
pub(super) mod outbox;
