//! One running proxy, or one pair of nodes: started, tested with a ping, and described for the report.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::child::Child;
use crate::ground::Ground;
use crate::load::{Datagrams, Ping, Shape};
use crate::peers::{Launch, Peer, Place, module_directories};
use crate::route::{Handshake, Route};
use crate::scraper::Scraper;
use crate::target::Wish;

pub struct Instance {
    /// The near node's process and, in a pair, the far node's. They are ended in this order.
    children: Vec<Child>,
    pids: Vec<u32>,
    pub small: Route,
    pub bulk: Route,
    pub description: Description,
    _scraper: Option<Scraper>,
}

#[derive(Clone)]
pub struct Description {
    pub name: &'static str,
    pub version: String,
    pub command: String,
    pub file: Option<String>,
}

impl Instance {
    /// Starts the peer and sends a ping through each of its ports. An error is one line for the report.
    pub fn start(ground: &Ground, peer: &Peer) -> Result<Instance, String> {
        let program = peer.program(&ground.options)?;
        let addr = || ground.listen_addr().map_err(|error| error.to_string());
        let place = Place {
            target: ground.target.addr,
            link: addr()?,
            listen: [addr()?, addr()?],
            directory: ground.directory.clone(),
            connections_max: ground.connections_max,
            config: ground.directory.join(format!("{}.conf", peer.name)),
            modules: module_directories(ground.options.nginx_modules.as_deref()),
        };
        let processors = ground.processors_of(peer.everywhere);
        let far = match &peer.far {
            None => None,
            Some(far) => {
                let program = Peer { family: far.family, ..peer.clone() }.program(&ground.options)?;
                let config = ground.directory.join(format!("{}-far.conf", peer.name));
                Some(Node::start(&program, far.launch, &Place { config, ..place.clone() }, &processors, false)?)
            }
        };
        let datagrams = peer.handshake == Handshake::Datagrams;
        let near = Node::start(&program, peer.launch, &place, &processors, datagrams)?;
        let route = |dial| Route { dial, target: ground.target.addr, handshake: peer.handshake };
        let (small, bulk, log) = (route(near.launch.small), route(near.launch.bulk), near.log.clone());
        let description = Description {
            name: peer.name,
            version: version(&program, peer.version),
            command: far.iter().chain([&near]).map(|node| node.command.as_str()).collect::<Vec<_>>().join("\n  $ "),
            file: far.iter().chain([&near]).filter_map(|node| node.launch.file.clone()).reduce(|a, b| a + "\n" + &b),
        };
        let children: Vec<Child> = [near].into_iter().chain(far).map(|node| node.child).collect();
        let pids = children.iter().map(Child::pid).collect();
        let scraper = peer.scraped.then(|| Scraper::start(place.listen[1])).transpose();
        let _scraper = scraper.map_err(|error| format!("its admin server: {error}"))?;
        let instance = Instance { children, pids, small, bulk, description, _scraper };
        if matches!(peer.handshake, Handshake::Datagrams | Handshake::Associate) {
            let opened = Datagrams::open(&instance.small, Shape::PING);
            opened.map_err(|error| format!("does not relay: {error}{}", last_line(&log)))?;
            return Ok(instance);
        }
        for route in [&instance.small, &instance.bulk] {
            Ping::open(route, Wish::Echo).map_err(|error| format!("does not relay: {error}{}", last_line(&log)))?;
        }
        Ok(instance)
    }

    /// Returns the root process of each node.
    pub fn pids(&self) -> &[u32] {
        debug_assert_eq!(self.pids.len(), self.children.len());
        &self.pids
    }
}

/// One program of a peer: the proxy, or one end of a link.
struct Node {
    child: Child,
    launch: Launch,
    command: String,
    log: PathBuf,
}

impl Node {
    fn start(
        program: &Path,
        launch: fn(&Place) -> Result<Launch, String>,
        place: &Place,
        processors: &[usize],
        datagrams: bool,
    ) -> Result<Node, String> {
        let launch = launch(place)?;
        if let Some(text) = &launch.file {
            fs::write(&place.config, text).map_err(|error| error.to_string())?;
        }
        let log = place.config.with_extension("log");
        let mut child = Child::start(Command::new(program).args(&launch.args), processors, Some(&log))
            .map_err(|error| format!("does not start: {error}"))?;
        await_ready(&mut child, &launch, &log, datagrams)?;
        let command = format!("{} {}", program.display(), launch.args.join(" "));
        Ok(Node { child, launch, command, log })
    }
}

/// Waits until the proxy accepts connections on all its ports. A proxy of datagrams accepts none: the first ping that
/// comes back shows that it is ready.
fn await_ready(child: &mut Child, launch: &Launch, log: &Path, datagrams: bool) -> Result<(), String> {
    let deadline = Instant::now() + START_TIME_MAX;
    while !datagrams && ![launch.small, launch.bulk].iter().all(|addr| TcpStream::connect(addr).is_ok()) {
        if let Some(status) = child.ended() {
            return Err(format!("ended at its start: {status}{}", last_line(log)));
        }
        if Instant::now() > deadline {
            return Err(format!("does not listen{}", last_line(log)));
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn last_line(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().rfind(|line| !line.trim().is_empty()).map_or(String::new(), |line| format!(": {}", line.trim()))
}

/// Returns the first line with a digit that the program prints when called with `argument`.
fn version(program: &Path, argument: &str) -> String {
    if argument.is_empty() {
        return "says no version".into();
    }
    let Ok(output) = Command::new(program).arg(argument).stdin(Stdio::null()).output() else {
        return "unknown".into();
    };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let numbered = text.lines().find(|line| line.contains(|c: char| c.is_ascii_digit()));
    numbered.unwrap_or("unknown").trim().to_string()
}

const START_TIME_MAX: Duration = Duration::from_secs(15);
