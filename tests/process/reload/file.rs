//! A file that is read again: on HUP, and when it changes.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use super::world::own_addrs;
use crate::config::{Client, server};
use crate::kit::{Scratch, Seaprox, until};

/// Replaces a file, as editors and packages do it.
fn replace(path: &str, text: &str) {
    let new = format!("{path}.new");
    write(&new, text);
    std::fs::rename(&new, path).unwrap();
}

/// Writes a file in place.
fn write(path: &str, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
}

fn listener(name: &str, at: SocketAddr, to: SocketAddr) -> String {
    format!("[[listener]]\nname = \"{name}\"\nlisten = \"{at}\"\nfront = \"static\"\nto = \"{to}\"\n")
}

#[test]
fn hup_changes_what_differs_in_the_file_and_says_what() {
    let (one, two, scratch, addrs) = (server(b'1'), server(b'2'), Scratch::new(), own_addrs(3));
    let path = scratch.file("seaprox.toml");
    write(&path, &(listener("a", addrs[0], one) + &listener("b", addrs[1], one)));
    let seaprox = Seaprox::start(&["run", &path]);
    let mut kept = Client::connect(addrs[1]);
    assert_eq!(kept.ask().unwrap(), b'1');
    let changed = format!("threads = 2\n{}{}", listener("b", addrs[1], two), listener("c", addrs[2], two));
    replace(&path, &changed);
    seaprox.signal(libc::SIGHUP);
    let line = seaprox.wait_for_log(&["configuration reloaded"]);
    for part in
        ["added=\"listener \\\"c", "changed=\"listener \\\"b", "removed=\"listener \\\"a", "kept=0", "cause=signal"]
    {
        assert!(line.contains(part), "{part} in {line}");
    }
    seaprox.wait_for_log(&["changes that need a restart were not made", "fields=threads"]);
    assert_eq!((kept.ask().unwrap(), Client::connect(addrs[1]).ask().unwrap()), (b'1', b'2'));
    assert_eq!(Client::connect(addrs[2]).ask().unwrap(), b'2');
    assert!(std::net::TcpStream::connect(addrs[0]).is_err());
    // The new address is announced, and the status has those that are open now.
    until("the address is announced", || {
        seaprox.out().iter().any(|line| line.contains(&format!("static {}", addrs[2])))
    });
    let status = seaprox.status();
    let listening: Vec<&str> =
        status["listening"].as_array().unwrap().iter().filter_map(|line| line.as_str()).collect();
    assert_eq!(listening, [format!("static {} -> {two}", addrs[1]), format!("static {} -> {two}", addrs[2])]);
}

#[test]
fn an_invalid_file_changes_nothing_and_all_its_errors_are_named_with_their_positions() {
    let (one, scratch, addrs) = (server(b'1'), Scratch::new(), own_addrs(2));
    let path = scratch.file("seaprox.toml");
    write(&path, &listener("a", addrs[0], one));
    let seaprox = Seaprox::start(&["run", &path]);
    let mut client = Client::connect(addrs[0]);
    assert_eq!(client.ask().unwrap(), b'1');
    replace(&path, &(listener("b", addrs[1], one) + "colour = 1\nidle-timeout = \"soon\"\n"));
    seaprox.signal(libc::SIGHUP);
    seaprox.wait_for_log(&["nothing has changed", "seaprox.toml:6:1: colour"]);
    seaprox.wait_for_log(&["nothing has changed", "seaprox.toml:7:16: idle-timeout"]);
    // An address that is in use has its position.
    replace(&path, &(listener("a", addrs[0], one) + &listener("taken", one, one)));
    seaprox.signal(libc::SIGHUP);
    seaprox.wait_for_log(&["nothing has changed", "seaprox.toml:8:10: listener", "cannot listen on"]);
    assert_eq!((client.ask().unwrap(), Client::connect(addrs[0]).ask().unwrap()), (b'1', b'1'));
    assert_eq!(seaprox.count_log(&["configuration reloaded"]), 0);
}

#[test]
fn a_watched_file_is_read_again_when_it_or_an_included_file_changes() {
    let (one, two, scratch, addrs) = (server(b'1'), server(b'2'), Scratch::new(), own_addrs(3));
    let path = scratch.file("seaprox.toml");
    std::fs::create_dir(scratch.file("conf.d")).unwrap();
    let included = scratch.file("conf.d/b.toml");
    let whole = format!("include = [\"conf.d/*.toml\"]\n{}", listener("a", addrs[0], two));
    write(&path, &whole);
    let seaprox = Seaprox::start(&["run", "--watch", &path]);
    // A file appears in a directory without one, and is replaced.
    replace(&included, &listener("b", addrs[1], two));
    seaprox.wait_for_log(&["configuration reloaded", "cause=watch", "added=\"listener \\\"b"]);
    assert_eq!(Client::connect(addrs[1]).ask().unwrap(), b'2');
    replace(&included, &listener("b", addrs[1], one));
    seaprox.wait_for_log(&["configuration reloaded", "changed=\"listener \\\"b"]);
    // An invalid file says why once, and the next valid one is used.
    write(&path, &format!("{whole}colour = 1\n"));
    seaprox.wait_for_log(&["nothing has changed", "colour"]);
    write(&path, &format!("{whole}{}", listener("c", addrs[2], one)));
    seaprox.wait_for_log(&["configuration reloaded", "added=\"listener \\\"c"]);
    assert_eq!(seaprox.count_log(&["nothing has changed"]), 1, "{:?}", seaprox.log());
    assert_eq!([0, 1, 2].map(|place| Client::connect(addrs[place]).ask().unwrap()), [b'2', b'1', b'1']);
}

#[test]
fn a_pipe_among_the_included_files_does_not_stop_the_process_from_answering() {
    let (one, scratch, addrs) = (server(b'1'), Scratch::new(), own_addrs(1));
    let path = scratch.file("seaprox.toml");
    std::fs::create_dir(scratch.file("conf.d")).unwrap();
    write(&path, &format!("include = [\"conf.d/*.toml\"]\n{}", listener("a", addrs[0], one)));
    let seaprox = Seaprox::start(&["run", &path]);
    let pipe = std::ffi::CString::new(scratch.file("conf.d/x.toml")).unwrap();
    // SAFETY: the path ends with a zero byte and outlives the call.
    assert_eq!(unsafe { libc::mkfifo(pipe.as_ptr(), 0o600) }, 0);
    seaprox.signal(libc::SIGHUP);
    seaprox.wait_for_log(&["nothing has changed", "conf.d/x.toml: expected a regular file"]);
    std::fs::remove_file(scratch.file("conf.d/x.toml")).unwrap();
    seaprox.signal(libc::SIGHUP);
    seaprox.wait_for_log(&["configuration reloaded"]);
}
