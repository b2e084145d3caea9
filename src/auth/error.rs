//! Errors in files of keys, users or paths: the file, the line, the word, and the expected content.
//!
//! Private content is never quoted: an error about a private key or a secret has no word.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// An error in a file of keys, users or paths.
#[derive(Debug)]
pub struct KeysError {
    path: PathBuf,
    line: Option<usize>,
    problem: Problem,
}

/// The kind of error in a file of keys, users or paths.
#[derive(Debug)]
#[non_exhaustive]
pub enum Problem {
    /// A system call failed.
    Io(io::Error),
    /// The file to create exists already.
    Exists,
    /// Other users can read a private file; holds its mode.
    Readable(u32),
    /// Other users can change the file; holds its mode.
    Writable(u32),
    /// Another user owns the file or a directory on the path to it.
    Owner {
        /// The file or the directory.
        at: PathBuf,
        /// The owner.
        owner: u32,
        /// The user of this process.
        user: u32,
    },
    /// Other users can replace the file through a directory on the path to it.
    Directory {
        /// The directory.
        at: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The content is malformed.
    Content(Wrong),
    /// Error text of a file with another grammar.
    Text(String),
}

impl KeysError {
    pub(super) fn new(path: &Path, problem: Problem) -> KeysError {
        KeysError { path: path.to_owned(), line: None, problem }
    }

    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> KeysError {
        move |error| KeysError::new(path, Problem::Io(error))
    }

    /// Makes an error about the file as a whole.
    pub fn content(path: &Path, expected: impl Into<Cow<'static, str>>) -> KeysError {
        KeysError::new(path, Problem::Content(Wrong::missing(expected)))
    }

    /// Makes an error about a required file that does not exist.
    pub fn missing(path: &Path) -> KeysError {
        KeysError::new(path, Problem::Io(crate::sys::missing_file()))
    }

    /// Makes an error about a line, counted from 1, with this text.
    pub fn text(path: &Path, line: usize, text: String) -> KeysError {
        KeysError { path: path.to_owned(), line: Some(line), problem: Problem::Text(text) }
    }

    /// Makes an error about a line, counted from 1, with the wrong word and the expected form.
    pub fn at(path: &Path, line: usize, wrong: Wrong) -> KeysError {
        KeysError { path: path.to_owned(), line: Some(line), problem: Problem::Content(wrong) }
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the number of the wrong line, counted from 1, if the error is about one line.
    pub fn line(&self) -> Option<usize> {
        self.line
    }

    /// Returns the kind of error.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// Returns true if the file does not exist.
    pub fn is_missing(&self) -> bool {
        matches!(&self.problem, Problem::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }

    /// Returns true if an owner or a mode is wrong. The content of the file was not read then.
    pub fn is_about_modes(&self) -> bool {
        use Problem::{Directory, Owner, Readable, Writable};
        matches!(self.problem, Readable(_) | Writable(_) | Owner { .. } | Directory { .. })
    }
}

/// A parse error: the wrong word, and the expected form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The wrong word; `None` if it is private or missing.
    pub word: Option<String>,
    /// The expected form.
    pub expected: Cow<'static, str>,
}

impl Wrong {
    /// Makes an error about a word that does not have the expected form.
    pub fn word(word: &str, expected: impl Into<Cow<'static, str>>) -> Wrong {
        Wrong { word: Some(word.to_owned()), expected: expected.into() }
    }

    /// Makes an error about a missing word.
    pub fn missing(expected: impl Into<Cow<'static, str>>) -> Wrong {
        Wrong { word: None, expected: expected.into() }
    }
}

/// Writes the text that follows the file and the line in a message.
impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(word) = &self.word {
            // A word may be as long as the file, so the quote has a limit.
            let end = word.char_indices().nth(WORD_CHARS_MAX).map(|(end, _)| end);
            let (word, dots) = end.map_or((word.as_str(), ""), |end| (&word[..end], "..."));
            write!(f, "{word:?}{dots}: ")?;
        }
        write!(f, "expected {}", self.expected)
    }
}

impl fmt::Display for KeysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        write!(f, "{path}")?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        match &self.problem {
            Problem::Io(error) => write!(f, ": {error}"),
            Problem::Exists => f.write_str(": the file exists already and is not replaced"),
            Problem::Readable(mode) => {
                write!(f, ": others can read it (mode {mode:04o}): expected mode 0600; type: chmod 600 {path}")
            }
            Problem::Writable(mode) => {
                write!(
                    f,
                    ": others can change it (mode {mode:04o}): expected mode 0644 or less; type: chmod go-w {path}"
                )
            }
            Problem::Owner { at, owner, user } => {
                let at = if *at == self.path { "it".into() } else { at.display().to_string() };
                write!(f, ": {at} belongs to user {owner}: expected ")?;
                if *user == 0 { f.write_str("root") } else { write!(f, "user {user} or root") }
            }
            Problem::Directory { at, mode } => {
                let at = at.display();
                write!(
                    f,
                    ": others may write to the directory {at} (mode {mode:04o}): expected mode 0755 or less; type: chmod go-w {at}"
                )
            }
            Problem::Content(wrong) => write!(f, ": {wrong}"),
            Problem::Text(text) => write!(f, ": {text}"),
        }
    }
}

impl std::error::Error for Wrong {}

impl std::error::Error for KeysError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.problem {
            Problem::Io(error) => Some(error),
            _ => None,
        }
    }
}

/// Number of characters of a wrong word that are quoted.
const WORD_CHARS_MAX: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_file_the_line_the_word_and_the_expected_form() {
        let path = Path::new("/etc/seaprox/known_nodes");
        let error = KeysError::at(path, 3, Wrong::word("a\x1b b", "HOST:PORT"));
        assert_eq!(error.to_string(), r#"/etc/seaprox/known_nodes:3: "a\u{1b} b": expected HOST:PORT"#);
        let error = KeysError::at(path, 3, Wrong::missing("a key"));
        assert_eq!(error.to_string(), "/etc/seaprox/known_nodes:3: expected a key");
        let long = KeysError::at(path, 1, Wrong::word(&"é".repeat(1000), "less")).to_string();
        assert!(long.contains("éé\"...: expected less") && long.len() < 300, "{long}");
        let open = KeysError::new(Path::new("/k"), Problem::Readable(0o644)).to_string();
        assert_eq!(open, "/k: others can read it (mode 0644): expected mode 0600; type: chmod 600 /k");
        let owner = |at: &str, user| {
            KeysError::new(Path::new("/a/k"), Problem::Owner { at: at.into(), owner: 7, user }).to_string()
        };
        assert_eq!(owner("/a/k", 0), "/a/k: it belongs to user 7: expected root");
        assert_eq!(owner("/a", 5), "/a/k: /a belongs to user 7: expected user 5 or root");
    }
}
