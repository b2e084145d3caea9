//! The ways from one host to another: links over each kind of carrier, plain TCP, and other programs.
//!
//! A way starts what it needs in the two hosts of a network, and then makes connections from the near host to the far
//! one. All encrypt, except plain TCP.

use std::any::Any;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use seaprox::node::CarrierKind;

use crate::kit::program::Program;
use crate::kit::{SOON, Scratch, until};
use crate::net_kit::nodes::{Forward, Options, direct};
use crate::net_kit::{Host, Net, own_ip};

pub type Pair = (TcpStream, TcpStream);

pub struct Way {
    pub name: &'static str,
    /// Starts it; none for the bare pair, which carries no connections of others.
    pub start: Option<Start>,
}

type Start = fn(&Net) -> Result<Carried, Failure>;

/// A way that is up.
pub struct Carried {
    /// The processes of both ends.
    pub pids: Vec<u32>,
    /// Makes a connection and returns its near end and its far one.
    pub connect: Box<dyn Fn() -> Pair>,
    /// It carries several connections, so that echoes can be measured beside bulk.
    pub has_echoes: bool,
    /// The processes and their files, which end with it.
    pub _held: Box<dyn Any>,
}

pub enum Failure {
    /// This build, this kernel or this machine does not have the way.
    Missing(String),
    Failed(String),
}

pub const WAYS: &[Way] = &[
    Way { name: "plain TCP", start: Some(plain) },
    Way { name: "tcp", start: Some(|net| carrier(net, "tcp", 1)) },
    Way { name: "tcp × 4", start: Some(|net| carrier(net, "tcp", 4)) },
    Way { name: "mptcp", start: Some(|net| carrier(net, "mptcp", 1)) },
    Way { name: "quic", start: Some(|net| carrier(net, "quic", 1)) },
    Way { name: "auto", start: Some(|net| carrier(net, "auto", 1)) },
    Way { name: "bare quic", start: None },
    Way { name: "bare relay", start: Some(crate::bare::relay) },
    Way { name: "sctp", start: Some(|net| carrier(net, "sctp", 1)) },
    Way { name: "ssh", start: Some(ssh) },
    Way { name: "wireguard-go", start: Some(wireguard) },
];

fn plain(net: &Net) -> Result<Carried, Failure> {
    let (near, far, path) = (net.near().clone(), net.far().clone(), net.path(0));
    let (from, to) = (path.near_ip(), path.far_ip());
    Ok(Carried {
        pids: Vec::new(),
        connect: Box::new(move || direct(&near, &far, from, to)),
        has_echoes: true,
        _held: Box::new(()),
    })
}

fn carrier(net: &Net, kind: &str, subflows: usize) -> Result<Carried, Failure> {
    let known = CarrierKind::parse(kind).ok_or_else(|| Failure::Missing("not a carrier of this build".into()))?;
    known.require().map_err(|error| Failure::Missing(error.to_string()))?;
    // A kind that falls back to another one would be measured under a wrong name.
    if !known.is_available() {
        return Err(Failure::Missing("not in this kernel".into()));
    }
    let count = subflows.to_string();
    // The handshakes of a slow, emulated processor may take long.
    let both = ["--carrier", kind, "--handshake-timeout", "30s"];
    let options = Options { both: &both, near: &["--subflows", &count], ..Options::default() };
    let forward = std::rc::Rc::new(Forward::start(net, options));
    let carriers = if known == CarrierKind::Auto { 2 } else { 1 };
    forward.nodes.until_live(carriers * subflows);
    let pids = vec![forward.nodes.near.pid(), forward.nodes.far.pid()];
    let connecting = std::rc::Rc::clone(&forward);
    Ok(Carried { pids, connect: Box::new(move || connecting.pair()), has_echoes: true, _held: Box::new(forward) })
}

/// One connection of ssh, which forwards a port.
fn ssh(net: &Net) -> Result<Carried, Failure> {
    let (client, daemon) = (find("ssh")?, find("sshd")?);
    let scratch = Scratch::new();
    for name in ["host", "user"] {
        run(Command::new(find("ssh-keygen")?).args(["-q", "-t", "ed25519", "-N", "", "-f", &scratch.file(name)]))?;
    }
    let (host_key, user_key, addr) = (scratch.file("host"), scratch.file("user"), own_ip(1));
    let text = format!(
        "ListenAddress {addr}:{SSH_PORT}\nHostKey {host_key}\nAuthorizedKeysFile {user_key}.pub\nPidFile none\n\
         StrictModes no\nUsePAM no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n\
         KbdInteractiveAuthentication no\nCiphers aes128-gcm@openssh.com\nCompression no\nLogLevel ERROR\n"
    );
    let config = scratch.write("sshd_config", &text);
    // The daemon changes its root to this directory before a user is known.
    let _ = fs::create_dir("/run/sshd");
    let far = start(net.far(), Command::new(daemon).args(["-D", "-e", "-f"]).arg(config));
    let target = net.far().inside(|| TcpListener::bind("127.0.0.1:0")).map_err(failed)?;
    let forward = format!("127.0.0.1:{LOCAL_PORT}:{}", target.local_addr().map_err(failed)?);
    let mut command = Command::new(client);
    command.args(["-N", "-T", "-F", "/dev/null", "-i", &user_key, "-p", &SSH_PORT.to_string(), "-L", &forward]);
    for option in [
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "ControlPath=none",
        "BatchMode=yes",
        "ExitOnForwardFailure=yes",
        "ConnectionAttempts=20",
        "Ciphers=aes128-gcm@openssh.com",
        "LogLevel=ERROR",
    ] {
        command.args(["-o", option]);
    }
    let near = start(net.near(), command.arg(addr.to_string()));
    let pids = vec![near.0.id(), far.0.id()];
    let host = net.near().clone();
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, LOCAL_PORT));
    // The first connection shows that the port is forwarded.
    drop(accepted(&host, local, &target)?);
    let connect = move || accepted(&host, local, &target).unwrap_or_else(|_| panic!("ssh forwards no more"));
    Ok(Carried { pids, connect: Box::new(connect), has_echoes: true, _held: Box::new((near, far, scratch)) })
}

/// Connects to a port of the near host, as soon as something listens there, and takes the connection that this makes in
/// the far host.
fn accepted(near: &Host, local: SocketAddr, target: &TcpListener) -> Result<Pair, Failure> {
    let since = Instant::now();
    let client = loop {
        match near.inside(|| TcpStream::connect(local)) {
            Ok(client) => break client,
            Err(error) if since.elapsed() > SOON => return Err(failed(error)),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let server = target.accept().map_err(failed)?.0;
    Ok((client, server))
}

/// A device of wireguard-go in each host. The connections are plain TCP through it.
fn wireguard(net: &Net) -> Result<Carried, Failure> {
    let (program, wg) = (find("wireguard-go")?, find("wg")?);
    let scratch = Scratch::new();
    let mut ends = Vec::new();
    for (host, name, number) in [(net.near(), "n", 1), (net.far(), "f", 2)] {
        // The control sockets of all devices of the machine are in one directory.
        let device = format!("wg{name}{}", std::process::id());
        let key = run(Command::new(&wg).arg("genkey"))?;
        let file = scratch.write(&format!("key-{name}"), &key);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let public = run(Command::new("sh").args(["-c", "exec \"$0\" pubkey <\"$1\"", &wg]).arg(&file))?;
        let process = start(host, Command::new(&program).args(["-f", &device]).env("LOG_LEVEL", "silent"));
        until("wireguard-go has a device", || {
            let mut command = Command::new(&wg);
            host.enter(command.args(["show", &device]));
            run(&mut command).is_ok()
        });
        ends.push((host, device, file, public.trim().to_owned(), process, Ipv4Addr::new(10, 99, 0, number), number));
    }
    for (this, other) in [(0, 1), (1, 0)] {
        let ((host, device, file, _, _, addr, number), (_, _, _, public, _, peer, _)) = (&ends[this], &ends[other]);
        let mut command = Command::new(&wg);
        command.args(["set", device, "listen-port", "51820", "private-key"]).arg(file);
        let endpoint = format!("{}:51820", if *number == 1 { net.path(0).far_ip() } else { net.path(0).near_ip() });
        command.args(["peer", public, "endpoint", &endpoint, "allowed-ips", &format!("{peer}/32")]);
        host.enter(&mut command);
        run(&mut command)?;
        let options = host.route_options();
        host.ip(&format!(
            "addr add {addr}/32 dev {device}\nlink set {device} mtu 1420 up\n\
             route replace {peer}/32 dev {device} src {addr} {options}\n"
        ));
    }
    let (near, far) = (net.near().clone(), net.far().clone());
    let (from, to) = (ends[0].5, ends[1].5);
    let processes: Vec<Program> = ends.into_iter().map(|end| end.4).collect();
    let pids = processes.iter().map(|process| process.0.id()).collect();
    let connect = Box::new(move || direct(&near, &far, from, to));
    Ok(Carried { pids, connect, has_echoes: true, _held: Box::new((processes, scratch)) })
}

fn start(host: &Host, command: &mut Command) -> Program {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    host.enter(command);
    Program(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
}

/// Runs a command to its end and returns its output.
fn run(command: &mut Command) -> Result<String, Failure> {
    let output = command.stdin(Stdio::null()).output().map_err(failed)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Failure::Failed(format!("{command:?}: {}", output.stderr.escape_ascii())))
}

/// Returns the path of a program.
fn find(name: &str) -> Result<String, Failure> {
    let path = std::env::var("PATH").unwrap_or_default();
    let places = path.split(':').chain(["/usr/sbin", "/sbin"]).map(|place| format!("{place}/{name}"));
    places.into_iter().find(|file| fs::metadata(file).is_ok()).ok_or_else(|| Failure::Missing(format!("no {name}")))
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::Failed(error.to_string())
}

const SSH_PORT: u16 = 2222;
const LOCAL_PORT: u16 = 4000;
