//! The peers' command lines and configuration files.

use std::net::SocketAddr;

use crate::floor;
use crate::peers::{Launch, Place};

type Made = Result<Launch, String>;

pub fn seaprox_static(place: &Place) -> Made {
    seaprox(place, &["static"], true, &[])
}

pub fn seaprox_copy(place: &Place) -> Made {
    seaprox(place, &["static"], true, &["--no-splice"])
}

/// Configures an admin server on the second address.
pub fn seaprox_admin(place: &Place) -> Made {
    seaprox(place, &["static"], true, &["--admin", &place.listen[1].to_string()])
}

pub fn seaprox_two_threads(place: &Place) -> Made {
    seaprox(place, &["static"], true, &["--threads", "2"])
}

pub fn seaprox_socks(place: &Place) -> Made {
    seaprox(place, &["socks"], false, &[])
}

pub fn seaprox_http(place: &Place) -> Made {
    seaprox(place, &["http"], false, &[])
}

fn seaprox(place: &Place, command: &[&str], fixed: bool, options: &[&str]) -> Made {
    let listen = place.listen[0];
    let mut args = words(command);
    args.extend(["--listen".into(), listen.to_string()]);
    if fixed {
        args.extend(["--to".into(), place.target.to_string()]);
    }
    args.push("-q".into());
    args.extend(words(options));
    Ok(one_port(args, None, listen))
}

/// Copies what comes to the first address, and splices what comes to the second.
pub fn floor(place: &Place) -> Made {
    let [small, bulk] = place.listen;
    let args = [floor::ARGUMENT.into(), "relay".into(), small.to_string(), bulk.to_string(), place.target.to_string()];
    Ok(Launch { args: args.to_vec(), file: None, small, bulk })
}

/// Configures one listener with splicing, for long streams, and one without, because copying short messages is cheaper.
/// A smart connect saves one packet of each new connection.
pub fn haproxy(place: &Place) -> Made {
    let [small, bulk] = place.listen;
    let (target, connections) = (place.target, place.connections_max);
    let file = format!(
        "global
    nbthread 1
    maxconn {connections}
    maxpipes 128
    tune.pipesize 1048576
defaults
    mode tcp
    maxconn {connections}
    backlog 4096
    timeout connect 10s
    timeout client 1h
    timeout server 1h
listen small
    bind {small}
    option tcp-smart-connect
    server target {target}
listen bulk
    bind {bulk}
    option splice-request
    option splice-response
    server target {target}
"
    );
    Ok(Launch { args: vec!["-db".into(), "-q".into(), "-f".into(), config(place)], file: Some(file), small, bulk })
}

/// Runs nginx as one process without a master, so that the measured process is the one that works.
pub fn nginx(place: &Place) -> Made {
    let listen = place.listen[0];
    let module =
        place.modules.iter().map(|directory| directory.join("ngx_stream_module.so")).find(|path| path.exists());
    let Some(module) = module else { return Err("its stream module is not installed".into()) };
    let file = format!(
        "load_module {};
daemon off;
master_process off;
pid {}/nginx.pid;
error_log stderr crit;
events {{
    use epoll;
    worker_connections {};
    multi_accept on;
}}
stream {{
    access_log off;
    server {{
        listen {listen} backlog=4096;
        proxy_pass {};
        proxy_buffer_size 256k;
        proxy_timeout 1h;
        tcp_nodelay on;
    }}
}}
",
        module.display(),
        place.directory.display(),
        2 * place.connections_max + 100,
        place.target
    );
    let prefix = place.directory.display().to_string();
    let args = vec!["-p".into(), prefix, "-e".into(), "stderr".into(), "-c".into(), config(place)];
    Ok(one_port(args, Some(file), listen))
}

pub fn rinetd(place: &Place) -> Made {
    let (listen, target) = (place.listen[0], place.target);
    let file = format!("{} {} {} {}\n", listen.ip(), listen.port(), target.ip(), target.port());
    Ok(one_port(vec!["-f".into(), "-c".into(), config(place)], Some(file), listen))
}

pub fn socat(place: &Place) -> Made {
    let (listen, target) = (place.listen[0], place.target);
    let from = format!("TCP4-LISTEN:{},bind={},reuseaddr,fork,backlog=4096,nodelay", listen.port(), listen.ip());
    let to = format!("TCP4:{target},nodelay");
    Ok(one_port(vec!["-b".into(), "262144".into(), from, to], None, listen))
}

pub fn microsocks(place: &Place) -> Made {
    let listen = place.listen[0];
    let args = vec!["-i".into(), listen.ip().to_string(), "-p".into(), listen.port().to_string()];
    Ok(one_port(args, None, listen))
}

pub fn danted(place: &Place) -> Made {
    let listen = place.listen[0];
    let file = format!(
        "errorlog: stderr
internal: {} port = {}
external: lo
clientmethod: none
socksmethod: none
user.privileged: root
user.unprivileged: root
client pass {{
    from: 0.0.0.0/0 to: 0.0.0.0/0
}}
socks pass {{
    from: 0.0.0.0/0 to: 0.0.0.0/0
}}
",
        listen.ip(),
        listen.port()
    );
    Ok(one_port(vec!["-f".into(), config(place)], Some(file), listen))
}

pub fn tinyproxy(place: &Place) -> Made {
    let listen = place.listen[0];
    let file = format!(
        "Port {}
Listen {}
Timeout 3600
MaxClients 10000
LogLevel Critical
DisableViaHeader Yes
",
        listen.port(),
        listen.ip()
    );
    Ok(one_port(vec!["-d".into(), "-c".into(), config(place)], Some(file), listen))
}

fn one_port(args: Vec<String>, file: Option<String>, listen: SocketAddr) -> Launch {
    Launch { args, file, small: listen, bulk: listen }
}

fn config(place: &Place) -> String {
    place.config.display().to_string()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| word.to_string()).collect()
}
