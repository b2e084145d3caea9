//! Flows of datagrams over links: approvals of a user.

use crate::node_kit;

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use node_kit::*;
use seaprox::node::{LinkEvent, PeerKey, Policy, Request, Verdict};
use seaprox::{Bind, Core, FlowRequest, FlowTarget, Id, ListenConfig, Reason, Target, bind};

/// A policy that asks a user about requests that the peer may not make.
struct Asking(Arc<Open>);

impl Policy for Asking {
    fn admits(&self, key: &PeerKey) -> bool {
        self.0.admits(key)
    }
    fn name(&self, key: &PeerKey) -> String {
        self.0.name(key)
    }
    fn may_open(&self, key: &PeerKey, target: &Target) -> Verdict {
        self.0.may_open(key, target)
    }
    fn asks(&self, _: &PeerKey, _: &Request) -> bool {
        !self.0.opens.load(Ordering::Relaxed)
    }
}

/// Listens for datagrams and forwards them over a link to a target. Returns the listening address.
pub fn forward(node: &Node, link: Id, target: Target) -> SocketAddr {
    node.ask(move |core| {
        let mut bound = bind(&Bind::parse("udp:127.0.0.1:0").unwrap(), 1, core.config()).unwrap();
        let choose = move |_: &mut Core, _: &FlowRequest<'_>| Ok(FlowTarget::new(target.clone()));
        let new = ListenConfig::new("static", Box::new(|| unreachable!()));
        let config = ListenConfig { link: Some(link), datagrams: Some(Box::new(choose)), ..new };
        core.listen(&mut bound[0], config).unwrap();
        bound[0].addr().ip().unwrap()
    })
}

#[test]
fn a_flow_that_needs_an_approval_is_refused_and_a_later_one_passes() {
    let (server, client) = (Node::start(), Node::start());
    let policy = Arc::new(Asking(Arc::clone(&server.policy))) as Arc<dyn Policy>;
    let addr = server.serve_with("127.0.0.1:0".parse().unwrap(), move |config| config.policy = policy);
    let link = client.link(addr);
    client.until_up();
    let target = UdpSocket::bind("127.0.0.1:0").unwrap();
    target.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let to = target.local_addr().unwrap();
    let front = forward(&client, link, to.into());
    let source = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.policy.opens.store(false, Ordering::Relaxed);
    source.send_to(b"before", front).unwrap();
    let is_asked = |event: &LinkEvent| match event {
        LinkEvent::Asked { request, connection: None, .. } => request.to_string() == format!("connect to udp:{to}"),
        _ => false,
    };
    until("a user is asked", || server.has(is_asked));
    until("the flow is refused", || client.ask(|core| core.stats().flows_closed[Reason::NotPermitted as usize]) > 0);
    assert!(target.recv(&mut [0; 9]).is_err(), "a datagram has passed before the approval");
    server.policy.opens.store(true, Ordering::Relaxed);
    let mut buf = [0; 9];
    until("a datagram passes", || {
        source.send_to(b"after", front).unwrap();
        target.recv(&mut buf).is_ok()
    });
    assert_eq!(&buf[..5], b"after");
}
