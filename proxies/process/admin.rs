//! The start of the admin server: its addresses, and the errors of its settings.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;

use seaprox::Bind;
use seaprox::auth::{Modes, Secret};
use seaprox::config::{Admin, Config, StatusSocket};
use seaprox::system::group_id;

use super::exit::{Exit, Failed};
use crate::admin::{Commands, Reporter, Rules, Server, Service, TOKEN_BYTES_MIN, is_fit, socket};

/// Starts the admin server: on a Unix socket of the process unless `--status none` is given, and on the addresses of
/// `--admin`, which are returned. If the first one cannot be made, a warning says so, and the process runs without it.
///
/// # Errors
/// Fails if an address of `--admin` cannot be bound, or if other hosts could reach it without a token.
pub fn serve(
    config: &Config,
    reporter: Arc<Reporter>,
    commands: Box<dyn Commands>,
) -> Result<(Server, Vec<String>), Failed> {
    let rules = rules(&config.admin, config.modes)?;
    let group = rules.group;
    let mut server = Server::new(Arc::new(Service::new(Arc::clone(&reporter), commands, rules)));
    open_own(&mut server, &config.status);
    let own = server.addresses().len();
    for bind in &config.admin.addresses {
        let failed = |error| Failed::new(Exit::Unavailable, format!("seaprox: --admin {bind}: cannot listen: {error}"));
        if let Bind::Unix(path) = bind {
            server.open_unix(path, group).map_err(failed)?;
            continue;
        }
        let addrs = addresses(bind).map_err(failed)?;
        if let Some(addr) = addrs.iter().find(|addr| !addr.ip().is_loopback() && config.admin.token_file.is_none()) {
            return Err(unguarded(addr));
        }
        open_tcp(&mut server, &addrs).map_err(failed)?;
    }
    let unguarded =
        |error| Failed::new(Exit::Failure, format!("seaprox: --admin: the event loops do not answer: {error}"));
    reporter.guard(&server.tcp_addresses()).map_err(unguarded)?;
    let addresses = server.addresses().split_off(own);
    Ok((server, addresses))
}

/// Checks the settings of the admin server.
///
/// # Errors
/// Fails if other hosts could reach an address without a token.
pub fn check(admin: &Admin) -> Result<(), Failed> {
    admin.unguarded().map_or(Ok(()), |address| Err(unguarded(address)))
}

/// Checks the files of the admin server: the token, and the group of its users.
///
/// # Errors
/// A file cannot be used, or the group does not exist.
pub fn check_files(config: &Config) -> Result<(), Failed> {
    rules(&config.admin, config.modes).map(drop)
}

fn unguarded(address: &dyn std::fmt::Display) -> Failed {
    let text = format!("seaprox: --admin {address}: expected a loopback address, or --admin-token-file");
    Failed::new(Exit::Config, text)
}

/// Returns the rules of the guard. The token is read once, so that a file that cannot be used is told at the start.
fn rules(admin: &Admin, modes: Modes) -> Result<Rules, Failed> {
    if let Some(file) = &admin.token_file {
        let token =
            Secret::load(file, modes).map_err(|error| Failed::unusable("seaprox: --admin-token-file", &error))?;
        if !is_fit(&token) {
            let expected = format!("expected at least {TOKEN_BYTES_MIN} printable characters without spaces");
            let text = format!("seaprox: --admin-token-file {}: {expected}", file.display());
            return Err(Failed::new(Exit::Config, text));
        }
    }
    let no_group = |error| Failed::new(Exit::Config, format!("seaprox: --admin-group: {error}"));
    let group = admin.group.as_deref().map(group_id).transpose().map_err(no_group)?;
    let hosts = admin.hosts.iter().map(|host| host.trim_end_matches('.').to_ascii_lowercase()).collect();
    Ok(Rules { hosts, token_file: admin.token_file.clone(), modes, group, ..Rules::default() })
}

/// Listens on the Unix socket of the process, which `seaprox status` finds.
fn open_own(server: &mut Server, status: &StatusSocket) {
    let path = match status {
        StatusSocket::Off => return,
        StatusSocket::At(path) => Ok(path.clone()),
        StatusSocket::PerProcess => match socket::path_of(std::process::id()) {
            // A system without Unix sockets has no admin socket unless a user asks for one.
            Err(error) if error.kind() == ErrorKind::Unsupported => return,
            path => path,
        },
    };
    let shown = path.as_ref().map_or("-".into(), |path| path.display().to_string());
    if let Err(error) = path.and_then(|path| server.open_unix(&path, None)) {
        log::warn!(target: "seaprox::status", socket = shown, error = error.to_string(); "the status socket cannot be created");
    }
}

/// Listens on the TCP addresses of one `--admin`. With port 0, all of them get the port of the first one.
fn open_tcp(server: &mut Server, addrs: &[SocketAddr]) -> io::Result<()> {
    let mut first: Option<SocketAddr> = None;
    for addr in addrs {
        let port = first.map_or(addr.port(), |first| first.port());
        match server.open_tcp(SocketAddr::new(addr.ip(), port)) {
            Ok(addr) => {
                first.get_or_insert(addr);
            }
            // A host without IPv6 serves its IPv4 address.
            Err(error) if first.is_some() && error.kind() == ErrorKind::AddrNotAvailable => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Returns the addresses of a TCP address to listen on.
fn addresses(bind: &Bind) -> io::Result<Vec<SocketAddr>> {
    let addrs = match bind {
        Bind::Loopback(_, port) => vec![(Ipv4Addr::LOCALHOST, *port).into(), (Ipv6Addr::LOCALHOST, *port).into()],
        // The system gives the clients of IPv4 to the socket of IPv6.
        Bind::Any(_, port) if TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok() => {
            vec![(Ipv6Addr::UNSPECIFIED, *port).into()]
        }
        Bind::Any(_, port) => vec![(Ipv4Addr::UNSPECIFIED, *port).into()],
        Bind::Ip(_, addr) => vec![*addr],
        Bind::Name(_, name, port) => (name.as_str(), *port).to_socket_addrs()?.collect(),
        Bind::Unix(_) => Vec::new(),
        Bind::Descriptor(..) => {
            let text = "the admin server takes no sockets of the service manager";
            return Err(io::Error::new(ErrorKind::Unsupported, text));
        }
    };
    Ok(addrs)
}
