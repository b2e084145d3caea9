//! The status of a running process: collected from its loops, written as JSON for programs and as text for people, and
//! served on a Unix socket of the process.
//!
//! Nothing here knows the command line: the caller hands in the facts that only the process knows.

mod document;
mod forwards;
mod links;
mod listeners;
#[cfg_attr(not(test), expect(dead_code, reason = "the admin socket has no route for it yet"))]
pub mod prometheus;
mod reporter;
pub mod socket;
mod text;

pub use reporter::Reporter;
pub use text::{is_unfit, to_text};
