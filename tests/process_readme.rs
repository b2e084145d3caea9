//! Every recipe of the README works as printed (TS-H2): each block is run, line by line, in a network where the names and
//! ports that it speaks of are what it says.

mod kit;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::thread;

use kit::names::isolated;
use kit::{Scratch, has, has_namespaces};

const README: &str = include_str!("../README.md");

#[test]
fn every_recipe_of_the_readme_works() {
    if !(has_namespaces() && has("curl")) {
        return;
    }
    let blocks = recipes();
    assert!(blocks.len() >= 7, "the recipes were not found");
    isolated("127.0.0.1 localhost example.org\n", |_| {
        let web = TcpListener::bind("127.0.0.1:80").unwrap();
        thread::spawn(move || web.incoming().flatten().for_each(answer));
        let scratch = Scratch::new();
        let users = scratch.write("users.txt", "name:password\n");
        Command::new("chmod").args(["600", &users]).status().unwrap();
        for block in &blocks {
            run_block(block, &scratch);
        }
    });
}

/// The lines of each `sh` block in the chapter, without what is explained behind them.
fn recipes() -> Vec<Vec<String>> {
    let chapter = README.split("\n## ").find(|chapter| chapter.starts_with("Recipes")).unwrap();
    let blocks = chapter.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let line = |line: &str| line.split("   #").next().unwrap().trim().to_owned();
    blocks.map(|block| block.lines().map(line).filter(|line| !line.is_empty()).collect()).collect()
}

/// A server runs until the next one begins, or the block ends; a client must succeed.
fn run_block(lines: &[String], scratch: &Scratch) {
    let mut server: Option<Server> = None;
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["seaprox", "static" | "socks" | "http", ..] => {
                drop(server.take());
                server = Some(Server::start(line, scratch));
            }
            // Another test runs ssh against a real server; this one has no user@host.
            ["ssh", ..] => assert!(line.contains("ProxyCommand='seaprox cat %h %p'")),
            _ => {
                let output = shell(line, scratch).output().unwrap();
                let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
                assert!(output.status.success() && out.ends_with("it works\n"), "{line}: {out} {err}");
            }
        }
    }
}

struct Server(Child);

impl Server {
    fn start(line: &str, scratch: &Scratch) -> Server {
        let mut command = shell(&format!("exec {line}"), scratch);
        let mut server = Server(command.stdout(Stdio::piped()).spawn().unwrap());
        let mut first = String::new();
        BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut first).unwrap();
        assert!(first.starts_with("listening "), "{line}: {first:?}");
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which the client has then complained of.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn shell(line: &str, scratch: &Scratch) -> Command {
    let directory = std::path::Path::new(env!("CARGO_BIN_EXE_seaprox")).parent().unwrap();
    let path = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir(scratch.path()).env("PATH", path).env("XDG_RUNTIME_DIR", scratch.path());
    command.stdin(Stdio::null());
    command
}

fn answer(mut client: std::net::TcpStream) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte).is_ok_and(|count| count == 1) {
        head.extend(byte);
    }
    let body = "it works\n";
    let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    // A client that has left needs no answer.
    let _ = client.write_all(response.as_bytes());
}
