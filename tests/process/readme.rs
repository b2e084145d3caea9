//! Every recipe of the README, of docs/links.md and of docs/datagrams.md, and every example of the help, works as printed (TS-H2). The test
//! runs each block line by line, in a network that has the names, ports and interfaces of the recipes, and as two nodes
//! with a home each where the block is about links. It tries each forward of a command that runs until it is stopped.

use crate::kit;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use kit::names::{ip, isolated};
use kit::{SOON, Scratch, has, has_namespaces, until};

const README: &str = include_str!("../../README.md");
const LINKS: &str = include_str!("../../docs/links.md");
const DATAGRAMS: &str = include_str!("../../docs/datagrams.md");

#[test]
fn every_recipe_of_the_readme_works() {
    run_all(&blocks(chapter(README, "Recipes")), 7);
    run_all(&blocks(chapter(README, "Links")), 2);
}

#[test]
fn every_recipe_of_the_links_manual_works() {
    run_all(&blocks(LINKS), 7);
}

#[test]
fn every_recipe_of_the_manual_of_datagrams_works() {
    run_all(&blocks(DATAGRAMS), 2);
}

/// Examples of front ends start, and the other examples succeed. Examples that wait for a client have other tests, and
/// all examples of links are also in the manual.
#[test]
fn every_example_of_the_help_works() {
    let mut examples = Vec::new();
    for command in ["static", "socks", "http", "cat", "keygen", "pubkey", "completions", "man"] {
        let help = String::from_utf8(kit::run(&[command, "--help"]).out).unwrap();
        let (_, rest) = help.split_once("\nExamples:\n").unwrap();
        let lines = rest.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.strip_prefix("  seaprox "));
        examples.extend(lines.map(|line| vec![format!("seaprox {line}")]));
    }
    examples.retain(|lines| !["--via", "cat -l"].iter().any(|words| lines[0].contains(words)));
    run_all(&examples, 17);
}

/// Runs blocks one after the other, at two nodes in a network of their own. Panics if there are fewer than `expected`.
fn run_all(blocks: &[Vec<String>], expected: usize) {
    if !(has_namespaces() && has("curl")) {
        return;
    }
    assert!(blocks.len() >= expected, "the recipes were not found");
    isolated("127.0.0.1 localhost example.org\n127.0.0.2 remote\n127.0.0.3 db desk host\n", |_| {
        ["10.0.0.2", "10.0.0.5", "10.1.0.2", "198.51.100.7"]
            .iter()
            .for_each(|addr| ip(&format!("addr add {addr}/32 dev lo")));
        ["eth0", "wlan0"].iter().for_each(|name| ip(&format!("link property add dev lo altname {name}")));
        for place in ["1:80", "1:22", "3:22", "3:4000", "3:5432", "3:5900"] {
            let web = TcpListener::bind(format!("127.0.0.{place}")).unwrap();
            thread::spawn(move || web.incoming().flatten().for_each(answer));
        }
        for place in ["10.0.0.5:53", "127.0.0.1:27015"] {
            let server = UdpSocket::bind(place).unwrap();
            thread::spawn(move || {
                while let Ok((_, from)) = server.recv_from(&mut [0; 64]) {
                    let _ = server.send_to(ANSWER, from);
                }
            });
        }
        let scratch = Scratch::new();
        let mut nodes = ["local", "remote"].map(|name| Node::new(&scratch, name));
        blocks.iter().for_each(|block| run_block(block, &mut nodes));
    });
}

fn chapter<'a>(text: &'a str, title: &str) -> &'a str {
    text.split("\n## ").find(|chapter| chapter.starts_with(title)).unwrap()
}

/// Returns the lines of each `sh` block, without their remarks.
fn blocks(text: &str) -> Vec<Vec<String>> {
    let blocks = text.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let line = |line: &str| line.split("   #").next().unwrap().trim().to_owned();
    blocks.map(|block| block.lines().map(line).filter(|line| !line.is_empty()).collect()).collect()
}

/// Runs a block. A process at the local node ends with the block, one at the remote node when another is started.
fn run_block(lines: &[String], [local, remote]: &mut [Node; 2]) {
    for line in lines {
        // Replaces the placeholders by the keys.
        let keys = [(&*remote, "AAAA..."), (&*local, "BBBB...")];
        let real = keys.iter().fold(line.clone(), |line, (node, word)| match &node.key {
            Some(key) => line.replace(word, key),
            None => line,
        });
        match (real.strip_prefix("remote$"), real.strip_prefix("local$")) {
            (Some(line), _) => remote.run(line.trim()),
            (None, line) => local.run(line.unwrap_or(&real).trim()),
        }
        if line.contains("seaprox invite") {
            // The test passes the line on, as a user does by other means.
            local.invitation = remote.invitation.take();
        }
        if line.contains("keygen --secret") {
            // The test copies the secret, as a user does by other means.
            fs::copy(local.home.clone() + "/shared.secret", remote.home.clone() + "/shared.secret").unwrap();
        }
    }
    local.server = None;
}

/// One node, with a home of its own.
struct Node {
    home: String,
    key: Option<String>,
    invitation: Option<String>,
    server: Option<Server>,
}

impl Node {
    fn new(scratch: &Scratch, name: &str) -> Node {
        let node = Node { home: scratch.file(name), key: None, invitation: None, server: None };
        fs::create_dir_all(&node.home).unwrap();
        fs::write(node.home.clone() + "/users.txt", "name:password\n").unwrap();
        Command::new("chmod").args(["600", &(node.home.clone() + "/users.txt")]).status().unwrap();
        node
    }

    /// Runs a line. A server runs until the next one starts. Any other command must succeed, and a client must get its
    /// answer.
    fn run(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["seaprox", "static" | "socks" | "http" | "link", ..] => {
                self.server = None;
                let server = Server::start(line, self);
                self.key = server.key.clone().or(self.key.take());
                self.server = Some(server);
                if line.contains("--connect") || line.contains("--via") {
                    tries(&words).iter().for_each(|line| self.ask(line));
                }
            }
            // Another test runs ssh itself. This runs the ProxyCommand as ssh does.
            ["ssh", ..] => {
                let command = line.split('\'').nth(1).unwrap();
                self.ask(&command.replace("%h", "host").replace("%p", "22"));
            }
            ["seaprox", "cat", ..] | ["curl" | "printf", ..] => self.ask(line),
            ["echo", ..] => {
                let count = |node: &Node| node.server.as_ref().map_or(0, |server| server.count("keys read again"));
                let before = count(self);
                self.succeed(line);
                until("the file is read again", || self.server.is_none() || count(self) > before);
            }
            ["seaprox", "pubkey", "||", ..] => {
                let said = self.succeed(line);
                self.key = said.trim().strip_prefix("seaprox-ed25519 ").map(str::to_owned);
                assert!(self.key.is_some(), "{line}: {said}");
            }
            ["seaprox", "invite", ..] => self.invitation = Some(self.succeed(line)),
            ["seaprox", "join"] => {
                fs::write(self.home.clone() + "/invitation", self.invitation.take().unwrap()).unwrap();
                let said = self.succeed(&format!("{line} <invitation"));
                assert!(said.starts_with("joined remote:23232 SHA256:"), "{line}: {said}");
            }
            ["seaprox", "selftest"] => _ = self.succeed(line),
            ["seaprox", "keygen" | "pubkey" | "status" | "completions" | "man", ..] => {
                let said = self.succeed(line);
                assert!(!line.contains("status") || said.contains("link"), "{line}: {said}");
            }
            _ => panic!("an unknown command: {line:?}"),
        }
    }

    /// Runs a client, which must get the answer. The client of a UDP port sends a datagram until it is there.
    fn ask(&self, line: &str) {
        if let Some(port) = line.strip_prefix("udp:") {
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client.connect(("127.0.0.1", port.parse().unwrap())).unwrap();
            client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            let mut buf = [0; 64];
            return until(line, || {
                let _ = client.send(b"ask");
                client.recv(&mut buf).is_ok_and(|len| &buf[..len] == ANSWER)
            });
        }
        let said = self.succeed(line);
        assert!(said.ends_with("it works\n"), "{line}: {said}");
    }

    fn succeed(&self, line: &str) -> String {
        let request = self.home.clone() + "/request";
        fs::write(&request, "GET / HTTP/1.0\r\n\r\n").unwrap();
        let output = self.shell(line).stdin(File::open(request).unwrap()).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let log = self.server.as_ref().map(Server::log).unwrap_or_default();
        assert!(output.status.success(), "{line}: {out} {err} {log}");
        out.into_owned()
    }

    fn shell(&self, line: &str) -> Command {
        let directory = std::path::Path::new(env!("CARGO_BIN_EXE_seaprox")).parent().unwrap();
        let path = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("sh");
        command.args(["-c", line]).current_dir(&self.home).env("PATH", path).stdin(Stdio::null());
        command.env("HOME", &self.home).env("XDG_RUNTIME_DIR", &self.home);
        command.env_remove("XDG_CONFIG_HOME").env_remove("SEAPROX_CONFIG_DIR");
        command
    }
}

/// Returns a command for each forward that tries it.
fn tries(words: &[&str]) -> Vec<String> {
    let option = |name: &str| words.windows(2).filter(|pair| pair[0] == name).map(|pair| pair[1]).collect::<Vec<_>>();
    let user = if option("--users").is_empty() { "" } else { "name:password@" };
    // The listeners, each as the option of a link that does the same.
    let mut places: Vec<_> = ["-L", "-R", "-D", "-H"]
        .iter()
        .flat_map(|kind| option(kind).into_iter().map(move |place| (*kind, place)))
        .collect();
    let kind = HashMap::from([("static", ("-L", "55555")), ("socks", ("-D", "1080")), ("http", ("-H", "8080"))]);
    if let Some((kind, usual)) = kind.get(words[1]) {
        places.push((kind, option("--listen").first().unwrap_or(usual)));
    }
    assert!(!places.is_empty(), "nothing to try: {words:?}");
    let is_udp = words.contains(&"--udp");
    let line = |(kind, place): (&str, &str)| {
        if let Some(place) = place.strip_prefix("udp:").or(Some(place).filter(|_| is_udp)) {
            return format!("udp:{}", place.split(':').next().unwrap());
        }
        let unix = place.strip_prefix("unix:").and_then(|rest| rest.split(':').next());
        let port = place.split([':', '-']).next().unwrap();
        let how = match (kind, unix) {
            ("-D", _) => format!("--socks5-hostname {user}127.0.0.1:{port} http://db:5432/"),
            ("-H", _) => format!("-x http://{user}127.0.0.1:{port} http://db:5432/"),
            (_, Some(path)) => format!("--unix-socket {path} http://db/"),
            (_, None) => format!("http://127.0.0.1:{port}/"),
        };
        format!("curl -sS --max-time 20 {how}")
    };
    places.into_iter().map(line).collect()
}

/// A process that runs until it is stopped.
struct Server {
    child: Child,
    log: String,
    key: Option<String>,
}

impl Server {
    /// Starts a process and waits until it has printed all lines that show that it is ready.
    fn start(line: &str, node: &Node) -> Server {
        let log = node.home.clone() + "/log";
        let mut command = node.shell(&format!("exec {line}"));
        let stderr = File::create(&log).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        let said = lines_of(child.stdout.take().unwrap());
        let mut server = Server { child, log, key: None };
        let mut wanted = HashMap::from([("listening", usize::from(!line.contains("--connect")))]);
        wanted.insert("key", usize::from(line.contains("link --listen")));
        wanted.insert("link up", usize::from(line.contains("--connect") || line.contains("--via")));
        wanted.insert("listening remote", line.matches(" -R ").count());
        while wanted.values().any(|count| *count > 0) {
            let Ok(text) = said.recv_timeout(SOON) else { panic!("{line}: waits for {wanted:?}: {}", server.log()) };
            for (word, count) in &mut wanted {
                *count -= usize::from(text.starts_with(word) && *count > 0);
            }
            if let Some(key) = text.strip_prefix("key seaprox-ed25519 ") {
                server.key = Some(key.to_owned());
            }
        }
        server
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn count(&self, word: &str) -> usize {
        self.log().matches(word).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself. Then the client has failed already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the lines of a process's output, as they arrive.
fn lines_of(out: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        BufReader::new(out).lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
    });
    receiver
}

fn answer(mut client: TcpStream) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte).is_ok_and(|count| count == 1) {
        head.extend(byte);
    }
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", ANSWER.len());
    // The client may have closed already.
    let _ = client.write_all(&[head.as_bytes(), ANSWER].concat());
}

const ANSWER: &[u8] = b"it works\n";
