//! The live view of a process (TS-24, TS-25), on a terminal of tmux, beside the numbers of the status.

use std::process::{Command, Stdio};

use crate::kit::program::output;
use crate::kit::{Relay, Scratch, Step, has, peer, run, until};

/// A terminal of 80 columns and 24 lines, in a server of its own.
struct Screen {
    socket: String,
    _scratch: Scratch,
}

impl Screen {
    /// Runs `seaprox WORDS` on the terminal, and prints its exit code when it has ended.
    fn start(words: &str) -> Screen {
        Screen::start_as("", words)
    }

    /// Runs `BEFORE seaprox WORDS`.
    fn start_as(before: &str, words: &str) -> Screen {
        let scratch = Scratch::new();
        let socket = scratch.file("tmux");
        let line = format!("{before}{} {words}; echo ended with $?; sleep 60", env!("CARGO_BIN_EXE_seaprox"));
        let screen = Screen { socket, _scratch: scratch };
        screen.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", &line]);
        screen
    }

    fn tmux(&self, words: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command
            .arg("-S")
            .arg(&self.socket)
            .args(words)
            .env_remove("TMUX")
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null());
        let ran = command.output().expect("tmux runs");
        assert!(ran.status.success(), "{words:?}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).expect("UTF-8")
    }

    fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    fn shown(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    #[track_caller]
    fn wait_for(&self, texts: &[&str]) {
        let mut shown = String::new();
        until(&texts.join(" and "), || {
            shown = self.shown();
            texts.iter().all(|text| shown.contains(text))
        });
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = Command::new("tmux").arg("-S").arg(&self.socket).arg("kill-server").stderr(Stdio::null()).status();
    }
}

fn status_option(relay: &Relay) -> String {
    format!("top --status unix:{}", relay.seaprox.admin_socket())
}

#[test]
fn the_live_view_shows_the_numbers_of_the_status_and_closes_a_connection_after_a_question() {
    if !has("tmux") {
        return;
    }
    let relay = Relay::start(&[]);
    let (mut client, mut server) = relay.pair();
    let screen = Screen::start(&status_option(&relay));
    screen.wait_for(&["connections 1 of ", "opened 1 (", "established", "q leave"]);
    peer::both(&mut client, &[Step::Send(34_249)], &mut server, &[Step::Read(34_249)]);
    // The same form as that of the status, within a second or two.
    screen.wait_for(&["34.2 kB"]);
    assert!(relay.seaprox.status_text().contains("in 34.2 kB"));
    screen.press("2");
    screen.wait_for(&["LINK", "STREAMS"]);
    screen.press("3");
    screen.wait_for(&["ADDRESS", &relay.seaprox.addr(0).to_string()]);
    screen.press("?");
    screen.wait_for(&["sort by the next column"]);
    screen.press("1");
    screen.press("1");
    screen.wait_for(&["established"]);
    screen.press("/");
    screen.tmux(&["send-keys", "-l", "no such words"]);
    screen.wait_for(&["filter: no such words"]);
    until("no row is shown", || !screen.shown().contains("established"));
    screen.press("Escape");
    screen.wait_for(&["established"]);
    screen.press("x");
    screen.wait_for(&["(y/n)"]);
    screen.press("n");
    screen.wait_for(&["nothing was closed"]);
    assert_eq!(relay.seaprox.figure("/usage/connections"), 1);
    screen.press("x");
    screen.wait_for(&["(y/n)"]);
    screen.press("y");
    until("the connection is closed", || relay.seaprox.figure("/usage/connections") == 0);
    screen.wait_for(&["connections 0 of "]);
    screen.press("4");
    screen.wait_for(&["killed"]);
    screen.press("q");
    screen.wait_for(&["ended with 0"]);
}

#[test]
fn ctrl_c_and_sigterm_leave_the_live_view_and_restore_the_terminal() {
    if !has("tmux") {
        return;
    }
    let relay = Relay::start(&[]);
    let screen = Screen::start(&status_option(&relay));
    screen.wait_for(&["connections 0 of "]);
    screen.press("C-c");
    screen.wait_for(&["ended with 0"]);
    let other = Screen::start(&status_option(&relay));
    other.wait_for(&["connections 0 of "]);
    let shell = other.tmux(&["display-message", "-p", "#{pane_pid}"]);
    output("pkill -TERM -P $0", &[shell.trim()]);
    other.wait_for(&["ended with 0"]);
}

#[test]
fn the_live_view_ends_with_its_terminal() {
    if !has("tmux") {
        return;
    }
    let relay = Relay::start(&[]);
    // The kernel sends SIGHUP to the session of the terminal alone, so the second view has to notice the loss itself.
    for session in ["", "setsid --wait "] {
        let scratch = Scratch::new();
        let file = scratch.file("pid");
        let before = format!("{session}sh -c 'echo $$ >{file}; exec \"$@\"' sh ");
        let screen = Screen::start_as(&before, &status_option(&relay));
        screen.wait_for(&["connections 0 of "]);
        let pid = std::fs::read_to_string(&file).expect("the number of the process");
        assert!(is_running(pid.trim()), "{pid}");
        screen.tmux(&["kill-server"]);
        until("the view has ended", || !is_running(pid.trim()));
    }
}

/// Returns true if the process exists and is no zombie.
fn is_running(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[test]
fn the_live_view_says_that_the_process_is_gone() {
    if !has("tmux") {
        return;
    }
    let relay = Relay::start(&[]);
    let screen = Screen::start(&status_option(&relay));
    screen.wait_for(&["connections 0 of "]);
    relay.seaprox.signal(libc::SIGKILL);
    screen.wait_for(&["no answer: no process answers"]);
    screen.press("q");
    screen.wait_for(&["ended with 0"]);
}

#[test]
fn the_rates_of_one_second_are_printed_for_scripts() {
    let relay = Relay::start(&[]);
    let (_client, _server) = relay.pair();
    let status = format!("unix:{}", relay.seaprox.admin_socket());
    let ran = run(&["top", "--once", "--status", &status]);
    let text = String::from_utf8_lossy(&ran.out);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(text.contains("connections 1 of ") && text.contains("established") && text.contains("ADDRESS"), "{text}");
    let ran = run(&["top", "--status", &status]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains("expected a terminal; --once"), "{}", ran.err);
}
