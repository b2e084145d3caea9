//! A result that clients share, so that many of them cost as much as one.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The last result of a question, and the time at which it was found.
pub struct Shared<T>(Mutex<Option<(Instant, T)>>);

impl<T: Clone> Shared<T> {
    /// Returns the last result, if it was found after this call began, or [`KEPT`] ago at most and `is_kept` permits that.
    /// Otherwise finds a new one with `find`, and other callers wait for it.
    pub fn get(&self, is_kept: impl FnOnce(&T) -> bool, find: impl FnOnce() -> T) -> T {
        let since = Instant::now();
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, result)) = &*last
            && (*at >= since || at.elapsed() < KEPT && is_kept(result))
        {
            return result.clone();
        }
        let result = find();
        *last = Some((Instant::now(), result.clone()));
        result
    }
}

impl<T> Default for Shared<T> {
    fn default() -> Shared<T> {
        Shared(Mutex::default())
    }
}

/// Time for which a result is kept.
pub const KEPT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_shared_by_those_who_waited_for_it_and_kept_only_if_it_may_be() {
        let now = Instant::now();
        let ask = |at: Instant, is_kept| Shared(Mutex::new(Some((at, "last")))).get(|_| is_kept, || "new");
        // A caller that waited began before the result was found.
        let hour = Duration::from_secs(3600);
        assert_eq!([ask(now + hour, false), ask(now, false)], ["last", "new"]);
        let Some(past) = now.checked_sub(KEPT) else { return };
        assert_eq!(ask(past, true), "new");
        let shared = Shared::default();
        assert_eq!([1, 2].map(|number| shared.get(|_| false, || number)), [1, 2]);
    }
}
