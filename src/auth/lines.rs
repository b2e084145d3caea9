//! The line format of the key files.
//!
//! Empty lines, and lines whose first character after blanks is `#`, are skipped. Words are separated by blanks and tabs.
//! A malformed line makes the whole file invalid.

use std::path::Path;

use super::ENTRIES_MAX;
use super::error::{KeysError, Wrong};
use super::public::{KEY_NAME_FORM, KEY_TYPE, PublicKey, is_key_name};

/// Parses each line. Returns the entries with their line numbers, counted from 1.
pub(super) fn entries<T>(
    path: &Path,
    bytes: &[u8],
    parse: impl Fn(&str) -> Result<T, Wrong>,
) -> Result<Vec<(usize, T)>, KeysError> {
    let mut entries = Vec::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let at = |wrong| KeysError::at(path, index + 1, wrong);
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        if entries.len() == ENTRIES_MAX {
            return Err(at(Wrong::missing(format!("at most {ENTRIES_MAX} keys in a file"))));
        }
        let text = std::str::from_utf8(line).map_err(|_| at(Wrong::word(&line.escape_ascii().to_string(), "UTF-8")))?;
        entries.push((index + 1, parse(text).map_err(at)?));
    }
    Ok(entries)
}

/// Splits a text into its first word and the rest.
pub(super) fn split_word(text: &str) -> (&str, &str) {
    let text = text.trim_ascii_start();
    let end = text.find(|char: char| char.is_ascii_whitespace()).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (word, rest.trim_ascii())
}

/// Parses `seaprox-ed25519 BASE64 [NAME]`.
pub(super) fn parse_key(text: &str) -> Result<(PublicKey, Option<&str>), Wrong> {
    let (kind, rest) = split_word(text);
    if kind != KEY_TYPE {
        let expected = format!("{KEY_TYPE} BASE64");
        return Err(if kind.is_empty() { Wrong::missing(expected) } else { Wrong::word(kind, expected) });
    }
    let (key, name) = split_word(rest);
    if key.is_empty() {
        return Err(Wrong::missing(format!("the key in base64 behind {KEY_TYPE}")));
    }
    let key = PublicKey::from_base64(key).map_err(|error| Wrong::word(key, error.expected()))?;
    match name {
        "" => Ok((key, None)),
        name if is_key_name(name) => Ok((key, Some(name))),
        name => Err(Wrong::word(name, KEY_NAME_FORM)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<(usize, String)>, String> {
        let parse = |line: &str| if line == "bad" { Err(Wrong::word("bad", "good")) } else { Ok(line.to_owned()) };
        entries(Path::new("f"), bytes, parse).map_err(|error| error.to_string())
    }

    #[test]
    fn comments_and_empty_lines_are_skipped_and_counted() {
        let text = b"# head\n\n one\t\r\n   # more\ntwo # three";
        assert_eq!(read(text), Ok(vec![(3, "one".to_owned()), (5, "two # three".to_owned())]));
        assert_eq!(read(b""), Ok(vec![]));
        assert_eq!(read(b"one\nbad\n"), Err("f:2: \"bad\": expected good".to_owned()));
        assert_eq!(read(b"\n\xff\n"), Err("f:2: \"\\\\xff\": expected UTF-8".to_owned()));
    }

    #[test]
    fn a_file_with_too_many_keys_is_refused() {
        assert_eq!(read("x\n".repeat(ENTRIES_MAX).as_bytes()).unwrap().len(), ENTRIES_MAX);
        assert_eq!(
            read("x\n".repeat(ENTRIES_MAX + 1).as_bytes()),
            Err("f:10001: expected at most 10000 keys in a file".to_owned())
        );
    }

    #[test]
    fn a_wrong_word_is_named() {
        let key = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
        let wrong = |text: &str| parse_key(text).unwrap_err();
        assert_eq!(wrong("").word, None);
        assert_eq!(wrong("ssh-ed25519 AAAA").word.as_deref(), Some("ssh-ed25519"));
        assert_eq!(wrong("seaprox-ed25519").word, None);
        assert_eq!(wrong("seaprox-ed25519 AAAA").word.as_deref(), Some("AAAA"));
        assert_eq!(wrong(&format!("seaprox-ed25519 {key} two names")).word.as_deref(), Some("two names"));
        assert_eq!(parse_key(&format!("seaprox-ed25519\t{key}  joe")).unwrap().1, Some("joe"));
    }
}
