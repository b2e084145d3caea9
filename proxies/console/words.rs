//! The words that the prompt completes: the names of globals, and of the fields of global tables.

use std::sync::{Arc, Mutex, PoisonError};

/// The words, shared by the virtual machine, which knows them, and the prompt. Fields stand behind their tables:
/// `string.format`.
#[derive(Clone, Default)]
pub struct Words(Arc<Mutex<Vec<String>>>);

impl Words {
    /// Replaces the words.
    pub fn set(&self, words: Vec<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = words;
    }

    /// Returns the words that begin with `start`, in order.
    pub fn starting_with(&self, start: &str) -> Vec<String> {
        let words = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The fields of a table are offered once its name stands there.
        let dots = start.matches('.').count();
        let fits = |word: &&String| word.starts_with(start) && word.matches('.').count() == dots;
        let mut found: Vec<String> = words.iter().filter(fits).cloned().collect();
        found.sort();
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_offered_behind_the_name_of_their_table() {
        let words = Words::default();
        words.set(["string.format", "string", "status", "print"].map(str::to_owned).to_vec());
        assert_eq!(words.starting_with("st"), ["status", "string"]);
        assert_eq!(words.starting_with("string.f"), ["string.format"]);
        assert!(words.starting_with("x").is_empty());
    }
}
