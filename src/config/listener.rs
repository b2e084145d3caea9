//! A listener: addresses with one front end, and what its clients may do. A field that is none is inherited from the process.

use std::path::PathBuf;
use std::time::Duration;

use super::front_end::FrontEndConfig;
use super::maker::MadeFrontEnd;
use crate::engine::limits::{Family, Timeouts};
use crate::engine::listener::ListenConfig;
use crate::relay::dial::Egress;
use crate::types::address::Bind;
use crate::types::id::Id;
use crate::types::proto::Proto;
use crate::types::rules::{Rules, SourceNetwork};
use crate::types::unix_file::{UnixMode, UnixOwner};
use crate::types::upstream::Upstream;

/// A listener with a front end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The name, unique among listeners and forwards.
    pub name: String,
    /// The addresses to listen on; at least one.
    pub addresses: Vec<Bind>,
    /// The front end.
    pub front_end: FrontEndConfig,
    /// The name of the link over which the dests are reached; none to connect from here.
    pub link: Option<String>,
    /// The access rules.
    pub rules: Option<Rules>,
    /// The users that clients must prove to be.
    pub users: Option<Users>,
    /// The timers of its connections.
    pub timers: Timers,
    /// Connections that wait to be accepted.
    pub backlog: Option<u32>,
    /// The address families that a dial tries.
    pub family: Option<Family>,
    /// True to send small writes at once (`TCP_NODELAY`).
    pub nodelay: Option<bool>,
    /// The idle time before the first TCP keepalive probe; zero switches keepalive off.
    pub tcp_keepalive: Option<Duration>,
    /// The mode of the files of its Unix sockets.
    pub unix_mode: Option<UnixMode>,
    /// The owner of the files of its Unix sockets.
    pub unix_owner: Option<UnixOwner>,
    /// The source address and the interface of connections to dests.
    pub egress: Option<Egress>,
    /// The headers of the PROXY protocol.
    pub proxy_protocol: ProxyProtocol,
}

/// The headers of the PROXY protocol (HAProxy, proxy-protocol.txt) that clients and targets of a listener are given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// The clients that begin with a header; other clients are refused. Empty if no client sends one.
    pub accept_from: Vec<SourceNetwork>,
    /// The version of the header that begins each connection to a target; none to send no header. Datagrams have version 2.
    pub send: Option<ProxyVersion>,
    /// The datagrams that have a header, of those that are accepted and sent.
    pub datagrams: ProxyDatagrams,
    /// Targets that are given a header of another version, or none, whatever `send` is. A service stands for its hosts.
    pub send_to: Vec<(Upstream, Option<ProxyVersion>)>,
}

/// The datagrams of a flow that have a header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyDatagrams {
    /// Each of them.
    #[default]
    Each,
    /// The first one.
    First,
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// Version 1: a line of text.
    V1,
    /// Version 2: binary.
    V2,
}

/// The access rules and the users of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// The rules.
    pub rules: Rules,
    /// The users.
    pub users: Users,
}

/// The users that clients must prove to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Users {
    /// No login is required.
    #[default]
    Anyone,
    /// The users of this file of `name:password` lines.
    File(PathBuf),
}

/// The timers of the connections of a listener. Zero switches a timer off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timers {
    /// See [`Timeouts::handshake`].
    pub handshake: Option<Duration>,
    /// See [`Timeouts::connect`].
    pub connect: Option<Duration>,
    /// See [`Timeouts::keep_alive`].
    pub keep_alive: Option<Duration>,
    /// See [`Timeouts::idle`].
    pub idle: Option<Duration>,
    /// See [`Timeouts::half_closed`].
    pub half_closed: Option<Duration>,
    /// See [`Timeouts::linger`].
    pub linger: Option<Duration>,
    /// See [`Timeouts::first_answer`].
    pub first_answer: Option<Duration>,
    /// See [`Timeouts::flow_idle`].
    pub flow_idle: Option<Duration>,
    /// See [`Timeouts::association_idle`].
    pub association_idle: Option<Duration>,
}

impl Listener {
    /// Returns the configuration of this listener in one loop, in the thread of that loop, without a name. `timeouts` are those
    /// of the loop, for the timers that the listener lacks. `link` is the link that its clients go over.
    pub fn listen_config(&self, front_end: &MadeFrontEnd, timeouts: &Timeouts, link: Option<Id>) -> ListenConfig {
        ListenConfig {
            datagrams: front_end.datagrams.as_ref().map(|make| make()),
            link,
            timeouts: Some(self.timers.timeouts(timeouts)),
            family: self.family,
            nodelay: self.nodelay,
            tcp_keepalive: self.tcp_keepalive,
            egress: self.egress.clone(),
            backlog: self.backlog,
            balancer: front_end.balancer.clone(),
            redirected: front_end.redirected,
            counts_at_accept: self.proxy_protocol.accept_from.is_empty(),
            ..ListenConfig::new(front_end.kind, (front_end.make)())
        }
    }

    /// Returns the addresses of a listener for these protocols: an address that names no protocol has each of them, one after
    /// `udp:` and one of a Unix socket stays as it is. Without `udp` they are unchanged.
    ///
    /// # Errors
    /// Returns the address of a Unix socket, if only datagrams are asked for: a Unix socket takes connections.
    pub fn addresses_of(addresses: Vec<Bind>, tcp: bool, udp: bool) -> Result<Vec<Bind>, Bind> {
        if !udp {
            // An address that stands twice is an error of the configuration.
            return Ok(addresses);
        }
        if let Some(unix) = addresses.iter().find(|address| !tcp && matches!(address, Bind::Unix(_))) {
            return Err(unix.clone());
        }
        let each = |address: Bind| match address {
            Bind::Unix(_) => vec![address],
            _ if address.proto() == Proto::Udp => vec![address],
            _ if tcp => vec![address.clone(), address.with_proto(Proto::Udp)],
            _ => vec![address.with_proto(Proto::Udp)],
        };
        let mut all: Vec<Bind> = Vec::new();
        for address in addresses.into_iter().flat_map(each) {
            if address.port() == Some(0) || !all.contains(&address) {
                all.push(address);
            }
        }
        Ok(all)
    }

    /// Returns a listener that inherits everything else from the process.
    pub fn new(name: impl Into<String>, addresses: Vec<Bind>, front_end: FrontEndConfig) -> Listener {
        Listener {
            name: name.into(),
            addresses,
            front_end,
            link: None,
            rules: None,
            users: None,
            timers: Timers::default(),
            backlog: None,
            family: None,
            nodelay: None,
            tcp_keepalive: None,
            unix_mode: None,
            unix_owner: None,
            egress: None,
            proxy_protocol: ProxyProtocol::default(),
        }
    }
}

impl Timers {
    /// Returns these timers with the others from `process`.
    pub fn over(&self, process: &Timeouts) -> Timers {
        Timers {
            handshake: self.handshake.or(Some(process.handshake)),
            connect: self.connect.or(Some(process.connect)),
            keep_alive: self.keep_alive.or(Some(process.keep_alive)),
            idle: self.idle.or(Some(process.idle)),
            half_closed: self.half_closed.or(Some(process.half_closed)),
            linger: self.linger.or(Some(process.linger)),
            first_answer: self.first_answer.or(Some(process.first_answer)),
            flow_idle: self.flow_idle.or(Some(process.flow_idle)),
            association_idle: self.association_idle.or(Some(process.association_idle)),
        }
    }

    /// Returns the durations of `process` with these timers in their places.
    pub fn timeouts(&self, process: &Timeouts) -> Timeouts {
        Timeouts {
            handshake: self.handshake.unwrap_or(process.handshake),
            connect: self.connect.unwrap_or(process.connect),
            keep_alive: self.keep_alive.unwrap_or(process.keep_alive),
            idle: self.idle.unwrap_or(process.idle),
            half_closed: self.half_closed.unwrap_or(process.half_closed),
            linger: self.linger.unwrap_or(process.linger),
            first_answer: self.first_answer.unwrap_or(process.first_answer),
            flow_idle: self.flow_idle.unwrap_or(process.flow_idle),
            association_idle: self.association_idle.unwrap_or(process.association_idle),
            ..process.clone()
        }
    }
}
