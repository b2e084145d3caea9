//! The examples of docs/console.md (TN-01): each is Lua, and what they say about links, tunnels, events and counts is
//! true.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use crate::console::{out, secret};
use crate::kit::link::generate_key;
use crate::kit::names::isolated;
use crate::kit::program::Program;
use crate::kit::seaprox::{BINARY, command, run_command};
use crate::kit::servers::{Server, letters};
use crate::kit::{Scratch, Seaprox, has_namespaces, run};

const MANUAL: &str = include_str!("../../docs/console.md");

/// Returns the blocks of a language.
fn blocks(language: &str) -> Vec<&'static str> {
    let head = format!("```{language}\n");
    MANUAL.split(&head).skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// Returns the block that has a word.
fn block(language: &str, word: &str) -> &'static str {
    blocks(language).into_iter().find(|block| block.contains(word)).unwrap_or_else(|| panic!("no block has {word}"))
}

#[test]
fn each_example_of_the_manual_of_the_console_is_lua() {
    let blocks = blocks("lua");
    assert!(blocks.len() >= 6, "the examples were not found");
    let each = blocks.iter().map(|block| format!("assert(load([==[\n{block}]==], 'an example'))\n"));
    let ran = run(&["console", "-e", &(each.collect::<String>() + "print('all') quit()")]);
    assert_eq!((ran.code, out(&ran)), (Some(0), vec!["all".to_owned()]), "{}", ran.err);
}

/// A console that reads its lines from the test.
struct Typed {
    lines: ChildStdin,
    out: BufReader<ChildStdout>,
    _program: Program,
}

impl Typed {
    fn start(scratch: &Scratch, words: &[&str]) -> Typed {
        let mut command = command(words);
        command.stdin(Stdio::piped()).env("HOME", scratch.path()).env("XDG_STATE_HOME", scratch.file("state"));
        let mut program = Program::start(command);
        let (lines, out) = (program.0.stdin.take().unwrap(), BufReader::new(program.0.stdout.take().unwrap()));
        Typed { lines, out, _program: program }
    }

    fn type_lines(&mut self, lines: &str) {
        writeln!(self.lines, "{lines}").unwrap();
    }

    /// Reads a line that the console prints.
    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the console has ended");
        line.trim_end().to_owned()
    }

    /// Reads lines until one begins with a word.
    #[track_caller]
    fn line_of(&mut self, word: &str) -> String {
        loop {
            let line = self.line();
            if line.starts_with(word) {
                return line;
            }
        }
    }
}

/// Returns a server that stands at an address and greets each client with a letter.
fn serve(address: &str, letter: u8) -> Server {
    Server::at(TcpListener::bind(address).unwrap(), letter)
}

#[test]
fn the_examples_of_links_events_and_counts_do_what_the_manual_says() {
    if !has_namespaces() {
        return;
    }
    isolated("127.0.0.1 localhost\n127.0.0.2 gate.example.org\n127.0.0.3 db\n", |_| {
        let scratch = Scratch::new();
        let secret = secret(&scratch);
        let _far = Seaprox::start(&["link", "--listen", "127.0.0.2:23232", "--secret", &secret]);
        let _servers = [serve("127.0.0.3:5432", b'd'), serve("127.0.0.1:22", b's')];
        let mut console = Typed::start(&scratch, &["console", "--secret", &secret]);
        let first = block("lua", "a link to port 23232");
        let (links, end) = first.split_at(first.find("print(tc)").unwrap());
        console.type_lines(links);
        console.type_lines("for _, it in ipairs({tc, t, r}) do assert(wait(it, 50), tostring(it)) end");
        console.type_lines("print('made')");
        assert_eq!(console.line(), "made");
        assert_eq!(letters(([127, 0, 0, 1], 8080).into(), 1), "d");
        assert_eq!(letters(([127, 0, 0, 1], 2222).into(), 1), "s");
        console.type_lines(block("lua", "stats(t).bytes_sent"));
        let counts = console.line();
        assert!(counts.split('\t').count() == 3 && counts.contains("bytes_sent "), "{counts}");
        console.type_lines(end);
        let text = console.line();
        let said = end.split("-- ").nth(1).unwrap().lines().next().unwrap();
        // All but the address of this node is as the manual says.
        let but_here =
            |text: &str| text.split(' ').enumerate().filter(|it| it.0 != 1).map(|it| it.1.to_owned()).collect();
        let [printed, said]: [Vec<String>; 2] = [&text, said].map(but_here);
        assert_eq!(printed, said);
        console.type_lines("print(wait(t), wait(r), wait(tc), status(tc))");
        assert_eq!(console.line(), "false\tfalse\tfalse\tCLOSED\tnil");
        console.type_lines(block("lua", "reminder:cancel()"));
        // The prompt shows each callback, too.
        let up = console.line_of("up\t");
        assert!(up.starts_with("up\ttcpconn ") && up.ends_with(" CONNECTED"), "{up}");
        console.type_lines("close(tc)");
        assert_eq!(console.line_of("gone\t"), "gone\tnil");
        console.type_lines("print(reminder:cancel())");
        assert_eq!(console.line(), "false");
    });
}

#[test]
fn the_example_of_allow_admits_the_key_with_its_options() {
    let scratch = Scratch::new();
    let config = scratch.file("config");
    let key = generate_key(&scratch.file("joe"));
    let line = block("lua", "allow(").replace("seaprox-ed25519 AAAA...", &key);
    let ran = run(&["console", "--config-dir", &config, "-e", &format!("{line} quit()")]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let file = std::fs::read_to_string(config + "/authorized_keys").unwrap();
    let admitted = format!("permit-open=\"*\",permit-listen=\"*\",name=\"joe\" {key}");
    assert!(file.lines().any(|line| line == admitted), "{file}");
}

#[test]
fn the_example_of_an_attached_console_prints_the_connections_of_the_process() {
    let scratch = Scratch::new();
    let secret = secret(&scratch);
    let (_far, port) = crate::console::far(&secret);
    // The process of this user is found by its runtime directory.
    let here = |mut command: Command| {
        command.env("XDG_RUNTIME_DIR", scratch.path()).env("HOME", scratch.path()).stdin(Stdio::null());
        command
    };
    let address = format!("127.0.0.1:{port}");
    let mut near = Program::start(here(command(&["link", "--connect", &address, "--secret", &secret])));
    let up = near.first_line();
    assert!(up.starts_with("link up "), "{up}");
    let mut shell = Command::new("sh");
    let directory = std::path::Path::new(BINARY).parent().unwrap();
    shell.args(["-c", block("sh", "--attach")]);
    shell.env("PATH", format!("{}:{}", directory.display(), std::env::var("PATH").unwrap_or_default()));
    let ran = run_command(here(shell), b"");
    let lines = out(&ran);
    assert_eq!((ran.code, lines.len()), (Some(0), 1), "{lines:?} {}", ran.err);
    assert!(lines[0].starts_with("tcpconn ") && lines[0].ends_with(&format!("{address} CONNECTED")), "{lines:?}");
}
