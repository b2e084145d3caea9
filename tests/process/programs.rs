//! Foreign programs that work through seaprox unmodified (BS-02 to BS-04, SP-04, TS-18): curl, wget, git, ncat, ssh.

use crate::kit;

use std::process::{Command, Stdio};
use std::thread;

use kit::Step::*;
use kit::http::Act::{Head, Say, Wait};
use kit::http::{Origin, field};
use kit::program::{Program, free_port, is_listening, output, shell};
use kit::{Peer, Relay, Scratch, Seaprox, has, until};

/// An HTTP server with a directory of its own.
struct Web {
    _server: Program,
    scratch: Scratch,
    port: String,
}

impl Web {
    fn start(with_tls: bool) -> Web {
        let scratch = Scratch::new();
        scratch.write("hello", "hello\n");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/kit/process/origin.py");
        let mut command = Command::new("python3");
        command.args([script, scratch.path().to_str().unwrap()]).stdin(Stdio::null());
        if with_tls {
            let (cert, key) = (scratch.file("cert"), scratch.file("key"));
            let line = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout $0 -out $1";
            output(line, &[&key, &cert]);
            command.args([cert, key]);
        }
        let mut server = Program::start(command);
        let port = server.first_line();
        assert!(port.parse::<u16>().is_ok(), "the server did not start: {port:?}");
        Web { _server: server, scratch, port }
    }

    fn url(&self, path: &str) -> String {
        format!("http://localhost:{}/{path}", self.port)
    }
}

/// Starts a front end for these programs, which all use IPv4. Returns it and its address.
fn front(kind: &str) -> (Seaprox, String) {
    let seaprox = Seaprox::start(&[kind, "--only", "ipv4", "--listen", "127.0.0.1:0"]);
    let addr = seaprox.listens(0);
    (seaprox, addr)
}

#[test]
fn curl_uses_every_version_of_socks_on_one_port() {
    if !(has("curl") && has("python3")) {
        return;
    }
    let (web, (socks, addr)) = (Web::start(false), front("socks"));
    for (mode, kind, target) in [
        ("--socks4", "socks4", "->ipv4[127.0.0.1:"),
        ("--socks4a", "socks4a", "->name[localhost:"),
        ("--socks5", "socks5", "->ipv4[127.0.0.1:"),
        ("--socks5-hostname", "socks5", "->name[localhost:"),
    ] {
        // Once with the name and once with the literal address.
        let line = "curl -sS -4 --max-time 20 $0 $1 $2";
        assert_eq!(output(line, &[mode, &addr, &web.url("hello")]), "hello");
        assert_eq!(output(line, &[mode, &addr, &format!("http://127.0.0.1:{}/hello", web.port)]), "hello");
        socks.wait_for_log(&[" closed ", &format!("conn={kind}[ipv4["), target]);
    }
    // Exit codes of curl: 97 proxy error; 7 could not connect, in older releases.
    let ran = shell("curl -sS --max-time 20 --socks5-hostname $0 http://no-such-name.invalid/", &[&addr]);
    assert!(matches!(ran.code, Some(97 | 7)), "{ran:?}");
}

#[test]
fn curl_logs_in_to_socks_and_http() {
    if !(has("curl") && has("python3")) {
        return;
    }
    let web = Web::start(false);
    let users = web.scratch.write("users", "joe:p@ss\n");
    for (kind, option) in [("socks", "--socks5"), ("http", "-x")] {
        let seaprox = Seaprox::start(&[kind, "--only", "ipv4", "--listen", "127.0.0.1:0", "--users", &users]);
        let line = "curl -sS -4 --max-time 20 $0 $1 --proxy-user $2 $3";
        let addr = seaprox.listens(0);
        assert_eq!(output(line, &[option, &addr, "joe:p@ss", &web.url("hello")]), "hello");
        seaprox.wait_for_log(&[" closed ", "user=joe"]);
        let ran = shell(line, &[option, &addr, "joe:no", &web.url("hello")]);
        assert!(ran.code != Some(0) || !ran.out.starts_with(b"hello"), "{ran:?}");
    }
}

#[test]
fn curl_fetches_http_and_https_through_the_http_proxy() {
    if !(has("curl") && has("python3") && has("openssl")) {
        return;
    }
    let (plain, secret, (http, addr)) = (Web::start(false), Web::start(true), front("http"));
    let line = "curl -sS --max-time 20 -x http://$0 $1 $2 $3";
    let three = [plain.url("hello"), plain.url("hello"), plain.url("hello")];
    assert_eq!(output(line, &[&addr, &three[0], &three[1], &three[2]]), "hello\nhello\nhello");
    // One client connection for all three, and one to the origin.
    http.wait_for_log(&[" closed "]);
    assert_eq!(http.figure("/opened"), 1);
    let https = format!("https://localhost:{}/hello", secret.port);
    assert_eq!(output("curl -sSk --max-time 20 -x http://$0 $1", &[&addr, &https]), "hello");
    http.wait_for_log(&[" closed ", &format!("->name[localhost:{}]]", secret.port)]);
    let code = "curl -s --max-time 20 -o /dev/null -w %{http_code} -x http://$0 $1";
    assert_eq!(output(code, &[&addr, &format!("http://127.0.0.1:{}/", kit::closed_port())]), "502");
    assert_eq!(output(code, &[&addr, &plain.url("none")]), "404");
}

#[test]
fn a_hundred_megabytes_arrive_unchanged_in_each_direction() {
    if !(has("curl") && has("python3") && has("sha256sum")) {
        return;
    }
    let web = Web::start(false);
    let big = web.scratch.file("big");
    let digest = output("head -c 100000000 /dev/urandom > $0 && sha256sum < $0 | cut -d' ' -f1", &[&big]);
    for (kind, option) in [("http", "-x"), ("socks", "--socks5-hostname")] {
        let (seaprox, addr) = front(kind);
        let get = "curl -sS --max-time 50 $0 $1 $2 | sha256sum | cut -d' ' -f1";
        assert_eq!(output(get, &[option, &addr, &web.url("big")]), digest, "down through {kind}");
        let put = "curl -sS --max-time 50 $0 $1 -T $2 $3";
        assert_eq!(output(put, &[option, &addr, &big, &web.url("up")]), digest, "up through {kind}");
        seaprox.wait_for_log(&[" closed ", "received=100000"]);
    }
    let (seaprox, addr) = front("http");
    let chunked = "curl -sS --max-time 50 -x $0 -H 'Transfer-Encoding: chunked' -T $1 $2 -o /dev/null -w %{http_code}";
    // The server refuses a request without a length. The test is only that its response comes back.
    let _ = shell(chunked, &[&addr, &big, &web.url("up")]);
    seaprox.wait_for_log(&[" closed "]);
}

#[test]
fn wget_and_git_work_through_the_http_proxy() {
    if !(has("wget") && has("git") && has("python3")) {
        return;
    }
    let (web, (http, addr)) = (Web::start(false), front("http"));
    let wget = "wget -q -T 20 -t 1 -O - -e use_proxy=yes -e http_proxy=http://$0 $1";
    assert_eq!(output(wget, &[&addr, &web.url("hello")]), "hello");
    let (work, bare, clone) = (web.scratch.file("work"), web.scratch.file("bare.git"), web.scratch.file("clone"));
    let make = "git init -q $0 && cd $0 && head -c 300000 /dev/urandom > data && git add data \
                && git -c user.name=x -c user.email=x@y commit -q -m x && git clone -q --bare $0 $1 \
                && cd $1 && git update-server-info";
    output(make, &[&work, &bare]);
    output(
        "GIT_TERMINAL_PROMPT=0 git -c http.proxy=http://$0 clone -q $1 $2 2>&1",
        &[&addr, &web.url("bare.git"), &clone],
    );
    output("cmp $0/data $1/data", &[&work, &clone]);
    http.wait_for_log(&[" closed ", "reason=source_fin"]);
}

#[test]
fn wget_and_apt_authenticate_at_the_origin_with_a_user_in_the_url() {
    if !has("wget") {
        return;
    }
    let no = "HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=x\r\nContent-Length: 0\r\n\r\n";
    let yes = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n";
    let origin = Origin::start(vec![vec![Head, Say(no), Head, Say(yes), Wait]]);
    let (_http, addr) = front("http");
    let wget = "wget -q -T 20 -t 1 -O - -e use_proxy=yes -e http_proxy=http://$0 $1";
    assert_eq!(output(wget, &[&addr, &format!("http://joe:p%40ss@{}/hello", origin.addr)]), "hello");
    let (first, second) = (origin.saw(), origin.saw());
    assert!(first.starts_with("GET /hello HTTP/1.1\r\n") && !first.contains("joe"), "{first}");
    // "joe:p@ss", which wget itself sends after the 401.
    assert_eq!(field(&second, "authorization").as_deref(), Some("Basic am9lOnBAc3M="), "{second}");

    if !(has("apt-get") && has("python3")) {
        return;
    }
    let web = Web::start(false);
    let sources =
        web.scratch.write("apt.list", format!("deb [trusted=yes] http://joe:p%40ss@localhost:{}/ ./\n", web.port));
    web.scratch.write("Packages", "Package: hello\nVersion: 1\nArchitecture: all\nFilename: ./hello.deb\nSize: 1\n");
    let (lists, cache) = (web.scratch.file("lists"), web.scratch.file("cache"));
    let apt = "mkdir -p $2/partial $3/archives/partial && apt-get -qq -o Dir::Etc::SourceList=$1 -o Dir::Etc::SourceParts=- \
               -o Dir::State::Lists=$2 -o Dir::Cache=$3 -o Acquire::http::Proxy=http://$0 -o Acquire::Retries=0 \
               -o APT::Sandbox::User= -o Acquire::GzipIndexes=false -o Debug::NoLocking=1 update && cat $2/*Packages";
    let found = output(apt, &[&addr, &sources, &lists, &cache]);
    assert!(found.contains("Package: hello"), "{found}");
}

#[test]
fn curl_requests_with_bytes_above_ascii_are_forwarded_unchanged() {
    if !has("curl") {
        return;
    }
    let origin = Origin::start(vec![vec![Head, Say("HTTP/1.1 204 No\r\n\r\n"), Wait]]);
    let (_http, addr) = front("http");
    output("curl -sSf --max-time 20 -x http://$0 $1", &[&addr, &format!("http://{}/caf\u{e9}", origin.addr)]);
    let seen = origin.saw();
    assert!(seen.starts_with("GET /caf\u{e9} HTTP/1.1\r\n"), "{seen}");
}

/// Starts a server from a shell command that has its port as `$0`. Returns it and its port when it listens.
fn listener(line: &str, args: &[&str]) -> (Program, u16) {
    let port = free_port();
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec {line}"), &port.to_string()]).args(args).stdin(Stdio::null());
    let server = Program::start(command);
    until("the server listens", || is_listening(port));
    (server, port)
}

/// With `-c` ncat itself resets a half-closed connection, so the other end is a socket of the test.
#[test]
fn ncat_half_closes_in_both_directions() {
    if !has("ncat") {
        return;
    }
    let scratch = Scratch::new();
    let content = vec![b'n'; 3_000_000];
    let file = scratch.write("file", &content);
    // The client sends its FIN first and goes on reading.
    let relay = Relay::start(&[]);
    let at = relay.addr().port().to_string();
    let digest = thread::scope(|scope| {
        let client = scope.spawn(|| output("timeout 20 ncat 127.0.0.1 $0 < $1", &[&at, &file]));
        let mut server = Peer::accept(&relay.listener);
        assert!(server.rest() == content);
        server.run(&[Put(b"that was all"), Fin]);
        client.join().unwrap()
    });
    assert_eq!(digest, "that was all");
    relay.seaprox.wait_for_log(&[" closed ", "reason=source_fin end=graceful"]);
    // The server sends its FIN first and goes on reading.
    let (mut server, port) = listener("ncat -l 127.0.0.1 $0 < $1", &[&file]);
    let relay = Seaprox::start(&["static", "--listen", "127.0.0.1:0", "--to", &format!("127.0.0.1:{port}")]);
    let mut client = Peer::connect(relay.addr(0));
    assert!(client.rest() == content);
    client.run(&[Put(b"one more thing"), Fin]);
    assert_eq!(server.rest(), "one more thing");
    relay.wait_for_log(&[" closed ", "reason=dest_fin end=graceful"]);
}

#[test]
fn a_server_that_speaks_first_works_through_every_front_end() {
    if !(has("ncat") && has("socat")) {
        return;
    }
    let say = "SYSTEM:'echo 220 ready; read line; echo 250 $line'";
    let (_server, port) = listener(&format!("socat -t 10 TCP-LISTEN:$0,bind=127.0.0.1,fork {say}"), &[]);
    let to = format!("127.0.0.1:{port}");
    let relay = Seaprox::start(&["static", "--listen", "127.0.0.1:0", "--to", &to]);
    let (_socks, socks) = front("socks");
    let (_http, http) = front("http");
    let talk = |line: &str, args: &[&str]| output(&format!("echo HELO x | timeout 20 {line}"), args);
    let expected = "220 ready\n250 HELO x";
    assert_eq!(talk("ncat 127.0.0.1 $0", &[&relay.addr(0).port().to_string()]), expected);
    let port = port.to_string();
    for (proxy, kind) in [(&socks, "socks4"), (&socks, "socks5"), (&http, "http")] {
        let line = "ncat --proxy $0 --proxy-type $1 127.0.0.1 $2";
        assert_eq!(talk(line, &[proxy, kind, &port]), expected, "{kind}");
    }
    assert_eq!(talk("$0 cat 127.0.0.1 $1", &[env!("CARGO_BIN_EXE_seaprox"), &port]), expected);
}

/// Starts an ssh server with keys of its own, for the user that runs the tests.
fn sshd(scratch: &Scratch) -> (Program, u16) {
    let (port, dir) = (free_port(), scratch.path().to_str().unwrap());
    output("ssh-keygen -q -t ed25519 -N '' -f $0/host && ssh-keygen -q -t ed25519 -N '' -f $0/key", &[dir]);
    output("mkdir -p /run/sshd && cp $0/key.pub $0/authorized && chmod 700 $0", &[dir]);
    let config = scratch.write(
        "sshd_config",
        format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {dir}/host\nAuthorizedKeysFile {dir}/authorized\nPidFile none\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nMaxStartups 100\n"
        ),
    );
    let mut command = Command::new("sh");
    command.args(["-c", "exec $(command -v sshd || echo /usr/sbin/sshd) -D -e -f $0", &config]).stdin(Stdio::null());
    let server = Program::start(command);
    until("sshd listens", || is_listening(port));
    (server, port)
}

#[test]
fn ssh_works_through_static_cat_and_socks() {
    // sshd serves the user that runs it, which needs no further set-up as root.
    let programs = ["ssh", "sshd", "ssh-keygen", "ncat", "sha256sum"];
    if !(programs.iter().all(|program| has(program)) && kit::has_namespaces()) {
        return;
    }
    let scratch = Scratch::new();
    let (_server, port) = sshd(&scratch);
    let file = scratch.file("file");
    let digest = output("head -c 10000000 /dev/urandom > $0 && sha256sum < $0", &[&file]);
    let relay = Seaprox::start(&["static", "--listen", "127.0.0.1:0", "--to", &format!("127.0.0.1:{port}")]);
    let (_socks, socks) = front("socks");
    let (_http, http) = front("http");
    let seaprox = env!("CARGO_BIN_EXE_seaprox");
    let (direct, relayed) = (port.to_string(), relay.addr(0).port().to_string());
    for (at, command) in [
        (&relayed, "none".to_owned()),
        (&direct, format!("{seaprox} cat %h %p")),
        (&direct, format!("ncat --proxy {socks} --proxy-type socks5 %h %p")),
        (&direct, format!("ncat --proxy {http} --proxy-type http %h %p")),
    ] {
        let line = "timeout 40 ssh -F none -i $0/key -o IdentitiesOnly=yes -o StrictHostKeyChecking=no \
                    -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o BatchMode=yes -o ProxyCommand=\"$1\" -p $2 \
                    127.0.0.1 'sha256sum; exit 7' < $3; code=$?; test $code = 7";
        assert_eq!(output(line, &[scratch.path().to_str().unwrap(), &command, at, &file]), digest, "{command}");
        let down = line
            .replace("sha256sum; exit 7", "head -c 10000000 /dev/zero; exit 7")
            .replace("< $3", "< /dev/null | wc -c");
        let down = down.replace("code=$?; test $code = 7", "");
        assert_eq!(output(&down, &[scratch.path().to_str().unwrap(), &command, at]), "10000000", "{command}");
    }
    relay.wait_for_log(&[" closed ", "end=graceful"]);
}
