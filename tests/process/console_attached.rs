//! The console of a running process, the script of a file of configuration, and the admin socket of a console.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use crate::console::{far, secret};
use crate::console_verbs::Console;
use crate::kit::servers::{Server, letters};
use crate::kit::socks::connect5;
use crate::kit::{Scratch, Seaprox, run, until};

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Starts a node with a link of the name `office`, which is up, and a forward of the name `web`.
fn office(secret: &str, port: u16, to: u16) -> Seaprox {
    let (peer, web) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:0:127.0.0.1:{to}"));
    let words = ["link", "--connect", &peer, "--secret", secret, "--name", "office", "-L", &web, "--name", "web"];
    let near = Seaprox::start(&words);
    until("the link is up", || near.status()["links"][0]["state"] == "up");
    near
}

#[test]
fn an_attached_console_lists_opens_and_closes_what_its_process_has() {
    let scratch = Scratch::new();
    let secret = secret(&scratch);
    let (_far, port) = far(&secret);
    let server = Server::start(b'a');
    let to = server.addr.port();
    let near = office(&secret, port, to);
    let web = near.addr(0);
    let code = format!(
        "tc = list_connections()[1]
        assert(#list_connections() == 1 and connection('office') == tc and tc:remote_port() == {port})
        assert(status(tc) == 'CONNECTED' and fingerprint(tc) and cipher(tc) and tc:myip() == '127.0.0.1')
        assert(tunnel('web') == list_tunnels(tc)[1] and parent(tunnel('web')) == tc)
        t, r, u, s = tc:tunnel(0, '127.0.0.1', {to}), tc:rtunnel('127.0.0.1', {to}, 0), tc:udptunnel(0, '127.0.0.1', 9), tc:socks(0)
        ready(t, r, u, s)
        assert(#list_tunnels(tc) == 5 and r:direction() == 'reverse' and tostring(u):find('^udptunnel '))
        assert(t:remote_host() == '127.0.0.1' and t:remote_port() == {to} and r:local_port() == {to})
        print(t:local_port(), r:remote_port(), s:local_port())
        till(function() return stats(t).bytes_received == 3 and stats(s).bytes_received == 1 end)
        assert(stats().bytes_received >= 4 and stats(tc).frames_sent > 0)
        close(r) close(s)
        till(function() return status(r) == 'CLOSED' and status(s) == 'CLOSED' end)
        print(why(connect, '127.0.0.1'))
        print(why(listen))
        print(why(name, tc, 'other'))
        bad = tc:tunnel({port}, '127.0.0.1', 9) wait(bad) print(select(2, bad:status()))"
    );
    let socket = format!("unix:{}", near.admin_socket());
    let mut console = Console::start(&scratch, &["--attach", "--status", &socket], &code);
    let ports = console.ports();
    assert_eq!(letters(loopback(ports[0]), 3), "aaa");
    assert_eq!(letters(loopback(ports[1]), 1), "a");
    let (mut client, _) = connect5(loopback(ports[2]), "127.0.0.1", to);
    assert_eq!(client.some().unwrap(), b"a");
    drop(client);
    assert!(console.line().contains("connect: the links of the process stand in its configuration"));
    assert!(console.line().contains("listen: the servers of the process stand in its configuration"));
    assert!(console.line().contains("name: names stand in the configuration of the process"));
    let line = console.line();
    assert!(line.contains("in use"), "{line}");
    console.left();
    // The process and what was opened go on without the console.
    assert_eq!(letters(web, 1), "a");
    assert_eq!(letters(loopback(ports[0]), 1), "a");
}

/// The only link of the process gets a second path at the prompt, and loses it by `seaprox ctl`.
#[test]
fn an_attached_console_and_ctl_change_the_paths_of_a_link() {
    let scratch = Scratch::new();
    let secret = secret(&scratch);
    let (_far, port) = far(&secret);
    let near = office(&secret, port, 9);
    let socket = format!("unix:{}", near.admin_socket());
    let code = "tc = connection('office')
        tc:add_path('tcp:127.0.0.2')
        print(table.concat(list_paths(tc), ' '))
        print(why(add_path, tc, 'tcp:127.0.0.2'))
        print(why(add_path, tc, 'nonsense'))";
    let mut console = Console::start(&scratch, &["--attach", "--status", &socket], code);
    assert_eq!(console.line(), " tcp:127.0.0.2");
    assert!(console.line().contains("add_path: the link has the path \"tcp:127.0.0.2\""));
    assert!(console.line().contains("path \"nonsense\": the source \"nonsense\": expected an address of this host"));
    console.left();
    let from = |address: &str| {
        let status = near.status();
        let subflows = status["links"][0]["subflows"].as_array().unwrap().clone();
        let is_its = |local: &str| local.starts_with(&format!("{address}:"));
        subflows.iter().filter(|it| it["state"] == "live" && is_its(it["local"].as_str().unwrap())).count()
    };
    until("the path has a subflow", || from("127.0.0.2") == 1);
    let ctl = |words: &[&str]| run(&[&["ctl", "--status", &socket], words].concat());
    let ran = ctl(&["remove-path", "", "office"]);
    assert_eq!(
        (ran.code, String::from_utf8_lossy(&ran.out).contains("paths tcp:127.0.0.2")),
        (Some(0), true),
        "{ran:?}"
    );
    until("it has the only subflow", || near.status()["links"][0]["subflows"].as_array().unwrap().len() == 1);
    for (words, code, text) in [
        (&["remove-path", "tcp:127.0.0.2"][..], 1, "is the last path"),
        (&["add-path", "%p1", "home"], 1, "no link \"home\"; this process dials office"),
        (&["add-path", "nonsense"], 2, "path \"nonsense\""),
        (&["add-path"], 2, "expected add-path PATH [LINK]"),
    ] {
        let ran = ctl(words);
        assert_eq!((ran.code, ran.err.contains(text)), (Some(code), true), "{words:?}: {ran:?}");
    }
    // This process has no file, so a reload leaves the change as it is.
    assert_eq!(ctl(&["reload"]).code, Some(0));
    let ran = ctl(&["paths"]);
    assert_eq!((ran.code, from("127.0.0.2")), (Some(0), 1), "{ran:?}");
}

#[test]
fn an_attached_console_notices_the_end_of_its_process_and_closes_links() {
    let scratch = Scratch::new();
    let secret = secret(&scratch);
    let (_far, port) = far(&secret);
    let mut near = office(&secret, port, 9);
    let socket = format!("unix:{}", near.admin_socket());
    let code = "tc = connection('office') t = tunnel('web') print('attached')
        close(tc) till(function() return status(tc) == 'CLOSED' and status(t) == 'CLOSED' end) print(#list_connections())
        till(function() return (why(close, t) or ''):find('the process has ended') end) print('ended')";
    let mut console = Console::start(&scratch, &["--attach", "--status", &socket], code);
    assert_eq!(console.line(), "attached");
    assert_eq!(console.line(), "0");
    until("the link is gone", || near.status()["links"].as_array().is_some_and(Vec::is_empty));
    near.signal(libc::SIGTERM);
    near.wait(std::time::Duration::from_secs(60));
    assert_eq!(console.line(), "ended");
    console.left();
    let ran = run(&["console", "--attach", "--status", &socket, "-e", "print(1)"]);
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(ran.err.contains("no process answers"), "{}", ran.err);
    for words in [&["--process", "1"][..], &["--attach", "--secret", "file"]] {
        let ran = run(&[&["console", "-e", "print(1)"], words].concat());
        assert_eq!(ran.code, Some(2), "{}", ran.err);
    }
}

#[test]
fn the_script_of_a_file_runs_beside_its_services() {
    let scratch = Scratch::new();
    let secret = secret(&scratch);
    let (_far, port) = far(&secret);
    let server = Server::start(b'w');
    let to = server.addr.port();
    let write = |name: &str, text: &str| {
        let path = scratch.write(name, text);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    };
    let start = format!(
        "print('begun ' .. tostring(io))
        -- A link has its name when it has been up.
        repeat tc = connection('office') sleep(0.02) until tc
        wait(tc, 60)
        t = tc:tunnel(0, '127.0.0.1', {to})
        wait(t, 60)
        print('tunnel at ' .. t:local_port())
        after(0.01, function() print('the timer has run') end)
        sleep(0.05)
        connect('127.0.0.1')"
    );
    write("start.lua", &start);
    let text = format!(
        "console-script = \"start.lua\"\nsecret = \"{secret}\"\n[[listener]]\nlisten = \"127.0.0.1:0\"\nfront = \"static\"\n\
        to = \"127.0.0.1:{to}\"\n[[link]]\nname = \"office\"\nconnect = \"127.0.0.1:{port}\"\n"
    );
    let file = write("near.toml", &text);
    let ran = run(&["check", &file]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let near = Seaprox::start(&["run", &file]);
    near.wait_for_log(&["begun nil"]);
    let line = near.wait_for_log(&["seaprox::console", "tunnel at "]);
    let at = line.rsplit(' ').next().unwrap().parse().unwrap();
    near.wait_for_log(&["the timer has run"]);
    assert_eq!(letters(loopback(at), 2), "ww");
    // Its error ends the script, and nothing else.
    let line = near.wait_for_log(&["the script has failed", "connect: the links of the process stand"]);
    assert!(line.contains("start.lua"), "{line}");
    assert_eq!(letters(near.addr(0), 1), "w");
    assert_eq!(letters(loopback(at), 1), "w");
    // Another script needs a restart.
    write("other.lua", "print('other')");
    write("near.toml", &text.replace("start.lua", "other.lua"));
    near.signal(libc::SIGHUP);
    near.wait_for_log(&["console-script"]);
    for (name, script, expected) in
        [("missing.lua", None, "missing.lua"), ("wrong.lua", Some("x = = 1"), "wrong.lua:1:")]
    {
        script.into_iter().for_each(|script| _ = write(name, script));
        let file = write("wrong.toml", &text.replace("start.lua", name));
        for command in ["check", "run"] {
            let ran = run(&[command, &file]);
            assert_eq!(ran.code, Some(78), "{command} {name}: {}", ran.err);
            assert!(ran.err.contains("console-script") && ran.err.contains(expected), "{command}: {}", ran.err);
        }
    }
}

#[test]
fn the_status_of_a_console_has_the_names_of_its_links_and_tunnels_and_ctl_closes_them() {
    let scratch = Scratch::new();
    let secret = secret(&scratch);
    let (_far, port) = far(&secret);
    let socket = format!("unix:{}", scratch.file("console.sock"));
    let code = format!(
        "tc = ready(connect('127.0.0.1', {port}))
        t = ready(tc:tunnel(0, '127.0.0.1', 9)) first = t:local_port()
        tc:name('quinn') t:name('web') print('named')
        till(function() return status(t) == 'CLOSED' end) print('closed')
        till(function() return status(tc) == 'CLOSED' end) print('gone')"
    );
    let mut console = Console::start(&scratch, &["--secret", &secret, "--status", &socket], &code);
    assert_eq!(console.line(), "named");
    let ctl = |words: &[&str]| run(&[words, &["--status", &socket]].concat());
    let mut text = String::new();
    until("the names are in the status", || {
        text = String::from_utf8(ctl(&["status"]).out).unwrap();
        text.contains("quinn") && text.contains("\"web\"")
    });
    let refused = ctl(&["ctl", "reload"]);
    assert_eq!(refused.code, Some(1), "{}", refused.err);
    assert!(refused.err.contains("this process is a console"), "{}", refused.err);
    assert_eq!(ctl(&["ctl", "log-level", "warn"]).code, Some(0));
    let closed = ctl(&["ctl", "close", "forward", "web"]);
    assert_eq!(closed.code, Some(0), "{}", closed.err);
    assert_eq!(console.line(), "closed");
    assert_eq!(ctl(&["ctl", "close", "forward", "web"]).code, Some(1));
    assert_eq!(ctl(&["ctl", "close", "link", "quinn"]).code, Some(0));
    assert_eq!(console.line(), "gone");
    console.left();
}
