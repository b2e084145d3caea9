//! The checks of a configuration as a whole. They collect all problems, and touch neither files nor the network.

use std::collections::HashSet;
use std::fmt::Display;
use std::time::Duration;

use super::front_end::{FrontEndConfig, FrontEnds};
use super::link::{Forward, Link, LinkPaths, Server, Service};
use super::listener::Listener;
use super::place::Place;
use super::problem::Problem;
use super::{Config, LoopConfig};
use crate::engine::discovery::can_look_up_services;
use crate::engine::limits::Limits;
use crate::node::{CarrierKind, MEMBERS_MAX, Path, Timing};
use crate::types::address::{Bind, Target};
use crate::types::proto::Proto;
use crate::types::units::{format_duration, format_size};
use crate::types::upstream::Upstream;

/// The problems that were found, and the registry of front ends.
struct Checks<'a> {
    config: &'a Config,
    front_ends: &'a dyn FrontEnds,
    problems: Vec<Problem>,
    /// The names of listeners and forwards so far.
    names: HashSet<&'a str>,
}

impl Config {
    /// Returns all problems of the configuration; none if it can be applied.
    pub fn validate(&self, front_ends: &dyn FrontEnds) -> Vec<Problem> {
        let mut checks = Checks { config: self, front_ends, problems: Vec::new(), names: HashSet::new() };
        checks.process();
        if self.has_links() {
            checks.timing(&Place::root(), &self.node.timing);
        }
        self.listeners.iter().for_each(|listener| checks.listener(listener));
        let mut names = HashSet::new();
        for link in &self.links {
            checks.name(&Place::record("link", &link.name), &link.name, names.insert(&link.name));
            checks.link(link);
        }
        let mut names = HashSet::new();
        for server in &self.servers {
            checks.name(&Place::record("server", &server.name), &server.name, names.insert(&server.name));
            checks.server(server);
        }
        checks.problems
    }
}

impl<'a> Checks<'a> {
    fn add(&mut self, place: Place, text: impl Into<String>) {
        self.problems.push(Problem::new(place, text));
    }

    /// Each processor is named once and has a loop.
    fn cpus(&mut self) {
        let Config { threads, loops: LoopConfig { cpus, .. }, .. } = self.config;
        let place = Place::root().field("cpu");
        if let Some(twice) = cpus.iter().enumerate().find(|(at, cpu)| cpus[..*at].contains(cpu)) {
            self.add(place, format!(" {}: expected each processor once", twice.1));
        } else if cpus.len() > *threads {
            let text = format!(" of {} processors: expected at most one for each of ", cpus.len());
            self.problems.push(Problem::new(place, text).and("threads", ""));
        }
    }

    fn process(&mut self) {
        let Config { threads, workers, loops: LoopConfig { limits, .. }, .. } = self.config;
        let (threads, root) = (*threads, Place::root());
        let [block, memory] = [limits.block_bytes, limits.buffer_bytes].map(|bytes| format_size(bytes as u64));
        self.above_zero("threads", threads);
        self.above_zero("workers", *workers);
        self.cpus();
        self.above_zero("max-connections", limits.connections);
        self.above_zero("backlog", limits.backlog as usize);
        let admin = &self.config.admin;
        if let Some(address) = admin.unguarded() {
            let problem =
                Problem::new(root.field("admin"), format!(" \"{address}\": expected a loopback address, or "));
            self.problems.push(problem.and("admin-token-file", ""));
        }
        for address in &admin.addresses {
            self.protocol(&root, "admin", address, address.proto());
        }
        if limits.block_bytes < Limits::BLOCK_BYTES_MIN {
            let least = format_size(Limits::BLOCK_BYTES_MIN as u64);
            self.add(root.field("buffer"), format!(" {block}: expected at least {least}"));
        }
        if limits.block_bytes > limits.buffer_bytes {
            let problem = Problem::new(root.field("buffer"), format!(" {block}: expected at most the {memory} of "));
            self.problems.push(problem.and("buffer-memory", ""));
        } else if limits.buffer_bytes / threads.max(1) < limits.block_bytes {
            let needed = format_size((threads * limits.block_bytes) as u64);
            let text = format!(" {memory}: expected at least {needed}, one ");
            let problem = Problem::new(root.field("buffer-memory"), text);
            self.problems.push(problem.and("buffer", " for each of ").and("threads", ""));
        }
        if limits.connections < threads {
            let most = limits.connections;
            let text =
                format!(" {threads}: expected at most {most}, because each thread needs one of the connections that ");
            let problem = Problem::new(root.field("threads"), text);
            self.problems.push(problem.and("max-connections", " and the descriptor limit allow"));
        }
    }

    fn above_zero(&mut self, field: &'static str, number: usize) {
        if number == 0 {
            self.add(Place::root().field(field), " 0: expected a number above 0");
        }
    }

    /// Checks a name, which must be printable and new.
    fn name(&mut self, place: &Place, name: &str, is_new: bool) {
        let is_printable = !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.contains(char::is_control);
        if !is_printable {
            let text = format!(" {name:?}: expected 1 to {NAME_BYTES_MAX} bytes without control characters");
            self.add(place.field("name"), text);
        } else if !is_new {
            self.add(place.field("name"), format!(" {name:?}: expected a name that no other record of its kind has"));
        }
    }

    fn listener(&mut self, listener: &'a Listener) {
        let place = Place::record("listener", &listener.name);
        let is_new = self.names.insert(&listener.name);
        self.name(&place, &listener.name, is_new);
        let protos: Vec<Proto> = listener.addresses.iter().map(Bind::proto).collect();
        let carries_datagrams = self.front_ends.carries_datagrams(&listener.front_end.name);
        self.addresses(&place, &listener.addresses, carries_datagrams);
        self.front_end(&place, &listener.front_end, listener.link.is_some(), &protos);
        if listener.backlog == Some(0) {
            self.add(place.field("backlog"), " 0: expected a number above 0");
        }
        self.send_to(&place, listener);
        if let Some(link) = listener.link.as_ref().filter(|link| self.config.link(link).is_none()) {
            self.add(place.field("via"), format!(" {link:?}: expected the name of a link"));
        }
    }

    /// Checks the targets that are given headers of their own: each is a target of this listener, or of another one with the
    /// same list, if the front end has targets.
    fn send_to(&mut self, place: &Place, listener: &Listener) {
        let list = &listener.proxy_protocol.send_to;
        for (index, (upstream, _)) in list.iter().enumerate() {
            let has_it = |it: &&Listener| {
                let has_targets = it.front_end.all_upstreams().next().is_some();
                !has_targets || it.front_end.all_upstreams().any(|(_, other)| other == upstream)
            };
            let alike = self.config.listeners.iter().filter(|it| it.proxy_protocol.send_to == *list);
            let field = || place.field("proxy-protocol-send-to");
            if !std::iter::once(listener).chain(alike).any(|it| has_it(&it)) {
                self.add(field(), format!(" \"{upstream}\": expected a target of this listener"));
            } else if list[..index].iter().any(|(other, _)| other == upstream) {
                self.add(field(), format!(" \"{upstream}\": expected each target once"));
            }
        }
    }

    /// Checks an address in a field, which no code serves if it is a UDP address.
    fn protocol(&mut self, place: &Place, field: &str, address: &dyn Display, proto: Proto) {
        if let Err(error) = proto.require_tcp() {
            self.add(place.field(field.to_owned()), format!(" \"{address}\": {error}"));
        }
    }

    fn addresses(&mut self, place: &Place, addresses: &[Bind], carries_datagrams: bool) {
        if addresses.is_empty() {
            self.add(place.field("listen"), ": expected at least one address");
        }
        for (index, address) in addresses.iter().enumerate() {
            if !carries_datagrams {
                self.protocol(place, "listen", address, address.proto());
            }
            if has_fixed_port(address) && addresses[..index].contains(address) {
                self.add(place.field("listen"), format!(" \"{address}\": expected each address once"));
            }
        }
    }

    /// Checks the name of a front end and its options, for addresses of these protocols. A target has the protocol of the
    /// address, unless it names its own. A link carries TCP and UDP, so a target beyond it is no Unix socket.
    fn front_end(&mut self, place: &Place, front_end: &FrontEndConfig, is_over_link: bool, protos: &[Proto]) {
        let Some(known) = self.front_ends.options(&front_end.name) else {
            let names = self.front_ends.names().join(" or ");
            return self.add(place.field("front"), format!(" {:?}: expected {names}", front_end.name));
        };
        for (name, value) in &front_end.options {
            match known.iter().find(|option| option.name == name) {
                None => {
                    let text = format!(" is no option of {:?}", front_end.name);
                    self.add(place.field(name.clone()), text);
                }
                Some(option) if !option.kind.fits(value) => {
                    self.add(place.field(option.name), format!(" {:?}: expected {}", value.to_string(), option.kind));
                }
                Some(_) => {}
            }
        }
        for option in known.iter().filter(|option| option.is_required && !front_end.options.contains_key(option.name)) {
            self.add(place.field(option.name), format!(": expected {}", option.kind));
        }
        for (name, upstream) in front_end.all_upstreams() {
            self.target_protocol(place, name, upstream, protos);
            if matches!(upstream, Upstream::Service(_)) && !can_look_up_services() {
                let text =
                    format!(" \"{upstream}\": expected HOST:PORT, because services cannot be looked up on this system");
                self.add(place.field(name.to_owned()), text);
            }
            if matches!(upstream, Upstream::Target(Target::End(_))) && !is_over_link {
                let problem = Problem::new(place.field(name.to_owned()), format!(" \"{upstream}\": expected "));
                self.problems.push(problem.and("via", ", because an end is reached over a link only"));
            }
            if let Some(why) = not_over_link(upstream).filter(|_| is_over_link) {
                let problem = Problem::new(place.field(name.to_owned()), format!(" \"{upstream}\" with "));
                self.problems.push(problem.and("via", format!(": expected HOST:PORT, because {why}")));
            }
        }
    }

    /// Checks the protocol of a target against those of the addresses.
    fn target_protocol(&mut self, place: &Place, name: &str, upstream: &Upstream, protos: &[Proto]) {
        let has = |proto| protos.contains(&proto);
        let field = place.field(name.to_owned());
        if upstream.proto() == Proto::Udp && (has(Proto::Tcp) || protos.is_empty()) {
            let problem = Problem::new(field, format!(" \"{upstream}\": expected a target without udp:, because "));
            self.problems.push(problem.and("listen", " has a TCP address"));
        } else if matches!(upstream, Upstream::Target(Target::Unix(_) | Target::End(_))) && has(Proto::Udp) {
            self.add(field, format!(" \"{upstream}\": expected HOST:PORT for datagrams"));
        }
    }

    fn link(&mut self, link: &'a Link) {
        let place = Place::record("link", &link.name);
        let timing = link.timing.as_ref().unwrap_or(&self.config.node.timing);
        if link.timing.is_some() {
            self.timing(&place, timing);
        }
        self.peers(&place, link);
        let unknown = [Path::default()];
        let paths = match &link.paths {
            LinkPaths::List(paths) => &paths[..],
            LinkPaths::File(_) => &unknown,
        };
        for peer in paths.iter().filter_map(|path| path.peer.as_ref()) {
            self.protocol(&place, "path", peer, peer.proto());
        }
        if paths.is_empty() {
            self.add(place.field("path"), ": expected at least one path");
        }
        if link.subflows == 0 {
            self.add(place.field("subflows"), " 0: expected a number above 0");
        } else if let Err(expected) = link.path_room(&self.config.node).check(paths) {
            self.add(place.field("subflows"), format!(" {}: expected {expected}", link.subflows));
        }
        if link.simultaneous {
            self.simultaneous(&place, link);
        }
        link.forwards.iter().for_each(|forward| self.forward(&place, forward));
    }

    /// Checks a link whose peer dials this node at the same time.
    fn simultaneous(&mut self, place: &Place, link: &Link) {
        let has_ports = match &link.paths {
            LinkPaths::List(paths) => paths.iter().all(|path| path.local_port.is_some()),
            LinkPaths::File(_) => false,
        };
        if !has_ports {
            let problem = Problem::new(place.field("simultaneous"), ": expected ");
            self.problems.push(problem.and("local-port", ", because the peer dials to that port"));
        }
        let carrier = link.carrier.unwrap_or(self.config.node.carrier);
        let of_path = match &link.paths {
            LinkPaths::List(paths) => {
                paths.iter().find_map(|path| path.carrier.filter(|kind| *kind != CarrierKind::Tcp))
            }
            LinkPaths::File(_) => None,
        };
        if let Some(kind) = of_path {
            let problem = Problem::new(place.field("simultaneous"), " with ");
            self.problems.push(problem.and("path", format!(" {kind}:...: expected tcp")));
        }
        // The default stands for TCP where nothing else is possible.
        if !matches!(carrier, CarrierKind::Tcp | CarrierKind::Auto) {
            let problem = Problem::new(place.field("simultaneous"), " with ");
            self.problems.push(problem.and("carrier", format!(" {carrier}: expected tcp")));
        }
        if link.is_group() {
            let problem = Problem::new(place.field("simultaneous"), " with several servers: expected one HOST[:PORT]");
            self.problems.push(problem);
        }
    }

    /// Checks the servers of a link. Two links to one server would be one link under two names.
    fn peers(&mut self, place: &Place, link: &'a Link) {
        if link.peers.is_empty() {
            self.add(place.field("connect"), ": expected at least one HOST[:PORT]");
        }
        if link.links_max.is_some_and(|max| max == 0 || max > MEMBERS_MAX) {
            let text = format!(" {}: expected a number from 1 to {MEMBERS_MAX}", link.most_links());
            self.add(place.field("links-max"), text);
        }
        let before: Vec<&Link> = self.config.links.iter().take_while(|other| !std::ptr::eq(*other, link)).collect();
        for (index, peer) in link.peers.iter().enumerate() {
            if matches!(peer, Upstream::Target(Target::Unix(_) | Target::End(_))) {
                self.add(place.field("connect"), format!(" \"{peer}\": expected HOST[:PORT]"));
            }
            self.protocol(place, "connect", peer, peer.proto());
            if let Some(other) = before.iter().find(|other| other.peers.contains(peer)) {
                let text = format!(" \"{peer}\": the link {:?} has this peer: expected another peer", other.name);
                self.add(place.field("connect"), text);
            } else if link.peers[..index].contains(peer) {
                self.add(place.field("connect"), format!(" \"{peer}\": expected each peer once"));
            }
        }
    }

    fn forward(&mut self, link: &Place, forward: &'a Forward) {
        let place = link.clone().within("forward", &forward.name);
        let is_new = self.names.insert(&forward.name);
        self.name(&place, &forward.name, is_new);
        let proto = forward.listen.proto();
        match &forward.service {
            Service::Local(front_end) if proto == Proto::Udp && !self.front_ends.carries_datagrams(&front_end.name) => {
                self.protocol(&place, "listen", &forward.listen, proto);
            }
            Service::Local(front_end) => self.front_end(&place, front_end, true, &[forward.listen.proto()]),
            Service::Remote(_) if matches!(forward.listen, Bind::Unix(_) | Bind::Descriptor(..)) => {
                let text = format!(" \"{}\": expected a TCP port, because it is at the far end", forward.listen);
                self.add(place.field("listen"), text);
            }
            Service::Remote(target) if target.proto() != proto => {
                let expected = if proto == Proto::Udp { "HOST:PORT after udp:" } else { "a target without udp:" };
                self.add(place.field("to"), format!(" \"{target}\": expected {expected}"));
            }
            Service::Remote(_) => {}
        }
    }

    fn server(&mut self, server: &Server) {
        let place = Place::record("server", &server.name);
        self.addresses(&place, &server.addresses, false);
        server.timing.iter().for_each(|timing| self.timing(&place, timing));
    }

    /// Checks the timers of links: each is needed, and a subflow must be probed before it is dead.
    fn timing(&mut self, place: &Place, timing: &Timing) {
        let timers = [
            ("link-keepalive", timing.keepalive),
            ("link-dead", timing.dead),
            ("link-hold", timing.hold),
            ("handshake-timeout", timing.handshake),
            ("link-retry-max", timing.redial.1),
        ];
        for (field, _) in timers.into_iter().filter(|(_, timer)| timer.is_zero()) {
            self.add(place.field(field), ZERO_TIMER);
        }
        let is_set = |timer: &Duration| !timer.is_zero();
        if is_set(&timing.dead) && is_set(&timing.keepalive) && timing.dead <= timing.keepalive {
            let [dead, keepalive] = [timing.dead, timing.keepalive].map(format_duration);
            let problem =
                Problem::new(place.field("link-dead"), format!(" {dead}: expected more than the {keepalive} of "));
            self.problems.push(problem.and("link-keepalive", ""));
        }
        let counts: [(_, &dyn Display, bool); 4] = [
            ("link-streams", &timing.streams, timing.streams == 0),
            ("link-memory", &timing.memory_bytes, timing.memory_bytes == 0),
            ("link-max", &timing.links, timing.links == 0),
            ("link-key-max", &timing.links_per_key, timing.links_per_key == 0),
        ];
        for (field, number, _) in counts.into_iter().filter(|(_, _, is_zero)| *is_zero) {
            self.add(place.field(field), format!(" {number}: expected a number above 0"));
        }
    }
}

/// Returns the reason why an upstream cannot be reached over a link, whose peer connects to it; none if it can.
fn not_over_link(upstream: &Upstream) -> Option<&'static str> {
    match upstream {
        Upstream::Target(Target::Unix(_)) => Some("a link carries TCP"),
        Upstream::Service(_) => Some("the peer of a link looks up addresses alone"),
        Upstream::Target(_) => None,
    }
}

/// Returns true if a second bind of the same address must fail. With port 0 the system chooses another port.
fn has_fixed_port(address: &Bind) -> bool {
    address.port() != Some(0)
}

/// Longest name of a record.
const NAME_BYTES_MAX: usize = 128;
const ZERO_TIMER: &str = " \"0\": expected a duration above 0, because a link needs this timer";
