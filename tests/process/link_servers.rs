//! A link to several servers, of which some have another key than the known one.

use crate::kit;

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use kit::Step::{Fin, ReadAll, Swap};
use kit::link::generate_key;
use kit::peer::both;
use kit::{Peer, Scratch, Seaprox};

/// Two nodes that accept links from a third one.
struct Servers {
    scratch: Scratch,
    nodes: [Seaprox; 2],
    keys: [String; 2],
}

impl Servers {
    #[track_caller]
    fn start() -> Servers {
        let scratch = Scratch::new();
        let near = generate_key(&scratch.file("near"));
        let names = ["one", "two"];
        let keys = names.map(|name| generate_key(&scratch.file(name)));
        let nodes = names.map(|name| {
            let file =
                scratch.write(&format!("{name}/authorized_keys"), format!("permit-open=\"127.0.0.1:*\" {near}\n"));
            std::fs::set_permissions(file, PermissionsExt::from_mode(0o600)).unwrap();
            Seaprox::start(&["link", "--listen", "127.0.0.1:0", "--config-dir", &scratch.file(name)])
        });
        Servers { scratch, nodes, keys }
    }

    /// Starts the node that dials both, which knows these keys for them. Its clients go to `target`.
    #[track_caller]
    fn dial(&self, known: [&str; 2], target: &TcpListener) -> Seaprox {
        let [one, two] = self.addrs();
        let file = self.scratch.write("known", format!("{one} {}\n{two} {}\n", known[0], known[1]));
        let local = format!("127.0.0.1:0:{}", target.local_addr().unwrap());
        let (to, config) = (format!("{one},{two}"), self.scratch.file("near"));
        Seaprox::spawn(
            &["link", "--connect", &to, "-L", &local, "--config-dir", &config, "--known-nodes", &file],
            |_| {},
        )
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
