//! The session: the record of all streams and subflows, and the operations on it, each an `impl Session` in its own
//! file.
//!
//! This folder may import the three others. Within it, the operations import the record in `state`, never one another's
//! types; what several of them need is in `config`, `error`, `event`, `phase`, `listeners`, `unopened`, `control_queue`,
//! `duplicates` and `table`.

pub(super) mod acks;
pub(super) mod commands;
pub(super) mod config;
pub(super) mod control;
pub(super) mod control_queue;
pub(super) mod duplicates;
pub(super) mod error;
pub(super) mod event;
pub(super) mod flows;
pub(super) mod handshake;
pub(super) mod id_gaps;
pub(super) mod invariants;
pub(super) mod listen;
pub(super) mod listeners;
pub(super) mod memory;
pub(super) mod opening;
pub(super) mod phase;
pub(super) mod quota;
pub(super) mod receive;
pub(super) mod reinject;
pub(super) mod resume;
pub(super) mod state;
pub(super) mod table;
pub(super) mod timers;
pub(super) mod transmit;
pub(super) mod unknown_stream;
pub(super) mod unopened;
