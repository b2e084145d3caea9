//! Ends of tunnels that are a Unix socket, a file or a command, with the real binary at both ends of the link (TN-61).

use crate::kit;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Stdio;
use std::thread;

use kit::link::Keys;
use kit::seaprox::command;
use kit::{SOON, Seaprox, has, proc, run, until};

/// Two nodes: the far one has ends, and the near one has a forward to one of them.
pub struct Tunnel {
    _keys: Keys,
    pub far: Seaprox,
    pub near: Seaprox,
}

impl Tunnel {
    /// Starts both. `end` is the rule of the near node's key, and the forward goes to the end with that name.
    #[track_caller]
    pub fn to(keys: Keys, end: &str) -> Tunnel {
        let name = end.split('=').next().expect("a name");
        keys.permit(Some(&format!("name=\"joe\",permit-end=\"{end}\"")));
        Tunnel::named(keys, name, &[])
    }

    /// Starts both with the permissions that there are.
    #[track_caller]
    pub fn named(keys: Keys, name: &str, far_options: &[&str]) -> Tunnel {
        let far = keys.start_far(far_options);
        let near = near(&keys, &far, &["-L", &format!("0:end:{name}")]);
        Tunnel { _keys: keys, far, near }
    }

    /// Connects a client.
    pub fn client(&self) -> TcpStream {
        let client = TcpStream::connect(self.near.addr(0)).expect("a listener");
        client.set_read_timeout(Some(SOON)).expect("a socket");
        client
    }

    /// Sends bytes and their end through the tunnel. Returns what comes back.
    pub fn exchange(&self, bytes: &[u8]) -> Vec<u8> {
        let mut client = self.client();
        client.write_all(bytes).expect("an open connection");
        client.shutdown(Shutdown::Write).expect("an open connection");
        let mut back = Vec::new();
        client.read_to_end(&mut back).expect("an orderly end");
        back
    }
}

/// Starts the node that dials the far one.
#[track_caller]
pub fn near(keys: &Keys, far: &Seaprox, options: &[&str]) -> Seaprox {
    let addr = far.listens(0);
    let via = keys.via(&addr);
    let via: Vec<_> = via.iter().skip(2).map(String::as_str).collect();
    Seaprox::start(&[&["link", "--connect", &addr], &via[..], options].concat())
}

/// Waits until the peer listens for the only remote forward of a node. Returns the port.
fn remote_port(near: &Seaprox) -> u16 {
    let port = || -> Option<u16> {
        let lines = near.out();
        lines.iter().find_map(|line| line.strip_prefix("listening remote ")?.split_once(" -> ")?.0.parse().ok())
    };
    until("the peer listens", || port().is_some());
    port().expect("a port")
}

/// Writes a program.
pub fn program(keys: &Keys, name: &str, text: &str) -> String {
    let path = keys.write(name, text);
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("a file of ours");
    path
}

/// A server on a Unix socket, which sends the bytes of one client back.
fn echo_once(path: &str) -> thread::JoinHandle<()> {
    let listener = UnixListener::bind(path).expect("a path of ours");
    thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("a client");
        let mut bytes = Vec::new();
        client.read_to_end(&mut bytes).expect("bytes and their end");
        client.write_all(&bytes).expect("an open connection");
    })
}

#[test]
fn a_tunnel_ends_at_a_unix_socket_that_a_rule_names() {
    let keys = Keys::new();
    let path = keys.write("server", "");
    fs::remove_file(&path).unwrap();
    let server = echo_once(&path);
    let tunnel = Tunnel::to(keys, &format!("server=unix:{path}"));
    if has("ncat") {
        let addr = tunnel.near.addr(0);
        let mut ncat = std::process::Command::new("ncat");
        ncat.args([&addr.ip().to_string(), &addr.port().to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut ncat = ncat.spawn().unwrap();
        ncat.stdin.take().unwrap().write_all(b"hello\n").unwrap();
        assert_eq!(ncat.wait_with_output().unwrap().stdout, b"hello\n");
    } else {
        assert_eq!(tunnel.exchange(b"hello\n"), b"hello\n");
    }
    server.join().unwrap();
    tunnel.far.wait_for_log(&["closed", "end[server]", "user=joe"]);
}

#[test]
fn a_tunnel_ends_at_a_command_whose_input_and_output_it_is() {
    let tunnel = Tunnel::to(Keys::new(), "echo=command:/bin/cat");
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    assert!(tunnel.exchange(&bytes) == bytes, "the bytes differ");
    tunnel.far.wait_for_log(&["command ended", "end=echo", "peer=joe", "exit status: 0"]);
    assert_eq!(tunnel.exchange(b"again"), b"again");
}

#[test]
fn a_command_that_does_not_read_its_input_gives_all_of_its_output_and_an_orderly_end() {
    let tunnel = Tunnel::to(Keys::new(), "count=command:/usr/bin/seq 1 100000");
    let mut expected = String::new();
    (1..=100_000).for_each(|number| expected.push_str(&format!("{number}\n")));
    let mut client = tunnel.client();
    client.write_all(&[b'x'; 20_000]).unwrap();
    let mut output = Vec::new();
    client.read_to_end(&mut output).unwrap();
    assert!(output == expected.as_bytes(), "{} bytes", output.len());
}

#[test]
fn a_command_has_the_arguments_of_its_rule_and_an_environment_without_words_of_the_peer() {
    let keys = Keys::new();
    let show = program(&keys, "show", "#!/bin/sh\nprintf '[%s]' \"$@\"; echo; pwd; env; ls /proc/self/fd\n");
    let tunnel = Tunnel::to(keys, &format!("show=command:{show} 'a b' $HOME ;x"));
    let output = String::from_utf8(tunnel.exchange(b"words of the peer")).unwrap();
    let mut lines = output.lines();
    assert_eq!((lines.next(), lines.next()), (Some("[a b][$HOME][;x]"), Some("/")), "{output}");
    let (variables, descriptors): (Vec<&str>, Vec<&str>) = lines.partition(|line| line.contains('='));
    let names = ["PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "PWD", "OLDPWD", "SHLVL", "_"];
    for variable in &variables {
        let (name, value) = variable.split_once('=').unwrap();
        match name {
            "SEAPROX_END" => assert_eq!(value, "show"),
            "SEAPROX_PEER_NAME" => assert_eq!(value, "joe"),
            "SEAPROX_PEER_KEY" => assert!(value.starts_with("SHA256:"), "{value}"),
            _ => assert!(names.contains(&name), "{variable}"),
        }
    }
    assert_eq!(variables.iter().filter(|variable| variable.starts_with("SEAPROX_")).count(), 3);
    // The listing itself has the fourth.
    assert_eq!(descriptors, ["0", "1", "2", "3"]);
}

/// The loop that starts it has one processor.
#[test]
fn a_command_runs_on_the_processors_of_the_process_and_not_on_that_of_the_loop() {
    let keys = Keys::new();
    keys.permit(Some("name=\"joe\",permit-end=\"cpus=command:/bin/grep Cpus_allowed_list: /proc/self/status\""));
    let tunnel = Tunnel::named(keys, "cpus", &["--cpu", &proc::own_cpus()[0].to_string()]);
    let output = String::from_utf8(tunnel.exchange(b"")).unwrap();
    let own = fs::read_to_string("/proc/self/status").unwrap();
    assert_eq!(Some(output.trim_end()), own.lines().find(|line| line.starts_with("Cpus_allowed_list:")));
}

#[test]
fn a_command_that_cannot_be_started_is_told_to_both_nodes() {
    let tunnel = Tunnel::to(Keys::new(), "none=command:/nonexistent/program");
    let mut byte = [0];
    assert!(!matches!(tunnel.client().read(&mut byte), Ok(1)));
    tunnel.near.wait_for_log(&["closed", "end[none]", "reason=other", "No such file"]);
    let line = tunnel.far.wait_for_log(&["cannot be opened", "end=none", "kind=command"]);
    assert!(line.contains("WARN"), "{line}");
}

#[test]
fn an_end_is_reached_by_standard_input_and_output_and_by_a_listener_on_a_unix_socket() {
    let keys = Keys::new();
    keys.permit(Some("permit-end=\"echo=command:/bin/cat\""));
    let far = keys.start_far(&[]);
    let addr = far.listens(0);
    let via = keys.via(&addr);
    let via: Vec<_> = via.iter().skip(2).map(String::as_str).collect();
    let args = [&["link", "--connect", &addr, "-W", "end:echo"], &via[..]].concat();
    let mut child = command(&args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"hello").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"hello"[..]));
    let path = keys.write("socket", "");
    fs::remove_file(&path).unwrap();
    let _near = near(&keys, &far, &["-L", &format!("unix:{path}:end:echo")]);
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(b"again").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut back = String::new();
    client.read_to_string(&mut back).unwrap();
    assert_eq!(back, "again");
}

#[test]
fn a_remote_forward_ends_at_an_end_of_its_own_node() {
    let keys = Keys::new();
    keys.permit(Some("permit-listen=\"*\""));
    let far = keys.start_far(&[]);
    let near = near(&keys, &far, &["-R", "0:end:echo", "--permit-end", "echo=command:/bin/cat"]);
    let port = remote_port(&near);
    let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    client.write_all(b"hello").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut back = String::new();
    client.read_to_string(&mut back).unwrap();
    assert_eq!(back, "hello");
}

#[test]
fn the_content_of_a_file_is_sent_and_then_its_end() {
    let keys = Keys::new();
    let bytes: Vec<u8> = (0..2_000_000_u32).map(|number| (number % 241) as u8).collect();
    let file = keys.write("film", &bytes);
    let tunnel = Tunnel::to(keys, &format!("film=read:{file}"));
    let mut client = tunnel.client();
    client.write_all(b"not read by anybody").unwrap();
    let mut back = Vec::new();
    client.read_to_end(&mut back).unwrap();
    assert!(back == bytes, "the bytes differ");
}

#[test]
fn the_bytes_of_a_peer_are_appended_to_a_file_up_to_its_size() {
    let keys = Keys::new();
    let file = keys.write("log", "first\n");
    let tunnel = Tunnel::to(keys, &format!("log=append,size=20B:{file}"));
    assert_eq!(tunnel.exchange(b"second\n"), b"");
    assert_eq!(fs::read_to_string(&file).unwrap(), "first\nsecond\n", "the end tells that all bytes are there");
    let mut client = tunnel.client();
    client.write_all(b"much too long\n").unwrap();
    let mut byte = [0];
    // The end is a reset, so that the sender does not take it for a success.
    assert!(client.read(&mut byte).is_err());
    tunnel.far.wait_for_log(&["the end has failed", "end=log", "reason=limit_reached", "20B"]);
    tunnel.near.wait_for_log(&["closed", "end[log]", "limit_reached"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "first\nsecond\nmuch to");
}

#[test]
fn a_file_is_created_only_by_rule_and_only_a_regular_file_is_opened() {
    let keys = Keys::new();
    let directory = Path::new(&keys.far_dir()).to_owned();
    let path = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    fs::write(path("real"), "text").unwrap();
    symlink(path("real"), path("symlink")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(path("pipe")).status().unwrap();
    assert!(made.success());
    let ends = [
        format!("name=\"joe\",permit-end=\"none=append:{}\"", path("none")),
        format!("permit-end=\"new=append,create:{}\"", path("new")),
        format!("permit-end=\"symlink=read:{}\",permit-end=\"into=append:{}\"", path("symlink"), path("symlink")),
        format!("permit-end=\"pipe=read:{}\",permit-end=\"folder=read:{}\"", path("pipe"), directory.display()),
    ];
    keys.permit(Some(&ends.join(",")));
    let far = keys.start_far(&[]);
    let names = ["new", "none", "symlink", "into", "pipe", "folder"];
    let forwards: Vec<String> =
        names.iter().flat_map(|name| ["-L".to_owned(), format!("127.0.0.1:0:end:{name}")]).collect();
    let near = near(&keys, &far, &forwards.iter().map(String::as_str).collect::<Vec<_>>());
    for (index, name) in names.iter().enumerate() {
        let mut client = TcpStream::connect(near.addr(index)).unwrap();
        // An end that is refused resets the client, maybe before it has sent.
        let sent = client.write_all(b"bytes").and_then(|()| client.shutdown(Shutdown::Write));
        let ended = client.read_to_string(&mut String::new());
        if *name == "new" {
            assert!(sent.is_ok() && ended.is_ok(), "{sent:?} {ended:?}");
            assert_eq!(fs::read_to_string(path("new")).unwrap(), "bytes");
            assert_eq!(fs::metadata(path("new")).unwrap().permissions().mode() & 0o777, 0o600);
        } else {
            far.wait_for_log(&["cannot be opened", &format!("end={name}")]);
        }
    }
    assert!(!Path::new(&path("none")).exists() && fs::read_to_string(path("real")).unwrap() == "text");
}

#[test]
fn a_server_has_ends_for_all_of_its_keys() {
    let keys = Keys::new();
    let file = keys.write("motd", "welcome\n");
    let end = format!("motd=read:{file}");
    let tunnel = Tunnel::named(keys, "motd", &["--permit-end", &end]);
    assert_eq!(tunnel.exchange(b""), b"welcome\n");
    let wrong = run(&["link", "--listen", "0", "--permit-end", "motd=read:etc"]);
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
    assert!(wrong.err.contains("expected an absolute path"), "{wrong:?}");
}

#[test]
fn the_file_of_configuration_has_ends_of_links_and_servers() {
    let keys = Keys::new();
    let motd = keys.write("motd", "welcome\n");
    let directory = keys.far_dir();
    let text = format!(
        "config-dir = \"{directory}\"\n[[serve]]\nlisten = \"127.0.0.1:0\"\npermit-end = [\"motd=read:{motd}\", \"echo=command,max=2:/bin/cat\"]\n"
    );
    let file = keys.write("far.toml", text);
    let far = Seaprox::start(&["run", &file]);
    let near = near(&keys, &far, &["-L", "0:end:motd"]);
    let mut back = String::new();
    TcpStream::connect(near.addr(0)).unwrap().read_to_string(&mut back).unwrap();
    assert_eq!(back, "welcome\n");
    until("the end is open no more", || far.figure("/usage/connections") == 0);
}
