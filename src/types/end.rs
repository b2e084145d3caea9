//! The named end of a tunnel: a Unix socket, a file or a command in the place of an address, and its text.
//!
//! ```text
//! end     = NAME "=" KIND *("," OPTION) ":" REST
//!
//! docker=unix:/run/docker.sock                         connects to a Unix socket
//! motd=read:/etc/motd                                  the content of a file, and then the end
//! drop=append,create,size=1GiB:/srv/drop/joe           what arrives goes to the end of a file
//! backup=command,max=2:/usr/bin/borg serve --append-only
//! ```
//! The name is all that a peer chooses. A rule of this node holds the rest, so no word of a peer reaches a path or a command.
//! A command is split at its blanks, and single quotes protect blanks; there is no shell, and no other character with a meaning.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::units::{format_size, parse_size};

/// The name of an end: 1 to 64 letters, digits, `-`, `_` and `.`, of which the first is a letter.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndName(Box<str>);

/// A named end, as a rule gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The name, which peers choose it by.
    pub name: EndName,
    /// The object that the name stands for.
    pub target: EndTarget,
    /// The number of the tunnels of one key that may have this end at once. None for [`END_USERS_MAX`] of a command or a file,
    /// and for no limit of a Unix socket.
    pub users_max: Option<u32>,
}

/// The object that the name of an end stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndTarget {
    /// A Unix socket to connect to.
    Unix(PathBuf),
    /// A file whose content is sent, followed by the end of the stream. What the peer sends is discarded.
    Read(PathBuf),
    /// A file that the bytes of the peer are appended to. The end of the stream follows the last of them.
    Append {
        /// The path of the file.
        path: PathBuf,
        /// True to create the file, with mode 0600, if it does not exist.
        creates: bool,
        /// The size that the file may reach, if it is limited.
        size_max: Option<u64>,
    },
    /// A command, whose standard input and output are the stream. The first argument is the absolute path of the program.
    Command(Vec<String>),
}

/// The error of a malformed end: the wrong word, and the form that was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndError {
    /// The wrong word.
    pub word: String,
    /// The expected form.
    pub expected: &'static str,
}

/// The number of the tunnels of one key that may have one command or one file at once, if its rule says no other number.
pub const END_USERS_MAX: u32 = 4;

impl EndName {
    /// Checks a name.
    ///
    /// # Errors
    /// The text is no name of an end.
    pub fn new(text: &str) -> Result<EndName, EndError> {
        let is_first = |byte: &u8| byte.is_ascii_alphabetic();
        let is_other = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let bytes = text.as_bytes();
        let fits = bytes.len() <= NAME_BYTES_MAX && bytes.first().is_some_and(is_first) && bytes.iter().all(is_other);
        if fits { Ok(EndName(text.into())) } else { Err(wrong(text, NAME_FORM)) }
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl EndTarget {
    /// Returns the word for the kind of the target.
    pub fn kind(&self) -> &'static str {
        match self {
            EndTarget::Unix(_) => "unix",
            EndTarget::Read(_) => "read",
            EndTarget::Append { .. } => "append",
            EndTarget::Command(_) => "command",
        }
    }

    fn parse(kind: &str, options: Options, rest: &str) -> Result<EndTarget, EndError> {
        if rest.chars().any(|char| char.is_control() || char == '"') {
            return Err(wrong(rest, "no quotation mark and no control character"));
        }
        let appends = kind == "append";
        if !appends && (options.creates || options.size_max.is_some()) {
            return Err(wrong(kind, "append with the options create and size"));
        }
        match kind {
            "unix" if rest.len() > UNIX_PATH_BYTES_MAX => Err(wrong(rest, "a path of at most 107 bytes")),
            "unix" => Ok(EndTarget::Unix(path(rest)?)),
            "read" => Ok(EndTarget::Read(path(rest)?)),
            "append" => {
                let Options { creates, size_max, .. } = options;
                Ok(EndTarget::Append { path: path(rest)?, creates, size_max })
            }
            "command" => {
                let arguments = split_arguments(rest)?;
                path(arguments.first().map_or("", String::as_str))?;
                Ok(EndTarget::Command(arguments))
            }
            _ => Err(wrong(kind, KIND_FORM)),
        }
    }
}

/// The options between the kind and the colon.
#[derive(Default)]
struct Options {
    creates: bool,
    size_max: Option<u64>,
    users_max: Option<u32>,
}

impl Options {
    fn parse<'a>(words: impl Iterator<Item = &'a str>) -> Result<Options, EndError> {
        let mut options = Options::default();
        for word in words {
            let is_new = match word.split_once('=') {
                None if word == "create" => !std::mem::replace(&mut options.creates, true),
                Some(("size", size)) => {
                    let size = parse_size(size).ok().filter(|size| *size > 0);
                    let size = size.ok_or_else(|| wrong(word, "a size such as size=10MiB"))?;
                    options.size_max.replace(size).is_none()
                }
                Some(("max", max)) => {
                    let is_number = max.bytes().all(|byte| byte.is_ascii_digit());
                    let max = max.parse().ok().filter(|max| is_number && (1..=USERS_MAX).contains(max));
                    let max = max.ok_or_else(|| wrong(word, "a number from 1 to 1000 behind max="))?;
                    options.users_max.replace(max).is_none()
                }
                _ => return Err(wrong(word, OPTION_FORM)),
            };
            if !is_new {
                return Err(wrong(word, "each option once"));
            }
        }
        Ok(options)
    }
}

impl FromStr for End {
    type Err = EndError;

    fn from_str(text: &str) -> Result<End, EndError> {
        let form = || wrong(text, END_FORM);
        let (name, rest) = text.split_once('=').ok_or_else(form)?;
        let name = EndName::new(name)?;
        let (head, rest) = rest.split_once(':').ok_or_else(form)?;
        let mut words = head.split(',');
        let kind = words.next().unwrap_or_default();
        let options = Options::parse(words)?;
        let users_max = options.users_max;
        Ok(End { name, target: EndTarget::parse(kind, options, rest)?, users_max })
    }
}

/// Splits a command at its blanks. Single quotes protect blanks, and no other character has a meaning.
fn split_arguments(text: &str) -> Result<Vec<String>, EndError> {
    let (mut arguments, mut argument, mut is_quoted) = (Vec::new(), None::<String>, false);
    for char in text.chars() {
        match char {
            '\'' => {
                is_quoted = !is_quoted;
                argument.get_or_insert_default();
            }
            ' ' if !is_quoted => arguments.extend(argument.take()),
            char => argument.get_or_insert_default().push(char),
        }
    }
    arguments.extend(argument);
    if is_quoted {
        return Err(wrong(text, "a closing quote"));
    }
    Ok(arguments)
}

fn path(text: &str) -> Result<PathBuf, EndError> {
    if !text.starts_with('/') || text.len() > PATH_BYTES_MAX || text.contains('\0') {
        return Err(wrong(text, "an absolute path"));
    }
    Ok(PathBuf::from(text))
}

fn wrong(word: &str, expected: &'static str) -> EndError {
    EndError { word: word.to_owned(), expected }
}

/// Writes the form that a rule has.
impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.target.kind())?;
        if let EndTarget::Append { creates, size_max, .. } = &self.target {
            f.write_str(if *creates { ",create" } else { "" })?;
            size_max.iter().try_for_each(|size| write!(f, ",size={}", format_size(*size)))?;
        }
        self.users_max.iter().try_for_each(|max| write!(f, ",max={max}"))?;
        match &self.target {
            EndTarget::Unix(path) | EndTarget::Read(path) | EndTarget::Append { path, .. } => {
                write!(f, ":{}", path.display())
            }
            EndTarget::Command(arguments) => {
                let mut before = ':';
                for argument in arguments {
                    let quote = if argument.is_empty() || argument.contains(' ') { "'" } else { "" };
                    write!(f, "{before}{quote}{argument}{quote}")?;
                    before = ' ';
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for EndName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for EndError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: expected {}", self.word, self.expected)
    }
}

impl std::error::Error for EndError {}

/// Length of the longest name.
const NAME_BYTES_MAX: usize = 64;
/// Length of the longest path in a `sockaddr_un` on Linux, without the final NUL (unix(7)).
const UNIX_PATH_BYTES_MAX: usize = 107;
/// Length of the longest path.
const PATH_BYTES_MAX: usize = 4096;
/// The largest number behind `max=`.
const USERS_MAX: u32 = 1000;
const NAME_FORM: &str = "a name of at most 64 letters, digits, '-', '_' and '.' that begins with a letter";
const KIND_FORM: &str = "unix, read, append or command";
const OPTION_FORM: &str = "create, size=SIZE or max=NUMBER";
const END_FORM: &str = "NAME=unix:/path, NAME=read:/path, NAME=append:/path or NAME=command:/path ARGUMENTS";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn command(text: &str) -> Vec<String> {
        match text.parse::<End>().unwrap().target {
            EndTarget::Command(arguments) => arguments,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_printed_end_parses_to_itself() {
        for text in [
            "docker=unix:/run/docker.sock",
            "motd=read,max=1:/etc/motd",
            "log=append:/var/log/peers",
            "drop=append,create,size=1GiB,max=2:/srv/drop of joe",
            "backup=command:/usr/bin/borg serve --restrict-to-path '/srv/a b' ''",
        ] {
            assert_eq!(text.parse::<End>().map(|end| end.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn a_command_is_split_at_its_blanks_and_nothing_else_has_a_meaning() {
        assert_eq!(command("a=command:/bin/x  $HOME `id` ;rm *"), ["/bin/x", "$HOME", "`id`", ";rm", "*"]);
        assert_eq!(command("a=command:/bin/x 'a b'c' d' ''"), ["/bin/x", "a bc d", ""]);
        assert_eq!(command("a=command:/bin/x a\\ b"), ["/bin/x", "a\\", "b"]);
    }

    #[test]
    fn a_malformed_end_is_refused_with_the_word_and_the_form() {
        for (text, said) in [
            ("", "expected NAME=unix:/path"),
            ("a=read", "expected NAME=unix:/path"),
            ("1a=read:/x", "\"1a\": expected a name"),
            ("a b=read:/x", "\"a b\": expected a name"),
            ("a=write:/x", "\"write\": expected unix, read, append or command"),
            ("a=read:x", "\"x\": expected an absolute path"),
            ("a=command:ls", "\"ls\": expected an absolute path"),
            ("a=command:", "\"\": expected an absolute path"),
            ("a=command:/bin/x 'a", "expected a closing quote"),
            ("a=command:/bin/x \"a\"", "expected no quotation mark"),
            ("a=command:/bin/x a\nb", "expected no quotation mark and no control character"),
            ("a=read,create:/x", "expected append with the options"),
            ("a=read,size=1MiB:/x", "expected append with the options"),
            ("a=append,size=0:/x", "expected a size"),
            ("a=append,max=0:/x", "expected a number from 1 to 1000"),
            ("a=append,max=+1:/x", "expected a number from 1 to 1000"),
            ("a=append,create,create:/x", "expected each option once"),
            ("a=append,mode=1:/x", "\"mode=1\": expected create, size=SIZE or max=NUMBER"),
        ] {
            let error = text.parse::<End>().map(|end| end.to_string()).unwrap_err().to_string();
            assert!(error.contains(said), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_name_has_no_character_that_could_confuse_a_log_or_a_command() {
        for name in ["a", "Backup-2.tar_gz", &"a".repeat(64)] {
            assert_eq!(EndName::new(name).unwrap().as_str(), name);
        }
        for name in ["", "-a", ".a", "1", "a\n", "a'", "a\"", "a b", "a/b", "ä", "a\0", &"a".repeat(65)] {
            assert!(EndName::new(name).is_err(), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}|[a-z]{1,3}=(unix|read|append|command)(,create|,size=1KiB|,max=2){0,3}:/[ '\\PC]{0,20}") {
            if let Ok(end) = text.parse::<End>() {
                prop_assert_eq!(end.to_string().parse(), Ok(end));
            }
        }
    }
}
