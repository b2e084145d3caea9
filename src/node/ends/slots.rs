//! The number of the ends that are open at once: in the whole process, and for each key and name.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::node::config::PeerKey;
use crate::types::end::{END_USERS_MAX, End, EndName, EndTarget};
use crate::types::reason::{Failure, Reason};

/// Limit of the commands and files that the peers of a process have open at once. Each has a thread.
pub const ENDS_MAX: usize = 64;

/// The place of an open end. A drop gives it back.
#[derive(Debug)]
pub(super) struct Slot {
    user: (PeerKey, EndName),
    has_thread: bool,
}

#[derive(Default)]
struct Slots {
    /// The open ends of each key, by name. Invariant: no count is 0.
    users: Option<HashMap<(PeerKey, EndName), u32>>,
    threads: usize,
}

/// The places of all loops of the process: threads and processes are a matter of the process, and a key may have links in
/// several loops.
static SLOTS: Mutex<Slots> = Mutex::new(Slots { users: None, threads: 0 });
static FREED: Condvar = Condvar::new();

impl Slot {
    /// Takes a place.
    ///
    /// # Errors
    /// [`Reason::LimitReached`] if there is none.
    pub fn take(key: &PeerKey, end: &End) -> Result<Slot, Failure> {
        let has_thread = !matches!(end.target, EndTarget::Unix(_));
        let max = end.users_max.unwrap_or(if has_thread { END_USERS_MAX } else { u32::MAX });
        let user = (*key, end.name.clone());
        let mut slots = lock();
        if has_thread && slots.threads >= ENDS_MAX {
            return Err(Failure::new(Reason::LimitReached, "too many ends are open"));
        }
        let users = slots.users.get_or_insert_default();
        if users.get(&user).is_some_and(|count| *count >= max) {
            return Err(Failure::new(Reason::LimitReached, "the peer has this end open too often"));
        }
        *users.entry(user.clone()).or_insert(0) += 1;
        slots.threads += usize::from(has_thread);
        Ok(Slot { user, has_thread })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut slots = lock();
        slots.threads -= usize::from(self.has_thread);
        let users = slots.users.get_or_insert_default();
        if let Some(count) = users.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                users.remove(&self.user);
            }
        }
        drop(slots);
        FREED.notify_all();
    }
}

/// Waits until no command of a peer runs and no file of a peer is open, at most for `patience`. Call it after the last loop has
/// ended and before the process ends: commands are asked to end when their connections do, and are killed 2 s later. Returns
/// false if some go on.
pub fn wait_for_ends(patience: Duration) -> bool {
    let since = Instant::now();
    let mut slots = lock();
    while slots.threads > 0 {
        let Some(left) = patience.checked_sub(since.elapsed()).filter(|left| !left.is_zero()) else { return false };
        (slots, _) = FREED.wait_timeout(slots, left).unwrap_or_else(PoisonError::into_inner);
    }
    true
}

fn lock() -> MutexGuard<'static, Slots> {
    SLOTS.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_as_many_places_as_its_rule_says_and_a_drop_gives_one_back() {
        let end: End = "x=read,max=2:/etc/motd".parse().unwrap();
        let (one, two) = ([1; 32], [2; 32]);
        let slots = [Slot::take(&one, &end).unwrap(), Slot::take(&one, &end).unwrap()];
        assert_eq!(Slot::take(&one, &end).unwrap_err().reason, Reason::LimitReached);
        drop(Slot::take(&two, &end).unwrap());
        drop(slots);
        drop(Slot::take(&one, &end).unwrap());
    }
}
