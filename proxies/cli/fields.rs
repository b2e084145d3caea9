//! The fields of options whose values have a grammar of their own: how a text sets the field, and which texts show it.

use std::path::PathBuf;

use seaprox::auth::Modes;
use seaprox::config::{ExpectedKey, KeySource, LinkPaths, ProxyDatagrams, ProxyVersion, StatusSocket, Users};
use seaprox::link::Mode;
use seaprox::node::{CARRIERS, Congestion, Path};
use seaprox::rules::RuleError;
use seaprox::{Bind, Egress, End, EndError, Family, UnixFileError, Upstream};

use super::field::Field;
use super::parsers;
use super::values::LogFormat;
use crate::links::addresses;

/// The family that is tried first. `--only` follows in the table and takes precedence.
pub const PREFER: Field = Field::Choice(
    |d, index| d.process.loops.family = [Family::PreferIpv4, Family::PreferIpv6][index],
    |d| [Family::PreferIpv4, Family::PreferIpv6].iter().position(|family| *family == d.process.loops.family),
);
pub const ONLY: Field = Field::Choice(
    |d, index| d.process.loops.family = [Family::OnlyIpv4, Family::OnlyIpv6][index],
    |d| [Family::OnlyIpv4, Family::OnlyIpv6].iter().position(|family| *family == d.process.loops.family),
);
pub const MODE: Field = Field::Choice(
    |d, index| d.process.node.mode = [Mode::Stripe, Mode::Single, Mode::Redundant][index],
    |d| [Mode::Stripe, Mode::Single, Mode::Redundant].iter().position(|mode| *mode == d.process.node.mode),
);
pub const CARRIER: Field = Field::Choice(
    |d, index| d.process.node.carrier = CARRIERS[index].kind,
    |d| CARRIERS.iter().position(|row| row.kind == d.process.node.carrier),
);
pub const CONGESTION: Field = Field::Choice(
    |d, index| d.process.node.timing.congestion = Congestion::ALL[index],
    |d| Congestion::ALL.iter().position(|kind| *kind == d.process.node.timing.congestion),
);
pub const LOG_FORMAT: Field =
    Field::Choice(|d, index| d.log_format = [LogFormat::Text, LogFormat::Json][index], |d| Some(d.log_format as usize));
pub const STRICT_MODES: Field = Field::Text(
    |d, text| {
        d.process.modes = if parsers::flag(text)? { Modes::Lax } else { Modes::Strict };
        Ok(())
    },
    |d| vec![(d.process.modes == Modes::Lax).to_string()],
);
pub const STATUS_SOCKET: Field = Field::Text(
    |d, text| {
        d.process.status = parsers::status(text)?;
        Ok(())
    },
    |d| match &d.process.status {
        StatusSocket::PerProcess => Vec::new(),
        StatusSocket::At(path) => vec![format!("unix:{}", path.display())],
        StatusSocket::Off => vec!["none".to_owned()],
    },
);
pub const ADMIN: Field = Field::List(
    |d, text| {
        let bind = Bind::parse(text).map_err(|error| error.to_string())?;
        bind.proto().require_tcp().map_err(|error| error.to_string())?;
        d.process.admin.addresses.push(bind);
        Ok(())
    },
    |d| d.process.admin.addresses.iter().map(ToString::to_string).collect(),
    |d| d.process.admin.addresses.clear(),
);
pub const ADMIN_GROUP: Field = Field::Text(
    |d, text| {
        d.process.admin.group = Some(text.to_owned());
        Ok(())
    },
    |d| d.process.admin.group.iter().cloned().collect(),
);
pub const ADMIN_HOST: Field = Field::List(
    |d, text| {
        d.process.admin.hosts.push(text.to_owned());
        Ok(())
    },
    |d| d.process.admin.hosts.clone(),
    |d| d.process.admin.hosts.clear(),
);
/// In a file, `none` replaces the users of the defaults.
pub const USERS: Field = Field::Text(
    |d, text| {
        d.process.access.users = if text == "none" { Users::Anyone } else { Users::File(text.into()) };
        Ok(())
    },
    |d| match &d.process.access.users {
        Users::Anyone => vec!["none".to_owned()],
        Users::File(path) => vec![path.display().to_string()],
    },
);
pub const CPU: Field = Field::Text(
    |d, text| {
        d.process.loops.cpus = parsers::cpus(text)?;
        Ok(())
    },
    |d| list(&d.process.loops.cpus, ToString::to_string),
);
pub const CIPHER: Field = Field::Text(
    |d, text| {
        d.process.node.ciphers = parsers::ciphers(text)?;
        Ok(())
    },
    |d| list(&d.process.node.ciphers, |cipher| cipher.name().to_owned()),
);
pub const KEY_EXCHANGE: Field = Field::Text(
    |d, text| {
        d.process.node.groups = parsers::groups(text)?;
        Ok(())
    },
    |d| list(&d.process.node.groups, |group| group.name().to_ascii_lowercase()),
);
pub const KEY_FILE: Field = Field::Text(
    |d, text| {
        d.process.node.key = KeySource::File(Some(text.into()));
        Ok(())
    },
    |d| match &d.process.node.key {
        KeySource::File(path) => shown(path),
        KeySource::Secret(_) => Vec::new(),
    },
);
/// `--secret` follows `--key` in the table and takes precedence.
pub const SECRET_FILE: Field = Field::Text(
    |d, text| {
        d.process.node.key = KeySource::Secret(text.into());
        Ok(())
    },
    |d| match &d.process.node.key {
        KeySource::File(_) => Vec::new(),
        KeySource::Secret(path) => vec![path.display().to_string()],
    },
);
/// The mode of the files of Unix sockets.
pub const UNIX_MODE: Field = Field::Text(
    |d, text| {
        d.process.loops.unix_mode = Some(text.parse().map_err(|error: UnixFileError| error.to_string())?);
        Ok(())
    },
    |d| d.process.loops.unix_mode.iter().map(ToString::to_string).collect(),
);
/// The owner of the files of Unix sockets.
pub const UNIX_OWNER: Field = Field::Text(
    |d, text| {
        d.process.loops.unix_owner = Some(text.parse().map_err(|error: UnixFileError| error.to_string())?);
        Ok(())
    },
    |d| d.process.loops.unix_owner.iter().map(ToString::to_string).collect(),
);
pub const SOURCE: Field = Field::Text(
    |d, text| {
        let none = Path::default();
        let Path { carrier, source, local_port: port, interface, peer, .. } = if text == "none" {
            none
        } else {
            addresses::path(text, addresses::PORT).map_err(|error| error.to_string())?
        };
        if peer.is_some() || carrier.is_some() {
            return Err("expected ADDRESS[:PORT][%INTERFACE], such as 10.0.0.2 or %eth1".to_owned());
        }
        d.process.egress = Egress { source, port, interface, ..std::mem::take(&mut d.process.egress) };
        Ok(())
    },
    |d| {
        let Egress { source, port, interface, .. } = d.process.egress.clone();
        let path = Path { source, local_port: port, interface, ..Path::default() };
        vec![if path == Path::default() { "none".to_owned() } else { path.to_string() }]
    },
);
/// The words are those of `--bind-source`.
pub const BIND_SOURCE: Field = Field::Choice(
    |d, index| d.process.egress.transparent = index == 1,
    |d| Some(usize::from(d.process.egress.transparent)),
);
pub const PROXY_ACCEPT: Field = Field::Text(
    |d, text| {
        let network = text.parse().map_err(|error: RuleError| error.to_string())?;
        d.listener.proxy_protocol.accept_from.push(network);
        Ok(())
    },
    |d| d.listener.proxy_protocol.accept_from.iter().map(ToString::to_string).collect(),
);
pub const PROXY_SEND: Field = Field::Choice(
    |d, index| d.listener.proxy_protocol.send = PROXY_VERSIONS.get(index).copied(),
    |d| PROXY_VERSIONS.iter().position(|version| Some(*version) == d.listener.proxy_protocol.send),
);
pub const PROXY_UDP: Field = Field::Choice(
    |d, index| d.listener.proxy_protocol.datagrams = [ProxyDatagrams::Each, ProxyDatagrams::First][index],
    |d| Some(d.listener.proxy_protocol.datagrams as usize),
);
pub const PROXY_SEND_TO: Field = Field::Text(
    |d, text| {
        let form = "expected TARGET=v1, TARGET=v2 or TARGET=none, with a target of the listener";
        let (target, word) = text.rsplit_once('=').ok_or(form)?;
        let version = match word {
            "v1" => Some(ProxyVersion::V1),
            "v2" => Some(ProxyVersion::V2),
            "none" => None,
            _ => return Err(form.to_owned()),
        };
        let target = Upstream::parse(target).map_err(|error| error.to_string())?;
        d.listener.proxy_protocol.send_to.push((target, version));
        Ok(())
    },
    |d| {
        let shown = |(target, version): &(Upstream, Option<ProxyVersion>)| {
            let word = match version {
                Some(ProxyVersion::V1) => "v1",
                Some(ProxyVersion::V2) => "v2",
                None => "none",
            };
            format!("{target}={word}")
        };
        d.listener.proxy_protocol.send_to.iter().map(shown).collect()
    },
);
/// The header for targets of forwards, and of peers that dial this node.
pub const PROXY_SEND_LINKS: Field = Field::Choice(
    |d, index| {
        let version = PROXY_VERSIONS.get(index).copied();
        (d.link.proxy_protocol_send, d.server.proxy_protocol_send) = (version, version);
    },
    |d| {
        let version = d.link.proxy_protocol_send.or(d.server.proxy_protocol_send);
        PROXY_VERSIONS.iter().position(|one| Some(*one) == version)
    },
);
const PROXY_VERSIONS: [ProxyVersion; 2] = [ProxyVersion::V1, ProxyVersion::V2];
/// The ends of the peers of links of both kinds.
pub const PERMIT_END: Field = Field::List(
    |d, text| {
        let end: End = text.parse().map_err(|error: EndError| error.to_string())?;
        if d.server.ends.iter().any(|other| other.name == end.name) {
            return Err(format!("each name once; {} is there already", end.name));
        }
        d.link.ends.push(end.clone());
        d.server.ends.push(end);
        Ok(())
    },
    |d| {
        let ends = if d.link.ends.is_empty() { &d.server.ends } else { &d.link.ends };
        ends.iter().map(End::to_string).collect()
    },
    |d| (d.link.ends, d.server.ends) = (Vec::new(), Vec::new()),
);
pub const KNOWN_NODES: Field = Field::Text(
    |d, text| {
        d.link.expected_key = ExpectedKey::Known(Some(text.into()));
        Ok(())
    },
    |d| match &d.link.expected_key {
        ExpectedKey::Known(path) => shown(path),
        ExpectedKey::Pinned(_) => Vec::new(),
    },
);
pub const PEER_KEY: Field = Field::Text(
    |d, text| {
        let pin = text.parse().map_err(|error: seaprox::config::PinError| error.to_string())?;
        d.link.expected_key = ExpectedKey::Pinned(pin);
        Ok(())
    },
    |d| match &d.link.expected_key {
        ExpectedKey::Known(_) => Vec::new(),
        ExpectedKey::Pinned(pin) => vec![pin.to_string()],
    },
);
/// The peer of the link is known before its paths.
pub const PATH: Field = Field::Text(
    |d, text| {
        let port = d.link.peers.iter().find_map(seaprox::Upstream::port).unwrap_or(addresses::PORT);
        d.paths.push(addresses::path(text, port).map_err(|error| error.to_string())?);
        d.link.paths = LinkPaths::List(d.paths.clone());
        Ok(())
    },
    |d| match &d.link.paths {
        LinkPaths::List(paths) if d.link.paths != LinkPaths::default() => paths.iter().map(Path::to_string).collect(),
        _ => Vec::new(),
    },
);
pub const PATHS: Field = Field::Text(
    |d, text| {
        d.link.paths = LinkPaths::File(text.into());
        Ok(())
    },
    |d| match &d.link.paths {
        LinkPaths::List(_) => Vec::new(),
        LinkPaths::File(path) => vec![path.display().to_string()],
    },
);
/// Returns a path that may be set, as text.
fn shown(path: &Option<PathBuf>) -> Vec<String> {
    path.iter().map(|path| path.display().to_string()).collect()
}

/// Returns a list of words, as one text with commas between them.
fn list<T>(values: &[T], word: impl Fn(&T) -> String) -> Vec<String> {
    if values.is_empty() { Vec::new() } else { vec![values.iter().map(word).collect::<Vec<_>>().join(",")] }
}
