//! Questions that a node asks on its terminal, between real processes in a network of the test's own: to accept the key
//! of an unknown server (TN-58), and to permit a request that the key of a peer does not permit (TN-57).

use crate::kit;
use crate::net_kit;

use std::net::TcpListener;

use kit::Step::*;
use kit::socks::connect5;
use kit::{Peer, Terminal, has, until};
use net_kit::home::{Home, far_line, homes, near_line};
use net_kit::nodes::{PORT, front, start};
use net_kit::{Kind, Net, has_net, own_ip};

fn words(line: Vec<String>, more: &[&str]) -> Vec<String> {
    line.into_iter().filter(|word| word != "-v").chain(more.iter().map(|word| (*word).to_owned())).collect()
}

#[test]
fn an_unknown_key_is_asked_about_and_stored() {
    if !has_net() || !has("script") {
        return;
    }
    let net = Net::of(&[Kind::Veth]);
    let (near, far_home) = homes("permit-open=\"*\"");
    near.write("known_nodes", "");
    let _far = start(net.far(), &far_line(&far_home));
    let line = || words(near_line(&near, &["-D", "127.0.0.1:0"]), &["--status", "none"]);
    let place = format!("{}:{PORT}", own_ip(1));

    let mut terminal = Terminal::start(&line(), |command| net.near().enter(command));
    terminal.wait_for(&format!("The key of {place} is not known"));
    terminal.wait_for("SHA256:");
    terminal.wait_for("(yes/no)? ");
    terminal.type_line("no");
    assert_eq!(terminal.code(), Some(77));
    terminal.wait_for("was not accepted");
    assert_eq!(near.read("known_nodes"), "");

    let mut terminal = Terminal::start(&line(), |command| net.near().enter(command));
    terminal.wait_for("(yes/no)? ");
    terminal.type_line("perhaps");
    terminal.wait_for("Type yes or no: ");
    terminal.type_line("yes");
    terminal.wait_for(&format!("link up {place}"));
    assert_eq!(near.read("known_nodes").trim(), format!("{place} {}", far_home.key()));
    drop(terminal);
    // The key is stored: the node asks no more, and needs no terminal.
    let near = start(net.near(), &near_line(&near, &["-D", "127.0.0.1:0"]));
    until("the link is up", || near.out().iter().any(|line| line.starts_with("link up ")));
}

#[test]
fn with_ask_a_forbidden_request_is_asked_about_once() {
    if !has_net() || !has("script") {
        return;
    }
    let net = Net::of(&[Kind::Veth]);
    let listeners = [0, 1, 2].map(|_| net.far().inside(|| TcpListener::bind("127.0.0.1:0").unwrap()));
    let ports = listeners.each_ref().map(|listener| listener.local_addr().unwrap().port());
    let (near_home, far_home) = homes("name=laptop");
    let line = words(far_line(&far_home), &["--ask", "--status", "none"]);
    let mut far = Terminal::start(&line, |command| net.far().enter(command));
    far.wait_for("listening link");
    let near = start(
        net.near(),
        &near_line(&near_home, &["-D", "127.0.0.1:0", "-R", "2222:127.0.0.1:9", "--connect-timeout", "4s"]),
    );
    far.wait_for("laptop (SHA256:");
    far.wait_for("wants this node to listen on 2222. May it (yes/no)? ");
    assert!(!net.far().run("ss -Hltn").contains(":2222 "), "no listener before the answer");
    far.type_line("yes");
    until("the far node listens", || near.out().iter().any(|line| line.starts_with("listening remote 2222")));

    let proxy = front(&near, "socks");
    let asks = |port: u16| net.near().spawn(move || connect5(proxy, "127.0.0.1", port));
    let client = asks(ports[0]);
    far.wait_for(&format!("wants this node to connect to 127.0.0.1:{}. May it (yes/no)? ", ports[0]));
    assert!(!client.is_finished(), "the client waits for the answer");
    listeners[0].set_nonblocking(true).unwrap();
    assert!(listeners[0].accept().is_err(), "no connection is made before the answer");
    listeners[0].set_nonblocking(false).unwrap();
    far.type_line("yes");
    let (mut client, reply) = client.join().unwrap();
    assert_eq!(reply[1], 0);
    let mut server = Peer::accept(&listeners[0]);
    client.run(&[Send(1000), Fin]);
    server.run(&[Read(1000), Fin, ReadAll]);
    // The next connection is not asked about.
    let (_client, reply) = asks(ports[0]).join().unwrap();
    assert_eq!(reply[1], 0);

    // Several requests of the same kind give one question, and a no refuses them all.
    let clients = [0, 1].map(|_| asks(ports[1]));
    far.wait_for(&format!("connect to 127.0.0.1:{}. May it (yes/no)? ", ports[1]));
    far.type_line("no");
    for client in clients {
        assert_eq!(client.join().unwrap().1[1], 2, "not allowed by ruleset (RFC 1928, section 6)");
    }
    assert_eq!(asks(ports[1]).join().unwrap().1[1], 2);
    let question = format!("connect to 127.0.0.1:{}. May it", ports[1]);
    assert_eq!(far.shown().matches(&question).count(), 1, "{}", far.shown());

    // A late answer applies to the next request.
    let client = asks(ports[2]);
    far.wait_for(&format!("connect to 127.0.0.1:{}. May it (yes/no)? ", ports[2]));
    assert_eq!(client.join().unwrap().1[1], 6, "TTL expired: the time of the request is over");
    far.type_line("yes");
    until("the next request is permitted", || asks(ports[2]).join().unwrap().1[1] == 0);
    listeners[1].set_nonblocking(true).unwrap();
    assert!(listeners[1].accept().is_err(), "a refused target gets no connection");
}

#[test]
fn ask_without_a_terminal_is_a_usage_error() {
    let home = Home::new();
    home.key();
    let line = words(home.line(&["link", "--listen", "127.0.0.1:0", "--ask"]), &[]);
    let ran = kit::run(&line.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(ran.code, Some(2), "{}", ran.err);
    assert!(ran.err.contains("--ask: expected a terminal"), "{}", ran.err);
}
