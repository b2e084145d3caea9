//! The command line of the bench: sections, duration, peers, and the file for the results.

use std::path::PathBuf;
use std::time::Duration;

use crate::sections::Section;

pub struct Options {
    pub quick: bool,
    pub rounds: usize,
    pub window: Duration,
    pub warmup: Duration,
    /// Extra time that the run may spend on repeating disturbed samples.
    pub spare: Duration,
    /// Idle connections of the `idle` section.
    pub idle: usize,
    /// The sections to measure; empty means all.
    pub only: Vec<String>,
    /// The peers to measure; empty means all that are installed.
    pub peers: Vec<String>,
    pub namespace: bool,
    /// The only placement to measure; absent means each section's own.
    pub placement: Option<Placement>,
    /// The niceness of the bench and of all its children.
    pub niceness: Option<i32>,
    pub seaprox: Option<PathBuf>,
    /// Other builds of seaprox to measure in every section of static relays.
    pub beside: Vec<PathBuf>,
    /// The directory of nginx's dynamic modules, if it is not one of the usual ones.
    pub nginx_modules: Option<PathBuf>,
    pub json: PathBuf,
    /// The results of an earlier run, of which only the picture is drawn.
    pub draw: Option<PathBuf>,
    /// The longest time of the whole run; after it the run is killed.
    pub deadline: Duration,
}

/// The processors on which proxies and load run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// The proxies on one processor, client and far end on the others.
    Pinned,
    /// All of them on any processor, as the kernel likes.
    Free,
}

impl Placement {
    pub fn name(self) -> &'static str {
        match self {
            Placement::Pinned => "pinned",
            Placement::Free => "free",
        }
    }
}

pub enum Parsed {
    Run(Box<Options>),
    Help,
    Wrong(String),
}

impl Options {
    pub fn parse(args: impl Iterator<Item = String>) -> Parsed {
        let mut args = args.peekable();
        let mut given = Given::default();
        while let Some(arg) = args.next() {
            let (name, inline) = match arg.split_once('=') {
                Some((name, value)) => (name.to_string(), Some(value.to_string())),
                None => (arg, None),
            };
            match name.as_str() {
                "-h" | "--help" => return Parsed::Help,
                // Cargo passes this to every bench.
                "--bench" => {}
                "--quick" => given.quick = true,
                "--no-netns" => given.shared = true,
                _ => {
                    let Some(value) = inline.or_else(|| args.next()) else {
                        return Parsed::Wrong(format!("{name}: unknown, or its value is missing"));
                    };
                    if let Err(problem) = given.set(&name, &value) {
                        return Parsed::Wrong(problem);
                    }
                }
            }
        }
        Parsed::Run(Box::new(given.complete()))
    }

    pub fn wants_section(&self, group: &str) -> bool {
        let all_of_links = |name: &String| name == "link" && group.starts_with("link-");
        self.only.is_empty() || self.only.iter().any(|name| name == group || all_of_links(name))
    }

    /// Returns true if the section is measured in this placement.
    pub fn places(&self, section: &Section, placement: Placement) -> bool {
        match self.placement {
            Some(only) => only == placement,
            None => placement == Placement::Pinned || section.free,
        }
    }

    /// Returns true if the peer is selected, by its own name or by its program's: `seaprox` selects all variants of
    /// seaprox.
    pub fn wants_peer(&self, name: &str, family: &str) -> bool {
        self.peers.is_empty() || self.peers.iter().any(|wanted| wanted == name || wanted == family)
    }
}

/// The arguments, before the defaults that depend on `--quick` complete them.
#[derive(Default)]
struct Given {
    quick: bool,
    shared: bool,
    placement: Option<Placement>,
    rounds: Option<usize>,
    seconds: Option<f64>,
    idle: Option<usize>,
    niceness: Option<i32>,
    only: Vec<String>,
    peers: Vec<String>,
    seaprox: Option<PathBuf>,
    beside: Vec<PathBuf>,
    nginx_modules: Option<PathBuf>,
    json: Option<PathBuf>,
    draw: Option<PathBuf>,
}

impl Given {
    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "--rounds" => self.rounds = Some(number(name, value, 1.0, 100.0)? as usize),
            "--seconds" => self.seconds = Some(number(name, value, 0.05, 60.0)?),
            "--nice" => self.niceness = Some(number(name, value, -19.0, 19.0)? as i32),
            "--placement" => self.placement = placement(value)?,
            "--idle" => self.idle = Some(number(name, value, 100.0, 100_000.0)? as usize),
            "--only" => self.only = list(value),
            "--peers" => self.peers = list(value),
            "--seaprox" => self.seaprox = Some(value.into()),
            "--beside" => self.beside = list(value).into_iter().map(PathBuf::from).collect(),
            "--nginx-modules" => self.nginx_modules = Some(value.into()),
            "--json" => self.json = Some(value.into()),
            "--draw" => self.draw = Some(value.into()),
            _ => return Err(format!("{name}: unknown option")),
        }
        match self.only.iter().find(|name| !GROUPS.contains(&name.as_str())) {
            Some(wrong) => Err(format!("--only: {wrong} is not one of {}", GROUPS.join(","))),
            None => Ok(()),
        }
    }

    fn complete(self) -> Options {
        let seconds = self.seconds.unwrap_or(if self.quick { 0.4 } else { 0.8 });
        let rounds = self.rounds.unwrap_or(if self.quick { 2 } else { 5 });
        let default_run = self.rounds.is_none() && self.seconds.is_none() && self.idle.is_none();
        Options {
            quick: self.quick,
            rounds,
            window: Duration::from_secs_f64(seconds),
            warmup: Duration::from_millis(if self.quick { 100 } else { 150 }),
            spare: Duration::from_secs(if self.quick { 15 } else { 60 }),
            idle: self.idle.unwrap_or(9_000),
            only: self.only,
            peers: self.peers,
            namespace: !self.shared,
            placement: self.placement,
            niceness: self.niceness,
            seaprox: self.seaprox,
            beside: self.beside,
            nginx_modules: self.nginx_modules,
            json: self.json.unwrap_or_else(|| "bench-results.json".into()),
            draw: self.draw,
            deadline: Duration::from_secs(if default_run { 3600 } else { 24 * 3600 }),
        }
    }
}

fn list(value: &str) -> Vec<String> {
    value.split(',').filter(|name| !name.is_empty()).map(str::to_string).collect()
}

fn placement(value: &str) -> Result<Option<Placement>, String> {
    match value {
        "both" => Ok(None),
        _ => match [Placement::Pinned, Placement::Free].into_iter().find(|placement| placement.name() == value) {
            Some(placement) => Ok(Some(placement)),
            None => Err(format!("--placement: {value:?} is not one of pinned, free, both")),
        },
    }
}

fn number(name: &str, value: &str, least: f64, most: f64) -> Result<f64, String> {
    match value.parse::<f64>() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(format!("{name}: {value:?} is not a number from {least} to {most}")),
    }
}

/// The names that `--only` accepts.
pub const GROUPS: [&str; 24] = [
    "bulk1",
    "bulk8",
    "conn",
    "keepalive",
    "wrk",
    "ping",
    "pingbulk",
    "idle",
    "socks",
    "http",
    "threads",
    "copy",
    "admin",
    "link",
    "link-bulk1",
    "link-bulk8",
    "link-bulk1-busy",
    "link-bulk8-busy",
    "link-new",
    "link-keepalive",
    "link-ping",
    "link-ping-bulk",
    "link-idle",
    "datagrams",
];

pub const HELP: &str = "\
Measures seaprox beside other proxies on this machine's loopback.

usage: cargo bench --bench proxy -- [OPTIONS]

  --quick              two short rounds of everything
  --rounds N           rounds (default 5; 2 with --quick)
  --seconds N          length of one sample (default 0.8; 0.4 with --quick)
  --only NAME[,NAME]   of: bulk1 bulk8 conn keepalive wrk ping pingbulk idle socks http threads copy admin
                       link-bulk1 link-bulk8 link-bulk1-busy link-bulk8-busy link-new link-keepalive link-ping
                       link-ping-bulk link-idle; link is all of these; datagrams
  --peers NAME[,NAME]  only these: direct seaprox haproxy haproxy-latest nginx rinetd socat microsocks danted tinyproxy
                       seaprox-link ssh haproxy-tls stunnel shadowsocks wstunnel rathole; the floors: floor floor-link
                       seaprox-udp nginx-udp socat-udp seaprox-socks-udp danted-udp seaprox-link-udp
  --idle N             connections held in the idle section (default 9000)
  --seaprox PATH       measure this binary (default: the one that cargo has just built)
  --beside PATH[,PATH] measure these builds of seaprox, too: up to three, named build-1 to build-3
  --nginx-modules DIR  where ngx_stream_module.so lies
  --no-netns           stay on the shared loopback even when a namespace could be made
  --nice N             niceness of the bench and of all that it starts; below 0 on a machine that is in use
  --placement NAME     pinned: proxies and load on different processors; free: none is tied to a processor; both (the
                       default): pinned, and the sections of links free as well
  --json FILE          where all samples are written (default bench-results.json), after each section; the picture has the
                       same name with svg
  --draw FILE          measures nothing: draws the picture of this earlier run, with the sections and peers that are selected
  -h, --help           this text

Peers are found in the folder that SEAPROX_BENCH_PEERS names, then in PATH. haproxy-latest is a second HAProxy beside
the system's: scripts/build-haproxy builds one from a tarball.";
