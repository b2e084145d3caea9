//! The console (TN-01 to TN-23): scripts and a prompt that make links and tunnels, with real nodes at their other ends.

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{ExitStatus, Stdio};

use crate::kit::link::{Keys, generate_key};
use crate::kit::program::Program;
use crate::kit::seaprox::command;
use crate::kit::servers::Server;
use crate::kit::terminal::Terminal;
use crate::kit::{Ran, Scratch, Seaprox, has, run, run_with, servers, until};

/// Runs code with the secret that two nodes share.
#[track_caller]
pub fn execute(code: &str, secret: &str) -> Ran {
    run(&["console", "--secret", secret, "-e", code])
}

/// Starts a console that runs code.
#[track_caller]
pub fn start(words: &[&str]) -> Program {
    let mut command = command(&[&["console"], words].concat());
    command.stdin(Stdio::null());
    Program::start(command)
}

/// Sends a signal to a console, and waits for its end.
#[track_caller]
pub fn end(console: &mut Program, signal: i32) -> ExitStatus {
    // SAFETY: kill takes two integers, and the child has not been waited for, so its process id is still its own.
    unsafe { libc::kill(console.0.id() as i32, signal) };
    left(console)
}

/// Waits for the end of a console.
#[track_caller]
pub fn left(console: &mut Program) -> ExitStatus {
    let mut status = None;
    until("the console ends", || {
        status = console.0.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

pub fn secret(scratch: &Scratch) -> String {
    let file = scratch.file("secret");
    assert_eq!(run(&["keygen", "--secret", "--key", &file]).code, Some(0));
    file
}

/// Starts a node that accepts links of those that have the secret. Returns it and its port.
#[track_caller]
pub fn far(secret: &str) -> (Seaprox, u16) {
    let far = Seaprox::start(&["link", "--listen", "127.0.0.1:0", "--secret", secret]);
    let port = far.listens(0).rsplit(':').next().unwrap().parse().unwrap();
    (far, port)
}

pub fn out(ran: &Ran) -> Vec<String> {
    String::from_utf8_lossy(&ran.out).lines().map(str::to_owned).collect()
}

#[test]
fn code_runs_and_its_error_ends_the_console_with_its_line() {
    let ran = run(&["console", "-e", "print(1 + 1, 'a')"]);
    assert_eq!((ran.code, out(&ran)), (Some(0), vec!["2\ta".to_owned()]), "{}", ran.err);
    let scratch = Scratch::new();
    let script = scratch.write("wrong.lua", "#!/usr/bin/seaprox console\nprint('one')\nconnect(1)\n");
    let ran = run(&["console", &script]);
    assert_eq!((ran.code, out(&ran)), (Some(1), vec!["one".to_owned()]), "{}", ran.err);
    assert!(ran.err.contains("remote_host: expected a host, not integer"), "{}", ran.err);
    let ran = run(&["console", "-e", "x = = 1"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("(execute):1: unexpected symbol"), "{}", ran.err);
    let ran = run(&["console", "-e", "x = 1", &script]);
    assert_eq!(ran.code, Some(2), "{}", ran.err);
    let ran = run(&["console", "no-such-script.lua"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("no-such-script.lua"), "{}", ran.err);
}

#[test]
fn a_script_opens_tunnels_both_ways_and_closes_them() {
    let scratch = Scratch::new();
    let secret = secret(&scratch);
    let (far, port) = far(&secret);
    let server = Server::start(b'f');
    let to = server_port(&server);
    let code = format!(
        "tc = connect('127.0.0.1', {port})
        assert(wait(tc, 60), tostring(tc))
        assert(tc:fingerprint():find('SHA256:') == 1 and cipher(tc))
        t = tc:tunnel(0, '127.0.0.1', {to})
        r = rtunnel(tc, '127.0.0.1', {to}, 0)
        assert(wait(t, 60), tostring(t))
        assert(wait(r, 60), tostring(r))
        assert(parent(t) == tc and #list_tunnels(tc) == 2 and #list_connections() == 1)
        print(t:local_port(), r:remote_port())"
    );
    let mut console = start(&["--secret", &secret, "-e", &code]);
    let line = console.first_line();
    let ports: Vec<u16> = line.split('\t').map(|port| port.parse().unwrap()).collect();
    for port in &ports {
        let addr = SocketAddr::from(([127, 0, 0, 1], *port));
        let letters = servers::letters(addr, 3);
        assert_eq!(letters, "fff", "port {port}");
    }
    assert!(end(&mut console, libc::SIGTERM).success());
    for port in ports {
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "port {port}");
    }
    drop(far);
}

#[test]
fn a_closed_connection_closes_its_tunnels_first_and_the_script_ends() {
    let scratch = Scratch::new();
    let secret = secret(&scratch);
    let (_far, port) = far(&secret);
    let code = format!(
        "tc = connect('127.0.0.1', {port})
        t = tunnel(tc, 0, '127.0.0.1', 9)
        assert(wait(t, 60), tostring(t))
        close(tc)
        assert(not wait(t, 60) and not wait(tc, 60))
        print(status(t), status(tc), #list_tunnels(tc), #list_connections())"
    );
    let ran = execute(&code, &secret);
    assert_eq!((ran.code, out(&ran)), (Some(0), vec!["CLOSED\tCLOSED\t0\t0".to_owned()]), "{}", ran.err);
}

#[test]
fn two_consoles_link_and_each_lists_the_connection() {
    let scratch = Scratch::new();
    let secret = secret(&scratch);
    let code = "l = listen(0, '127.0.0.1') assert(wait(l, 60), tostring(l)) print(l:local_port())
        while #list_connections() == 0 do sleep(0.02) end
        tc = list_connections()[1]
        print(status(tc) .. ' ' .. tc:remote_host())
        while #list_connections() > 0 do sleep(0.02) end print('gone') quit()";
    let mut listening = start(&["--secret", &secret, "-e", code]);
    let port = listening.first_line();
    let ran = execute(&format!("tc = connect('127.0.0.1', {port}) print(wait(tc, 60)) sleep(0.5) quit()"), &secret);
    assert_eq!((ran.code, out(&ran)), (Some(0), vec!["true".to_owned()]), "{}", ran.err);
    assert!(left(&mut listening).success());
    assert_eq!(listening.rest(), "CONNECTED 127.0.0.1\ngone\n");
}

#[test]
fn a_connection_that_cannot_be_made_has_an_error_with_its_reason() {
    let keys = Keys::new();
    let far = keys.start_far(&[]);
    let port = far.listens(0).rsplit(':').next().unwrap().to_owned();
    let scratch = Scratch::new();
    let directory = scratch.file("stranger");
    generate_key(&directory);
    let closed = crate::kit::closed_port();
    let code = format!(
        "a, b = connect('127.0.0.1', {port}), connect('127.0.0.1', {closed})
        print(a:status())
        print(wait(a), wait(b))
        print(a) print(b)
        close(a) close(b)"
    );
    let ran = run(&["console", "--config-dir", &directory, "-e", &code]);
    let lines = out(&ran);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(lines[..2], ["CONNECTING\tnil".to_owned(), "false\tfalse".to_owned()], "{lines:?}");
    assert!(lines[2].contains(" ERROR: auth_failed: the key of the peer is not known: SHA256:"), "{lines:?}");
    assert!(lines[3].contains(" ERROR: connection_refused"), "{lines:?}");
}

#[test]
fn an_error_leaves_the_prompt_and_a_chunk_may_have_several_lines() {
    if !has("script") {
        return;
    }
    let scratch = Scratch::new();
    let (home, state) = (scratch.file("home"), scratch.file("state"));
    let mut terminal = Terminal::start(&["console".to_owned()], |command| {
        command.env("HOME", &home).env("XDG_STATE_HOME", &state).env("TERM", "xterm");
    });
    terminal.wait_for("seaprox> ");
    terminal.type_line("error('broken')");
    terminal.wait_for("prompt:1: broken");
    terminal.wait_for("seaprox> ");
    terminal.type_line("for i = 1, 2 do");
    terminal.type_line("print('number ' .. i * 21) end");
    terminal.wait_for("number 21");
    terminal.wait_for("number 42");
    terminal.type_line("6 * 7 + 1000");
    terminal.wait_for("1042");
    terminal.type_line("quit()");
    assert_eq!(terminal.code(), Some(0));
    let history = std::fs::read_to_string(scratch.path().join("state/seaprox/console_history")).unwrap();
    assert!(history.contains("6 * 7 + 1000"), "{history}");
    let mode = std::fs::metadata(scratch.path().join("state/seaprox/console_history")).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
}

#[test]
fn lines_from_a_pipe_run_one_after_another() {
    let ran = run_with(&["console"], b"x = 20\nerror('no')\nprint(x + 1)\n", |_| {});
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(String::from_utf8_lossy(&ran.out).contains("21"), "{:?}", out(&ran));
    assert!(ran.err.contains("no"), "{}", ran.err);
}

#[test]
fn a_script_without_end_is_interrupted() {
    let mut console = start(&["-e", "print('begun') while true do end"]);
    assert_eq!(console.first_line(), "begun");
    assert_eq!(end(&mut console, libc::SIGINT).code(), Some(1));
}

#[test]
fn a_second_connect_from_another_local_port_is_an_error() {
    let code = "a = connect('127.0.0.1', 9) b = connect('127.0.0.1', 9) assert(a == b)
        print(pcall(connect, '127.0.0.1', 9, 7000)) quit()";
    let ran = run(&["console", "-e", code]);
    let lines = out(&ran);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(lines[1].starts_with("false") && lines[1].contains("from another port"), "{lines:?}");
}

#[test]
fn a_script_whose_listener_cannot_be_made_fails_unless_it_has_closed_it() {
    // An address of documentation, which no system has.
    let code = "l = listen(4000, '203.0.113.1') print(wait(l))";
    let ran = run(&["console", "-e", code]);
    assert_eq!((ran.code, out(&ran)), (Some(1), vec!["false".to_owned()]), "{}", ran.err);
    assert!(ran.err.contains("listener 203.0.113.1:4000 ERROR: "), "{}", ran.err);
    let ran = run(&["console", "-e", &format!("{code} close(l)")]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
}

#[test]
fn tunnels_that_could_not_be_made_end_with_their_connection() {
    let scratch = Scratch::new();
    let secret = secret(&scratch);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let code = format!(
        "l = listen(0, '127.0.0.1') assert(wait(l, 60), tostring(l)) print(l:local_port())
        while #list_connections() == 0 do sleep(0.02) end
        tc = list_connections()[1]
        for i = 1, 3 do wait(tunnel(tc, {}, '127.0.0.1', 9)) end
        print(#list_tunnels(tc))
        while status(tc) ~= 'CLOSED' do sleep(0.02) end
        for i = 1, 500 do if #list_tunnels(tc) == 0 then break end sleep(0.02) end
        print(#list_tunnels(tc)) quit()",
        taken.local_addr().unwrap().port()
    );
    let mut console = start(&["--secret", &secret, "-e", &code]);
    let mut lines = BufReader::new(console.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    let addr = format!("127.0.0.1:{}", lines.next().unwrap());
    let peer = Seaprox::spawn(&["link", "--connect", &addr, "--secret", &secret], |_| {});
    assert_eq!(lines.next().as_deref(), Some("3"));
    peer.signal(libc::SIGTERM);
    assert_eq!(lines.next().as_deref(), Some("0"));
    assert!(left(&mut console).success());
}

/// Returns the port of a server, which answers each client with its letter.
fn server_port(server: &Server) -> u16 {
    server.addr.port()
}
