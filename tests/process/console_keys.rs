//! The keys of peers at the console (TN-03, TN-58): unknown, accepted, changed, and taken back while it runs.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt;

use super::console::{end, out, start};
use crate::kit::link::generate_key;
use crate::kit::program::Program;
use crate::kit::{Ran, Scratch, run};

/// Starts a console that listens, and admits the key of a line. Returns it and its port.
#[track_caller]
fn listen(config: &str, line: &str) -> (Program, u16) {
    let code = format!(
        "allow('{line}')
        l = listen(0, '127.0.0.1')
        assert(wait(l, 60), tostring(l))
        print(l:local_port())"
    );
    let mut console = start(&["--config-dir", config, "-e", &code]);
    let port = console.first_line().trim().parse().unwrap();
    (console, port)
}

fn execute(config: &str, code: &str) -> Ran {
    run(&["console", "--config-dir", config, "-e", code])
}

#[test]
fn a_key_that_is_not_known_is_refused_until_the_user_trusts_it() {
    let scratch = Scratch::new();
    let [near, far] = ["near", "far"].map(|name| scratch.file(name));
    let (own, other) = (generate_key(&near), generate_key(&scratch.file("other")));
    let (mut console, port) = listen(&far, &format!("{own} joe"));
    let code = format!(
        "tc = connect('127.0.0.1', {port})
        assert(not wait(tc))
        state, reason = status(tc)
        print(state, (reason:gsub('SHA256:[%w+/]+', 'KEY')))
        trust(tc)
        assert(wait(tc, 60), tostring(tc))
        print(reason:find(tc:fingerprint(), 1, true) ~= nil, (pcall(trust, tc)))
        close(tc)"
    );
    let ran = execute(&near, &code);
    let lines = out(&ran);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(lines[0], "ERROR\tauth_failed: the key of the peer is not known: KEY; trust(tc) accepts it");
    assert_eq!(lines[1], "true\tfalse");
    // It is known from now on.
    let known = execute(&near, &format!("tc = connect('127.0.0.1', {port}) print(wait(tc, 60)) close(tc)"));
    assert_eq!(out(&known), ["true"], "{}", known.err);
    // Another node in the place of the known one is not accepted by a word.
    let file = near.clone() + "/known_nodes";
    let changed: Vec<String> = (fs::read_to_string(&file).unwrap().lines())
        .map(|line| match line.split_once(" seaprox-ed25519 ") {
            Some((node, _)) => format!("{node} {other}\n"),
            None => line.to_owned() + "\n",
        })
        .collect();
    fs::write(&file, changed.concat()).unwrap();
    let code = format!(
        "tc = connect('127.0.0.1', {port})
        assert(not wait(tc))
        print(select(2, status(tc)):find('THE KEY OF THE PEER HAS CHANGED', 1, true) ~= nil, (pcall(trust, tc)))
        close(tc)"
    );
    let ran = execute(&near, &code);
    assert_eq!(out(&ran), ["true\tfalse"], "{}", ran.err);
    assert!(end(&mut console, libc::SIGTERM).success());
}

#[test]
fn a_key_that_is_taken_back_ends_its_link_and_one_that_is_added_may_link() {
    let scratch = Scratch::new();
    let [near, far] = ["near", "far"].map(|name| scratch.file(name));
    let (own, peer) = (generate_key(&near), generate_key(&far));
    let (mut listener, port) = listen(&far, &own);
    let known = scratch.write("near/known_nodes", format!("127.0.0.1:{port} {peer}\n"));
    fs::set_permissions(known, PermissionsExt::from_mode(0o600)).unwrap();
    let code = format!(
        "tc = connect('127.0.0.1', {port})
        on(tc, 'connected', function() print('connected') end)
        on(tc, 'error', function(_, reason) print(reason) end)"
    );
    let mut console = start(&["--config-dir", &near, "-e", &code]);
    let mut lines = BufReader::new(console.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "connected");
    // The files of a running console are read when they change.
    fs::write(far.clone() + "/authorized_keys", "# none\n").unwrap();
    assert!(lines.next().unwrap().contains("admit"));
    fs::write(far.clone() + "/authorized_keys", format!("{own}\n")).unwrap();
    lines.find(|line| line == "connected").unwrap();
    assert!(end(&mut console, libc::SIGTERM).success());
    assert!(end(&mut listener, libc::SIGTERM).success());
}

#[test]
fn a_line_that_is_no_key_is_refused_with_what_is_wrong_in_it() {
    let scratch = Scratch::new();
    for (line, error) in [("'joe'", "line:"), ("1", "expected a line of authorized_keys, not integer")] {
        let ran = execute(&scratch.file("config"), &format!("allow({line})"));
        assert!(ran.code == Some(1) && ran.err.contains(error), "{line}: {}", ran.err);
    }
}
