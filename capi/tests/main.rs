//! Tests of the C interface: C programs, compiled against the installed header and library as a user's are.
#![cfg(target_os = "linux")]

mod examples;
mod interface;
mod kit;
mod package;
mod python;
