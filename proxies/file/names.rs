//! The names of records. A record without a name has one that is made of its address, and of a number if it is taken.

use std::collections::HashSet;

/// The names of one kind of records.
#[derive(Default)]
pub struct Names {
    /// The names that stand in the files, and those that were made.
    taken: HashSet<String>,
}

impl Names {
    /// Notes a name that stands in a file. Returns false if another record has it.
    pub fn note(&mut self, name: &str) -> bool {
        self.taken.insert(name.to_owned())
    }

    /// Makes a name that no other record has.
    pub fn make(&mut self, address: &str) -> String {
        let mut number = 1;
        loop {
            let name = if number == 1 { address.to_owned() } else { format!("{address}-{number}") };
            if self.taken.insert(name.clone()) {
                return name;
            }
            number += 1;
        }
    }
}
