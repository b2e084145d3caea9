//! The loads: what a client does to a proxy, each in small steps that a measurement can start, continue and stop.
//!
//! A load counts units of work. It must cost less than any proxy that it drives, so that the proxy is the limit. It
//! reads no clock but for its own window, and no CPU time.

mod bulk;
mod connect;
mod datagrams;
mod ping;
mod request;

use std::io;
use std::time::Duration;

pub use bulk::Bulk;
pub use connect::Connect;
pub use datagrams::{Datagrams, Shape};
pub use ping::Ping;
pub use request::Request;

pub trait Load {
    /// Works for about `window`. The next call continues where this one stopped.
    fn run_for(&mut self, window: Duration) -> io::Result<()>;

    /// Returns the units of work since the start: bytes, connections, requests or pings.
    fn units(&self) -> u64;
}
