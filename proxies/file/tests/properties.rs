//! Properties of all files: no text makes a reader panic, each error has a position, and a printed configuration loads to the
//! same.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use seaprox::units::format_size;

use super::{Scratch, WHOLE, environment, load, loaded, print};
use crate::cli::{OPTIONS, OptionSpec, Section, Value};
use crate::file::LogFormat;

/// A source of choices that one number decides.
struct Choices(u64);

impl Choices {
    fn next(&mut self, count: u64) -> u64 {
        // The constants are those of MMIX.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % count.max(1)
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.next(words.len() as u64) as usize]
    }

    /// Returns a value of an option as it stands in a file; none for options that this test does not know.
    fn value(&mut self, spec: &OptionSpec) -> Option<String> {
        let text = match (spec.long, spec.value) {
            // A subflow must be probed before it is dead, and the memory of all must have room for one of each.
            ("link-keepalive", _) => format!("{}s", 1 + self.next(4)),
            ("link-dead", _) => format!("{}s", 20 + self.next(9)),
            ("buffer", _) => format!("{}KiB", 4 + self.next(60)),
            ("buffer-memory", _) => format!("{}MiB", 100 + self.next(9)),
            ("threads", _) => return Some((1 + self.next(4)).to_string()),
            ("subflows", _) => return Some((1 + self.next(5)).to_string()),
            ("rule", _) => {
                self.pick(&["allow *", "deny from:10.0.0.0/8", "deny a.example:1-5", "allow unix:/x"]).to_owned()
            }
            ("source", _) => self.pick(&["none", "10.0.0.1", "%eth0", "[fd00::1]:5", ":7%eth0"]).to_owned(),
            ("cipher", _) => self.pick(&["aes-256-gcm", "chacha20-poly1305,aes-128-gcm"]).to_owned(),
            ("key-exchange", _) => "x25519".to_owned(),
            ("path", _) => self.pick(&["%eth0", "10.0.0.2", "->other:5", "fd00::2%eth1->[::1]:5"]).to_owned(),
            ("peer-key", _) => "SHA256:BuP9j9opu2CrWVV95h7bCuzbIxE0vjDnW0Vfjht5L6k".to_owned(),
            (_, Value::Rule) => self.pick(&["*", "from:10.0.0.0/8", "to:*.example.org:443", "::1"]).to_owned(),
            (_, Value::None) => return Some(self.pick(&["true", "false"]).to_owned()),
            (_, Value::Duration) => format!("{}{}", 1 + self.next(100), self.pick(&["ms", "s", "m", "h", "d"])),
            (_, Value::Size(least, most)) => format_size(least + self.next(most - least)),
            (_, Value::Number(least, most)) => return Some((least + self.next(most - least)).to_string()),
            (_, Value::Choice(words)) => self.pick(words).to_owned(),
            (_, Value::File | Value::Directory) => self.pick(&["/a b", "x\\\\\\\"y", "$${HOME}", "é"]).to_owned(),
            _ => return None,
        };
        Some(format!("\"{text}\""))
    }

    /// Returns keys of a section, each with a probability of a third.
    fn keys(&mut self, section: Section) -> String {
        let mut out = String::new();
        let mut has_peer_key = false;
        for spec in OPTIONS.iter().filter(|spec| spec.sections.has(section)) {
            let of_socks = ["udp-advertise", "bind-advertise", "udp-any-source", "udp-filter"].contains(&spec.long);
            let is_own =
                ["listen", "to", "via", "connect", "name", "balance", "udp", "tcp"].contains(&spec.long) || of_socks;
            // These contradict one another.
            let is_second = ["secret", "paths", "local-port", "simultaneous"].contains(&spec.long)
                || spec.long == "known-nodes" && has_peer_key;
            if is_own || is_second || self.next(3) > 0 {
                continue;
            }
            let count = if spec.repeat { self.next(3) } else { 1 };
            let values: Option<Vec<String>> = (0..count).map(|_| self.value(spec)).collect();
            let Some(values) = values else { continue };
            has_peer_key |= spec.long == "peer-key";
            out += &match &values[..] {
                [value] => format!("{} = {value}\n", spec.long),
                values => format!("{} = [{}]\n", spec.long, values.join(", ")),
            };
        }
        out
    }

    fn file(&mut self) -> String {
        let mut out = self.keys(Section::Process);
        out += &format!("[defaults]\n{}", self.keys(Section::Defaults));
        let links = self.next(3);
        for index in 0..self.next(4) + 1 {
            let front = self.pick(&[
                "front = \"socks\"",
                "front = \"socks\"\nudp-advertise = \"fd00::1\"\nbind-advertise = \"192.0.2.1\"\nudp-any-source = true\nudp-filter = \"open\"",
                "front = \"http\"",
                "front = \"static\"\nto = [\"a:1\", \"_x._tcp.b\"]",
            ]);
            let name = self.pick(&["", "name = \"a \\\"b\\\" ${TARGET}\"\n"]);
            let name = if index == 0 { name } else { "" };
            let via = if links > 0 && self.next(2) == 0 { "via = \"gw0:23232\"\n" } else { "" };
            let via = if front.contains("_tcp") { "" } else { via };
            out += &format!("[[listener]]\n{name}listen = \"127.0.0.1:{}\"\n{front}\n{via}", 1000 + index);
            out += &self.keys(Section::Listener);
        }
        for index in 0..links {
            out += &format!("[[link]]\nconnect = \"gw{index}\"\n{}", self.keys(Section::Link));
            let forwards = [
                "{ local = \"5432:db:5432\" }",
                "{ local = \"unix:/tmp/x:[::1]:5\", name = \"own{n}\" }",
                "{ remote = \":2222:unix:/run/x\" }",
                "{ dynamic = 1081 }",
                "{ http = \"[::1]:8081\" }",
                "{ local = \"udp:53:dns:53\" }",
                "{ remote = \"udp::53:[::1]:53\" }",
            ];
            let forwards: Vec<_> = forwards
                .iter()
                .filter(|_| self.next(2) == 0)
                .map(|text| text.replace("{n}", &index.to_string()))
                .collect();
            out += &format!("forward = [{}]\n", forwards.join(", "));
        }
        for index in 0..self.next(3) {
            out += &format!(
                "[[serve]]\nlisten = [\"[::1]:{index}0\", \"0.0.0.0:{index}1\"]\n{}",
                self.keys(Section::Serve)
            );
        }
        out
    }
}

#[test]
fn a_configuration_of_any_keys_prints_as_a_file_that_means_the_same() {
    let (loads, refusals) = (Cell::new(0), Cell::new(String::new()));
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() });
    let result = runner.run(&any::<u64>(), |seed| {
        let text = Choices(seed).file();
        match loaded(&text) {
            Ok(first) => {
                loads.set(loads.get() + 1);
                let printed = print(&first.config, LogFormat::Text);
                let again = loaded(&printed).unwrap_or_else(|error| panic!("{error}\n{printed}\n{text}"));
                prop_assert_eq!(&again.config, &first.config, "{}\n{}", printed, text);
                prop_assert_eq!(print(&again.config, LogFormat::Text), printed);
            }
            // Few values contradict one another.
            Err(error) => refusals.set(error),
        }
        Ok(())
    });
    result.unwrap();
    assert!(loads.get() > 120, "{} of 150 files load; the last error: {}", loads.get(), refusals.take());
}

/// Returns the file with some of its bytes and lines changed.
fn damaged(text: &str, seed: u64) -> Vec<u8> {
    let mut choices = Choices(seed);
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..=choices.next(4) {
        // Nothing is left of it.
        if bytes.is_empty() {
            break;
        }
        let at = choices.next(bytes.len() as u64) as usize;
        match choices.next(6) {
            0 => bytes[at] = choices.next(256) as u8,
            1 => drop(bytes.remove(at)),
            2 => bytes.insert(at, *b"\"[]{}=.,#$\n\\-0'a".get(choices.next(16) as usize).unwrap_or(&b' ')),
            3 => bytes.truncate(at.max(1)),
            4 => {
                // A line moves to another place.
                let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
                let line = lines.remove(choices.next(lines.len() as u64) as usize);
                lines.insert(choices.next(lines.len() as u64 + 1) as usize, line);
                bytes = lines.join(&b'\n');
            }
            _ => {
                let words: [&[u8]; 8] =
                    [b"[[link]]", b"[defaults]", b"= 5", b"${", b"[[[[", b"\"\"\"", b"1e9", b"\xff"];
                let word = words[choices.next(8) as usize];
                bytes.splice(at..at, word.iter().copied());
            }
        }
    }
    bytes
}

#[test]
fn no_file_makes_the_reader_panic_and_each_error_has_its_position() {
    let scratch = Scratch::new();
    let path = scratch.write("seaprox.toml", "", 0o600);
    let start = format!("{}:", path.display());
    let check = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        let Err(problems) = load(&path, &environment()) else { return };
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count() + 1;
        for line in problems.to_string().lines() {
            let mut parts = line.strip_prefix(&start).unwrap_or_else(|| panic!("{line}")).splitn(3, ':');
            let mut number = || parts.next().unwrap().parse::<usize>().unwrap_or_else(|_| panic!("{line}"));
            let (row, column) = (number(), number());
            assert!((1..=lines).contains(&row) && column >= 1, "{line}");
            assert!(parts.next().is_some_and(|text| text.len() > 3), "{line}");
        }
    };
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() });
    let result = runner.run(&any::<u64>(), |seed| {
        let text = if seed % 2 == 0 { WHOLE.to_owned() } else { Choices(seed).file() };
        check(&damaged(&text, seed));
        Ok(())
    });
    result.unwrap();
    let deep = "a = ".to_owned() + &"[".repeat(100_000);
    for text in [
        "",
        "\u{feff}",
        "=",
        "[[listener]]",
        "[listener]",
        "listener = 5",
        "listener = [5]",
        "[[link]]\nforward = [[]]",
        &deep,
    ] {
        check(text.as_bytes());
    }
}
