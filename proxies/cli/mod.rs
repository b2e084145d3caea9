//! The command line: the one table of options, and what is made from it.

pub mod addresses;
mod command;
pub mod completions;
pub mod forwards;
pub mod help;
mod link_values;
mod parse;
pub mod suggest;
mod table;
mod values;

pub use command::Command;
pub use link_values::Pin;
pub use parse::{Parsed, Request, UsageError, parse};
pub use table::{Group, OPTIONS, OptionSpec, Value, options_of};
pub use values::{CatMode, Family, LogFormat, Shell, StatusSocket};
