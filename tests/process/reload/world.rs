//! A world for random configurations: targets that answer, far nodes that accept links, addresses, and a generator.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};

use seaprox::auth::{Modes, NodeKey, PublicKey};
use seaprox::config::{Config, ExpectedKey, Forward, FrontEndConfig, KeySource, Link, Listener, Pin, Server, Service};
use seaprox::link::Mode;
use seaprox::node::CarrierKind;
use seaprox::rules::{Action, Rule, Rules};
use seaprox::{Bind, Proto, Target};

use crate::config::{Process, relay, server};
use crate::kit::Scratch;

/// The parts that configurations refer to. They live as long as the test.
pub struct World {
    pub scratch: Scratch,
    /// Targets that answer `1`, `2` and `3`.
    pub targets: Vec<SocketAddr>,
    pub far: Vec<Process>,
    far_key: PublicKey,
    /// The addresses on which the near node listens.
    pub near_addrs: Vec<SocketAddr>,
    /// The addresses on which the far nodes listen for it.
    pub far_addrs: Vec<SocketAddr>,
}

/// A small generator of random numbers (xorshift), so that a run depends on its seed only.
pub struct Random(pub u64);

impl World {
    /// Makes a world with this number of far nodes.
    pub fn new(far: usize) -> World {
        let scratch = Scratch::new();
        let key =
            |name: &str| NodeKey::load_or_create(&PathBuf::from(scratch.file(name)), Modes::Lax).unwrap().0.public();
        let (near_key, far_key) = (key("near-key"), key("far-key"));
        let authorized = scratch.write("authorized", format!("permit-listen=\"*:*\",permit-open=\"*:*\" {near_key}\n"));
        let far_config = || {
            let mut config = Config { modes: Modes::Lax, ..Config::default() };
            config.node.key = KeySource::File(Some(scratch.file("far-key").into()));
            let server = Server::new("links", vec![Bind::parse("127.0.0.1:0").unwrap()]);
            config.servers = vec![Server { authorized_keys: Some(authorized.clone().into()), ..server }];
            config
        };
        let far = (0..far).map(|_| Process::start(far_config())).collect();
        let targets = [b'1', b'2', b'3'].map(server).to_vec();
        World { far, targets, far_key, near_addrs: own_addrs(12), far_addrs: own_addrs(4), scratch }
    }

    /// Returns the key of the far nodes.
    pub fn far_key(&self) -> PublicKey {
        self.far_key
    }

    /// Returns the configuration of a near node without records.
    pub fn empty(&self, threads: usize) -> Config {
        let mut config = Config { threads, modes: Modes::Lax, ..Config::default() };
        config.node.key = KeySource::File(Some(self.scratch.file("near-key").into()));
        config
    }

    /// Returns a link to a far node.
    pub fn link(&self, name: &str, far: usize) -> Link {
        let peer = Target::Ip(Proto::Tcp, self.far[far].addr("links"));
        Link { expected_key: ExpectedKey::Pinned(Pin::Key(self.far_key)), ..Link::new(name, peer) }
    }

    /// Returns a random configuration.
    pub fn config(&self, random: &mut Random, threads: usize) -> Config {
        let mut near = random.shuffled(&self.near_addrs);
        let mut far = random.shuffled(&self.far_addrs);
        let mut names = random.shuffled(&["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"]);
        let mut config = self.empty(threads);
        config.loops.timeouts.idle = std::time::Duration::from_secs(random.one_of(&[0, 60, 90]));
        if random.below(8) == 0 {
            config.access.rules = denying();
        }
        let mut link_names = random.shuffled(&["home", "office", "site"]);
        for index in random.shuffled(&(0..self.far.len()).collect::<Vec<_>>()) {
            if random.below(3) > 0 {
                let link = self.link(link_names.pop().unwrap(), index);
                let forwards = self.forwards(random, &mut names, &mut near, &mut far);
                let mode = random.one_of(&[None, Some(Mode::Single), Some(Mode::Redundant)]);
                config.links.push(Link { subflows: 1 + random.below(2), mode, forwards, ..link });
            }
        }
        for _ in 0..random.below(5) {
            config.listeners.extend(self.listener(random, &config, &mut names, &mut near));
        }
        for name in random.shuffled(&["in", "other"]).into_iter().take(random.below(3)) {
            let addresses = near.drain(..near.len().min(1 + random.below(2))).map(Bind::from).collect::<Vec<_>>();
            if !addresses.is_empty() {
                let carrier = random.one_of(&[None, Some(CarrierKind::Mptcp)]);
                let authorized_keys = Some(self.scratch.file("authorized").into());
                config.servers.push(Server { carrier, authorized_keys, ..Server::new(name, addresses) });
            }
        }
        config
    }

    fn target(&self, random: &mut Random) -> Target {
        Target::Ip(Proto::Tcp, random.one_of(&self.targets))
    }

    fn forwards(
        &self,
        random: &mut Random,
        names: &mut Vec<&str>,
        near: &mut Vec<SocketAddr>,
        far: &mut Vec<SocketAddr>,
    ) -> Vec<Forward> {
        let mut forwards = Vec::new();
        for _ in 0..random.below(3) {
            if let Some(listen) = near.pop() {
                let front_end = FrontEndConfig::new("static").with("to", self.target(random));
                let (name, service) = (names.pop().unwrap().to_owned(), Service::Local(front_end));
                forwards.push(Forward { name, listen: listen.into(), service });
            }
        }
        if let Some(listen) = far.pop().filter(|_| random.below(2) == 0) {
            let (name, service) = (names.pop().unwrap().to_owned(), Service::Remote(self.target(random)));
            forwards.push(Forward { name, listen: listen.into(), service });
        }
        forwards
    }

    fn listener(
        &self,
        random: &mut Random,
        config: &Config,
        names: &mut Vec<&str>,
        near: &mut Vec<SocketAddr>,
    ) -> Option<Listener> {
        let (name, addr) = (names.pop()?, near.pop()?);
        let mut listener = relay(name, &addr.to_string(), random.one_of(&self.targets));
        if random.below(3) == 0 {
            listener.addresses.extend(near.pop().map(Bind::from));
        }
        if !config.links.is_empty() && random.below(2) == 0 {
            listener.link = Some(config.links[random.below(config.links.len())].name.clone());
        }
        listener.backlog = random.one_of(&[None, Some(7), Some(99)]);
        listener.rules = random.one_of(&[None, None, Some(Rules::default()), Some(denying())]);
        listener.timers.idle = random.one_of(&[None, Some(70)]).map(std::time::Duration::from_secs);
        listener.nodelay = random.one_of(&[None, Some(false)]);
        Some(listener)
    }
}

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Returns a number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 11) as usize % bound.max(1)
    }

    pub fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    pub fn shuffled<T: Clone>(&mut self, all: &[T]) -> Vec<T> {
        let mut all = all.to_vec();
        (1..all.len()).rev().for_each(|index| all.swap(index, self.below(index + 1)));
        all
    }
}

/// Returns addresses that nothing else uses: another process has another number, and no connection has such a source.
pub fn own_addrs(count: u16) -> Vec<SocketAddr> {
    static GROUPS: AtomicU8 = AtomicU8::new(80);
    let group = GROUPS.fetch_add(1, Ordering::Relaxed);
    let [.., high, low] = std::process::id().to_be_bytes();
    (0..count).map(|index| SocketAddr::from(([127, group, high, low], 7000 + index))).collect()
}

fn denying() -> Rules {
    Rules::new(vec![Rule::parse(Action::Deny, "127.0.0.0/8").unwrap()])
}
