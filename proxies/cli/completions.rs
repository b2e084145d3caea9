//! Completion scripts for bash, zsh and fish, made from the tables of commands and options.
//!
//! Each script completes the commands, the options of the command on the line, the words that an option takes, and the
//! names of files.

use std::fmt::Write as _;

use super::{Command, OptionSpec, Shell, Value, options_of};

/// Returns the script for a shell.
pub fn script(shell: Shell) -> String {
    match shell {
        Shell::Bash => bash(),
        Shell::Zsh => zsh(),
        Shell::Fish => fish(),
    }
}

fn bash() -> String {
    let mut options = String::new();
    let mut values = String::new();
    for command in Command::ALL {
        let words: Vec<_> = options_of(command).flat_map(spellings).collect();
        let _ = writeln!(options, "        {}) words='{}' ;;", command.name(), words.join(" "));
    }
    let _ = writeln!(options, "        *) words='{} -h --help -V --version' ;;", commands().join(" "));
    let mut seen = Vec::new();
    for option in Command::ALL.into_iter().flat_map(options_of) {
        if option.value == Value::None || seen.contains(&option.long) {
            continue;
        }
        seen.push(option.long);
        let reply = match option.value {
            Value::Choice(words) => format!("mapfile -t COMPREPLY < <(compgen -W '{}' -- \"$cur\")", words.join(" ")),
            Value::File => "mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")".to_owned(),
            Value::Directory => "mapfile -t COMPREPLY < <(compgen -d -- \"$cur\")".to_owned(),
            _ => "COMPREPLY=()".to_owned(),
        };
        let _ = writeln!(values, "        {}) {reply}; return ;;", spellings(option).join("|"));
    }
    format!(
        r#"# bash completion for seaprox
_seaprox() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} command= words=
    ((COMP_CWORD > 1)) && command=${{COMP_WORDS[1]}}
    case $prev in
{values}    esac
    case $command in
{options}    esac
    [[ $command == completions && $cur != -* ]] && words='{shells}'
    if [[ $command == @(pubkey|run|check) && $cur != -* ]]; then
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        return
    fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}}
complete -F _seaprox seaprox
"#,
        shells = SHELLS.join(" ")
    )
}

fn zsh() -> String {
    let mut out =
        "#compdef seaprox\n# zsh completion for seaprox\n_seaprox() {\n    local -a commands\n    commands=(\n"
            .to_owned();
    for command in Command::ALL {
        let _ = writeln!(out, "        '{}:{}'", command.name(), zsh_quoted(command.spec().summary));
    }
    out.push_str(
        "    )\n    if (( CURRENT == 2 )); then\n        _describe command commands\n        return\n    fi\n",
    );
    out.push_str("    local command=$words[2]\n    shift words\n    (( CURRENT-- ))\n    case $command in\n");
    for command in Command::ALL {
        let _ = writeln!(out, "        {})\n            _arguments -s \\", command.name());
        for option in options_of(command) {
            let help = zsh_quoted(option.brief());
            let (value, star) = (zsh_value(option), if option.repeat { "*" } else { "" });
            for spelling in spellings(option) {
                let _ = writeln!(out, "                '{star}{spelling}[{help}]{value}' \\");
            }
        }
        let frees = match command {
            Command::Completions => format!("1:shell:({})", SHELLS.join(" ")),
            Command::Cat => "*:host or port:_hosts".to_owned(),
            Command::Pubkey | Command::Run | Command::Check => "1:file:_files".to_owned(),
            Command::Send => "*:file:_files".to_owned(),
            _ => "*:argument: ".to_owned(),
        };
        let _ = writeln!(out, "                '{frees}'\n            ;;");
    }
    out.push_str("    esac\n}\nif [[ $funcstack[1] == _seaprox ]]; then\n    _seaprox \"$@\"\nelse\n    compdef _seaprox seaprox\nfi\n");
    out
}

fn fish() -> String {
    let mut out = "# fish completion for seaprox\ncomplete -c seaprox -f\n".to_owned();
    for command in Command::ALL {
        let (name, summary) = (command.name(), fish_quoted(command.spec().summary));
        let _ = writeln!(out, "complete -c seaprox -n __fish_use_subcommand -a {name} -d '{summary}'");
    }
    for command in Command::ALL {
        for option in options_of(command) {
            let short = option.short.map(|short| format!(" -s {short}")).unwrap_or_default();
            let value = match option.value {
                Value::None => String::new(),
                Value::Choice(words) => format!(" -x -a '{}'", words.join(" ")),
                Value::File | Value::Directory => " -r -F".to_owned(),
                _ => " -x".to_owned(),
            };
            let (name, long, help) = (command.name(), option.long, fish_quoted(option.brief()));
            let seen = format!("-n '__fish_seen_subcommand_from {name}'");
            let _ = writeln!(out, "complete -c seaprox {seen}{short} -l {long}{value} -d '{help}'");
        }
    }
    let shells = SHELLS.join(" ");
    let _ = writeln!(out, "complete -c seaprox -n '__fish_seen_subcommand_from completions' -a '{shells}'");
    out.push_str("complete -c seaprox -n '__fish_seen_subcommand_from pubkey run check send receive' -F\n");
    out
}

fn commands() -> Vec<&'static str> {
    Command::ALL.into_iter().map(Command::name).collect()
}

/// Returns the names of an option with their dashes, such as `-l` and `--listen`.
fn spellings(option: &OptionSpec) -> Vec<String> {
    let short = option.short.map(|short| format!("-{short}"));
    short.into_iter().chain([format!("--{}", option.long)]).collect()
}

fn zsh_value(option: &OptionSpec) -> String {
    let Some(placeholder) = option.placeholder() else {
        return String::new();
    };
    match option.value {
        Value::Choice(words) => format!(":{}:({})", option.long, words.join(" ")),
        Value::File => ":file:_files".to_owned(),
        Value::Directory => ":directory:_files -/".to_owned(),
        _ => format!(":{}: ", placeholder.replace(':', "\\:")),
    }
}

/// Escapes text for single quotes and for the brackets of `_arguments`.
fn zsh_quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "'\\''").replace('[', "\\[").replace(']', "\\]").replace(':', "\\:")
}

/// Escapes text for single quotes.
fn fish_quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "\\'")
}

const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command as Process;

    #[test]
    fn every_script_has_every_command_and_option() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell);
            for command in Command::ALL {
                assert!(script.contains(command.name()), "{shell:?} {}", command.name());
                for option in options_of(command) {
                    assert!(script.contains(option.long), "{shell:?} {}", option.long);
                }
            }
            assert!(script.ends_with('\n'));
        }
    }

    /// Returns the completions that bash offers for the last word.
    fn offered(words: &[&str]) -> Vec<String> {
        let line = format!(
            "{}\nCOMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); _seaprox; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            bash()
        );
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
        let mut bash = Process::new("bash");
        let output = bash.current_dir(root).args(["--norc", "-c", &line, "bash"]).args(words).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn bash_completes_commands_options_words_and_files() {
        assert_eq!(offered(&["seaprox", "so"]), ["socks"]);
        assert_eq!(offered(&["seaprox", "socks", "--lis"]), ["--listen"]);
        assert_eq!(offered(&["seaprox", "socks", "--log-format", "j"]), ["json"]);
        assert_eq!(offered(&["seaprox", "link", "--mode", "r"]), ["redundant"]);
        assert_eq!(offered(&["seaprox", "link", "--kn"]), ["--known-nodes"]);
        assert_eq!(offered(&["seaprox", "link", "--known-nodes", "Cargo.tom"]), ["Cargo.toml"]);
        assert_eq!(offered(&["seaprox", "static", "--us"]), Vec::<String>::new());
        assert_eq!(offered(&["seaprox", "completions", ""]), SHELLS);
        assert_eq!(offered(&["seaprox", "socks", "--users", "Cargo.tom"]), ["Cargo.toml"]);
        assert_eq!(offered(&["seaprox", "keygen", "--config-dir", "prox"]), ["proxies"]);
        for command in ["pubkey", "run", "check"] {
            assert_eq!(offered(&["seaprox", command, "Cargo.tom"]), ["Cargo.toml"]);
        }
    }
}
