//! The loads: what a client does to a proxy, each in small steps that a measurement can start, continue and stop.
//!
//! A load counts units of work and must cost less than any proxy that it drives, so that the proxy is what is measured. It
//! knows nothing of clocks other than its own window, and nothing of CPU time.

mod bulk;
mod connect;
mod ping;
mod request;

use std::io;
use std::time::Duration;

pub use bulk::Bulk;
pub use connect::Connect;
pub use ping::Ping;
pub use request::Request;

pub trait Load {
    /// Works for about this long; the next call continues where this one stopped.
    fn run_for(&mut self, window: Duration) -> io::Result<()>;

    /// Units of work since the start: bytes, connections, requests or pings.
    fn units(&self) -> u64;
}
