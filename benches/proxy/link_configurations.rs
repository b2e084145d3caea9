//! The command lines and configuration files of pairs of nodes, and the keys that they need.
//!
//! The far node's `Launch` holds the address that the near node connects to. Keys are made when a pair is first started
//! and are stored in the bench's directory.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::floor;
use crate::peers::{Launch, Place, find};

type Made = Result<Launch, String>;

pub fn seaprox_far(place: &Place) -> Made {
    let secret = place.directory.join("link.secret");
    if !secret.exists() {
        write_private(&secret, SECRET)?;
    }
    let listen = ["link", "--listen", &place.link.to_string()].map(String::from);
    Ok(far(place, listen.into_iter().chain(seaprox_keys(place, "far")?).collect(), None))
}

pub fn seaprox_near(place: &Place) -> Made {
    let forward = format!("{}:{}", place.listen[0], place.target);
    let connect = ["link", "--connect", &place.link.to_string(), "-L", &forward].map(String::from);
    Ok(near(place, connect.into_iter().chain(seaprox_keys(place, "near")?).collect(), None))
}

fn seaprox_keys(place: &Place, node: &str) -> Result<Vec<String>, String> {
    let directory = place.directory.join(format!("seaprox-{node}"));
    fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
    let secret = place.directory.join("link.secret");
    let mut words = ["--cipher", "aes-128-gcm", "-q"].map(String::from).to_vec();
    words.extend(["--config-dir".into(), path(&directory), "--secret".into(), path(&secret)]);
    Ok(words)
}

/// One daemon, without the options that only logins need.
pub fn ssh_far(place: &Place) -> Made {
    let (host_key, user_key) = (place.directory.join("ssh_host_key"), place.directory.join("ssh_user_key"));
    for key in [&host_key, &user_key] {
        if !key.exists() {
            run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", &path(key)])?;
        }
    }
    let file = format!(
        "ListenAddress {}
HostKey {}
AuthorizedKeysFile {}.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
Ciphers {SSH_CIPHER}
Compression no
LogLevel ERROR
",
        place.link,
        host_key.display(),
        user_key.display(),
    );
    // The daemon changes its root to this directory before a user is known. A daemon without root does not need it.
    let _ = fs::create_dir("/run/sshd");
    Ok(far(place, vec!["-D".into(), "-e".into(), "-f".into(), path(&place.config)], Some(file)))
}

/// One connection, without connection sharing.
pub fn ssh_near(place: &Place) -> Made {
    let forward = format!("{}:{}", place.listen[0], place.target);
    let key = path(&place.directory.join("ssh_user_key"));
    let port = place.link.port().to_string();
    let mut args = ["-N", "-T", "-F", "/dev/null", "-i", &key, "-p", &port, "-L", &forward].map(String::from).to_vec();
    for option in [
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "ControlMaster=no",
        "ControlPath=none",
        "BatchMode=yes",
        "ExitOnForwardFailure=yes",
        "Compression=no",
        "LogLevel=ERROR",
        &format!("Ciphers={SSH_CIPHER}"),
    ] {
        args.extend(["-o".into(), option.into()]);
    }
    args.push(place.link.ip().to_string());
    Ok(near(place, args, None))
}

pub fn haproxy_far(place: &Place) -> Made {
    let pem = certificate(&place.directory)?;
    let bind = format!("bind {} ssl crt {} ciphersuites {TLS_CIPHER}", place.link, pem.display());
    let file = haproxy(place, &bind, &format!("server target {}", place.target));
    Ok(far(place, vec!["-db".into(), "-q".into(), "-f".into(), path(&place.config)], Some(file)))
}

pub fn haproxy_near(place: &Place) -> Made {
    let server = format!("server far {} ssl verify none ciphersuites {TLS_CIPHER}", place.link);
    let file = haproxy(place, &format!("bind {}", place.listen[0]), &server);
    Ok(near(place, vec!["-db".into(), "-q".into(), "-f".into(), path(&place.config)], Some(file)))
}

fn haproxy(place: &Place, bind: &str, server: &str) -> String {
    let connections = place.connections_max;
    format!(
        "global
    nbthread 1
    maxconn {connections}
    ssl-default-bind-options ssl-min-ver TLSv1.3
    ssl-default-server-options ssl-min-ver TLSv1.3
defaults
    mode tcp
    maxconn {connections}
    backlog 4096
    timeout connect 10s
    timeout client 1h
    timeout server 1h
listen link
    {bind}
    {server}
"
    )
}

pub fn stunnel_far(place: &Place) -> Made {
    let pem = certificate(&place.directory)?;
    let file = stunnel(&format!("cert = {}\naccept = {}\nconnect = {}", pem.display(), place.link, place.target));
    Ok(far(place, vec![path(&place.config)], Some(file)))
}

pub fn stunnel_near(place: &Place) -> Made {
    let file = stunnel(&format!("client = yes\naccept = {}\nconnect = {}", place.listen[0], place.link));
    Ok(near(place, vec![path(&place.config)], Some(file)))
}

fn stunnel(service: &str) -> String {
    format!(
        "foreground = yes
pid =
debug = 3
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
sslVersion = TLSv1.3
ciphersuites = {TLS_CIPHER}
[link]
{service}
"
    )
}

pub fn shadowsocks_far(place: &Place) -> Made {
    let server = place.link.to_string();
    let args = ["-s", &server, "-k", SECRET, "-m", "aes-128-gcm", "--tcp-no-delay"];
    Ok(far(place, args.map(String::from).to_vec(), None))
}

pub fn shadowsocks_near(place: &Place) -> Made {
    let (server, listen, target) = (place.link.to_string(), place.listen[0].to_string(), place.target.to_string());
    let args = ["--protocol", "tunnel", "-b", &listen, "-f", &target, "-s", &server, "-k", SECRET, "-m", "aes-128-gcm"];
    Ok(near(place, args.into_iter().chain(["--tcp-no-delay"]).map(String::from).collect(), None))
}

pub fn floor_far(place: &Place) -> Made {
    let args = [floor::ARGUMENT.into(), "far".into(), place.link.to_string(), place.target.to_string()];
    Ok(far(place, args.to_vec(), None))
}

pub fn floor_near(place: &Place) -> Made {
    let args = [floor::ARGUMENT.into(), "near".into(), place.listen[0].to_string(), place.link.to_string()];
    Ok(near(place, args.to_vec(), None))
}

/// TLS 1.3 with the cipher that the program prefers, for none can be named: AES-256-GCM.
pub fn wstunnel_far(place: &Place) -> Made {
    let args = ["--log-lvl", "OFF", "server", &format!("wss://{}", place.link)];
    Ok(far(place, args.map(String::from).to_vec(), None))
}

pub fn wstunnel_near(place: &Place) -> Made {
    let forward = format!("tcp://{}:{}", place.listen[0], place.target);
    let args = ["--log-lvl", "OFF", "client", "-L", &forward, &format!("wss://{}", place.link)];
    Ok(near(place, args.map(String::from).to_vec(), None))
}

/// The server of rathole has both ports, and its client dials it from beside the target. So the server is started first,
/// as the far node of the other pairs is.
pub fn rathole_far(place: &Place) -> Made {
    let service = format!("bind_addr = \"{}\"", place.listen[0]);
    Ok(far(place, vec![path(&place.config)], Some(rathole("server", "bind_addr", place, &service))))
}

pub fn rathole_near(place: &Place) -> Made {
    let service = format!("local_addr = \"{}\"", place.target);
    Ok(near(place, vec![path(&place.config)], Some(rathole("client", "remote_addr", place, &service))))
}

/// Noise without static keys, for the cost of the records is what is compared. Its only AES has keys of 256 bits.
fn rathole(role: &str, addr: &str, place: &Place, service: &str) -> String {
    format!(
        "[{role}]
{addr} = \"{}\"
default_token = \"{SECRET}\"
[{role}.transport]
type = \"noise\"
[{role}.transport.noise]
pattern = \"Noise_NN_25519_AESGCM_SHA256\"
[{role}.services.link]
{service}
nodelay = true
",
        place.link
    )
}

/// Creates a file with a self-signed certificate and its key. Returns its path.
fn certificate(directory: &Path) -> Result<PathBuf, String> {
    let (pem, key) = (directory.join("link.pem"), directory.join("link.key"));
    if pem.exists() {
        return Ok(pem);
    }
    let (out, key_out) = (path(&pem), path(&key));
    let wanted = ["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "2"];
    let named = ["-subj", "/CN=link", "-keyout", &key_out, "-out", &out];
    run("openssl", &[&wanted[..], &named].concat())?;
    let both = fs::read(&key).and_then(|key| Ok([fs::read(&pem)?, key].concat()));
    both.and_then(|both| fs::write(&pem, both)).map_err(|error| error.to_string())?;
    Ok(pem)
}

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let Some(path) = find(program) else { return Err(format!("{program} is not installed")) };
    let output = Command::new(path).args(args).stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(format!("{program}: {}", output.stderr.escape_ascii())) }
}

fn write_private(path: &Path, text: &str) -> Result<(), String> {
    let file: Result<File, _> = File::options().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| error.to_string())
}

fn far(place: &Place, args: Vec<String>, file: Option<String>) -> Launch {
    Launch { args, file, small: place.link, bulk: place.link }
}

fn near(place: &Place, args: Vec<String>, file: Option<String>) -> Launch {
    Launch { args, file, small: place.listen[0], bulk: place.listen[0] }
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

/// The shared secret. It protects nothing: the nodes live only during a run, in a network of their own.
const SECRET: &str = "not a secret, but long enough for one";
const SSH_CIPHER: &str = "aes128-gcm@openssh.com";
const TLS_CIPHER: &str = "TLS_AES_128_GCM_SHA256";
