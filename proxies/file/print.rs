//! A configuration as a file: the whole, with every default, so that each value in effect can be seen.

use std::fmt::Write as _;

use seaprox::Proto;
use seaprox::config::{Config, FrontEndConfig, Link, Listener, OptionValue, Server, Service};

use super::variables::escape;
use crate::cli::{Draft, LogFormat, OPTIONS, OptionSpec, Section, Value};

/// Returns the configuration as a file that loads to an equal one. A record shows what differs from `[defaults]`.
pub fn print(config: &Config, log_format: LogFormat) -> String {
    let mut base = Draft { log_format, ..Draft::default() };
    base.process = Config { listeners: Vec::new(), links: Vec::new(), servers: Vec::new(), ..config.clone() };
    let mut out = String::new();
    options(&mut out, Section::Process, &base, None);
    out.push_str("\n[defaults]\n");
    options(&mut out, Section::Defaults, &base, None);
    config.listeners.iter().for_each(|it| listener(&mut out, config, &base, it));
    config.links.iter().for_each(|it| link(&mut out, config, &base, it));
    config.servers.iter().for_each(|it| server(&mut out, config, &base, it));
    out
}

/// Writes the options of a section: all that are set, or those that differ from `base`.
fn options(out: &mut String, section: Section, draft: &Draft, base: Option<&Draft>) {
    for spec in OPTIONS.iter().filter(|spec| spec.sections.has(section)) {
        let texts = |draft: &Draft| spec.field_in(section).texts(draft, spec.value);
        let found = texts(draft);
        let is_shown = match base {
            // An option that is not set has no text; an option that repeats is then an empty array.
            Some(base) => found != texts(base) && (spec.repeat || !found.is_empty()),
            None => !found.is_empty(),
        };
        if is_shown {
            key(out, spec, &found);
        }
    }
}

/// Writes an option with its values.
fn key(out: &mut String, spec: &OptionSpec, texts: &[String]) {
    let value = |text: &String| match spec.value {
        Value::None | Value::Number(..) => text.clone(),
        _ => quoted(text),
    };
    let values: Vec<_> = texts.iter().map(value).collect();
    let _ = match &values[..] {
        [value] if !spec.repeat => writeln!(out, "{} = {value}", spec.long),
        _ => writeln!(out, "{} = [{}]", spec.long, values.join(", ")),
    };
}

fn listener(out: &mut String, config: &Config, base: &Draft, listener: &Listener) {
    let whole = config.resolved_listener(listener);
    let mut draft = base.clone();
    let process = &mut draft.process;
    process.access.rules = whole.rules.unwrap_or_default();
    process.access.users = whole.users.unwrap_or_default();
    process.loops.timeouts = listener.timers.timeouts(&process.loops.timeouts);
    process.loops.limits.backlog = whole.backlog.unwrap_or(process.loops.limits.backlog);
    process.loops.family = whole.family.unwrap_or(process.loops.family);
    process.loops.nodelay = whole.nodelay.unwrap_or(process.loops.nodelay);
    process.loops.tcp_keepalive = whole.tcp_keepalive.unwrap_or(process.loops.tcp_keepalive);
    process.loops.unix_mode = whole.unix_mode;
    process.loops.unix_owner = whole.unix_owner;
    process.egress = whole.egress.unwrap_or_default();
    draft.listener = listener.clone();
    let addresses: Vec<_> = listener.addresses.iter().map(|address| quoted(&address.to_string())).collect();
    let _ = writeln!(
        out,
        "\n[[listener]]\nname = {}\nlisten = [{}]\nfront = {}",
        quoted(&listener.name),
        addresses.join(", "),
        quoted(&listener.front_end.name)
    );
    for (name, value) in &listener.front_end.options {
        let value = match value {
            OptionValue::Flag(_) | OptionValue::Number(_) => value.to_string(),
            OptionValue::Targets(all) => {
                let all: Vec<_> = all.iter().map(|target| quoted(&target.to_string())).collect();
                format!("[{}]", all.join(", "))
            }
            value => quoted(&value.to_string()),
        };
        let _ = writeln!(out, "{name} = {value}");
    }
    if let Some(link) = &listener.link {
        let _ = writeln!(out, "via = {}", quoted(link));
    }
    options(out, Section::Listener, &draft, Some(base));
}

fn link(out: &mut String, config: &Config, base: &Draft, link: &Link) {
    let whole = config.resolved_link(link);
    let mut draft = base.clone();
    let node = &mut draft.process.node;
    node.carrier = whole.carrier.unwrap_or(node.carrier);
    node.mode = whole.mode.unwrap_or(node.mode);
    node.timing = whole.timing.unwrap_or_else(|| node.timing.clone());
    draft.link = link.clone();
    let peers: Vec<String> = link.peers.iter().map(|peer| quoted(&peer.to_string())).collect();
    let peers = if let [peer] = &peers[..] { peer.clone() } else { format!("[{}]", peers.join(", ")) };
    let _ = writeln!(out, "\n[[link]]\nname = {}\nconnect = {peers}", quoted(&link.name));
    options(out, Section::Link, &draft, Some(base));
    if link.forwards.is_empty() {
        return;
    }
    out.push_str("forward = [\n");
    for forward in &link.forwards {
        let (kind, text) = match &forward.service {
            Service::Remote(to) => ("remote", of_both(&forward.listen.to_string(), &to.to_string())),
            Service::Local(front_end) => local(&forward.listen.to_string(), front_end),
        };
        let _ = writeln!(out, "  {{ {kind} = {}, name = {} }},", quoted(&text), quoted(&forward.name));
    }
    out.push_str("]\n");
}

/// Returns the text of a forward from one address to the other. The protocol of both stands in front of the first one alone.
fn of_both(listen: &str, to: &str) -> String {
    format!("{listen}:{}", Proto::split(to).1)
}

/// Returns the kind and the text of a local forward.
fn local(listen: &str, front_end: &FrontEndConfig) -> (&'static str, String) {
    match (front_end.name.as_str(), front_end.upstreams("to").first()) {
        (_, Some(to)) => ("local", of_both(listen, &to.to_string())),
        ("http", None) => ("http", listen.to_owned()),
        _ => ("dynamic", listen.to_owned()),
    }
}

fn server(out: &mut String, config: &Config, base: &Draft, server: &Server) {
    let whole = config.resolved_server(server);
    let mut draft = base.clone();
    let node = &mut draft.process.node;
    node.carrier = whole.carrier.unwrap_or(node.carrier);
    node.mode = whole.mode.unwrap_or(node.mode);
    node.timing = whole.timing.unwrap_or_else(|| node.timing.clone());
    draft.server = server.clone();
    let addresses: Vec<_> = server.addresses.iter().map(|address| quoted(&address.to_string())).collect();
    let _ = writeln!(out, "\n[[serve]]\nname = {}\nlisten = [{}]", quoted(&server.name), addresses.join(", "));
    options(out, Section::Serve, &draft, Some(base));
}

/// Returns a text as a basic string of TOML.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for char in escape(text).chars() {
        match char {
            '"' | '\\' => out.extend(['\\', char]),
            char if char.is_control() => {
                let _ = write!(out, "\\u{:04x}", char as u32);
            }
            char => out.push(char),
        }
    }
    out.push('"');
    out
}
