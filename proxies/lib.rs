//! The programs around the library `seaprox`: front ends and policies as a library, and the binary.
//!
//! A program fills in a [`seaprox::config::Config`], whose listeners name the front ends of [`frontends`], and calls
//! [`start`]; `proxies/examples/socks.rs` is a whole one. [`Parts`] makes what the configuration names: front ends, access policies,
//! and the policies of [`links`].
//!
//! | folder | content | imports |
//! | --- | --- | --- |
//! | `frontends` | one handler for each protocol of clients, the access policy and the users | the library, `shared_file` |
//! | `links` | the policies of links, from files of keys; addresses and paths of links | the library, `shared_file` |
//! | `maker` | makes the parts of a process from its configuration | `frontends`, `links` |
//! | `cli` | the commands, the table of options, parsing, help, completions | `frontends`, `links` |
//! | `file` | files of configuration in TOML | `cli`, `frontends`, `links` |
//! | `text` | characters that are unfit for a terminal | nothing |
//! | `log_line` | a record of the log as one line of text or JSON | `text` |
//! | `files` | sending and receiving files over a link | the library, `text` |
//! | `top` | the live view of a running process | `admin` |
//! | `console` | the Lua prompt, and scripts that make links and tunnels | `shared_file`, `links`, `maker`, `files`, `admin`, `text` |
//! | `admin` | the status of a running process, as JSON and as text, and its socket | the library, `text` |
//! | `embedded` | for a loop that another program runs: its configuration and its links from text, its status, its metrics | `admin`, `file`, `links`, `log_line` |
//! | `process` | the commands of the binary, the log, signals and exit codes | all of the above |
//!
//! Everything here uses the public interface of the library and nothing else.
#![forbid(unsafe_code)]

mod admin;
mod cli;
#[cfg(feature = "console")]
mod console;
pub mod embedded;
mod file;
pub mod files;
pub mod frontends;
pub mod links;
mod log_line;
mod maker;
mod process;
pub mod shared_file;
mod text;
#[cfg(feature = "top")]
mod top;

pub use maker::{DialedGroup, DialedLink, LinkOwner, OnEvent, Parts, SharedSecretError, UsersError, start};
pub use process::main;
