//! Help, the version and the manual page, made from the tables of commands and options.
//!
//! All functions are pure. They return text that ends with a newline; the caller prints it.

use std::fmt::Write as _;

use super::{Command, Group, OPTIONS, OptionSpec, Value, options_of};

/// Returns the help on a command, or on all commands. `long` selects `--help`, otherwise it is `-h`.
pub fn text(command: Option<Command>, long: bool) -> String {
    match (command, long) {
        (None, false) => general(),
        (None, true) => general() + &tail(None),
        (Some(command), false) => short(command),
        (Some(command), true) => detailed(command) + &tail(Some(command)),
    }
}

/// Returns the output of `-V`.
pub fn version() -> String {
    format!("seaprox {}\n", env!("CARGO_PKG_VERSION"))
}

/// Returns the manual page, in roff with the macros of man(7).
pub fn man() -> String {
    let mut out = format!(".TH SEAPROX 1 \"\" \"seaprox {}\"\n", env!("CARGO_PKG_VERSION"));
    out.push_str(".SH NAME\nseaprox \\- a proxy between sockets\n.SH SYNOPSIS\n");
    for (index, line) in Command::ALL.into_iter().flat_map(usages).enumerate() {
        let _ = writeln!(out, "{}{}", if index == 0 { "" } else { ".br\n" }, roff(&line));
    }
    out.push_str(".SH COMMANDS\n");
    for command in Command::ALL {
        let _ = writeln!(out, ".TP\n.B {}\n{}.", roff(command.name()), roff(&capital(command.spec().summary)));
    }
    out.push_str(".SH OPTIONS\n");
    for group in Group::ALL {
        let _ = writeln!(out, ".SS {}", roff(group.title()));
        for option in OPTIONS.iter().filter(|option| option.group == group) {
            let commands: Vec<_> = option.commands().map(Command::name).collect();
            let known = match commands.len() == Command::ALL.len() {
                true => "For every command.".to_owned(),
                false => format!("For {}.", commands.join(", ")),
            };
            let notes = sentences(option, None);
            let _ = writeln!(out, ".TP\n.B {}\n{}\n{}", roff(&names(option)), roff(&notes), roff(&known));
        }
    }
    for (title, lines) in [("EXIT STATUS", EXIT_CODES), ("SIGNALS", SIGNALS), ("ENVIRONMENT", ENVIRONMENT)] {
        let _ = writeln!(out, ".SH {title}");
        for (name, meaning) in lines {
            let _ = writeln!(out, ".TP\n.B {}\n{}.", roff(name), roff(&capital(meaning)));
        }
        if title == "SIGNALS" {
            let _ = writeln!(out, ".PP\n{}.", roff(&capital(&uncaught())));
        }
    }
    out.push_str(".SH EXAMPLES\n");
    for (line, meaning) in Command::ALL.into_iter().flat_map(|command| command.spec().examples) {
        let _ = writeln!(out, ".TP\n.B seaprox {}\n{}.", roff(line), roff(&capital(meaning)));
    }
    out.push_str(".SH SEE ALSO\n");
    for (page, content) in PAGES {
        let _ = writeln!(out, ".TP\n.B docs/{page}\n{}.", roff(&capital(content)));
    }
    out
}

/// The pages of the manual, which are installed beside the README.
const PAGES: &[(&str, &str)] = &[
    ("configuration.md", "files for seaprox run, with every key"),
    ("links.md", "links between two nodes, keys, and what a key permits"),
    ("datagrams.md", "UDP: fixed targets, SOCKS5, links, headers of the PROXY protocol"),
    ("redirect.md", "the rules with which nftables redirects connections and datagrams to seaprox redirect"),
    ("admin.md", "the status, the commands and the metrics of a running process"),
    ("deploying.md", "systemd, packages and containers"),
];

/// Returns the names of an option with its placeholder, such as `-l, --listen ADDR`.
fn names(option: &OptionSpec) -> String {
    let short = option.short.map(|short| format!("-{short}, ")).unwrap_or_default();
    let value = option.placeholder().map(|value| format!(" {value}")).unwrap_or_default();
    format!("{short}--{}{value}", option.long)
}

fn general() -> String {
    let mut out = "Usage: seaprox COMMAND [OPTION]... [ARGUMENT]...\n\nCommands:\n".to_owned();
    for command in Command::ALL {
        entry(&mut out, command.name(), command.spec().summary, 15);
    }
    out.push_str(
        "\nseaprox COMMAND -h lists the options of a command, --help explains them.\nseaprox -V prints the version.\n",
    );
    out
}

/// Returns the short help: one line for each option, with the first clause of its help.
fn short(command: Command) -> String {
    let mut out = head(command);
    out.push_str("\nOptions:\n");
    for option in options_of(command) {
        let default = default_note(option, command).map(|note| format!(" ({note})")).unwrap_or_default();
        entry(&mut out, &indented(option), &format!("{}{default}", option.brief()), 34);
    }
    let _ = writeln!(out, "\nseaprox {} --help says more, with examples.", command.name());
    out
}

fn detailed(command: Command) -> String {
    let mut out = head(command);
    for group in Group::ALL {
        let mut options = options_of(command).filter(|option| option.group == group).peekable();
        if options.peek().is_some() {
            let _ = writeln!(out, "\n{}:", group.title());
        }
        for option in options {
            let _ = writeln!(out, "  {}", indented(option));
            wrap(&mut out, &sentences(option, Some(command)), 10);
        }
    }
    out.push_str("\nExamples:\n");
    for (line, meaning) in command.spec().examples {
        let _ = writeln!(out, "  seaprox {line}");
        wrap(&mut out, meaning, 10);
    }
    out
}

fn head(command: Command) -> String {
    let mut out = String::new();
    for (index, line) in usages(command).into_iter().enumerate() {
        let _ = writeln!(out, "{} {line}", if index == 0 { "Usage:" } else { "      " });
    }
    let _ = writeln!(out, "\n{}.", capital(command.spec().summary));
    out
}

/// Returns the sections behind the options. Only servers catch signals, so only their help has a section on signals.
fn tail(command: Option<Command>) -> String {
    let mut out = String::new();
    let signals = if command.is_none_or(Command::is_server) { SIGNALS } else { &[] };
    for (title, lines) in [("Exit codes", EXIT_CODES), ("Signals", signals), ("Environment", ENVIRONMENT)] {
        if lines.is_empty() {
            continue;
        }
        let _ = writeln!(out, "\n{title}:");
        for (name, meaning) in lines {
            entry(&mut out, name, meaning, 16);
        }
        if title == "Signals" && matches!(command, None | Some(Command::Link)) {
            wrap(&mut out, &format!("{}.", capital(&uncaught())), 2);
        }
    }
    out
}

/// Returns the note about the commands that catch no signal.
fn uncaught() -> String {
    let servers: Vec<_> = Command::ALL.into_iter().filter(|command| command.is_server()).map(Command::name).collect();
    format!(
        "link with -W, and all commands but {}, catch none of these signals: each signal then has the default action of \
         the system and ends the process at once",
        servers.join(", ")
    )
}

fn usages(command: Command) -> Vec<String> {
    let spec = command.spec();
    spec.synopsis.iter().map(|line| format!("seaprox {} {line}", spec.name).trim_end().to_owned()).collect()
}

/// Returns the long help of an option, for one command or for all: its help, whether it repeats, its default and its
/// environment variable.
fn sentences(option: &OptionSpec, command: Option<Command>) -> String {
    let mut out = format!("{}.", capital(&filled(option.help)));
    if option.repeat {
        out.push_str(" May be repeated.");
    }
    let variable = option.commands().filter(|known| command.is_none_or(|command| command == *known));
    let variable = variable.filter_map(|command| option.env_name(command)).next();
    let default = match command {
        Some(command) => default_note(option, command),
        None => default_notes(option),
    };
    let notes: Vec<_> = [default, variable.map(|name| format!("env: {name}"))].into_iter().flatten().collect();
    if !notes.is_empty() {
        let _ = write!(out, " [{}]", notes.join(", "));
    }
    out
}

/// Returns a help text with the values that it names.
pub fn filled(help: &str) -> String {
    let timing = seaprox::node::Timing::default();
    let named = [
        ("{redial-first}", timing.redial.0),
        ("{redial-awaited}", timing.redial_awaited),
        ("{redial-beside}", timing.redial_beside),
    ];
    named
        .iter()
        .fold(help.to_owned(), |help, (name, delay)| help.replace(name, &seaprox::units::format_duration(*delay)))
}

fn default_note(option: &OptionSpec, command: Command) -> Option<String> {
    option.default_for(command).map(|default| format!("default: {default}"))
}

/// Returns the default for all commands, or the default of each command if they differ.
fn default_notes(option: &OptionSpec) -> Option<String> {
    if option.value != Value::Listen && option.other_field.is_none() {
        return option.field.default_text(option.value).map(|default| format!("default: {default}"));
    }
    let each = |command: Command| Some(format!("{} for {}", option.default_for(command)?, command.name()));
    let all: Vec<_> = option.commands().filter_map(each).collect();
    Some(format!("default: {}", all.join(", ")))
}

/// Returns the names of an option, indented so that the long names of all options are in one column.
fn indented(option: &OptionSpec) -> String {
    let lead = if option.short.is_some() { "" } else { "    " };
    format!("{lead}{}", names(option))
}

/// Appends a name, and its meaning from a column on. A long name gets a line of its own.
fn entry(out: &mut String, name: &str, meaning: &str, column: usize) {
    let mut body = String::new();
    wrap(&mut body, meaning, column);
    if name.chars().count() + 4 <= column {
        let _ = write!(out, "  {name:<width$}{}", &body[column..], width = column - 2);
    } else {
        let _ = write!(out, "  {name}\n{body}");
    }
}

/// Appends text, broken between words into indented lines.
fn wrap(out: &mut String, text: &str, indent: usize) {
    let mut used = 0;
    for word in text.split_whitespace() {
        let width = word.chars().count();
        if used > 0 && indent + used + 1 + width > COLUMNS {
            out.push('\n');
            used = 0;
        }
        let _ = if used == 0 { write!(out, "{:indent$}{word}", "") } else { write!(out, " {word}") };
        used += width + usize::from(used > 0);
    }
    out.push('\n');
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// Escapes text for roff: dashes that can be copied from the page, no control lines, no escapes.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
    if text.starts_with('.') { format!("\\&{text}") } else { text }
}

const COLUMNS: usize = 80;

const EXIT_CODES: &[(&str, &str)] = &[
    ("0", "done, or stopped by a signal that the command catches"),
    ("1", "failure while running"),
    ("2", "wrong arguments"),
    ("69", "a peer cannot be reached, or an address cannot be bound"),
    ("75", "the link is lost, with --exit-on-failure or for a single connection"),
    ("77", "a key is rejected, unknown or does not match, or the far end does not permit the connection"),
    ("78", "a configuration file is wrong"),
];
const SIGNALS: &[(&str, &str)] = &[
    (
        "TERM, QUIT",
        "stop accepting, wait for connections to end for --drain-timeout, then stop; a second signal stops at once",
    ),
    ("INT", "stop at once"),
    ("USR1", "write the status to the log, whatever its level"),
    (
        "HUP",
        "read the file of seaprox run again and change what differs, and read the files of keys, users and paths again, \
         which are also read again when they change",
    ),
];
const ENVIRONMENT: &[(&str, &str)] = &[
    (
        "SEAPROX_*",
        "the value of an option that the command line does not set; several values are separated by spaces, a flag is 1, \
         true, yes, 0, false or no",
    ),
    ("SEAPROX_LOG", "the level of the log, or levels of single log targets, such as seaprox::link=trace"),
    ("NO_COLOR", "write the log without colours"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontends::FrontEndKind;

    #[test]
    fn the_help_of_a_command_has_its_options_and_examples() {
        for command in Command::ALL {
            let (short, long) = (text(Some(command), false), text(Some(command), true));
            for option in OPTIONS {
                let name = format!("--{}", option.long);
                let stands = |text: &str| text.split([' ', '\n']).any(|word| word == name);
                if option.belongs_to(command) {
                    assert!(stands(&short) && stands(&long), "{} {name}", command.name());
                }
            }
            for (line, _) in command.spec().examples {
                assert!(long.contains(&format!("  seaprox {line}\n")));
            }
        }
        let http = text(Some(Command::FrontEnd(FrontEndKind::find("http").unwrap())), true)
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        assert!(http.contains("[default: 1m, env: SEAPROX_KEEPALIVE_TIMEOUT]"), "{http}");
        assert!(
            !text(Some(Command::FrontEnd(FrontEndKind::find("socks").unwrap())), true).contains("keepalive-timeout")
        );
    }

    #[test]
    fn only_the_help_of_servers_explains_signals() {
        let section = |command| text(command, true).split("\nSignals:\n").nth(1).map(str::to_owned);
        for command in Command::ALL {
            let catches = command.is_server();
            assert_eq!(section(Some(command)).is_some(), catches, "{}", command.name());
        }
        for (command, has_note) in [
            (None, true),
            (Some(Command::Link), true),
            (Some(Command::FrontEnd(FrontEndKind::find("http").unwrap())), false),
        ] {
            assert_eq!(section(command).is_some_and(|text| text.contains("Link with -W")), has_note);
        }
        assert!(man().contains(".PP\nLink with \\-W"));
    }

    #[test]
    fn the_general_help_names_every_command() {
        for command in Command::ALL {
            assert!(text(None, false).contains(command.spec().summary));
        }
        assert!(text(None, true).contains("Exit codes:"));
        assert_eq!(version(), format!("seaprox {}\n", env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn help_lines_have_at_most_80_columns() {
        for command in Command::ALL {
            let examples: Vec<_> =
                command.spec().examples.iter().map(|(line, _)| format!("  seaprox {line}")).collect();
            for line in text(Some(command), true).lines().chain(text(Some(command), false).lines()) {
                assert!(line.len() <= COLUMNS || examples.iter().any(|example| example == line), "{line}");
                assert_eq!(line.trim_end(), line);
            }
        }
    }

    #[test]
    fn the_manual_page_has_every_option_and_known_macros_only() {
        let page = man();
        assert!(page.starts_with(".TH SEAPROX 1 "));
        for option in OPTIONS {
            assert!(page.contains(&roff(&names(option))), "{}", option.long);
        }
        for line in page.lines().filter(|line| line.starts_with(['.', '\''])) {
            let request = line.split(' ').next().unwrap_or_default();
            assert!([".TH", ".SH", ".SS", ".TP", ".PP", ".B", ".br"].contains(&request), "{line}");
        }
        assert_eq!(roff(".a\\b-c'd"), "\\&.a\\eb\\-c\\(aqd");
    }

    #[test]
    fn text_is_broken_between_words() {
        let mut out = String::new();
        wrap(&mut out, &"word ".repeat(20), 70);
        assert!(out.lines().all(|line| line == format!("{:70}word word", "")), "{out}");
    }

    /// Returns a cell of a table without the commas and spaces by which people group numbers: `65536`, `32KiB`.
    fn plain(cell: &str) -> String {
        let chars: Vec<char> = cell.chars().collect();
        let is_digit = |at: Option<usize>| at.and_then(|at| chars.get(at)).is_some_and(char::is_ascii_digit);
        let groups = |at: usize| match chars[at] {
            ',' => is_digit(at.checked_sub(1)) && is_digit(Some(at + 1)),
            ' ' => is_digit(at.checked_sub(1)) && chars.get(at + 1).is_some_and(|char| "KMGTsmhd".contains(*char)),
            _ => false,
        };
        (0..chars.len()).filter(|at| !groups(*at)).map(|at| chars[at]).collect()
    }

    #[test]
    fn the_tables_of_the_manuals_and_the_prose_have_the_defaults_of_the_configuration() {
        let mut rows = 0;
        for line in
            [include_str!("../../README.md"), include_str!("../../docs/links.md")].iter().flat_map(|it| it.lines())
        {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let Some(option) = OPTIONS.iter().find(|it| cells.get(1) == Some(&format!("`--{}`", it.long).as_str()))
            else {
                continue;
            };
            let Some(default) = option.field.default_text(option.value) else { continue };
            let cell = plain(cells[2]);
            let has = |word: &str| cell.split([' ', ';', ',']).any(|part| part == word);
            let other = option.other_field.and_then(|(_, field)| field.default_text(option.value));
            let is_there = has(&default) || (default == "0" && has("off")) || other.is_some_and(|other| has(&other));
            assert!(is_there, "--{}: the default is {default}, not {:?}", option.long, cells[2]);
            rows += 1;
        }
        assert!(rows > 30, "{rows} rows were found");
        let timing = seaprox::node::Timing::default();
        let help = |long: &str| OPTIONS.iter().find(|option| option.long == long).unwrap().help;
        for delay in [timing.redial.0, timing.redial_awaited, timing.redial_beside] {
            assert!(filled(help("link-retry-max")).contains(&seaprox::units::format_duration(delay)), "{delay:?}");
        }
        assert!(OPTIONS.iter().all(|option| !filled(option.help).contains('{')), "each value has a name that is known");
        for long in ["listen", "via", "connect"] {
            assert!(help(long).contains(&crate::links::addresses::PORT.to_string()), "{long}");
        }
    }
}
