//! Links to the servers that a real name server lists: their records change under load, and the links follow.

use crate::kit;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use kit::Step::*;
use kit::knot::Knot;
use kit::link::generate_key;
use kit::names::isolated;
use kit::servers::{Server, connect, under_load};
use kit::{Peer, Scratch, Seaprox, has, has_namespaces, until};

/// Nodes that stand for one another: they have one key, and accept links at one port of several addresses.
struct Gateways {
    scratch: Scratch,
    key: String,
    port: u16,
    nodes: Vec<Seaprox>,
}

impl Gateways {
    #[track_caller]
    fn start(addresses: &[&str]) -> Gateways {
        let scratch = Scratch::new();
        let [near, key] = ["near", "far"].map(|name| generate_key(&scratch.file(name)));
        owned(&scratch, "far/authorized_keys", format!("permit-open=\"127.0.0.1:*\" {near}\n"));
        let (mut port, mut nodes) = (0, Vec::new());
        for address in addresses {
            let listen = format!("{address}:{port}");
            let node = Seaprox::start(&["link", "--listen", &listen, "--config-dir", &scratch.file("far")]);
            port = node.addr(0).port();
            nodes.push(node);
        }
        Gateways { scratch, key, port, nodes }
    }

    /// Starts a node with a link to the servers of each of these lists, over each of which it reaches the target.
    #[track_caller]
    fn dial(&self, lists: &[&str], target: SocketAddr) -> Seaprox {
        let (key, mut text) = (&self.key, String::new());
        for list in lists {
            text.push_str(&format!(
                "[[link]]\n{list}\npeer-key = \"{key}\"\nforward = [{{ local = \"127.0.0.1:0:{target}\" }}]\n"
            ));
        }
        let path = owned(&self.scratch, "seaprox.toml", text);
        Seaprox::start(&["run", "-v", &path, "--config-dir", &self.scratch.file("near")])
    }
}

fn owned(scratch: &Scratch, name: &str, text: String) -> String {
    let path = scratch.write(name, text);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    path
}

fn links(node: &Seaprox) -> usize {
    let status = node.status();
    status["links"].as_array().unwrap().iter().filter(|link| link["state"] == "up").count()
}

fn opened(node: &Seaprox) -> u64 {
    node.figure("/opened")
}

/// Sends bytes to the server of a connection, and receives them again.
#[track_caller]
fn exchange(client: &mut Peer) {
    client.run(&[Put(b"are you there"), Take(b"are you there")]);
}

#[test]
fn links_follow_the_records_of_a_real_name_server_under_load_and_no_connection_fails() {
    if !(has_namespaces() && has("knotd")) {
        return;
    }
    isolated("", |_| {
        let mut gateways = Gateways::start(&["127.0.0.2", "127.0.0.3", "127.0.0.4"]);
        let (port, server) = (gateways.port, Server::start(b'a'));
        let knot = Knot::start(&format!(
            "gw A 127.0.0.2\ngw A 127.0.0.3\na A 127.0.0.2\nb A 127.0.0.3\nc A 127.0.0.4\n\
             _seaprox._tcp SRV 10 50 {port} a\n_seaprox._tcp SRV 10 50 {port} b\n"
        ));
        let service = "connect = \"srv:_seaprox._tcp.example.test\"";
        let name = format!("connect = \"gw.example.test:{port}\"\nlinks-max = 4");
        let near = gateways.dial(&[service, &name], server.addr);
        let fronts = [near.addr(0), near.addr(1)];
        until("both servers of both lists are linked", || {
            gateways.nodes[..2].iter().all(|node| links(node) == 2) && links(&near) == 4
        });
        let mut held = Vec::new();
        until("streams are open over each gateway", || {
            held.extend(fronts.map(|front| connect(front).0));
            gateways.nodes[..2].iter().all(|node| node.figure("/usage/connections") > 0)
        });
        let (_, samples) = under_load(&fronts, || {
            until("both gateways have clients", || gateways.nodes[..2].iter().all(|node| opened(node) > 20));
            let srv = |verb: &str, host: &str| format!("{verb} SRV 10 50 {port} {host}");
            knot.change(&[
                "zone-unset gw A 127.0.0.2",
                "zone-set gw 1 A 127.0.0.4",
                &srv("zone-unset _seaprox._tcp", "a"),
                &srv("zone-set _seaprox._tcp 1", "c"),
            ]);
            let [gone, stays, new] = [0, 1, 2].map(|place| &gateways.nodes[place]);
            until("the new server is linked for both lists", || links(new) == 2);
            // The links to the server that is gone leave with their last streams.
            until("the server that is gone gets no client while the others do", || {
                let (before, others) = (opened(gone), [stays, new].map(opened));
                until("the others have clients", || {
                    [stays, new].map(opened).iter().zip(others).all(|it| *it.0 > it.1 + 10)
                });
                opened(gone) == before
            });
            held.iter_mut().for_each(exchange);
            assert!(links(gone) > 0, "its streams have lived on");
            held.clear();
            until("the server that is gone has no link", || links(gone) == 0);
            assert_eq!((links(stays), links(new)), (2, 2));
            drop(gateways.nodes.remove(0));
            let before = opened(&gateways.nodes[1]);
            until("clients go on without it", || opened(&gateways.nodes[1]) > before + 20);
        });
        assert!(samples.iter().all(|(_, letter)| *letter == Some(b'a')), "a connection failed");
        println!("{} connections", samples.len());
    });
}
