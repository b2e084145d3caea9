//! `seaprox run FILE.toml` and `seaprox check FILE.toml` (BS-19).

use crate::kit;

use std::io::Read;
use std::net::{TcpListener, TcpStream};

use kit::Step::*;
use kit::link::generate_key;
use kit::peer::both;
use kit::{Peer, Scratch, Seaprox, run, run_with};

/// Writes a file that only its owner can change. Returns its path.
fn write(scratch: &Scratch, name: &str, text: &str) -> String {
    let path = scratch.write(name, text);
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    path
}

/// Connects to an address, and checks that bytes pass to the target in both directions.
#[track_caller]
fn assert_relays(to: std::net::SocketAddr, target: &TcpListener) {
    let mut client = Peer::connect(to);
    let mut server = Peer::accept(target);
    both(&mut client, &[Put(b"ping"), Take(b"pong")], &mut server, &[Take(b"ping"), Put(b"pong")]);
}

#[test]
fn one_file_runs_listeners_links_and_forwards_in_one_process() {
    let scratch = Scratch::new();
    let [near_key, far_key] = ["near", "far"].map(|name| generate_key(&scratch.file(name)));
    write(&scratch, "far/authorized_keys", &format!("permit-open=\"127.0.0.1:*\",permit-listen=\"*\" {near_key}\n"));
    let far = write(
        &scratch,
        "far.toml",
        "config-dir = \"far\"\n[[serve]]\nname = \"gate\"\nlisten = \"127.0.0.1:0\"\nauthorized-keys = \"far/authorized_keys\"\n",
    );
    let far = Seaprox::start(&["run", &far]);
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = target.local_addr().unwrap().port();
    let text = format!(
        r#"
threads = 2
config-dir = "near"
log-format = "json"
[defaults]
connect-timeout = "5s"
[[listener]]
name = "web"
listen = "127.0.0.1:0"
front = "static"
to = "127.0.0.1:{port}"
[[listener]]
name = "over"
listen = "127.0.0.1:0"
front = "static"
to = "127.0.0.1:{port}"
via = "office"
[[listener]]
name = "denied"
listen = "127.0.0.1:0"
front = "static"
to = "127.0.0.1:{port}"
deny = "*"
[[link]]
name = "office"
connect = "{}"
peer-key = "{far_key}"
forward = [
  {{ local = "127.0.0.1:0:127.0.0.1:{port}", name = "db" }},
  {{ remote = "127.0.0.1:0:127.0.0.1:{port}" }},
]
"#,
        far.addr(0)
    );
    let near = Seaprox::start(&["run", &write(&scratch, "near.toml", &text)]);
    near.addr(3);
    let status = near.status();
    let listeners = status["listeners"].as_array().unwrap();
    let names: Vec<_> = listeners.iter().map(|it| it["name"].as_str().unwrap()).collect();
    for name in ["web", "over", "denied"] {
        let listener = listeners.iter().find(|it| it["name"] == name).unwrap_or_else(|| panic!("{name} in {names:?}"));
        let to = listener["address"].as_str().unwrap().parse().unwrap();
        if name == "denied" {
            assert_eq!(TcpStream::connect(to).unwrap().read(&mut [0]).unwrap_or(0), 0, "the rule denies each client");
        } else {
            assert_relays(to, &target);
        }
    }
    // The peer of a remote forward answers, and each forward is known by its name.
    for name in ["db", "127.0.0.1:0"] {
        let mut bound = String::new();
        kit::until("the forward listens", || {
            let status = near.status();
            let forwards = status["forwards"].as_array().unwrap();
            let forward = forwards.iter().find(|it| it["name"] == name).unwrap_or_else(|| panic!("{forwards:#?}"));
            bound = forward["bound"][0].as_str().unwrap_or_default().to_owned();
            !bound.is_empty()
        });
        assert_relays(bound.parse().unwrap(), &target);
    }
    kit::until("the log is JSON", || near.log().iter().any(|line| line.starts_with('{')));
}

#[test]
fn a_file_with_errors_is_refused_with_all_of_them() {
    let scratch = Scratch::new();
    let path = write(&scratch, "bad.toml", "threads = 0\n[[listener]]\nfront = \"sokcs\"\nlisten = \"127.0.0.1:0\"\n");
    let expected = format!(
        "{path}:1:11: threads: found \"0\", expected a number from 1 to 1024\n\
         {path}:3:9: front: found \"sokcs\", expected static or socks or http or redirect; did you mean socks?\n"
    );
    for command in ["check", "run"] {
        let ran = run(&[command, &path]);
        assert_eq!((ran.code, ran.out.len()), (Some(78), 0), "{ran:?}");
        assert_eq!(ran.err, expected);
    }
    let ran = run(&["check", &scratch.file("none.toml")]);
    assert_eq!(ran.code, Some(78), "{ran:?}");
    assert!(ran.err.starts_with(&format!("{}:1:1: ", scratch.file("none.toml"))), "{}", ran.err);
    let ran = run(&["run"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    let ran = run(&["check", &path, "--threads", "x"]);
    assert_eq!(ran.code, Some(2), "a wrong option is an error of usage: {ran:?}");
}

#[test]
fn an_error_at_the_start_names_the_position_of_its_record() {
    let scratch = Scratch::new();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap();
    let listener = |extra: &str| format!("# A listener.\n[[listener]]\nname = \"a\"\nfront = \"socks\"\n{extra}\n");
    let path = write(&scratch, "taken.toml", &listener(&format!("listen = \"{taken}\"")));
    let ran = run(&["run", &path, "--status", "none"]);
    assert_eq!(ran.code, Some(69), "{ran:?}");
    assert!(ran.err.contains(&format!("{path}:5:10: listener \"a\": listen: cannot listen on {taken}")), "{}", ran.err);
    let path = write(&scratch, "users.toml", &listener("listen = \"127.0.0.1:0\"\nusers = \"none.users\""));
    let ran = run(&["run", &path, "--status", "none"]);
    assert_eq!(ran.code, Some(78), "{ran:?}");
    assert!(ran.err.contains(&format!("{path}:2:1: listener \"a\": --users: ")), "{}", ran.err);
}

#[test]
fn check_reads_the_files_of_keys_users_secrets_and_tokens_and_binds_nothing() {
    let scratch = Scratch::new();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap();
    let head = format!("config-dir = \"etc\"\n[[serve]]\nname = \"gate\"\nlisten = \"{taken}\"\n");
    for (name, content, line, code) in [
        ("keys", "garbage\n", "authorized-keys = \"keys\"", "keys:1: "),
        ("users", "joe\n", "[[listener]]\nlisten = 0\nfront = \"socks\"\nusers = \"users\"", "users:1: "),
        ("paths", "nowhere%%\n", "[[link]]\nconnect = \"127.0.0.1:1\"\npaths = \"paths\"", "paths:1: "),
    ] {
        write(&scratch, name, content);
        let path = write(&scratch, "bad.toml", &format!("{head}{line}\n"));
        let ran = run(&["check", &path]);
        assert_eq!(ran.code, Some(78), "{ran:?}");
        assert!(ran.err.contains("bad.toml:") && ran.err.contains(code), "{}", ran.err);
    }
    for (key, name, content) in [("secret", "secret", ""), ("admin-token-file", "token", "short")] {
        write(&scratch, name, content);
        let path = write(&scratch, "bad.toml", &format!("{key} = \"{name}\"\n{head}"));
        let ran = run(&["check", &path]);
        assert_eq!(ran.code, Some(78), "{ran:?}");
        assert!(ran.err.contains(name), "{}", ran.err);
    }
    let path = write(&scratch, "good.toml", &head);
    let ran = run(&["check", &path]);
    assert_eq!(ran.code, Some(0), "the address is in use, and is not bound: {ran:?}");
    assert!(!std::path::Path::new(&scratch.file("etc")).exists(), "no key is created");
}

#[test]
fn a_flag_precedes_the_environment_and_the_environment_the_file() {
    let scratch = Scratch::new();
    let text = "workers = 3\n[defaults]\nidle-timeout = \"3s\"\n[[listener]]\nfront = \"socks\"\n\
                [[listener]]\nlisten = 1\nfront = \"http\"\nidle-timeout = \"4s\"\n";
    let path = write(&scratch, "seaprox.toml", text);
    let printed = |args: &[&str]| {
        let args = [&["check", "--print", &path], args].concat();
        let ran =
            run_with(&args, b"", |command| _ = command.env("SEAPROX_IDLE_TIMEOUT", "5s").env("SEAPROX_THREADS", "2"));
        assert_eq!(ran.code, Some(0), "{ran:?}");
        String::from_utf8(ran.out).unwrap()
    };
    let lines = |text: &str, key: &str| -> Vec<String> {
        text.lines().filter(|line| line.starts_with(key)).map(str::to_owned).collect()
    };
    let of_environment = printed(&[]);
    assert_eq!(lines(&of_environment, "threads"), ["threads = 2"]);
    assert_eq!(lines(&of_environment, "idle-timeout"), ["idle-timeout = \"5s\"", "idle-timeout = \"4s\""]);
    let of_flags = printed(&["--idle-timeout", "6s", "--workers", "4"]);
    assert_eq!(lines(&of_flags, "workers"), ["workers = 4"]);
    assert_eq!(lines(&of_flags, "idle-timeout"), ["idle-timeout = \"6s\"", "idle-timeout = \"4s\""]);
    let again = write(&scratch, "printed.toml", &of_flags);
    let ran = run(&["check", "--print", &again]);
    assert_eq!(String::from_utf8(ran.out).unwrap(), of_flags, "the printed file means the same");
}

#[test]
fn names_of_listeners_links_and_forwards_are_known_to_status_and_log() {
    let scratch = Scratch::new();
    let [near_key, far_key] = ["near", "far"].map(|name| generate_key(&scratch.file(name)));
    write(&scratch, "far/authorized_keys", &format!("permit-open=\"127.0.0.1:*\" {near_key}\n"));
    let far = Seaprox::start(&["link", "--listen", "127.0.0.1:0", "--config-dir", &scratch.file("far")]);
    let target = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = target.local_addr().unwrap();
    let (port, near_config, local) =
        (far.addr(0).port().to_string(), scratch.file("near"), format!("127.0.0.1:0:{to}"));
    let args = [
        "link",
        "127.0.0.1",
        "-N",
        "-p",
        &port,
        "--name",
        "office",
        "-L",
        &local,
        "--name",
        "quinn",
        "--peer-key",
        &far_key,
    ];
    let near = Seaprox::start(&[&args[..], &["--config-dir", &near_config]].concat());
    assert_relays(near.addr(0), &target);
    let status = near.status();
    assert_eq!(status["forwards"][0]["name"], "quinn", "{status:#}");
    assert_eq!(status["links"][0]["name"], "office", "{status:#}");
    near.wait_for_log(&["seaprox::connection closed", "listener=quinn"]);
}
