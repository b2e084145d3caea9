//! Datagrams over links: `--via`, `-L udp:…` and `-R udp:…`, permissions, the ends of flows, a link that is away.

use crate::datagrams::ask_until_refused;
use crate::kit;

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use kit::datagrams::echo;
use kit::link::Keys;
use kit::names::isolated;
use kit::program::output;
use kit::{Seaprox, has, has_namespaces, until};

/// Makes the socket of a client.
fn client() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    socket
}

/// Sends a datagram until its echo is there: a link may drop datagrams.
#[track_caller]
fn converse(client: &UdpSocket, to: SocketAddr, payload: &[u8]) {
    let mut buf = [0; 65_536];
    until("an echo", || {
        client.send_to(payload, to).unwrap();
        client.recv_from(&mut buf).is_ok_and(|(len, from)| from == to && &buf[..len] == payload)
    });
    // Later echoes of the same datagram are not those of the next one.
    while client.recv_from(&mut buf).is_ok() {}
}

/// Waits for a line on stdout that begins with these words. Returns the address behind them.
#[track_caller]
pub fn said(node: &Seaprox, start: &str) -> SocketAddr {
    let line = || node.out().into_iter().find(|line| line.starts_with(start));
    until(start, || line().is_some());
    let line = line().unwrap();
    line[start.len()..].split_whitespace().next().unwrap().trim_start_matches("udp:").parse().unwrap()
}

/// Two nodes of which the far one permits the near one all datagrams to 127.0.0.1.
pub struct Pair {
    keys: Keys,
    far: Seaprox,
}

impl Pair {
    pub fn new(options: &[&str]) -> Pair {
        let keys = Keys::new();
        keys.permit(Some("permit-open=\"udp:127.0.0.1:*\",permit-open=\"127.0.0.1:*\",permit-listen=\"udp:*\""));
        let far = keys.start_far(options);
        Pair { keys, far }
    }

    /// Starts a command of the near node with a link to the far one.
    pub fn near(&self, words: &[&str], option: &str) -> Seaprox {
        let mut via = self.keys.via(&self.far.addr(0).to_string());
        via[0] = option.to_owned();
        let words: Vec<&str> = words.iter().copied().chain(via.iter().map(String::as_str)).collect();
        Seaprox::start(&words)
    }
}

#[test]
fn a_static_listener_sends_its_datagrams_over_a_link_and_both_ends_say_how_the_flow_ended() {
    let pair = Pair::new(&[]);
    let to = echo().to_string();
    let near =
        pair.near(&["static", "--udp", "--listen", "127.0.0.1:0", "--to", &to, "--udp-idle-timeout", "2s"], "--via");
    let addr = said(&near, "listening static ");
    let clients = [client(), client()];
    for len in [1, 1_400, 0, 9_000, 16_377, 65_507] {
        clients.iter().for_each(|client| converse(client, addr, &vec![len as u8; len]));
    }
    assert_eq!(near.figure("/usage/flows"), 2);
    assert_eq!(pair.far.figure("/usage/flows"), 2);
    let line = near.wait_for_log(&[" closed ", "reason=idle_timeout"]);
    assert!(line.contains("dialled=link[") && line.contains("dropped=0"), "{line}");
    pair.far.wait_for_log(&[" closed ", "conn=link[link[", "->ipv4[udp:127.0.0.1:", "reason=source_fin"]);
    until("both ends have no flow", || near.figure("/usage/flows") == 0 && pair.far.figure("/usage/flows") == 0);
}

#[test]
fn the_idle_timer_of_the_far_node_ends_a_flow_at_both_ends() {
    let pair = Pair::new(&["--udp-idle-timeout", "1s"]);
    let near = pair.near(&["link", "-L", &format!("udp:127.0.0.1:0:{}", echo())], "--connect");
    converse(&client(), said(&near, "listening static "), b"ask");
    pair.far.wait_for_log(&[" closed ", "->ipv4[udp:127.0.0.1:", "reason=idle_timeout"]);
    near.wait_for_log(&[" closed ", "dialled=link["]);
    until("the near node has no flow", || near.figure("/usage/flows") == 0);
}

#[test]
fn forwards_of_a_link_carry_datagrams_in_both_directions() {
    let pair = Pair::new(&[]);
    let (local, remote) = (format!("udp:127.0.0.1:0:{}", echo()), format!("udp:127.0.0.1:0:{}", echo()));
    let near = pair.near(&["link", "-L", &local, "-R", &remote], "--connect");
    let (local, remote) = (said(&near, "listening static "), said(&near, "listening remote "));
    for addr in [local, remote] {
        let clients = [client(), client()];
        clients.iter().enumerate().for_each(|(index, client)| converse(client, addr, &[index as u8; 900]));
    }
    assert_eq!((near.figure("/usage/flows"), pair.far.figure("/usage/flows")), (4, 4));
    let status = near.status();
    assert_eq!(status["forwards"][0]["active"], 2, "{status}");
}

#[test]
fn a_key_without_a_permission_for_udp_sends_no_datagrams() {
    let keys = Keys::new();
    let far = keys.start_far(&[]);
    let pair = Pair { keys, far };
    let near = pair.near(&["static", "--udp", "--listen", "127.0.0.1:0", "--to", &echo().to_string()], "--via");
    client().send_to(b"ask", said(&near, "listening static ")).unwrap();
    near.wait_for_log(&[" closed ", "reason=not_permitted", "datagrams="]);
    pair.far.wait_for_log(&["stream refused", "asked=udp:127.0.0.1:"]);
}

#[test]
fn a_closed_port_behind_a_link_ends_the_flow_at_both_ends() {
    let pair = Pair::new(&[]);
    let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let near = pair.near(&["static", "--udp", "--listen", "127.0.0.1:0", "--to", &gone], "--via");
    ask_until_refused(&near, said(&near, "listening static "));
    pair.far.wait_for_log(&[" closed ", "reason=connection_refused"]);
}

#[test]
fn datagrams_for_a_link_that_is_not_up_are_dropped_and_later_ones_pass() {
    let keys = Keys::new();
    keys.permit(Some("permit-open=\"udp:127.0.0.1:*\""));
    let far = keys.start_far(&[]);
    let addr = far.addr(0).to_string();
    let pair = Pair { keys, far };
    let near = pair.near(&["static", "--udp", "--listen", "127.0.0.1:0", "--to", &echo().to_string()], "--via");
    let (to, client) = (said(&near, "listening static "), client());
    converse(&client, to, b"up");
    let Pair { keys, far } = pair;
    drop(far);
    until("the link is down", || near.status()["links"][0]["state"] != "up");
    for _ in 0..500 {
        client.send_to(&[0; 1_200], to).unwrap();
    }
    assert!(near.figure("/usage/flows") <= 1);
    let again = Seaprox::start(&["link", "--listen", &addr, "--config-dir", &keys.far_dir()]);
    converse(&client, to, b"up again");
    drop(again);
}

#[test]
fn datagrams_wait_for_a_link_for_a_second_and_more_of_them_do_not_lengthen_the_wait() {
    if !has_namespaces() {
        return;
    }
    // The port of the far node stays free there.
    isolated("", |_| {
        let keys = Keys::new();
        keys.permit(Some("permit-open=\"udp:127.0.0.1:*\""));
        let far = ["link", "--listen", "127.0.0.1:4000", "--config-dir", &keys.far_dir()];
        // The first start makes the key of the far node.
        drop(Seaprox::start(&far));
        let (to, via) = (echo().to_string(), keys.via("127.0.0.1:4000"));
        let near = |timeout: &str| {
            let words =
                ["static", "--udp", "--listen", "127.0.0.1:0", "--to", &to, "--udp-first-answer-timeout", timeout];
            let words: Vec<&str> = words.into_iter().chain(via.iter().map(String::as_str)).collect();
            Seaprox::start(&words)
        };
        let (hasty, patient) = (near("2s"), near("1h"));
        let (to, client) = (said(&hasty, "listening static "), client());
        until("the flow ends although the client goes on", || {
            client.send_to(b"again", to).unwrap();
            std::thread::sleep(Duration::from_millis(20));
            hasty.log().iter().any(|line| line.contains("the link was not up within 2s"))
        });
        let to = said(&patient, "listening static ");
        (0..8).for_each(|_| assert_eq!(client.send_to(b"old", to).unwrap(), 3));
        until("the datagrams wait", || patient.figure("/usage/flows") == 1);
        std::thread::sleep(Duration::from_millis(1_500));
        let _far = Seaprox::start(&far);
        until("the link is up", || patient.status()["links"][0]["state"] == "up");
        let mut buf = [0; 16];
        until("an echo", || {
            client.send_to(b"new", to).unwrap();
            client.recv_from(&mut buf).is_ok_and(|(len, _)| {
                assert_eq!(&buf[..len], b"new");
                true
            })
        });
        assert_eq!(patient.figure("/flows_opened"), 1, "the flow has waited");
    });
}

#[test]
fn datagrams_that_a_link_drops_are_counted_by_reason_while_their_flow_lives() {
    let pair = Pair::new(&[]);
    let near = pair.near(&["static", "--udp", "--listen", "127.0.0.1:0", "--to", &echo().to_string()], "--via");
    let (to, client) = (said(&near, "listening static "), client());
    converse(&client, to, b"up");
    let before = near.status()["flows"][0]["datagrams_sent"].as_u64().unwrap();
    let Pair { far, keys: _keys } = pair;
    drop(far);
    until("the link is down", || near.status()["links"][0]["state"] != "up");
    // The queue of a flow holds 64 KiB.
    let mut sent = before;
    until("the queue is full", || {
        (0..20).for_each(|_| _ = client.send_to(&[0; 1_200], to).unwrap());
        sent += 20;
        near.status().pointer("/datagrams_dropped/queue_full").is_some_and(|count| count.as_u64() > Some(20))
    });
    let flow = &near.status()["flows"][0];
    let [delivered, dropped] = ["datagrams_sent", "dropped"].map(|key| flow[key].as_u64().unwrap());
    assert!(dropped > 20 && delivered > before && delivered + dropped <= sent, "{flow}, and {sent} were sent");
}

#[test]
fn a_full_table_of_flows_and_connections_of_the_same_key_refuse_no_flow_over_a_link() {
    let keys = Keys::new();
    keys.permit(Some("permit-open=\"udp:127.0.0.1:*\",permit-open=\"127.0.0.1:*\""));
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let file = keys.write(
        "far.toml",
        format!(
            "threads = 1\nudp-flows = 8\nconfig-dir = \"{}\"\n[defaults]\nudp-first-answer-timeout = \"1h\"\n\
             [[serve]]\nlisten = \"127.0.0.1:0\"\n\
             [[listener]]\nfront = \"static\"\nudp = true\nlisten = \"127.0.0.1:0\"\nto = \"{}\"\n",
            keys.far_dir(),
            silent.local_addr().unwrap()
        ),
    );
    let far = Seaprox::start(&["run", &file]);
    let (flooded, link) = (said(&far, "listening static "), said(&far, "listening link "));
    let near = |words: &[&str]| {
        let via = keys.via(&link.to_string());
        let words: Vec<&str> = words.iter().copied().chain(via.iter().map(String::as_str)).collect();
        Seaprox::start(&words)
    };
    // As many connections of the key as there can be flows.
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let over = near(&["static", "--listen", "127.0.0.1:0", "--to", &tcp.local_addr().unwrap().to_string()]);
    let streams: Vec<_> = (0..9).map(|_| TcpStream::connect(over.addr(0)).unwrap()).collect();
    until("the connections are open", || far.figure("/usage/connections") == 9);
    // Flows of strangers without an answer fill the table.
    let strangers: Vec<UdpSocket> = (0..20).map(|_| client()).collect();
    until("the table of flows is full", || {
        strangers.iter().for_each(|stranger| _ = stranger.send_to(b"flood", flooded).unwrap());
        far.figure("/usage/flows") == 8
    });
    let near = near(&["static", "--udp", "--listen", "127.0.0.1:0", "--to", &echo().to_string()]);
    converse(&client(), said(&near, "listening static "), b"ask");
    assert_eq!((far.figure("/usage/flows"), streams.len()), (8, 9));
}

#[test]
fn a_flood_at_a_listener_for_a_peer_ends_its_oldest_flows_and_not_its_new_ones() {
    let keys = Keys::new();
    keys.permit(Some("permit-open=\"udp:127.0.0.1:*\",permit-listen=\"udp:*\""));
    let file = keys.write(
        "far.toml",
        format!(
            "threads = 1\nudp-flows = 16\nconfig-dir = \"{}\"\n[defaults]\nudp-first-answer-timeout = \"1h\"\n\
             [[serve]]\nlisten = \"127.0.0.1:0\"\n",
            keys.far_dir(),
        ),
    );
    let far = Seaprox::start(&["run", &file]);
    let target = UdpSocket::bind("127.0.0.1:0").unwrap();
    target.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let (via, back) = (keys.via(""), target.local_addr().unwrap());
    let file = keys.write(
        "near.toml",
        format!(
            "[defaults]\nudp-first-answer-timeout = \"1h\"\n[[link]]\nconnect = \"{}\"\npeer-key = \"{}\"\n\
             forward = [{{ remote = \"udp:127.0.0.1:0:{back}\" }}, {{ local = \"udp:127.0.0.1:0:{}\" }}]\n",
            far.addr(0),
            via[3],
            echo()
        ),
    );
    let near = Seaprox::start(&["run", &file, "--config-dir", &via[5]]);
    let (mine, theirs) = (said(&near, "listening static "), said(&near, "listening remote "));
    // Flows of strangers without an answer fill the half of the key, in this order.
    let strangers: Vec<UdpSocket> = (0..8).map(|_| client()).collect();
    for (number, stranger) in strangers.iter().enumerate() {
        until("a flow of the stranger", || {
            stranger.send_to(b"flood", theirs).unwrap();
            far.figure("/usage/flows") == number as u64 + 1
        });
    }
    let arrives = |from: &UdpSocket, content: &[u8]| {
        let mut buf = [0; 16];
        until("a datagram of the client", || {
            from.send_to(content, theirs).unwrap();
            target.recv(&mut buf).is_ok_and(|len| &buf[..len] == content)
        });
    };
    arrives(&client(), b"new");
    converse(&client(), mine, b"asked");
    far.wait_for_log(&[" closed ", "reason=limit_reached", "another flow of its peer needed its place"]);
    assert_eq!(far.figure("/usage/flows"), 8);
    let opened = far.figure("/flows_opened");
    arrives(&strangers[7], b"kept");
    assert_eq!(far.figure("/flows_opened"), opened, "the flow of the last stranger is there");
}

#[test]
fn an_answered_flood_at_a_listener_for_a_peer_refuses_none_of_its_flows() {
    let keys = Keys::new();
    keys.permit(Some("permit-open=\"udp:127.0.0.1:*\",permit-listen=\"udp:*\""));
    let far = format!(
        "threads = 1\nudp-flows = 16\nconfig-dir = \"{}\"\n[[serve]]\nlisten = \"127.0.0.1:0\"\n",
        keys.far_dir()
    );
    let far = Seaprox::start(&["run", &keys.write("far.toml", far)]);
    let (via, back) = (keys.via(""), echo());
    let near = format!(
        "[[link]]\nconnect = \"{}\"\npeer-key = \"{}\"\n\
         forward = [{{ remote = \"udp:127.0.0.1:0:{back}\" }}, {{ local = \"udp:127.0.0.1:0:{back}\" }}]\n",
        far.addr(0),
        via[3]
    );
    let near = Seaprox::start(&["run", &keys.write("near.toml", near), "--config-dir", &via[5]]);
    let (mine, theirs) = (said(&near, "listening static "), said(&near, "listening remote "));
    // Answered flows of strangers fill the half of the key.
    let strangers: Vec<UdpSocket> = (0..8).map(|_| client()).collect();
    strangers.iter().for_each(|stranger| converse(stranger, theirs, b"flood"));
    assert_eq!(far.figure("/usage/flows"), 8);
    converse(&client(), mine, b"asked");
    converse(&client(), theirs, b"new");
    assert_eq!(far.figure("/usage/flows"), 8);
    far.wait_for_log(&[" closed ", "reason=limit_reached", "another flow of its peer needed its place"]);
    // The flows that were idle for longest have ended.
    let opened = far.figure("/flows_opened");
    converse(&strangers[7], theirs, b"kept");
    assert_eq!(far.figure("/flows_opened"), opened, "the flow of the last stranger is there");
}

#[test]
fn dig_asks_a_name_server_behind_a_link() {
    if !has_namespaces() || !has("dig") {
        return;
    }
    isolated("", |names| {
        names.set("a.test", &["192.0.2.7"], Duration::ZERO);
        let pair = Pair::new(&[]);
        let near = pair.near(&["link", "-L", "udp:5353:127.0.0.1:53", "-L", "5353:127.0.0.1:53"], "--connect");
        said(&near, "listening static ");
        let ask = "dig +tries=9 +time=2 +short -p 5353 @127.0.0.1 a.test A";
        assert_eq!(output(ask, &[]), "192.0.2.7");
    });
}
