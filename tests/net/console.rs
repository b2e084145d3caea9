//! Two consoles in two hosts (TN-08, TN-09, TN-11, TN-12, TN-45): their scripts make a link, and programs of others talk through
//! their tunnels in both directions.

use std::io::{PipeWriter, Write};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use crate::kit;
use crate::link_programs::{SSH, output, program, sshd, until_listening};
use crate::link_simultaneous::{self, PORT};
use crate::net_kit;

use kit::Step::*;
use kit::names::NameServer;
use kit::{Peer, Scratch, Seaprox, has, until, until_within};
use net_kit::nodes::{Secret, link_figure, sent_from, spawn, start, subflows, until_carried};
use net_kit::transfer::swap_while;
use net_kit::{Host, Kind, Net, has_net, own_ip};

/// Starts a console in a host that runs code.
fn console(host: &Host, secret: &Secret, code: &str) -> Seaprox {
    spawn(host, &secret.line(&["console", "-e", &format!("{READY}\n{code}")], &[]))
}

/// A function of Lua that waits for objects, and returns them.
const READY: &str = "function ready(...)
    for _, it in ipairs({...}) do assert(wait(it, 50), tostring(it)) end
    return ...
end";

/// Waits until a console has printed a line.
#[track_caller]
fn until_printed(console: &Seaprox, line: &str) {
    until_within(kit::START, &format!("a console prints {line:?}"), || {
        assert_eq!(console.count_log(&["(execute):"]), 0, "{:?}", console.log());
        console.out().iter().any(|printed| printed == line)
    });
}

/// Ends a console in order.
#[track_caller]
fn end(mut console: Seaprox) {
    console.signal(libc::SIGTERM);
    assert_eq!(console.wait(kit::SOON).code(), Some(0));
}

/// Starts two consoles, of which the far one listens, and waits until both have made their tunnels.
#[track_caller]
fn consoles(net: &Net, secret: &Secret, near: &str, far: &str) -> [Seaprox; 2] {
    let listen = format!(
        "ready(listen()) print('listening')
        while #list_connections() == 0 do sleep(0.01) end
        tc = ready(list_connections()[1])
        {far}
        print('ready')"
    );
    let far = console(net.far(), secret, &listen);
    until_printed(&far, "listening");
    let near = console(net.near(), secret, &format!("tc = ready(connect('{}')) {near} print('ready')", own_ip(1)));
    until_printed(&near, "ready");
    until_printed(&far, "ready");
    [near, far]
}

#[test]
fn ncat_and_dig_work_through_tunnels_of_two_consoles_in_both_directions() {
    if !(has_net() && has("ncat") && has("socat") && has("dig") && has("sha256sum")) {
        return;
    }
    let (net, secret, scratch) = (Net::of(&[Kind::Veth]), Secret::new(), Scratch::new());
    let hosts = [net.near(), net.far()];
    let _servers = hosts.map(|host| {
        let server = program(host, "socat -t 10 TCP-LISTEN:7001,bind=127.0.0.1,fork EXEC:sha256sum", &[]);
        until_listening(host, 7001);
        server
    });
    // Each host knows another address.
    let _names = [("192.0.2.1", net.near()), ("192.0.2.2", net.far())].map(|(address, host)| {
        host.inside(|| {
            let server = NameServer::default();
            server.set("a.test", &[address], Duration::ZERO);
            server.serve();
            server
        })
    });
    // Each console makes tunnels both ways. The far one makes them over the connection that its peer has dialed.
    let tunnels = |first: u16| {
        format!(
            "ready(tunnel(tc, {first}, '127.0.0.1', 7001), rtunnel(tc, '127.0.0.1', 7001, {first} + 1),
                udptunnel(tc, {first} + 2, '127.0.0.1', 53), rudptunnel(tc, '127.0.0.1', 53, {first} + 3))"
        )
    };
    let consoles = consoles(&net, &secret, &tunnels(8000), &tunnels(9000));
    let file = scratch.file("file");
    let digest = output(net.near(), "head -c 1000000 /dev/urandom > $0 && sha256sum < $0", &[&file]);
    // The host of a tunnel's clients, its ports, and the address that the name server behind it answers.
    for (host, tcp, udp, answer) in [
        (net.near(), "8000", "8002", "192.0.2.2"),
        (net.far(), "8001", "8003", "192.0.2.1"),
        (net.far(), "9000", "9002", "192.0.2.1"),
        (net.near(), "9001", "9003", "192.0.2.2"),
    ] {
        assert_eq!(output(host, "timeout 20 ncat 127.0.0.1 $0 < $1", &[tcp, &file]), digest, "{tcp}");
        let ask = "dig +tries=5 +time=2 +short -p $0 @127.0.0.1 a.test A";
        assert_eq!(output(host, ask, &[udp]), answer, "{udp}");
    }
    assert_eq!(net.path(0).connections().len(), 1, "everything went over one connection");
    // A console that ends in order waits for the ends of the flows of dig.
    drop(consoles);
}

#[test]
fn ssh_works_through_tunnels_of_two_consoles_in_both_directions() {
    if !(has_net() && ["ssh", "sshd", "ssh-keygen", "sha256sum"].iter().all(|program| has(program))) {
        return;
    }
    let (net, secret, scratch) = (Net::of(&[Kind::Veth]), Secret::new(), Scratch::new());
    let (near_home, far_home) = (Scratch::new(), Scratch::new());
    let _servers = [sshd(net.near(), &near_home), sshd(net.far(), &far_home)];
    let tunnels = "ready(tunnel(tc, 2222, '127.0.0.1', 22), rtunnel(tc, '127.0.0.1', 22, 2223))";
    let consoles = consoles(&net, &secret, tunnels, "");
    let file = scratch.file("file");
    let digest = output(net.near(), "head -c 1000000 /dev/urandom > $0 && sha256sum < $0", &[&file]);
    for (host, home, port) in [(net.near(), &far_home, "2222"), (net.far(), &near_home, "2223")] {
        let up = format!("{SSH} -p $1 127.0.0.1 'sha256sum; exit 7' < $2; code=$?; test $code = 7");
        assert_eq!(output(host, &up, &[home.path().to_str().unwrap(), port, &file]), digest, "{port}");
    }
    consoles.into_iter().for_each(end);
}

/// Starts a console in each host with a pause between them. Both connect to the other's port from their own, and neither
/// listens. They become one link, which carries what ncat sends from either side.
#[track_caller]
fn check_dials(near_first: bool, pause: Duration) {
    let (net, secret) = (link_simultaneous::net(), Secret::new());
    let [here, there] = [net.path(0).near_ip(), net.path(0).far_ip()];
    let hosts = [net.near(), net.far()];
    let servers = hosts.map(|host| host.inside(|| TcpListener::bind("127.0.0.1:0").unwrap()));
    let start = |is_near: bool| {
        let (host, peer, to) = if is_near { (hosts[0], there, &servers[1]) } else { (hosts[1], here, &servers[0]) };
        let code = format!(
            "tc = ready(connect('{peer}', {PORT}, {PORT}))
            assert(#list_connections() == 1 and tc:local_port() == {PORT} and tc:remote_port() == {PORT})
            ready(tc:tunnel(8000, '127.0.0.1', {}))
            print(status(tc))",
            to.local_addr().unwrap().port()
        );
        console(host, &secret, &code)
    };
    let first = start(near_first);
    thread::sleep(pause);
    let mut consoles = [first, start(!near_first)];
    consoles.iter().for_each(|console| until_printed(console, "CONNECTED\tnil"));
    assert_eq!(net.path(0).connections(), [((here, PORT).into(), (there, PORT).into())]);
    for (host, server) in [(hosts[0], &servers[1]), (hosts[1], &servers[0])] {
        assert_eq!(host.run(&format!("ss -Htln sport = :{PORT}")).trim(), "", "nobody listens");
        let mut client = host.inside(|| Peer::connect(([127, 0, 0, 1], 8000).into()));
        let mut server = Peer::accept(server);
        kit::peer::both(&mut client, &[Swap(100_000)], &mut server, &[Swap(100_000)]);
    }
    for console in &mut consoles {
        assert_eq!(subflows(console).len(), 1);
    }
}

#[test]
fn two_consoles_that_connect_to_each_other_at_once_and_do_not_listen_are_connected() {
    if has_net() {
        check_dials(true, Duration::ZERO);
    }
}

#[test]
fn two_consoles_that_connect_to_each_other_with_a_pause_and_do_not_listen_are_connected() {
    if has_net() {
        check_dials(true, Duration::from_millis(400));
        check_dials(false, Duration::from_millis(400));
    }
}

/// A console whose lines the test types.
struct Prompt {
    console: Seaprox,
    lines: PipeWriter,
    typed: usize,
}

impl Prompt {
    fn start(host: &Host, secret: &Secret) -> Prompt {
        let (reader, lines) = std::io::pipe().unwrap();
        let line = secret.line(&["console"], &[]);
        let words: Vec<&str> = line.iter().map(String::as_str).collect();
        let console = Seaprox::spawn(&words, |command| {
            host.enter(command);
            command.stdin(reader);
        });
        Prompt { console, lines, typed: 0 }
    }

    /// Types an expression, and returns the line that its value is printed as, or its error.
    #[track_caller]
    fn run(&mut self, code: &str) -> String {
        self.typed += 1;
        let head = format!("[{}] ", self.typed);
        let code = code.replace('\n', " ");
        writeln!(self.lines, "print('{head}' .. tostring(select(2, pcall(function() {code} end)) or 'done'))").unwrap();
        let mut answer = None;
        until_within(kit::START, &format!("the console answers to {code}"), || {
            answer = self.console.out().iter().find_map(|line| line.strip_prefix(&head).map(str::to_owned));
            answer.is_some()
        });
        answer.unwrap()
    }
}

/// Adds a path at a console in the middle of a transfer, and removes the first one. Each path has `prefix` before its address, and
/// gets subflows of these carriers.
#[track_caller]
fn paths_come_and_go_at_a_console(prefixes: [&str; 2], carriers: [&[&str]; 2]) {
    let (net, secret) = (Net::of(&[Kind::Rate(50.0), Kind::Rate(50.0)]), Secret::new());
    let _far = start(net.far(), &secret.far(&[]));
    let listener = net.far().inside(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let sources = [0, 1].map(|index| net.path(index).near_ip().to_string());
    let [first, second] = [0, 1].map(|index| format!("'{}{}'", prefixes[index], sources[index]));
    let mut prompt = Prompt::start(net.near(), &secret);
    assert_eq!(prompt.run(&format!("tc = connect('{}')", own_ip(1))), "done");
    assert_eq!(prompt.run(&format!("tc:add_path({first})")), "done");
    // The path that leaves everything to the system has no text.
    assert_eq!(prompt.run("return table.concat(list_paths(tc), ' ')"), format!(" {}", first.replace('\'', "")));
    assert_eq!(prompt.run("tc:remove_path()"), "done");
    prompt.run("wait(tc, 50)");
    let port = listener.local_addr().unwrap().port();
    assert_eq!(prompt.run(&format!("t = tunnel(tc, 8000, '127.0.0.1', {port}) return wait(t, 50)")), "true");
    until_carried(&prompt.console, carriers[0]);
    let client = net.near().inside(|| Peer::connect(([127, 0, 0, 1], 8000).into()));
    let peers = (client, Peer::accept(&listener));
    let sent = |prompt: &Prompt, index: usize| sent_from(&prompt.console, &sources[index]);
    swap_while(peers, 0, || {
        until("the first path is used", || sent(&prompt, 0) > 1 << 20);
        assert_eq!(sent(&prompt, 1), 0);
        assert_eq!(prompt.run(&format!("add_path(tc, {second})")), "done");
        until("the second path is used too", || sent(&prompt, 1) > 1 << 20);
        until_carried(&prompt.console, &carriers.concat());
        assert_eq!(prompt.run(&format!("remove_path(tc, {first})")), "done");
        until_carried(&prompt.console, carriers[1]);
        let before = sent(&prompt, 1);
        until("the second path carries the rest", || sent(&prompt, 1) > before + (1 << 20));
    });
    assert_eq!((sent(&prompt, 0), net.path(0).connections().len()), (0, 0));
    assert_eq!(link_figure(&prompt.console, "resumes"), 0, "the link always had a path");
    // Mistakes are told, and change nothing.
    for (code, error) in [
        (format!("remove_path(tc, {second})"), "is the last path: add another one first"),
        (format!("remove_path(tc, {first})"), "expected one of"),
        (format!("add_path(tc, {second})"), "the link has the path"),
        (
            "add_path(tc, 'nonsense')".to_owned(),
            "path \"nonsense\": the source \"nonsense\": expected an address of this host",
        ),
        ("add_path(tc, 7)".to_owned(), "path: expected a string, not integer"),
        ("add_path(t, '%p1')".to_owned(), "tc: expected a connection"),
        ("add_path()".to_owned(), "add_path: expected a connection"),
        ("for i = 1, 99 do add_path(tc, '->192.0.2.' .. i) end".to_owned(), "expected at most 16 subflows in total"),
    ] {
        let answer = prompt.run(&code);
        assert!(answer.contains(error), "{code}: {answer}");
    }
    assert_eq!(prompt.run("tc:close() return tostring(pcall(tc.add_path, tc, '%p1'))"), "false");
}

#[test]
fn paths_of_tcp_and_of_quic_come_and_go_at_a_console_during_a_transfer() {
    if has_net() {
        paths_come_and_go_at_a_console(["tcp:", "tcp:"], [&["tcp"], &["tcp"]]);
        paths_come_and_go_at_a_console(["tcp:", "quic:"], [&["tcp"], &["quic"]]);
    }
}

/// Each path has a subflow of each carrier.
#[test]
fn paths_of_the_default_carrier_come_and_go_at_a_console_during_a_transfer() {
    if has_net() {
        paths_come_and_go_at_a_console(["", ""], [&["quic", "tcp"], &["quic", "tcp"]]);
    }
}

/// A console that was dialed has no paths of its own.
#[test]
fn a_console_does_not_change_the_paths_of_a_link_that_its_peer_has_dialed() {
    if !has_net() {
        return;
    }
    let (net, secret) = (Net::of(&[Kind::Veth]), Secret::new());
    let [near, far] = consoles(&net, &secret, "", "print(pcall(add_path, tc, '%p1'))");
    let is_refused =
        |line: &String| line.starts_with("false\t") && line.contains("the peer has dialed this connection");
    assert!(far.out().iter().any(is_refused), "{:?}", far.out());
    [near, far].into_iter().for_each(end);
}
