//! The command line: the one table of options, and what is made from it.

pub mod completions;
pub mod help;
pub mod options;
pub mod suggest;
