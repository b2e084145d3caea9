//! Configurations that change while everything runs.

mod equivalence;
mod redial;
mod world;
