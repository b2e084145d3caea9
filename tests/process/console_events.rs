//! Callbacks, timers and the chat of the console (TN-37, TN-46), and its prompt while text arrives.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use crate::console::{end, execute, far, left, out, secret, start};
use crate::kit::terminal::Terminal;
use crate::kit::{Scratch, has, run};

/// Starts a console on a terminal, and waits for its prompt.
#[track_caller]
fn prompt(scratch: &Scratch, words: &[&str]) -> Terminal {
    let words: Vec<String> = std::iter::once("console").chain(words.iter().copied()).map(str::to_owned).collect();
    let (home, state) = (scratch.file("home"), scratch.file("state"));
    let mut terminal = Terminal::start(&words, |command| {
        command.env("HOME", &home).env("XDG_STATE_HOME", &state).env("TERM", "xterm");
    });
    terminal.wait_for("seaprox> ");
    terminal
}

/// Has a prompt listen for links. Returns the port.
#[track_caller]
fn listen(terminal: &mut Terminal) -> u16 {
    terminal.type_line("l = listen(0, '127.0.0.1') wait(l, 60) print('po' .. 'rt <' .. l:local_port() .. '>')");
    terminal.wait_for("port <");
    terminal.wait_for(">");
    let shown = terminal.shown();
    let (_, after) = shown.rsplit_once("port <").unwrap();
    after.split('>').next().unwrap().parse().unwrap()
}

#[test]
fn callbacks_and_timers_run_while_a_script_waits_and_keep_it_alive() {
    let code = "n = 0
        tick = every(0.01, function() n = n + 1 if n == 3 then tick:cancel() print('ticked') end end)
        after(0.01, function() error('broken') end)
        after(0.2, function() sleep(0.05) print('last') end)
        while n < 3 do sleep(0.01) end
        print('end')";
    let ran = run(&["console", "-e", code]);
    assert_eq!((ran.code, out(&ran)), (Some(0), vec!["ticked".into(), "end".into(), "last".into()]), "{}", ran.err);
    assert!(ran.err.contains("after: (execute):3: broken"), "{}", ran.err);
}

#[test]
fn an_event_is_told_when_a_connection_works_and_when_it_is_closed() {
    let scratch = Scratch::new();
    let secret = secret(&scratch);
    let (_far, port) = far(&secret);
    let code = format!(
        "on('connected', function(obj) print('up', obj:direction() or 'link') end)
        tc = connect('127.0.0.1', {port})
        tc:on('closed', function(it) print('closed', it == tc) end)
        wait(tc, 60)
        t = tc:tunnel(0, '127.0.0.1', 9)
        t:on('closed', function() print('tunnel closed') end)
        wait(t, 60)
        tc:close()"
    );
    let ran = execute(&code, &secret);
    let expected = ["up\tlink", "up\tforward", "tunnel closed", "closed\ttrue"].map(str::to_owned);
    assert_eq!((ran.code, out(&ran)), (Some(0), expected.to_vec()), "{}", ran.err);
}

#[test]
fn two_consoles_chat_while_a_tunnel_is_saturated() {
    let scratch = Scratch::new();
    let secret = secret(&scratch);
    let listening = "l = listen(0, '127.0.0.1') wait(l, 60) print(l:local_port())
        on('message', function(tc, text) tc:chat('echo of ' .. text) end)
        on('closed', function(it) if it ~= l then quit() end end)";
    let mut listening = start(&["--secret", &secret, "-e", listening]);
    let port = listening.first_line();
    let sink = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = sink.local_addr().unwrap().port();
    // A reader that reads until the end, and a writer that always has more.
    thread::spawn(move || {
        let (mut stream, _) = sink.accept().unwrap();
        std::io::copy(&mut stream, &mut std::io::sink())
    });
    let code = format!(
        "tc = connect('127.0.0.1', {port}) assert(wait(tc, 60), tostring(tc))
        t = tc:tunnel(0, '127.0.0.1', {to}) assert(wait(t, 60), tostring(t))
        print(t:local_port())
        on('message', function(_, text) if text == 'echo of bye' then quit() end end)
        sleep(0.3)
        tc:chat('hi\\27[2J') tc:chat('bye')"
    );
    let mut dialing = start(&["--secret", &secret, "-e", &code]);
    let tunnel: u16 = dialing.first_line().parse().unwrap();
    let writer = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], tunnel))).unwrap();
    thread::spawn(move || std::io::copy(&mut std::io::repeat(b'x'), &mut &writer));
    assert!(left(&mut dialing).success());
    let lines = dialing.rest();
    let shown: Vec<&str> = lines.lines().filter_map(|line| line.split_once("] ").map(|(_, text)| text)).collect();
    let peer = format!("127.0.0.1:{port}: ");
    assert_eq!(shown, [format!("{peer}echo of hi\\u{{1b}}[2J"), format!("{peer}echo of bye")], "{lines}");
    assert!(left(&mut listening).success());
    let lines = listening.rest();
    let (time, text) = lines.lines().next().unwrap().split_once("] 127.0.0.1:").unwrap();
    assert!(time.len() == "[12:34:56".len() && time.starts_with('['), "{lines}");
    assert!(text.ends_with(": hi\\u{1b}[2J") && !lines.contains('\x1b'), "{lines:?}");
}

#[test]
fn a_chat_that_is_off_prints_nothing() {
    let scratch = Scratch::new();
    let secret = secret(&scratch);
    let listening = "chat(false) l = listen(0, '127.0.0.1') wait(l, 60) print(l:local_port())
        on('message', function(tc, text) print('got', text) quit() end)";
    let mut listening = start(&["--secret", &secret, "-e", listening]);
    let port = listening.first_line();
    let ran = execute(
        &format!(
            "tc = connect('127.0.0.1', {port}) wait(tc, 60) tc:chat('hi') wait(tc, 60)
        tc:on('closed', quit) on('error', quit)"
        ),
        &secret,
    );
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(left(&mut listening).success());
    assert_eq!(listening.rest(), "got\thi\n");
}

#[test]
fn a_line_that_is_typed_stays_when_a_message_arrives() {
    if !has("script") {
        return;
    }
    let scratch = Scratch::new();
    let secret = secret(&scratch);
    let mut terminal = prompt(&scratch, &["--secret", &secret, "-v"]);
    let port = listen(&mut terminal);
    terminal.wait_for("seaprox> ");
    terminal.type_keys("1000 + 4");
    terminal.wait_for("1000 + 4");
    let ran =
        execute(&format!("tc = connect('127.0.0.1', {port}) wait(tc, 60) tc:chat('hello') sleep(0.2) quit()"), &secret);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    // A line of the log, then the message, each above the line that is drawn again.
    terminal.wait_for("seaprox::link");
    terminal.wait_for(": hello");
    terminal.wait_for("seaprox> 1000 + 4");
    terminal.type_line("2");
    terminal.wait_for("1042");
    terminal.type_line("quit()");
    assert_eq!(terminal.code(), Some(0));
}

#[test]
fn text_that_is_pasted_at_once_is_read_to_its_end() {
    if !has("script") {
        return;
    }
    let scratch = Scratch::new();
    let mut terminal = prompt(&scratch, &[]);
    terminal.type_keys("print('a' .. 1)\nprint('b' .. 2)\nfor i = 1, 2 do\nprint('c' .. i)\nend\n");
    for shown in ["a1", "b2", "c1", "c2"] {
        terminal.wait_for(shown);
    }
    terminal.wait_for("seaprox> ");
    terminal.type_keys("\x04");
    assert_eq!(terminal.code(), Some(0));
}

#[test]
fn a_callback_that_quits_ends_a_prompt_in_the_middle_of_a_line() {
    if !has("script") {
        return;
    }
    let scratch = Scratch::new();
    let mut terminal = prompt(&scratch, &[]);
    terminal.type_line("after(0.2, quit)");
    terminal.wait_for("seaprox> ");
    terminal.type_keys("unfinished");
    assert_eq!(terminal.code(), Some(0));
}

#[test]
fn ctrl_c_ends_a_callback_and_leaves_the_prompt() {
    if !has("script") {
        return;
    }
    let scratch = Scratch::new();
    let mut terminal = prompt(&scratch, &[]);
    terminal.type_line("after(0, function() print('turns ' .. 1) while true do end end)");
    terminal.wait_for("turns 1");
    terminal.type_keys("\x03");
    terminal.wait_for("after: interrupted");
    terminal.type_line("1000 + 42");
    terminal.wait_for("1042");
    terminal.type_line("print('as' .. 'leep') sleep(1000)");
    terminal.wait_for("asleep");
    terminal.type_keys("\x03");
    terminal.wait_for("interrupted");
    terminal.type_line("quit()");
    assert_eq!(terminal.code(), Some(0));
}

#[test]
fn a_signal_ends_a_script_that_waits_for_its_connections() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let mut console = start(&["-e", "every(1, function() end) print('begun')"]);
        assert_eq!(console.first_line(), "begun");
        assert!(end(&mut console, signal).success(), "signal {signal}");
    }
}
