//! The command line: the commands, the one table of options, and what is made from them.
//!
//! Nothing here reads a file, prints, or ends the process. A new option is one row of `table` and, if its
//! value has a grammar of its own, one function of `values` or `link_values`.

mod command;
pub mod completions;
mod field;
mod fields;
mod fill;
pub mod forwards;
pub mod help;
mod invitation_values;
mod link_values;
mod parse;
pub mod parsers;
mod record_names;
mod section;
pub mod suggest;
mod table;
mod values;

pub use command::Command;
pub use field::{Draft, Field};
pub use fill::UNIX_WITHOUT_DATAGRAMS;
pub use invitation_values::InvitingAddress;
pub use link_values::EXCLUSIVE;
pub use parse::{Parsed, Request, UsageError, parse};
pub use record_names::FORWARDS;
pub use section::Section;
pub use values::{CatMode, LogFormat, Shell, modes_hint, split_list};

pub use table::{Group, OPTIONS, OptionSpec, Value};

use table::options_of;
