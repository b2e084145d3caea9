//! The command line of links, tested with one process: usage errors, help, and the files that are created and read
//! before a link is dialed.
use crate::kit;

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use kit::link::generate_key;
use kit::{Ran, Scratch, Seaprox, run, run_with};

/// Runs a command line that cannot start, with a configuration directory of its own.
#[track_caller]
fn refused(scratch: &Scratch, line: &str) -> Ran {
    let args: Vec<&str> = line.split_whitespace().collect();
    run_with(&args, b"", |command| at_home(command, scratch))
}

fn at_home(command: &mut Command, scratch: &Scratch) {
    command.env("XDG_CONFIG_HOME", scratch.file("config")).env("XDG_RUNTIME_DIR", scratch.file(""));
}

#[track_caller]
fn mode(path: &str) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_wrong_link_command_line_is_refused_in_one_line() {
    let scratch = Scratch::new();
    for (line, text) in [
        ("link", "expected --listen ADDR, --connect HOST[:PORT] or both"),
        ("link -L 80:a:80", "-L is about a link that this node dials: expected --connect HOST[:PORT] too"),
        ("link --listen 0 --subflows 2", "--subflows is about a link that this node dials"),
        ("link --listen gate:x", "--listen \"gate:x\": expected PORT, :PORT, HOST:PORT"),
        ("link --connect a:b:c", "--connect \"a:b:c\": expected HOST[:PORT] or [IPV6][:PORT]"),
        ("link --connect r --connect s,r", "--connect \"r:23232\": expected each peer once"),
        ("link --connect r,", "--connect \"\": expected HOST[:PORT] or [IPV6][:PORT]"),
        ("link --connect r --links-max 65", "--links-max \"65\": expected a number from 1 to 64"),
        ("link --listen 1 --links-max 2", "--links-max is about a link that this node dials"),
        ("link --connect r -L 8080:db", "-L \"8080:db\": expected [BIND:]PORT:HOST:PORT, such as 8080:db:5432"),
        ("link --connect r -L 8080:db:0", "-L \"8080:db:0\": the port \"0\": expected a number from 1 to 65535"),
        ("link --connect r -L 1:::1:22", "an IPv6 address needs brackets, such as [::1]"),
        ("link --connect r -R 2222", "-R without a target is not supported"),
        ("link --connect r -R unix:/x:a:1", "Unix sockets are possible at this end only"),
        ("link --connect r -D x", "-D \"x\": the port \"x\": expected a number from 0 to 65535"),
        ("link --connect r -H 1:2:3", "-H \"1:2:3\": expected [BIND:]PORT, such as 1080, or unix:/path"),
        ("link --connect r -W db", "-W \"db\": expected HOST:PORT, such as db:5432 or [::1]:22"),
        ("link --connect r -W db:1 -L 1:a:1", "-W: expected no --listen, -L, -R, -D or -H beside it"),
        ("link --connect r -W db:1 --listen 0", "-W: expected no --listen, -L, -R, -D or -H beside it"),
        ("link --connect r -L", "-L: expected [BIND:]PORT:HOST:PORT"),
        ("link --connect r extra", "unexpected argument \"extra\""),
        ("cat --via r --threads 2 h 1", "--threads is an option of static, socks,"),
        (
            "link --connect r --mode strip",
            "--mode \"strip\": expected stripe or single or redundant; did you mean stripe?",
        ),
        (
            "link --connect r --cipher rot13",
            "--cipher \"rot13\": expected aes-128-gcm or aes-256-gcm or chacha20-poly1305",
        ),
        ("link --connect r --peer-key SHA256:x", "--peer-key \"SHA256:x\": expected SHA256: and the 43 characters"),
        ("link --connect r --path wlan0", "--path \"wlan0\": the source \"wlan0\": expected an address of this host"),
        ("link --connect r --subflows 17", "--subflows \"17\": expected a number from 1 to 16"),
        ("link --connect r --subflows 9 --path %a --path %b", "expected at most 16 subflows in total"),
        (
            "link --connect r --path %a --paths f",
            "--path and --paths: expected one of them, because the file contains all paths",
        ),
        (
            "link --connect r --simultaneous",
            "--simultaneous: expected --local-port, because the peer dials to that port",
        ),
        (
            "link --connect r --simultaneous --local-port 7 --carrier mptcp",
            "--simultaneous with --carrier mptcp: expected tcp",
        ),
        ("link --connect r --local-port 0", "--local-port \"0\": expected a number from 1 to 65535"),
        ("link --connect r --local-port 7 --subflows 2", "the source port 7: expected one subflow over each path"),
        (
            "link --connect r --local-port 7 --paths f",
            "--local-port and --paths: expected one of them, because the file contains all source ports",
        ),
        ("link --listen 0 --simultaneous", "--simultaneous is about a link that this node dials"),
        ("link --listen 0 --paths f", "--paths is about a link that this node dials"),
        ("link --connect r --ask", "--ask is about links that peers dial: expected --listen ADDR too"),
        ("link --connect r --link-hold 0", "--link-hold \"0\": expected a duration above 0"),
        ("link --connect r --link-retry-max 0", "--link-retry-max \"0\": expected a duration above 0"),
        ("link --listen 1 --link-retry-max 1s", "--link-retry-max is about a link that this node dials"),
        ("link --connect r --link-dead 5s", "--link-dead 5s: expected more than the 5s of --link-keepalive"),
        ("link --connect r --secret s --key k", "--secret and --key: expected one of them"),
        ("lnk --connect r", "did you mean link?"),
        ("socks --subflows 4", "--subflows is about a link that this node dials: expected --via HOST[:PORT] too"),
        ("static --to unix:/x --via r", "--to \"unix:/x\" with --via: expected HOST:PORT, because a link carries TCP"),
        ("cat -l 0 --via r", "-l with --via: expected HOST PORT, at the far end"),
        ("cat --via r unix:/x", "expected HOST PORT, because a link carries TCP"),
        ("selftest --listen 1", "link, cat, receive, not of selftest"),
    ] {
        let ran = refused(&scratch, line);
        assert_eq!(ran.code, Some(2), "{line}: {}", ran.err);
        assert!(ran.err.contains(text), "{line}: {}", ran.err);
        assert_eq!((ran.err.lines().count(), ran.out.len()), (1, 0), "{line}: {}", ran.err);
    }
    assert!(!std::path::Path::new(&scratch.file("config")).exists(), "no key is made for what cannot start");
}

#[test]
fn help_manual_page_and_completions_cover_links() {
    let text = |args: &[&str]| {
        let ran = run(args);
        assert_eq!(ran.code, Some(0), "{args:?}: {}", ran.err);
        String::from_utf8(ran.out).unwrap()
    };
    let help = text(&["link", "--help"]);
    for word in [
        "-L, --local [BIND:]PORT:HOST:PORT",
        "-R, --remote",
        "-D, --dynamic",
        "-W, --stdio",
        "--authorized-keys FILE",
        "--link-hold TIME",
        "--link-retry-max TIME",
        "seaprox link --connect remote -R 2222:127.0.0.1:22",
        "77",
    ] {
        assert!(help.contains(word), "{word}");
    }
    assert!(help.contains("--threads N") && !text(&["cat", "--help"]).contains("--threads"));
    let of_option = |help: &str| help.split("--handshake-timeout").nth(1).map(|rest| rest[..400].to_owned()).unwrap();
    assert!(
        of_option(&help).contains("[default: 5s") && of_option(&text(&["socks", "--help"])).contains("[default: 10s")
    );
    let socks = text(&["socks", "-h"]);
    assert!(
        socks.contains("--via HOST[:PORT]") && socks.contains("--subflows N") && !socks.contains("authorized-keys")
    );
    let general = text(&["--help"]);
    assert!(general.contains("encrypted link between two nodes") && general.contains("selftest"), "{general}");
    let page = text(&["man"]);
    assert!(page.contains(".SS Links") && page.contains("\\-\\-exit\\-on\\-failure"), "{page}");
    for shell in ["bash", "zsh", "fish"] {
        let script = text(&["completions", shell]);
        assert!(["selftest", "known-nodes", "via"].iter().all(|word| script.contains(word)), "{shell}");
    }
}

#[test]
fn the_environment_alone_starts_no_link() {
    let scratch = Scratch::new();
    let ran = run_with(&["link"], b"", |command| {
        at_home(command, &scratch);
        command.env("SEAPROX_LISTEN", "127.0.0.1:0").env("SEAPROX_CONNECT", "remote").env("SEAPROX_VIA", "remote");
    });
    assert_eq!(ran.code, Some(2), "{}", ran.err);
    let ran = run_with(&["socks", "--listen", "127.0.0.1:0"], b"", |command| {
        at_home(command, &scratch);
        command.env("SEAPROX_VIA", "a:b:c");
    });
    assert_eq!(ran.code, Some(2), "{}", ran.err);
    assert!(ran.err.contains("SEAPROX_VIA \"a:b:c\""), "{}", ran.err);
}

#[test]
fn an_unusable_link_file_is_named_and_nothing_starts() {
    let scratch = Scratch::new();
    let write = |name: &str, text: &str, mode: u32| {
        let path = scratch.write(name, text);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        path
    };
    let nonsense = write("nonsense", "precious\n", 0o600);
    let open = write("open", "precious\n", 0o644);
    let short = write("short", "short\n", 0o600);
    let bad = write("authorized", "# a remark\n\nseaprox-ed25519 AAAA joe\n", 0o600);
    let listen = "link --listen 127.0.0.1:0";
    let connect = "link --connect 127.0.0.1:1";
    for (line, words) in [
        (format!("{connect} --key {nonsense}"), vec!["nonsense", "expected"]),
        (format!("{connect} --key {open}"), vec!["open", "others can read it", "chmod 600"]),
        (format!("{connect} --secret {short}"), vec!["short", "at least 16 bytes"]),
        (format!("{connect} --secret {open}"), vec!["chmod 600"]),
        (format!("{connect} --secret {}", scratch.file("missing")), vec!["missing"]),
        (format!("{connect} --paths {nonsense}"), vec!["nonsense:1", "\"precious\"", "an address of this host"]),
        (format!("{connect} --paths {}", scratch.file("missing")), vec!["missing"]),
        (format!("{connect} --known-nodes {nonsense}"), vec!["nonsense:1", "HOST:PORT seaprox-ed25519 BASE64"]),
        (format!("{listen} --authorized-keys {bad}"), vec!["authorized:3", "AAAA"]),
        (format!("socks --listen 127.0.0.1:0 --via r --key {nonsense}"), vec!["nonsense", "expected"]),
        (format!("cat --via r --key {nonsense} host 22"), vec!["nonsense", "expected"]),
        (format!("{connect} -W host:22 --known-nodes {nonsense}"), vec!["nonsense:1"]),
    ] {
        let ran = refused(&scratch, &line);
        assert_eq!(ran.code, Some(78), "{line}: {}", ran.err);
        assert!(words.iter().all(|word| ran.err.contains(word)), "{line}: {}", ran.err);
        let is_private = line.contains("--key") || line.contains("--secret");
        assert!(!(is_private && ran.err.contains("precious")) && ran.out.is_empty(), "{line}: {}", ran.err);
    }
}

#[test]
fn the_first_use_makes_a_key_that_only_its_owner_can_read() {
    let scratch = Scratch::new();
    let (directory, key) = (scratch.file("config/seaprox"), scratch.file("config/seaprox/key"));
    let node = Seaprox::spawn(&["link", "--listen", "127.0.0.1:0"], |command| at_home(command, &scratch));
    kit::until("the node has made a key", || std::path::Path::new(&key).exists());
    assert_eq!((mode(&directory), mode(&key)), (0o700, 0o600));
    node.wait_for_log(&["key of this node created", &key, "SHA256:"]);
    node.wait_for_log(&["WARN", "no key is authorized", "authorized_keys"]);
    // With another directory in the flags, and the key that exists already.
    let made = std::fs::read(&key).unwrap();
    let elsewhere = scratch.file("elsewhere");
    let args = ["link", "--listen", "127.0.0.1:0", "--config-dir", &elsewhere, "--key", &key];
    let node = Seaprox::spawn(&args, |command| at_home(command, &scratch));
    node.wait_for_log(&["no key is authorized", "elsewhere/authorized_keys"]);
    assert_eq!(std::fs::read(&key).unwrap(), made);
    assert_eq!(node.count_log(&["key of this node created"]), 0);
}

/// Scripts rely on the `listening` line, so a process that ends because of a refused key must not print it.
#[test]
fn listening_is_announced_only_when_the_process_will_run() {
    let scratch = Scratch::new();
    let (far_home, near_home) = (scratch.file("far"), scratch.file("near"));
    let far = Seaprox::start_with(&["link", "--listen", "127.0.0.1:0", "--config-dir", &far_home], |it| {
        at_home(it, &scratch)
    });
    kit::until("the key is printed", || far.out().len() == 2);
    let (at, key) = (far.listens(0), far.out()[1].split(' ').skip(1).collect::<Vec<_>>().join(" "));
    let args = ["socks", "--listen", "127.0.0.1:0", "--via", &at, "--config-dir", &near_home, "--peer-key", &key];
    let ran = run_with(&args, b"", |command| at_home(command, &scratch));
    assert_eq!((ran.code, String::from_utf8_lossy(&ran.out).as_ref()), (Some(77), ""), "{}", ran.err);
    // The process waits for a peer that refuses the connection or stays silent, and prints its listening line.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for peer in [format!("127.0.0.1:{}", kit::closed_port()), silent.local_addr().unwrap().to_string()] {
        let args = ["socks", "--listen", "127.0.0.1:0", "--via", &peer, "--config-dir", &near_home, "--peer-key", &key];
        let near = Seaprox::start_with(&args, |command| at_home(command, &scratch));
        assert_eq!(near.out().len(), 1);
    }
    // With an admitted key, the addresses are announced before the link is reported up.
    let own = run(&["pubkey", &format!("{near_home}/key")]).out;
    std::fs::write(format!("{far_home}/authorized_keys"), own).unwrap();
    far.signal(libc::SIGHUP);
    far.wait_for_log(&["keys read again"]);
    let near = Seaprox::start_with(&args, |command| at_home(command, &scratch));
    kit::until("the link is up", || near.out().len() == 2);
    assert!(near.out()[1].starts_with("link up "), "{:?}", near.out());
}

#[test]
fn a_silent_link_peer_is_closed_after_the_handshake_timeout() {
    let scratch = Scratch::new();
    let args = ["link", "--listen", "127.0.0.1:0", "--handshake-timeout", "200ms"];
    let node = Seaprox::start_with(&args, |command| at_home(command, &scratch));
    let (since, mut silent) = (std::time::Instant::now(), std::net::TcpStream::connect(node.addr(0)).unwrap());
    silent.set_read_timeout(Some(kit::SOON)).unwrap();
    assert_eq!(std::io::Read::read(&mut silent, &mut [0]).ok(), Some(0));
    assert!(since.elapsed() < std::time::Duration::from_secs(4), "not the five seconds of the default");
    node.wait_for_log(&["handshake_timeout"]);
}

#[test]
fn a_local_port_in_use_ends_the_process_with_69() {
    let scratch = Scratch::new();
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = holder.local_addr().unwrap();
    for line in [
        format!("link --connect 127.0.0.1:1 -L {addr}:db:5432"),
        format!("link --connect 127.0.0.1:1 -D {addr}"),
        format!("link --connect 127.0.0.1:1 -H {addr}"),
        format!("link --listen {addr}"),
        format!("static --listen {addr} --to db:5432 --via 127.0.0.1:1"),
    ] {
        let ran = refused(&scratch, &line);
        assert_eq!(ran.code, Some(69), "{line}: {}", ran.err);
        assert!(ran.err.contains(&format!("cannot listen on {addr}")), "{line}: {}", ran.err);
    }
}

#[test]
fn a_carrier_that_this_system_lacks_ends_the_process_with_78_and_its_name() {
    if seaprox::node::CarrierKind::Sctp.is_available() {
        println!("skipped: this system has SCTP");
        return;
    }
    let scratch = Scratch::new();
    for line in ["link --listen 127.0.0.1:0", "link --connect 127.0.0.1:1", "socks --listen 0 --via 127.0.0.1:1"] {
        let ran = refused(&scratch, &format!("{line} --carrier sctp"));
        assert_eq!(ran.code, Some(78), "{line}: {}", ran.err);
        // Beside it, the log may say that no key is authorized.
        let about = ran.err.lines().filter(|line| line.contains("SCTP")).collect::<Vec<_>>();
        assert!(
            about.len() == 1 && about[0].contains("--carrier sctp: this system has no SCTP"),
            "{line}: {}",
            ran.err
        );
    }
}

/// The pauses double up to the longest one. With the default of 15 s the sixteenth dial comes after more than 45 s.
#[test]
fn link_retry_max_limits_the_pause_between_redials() {
    let scratch = Scratch::new();
    let peer = format!("127.0.0.1:{}", kit::closed_port());
    let words = ["link", "--connect", &peer, "--link-retry-max", "100ms"];
    let node = Seaprox::spawn(&words, |command| at_home(command, &scratch));
    node.wait_for_log(&["no subflow: connection_refused", "tries=16"]);
}

/// With a server that drops SYNs or accepts and stays silent, `-W` and `cat --via` ended with 75, as after a lost link.
#[test]
fn a_silent_link_server_ends_with_69() {
    let scratch = Scratch::new();
    let accepts = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let swallows = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    swallows.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    swallows.listen(0).unwrap();
    let full = swallows.local_addr().unwrap().as_socket().unwrap();
    // The backlog has room for one connection. Further SYNs get no answer.
    let _waiting = std::net::TcpStream::connect(full).unwrap();
    let silent = accepts.local_addr().unwrap();
    let scratch = &scratch;
    std::thread::scope(|scope| {
        for (line, addr, reason) in [
            (format!("cat --via {full} db 5432"), full, "timed_out"),
            (format!("link --connect {full} -W db:5432"), full, "timed_out"),
            (format!("cat --via {silent} db 5432"), silent, "handshake_timeout"),
            (format!("link --connect {silent} --handshake-timeout 400ms -W db:5432"), silent, "handshake_timeout"),
        ] {
            scope.spawn(move || {
                let ran = refused(scratch, &format!("{line} --connect-timeout 300ms"));
                assert_eq!(ran.code, Some(69), "{line}: {}", ran.err);
                assert!(ran.err.contains(&format!("no link with {addr}: {reason}")), "{line}: {}", ran.err);
                assert!(ran.out.is_empty());
            });
        }
    });
}

#[test]
fn status_says_why_a_link_is_not_up_and_the_log_shows_no_key_as_bytes() {
    let scratch = Scratch::new();
    let (far_home, near_home) = (scratch.file("far"), scratch.file("near"));
    let (far_key, near_key) = (generate_key(&far_home), generate_key(&near_home));
    std::fs::write(format!("{far_home}/authorized_keys"), format!("permit-open=\"*\" {near_key}\n")).unwrap();
    let start = |peer: &str, more: &[&str]| {
        let args =
            ["socks", "--listen", "127.0.0.1:0", "--via", peer, "--config-dir", &near_home, "--peer-key", &far_key];
        Seaprox::start(&[&args, more].concat())
    };
    let peer = format!("127.0.0.1:{}", kit::closed_port());
    let near = start(&peer, &["--mode", "single"]);
    let mut said = String::new();
    kit::until("the node has dialed several times", || {
        said = near.status_text();
        said.contains("tries ") && !said.contains("tries 0") && !said.contains("tries 1,")
    });
    let lines: Vec<_> = said.lines().filter(|line| line.contains(&peer)).collect();
    assert!(lines[0].starts_with(&format!("link 0.1 to {peer} connecting for ")), "{said}");
    assert!(lines[0].contains(": connection_refused: ") && lines[0].ends_with("s ago"), "{said}");
    assert!(
        lines[1].starts_with(&format!("  missing {peer} tries ")) && lines[1].contains("connection_refused"),
        "{said}"
    );
    // The status of a link that is up: its mode, the observed address, and no rate before there is one.
    let far = Seaprox::start(&["link", "--listen", "127.0.0.1:0", "--config-dir", &far_home]);
    let near = start(&far.listens(0), &["-v"]);
    kit::until("the link is up", || near.status().pointer("/links/0/state").is_some_and(|state| state == "up"));
    near.wait_for_log(&["DEBUG seaprox::link link link=0.1", "event=up", "key=SHA256:"]);
    assert_eq!(near.count_log(&["[1", ", 2"]) + near.count_log(&["key: ["]), 0, "{:?}", near.log());
    kit::until("the observed address is known", || {
        near.status().pointer("/links/0/subflows/0/seen_as").is_some_and(|seen| seen.is_string())
    });
    let link = near.status()["links"][0].clone();
    assert_eq!(
        (&link["mode"], &link["failure"], &link["missing"]),
        (&"stripe".into(), &serde_json::Value::Null, &serde_json::json!([]))
    );
    assert!(link["session_seconds"].is_f64() && link["memory_sent_bytes"].is_u64(), "{link}");
    assert!(link["subflows"][0]["rate_bytes_per_second"].is_null(), "{link}");
}
