//! UDP addresses where a link takes none: as the address of a peer, as the target of a connection, and beside TCP in one forward.

use crate::node_kit::*;

use seaprox::node::{LinkConfig, Path};
use seaprox::{Bind, Cx, Failure, Handler, Reason, Target, VerbError};

fn dns() -> Target {
    Target::parse("udp:dns.example:53").unwrap()
}

#[test]
fn a_link_with_a_udp_address_is_not_dialed() {
    let client = Node::start();
    let refused = |change: fn(&mut LinkConfig)| {
        let policy = client.policy.clone();
        client.ask(move |core| {
            let mut config = LinkConfig::new(identity(1), policy, Target::parse("127.0.0.1:1").unwrap());
            change(&mut config);
            assert_eq!(core.connect_link(config).unwrap_err(), VerbError::Invalid);
        });
    };
    refused(|config| config.peer = dns());
    refused(|config| config.paths = vec![Path { peer: Some(dns()), ..Path::default() }]);
    refused(|config| config.reverse = vec![Node::reverse(Bind::parse("udp:0").unwrap(), ([127, 0, 0, 1], 1).into())]);
    refused(|config| {
        let listen = Bind::parse("0").unwrap();
        config.reverse = vec![seaprox::node::Reverse { listen, to: dns() }];
    });
    assert_eq!(client.links().len(), 0);
}

#[test]
fn a_udp_target_behind_a_link_is_refused_here() {
    let (server, client) = (Node::start(), Node::start());
    let link = client.link(server.serve());
    client.until_up();
    let front = client.forward(link, dns());
    assert!(read_end(&mut connect(front)).is_ok());
    until("the client gets not_permitted", || client.closed.lock().unwrap().first() == Some(&Reason::NotPermitted));
    let error = client.ask(move |core| {
        struct Nothing;
        impl Handler for Nothing {
            fn opened(&mut self, _: &mut Cx<'_>) {}
            fn readable(&mut self, _: &mut Cx<'_>, _: &[u8]) -> usize {
                0
            }
            fn connected(&mut self, _: &mut Cx<'_>, _: Result<(), &Failure>) {}
        }
        core.link(link).unwrap().open_stream(dns(), Box::new(Nothing)).unwrap_err()
    });
    assert_eq!(error, VerbError::Invalid);
    assert_eq!(server.policy.asked.load(std::sync::atomic::Ordering::Relaxed), 0);
}
