//! The keys of later versions. A file that has one is refused, because nothing in a file is ignored.

use crate::cli::Section;

/// Returns true if a later version may have a key in a section.
pub fn is_later(section: Section, key: &str) -> bool {
    LATER.iter().any(|(sections, keys)| sections.contains(&section) && keys.contains(&key))
}

const LATER: &[(&[Section], &[&str])] = &[
    (&[Section::Process], &["console", "script", "web"]),
    (&[Section::Listener], &["udp", "rate", "transparent"]),
    (&[Section::Defaults], &["rate", "udp-timeout"]),
    (&[Section::Link], &["links-max", "rate", "direct"]),
    (&[Section::Serve], &["rate", "relay"]),
];
