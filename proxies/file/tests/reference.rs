//! The reference in docs/configuration.md, which is made from the table of options.

use std::fmt::Write as _;

use crate::cli::{Command, OPTIONS, OptionSpec, Section, Value, help};

const PAGE: &str = include_str!("../../../docs/configuration.md");
const START: &str = "<!-- The tables below are made from the table of options: a test prints them. -->\n";

/// Returns the reference: one table for each section.
fn reference() -> String {
    let mut out = String::new();
    for section in Section::ALL {
        let _ = writeln!(out, "\n### Keys {}", section.place());
        out.push_str("| key | value | default | variable | meaning |\n| --- | --- | --- | --- | --- |\n");
        for spec in OPTIONS.iter().filter(|spec| spec.sections.has(section)) {
            let field = spec.field_in(section);
            let default =
                field.default_text(spec.value).map_or_else(String::new, |text| format!("`{}`", as_value(spec, &text)));
            // A variable replaces the value of the process; a key of a record stands in front of it.
            let is_of_process = matches!(section, Section::Process | Section::Defaults);
            let variable = spec.env_name(Command::Run).filter(|_| is_of_process);
            let variable = variable.map_or_else(String::new, |name| format!("`{name}`"));
            let meaning = without_dashes(&help::filled(spec.help)).replace('|', "\\|");
            let _ = writeln!(out, "| `{}` | {} | {default} | {variable} | {meaning} |", spec.long, value(spec));
        }
    }
    out
}

/// Returns the form of a value.
fn value(spec: &OptionSpec) -> String {
    let one = match spec.value {
        Value::None => "`true`, `false`".to_owned(),
        Value::Choice(words) => words.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", "),
        Value::Duration => "duration".to_owned(),
        Value::Size(..) => "size".to_owned(),
        Value::Number(least, most) => format!("{least} to {most}"),
        Value::File => "file".to_owned(),
        Value::Directory => "directory".to_owned(),
        Value::Listen | Value::Target | Value::Peer => "address".to_owned(),
        Value::Rule => "rule".to_owned(),
        _ => format!("`{}`", spec.placeholder().unwrap_or_default()).replace('|', "\\|"),
    };
    if spec.repeat { format!("{one}; one or an array") } else { one }
}

fn as_value(spec: &OptionSpec, text: &str) -> String {
    match spec.value {
        Value::None | Value::Number(..) => text.to_owned(),
        _ => format!("\"{text}\""),
    }
}

/// Returns a help text with the names of options as keys.
fn without_dashes(help: &str) -> String {
    let word = |word: &str| match word.strip_prefix("--").or(word.strip_prefix("(--").map(|_| &word[3..])) {
        Some(name) => {
            let end = name.find(|char: char| !char.is_ascii_alphanumeric() && char != '-').unwrap_or(name.len());
            let open = if word.starts_with('(') { "(" } else { "" };
            format!("{open}`{}`{}", &name[..end], &name[end..])
        }
        None => word.to_owned(),
    };
    help.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_manual_of_files_has_every_key() {
    let (before, found) = PAGE.split_once(START).expect("the page has a reference");
    let expected = reference();
    if found != expected && std::env::var_os("WRITE_REFERENCE").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
        std::fs::write(path, format!("{before}{START}{expected}")).unwrap();
    }
    assert!(
        found == expected,
        "run this test with WRITE_REFERENCE=1 to mend the page; the end of docs/configuration.md, from the comment on, should be:\n{expected}"
    );
}

/// Each block of TOML in the manual of files and in that of redirection that begins with a table or a key is a part of a valid file.
#[test]
fn every_file_of_the_manual_is_valid() {
    let mut count = 0;
    let other = include_str!("../../../docs/redirect.md");
    for block in [PAGE, other].into_iter().flat_map(|page| page.split("```toml\n").skip(1)) {
        let text = block.split("```").next().unwrap();
        if let Err(error) = super::loaded(text) {
            panic!("{error}\n{text}");
        }
        count += 1;
    }
    assert!(count >= 4, "{count}");
}
