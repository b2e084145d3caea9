//! The limits of a process within those of the system.

use std::path::Path;

use seaprox::config::{Config, Listener};
use seaprox::{DESCRIPTORS_RESERVED, Limits, Proto};

use super::admin;
use super::exit::{Exit, Failed};
use crate::cli::{Draft, Parsed};
use crate::file::{self, Environment, Loaded, Problems};
use crate::frontends::socks;

/// Raises the descriptor limit as far as the system allows, and reduces pipes, flows of datagrams and connections to it. A
/// connection takes two descriptors, and so does a pipe; a flow takes one, and all flows at most a quarter, or those that fewer
/// connections leave. The flows of a process that `has_flows` come out of the room of its connections.
fn fit_descriptors(limits: &mut Limits, has_flows: bool, is_first: bool) {
    let granted = match seaprox::raise_descriptor_limit() {
        Ok(granted) => usize::try_from(granted).unwrap_or(usize::MAX),
        Err(error) => {
            return log::warn!(target: "seaprox::settings", error = error.to_string(); "the descriptor limit cannot be read");
        }
    };
    // Under a small limit descriptors are better spent on connections than on pipes.
    limits.pipes = limits.pipes.min(granted / 8);
    let room = granted.saturating_sub(DESCRIPTORS_RESERVED.min(granted / 2) + 2 * limits.pipes);
    fit_flows(limits, is_first, granted, room);
    let room = room.saturating_sub(if has_flows { limits.flows } else { 0 }) / 2;
    if limits.connections > room {
        // A warning if the user set a number that cannot be reached, or if the result is low even for the default.
        let is_surprise = room < FEW_CONNECTIONS || limits.connections != Limits::default().connections;
        let level = if is_surprise && is_first { log::Level::Warn } else { log::Level::Debug };
        log::log!(target: "seaprox::settings", level, descriptors = granted, wished = limits.connections, connections = room; "the descriptor limit allows fewer connections than --max-connections");
        limits.connections = room.max(1);
    }
}

/// Reduces the flows of datagrams to a part of the descriptors that leaves `room` for connections, too.
fn fit_flows(limits: &mut Limits, is_first: bool, granted: usize, room: usize) {
    let spare = room.saturating_sub(2 * limits.connections);
    let flows = (granted / FLOWS_SHARE).min(room / 2).max(spare).max(1);
    if limits.flows > flows {
        let is_surprise = limits.flows != Limits::default().flows;
        let level = if is_surprise && is_first { log::Level::Warn } else { log::Level::Debug };
        log::log!(target: "seaprox::settings", level, descriptors = granted, wished = limits.flows, flows = flows; "the descriptor limit allows fewer flows than --udp-flows");
        limits.flows = flows;
        fit_flows_per_source(limits, is_first);
    }
}

/// Reduces the flows of one client network to a part of the reduced flows of the process, so no client takes all of them.
fn fit_flows_per_source(limits: &mut Limits, is_first: bool) {
    let (wished, most) = (limits.flows_per_source, (limits.flows / SOURCE_SHARE).max(1));
    if wished > most {
        let is_surprise = wished != Limits::default().flows_per_source;
        let level = if is_surprise && is_first { log::Level::Warn } else { log::Level::Debug };
        log::log!(target: "seaprox::settings", level, flows = limits.flows, wished = wished, flows_per_source = most; "the descriptor limit allows fewer flows of one client than --udp-flows-per-source");
        limits.flows_per_source = most;
    }
}

/// Reduces the connections and flows of a configuration to what the descriptor limit of the system allows. Returns true if flows
/// of datagrams have a part of their own.
pub fn fit(config: &mut Config) -> bool {
    let has_flows = carries_datagrams(config);
    fit_descriptors(&mut config.loops.limits, has_flows, true);
    has_flows
}

/// Reduces the limits of a configuration that takes the place of another one, with the division that its process has had from its
/// start.
pub fn fit_again(config: &mut Config, has_flows: bool) {
    fit_descriptors(&mut config.loops.limits, has_flows, false);
}

/// Returns true if clients or peers of a configuration can open flows of datagrams.
fn carries_datagrams(config: &Config) -> bool {
    let listens = |listener: &Listener| {
        listener.front_end.name == socks::SPEC.name
            || listener.addresses.iter().any(|address| address.proto() == Proto::Udp)
    };
    config.has_links() || config.listeners.iter().any(listens)
}

/// Returns the configuration that the options ask for, with the connections and flows reduced to what the descriptor limit of the
/// system allows.
///
/// # Errors
/// Fails if an option is wrong, or if the configuration as a whole cannot be used.
pub fn config(parsed: &Parsed) -> Result<Config, Failed> {
    let mut config = parsed.config()?;
    admin::check(&config.admin)?;
    fit(&mut config);
    parsed.check(&config)?;
    Ok(config)
}

/// Returns the configuration of the file that the command names. The options of the command take precedence over it.
///
/// # Errors
/// Fails if an option is wrong, or with all errors of the file.
pub fn load(parsed: &Parsed) -> Result<Loaded, Failed> {
    parsed.fill_process(&mut Draft::default())?;
    let path = parsed.frees().first().map_or("", String::as_str);
    let variable = |name: &str| std::env::var(name).ok();
    let environment = Environment { variable: &variable, options: Some(parsed), modes: parsed.modes()? };
    file::load(Path::new(path), &environment).map_err(Failed::from)
}

impl From<Problems> for Failed {
    fn from(problems: Problems) -> Failed {
        Failed::new(Exit::Config, problems.to_string())
    }
}

/// Part of the descriptors that flows of datagrams may take: one in so many. A flood of clients with forged addresses takes it all.
const FLOWS_SHARE: usize = 4;
/// Part of the flows that one client network may have, if there are fewer of them than wished: one in so many, as by default.
const SOURCE_SHARE: usize = 4;
/// The number of connections below which a reduced default is logged as a warning.
const FEW_CONNECTIONS: usize = 1000;
