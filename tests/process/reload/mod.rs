//! Configurations that change while everything runs.

mod abandoned;
mod equivalence;
mod file;
mod redial;
mod rename;
mod torture;
mod waiting;
mod world;
