//! The bytes that peers may place in a folder.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::fault::{Fault, FileError};

/// The bytes that peers may place in a folder while the process runs. An offer is charged before it is accepted, so it cannot
/// exceed the quota while it arrives; what an interrupted transfer has left stays charged.
#[derive(Debug)]
pub struct Quota {
    most: u64,
    charges: Mutex<Charges>,
}

#[derive(Debug, Default)]
struct Charges {
    total: u64,
    /// The parts of interrupted transfers, by name.
    parts: HashMap<String, u64>,
}

impl Quota {
    /// Makes a quota of so many bytes.
    pub fn new(most: u64) -> Quota {
        Quota { most, charges: Mutex::default() }
    }

    /// Charges an offer. A part of it that is there, and is charged, counts once. Returns the bytes of that part.
    ///
    /// # Errors
    /// Fails with [`Fault::TooLarge`] if there is not so much left.
    pub fn charge(&self, name: &str, bytes: u64) -> Result<u64, FileError> {
        let mut charges = self.charges();
        let part = charges.parts.get(name).copied().unwrap_or(0);
        let before = charges.total - part;
        if bytes > self.most.saturating_sub(before) || charges.parts.len() >= PARTS_MAX {
            return Err(FileError::new(Fault::TooLarge, "the quota of the receiver has not so much left"));
        }
        charges.parts.remove(name);
        charges.total = before + bytes;
        Ok(part)
    }

    /// Gives back what is not there of an offer that was charged.
    pub fn settle(&self, name: &str, charged: u64, there: u64, is_whole: bool) {
        let mut charges = self.charges();
        charges.total = charges.total - charged + there;
        if !is_whole && there > 0 {
            charges.parts.insert(name.to_owned(), there);
        }
    }

    fn charges(&self) -> MutexGuard<'_, Charges> {
        self.charges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Most interrupted transfers that are remembered; no more are accepted then.
const PARTS_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_behind_is_charged_once() {
        let quota = Quota::new(100);
        quota.charge("a", 60).unwrap();
        assert_eq!(quota.charge("b", 41).map_err(|error| error.fault), Err(Fault::TooLarge));
        quota.settle("a", 60, 30, false);
        assert!(quota.charge("b", 71).is_err(), "the part of a is there");
        quota.charge("b", 40).unwrap();
        quota.settle("b", 40, 40, true);
        assert!(quota.charge("a", 61).is_err());
        quota.charge("a", 60).unwrap();
        quota.settle("a", 60, 60, true);
        assert!(quota.charge("c", 1).is_err() && quota.charge("c", 0).is_ok());
        assert!(quota.charge("d", u64::MAX).is_err());
    }
}
