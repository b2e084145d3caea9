//! The niceness of a whole run, for a machine that is in use (`--nice`).
//!
//! Where the kernel groups processes by session, niceness counts only inside the group. Then the group's own niceness is
//! set as well, and set back at the end, because the terminal that started the bench belongs to the group, too.

use std::fs;
use std::io;
use std::sync::{Mutex, PoisonError};

use crate::sys;

/// For the calling thread and all that it starts from now on.
pub fn set(niceness: i32) -> io::Result<()> {
    if let Some(before) = group_niceness() {
        fs::write(GROUP, niceness.to_string())?;
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
    }
    sys::set_niceness(niceness)
}

/// Undoes what would outlive the bench.
pub fn restore() {
    if let Some(before) = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // The kernel slows such changes down for others than root; then the session keeps its niceness until it ends.
        let _ = fs::write(GROUP, before.to_string());
    }
}

/// The last word of a line such as `/autogroup-12 nice 0`.
fn group_niceness() -> Option<i32> {
    fs::read_to_string(GROUP).ok()?.split_whitespace().next_back()?.parse().ok()
}

const GROUP: &str = "/proc/self/autogroup";

static BEFORE: Mutex<Option<i32>> = Mutex::new(None);
