//! The sections of a file of configuration, in which an option may stand as a key.

/// A section of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Section {
    /// The keys above all tables: the process.
    Process,
    /// `[defaults]`: what listeners, links and servers inherit.
    Defaults,
    /// `[[listener]]`
    Listener,
    /// `[[link]]`
    Link,
    /// `[[serve]]`
    Serve,
}

/// A set of sections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sections(u8);

impl Section {
    /// All sections, in the order of the reference.
    pub const ALL: [Section; 5] =
        [Section::Process, Section::Defaults, Section::Listener, Section::Link, Section::Serve];

    /// Returns the place of the section in a file, for a sentence.
    pub const fn place(self) -> &'static str {
        match self {
            Section::Process => "at the top of the file",
            Section::Defaults => "in [defaults]",
            Section::Listener => "in [[listener]]",
            Section::Link => "in [[link]]",
            Section::Serve => "in [[serve]]",
        }
    }
}

impl Sections {
    /// No section: the option is no key of a file.
    pub const NONE: Sections = Sections::of(&[]);
    /// The process.
    pub const PROCESS: Sections = Sections::of(&[Section::Process]);
    /// Listeners alone.
    pub const LISTENERS: Sections = Sections::of(&[Section::Listener]);
    /// Listeners, and links that peers dial: records that listen.
    pub const LISTENED: Sections = Sections::of(&[Section::Listener, Section::Serve]);
    /// All records, each of which has a name.
    pub const NAMED: Sections = Sections::of(&[Section::Listener, Section::Link, Section::Serve]);
    /// Listeners, and their defaults.
    pub const CLIENTS: Sections = Sections::of(&[Section::Defaults, Section::Listener]);
    /// Links of both kinds, and their defaults.
    pub const LINKS: Sections = Sections::of(&[Section::Defaults, Section::Link, Section::Serve]);
    /// Links of both kinds.
    pub const LINKED: Sections = Sections::of(&[Section::Link, Section::Serve]);
    /// Links that this node dials.
    pub const DIALED: Sections = Sections::of(&[Section::Link]);
    /// Links that peers dial.
    pub const SERVED: Sections = Sections::of(&[Section::Serve]);
    /// Links that peers dial, and their defaults.
    pub const SERVED_DEFAULTS: Sections = Sections::of(&[Section::Defaults, Section::Serve]);
    /// Listeners, links of both kinds, and their defaults.
    pub const RECORDS: Sections = Sections::of(&[Section::Defaults, Section::Listener, Section::Link, Section::Serve]);

    /// Returns the set of these sections.
    pub const fn of(sections: &[Section]) -> Sections {
        let (mut bits, mut index) = (0, 0);
        while index < sections.len() {
            bits |= 1 << sections[index] as u8;
            index += 1;
        }
        Sections(bits)
    }

    /// Returns true if the set contains the section.
    pub const fn has(self, section: Section) -> bool {
        self.0 & (1 << section as u8) != 0
    }
}
