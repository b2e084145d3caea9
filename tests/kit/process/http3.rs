//! A client and a server of HTTP/3 that others wrote: those of ngtcp2.

use std::process::{Command, Stdio};

use super::program::{Program, output};
use super::seaprox::run_command;
use super::{START, Scratch, has, until, until_within};

/// A server of HTTP/3 with one file. It is killed when dropped.
pub struct Http3 {
    _server: Program,
    scratch: Scratch,
    content: Vec<u8>,
}

/// Returns true if the programs are installed.
pub fn has_http3() -> bool {
    has("gtlsserver") && has("gtlsclient") && has("openssl") && has("ss")
}

impl Http3 {
    /// Starts the server on port 4433 of this address. `command` makes a command, which may run in another network.
    #[track_caller]
    pub fn start(addr: &str, command: impl Fn(&str) -> Command) -> Http3 {
        let scratch = Scratch::new();
        let (key, cert) = (scratch.file("key"), scratch.file("cert"));
        output(
            "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout $0 -out $1",
            &[&key, &cert],
        );
        std::fs::create_dir(scratch.file("site")).expect("a directory of ours");
        let content: Vec<u8> = (0..1_000_000_u32).map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8).collect();
        scratch.write("site/file", &content);
        let mut server = command("/usr/sbin/gtlsserver");
        server.args(["-q", "-d", &scratch.file("site"), addr, "4433", &key, &cert]).stdin(Stdio::null());
        let server = Http3 { _server: Program::start(server), scratch, content };
        until("the server of HTTP/3 listens", || {
            let mut table = command("ss");
            table.args(["-Hlun", "sport = :4433"]);
            !run_command(table, b"").out.is_empty()
        });
        server
    }

    /// Fetches the file from this address until it is there unchanged. The client gives a handshake up after 15 s.
    #[track_caller]
    pub fn fetch(&self, host: &str, port: u16, command: impl Fn(&str) -> Command) {
        until_within(START, "the file has arrived", || self.try_to_fetch(host, port, &command));
    }

    fn try_to_fetch(&self, host: &str, port: u16, command: &impl Fn(&str) -> Command) -> bool {
        let got = self.scratch.file("got");
        let _ = std::fs::remove_dir_all(&got);
        std::fs::create_dir(&got).expect("a directory of ours");
        let mut client = command("gtlsclient");
        let url = format!("https://localhost:{port}/file");
        client.args(["-q", "--exit-on-all-streams-close", "--handshake-timeout=15s", "--download", &got]);
        client.args([host, &port.to_string(), &url]).stdin(Stdio::null());
        run_command(client, b"");
        std::fs::read(self.scratch.file("got/file")).is_ok_and(|content| content == self.content)
    }
}
