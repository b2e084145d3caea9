//! UDP ASSOCIATE (RFC 1928, sections 4 and 7): the options of the listener, that of BIND among them, the address that a client announces, and the handler
//! of the datagrams.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use seaprox::config::{FrontEndConfig, FrontEndOption, OptionKind, OptionValue};
use seaprox::{
    Associate, AssociationHandler, Core, Cx, DATAGRAM_HEADER_BYTES_MAX, DatagramPeer, Dropped, Failure, FlowTarget,
    Reason, Role, Target,
};

use super::super::access::AccessPolicy;
use super::udp;

/// The options of a listener.
pub const OPTIONS: &[FrontEndOption] = &[
    FrontEndOption { name: "udp-advertise", kind: OptionKind::Ip, is_required: false },
    FrontEndOption { name: "udp-any-source", kind: OptionKind::Flag, is_required: false },
    FrontEndOption { name: "bind-advertise", kind: OptionKind::Ip, is_required: false },
    FrontEndOption { name: "udp-filter", kind: OptionKind::Choice(FILTERS), is_required: false },
];

/// The words of `udp-filter`.
pub const FILTERS: &[&str] = &["sent", "open"];

/// The settings of the associations of one listener, and of BIND.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// The address that clients are told, if it is not the one that they have connected to.
    advertised: Option<IpAddr>,
    /// The address that clients of BIND are told, if it is not the one that they have connected to.
    pub bind_advertised: Option<IpAddr>,
    /// The first datagram may come from any address.
    any_source: bool,
    /// Datagrams of all hosts pass to the client.
    is_open: bool,
}

impl Settings {
    /// Reads the options of a listener. Returns none if an address is not valid.
    pub fn of(config: &FrontEndConfig) -> Option<Settings> {
        let ip = |name| config.text(name).map(str::parse).transpose().ok();
        let (advertised, bind_advertised) = (ip("udp-advertise")?, ip("bind-advertise")?);
        let any_source = config.options.get("udp-any-source") == Some(&OptionValue::Flag(true));
        let is_open = config.text("udp-filter") == Some("open");
        Some(Settings { advertised, bind_advertised, any_source, is_open })
    }

    /// Opens the association of a client that has announced the address of its datagrams, which is 0.0.0.0:0 if the client does
    /// not know it. Returns the address that the client shall send to.
    ///
    /// # Errors
    /// Fails if there can be no association.
    pub fn associate(
        self,
        cx: &mut Cx<'_>,
        access: &Arc<AccessPolicy>,
        announced: &Target,
    ) -> Result<SocketAddr, Failure> {
        let source = cx.peer(Role::Source).ip();
        let why = "datagrams need a client with an IP address";
        let source = source.ok_or_else(|| Failure::new(Reason::Other, why))?;
        let announced = if let Target::Ip(_, addr) = announced { Some(*addr) } else { None };
        let (client, port) = self.expected(source.ip().to_canonical(), announced);
        let handler = Box::new(Datagrams { access: Arc::clone(access), source });
        let mut bound = cx.associate(Associate { handler, client, port, is_open: self.is_open })?;
        if let Some(advertised) = self.advertised {
            bound.set_ip(advertised);
        }
        Ok(bound)
    }

    /// Returns the address and the port that the datagrams must come from, as far as they are known. An announced address that is
    /// not that of the connection is believed only if datagrams may come from any: a client behind an address translation
    /// announces an address that this host never sees.
    fn expected(self, source: IpAddr, announced: Option<SocketAddr>) -> (Option<IpAddr>, Option<u16>) {
        let port = announced.map(|addr| addr.port()).filter(|port| *port != 0);
        match announced.map(|addr| addr.ip().to_canonical()).filter(|ip| !ip.is_unspecified()) {
            None if self.any_source => (None, port),
            None => (Some(source), port),
            Some(ip) if ip == source || self.any_source => (Some(ip), port),
            Some(_) => (Some(source), None),
        }
    }
}

/// The handler of the datagrams of one association.
struct Datagrams {
    access: Arc<AccessPolicy>,
    /// The client of the connection, which the rules see.
    source: SocketAddr,
}

impl AssociationHandler for Datagrams {
    fn parse<'a>(&mut self, datagram: &'a [u8]) -> Result<(DatagramPeer<'a>, usize), Dropped> {
        udp::parse_header(datagram)
    }

    fn write(&mut self, from: DatagramPeer<'_>, header: &mut [u8; DATAGRAM_HEADER_BYTES_MAX]) -> usize {
        udp::write_header(from, header)
    }

    fn open(&mut self, _core: &mut Core, target: Target) -> Result<FlowTarget, Failure> {
        self.access.flow(self.source, target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(any_source: bool, announced: &str) -> (Option<IpAddr>, Option<u16>) {
        let settings = Settings { any_source, ..Settings::default() };
        settings.expected("192.0.2.7".parse().unwrap(), Some(announced.parse().unwrap()))
    }

    #[test]
    fn the_announced_address_is_respected_where_it_is_not_zero() {
        let ip = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        for (announced, strict, any) in [
            ("0.0.0.0:0", (ip("192.0.2.7"), None), (None, None)),
            ("0.0.0.0:5000", (ip("192.0.2.7"), Some(5_000)), (None, Some(5_000))),
            ("[::]:5000", (ip("192.0.2.7"), Some(5_000)), (None, Some(5_000))),
            ("192.0.2.7:5000", (ip("192.0.2.7"), Some(5_000)), (ip("192.0.2.7"), Some(5_000))),
            ("[::ffff:192.0.2.7]:0", (ip("192.0.2.7"), None), (ip("192.0.2.7"), None)),
            ("10.0.0.3:5000", (ip("192.0.2.7"), None), (ip("10.0.0.3"), Some(5_000))),
        ] {
            assert_eq!(expected(false, announced), strict, "{announced}");
            assert_eq!(expected(true, announced), any, "{announced} with any source");
        }
    }
}
