//! The programs around the library `seaprox`: front ends, the command line and the process of the binary.
//!
//! Everything here uses the public interface of the library and nothing else.
#![forbid(unsafe_code)]

pub mod admin;
pub mod cli;
pub mod frontends;
pub mod process;
pub mod shared_file;

pub use process::exit::{Exit, Failed, hint};
