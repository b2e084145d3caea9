//! The view of a running process: its status, for people and for programs.

pub mod status;
