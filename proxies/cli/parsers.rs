//! The parsers of option values, for flags, the environment and files. Each error is the form that was expected.

use std::time::Duration;

use seaprox::Target;
use seaprox::config::StatusSocket;
use seaprox::node::{Cipher, Group};
use seaprox::rules::{Action, Rule};
use seaprox::units::{format_size, parse_duration, parse_size};

use super::{Value, suggest};

/// Parses a switch.
pub fn flag(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" => Ok(true),
        "0" | "false" | "no" => Ok(false),
        _ => Err("expected 1, true, yes, 0, false or no".to_owned()),
    }
}

/// Parses a duration; zero means off.
pub fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

/// Parses a duration of a timer that cannot be switched off.
pub fn positive(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("expected a duration above 0, because a link needs this timer".to_owned()),
        duration => Ok(duration),
    }
}

/// Parses a size in bytes, within the limits of its option.
pub fn size(value: Value, text: &str) -> Result<u64, String> {
    let bytes = parse_size(text).map_err(|error| error.to_string())?;
    match value {
        Value::Size(least, most) if !(least..=most).contains(&bytes) => {
            Err(format!("expected a size from {} to {}", format_size(least), format_size(most)))
        }
        _ => Ok(bytes),
    }
}

/// Parses a number, within the limits of its option.
pub fn number(value: Value, text: &str) -> Result<u64, String> {
    let (least, most) = match value {
        Value::Number(least, most) => (least, most),
        _ => (0, u64::MAX),
    };
    let number = if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None };
    let number = number.filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("expected a number from {least} to {most}"))
}

/// Parses a word of a list. Returns its place.
pub fn word(words: &[&str], text: &str) -> Result<usize, String> {
    words.iter().position(|word| *word == text).ok_or_else(|| {
        let hint = suggest::hint(text, "", words.iter().copied());
        format!("expected {}{hint}", words.join(" or "))
    })
}

/// Parses a list of words with commas between them, each of which may stand there once. Returns their places.
pub fn words(words: &[&'static str], text: &str) -> Result<Vec<usize>, String> {
    let mut places = Vec::new();
    for part in text.split(',') {
        let place = word(words, part)?;
        if places.contains(&place) {
            return Err(format!("expected {part} once"));
        }
        places.push(place);
    }
    Ok(places)
}

/// Parses a list of ciphers.
pub fn ciphers(text: &str) -> Result<Vec<Cipher>, String> {
    Ok(words(&CIPHERS.map(Cipher::name), text)?.into_iter().map(|place| CIPHERS[place]).collect())
}

/// Parses a list of key exchanges.
pub fn groups(text: &str) -> Result<Vec<Group>, String> {
    let groups: Vec<Group> = words(&GROUPS, text)?.into_iter().map(|place| Group::ALL[place]).collect();
    match groups.iter().find(|group| !group.is_available()) {
        Some(group) => Err(format!("this processor lacks instructions for {}", group.name())),
        None => Ok(groups),
    }
}

/// Parses a list of processors and of ranges of them, such as `0,4-7`.
pub fn cpus(text: &str) -> Result<Vec<usize>, String> {
    let wrong = || format!("expected numbers from 0 to {CPU_MAX} and ranges of them, such as 0,4-7");
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.parse::<usize>().ok().filter(|cpu| *cpu <= CPU_MAX).ok_or_else(wrong);
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(wrong());
        }
        cpus.extend(first..=last);
        if cpus.len() > CPU_MAX + 1 {
            return Err("expected each processor once".to_owned());
        }
    }
    Ok(cpus)
}

/// Parses an access rule. Without an action, the text begins with it: `allow RULE` or `deny RULE`.
pub fn rule(action: Option<Action>, text: &str) -> Result<Rule, String> {
    let (action, text) = match (action, text.split_once(' ')) {
        (Some(action), _) => (action, text),
        (None, Some(("allow", rest))) => (Action::Allow, rest),
        (None, Some(("deny", rest))) => (Action::Deny, rest),
        (None, _) => return Err("expected allow or deny, and a rule behind it, such as deny 10.0.0.0/8".to_owned()),
    };
    Rule::parse(action, text).map_err(|error| error.to_string())
}

/// Parses the address of the status socket.
pub fn status(text: &str) -> Result<StatusSocket, String> {
    match (text, Target::parse(text)) {
        ("none", _) => Ok(StatusSocket::Off),
        (_, Ok(Target::Unix(path))) => Ok(StatusSocket::At(path)),
        _ => Err("expected unix:/path of at most 107 bytes, or none".to_owned()),
    }
}

/// The highest number of a processor: the last one of a set of the C library.
const CPU_MAX: usize = 1023;
/// The ciphers, in the order that suits a processor with AES instructions.
pub const CIPHERS: [Cipher; 3] = [Cipher::Aes128Gcm, Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305];
/// The names of the key exchanges, in the order of [`Group::ALL`].
pub const GROUPS: [&str; 2] = ["x25519mlkem768", "x25519"];
