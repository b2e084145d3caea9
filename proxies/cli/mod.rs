//! The command line: the commands, the one table of options, and what is made from them.
//!
//! Nothing here reads a configuration file, prints, or ends the process. A new option is one row of `table` and, if its
//! value has a grammar of its own, one function of `values` or `link_values`.

mod command;
pub mod completions;
mod field;
mod fill;
pub mod forwards;
pub mod help;
mod link_values;
mod parse;
pub mod suggest;
mod table;
mod values;

pub use command::Command;
pub use parse::{Parsed, Request, UsageError, parse};
pub use values::{CatMode, LogFormat, Shell};

use table::{Group, OPTIONS, OptionSpec, Value, options_of};
