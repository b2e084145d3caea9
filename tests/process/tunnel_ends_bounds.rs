//! The bounds of ends of tunnels: what no rule permits, numbers, floods, and commands that do not want to end (TN-61).

use crate::hostile_kit;
use crate::kit;
use crate::served;
use crate::tunnel_ends;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use hostile_kit::RawLink;
use kit::link::Keys;
use kit::{SOON, until_within};
use seaprox::link::{Code, Host, Kind, Open};
use served::{HOSTILE, Served};
use tunnel_ends::{Tunnel, near, program};

/// The time within which no process of an end is left.
const ENDED: Duration = Duration::from_secs(5);

/// A program that ignores `SIGTERM`, as its child does, and tells both process ids.
const STUBBORN: &str = "#!/bin/sh\ntrap '' TERM\nsleep 300 &\necho $$ $!\nwhile :; do sleep 300; done\n";

/// Reads the process ids that a command tells.
fn pids(client: &TcpStream) -> Vec<u32> {
    let mut line = String::new();
    BufReader::new(client).read_line(&mut line).expect("a line");
    let pids: Vec<u32> = line.split_whitespace().map(|pid| pid.parse().expect("a number")).collect();
    assert!(pids.iter().all(|pid| is_there(*pid)) && pids.len() == 2, "{line:?}");
    pids
}

/// Returns true if a process exists, also as a zombie.
fn is_there(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Returns true if a process runs. What a command has left is the first process's to reap.
fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// Waits until the command is reaped, and no other process of its group runs.
#[track_caller]
fn until_gone(pids: &[u32]) {
    let is_left = || is_there(pids[0]) || pids.iter().any(|pid| runs(*pid));
    until_within(ENDED, "no process of the command is left", || !is_left());
}

#[test]
fn a_command_that_ignores_the_first_signal_is_killed_with_its_group() {
    let keys = Keys::new();
    let stubborn = program(&keys, "stubborn", STUBBORN);
    let tunnel = Tunnel::to(keys, &format!("stubborn=command:{stubborn}"));
    let client = tunnel.client();
    let pids = pids(&client);
    // SAFETY: getpgid takes and gives integers.
    let group = |pid: u32| unsafe { libc::getpgid(pid as i32) };
    assert!(pids.iter().all(|pid| group(*pid) == pids[0] as i32), "the command has a group of its own");
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    until_gone(&pids);
    tunnel.far.wait_for_log(&["command ended", "end=stubborn", "signal: 9"]);
}

#[test]
fn a_lost_link_ends_the_command_when_its_session_is_given_up() {
    let keys = Keys::new();
    let stubborn = program(&keys, "stubborn", STUBBORN);
    keys.permit(Some(&format!("permit-end=\"stubborn=command:{stubborn}\"")));
    let tunnel = Tunnel::named(keys, "stubborn", &["--link-hold", "200ms", "--carrier", "tcp"]);
    let pids = pids(&tunnel.client());
    tunnel.near.signal(libc::SIGKILL);
    until_gone(&pids);
}

#[test]
fn a_node_that_stops_leaves_no_command() {
    let keys = Keys::new();
    let stubborn = program(&keys, "stubborn", STUBBORN);
    let mut tunnel = Tunnel::to(keys, &format!("stubborn=command:{stubborn}"));
    let client = tunnel.client();
    let pids = pids(&client);
    tunnel.far.signal(libc::SIGINT);
    tunnel.far.wait(SOON);
    assert!(!is_there(pids[0]), "the process has waited for its command");
    assert!(!pids.iter().any(|pid| runs(*pid)), "the whole group is killed");
}

#[test]
fn a_command_leaves_nothing_of_its_group_behind() {
    let keys = Keys::new();
    let parent = program(&keys, "parent", "#!/bin/sh\nsleep 300 &\necho $!\n");
    let tunnel = Tunnel::to(keys, &format!("parent=command:{parent}"));
    let mut line = String::new();
    tunnel.client().read_to_string(&mut line).expect("an orderly end, although a child has the output too");
    let child: u32 = line.trim().parse().unwrap();
    until_within(ENDED, "the child is killed", || !runs(child));
}

#[test]
fn a_flood_on_the_output_waits_for_the_reader_and_one_on_standard_error_is_cut() {
    let keys = Keys::new();
    let text = "#!/bin/sh\nyes | head -c 5000000 >&2\nexec yes\n";
    let flood = program(&keys, "flood", text);
    let tunnel = Tunnel::to(keys, &format!("flood=command:{flood}"));
    let mut client = tunnel.client();
    let mut bytes = vec![0; 8 << 20];
    client.read_exact(&mut bytes).unwrap();
    assert!(bytes.chunks(2).all(|pair| pair == b"y\n"));
    drop(client);
    let line = tunnel.far.wait_for_log(&["command ended", "end=flood"]);
    // `yes` may say itself that its output is closed.
    assert!(line.contains("stderr_bytes=50000"), "{line}");
    let lines: Vec<String> = tunnel.far.log().into_iter().filter(|line| line.contains("end=flood")).collect();
    assert!(lines.iter().map(String::len).sum::<usize>() < 60_000, "{} lines", lines.len());
}

#[test]
fn what_a_command_says_on_standard_error_reaches_the_log_and_cannot_forge_a_line() {
    let keys = Keys::new();
    let text = "#!/bin/sh\nprintf 'a \\033[2J reason=none \\\\\"x\\nsecond\\n' >&2; exit 3\n";
    let loud = program(&keys, "loud", text);
    let tunnel = Tunnel::to(keys, &format!("loud=command:{loud}"));
    assert_eq!(tunnel.exchange(b""), b"");
    let line = tunnel.far.wait_for_log(&["stderr", "end=loud", "reason=none"]);
    assert!(!line.contains('\x1b'), "{line:?}");
    tunnel.far.wait_for_log(&["stderr", "line=second"]);
    tunnel.far.wait_for_log(&["command ended", "exit status: 3"]);
}

#[test]
fn a_key_has_no_more_of_an_end_at_once_than_its_rule_says() {
    let tunnel = Tunnel::to(Keys::new(), "echo=command,max=1:/bin/cat");
    let mut first = tunnel.client();
    first.write_all(b"x").unwrap();
    first.read_exact(&mut [0]).unwrap();
    let mut byte = [0];
    assert!(!matches!(tunnel.client().read(&mut byte), Ok(1)));
    tunnel.near.wait_for_log(&["closed", "end[echo]", "reason=limit_reached"]);
    tunnel.far.wait_for_log(&["stream refused", "asked=end/echo", "reason=limit_reached"]);
    drop(first);
    // The command ends a moment after its connection.
    until_within(SOON, "the place is free again", || {
        let mut client = tunnel.client();
        client.write_all(b"y").unwrap();
        matches!(client.read(&mut byte), Ok(1))
    });
}

#[test]
fn a_key_without_a_rule_has_no_end() {
    let keys = Keys::new();
    keys.permit(Some("name=\"joe\",permit-open=\"*\",permit-end=\"other=read:/etc/passwd\""));
    let tunnel = Tunnel::named(keys, "motd", &[]);
    let mut byte = [0];
    assert!(!matches!(tunnel.client().read(&mut byte), Ok(1)));
    tunnel.near.wait_for_log(&["closed", "end[motd]", "reason=not_permitted"]);
    tunnel.far.wait_for_log(&["stream refused", "asked=end/motd", "reason=not_permitted"]);
}

#[test]
fn a_name_with_other_characters_is_refused_and_reaches_neither_a_command_nor_the_log_as_it_is() {
    let served = Served::start("permit-end=\"echo=command:/bin/cat\"", &[]);
    let mut link = RawLink::connect(served.addr, HOSTILE).unwrap();
    for name in ["end/echo\nforged", "end/echo' -x", "end/echo\"", "end/", "end/echo x", "end/../echo", "end/echo\0"] {
        let open = Open { kind: Kind::Internal, host: Host::Name(name.to_owned()), ..Open::default() };
        let (_, bound) = link.open(open).unwrap();
        assert_eq!(bound.failure, Some(Code::NotPermitted), "{name:?}");
    }
    let line = served.seaprox.wait_for_log(&["stream refused", "forged"]);
    assert!(line.contains("not_permitted"), "the name has a line of its own: {line}");
    let open = Open { kind: Kind::Internal, host: Host::Name("end/echo".to_owned()), ..Open::default() };
    assert_eq!(link.open(open).unwrap().1.failure, None);
}

#[test]
fn an_end_that_is_reached_without_a_link_is_refused_by_the_check() {
    let ran = kit::run(&["static", "--listen", "0", "--to", "end:backup"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.err.contains("reached over a link only"), "{ran:?}");
    let keys = Keys::new();
    let file = keys.write("motd", "hello");
    keys.permit(Some(&format!("permit-end=\"motd=read:{file}\"")));
    let far = keys.start_far(&[]);
    let via = keys.via(&far.listens(0));
    let via: Vec<_> = via.iter().map(String::as_str).collect();
    let relay = kit::Seaprox::start(&[&["static", "--listen", "127.0.0.1:0", "--to", "end:motd"], &via[..]].concat());
    let mut back = String::new();
    TcpStream::connect(relay.addr(0)).unwrap().read_to_string(&mut back).unwrap();
    assert_eq!(back, "hello");
    assert_eq!(fs::read_to_string(file).unwrap(), "hello");
    drop(near(&keys, &far, &["-L", "0:end:motd"]));
}
