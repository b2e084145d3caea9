//! The files of a configuration: reads each, parses it, and follows `include`.
//!
//! A file is read once. `include` names files beside the including file, with `*` and `?` in their last part; the files of a
//! pattern are read in the order of their names.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{self, Path, PathBuf};
use std::sync::Arc;

use seaprox::auth::Modes;
use seaprox::units::format_size;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::problem::{Position, Problems};
use super::variables::substitute;
use crate::cli::modes_hint;

/// A file that was read.
pub struct SourceFile {
    /// The path, as errors name it.
    pub path: Arc<Path>,
    /// The directory of the file. Relative paths in its values begin there.
    pub directory: PathBuf,
    order: usize,
    text: String,
}

/// A file with its content, as far as it can be parsed.
pub struct ParsedFile<'a> {
    /// The file.
    pub file: &'a SourceFile,
    /// Its keys.
    pub table: DeTable<'a>,
}

/// A key with its value.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    /// The file.
    pub file: &'a SourceFile,
    name: &'a str,
    /// The offset of the key in the file.
    at: usize,
    /// The value.
    pub value: &'a Spanned<DeValue<'a>>,
}

/// The files so far.
pub struct Sources<'a> {
    /// The files, in the order in which they were read.
    pub files: Vec<SourceFile>,
    /// The directories in which patterns were looked up.
    pub directories: Vec<PathBuf>,
    /// The errors of reading and of syntax.
    pub problems: Problems,
    /// True if a file has an error of syntax, so that keys may be missing.
    pub is_incomplete: bool,
    variable: &'a dyn Fn(&str) -> Option<String>,
    modes: Modes,
    /// The bytes of all files so far.
    bytes: u64,
    /// The real paths of the files, each of which is read once.
    seen: HashSet<PathBuf>,
}

impl SourceFile {
    /// Returns the position of a span.
    pub fn position(&self, span: Range<usize>) -> Position {
        let at = (0..=span.start.min(self.text.len())).rev().find(|at| self.text.is_char_boundary(*at)).unwrap_or(0);
        let before = &self.text[..at];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
        Position { order: self.order, path: Arc::clone(&self.path), line, column }
    }

    /// Parses the file. Its errors were found when it was read.
    pub fn parse(&self) -> ParsedFile<'_> {
        ParsedFile { file: self, table: DeTable::parse_recoverable(&self.text).0.into_inner() }
    }

    /// Returns the keys of a table of this file, in their order.
    pub fn entries<'a>(&'a self, table: &'a DeTable<'a>) -> Vec<Entry<'a>> {
        let entry = |(key, value): (&'a Spanned<DeString<'a>>, &'a Spanned<DeValue<'a>>)| Entry {
            file: self,
            name: key.get_ref(),
            at: key.span().start,
            value,
        };
        let mut entries: Vec<_> = table.iter().map(entry).collect();
        entries.sort_by_key(|entry| entry.at);
        entries
    }
}

impl<'a> Entry<'a> {
    /// Returns the key as text.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// Returns the entry under another key.
    pub fn named(self, name: &'a str) -> Entry<'a> {
        Entry { name, ..self }
    }

    /// Returns the position of the key.
    pub fn key_position(&self) -> Position {
        self.file.position(self.at..self.at)
    }

    /// Returns the position of the value.
    pub fn position(&self) -> Position {
        self.file.position(self.value.span())
    }
}

impl<'a> Sources<'a> {
    /// Reads a file, and all files that it includes. `modes` are the checks of their owners and modes.
    pub fn read(path: &Path, variable: &'a dyn Fn(&str) -> Option<String>, modes: Modes) -> Sources<'a> {
        let mut sources = Sources::new(variable, modes);
        let start = Position { order: 0, path: path.into(), line: 1, column: 1 };
        sources.add(path, start, 0);
        sources
    }

    /// Takes a text as the content of a file that does not exist, and reads all files that it includes.
    pub fn of_text(name: &Path, text: &str, variable: &'a dyn Fn(&str) -> Option<String>, modes: Modes) -> Sources<'a> {
        let mut sources = Sources::new(variable, modes);
        sources.add_text(name, text.as_bytes().to_vec(), 0);
        sources
    }

    fn new(variable: &'a dyn Fn(&str) -> Option<String>, modes: Modes) -> Sources<'a> {
        Sources {
            files: Vec::new(),
            directories: Vec::new(),
            problems: Problems::default(),
            is_incomplete: false,
            variable,
            modes,
            bytes: 0,
            seen: HashSet::new(),
        }
    }

    /// Reads a file that stands at `origin`, which an error names if the file cannot be read.
    fn add(&mut self, path: &Path, origin: Position, depth: usize) {
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if !self.seen.insert(real) {
            let text = format!("include: found {:?}, expected each file once", path.display().to_string());
            return self.problems.add(origin, text);
        }
        if depth > DEPTH_MAX || self.files.len() >= FILES_MAX {
            let text =
                format!("include: expected at most {FILES_MAX} files, each included over at most {DEPTH_MAX} others");
            return self.problems.add(origin, text);
        }
        let bytes = match self.modes.read_regular(path, FILE_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) => return self.problems.add(origin, format!("{error}{}", modes_hint(&error))),
        };
        self.bytes += bytes.len() as u64;
        if self.bytes > BYTES_MAX {
            let text = format!("include: expected at most {} in all files", format_size(BYTES_MAX));
            return self.problems.add(origin, text);
        }
        self.add_text(path, bytes, depth);
    }

    fn add_text(&mut self, path: &Path, bytes: Vec<u8>, depth: usize) {
        let file = self.source(path, bytes);
        let (table, errors) = DeTable::parse_recoverable(&file.text);
        self.is_incomplete |= !errors.is_empty();
        for error in errors {
            let message = error.message().lines().collect::<Vec<_>>().join(", ");
            self.problems.add(file.position(error.span().unwrap_or(0..0)), message);
        }
        let included = self.included(&file, table.get_ref());
        self.files.push(file);
        for (path, position) in included {
            self.add(&path, position, depth + 1);
        }
    }

    fn source(&mut self, path: &Path, bytes: Vec<u8>) -> SourceFile {
        let absolute = path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let directory = absolute.parent().unwrap_or(Path::new("/")).to_owned();
        let (path, order) = (path.into(), self.files.len());
        match String::from_utf8(bytes) {
            Ok(text) => SourceFile { path, directory, order, text },
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let text = String::from_utf8_lossy(&error.as_bytes()[..valid]).into_owned();
                let file = SourceFile { path, directory, order, text };
                self.is_incomplete = true;
                self.problems
                    .add(file.position(valid..valid), "found a byte that is not UTF-8, expected text in UTF-8");
                file
            }
        }
    }

    /// Returns the files that a file includes, each with the position of its name.
    fn included(&mut self, file: &SourceFile, table: &DeTable<'_>) -> Vec<(PathBuf, Position)> {
        let Some(value) = table.get("include") else { return Vec::new() };
        let items: Vec<&Spanned<DeValue<'_>>> = match value.get_ref() {
            DeValue::Array(items) => items.iter().collect(),
            _ => vec![value],
        };
        let mut included = Vec::new();
        for item in items {
            let position = file.position(item.span());
            let Some(text) = item.get_ref().as_str() else {
                let found = item.get_ref().type_str();
                self.problems.add(position, format!("include: found {found}, expected file names in quotes"));
                continue;
            };
            let pattern = substitute(text, self.variable);
            if let Some(directory) = pattern.as_ref().ok().and_then(|text| directory_of(&file.directory, text)) {
                self.directories.push(directory);
            }
            match pattern.and_then(|text| self.matches(&file.directory, &text)) {
                Ok(paths) => included.extend(paths.into_iter().map(|path| (path, position.clone()))),
                Err(error) => self.problems.add(position, format!("include: found {text:?}, {error}")),
            }
        }
        included
    }

    /// Returns the files that a pattern names. Nobody else may add or remove any of them.
    fn matches(&self, directory: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
        if directory_of(directory, pattern).is_some() {
            let checked = self.modes.check_directories(&directory.join(pattern));
            checked.map_err(|error| format!("{error}{}", modes_hint(&error)))?;
        }
        matches(directory, pattern)
    }
}

/// Returns the directory in which files of a pattern may appear.
fn directory_of(directory: &Path, pattern: &str) -> Option<PathBuf> {
    let parent = directory.join(pattern).parent().map(Path::to_owned);
    parent.filter(|_| pattern.contains(['*', '?']))
}

/// Returns the files that a pattern names, in the order of their names. A name without `*` and `?` need not exist here.
fn matches(directory: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    let whole = directory.join(pattern);
    let is_pattern = |text: &str| text.contains(['*', '?']);
    let (Some(parent), Some(name)) = (whole.parent(), whole.file_name().and_then(|name| name.to_str())) else {
        return Err("expected the name of a file".to_owned());
    };
    if is_pattern(&parent.to_string_lossy()) {
        return Err("expected * and ? in the last part of the path only".to_owned());
    }
    if !is_pattern(name) {
        return Ok(vec![whole]);
    }
    let entries = match fs::read_dir(parent) {
        Ok(entries) => entries,
        // An empty directory of additions is no error, and neither is a missing one.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("{error}: expected a directory that can be read")),
    };
    // A leading dot is never matched, as in a shell: editors leave hidden files behind.
    let fits = |file: &str| !file.starts_with('.') && fits(name, file);
    let mut paths: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(fits))
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    Ok(paths)
}

/// Returns true if a name fits to a pattern with `*` for any text and `?` for one character. Takes time in proportion to
/// the product of both lengths at most.
fn fits(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut at, mut next) = (0, 0);
    // The place behind the last star, and the first character that it does not cover.
    let mut star = None;
    while at < name.len() {
        match pattern.get(next) {
            Some('*') => {
                next += 1;
                star = Some((next, at));
            }
            Some(char) if *char == '?' || *char == name[at] => (at, next) = (at + 1, next + 1),
            _ => match &mut star {
                Some((behind, covered)) => {
                    *covered += 1;
                    (at, next) = (*covered, *behind);
                }
                None => return false,
            },
        }
    }
    pattern[next..].iter().all(|char| *char == '*')
}

/// The longest file.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// All files of a configuration together.
const BYTES_MAX: u64 = 32 << 20;
/// Files of a configuration, and how deep they include one another.
const FILES_MAX: usize = 1000;
const DEPTH_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_have_stars_and_question_marks() {
        for (pattern, name, expected) in [
            ("*.toml", "a.toml", true),
            ("*.toml", "a.toml~", false),
            ("*", "", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b", "xxbxxa", false),
            ("é?*", "éa", true),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
        assert!(!fits(&"*a".repeat(50), &"a".repeat(49)));
    }
}
