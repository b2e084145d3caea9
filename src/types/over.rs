//! The last records that ended, with their reasons, so that a verb about one of them can say more than "stale".

use std::collections::VecDeque;

use crate::types::id::Id;
use crate::types::reason::Reason;
use crate::types::verb_error::VerbError;

/// The last [`OVER_MAX`] records that ended, the latest last.
#[derive(Debug, Default)]
pub(crate) struct Over(VecDeque<(Id, Reason)>);

impl Over {
    /// Notes the end of a record.
    pub fn note(&mut self, id: Id, reason: Reason) {
        if self.0.len() == OVER_MAX {
            self.0.pop_front();
        }
        self.0.push_back((id, reason));
    }

    /// Returns the error of a verb about a record that is not there.
    pub fn error_of(&self, id: Id) -> VerbError {
        let its = self.0.iter().rev().find(|(other, _)| *other == id);
        its.map_or(VerbError::Stale, |(_, reason)| VerbError::Over(*reason))
    }
}

/// Ends that are remembered.
const OVER_MAX: usize = 64;
