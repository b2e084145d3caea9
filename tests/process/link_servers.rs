//! A link to several servers, of which some have another key than the known one.

use crate::kit;

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use kit::Step::{Fin, ReadAll, Swap};
use kit::link::generate_key;
use kit::peer::both;
use kit::{Peer, Scratch, Seaprox};

use crate::admin::ctl;

/// Two nodes that accept links from a third one.
struct Servers {
    scratch: Scratch,
    nodes: [Seaprox; 2],
    keys: [String; 2],
}

impl Servers {
    #[track_caller]
    fn start() -> Servers {
        Servers::start_at("127.0.0.1:0")
    }

    #[track_caller]
    fn start_at(listen: &str) -> Servers {
        let scratch = Scratch::new();
        let near = generate_key(&scratch.file("near"));
        let names = ["one", "two"];
        let keys = names.map(|name| generate_key(&scratch.file(name)));
        let nodes = names.map(|name| {
            let file =
                scratch.write(&format!("{name}/authorized_keys"), format!("permit-open=\"127.0.0.1:*\" {near}\n"));
            std::fs::set_permissions(file, PermissionsExt::from_mode(0o600)).unwrap();
            Seaprox::start(&["link", "--listen", listen, "--config-dir", &scratch.file(name)])
        });
        Servers { scratch, nodes, keys }
    }

    /// Starts the node that dials both, which knows these keys for them. Its clients go to `target`.
    #[track_caller]
    fn dial(&self, known: [&str; 2], target: &TcpListener) -> Seaprox {
        self.dial_with(known, target, &[])
    }

    #[track_caller]
    fn dial_with(&self, known: [&str; 2], target: &TcpListener, options: &[&str]) -> Seaprox {
        let [one, two] = self.addrs();
        let file = self.scratch.write("known", format!("{one} {}\n{two} {}\n", known[0], known[1]));
        let local = format!("127.0.0.1:0:{}", target.local_addr().unwrap());
        let (to, config) = (format!("{one},{two}"), self.scratch.file("near"));
        let args = ["link", "--connect", &to, "-L", &local, "--config-dir", &config, "--known-nodes", &file];
        Seaprox::spawn(&[&args, options].concat(), |_| {})
    }

    fn addrs(&self) -> [String; 2] {
        self.nodes.each_ref().map(|node| node.listens(0))
    }
}

#[test]
fn a_server_with_another_key_is_reported_while_the_other_one_serves() {
    let (servers, target) = (Servers::start(), TcpListener::bind("127.0.0.1:0").unwrap());
    let [one, two] = servers.addrs();
    let mut near = servers.dial([&servers.keys[0], &servers.keys[0]], &target);
    near.wait_for_log(&[&format!("THE KEY OF {two} HAS CHANGED")]);
    kit::until("the link to the other server is up", || {
        near.out().iter().any(|it| it.starts_with(&format!("link up {one} ")))
    });
    let front = near.listens(0).parse().unwrap();
    for _ in 0..10 {
        let mut client = Peer::connect(front);
        let mut server = Peer::accept(&target);
        both(&mut client, &[Swap(10_000), Fin, ReadAll], &mut server, &[Swap(10_000), Fin, ReadAll]);
    }
    assert!(near.runs());
    assert_eq!(near.count_log(&[&format!("THE KEY OF {one}")]), 0);
    assert_eq!(servers.nodes[1].figure("/usage/connections"), 0, "no client goes over a link with a wrong key");
}

#[test]
fn the_process_ends_when_no_server_has_the_known_key() {
    let (servers, target) = (Servers::start(), TcpListener::bind("127.0.0.1:0").unwrap());
    let mut near = servers.dial([&servers.keys[1], &servers.keys[0]], &target);
    assert_eq!(near.wait(kit::START).code(), Some(77));
    for addr in servers.addrs() {
        assert!(near.count_log(&[&format!("THE KEY OF {addr} HAS CHANGED")]) > 0, "{:?}", near.log());
    }
}

/// Ends the process of a server.
fn kill(servers: &mut Servers, index: usize) {
    servers.nodes[index].signal(libc::SIGKILL);
    servers.nodes[index].wait(kit::SOON);
}

#[test]
fn a_node_is_ready_while_one_server_of_a_link_is_up() {
    let (mut servers, target) = (Servers::start(), TcpListener::bind("127.0.0.1:0").unwrap());
    let near = servers.dial([&servers.keys[0], &servers.keys[1]], &target);
    let states = |near: &Seaprox| -> Vec<bool> {
        let status = near.status();
        status["links"].as_array().unwrap().iter().map(|link| link["state"] == "up").collect()
    };
    near.wait_for_admin();
    kit::until("both links are up", || states(&near) == [true, true]);
    assert_eq!(ctl(&near, &["ready"]).code, Some(0));
    kill(&mut servers, 0);
    kit::until("one link is down", || states(&near).iter().filter(|is_up| **is_up).count() == 1);
    let ran = ctl(&near, &["ready"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    kill(&mut servers, 1);
    kit::until("the node is not ready", || ctl(&near, &["ready"]).code == Some(69));
    let name = servers.addrs().join(",");
    let ran = ctl(&near, &["ready"]);
    assert!(ran.err.contains(&format!("not up: link {name:?}")), "{ran:?}");
}

/// The links have no name, so they are called by their addresses, which have a bracket.
#[test]
fn a_node_is_ready_when_each_of_its_links_is_up() {
    let mut servers = Servers::start_at("[::1]:0");
    let addrs = servers.addrs();
    let links = addrs.iter().zip(&servers.keys).map(|(addr, key)| {
        format!("[[link]]\nconnect = \"{addr}\"\npeer-key = \"{key}\"\nforward = [{{ dynamic = \"127.0.0.1:0\" }}]\n")
    });
    let text = links.fold("config-dir = \"near\"\n".to_owned(), |text, link| text + &link);
    let file = servers.scratch.write("near.toml", text);
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    let near = Seaprox::spawn(&["run", &file], |_| {});
    kit::until("both links are up", || ctl(&near, &["ready"]).code == Some(0));
    kill(&mut servers, 1);
    kit::until("the node is not ready", || ctl(&near, &["ready"]).code == Some(69));
    let ran = ctl(&near, &["ready"]);
    assert!(ran.err.contains(&format!("not up: link {:?}\n", addrs[1])), "{ran:?}");
    kill(&mut servers, 0);
    kit::until("both are named", || {
        let ran = ctl(&near, &["ready"]);
        addrs.iter().all(|addr| ran.err.contains(&format!("{addr:?}")))
    });
}

#[test]
fn a_server_with_another_key_gives_way_to_the_next_one_if_one_link_is_wanted() {
    let (servers, target) = (Servers::start(), TcpListener::bind("127.0.0.1:0").unwrap());
    let [one, two] = servers.addrs();
    let mut near = servers.dial_with([&servers.keys[1], &servers.keys[1]], &target, &["--links-max", "1"]);
    near.wait_for_log(&[&format!("THE KEY OF {one} HAS CHANGED")]);
    kit::until("the link to the other server is up", || {
        near.out().iter().any(|it| it.starts_with(&format!("link up {two} ")))
    });
    let mut client = Peer::connect(near.listens(0).parse().unwrap());
    let mut server = Peer::accept(&target);
    both(&mut client, &[Swap(10_000), Fin, ReadAll], &mut server, &[Swap(10_000), Fin, ReadAll]);
    assert!(near.runs());
}

#[test]
fn a_single_connection_goes_over_the_next_server_if_the_first_one_has_another_key() {
    let (servers, target) = (Servers::start(), TcpListener::bind("127.0.0.1:0").unwrap());
    let [one, two] = servers.addrs();
    let file = servers.scratch.write("known", format!("{one} {0}\n{two} {0}\n", servers.keys[1]));
    let (to, config) = (format!("{one},{two}"), servers.scratch.file("near"));
    let at = target.local_addr().unwrap().to_string();
    let args = ["link", "--connect", &to, "-W", &at, "--links-max", "1", "--config-dir", &config];
    let mut near = Seaprox::spawn(&[&args[..], &["--known-nodes", &file]].concat(), |_| {});
    let mut server = Peer::accept(&target);
    server.run(&[Fin, ReadAll]);
    assert_eq!(near.wait(kit::START).code(), Some(0));
}

#[test]
fn the_process_ends_when_no_server_has_the_known_key_and_one_link_is_wanted() {
    let (servers, target) = (Servers::start(), TcpListener::bind("127.0.0.1:0").unwrap());
    let mut near = servers.dial_with([&servers.keys[1], &servers.keys[0]], &target, &["--links-max", "1"]);
    assert_eq!(near.wait(kit::START).code(), Some(77));
}

/// Writes the file of a node that dials `servers`, and returns its path.
fn write_file(servers: &Servers, text: &str) -> String {
    let [one, two] = servers.addrs();
    servers.scratch.write("near/known_nodes", format!("{one} {}\n{two} {}\n", servers.keys[0], servers.keys[1]));
    let text = format!("config-dir = \"near\"\n{text}");
    let file = servers.scratch.write("near.toml", text);
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    file
}

#[test]
fn ctl_closes_the_link_to_one_server_and_the_link_of_the_configuration_with_all_servers() {
    let servers = Servers::start();
    let [one, two] = servers.addrs();
    let text = format!(
        "[[link]]\nname = \"office\"\nconnect = [\"{one}\", \"{two}\"]\nforward = [{{ dynamic = \"127.0.0.1:0\" }}]\n"
    );
    let near = Seaprox::start(&["run", &write_file(&servers, &text)]);
    let peers = || -> Vec<String> {
        let status = near.status();
        let up = status["links"].as_array().unwrap().iter().filter(|link| link["state"] == "up");
        let mut peers: Vec<String> = up.map(|link| link["peer"].as_str().unwrap().to_owned()).collect();
        peers.sort();
        peers
    };
    let mut both = vec![one.clone(), two.clone()];
    both.sort();
    kit::until("both links are up", || peers() == both);
    for member in [one.clone(), format!("office[{one}]")] {
        let ran = ctl(&near, &["close", "link", &member]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        kit::until("one link is left", || peers() == [two.clone()]);
        assert_eq!(near.status()["forwards"].as_array().unwrap().len(), 1);
        // A command that changes something else does not bring it back.
        assert_eq!(ctl(&near, &["open", "-L", "127.0.0.1:0:localhost:9", "--name", "web", "office"]).code, Some(0));
        assert_eq!(ctl(&near, &["close", "forward", "web"]).code, Some(0));
        assert_eq!(peers(), std::slice::from_ref(&two));
        assert_eq!(ctl(&near, &["reload"]).code, Some(0));
        kit::until("both links are up again", || peers() == both);
    }
    let ran = ctl(&near, &["--json", "close", "link", "office"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let answer: serde_json::Value = serde_json::from_slice(&ran.out).unwrap();
    assert_eq!(answer["links"].as_array().unwrap().len(), 2, "{answer}");
    kit::until("no link is left", || near.status()["links"].as_array().unwrap().is_empty());
    assert!(near.status()["forwards"].as_array().unwrap().is_empty());
}

/// A reload that is refused changes nothing, and so it does not forget the forward either.
#[test]
fn a_forward_that_a_command_has_opened_outlives_a_reload_that_is_refused() {
    let (servers, taken) = (Servers::start(), TcpListener::bind("127.0.0.1:0").unwrap());
    let [one, _] = servers.addrs();
    let link = |name: &str| {
        format!("[[link]]\nname = \"{name}\"\nconnect = \"{one}\"\nforward = [{{ dynamic = \"127.0.0.1:0\" }}]\n")
    };
    let near = Seaprox::start(&["run", &write_file(&servers, &link("office"))]);
    let ran = ctl(&near, &["open", "-L", "127.0.0.1:0:localhost:9", "--name", "web", "office"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let has_forward = || near.status()["forwards"].as_array().unwrap().iter().any(|it| it["name"] == "web");
    assert!(has_forward());
    // The address of the new listener is taken, so the change of the link is not made either.
    let listener = format!("[[listener]]\nfront = \"socks\"\nlisten = \"{}\"\n", taken.local_addr().unwrap());
    write_file(&servers, &format!("{listener}{}", link("other")));
    let ran = ctl(&near, &["reload"]);
    assert_eq!(ran.code, Some(78), "{ran:?}");
    assert!(has_forward());
    write_file(&servers, &link("office"));
    let ran = ctl(&near, &["reload"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(has_forward(), "{}", near.status()["forwards"]);
}

/// A change of the maximum asks the name server again. The links stay until it has answered.
#[test]
fn the_links_of_a_service_stay_while_its_name_server_is_silent() {
    if !kit::has_namespaces() {
        return;
    }
    kit::names::isolated("", |names| {
        names.set_ttl(200);
        let servers = Servers::start();
        let ports = servers.addrs().map(|addr| addr.parse::<std::net::SocketAddr>().unwrap().port());
        names.set("gw.example", &["127.0.0.1"], std::time::Duration::ZERO);
        names.set_service("_seaprox._tcp.example", &ports.map(|port| (0, 0, port, "gw.example")));
        let known = [0, 1].map(|at| format!("gw.example:{} {}\n", ports[at], servers.keys[at]));
        servers.scratch.write("near/known_nodes", known.concat());
        let write = |most: usize| {
            let link = "[[link]]\nname = \"office\"\nconnect = \"srv:_seaprox._tcp.example\"\n";
            let forward = "forward = [{ dynamic = \"127.0.0.1:0\" }]\n";
            let text = format!("config-dir = \"near\"\n{link}links-max = {most}\n{forward}");
            let file = servers.scratch.write("near.toml", text);
            std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
            file
        };
        let near = Seaprox::start(&["run", &write(2)]);
        let links = || -> Vec<String> {
            let status = near.status();
            let up = status["links"].as_array().unwrap().iter().filter(|link| link["state"] == "up");
            up.map(|link| link["id"].as_str().unwrap().to_owned()).collect()
        };
        kit::until("both links are up", || links().len() == 2);
        let before = links();
        names.swallow(".example");
        write(3);
        let ran = ctl(&near, &["reload"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert_eq!(links(), before);
        write(1);
        assert_eq!(ctl(&near, &["reload"]).code, Some(0));
        kit::until("one link is left", || links().len() == 1);
        assert!(before.contains(&links()[0]));
    });
}
