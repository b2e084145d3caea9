//! The admin server of a running process, and its client: the status collected from the loops, as JSON for programs and as
//! text for people, and commands.
//!
//! Nothing here knows the command line or carries out a command: the caller hands in the facts that only the process knows,
//! and [`Commands`].

pub mod client;
mod clients;
pub mod command;
mod document;
pub mod events;
mod forwards;
mod guard;
mod head;
mod links;
mod listeners;
mod path_change;
mod prometheus;
mod reply;
mod reporter;
mod routes;
mod server;
mod service;
mod shared;
pub mod socket;
mod stream;
mod text;

pub use command::{AdminCommand, Cause, CommandError, Commands};
pub use guard::{Rules, TOKEN_BYTES_MIN, is_fit};
pub use links::to_json as link_json;
pub use path_change::PathChange;
pub use reporter::{Reporter, metrics_of, status_of};
pub use server::Server;
pub use service::Service;
#[cfg(feature = "top")]
pub use text::escape;
pub use text::to_text;

pub use crate::text::is_unfit;
