//! The PROXY protocol for datagrams: a header of version 2 in front of each datagram of a flow, or of the first one.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use seaprox::config::{ProxyDatagrams, ProxyProtocol};
use seaprox::rules::SourceNetwork;
use seaprox::{
    Balancer, Core, DatagramFrontEnd, DatagramHandler, DatagramHeader, Failure, FlowPrefix, FlowRequest, FlowTarget,
    HeaderReader, Reason, Target,
};

use super::header::{self, Header};
use super::version;

/// Wraps the chooser of targets of a front end whose clients or targets are given headers.
pub fn wrap_datagrams(
    protocol: &ProxyProtocol,
    inner: DatagramFrontEnd,
    balancer: Option<Arc<Balancer>>,
) -> DatagramFrontEnd {
    if *protocol == ProxyProtocol::default() {
        return inner;
    }
    let is_each = is_each(protocol);
    let trusted = protocol.accept_from.clone();
    let read = Rc::new(move |sender, datagram: &[u8]| read(&trusted, sender, datagram));
    let reader = (!protocol.accept_from.is_empty()).then_some(HeaderReader { read, is_each });
    Box::new(Proxied { protocol: protocol.clone(), balancer, reader, inner })
}

/// The chooser of a front end, behind the headers.
struct Proxied {
    protocol: ProxyProtocol,
    balancer: Option<Arc<Balancer>>,
    reader: Option<HeaderReader>,
    inner: DatagramFrontEnd,
}

impl DatagramHandler for Proxied {
    fn open(&mut self, core: &mut Core, request: &FlowRequest<'_>) -> Result<FlowTarget, Failure> {
        let mut target = self.inner.open(core, request)?;
        let addrs = (request.source, request.local);
        target.prefix = prefix(&self.protocol, self.balancer.as_deref(), &target.target, addrs);
        Ok(target)
    }

    fn header_reader(&self) -> Option<HeaderReader> {
        self.reader.clone()
    }
}

/// Returns the header in front of datagrams to a target, with the addresses that the client sends from and to; none if they have none.
pub fn prefix(
    protocol: &ProxyProtocol,
    balancer: Option<&Balancer>,
    target: &Target,
    addrs: (SocketAddr, SocketAddr),
) -> Option<FlowPrefix> {
    version(protocol, balancer, target)?;
    let bytes = Header { addrs: Some(addrs), fields: Vec::new() }.encode_datagram();
    Some(FlowPrefix { bytes, is_each: is_each(protocol) })
}

fn is_each(protocol: &ProxyProtocol) -> bool {
    protocol.datagrams == ProxyDatagrams::Each
}

/// Reads the header of a datagram. A sender that speaks for itself is its own client.
fn read(trusted: &[SourceNetwork], sender: SocketAddr, datagram: &[u8]) -> Result<DatagramHeader, Failure> {
    if !trusted.iter().any(|network| network.contains(Some(sender.ip()))) {
        return Err(Failure::new(Reason::NotPermitted, "no PROXY header is accepted from this client"));
    }
    let parsed = header::parse_datagram(datagram);
    let (Header { addrs, .. }, length) = parsed.map_err(|why| Failure::new(Reason::ProtocolError, why))?;
    let (client, local) = addrs.map_or((sender, None), |(client, local)| (client, Some(local)));
    Ok(DatagramHeader { length, client, local })
}
