//! The loss of the terminal. The library that reads the keys tries to read from a terminal that has hung up for ever, without a
//! pause, so a thread of its own ends the process.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use seaprox::system;

/// Starts a thread that ends the process if its terminal is gone, or if the view has not ended two seconds after `is_ended`
/// was set, because it waits for a terminal that takes nothing.
pub fn watch(is_ended: Arc<AtomicBool>) {
    thread::spawn(move || {
        let mut waits = 0;
        while waits < LEAVE_WAITS && !system::is_terminal_gone() {
            waits = if is_ended.load(Ordering::Relaxed) { waits + 1 } else { 0 };
            thread::sleep(PERIOD);
        }
        process::exit(0);
    });
}

const PERIOD: Duration = Duration::from_millis(250);
/// Periods that the view has to end after a signal: two seconds.
const LEAVE_WAITS: u32 = 8;
