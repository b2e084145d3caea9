//! The parser of `SEAPROX_LOG`: the levels of the log targets.

use std::collections::BTreeMap;

use log::LevelFilter;

use crate::cli::suggest;

/// The log targets and their lines. A target includes the targets below it.
pub const TARGETS: &[(&str, &str)] = &[
    ("seaprox", "all lines of this program"),
    ("seaprox::connection", "connections: one line at the end of each, with its reason; at debug each step"),
    ("seaprox::listener", "listeners: clients that cannot be accepted, pauses at limits"),
    ("seaprox::discovery", "names of targets and servers: lookups that fail, and addresses that change"),
    ("seaprox::balance", "targets of listeners: those that fail and are left out, and their recovery"),
    ("seaprox::link", "links: up, suspended, resumed, ended, rejected keys; at debug each carrier"),
    (
        "seaprox::end",
        "ends of tunnels: commands and files that fail, exit codes, and what commands say on standard error",
    ),
    ("seaprox::link::frame", "frames of links, at trace: direction, type, stream, length; never the payload"),
    ("seaprox::http", "HTTP requests, at debug"),
    ("seaprox::access", "the users file"),
    ("seaprox::auth", "files of keys whose owner and mode the system does not show"),
    ("seaprox::process", "signals, reloads, answers on the terminal"),
    ("seaprox::settings", "limits that the system reduces"),
    ("seaprox::status", "the status socket, and the status that SIGUSR1 asks for"),
    ("seaprox::admin", "the admin server, and the commands that it was given"),
    ("seaprox::console", "the console, at debug: links that are closed already, a history that cannot be written"),
    ("seaprox::panic", "bugs of this program that ended a connection or a thread"),
];

/// The levels that a user asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Levels {
    /// Level of all targets of this program.
    pub all: Option<LevelFilter>,
    /// Levels of single targets.
    pub targets: BTreeMap<String, LevelFilter>,
}

/// Parses the value of `SEAPROX_LOG`: levels and `TARGET=LEVEL`, separated by commas.
///
/// # Errors
/// Fails if the text is malformed. The error names the expected form.
pub fn parse(text: &str) -> Result<Levels, String> {
    let mut levels = Levels::default();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            Some((target, level)) => {
                levels.targets.insert(target_of(target.trim())?, level_of(level.trim())?);
            }
            // A target without a level is logged at all levels.
            None if part.contains("::") || TARGETS.iter().any(|(target, _)| *target == part) => {
                levels.targets.insert(target_of(part)?, LevelFilter::Trace);
            }
            None => levels.all = Some(level_of(part)?),
        }
    }
    Ok(levels)
}

fn level_of(word: &str) -> Result<LevelFilter, String> {
    let lower = word.to_ascii_lowercase();
    LEVELS.iter().find(|(name, _)| *name == lower).map(|(_, level)| *level).ok_or_else(|| {
        let near = suggest::hint(word, "", LEVELS.iter().map(|(name, _)| *name));
        format!("level \"{word}\": expected off, error, warn, info, debug or trace, or TARGET=LEVEL{near}")
    })
}

fn target_of(word: &str) -> Result<String, String> {
    // The targets of other libraries are not known here, so any is accepted unless it looks like a mistyped `seaprox`.
    let name = word.split(':').next().unwrap_or_default();
    let is_ours = name == "seaprox" || !suggest::nearest(name, ["seaprox"]).is_empty();
    if TARGETS.iter().any(|(target, _)| *target == word) || (!is_ours && !word.is_empty()) {
        return Ok(word.to_owned());
    }
    let near = suggest::hint(word, "", TARGETS.iter().map(|(target, _)| *target));
    let known: Vec<_> = TARGETS.iter().map(|(target, _)| *target).collect();
    Err(format!("log target \"{word}\": expected one of {}{near}", known.join(", ")))
}

const LEVELS: &[(&str, LevelFilter)] = &[
    ("off", LevelFilter::Off),
    ("error", LevelFilter::Error),
    ("warn", LevelFilter::Warn),
    ("info", LevelFilter::Info),
    ("debug", LevelFilter::Debug),
    ("trace", LevelFilter::Trace),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    #[test]
    fn levels_and_targets_are_parsed() {
        for library in ["mio", "rustls::client", "signal_hook", "socket2", "env_logger", "ring"] {
            assert!(parse(&format!("{library}=trace")).is_ok(), "{library}");
        }
        let levels = parse("debug, seaprox::link=trace,mio=WARN,seaprox::http,").unwrap();
        let targets = [("mio", LevelFilter::Warn), ("seaprox::http", LevelFilter::Trace)];
        let mut targets: BTreeMap<_, _> = targets.into_iter().map(|(name, level)| (name.to_owned(), level)).collect();
        targets.insert("seaprox::link".to_owned(), LevelFilter::Trace);
        assert_eq!(levels, Levels { all: Some(LevelFilter::Debug), targets });
        assert_eq!(parse(""), Ok(Levels::default()));
    }

    #[test]
    fn errors_name_the_word_and_what_was_expected() {
        for (text, words) in [
            ("loud", &["level \"loud\"", "expected off, error"][..]),
            ("debgu", &["did you mean debug?"]),
            ("seaprox::relay=trace", &["log target \"seaprox::relay\"", "seaprox::connection"]),
            ("seaprox::lnik=trace", &["did you mean seaprox::link?"]),
            ("seaprox::link=loud", &["level \"loud\""]),
            ("saeprox::link=trace", &["log target \"saeprox::link\"", "did you mean seaprox::link?"]),
            ("saeprox::node=trace", &["log target \"saeprox::node\""]),
            ("Seaprox=trace", &["log target \"Seaprox\""]),
            ("=debug", &["log target \"\""]),
        ] {
            let error = parse(text).unwrap_err();
            assert!(words.iter().all(|word| error.contains(word)) && !error.contains('\n'), "{error}");
        }
    }

    /// The list has the target of each log line of the sources, or a target above it.
    #[test]
    fn every_target_of_the_sources_is_listed() {
        let proxies = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut found = Vec::new();
        collect(&proxies.join("../src"), &mut found);
        collect(proxies, &mut found);
        assert!(found.len() > 4, "{found:?}");
        for target in found {
            let is_listed =
                TARGETS[1..].iter().any(|(known, _)| target == *known || target.starts_with(&format!("{known}::")));
            assert!(is_listed || target == "seaprox", "{target}");
        }
    }

    fn collect(directory: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                collect(&path, found);
                continue;
            }
            let source = fs::read_to_string(&path).unwrap();
            for start in ["target: \"", "TARGET: &str = \""] {
                found.extend(source.split(start).skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()));
            }
            // A line without a target has the path of its module as target.
            let in_binary = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).ok();
            let is_untold = |rest: &&str| !rest.trim_start().starts_with("target:") && !rest.starts_with("/");
            let logs = ["error", "warn", "info", "debug", "trace"].map(|level| format!("log::{level}!("));
            if let Some(name) = in_binary
                && logs.iter().any(|log| source.split(log.as_str()).skip(1).any(|rest| is_untold(&rest)))
            {
                let module = name.with_extension("").to_string_lossy().replace('/', "::").replace("::mod", "");
                found.push(format!("seaprox::{module}"));
            }
        }
    }
}
