//! The event loop, over real sockets, through the public interface of the library. No test here starts a program, for the
//! reason in `tests/node/main.rs`.

#[path = "../kit/loop/mod.rs"]
mod loop_kit;

mod addresses;
mod bridge;
mod commands;
mod connect;
mod datagrams;
mod descriptors;
mod discovery;
mod dispatch;
mod egress;
mod embed;
mod handlers;
mod hooks;
mod listeners;
mod observer;
mod pools;
mod program_flows;
mod regressions;
mod stress;
mod threads;
mod timers;
mod views;
mod watch;
