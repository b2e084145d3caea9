//! Invitations between real processes: `seaprox invite` and `seaprox join`, their files, and what becomes of an invitation.

use crate::invite_kit::{Inviter, RawJoiner};
use crate::kit;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::thread;

use kit::{Scratch, Seaprox, Terminal, closed_port, has, run, run_with, until};
use seaprox::auth::{Invitation, InvitedOutcome};

/// Returns the last word of an invitation, which holds the secret.
fn token(line: &str) -> &str {
    line.split_ascii_whitespace().last().expect("words")
}

#[test]
fn one_line_joins_two_nodes_with_the_permissions_of_the_inviter() {
    let far = Inviter::start(&[]);
    let line = far.invite(&["--permit-open", "127.0.0.1:*", "--name", "laptop"]);
    let joined = far.join("near", &line, &[]);
    assert_eq!(joined.code, Some(0), "{}", joined.err);
    let out = String::from_utf8(joined.out).unwrap();
    let near = far.scratch.file("near");
    let fingerprint = line.split(' ').nth(2).unwrap();
    let addr = far.addr;
    assert_eq!(out, format!("joined {addr} {fingerprint}\nnext: seaprox link --connect {addr} --config-dir {near}\n"));
    let key = String::from_utf8(run(&["pubkey", "--config-dir", &near]).out).unwrap();
    assert_eq!(
        far.read("far/authorized_keys"),
        format!("permit-open=\"127.0.0.1\",name=\"laptop\" {}\n", key.trim_end())
    );
    let far_key = String::from_utf8(run(&["pubkey", "--config-dir", &far.scratch.file("far")]).out).unwrap();
    assert_eq!(far.read("near/known_nodes"), format!("{addr} {far_key}"));
    for file in ["far/authorized_keys", "far/invitations", "near/known_nodes", "near/key"] {
        assert_eq!(far.mode(file), 0o600, "{file}");
    }
    assert!(far.read("near/authorized_keys").is_empty(), "the inviter gets no permission");
    let secret = token(&line);
    assert!(!far.read("far/invitations").contains(secret), "the secret is not stored");
    assert!(!far.node.log().join("\n").contains(secret) && !joined.err.contains(secret), "nor logged");
    // The printed command works, and the permission holds.
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    let forward = format!("127.0.0.1:0:{}", service.local_addr().unwrap());
    let link = Seaprox::start(&["link", "--connect", &addr.to_string(), "--config-dir", &near, "-L", &forward]);
    let mut client = TcpStream::connect(link.addr(0)).unwrap();
    let (mut served, _) = service.accept().unwrap();
    served.write_all(b"hello").unwrap();
    let mut bytes = [0; 5];
    client.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"hello");
    far.node.wait_for_log(&["link up", "peer=laptop"]);
    assert_eq!(far.node.figure("/invitations_accepted"), 1);
}

#[test]
fn joining_a_node_that_listens_for_quic_alone_says_that_it_takes_no_tcp() {
    let scratch = Scratch::new();
    let config = scratch.file("far");
    // No other test listens on TCP at the number of this port of UDP.
    let addr = format!("127.0.0.1:{}", kit::program::free_port());
    let _node = Seaprox::start(&["link", "--listen", &addr, "--config-dir", &config, "--carrier", "quic"]);
    let invited = run(&["invite", "--config-dir", &config, "--address", &addr]);
    assert_eq!(invited.code, Some(0), "{}", invited.err);
    let joined = run_with(&["join", "--config-dir", &scratch.file("near")], &invited.out, |_| {});
    assert_eq!(joined.code, Some(69), "{}", joined.err);
    assert!(
        joined.err.contains("a node is joined over TCP, and with `--carrier quic` it listens on UDP alone"),
        "{}",
        joined.err
    );
}

#[test]
fn an_invitation_is_made_before_the_node_is_started() {
    let scratch = Scratch::new();
    let config = scratch.file("far");
    let ran = run(&["invite", "--config-dir", &config, "--address", "127.0.0.1"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let line = String::from_utf8(ran.out).unwrap();
    assert!(line.starts_with("seaprox-invitation 127.0.0.1:23232 SHA256:"), "{line}");
    // The node has the key that the invitation names, and takes the invitation at once.
    let far = Inviter::start_with(scratch, &[], |_| {});
    let invitation = Invitation::parse(line.as_bytes()).unwrap();
    let mut joiner = RawJoiner::connect(far.addr, [7; 32]).unwrap();
    let claim = joiner.claim(&invitation);
    joiner.send(&claim.encode()).unwrap();
    assert_eq!(joiner.answer(&invitation), Some(InvitedOutcome::Joined));
    assert_eq!(far.lines("far/authorized_keys").len(), 1);
}

#[test]
fn of_many_nodes_that_join_at_once_exactly_one_succeeds() {
    let far = Inviter::start(&[]);
    let line = far.invite(&[]);
    // The last use must not end the protocol while others are on their way.
    far.invite(&[]);
    let codes: Vec<_> = thread::scope(|scope| {
        let join = |number: usize| {
            let (far, line) = (&far, &line);
            scope.spawn(move || far.join(&format!("near{number}"), line, &[]).code)
        };
        let threads: Vec<_> = (0..8).map(join).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(codes.iter().filter(|code| **code == Some(0)).count(), 1, "{codes:?}");
    assert_eq!(codes.iter().filter(|code| **code == Some(77)).count(), 7, "{codes:?}");
    assert_eq!(far.lines("far/authorized_keys").len(), 1);
    let known = (0..8).filter(|number| !far.read(&format!("near{number}/known_nodes")).is_empty()).count();
    assert_eq!(known, 1, "only the joined node knows the inviter");
}

#[test]
fn a_used_or_expired_invitation_joins_nobody_and_its_holder_is_told() {
    let far = Inviter::start(&[]);
    let used = far.invite(&[]);
    assert_eq!(far.join("near", &used, &[]).code, Some(0));
    // The node has read it before it is over.
    let expired = far.invite(&["--expires", "1s"]);
    // While none is pending, the protocol is not named, as by a node of an earlier version.
    until("the last invitation has expired", || RawJoiner::connect(far.addr, [9; 32]).is_err());
    let refused = far.join("other", &used, &[]);
    assert_eq!(refused.code, Some(77), "{}", refused.err);
    assert!(refused.err.contains("does not take this invitation"), "{}", refused.err);
    // While another is pending, a proven claim is told why.
    let other = far.invite(&["--uses", "2"]);
    for (line, word) in [(&used, "was used before"), (&expired, "has expired")] {
        let refused = far.join("other", line, &[]);
        assert_eq!(refused.code, Some(77), "{}", refused.err);
        assert!(refused.err.contains(word), "{}", refused.err);
    }
    assert_eq!(far.lines("far/authorized_keys").len(), 1);
    // A node whose answer was lost may ask again, and is not counted twice.
    for _ in 0..3 {
        assert_eq!(far.join("other", &other, &[]).code, Some(0));
    }
    assert_eq!(far.lines("far/authorized_keys").len(), 2);
    let known = far.join("near", &other, &[]);
    assert!(known.code == Some(0) && known.err.contains("authorized there before"), "{}", known.err);
    assert_eq!(far.join("third", &other, &[]).code, Some(0), "the second use is left");
    assert_eq!(far.lines("far/authorized_keys").len(), 3);
}

#[test]
fn a_node_whose_key_has_expired_is_told_so_and_its_invitation_is_not_used() {
    let far = Inviter::start(&[]);
    let first = far.invite(&["--valid-for", "1s"]);
    assert_eq!(far.join("near", &first, &[]).code, Some(0));
    let lines = far.lines("far/authorized_keys");
    let second = far.invite(&[]);
    let mut told = far.join("near", &second, &[]);
    until("the key has expired", || {
        told = far.join("near", &second, &[]);
        told.code != Some(0)
    });
    assert_eq!(told.code, Some(77), "{}", told.err);
    assert!(told.err.contains("the key of this node has expired there"), "{}", told.err);
    assert_eq!(far.lines("far/authorized_keys"), lines);
    assert_eq!(far.join("other", &second, &[]).code, Some(0), "the invitation is left");
}

#[test]
fn a_withdrawn_invitation_joins_nobody() {
    let far = Inviter::start(&[]);
    let line = far.invite(&[]);
    far.invite(&[]);
    let id = Invitation::parse(line.as_bytes()).unwrap().id().to_string();
    let rest: Vec<_> = far.lines("far/invitations").into_iter().filter(|line| !line.starts_with(&id)).collect();
    assert_eq!(rest.len(), 1);
    let draft = far.scratch.write("far/new", rest.join("\n") + "\n");
    std::fs::set_permissions(&draft, PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::rename(draft, far.scratch.file("far/invitations")).unwrap();
    let refused = far.join("near", &line, &[]);
    assert_eq!(refused.code, Some(77), "{}", refused.err);
    assert!(far.lines("far/authorized_keys").is_empty());
}

#[test]
fn the_joining_node_permits_the_inviter_only_what_it_says() {
    let far = Inviter::start(&[]);
    let line = far.invite(&[]);
    let options = ["--permit-open", "db:5432", "--permit-listen", "2222", "--name", "office"];
    assert_eq!(far.join("near", &line, &options).code, Some(0));
    let far_key = String::from_utf8(run(&["pubkey", "--config-dir", &far.scratch.file("far")]).out).unwrap();
    assert_eq!(
        far.read("near/authorized_keys"),
        format!("permit-open=\"db:5432\",permit-listen=\"2222\",name=\"office\" {far_key}")
    );
}

#[test]
fn the_addresses_are_dialed_in_turn_also_names_and_ipv6() {
    let scratch = Scratch::new();
    let far = Inviter::start_with(scratch, &["--listen", "[::1]:0"], |_| {});
    let sixth = far.node.addr(1);
    let dead = format!("127.0.0.1:{}", closed_port());
    let named = format!("localhost:{}", far.addr.port());
    for (name, address) in [("named", named), ("sixth", sixth.to_string())] {
        let config = far.scratch.file("far");
        let ran = run(&["invite", "--config-dir", &config, "--address", &dead, "--address", &address]);
        let line = String::from_utf8(ran.out).unwrap();
        far.wait_until_inviting();
        let joined = far.join(name, &line, &[]);
        assert_eq!(joined.code, Some(0), "{}", joined.err);
        assert!(far.read(&format!("{name}/known_nodes")).starts_with(&format!("{address} ")));
    }
    let ran = run(&["invite", "--config-dir", &far.scratch.file("far"), "--address", &dead]);
    let unreachable = far.join("third", &String::from_utf8(ran.out).unwrap(), &[]);
    assert_eq!(unreachable.code, Some(69), "{}", unreachable.err);
    assert!(unreachable.err.contains(&dead), "{}", unreachable.err);
}

#[test]
fn an_invitation_is_read_from_a_prompt_that_does_not_show_it() {
    if !has("script") {
        return;
    }
    let far = Inviter::start(&[]);
    let line = far.invite(&[]);
    let near = far.scratch.file("near");
    let mut terminal = Terminal::start(&["join", "--config-dir", &near].map(str::to_owned), |_| {});
    terminal.wait_for("Invitation: ");
    terminal.type_line(line.trim_end());
    terminal.wait_for("joined ");
    assert_eq!(terminal.code(), Some(0));
    assert!(!terminal.shown().contains(token(&line)), "{}", terminal.shown());
    // Ctrl-C at the prompt ends the command, and the terminal shows again what is typed.
    let mut terminal = Terminal::start(&["join", "--config-dir", &near].map(str::to_owned), |_| {});
    terminal.wait_for("Invitation: ");
    terminal.type_line("\x03");
    assert_eq!(terminal.code(), Some(1));
}

#[test]
fn an_invitation_as_an_argument_is_refused_and_not_repeated() {
    let far = Inviter::start(&[]);
    let line = far.invite(&[]);
    let near = far.scratch.file("near");
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    for args in [vec![line.trim_end()], words] {
        let ran = run(&[&["join", "--config-dir", &near], &args[..]].concat());
        assert_eq!(ran.code, Some(2), "{}", ran.err);
        assert!(ran.err.contains("list of processes") && !ran.err.contains(token(&line)), "{}", ran.err);
    }
    assert!(far.lines("far/authorized_keys").is_empty());
}

#[test]
fn a_file_with_an_invitation_must_be_private() {
    let far = Inviter::start(&[]);
    let file = far.scratch.write("line", far.invite(&[]));
    let near = far.scratch.file("near");
    for (mode, code) in [(0o644, 78), (0o600, 0)] {
        std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
        let ran = run(&["join", "--config-dir", &near, "--file", &file]);
        assert_eq!(ran.code, Some(code), "{}", ran.err);
        assert!(code == 0 || ran.err.contains("chmod 600"), "{}", ran.err);
    }
}

#[test]
fn a_wrong_line_or_option_is_refused() {
    let scratch = Scratch::new();
    let config = scratch.file("config");
    for (input, word) in [("", "expected the line"), ("seaprox-invitation a b", "missing or changed")] {
        let ran = run_with(&["join", "--config-dir", &config], input.as_bytes(), |_| {});
        assert!(ran.code == Some(2) && ran.err.contains(word), "{}", ran.err);
    }
    let long = vec![b'x'; 1 << 20];
    assert_eq!(run_with(&["join", "--config-dir", &config], &long, |_| {}).code, Some(2));
    for (options, word) in [
        (vec!["--permit-open", "a/b"], "--permit-open \"a/b\": \"a/b\": expected"),
        (vec!["--permit-open", "*\",rate=\"1mbit"], "--permit-open"),
        (vec!["--name", "a b"], "--name \"a b\""),
        (vec!["--expires", "10"], "--expires \"10\""),
        (vec!["--expires", "0"], "--expires"),
        (vec!["--expires", "31d"], "at most 30d"),
        (vec!["--uses", "0"], "--uses \"0\": expected a number from 1 to 1000"),
        (vec!["--address", "unix:/x"], "--address \"unix:/x\": expected HOST"),
        (vec!["--address", ":0"], "--address \":0\""),
        (vec!["--key-uses", "x"], "--key-uses"),
        (vec!["--valid-for", "soon"], "--valid-for \"soon\""),
    ] {
        let ran = run(&[&["invite", "--config-dir", &config], &options[..]].concat());
        assert!(ran.code == Some(2) && ran.err.contains(word) && ran.out.is_empty(), "{options:?}: {}", ran.err);
    }
}

#[test]
fn a_node_with_a_shared_secret_makes_no_invitation_and_says_why() {
    let scratch = Scratch::new();
    let (config, other) = (scratch.file("config"), scratch.file("other"));
    let secret = scratch.file("config/secret");
    assert_eq!(run(&["keygen", "--secret", "--config-dir", &config]).code, Some(0));
    let refused = |config: &str, options: &[&str], variable: Option<&str>| {
        let ran = run_with(
            &[&["invite", "--config-dir", config, "--address", "a.example"], options].concat(),
            b"",
            |command| {
                command.envs(variable.map(|value| ("SEAPROX_SECRET", value)));
            },
        );
        assert!(ran.code == Some(78) && ran.out.is_empty(), "{}", ran.err);
        assert!(ran.err.contains("shared secret takes no invitations") && ran.err.contains(&secret), "{}", ran.err);
    };
    refused(&config, &[], None);
    refused(&other, &["--secret", &secret], None);
    refused(&other, &[], Some(&secret));
    for file in ["config/invitations", "config/key", "other"] {
        assert!(!std::fs::exists(scratch.file(file)).unwrap(), "{file}");
    }
    // A node that has a key as well may run without the secret.
    assert_eq!(run(&["keygen", "--config-dir", &config]).code, Some(0));
    assert_eq!(run(&["invite", "--config-dir", &config, "--address", "a.example"]).code, Some(0));
}

#[test]
fn a_node_that_is_known_with_another_key_is_found_before_the_invitation_is_used() {
    let far = Inviter::start(&[]);
    let line = far.invite(&[]);
    let other = kit::link::generate_key(&far.scratch.file("other"));
    std::fs::create_dir_all(far.scratch.file("near")).unwrap();
    let file = far.scratch.write("near/known_nodes", format!("{} {other}\n", far.addr));
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    let refused = far.join("near", &line, &[]);
    assert_eq!(refused.code, Some(77), "{}", refused.err);
    assert!(refused.err.contains("known_nodes:1 has another key"), "{}", refused.err);
    std::fs::remove_file(file).unwrap();
    assert_eq!(far.join("near", &line, &[]).code, Some(0), "the invitation was not used");
}

#[test]
fn a_file_that_cannot_be_written_admits_nobody() {
    let scratch = Scratch::new();
    let far = Inviter::start_with(scratch, &[], |_| {});
    let config = far.scratch.file("far");
    // A second node of the same directory can write files of 1 KiB, as on a full disk.
    let full = Seaprox::start_with(&["link", "--listen", "127.0.0.1:0", "--config-dir", &config], |command| {
        limit_files(command, 1024)
    });
    let line = far.invite(&[]);
    let invitation = Invitation::parse(line.as_bytes()).unwrap();
    // The key does not fit into its file, which stays as it was.
    let before = format!("{}\n", "#".repeat(1100));
    let file = far.scratch.write("far/authorized_keys", &before);
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    until("the full node takes invitations", || RawJoiner::connect(full.addr(0), [9; 32]).is_ok());
    let mut joiner = RawJoiner::connect(full.addr(0), [7; 32]).unwrap();
    let claim = joiner.claim(&invitation);
    joiner.send(&claim.encode()).unwrap();
    assert_eq!(joiner.answer(&invitation), None, "the node has failed");
    assert_eq!(far.read("far/authorized_keys"), before);
    full.wait_for_log(&["cannot be authorized"]);
    // With a larger file of invitations, nothing is spent either.
    let line = far.invite(&["--permit-open", "10.0.0.0/8"]);
    (0..8).for_each(|_| _ = far.invite_unseen(&["--permit-open", "10.0.0.0/8"]));
    let invitation = Invitation::parse(line.as_bytes()).unwrap();
    until("the full node has read the invitation", || {
        let Ok(mut joiner) = RawJoiner::connect(full.addr(0), [7; 32]) else { return false };
        let claim = joiner.claim(&invitation);
        joiner.send(&claim.encode()).is_ok() && joiner.read_to_end().len() > 2
    });
    assert_eq!(far.read("far/authorized_keys"), before);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(far.join("near", &line, &[]).code, Some(0), "the invitation was not spent");
}

/// Limits the size of files that a process may write. A larger write fails instead of ending the process.
pub fn limit_files(command: &mut Command, bytes: u64) {
    use std::os::unix::process::CommandExt;
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: both functions may be called between fork and exec, and the record is live.
    unsafe {
        command.pre_exec(move || {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            match libc::setrlimit(libc::RLIMIT_FSIZE, &limit) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
}

#[test]
fn the_steps_of_spending_survive_a_kill_at_each_of_them() {
    if !has("strace") {
        return;
    }
    // Each system call of the thread that writes files is a place where the process may be killed.
    for (call, times) in [("openat", 10), ("write", 4), ("fsync", 6), ("rename", 2)] {
        for number in 1..=times {
            spend_and_die(call, number);
        }
    }
}

/// Lets a node be killed at a system call of the thread that admits a joining node, and checks that the files are whole and that the
/// invitation has authorized at most one key.
fn spend_and_die(call: &str, number: usize) {
    let scratch = Scratch::new();
    let config = scratch.file("far");
    let ran = run(&["invite", "--config-dir", &config, "--address", "127.0.0.1:1", "--permit-open", "db:1"]);
    let invitation = Invitation::parse(&ran.out).unwrap();
    let mut node = Seaprox::start(&["link", "--listen", "127.0.0.1:0", "--config-dir", &config]);
    let mut joiner = RawJoiner::connect(node.addr(0), [7; 32]).unwrap();
    let [filter, inject] = [format!("trace={call}"), format!("inject={call}:signal=KILL:when={number}")];
    let mut tracer = kit::proc::trace(node.pid(), &["-o", "/dev/null", "-e", &filter, "-e", &inject]);
    let claim = joiner.claim(&invitation);
    joiner.send(&claim.encode()).unwrap();
    let answer = joiner.answer(&invitation);
    let _ = tracer.kill();
    let _ = tracer.wait();
    let killed = !node.runs();
    drop(node);
    // The next node finds whole files.
    let far = Inviter::start_with(scratch, &[], |_| {});
    let keys = far.lines("far/authorized_keys").len();
    let spent = far.lines("far/invitations")[0].split(' ').nth(4) == Some("1");
    let at = format!("{call} {number}: killed {killed}, answer {answer:?}");
    assert!(keys == 0 || spent, "{at}: a key is authorized, and the invitation can be used again");
    assert!(answer != Some(InvitedOutcome::Joined) || keys == 1, "{at}");
    // Another node joins only if the invitation was not spent.
    far.invite_unseen(&[]);
    far.wait_until_inviting();
    let mut other = RawJoiner::connect(far.addr, [8; 32]).unwrap();
    let claim = other.claim(&invitation);
    other.send(&claim.encode()).unwrap();
    let expected = if spent { InvitedOutcome::Used } else { InvitedOutcome::Joined };
    assert_eq!(other.answer(&invitation), Some(expected), "{at}");
    assert_eq!(far.lines("far/authorized_keys").len(), if spent { keys } else { 1 }, "{at}");
}
