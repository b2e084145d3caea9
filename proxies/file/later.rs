//! The keys of later versions. A file that has one is refused, because nothing in a file is ignored.

use crate::cli::Section;

/// Returns true if a later version may have a key in a section.
pub fn is_later(section: Section, key: &str) -> bool {
    LATER.iter().any(|(sections, keys)| sections.contains(&section) && keys.contains(&key))
}

const LATER: &[(&[Section], &[&str])] = &[
    (&[Section::Process], &["console", "script", "web"]),
    (&[Section::Listener], &["rate"]),
    (&[Section::Defaults], &["rate"]),
    (&[Section::Link], &["rate", "direct"]),
    (&[Section::Serve], &["rate", "relay"]),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::OPTIONS;

    #[test]
    fn no_key_of_a_later_version_is_an_option_of_this_one() {
        for (sections, keys) in LATER {
            let is_there = |key: &&&str| {
                OPTIONS
                    .iter()
                    .any(|spec| spec.long == **key && sections.iter().any(|section| spec.sections.has(*section)))
            };
            assert_eq!(keys.iter().filter(is_there).collect::<Vec<_>>(), Vec::<&&str>::new());
        }
    }
}
