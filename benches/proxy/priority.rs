//! The niceness of a whole run, for a machine that is in use (`--nice`).
//!
//! If the kernel groups processes by session (autogroup), niceness counts only inside the group. Then the bench also
//! sets the group's niceness, and restores it at the end, because the terminal that started the bench is in the same
//! group.

use std::fs;
use std::io;
use std::sync::{Mutex, PoisonError};

use crate::sys;

/// Sets the niceness of the calling thread and of all that it starts later.
pub fn set(niceness: i32) -> io::Result<()> {
    if let Some(before) = group_niceness() {
        fs::write(GROUP, niceness.to_string())?;
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
    }
    sys::set_niceness(niceness)
}

/// Restores the group's niceness, which would outlive the bench.
pub fn restore() {
    if let Some(before) = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // The kernel limits the rate of such changes for users other than root. If this one fails, the session keeps
        // the niceness.
        let _ = fs::write(GROUP, before.to_string());
    }
}

/// Returns the group's niceness: the last word of a line such as `/autogroup-12 nice 0`.
fn group_niceness() -> Option<i32> {
    fs::read_to_string(GROUP).ok()?.split_whitespace().next_back()?.parse().ok()
}

const GROUP: &str = "/proc/self/autogroup";

static BEFORE: Mutex<Option<i32>> = Mutex::new(None);
