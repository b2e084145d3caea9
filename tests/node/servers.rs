//! The verbs of servers, the places where links are accepted: over real sockets between two nodes.

use crate::node_kit;

use std::net::{SocketAddr, TcpStream};

use node_kit::*;
use seaprox::node::{CarrierKind, LinkEvent, LinksOfServer};
use seaprox::{Kind, Reason, VerbError};

fn stop(node: &Node, server: seaprox::Id, links: LinksOfServer) -> Result<(), VerbError> {
    node.ask(move |core| core.server(server).and_then(|mut server| server.stop(links)))
}

fn is_refused(addr: SocketAddr) -> bool {
    TcpStream::connect(addr).is_err()
}

#[test]
fn a_server_has_its_address_its_links_and_its_counts() {
    let (server, client) = (Node::start(), Node::start());
    let serve = || server.serve_over(CarrierKind::Tcp, "127.0.0.1:0".parse().unwrap(), timing());
    let (first, second) = (serve(), serve());
    client.link_over_tcp(first);
    client.until_up();
    let links = server.links();
    let servers = server.ask(|core| core.servers());
    assert_eq!(servers.iter().map(|server| server.address.ip()).collect::<Vec<_>>(), [Some(first), Some(second)]);
    assert_eq!((&servers[0].links, servers[0].carriers, servers[0].sessions), (&vec![links[0].id], 1, 1));
    assert_eq!((servers[1].links.len(), servers[1].carriers, servers[1].id.kind()), (0, 0, Kind::Server));
    let [own, link] = [servers[0].id, links[0].id];
    let seen = server.ask(move |core| core.server(own).map(|server| (server.address().ip(), server.links())));
    assert_eq!(seen, Ok((Some(first), vec![link])));
    assert_eq!(server.ask(move |core| core.server(link).map(drop)), Err(VerbError::Invalid));
    assert_eq!(server.ask(move |core| core.link(own).map(drop)), Err(VerbError::Invalid));
}

#[test]
fn a_stopped_server_frees_its_address_and_its_links_go_on_or_end_as_asked() {
    for links in [LinksOfServer::GoOn, LinksOfServer::Close] {
        let (server, client) = (Node::start(), Node::start());
        let addr = server.serve();
        let link = client.link_over_tcp(addr);
        client.until_up();
        let silent = connect(addr);
        until("the silent peer is there", || server.ask(|core| core.servers())[0].carriers == 2);
        let id = server.ask(|core| core.servers())[0].id;
        assert_eq!(stop(&server, id, links), Ok(()));
        assert_eq!(stop(&server, id, links), Err(VerbError::Over(Reason::Drained)));
        until("the address is free", || is_refused(addr));
        let mut silent = silent;
        assert!(!matches!(read_end(&mut silent), Ok(1)), "a peer without a session is closed");
        if links == LinksOfServer::Close {
            until("the client hears of the end", || {
                client.has(|event| matches!(event, LinkEvent::Ended { reason: Reason::Drained, .. }))
            });
            until("the server has no link", || server.links().is_empty());
        } else {
            let (listener, target) = target();
            let (mut near, mut far) = (connect(client.forward(link, target.into())), accept(&listener));
            send_pattern(&mut near, 1, 100);
            read_pattern(&mut far, 1, 100);
            assert_eq!(server.links().len(), 1);
        }
    }
}
