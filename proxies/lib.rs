//! The programs around the library `seaprox`: the front ends as a library, and the binary.
//!
//! | folder | content | imports |
//! | --- | --- | --- |
//! | `frontends` | one handler for each protocol of clients, the access policy and the users | the library, `shared_file` |
//! | `cli` | the commands, the table of options, parsing, help, completions | `frontends` |
//! | `admin` | the status of a running process, as JSON and as text, and its socket | the library |
//! | `process` | the commands of the binary, the log, signals and exit codes | all of the above |
//!
//! Everything here uses the public interface of the library and nothing else.
#![forbid(unsafe_code)]

mod admin;
mod cli;
pub mod frontends;
mod process;
pub mod shared_file;

pub use process::main;
